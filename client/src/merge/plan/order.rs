//! An order in which every place is free when a message comes to it.

use std::collections::{HashMap, HashSet};

use protocol::Op;
use protocol::folder::find_inbox;
use protocol::message::{Consent, Source};

use super::steps::expect;
use super::{Kind, Planner, Step};
use crate::merge::record::{Place, Side};

/// Which messages wait once those in `out` are left where they are: those that were to come to a place that is not left
/// now, and so on. The steps are in their order.
#[must_use]
pub fn held_up(steps: &[Step], mut out: HashSet<usize>) -> HashSet<usize> {
    loop {
        let before = out.len();
        let mut kept: HashSet<&Place> = HashSet::new();
        for step in steps {
            let is_held = step.to.as_ref().is_some_and(|to| kept.contains(to));
            if out.contains(&step.index) || is_held {
                out.insert(step.index);
                kept.extend(&step.from);
            }
        }
        // A message whose second step waits must not make its first one, a temporary rename, either.
        if out.len() == before {
            return out;
        }
    }
}

impl Planner<'_> {
    /// Lets a message go to a fresh name first, and from there to its own.
    pub(super) fn rename_temporarily(
        &self,
        side: Side,
        steps: &mut Vec<Step>,
        renamed: &HashSet<usize>,
    ) {
        let mut firsts = Vec::new();
        let mut taken: HashSet<Place> = self.occupied(side).into_keys().collect();
        taken.extend(steps.iter().filter_map(|step| step.to.clone()));
        for step in steps
            .iter_mut()
            .filter(|step| renamed.contains(&step.index))
        {
            let Some(seen) = self.set.all[step.index].record.seen(side) else {
                continue;
            };
            let mut state = seen.state();
            while taken.contains(&state.place) {
                let info_bytes = seen.entry.info.as_bytes().len();
                let unique = state.place.unique.fresh(&state.digest, info_bytes);
                let is_stuck = unique == state.place.unique;
                (state.place.unique, state.place.copy) = (unique, 0);
                if is_stuck {
                    break;
                }
            }
            taken.insert(state.place.clone());
            let halfway = self.at(side, &state.place);
            let mut first = step.clone();
            (first.kind, first.is_temporary) = (Kind::Moved, true);
            first.to = Some(state.place.clone());
            first.op = Op::Update {
                at: self.at(side, &seen.place),
                expect: expect(seen),
                to: halfway.clone(),
                in_new: state.in_new,
                flags: seen.entry.flags(),
                body: None,
                consent: Consent::Free,
            };
            step.from = Some(state.place.clone());
            first.target = Some(state);
            if let Op::Update { at, .. } = &mut step.op {
                *at = halfway;
            }
            firsts.push(first);
        }
        steps.splice(0..0, firsts);
    }

    /// Who is where on a side now.
    pub(super) fn occupied(&self, side: Side) -> HashMap<Place, usize> {
        let seen = self.set.all.iter().enumerate();
        seen.filter_map(|(index, work)| {
            work.record
                .seen(side)
                .map(|seen| (seen.place.clone(), index))
        })
        .collect()
    }
}

/// Puts steps in an order in which every place is free when a message comes to it; steps whose place will not become
/// free in this run are left out.
///
/// # Errors
/// The index of a message in a ring of such places.
pub(super) fn order(
    steps: Vec<Step>,
    occupied: &HashMap<Place, usize>,
) -> Result<Vec<Step>, usize> {
    let leaving: HashMap<Place, usize> = steps
        .iter()
        .enumerate()
        .filter_map(|(at, step)| Some((step.from.clone()?, at)))
        .collect();
    let mut state = vec![Visit::New; steps.len()];
    let mut ordered = Vec::with_capacity(steps.len());
    let mut first: Vec<usize> = (0..steps.len()).collect();
    // Deletions come last but for those that make room; large new bodies do not hold up what needs none.
    first.sort_by_key(|&at| rank(&steps[at]));
    for at in first {
        visit(at, &steps, occupied, &leaving, &mut state, &mut ordered)?;
    }
    Ok(arrange(steps, &ordered))
}

/// The chosen steps in that order, in the memory that they have: a first sync has as many as there are messages.
fn arrange(mut steps: Vec<Step>, ordered: &[usize]) -> Vec<Step> {
    let mut goal = vec![usize::MAX; steps.len()];
    for (position, &at) in ordered.iter().enumerate() {
        goal[at] = position;
    }
    let mut left = ordered.len();
    for slot in goal.iter_mut().filter(|slot| **slot == usize::MAX) {
        (*slot, left) = (left, left + 1);
    }
    for at in 0..steps.len() {
        while goal[at] != at {
            let to = goal[at];
            steps.swap(at, to);
            goal.swap(at, to);
        }
    }
    steps.truncate(ordered.len());
    steps
}

