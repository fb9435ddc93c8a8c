//! What the letters `a`-`z` of a message mean where Dovecot names them, and how they are written in another folder.
//!
//! Pure. A *side* names letters if any of its folders has a file `dovecot-keywords`; then letters are translated by these
//! names whenever a message comes into another folder of that side. The letters of a side that names none mean what the
//! other side calls them.
//!
//! Records compare flags in *common letters*: the server's, for the folder in which the message is. The letters of the
//! files here are other ones only where both sides name them ([`Letters::common`], [`Letters::own`]); a keyword that
//! only one side has in a folder is that side's alone. `docs/state.md` says why.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Flags, FolderChange, Keywords};
use serde::{Deserialize, Serialize};

use crate::merge::folders::Folders;
use crate::merge::record::{Fid, Seen, Side};

/// What the letters of each side's folders are called.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Letters {
    /// By the side's own number of the folder.
    named: [BTreeMap<u32, Keywords>; 2],
    /// Which of these a folder has on each side, or last had: a message may come from one that is no more.
    of: [BTreeMap<Fid, u32>; 2],
    /// The numbers of those that were reported to be called otherwise.
    #[serde(skip)]
    reported: [BTreeSet<u32>; 2],
}

impl Letters {
    /// Takes in what a side reported of its folders.
    pub fn learn(&mut self, side: Side, changes: &[FolderChange]) {
        let named = &mut self.named[side as usize];
        for change in changes.iter().filter(|change| !change.gone) {
            let before = match &change.keywords {
                Some(keywords) => named.insert(change.id, keywords.clone()),
                None => named.remove(&change.id),
            };
            if before != change.keywords {
                self.reported[side as usize].insert(change.id);
            }
        }
    }

    /// Forgets what a side reported, because its numbers begin anew.
    pub fn forget(&mut self, side: Side) {
        self.named[side as usize].clear();
        self.of[side as usize].clear();
    }

    /// Takes in which folder is which.
    pub fn place(&mut self, folders: &Folders) {
        for side in Side::BOTH {
            if !self.names(side) {
                continue;
            }
            let (named, of) = (&self.named[side as usize], &mut self.of[side as usize]);
            for (id, folder) in folders.iter() {
                match folder.on(side).map(|held| held.number) {
                    Some(number) if named.contains_key(&number) => drop(of.insert(id, number)),
                    Some(_) => drop(of.remove(&id)),
                    None => {}
                }
            }
        }
    }

    /// Forgets the names of folders that are no more.
    pub fn prune(&mut self, folders: &Folders) {
        for side in Side::BOTH {
            let of = &mut self.of[side as usize];
            of.retain(|id, _| folders.get(*id).is_some());
            let numbers: BTreeSet<u32> = of.values().copied().collect();
            self.named[side as usize].retain(|number, _| numbers.contains(number));
        }
    }

    /// What the next run shall know of it.
    #[must_use]
    pub fn stored(&self) -> Letters {
        Letters {
            reported: Default::default(),
            ..self.clone()
        }
    }

    /// The folders whose letters were reported to be called otherwise.
    #[must_use]
    pub fn changed(&self, folders: &Folders) -> Vec<Fid> {
        let is_told = |side: Side, id: Fid| {
            let on = folders.get(id).and_then(|folder| folder.on(side));
            on.is_some_and(|held| self.reported[side as usize].contains(&held.number))
        };
        let all = folders.iter().map(|(id, _)| id);
        all.filter(|id| Side::BOTH.into_iter().any(|side| is_told(side, *id)))
            .collect()
    }

