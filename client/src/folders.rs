//! Folders as base and both sides know them, and what becomes of them.
//!
//! Pure but for reading and writing the archive's rows at the ends. A folder is merged like a message: presence and name.
//! A rename that the other side can follow is one operation and changes no message (row 17).

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::entry::FolderChange;
use protocol::message::At;
use protocol::{FolderName, Op, Outcome};

use crate::archive::{Archive, ArchiveError, Folder};
use crate::filter::{Filter, Scope};
use crate::record::{Fid, Place, Side};

/// All folders of a pair.
#[derive(Debug, Default)]
pub struct Folders {
    pub(crate) all: BTreeMap<Fid, Folder>,
    changed: Vec<Fid>,
    /// The number that was given last. None is given twice, because records may still name a folder that is no more.
    last: u32,
    /// What was told of each side in this run.
    told: [HashSet<Fid>; 2],
}

impl Folder {
    /// A side's number and name of the folder.
    #[must_use]
    pub fn on(&self, side: Side) -> Option<&(u32, FolderName)> {
        match side {
            Side::Local => self.local.as_ref(),
            Side::Remote => self.remote.as_ref(),
        }
    }

    pub(crate) fn on_mut(&mut self, side: Side) -> &mut Option<(u32, FolderName)> {
        match side {
            Side::Local => &mut self.local,
            Side::Remote => &mut self.remote,
        }
    }

    /// The names that it had when both sides agreed, and has on either.
    pub(crate) fn names(&self) -> impl Iterator<Item = &FolderName> {
        let held = [&self.local, &self.remote].into_iter().flatten();
        self.base.iter().chain(held.map(|(_, name)| name))
    }

    /// Whether the sides do not have it under one name.
    #[must_use]
    pub fn differs(&self) -> bool {
        let [here, there] = Side::BOTH.map(|side| self.on(side).map(|(_, name)| name));
        here != there
    }

    /// Whether a side renamed it since base.
    #[must_use]
    pub fn is_renamed(&self, side: Side) -> bool {
        matches!((&self.base, self.on(side)), (Some(base), Some((_, name))) if base != name)
    }

    /// The name that it shall have: the one that changed, the server's where both did.
    #[must_use]
    pub fn name(&self) -> &FolderName {
        match (&self.local, &self.remote, &self.base) {
            (Some((_, local)), Some((_, remote)), Some(base)) if remote == base => local,
            (_, Some((_, remote)), _) => remote,
            (Some((_, local)), None, _) => local,
            (None, None, Some(base)) => base,
            (None, None, None) => unreachable!("a folder that nobody knows is not kept"),
        }
    }
}

