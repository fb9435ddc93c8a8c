//! What became of the last attempt at an account, also where no connection came about.
//!
//! One small JSON file beside what [`crate::run::known`] remembers of the same address. `status` reads it, and so does a run
//! that was given no account. Losing it costs an answer, nothing else.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use maildir::durable::replace_file;
use maildir::{Lock, private};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::archive::now_secs;
use crate::config::address::{Address, quote};
use crate::config::{Account, TypedPair};
use crate::report::Summary;
use crate::report::exit_code::ExitCode;
use crate::report::waiting::Waiting;
use crate::run::known;

/// What the file's name has behind that of the address.
const SUFFIX: &str = "-last";
/// Two runs of one account may end at the same moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The first attempt of a series failed; or one did not any more.
pub const FAILED: &str = "failed";
pub const RECOVERED: &str = "recovered";

/// The last attempt at an account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended, in seconds since 1970.
    pub at: u64,
    /// "pull", "push" or "sync".
    pub command: String,
    /// The number that the shell saw.
    pub exit: u8,
    /// What stopped it, or what the guard said: one sentence with its remedy.
    pub error: Option<String>,
    /// When the first attempt of a series that failed ended.
    pub failing_since: Option<u64>,
    /// When one last came to its end.
    pub last_sync: Option<u64>,
    /// What waits, and why; of the last attempt that compared both sides.
    pub waiting: Vec<Waiting>,
    /// The plan that can be confirmed; of the last attempt that asked the guard.
    pub plan: Option<String>,
    /// How the two places could be typed.
    pub pair: String,
    /// The options of a run that belong to them.
    pub options: String,
    /// For how long the machine had slept in all since it was started, in seconds; not known of an older version.
    #[serde(default)]
    pub suspended: Option<i64>,
}

impl Attempt {
    /// Whether it failed: whatever is neither 0 nor 3.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failing_since.is_some()
    }

    /// Whether it was the guard that stopped it, and not an earlier one.
    #[must_use]
    pub fn names_plan(&self) -> bool {
        let said = self.error.as_ref().zip(self.plan.as_ref());
        said.is_some_and(|(error, plan)| error.contains(plan))
    }
}

/// The file of what is remembered of an account.
#[must_use]
pub fn path(account: &Account) -> PathBuf {
    let mut path = known::path(account).into_os_string();
    path.push(SUFFIX);
    path.into()
}

/// What is remembered of an account.
#[must_use]
pub fn find(account: &Account) -> Option<Attempt> {
    read(&path(account))
}

fn read(path: &Path) -> Option<Attempt> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Remembers how an attempt ended. Says if it is the first one of a series that failed, or the one that ended it.
///
/// # Errors
/// When the state directory cannot be written.
pub fn remember(account: &Account, summary: &Summary) -> maildir::Result<Option<&'static str>> {
    let path = path(account);
    let _lock = lock(&path)?;
    let before = find(account);
    let at = now_secs();
    let failed = !matches!(summary.exit, ExitCode::InSync | ExitCode::Skipped);
    let since = before.as_ref().and_then(|before| before.failing_since);
    let last = before.as_ref().and_then(|before| before.last_sync);
    let planned = before.as_ref().and_then(|before| before.plan.clone());
    let waiting = before.map_or_else(Vec::new, |before| before.waiting);
    let refused = summary.refusal.as_ref().map(|refusal| refusal.sentence());
    let attempt = Attempt {
        at,
        command: summary.direction.to_owned(),
        exit: summary.exit.number(),
        error: summary.error.clone().or(refused),
        failing_since: failed.then_some(since.unwrap_or(at)),
        last_sync: if summary.error.is_none() {
            Some(at)
        } else {
            last
        },
        waiting: summary.waiting.clone().unwrap_or(waiting),
        plan: match &summary.refusal {
            Some(refusal) => Some(refusal.plan.clone()),
            // The guard was not asked, so its last word stands.
            None => planned.filter(|_| summary.waiting.is_none()),
        },
        pair: pair(account),
        options: options(account),
        suspended: Some(suspended()),
    };
    let text = serde_json::to_vec(&attempt).expect("plain values become JSON");
    replace_file(&path, &text).inspect_err(|_| {
        // Nothing is known then, which is better than that all is well. To go needs no room.
        let _ = std::fs::remove_file(&path);
    })?;
    Ok(match (since, failed) {
        (None, true) => Some(FAILED),
        (Some(_), false) => Some(RECOVERED),
        (None, false) | (Some(_), true) => None,
    })
}

