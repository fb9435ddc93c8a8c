//! What lies in `new` and `cur` of folders: listed, several folders at a time, and stat-ed where that is asked. Knows no rows.
//!
//! A listing reads `new` before `cur`, because mail readers move files that way, and is made again if a stamp moved
//! meanwhile: readdir may miss a file that is renamed under it.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use protocol::Unique;
use protocol::bytes::escape;
use protocol::message::Problem;
use protocol::name::{self, edited};
use rustix::fs::FileType;

use crate::granularity::changed_ns;
use crate::path::{is_mail, join, subdir};
use crate::root::{Root, each_in, look_in};
use crate::sorted::{FoundFile, Looked, Sorted};
use crate::stamp::DirStamp;
use crate::time::now_ns;

/// A folder that moves under every listing is read next time.
const LISTINGS_MAX: usize = 4;
/// Threads that stat the files of a large folder: cold disks answer several at once, as when they are hashed.
const THREADS: usize = 8;
/// From how many files on threads are worth starting.
const THREADS_FROM: usize = 2048;
/// How many folders are read at once. Their listings lie in memory until they are taken.
const FOLDERS: usize = 4;

/// What the directories of a folder look like; one that is not there has the empty stamp.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamps {
    pub(crate) new: DirStamp,
    pub(crate) cur: DirStamp,
}

/// The files of a folder.
pub(crate) struct FolderListing {
    pub(crate) files: Sorted,
    pub(crate) problems: Vec<Problem>,
    /// Whether files were left out that an editor left beside messages.
    pub(crate) leaves_out: bool,
    /// Unique names of what could not be looked at, or is something else than a file: it may be the message.
    pub(crate) unknown: Vec<(Unique, String)>,
    /// What the directories looked like at its end.
    pub(crate) stamps: Stamps,
    /// Whether nothing moved while it was made.
    pub(crate) is_settled: bool,
    /// When it was begun, on the clock that stamps files.
    pub(crate) begun_ns: i64,
    /// The directories that were listed.
    pub(crate) dirs: Dirs,
}

/// A folder to be read.
pub(crate) struct ToList {
    /// What it is to the caller.
    pub(crate) at: usize,
    pub(crate) dir: Vec<u8>,
    /// What its directories looked like just now.
    pub(crate) stamps: Stamps,
}

/// What the directories of a folder look like now.
pub(crate) fn stamps(root: &Root, dir: &[u8]) -> io::Result<Stamps> {
    let stamp = |in_new| match root.dir_stamp(&join(dir, &[subdir(in_new)])) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DirStamp::default()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let sub = escape(subdir(in_new));
            let why = format!("its {sub} is no directory, or behind a link; put it back");
            Err(io::Error::new(error.kind(), why))
        }
        other => other,
    };
    let (new, cur) = (stamp(true)?, stamp(false)?);
    Ok(Stamps { new, cur })
}

impl Stamps {
    /// When one of them changed last, as far as their times can be believed.
    pub(crate) fn changed_ns(&self, granularity_ns: i64) -> i64 {
        let [new, cur] = [self.new, self.cur]
            .map(|stamp| changed_ns(granularity_ns, stamp.mtime_ns, stamp.ctime_ns));
        new.max(cur)
    }

    /// The one of `new` or of `cur`.
    pub(crate) fn of(&self, in_new: bool) -> DirStamp {
        if in_new { self.new } else { self.cur }
    }
}

/// Reads folders on threads of a scope, and sends each listing, in any order. Each waits until it is taken; what nobody
/// takes any more ends the threads.
pub(crate) fn read_folders<'s>(
    scope: &'s Scope<'s, '_>,
    root: &'s Root,
    wanted: &'s [ToList],
) -> Receiver<(&'s ToList, io::Result<FolderListing>)> {
    let next = Arc::new(AtomicUsize::new(0));
    let (sender, results) = sync_channel(0);
    for _ in 0..FOLDERS.min(wanted.len()) {
        let (sender, next) = (sender.clone(), Arc::clone(&next));
        scope.spawn(move || {
            while let Some(wanted) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                if sender.send((wanted, read(root, wanted))).is_err() {
                    return;
                }
            }
        });
    }
    results
}

