//! The configuration file as it stands: TOML, keys and values as typed, and errors that name line and remedy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use protocol::bytes::escape;

use super::ConfigError;
use crate::cli::parse_span;
use crate::merge::guard::MaxDelete;
use crate::merge::mapping::{FolderNames, Layout};

/// How long a hook may take, where nothing else is said.
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// The keys of one account.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Where the remote replica is.
    pub remote: Option<Spanned<String>>,
    /// Where the local replica is.
    pub local: Option<Spanned<String>>,
    /// Patterns of folders to deal with.
    #[serde(default)]
    pub folder: Vec<Spanned<String>>,
    /// Patterns of folders to forget.
    #[serde(default)]
    pub exclude: Vec<Spanned<String>>,
    /// How much may be deleted.
    pub max_delete: Option<MaxDelete>,
    /// Carry out no deletion.
    #[serde(default)]
    pub no_delete: bool,
    /// How long this side's trash keeps, in days.
    pub trash_days: Option<u32>,
    /// How long the ssh connection stays open after a run.
    #[serde(default, deserialize_with = "span")]
    pub persist: Option<Duration>,
    /// How long a silent server is waited for.
    #[serde(default, deserialize_with = "span")]
    pub timeout: Option<Duration>,
    /// Commands to run.
    #[serde(default)]
    pub hooks: Hooks,
    /// The command that starts the agent.
    pub server_command: Option<String>,
    /// The private key to log in with.
    pub identity: Option<Spanned<String>>,
    /// The ssh config to use.
    pub ssh_config: Option<Spanned<String>>,
    /// How folders lie in the local root.
    pub layout: Option<Layout>,
    /// How folder names are written in the local root.
    pub folder_names: Option<FolderNames>,
    /// Whether symbolic links to folders are followed here.
    pub follow_links: Option<bool>,
    /// Trust no cached digest.
    #[serde(default)]
    pub checksum: bool,
    /// What `watch` does on a metered network.
    #[serde(default)]
    pub metered: Metered,
}

/// What `watch` does where NetworkManager calls the network metered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metered {
    /// Nothing.
    Pause,
    /// All but large bodies.
    Small,
    /// What it does elsewhere.
    #[default]
    Ignore,
}

/// Commands to run.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Before a run.
    pub pre: Option<String>,
    /// After a run that changed something here.
    pub post: Option<String>,
    /// After a run that brought unseen messages.
    pub new: Option<String>,
    /// After a run that met conflicts.
    pub conflict: Option<String>,
    /// After the first run of a series that failed, and after the one that ended it.
    pub failure: Option<String>,
    /// How they are told what happened.
    #[serde(default)]
    pub format: Format,
    /// How long one may take.
    #[serde(default, deserialize_with = "span")]
    pub timeout: Option<Duration>,
}

impl Hooks {
    /// How long one may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.timeout.unwrap_or(HOOK_TIMEOUT)
    }
}

/// How hooks are told what happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Paths, each ended by NUL.
    #[default]
    Paths,
    /// Operation, folder, path and old path, each ended by NUL.
    Records,
    /// An object a line.
    Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "account")]
    _account: BTreeMap<String, IgnoredAny>,
}

/// The accounts of a file, in its order.
#[derive(Debug)]
pub struct Accounts {
    /// Names and keys; or what is wrong with those of one account, which is no reason to leave the others.
    pub accounts: Vec<(Spanned<String>, Result<Keys, ConfigError>)>,
    /// The file itself.
    pub text: Text,
}

/// A file, to say where in it something stands.
#[derive(Debug)]
pub struct Text {
    path: PathBuf,
    text: String,
}

impl Text {
    /// An error about a name or a value of the file.
    #[must_use]
    pub fn wrong(&self, what: &Spanned<String>, why: String) -> ConfigError {
        self.wrong_at(what.span().start, why)
    }

    fn wrong_at(&self, at: usize, why: String) -> ConfigError {
        ConfigError::File {
            path: self.path.clone(),
            line: line_of(self.text.as_bytes(), at),
            why,
        }
    }

    fn explain(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map_or(0, |span| span.start);
        self.wrong_at(start, explain(error.message(), key_at(&self.text, start)))
    }
}

