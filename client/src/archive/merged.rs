//! What the merge works on: read from the archive when a run begins, and stored as it goes.

use std::collections::HashSet;

use super::{Archive, Result};
use crate::merge::agreed::Stored;
use crate::merge::fold::{Work, WorkSet};
use crate::merge::folders::Folders;
use crate::merge::mapping::Setting;

impl WorkSet {
    /// Begins with everything that is pending, but for some, and with what was asked and never answered.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn load(archive: &Archive, without: &HashSet<i64>) -> Result<WorkSet> {
        let mut set = WorkSet::default();
        set.taken = archive.get("taken")?.unwrap_or_default();
        set.letters = archive.get("letters")?.unwrap_or_default();
        let mut pending = archive.pending()?;
        pending.retain(|(id, _)| !without.contains(id));
        for (id, record) in pending {
            set.add(Work {
                record,
                stored: Stored::Pending(id),
                ..Work::default()
            });
        }
        for (_, lines) in archive.asked()? {
            for asked in lines {
                set.add_asked(archive, asked)?;
            }
        }
        Ok(set)
    }

    /// Stores what changed.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn store(&mut self, archive: &Archive, index: usize) -> Result<()> {
        let (stored, record) = self.settle(index);
        let stored = archive.put(stored, record)?;
        self.stored(index, stored);
        Ok(())
    }
}

impl Folders {
    /// Reads all folders.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn load(archive: &Archive, setting: Setting) -> Result<Folders> {
        let all = archive.folders()?.into_iter().collect();
        let last = archive.get("last_folder")?.unwrap_or(0);
        Ok(Folders::new(all, last, setting))
    }

    /// Writes what changed since it was read.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn save(&mut self, archive: &Archive) -> Result<()> {
        let last = self.last();
        let changed = self.take_changed();
        if !changed.is_empty() {
            archive.set("last_folder", &last)?;
        }
        for (id, folder) in changed {
            match folder {
                Some(folder) => archive.put_folder(id, folder)?,
                None => archive.remove_folder(id)?,
            }
        }
        Ok(())
    }
}
