//! The working set of a run: the records to which something happened, and all that were pending.
//!
//! It begins with what was pending, and with what was asked and never answered ([`asked`]). Then each side's changes come in
//! ([`taken_in`]). What no record claims is *unmatched* until [`mod@crate::merge::pair`] finds out who moved where.

use std::collections::{HashMap, HashSet};

use protocol::Digest;

use crate::merge::agreed::{Agreed, Asked, Stored};
use crate::merge::filter::{Filter, Scope};
use crate::merge::folders::Folders;
use crate::merge::letters::Letters;
use crate::merge::record::{Fid, Place, Record, Seen, Side, Taken};

mod asked;
mod lettered;
mod taken_in;

/// One record of a run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Work {
    /// The message.
    pub record: Record,
    /// Where it is stored.
    pub stored: Stored,
    /// What each side held when it lost the message in this run.
    pub lost: [Option<Box<Seen>>; 2],
    /// Whether each side lost it though it was not deleted.
    pub is_undeleted: [bool; 2],
    /// Whether something was changed that is not stored yet.
    pub is_dirty: bool,
}

/// What is gone from a place of a side.
struct Gone {
    digest: Digest,
    /// The number at which it went.
    seq: u64,
    /// It is not known to have been deleted.
    lost: bool,
}

/// All records of a run.
#[derive(Default)]
pub struct WorkSet {
    /// The records; some may be empty.
    pub all: Vec<Work>,
    /// Who is at a place of a side.
    at: [HashMap<Place, usize>; 2],
    /// New messages of each side that no record claims yet.
    pub unmatched: [Vec<Seen>; 2],
    /// What their letters mean.
    pub letters: Letters,
    /// Names that the last run found taken.
    pub taken: HashSet<Taken>,
    /// What is gone from a place.
    tombstones: [HashMap<Place, Gone>; 2],
    asked: Vec<(usize, Asked)>,
    /// Messages that a side was asked to make and that may never have come there.
    unsure: Vec<(usize, Side)>,
    /// Where the agreed records of the set are stored.
    claimed: HashSet<Place>,
    /// Whose row stands in the archive under a place.
    owners: HashMap<Place, usize>,
}

impl Work {
    /// A message that nothing is known of but that a side has it.
    #[must_use]
    pub fn of(side: Side, seen: Seen) -> Work {
        let mut work = Work {
            is_dirty: true,
            ..Work::default()
        };
        *work.record.seen_mut(side) = Some(seen);
        work
    }
}

impl WorkSet {
    /// Adds a record; returns its index.
    pub fn add(&mut self, work: Work) -> usize {
        let index = self.all.len();
        for side in Side::BOTH {
            if let Some(seen) = work.record.seen(side) {
                self.at[side as usize].insert(seen.place.clone(), index);
            }
        }
        self.all.push(work);
        index
    }

    /// The record at a place of a side; taken out of the archive where it is agreed.
    pub fn claim<A: Agreed>(
        &mut self,
        agreed: &A,
        side: Side,
        place: &Place,
    ) -> Result<Option<usize>, A::Error> {
        if let Some(index) = self.at[side as usize].get(place) {
            return Ok(Some(*index));
        }
        // It may be here already, moved away from this place on this side.
        if self.claimed.contains(place) {
            return Ok(None);
        }
        let Some(record) = agreed.at(place)? else {
            return Ok(None);
        };
        self.claimed.insert(place.clone());
        let stored = Stored::Agreed(place.clone());
        let index = self.add(Work {
            record,
            stored,
            ..Work::default()
        });
        self.owners.insert(place.clone(), index);
        Ok(Some(index))
    }

    /// The record of the set that a side has at a place.
    #[must_use]
    pub fn at(&self, side: Side, place: &Place) -> Option<usize> {
        self.at[side as usize].get(place).copied()
    }

    /// Whether the agreed record of a place has been taken out of the archive into the set.
    #[must_use]
    pub fn is_claimed(&self, place: &Place) -> bool {
        self.claimed.contains(place)
    }

    /// Puts a message into a record, on one side. The record that was at its place is there no more. It is returned, because that side
    /// has yet to report where it went.
    pub fn link(&mut self, index: usize, side: Side, seen: Seen) -> Option<usize> {
        self.unlink(index, side);
        let displaced = self.at[side as usize].get(&seen.place).copied();
        if let Some(displaced) = displaced {
            self.lose(displaced, side);
        }
        self.at[side as usize].insert(seen.place.clone(), index);
        let work = &mut self.all[index];
        *work.record.seen_mut(side) = Some(seen);
        work.is_dirty = true;
        displaced
    }

