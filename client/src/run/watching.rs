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
    /// What it does because the network is metered; empty where it is not.
    #[serde(default)]
    pub metered: String,
}

impl Record {
    /// Counts a connection that was lost.
    pub fn reconnected(&mut self) {
        let now = now_secs();
        self.reconnects.push(now);
        self.reconnects.retain(|&at| at + COUNTED_SECS > now);
    }

    /// How often it connected again within the hour before.
    fn reconnects_before(&self, now: u64) -> usize {
        let lately = self
            .reconnects
            .iter()
            .filter(|&&at| at + COUNTED_SECS > now);
        lately.count()
    }

    /// For people: since when it is connected, how each side hears of changes, when something last happened.
    #[must_use]
    pub fn sentence(&self) -> String {
        self.sentence_at(now_secs())
    }

    fn sentence_at(&self, now: u64) -> String {
        let span = |from: u64| duration_text(now.saturating_sub(from) as f64);
        let connected = match self.connected_since {
            Some(since) => format!("connected for {}", span(since)),
            None => "not connected".to_owned(),
        };
        let mode = |polling: &str| match polling.is_empty() {
            true => "events".to_owned(),
            false => format!("a look every 30 s ({polling})"),
        };
        let there = self.polling_there.as_deref().map_or_else(
            || "in a way not known yet".to_owned(),
            |polling| format!("by {}", mode(polling)),
        );
        let at = |at: Option<u64>| match at {
            Some(at) => format!("{} ago", span(at)),
            None => "never".to_owned(),
        };
        let metered = match self.metered.is_empty() {
            true => String::new(),
            false => format!("; {}", self.metered),
        };
        format!(
            "watch (process {}) {connected}; changes are found by {} here, {there} there; last event here {}, last round {}; \
             connected anew in the last hour: {} times{metered}",
            self.pid,
            mode(&self.polling_here),
            at(self.last_event),
            at(self.last_round),
            self.reconnects_before(now),
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
    fn what_is_stored_is_read_and_written_as_the_fixture_has_it_and_said_in_words() {
        let record = Record {
            pid: 4711,
            since: 1_700_000_000,
            connected_since: Some(1_700_003_000),
            polling_here: String::new(),
            polling_there: Some("NFS reports nothing".to_owned()),
            last_event: Some(1_700_003_570),
            last_round: None,
            reconnects: vec![1_700_000_000, 1_700_001_000, 1_700_003_000],
            metered: "the network is metered, so bodies over 64 KiB wait".to_owned(),
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/watch-2");
        assert_eq!(read(&path).as_ref(), Some(&record));
        let text = serde_json::to_vec(&record).expect("it becomes JSON");
        assert_eq!(text, fs::read(&path).expect("it is there"));
        assert_eq!(
            record.sentence_at(1_700_003_600),
            "watch (process 4711) connected for 10 min 0 s; changes are found by events here, by a look every 30 s (NFS reports \
             nothing) there; last event here 30 s ago, last round never; connected anew in the last hour: 2 times; the network is \
             metered, so bodies over 64 KiB wait"
        );
    }

    #[test]
    fn what_an_older_version_wrote_is_read() {
        let record: Record = serde_json::from_str(FIXTURE).expect("JSON");
        let expected = Record {
            pid: 4711,
            since: 1_700_000_000,
            connected_since: Some(1_700_000_001),
            polling_here: String::new(),
            polling_there: Some("it lies on NFS".to_owned()),
            last_event: Some(1_700_000_002),
            last_round: None,
            reconnects: vec![1_700_000_003],
            metered: String::new(),
        };
        assert_eq!(record, expected);
        let idle = Record {
            connected_since: None,
            polling_here: "why".to_owned(),
            polling_there: None,
            last_event: None,
            last_round: Some(1_700_000_002),
            ..record
        };
        assert_eq!(
            idle.sentence_at(1_700_000_004),
            "watch (process 4711) not connected; changes are found by a look every 30 s (why) here, in a way not known yet there; last \
             event here never, last round 2 s ago; connected anew in the last hour: 1 times"
        );
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
        assert_eq!(record.reconnects_before(now_secs()), 1);
        record.reconnected();
        assert_eq!(record.reconnects.len(), 2);
        assert_eq!(record.reconnects_before(now_secs()), 2);
    }
}
