//! Which file of a folder is which row: most are as they were, some changed, some are new, some rows are missing.
//!
//! Files and rows come in one order of unique names, so that a large folder is compared without all its rows being held, and
//! without those being decoded whose file is as it was. The first of them are read while the folder is listed.

use std::ops::ControlFlow;

use protocol::Unique;

use crate::error::Result;
use crate::index::{FileRow, Index, Known};
use crate::sorted::{FoundFile, Sorted};

/// So many files are handed over at once: a new folder has nothing but new ones.
const PIECE: usize = 4096;

/// How many rows of a folder are read ahead; each takes some 80 bytes.
pub(crate) const AHEAD: usize = 100_000;

/// The first rows of a folder, in one piece of memory. Reading them takes about as long as listing the files does.
pub(crate) struct Ahead {
    folder: u32,
    /// Unique names and infos, one after the other.
    names: Vec<u8>,
    rows: Vec<AheadRow>,
    /// The unique name of the first row that was not read.
    next: Option<Vec<u8>>,
}

struct AheadRow {
    seq: i64,
    ino: u64,
    /// Where its unique name begins.
    start: usize,
    unique_length: u16,
    info_length: u16,
    in_new: bool,
    is_proven: bool,
}

impl Ahead {
    /// No rows of a folder.
    pub(crate) fn none(folder: u32) -> Ahead {
        Ahead {
            folder,
            names: Vec::new(),
            rows: Vec::new(),
            next: Some(Vec::new()),
        }
    }

    /// Which folder's.
    pub(crate) fn folder(&self) -> u32 {
        self.folder
    }

    /// Reads so many, and the others of the last one's unique name.
    pub(crate) fn read(index: &Index, folder: u32, count: usize) -> Result<Ahead> {
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("names are short");
        let mut ahead = Ahead::none(folder);
        ahead.next = None;
        let _ = index.each_of(folder, b"", |known| {
            let last = ahead.rows.len().checked_sub(1);
            let last = last.and_then(|last| ahead.known(last));
            if ahead.rows.len() >= count && last.is_none_or(|last| last.unique != known.unique) {
                ahead.next = Some(known.unique.to_vec());
                return Ok(ControlFlow::Break(()));
            }
            ahead.rows.push(AheadRow {
                seq: known.seq,
                ino: known.ino,
                start: ahead.names.len(),
                unique_length: length(known.unique),
                info_length: length(known.info),
                in_new: known.in_new,
                is_proven: known.is_proven,
            });
            ahead.names.extend_from_slice(known.unique);
            ahead.names.extend_from_slice(known.info);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(ahead)
    }

    fn known(&self, at: usize) -> Option<Known<'_>> {
        let row = self.rows.get(at)?;
        let names = &self.names[row.start..];
        let (unique, names) = names.split_at(row.unique_length.into());
        Some(Known {
            seq: row.seq,
            unique,
            in_new: row.in_new,
            info: &names[..row.info_length.into()],
            ino: row.ino,
            is_proven: row.is_proven,
        })
    }
}

/// A file that may not be what its row says, with its copy number; one without a row is new.
pub(crate) type Paired = (u16, FoundFile, Option<FileRow>);

/// The pairing of a folder's files with its rows. It is made in pieces, between which the rows of what was handed over may be
/// written.
pub(crate) struct Pairs<'a> {
    index: &'a Index,
    ahead: &'a Ahead,
    /// Which of its rows was not met yet.
    ahead_at: usize,
    files: &'a Sorted,
    look_at_all: bool,
    /// How many messages were met so far: of the folder, in the end.
    pub(crate) messages: u64,
    /// Live rows without a file.
    pub(crate) missing: Vec<FileRow>,
    /// The first file that was not met yet.
    at: usize,
    /// What is left once there are no more rows, the newest last.
    left: Option<Vec<usize>>,
    /// The unique name of the first of the other rows that was not met yet, if there may be one.
    from: Option<Vec<u8>>,
    /// The rows of one unique name.
    known: Vec<FileRow>,
    piece: Vec<Paired>,
    piece_max: usize,
}

