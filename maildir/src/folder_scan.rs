//! Comparing the listing of a folder with its rows, and hashing what differs.

use protocol::bytes::escape;
use protocol::message::Problem;
use protocol::{Entry, Unique};

use crate::error::Result;
use crate::hash::{Hashed, hash_files};
use crate::index::{FileRow, FolderRow, Known};
use crate::listing::{Found, Listing, subdir};
use crate::root::join;
use crate::scan::{Scanner, is_bad_timing, now_ns};

/// The path of a message's file.
pub(crate) fn path(dir: &[u8], row: &FileRow) -> Vec<u8> {
    let name = [row.unique.as_bytes(), row.entry.info.as_bytes()].concat();
    join(dir, &[subdir(row.entry.in_new), &name])
}

/// A folder that cannot be read is unknown, not empty (C11).
pub(crate) fn unreadable(scanner: &mut Scanner, row: &mut FolderRow, why: &str) -> Result<()> {
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

/// Brings the rows of a folder up to its listing, but for those that are gone: what is left of them is missing.
pub(crate) fn compare(
    scanner: &mut Scanner,
    row: &mut FolderRow,
    mut listing: Listing,
) -> Result<()> {
    let (is_settled, stamps) = (listing.is_settled, listing.stamps);
    scanner.has_moved |= (row.cur, row.new) != (stamps.cur, stamps.new);
    (row.cur, row.new) = (stamps.cur, stamps.new);
    row.dirty = !is_settled || stamps.newest_ns() > listing.begun_ns - scanner.grain_ns;
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
/// rows being held, and without those being decoded whose file is as it was.
struct Pairing {
    checksum: bool,
    found: std::vec::IntoIter<Found>,
    messages: u64,
    to_hash: Vec<(u16, Found, Option<FileRow>)>,
    /// The rows of one unique name.
    known: Vec<FileRow>,
    missing: Vec<FileRow>,
}

fn pair(scanner: &Scanner, row: &mut FolderRow, mut found: Vec<Found>) -> Result<Pairing> {
    found.sort_by(|a, b| a.unique.cmp(&b.unique));
    let mut pairing = Pairing {
        checksum: scanner.checksum,
        found: found.into_iter(),
        messages: 0,
        to_hash: Vec::new(),
        known: Vec::new(),
        missing: Vec::new(),
    };
    scanner.index.each_of(row.id, |known| pairing.meet(known))?;
    pairing.take_known();
    pairing.take_new(None);
    row.messages = pairing.messages;
    Ok(pairing)
}

impl Pairing {
    /// Takes a row; those of one unique name follow each other.
    fn meet(&mut self, known: &Known) -> rusqlite::Result<()> {
        let unique = known.unique()?;
        if self
            .known
            .first()
            .is_some_and(|first| first.unique.as_bytes() != unique)
        {
            self.take_known();
        }
        self.take_new(Some(unique));
        if !self.is_as_it_was(known)? {
            self.known.push(known.row()?);
        }
        Ok(())
    }

    /// Whether the next file is what a row says, and the only one of its unique name; then it is taken.
    fn is_as_it_was(&mut self, known: &Known) -> rusqlite::Result<bool> {
        let [next, rest @ ..] = self.found.as_slice() else {
            return Ok(false);
        };
        let is_only = self.known.is_empty()
            && next.unique.as_bytes() == known.unique()?
            && rest.first().is_none_or(|other| other.unique != next.unique);
        if self.checksum || !is_only || !known.is_at(next.in_new, &next.info, &next.stamp)? {
            return Ok(false);
        }
        self.found.next();
        self.messages += 1;
        Ok(true)
    }

    /// Takes the rows of one unique name together with its files.
    fn take_known(&mut self) {
        let mut known = std::mem::take(&mut self.known);
        let Some(unique) = known.first().map(|file| file.unique.clone()) else {
            return;
        };
        let group = self.next_group(&unique);
        self.pair(group, &mut known);
        self.missing
            .extend(known.into_iter().filter(|file| !file.gone));
    }

    /// Takes the files before a name, or all: none of them has a row.
    fn take_new(&mut self, before: Option<&[u8]>) {
        while let Some(first) = self.found.as_slice().first()
            && before.is_none_or(|before| first.unique.as_bytes() < before)
        {
            let unique = first.unique.clone();
            let group = self.next_group(&unique);
            self.pair(group, &mut Vec::new());
        }
    }

    /// The next files, as far as they have this unique name.
    fn next_group(&mut self, unique: &Unique) -> Vec<Found> {
        let all = self.found.as_slice().iter();
        let count = all.take_while(|found| found.unique == *unique).count();
        self.found.by_ref().take(count).collect()
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
