//! Which files of a folder were touched while a run carried its batches out, so that its end need not list the folder.
//!
//! A batch moves the stamps of the directories that it works in, and its run is not alone there. So far a listing shows what
//! became of such a directory. Most of its files are as they were listed before; which others there are, inotify knows.
//!
//! # Why it may be believed
//! *What holds*: a folder's new stamps are recorded as looked at only if each name in it is as the rows say (I3).
//! 1. Before the first change each directory is watched, and only then looked at: its stamp must be the one that is recorded
//!    for the last listing. So until the watch began it was as its rows say, and whatever happens later is reported by name.
//! 2. At the end, a tick of the clock that stamps files after the last batch, it is looked at again; that stamp is what is
//!    recorded. It is older than the tick that has begun, so a later change leaves another one, and the next run lists.
//! 3. The kernel changes a directory, and reports it to the watch, before it lets go of the directory's lock; and nobody can read
//!    a name in a directory whose lock is held. So after a name was read what moved the stamp has been reported, and lies in the queue.
//! 4. Every name that was reported is looked at: the file must be the very one of a row, or there must be neither. It does not
//!    count who touched it: a stranger who leaves no trace has changed nothing.
//!
//! Anything else leads to the look at the whole tree: a stamp that is another, a folder or file that differs, a folder's
//! row that somebody wrote meanwhile, a queue that ran over, no watch available. So does a folder that was made, renamed or
//! removed, and one that held files without rows when it was listed: a second name of a message, or what an editor left
//! beside one, becomes mail when that message goes.
//!
//! Watched are only file systems of which it is known that every change passes by this kernel, and by that lock: not those
//! that another host writes to, or another layer, nor ZFS, which a rollback changes under everybody's feet.
//!
//! *If interrupted*: nothing was recorded, and the next run lists.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use protocol::message::At;
use protocol::{Op, name};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{RawDir, fstatfs};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::error::Result;
use crate::index::{FolderRow, Index};
use crate::path::{join, subdir};
use crate::root::{Root, look_in, stamp_of_dir};
use crate::stamp::DirStamp;

/// ext2 to ext4, XFS, Btrfs, tmpfs, F2FS and bcachefs, see statfs(2).
const LOCAL: [i64; 6] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0x0102_1994,
    0xF2F5_2010,
    0xCA45_1A4E,
];
/// All that gives a name in a directory or takes one away.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);
/// The slowest kernel clock ticks every 10 ms.
const TICK_MS_MAX: u32 = 30;
/// How many folders are watched at most; watches are few, and each keeps an inode in memory.
const FOLDERS_MAX: usize = 256;

/// What a run has touched.
#[derive(Default)]
pub(crate) struct Touched {
    /// The queue of events, once there is one.
    events: Option<OwnedFd>,
    /// The folders that batches worked in; none of what is known of one that is not watched.
    folders: BTreeMap<u32, Option<Watched>>,
    /// Whether folders themselves were made or moved.
    has_folders: bool,
}

/// A folder that held what its rows say when its watches began.
struct Watched {
    row: FolderRow,
    /// The newest change then.
    number: u64,
    /// The watches of `cur` and `new`, as far as they are there.
    watches: [Option<i32>; 2],
}

impl Touched {
    /// Watches the folders that a batch will work in; under the lock, before anything is changed.
    pub(crate) fn expect(&mut self, root: &Root, index: &Index, ops: &[Op]) -> Result<()> {
        for op in ops {
            let places = match op {
                Op::MakeFolder { .. } | Op::RenameFolder { .. } | Op::RemoveFolder { .. } => {
                    self.has_folders = true;
                    continue;
                }
                Op::Create { at, .. } | Op::Retire { at, .. } => [at, at],
                Op::Update { at, to, .. } => [at, to],
            };
            for at in places {
                self.expect_in(root, index, at)?;
            }
        }
        Ok(())
    }

