//! Where a Maildir is, as people write it: `[user@]host:path`, `ssh://[user@]host[:port]/path`, or a local path.
//!
//! Pure: knows neither the home directory nor whether anything exists. What a host or user name may hold is decided
//! here, before ssh or a shell of the user's ssh config sees it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use protocol::bytes::{escape, is_variable};

/// Where a Maildir is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// On a host that ssh reaches.
    Ssh {
        /// The login name; without one ssh decides.
        user: Option<String>,
        /// A host name, an alias of the ssh config, or a literal address (IPv6 without its brackets).
        host: String,
        /// The port; without one ssh decides.
        port: Option<u16>,
        /// The path, relative to the login's home unless it starts with `/`; empty leaves it to the agent's `--root`.
        path: PathBuf,
    },
    /// In this machine's file system; as typed, so it may start with `~/` or be relative.
    Local(PathBuf),
}

/// Why a text is no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("Invalid address \"{text}\": {why}")]
pub struct AddressError {
    /// What was given, escaped.
    text: String,
    /// The rule that it breaks, and the remedy where there is one.
    why: &'static str,
}

type Parts = Result<Address, &'static str>;

impl Address {
    /// Reads an address; paths are taken as bytes and verbatim, without `%` escapes.
    ///
    /// # Errors
    /// When the text is none of the three forms, or a host, user, port or path holds what it must not.
    pub fn parse(text: &OsStr) -> Result<Address, AddressError> {
        parse(text.as_bytes()).map_err(|why| AddressError {
            text: escape(text.as_bytes()),
            why,
        })
    }

    /// Whether a text is meant as an address rather than as the name of an account.
    #[must_use]
    pub fn looks_like_one(text: &OsStr) -> bool {
        let bytes = text.as_bytes();
        is_local(bytes) || bytes.contains(&b':') || bytes.contains(&b'/')
    }
}

fn parse(text: &[u8]) -> Parts {
    if text.iter().any(u8::is_ascii_control) {
        return Err("it holds a control character");
    }
    if text.is_empty() {
        return Err("it is empty");
    }
    if is_local(text) {
        return Ok(Address::Local(path_of(text)));
    }
    match text.strip_prefix(b"ssh://") {
        Some(rest) => parse_url(rest),
        None if find(text, b"://").is_some() => Err("only ssh:// is known"),
        None => parse_scp(text),
    }
}

/// Whether a text starts as only a local path does.
fn is_local(text: &[u8]) -> bool {
    matches!(text, b"." | b".." | b"~")
        || [&b"/"[..], b"./", b"../", b"~/", b"$HOME/", b"${HOME}/"]
            .iter()
            .any(|start| text.starts_with(start))
}

/// `[user@]host[:port][/path]`, what follows `ssh://`.
fn parse_url(text: &[u8]) -> Parts {
    let slash = text
        .iter()
        .position(|&byte| byte == b'/')
        .unwrap_or(text.len());
    let (login, path) = text.split_at(slash);
    let (user, rest) = split_user(login)?;
    if user.is_none() && rest.contains(&b'@') {
        return Err("a password does not belong there; use a key");
    }
    let (host, rest) = split_host(rest)?;
    let port = match rest {
        b"" => None,
        [b':', digits @ ..] => Some(port_of(digits)?),
        _ => return Err("after \"]\" there must be \":port\" or \"/path\""),
    };
    let path = match path.strip_prefix(b"/~") {
        Some(home) if home.is_empty() || home.starts_with(b"/") => &path[1..],
        Some(_) | None => path,
    };
    Ok(Address::Ssh {
        user,
        host,
        port,
        path: remote_path(path)?,
    })
}

/// `[user@]host:path`, as scp and rsync have it.
fn parse_scp(text: &[u8]) -> Parts {
    let slash = text
        .iter()
        .position(|&byte| byte == b'/')
        .unwrap_or(text.len());
    if !text[..slash].contains(&b':') {
        return Err("write host:path for a Maildir on a server, or ./path for one on this machine");
    }
    let (user, rest) = split_user(text)?;
    let (host, rest) = split_host(rest)?;
    let path = rest
        .strip_prefix(b":")
        .ok_or("after the host there must be \":path\"")?;
    if path.starts_with(b":") {
        return Err("\"host::module\" is rsync's; write host:path");
    }
    Ok(Address::Ssh {
        user,
        host,
        port: None,
        path: remote_path(path)?,
    })
}

/// Takes the user off the front, where an `@` stands before anything that ends a login.
fn split_user(text: &[u8]) -> Result<(Option<String>, &[u8]), &'static str> {
    match text.iter().position(|byte| b"@:/[".contains(byte)) {
        Some(at) if text[at] == b'@' => Ok((Some(user_of(&text[..at])?), &text[at + 1..])),
        Some(_) | None => Ok((None, text)),
    }
}

