//! What folders are called in a run, and which of them have no place on the other side.
//!
//! *What holds*: a folder that lies where both sides agreed it lies keeps its name, however the trees are laid out by
//! now. So another layout in the configuration, or another kind of folder in a tree, renames nothing. Every other folder
//! has the name that [`Mapping`] reads from its directory, unless another folder of its side has it: the one that came first
//! keeps it, and the other one has no place on the other side.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::FolderDir;

use super::Folders;
use crate::merge::folder::{Folder, SideFolder};
use crate::merge::mapping::{FolderName, Mapping};
use crate::merge::record::{Fid, Side};

impl Folders {
    /// Finds out how both trees are laid out, and names all folders by that.
    pub(crate) fn give_names(&mut self) {
        let dirs = Side::BOTH.map(|side| {
            let held = self.all.values().filter_map(|folder| folder.on(side));
            held.map(|held| held.dir.as_bytes()).collect()
        });
        let mapping = Mapping::find(self.setting, dirs);
        name_bases(&mut self.all, &mapping);
        for side in Side::BOTH {
            name_held(&mut self.all, &mapping, side);
        }
        self.mapping = mapping;
        let names = self.all.values().flat_map(Folder::names);
        self.texts = names.map(|name| name.text().into()).collect();
        self.find_placeless();
    }

    /// The directory that a folder would have on a side.
    ///
    /// # Errors
    /// When there can be none; with the reason, for people.
    pub(crate) fn place(&self, side: Side, folder: &Folder) -> Result<FolderDir, String> {
        let name = folder.name();
        match folder.base.as_ref().filter(|base| base.name == *name) {
            Some(base) => Ok(base.dirs[side as usize].clone()),
            None => self.mapping.dir(side, name),
        }
    }

    /// Finds the folders that are on one side only and have no place on the other.
    pub(crate) fn find_placeless(&mut self) {
        let mut placeless = BTreeMap::new();
        for side in Side::BOTH {
            let held = self.all.values().filter_map(|folder| folder.on(side));
            let held: HashMap<&FolderDir, &FolderName> =
                held.map(|held| (&held.dir, &held.name)).collect();
            for (id, folder) in self.iter() {
                if folder.on(side).is_some() || folder.on(side.other()).is_none() {
                    continue;
                }
                let why = match self.place(side, folder) {
                    Err(why) => why,
                    Ok(dir) if held.get(&dir).is_some_and(|name| *name != folder.name()) => {
                        format!("its place there, {dir}, is another folder's; rename one of them")
                    }
                    Ok(_) => continue,
                };
                placeless.insert(id, why);
            }
        }
        self.placeless = placeless;
    }

    /// The folders that have no place on the other side: on which side they are, their names, and why.
    pub fn placeless(&self) -> impl Iterator<Item = (Side, FolderName, &str)> {
        self.placeless.iter().filter_map(|(id, why)| {
            let folder = self.all.get(id)?;
            let side = match folder.remote {
                Some(_) => Side::Remote,
                None => Side::Local,
            };
            Some((side, folder.name().clone(), why.as_str()))
        })
    }

    /// Whether a folder has no place on the side where it is missing.
    pub(crate) fn is_placeless(&self, id: Fid) -> bool {
        self.placeless.contains_key(&id)
    }

    /// Whether every side that does not have the folder under its name can have it.
    pub(crate) fn has_places(&self, folder: &Folder) -> bool {
        Side::BOTH.into_iter().all(|side| {
            let is_there = |held: &SideFolder| held.name == *folder.name();
            folder.on(side).is_some_and(is_there) || self.place(side, folder).is_ok()
        })
    }
}

/// What both sides agreed on has the name that the server's directory has, or ours if that has none. INBOX stays INBOX where
/// one side has laid it out anew or written it otherwise.
fn name_bases(all: &mut BTreeMap<Fid, Folder>, mapping: &Mapping) {
    let mut taken = HashSet::new();
    for folder in all.values_mut() {
        let Some(base) = &mut folder.base else {
            continue;
        };
        let [here, there] = &base.dirs;
        let mut names = [
            mapping.name(Side::Remote, there),
            mapping.name(Side::Local, here),
            mapping.only(Side::Remote, there.as_bytes()),
        ];
        names.sort_by_key(|name| !name.is_inbox());
        let mut free = names.into_iter().filter(|name| !taken.contains(name));
        base.name = free
            .next()
            .unwrap_or_else(|| mapping.only(Side::Local, here.as_bytes()));
        taken.insert(base.name.clone());
    }
}

fn name_held(all: &mut BTreeMap<Fid, Folder>, mapping: &Mapping, side: Side) {
    let mut taken = HashSet::new();
    for is_agreed in [true, false] {
        for folder in all.values_mut() {
            let held = match side {
                Side::Local => folder.local.as_mut(),
                Side::Remote => folder.remote.as_mut(),
            };
            let Some(held) = held else {
                continue;
            };
            let base = folder.base.as_ref();
            let base = base.filter(|base| base.dirs[side as usize] == held.dir);
            match (base, is_agreed) {
                (Some(base), true) => held.name = base.name.clone(),
                (None, false) => {
                    held.name = mapping.name(side, &held.dir);
                    if taken.contains(&held.name) {
                        held.name = mapping.only(side, held.dir.as_bytes());
                    }
                }
                _ => continue,
            }
            taken.insert(held.name.clone());
        }
    }
}
