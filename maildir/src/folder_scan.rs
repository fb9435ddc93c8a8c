//! Comparing the listing of a folder with its rows, and hashing what differs.

use protocol::bytes::escape;
use protocol::message::Problem;
use protocol::{Entry, Flags};

use crate::error::Result;
use crate::hash::{Hashed, hash_files};
use crate::index::{FileRow, FolderRow};
use crate::keywords;
use crate::listing::{Found, Listing, Stamps, subdir};
use crate::pairing::{Pairing, pair};
use crate::root::join;
use crate::scan::{Scanner, folder_text, is_bad_timing, now_ns};

/// Dovecot writes the name of a letter when it has renamed the message; so long its file may be behind.
const UNNAMED_NS: i64 = 2_000_000_000;

/// The path of a message's file.
pub(crate) fn path(dir: &[u8], row: &FileRow) -> Vec<u8> {
    let name = [row.unique.as_bytes(), row.entry.info.as_bytes()].concat();
    join(dir, &[subdir(row.entry.in_new), &name])
}

/// A folder that cannot be read is unknown, not empty (C11).
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
    mut listing: Listing,
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
    let age_ns = listing.begun_ns - stamps.newest_ns();
    row.dirty = !is_settled
        || !is_named
        || age_ns < scanner.grain_ns
        || (age_ns < UNNAMED_NS && has_unnamed(scanner, row, &listing.found));
    scanner
        .unhashed
        .extend(std::mem::take(&mut listing.unknown));
    let found = std::mem::take(&mut listing.found);
    let Pairing {
        messages,
        to_hash,
        missing,
    } = pair(scanner.index, row.id, found, scanner.checksum)?;
    row.messages = messages;
    row.put_back |= was_put_back(before, stamps, &to_hash);
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

/// Reads what Dovecot calls the folder's letters; another answer than before is a change of the folder. Returns whether
/// it could be read: until then what it said last counts, for letters must not come to mean something else by mistake.
fn read_keywords(
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
fn has_unnamed(scanner: &Scanner, row: &FolderRow, found: &[Found]) -> bool {
    let named = match &row.keywords {
        Some(keywords) => keywords.letters(),
        None if scanner.holds_keywords() => Flags::EMPTY,
        None => return false,
    };
    let mut letters = found.iter().map(|found| found.info.flags().keywords());
    letters.any(|letters| letters.intersection(named) != letters)
}

/// Whether `cur` or `new` is another directory than before, and holds known messages as other files: somebody put it there
/// from outside (C57). One that was made anew and filled from the old one holds the same files.
fn was_put_back(before: Stamps, now: Stamps, files: &[(u16, Found, Option<FileRow>)]) -> bool {
    let is_another = |in_new| now.of(in_new).is_another(&before.of(in_new));
    if !is_another(true) && !is_another(false) {
        return false;
    }
    let mut known = files.iter().filter_map(|(_, found, row)| {
        let row = row.as_ref().filter(|row| !row.gone);
        row.filter(|_| is_another(found.in_new))
            .map(|row| (found, row))
    });
    // A copy has a ctime of its own, also where inodes are numbered anew by each mount. It may have got the inode of what it
    // replaces; then it was made after the old directory changed last. A hard link in a snapshot has the inode, and so has
    // what was taken out of a snapshot whose directories were there before ours changed last.
    let is_same_file = |(found, row): (&Found, &FileRow)| {
        let was = before.of(found.in_new);
        let is_older = now.of(found.in_new).is_older(&was);
        let is_younger = found.origin.birth_ns > was.ctime_ns;
        let has_inode = found.stamp.ino == row.stamp.ino && found.origin.links == 1;
        found.stamp.ctime_ns == row.stamp.ctime_ns || (has_inode && !is_older && !is_younger)
    };
    known.clone().next().is_some() && !known.any(is_same_file)
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
                        holds: false,
                    });
                }
                folder.dirty = true;
                scanner.unhashed.insert(found.unique, escape(&paths[at]));
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
        ..
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
        lost: false,
        entry,
        stamp: seen,
        due: false,
    };
    scanner.index.put_file(&row)
}