/// Reads one folder.
///
/// # Errors
/// The system's, and when `cur` or `new` went away meanwhile.
pub(crate) fn read(root: &Root, wanted: &ToList) -> io::Result<FolderListing> {
    let listing = read_settled(root, wanted)?;
    let (before, after) = (wanted.stamps, listing.stamps);
    for (sub, before, after) in [
        ("new", before.new, after.new),
        ("cur", before.cur, after.cur),
    ] {
        if before != DirStamp::default() && after == DirStamp::default() {
            // An empty listing would say that its messages are gone.
            return Err(io::Error::other(format!(
                "its {sub} went away while it was read"
            )));
        }
    }
    Ok(listing)
}

fn read_settled(root: &Root, wanted: &ToList) -> io::Result<FolderListing> {
    let mut before = wanted.stamps;
    for _ in 1..LISTINGS_MAX {
        let listing = list(root, &wanted.dir, before)?;
        if listing.is_settled {
            return Ok(listing);
        }
        before = listing.stamps;
    }
    list(root, &wanted.dir, before)
}

/// Lists a folder once; `before` is what its directories looked like before.
fn list(root: &Root, dir: &[u8], before: Stamps) -> io::Result<FolderListing> {
    let begun_ns = now_ns();
    let mut part = Part::default();
    let mut dirs = Dirs::default();
    for in_new in [true, false] {
        let sub = join(dir, &[subdir(in_new)]);
        let fd = match root.open_dir(&sub) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        each_in(fd.as_fd(), |name, kind, ino| {
            part.take((fd.as_fd(), &sub), in_new, (name, kind, ino));
        })?;
        dirs.0[usize::from(in_new)] = Some(fd);
    }
    let count = part.files.len();
    leave_editors_files(&mut part.files);
    let leaves_out = part.files.len() < count;
    part.files.sort();
    part.look_at_doubles(&dirs);
    let stamps = stamps(root, dir)?;
    Ok(FolderListing {
        files: part.files,
        problems: part.problems,
        leaves_out,
        unknown: part.unknown,
        stamps,
        is_settled: part.is_calm && stamps == before,
        begun_ns,
        dirs,
    })
}

/// Leaves out what an editor left beside a message: it is not mail, and must not be taken for the message under another
/// name.
fn leave_editors_files(files: &mut Sorted) {
    let all = 0..files.len();
    let (editors, others): (Vec<usize>, Vec<usize>) =
        all.partition(|&at| edited(files.name(at)).is_some());
    if editors.is_empty() {
        return;
    }
    let messages = others.into_iter().map(|at| files.found(at).unique);
    let messages: HashSet<Unique> = messages.collect();
    files.retain(|name| is_mail(edited(name), &messages));
}

/// What a listing has come to so far.
struct Part {
    files: Sorted,
    problems: Vec<Problem>,
    unknown: Vec<(Unique, String)>,
    /// Whether no file went away between being listed and being stat-ed.
    is_calm: bool,
}

impl Default for Part {
    fn default() -> Part {
        Part {
            files: Sorted::default(),
            problems: Vec::new(),
            unknown: Vec::new(),
            is_calm: true,
        }
    }
}

