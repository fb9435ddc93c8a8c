//! Comparing the listing of a folder with its rows, and hashing what differs.

use std::collections::BTreeSet;
use std::time::Instant;

use protocol::bytes::escape;
use protocol::message::Problem;
use protocol::{Entry, Flags};

use crate::error::{Result, is_bad_timing};
use crate::granularity::settled;
use crate::hash::{Hashed, hash_file, hash_files};
use crate::index::{FileRow, FolderRow};
use crate::keywords;
use crate::listing::{Dirs, FolderListing, Stamps};
use crate::pairing::{Ahead, Paired, Pairs};
use crate::path::{folder_text, join, subdir};
use crate::scanner::Scanner;
use crate::sorted::{FoundFile, Looked, Sorted};

/// Dovecot writes the name of a letter when it has renamed the message; so long its file may be behind.
const UNNAMED_NS: i64 = 2_000_000_000;

/// So many due files are hashed by every run.
const DUE_MIN: usize = 16;

/// A folder that cannot be read is unknown, not empty.
pub(crate) fn unreadable(scanner: &mut Scanner, row: &mut FolderRow, why: &str) -> Result<()> {
    row.dirty = true;
    scanner.missing.remove(&row.id);
    scanner.index.begin()?;
    scanner.index.put_folder(row)?;
    let problem = Problem {
        path: folder_text(&row.dir),
        why: why.to_owned(),
        holds: false,
    };
    scanner.unseen.add(scanner.root, &row.dir, &problem.path);
    scanner.index.replace_problems(row.id, &[problem])
}