impl Accounts {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or holds what no account has.
    pub fn read(path: &Path) -> Result<Accounts, ConfigError> {
        let bytes = std::fs::read(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Accounts::parse(path, bytes)
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> Result<Accounts, ConfigError> {
        let text = String::from_utf8(bytes).map_err(|error| ConfigError::File {
            path: path.to_owned(),
            line: line_of(error.as_bytes(), error.utf8_error().valid_up_to()),
            why: "It is not UTF-8".to_owned(),
        })?;
        let path = path.to_owned();
        let text = Text { path, text };
        let explained = |error: toml::de::Error| text.explain(&error);
        toml::from_str::<File>(&text.text).map_err(explained)?;
        let mut file = DeTable::parse(&text.text).map_err(explained)?.into_inner();
        let mut accounts = Vec::new();
        if let Some(DeValue::Table(table)) = file.remove("account").map(Spanned::into_inner) {
            for (name, value) in table {
                let name = Spanned::new(name.span(), name.into_inner().into_owned());
                let keys = Keys::deserialize(ValueDeserializer::from(value));
                accounts.push((name, keys.map_err(explained)));
            }
        }
        accounts.sort_by_key(|(name, _)| name.span().start);
        Ok(Accounts { accounts, text })
    }

    /// The names of the accounts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.accounts
            .iter()
            .map(|(name, _)| name.get_ref().as_str())
    }
}

/// The line of a byte, counted from 1.
fn line_of(text: &[u8], at: usize) -> usize {
    text.iter().take(at).filter(|&&byte| byte == b'\n').count() + 1
}

/// The key on the line of a byte, where there is one.
fn key_at(text: &str, at: usize) -> Option<&str> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].lines().next()?;
    line.split_once('=').map(|(key, _)| key.trim())
}

/// Puts serde's words into a sentence with the remedy: what may have been meant, else what is known.
///
/// Relies on serde's "unknown field `x`, expected one of `a`, `b`"; any other message is kept as it is, behind the key.
fn explain(message: &str, key: Option<&str>) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let kind = match message {
        _ if message.starts_with("unknown field `") => "key",
        _ if message.starts_with("unknown variant `") => "value",
        _ => {
            let message = plain(message);
            let said = key.map_or_else(|| capitalised(&message), |key| format!("{key}: {message}"));
            return escape(said.as_bytes());
        }
    };
    let Some((word, known)) = quoted.split_first() else {
        return message.to_owned();
    };
    let hint = match nearest(word, known.iter().copied()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("known here: {}", known.join(", ")),
    };
    let said = format!("nknown {kind} \"{}\", {hint}", escape(word.as_bytes()));
    match key.filter(|_| kind == "value") {
        Some(key) => format!("{}: u{said}", escape(key.as_bytes())),
        None => format!("U{said}"),
    }
}

/// Types of ours in words of people's.
fn plain(message: &str) -> String {
    let words = [
        ("expected struct Keys", "write it below [account.NAME]"),
        ("expected struct Hooks", "expected a key like hooks.post"),
        ("expected u32", "expected a whole number"),
        ("expected a sequence", "expected a list like [\"INBOX\"]"),
        ("expected a boolean", "expected true or false"),
    ];
    let known = words.iter().find(|(ours, _)| message.ends_with(ours));
    known.map_or_else(
        || message.to_owned(),
        |(ours, theirs)| message.replace(ours, theirs),
    )
}

