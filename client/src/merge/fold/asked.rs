//! What was asked and never answered: of each message is found out whether it happened (I4).

use protocol::{Entry, Flags};

use super::{Work, WorkSet};
use crate::merge::agreed::{Agreed, Asked, Stored};
use crate::merge::letters::Letters;
use crate::merge::record::{Base, Seen, Seq, Side, State};

impl WorkSet {
    /// Begins with what was asked and never answered.
    ///
    /// # Errors
    /// When what is agreed cannot be read.
    pub fn add_asked<A: Agreed>(&mut self, agreed: &A, asked: Asked) -> Result<(), A::Error> {
        let index = self.find_asked(agreed, &asked)?;
        self.asked.push((index, asked));
        Ok(())
    }

    /// The record that something was asked for; made anew where it was stored nowhere.
    fn find_asked<A: Agreed>(&mut self, agreed: &A, asked: &Asked) -> Result<usize, A::Error> {
        let known = match &asked.stored {
            Stored::Pending(_) => self.all.iter().position(|work| work.stored == asked.stored),
            Stored::Agreed(place) => self.claim(agreed, Side::Local, place)?,
            Stored::Nowhere => None,
        };
        let source = asked
            .record
            .seen(asked.side.other())
            .map(|seen| seen.place.clone());
        let known = match (known, source) {
            (None, Some(place)) => self.claim(agreed, asked.side.other(), &place)?,
            (known, _) => known,
        };
        Ok(match known {
            Some(index) => index,
            None => self.add(Work {
                record: asked.record.clone(),
                is_dirty: true,
                ..Work::default()
            }),
        })
    }

    /// Finds out of everything asked and never answered whether it happened: what stands there as asked is agreed (I4).
    ///
    /// Runs after both sides' changes are in.
    pub fn confirm_asked(&mut self) {
        for (index, asked) in std::mem::take(&mut self.asked) {
            match &asked.target {
                None => self.confirm_gone(index, asked.side),
                Some(target) => self.confirm_there(index, &asked, target),
            }
        }
    }

    fn confirm_gone(&mut self, index: usize, side: Side) {
        let work = &mut self.all[index];
        if work.record.seen(side).is_none() {
            // Both sides were without it; what is there now came since.
            work.record.base = None;
            work.lost[side as usize] = None;
            work.is_dirty = true;
        }
    }

    fn confirm_there(&mut self, index: usize, asked: &Asked, target: &State) {
        let side = asked.side;
        let before = asked.record.seen(side).map(Seen::state);
        let made = self.as_asked(asked, target);
        self.link_arrived(index, side, target, made.as_ref());
        let tombstone = self.tombstones[side as usize].get(&target.place);
        let tombstone = tombstone.filter(|gone| gone.digest == target.digest);
        let work = &mut self.all[index];
        work.is_dirty = true;
        let size = asked
            .record
            .seen(side.other())
            .map_or(0, |seen| seen.entry.size);
        let confirmed = match (work.record.seen(side), tombstone) {
            (Some(seen), _) => seen.state(),
            // It arrived and went again: the user took it away, or moved it on.
            (None, Some(gone)) => {
                if gone.lost && before.is_none() {
                    self.unsure.push((index, side));
                }
                target.clone()
            }
            (None, None) => return,
        };
        let base = &mut work.record.base;
        match (&before, base) {
            (None, base) => *base = Some(base_of(target, size)),
            (Some(before), Some(base)) => {
                let states = [before, target, &confirmed];
                confirm_fields(base, states, size, &self.letters);
            }
            (Some(_), None) => {}
        }
        let is_as_asked = confirmed.place == target.place && confirmed.digest == target.digest;
        match work.record.seen(side) {
            None => work.lost[side as usize] = made.map(Box::new),
            // These bytes are what was asked for, and no other message's.
            Some(_) if is_as_asked => work.lost[side as usize] = None,
            Some(_) => {}
        }
    }

