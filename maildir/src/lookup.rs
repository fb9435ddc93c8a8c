//! Finding what an operation names: its folder and its message, in the index and on disk.
//!
//! A client asks by what it was told, and much may have happened since. What is not the very folder and the expected
//! message is not there (I8).

use std::collections::BTreeSet;
use std::io;

use protocol::message::{At, Expect};
use protocol::{Op, Outcome, Unique};

use crate::apply::{Applier, Step, Stop, stale};
use crate::error::Result;
use crate::folder_scan::path as path_of;
use crate::hash::hash_file;
use crate::index::{FileRow, FolderRow};
use crate::listing::{is_named, subdir};
use crate::root::{Listed, join, split_path};

impl Applier<'_> {
    /// Finds folders whose directory was replaced since the scan, as by renames: what is asked is not meant for that one.
    /// A rename moves the ctime of what is in it, too, so the next scan reads it.
    pub(crate) fn find_strange(&mut self, ops: &[Op]) {
        let numbers = ops.iter().flat_map(|op| match op {
            Op::RenameFolder { number, .. } | Op::RemoveFolder { number, .. } => vec![*number],
            other => other.places().filter_map(|at| at.number).collect(),
        });
        let numbers: BTreeSet<u32> = numbers.collect();
        let named = self.folders.iter().filter(|row| numbers.contains(&row.id));
        let is_strange = |row: &&FolderRow| {
            let identity = self.root.dir_identity(&row.dir);
            !row.gone && identity.is_ok_and(|identity| identity != (row.ino, row.birth))
        };
        self.strange = named.filter(is_strange).map(|row| row.id).collect();
    }

    /// The folder of a place, if it is the one that was told, or was made in this run.
    pub(crate) fn folder_of(&self, at: &At) -> Option<&FolderRow> {
        match at.number {
            Some(number) => self.folder(number),
            None => {
                let is_it = |row: &&FolderRow| {
                    row.dir == at.folder.as_bytes() && self.made.contains(&row.id)
                };
                self.folders.iter().filter(|row| !row.gone).find(is_it)
            }
        }
    }

    /// A live folder by its number.
    pub(crate) fn folder(&self, number: u32) -> Option<&FolderRow> {
        let is_it =
            |row: &&FolderRow| row.id == number && !row.gone && !self.strange.contains(&row.id);
        self.folders.iter().find(is_it)
    }

    pub(crate) fn row_at(&self, at: &At) -> Result<Option<(FolderRow, FileRow)>> {
        let Some(folder) = self.folder_of(at) else {
            return Ok(None);
        };
        let row = self.index.file_at(folder.id, &at.unique, at.copy)?;
        Ok(row.filter(|row| !row.gone).map(|row| (folder.clone(), row)))
    }

    /// The message at a place, if it is the expected one, in the index and on disk, with no other name.
    pub(crate) fn expected(&mut self, at: &At, expect: &Expect) -> Step<(FolderRow, FileRow)> {
        let Some((folder, mut row)) = self.row_at(at)? else {
            return stale();
        };
        let seen = Expect {
            in_new: row.entry.in_new,
            flags: row.entry.flags(),
            digest: row.entry.digest,
        };
        if seen != *expect {
            return stale();
        }
        let path = path_of(&folder.dir, &row);
        row.stamp = match self.root.file_stamp(&path)? {
            stamp if stamp == row.stamp => stamp,
            _ => {
                let hashed = hash_file(self.root, &path)?;
                if hashed.digest != expect.digest {
                    return stale();
                }
                hashed.stamp
            }
        };
        row.due = false;
        if self.root.links(&path)? > 1 {
            self.drop_twins(&folder, &row, &path)?;
        }
        Ok((folder, row))
    }

    /// Removes the other names that a message has in its folder: they would stand for it once this one is gone (C1).
    fn drop_twins(&mut self, folder: &FolderRow, row: &FileRow, path: &[u8]) -> Step<()> {
        let mut twins = self.twins(folder, &row.unique, row.stamp.ino)?;
        twins.retain(|twin| twin != path);
        for twin in twins {
            if !self.root.remove(&twin, |seen| seen.ino == row.stamp.ino)? {
                return stale();
            }
            self.dirty_dirs.insert(split_path(&twin).0.to_vec());
        }
        Ok(())
    }

    /// The names of a file in a folder that count as one message: those of one unique name.
    pub(crate) fn twins(
        &self,
        folder: &FolderRow,
        unique: &Unique,
        ino: u64,
    ) -> io::Result<Vec<Vec<u8>>> {
        let mut twins = Vec::new();
        for in_new in [true, false] {
            let sub = join(&folder.dir, &[subdir(in_new)]);
            let names = match self.root.list(&sub) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            for Listed { name, .. } in names {
                let path = join(&sub, &[&name]);
                if is_named(&name, unique) && self.root.file_stamp(&path)?.ino == ino {
                    twins.push(path);
                }
            }
        }
        Ok(twins)
    }

    pub(crate) fn live_folder(&self, at: &At) -> Step<FolderRow> {
        let row = self.folder_of(at);
        row.cloned().ok_or(Stop::Outcome(Outcome::Stale))
    }
}