    fn expect_in(&mut self, root: &Root, index: &Index, at: &At) -> Result<()> {
        if at
            .number
            .is_some_and(|number| self.folders.contains_key(&number))
        {
            return Ok(());
        }
        let row = match at.number {
            Some(number) => index.folder(number)?,
            None => index.folder_in(&at.folder)?,
        };
        let Some(row) = row else {
            return Ok(()); // It is made in this batch, or not there.
        };
        if !self.folders.contains_key(&row.id) {
            let (id, number) = (row.id, index.number()?);
            let watched = self.watch(root, row, number);
            self.folders.insert(id, watched);
        }
        Ok(())
    }

    /// Watches a folder, if it is as its row says.
    fn watch(&mut self, root: &Root, row: FolderRow, number: u64) -> Option<Watched> {
        if row.gone || row.dirty || row.put_back || !row.exact || self.folders.len() >= FOLDERS_MAX
        {
            return None;
        }
        let mut watches = [None; 2];
        for in_new in [false, true] {
            let recorded = if in_new { row.new } else { row.cur };
            let dir = open(root, &row, in_new).ok()?;
            if let Some(dir) = &dir {
                watches[usize::from(in_new)] = Some(self.add(dir.as_fd())?);
            }
            if stamp(dir.as_ref()).ok()? != recorded {
                return None;
            }
        }
        Some(Watched {
            row,
            number,
            watches,
        })
    }

    fn add(&mut self, dir: BorrowedFd) -> Option<i32> {
        if !LOCAL.contains(&fstatfs(dir).ok()?.f_type) {
            return None;
        }
        let events = match &self.events {
            Some(events) => events,
            None => {
                let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
                self.events.insert(events)
            }
        };
        // The open directory itself, whatever its path leads to by now.
        let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
        inotify::add_watch(events, path, NAMES).ok()
    }

    /// Records the stamps of the folders in which everything is as their rows say, and begins a transaction for that. Returns
    /// whether that is all that was touched; otherwise somebody has to look at the tree.
    pub(crate) fn settle(mut self, root: &Root, index: &Index) -> Result<bool> {
        wait_for_tick();
        let mut is_all = !self.has_folders;
        let mut stamped = Vec::new();
        let folders = std::mem::take(&mut self.folders);
        for (id, watched) in folders {
            let now = index.folder(id)?;
            let known = watched.filter(|watched| now.as_ref() == Some(&watched.row));
            match known.and_then(|watched| Stamped::take(root, watched)) {
                Some(folder) => stamped.push(folder),
                None => is_all = false,
            }
        }
        let names = self.names();
        if let Some(events) = self.events.take() {
            // The kernel waits for its own readers when watches end, for 10 ms and more; the run goes on meanwhile.
            std::thread::spawn(move || drop(events));
        }
        let Some(names) = names else {
            return Ok(false);
        };
        for folder in stamped {
            match index.reading(|| folder.is_as_rows_say(index, &names))? {
                true => folder.record(index)?,
                false => is_all = false,
            }
        }
        Ok(is_all)
    }

