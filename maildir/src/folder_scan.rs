//! Reading one folder: listing, comparing with its rows, hashing what differs.

use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;

use protocol::bytes::escape;
use protocol::message::Problem;
use protocol::{Entry, Info, Unique, name};
use rustix::fs::FileType;

use crate::error::Result;
use crate::hash::{Hashed, hash_files};
use crate::index::{FileRow, FolderRow};
use crate::root::{Listed, join, stamp_in};
use crate::scan::{Scanner, is_bad_timing, now_ns};
use crate::stamp::{DirStamp, FileStamp};

/// A folder that moves under every listing is read next time.
const LISTINGS_MAX: usize = 4;
/// Threads that stat the files of a large folder: cold disks answer several at once, as when they are hashed.
const THREADS: usize = 8;
/// From how many files on threads are worth starting.
const THREADS_FROM: usize = 2048;

/// One file as it was listed.
struct Found {
    unique: Unique,
    info: Info,
    in_new: bool,
    stamp: FileStamp,
}

/// One listing of a folder.
#[derive(Default)]
struct Listing {
    found: Vec<Found>,
    problems: Vec<Problem>,
    /// Whether no file went away between being listed and being stat-ed.
    is_calm: bool,
}

/// The subdirectory of a message.
pub(crate) fn subdir(in_new: bool) -> &'static [u8] {
    if in_new { b"new" } else { b"cur" }
}

/// The path of a message's file.
pub(crate) fn path(dir: &[u8], row: &FileRow) -> Vec<u8> {
    let name = [row.unique.as_bytes(), row.entry.info.as_bytes()].concat();
    join(dir, &[subdir(row.entry.in_new), &name])
}

/// Reads a folder if its stamps moved, and brings its rows up to date, but for those that are gone.
pub(crate) fn read_folder(scanner: &mut Scanner, row: &mut FolderRow) -> Result<()> {
    let (Ok(new), Ok(cur)) = (
        stamp(scanner, &row.dir, true),
        stamp(scanner, &row.dir, false),
    ) else {
        return unreadable(scanner, row, "its directories cannot be looked at");
    };
    if !row.dirty && !scanner.checksum && (row.cur, row.new) == (cur, new) {
        return Ok(());
    }
    let mut stamps = (new, cur);
    for attempt in 1.. {
        let begun_ns = now_ns();
        let listing = match list(scanner, &row.dir) {
            Ok(listing) => listing,
            Err(error) => return unreadable(scanner, row, &error.to_string()),
        };
        let (Ok(new), Ok(cur)) = (
            stamp(scanner, &row.dir, true),
            stamp(scanner, &row.dir, false),
        ) else {
            return unreadable(scanner, row, "its directories cannot be looked at");
        };
        let is_settled = listing.is_calm && stamps == (new, cur);
        stamps = (new, cur);
        if is_settled || attempt == LISTINGS_MAX {
            let newest = new
                .mtime_ns
                .max(new.ctime_ns)
                .max(cur.mtime_ns)
                .max(cur.ctime_ns);
            scanner.has_moved |= (row.cur, row.new) != (cur, new);
            (row.cur, row.new) = (cur, new);
            row.dirty = !is_settled || newest > begun_ns - scanner.grain_ns;
            return compare(scanner, row, listing, is_settled);
        }
    }
    Ok(())
}

/// The stamp of `new` or `cur`; a subdirectory that is not there has the empty stamp.
fn stamp(scanner: &Scanner, dir: &[u8], in_new: bool) -> std::io::Result<DirStamp> {
    match scanner.root.dir_stamp(&join(dir, &[subdir(in_new)])) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(DirStamp::default()),
        other => other,
    }
}

/// A folder that cannot be read is unknown, not empty (C11).
fn unreadable(scanner: &mut Scanner, row: &mut FolderRow, why: &str) -> Result<()> {
    scanner.complete = false;
    row.dirty = true;
    scanner.missing.remove(&row.id);
    scanner.index.begin()?;
    scanner.index.put_folder(row)?;
    let problem = Problem {
        path: row.name.to_string(),
        why: why.to_owned(),
    };
    scanner.index.replace_problems(row.id, &[problem])
}