    /// A message as it was asked to be, with the letters that its file got.
    fn as_asked(&self, asked: &Asked, target: &State) -> Option<Seen> {
        let (side, to) = (asked.side, target.place.folder);
        let before = asked.record.seen(side);
        let source = before.or(asked.record.seen(side.other()))?;
        let kept = before.map_or(Flags::EMPTY, |seen| {
            (self.letters).carry(side, seen.owed, seen.place.folder, to)
        });
        let bears = self.letters.own(side, to, target.flags, kept);
        let entry = Entry {
            in_new: target.in_new,
            info: source.entry.info.with_flags(bears),
            digest: target.digest,
            ..source.entry.clone()
        };
        Some(Seen {
            flags: target.flags,
            ..Seen::new(target.place.clone(), entry, Seq::Known(0))
        })
    }

    /// Finds a message where it was asked to be; then other bytes at its old place are another message.
    fn link_arrived(&mut self, index: usize, side: Side, target: &State, made: Option<&Seen>) {
        let work = &self.all[index];
        if work.record.seen(side).is_some() && work.lost[side as usize].is_none() {
            return;
        }
        let unmatched = &mut self.unmatched[side as usize];
        let arrived = unmatched
            .iter()
            .position(|seen| seen.place == target.place && seen.entry.digest == target.digest);
        if let Some(at) = arrived {
            let seen = unmatched.swap_remove(at);
            self.part(index, side);
            let seen = match made {
                Some(made) => self.letters.next(side, made, seen),
                None => seen,
            };
            self.link(index, side, seen);
            // It went from where it was to here, and nowhere else.
            self.all[index].lost[side as usize] = None;
        }
    }

    /// Lets what a side lost though it was not deleted come back from the other: base ends, as if that side had never
    /// had it. Returns how many messages that are. Comes after it is known what moved.
    pub fn bring_back(&mut self) -> usize {
        for (index, side) in std::mem::take(&mut self.unsure) {
            let work = &mut self.all[index];
            if work.record.seen(side).is_none() {
                (work.record.base, work.lost[side as usize]) = (None, None);
            }
        }
        let mut count = 0;
        for work in &mut self.all {
            for side in Side::BOTH {
                let is_lost = work.is_undeleted[side as usize] && work.record.seen(side).is_none();
                if is_lost && work.record.base.take().is_some() {
                    (work.lost[side as usize], work.is_dirty) = (None, true);
                    count += usize::from(work.record.seen(side.other()).is_some());
                }
            }
        }
        count
    }
}

/// A message that was to be made: all of it was asked.
fn base_of(target: &State, size: u64) -> Base {
    Base {
        place: Some(target.place.clone()),
        in_new: Some(target.in_new),
        flags: target.flags,
        open: Flags::EMPTY,
        digest: target.digest,
        size,
    }
}

/// What was asked, changed something, and shows now, is what both sides held: base takes it, field by field.
fn confirm_fields(
    base: &mut Base,
    [before, target, now]: [&State; 3],
    size: u64,
    letters: &Letters,
) {
    let folder_of = |base: &Base| base.place.as_ref().unwrap_or(&target.place).folder;
    let from = folder_of(base);
    if before.place != target.place && now.place == target.place {
        base.place = Some(target.place.clone());
    }
    if before.in_new != target.in_new && now.in_new == target.in_new {
        base.in_new = Some(target.in_new);
    }
    let to = folder_of(base);
    base.carry(from, to, letters);
    let carry = |state: &State| letters.carry(Side::Remote, state.flags, state.place.folder, to);
    let (was, wanted, shows) = (carry(before), carry(target), carry(now));
    let asked = was.difference(wanted);
    let shown = Flags::ALL.difference(shows.difference(wanted));
    let confirmed = asked.intersection(shown);
    base.flags = base.flags.with(confirmed, wanted);
    base.open = base.open.with(confirmed, Flags::EMPTY);
    if before.digest != target.digest && now.digest == target.digest {
        (base.digest, base.size) = (target.digest, size);
    }
}
