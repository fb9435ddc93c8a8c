//! Which replicas were last found at an account's two places.
//!
//! A hint, never identity: it says which marker to expect, so that a missing one is noticed, and which archive to open
//! before the server has answered. Keyed by a hash of what was typed; losing it costs one more connection.

use std::path::PathBuf;
use std::time::Duration;

use maildir::durable::replace_file;
use maildir::{Lock, private};
use protocol::bytes::hex;
use protocol::{Digest, ReplicaId};

use crate::config::Account;

/// How long a second run waits for the first before it gives up (exit 75).
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The two replicas of a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair {
    /// The one here.
    pub local: ReplicaId,
    /// The one there.
    pub remote: ReplicaId,
}

/// The file of an account's address, beside which lies what else is remembered of it.
#[must_use]
pub fn path(account: &Account) -> PathBuf {
    let remote = account.remote.to_string();
    let local = account.local.as_os_str().as_encoded_bytes();
    let digest = Digest::of(&[remote.as_bytes(), b"\0", local].concat());
    account
        .state_dir
        .join("addresses")
        .join(hex(&digest.as_bytes()[..16]))
}

/// Where what an account's hook has not got lies, under the same name.
#[must_use]
pub fn beside(account: &Account, what: &str) -> PathBuf {
    let mut path = path(account).into_os_string();
    path.push(format!("-{what}"));
    path.into()
}

/// What is remembered of an account.
#[must_use]
pub fn find(account: &Account) -> Option<Pair> {
    parse(&std::fs::read(path(account)).ok()?)
}

fn parse(text: &[u8]) -> Option<Pair> {
    let mut words = text.split(u8::is_ascii_whitespace);
    let local = ReplicaId::parse(words.next()?)?;
    let remote = ReplicaId::parse(words.next()?)?;
    Some(Pair { local, remote })
}

fn text(pair: Pair) -> String {
    format!("{} {}\n", pair.local, pair.remote)
}

/// Remembers an account's pair.
///
/// # Errors
/// When the state directory cannot be written.
pub fn remember(account: &Account, pair: Pair) -> maildir::Result<()> {
    if find(account) == Some(pair) {
        return Ok(());
    }
    let path = path(account);
    if let Some(dir) = path.parent() {
        private::make_dirs(dir)?;
    }
    replace_file(&path, text(pair).as_bytes())
}

/// Keeps other runs of the same account out until it is dropped.
///
/// # Errors
/// When another run holds it for longer than a little, or the state directory cannot be written.
pub fn lock(account: &Account) -> maildir::Result<Lock> {
    let path = path(account).with_extension("lock");
    if let Some(dir) = path.parent() {
        private::make_dirs(dir)?;
    }
    Lock::take(
        &path,
        LOCK_PATIENCE,
        "Another run is syncing this account; try again when it is through",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &str = include_str!("../../fixtures/address");

    #[test]
    fn what_is_stored_is_read_and_written_as_the_fixture_has_it() {
        let pair = Pair {
            local: ReplicaId([0xab; 16]),
            remote: ReplicaId([0xcd; 16]),
        };
        assert_eq!(parse(FIXTURE.as_bytes()), Some(pair));
        assert_eq!(text(pair), FIXTURE);
    }
}