fn list(scanner: &Scanner, dir: &[u8]) -> std::io::Result<Listing> {
    let mut listing = Listing {
        is_calm: true,
        ..Listing::default()
    };
    for in_new in [true, false] {
        let sub = join(dir, &[subdir(in_new)]);
        let fd = match scanner.root.open_dir(&sub) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let names = crate::root::list_fd(fd.try_clone()?)?;
        let look = |names: &[Listed]| look_at(fd.as_fd(), &sub, in_new, names);
        if names.len() < THREADS_FROM {
            listing.add(look(&names));
            continue;
        }
        std::thread::scope(|scope| {
            let share = names.chunks(names.len().div_ceil(THREADS));
            let parts: Vec<_> = share
                .map(|names| scope.spawn(move || look(names)))
                .collect();
            for part in parts {
                listing.add(part.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
        });
    }
    Ok(listing)
}

impl Listing {
    fn add(&mut self, mut part: Listing) {
        self.found.append(&mut part.found);
        self.problems.append(&mut part.problems);
        self.is_calm &= part.is_calm;
    }
}

/// Stats the files that were listed in a folder's `new` or `cur`.
fn look_at(fd: BorrowedFd, sub: &[u8], in_new: bool, names: &[Listed]) -> Listing {
    let mut listing = Listing {
        is_calm: true,
        ..Listing::default()
    };
    for listed in names {
        if listed.name.starts_with(b".") {
            continue; // maildir(5): not a message.
        }
        let mut problem = |why: String| {
            listing.problems.push(Problem {
                path: escape(&join(sub, &[&listed.name])),
                why,
            });
        };
        if !matches!(listed.kind, FileType::RegularFile | FileType::Unknown) {
            problem("it is not a regular file".to_owned());
            continue;
        }
        match (name::split(&listed.name), stamp_in(fd, &listed.name)) {
            (Ok((unique, info)), Ok(stamp)) => listing.found.push(Found {
                unique,
                info,
                in_new,
                stamp,
            }),
            (_, Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                listing.is_calm = false
            }
            (_, Err(error)) => problem(error.to_string()),
            (Err(error), _) => problem(error.to_string()),
        }
    }
    listing
}

/// Pairs the files of a listing with the folder's rows; what is left of the rows is missing.
fn compare(
    scanner: &mut Scanner,
    row: &mut FolderRow,
    mut listing: Listing,
    is_settled: bool,
) -> Result<()> {
    row.messages = 0;
    let Pairing {
        to_hash, missing, ..
    } = pair(scanner, row, std::mem::take(&mut listing.found))?;
    hash_and_put(scanner, row, to_hash, &mut listing.problems)?;
    // What is missing elsewhere may be here, and was not seen.
    if is_settled {
        scanner.unsettled.remove(&row.id);
    } else {
        scanner.unsettled.insert(row.id);
    }
    scanner.missing.remove(&row.id);
    if !missing.is_empty() {
        scanner.missing.insert(row.id, missing);
    }
    scanner.index.begin()?;
    scanner.index.put_folder(row)?;
    scanner.index.replace_problems(row.id, &listing.problems)
}

/// The files and the rows of a folder, which come in one order of unique names: a large folder is compared without its
/// rows being held.
struct Pairing {
    checksum: bool,
    found: std::iter::Peekable<std::vec::IntoIter<Found>>,
    messages: u64,
    to_hash: Vec<(u16, Found, Option<FileRow>)>,
    missing: Vec<FileRow>,
}

fn pair(scanner: &Scanner, row: &mut FolderRow, mut found: Vec<Found>) -> Result<Pairing> {
    found.sort_unstable_by(|a, b| a.unique.cmp(&b.unique));
    let mut pairing = Pairing {
        checksum: scanner.checksum,
        found: found.into_iter().peekable(),
        messages: 0,
        to_hash: Vec::new(),
        missing: Vec::new(),
    };
    let mut known: Vec<FileRow> = Vec::new();
    scanner.index.each_of(row.id, |file| {
        if known
            .first()
            .is_some_and(|first| first.unique != file.unique)
        {
            pairing.take(&mut known);
        }
        known.push(file);
        Ok(())
    })?;
    pairing.take(&mut known);
    pairing.take_new(None);
    row.messages = pairing.messages;
    Ok(pairing)
}

impl Pairing {
    /// Takes the rows of one unique name.
    fn take(&mut self, known: &mut Vec<FileRow>) {
        let Some(unique) = known.first().map(|file| file.unique.clone()) else {
            return;
        };
        self.take_new(Some(&unique));
        let mut group = Vec::new();
        while let Some(found) = self.found.next_if(|found| found.unique == unique) {
            group.push(found);
        }
        self.pair(group, known);
        self.missing
            .extend(known.drain(..).filter(|file| !file.gone));
    }

    /// Takes the files before a name, or all: none of them has a row.
    fn take_new(&mut self, before: Option<&Unique>) {
        while let Some(first) = self
            .found
            .next_if(|found| before.is_none_or(|before| found.unique < *before))
        {
            let unique = first.unique.clone();
            let mut group = vec![first];
            while let Some(found) = self.found.next_if(|found| found.unique == unique) {
                group.push(found);
            }
            self.pair(group, &mut Vec::new());
        }
    }

    /// Pairs the files of one unique name with its rows, which are taken out.
    fn pair(&mut self, group: Vec<Found>, known: &mut Vec<FileRow>) {
        for (copy, found) in assign_copies(group, known) {
            self.messages += 1;
            let at = known.iter().position(|file| file.copy == copy);
            let file = at.map(|at| known.swap_remove(at));
            match file {
                Some(file) if is_same(&file, &found) && !self.checksum => {}
                file => self.to_hash.push((copy, found, file)),
            }
        }
    }
}

fn is_same(file: &FileRow, found: &Found) -> bool {
    !file.gone
        && file.stamp == found.stamp
        && file.entry.in_new == found.in_new
        && file.entry.info == found.info
}

/// By what a file continues a row.
type Rule = fn(&FileRow, &Found) -> bool;

/// Gives each file of one unique name its copy number: the one of the row that it continues, else the lowest free one.
///
/// Two names of one inode are one message: readdir saw it twice while it was renamed, or a hard link (C1).
fn assign_copies(mut group: Vec<Found>, known: &[FileRow]) -> Vec<(u16, Found)> {
    if group.len() == 1 && known.iter().filter(|file| !file.gone).count() <= 1 {
        let copy = known
            .iter()
            .find(|file| !file.gone)
            .map_or(0, |file| file.copy);
        return group.pop().map(|found| (copy, found)).into_iter().collect();
    }
    group.sort_by(|a, b| (a.in_new, &a.info).cmp(&(b.in_new, &b.info)));
    let mut inodes = std::collections::BTreeSet::new();
    group.retain(|found| inodes.insert(found.stamp.ino));
    let mut taken = std::collections::BTreeSet::new();
    let mut copies = vec![None; group.len()];
    let same_inode: Rule = |file, found| file.stamp.ino == found.stamp.ino;
    let same_name: Rule =
        |file, found| (file.entry.in_new, &file.entry.info) == (found.in_new, &found.info);
    let rules: [Rule; 3] = [same_inode, same_name, |_, _| true];
    for rule in rules {
        for (found, copy) in group
            .iter()
            .zip(&mut copies)
            .filter(|(_, copy)| copy.is_none())
        {
            let row = known
                .iter()
                .find(|file| !file.gone && !taken.contains(&file.copy) && rule(file, found));
            *copy = row.map(|file| file.copy).filter(|copy| taken.insert(*copy));
        }
    }
    let numbered = group.into_iter().zip(copies).map(|(found, copy)| {
        let free = || {
            (0..u16::MAX)
                .find(|copy| !taken.contains(copy))
                .unwrap_or(u16::MAX)
        };
        let copy = copy.unwrap_or_else(free);
        taken.insert(copy);
        (copy, found)
    });
    numbered.collect()
}

/// Hashes files and writes their rows.
fn hash_and_put(
    scanner: &mut Scanner,
    folder: &mut FolderRow,
    files: Vec<(u16, Found, Option<FileRow>)>,
    problems: &mut Vec<Problem>,
) -> Result<()> {
    let paths: Vec<Vec<u8>> = files
        .iter()
        .map(|(_, found, _)| {
            let name = [found.unique.as_bytes(), found.info.as_bytes()].concat();
            join(&folder.dir, &[subdir(found.in_new), &name])
        })
        .collect();
    let mut files: Vec<_> = files.into_iter().map(Some).collect();
    let root = scanner.root;
    hash_files(root, &paths, |at, hashed| {
        let Some((copy, found, file)) = files[at].take() else {
            return Ok(());
        };
        match hashed {
            Ok(hashed) => put(scanner, folder.id, copy, found, file, hashed),
            Err(error) => {
                // It is there, but what it is is unknown until it can be read.
                if !is_bad_timing(&error) {
                    problems.push(Problem {
                        path: escape(&paths[at]),
                        why: error.to_string(),
                    });
                }
                folder.dirty = true;
                scanner.unhashed.insert(found.unique);
                Ok(())
            }
        }
    })
}

/// Writes the row of a file that was hashed, as a change if it is one.
fn put(
    scanner: &Scanner,
    folder: u32,
    copy: u16,
    found: Found,
    file: Option<FileRow>,
    hashed: Hashed,
) -> Result<()> {
    let Found {
        unique,
        info,
        in_new,
        stamp,
    } = found;
    let before = file.as_ref().filter(|file| !file.gone);
    let is_rot = before
        .is_some_and(|before| before.stamp == hashed.stamp && before.entry.digest != hashed.digest);
    let damaged = hashed.is_blank
        || is_rot
        || before.is_some_and(|file| file.entry.damaged && file.entry.digest == hashed.digest);
    let Hashed {
        digest,
        stamp: mut seen,
        ..
    } = hashed;
    let entry = Entry {
        in_new,
        info,
        digest,
        size: seen.size,
        mtime_ns: seen.mtime_ns,
        damaged,
    };
    if !stamp.same_but_renamed(&seen)
        || seen.ctime_ns.max(seen.mtime_ns) > now_ns() - scanner.grain_ns
    {
        seen.ctime_ns = 0; // Too fresh to prove anything: hashed again when it is next looked at.
    }
    let is_change = before.is_none_or(|before| {
        (
            before.entry.in_new,
            &before.entry.info,
            before.entry.digest,
            before.entry.damaged,
        ) != (entry.in_new, &entry.info, entry.digest, entry.damaged)
    });
    scanner.index.begin()?;
    let seq = match before {
        Some(before) if !is_change => before.seq,
        Some(_) | None => scanner.index.next_number()?,
    };
    let born = before.map_or(seq, |before| before.born);
    let row = FileRow {
        seq,
        born,
        folder,
        unique,
        copy,
        gone: false,
        confirmed: false,
        entry,
        stamp: seen,
    };
    scanner.index.put_file(&row)
}