    /// Takes a message out of a record, on one side, and returns it.
    pub fn unlink(&mut self, index: usize, side: Side) -> Option<Seen> {
        let work = &mut self.all[index];
        let seen = work.record.seen_mut(side).take()?;
        work.is_dirty = true;
        if self.at[side as usize].get(&seen.place) == Some(&index) {
            self.at[side as usize].remove(&seen.place);
        }
        Some(seen)
    }

    fn lose(&mut self, index: usize, side: Side) {
        if let Some(seen) = self.unlink(index, side) {
            self.all[index].lost[side as usize] = Some(Box::new(seen));
        }
    }

    /// Takes what a side has under a message's name for another message.
    pub fn part(&mut self, index: usize, side: Side) {
        if let Some(Seen {
            place, entry, seq, ..
        }) = self.unlink(index, side)
        {
            let seen = self.letters.first(side, Seen::new(place, entry, seq));
            self.unmatched[side as usize].push(seen);
        }
    }

    /// Marks a side's bytes as damaged: they are no edit.
    pub fn mark_damaged(&mut self, index: usize, side: Side) {
        let work = &mut self.all[index];
        if let Some(seen) = work.record.seen_mut(side) {
            seen.entry.damaged = true;
        }
        work.is_dirty = true;
    }

    /// Takes in that a copy's bytes cannot be made into its original's.
    pub fn not_remade(&mut self, index: usize) {
        let work = &mut self.all[index];
        work.is_dirty = true;
        if let Some(copy) = &mut work.record.copy {
            copy.form = None;
        }
    }

    /// Lets go of a message on both sides.
    pub fn forget(&mut self, index: usize) {
        for side in Side::BOTH {
            self.unlink(index, side);
        }
        let work = &mut self.all[index];
        (work.record.base, work.is_dirty) = (None, true);
        work.lost = [None, None];
    }

    /// How many messages a side has that the other one has not, or has lost. What it was asked to make is both sides'.
    #[must_use]
    pub fn count_single(&self, side: Side) -> usize {
        let asked = self.asked.iter().filter(|(_, asked)| asked.side == side);
        let targets = asked.filter_map(|(_, asked)| asked.target.as_ref());
        let asked: HashSet<(&Place, &Digest)> = targets
            .map(|target| (&target.place, &target.digest))
            .collect();
        let unmatched = self.unmatched[side as usize].iter();
        let unmatched =
            unmatched.filter(|seen| !asked.contains(&(&seen.place, &seen.entry.digest)));
        let is_alone = |work: &&Work| {
            work.record.seen(side).is_some() && work.record.seen(side.other()).is_none()
        };
        unmatched.count()
            + self.tombstones[side as usize].len()
            + self.all.iter().filter(is_alone).count()
    }

    /// Calls what no record claimed a new message.
    pub fn add_unmatched(&mut self) {
        for side in Side::BOTH {
            for seen in std::mem::take(&mut self.unmatched[side as usize]) {
                self.add(Work::of(side, seen));
            }
        }
    }

    /// Lets go of messages that lie in folders only that are left alone.
    pub fn drop_excluded(&mut self, folders: &Folders, filter: &Filter) {
        if filter.is_everything() && folders.placeless().next().is_none() {
            return;
        }
        let is_out = |folder: Fid| {
            let scope = folders.scope(filter, folder);
            matches!(scope, Scope::Excluded | Scope::Placeless)
        };
        for unmatched in &mut self.unmatched {
            unmatched.retain(|seen| !is_out(seen.place.folder));
        }
        for index in 0..self.all.len() {
            let record = &self.all[index].record;
            let all_out = record.folders().all(is_out);
            if all_out && (record.base.is_some() || !record.is_empty()) {
                self.forget(index);
            }
        }
    }

    /// Brings base up to what is seen, and says where the record was stored until now.
    pub fn settle(&mut self, index: usize) -> (&Stored, &Record) {
        let work = &mut self.all[index];
        work.record.agree(&self.letters);
        // Its old row may have been overwritten by the message that took its place.
        if matches!(&work.stored, Stored::Agreed(old) if self.owners.get(old) != Some(&index)) {
            work.stored = Stored::Nowhere;
        }
        (&work.stored, &work.record)
    }

    /// Takes in that a record was stored, and where.
    pub fn stored(&mut self, index: usize, stored: Stored) {
        if let Stored::Agreed(place) = &stored {
            self.owners.insert(place.clone(), index);
        }
        let work = &mut self.all[index];
        (work.stored, work.is_dirty) = (stored, false);
    }
}
