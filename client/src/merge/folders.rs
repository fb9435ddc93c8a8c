//! Folders as base and both sides know them, and what becomes of them.
//!
//! Pure but for reading and writing the archive's rows at the ends. A folder is merged like a message: presence and name.
//! A rename that the other side can follow is one operation and changes no message (row 17). What is stored of a folder is
//! where it lies on both sides; its name is given anew in each run, see `Folders::give_names`.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::entry::FolderChange;
use protocol::message::At;
use protocol::{FolderDir, Op, Outcome};

use crate::archive::{Archive, ArchiveError, Folder, FolderBase, Held};
use crate::config::filter::{Filter, Scope};
use crate::merge::mapping::{FolderName, Mapping, Setting};
use crate::merge::record::{Fid, Place, Side};

mod names;

/// All folders of a pair.
#[derive(Debug, Default)]
pub struct Folders {
    pub(crate) all: BTreeMap<Fid, Folder>,
    changed: Vec<Fid>,
    /// The number that was given last. None is given twice, because records may still name a folder that is no more.
    last: u32,
    /// What was told of each side in this run.
    told: [HashSet<Fid>; 2],
    setting: Setting,
    mapping: Mapping,
    /// What the folders are called before people.
    texts: HashSet<Box<[u8]>>,
    /// The folders that have no place on the side where they are missing, and why.
    placeless: BTreeMap<Fid, String>,
    /// The folders that both sides had renamed when the run began, see `Folders::renamed_twice`.
    pub twice: Vec<[FolderName; 3]>,
}

impl Folder {
    /// The folder as a side has it.
    #[must_use]
    pub fn on(&self, side: Side) -> Option<&Held> {
        match side {
            Side::Local => self.local.as_ref(),
            Side::Remote => self.remote.as_ref(),
        }
    }

    pub(crate) fn on_mut(&mut self, side: Side) -> &mut Option<Held> {
        match side {
            Side::Local => &mut self.local,
            Side::Remote => &mut self.remote,
        }
    }

    /// The names that it had when both sides agreed, and has on either.
    pub(crate) fn names(&self) -> impl Iterator<Item = &FolderName> {
        let held = [&self.local, &self.remote].into_iter().flatten();
        let base = self.base.iter().map(|base| &base.name);
        base.chain(held.map(|held| &held.name))
    }

    /// Whether the sides do not have it under one name.
    #[must_use]
    pub fn differs(&self) -> bool {
        let [here, there] = Side::BOTH.map(|side| self.on(side).map(|held| &held.name));
        here != there
    }

    /// Whether a side renamed it since base.
    #[must_use]
    pub fn is_renamed(&self, side: Side) -> bool {
        matches!((&self.base, self.on(side)), (Some(base), Some(held)) if base.name != held.name)
    }

    /// The name that it shall have: the one that changed, the server's where both did.
    #[must_use]
    pub fn name(&self) -> &FolderName {
        match (&self.local, &self.remote, &self.base) {
            (Some(local), Some(remote), Some(base)) if remote.name == base.name => &local.name,
            (_, Some(remote), _) => &remote.name,
            (Some(local), None, _) => &local.name,
            (None, None, Some(base)) => &base.name,
            (None, None, None) => unreachable!("a folder that nobody knows is not kept"),
        }
    }
}

impl Folders {
    /// Reads all folders.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn load(archive: &Archive, setting: Setting) -> Result<Folders, ArchiveError> {
        let all: BTreeMap<Fid, Folder> = archive.folders()?.into_iter().collect();
        let greatest = all.keys().next_back().map_or(0, |id| id.0);
        let mut folders = Folders {
            all,
            last: archive.get("last_folder")?.unwrap_or(0).max(greatest),
            setting,
            ..Folders::default()
        };
        folders.give_names();
        Ok(folders)
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

    /// Forgets a side's numbers and names, because they are about to be told anew.
    pub fn unlink(&mut self, side: Side) {
        for (id, folder) in &mut self.all {
            *folder.on_mut(side) = None;
            self.changed.push(*id);
        }
    }

    /// Takes in what a side told of its folders. A new number belongs to the folder that was in its directory when both
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
            self.told[side as usize].extend(known);
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
        self.told[side as usize].insert(id);
    }

    /// Lets go of directories that another folder of the same side was told to have since.
    pub(crate) fn drop_outdated(&mut self) {
        for side in Side::BOTH {
            let told = std::mem::take(&mut self.told[side as usize]);
            let dirs: HashSet<FolderDir> = told
                .iter()
                .filter_map(|id| Some(self.all.get(id)?.on(side)?.dir.clone()))
                .collect();
            let outdated = self.iter().filter(|(id, folder)| {
                let held = folder.on(side);
                !told.contains(id) && held.is_some_and(|held| dirs.contains(&held.dir))
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
        let make = |(id, folder)| {
            let dir = self.place(side, folder).ok()?;
            Some((id, Op::MakeFolder { dir }))
        };
        let mut ops: Vec<(Fid, Op)> = missing.filter_map(make).collect();
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
                let Held { number, dir, name } = folder.on(side)?.clone();
                (!name.is_inbox()).then_some((id, Op::RemoveFolder { number, dir }))
            })
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
        let name = folder.name().clone();
        match op {
            Op::MakeFolder { dir } => {
                if let Outcome::Made { folder: number } = outcome {
                    let (number, dir) = (*number, dir.clone());
                    *folder.on_mut(side) = Some(Held { number, dir, name });
                }
            }
            Op::RenameFolder { to, .. } => {
                if let Some(held) = folder.on_mut(side) {
                    (held.dir, held.name) = (to.clone(), name);
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

fn held(change: &FolderChange) -> Held {
    Held {
        number: change.id,
        dir: change.dir.clone(),
        name: FolderName::default(),
    }
}

fn depth(op: &Op) -> usize {
    match op {
        Op::MakeFolder { dir } | Op::RemoveFolder { dir, .. } => dir.depth(),
        Op::RenameFolder { to, .. } => to.depth(),
        Op::Create { .. } | Op::Update { .. } | Op::Retire { .. } => 0,
    }
}
