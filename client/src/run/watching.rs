//! What `status` shows of a running watch: one small JSON file beside what is remembered of the same address, and a lock that its owner
//! holds, so that what a killed one left is not believed.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use maildir::{Lock, private};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::archive::now_secs;
use crate::config::Account;
use crate::report::figures::duration_text;
use crate::run::known;

/// What the files' names have behind that of the address.
const SUFFIX: &str = "watch";
const LOCK_SUFFIX: &str = "watch.lock";
const NEW_SUFFIX: &str = "watch.new";
/// Who asks whether it is held has it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// For how long reconnects are counted, in seconds.
const COUNTED_SECS: u64 = 3600;

/// How a running watch stands; times in seconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// The process that watches.
    pub pid: u32,
    /// When it began.
    pub since: u64,
    /// Since when it is connected, if it is.
    pub connected_since: Option<u64>,
    /// Why the tree here is looked at now and then instead of being watched; empty where it is watched.
    pub polling_here: String,
    /// The same of the tree there, once that is known.
    pub polling_there: Option<String>,
    /// When something last happened in the tree here.
    pub last_event: Option<u64>,
    /// When a round last ended.
    pub last_round: Option<u64>,
    /// When it connected again, within the last hour.
    pub reconnects: Vec<u64>,
}

impl Record {
    /// Counts a connection that was lost.
    pub fn reconnected(&mut self) {
        let now = now_secs();
        self.reconnects.push(now);
        self.reconnects.retain(|&at| at + COUNTED_SECS > now);
    }

    /// How often it connected again within the last hour.
    #[must_use]
    pub fn reconnects_lately(&self) -> usize {
        let now = now_secs();
        let lately = self
            .reconnects
            .iter()
            .filter(|&&at| at + COUNTED_SECS > now);
        lately.count()
    }

    /// For people: since when it watches and is connected, how each side hears of changes, when something last happened.
    #[must_use]
    pub fn sentence(&self) -> String {
        let ago = |at: u64| {
            format!(
                "{} ago",
                duration_text(now_secs().saturating_sub(at) as f64)
            )
        };
        let connected = match self.connected_since {
            Some(since) => format!("connected since {}", ago(since)),
            None => "not connected".to_owned(),
        };
        let mode = |polling: &str| match polling.is_empty() {
            true => "events".to_owned(),
            false => format!("a look every 30 s ({polling})"),
        };
        let there = self
            .polling_there
            .as_deref()
            .map_or_else(|| "not known".to_owned(), mode);
        let at = |at: Option<u64>| at.map_or_else(|| "never".to_owned(), ago);
        format!(
            "watch (process {}) {connected}; changes are found by {} here, by {there} there; last event here {}, last round {}; \
             connected anew {} times in the last hour",
            self.pid,
            mode(&self.polling_here),
            at(self.last_event),
            at(self.last_round),
            self.reconnects_lately(),
        )
    }

    /// Writes it. It is worth no flush: after a crash there is no watch.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn store(&self, account: &Account) -> io::Result<()> {
        let path = known::beside(account, SUFFIX);
        let new = known::beside(account, NEW_SUFFIX);
        private::write(&new, &serde_json::to_vec(self)?)?;
        fs::rename(new, path)
    }
}

/// Keeps another watch of the same account out until it is dropped.
///
/// # Errors
/// When another one holds it, named by its process, or the state directory cannot be written.
pub fn lock(account: &Account) -> maildir::Result<Lock> {
    let path = known::beside(account, LOCK_SUFFIX);
    if let Some(dir) = path.parent() {
        private::make_dirs(dir)?;
    }
    let holder = read(&known::beside(account, SUFFIX))
        .map_or_else(String::new, |record| format!(" (process {})", record.pid));
    let busy =
        format!("Another watch{holder} has this account already; end it first, or leave it be");
    Lock::take(&path, LOCK_PATIENCE, &busy)
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// What is written at a place, if the one who wrote it still holds its lock.
fn running_at(path: &Path, lock: &Path) -> Option<Record> {
    match File::open(lock).ok()?.try_lock_shared() {
        Ok(()) => None, // Nobody holds it; what is written is of a watch that ended.
        Err(_) => read(path),
    }
}

/// The watch that runs for an account, if there is one. Changes nothing.
#[must_use]
pub fn running(account: &Account) -> Option<Record> {
    let [path, lock] = [SUFFIX, LOCK_SUFFIX].map(|suffix| known::beside(account, suffix));
    running_at(&path, &lock)
}

/// Lets every watch below a state directory look whether a pause has begun or ended, by SIGUSR1.
pub fn call_all(state_dir: &Path) {
    let addresses = fs::read_dir(state_dir.join("addresses"))
        .into_iter()
        .flatten();
    for entry in addresses.flatten() {
        let path = entry.path();
        let is_record = path.as_os_str().as_bytes().ends_with(b"-watch");
        let record = is_record.then(|| running_at(&path, &path.with_extension("lock")));
        let pid = record
            .flatten()
            .and_then(|record| record.pid.try_into().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && let Err(error) = kill_process(pid, Signal::USR1)
        {
            tracing::debug!("Cannot call process {pid:?}: {error}"); // It sees for itself within a minute.
        }
    }
}

/// Removes what is written, when the watch ends.
pub fn forget(account: &Account) {
    let _ = fs::remove_file(known::beside(account, SUFFIX)); // What is left over is not believed.
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &str = include_str!("../../fixtures/watch");

    #[test]
    fn what_is_stored_is_read_and_written_as_the_fixture_has_it() {
        let record = Record {
            pid: 4711,
            since: 1_700_000_000,
            connected_since: Some(1_700_000_001),
            polling_here: String::new(),
            polling_there: Some("it lies on NFS".to_owned()),
            last_event: Some(1_700_000_002),
            last_round: None,
            reconnects: vec![1_700_000_003],
        };
        let read: Record = serde_json::from_str(FIXTURE).expect("JSON");
        assert_eq!(read, record);
        let written = serde_json::to_string(&record).expect("JSON");
        assert_eq!(written, FIXTURE.trim_end());
    }

    #[test]
    fn what_nobody_holds_is_not_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        let [path, lock] = ["a-watch", "a-watch.lock"].map(|name| dir.path().join(name));
        fs::write(&path, FIXTURE).expect("it is written");
        assert_eq!(running_at(&path, &lock), None);
        let held = Lock::take(&lock, Duration::ZERO, "busy").expect("it is free");
        assert_eq!(
            running_at(&path, &lock).map(|record| record.pid),
            Some(4711)
        );
        drop(held);
        assert_eq!(running_at(&path, &lock), None);
    }

    #[test]
    fn reconnects_count_for_an_hour() {
        let mut record = Record {
            reconnects: vec![1, now_secs() - COUNTED_SECS + 60],
            ..Record::default()
        };
        assert_eq!(record.reconnects_lately(), 1);
        record.reconnected();
        assert_eq!(record.reconnects.len(), 2);
        assert_eq!(record.reconnects_lately(), 2);
    }
}