    /// The names of all events so far, by their watches; nothing if there were too many to report.
    fn names(&self) -> Option<TouchedNames> {
        let mut names = TouchedNames::new();
        let Some(events) = &self.events else {
            return Some(names);
        };
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(events, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => return None,
                Ok(event) => {
                    let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
                    names.entry(event.wd()).or_default().insert(name.to_vec());
                }
                Err(Errno::AGAIN) => return Some(names),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

/// Names of files that were touched, by the watches that reported them.
type TouchedNames = BTreeMap<i32, BTreeSet<Vec<u8>>>;

/// A folder with what it looked like at the end.
struct Stamped {
    watched: Watched,
    dirs: [Option<OwnedFd>; 2],
    stamps: [DirStamp; 2],
}

impl Stamped {
    /// Looks at a folder's directories, and waits until nobody is changing them; nothing where they may not be those that are
    /// watched, or changed a moment ago.
    fn take(root: &Root, watched: Watched) -> Option<Stamped> {
        let mut stamped = Stamped {
            watched,
            dirs: [None, None],
            stamps: [DirStamp::default(); 2],
        };
        let row = &stamped.watched.row;
        for (in_new, before) in [(false, row.cur), (true, row.new)] {
            let dir = open(root, row, in_new).ok()?;
            let tick_ns = tick_ns();
            let now = stamp(dir.as_ref()).ok()?;
            let is_same = (now.ino, now.birth_ns) == (before.ino, before.birth_ns);
            // The small inodes of old ext file systems count in seconds.
            let is_in_seconds = now.ino != 0 && now.newest_ns() % 1_000_000_000 == 0;
            if !is_same || is_in_seconds || now.newest_ns() >= tick_ns {
                return None;
            }
            if let Some(dir) = &dir {
                read_one(dir.as_fd()).ok()?;
            }
            let at = usize::from(in_new);
            (stamped.dirs[at], stamped.stamps[at]) = (dir, now);
        }
        Some(stamped)
    }

    fn is_as_rows_say(&self, index: &Index, names: &TouchedNames) -> Result<bool> {
        for in_new in [false, true] {
            let at = usize::from(in_new);
            let (Some(dir), Some(watch)) = (&self.dirs[at], self.watched.watches[at]) else {
                continue;
            };
            for name in names.get(&watch).into_iter().flatten() {
                if !self.is_as_row_says(index, dir.as_fd(), (in_new, name))? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether a name is that of the very file of a row, or of nothing.
    fn is_as_row_says(
        &self,
        index: &Index,
        dir: BorrowedFd,
        (in_new, name): (bool, &[u8]),
    ) -> Result<bool> {
        match name {
            [] => return Ok(false),        // The watch has ended.
            [b'.', ..] => return Ok(true), // maildir(5): not a message.
            _ => {}
        }
        let seen = match look_in(dir, name) {
            Ok((stamp, _)) => Some(stamp),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => return Ok(false),
        };
        let Ok((unique, info)) = name::split(name) else {
            return Ok(seen.is_none());
        };
        let rows = index.files_at(self.watched.row.id, &unique)?;
        let mut rows = rows.iter().filter(|row| !row.gone);
        let named = rows.find(|row| (row.entry.in_new, &row.entry.info) == (in_new, &info));
        Ok(named.map(|row| row.stamp) == seen && seen.is_none_or(|stamp| stamp.ctime_ns != 0))
    }

    /// Writes the folder's row as of a listing of now.
    fn record(self, index: &Index) -> Result<()> {
        let mut row = self.watched.row;
        let [cur, new] = self.stamps;
        let (came, went) = index.came_and_went(row.id, self.watched.number)?;
        row.messages = (row.messages + came).saturating_sub(went);
        (row.cur, row.new) = (cur, new);
        index.begin()?;
        index.put_folder(&row).map(drop)
    }
}

/// The clock by which these file systems stamp what changes: it stands still for some milliseconds, and goes on.
fn tick_ns() -> i64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Waits until it has gone on, which no event tells; not for ever, since somebody may set it back.
fn wait_for_tick() {
    let begun_ns = tick_ns();
    for _ in 0..TICK_MS_MAX {
        std::thread::sleep(Duration::from_millis(1));
        if tick_ns() > begun_ns {
            return;
        }
    }
}

/// One of a folder's directories, if it is there.
fn open(root: &Root, row: &FolderRow, in_new: bool) -> io::Result<Option<OwnedFd>> {
    match root.open_dir(&join(&row.dir, &[subdir(in_new)])) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// What an open directory looks like; none has the empty stamp.
fn stamp(dir: Option<&OwnedFd>) -> io::Result<DirStamp> {
    dir.map_or(Ok(DirStamp::default()), |dir| stamp_of_dir(dir.as_fd()))
}

/// Reads a name or two of a directory, for which the kernel takes its lock.
fn read_one(dir: BorrowedFd) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 512];
    match RawDir::new(dir, &mut buffer).next() {
        Some(Err(error)) => Err(error.into()),
        Some(Ok(_)) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
