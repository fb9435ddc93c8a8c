//! Whether every run of this user stands still, since when, and until when.
//!
//! One small JSON file in the state directory. It is looked at when a run begins, and by nobody who is at work. No attempt
//! is remembered of a run that does not begin for it: nothing failed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use maildir::durable::replace_file;
use maildir::private;
use serde::{Deserialize, Serialize};

use crate::archive::now_secs;
use crate::report::figures::duration_text;

/// A pause that is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Paused {
    /// When it began, in seconds since 1970.
    pub since: u64,
    /// When it ends by itself, if it does.
    pub until: Option<u64>,
}

impl Paused {
    /// For people: since when, until when, and how to go on.
    #[must_use]
    pub fn sentence(&self) -> String {
        self.sentence_at(now_secs())
    }

    fn sentence_at(&self, now: u64) -> String {
        let span = |from: u64, to: u64| duration_text(to.saturating_sub(from) as f64);
        let since = span(self.since, now);
        match self.until {
            Some(until) => format!(
                "Paused {since} ago, for another {}; `maildir-sync resume` goes on at once",
                span(now, until)
            ),
            None => format!("Paused {since} ago, until `maildir-sync resume`"),
        }
    }

    /// With an end it holds from when it began, so that a clock that was wrong then does not make it last for years.
    fn holds(&self, now: u64) -> bool {
        self.until
            .is_none_or(|until| (self.since..until).contains(&now))
    }
}

/// The pause that is in force below a state directory.
#[must_use]
pub fn current(state_dir: &Path) -> Option<Paused> {
    find(&path(state_dir), now_secs())
}

/// Begins a pause, in the place of one that is in force.
///
/// # Errors
/// When the state directory cannot be written.
pub fn begin(state_dir: &Path, lasts: Option<Duration>) -> maildir::Result<Paused> {
    let since = now_secs();
    let until = lasts.map(|lasts| since.saturating_add(lasts.as_secs()));
    let paused = Paused { since, until };
    private::make_dirs(state_dir)?;
    write(&path(state_dir), paused)?;
    Ok(paused)
}

/// Ends the pause, and says whether there was one.
///
/// # Errors
/// When the state directory cannot be written.
pub fn end(state_dir: &Path) -> maildir::Result<bool> {
    let (path, now) = (path(state_dir), now_secs());
    let was = find(&path, now).is_some();
    if was {
        // One that is over and durable: a file that was only removed may come back when the power fails. On a full disk it must do.
        let over = Paused {
            since: now,
            until: Some(now),
        };
        let _ = write(&path, over);
    }
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(maildir::Error::Io {
            what: "remove",
            path,
            source,
        }),
        Ok(()) | Err(_) => Ok(was),
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("paused")
}

fn write(path: &Path, paused: Paused) -> maildir::Result<()> {
    let text = serde_json::to_vec(&paused).expect("plain values become JSON");
    replace_file(path, &text)
}

/// One that cannot be read holds until `resume`: somebody wanted that nothing moves.
fn find(path: &Path, now: u64) -> Option<Paused> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        read => read.unwrap_or_default(),
    };
    let unread = Paused {
        since: now,
        until: None,
    };
    let paused: Paused = serde_json::from_slice(&bytes).unwrap_or(unread);
    paused.holds(now).then_some(paused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_and_written_as_the_fixture_has_it() {
        let paused = Paused {
            since: 1_700_000_000,
            until: Some(1_700_007_200),
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/paused");
        assert_eq!(find(&path, 1_700_000_060), Some(paused));
        let text = serde_json::to_vec(&paused).expect("it becomes JSON");
        assert_eq!(text, std::fs::read(&path).expect("it is there"));
        let said = paused.sentence_at(1_700_000_060);
        let whole =
            "Paused 60 s ago, for another 119 min 0 s; `maildir-sync resume` goes on at once";
        assert_eq!(said, whole);
    }

    #[test]
    fn one_is_over_at_its_end_and_before_it_began() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/paused");
        for now in [1_700_007_200, 1_800_000_000, 1_699_999_999] {
            assert_eq!(find(&path, now), None, "{now}");
        }
        let open = Paused {
            since: 1_700_000_000,
            until: None,
        };
        assert!(open.holds(1_699_999_999) && open.holds(u64::MAX));
    }

    #[test]
    fn the_newer_one_counts_and_what_cannot_be_read_holds() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state_dir = dir.path().join("state");
        assert_eq!(current(&state_dir), None);
        assert!(!end(&state_dir).expect("nothing is to end"));
        begin(&state_dir, Some(Duration::from_secs(3600))).expect("paused");
        let second = begin(&state_dir, None).expect("paused again");
        assert_eq!(current(&state_dir), Some(second));
        assert!(end(&state_dir).expect("ended"));
        assert_eq!(current(&state_dir), None);
        replace_file(&path(&state_dir), b"{\"sin").expect("damaged");
        assert!(current(&state_dir).is_some_and(|paused| paused.until.is_none()));
        assert!(end(&state_dir).expect("ended"));
    }
}
