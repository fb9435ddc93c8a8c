//! What a run is to do, as meant: accounts, put together from the configuration file and the command line.
//!
//! Everything is settled here (paths absolute, patterns compiled, defaults filled in), so that nothing further down
//! looks at the environment. The file itself is read in [`file`].

pub mod file;

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use etcetera::BaseStrategy as _;
use protocol::bytes::escape;
use serde::Deserialize;

use crate::address::{Address, AddressError};
use crate::cli::SyncArgs;
use crate::filter::{Filter, FilterError, Verdict};

use file::{Accounts, Keys};

/// How long deleted and replaced messages are kept, in days, where nothing else is said.
pub const TRASH_DAYS: u32 = 30;

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
    /// What to run with `sh -c` when something changed here.
    pub post_hook: Option<String>,
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
    /// Trust no cached digest.
    pub checksum: bool,
    /// Write nothing.
    pub dry_run: bool,
    /// Treat it as a first sync.
    pub adopt: bool,
    /// The plan whose deletions a person confirmed.
    pub confirm: Option<String>,
    /// Where the memory of earlier runs lies, absolute.
    pub state_dir: PathBuf,
}

/// How much may be deleted before the guard stops it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MaxDelete {
    /// The guard's own numbers.
    #[default]
    Default,
    /// So many messages.
    Count(u64),
    /// Such a share of the messages, 0 to 100; 100 is no guard at all.
    Percent(u8),
}

/// How folders lie in a root.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum Layout {
    /// `.Lists.debian`
    #[serde(rename = "maildir++")]
    MaildirPlusPlus,
    /// `Lists/debian`
    #[serde(rename = "nested")]
    Nested,
}

/// How folder names are written on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum FolderNames {
    /// UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// IMAP's modified UTF-7.
    #[serde(rename = "utf-7")]
    Utf7,
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
    #[error("No account is configured. Name both sides, as in\n\n  maildir-sync pull {EXAMPLE} ~/Maildir\n\nor write {} with\n\n  [account.home]\n  remote = \"{EXAMPLE}\"\n  local  = \"~/Maildir\"\n", .0.display())]
    NoAccount(PathBuf),
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

/// Puts together the accounts that a run deals with, in the order of the file.
///
/// # Errors
/// When the file or the command line is wrong, or names nothing to do.
pub fn resolve(args: &SyncArgs, dirs: &Dirs) -> Result<Vec<Account>, ConfigError> {
    match (&args.target.account_or_remote, &args.target.local) {
        (Some(remote), Some(local)) => Ok(vec![typed(args, dirs, remote, local)?]),
        (Some(remote), None) if Address::looks_like_one(remote) => {
            let remote = Address::parse(remote)?;
            Err(ConfigError::Target(format!(
                "Name the Maildir on this machine too, as in: {remote} ~/Maildir"
            )))
        }
        (name, None) => configured(args, dirs, name.as_deref()),
        (None, Some(_)) => Err(ConfigError::Target(
            "Name the remote before the local Maildir".to_owned(),
        )),
    }
}

/// The pair that was typed; the configuration file has no say in it.
fn typed(
    args: &SyncArgs,
    dirs: &Dirs,
    remote: &OsStr,
    local: &Path,
) -> Result<Account, ConfigError> {
    if args.places.config.is_some() {
        return Err(ConfigError::Target(
            "--config names accounts: leave out either it or REMOTE LOCAL".to_owned(),
        ));
    }
    if !Address::looks_like_one(remote) {
        let name = escape(remote.as_encoded_bytes());
        return Err(ConfigError::Target(format!(
            "\"{name}\" is no remote: write host:path or ./path, or name one account alone"
        )));
    }
    if let Ok(Address::Ssh { .. }) = Address::parse(local.as_os_str()) {
        return Err(ConfigError::Target(format!(
            "The local side comes second and is a path; write \"./{0}\" if \"{0}\" is one",
            escape(local.as_os_str().as_encoded_bytes())
        )));
    }
    let remote = Address::parse(remote)?;
    build(
        remote.to_string(),
        remote,
        local,
        Keys::default(),
        args,
        (&dirs.current, dirs),
    )
}

/// The accounts of the file, or the one of them that is named.
fn configured(
    args: &SyncArgs,
    dirs: &Dirs,
    name: Option<&OsStr>,
) -> Result<Vec<Account>, ConfigError> {
    let path = match &args.places.config {
        Some(path) => absolute(path, &dirs.current, dirs),
        None => dirs.config.join("config.toml"),
    };
    let accounts = match Accounts::read(&path) {
        Ok(accounts) if accounts.names().next().is_some() => accounts,
        Ok(_) => return Err(ConfigError::NoAccount(path)),
        Err(error) if error.is_missing_file() && args.places.config.is_none() => {
            return Err(ConfigError::NoAccount(path));
        }
        Err(error) => return Err(error),
    };
    if let Some(name) = name.filter(|&name| !accounts.names().any(|known| known == name)) {
        return Err(unknown_account(name, &accounts));
    }
    let wanted = |account: &str| name.is_none_or(|name| name == account);
    let chosen = accounts
        .accounts
        .iter()
        .filter(|(account, _)| wanted(account.get_ref()));
    chosen
        .map(|(name, keys)| from_file(&path, &accounts, name, keys, args, dirs))
        .collect()
}

