//! Where the control sockets of our ssh connections lie.
//!
//! In a directory that is ours alone, on a file system that can hold sockets, under a path short enough for one:
//! ssh binds under the path plus 17 characters, and a socket's path has 107 bytes (`sun_path` of unix(7)).

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use maildir::Lock;

use super::Login;
use crate::endpoint::transport::{ConnectError, Patience};

const PATH_BYTES_MAX: usize = 90;

/// The two places for a login's socket.
pub(super) struct Sockets {
    /// For a connection that outlives a run; the same for every run with the same login.
    pub(super) kept: PathBuf,
    /// For a connection that ends with its session.
    pub(super) private: PathBuf,
}

impl Sockets {
    /// Makes the directory, where it is missing.
    ///
    /// # Errors
    /// When no directory will do.
    pub(super) fn find(login: &Login) -> Result<Sockets, ConnectError> {
        let name = name_of(login);
        let private = format!("{name}-{}", std::process::id());
        let mut last = String::new();
        for dir in candidates(login) {
            if dir.as_os_str().len() + 1 + private.len() > PATH_BYTES_MAX {
                last = format!("\"{}\" is too long", dir.display());
                continue;
            }
            match make_private(&dir) {
                Ok(()) => {
                    return Ok(Sockets {
                        kept: dir.join(&name),
                        private: dir.join(&private),
                    });
                }
                Err(why) => last = format!("\"{}\": {why}", dir.display()),
            }
        }
        Err(ConnectError::Options(format!(
            "No place for ssh's control socket: {last}; set XDG_RUNTIME_DIR"
        )))
    }

    /// Waits until no other run is starting the connection that is kept.
    ///
    /// # Errors
    /// When the lock file cannot be opened or locked, or another run holds it for too long: its person may be asked for a
    /// password.
    pub(super) fn lock(&self, login: &Login, patience: &Patience) -> Result<Lock, ConnectError> {
        let path = self.kept.with_extension("lock");
        let host = login.host.to_owned();
        let busy = format!("Another run is connecting to {host}; try again when it is through");
        Lock::take(&path, patience.left(), &busy).map_err(|error| match error {
            maildir::Error::Busy(busy) => ConnectError::Busy(busy),
            other => ConnectError::Ssh {
                host,
                said: other.to_string(),
            },
        })
    }
}

/// The session's own directory first; then one of `/tmp`, which a dry run may make; the state directory at last.
fn candidates(login: &Login) -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let user = rustix::process::getuid().as_raw();
    let temporary = std::env::temp_dir().join(format!("maildir-sync-{user}"));
    let state = login.options.state_dir.join("ssh");
    runtime
        .map(|dir| dir.join("maildir-sync"))
        .into_iter()
        .chain([temporary, state])
        .collect()
}

/// Makes a directory that no other user can enter, or checks that it is one: `/tmp` belongs to all of them.
fn make_private(dir: &Path) -> Result<(), String> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let metadata = made
        .and_then(|()| dir.symlink_metadata())
        .map_err(|error| error.to_string())?;
    if !metadata.is_dir()
        || metadata.uid() != rustix::process::getuid().as_raw()
        || metadata.mode() & 0o077 != 0
    {
        return Err("it is not a directory of yours alone".to_owned());
    }
    Ok(())
}

/// Everything that makes it another login makes it another name.
fn name_of(login: &Login) -> String {
    let port = login.port.map(|port| port.to_string());
    let parts = [
        login.user.map(OsStr::new),
        Some(OsStr::new(login.host)),
        port.as_deref().map(OsStr::new),
        login
            .options
            .ssh_config
            .as_ref()
            .map(|path| path.as_os_str()),
        login.options.identity.as_ref().map(|path| path.as_os_str()),
    ];
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        // No part can hold NUL, so that no two logins read the same; an empty part differs from none.
        hasher
            .update(part.map_or(b"-", |_| b"+"))
            .update(part.unwrap_or_default().as_bytes())
            .update(&[0]);
    }
    protocol::bytes::hex(&hasher.finalize().as_bytes()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::transport::ConnectOptions;

    #[test]
    fn another_login_has_another_socket() {
        let plain = ConnectOptions::default();
        let keyed = ConnectOptions {
            identity: Some("key".into()),
            ..ConnectOptions::default()
        };
        let configured = ConnectOptions {
            ssh_config: Some("key".into()),
            ..ConnectOptions::default()
        };
        let name = |user, host, port, options| {
            name_of(&Login {
                user,
                host,
                port,
                options,
            })
        };
        let names = [
            name(None, "host", None, &plain),
            name(Some("host"), "host", None, &plain),
            name(Some(""), "host", None, &plain),
            name(None, "host2", None, &plain),
            name(None, "host", Some(22), &plain),
            name(None, "host", None, &keyed),
            name(None, "host", None, &configured),
        ];
        assert_eq!(names[0].len(), 16);
        assert_eq!(
            names[0],
            name(None, "host", None, &ConnectOptions::default())
        );
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn a_directory_that_others_can_enter_will_not_do() {
        let root = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(make_private(&root.path().join("a/b")), Ok(()));
        let open = root.path().join("open");
        DirBuilder::new()
            .mode(0o755)
            .create(&open)
            .expect("a new directory");
        assert!(make_private(&open).is_err());
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path().join("a/b"), &link).expect("a new link");
        assert!(make_private(&link).is_err());
    }
}
