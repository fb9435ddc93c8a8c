//! Bringing the archive's records up to what both sides told: the working set of a run.
//!
//! Only records that something happened to are in it, and all that were pending. First comes what was asked and never
//! answered, then each side's changes, then [`crate::merge::pair`] finds out who moved where.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::entry::Change;
use protocol::{Digest, Entry, Flags};

use crate::archive::{Archive, ArchiveError, Asked, SEQ_UNKNOWN, Stored};
use crate::merge::letters::Letters;
use crate::merge::record::{Base, Fid, Place, Record, Seen, Side, State, Taken};

mod lettered;

type Result<T> = std::result::Result<T, ArchiveError>;

/// One record of a run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Work {
    /// The message.
    pub record: Record,
    /// Where it is stored.
    pub stored: Stored,
    /// What each side held when it lost the message in this run.
    pub lost: [Option<Box<Seen>>; 2],
    /// Whether each side lost it without anybody having deleted it.
    pub is_undeleted: [bool; 2],
    /// Whether something was changed that is not stored yet.
    pub is_dirty: bool,
}

/// What is gone from a place of a side.
struct Gone {
    digest: Digest,
    /// The number at which it went.
    seq: u64,
    /// Nobody is known to have deleted it.
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
    pub loose: [Vec<Seen>; 2],
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

impl WorkSet {
    /// Begins with everything that is pending, and with what was asked and never answered.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn load(archive: &Archive) -> Result<WorkSet> {
        let mut set = WorkSet {
            taken: archive.get("taken")?.unwrap_or_default(),
            letters: archive.get("letters")?.unwrap_or_default(),
            ..WorkSet::default()
        };
        for (id, record) in archive.pending()? {
            set.add(Work {
                record,
                stored: Stored::Pending(id),
                ..Work::default()
            });
        }
        for (_, lines) in archive.asked()? {
            for asked in lines {
                let index = set.find_asked(archive, &asked)?;
                set.asked.push((index, asked));
            }
        }
        Ok(set)
    }