/// Brings the rows of a folder up to its listing, but for those that are gone: what is left of them is missing.
pub(crate) fn compare(
    scanner: &mut Scanner,
    row: &mut FolderRow,
    mut listing: FolderListing,
) -> Result<()> {
    let (is_settled, stamps) = (listing.is_settled, listing.stamps);
    let is_named = read_keywords(scanner, row, &mut listing.problems)?;
    if let Ok(identity) = scanner.root.dir_identity(&row.dir) {
        // Another directory may have the name now; later it is that one which a user renames.
        (row.ino, row.birth) = identity;
    }
    scanner.has_moved |= (row.cur, row.new) != (stamps.cur, stamps.new);
    let before = Stamps {
        new: row.new,
        cur: row.cur,
    };
    (row.cur, row.new) = (stamps.cur, stamps.new);
    let age_ns = listing.begun_ns - stamps.changed_ns(scanner.granularity_ns);
    row.dirty = !is_settled
        || !is_named
        || !listing.unknown.is_empty()
        || age_ns < scanner.granularity_ns
        || (age_ns < UNNAMED_NS && has_unnamed(scanner, row, &listing.files));
    scanner
        .unhashed
        .extend(std::mem::take(&mut listing.unknown));
    let FolderListing {
        files,
        dirs,
        problems,
        ..
    } = &mut listing;
    let is_other = is_another(before, stamps).contains(&true);
    let ahead = scanner.ahead.take_if(|ahead| ahead.folder() == row.id);
    let ahead = ahead.unwrap_or_else(|| Ahead::none(row.id));
    row.put_back |= is_other && was_put_back(scanner, &ahead, (before, stamps), files, dirs)?;
    let look_at_all = scanner.checksum || is_other;
    let mut pairs = Pairs::new(scanner.index, &ahead, files, look_at_all);
    let mut is_settled = is_settled;
    while let Some(piece) = pairs.next()? {
        let files = look(scanner, row, piece, dirs, problems);
        is_settled &= files.is_calm;
        let to_hash = sort_out(scanner, files.looked)?;
        hash_and_put(scanner, row, to_hash, problems)?;
    }
    let (messages, missing) = (pairs.messages, pairs.missing);
    let is_exact = messages == files.len() as u64 && !listing.leaves_out;
    (row.messages, row.exact) = (messages, is_exact);
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

/// Reads what Dovecot calls the folder's letters; another answer than before is a change of the folder. Returns whether
/// it could be read: until then what it said last counts, for letters must not come to mean something else by mistake.
pub(crate) fn read_keywords(
    scanner: &Scanner,
    row: &mut FolderRow,
    problems: &mut Vec<Problem>,
) -> Result<bool> {
    match keywords::read(scanner.root, &row.dir) {
        Ok(keywords) if row.keywords == keywords => Ok(true),
        Ok(keywords) => {
            (row.keywords, row.seq) = (keywords, scanner.index.next_number()?);
            Ok(true)
        }
        Err(error) => {
            problems.push(Problem {
                path: escape(&keywords::path(&row.dir)),
                why: format!("{error}; what it said last counts until it is mended"),
                holds: false,
            });
            Ok(false)
        }
    }
}

/// Whether a message bears a letter that Dovecot's file does not name, or not yet.
fn has_unnamed(scanner: &Scanner, row: &FolderRow, files: &Sorted) -> bool {
    let named = match &row.keywords {
        Some(keywords) => keywords.letters(),
        None if scanner.holds_keywords() => Flags::EMPTY,
        None => return false,
    };
    let mut letters = (0..files.len()).map(|at| files.found(at).info.flags().keywords());
    letters.any(|letters| letters.intersection(named) != letters)
}

/// Whether `cur` and `new` are other directories than before.
fn is_another(before: Stamps, now: Stamps) -> [bool; 2] {
    [false, true].map(|in_new| now.of(in_new).is_another(&before.of(in_new)))
}

/// Whether `cur` or `new` is another directory than before, and holds messages that are known, or were once, as other files: it
/// was put there from outside, as from a backup. One that was made anew and filled from the old one holds the same files.
fn was_put_back(
    scanner: &Scanner,
    ahead: &Ahead,
    (before, now): (Stamps, Stamps),
    files: &Sorted,
    dirs: &Dirs,
) -> Result<bool> {
    let is_another = is_another(before, now);
    // A file with the same ctime is the same one, even where each mount numbers the inodes anew: a copy has a later ctime.
    // The same inode alone does not prove it:
    // - A copy may have got the inode that the old file left free. Then it was made after the old directory last changed.
    // - A hard link in a snapshot has the same inode. Then the file has several names; or the snapshot's directory, now in the
    //   place of ours, was made before ours last changed.
    let is_same_file = |in_new, (stamp, origin): Looked, row: &FileRow| {
        let was = before.of(in_new);
        let is_younger = origin.birth_ns > was.ctime_ns;
        let has_inode = stamp.ino == row.stamp.ino && origin.links == 1;
        stamp.ctime_ns == row.stamp.ctime_ns
            || (has_inode && !is_younger && !now.of(in_new).is_older(&was))
    };
    let mut holds_known = false;
    let mut pairs = Pairs::new(scanner.index, ahead, files, true);
    while let Some(piece) = pairs.next()? {
        let known: Vec<_> = piece
            .iter()
            .filter(|(_, found, _)| is_another[usize::from(found.in_new)])
            .filter_map(|(_, found, row)| Some((found, row.as_ref()?)))
            .collect();
        let files: Vec<_> = known.iter().map(|(found, _)| *found).collect();
        let looked = dirs.look_at(&files).into_iter().zip(known);
        for (looked, (found, row)) in
            looked.filter_map(|(looked, known)| Some((looked.ok()?, known)))
        {
            if is_same_file(found.in_new, looked, row) {
                return Ok(false);
            }
            holds_known = true;
        }
    }
    Ok(holds_known)
}

/// A file and what is known of it.
struct File {
    copy: u16,
    found: FoundFile,
    row: Option<FileRow>,
}

/// Files that were looked at.
struct Files {
    looked: Vec<File>,
    /// Whether none went away meanwhile.
    is_calm: bool,
}

/// Stats the files whose rows may still be true.
fn look(
    scanner: &mut Scanner,
    folder: &mut FolderRow,
    files: Vec<Paired>,
    dirs: &Dirs,
    problems: &mut Vec<Problem>,
) -> Files {
    let mut all = Files {
        looked: Vec::new(),
        is_calm: true,
    };
    let is_known = |row: &Option<FileRow>| row.as_ref().is_some_and(|row| !row.gone);
    let (known, rest): (Vec<_>, Vec<_>) = files.into_iter().partition(|(.., row)| is_known(row));
    let results = dirs.look_at(&known.iter().map(|(_, found, _)| found).collect::<Vec<_>>());
    for ((copy, mut found, row), looked) in known.into_iter().zip(results) {
        let error = match looked {
            Ok(looked) => {
                found.looked = Some(looked);
                all.looked.push(File { copy, found, row });
                continue;
            }
            Err(error) => error,
        };
        // It is there, or was just now, but what it is is unknown.
        let path = escape(&join(&folder.dir, &[subdir(found.in_new), &found.name()]));
        all.is_calm &= !is_bad_timing(&error);
        if !is_bad_timing(&error) {
            problems.push(Problem {
                path: path.clone(),
                why: error.to_string(),
                holds: false,
            });
        }
        folder.dirty = true;
        scanner.unhashed.insert(found.unique, path);
    }
    let rest = rest.into_iter();
    all.looked
        .extend(rest.map(|(copy, found, row)| File { copy, found, row }));
    all
}

/// Leaves out what is as its row says, and writes the rows of those files of which only the name changed: a rename moves no
/// byte. They are due for the slice, because an edit that keeps size and time may have come with it.
fn sort_out(scanner: &Scanner, files: Vec<File>) -> Result<Vec<File>> {
    let mut to_hash = Vec::new();
    for file in files {
        let row = file.row.as_ref().filter(|row| !row.gone);
        let (Some(row), Some((stamp, _)), false) = (row, file.found.looked, scanner.checksum)
        else {
            to_hash.push(file);
            continue;
        };
        let found = &file.found;
        let is_named = (row.entry.in_new, &row.entry.info) == (found.in_new, &found.info);
        let is_proven = row.stamp.ctime_ns != 0;
        if is_named && row.stamp == stamp && is_proven {
            continue;
        }
        if is_named && row.stamp.ino == stamp.ino && scanner.is_being_written(&stamp) {
            continue;
        }
        if is_named || !is_proven || !row.stamp.same_but_renamed(&stamp) {
            to_hash.push(file);
            continue;
        }
        let entry = Entry {
            in_new: found.in_new,
            info: found.info.clone(),
            ..row.entry.clone()
        };
        scanner.index.put_file(&FileRow {
            seq: scanner.index.next_number()?,
            entry,
            due: true,
            ..row.clone()
        })?;
    }
    Ok(to_hash)
}

/// Hashes the files of due rows in turn, until a time, but some of them however busy the machine is; returns the folders in
/// which something turned out otherwise.
pub(crate) fn prove(
    scanner: &mut Scanner,
    rows: Vec<(Vec<u8>, FileRow)>,
    deadline: Instant,
) -> Result<BTreeSet<u32>> {
    let mut suspects = BTreeSet::new();
    for (number, (path, mut row)) in rows.into_iter().enumerate() {
        if number >= DUE_MIN && Instant::now() >= deadline {
            break;
        }
        let hashed = hash_file(scanner.root, &path).ok();
        let is_same = |hashed: &Hashed| hashed.digest == row.entry.digest && !hashed.is_blank;
        let proven = hashed
            .filter(is_same)
            .map(|hashed| settled(scanner.granularity_ns, &hashed));
        match proven {
            Some(stamp) => row.stamp = stamp,
            None => {
                row.stamp.ctime_ns = 0; // Hashed once more, as what it is then.
                suspects.insert(row.folder);
            }
        }
        row.due = false;
        scanner.index.begin()?;
        scanner.index.put_file(&row)?;
    }
    Ok(suspects)
}

/// Hashes files and writes their rows.
fn hash_and_put(
    scanner: &mut Scanner,
    folder: &mut FolderRow,
    files: Vec<File>,
    problems: &mut Vec<Problem>,
) -> Result<()> {
    let paths: Vec<Vec<u8>> = files
        .iter()
        .map(|File { found, .. }| join(&folder.dir, &[subdir(found.in_new), &found.name()]))
        .collect();
    let mut files: Vec<_> = files.into_iter().map(Some).collect();
    let root = scanner.root;
    hash_files(root, &paths, |at, hashed| {
        let Some(file) = files[at].take() else {
            return Ok(());
        };
        match hashed {
            Ok(hashed) => put(scanner, folder, file, hashed),
            Err(error) => {
                if let Some(row) = file.row.filter(|row| !row.gone) {
                    // Whatever it looks like: it is looked at again as long as it cannot be read.
                    scanner.index.begin()?;
                    scanner.index.put_file(&unproven(row))?;
                }
                // It is there, but what it is is unknown until it can be read.
                if !is_bad_timing(&error) {
                    problems.push(Problem {
                        path: escape(&paths[at]),
                        why: error.to_string(),
                        holds: false,
                    });
                }
                folder.dirty = true;
                scanner
                    .unhashed
                    .insert(file.found.unique, escape(&paths[at]));
                Ok(())
            }
        }
    })
}

/// Writes the row of a file that was hashed, as a change if it is one.
fn put(
    scanner: &Scanner,
    folder: &FolderRow,
    File { copy, found, row }: File,
    hashed: Hashed,
) -> Result<()> {
    let FoundFile {
        unique,
        info,
        in_new,
        ..
    } = found;
    let before = row.as_ref().filter(|file| !file.gone);
    let is_rot = before
        .is_some_and(|before| before.stamp == hashed.stamp && before.entry.digest != hashed.digest);
    let damaged = hashed.is_blank
        || is_rot
        || before.is_some_and(|file| file.entry.damaged && file.entry.digest == hashed.digest);
    let stamp = settled(scanner.granularity_ns, &hashed);
    let Hashed {
        digest,
        stamp: seen,
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
    // Other bytes that were put there from outside are no edit, but another message that took the place of one that was lost.
    let is_other = folder.put_back
        && !entry.damaged
        && before.is_some_and(|before| before.entry.digest != entry.digest);
    let row = FileRow {
        seq,
        born: before
            .filter(|_| !is_other)
            .map_or(seq, |before| before.born),
        folder: folder.id,
        unique,
        copy,
        gone: false,
        lost: is_other || before.is_some_and(|before| before.lost),
        entry,
        stamp,
        due: false,
    };
    scanner.index.put_file(&row)
}

/// A row that proves nothing of its file's bytes.
pub(crate) fn unproven(mut row: FileRow) -> FileRow {
    row.stamp.ctime_ns = 0;
    row
}
