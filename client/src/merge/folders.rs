//! Folders as base and both sides know them, and what becomes of them.
//!
//! Pure. A folder is merged like a message: presence and name.
//! A rename that the other side can follow is one operation and changes no message (row 17). What is stored of a folder is
//! where it lies on both sides; its name is given anew in each run, see `Folders::give_names`.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::FolderDir;
use protocol::entry::FolderChange;
use protocol::message::At;

use crate::merge::filter::{Filter, Scope};
use crate::merge::folder::{Folder, FolderBase, SideFolder};
use crate::merge::mapping::{FolderName, Mapping, Setting};
use crate::merge::record::{Fid, Place, Side};

mod names;
mod operations;

/// All folders of a pair.
#[derive(Debug, Default)]
pub struct Folders {
    pub(crate) all: BTreeMap<Fid, Folder>,
    changed: Vec<Fid>,
    /// The number that was given last. None is given twice, because records may still name a folder that is no more.
    last: u32,
    /// What was reported of each side in this run.
    reported: [HashSet<Fid>; 2],
    setting: Setting,
    mapping: Mapping,
    /// What the folders are called before people.
    texts: HashSet<Box<[u8]>>,
    /// The folders that have no place on the side where they are missing, and why.
    placeless: BTreeMap<Fid, String>,
    /// The folders that both sides had renamed when the run began, see `Folders::renamed_twice`.
    pub twice: Vec<[FolderName; 3]>,
}

impl Folders {
    /// The folders that are remembered, and the number that was given last.
    #[must_use]
    pub fn new(all: BTreeMap<Fid, Folder>, last: u32, setting: Setting) -> Folders {
        let greatest = all.keys().next_back().map_or(0, |id| id.0);
        let mut folders = Folders {
            all,
            last: last.max(greatest),
            setting,
            ..Folders::default()
        };
        folders.give_names();
        folders
    }

    /// The number that was given last.
    #[must_use]
    pub fn last(&self) -> u32 {
        self.last
    }

    /// The folders that changed since this was asked last; without a folder for those that are no more.
    pub fn take_changed(&mut self) -> Vec<(Fid, Option<&Folder>)> {
        let changed = std::mem::take(&mut self.changed);
        let all = &self.all;
        changed.into_iter().map(|id| (id, all.get(&id))).collect()
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
            .map_or_else(FolderName::default, |folder| folder.name().clone())
    }

    /// The directory that a folder has on a side once those in `renaming` were renamed there.
    #[must_use]
    pub fn dir_then(&self, side: Side, id: Fid, renaming: &HashSet<Fid>) -> FolderDir {
        let folder = self.all.get(&id);
        let held = folder.and_then(|folder| folder.on(side));
        let held = held.filter(|_| !renaming.contains(&id));
        match (held, folder) {
            (Some(held), _) => held.dir.clone(),
            // Nothing is asked of a folder without a place.
            (None, Some(folder)) => self
                .place(side, folder)
                .unwrap_or_else(|_| FolderDir::root()),
            (None, None) => FolderDir::root(),
        }
    }

    /// A place as a side knows it once the folders in `renaming` were renamed there.
    #[must_use]
    pub fn at(&self, side: Side, place: &Place, renaming: &HashSet<Fid>) -> At {
        let on = self.get(place.folder).and_then(|folder| folder.on(side));
        At {
            number: on.map(|held| held.number),
            folder: self.dir_then(side, place.folder, renaming),
            unique: place.unique.clone(),
            copy: place.copy,
        }
    }

    /// The folder that a side knows under a number.
    #[must_use]
    pub fn find(&self, side: Side, number: u32) -> Option<Fid> {
        self.all
            .iter()
            .find(|(_, folder)| folder.on(side).is_some_and(|held| held.number == number))
            .map(|(id, _)| *id)
    }

    /// What a run does with a folder; nothing with one that is no more.
    #[must_use]
    pub fn scope(&self, filter: &Filter, id: Fid) -> Scope {
        match self.all.get(&id) {
            Some(_) if self.is_placeless(id) => Scope::Placeless,
            Some(folder) => self.scope_of(filter, folder.name()),
            None => Scope::Excluded,
        }
    }

    /// The patterns that match no folder of either side: those of the configuration, and those that were typed.
    #[must_use]
    pub fn unmatched(&self, filter: &Filter) -> [Vec<String>; 2] {
        let sides = self
            .iter()
            .flat_map(|(_, folder)| Side::BOTH.map(|side| folder.on(side)));
        let names: Vec<&[u8]> = sides.flatten().map(|held| held.name.text()).collect();
        filter.unmatched(&names)
    }

    /// What the patterns say of a name, wherever it is.
    pub(crate) fn scope_of(&self, filter: &Filter, name: &FolderName) -> Scope {
        filter.scope(name.text(), &|text| self.texts.contains(text))
    }

    /// What a directory of a side is called before people.
    #[must_use]
    pub fn text(&self, side: Side, dir: &FolderDir) -> String {
        self.mapping.name(side, dir).to_string()
    }

    /// The folders that a side knows, by its numbers.
    #[must_use]
    pub fn numbers(&self, side: Side) -> HashMap<u32, Fid> {
        let known = self.iter();
        known
            .filter_map(|(id, folder)| Some((folder.on(side)?.number, id)))
            .collect()
    }