impl Folders {
    /// Reads all folders.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn load(archive: &Archive) -> Result<Folders, ArchiveError> {
        let all: BTreeMap<Fid, Folder> = archive.folders()?.into_iter().collect();
        let greatest = all.keys().next_back().map_or(0, |id| id.0);
        Ok(Folders {
            all,
            last: archive.get("last_folder")?.unwrap_or(0).max(greatest),
            ..Folders::default()
        })
    }

    /// Writes what changed since it was read.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn save(&mut self, archive: &Archive) -> Result<(), ArchiveError> {
        if !self.changed.is_empty() {
            archive.set("last_folder", &self.last)?;
        }
        for id in std::mem::take(&mut self.changed) {
            match self.all.get(&id) {
                Some(folder) => archive.put_folder(id, folder)?,
                None => archive.remove_folder(id)?,
            }
        }
        Ok(())
    }

    /// All folders with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Fid, &Folder)> {
        self.all.iter().map(|(id, folder)| (*id, folder))
    }

    /// A folder by its number.
    #[must_use]
    pub fn get(&self, id: Fid) -> Option<&Folder> {
        self.all.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: Fid) -> Option<&mut Folder> {
        self.changed.push(id);
        self.all.get_mut(&id)
    }

    /// The name that a folder shall have; for people where it is not known any more.
    #[must_use]
    pub fn name(&self, id: Fid) -> FolderName {
        self.all
            .get(&id)
            .map_or_else(FolderName::inbox, |folder| folder.name().clone())
    }

    /// The name by which a side knows a folder once those in `renaming` were renamed there.
    #[must_use]
    pub fn name_then(&self, side: Side, id: Fid, renaming: &HashSet<Fid>) -> FolderName {
        let own = self
            .all
            .get(&id)
            .and_then(|folder| folder.on(side))
            .map(|(_, name)| name.clone());
        own.filter(|_| !renaming.contains(&id))
            .unwrap_or_else(|| self.name(id))
    }

    /// A place as a side knows it once the folders in `renaming` were renamed there.
    #[must_use]
    pub fn at(&self, side: Side, place: &Place, renaming: &HashSet<Fid>) -> At {
        let on = self.get(place.folder).and_then(|folder| folder.on(side));
        At {
            number: on.map(|(number, _)| *number),
            folder: self.name_then(side, place.folder, renaming),
            unique: place.unique.clone(),
            copy: place.copy,
        }
    }

    /// The folder that a side knows under a number.
    #[must_use]
    pub fn find(&self, side: Side, number: u32) -> Option<Fid> {
        self.all
            .iter()
            .find(|(_, folder)| folder.on(side).is_some_and(|(id, _)| *id == number))
            .map(|(id, _)| *id)
    }

    /// What a run does with a folder; nothing with one that is no more.
    #[must_use]
    pub fn scope(&self, filter: &Filter, id: Fid) -> Scope {
        self.all.get(&id).map_or(Scope::Excluded, |folder| {
            filter.scope(folder.name().as_bytes())
        })
    }

    /// The folders that a side knows, by its numbers.
    #[must_use]
    pub fn numbers(&self, side: Side) -> HashMap<u32, Fid> {
        let known = self.iter();
        known
            .filter_map(|(id, folder)| Some((folder.on(side)?.0, id)))
            .collect()
    }

    /// Forgets a side's numbers and names, because they are about to be told anew.
    pub fn unlink(&mut self, side: Side) {
        for (id, folder) in &mut self.all {
            *folder.on_mut(side) = None;
            self.changed.push(*id);
        }
    }

    /// Takes in what a side told of its folders. A new number belongs to the folder that had its name when both agreed,
    /// or to the one that the other side has under it.
    pub fn fold(&mut self, side: Side, changes: &[FolderChange]) {
        let mut fresh = Vec::new();
        for change in changes {
            let known = self.find(side, change.id);
            match known.and_then(|id| self.get_mut(id)) {
                Some(folder) if change.gone => *folder.on_mut(side) = None,
                Some(folder) => *folder.on_mut(side) = Some((change.id, change.name.clone())),
                None if change.gone => {}
                None => fresh.push(change),
            }
            self.told[side as usize].extend(known);
        }
        for change in fresh {
            let by_base = |folder: &Folder| folder.base.as_ref() == Some(&change.name);
            let by_name = |folder: &Folder| {
                folder.on(side.other()).map(|(_, name)| name) == Some(&change.name)
            };
            let id = self.unheld(side, &by_base);
            let id = id.or_else(|| self.unheld(side, &by_name));
            let id = id.unwrap_or_else(|| self.add());
            if let Some(folder) = self.get_mut(id) {
                *folder.on_mut(side) = Some((change.id, change.name.clone()));
            }
            self.told[side as usize].insert(id);
        }
    }

    /// A folder that a side is not known to have.
    fn unheld(&self, side: Side, is_it: &dyn Fn(&Folder) -> bool) -> Option<Fid> {
        let mut folders = self.iter();
        folders
            .find(|(_, folder)| folder.on(side).is_none() && is_it(folder))
            .map(|(id, _)| id)
    }

    /// Lets go of names that another folder of the same side was told to have since.
    pub(crate) fn drop_outdated(&mut self) {
        for side in Side::BOTH {
            let told = std::mem::take(&mut self.told[side as usize]);
            let names: HashSet<FolderName> = told
                .iter()
                .filter_map(|id| Some(self.all.get(id)?.on(side)?.1.clone()))
                .collect();
            let outdated = self.iter().filter(|(id, folder)| {
                !told.contains(id)
                    && folder
                        .on(side)
                        .is_some_and(|(_, name)| names.contains(name))
            });
            for id in outdated.map(|(id, _)| id).collect::<Vec<_>>() {
                if let Some(folder) = self.get_mut(id) {
                    *folder.on_mut(side) = None;
                }
            }
        }
    }

    pub(crate) fn add(&mut self) -> Fid {
        self.last += 1;
        let id = Fid(self.last);
        self.all.insert(id, Folder::default());
        self.changed.push(id);
        id
    }

    /// The folders to make on a side: parents before children.
    #[must_use]
    pub fn makings(&self, side: Side, wanted: &dyn Fn(Fid) -> bool) -> Vec<(Fid, Op)> {
        let missing = self
            .iter()
            .filter(|(id, folder)| folder.on(side).is_none() && wanted(*id));
        let mut ops: Vec<(Fid, Op)> = missing
            .map(|(id, folder)| {
                (
                    id,
                    Op::MakeFolder {
                        name: folder.name().clone(),
                    },
                )
            })
            .collect();
        ops.sort_by_key(|(_, op)| depth(op));
        ops
    }

    /// The folders to remove on a side, children before parents: gone on the other one, agreed before, and unneeded.
    #[must_use]
    pub fn removals(&self, side: Side, needed: &dyn Fn(Fid) -> bool) -> Vec<(Fid, Op)> {
        let mut ops: Vec<(Fid, Op)> = self
            .iter()
            .filter(|(id, folder)| {
                folder.base.is_some() && folder.on(side.other()).is_none() && !needed(*id)
            })
            .filter(|(_, folder)| !folder.is_renamed(side) && !folder.forgotten)
            .filter_map(|(id, folder)| {
                let (number, name) = folder.on(side)?.clone();
                Some((id, Op::RemoveFolder { number, name }))
            })
            .filter(|(_, op)| op_name(op).is_some_and(|name| !name.is_inbox()))
            .collect();
        ops.sort_by_key(|(_, op)| std::cmp::Reverse(depth(op)));
        ops
    }

    /// Takes in that an operation on a folder happened.
    pub fn done(&mut self, side: Side, id: Fid, op: &Op, outcome: &Outcome) {
        if let Outcome::Made { folder: number } = outcome {
            // It may have been another's, which is gone there.
            let holder = self.find(side, *number).filter(|holder| *holder != id);
            if let Some(folder) = holder.and_then(|holder| self.get_mut(holder)) {
                *folder.on_mut(side) = None;
            }
        }
        let Some(folder) = self.get_mut(id) else {
            return;
        };
        match op {
            Op::MakeFolder { name } => {
                if let Outcome::Made { folder: number } = outcome {
                    *folder.on_mut(side) = Some((*number, name.clone()));
                }
            }
            Op::RenameFolder { to, .. } => {
                if let Some((_, name)) = folder.on_mut(side) {
                    name.clone_from(to);
                }
            }
            Op::RemoveFolder { .. } => *folder.on_mut(side) = None,
            Op::Create { .. } | Op::Update { .. } | Op::Retire { .. } => {}
        }
        self.agree();
    }

    /// Brings base up to what both sides now have, and drops what neither has.
    pub fn agree(&mut self) {
        let mut changed = Vec::new();
        self.all.retain(|id, folder| {
            match (&folder.local, &folder.remote) {
                (Some((_, local)), Some((_, remote)))
                    if local == remote && folder.base.as_ref() != Some(local) =>
                {
                    folder.base = Some(local.clone());
                    changed.push(*id);
                }
                (None, None) => {
                    changed.push(*id);
                    return false;
                }
                _ => {}
            }
            true
        });
        self.changed.append(&mut changed);
    }

    /// Marks a folder as forgotten or remembered again.
    pub fn set_forgotten(&mut self, id: Fid, forgotten: bool) {
        if let Some(folder) = self.get_mut(id) {
            folder.forgotten = forgotten;
            if !forgotten && (folder.local.is_some() || folder.remote.is_some()) {
                folder.base = None;
            }
        }
    }
}

pub(crate) fn depth(op: &Op) -> usize {
    op_name(op).map_or(0, |name| name.parts().count())
}

fn op_name(op: &Op) -> Option<&FolderName> {
    match op {
        Op::MakeFolder { name } | Op::RemoveFolder { name, .. } => Some(name),
        Op::RenameFolder { to, .. } => Some(to),
        Op::Create { .. } | Op::Update { .. } | Op::Retire { .. } => None,
    }
}
