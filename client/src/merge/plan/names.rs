//! Fresh names for messages whose names are taken (row 12).

use std::collections::{BTreeMap, HashSet};

use super::{Planner, Want};
use crate::merge::reconcile::Conflict;
use crate::merge::record::{Place, Side, Taken};

impl Planner<'_> {
    /// Gives a fresh name to all but one of the messages that want the same place (row 12), and to those whose place was
    /// found taken. The server's occupant keeps it, so that several clients decide alike.
    pub(super) fn separate(&mut self) {
        let claims = self.wants.iter().enumerate();
        let claims = claims.filter_map(|(index, want)| match want {
            Want::Keep(state) => Some((index, &state.place)),
            // What is out of scope stays where it is.
            Want::Leave => {
                let remote = self.set.all[index].record.remote.as_ref();
                remote.map(|seen| (index, &seen.place))
            }
            Want::Gone => None,
        });
        let mut taken = HashSet::with_capacity(self.wants.len());
        let doubled: HashSet<&Place> = claims
            .clone()
            .map(|(_, place)| place)
            .filter(|place| !taken.insert(*place))
            .collect();
        if doubled.is_empty() && self.set.taken.is_empty() {
            return;
        }
        let mut rivals: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
        for (index, place) in claims.filter(|(_, place)| doubled.contains(place)) {
            rivals.entry(place.clone()).or_default().push(index);
        }
        let refused = self.set.taken.iter().map(|taken| &taken.place);
        let mut taken: HashSet<Place> = taken.into_iter().chain(refused).cloned().collect();
        for index in 0..self.wants.len() {
            if self.is_refused(index) {
                rename(&mut self.wants[index], &mut taken);
                self.conflicts.push((index, Conflict::Named));
            }
        }
        for (place, mut claimants) in rivals {
            claimants.sort_by_key(|&index| {
                let work = &self.set.all[index];
                let is_theirs = work
                    .record
                    .remote
                    .as_ref()
                    .is_some_and(|seen| seen.place == place);
                (!is_theirs, work.record.base.is_none(), index)
            });
            for &index in &claimants[1..] {
                rename(&mut self.wants[index], &mut taken);
                self.conflicts.push((index, Conflict::Named));
            }
        }
        // That both versions of an edited message want its name is one conflict, and reported already.
        let edited = self.conflicts.iter();
        let edited = edited.filter(|(_, conflict)| *conflict == Conflict::Edited);
        let edited: HashSet<usize> = edited.map(|(index, _)| *index).collect();
        self.conflicts
            .retain(|(index, conflict)| *conflict != Conflict::Named || !edited.contains(index));
    }

    /// Whether a message is as it was when its name was found taken: then who has it is none that we know, as in an
    /// excluded folder, or has the same unique name.
    fn is_refused(&self, index: usize) -> bool {
        let Want::Keep(state) = &self.wants[index] else {
            return false;
        };
        let is_taken = |side| {
            let seen = self.set.all[index].record.seen(side);
            let taken = Taken::of(side, &state.place, seen);
            seen.is_none_or(|seen| seen.state() != *state) && self.set.taken.contains(&taken)
        };
        !self.set.taken.is_empty() && Side::BOTH.into_iter().any(is_taken)
    }
}

/// Gives a message a fresh name that no other message wants.
fn rename(want: &mut Want, taken: &mut HashSet<Place>) {
    let Want::Keep(state) = want else { return };
    let info_bytes = 3 + state.flags.letters().len();
    loop {
        let unique = state.place.unique.fresh(&state.digest, info_bytes);
        let is_stuck = unique == state.place.unique;
        state.place = Place {
            unique,
            copy: 0,
            ..state.place.clone()
        };
        if is_stuck || taken.insert(state.place.clone()) {
            return;
        }
    }
}
