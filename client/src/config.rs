//! What a run is to do, as meant: accounts, put together from the configuration file and the command line.
//!
//! Everything is settled here (paths absolute, patterns compiled, defaults filled in), so that nothing further down
//! looks at the environment. It must never know what a run finds. The file itself is read in [`mod@file`], and what was typed is put above it by [`fn@resolve`].

pub mod address;
pub mod file;
mod resolve;

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::BaseStrategy as _;

use crate::config::address::{Address, AddressError};
use crate::config::file::{Hooks, Metered};
use crate::merge::filter::{Filter, FilterError};
use crate::merge::guard::MaxDelete;
use crate::merge::mapping::{FolderNames, Layout, Setting};

pub use resolve::{Resolved, TypedPair, resolve, state_dir, watched};

/// How long deleted and replaced messages are kept, in days, where nothing else is said.
pub const TRASH_DAYS: u32 = 30;

/// How long a silent server is waited for, where nothing else is said.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// One pair of replicas and how to sync them.
#[derive(Clone, PartialEq, Debug)]
pub struct Account {
    /// The name in the configuration, or the remote's address as it was typed.
    pub name: String,
    /// Where the remote replica is; a local path is absolute.
    pub remote: Address,
    /// Where the local replica is, absolute.
    pub local: PathBuf,
    /// Which folders are dealt with.
    pub filter: Filter,
    /// How much may be deleted.
    pub guard: MaxDelete,
    /// Carry out no deletion.
    pub no_delete: bool,
    /// How long this side's trash keeps, in days.
    pub trash_days: u32,
    /// How long the ssh connection stays open after a run.
    pub persist: Option<Duration>,
    /// How long a silent server is waited for while something is due from it.
    pub timeout: Duration,
    /// What to run with `sh -c` before and after a run.
    pub hooks: Hooks,
    /// The command that starts the agent.
    pub server_command: Option<String>,
    /// The private key to log in with.
    pub identity: Option<PathBuf>,
    /// The ssh config to use.
    pub ssh_config: Option<PathBuf>,
    /// How folders lie in the local root; found by looking where it is not said.
    pub layout: Option<Layout>,
    /// How folder names are written in the local root; found by looking where it is not said.
    pub folder_names: Option<FolderNames>,
    /// Whether symbolic links to folders are followed here.
    pub follow_links: bool,
    /// Trust no cached digest.
    pub checksum: bool,
    /// What `watch` does on a metered network.
    pub metered: Metered,
    /// Write nothing.
    pub dry_run: bool,
    /// Treat it as a first sync.
    pub adopt: bool,
    /// The plan whose deletions a person confirmed.
    pub confirm: Option<String>,
    /// Where the memory of earlier runs lies, absolute.
    pub state_dir: PathBuf,
}

impl Account {
    /// What is set of how the tree here is laid out.
    #[must_use]
    pub fn setting(&self) -> Setting {
        Setting {
            layout: self.layout,
            folder_names: self.folder_names,
        }
    }
}

/// Why there is nothing that could be run; every one is a matter of usage (exit 2).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not hold what it should.
    #[error("{}, line {line}: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is the matter, and the remedy.
        why: String,
    },
    /// The file cannot be read.
    #[error("Cannot read \"{}\": {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// There is no account at all.
    #[error("{}", no_account(.path, .name.as_deref(), .last.as_deref()))]
    NoAccount {
        /// Where they would be.
        path: PathBuf,
        /// What was typed, escaped.
        name: Option<String>,
        /// The command line that names the pair that was synced last.
        last: Option<String>,
    },
    /// No account has this name.
    #[error("Unknown account \"{name}\"{hint}")]
    UnknownAccount {
        /// What was typed, escaped.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// One half of the pair is missing or is not what it should be.
    #[error("{0}")]
    Target(String),
    /// An address is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A pattern is none.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The home directory is not known.
    #[error("Cannot find your home directory: set HOME")]
    Home,
}

impl ConfigError {
    fn is_missing_file(&self) -> bool {
        matches!(self, ConfigError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

fn no_account(path: &Path, name: Option<&str>, last: Option<&str>) -> String {
    if let Some(last) = last {
        return format!("No account is configured; for the pair that was synced last, run: {last}");
    }
    let unknown = name.map(|name| format!("Unknown account \"{name}\": "));
    let none = if name.is_some() { "no" } else { "No" };
    let is_bare = |name: &&str| {
        let mut bytes = name.bytes();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    format!(
        "{}{none} account is configured. Name both sides, as in\n\n  maildir-sync pull {EXAMPLE} ~/Maildir\n\nor write {} with\n\n  \
         [account.{}]\n  remote = \"{EXAMPLE}\"\n  local  = \"~/Maildir\"\n",
        unknown.unwrap_or_default(),
        path.display(),
        name.filter(is_bare).unwrap_or("home"),
    )
}

const EXAMPLE: &str = "me@mail.example.org:Maildir";

/// The directories that the environment gives.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// The home directory.
    pub home: PathBuf,
    /// The working directory.
    pub current: PathBuf,
    /// `$XDG_CONFIG_HOME/maildir-sync`.
    pub config: PathBuf,
    /// `$XDG_STATE_HOME/maildir-sync`.
    pub state: PathBuf,
}

impl Dirs {
    /// Asks the environment.
    ///
    /// # Errors
    /// When there is no home directory, or no working directory.
    pub fn from_env() -> Result<Dirs, ConfigError> {
        let xdg = etcetera::base_strategy::Xdg::new().map_err(|_| ConfigError::Home)?;
        let current = std::env::current_dir().map_err(|source| ConfigError::Read {
            path: PathBuf::from("."),
            source,
        })?;
        let home = xdg.home_dir().to_owned();
        let state = xdg.state_dir().unwrap_or_else(|| home.join(".local/state"));
        Ok(Dirs {
            config: xdg.config_dir().join("maildir-sync"),
            state: state.join("maildir-sync"),
            home,
            current,
        })
    }
}

#[cfg(test)]
mod tests;
