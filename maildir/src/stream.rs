//! Reporting a tree as it is read, for a client that has nothing of it: no list of everything comes first.
//!
//! # What holds
//! - Each file is opened once. Its digest is that of the bytes that go out, and its row is written before it is reported.
//! - The root is locked while a folder is listed and while rows are written, never while bytes go out (I8).
//! - A message that cannot be streamed (two files of one name, one that is not as its row says, one that is damaged) is reported
//!   without its bytes where it has a row. Otherwise it gets one in the scan that follows.
//! - What others write into the index meanwhile is reported by the list that follows: [`Replica::end_stream`] says from where.
//!
//! *If interrupted*: rows that were written stay. They are not flushed before the end, since losing them costs only time;
//! [`crate::relaxed`] keeps an index from being believed that a power failure tore.

use std::os::fd::OwnedFd;

use protocol::entry::{Change, FolderChange};
use protocol::{Entry, Unique};

use crate::error::Result;
use crate::granularity::{granularity_ns, settled};
use crate::hash::Hashed;
use crate::index::{FileRow, FolderRow};
use crate::keywords;
use crate::listing::{self, Stamps, ToList};
use crate::relaxed::{self, relax};
use crate::replica::{Replica, Streaming, lock};
use crate::scanner::Scanner;
use crate::sorted::{FoundFile, Sorted, newest_first};

mod read;

use read::{FileRead, read_ahead};

/// How many messages are reported at once at first, and at most: each group may be twice as large as the one before, since writing
/// their rows costs per group. They have so many bytes at most, but for a single larger one.
const FIRST_FILES: usize = 8;
const GROUP_FILES: usize = 1024;
const GROUP_BYTES: usize = 4 << 20;

/// A message and, where they can be sent with it, its bytes.
#[derive(Debug)]
pub struct Streamed {
    /// The message, as the journal reports it.
    pub change: Change,
    /// All of its bytes.
    pub body: Option<Vec<u8>>,
}

/// The messages of one folder that are to be reported, newest first.
pub struct FolderStream {
    folder: FolderRow,
    files: Sorted,
    /// Which of them are to be reported, in this order.
    order: Vec<usize>,
    /// What is reported without bytes.
    rest: Vec<Change>,
    dirs: [Option<OwnedFd>; 2],
    stamps: Stamps,
    /// When the directories changed last, as far as their times can be believed.
    changed_ns: i64,
    begun_ns: i64,
    /// Whether it holds exactly what was found, and every file of it was reported.
    is_whole: bool,
    leaves_out: bool,
    messages: u64,
}

impl FolderStream {
    /// How many messages the folder holds.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether the directories have changed since this moment, in nanoseconds since 1970.
    #[must_use]
    pub fn is_younger_than(&self, moment_ns: i64) -> bool {
        self.changed_ns >= moment_ns
    }
}

impl Replica {
    /// Finds the folders of the tree, and looks into none of them. Returns all that are there.
    ///
    /// # Errors
    /// When the index fails, the lock cannot be taken, or the tree has lost its INBOX.
    pub fn find_folders(&mut self) -> Result<Vec<FolderChange>> {
        let _lock = lock(self.path())?;
        self.recover()?;
        relax(self.state(), &self.index)?;
        let _whole = self.index.whole();
        Scanner::new(self.root(), &self.index, false, self.adopts())?.find_folders()?;
        self.streaming = Streaming {
            newest: self.index.number()?,
            foreign_from: None,
            group_files: FIRST_FILES,
        };
        let mut folders = self.index.folders_since(0)?;
        folders.retain(|folder| !folder.gone);
        Ok(folders)
    }

    /// Lists a folder: the messages behind `after`, newest first, or all. `None` for one that is not there or cannot be read:
    /// the scan says why.
    ///
    /// # Errors
    /// When the index fails or the lock cannot be taken.
    pub fn course(&mut self, folder: u32, after: Option<&Unique>) -> Result<Option<FolderStream>> {
        let _lock = lock(self.path())?;
        let Some(row) = self.index.folder(folder)?.filter(|row| !row.gone) else {
            return Ok(None);
        };
        let wanted = |stamps| ToList {
            at: 0,
            dir: row.dir.clone(),
            stamps,
        };
        let listed = listing::stamps(self.root(), &row.dir)
            .and_then(|stamps| listing::read(self.root(), &wanted(stamps)));
        let Ok(listing) = listed else { return Ok(None) };
        let is_whole =
            listing.is_settled && listing.problems.is_empty() && listing.unknown.is_empty();
        let mut course = FolderStream {
            folder: row,
            messages: listing.files.len() as u64,
            files: listing.files,
            order: Vec::new(),
            rest: Vec::new(),
            dirs: listing.dirs.into_fds(),
            stamps: listing.stamps,
            changed_ns: listing.stamps.changed_ns(granularity_ns(self.root())),
            begun_ns: listing.begun_ns,
            is_whole: is_whole && after.is_none(),
            leaves_out: listing.leaves_out,
        };
        self.leave_rest(&mut course)?;
        course.order(after);
        Ok(Some(course))
    }

