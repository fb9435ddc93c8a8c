//! Folders as base and both sides know them, and what becomes of them.
//!
//! Pure but for reading and writing the archive's rows at the ends. A folder is merged like a message: presence and name.
//! A rename that the other side can follow is one operation and changes no message (row 17).

use std::collections::{BTreeMap, HashSet};

use protocol::entry::FolderChange;
use protocol::{FolderName, Op, Outcome};

use crate::archive::{Archive, ArchiveError, Folder};
use crate::filter::{Filter, Scope};
use crate::record::{Fid, Side};

/// All folders of a pair.
#[derive(Debug, Default)]
pub struct Folders {
    all: BTreeMap<Fid, Folder>,
    changed: Vec<Fid>,
}

/// A folder whose name on one side belongs to another folder on the other: its messages move there one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rehomed {
    /// On which side.
    pub side: Side,
    /// The folder under which that side's messages were known.
    pub from: Fid,
    /// The one to which they belong now.
    pub to: Fid,
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

    fn on_mut(&mut self, side: Side) -> &mut Option<(u32, FolderName)> {
        match side {
            Side::Local => &mut self.local,
            Side::Remote => &mut self.remote,
        }
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
        Ok(Folders {
            all: archive.folders()?.into_iter().collect(),
            changed: Vec::new(),
        })
    }

    /// Writes what changed since it was read.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn save(&mut self, archive: &Archive) -> Result<(), ArchiveError> {
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

    fn get_mut(&mut self, id: Fid) -> Option<&mut Folder> {
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

    /// The folder that a side knows under a number.
    #[must_use]
    pub fn find(&self, side: Side, number: u32) -> Option<Fid> {
        self.all
            .iter()
            .find(|(_, folder)| folder.on(side).is_some_and(|(id, _)| *id == number))
            .map(|(id, _)| *id)
    }

    /// What a run does with a folder.
    #[must_use]
    pub fn scope(&self, filter: &Filter, id: Fid) -> Scope {
        self.all.get(&id).map_or(Scope::Included, |folder| {
            filter.scope(folder.name().as_bytes())
        })
    }

    /// Forgets a side's numbers and names, because they are about to be told anew.
    pub fn unlink(&mut self, side: Side) {
        for (id, folder) in &mut self.all {
            *folder.on_mut(side) = None;
            self.changed.push(*id);
        }
    }

    /// Takes in what a side told of its folders. Returns which numbers of the side belong to other folders than before.
    pub fn fold(&mut self, side: Side, changes: &[FolderChange]) -> Vec<Rehomed> {
        let mut fresh = Vec::new();
        for change in changes {
            let known = self.find(side, change.id);
            match known.and_then(|id| self.get_mut(id)) {
                Some(folder) if change.gone => *folder.on_mut(side) = None,
                Some(folder) => *folder.on_mut(side) = Some((change.id, change.name.clone())),
                None if change.gone => {}
                None => fresh.push(change),
            }
        }
        for change in fresh {
            let matching = |folder: &Folder| {
                let other = folder.on(side.other()).map(|(_, name)| name);
                folder.on(side).is_none()
                    && (other == Some(&change.name)
                        || (other.is_none() && folder.base.as_ref() == Some(&change.name)))
            };
            let id = self
                .all
                .iter()
                .find(|(_, folder)| matching(folder))
                .map(|(id, _)| *id);
            let id = id.unwrap_or_else(|| self.add());
            if let Some(folder) = self.get_mut(id) {
                *folder.on_mut(side) = Some((change.id, change.name.clone()));
            }
        }
        self.rehome()
    }

    fn add(&mut self) -> Fid {
        let id = Fid(self.all.keys().next_back().map_or(1, |last| last.0 + 1));
        self.all.insert(
            id,
            Folder {
                base: None,
                local: None,
                remote: None,
                forgotten: false,
            },
        );
        id
    }

    /// Joins folders that have one name on different sides: two made alike, or a rename to a name that is not free.
    fn rehome(&mut self) -> Vec<Rehomed> {
        let mut rehomed = Vec::new();
        let ids: Vec<Fid> = self.all.keys().copied().collect();
        for &from in &ids {
            // A folder that is about to get another name lets go of this one.
            if self
                .all
                .get(&from)
                .is_some_and(|folder| self.will_rename(Side::Local, folder))
            {
                continue;
            }
            let Some((number, name)) = self.all.get(&from).and_then(|folder| folder.local.clone())
            else {
                continue;
            };
            let to = ids.iter().copied().find(|id| {
                *id != from
                    && self.all.get(id).is_some_and(|folder| {
                        folder
                            .remote
                            .as_ref()
                            .is_some_and(|(_, other)| *other == name)
                    })
            });
            let Some(to) = to else { continue };
            if self
                .all
                .get(&to)
                .is_some_and(|folder| folder.local.is_none())
            {
                // The remote side has that name in `to`, and nothing here is paired with it: this one is.
                if let Some(folder) = self.get_mut(to) {
                    folder.local = Some((number, name));
                }
                if let Some(folder) = self.get_mut(from) {
                    folder.local = None;
                }
                rehomed.push(Rehomed {
                    side: Side::Local,
                    from,
                    to,
                });
            } else if self
                .all
                .get(&from)
                .is_some_and(|folder| folder.remote.is_none())
            {
                let theirs = self.get_mut(to).and_then(|folder| folder.remote.take());
                if let Some(folder) = self.get_mut(from) {
                    folder.remote = theirs;
                }
                rehomed.push(Rehomed {
                    side: Side::Remote,
                    from: to,
                    to: from,
                });
            }
        }
        rehomed
    }

    /// The folders that a side has under a name that is not theirs any more, and whose new name is free there: parents
    /// before children.
    #[must_use]
    pub fn renames(&self, side: Side) -> Vec<(Fid, Op)> {
        let mut ops = Vec::new();
        for (id, folder) in self.iter() {
            if let Some((_, from)) = folder.on(side)
                && from != folder.name()
                && self.can_rename(side, from, folder.name())
            {
                ops.push((
                    id,
                    Op::RenameFolder {
                        from: from.clone(),
                        to: folder.name().clone(),
                    },
                ));
            }
        }
        ops.sort_by_key(|(_, op)| depth(op));
        ops
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

    fn will_rename(&self, side: Side, folder: &Folder) -> bool {
        folder.on(side).is_some_and(|(_, name)| {
            name != folder.name() && self.can_rename(side, name, folder.name())
        })
    }

    fn can_rename(&self, side: Side, from: &FolderName, to: &FolderName) -> bool {
        let is_taken = self
            .all
            .values()
            .any(|folder| folder.on(side).is_some_and(|(_, name)| name == to));
        !is_taken && !from.is_inbox() && !to.is_inbox()
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
                folder
                    .on(side)
                    .map(|(_, name)| (id, Op::RemoveFolder { name: name.clone() }))
            })
            .filter(|(_, op)| op_name(op).is_some_and(|name| !name.is_inbox()))
            .collect();
        ops.sort_by_key(|(_, op)| std::cmp::Reverse(depth(op)));
        ops
    }

    /// Takes in that an operation on a folder happened.
    pub fn done(&mut self, side: Side, id: Fid, op: &Op, outcome: &Outcome) {
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
            Op::Create { .. } | Op::Update { .. } | Op::Retire { .. } | Op::Confirm { .. } => {}
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

fn depth(op: &Op) -> usize {
    op_name(op).map_or(0, |name| name.parts().count())
}

fn op_name(op: &Op) -> Option<&FolderName> {
    match op {
        Op::MakeFolder { name } | Op::RemoveFolder { name } => Some(name),
        Op::RenameFolder { to, .. } => Some(to),
        Op::Create { .. } | Op::Update { .. } | Op::Retire { .. } | Op::Confirm { .. } => None,
    }
}
