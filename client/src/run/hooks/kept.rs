//! What a hook has not got with success: kept beside the account's address, added to at the end, so that a run may do it
//! while another one's hook is running.
//!
//! Fields ended by NUL: the paths, and before those of a run its three numbers.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use maildir::durable::replace_file;
use maildir::private;

use crate::config::Account;
use crate::run::known;

/// What changed here.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) paths: Vec<PathBuf>,
    /// Messages that are new, that are others now, and that went.
    pub(super) new: u64,
    pub(super) changed: u64,
    pub(super) deleted: u64,
    /// From how many stored bytes this was read.
    length: usize,
}

/// The files.
pub(super) struct Kept {
    news: PathBuf,
    failure: PathBuf,
}

impl News {
    pub(super) fn new(paths: Vec<PathBuf>, [new, changed, deleted]: [u64; 3]) -> News {
        News {
            paths,
            new,
            changed,
            deleted,
            length: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    fn encode(&self) -> Vec<u8> {
        let numbers = format!("{} {} {}\0", self.new, self.changed, self.deleted);
        [numbers.into_bytes(), joined(&self.paths)].concat()
    }

    /// Each path once, in the order in which they came; numbers add up.
    fn decode(bytes: &[u8]) -> News {
        let mut news = News {
            length: bytes.len(),
            ..News::default()
        };
        let mut seen = HashSet::new();
        for field in bytes
            .split(|&byte| byte == 0)
            .filter(|field| !field.is_empty())
        {
            if field.starts_with(b"/") {
                if seen.insert(field) {
                    let path = std::ffi::OsString::from_vec(field.to_vec());
                    news.paths.push(path.into());
                }
                continue;
            }
            let words = std::str::from_utf8(field).unwrap_or_default();
            let numbers = words.split(' ').filter_map(|word| word.parse::<u64>().ok());
            let sums = [&mut news.new, &mut news.changed, &mut news.deleted];
            for (sum, number) in sums.into_iter().zip(numbers) {
                *sum += number;
            }
        }
        news
    }
}

/// Paths as a hook reads them.
pub(super) fn joined(paths: &[PathBuf]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for path in paths {
        bytes.extend_from_slice(path.as_os_str().as_bytes());
        bytes.push(0);
    }
    bytes
}

impl Kept {
    pub(super) fn of(account: &Account) -> Kept {
        Kept {
            news: known::beside(account, "hook"),
            failure: known::beside(account, "hook-failed"),
        }
    }

    /// Whether there is anything.
    pub(super) fn is_any(&self) -> bool {
        self.news.exists()
    }

    /// Adds what a run changed.
    pub(super) fn add(&self, news: &News) -> io::Result<()> {
        if news.is_empty() {
            return Ok(());
        }
        let mut file = private::open(&self.news)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(&news.encode())
    }

    /// All of it.
    pub(super) fn read(&self) -> io::Result<News> {
        match fs::read(&self.news) {
            Ok(bytes) => Ok(News::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(News::default()),
            Err(error) => Err(error),
        }
    }

    /// Forgets what a hook got with success, or keeps it, each path once, with why it failed. What another run has added
    /// since stays.
    pub(super) fn settle(&self, reported: &News, result: &Result<(), String>) -> io::Result<()> {
        let bytes = fs::read(&self.news)?;
        let since = bytes.get(reported.length..).unwrap_or_default();
        let (mut left, replaced) = match result {
            Ok(()) => (Vec::new(), remove(&self.failure)),
            Err(why) => (reported.encode(), replace(&self.failure, why.as_bytes())),
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

/// What an account's hook has not got with success, for people: how many paths, and why.
#[must_use]
pub fn waiting(account: &Account) -> Option<String> {
    account.post_hook.as_ref()?;
    let kept = Kept::of(account);
    let news = kept.read().ok().filter(|news| !news.is_empty())?;
    let why = fs::read(&kept.failure).unwrap_or_default();
    let why = if why.is_empty() {
        "hooks.post was not run".to_owned()
    } else {
        protocol::bytes::escape(&why)
    };
    let paths = match news.paths.len() {
        1 => "1 changed path".to_owned(),
        count => format!("{count} changed paths"),
    };
    Some(format!(
        "{why}; it is run again after the next run, with {paths}"
    ))
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn replace(path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    replace_file(path, bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &[u8] = include_bytes!("../../../fixtures/address-hook");

    #[test]
    fn what_is_stored_is_read_and_written_as_the_fixture_has_it() {
        let paths = ["/mail/cur/1.a:2,S", "/mail/new/2 b\n"].map(PathBuf::from);
        let news = News::new(paths.into(), [2, 1, 3]);
        assert_eq!(news.encode(), FIXTURE);
        let length = FIXTURE.len();
        assert_eq!(News::decode(FIXTURE), News { length, ..news });
    }

    #[test]
    fn what_failed_is_told_again_once_and_with_what_came_since() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let kept = Kept {
            news: dir.path().join("hook"),
            failure: dir.path().join("hook-failed"),
        };
        let news =
            |paths: &[&str], counts| News::new(paths.iter().map(PathBuf::from).collect(), counts);
        assert!(kept.read().expect("nothing is kept").is_empty());
        kept.add(&news(&["/a", "/b\n"], [2, 0, 0])).expect("kept");
        let first = kept.read().expect("it is read");
        kept.add(&news(&["/c"], [0, 1, 0])).expect("kept meanwhile");
        let failed = Err("it failed".to_owned());
        kept.settle(&first, &failed).expect("settled");
        assert_eq!(fs::read(&kept.failure).expect("why"), b"it failed");
        kept.add(&news(&["/a"], [0, 1, 1])).expect("kept");
        let second = kept.read().expect("it is read");
        let paths: Vec<_> = ["/a", "/b\n", "/c"].map(PathBuf::from).into();
        assert_eq!((&second.paths, second.new), (&paths, 2));
        assert_eq!((second.changed, second.deleted), (2, 1));
        kept.add(&news(&["/d"], [1, 0, 0])).expect("kept meanwhile");
        kept.settle(&second, &Ok(())).expect("settled");
        assert!(!kept.failure.exists());
        let third = kept.read().expect("it is read");
        assert_eq!(third.paths, [PathBuf::from("/d")]);
        kept.settle(&third, &Ok(())).expect("settled");
        assert!(!kept.is_any());
    }
}