    /// Leaves to the list that follows what is not one file of one name, and reports the rows of what was not found.
    fn leave_rest(&self, course: &mut FolderStream) -> Result<()> {
        let files = &course.files;
        let is_single = |at: usize| {
            !files.is_double(at) && !at.checked_sub(1).is_some_and(|at| files.is_double(at))
        };
        let mut is_single: Vec<bool> = (0..files.len()).map(is_single).collect();
        self.index.each_file_of(course.folder.id, |row| {
            let at = files.find(&row.unique);
            let is_other = at.is_none_or(|at| !is_single[at] || row.copy != 0);
            if is_other && !row.gone {
                if let Some(at) = at {
                    is_single[at] = false;
                }
                course.rest.push(row.into_change());
            }
            Ok(())
        })?;
        let order = 0..files.len();
        course.order = order.filter(|&at| is_single[at]).collect();
        // One of several rows of a name may have been passed before the others were seen.
        course.rest.retain(|change| {
            let at = files.find(&change.unique);
            at.is_none_or(|at| !is_single[at])
        });
        course.is_whole &= course.order.len() == files.len() && course.rest.is_empty();
        Ok(())
    }

    /// Reads the files of a course and hands them over in groups, with their rows written.
    ///
    /// # Errors
    /// What `report` says, or when the index fails; then the rest is left.
    pub fn stream<E: From<crate::Error>>(
        &mut self,
        mut course: FolderStream,
        mut report: impl FnMut(Vec<Streamed>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let rest = std::mem::take(&mut course.rest).into_iter();
        let rest: Vec<_> = rest.map(|change| Streamed { change, body: None }).collect();
        if !rest.is_empty() {
            report(rest)?;
        }
        let (files, dirs) = (&course.files, &course.dirs);
        let (mut group, mut bytes) = (Vec::new(), 0);
        let mut room = self.streaming.group_files;
        let mut is_whole = course.is_whole;
        let mut left = course.order.len();
        read_ahead(dirs, files, &course.order, |at, read| {
            left -= 1;
            match read {
                Ok(read) => {
                    bytes += read.bytes.as_ref().map_or(0, Vec::len);
                    group.push((files.found(at), read));
                }
                Err(_) => is_whole = false, // The scan says what is the matter.
            }
            if group.len() >= room || bytes >= GROUP_BYTES || left == 0 {
                (bytes, room) = (0, (room * 2).min(GROUP_FILES));
                let (told, all) = self.put_streamed(&course.folder, std::mem::take(&mut group))?;
                is_whole &= all;
                if !told.is_empty() {
                    report(told)?;
                }
            }
            Ok::<(), E>(())
        })?;
        (course.is_whole, self.streaming.group_files) = (is_whole, room);
        Ok(self.end_course(course)?)
    }

    /// Writes the rows of files that were read. Also returns whether all of them are what is reported.
    fn put_streamed(
        &mut self,
        folder: &FolderRow,
        group: Vec<(FoundFile, FileRead)>,
    ) -> Result<(Vec<Streamed>, bool)> {
        let _lock = lock(self.path())?;
        relax(self.state(), &self.index)?;
        let _whole = self.index.whole();
        self.index.begin()?;
        let number = self.index.number()?;
        self.streaming.meet(number);
        let granularity_ns = granularity_ns(self.root());
        let (mut told, mut is_all) = (Vec::with_capacity(group.len()), true);
        for (found, FileRead { hashed, bytes }) in group {
            let mut row = row_of(folder, &found, &hashed, granularity_ns);
            is_all &= row.stamp.ctime_ns != 0;
            let known = self.index.file_at(folder.id, &found.unique, 0)?;
            let is_so = match known.filter(|known| !known.gone) {
                None => {
                    row.seq = self.index.next_number()?;
                    row.born = row.seq;
                    self.index.put_file(&row)?;
                    true
                }
                // What became another since is the scan's to judge.
                Some(known) => {
                    let is_so = known.entry == row.entry;
                    row = known;
                    is_so
                }
            };
            is_all &= is_so;
            let body = bytes.filter(|_| is_so && !row.entry.damaged);
            let change = row.into_change();
            told.push(Streamed { change, body });
        }
        self.index.commit()?;
        self.streaming.newest = self.index.number()?;
        Ok((told, is_all))
    }

    /// Remembers what the folder's directories looked like, if nothing has moved since: then the scan need not list it.
    fn end_course(&mut self, course: FolderStream) -> Result<()> {
        let _lock = lock(self.path())?;
        relax(self.state(), &self.index)?;
        let row = self.index.folder(course.folder.id)?;
        let age_ns = course.begun_ns - course.changed_ns;
        let now = listing::stamps(self.root(), &course.folder.dir).ok();
        // Letters and their names are looked at by the scan, which reports what is the matter with them.
        let is_plain = matches!(keywords::read(self.root(), &course.folder.dir), Ok(None));
        let is_known = course.is_whole
            && is_plain
            && age_ns >= granularity_ns(self.root())
            && now == Some(course.stamps)
            && course.folder.keywords.is_none();
        let row = row.filter(|row| *row == course.folder && row.dirty && is_known);
        let Some(mut row) = row else { return Ok(()) };
        (row.cur, row.new, row.dirty) = (course.stamps.cur, course.stamps.new, false);
        (row.messages, row.exact) = (course.messages, !course.leaves_out);
        let _whole = self.index.whole();
        self.index.begin()?;
        self.index.put_folder(&row)?;
        self.index.commit()
    }

    /// Ends a stream: what was written is flushed. Returns the number after which the journal has what was not streamed.
    ///
    /// # Errors
    /// When the index fails.
    pub fn end_stream(&mut self) -> Result<u64> {
        let _lock = lock(self.path())?;
        self.streaming.meet(self.index.number()?);
        relaxed::flush(self.state(), &self.index)?;
        Ok(self.streaming.foreign_from.unwrap_or(self.streaming.newest))
    }
}

impl FolderStream {
    /// Puts the newest first, and drops what is not behind `after`.
    fn order(&mut self, after: Option<&Unique>) {
        let (files, order) = (&self.files, &mut self.order);
        files.sort_newest_first(order);
        if let Some(after) = after {
            let after = newest_first(after.as_bytes());
            let first = order.partition_point(|&at| newest_first(files.unique(at)) <= after);
            order.drain(..first);
            self.rest.clear(); // They were reported before the first one.
        }
    }
}

/// The row of a file that was read, without a number.
fn row_of(folder: &FolderRow, found: &FoundFile, hashed: &Hashed, granularity_ns: i64) -> FileRow {
    FileRow {
        seq: 0,
        born: 0,
        folder: folder.id,
        unique: found.unique.clone(),
        copy: 0,
        gone: false,
        lost: false,
        entry: Entry {
            in_new: found.in_new,
            info: found.info.clone(),
            digest: hashed.digest,
            size: hashed.stamp.size,
            mtime_ns: hashed.stamp.mtime_ns,
            damaged: hashed.is_blank,
        },
        stamp: settled(granularity_ns, hashed),
        due: false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::replica::open_for_test as open;

    /// A scan of another agent flushes what was written so far, and takes the file away.
    #[test]
    fn each_group_is_written_only_while_it_is_known_that_the_index_is_not_flushed() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::create_dir_all(dir.path().join("mail/cur")).expect("it is made");
        for number in 0..3 * FIRST_FILES {
            let name = dir.path().join(format!("mail/cur/{number}.M.mx:2,S"));
            fs::write(name, format!("message {number}")).expect("it is written");
        }
        let mut replica = open(dir.path(), "state");
        let folders = replica.find_folders().expect("they are found");
        let course = replica.course(folders[0].id, None).expect("it is listed");
        let path = relaxed::path_in(replica.state());
        let mut groups = 0;
        let streamed = replica.stream(course.expect("it is there"), |_| {
            groups += 1;
            assert!(path.exists(), "group {groups}");
            fs::remove_file(&path).expect("it is taken away");
            Ok::<(), crate::Error>(())
        });
        streamed.expect("it is streamed");
        assert!(groups > 1, "{groups}");
        let since = replica.end_stream().expect("it ends");
        assert_eq!(since, replica.index.number().expect("a number"));
        assert!(!path.exists());
    }
}
