//! The slice of all files that every run stats, and of the files that are due that it hashes, so that the whole tree comes round.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::folder_scan;
use crate::held::Held;
use crate::index::{FileRow, path_of};
use crate::path::split_path;
use crate::scanner::Scanner;
use crate::stamp::FileStamp;

/// How long one run hashes files whose names changed.
const DUE_MAX: Duration = Duration::from_millis(15);
/// How many files whose names changed are hashed in one run at most.
const DUE_FILES: i64 = 1000;
/// How long it stats files of all folders, in turn, that nothing else makes it look at.
const SPOT_CHECK_MAX: Duration = Duration::from_millis(5);
/// How many files that is at most, so that nothing hangs on a slow clock.
const SPOT_CHECK_FILES: u64 = 80 * SPOT_CHECK_STEP;
/// How many are looked at before the clock is asked: a busy machine must not keep the round from getting on.
const SPOT_CHECK_STEP: u64 = 64;

impl Scanner<'_> {
    /// Looks at drafts, which are edited in place, at what is said to have been written to, and with a slice at what is due, and in
    /// turn at some others of all files.
    pub(super) fn spot_check(
        &mut self,
        spot_from: Option<&mut u64>,
        written: &BTreeSet<Vec<u8>>,
    ) -> Result<()> {
        let (begun, held) = (Instant::now(), Held::new(self.root));
        // Of what is missing nothing new is to be found out.
        let missing = self.missing.values().flatten().map(|row| row.seq);
        let missing: HashSet<u64> = missing.collect();
        let mut changed = Vec::new();
        self.index.each_file("draft ORDER BY seq", [], |row| {
            self.look_at(&held, row, &mut changed);
            Ok(())
        })?;
        for path in written {
            self.look_at_written(&held, path, &mut changed)?;
        }
        let mut suspects = BTreeSet::new();
        if let Some(spot_from) = spot_from {
            let mut due = Vec::new();
            self.index
                .each_file("due ORDER BY seq LIMIT ?1", [DUE_FILES], |row| {
                    let path = self.live_path(&row).filter(|_| !missing.contains(&row.seq));
                    due.extend(path.map(|path| (path, row)));
                    Ok(())
                })?;
            suspects = folder_scan::prove(self, due, begun + DUE_MAX)?;
            self.index
                .reading(|| self.look_at_some(&held, spot_from, &mut changed))?;
        }
        drop(held);
        changed.retain(|row| !missing.contains(&row.seq));
        suspects.extend(changed.iter().map(|row| row.folder));
        for row in changed {
            self.index.begin()?;
            self.index.put_file(&folder_scan::unproven(row))?;
        }
        for row in &mut self.folders {
            row.dirty |= suspects.contains(&row.id);
        }
        self.read_folders(|row| suspects.contains(&row.id))
    }

    /// Goes on where the last run stopped, to the end, and then on from the beginning up to there.
    fn look_at_some(
        &self,
        held: &Held,
        spot_from: &mut u64,
        changed: &mut Vec<FileRow>,
    ) -> Result<()> {
        let deadline = Instant::now() + SPOT_CHECK_MAX;
        let (begin, mut left, mut last) = (*spot_from, SPOT_CHECK_FILES, 0);
        for (mut from, to) in [(begin, i64::MAX.cast_unsigned()), (0, begin)] {
            // However busy the machine is, one step is made.
            let is_first = |left| left > SPOT_CHECK_FILES - SPOT_CHECK_STEP;
            while left > 0 && (is_first(left) || Instant::now() < deadline) {
                let range = [from, to, left.min(SPOT_CHECK_STEP)].map(u64::cast_signed);
                let sql = "seq > ?1 AND seq <= ?2 AND NOT gone ORDER BY seq LIMIT ?3";
                let before = left;
                self.index.each_file(sql, range, |row| {
                    (from, left, last) = (row.seq, left - 1, row.seq);
                    self.look_at(held, row, changed);
                    Ok(())
                })?;
                if left == before {
                    break;
                }
            }
        }
        *spot_from = last;
        Ok(())
    }

    /// Stats the files that bear the unique name of a path.
    fn look_at_written(&self, held: &Held, path: &[u8], changed: &mut Vec<FileRow>) -> Result<()> {
        let (subdir, file) = split_path(path);
        let (dir, _) = split_path(subdir);
        let mut live = self.folders.iter().filter(|folder| !folder.gone);
        let folder = live.find(|folder| folder.dir == dir);
        let (Some(folder), Ok((unique, _))) = (folder, protocol::name::split(file)) else {
            return Ok(());
        };
        let rows = self.index.files_at(folder.id, &unique)?;
        for row in rows.into_iter().filter(|row| !row.gone) {
            self.look_at(held, row, changed);
        }
        Ok(())
    }

    /// Stats a file, if its folder can be looked at; keeps its row where it is another one than that says, and not due.
    fn look_at(&self, held: &Held, row: FileRow, changed: &mut Vec<FileRow>) {
        let path = self.live_path(&row).filter(|_| !row.due);
        let Some(stamp) = path.map(|path| held.file_stamp(&path).ok()) else {
            return;
        };
        let is_being_written =
            |stamp: FileStamp| stamp.ino == row.stamp.ino && self.is_being_written(&stamp);
        if stamp != Some(row.stamp) && !stamp.is_some_and(is_being_written) {
            changed.push(row);
        }
    }

    fn live_path(&self, row: &FileRow) -> Option<Vec<u8>> {
        let mut folders = self.folders.iter();
        let folder = folders.find(|folder| folder.id == row.folder && !folder.gone)?;
        Some(path_of(&folder.dir, row))
    }
}