fn capitalised(message: &str) -> String {
    let mut chars = message.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

/// A number of messages, or a share as text.
impl<'de> Deserialize<'de> for MaxDelete {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MaxDelete, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = MaxDelete;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a number of messages or a share like \"5%\"")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<MaxDelete, E> {
                u64::try_from(number)
                    .map(MaxDelete::Count)
                    .map_err(|_| E::custom("it cannot be negative"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<MaxDelete, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parse_span(&String::deserialize(deserializer)?)
        .map(Some)
        .map_err(D::Error::custom)
}

/// The one of some words that is probably meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    let distances = known.map(|known| (strsim::osa_distance(word, known), known));
    distances
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Accounts, ConfigError> {
        Accounts::parse(Path::new("/c"), text.as_bytes().to_vec())
    }

    /// What is wrong with a file, or with the first account in which something is.
    fn wrong(text: &str) -> ConfigError {
        let keys = |accounts: Accounts| accounts.accounts.into_iter().map(|(_, keys)| keys);
        match parsed(text).map(|accounts| keys(accounts).find_map(Result::err)) {
            Ok(error) => error.expect(text),
            Err(error) => error,
        }
    }

    #[test]
    fn every_key_is_read_and_the_order_is_the_file_s() {
        let text = r#"
            [account.work]
            remote = "a:"
            local = "b"
            [account.home]
            remote = "me@mail.example.org:Maildir"
            local = "~/Maildir"
            folder = ["INBOX", "Lists"]
            exclude = ["Junk", "Archive/20*"]
            max_delete = "5%"
            no_delete = true
            trash_days = 7
            persist = "10m"
            hooks.post = "notmuch new --quiet"
            server_command = "nice maildir-sync-server"
            identity = "~/.ssh/mail"
            ssh_config = "/etc/x"
            layout = "maildir++"
            folder_names = "utf-7"
            checksum = true
            metered = "small"
        "#;
        let accounts = parsed(text).expect("valid");
        assert_eq!(accounts.names().collect::<Vec<_>>(), ["work", "home"]);
        let home = accounts.accounts[1].1.as_ref().expect("valid");
        assert_eq!(
            home.remote.as_ref().map(|remote| remote.get_ref().as_str()),
            Some("me@mail.example.org:Maildir")
        );
        assert_eq!(
            (home.max_delete, home.trash_days),
            (Some(MaxDelete::Percent(5)), Some(7))
        );
        assert_eq!(
            (home.layout, home.folder_names),
            (Some(Layout::MaildirPlusPlus), Some(FolderNames::Utf7))
        );
        assert_eq!(home.persist, Some(Duration::from_secs(600)));
        assert_eq!(home.hooks.post.as_deref(), Some("notmuch new --quiet"));
        assert_eq!(home.metered, Metered::Small);
        assert_eq!(
            parsed("").expect("an empty file is valid").names().count(),
            0
        );
    }

    #[test]
    fn errors_name_the_line_and_the_remedy() {
        let table = [
            (
                "\n[account.x]\nremot = 'a'\n",
                3,
                "Unknown key \"remot\", did you mean \"remote\"?",
            ),
            (
                "[account.x]\nhooks.pst = 'a'\n",
                2,
                "Unknown key \"pst\", did you mean \"post\"?",
            ),
            (
                "[acount.x]\n",
                1,
                "Unknown key \"acount\", did you mean \"account\"?",
            ),
            (
                "colour = 1\n",
                1,
                "Unknown key \"colour\", known here: account",
            ),
            (
                "[account.x]\n\nlayout = 'maildir+'\n",
                3,
                "layout: unknown value \"maildir+\", did you mean \"maildir++\"?",
            ),
            (
                "[account.x]\nhooks.format = 'record'\n",
                2,
                "hooks.format: unknown value \"record\", did you mean \"records\"?",
            ),
            (
                "[account.x]\nlayout = 'mbox'\n",
                2,
                "layout: unknown value \"mbox\", known here: maildir++, nested",
            ),
            ("[account.x]\nmax_delete = '5 percent'\n", 2, MAX_DELETE),
            (
                "[account.x]\nmax_delete = -1\n",
                2,
                "max_delete: it cannot be negative",
            ),
            ("[account.x]\nmax_delete = true\n", 2, MAX_DELETE_TYPE),
            (
                "[account.x]\npersist = '10'\n",
                2,
                "persist: \"10\" is no time span: write 30s, 10m, 1h or 1d",
            ),
            (
                "[account.x]\nexclude = 'Junk'\n",
                2,
                "exclude: invalid type: string \"Junk\", expected a list like [\"INBOX\"]",
            ),
            (
                "[account.x]\ntrash_days = '30'\n",
                2,
                "trash_days: invalid type: string \"30\", expected a whole number",
            ),
            (
                "[account.x]\nchecksum = 1\n",
                2,
                "checksum: invalid type: integer `1`, expected true or false",
            ),
            (
                "[account]\nremote = 'a'\n",
                2,
                "remote: invalid type: string \"a\", write it below [account.NAME]",
            ),
            (
                "[account.x]\nhooks = 'a'\n",
                2,
                "hooks: invalid type: string \"a\", expected a key like hooks.post",
            ),
            (
                "[account.x]\nlocal 1\n",
                2,
                "Key with no value, expected `=`",
            ),
            ("[account.x]\n[account.x]\n", 2, "Duplicate key"),
            (
                "[account.x]\nremote = \"no end\n\n",
                2,
                "remote: invalid basic string, expected `\"`",
            ),
        ];
        for (text, line, why) in table {
            assert_eq!(wrong(text).to_string(), format!("/c, line {line}: {why}"));
        }
        let error = Accounts::parse(Path::new("/c"), b"\n\n\xff".to_vec()).expect_err("not UTF-8");
        assert_eq!(error.to_string(), "/c, line 3: It is not UTF-8");
    }

    const MAX_DELETE: &str =
        "max_delete: \"5 percent\" is neither a number of messages nor a share from 0% to 100%";
    const MAX_DELETE_TYPE: &str = "max_delete: invalid type: boolean `true`, expected a number of messages or a share like \"5%\"";
}
