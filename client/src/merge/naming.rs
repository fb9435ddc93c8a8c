//! How the folders of both sides come to have the same names.
//!
//! Pure. A folder is known by its directory as long as that helps: if one side renamed it and the other has the new name
//! free, one operation renames it there, and no message is touched (row 17). Else it does not help: two folders want one
//! name, a name is taken, one of the names is excluded, or the other side removed the folder. Then folders are known by
//! their names alone, and what lies in them has moved from one to another, message by message.
//!
//! *What holds* afterwards, of the folders that a run deals with: every one has the same name on both sides, or is about
//! to be renamed to it. No two of a side have one name.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::Op;

use crate::merge::filter::{Filter, Scope};
use crate::merge::folder::{Folder, FolderBase, SideFolder};
use crate::merge::folders::Folders;
use crate::merge::mapping::FolderName;
use crate::merge::record::{Fid, Side};

/// Which folder the messages that a side has under one belong to from now on, for each side.
pub type Reassigned = [BTreeMap<Fid, Fid>; 2];

/// What becomes of a folder whose names differ; of any other, [`Action::Part`] changes nothing but who has its name.
enum Action {
    /// A rename on each side that has another name brings it together, if that name is free there.
    Follow,
    /// It is known by its names from now on.
    Part,
    /// This run does not deal with it.
    Wait,
}

/// The folders that renames bring together.
#[derive(Default)]
struct Followed {
    all: HashSet<Fid>,
    /// Those that a side renames, in order.
    renames: [Vec<Fid>; 2],
}

/// What stands in the entries of the folders that are known by their names.
#[derive(Default)]
struct Named {
    /// The folder of each name: the one that had it when both sides agreed, else one that has it now.
    homes: HashMap<FolderName, Fid>,
    /// Each folder that a side has, and under which one it was known.
    entries: [Vec<(Fid, SideFolder)>; 2],
}

impl Folders {
    /// The renames to carry out on a side, in an order in which every name is free.
    #[must_use]
    pub fn renames(&self, side: Side, filter: &Filter) -> Vec<(Fid, Op)> {
        let mut ops = Vec::new();
        for id in self.followed(filter).renames[side as usize].drain(..) {
            if let Some(folder) = self.get(id)
                && let Some(SideFolder { number, dir, .. }) = folder.on(side).cloned()
                && let Ok(to) = self.place(side, folder)
            {
                let from = dir;
                ops.push((id, Op::RenameFolder { number, from, to }));
            }
        }
        ops
    }

    /// The folders in which a side can hold messages: it has them, or their names are free once these are renamed.
    #[must_use]
    pub fn reachable(&self, side: Side, renaming: &HashSet<Fid>) -> HashSet<Fid> {
        let staying = self.iter().filter(|(id, _)| !renaming.contains(id));
        let held: HashSet<&FolderName> = staying
            .filter_map(|(_, folder)| folder.on(side).map(|held| &held.name))
            .collect();
        let is_reachable = |id: Fid, folder: &Folder| {
            let is_free = || !held.contains(folder.name()) && !self.is_placeless(id);
            folder.on(side).is_some() || is_free()
        };
        let reachable = self.iter().filter(|(id, folder)| is_reachable(*id, folder));
        reachable.map(|(id, _)| id).collect()
    }

    /// Gives up the identity of folders whose names meet. Returns where their messages belong now.
    pub fn part_names(&mut self, filter: &Filter) -> Reassigned {
        self.drop_outdated();
        self.give_names();
        self.agree();
        self.twice = self.renamed_twice(filter);
        let followed = self.followed(filter).all;
        let is_parting =
            |id: &Fid| !followed.contains(id) && !matches!(self.action(*id, filter), Action::Wait);
        let parting: Vec<Fid> = self.iter().map(|(id, _)| id).filter(is_parting).collect();
        let named = self.find_homes(&parting);
        let reassigned = self.put_entries(named);
        self.agree();
        self.find_placeless();
        reassigned
    }

    fn is_apart(&self, id: Fid) -> bool {
        let is_so = |folder: &Folder| folder.names().any(|name| name != folder.name());
        self.get(id).is_some_and(is_so)
    }

    fn action(&self, id: Fid, filter: &Filter) -> Action {
        let Some(folder) = self.get(id).filter(|_| self.is_apart(id)) else {
            return Action::Part;
        };
        let is_excluded = |name: &FolderName| self.scope_of(filter, name) == Scope::Excluded;
        if folder
            .names()
            .any(|name| is_excluded(name) || name.is_inbox())
            || !self.has_places(folder)
        {
            return Action::Part;
        }
        match self.scope_of(filter, folder.name()) {
            Scope::Included => Action::Follow,
            Scope::NotSelected => Action::Wait,
            Scope::Excluded | Scope::Placeless => Action::Part,
        }
    }

