//! What a hook has not got with success: kept beside the account's address, added to at the end, so that a run may do it
//! while another one's hook is running.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use maildir::durable::replace_file;
use maildir::private;

use super::Event;
use super::notice::{Notice, each, numbers, store_numbers};
use crate::config::Account;
use crate::run::known;

/// How much a run tells before that is kept: of a first pull all together would be as much as its index.
const GATHERED: usize = 64 << 10;

/// What a run tells its hooks.
#[derive(Default)]
pub struct Told([Part; Event::ALL.len()]);

/// What it tells one of them.
#[derive(Default)]
struct Part {
    /// What is not kept yet, as it is stored.
    gathered: Vec<u8>,
    /// Whether some is, without the run's numbers.
    is_begun: bool,
    /// The disk takes no more.
    is_full: bool,
}

impl Told {
    /// Adds a notice, if the account has a hook for it.
    pub fn add(&mut self, account: &Account, event: Event, notice: &Notice) {
        if event.command(account).is_none() {
            return;
        }
        let part = &mut self.0[event as usize];
        notice.store(&mut part.gathered);
        if part.gathered.len() >= GATHERED && !part.is_full {
            match Kept::of(account, event).append(&part.gathered) {
                Ok(()) => {
                    part.gathered.clear();
                    part.is_begun = true;
                }
                Err(_) => part.is_full = true, // It is tried once more at the end, and said.
            }
        }
    }

    /// Adds what was told later.
    pub fn append(&mut self, later: &mut Told) {
        for (part, later) in self.0.iter_mut().zip(&mut later.0) {
            part.gathered.append(&mut later.gathered);
            part.is_begun |= std::mem::take(&mut later.is_begun);
        }
    }

    /// Whether there is anything for a hook.
    pub(super) fn has(&self, event: Event) -> bool {
        let part = &self.0[event as usize];
        part.is_begun || !part.gathered.is_empty()
    }
}

/// The files of one hook.
pub(super) struct Kept {
    news: PathBuf,
    failure: PathBuf,
}

impl Kept {
    pub(super) fn of(account: &Account, event: Event) -> Kept {
        let name = match event {
            Event::Post => String::new(),
            Event::New | Event::Conflict | Event::Failure => format!("-{}", event.name()),
        };
        Kept {
            news: known::beside(account, &format!("hook{name}")),
            failure: known::beside(account, &format!("hook{name}-failed")),
        }
    }

    /// Whether there is anything.
    pub(super) fn is_any(&self) -> bool {
        self.news.exists()
    }

    /// Keeps the rest of what a run tells, and its numbers.
    pub(super) fn add(&self, told: &Told, event: Event, numbers: [u64; 3]) -> io::Result<()> {
        match told.has(event) {
            true => self.add_all(&told.0[event as usize].gathered, numbers),
            false => Ok(()),
        }
    }

    fn add_all(&self, notices: &[u8], numbers: [u64; 3]) -> io::Result<()> {
        self.append(&[notices, &store_numbers(numbers)].concat())
    }

    /// Adds bytes, all of them or none.
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = private::open(&self.news)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.write_all(bytes).inspect_err(|_| {
            let _ = file.set_len(end); // What is torn would be told all the same.
        })
    }

    /// All of it, as it is stored.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        match fs::read(&self.news) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        }
    }

    /// Why it was not told, escaped, or nothing if that was not tried.
    pub(super) fn why(&self) -> String {
        protocol::bytes::escape(&fs::read(&self.failure).unwrap_or_default())
    }

    /// Forgets what a hook got with success, or keeps it, each notice once, with why it failed. What another run has added
    /// since stays.
    pub(super) fn settle(&self, told: &[u8], result: &Result<(), String>) -> io::Result<()> {
        let bytes = fs::read(&self.news)?;
        let since = bytes.get(told.len()..).unwrap_or_default();
        let (mut left, replaced) = match result {
            Ok(()) => (Vec::new(), remove(&self.failure)),
            Err(why) => (once(told), replace(&self.failure, why.as_bytes())),
        };
        left.extend_from_slice(since);
        if left.is_empty() {
            remove(&self.news)?;
        } else {
            replace(&self.news, &left)?;
        }
        replaced
    }
}

fn once(told: &[u8]) -> Vec<u8> {
    let mut bytes = store_numbers(numbers(told));
    for notice in each(told) {
        notice.store(&mut bytes);
    }
    bytes
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_file(path, bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::super::notice::written;
    use super::*;
    use crate::config::file::Format;

    #[test]
    fn what_failed_is_told_again_once_and_with_what_came_since() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let kept = Kept {
            news: dir.path().join("hook"),
            failure: dir.path().join("hook-failed"),
        };
        let add = |paths: &[&str], numbers| {
            let mut notices = Vec::new();
            for path in paths {
                Notice::new("new", "INBOX", Path::new(path)).store(&mut notices);
            }
            kept.add_all(&notices, numbers).expect("kept");
        };
        let paths = |bytes: &[u8]| written(each(bytes), Format::Paths);
        assert!(kept.read().expect("nothing is kept").is_empty());
        add(&["/a", "/b\n"], [2, 0, 0]);
        let first = kept.read().expect("it is read");
        add(&["/c"], [0, 1, 0]);
        let failed = Err("it failed".to_owned());
        kept.settle(&first, &failed).expect("settled");
        assert_eq!(kept.why(), "it failed");
        add(&["/a"], [0, 1, 1]);
        let second = kept.read().expect("it is read");
        assert_eq!(paths(&second), b"/a\0/b\n\0/c\0");
        assert_eq!(numbers(&second), [2, 2, 1]);
        add(&["/d"], [1, 0, 0]);
        kept.settle(&second, &Ok(())).expect("settled");
        assert_eq!(kept.why(), "");
        let third = kept.read().expect("it is read");
        assert_eq!(paths(&third), b"/d\0");
        kept.settle(&third, &Ok(())).expect("settled");
        assert!(!kept.is_any());
    }
}
