//! Finding what an operation names: its folder and its message, in the index.
//!
//! A client asks by what was reported to it, and much may have happened since. What is not the very folder is not there (I8).

use std::collections::BTreeSet;

use protocol::message::At;
use protocol::{FolderDir, Op};

use super::step::{Step, stale};
use crate::error::Result;
use crate::index::{FileRow, FolderRow, Index, path_of};
use crate::root::Root;

/// The folders of a replica, and the messages in them, as the index has them while a batch is carried out.
pub(crate) struct Lookup<'a> {
    pub(crate) index: &'a Index,
    folders: Vec<FolderRow>,
    /// The folders that were made in this run.
    made: &'a mut BTreeSet<u32>,
    /// The folders of the batch in whose place another directory lies than when they were scanned.
    strange: BTreeSet<u32>,
}

/// A message as the index has it.
pub(crate) struct Message {
    pub(crate) folder: FolderRow,
    pub(crate) row: FileRow,
}

impl Message {
    pub(crate) fn path(&self) -> Vec<u8> {
        path_of(&self.folder.dir, &self.row)
    }
}

impl<'a> Lookup<'a> {
    /// Looks at the directories of the folders that a batch names. One that was replaced since the scan, as by renames, is not
    /// what is meant. A rename moves the ctime of what is in it, too, so the next scan reads it.
    pub(crate) fn of(
        index: &'a Index,
        made: &'a mut BTreeSet<u32>,
        root: &Root,
        ops: &[Op],
    ) -> Result<Lookup<'a>> {
        let folders = index.folders()?;
        let numbers = ops.iter().flat_map(|op| match op {
            Op::RenameFolder { number, .. } | Op::RemoveFolder { number, .. } => vec![*number],
            other => other.places().filter_map(|at| at.number).collect(),
        });
        let numbers: BTreeSet<u32> = numbers.collect();
        let named = folders.iter().filter(|row| numbers.contains(&row.id));
        let is_strange = |row: &&FolderRow| {
            let identity = root.dir_identity(&row.dir);
            !row.gone && identity.is_ok_and(|identity| identity != (row.ino, row.birth))
        };
        let strange = named.filter(is_strange).map(|row| row.id).collect();
        Ok(Lookup {
            index,
            folders,
            made,
            strange,
        })
    }

    /// The folder of a place, if it is the one that was reported, or was made in this run.
    pub(crate) fn folder_of(&self, at: &At) -> Option<&FolderRow> {
        match at.number {
            Some(number) => self.folder(number),
            None => self
                .folder_in(&at.folder)
                .filter(|row| self.made.contains(&row.id)),
        }
    }

    /// A live folder by its number.
    pub(crate) fn folder(&self, number: u32) -> Option<&FolderRow> {
        let is_it = |row: &&FolderRow| row.id == number && !self.strange.contains(&row.id);
        self.live().find(is_it)
    }

    /// The live folder in a directory.
    pub(crate) fn folder_in(&self, dir: &FolderDir) -> Option<&FolderRow> {
        self.live().find(|row| row.dir == dir.as_bytes())
    }

    /// All live folders.
    pub(crate) fn live(&self) -> impl Iterator<Item = &FolderRow> {
        self.folders.iter().filter(|row| !row.gone)
    }

    /// Whether a folder was made in this run.
    pub(crate) fn is_made(&self, folder: &FolderRow) -> bool {
        self.made.contains(&folder.id)
    }

    /// The folder into which a message shall come.
    pub(crate) fn live_folder(&self, at: &At) -> Step<FolderRow> {
        self.folder_of(at).cloned().map_or_else(stale, Ok)
    }

    /// A live folder that is where it was.
    pub(crate) fn folder_at(&self, number: u32, dir: &FolderDir) -> Step<FolderRow> {
        let folder = self.folder(number);
        let folder = folder.filter(|row| row.dir == dir.as_bytes());
        folder.cloned().map_or_else(stale, Ok)
    }

    /// The message at a place.
    pub(crate) fn message_at(&self, at: &At) -> Result<Option<Message>> {
        let Some(folder) = self.folder_of(at) else {
            return Ok(None);
        };
        let row = self.index.file_at(folder.id, &at.unique, at.copy)?;
        Ok(row.filter(|row| !row.gone).map(|row| Message {
            folder: folder.clone(),
            row,
        }))
    }

    /// Adds a folder that was made in this run; returns its number.
    pub(crate) fn add_folder(&mut self, dir: Vec<u8>, identity: (u64, i64)) -> Result<u32> {
        let known = self.folders.iter().find(|row| row.dir == dir);
        let id = known.map_or(0, |row| row.id);
        self.folders.retain(|row| row.dir != dir);
        let mut row = FolderRow::new(dir, identity);
        (row.id, row.seq) = (id, self.index.next_number()?);
        row.id = self.index.put_folder(&row)?;
        self.made.insert(row.id);
        let id = row.id;
        self.folders.push(row);
        Ok(id)
    }

    /// Changes what is known of a folder.
    pub(crate) fn put_folder(&mut self, row: FolderRow) -> Result<()> {
        self.index.put_folder(&row)?;
        let mut known = self.folders.iter_mut();
        if let Some(known) = known.find(|known| known.id == row.id) {
            *known = row;
        }
        Ok(())
    }
}
