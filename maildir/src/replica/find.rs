//! What is in a replica, by the index: messages, files, bodies.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::entry::Change;
use protocol::message::At;
use protocol::{Digest, FolderDir};

use super::Replica;
use crate::body::{Bodies, Located};
use crate::error::Result;
use crate::index::{FolderRow, path_of};
use crate::places::Places;
use crate::time::now_secs;
use crate::trash::Trashed;

impl Replica {
    /// The message that is at the same place of a folder of this replica, where it has the same bytes and shares its name with
    /// no other.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn same_at(&self, folder: u32, of: &Change) -> Result<Option<Change>> {
        if of.copy != 0 || of.entry.damaged {
            return Ok(None);
        }
        let find = |copy| self.index.file_at(folder, &of.unique, copy);
        let row = find(0)?.filter(|row| !row.gone && row.entry.digest == of.entry.digest);
        let row = row.filter(|row| !row.entry.damaged && !row.lost);
        Ok(match row {
            Some(row) if find(1)?.is_none_or(|other| other.gone) => Some(row.into_change()),
            Some(_) | None => None,
        })
    }

    /// How many messages there are.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn messages(&self) -> Result<u64> {
        self.index.messages()
    }

    /// How many bytes they have. Counted anew each time.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn bytes(&self) -> Result<u64> {
        self.index.bytes()
    }

    /// How many messages were deleted or replaced here in the last 24 hours, by any client, that count for the guard; to be
    /// asked after a scan, which counts what a killed run did.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn deleted_lately(&self) -> Result<u64> {
        self.index.deleted_lately(now_secs())
    }

    /// Where messages' files lie, in order; `None` for one that is not there with these bytes.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn locate(&self, wanted: &[(&At, &Digest)]) -> Result<Vec<Option<Located>>> {
        let find = |(at, digest): &(&At, &Digest)| {
            let Some(folder) = self.folder_at(at)?.filter(|folder| !folder.gone) else {
                return Ok(None);
            };
            let row = self.index.file_at(folder.id, &at.unique, at.copy)?;
            Ok(row
                .filter(|row| !row.gone && row.entry.digest == **digest)
                .map(|row| Located {
                    path: path_of(&folder.dir, &row),
                    dir: folder.dir.clone(),
                    unique: row.unique,
                    digest: **digest,
                    stamp: row.stamp,
                }))
        };
        self.index.reading(|| wanted.iter().map(find).collect())
    }

    /// The path of the file that is or last was at a place.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn file_path(&self, at: &At) -> Result<Option<PathBuf>> {
        let Some(folder) = self.folder_at(at)? else {
            return Ok(None);
        };
        let row = self.index.file_at(folder.id, &at.unique, at.copy)?;
        Ok(row.map(|row| self.root.full(&path_of(&folder.dir, &row))))
    }

    /// The paths of the files that are or last were at places, as far as they are known.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn file_paths(&self, places: &[&At]) -> Result<Vec<PathBuf>> {
        let path = |at: &&At| self.file_path(at).transpose();
        self.index
            .reading(|| places.iter().filter_map(path).collect())
    }

    /// The folder of a place; asked for each message, so it looks at no other one.
    fn folder_at(&self, at: &At) -> Result<Option<FolderRow>> {
        match at.number {
            Some(number) => self.index.folder(number),
            None => self.index.folder_in(&at.folder),
        }
    }

    /// The directory of a folder, whether or not it is there.
    #[must_use]
    pub fn folder_path(&self, dir: &FolderDir) -> PathBuf {
        self.root.full(dir.as_bytes())
    }

    /// The way to the bytes of located messages, for another thread.
    ///
    /// # Errors
    /// When no further descriptor is to be had.
    pub fn bodies(&self) -> Result<Bodies> {
        Ok(Bodies {
            root: Arc::clone(&self.root),
        })
    }

    /// Looks in the trash for bodies that nobody has any more.
    #[must_use]
    pub fn trashed(&self, wanted: &HashSet<Digest>) -> Trashed {
        Trashed::find(&self.trash_dir(), wanted)
    }

    /// Where folders lie now.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn places(&self) -> Result<Places> {
        let folders = self.index.folders()?.into_iter().filter(|row| !row.gone);
        Ok(Places {
            dirs: folders.map(|row| (row.id, row.dir)).collect(),
        })
    }
}
