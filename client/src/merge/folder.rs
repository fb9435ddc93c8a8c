//! A folder as base and both sides know it. Plain data.

use protocol::FolderDir;
use serde::{Deserialize, Serialize};

use crate::merge::mapping::FolderName;
use crate::merge::record::Side;

/// A folder as base and both sides know it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Folder {
    /// What both sides agreed on.
    pub base: Option<FolderBase>,
    /// The folder as the local replica has it.
    pub local: Option<SideFolder>,
    /// As the remote one has it.
    pub remote: Option<SideFolder>,
    /// It is excluded, and nothing that was agreed on it counts any more.
    pub forgotten: bool,
}

/// A folder that both sides have: where it lies here and there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FolderBase {
    /// Its directories.
    pub dirs: [FolderDir; 2],
    /// Its name in this run.
    #[serde(skip)]
    pub name: FolderName,
}

/// A folder as one side has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SideFolder {
    /// The replica's own number of it.
    pub number: u32,
    /// Its directory there.
    pub dir: FolderDir,
    /// Its name in this run.
    #[serde(skip)]
    pub name: FolderName,
}

impl Folder {
    /// The folder as a side has it.
    #[must_use]
    pub fn on(&self, side: Side) -> Option<&SideFolder> {
        match side {
            Side::Local => self.local.as_ref(),
            Side::Remote => self.remote.as_ref(),
        }
    }

    pub(crate) fn on_mut(&mut self, side: Side) -> &mut Option<SideFolder> {
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
            (None, None, None) => unreachable!("a folder that neither side knows is not kept"),
        }
    }
}