    /// Whether neither side names letters: then they travel as they are.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !Side::BOTH.into_iter().any(|side| self.names(side))
    }

    fn names(&self, side: Side) -> bool {
        !self.named[side as usize].is_empty()
    }

    fn keywords(&self, side: Side, folder: Fid) -> Option<&Keywords> {
        let number = self.of[side as usize].get(&folder)?;
        self.named[side as usize].get(number)
    }

    /// A side's letters in one folder, written as in another: by the side's own names, else by the other one's.
    #[must_use]
    pub fn carry(&self, side: Side, letters: Flags, from: Fid, to: Fid) -> Flags {
        if from == to || letters.keywords().is_empty() || self.is_plain() {
            return letters;
        }
        let by = if self.names(side) { side } else { side.other() };
        Keywords::translate(self.keywords(by, from), self.keywords(by, to), letters)
    }

    /// The letters in one folder for which another has none.
    #[must_use]
    pub fn without(&self, letters: Flags, from: Fid, to: Fid) -> Flags {
        if from == to || letters.keywords().is_empty() || self.is_plain() {
            return Flags::EMPTY;
        }
        let own = letters.keywords().letters().into_iter();
        let without = own.filter(|letter| {
            let letter = Flags::from_letters(&[*letter]);
            self.carry(Side::Remote, letter, from, to).is_empty()
        });
        Flags::from_letters(&without.collect::<Vec<u8>>())
    }

    /// Whether the letters of a side's files are compared by their names.
    fn differ(&self, side: Side) -> bool {
        side == Side::Local && self.names(Side::Local) && self.names(Side::Remote)
    }

    /// A side's letters in a folder as common ones; without those that only this side has.
    #[must_use]
    pub fn common(&self, side: Side, folder: Fid, own: Flags) -> Flags {
        if !self.differ(side) {
            return own;
        }
        let [here, there] = Side::BOTH.map(|side| self.keywords(side, folder));
        Keywords::translate(here, there, own)
    }

    /// What a file bears on a side for common letters, with those of `bears` that only this side has.
    #[must_use]
    pub fn own(&self, side: Side, folder: Fid, common: Flags, bears: Flags) -> Flags {
        if !self.differ(side) {
            return common;
        }
        let [here, there] = Side::BOTH.map(|side| self.keywords(side, folder));
        let alone = bears.keywords().letters().into_iter().filter(|letter| {
            let letter = Flags::from_letters(&[*letter]);
            Keywords::translate(here, there, letter).is_empty()
        });
        let alone: Vec<u8> = alone.collect();
        Keywords::translate(there, here, common).union(Flags::from_letters(&alone))
    }

    /// The common letters that a side has no letter for: it neither sets nor clears them.
    #[must_use]
    pub fn foreign(&self, side: Side, folder: Fid) -> Flags {
        if !self.differ(side) {
            return Flags::EMPTY;
        }
        let [here, there] = Side::BOTH.map(|side| self.keywords(side, folder));
        let foreign = Flags::KEYWORDS.letters().into_iter().filter(|letter| {
            let letter = Flags::from_letters(&[*letter]);
            Keywords::translate(there, here, letter).is_empty()
        });
        let foreign: Vec<u8> = foreign.collect();
        Flags::from_letters(&foreign)
    }

    /// A message that was not known before on its side.
    #[must_use]
    pub fn first(&self, side: Side, seen: Seen) -> Seen {
        let bears = seen.entry.flags();
        Seen {
            flags: self.common(side, seen.place.folder, bears),
            owed: bears,
            ..seen
        }
    }

    /// A message that was known as `old` on its side, and is seen now, there or elsewhere. What changed of its letters is
    /// what its file bears otherwise than before.
    #[must_use]
    pub fn next(&self, side: Side, old: &Seen, seen: Seen) -> Seen {
        let bears = seen.entry.flags();
        let (from, to) = (old.place.folder, seen.place.folder);
        let changed = old.entry.flags().difference(bears);
        if from != to && self.names(side) && !changed.keywords().is_empty() {
            // Moved by a program that knows that letters differ: they are written for this folder already.
            let foreign = old.flags.intersection(self.foreign(side, from)).keywords();
            let kept = self.carry(Side::Remote, foreign, from, to);
            let kept = kept.intersection(self.foreign(side, to));
            let first = self.first(side, seen);
            return Seen {
                flags: first.flags.union(kept),
                ..first
            };
        }
        // The very letters that it bore, or of a side that has no names of its own: they mean what they meant before.
        let owed = old.owed.with(changed, bears);
        let mask = self.common(side, from, changed);
        let flags = old.flags.with(mask, self.common(side, from, bears));
        let flags = self.carry(Side::Remote, flags, from, to);
        let owed = self.own(side, to, flags, self.carry(side, owed, from, to));
        Seen {
            flags,
            owed,
            ..seen
        }
    }

    /// A message that was copied from `source` on its side by a program that does not know that letters differ.
    #[must_use]
    pub fn copied(&self, side: Side, source: &Seen, seen: &Seen) -> Seen {
        let (from, to) = (source.place.folder, seen.place.folder);
        let meant = self.carry(side, source.owed.keywords(), from, to);
        let flags = self.carry(Side::Remote, source.flags.keywords(), from, to);
        let flags = seen.flags.with(Flags::KEYWORDS, flags);
        let owed = seen.owed.with(Flags::KEYWORDS, meant);
        Seen {
            flags,
            owed: self.own(side, to, flags, owed),
            ..seen.clone()
        }
    }

    /// A message here that turns out to be one of the server's in another folder: with the very letters that it bears
    /// there, it was moved here by a program that does not know that letters differ.
    #[must_use]
    pub fn parted(&self, here: &Seen, there: &Seen) -> Seen {
        let is_same = here.entry.flags().keywords() == there.entry.flags().keywords();
        if here.place.folder == there.place.folder || !is_same || self.names(Side::Local) {
            return here.clone();
        }
        self.copied(Side::Local, there, here)
    }

    /// A message whose directory is called otherwise on its side, so that it belongs to another folder. It is where it was:
    /// its letters are carried only if it is the other side that has names for them.
    #[must_use]
    pub fn reassigned(&self, side: Side, seen: &Seen, to: Fid) -> Seen {
        let from = seen.place.folder;
        let mut seen = seen.clone();
        seen.place.folder = to;
        if !self.names(side) {
            seen.owed = self.carry(side, seen.owed, from, to);
            seen.flags = self.carry(Side::Remote, seen.flags, from, to);
        }
        seen
    }

    /// What is known of a message here after letters came to be called otherwise: what both sides have a letter for now is
    /// set wherever it was set on either.
    #[must_use]
    pub fn again(&self, side: Side, seen: &Seen) -> Seen {
        if !self.differ(side) {
            return Seen {
                owed: seen.flags,
                ..seen.clone()
            };
        }
        let folder = seen.place.folder;
        let flags = seen.flags.union(self.common(side, folder, seen.owed));
        Seen {
            flags,
            owed: self.own(side, folder, flags, seen.owed),
            ..seen.clone()
        }
    }
}

#[cfg(test)]
#[path = "letters_tests.rs"]
mod tests;
