//! Taking in what a side reports: changes, complete lists, and folders that came to be others.

use std::collections::{BTreeMap, HashSet};

use protocol::entry::Change;

use super::{Gone, WorkSet};
use crate::merge::agreed::Agreed;
use crate::merge::record::{Fid, Place, Seen, Seq, Side};

impl WorkSet {
    /// Takes in one change of a side.
    ///
    /// # Errors
    /// When what is agreed cannot be read.
    pub fn fold<A: Agreed>(
        &mut self,
        agreed: &A,
        side: Side,
        folder: Fid,
        change: &Change,
    ) -> Result<(), A::Error> {
        let place = Place {
            folder,
            unique: change.unique.clone(),
            copy: change.copy,
        };
        if self.is_no_news(agreed, side, &place, change)? {
            return Ok(());
        }
        let known = self.claim(agreed, side, &place)?;
        if change.gone {
            let gone = Gone {
                digest: change.entry.digest,
                seq: change.seq,
                lost: change.lost,
            };
            self.tombstones[side as usize].insert(place, gone);
            if let Some(index) = known {
                let is_edited = !self.is_reborn(index, side, change);
                self.lose(index, side);
                let work = &mut self.all[index];
                work.is_undeleted[side as usize] = change.lost;
                // Edited before it went, as another archive may have met it: it went with those bytes.
                if let Some(lost) = &mut work.lost[side as usize]
                    && is_edited
                    && !change.entry.damaged
                {
                    lost.entry.digest = change.entry.digest;
                }
            }
            return Ok(());
        }
        let seen = Seen::new(place, change.entry.clone(), Seq::Known(change.seq));
        let seen = self.letters.first(side, seen);
        match known {
            Some(index) if !self.is_reborn(index, side, change) => {
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
                self.unmatched[side as usize].push(seen);
            }
            None => self.unmatched[side as usize].push(seen),
        }
        Ok(())
    }

    /// Whether a change is one that is agreed already: then there is nothing to do for the message.
    fn is_no_news<A: Agreed>(
        &self,
        agreed: &A,
        side: Side,
        place: &Place,
        change: &Change,
    ) -> Result<bool, A::Error> {
        if change.gone || self.at(side, place).is_some() || self.claimed.contains(place) {
            return Ok(false);
        }
        let record = agreed.at(place)?;
        let seen = record.as_ref().and_then(|record| record.seen(side));
        Ok(seen.is_some_and(|seen| seen.seq == Seq::Known(change.seq)))
    }

    /// A place that changed while a list was read was reported more than once: of new messages only the last counts.
    pub fn keep_last(&mut self, side: Side) {
        let (unmatched, gone) = (
            &mut self.unmatched[side as usize],
            &self.tombstones[side as usize],
        );
        let mut later = HashSet::with_capacity(unmatched.len());
        let is_last = |seen: &Seen| {
            let went = gone
                .get(&seen.place)
                .is_some_and(|gone| seen.seq.is_before(gone.seq));
            !went && later.insert(seen.place.clone())
        };
        let mut kept: Vec<bool> = unmatched.iter().rev().map(is_last).collect();
        unmatched.retain(|_| kept.pop().unwrap_or(true));
    }

    /// Whether the place was emptied and filled again since the record was last seen there. That is not known where the
    /// record's number is unknown.
    fn is_reborn(&self, index: usize, side: Side, change: &Change) -> bool {
        let seen = self.all[index].record.seen(side);
        let seq = seen.map_or(Seq::Known(0), |seen| seen.seq);
        seq.is_before(change.born)
    }

    /// Takes in that a side's list of a folder was complete: what it did not name is gone.
    ///
    /// # Errors
    /// When what is agreed cannot be read.
    pub fn lose_unlisted<A: Agreed>(
        &mut self,
        agreed: &A,
        side: Side,
        folder: Fid,
        listed: &HashSet<Place>,
    ) -> Result<(), A::Error> {
        for record in agreed.in_folder(folder)? {
            if let Some(place) = record.seen(side).map(|seen| seen.place.clone())
                && !listed.contains(&place)
            {
                self.claim(agreed, side, &place)?;
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

    /// Takes in that the messages which a side has in some folders belong to others, all at once.
    ///
    /// # Errors
    /// When what is agreed cannot be read.
    pub fn reassign<A: Agreed>(
        &mut self,
        agreed: &A,
        side: Side,
        homes: &BTreeMap<Fid, Fid>,
    ) -> Result<(), A::Error> {
        for from in homes.keys() {
            for record in agreed.in_folder(*from)? {
                if let Some(seen) = record.seen(side) {
                    self.claim(agreed, side, &seen.place)?;
                }
            }
        }
        let letters = self.letters.clone();
        // Its directory is what it was: the letters are carried only where the other side's names are theirs.
        let reassign = |seen: &mut Seen| {
            if let Some(to) = homes.get(&seen.place.folder) {
                *seen = letters.reassigned(side, seen, *to);
            }
        };
        for seen in &mut self.unmatched[side as usize] {
            reassign(seen);
        }
        for seen in self
            .all
            .iter_mut()
            .filter_map(|work| work.lost[side as usize].as_mut())
        {
            reassign(seen);
        }
        let mut moved = Vec::new();
        for index in 0..self.all.len() {
            let seen = self.all[index].record.seen(side);
            if seen.is_some_and(|seen| homes.contains_key(&seen.place.folder)) {
                moved.extend(self.unlink(index, side).map(|seen| (index, seen)));
            }
        }
        for (index, mut seen) in moved {
            reassign(&mut seen);
            self.link(index, side, seen);
        }
        Ok(())
    }
}
