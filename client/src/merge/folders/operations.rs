//! What is done to folders: which are to be made and removed, and what became of it.

use protocol::{Op, Outcome};

use super::Folders;
use crate::merge::folder::SideFolder;
use crate::merge::record::{Fid, Side};

impl Folders {
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
                let is_gone = folder.base.is_some() && folder.on(side.other()).is_none();
                is_gone && !folder.forgotten && !needed(*id)
            })
            .filter_map(|(id, folder)| {
                let SideFolder { number, dir, name } = folder.on(side)?.clone();
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
                    *folder.on_mut(side) = Some(SideFolder { number, dir, name });
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
}

fn depth(op: &Op) -> usize {
    match op {
        Op::MakeFolder { dir } | Op::RemoveFolder { dir, .. } => dir.depth(),
        Op::RenameFolder { to, .. } => to.depth(),
        Op::Create { .. } | Op::Update { .. } | Op::Retire { .. } => 0,
    }
}
