//! Folders that are excluded now, or not any more.

use std::collections::HashSet;

use protocol::Request;

use super::Session;
use crate::failure::Failure;
use crate::filter::Scope;
use crate::record::{Fid, Place, Side};

impl Session<'_> {
    /// Forgets folders that are excluded now, and compares those in full that are included again.
    pub(super) fn recall_folders(&mut self) -> Result<(), Failure> {
        let scopes: Vec<(Fid, Scope, bool)> = self
            .folders
            .iter()
            .map(|(id, folder)| {
                (
                    id,
                    self.account.filter.scope(folder.name().as_bytes()),
                    folder.forgotten,
                )
            })
            .collect();
        let mut wanted = Vec::new();
        for (id, scope, forgotten) in scopes {
            match (scope, forgotten) {
                (Scope::Excluded, false) => {
                    self.archive.forget_folder(id)?;
                    self.folders.set_forgotten(id, true);
                }
                (Scope::Included, true) => {
                    self.folders.set_forgotten(id, false);
                    wanted.extend(
                        self.folders
                            .get(id)
                            .and_then(|folder| folder.remote.as_ref())
                            .map(|(number, _)| *number),
                    );
                    self.recall_local(id)?;
                }
                _ => {}
            }
        }
        if !wanted.is_empty() {
            self.link.request(Request::Manifests { folders: wanted });
            let known = self.set.loose[Side::Remote as usize]
                .iter()
                .map(|seen| seen.place.clone())
                .collect::<HashSet<_>>();
            let before = self.set.loose[Side::Remote as usize].len();
            self.take_manifests(&mut HashSet::new())?;
            // What was told as a change already is told again.
            let mut index = 0;
            self.set.loose[Side::Remote as usize].retain(|seen| {
                index += 1;
                index <= before || !known.contains(&seen.place)
            });
        }
        Ok(())
    }

    fn recall_local(&mut self, id: Fid) -> Result<(), Failure> {
        let Some((number, _)) = self.folders.get(id).and_then(|folder| folder.local.clone()) else {
            return Ok(());
        };
        let known: HashSet<Place> = self.set.loose[Side::Local as usize]
            .iter()
            .map(|seen| seen.place.clone())
            .collect();
        for change in self.local.lock().manifest(number)? {
            let place = Place {
                folder: id,
                unique: change.unique.clone(),
                copy: change.copy,
            };
            if !known.contains(&place) {
                self.set
                    .fold(&self.archive, Side::Local, id, &change, true)?;
            }
        }
        Ok(())
    }

    /// Lets go of messages that lie in excluded folders only.
    pub(super) fn drop_excluded(&mut self) {
        let (folders, filter) = (&self.folders, &self.account.filter);
        if filter.is_everything() {
            return;
        }
        let is_out = |folder: Fid| folders.scope(filter, folder) == Scope::Excluded;
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