    /// For each side the folders that a rename there brings together: played through, because one frees the name of
    /// another. Parents come before children.
    fn followed(&self, filter: &Filter) -> Followed {
        let mut wanted: HashMap<&FolderName, usize> = HashMap::new();
        let mut held: [HashMap<&FolderName, Fid>; 2] = Default::default();
        for (id, folder) in self.iter() {
            *wanted.entry(folder.name()).or_default() += 1;
            for side in Side::BOTH {
                held[side as usize].extend(folder.on(side).map(|held| (&held.name, id)));
            }
        }
        let mut waiting: Vec<_> = self
            .iter()
            .filter(|(id, folder)| {
                folder.differs()
                    && Side::BOTH.iter().all(|side| folder.on(*side).is_some())
                    && wanted[folder.name()] == 1
                    && matches!(self.action(*id, filter), Action::Follow)
            })
            .collect();
        waiting.sort_by_key(|(_, folder)| folder.name().depth());
        let mut followed = Followed::default();
        loop {
            let before = waiting.len();
            waiting.retain(|(id, folder)| {
                let to = folder.name();
                let sides = || {
                    let both = Side::BOTH.into_iter();
                    both.filter_map(|side| Some((side, &folder.on(side)?.name)))
                        .filter(|(_, from)| *from != to)
                };
                if sides().any(|(side, _)| held[side as usize].contains_key(to)) {
                    return true;
                }
                for (side, from) in sides() {
                    held[side as usize].remove(from);
                    held[side as usize].insert(to, *id);
                    followed.renames[side as usize].push(*id);
                }
                followed.all.insert(*id);
                false
            });
            if waiting.len() == before {
                return followed;
            }
        }
    }

    /// Finds the folder to which each name of these belongs.
    fn find_homes(&self, parting: &[Fid]) -> Named {
        let mut named = Named::default();
        let folders = || parting.iter().filter_map(|id| Some((*id, self.get(*id)?)));
        let agreed =
            folders().filter_map(|(id, folder)| Some((folder.base.as_ref()?.name.clone(), id)));
        named.homes.extend(agreed);
        for (id, folder) in folders() {
            let held = Side::BOTH.map(|side| folder.on(side).cloned());
            let first = held
                .iter()
                .flatten()
                .next()
                .filter(|_| folder.base.is_none());
            if let Some(held) = first {
                named.homes.entry(held.name.clone()).or_insert(id);
            }
            for (entries, entry) in named.entries.iter_mut().zip(held) {
                entries.extend(entry.map(|entry| (id, entry)));
            }
        }
        named
    }

    /// Puts every entry into the folder of its name.
    fn put_entries(&mut self, mut named: Named) -> Reassigned {
        let mut reassigned = Reassigned::default();
        let mut puts = Vec::new();
        for side in Side::BOTH {
            for (from, entry) in std::mem::take(&mut named.entries[side as usize]) {
                let name = &entry.name;
                let to = match named.homes.get(name) {
                    Some(&to) => to,
                    None => {
                        let to = self.add();
                        named.homes.insert(name.clone(), to);
                        to
                    }
                };
                if to != from {
                    puts.push((side, from, to, entry));
                }
            }
        }
        let leftovers: Vec<Fid> = puts
            .iter()
            .filter(|(side, from, ..)| *side == Side::Local && self.is_renamed_twice(*from))
            .map(|(_, _, to, _)| *to)
            .collect();
        for (side, from, ..) in &puts {
            if let Some(folder) = self.get_mut(*from) {
                *folder.on_mut(*side) = None;
            }
        }
        for (side, from, to, entry) in puts {
            let is_forgotten = self.get(from).is_some_and(|folder| folder.forgotten);
            if let Some(folder) = self.get_mut(to) {
                *folder.on_mut(side) = Some(entry);
                folder.forgotten |= is_forgotten;
            }
            reassigned[side as usize].insert(from, to);
        }
        // Both sides renamed the folder, and the server's name is the one that stays: ours goes when it is empty.
        for id in leftovers {
            let base = self.alone(id);
            if let Some(folder) = self.get_mut(id)
                && folder.base.is_none()
                && folder.remote.is_none()
            {
                folder.base = base;
            }
        }
        reassigned
    }

    /// A folder that only we have, as if both had agreed on it.
    fn alone(&self, id: Fid) -> Option<FolderBase> {
        let folder = self.get(id)?;
        let SideFolder { dir, name, .. } = folder.local.clone()?;
        let there = self.place(Side::Remote, folder).unwrap_or(dir.clone());
        let dirs = [dir, there];
        Some(FolderBase { dirs, name })
    }

    fn is_renamed_twice(&self, id: Fid) -> bool {
        self.get(id)
            .is_some_and(|folder| folder.is_renamed(Side::Local) && folder.is_renamed(Side::Remote))
    }

    /// The folders of a run that have another name on either side than both agreed on: that one, ours, and the server's,
    /// which stays.
    #[must_use]
    pub fn renamed_twice(&self, filter: &Filter) -> Vec<[FolderName; 3]> {
        let twice = self.iter().filter(|(id, folder)| {
            let is_chosen = self.scope_of(filter, folder.name()) == Scope::Included;
            is_chosen && folder.differs() && self.is_renamed_twice(*id)
        });
        let names = twice.filter_map(|(_, folder)| {
            let base = folder.base.as_ref()?.name.clone();
            let [here, there] = Side::BOTH.map(|side| folder.on(side));
            Some([base, here?.name.clone(), there?.name.clone()])
        });
        names.collect()
    }
}

#[cfg(test)]
#[path = "naming_tests.rs"]
mod tests;
