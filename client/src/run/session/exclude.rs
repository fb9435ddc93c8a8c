//! Folders that are excluded now or have no place on the other side, or not any more.

use std::collections::HashSet;

use super::Session;
use crate::merge::Settled;
use crate::merge::record::{Fid, Side};
use crate::run::failure::Failure;

impl Session<'_> {
    /// Forgets folders that are left alone now, and takes in all that is in those that are included again.
    pub(super) fn recall(&mut self, settled: &Settled) -> Result<(), Failure> {
        for id in &settled.recalled.forgotten {
            self.archive.forget_folder(*id)?;
        }
        let included = &settled.recalled.included;
        for id in included {
            self.recall_local(*id)?;
        }
        let numbers = included.iter().filter_map(|id| {
            let folder = self.folders.get(*id)?;
            Some(folder.remote.as_ref()?.number)
        });
        let wanted: Vec<u32> = numbers.collect();
        if !wanted.is_empty() {
            self.take_manifests(wanted, &mut HashSet::new())?;
        }
        Ok(())
    }

    fn recall_local(&mut self, id: Fid) -> Result<(), Failure> {
        let held = self
            .folders
            .get(id)
            .and_then(|folder| folder.local.as_ref());
        let Some(number) = held.map(|held| held.number) else {
            return Ok(());
        };
        let mut last = None;
        loop {
            let changes = self.local.lock().manifest(number, last.as_ref())?;
            let Some(change) = changes.last() else { break };
            last = Some(change.clone());
            self.take_changes(Side::Local, changes, true, &mut HashSet::new())?;
        }
        // What was told as a change already is told again.
        self.set.keep_last(Side::Local);
        Ok(())
    }
}