    /// The record that something was asked for; made anew where it was stored nowhere.
    fn find_asked(&mut self, archive: &Archive, asked: &Asked) -> Result<usize> {
        let known = match &asked.stored {
            Stored::Pending(_) => self.all.iter().position(|work| work.stored == asked.stored),
            Stored::Agreed(place) => self.claim(archive, Side::Local, place)?,
            Stored::Nowhere => None,
        };
        let source = asked
            .record
            .seen(asked.side.other())
            .map(|seen| seen.place.clone());
        let known = match (known, source) {
            (None, Some(place)) => self.claim(archive, asked.side.other(), &place)?,
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
    pub fn claim(&mut self, archive: &Archive, side: Side, place: &Place) -> Result<Option<usize>> {
        if let Some(index) = self.at[side as usize].get(place) {
            return Ok(Some(*index));
        }
        // It may be here already, moved away from this place on this side.
        if self.claimed.contains(place) {
            return Ok(None);
        }
        let Some(record) = archive.agreed_at(place)? else {
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

    /// Puts a message into a record, on one side. Whoever was at its place is there no more: returned, because that side
    /// has yet to tell where it went.
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

    /// Takes in that the messages which a side has in some folders belong to others, all at once.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn rehome(
        &mut self,
        archive: &Archive,
        side: Side,
        homes: &BTreeMap<Fid, Fid>,
    ) -> Result<()> {
        for from in homes.keys() {
            for record in archive.agreed_in(*from)? {
                if let Some(seen) = record.seen(side) {
                    self.claim(archive, side, &seen.place)?;
                }
            }
        }
        let letters = self.letters.clone();
        // Its directory is what it was: the letters are carried only where the other side's names are theirs.
        let rehome = |seen: &mut Seen| {
            if let Some(to) = homes.get(&seen.place.folder) {
                *seen = letters.rehomed(side, seen, *to);
            }
        };
        for seen in &mut self.loose[side as usize] {
            rehome(seen);
        }
        for seen in self
            .all
            .iter_mut()
            .filter_map(|work| work.lost[side as usize].as_mut())
        {
            rehome(seen);
        }
        let mut moved = Vec::new();
        for index in 0..self.all.len() {
            let seen = self.all[index].record.seen(side);
            if seen.is_some_and(|seen| homes.contains_key(&seen.place.folder)) {
                moved.extend(self.unlink(index, side).map(|seen| (index, seen)));
            }
        }
        for (index, mut seen) in moved {
            rehome(&mut seen);
            self.link(index, side, seen);
        }
        Ok(())
    }

    /// Takes in one change of a side; `is_new_life` says that the side's numbers mean nothing to the archive.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn fold(
        &mut self,
        archive: &Archive,
        side: Side,
        folder: Fid,
        change: &Change,
        is_new_life: bool,
    ) -> Result<()> {
        let place = Place {
            folder,
            unique: change.unique.clone(),
            copy: change.copy,
        };
        if self.is_no_news(archive, side, &place, change)? {
            return Ok(());
        }
        let known = self.claim(archive, side, &place)?;
        if change.gone {
            let gone = Gone {
                digest: change.entry.digest,
                seq: change.seq,
                lost: change.lost,
            };
            self.tombstones[side as usize].insert(place, gone);
            if let Some(index) = known {
                let is_edited = !self.is_reborn(index, side, change, is_new_life);
                self.lose(index, side);
                let work = &mut self.all[index];
                work.is_undeleted[side as usize] = change.lost;
                // Edited before it went, as another archive may have met it: it went with those bytes (C81).
                if let Some(lost) = &mut work.lost[side as usize]
                    && is_edited
                    && !change.entry.damaged
                {
                    lost.entry.digest = change.entry.digest;
                }
            }
            return Ok(());
        }
        let seen = Seen::new(place, change.entry.clone(), change.seq);
        let seen = self.letters.first(side, seen);
        match known {
            Some(index) if !self.is_reborn(index, side, change, is_new_life) => {
                let old = self.unlink(index, side);
                let touched = old.as_ref().is_some_and(|old| old.touched);
                let seen = match &old {
                    Some(old) => self.letters.next(side, old, seen),
                    None => seen,
                };
                // Other bytes: an edit, or another message that took the name. Pairing finds out.
                if let Some(old) = old.filter(|old| old.entry.digest != seen.entry.digest) {
                    self.all[index].lost[side as usize].get_or_insert_with(|| Box::new(old));
                }
                self.link(index, side, Seen { touched, ..seen });
            }
            Some(index) => {
                self.lose(index, side);
                self.all[index].is_undeleted[side as usize] = change.lost;
                self.loose[side as usize].push(seen);
            }
            None => self.loose[side as usize].push(seen),
        }
        Ok(())
    }

    /// Whether a change is one that is agreed already: then nobody needs to think of the message.
    fn is_no_news(
        &self,
        archive: &Archive,
        side: Side,
        place: &Place,
        change: &Change,
    ) -> Result<bool> {
        if change.gone || self.at(side, place).is_some() || self.claimed.contains(place) {
            return Ok(false);
        }
        let record = archive.agreed_at(place)?;
        let seen = record.as_ref().and_then(|record| record.seen(side));
        Ok(seen.is_some_and(|seen| seen.seq == change.seq))
    }

    /// A place that changed while a list was read was told more than once: of new messages only the last counts.
    pub fn keep_last(&mut self, side: Side) {
        let (loose, gone) = (
            &mut self.loose[side as usize],
            &self.tombstones[side as usize],
        );
        let mut later = HashSet::with_capacity(loose.len());
        let is_last = |seen: &Seen| {
            let went = gone
                .get(&seen.place)
                .is_some_and(|gone| gone.seq > seen.seq);
            !went && later.insert(seen.place.clone())
        };
        let mut kept: Vec<bool> = loose.iter().rev().map(is_last).collect();
        loose.retain(|_| kept.pop().unwrap_or(true));
    }

    /// Whether the place was emptied and filled again since the record was last seen there.
    fn is_reborn(&self, index: usize, side: Side, change: &Change, is_new_life: bool) -> bool {
        let seq = self.all[index].record.seen(side).map_or(0, |seen| seen.seq);
        !is_new_life && seq != SEQ_UNKNOWN && change.born > seq
    }

    fn lose(&mut self, index: usize, side: Side) {
        if let Some(seen) = self.unlink(index, side) {
            self.all[index].lost[side as usize] = Some(Box::new(seen));
        }
    }

    /// Takes in that a side's list of a folder was complete: what it did not name is gone.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn lose_unlisted(
        &mut self,
        archive: &Archive,
        side: Side,
        folder: Fid,
        listed: &HashSet<Place>,
    ) -> Result<()> {
        for record in archive.agreed_in(folder)? {
            if let Some(place) = record.seen(side).map(|seen| seen.place.clone())
                && !listed.contains(&place)
            {
                self.claim(archive, side, &place)?;
            }
        }
        for index in 0..self.all.len() {
            let is_unlisted = self.all[index]
                .record
                .seen(side)
                .is_some_and(|seen| seen.place.folder == folder && !listed.contains(&seen.place));
            if is_unlisted {
                self.lose(index, side);
            }
        }
        Ok(())
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
        if work.record.seen(side).is_none() && confirmed.place == target.place {
            work.lost[side as usize] = made.map(Box::new);
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
            ..Seen::new(target.place.clone(), entry, 0)
        })
    }