impl<'a> Pairs<'a> {
    /// Pairs the files of a folder with its rows. What has the name and the inode that it had is left to the slice of files
    /// that every run stats, but for drafts, which are edited in place; with `look_at_all`, nothing is.
    pub(crate) fn new(
        index: &'a Index,
        ahead: &'a Ahead,
        files: &'a Sorted,
        look_at_all: bool,
    ) -> Pairs<'a> {
        Pairs {
            index,
            ahead,
            ahead_at: 0,
            files,
            look_at_all,
            messages: 0,
            missing: Vec::new(),
            at: 0,
            left: None,
            from: ahead.next.clone(),
            known: Vec::new(),
            piece: Vec::new(),
            piece_max: PIECE,
        }
    }

    /// The next files that are to be looked at; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<Paired>>> {
        let index = self.index;
        index.reading(|| self.fill())?;
        let piece = std::mem::take(&mut self.piece);
        Ok((!piece.is_empty()).then_some(piece))
    }

    fn fill(&mut self) -> Result<()> {
        let (index, ahead) = (self.index, self.ahead);
        while let Some(known) = ahead.known(self.ahead_at) {
            if self.meet(&known)?.is_break() {
                return Ok(());
            }
            self.ahead_at += 1;
        }
        if let Some(from) = self.from.take() {
            let met = index.each_of(ahead.folder, &from, |known| {
                let met = self.meet(known)?;
                self.from = met.is_break().then(|| known.unique.to_vec());
                Ok(met)
            })?;
            if met.is_break() {
                return Ok(());
            }
        }
        self.take_known();
        self.take_newest();
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.piece.len() >= self.piece_max
    }

    /// Takes a row, unless the piece is full; those of one unique name follow each other.
    fn meet(&mut self, known: &Known) -> Result<ControlFlow<()>> {
        if self
            .known
            .first()
            .is_some_and(|first| first.unique.as_bytes() != known.unique)
        {
            self.take_known();
        }
        self.take_new(known.unique);
        // No row of this name was met yet: what fills a piece comes before those.
        if self.is_full() {
            return Ok(ControlFlow::Break(()));
        }
        if !self.is_as_it_was(known) {
            self.known.push(self.index.file(known.seq)?);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether the next file is what a row says, and the only one of its unique name; then it is taken.
    fn is_as_it_was(&mut self, known: &Known) -> bool {
        let (files, at) = (self.files, self.at);
        let is_same = self.known.is_empty()
            && !self.look_at_all
            && known.is_proven
            && at < files.len()
            && files.unique(at) == known.unique
            && !files.is_double(at)
            && !files.info(at).contains(&b'D') // It may be a draft.
            && (files.in_new(at), files.info(at)) == (known.in_new, known.info)
            && files.ino(at) == known.ino;
        if is_same {
            self.at += 1;
            self.messages += 1;
        }
        is_same
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

    /// Takes the files before a name, until the piece is full: none of them has a row.
    fn take_new(&mut self, before: &[u8]) {
        while !self.is_full() && self.at < self.files.len() && self.files.unique(self.at) < before {
            let unique = self.files.found(self.at).unique;
            let group = self.next_group(&unique);
            self.pair(group, &mut Vec::new());
        }
    }

    /// Takes what is left, until the piece is full. No row follows; of a folder that was never read that is all, and the newest
    /// messages are wanted first.
    fn take_newest(&mut self) {
        let (files, at) = (self.files, self.at);
        let mut left = self.left.take().unwrap_or_else(|| {
            let mut left: Vec<usize> = (at..files.len()).collect();
            files.sort_newest_first(&mut left);
            left.reverse();
            left
        });
        while !self.is_full()
            && let Some(&next) = left.last()
        {
            let unique = files.unique(next);
            let others = left.iter().rposition(|&at| files.unique(at) != unique);
            let group = left.split_off(others.map_or(0, |at| at + 1));
            let group = group.into_iter().rev().map(|at| files.found(at)).collect();
            self.pair(group, &mut Vec::new());
        }
        self.left = Some(left);
    }

    /// The next files, as far as they have this unique name.
    fn next_group(&mut self, unique: &Unique) -> Vec<FoundFile> {
        let mut group = Vec::new();
        while self.at < self.files.len() && self.files.unique(self.at) == unique.as_bytes() {
            group.push(self.files.found(self.at));
            self.at += 1;
        }
        group
    }

    /// Pairs the files of one unique name with its rows, which are taken out.
    fn pair(&mut self, group: Vec<FoundFile>, known: &mut Vec<FileRow>) {
        for (copy, found) in assign_copies(group, known) {
            self.messages += 1;
            let at = known.iter().position(|file| file.copy == copy);
            let file = at.map(|at| known.swap_remove(at));
            match file {
                Some(file) if is_same(&file, &found) && !self.look_at_all => {}
                file => self.piece.push((copy, found, file)),
            }
        }
    }
}

fn is_draft(found: &FoundFile) -> bool {
    found.info.flags().contains(b'D')
}

fn is_same(file: &FileRow, found: &FoundFile) -> bool {
    !file.gone
        && !is_draft(found)
        && file.stamp.ino == found.ino
        && file.stamp.ctime_ns != 0
        && file.entry.in_new == found.in_new
        && file.entry.info == found.info
}

/// By what a file continues a row.
type SameFile = fn(&FileRow, &FoundFile) -> bool;

/// Gives each file of one unique name its copy number: the one of the row that it continues, else the lowest free one.
///
/// Two names of one inode are one message, under the name by which it is known: readdir saw it twice while it was renamed,
/// or a hard link.
fn assign_copies(mut group: Vec<FoundFile>, known: &[FileRow]) -> Vec<(u16, FoundFile)> {
    if group.len() == 1 && known.iter().filter(|file| !file.gone).count() <= 1 {
        let copy = known
            .iter()
            .find(|file| !file.gone)
            .map_or(0, |file| file.copy);
        return group.pop().map(|found| (copy, found)).into_iter().collect();
    }
    let same_name: SameFile =
        |file, found| (file.entry.in_new, &file.entry.info) == (found.in_new, &found.info);
    let is_new = |found: &FoundFile| {
        !known
            .iter()
            .any(|file| !file.gone && same_name(file, found))
    };
    group.sort_by_cached_key(|found| (is_new(found), found.in_new, found.info.clone()));
    let mut inodes = std::collections::BTreeSet::new();
    group.retain(|found| inodes.insert(found.ino));
    let mut taken = std::collections::BTreeSet::new();
    let mut copies = vec![None; group.len()];
    let same_inode: SameFile = |file, found| file.stamp.ino == found.ino;
    let rules: [SameFile; 3] = [same_inode, same_name, |_, _| true];
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

#[cfg(test)]
mod tests;