fn unknown_account(name: &OsStr, accounts: &Accounts) -> ConfigError {
    let name = escape(name.as_encoded_bytes());
    let hint = match nearest(&name, accounts.names()) {
        Some(meant) => format!(", did you mean \"{}\"?", escape(meant.as_bytes())),
        None => {
            let known: Vec<String> = accounts
                .names()
                .map(|known| escape(known.as_bytes()))
                .collect();
            format!("; the config file has: {}", known.join(", "))
        }
    };
    ConfigError::UnknownAccount { name, hint }
}

/// One account of the file, under the options that were typed.
fn from_file(
    path: &Path,
    accounts: &Accounts,
    name: &toml::Spanned<String>,
    keys: &Keys,
    args: &SyncArgs,
    dirs: &Dirs,
) -> Result<Account, ConfigError> {
    let shown = escape(name.get_ref().as_bytes());
    let missing = |what: &str| {
        accounts.error_at(
            path,
            &name.span(),
            format!("Account \"{shown}\" has no {what}"),
        )
    };
    if name.get_ref().is_empty()
        || name.get_ref().starts_with('-')
        || Address::looks_like_one(OsStr::new(name.get_ref()))
    {
        let why = format!("\"{shown}\" is no name for an account: it could not be typed as one");
        return Err(accounts.error_at(path, &name.span(), why));
    }
    let remote = keys.remote.as_ref().ok_or_else(|| missing("remote"))?;
    let local = keys.local.as_ref().ok_or_else(|| missing("local"))?;
    let address = Address::parse(OsStr::new(remote.get_ref()));
    let address =
        address.map_err(|error| accounts.error_at(path, &remote.span(), error.to_string()))?;
    let local = Path::new(local.get_ref());
    build(
        name.get_ref().clone(),
        address,
        local,
        keys.clone(),
        args,
        (&dirs.home, dirs),
    )
}

/// Settles everything; `base` is what paths of `keys` and of both sides are relative to, while those of options are
/// relative to the working directory.
fn build(
    name: String,
    remote: Address,
    local: &Path,
    keys: Keys,
    args: &SyncArgs,
    (base, dirs): (&Path, &Dirs),
) -> Result<Account, ConfigError> {
    let SyncArgs {
        run,
        connection,
        places,
        folders,
        ..
    } = args.clone();
    let local = absolute(local, base, dirs);
    let remote = match remote {
        Address::Local(path) => Address::Local(absolute(&path, base, dirs)),
        ssh @ Address::Ssh { .. } => ssh,
    };
    if remote == Address::Local(local.clone()) {
        return Err(ConfigError::Target(format!(
            "Both sides of \"{}\" are the same directory",
            escape(name.as_bytes())
        )));
    }
    let chosen = |typed: Option<PathBuf>, key: Option<String>| {
        let typed = typed.map(|path| absolute(&path, &dirs.current, dirs));
        typed.or(key.map(|path| absolute(Path::new(&path), base, dirs)))
    };
    Ok(Account {
        filter: Filter::new(&configured_patterns(&keys), &folders.0)?,
        guard: run.max_delete.or(keys.max_delete).unwrap_or_default(),
        no_delete: run.no_delete || keys.no_delete,
        trash_days: keys.trash_days.unwrap_or(TRASH_DAYS),
        persist: keys.persist,
        post_hook: keys.hooks.post,
        server_command: connection.server_command.or(keys.server_command),
        identity: chosen(connection.identity, keys.identity),
        ssh_config: chosen(connection.ssh_config, keys.ssh_config),
        layout: keys.layout,
        folder_names: keys.folder_names,
        checksum: run.checksum || keys.checksum,
        dry_run: run.dry_run,
        adopt: run.adopt,
        confirm: run.confirm,
        state_dir: places.state_dir.map_or_else(
            || dirs.state.clone(),
            |dir| absolute(&dir, &dirs.current, dirs),
        ),
        name,
        remote,
        local,
    })
}

/// `folder` before `exclude`: a table has no order between its keys, and this one lets `exclude` cut from `folder`.
fn configured_patterns(keys: &Keys) -> Vec<(Verdict, String)> {
    let select = keys
        .folder
        .iter()
        .map(|pattern| (Verdict::Select, pattern.clone()));
    select
        .chain(
            keys.exclude
                .iter()
                .map(|pattern| (Verdict::Exclude, pattern.clone())),
        )
        .collect()
}

/// A path with its `~` spelled out and its `.` left out, relative to `base`; `..` stays, for links have a say in it.
fn absolute(path: &Path, base: &Path, dirs: &Dirs) -> PathBuf {
    let path = match path.strip_prefix("~") {
        Ok(below) => dirs.home.join(below),
        Err(_) => base.join(path),
    };
    path.components().collect()
}

/// The one of some words that is probably meant.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    let distances = known.map(|known| (strsim::osa_distance(word, known), known));
    distances
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, known)| known)
}

impl FromStr for MaxDelete {
    type Err = String;

    fn from_str(text: &str) -> Result<MaxDelete, String> {
        let wrong =
            || format!("\"{text}\" is neither a number of messages nor a share from 0% to 100%");
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.strip_suffix('%').map(str::trim_end) {
            Some(share) if digits(share) => share
                .parse()
                .ok()
                .filter(|&share: &u8| share <= 100)
                .map(MaxDelete::Percent)
                .ok_or_else(wrong),
            None if digits(text) => text.parse().map(MaxDelete::Count).map_err(|_| wrong()),
            Some(_) | None => Err(wrong()),
        }
    }
}

impl fmt::Display for MaxDelete {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            MaxDelete::Default => f.write_str("default"),
            MaxDelete::Count(count) => write!(f, "{count}"),
            MaxDelete::Percent(share) => write!(f, "{share}%"),
        }
    }
}

#[cfg(test)]
mod tests;