/// Flags and moves first, then copies, then bodies (INBOX and newest first), then deletions.
fn rank(step: &Step) -> (u8, bool, i64) {
    match &step.op {
        Op::Create { at, body, .. } if matches!(body.source, Source::Body { .. }) => {
            let is_inbox = find_inbox([at.folder.as_bytes()]).is_some();
            (2, !is_inbox, body.mtime_ns.saturating_neg())
        }
        Op::Update {
            body: Some(body), ..
        } if matches!(body.source, Source::Body { .. }) => (2, false, i64::MIN),
        Op::Create { .. } | Op::Update { body: Some(_), .. } => (1, false, 0),
        Op::Retire { .. } => (3, false, 0),
        Op::Update { .. }
        | Op::MakeFolder { .. }
        | Op::RenameFolder { .. }
        | Op::RemoveFolder { .. } => (0, false, 0),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    New,
    Open,
    Ready,
    Blocked,
}

/// Puts a step behind the one that makes room for it. Iterative, because a chain may be as long as a folder.
fn visit(
    start: usize,
    steps: &[Step],
    occupied: &HashMap<Place, usize>,
    leaving: &HashMap<Place, usize>,
    state: &mut [Visit],
    ordered: &mut Vec<usize>,
) -> Result<(), usize> {
    let mut chain = vec![start];
    while let Some(&at) = chain.last() {
        if matches!(state[at], Visit::Ready | Visit::Blocked) {
            chain.pop();
            continue;
        }
        let occupant = steps[at]
            .to
            .as_ref()
            .and_then(|to| Some((to, *occupied.get(to)?)));
        let before = occupant
            .filter(|(_, index)| *index != steps[at].index)
            .map(|(to, _)| leaving.get(to).copied());
        state[at] = match before {
            None | Some(Some(_))
                if before
                    .flatten()
                    .is_none_or(|before| state[before] == Visit::Ready) =>
            {
                ordered.push(at);
                Visit::Ready
            }
            Some(Some(before)) => match state[before] {
                Visit::Blocked => Visit::Blocked,
                Visit::Open => return Err(steps[at].index),
                Visit::New | Visit::Ready => {
                    chain.push(before);
                    Visit::Open
                }
            },
            Some(None) | None => Visit::Blocked,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::message::At;
    use protocol::{Flags, FolderDir, Unique};

    use super::*;
    use crate::merge::record::Fid;

    /// A message goes from one name to another.
    fn step(index: usize, from: &str, to: &str) -> Step {
        let unique = |name: &str| Unique::new(name.as_bytes()).expect("a name");
        let place = |name: &str| Place {
            folder: Fid(1),
            unique: unique(name),
            copy: 0,
        };
        let at = |name: &str| At {
            number: Some(1),
            folder: FolderDir::root(),
            unique: unique(name),
            copy: 0,
        };
        Step {
            index,
            op: Op::Update {
                at: at(from),
                expect: protocol::message::Expect {
                    in_new: false,
                    flags: Flags::EMPTY,
                    digest: protocol::Digest::of(b""),
                },
                to: at(to),
                in_new: false,
                flags: Flags::EMPTY,
                body: None,
                consent: Consent::Free,
            },
            kind: Kind::Moved,
            target: None,
            forget: false,
            is_temporary: false,
            dropped: 0,
            from: Some(place(from)),
            to: Some(place(to)),
        }
    }

    #[test]
    fn what_waits_for_a_place_that_is_not_left_stays_and_so_on() {
        let steps = [
            step(0, "a", "b"),
            step(1, "c", "d"),
            step(2, "d", "e"),
            step(2, "e", "a"),
            step(3, "f", "g"),
        ];
        let out = |first| {
            let mut out: Vec<usize> = held_up(&steps, HashSet::from([first]))
                .into_iter()
                .collect();
            out.sort_unstable();
            out
        };
        assert_eq!(out(3), [3]);
        assert_eq!(out(0), [0, 2]);
        let mut ring = steps.to_vec();
        ring.swap(1, 2);
        let all = held_up(&ring, HashSet::from([0]));
        assert_eq!(all.len(), 3, "message 1 was to come to where 2 is: {all:?}");
    }
}