    /// Forgets a side's numbers and names, because they are about to be reported anew.
    pub fn unlink(&mut self, side: Side) {
        for (id, folder) in &mut self.all {
            *folder.on_mut(side) = None;
            self.changed.push(*id);
        }
    }

    /// Takes in what a side reported of its folders. A new number belongs to the folder that was in its directory when both
    /// agreed, or to the one that the other side has under its name.
    pub fn fold(&mut self, side: Side, changes: &[FolderChange]) {
        if changes.is_empty() {
            return;
        }
        let (numbers, mut fresh) = (self.numbers(side), Vec::new());
        for change in changes {
            let known = numbers.get(&change.id).copied();
            match known.and_then(|id| self.get_mut(id)) {
                Some(folder) if change.gone => *folder.on_mut(side) = None,
                Some(folder) => *folder.on_mut(side) = Some(held(change)),
                None if change.gone => {}
                None => fresh.push(change),
            }
            self.reported[side as usize].extend(known);
        }
        let mut unheld = HashMap::new();
        for (id, folder) in self.iter().filter(|(_, folder)| folder.on(side).is_none()) {
            if let Some(base) = &folder.base {
                unheld.entry(base.dirs[side as usize].clone()).or_insert(id);
            }
        }
        fresh.retain(|change| match unheld.remove(&change.dir) {
            Some(id) => {
                self.hold(side, id, change);
                false
            }
            None => true,
        });
        // How the trees are laid out follows from all directories, these among them.
        let ids: Vec<Fid> = fresh.iter().map(|_| self.add()).collect();
        for (id, change) in ids.iter().zip(&fresh) {
            self.hold(side, *id, change);
        }
        self.give_names();
        let mut unheld = HashMap::new();
        for (id, folder) in self.iter().filter(|(_, folder)| folder.on(side).is_none()) {
            if let Some(held) = folder.on(side.other()) {
                unheld.entry(held.name.clone()).or_insert(id);
            }
        }
        for (id, change) in ids.into_iter().zip(fresh) {
            let name = self.name(id);
            if let Some(home) = unheld.remove(&name) {
                self.all.remove(&id);
                self.hold(side, home, change);
                if let Some(held) = self
                    .get_mut(home)
                    .and_then(|home| home.on_mut(side).as_mut())
                {
                    held.name = name;
                }
            }
        }
    }

    fn hold(&mut self, side: Side, id: Fid, change: &FolderChange) {
        if let Some(folder) = self.get_mut(id) {
            *folder.on_mut(side) = Some(held(change));
        }
        self.reported[side as usize].insert(id);
    }

    /// Lets go of directories that another folder of the same side was reported to have since.
    pub(crate) fn drop_outdated(&mut self) {
        for side in Side::BOTH {
            let reported = std::mem::take(&mut self.reported[side as usize]);
            let dirs: HashSet<FolderDir> = reported
                .iter()
                .filter_map(|id| Some(self.all.get(id)?.on(side)?.dir.clone()))
                .collect();
            let outdated = self.iter().filter(|(id, folder)| {
                let held = folder.on(side);
                !reported.contains(id) && held.is_some_and(|held| dirs.contains(&held.dir))
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

    /// Brings base up to what both sides now have, and drops what neither has.
    pub fn agree(&mut self) {
        let mut changed = Vec::new();
        self.all.retain(|id, folder| {
            match (&folder.local, &folder.remote) {
                (Some(local), Some(remote)) if local.name == remote.name => {
                    let base = FolderBase {
                        dirs: [local.dir.clone(), remote.dir.clone()],
                        name: local.name.clone(),
                    };
                    if folder.base.as_ref() != Some(&base) {
                        folder.base = Some(base);
                        changed.push(*id);
                    }
                }
                (None, None) => {
                    changed.push(*id);
                    return false;
                }
                (Some(_), _) | (_, Some(_)) => {}
            }
            true
        });
        self.changed.append(&mut changed);
    }

    /// Forgets the folders that are left alone from now on, and begins anew with those that are not any more.
    pub fn recall(&mut self, filter: &Filter) -> Recalled {
        let mut recalled = Recalled::default();
        let ids: Vec<Fid> = self.all.keys().copied().collect();
        for id in ids {
            let is_forgotten = self.all[&id].forgotten;
            match self.scope(filter, id) {
                Scope::Excluded | Scope::Placeless if !is_forgotten => recalled.forgotten.push(id),
                Scope::Included if is_forgotten => recalled.included.push(id),
                Scope::Included | Scope::Excluded | Scope::Placeless | Scope::NotSelected => {
                    continue;
                }
            }
            if let Some(folder) = self.get_mut(id) {
                folder.forgotten = !is_forgotten;
                if is_forgotten && (folder.local.is_some() || folder.remote.is_some()) {
                    folder.base = None;
                }
            }
        }
        recalled
    }
}

/// The folders that are left alone from this run on, and those that are not any more.
#[derive(Default)]
pub struct Recalled {
    /// What was agreed on them does not count any more.
    pub forgotten: Vec<Fid>,
    /// They are to be compared in full.
    pub included: Vec<Fid>,
}

fn held(change: &FolderChange) -> SideFolder {
    SideFolder {
        number: change.id,
        dir: change.dir.clone(),
        name: FolderName::default(),
    }
}
