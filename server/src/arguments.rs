//! What the agent was given on its command line, by ssh and by its own environment.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use clap::builder::{PathBufValueParser, TypedValueParser};
use etcetera::BaseStrategy;
use protocol::bytes::{escape, is_variable};
use protocol::handshake::{HELLO_PREFIX, parse_hello};
use protocol::message::{Hello, Rights};

/// The agent of maildir-sync: serves one Maildir over stdin and stdout. It is started by ssh, not by hand.
#[derive(Parser, Debug)]
#[command(name = "maildir-sync-server", version)]
pub(crate) struct Arguments {
    /// The Maildir to serve, whatever the client asks for.
    #[arg(long, value_name = "DIR", value_parser = place())]
    root: Option<PathBuf>,
    /// Where the index lies [default: $XDG_STATE_HOME/maildir-sync].
    #[arg(long, value_name = "DIR", value_parser = place())]
    state_dir: Option<PathBuf>,
    /// Where deleted and replaced messages go [default: in the state directory].
    #[arg(long, value_name = "DIR", value_parser = place())]
    trash: Option<PathBuf>,
    /// How many days the trash keeps them.
    #[arg(long, value_name = "N", default_value_t = 30)]
    trash_days: u64,
    /// Allow no change to mail.
    #[arg(long, group = "rights")]
    read_only: bool,
    /// Allow new messages, copies and folders only.
    #[arg(long, group = "rights")]
    append_only: bool,
    /// Allow everything but deleting messages and removing folders.
    #[arg(long, group = "rights")]
    no_delete: bool,
    /// Follow symbolic links to folders, wherever they lead.
    #[arg(long)]
    follow_links: bool,
    /// The client's hello; under a forced command it is taken from SSH_ORIGINAL_COMMAND.
    #[arg(value_name = "HELLO")]
    hello: Option<String>,
}

/// What the agent serves and allows.
#[derive(Debug)]
pub(crate) struct Service {
    /// The root that the server chose, if it did.
    pub(crate) root: Option<PathBuf>,
    pub(crate) state_dir: PathBuf,
    pub(crate) trash_dir: Option<PathBuf>,
    pub(crate) trash_days: u64,
    pub(crate) follow_links: bool,
    pub(crate) rights: Rights,
}

impl Arguments {
    /// The hello: the last word of what the client wanted to execute.
    ///
    /// # Errors
    /// When it is none. People who execute something else are told what they have come to, and nothing is waited for.
    pub(crate) fn hello(&self) -> anyhow::Result<Hello> {
        let original = std::env::var("SSH_ORIGINAL_COMMAND").unwrap_or_default();
        let word = self
            .hello
            .as_deref()
            .or_else(|| original.split_ascii_whitespace().next_back());
        match word.filter(|word| word.starts_with(HELLO_PREFIX)) {
            Some(word) => Ok(parse_hello(word)?),
            None => anyhow::bail!("{}", self.introduction()),
        }
    }

    /// What this agent serves and with which rights, in one sentence.
    fn introduction(&self) -> String {
        let rights = match self.rights() {
            Rights::All => "with all rights",
            Rights::NoDelete => "with all rights but to delete",
            Rights::AppendOnly => "append-only",
            Rights::ReadOnly => "read-only",
        };
        let remedy = "run maildir-sync on the other machine";
        match &self.root {
            Some(root) => {
                let root = escape(root.as_os_str().as_bytes());
                format!(
                    "This serves \"{root}\" to maildir-sync and nothing else, {rights}; {remedy}"
                )
            }
            None => format!(
                "This serves to maildir-sync, and nothing else, whichever Maildir it names, {rights}; {remedy}"
            ),
        }
    }

    fn rights(&self) -> Rights {
        if self.read_only {
            Rights::ReadOnly
        } else if self.append_only {
            Rights::AppendOnly
        } else if self.no_delete {
            Rights::NoDelete
        } else {
            Rights::All
        }
    }

    pub(crate) fn service(&self) -> anyhow::Result<Service> {
        let state_dir = match &self.state_dir {
            Some(dir) => dir.clone(),
            None => {
                let base = etcetera::base_strategy::Xdg::new()
                    .context("The home directory is not known; give --state-dir")?;
                base.state_dir()
                    .context("The state directory is not known; give --state-dir")?
                    .join("maildir-sync")
            }
        };
        Ok(Service {
            root: self.root.clone(),
            state_dir,
            trash_dir: self.trash.clone(),
            trash_days: self.trash_days,
            follow_links: self.follow_links,
            rights: self.rights(),
        })
    }
}

/// A directory of the command line. What only a shell would make something of is refused, for where it comes through in quotes
/// no shell has read it, and nobody means a directory of that name.
fn place() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        let bytes = path.as_os_str().as_bytes();
        let is_of_another = bytes.starts_with(b"~") && !path.starts_with("~");
        if is_of_another || bytes.split(|&byte| byte == b'/').any(is_variable) {
            return Err(anyhow::anyhow!(
                "no shell reads it here; write the path out, or begin it with ~/ for this login's home"
            ));
        }
        resolve(bytes)
    })
}

/// The path that a client or an authorized_keys line means: `~/` and relative paths are in the home directory.
pub(crate) fn resolve(path: &[u8]) -> anyhow::Result<PathBuf> {
    let home =
        || etcetera::home_dir().context("The home directory is not known; give an absolute path");
    let path = Path::new(OsStr::from_bytes(path));
    Ok(match path.strip_prefix("~") {
        Ok(rest) => home()?.join(rest),
        Err(_) if path.is_absolute() => path.to_owned(),
        Err(_) => home()?.join(path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(option: &str, path: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["maildir-sync-server", option, path])
    }

    #[test]
    fn a_home_that_no_shell_has_read_is_understood() {
        let home = etcetera::home_dir().expect("a home");
        for (path, meant) in [
            ("~", home.clone()),
            ("~/Maildir", home.join("Maildir")),
            ("Maildir", home.join("Maildir")),
            ("/srv/$1/~x", "/srv/$1/~x".into()),
        ] {
            let root = parsed("--root", path).expect(path).root;
            let state = parsed("--state-dir", path).expect(path).state_dir;
            let trash = parsed("--trash", path).expect(path).trash;
            assert_eq!([root, state, trash], [(); 3].map(|()| Some(meant.clone())));
        }
    }

    #[test]
    fn what_only_a_shell_would_understand_is_refused_with_the_argument_and_the_remedy() {
        for option in ["--root", "--state-dir", "--trash"] {
            for path in [
                "~me",
                "~me/Maildir",
                "$HOME/Maildir",
                "${HOME}",
                "/home/$USER/x",
            ] {
                let error = parsed(option, path).expect_err(path);
                assert_eq!(error.exit_code(), 2, "{path}");
                let text = error.to_string();
                for word in [option, path, "~/"] {
                    assert!(text.contains(word), "{text}");
                }
            }
        }
    }
}
