//! Reading what the index tells, in pages: between two of them nothing of it stays open, so that a slow reader keeps
//! nobody from committing.
//!
//! *What holds*: what was told is the index as it was when the last page was read. Whatever changes between two pages gets
//! a higher number, so a later page tells it again; of several changes of one place the one told last counts.

use protocol::entry::{Change, FolderChange, FolderDigest};
use protocol::{Digest, IndexId};

use crate::error::Result;
use crate::replica::Replica;

/// How many changes a page holds at most.
const PAGE: usize = 1024;

/// How far a reader of the journal has come.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    folders: u64,
    files: u64,
    with_gone: bool,
    is_through: bool,
}

impl Reader {
    /// Begins after a number. Without those that are gone, only what goes while it is read is told as gone: it may have
    /// been told as there.
    #[must_use]
    pub fn since(number: u64, with_gone: bool) -> Reader {
        Reader {
            folders: number,
            files: number,
            with_gone,
            is_through: false,
        }
    }
}

/// What is read at once: the folders first, so that each message's folder is known before it.
#[derive(Debug, Default)]
pub struct Page {
    /// Folders that were made, renamed or removed.
    pub folders: Vec<FolderChange>,
    /// Messages that came, changed or went.
    pub changes: Vec<Change>,
}

impl Replica {
    /// The next page of the journal; `None` at its end.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn next_page(&self, reader: &mut Reader) -> Result<Option<Page>> {
        if reader.is_through {
            return Ok(None);
        }
        let mut page = self.index.reading(|| {
            Ok(Page {
                folders: self.index.folders_since(reader.folders)?,
                changes: self.index.changes_after(reader.files, PAGE)?,
            })
        })?;
        reader.is_through = page.changes.len() < PAGE;
        let newest = page.folders.last().map(|folder| folder.seq);
        reader.folders = newest.unwrap_or(reader.folders);
        let newest = page.changes.last().map(|change| change.seq);
        reader.files = newest.unwrap_or(reader.files);
        let is_told = |gone: bool, seq: u64| reader.with_gone || !gone || seq > self.told;
        page.folders
            .retain(|folder| is_told(folder.gone, folder.seq));
        page.changes
            .retain(|change| is_told(change.gone, change.seq));
        Ok(Some(page))
    }

    /// Whether what was read since a number is whole: the index is in the same life, and remembers what is gone from there on.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn remembers(&self, index: IndexId, number: u64) -> Result<bool> {
        Ok(self.index.id()? == index && self.index.floor()? <= number)
    }

    /// How many changes there are after a number.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn count_since(&self, number: u64) -> Result<u64> {
        self.index.count_since(number)
    }

    /// The next live messages of a folder after this one, or its first ones; none at its end. What changes meanwhile is
    /// for the journal to tell.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn manifest(&self, folder: u32, after: Option<&Change>) -> Result<Vec<Change>> {
        self.index.live_after(folder, after, PAGE)
    }

    /// The digests of all live folders.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn folder_digests(&self) -> Result<Vec<(u32, Digest)>> {
        let folders = self.index.folders()?.into_iter();
        let live = folders.filter(|folder| !folder.gone);
        live.map(|folder| Ok((folder.id, self.folder_digest(folder.id)?)))
            .collect()
    }

    fn folder_digest(&self, folder: u32) -> Result<Digest> {
        let mut digest = FolderDigest::default();
        self.index.each_of(folder, |known| {
            let row = known.row()?;
            if !row.gone {
                let entry = &row.entry;
                digest.add(
                    &row.unique,
                    row.copy,
                    entry.in_new,
                    entry.flags(),
                    &entry.digest,
                );
            }
            Ok(())
        })?;
        Ok(digest.finish())
    }
}