/// Whether this machine has slept since the last attempt at an account.
#[must_use]
pub fn has_slept_since(account: &Account) -> bool {
    let before = find(account).and_then(|attempt| attempt.suspended);
    // The two clocks are not read at the same moment, so that a second more proves nothing.
    before.is_some_and(|before| suspended() > before.saturating_add(1))
}

/// For how long this machine has slept in all since it was started, in seconds.
fn suspended() -> i64 {
    clock_gettime(ClockId::Boottime).tv_sec - clock_gettime(ClockId::Monotonic).tv_sec
}

fn lock(path: &Path) -> maildir::Result<Lock> {
    let dir = path.parent().unwrap_or(Path::new("."));
    private::make_dirs(dir)?;
    let why = "Another run is ending just now; try again";
    Lock::take(&dir.join("last.lock"), LOCK_PATIENCE, why)
}

/// What was synced last below a state directory. A pair that never synced may have been mistyped.
#[must_use]
pub fn last_synced(state_dir: &Path) -> Option<TypedPair> {
    let entries = std::fs::read_dir(state_dir.join("addresses")).ok()?;
    let paths = entries.flatten().map(|entry| entry.path());
    let lasts = paths.filter(|path| path.as_os_str().as_bytes().ends_with(SUFFIX.as_bytes()));
    let synced = lasts.filter_map(|path| read(&path).filter(|attempt| attempt.last_sync.is_some()));
    let last = synced.max_by_key(|attempt| attempt.last_sync)?;
    Some(TypedPair {
        pair: last.pair,
        options: last.options,
    })
}

fn pair(account: &Account) -> String {
    let remote = match &account.remote {
        Address::Local(path) => quote(path.as_os_str()),
        ssh @ Address::Ssh { .. } => quote(OsStr::new(&ssh.to_string())),
    };
    format!("{remote} {}", quote(account.local.as_os_str()))
}

/// Each with a space behind it.
fn options(account: &Account) -> String {
    let server = account.server_command.as_deref().map(OsStr::new);
    let key = account.identity.as_deref().map(Path::as_os_str);
    let config = account.ssh_config.as_deref().map(Path::as_os_str);
    let options = [("--server-command", server), ("-i", key), ("-F", config)];
    let said = options
        .into_iter()
        .filter_map(|(option, value)| Some(format!("{option} {} ", quote(value?))));
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_and_written_as_the_fixture_has_it() {
        let attempt = Attempt {
            at: 1_700_000_000,
            command: "sync".to_owned(),
            exit: 4,
            error: Some("It would delete 70 messages; --confirm 1a2b3c4d".to_owned()),
            failing_since: Some(1_699_990_000),
            last_sync: Some(1_699_980_000),
            waiting: vec![Waiting {
                count: 70,
                deletions: true,
                why: "the guard asks first".to_owned(),
                unseen: false,
            }],
            plan: Some("1a2b3c4d".to_owned()),
            pair: "me@host:Mail '/home/me/my mail'".to_owned(),
            options: "-i /home/me/key ".to_owned(),
            suspended: Some(3600),
        };
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let path = fixtures.join("address-last-2");
        assert_eq!(read(&path).as_ref(), Some(&attempt));
        let text = serde_json::to_vec(&attempt).expect("it becomes JSON");
        assert_eq!(text, std::fs::read(&path).expect("it is there"));
        let older = Attempt {
            suspended: None,
            ..attempt
        };
        assert_eq!(read(&fixtures.join("address-last")), Some(older));
    }
}