/// Takes the host off the front; what is left is empty or starts with `:`.
fn split_host(text: &[u8]) -> Result<(String, &[u8]), &'static str> {
    if let Some(inside) = text.strip_prefix(b"[") {
        let end = inside
            .iter()
            .position(|&byte| byte == b']')
            .ok_or("\"[\" without \"]\"")?;
        let host = std::str::from_utf8(&inside[..end])
            .ok()
            .filter(|host| is_ipv6(host));
        return Ok((
            host.ok_or("in brackets there must be an IPv6 address")?
                .to_owned(),
            &inside[end + 1..],
        ));
    }
    let end = text
        .iter()
        .position(|&byte| byte == b':')
        .unwrap_or(text.len());
    Ok((host_of(&text[..end])?, &text[end..]))
}

/// An IPv6 address, with a zone (`%eth0`) or without.
fn is_ipv6(host: &str) -> bool {
    let (address, zone) = host.split_once('%').unwrap_or((host, "0"));
    address.parse::<Ipv6Addr>().is_ok()
        && !zone.is_empty()
        && zone.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Source: OpenSSH's `valid_hostname` (ssh.c, since 9.6): names reach `ProxyCommand`, a shell command, through `%h`.
fn host_of(host: &[u8]) -> Result<String, &'static str> {
    match host {
        b"" => Err("the host is empty"),
        [b'-', ..] => Err("a host cannot start with \"-\""),
        _ if host
            .iter()
            .any(|byte| b"'`\"$\\;&<>|(){}@[] \t".contains(byte)) =>
        {
            Err("the host holds a character that no host name has")
        }
        _ => String::from_utf8(host.to_vec()).map_err(|_| "the host is not UTF-8"),
    }
}

/// Source: OpenSSH's `valid_ruser`, for the same reason as [`host_of`].
fn user_of(user: &[u8]) -> Result<String, &'static str> {
    match user {
        b"" => Err("the user is empty"),
        [b'-', ..] => Err("a user cannot start with \"-\""),
        [.., b'\\'] => Err("a user cannot end in a backslash"),
        _ if user.iter().any(|byte| b"'`\"$;&<>|(){} \t".contains(byte)) => {
            Err("the user holds a character that no user name has")
        }
        _ => String::from_utf8(user.to_vec()).map_err(|_| "the user is not UTF-8"),
    }
}

fn port_of(digits: &[u8]) -> Result<u16, &'static str> {
    let number = std::str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    number
        .and_then(|digits| digits.parse().ok())
        .filter(|&port| port != 0)
        .ok_or("a port is a number from 1 to 65535")
}

/// A path on a server: `~` and `~/x` are said without the tilde, because a login starts at home anyway.
fn remote_path(path: &[u8]) -> Result<PathBuf, &'static str> {
    match path {
        b"~" | b"~/" => Ok(PathBuf::from(".")),
        [b'~', b'/', rest @ ..] => {
            let start = rest
                .iter()
                .position(|&byte| byte != b'/')
                .unwrap_or(rest.len());
            Ok(path_of(if start == rest.len() {
                b"."
            } else {
                &rest[start..]
            }))
        }
        [b'~', ..] => Err("the home of another user must be written as an absolute path"),
        _ if path.split(|&byte| byte == b'/').any(is_variable) => Err(
            "no shell reads it there; a path starts at the login's home, and variables must be written out",
        ),
        _ => Ok(path_of(path)),
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// The canonical form: `[user@]host:path`, or with a port `ssh://[user@]host:port/path`; bytes that are not text are
/// escaped, so it is for people.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Address::Local(path) => f.write_str(&escape(path.as_os_str().as_bytes())),
            Address::Ssh {
                user,
                host,
                port,
                path,
            } => {
                let user = user
                    .as_ref()
                    .map(|user| format!("{user}@"))
                    .unwrap_or_default();
                let host = if host.contains(':') {
                    format!("[{host}]")
                } else {
                    host.clone()
                };
                let path = escape(path.as_os_str().as_bytes());
                match port {
                    None => write!(f, "{user}{host}:{path}"),
                    Some(port) if path.is_empty() || path.starts_with('/') => {
                        write!(f, "ssh://{user}{host}:{port}{path}")
                    }
                    Some(port) => write!(f, "ssh://{user}{host}:{port}/~/{path}"),
                }
            }
        }
    }
}

/// A word as a shell reads it back; bytes that are no text as bash and zsh have them.
#[must_use]
pub fn quote(word: &OsStr) -> String {
    let bytes = word.as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return bytes.iter().map(|&byte| char::from(byte)).collect();
    }
    let shown = escape(bytes);
    if shown.as_bytes() == bytes {
        format!("'{}'", shown.replace('\'', r"'\''"))
    } else {
        let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("$'{escaped}'")
    }
}

#[cfg(test)]
mod tests;