    /// Finds a message where it was asked to be.
    fn link_arrived(&mut self, index: usize, side: Side, target: &State, made: Option<&Seen>) {
        if self.all[index].record.seen(side).is_some() {
            return;
        }
        let loose = &mut self.loose[side as usize];
        let arrived = loose
            .iter()
            .position(|seen| seen.place == target.place && seen.entry.digest == target.digest);
        if let Some(at) = arrived {
            let seen = loose.swap_remove(at);
            let seen = match made {
                Some(made) => self.letters.next(side, made, seen),
                None => seen,
            };
            self.link(index, side, seen);
            // It went from where it was to here, and nowhere else.
            self.all[index].lost[side as usize] = None;
        }
    }

    /// Lets what a side lost without anybody having deleted it come back from the other: base ends, as if that side had never
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

    /// Marks what only one side has left, and has in a folder that it renamed and the other one removed: a change of place
    /// beats deletion. Noted in the record, because the folder's new name may be agreed on before the message is.
    pub fn touch_renamed(&mut self, is_renamed: &dyn Fn(Side, Fid) -> bool) {
        for work in &mut self.all {
            let is_left = work.record.base.is_some() && work.record.is_single();
            for side in Side::BOTH.into_iter().filter(|_| is_left) {
                if let Some(seen) = work.record.seen_mut(side)
                    && !seen.touched
                    && is_renamed(side, seen.place.folder)
                {
                    (seen.touched, work.is_dirty) = (true, true);
                }
            }
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

    /// Calls what no record claimed a new message.
    pub fn add_loose(&mut self) {
        for side in Side::BOTH {
            for seen in std::mem::take(&mut self.loose[side as usize]) {
                let mut work = Work {
                    is_dirty: true,
                    ..Work::default()
                };
                *work.record.seen_mut(side) = Some(seen);
                self.add(work);
            }
        }
    }

    /// Stores what changed.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn store(&mut self, archive: &Archive, index: usize) -> Result<()> {
        let work = &mut self.all[index];
        work.record.agree(&self.letters);
        // Its old row may have been overwritten by the message that took its place.
        if matches!(&work.stored, Stored::Agreed(old) if self.owners.get(old) != Some(&index)) {
            work.stored = Stored::Nowhere;
        }
        work.stored = archive.put(&work.stored, &work.record)?;
        if let Stored::Agreed(place) = &work.stored {
            self.owners.insert(place.clone(), index);
        }
        work.is_dirty = false;
        Ok(())
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