impl Part {
    /// Takes one name. A file is not stat-ed where the listing says that it is one.
    fn take(
        &mut self,
        (fd, sub): (BorrowedFd, &[u8]),
        in_new: bool,
        (name, kind, ino): (&[u8], FileType, u64),
    ) {
        if name.starts_with(b".") {
            return; // maildir(5): not a message.
        }
        let seen = match kind {
            FileType::RegularFile => Ok(None),
            FileType::Unknown => look_in(fd, name).map(Some),
            _ => Err(io::Error::other("it is not a regular file")),
        };
        if let (FileType::RegularFile, ..=name::NAME_BYTES_MAX) = (kind, name.len()) {
            self.files.add(name, in_new, ino, None);
            return; // It can be split, which need not be done for each.
        }
        let why = match (name::split(name), seen) {
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                self.is_calm = false;
                return;
            }
            (Ok(_), Ok(looked)) => {
                let ino = looked.map_or(ino, |(stamp, _)| stamp.ino);
                self.files.add(name, in_new, ino, looked);
                return;
            }
            (Ok((unique, _)), Err(why)) => {
                self.unknown.push((unique, escape(&join(sub, &[name]))));
                why.to_string()
            }
            (Err(_), Err(why)) => why.to_string(),
            (Err(error), Ok(_)) => error.to_string(),
        };
        self.problems.push(Problem {
            path: escape(&join(sub, &[name])),
            why,
            holds: false,
        });
    }

    /// Stats files that share a unique name: which of them are one file is not left to the inodes of the listing, which
    /// some file systems make up.
    fn look_at_doubles(&mut self, dirs: &Dirs) {
        let mut is_double = false;
        for at in 0..self.files.len() {
            let was_double = std::mem::replace(&mut is_double, self.files.is_double(at));
            if !was_double && !is_double {
                continue;
            }
            match dirs.look(&self.files.found(at)) {
                Ok(looked) => self.files.set_looked(at, looked),
                Err(_) => self.is_calm = false,
            }
        }
    }
}

/// The open directories of a folder: `cur` and `new`, as far as there are any.
#[derive(Default)]
pub(crate) struct Dirs([Option<OwnedFd>; 2]);

impl Dirs {
    /// `cur` and `new`.
    pub(crate) fn into_fds(self) -> [Option<OwnedFd>; 2] {
        self.0
    }

    fn look(&self, found: &FoundFile) -> io::Result<Looked> {
        let dir = self.0[usize::from(found.in_new)].as_ref();
        let dir = dir.ok_or(io::ErrorKind::NotFound)?;
        look_in(dir.as_fd(), &found.name())
    }

    /// Stats files that were listed in them and were not yet, in order, several at a time.
    pub(crate) fn look_at(&self, files: &[&FoundFile]) -> Vec<io::Result<Looked>> {
        let look = |found: &&FoundFile| found.looked.map_or_else(|| self.look(found), Ok);
        if files.len() < THREADS_FROM {
            return files.iter().map(look).collect();
        }
        std::thread::scope(|scope| {
            let share = files.chunks(files.len().div_ceil(THREADS));
            let parts: Vec<_> = share
                .map(|files| scope.spawn(move || files.iter().map(look).collect::<Vec<_>>()))
                .collect();
            let parts = parts.into_iter();
            parts
                .flat_map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_editor_left_beside_a_message_is_not_mail() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(dir.path().join("cur")).expect("it is made");
        let editors = [
            "1.a:2,DS~",
            "1.a:2,.~1~",
            "#1.a:2,DS#",
            "1.a~",
            ".#1.a:2,DS",
            "2.b:2,D~",
        ];
        let mail = ["1.a:2,DS", "3.c:2,S~", "4.d~", "#5.e"];
        for name in editors.iter().chain(&mail) {
            std::fs::write(dir.path().join("cur").join(name), b"").expect("it is written");
        }
        let root = Root::open(dir.path()).expect("it opens");
        let before = stamps(&root, b"").expect("it can be looked at");
        let files = list(&root, b"", before).expect("it is listed").files;
        let name = |at| String::from_utf8(files.name(at).to_vec()).expect("a name");
        let mut names: Vec<String> = (0..files.len()).map(name).collect();
        names.sort();
        let mut mail = mail.map(str::to_owned);
        mail.sort();
        assert_eq!(names, mail);
    }

    #[test]
    fn a_directory_that_goes_away_is_not_an_empty_one() {
        let dir = tempfile::tempdir().expect("temp dir");
        for sub in ["new", "cur"] {
            std::fs::create_dir(dir.path().join(sub)).expect("it is made");
        }
        let root = Root::open(dir.path()).expect("it opens");
        let wanted = ToList {
            at: 0,
            dir: Vec::new(),
            stamps: stamps(&root, b"").expect("it can be looked at"),
        };
        assert!(read(&root, &wanted).is_ok());
        std::fs::remove_dir(dir.path().join("cur")).expect("it is removed");
        let error = read(&root, &wanted).err().expect("it went away");
        assert!(error.to_string().contains("cur went away"), "{error}");
    }
}
