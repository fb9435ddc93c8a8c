//! Folders that are excluded now or have no place on the other side, or not any more.

use std::collections::HashSet;

use super::Session;
use crate::config::filter::Scope;
use crate::merge::record::{Fid, Side};
use crate::run::failure::Failure;

impl Session<'_> {
    /// Forgets folders that are left alone now, and compares those in full that are included again.
    pub(super) fn recall_folders(&mut self) -> Result<(), Failure> {
        let scopes: Vec<(Fid, Scope, bool)> = self
            .folders
            .iter()
            .map(|(id, folder)| {
                (
                    id,
                    self.folders.scope(&self.account.filter, id),
                    folder.forgotten,
                )
            })
            .collect();
        let mut wanted = Vec::new();
        for (id, scope, forgotten) in scopes {
            match (scope, forgotten) {
                (Scope::Excluded | Scope::Placeless, false) => {
                    self.archive.forget_folder(id)?;
                    self.folders.set_forgotten(id, true);
                }
                (Scope::Included, true) => {
                    self.folders.set_forgotten(id, false);
                    wanted.extend(
                        self.folders
                            .get(id)
                            .and_then(|folder| folder.remote.as_ref())
                            .map(|held| held.number),
                    );
                    self.recall_local(id)?;
                }
                _ => {}
            }
        }
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

    /// Lets go of messages that lie in folders only that are left alone.
    pub(super) fn drop_excluded(&mut self) {
        let (folders, filter) = (&self.folders, &self.account.filter);
        if filter.is_everything() && folders.placeless().next().is_none() {
            return;
        }
        let is_out = |folder: Fid| {
            let scope = folders.scope(filter, folder);
            matches!(scope, Scope::Excluded | Scope::Placeless)
        };
        for loose in &mut self.set.loose {
            loose.retain(|seen| !is_out(seen.place.folder));
        }
        for index in 0..self.set.all.len() {
            let record = &self.set.all[index].record;
            let all_out = record.folders().all(is_out);
            if all_out && (record.base.is_some() || !record.is_empty()) {
                self.set.forget(index);
            }
        }
    }
}
