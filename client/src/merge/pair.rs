//! Finding out who is who: moves within a side, and messages that both sides hold without having agreed on them.
//!
//! Equal bytes are a multiset: they pair off one by one, by unique name first, then by folder, then in name order,
//! and three copies stay three. Of several in one place those with the same flags belong together.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use protocol::{Digest, Flags, Unique};

use crate::merge::fold::{Work, WorkSet};
use crate::merge::record::{Base, Fid, Place, Record, Seen, Side};

/// One candidate: where it is or was, whether in `new`, with which flags, and its index.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    place: Place,
    shown: Option<(bool, Flags)>,
    index: usize,
}

impl Candidate {
    fn of(seen: &Seen, index: usize) -> Candidate {
        Candidate {
            place: seen.place.clone(),
            shown: Some((seen.entry.in_new, seen.entry.flags())),
            index,
        }
    }
}

/// What two candidates of the same bytes have in common if they are alike.
type Common = (Option<Fid>, Option<Unique>, Option<Option<(bool, Flags)>>);

/// In what two candidates of the same bytes are alike.
type Likeness = fn(&Candidate) -> Common;

const SAME_ALL: Likeness = |one| {
    let (folder, unique, _) = SAME_PLACE(one);
    (folder, unique, Some(one.shown))
};
const SAME_PLACE: Likeness = |one| (Some(one.place.folder), Some(one.place.unique.clone()), None);
const SAME_UNIQUE: Likeness = |one| (None, Some(one.place.unique.clone()), None);
const SAME_FOLDER: Likeness = |one| (Some(one.place.folder), None, None);
const SAME_BYTES: Likeness = |_| (None, None, None);

/// Afterwards a message that a side moved is one record: what is new there has the bytes that it lost elsewhere.
pub fn follow_moves(set: &mut WorkSet, side: Side) {
    part_reused_names(set, side);
    let mut lost: BTreeMap<Digest, Vec<Candidate>> = BTreeMap::new();
    for (index, work) in set.all.iter().enumerate() {
        let (None, Some(base)) = (work.record.seen(side), &work.record.base) else {
            continue;
        };
        let last = work.lost[side as usize].as_ref();
        let digest = last.map_or(base.digest, |seen| seen.entry.digest);
        let candidate = match (last, &base.place) {
            (Some(seen), _) => Candidate::of(seen, index),
            (None, Some(place)) => Candidate {
                place: place.clone(),
                shown: None,
                index,
            },
            (None, None) => continue,
        };
        lost.entry(digest).or_default().push(candidate);
    }
    let mut fresh: BTreeMap<Digest, Vec<Candidate>> = BTreeMap::new();
    for (index, seen) in set.unmatched[side as usize].iter().enumerate() {
        if lost.contains_key(&seen.entry.digest) {
            let candidates = fresh.entry(seen.entry.digest).or_default();
            candidates.push(Candidate::of(seen, index));
        }
    }
    let mut taken = Vec::new();
    for (digest, fresh) in fresh {
        let lost = lost.remove(&digest).unwrap_or_default();
        for (old, new) in pair_off(
            lost,
            fresh,
            &[SAME_ALL, SAME_PLACE, SAME_UNIQUE, SAME_FOLDER, SAME_BYTES],
        ) {
            let seen = set.unmatched[side as usize][new].clone();
            let mut seen = set.moved(old, side, seen);
            let was = set.all[old].lost[side as usize].take();
            // Back at its old place it still was away in between, which counts like a move.
            let old_place = was
                .map(|was| was.place)
                .or_else(|| set.all[old].record.base.as_ref()?.place.clone());
            seen.touched = old_place.is_none_or(|old_place| old_place == seen.place);
            set.link(old, side, seen);
            taken.push(new);
        }
    }
    taken.sort_unstable();
    for index in taken.into_iter().rev() {
        set.unmatched[side as usize].swap_remove(index);
    }
}

/// Afterwards other bytes under a name are an edit: if the old ones are found elsewhere, or the new ones are those that
/// another message had, the name was reused for another message.
fn part_reused_names(set: &mut WorkSet, side: Side) {
    if set
        .all
        .iter()
        .all(|work| work.lost[side as usize].is_none())
    {
        return; // As in a first sync, which has many messages.
    }
    // Bytes that turned up and that no message which is gone from its place accounts for.
    let mut fresh: HashMap<Digest, usize> = HashMap::new();
    for seen in &set.unmatched[side as usize] {
        *fresh.entry(seen.entry.digest).or_default() += 1;
    }
    for work in set
        .all
        .iter()
        .filter(|work| work.record.seen(side).is_none())
    {
        if let Some(count) = work.lost[side as usize]
            .as_ref()
            .and_then(|lost| fresh.get_mut(&lost.entry.digest))
        {
            *count = count.saturating_sub(1);
        }
    }
    let (mut left, mut arrived) = (HashSet::new(), HashSet::new());
    for work in &set.all {
        if let Some(old) = &work.lost[side as usize] {
            left.insert(old.entry.digest);
            arrived.extend(work.record.seen(side).map(|seen| seen.entry.digest));
        }
    }
    for index in 0..set.all.len() {
        let (Some(old), Some(seen)) = (
            &set.all[index].lost[side as usize],
            set.all[index].record.seen(side),
        ) else {
            continue;
        };
        let (was, is) = (old.entry.digest, seen.entry.digest);
        if fresh.get(&was).is_some_and(|count| *count > 0)
            || arrived.contains(&was)
            || left.contains(&is)
        {
            set.part(index, side);
        } else {
            set.all[index].lost[side as usize] = None;
        }
    }
}

/// Joins what another client, with an archive of the same pair, has brought about on both sides.
pub fn pair_survivors(set: &mut WorkSet) {
    uncross(set);
    join_alike(set);
    pair_moved_on(set);
    uncross(set);
}

/// Where both sides have the same bytes at all places of some messages, each place is one message, whichever was taken for which.
fn join_alike(set: &mut WorkSet) {
    let mut is_known = vec![false; set.all.len()];
    for index in 0..set.all.len() {
        if is_known[index] || set.all[index].record.base.is_none() {
            continue;
        }
        let Some(group) = alike(set, index, &mut is_known) else {
            continue;
        };
        // What was agreed of a place stays what both sides are compared with.
        let fits = |side: Side| -> usize {
            let records = group.iter().map(|&index| &set.all[index].record);
            let known =
                records.filter_map(|record| Some((record.base.as_ref()?, record.seen(side)?)));
            known
                .map(|(base, seen)| 1 + usize::from(base.place.as_ref() == Some(&seen.place)))
                .sum()
        };
        let side = match fits(Side::Local) >= fits(Side::Remote) {
            true => Side::Remote,
            false => Side::Local,
        };
        let unlinked: Vec<_> = group
            .iter()
            .filter_map(|&index| set.unlink(index, side))
            .collect();
        for seen in unlinked {
            if let Some(to) = set.at(side.other(), &seen.place) {
                set.link(to, side, seen);
                set.all[to].lost[side as usize] = None;
            }
        }
    }
}

/// The messages that one is connected with by being at its places, if both sides have the same bytes at all of these.
fn alike(set: &WorkSet, index: usize, is_known: &mut [bool]) -> Option<Vec<usize>> {
    let (mut group, mut is_alike) = (vec![index], true);
    is_known[index] = true;
    let mut next = 0;
    while let Some(record) = group.get(next).map(|&index| &set.all[index].record) {
        next += 1;
        for side in Side::BOTH {
            let Some(seen) = record.seen(side) else {
                continue;
            };
            let across = set.at(side.other(), &seen.place);
            let theirs = across.and_then(|at| set.all[at].record.seen(side.other()));
            is_alike &= theirs.is_some_and(|theirs| theirs.entry.digest == seen.entry.digest);
            if let Some(across) = across
                && !std::mem::replace(&mut is_known[across], true)
            {
                group.push(across);
            }
        }
    }
    (is_alike && group.len() > 1).then_some(group)
}

/// Finds pairs of records that have each other's message on one side, and exchanges them. Afterwards each record has one place on
/// both sides.
///
/// It comes from what another client carried over. Two messages with equal bytes were moved, and on each side it was guessed
/// which of them went where, once one way and once the other. Or an edit was taken for a new message, and the old one was left
/// alone.
fn uncross(set: &mut WorkSet) {
    let here = set.all.iter().filter_map(|work| work.record.local.as_ref());
    let crossed = here.filter(|seen| {
        let [here, there] = Side::BOTH.map(|side| set.at(side, &seen.place));
        there.is_some() && here != there
    });
    // The order of places is the same for everybody.
    let places: BTreeSet<Place> = crossed.map(|seen| seen.place.clone()).collect();
    for place in places {
        let [Some(here), Some(there)] = Side::BOTH.map(|side| set.at(side, &place)) else {
            continue;
        };
        // What neither side reports is as an earlier run left it.
        let is_news = set.all[here].is_dirty || set.all[there].is_dirty;
        if !is_news {
            continue;
        }
        if !(lies_across(set, here, there, Side::Local)
            || lies_across(set, there, here, Side::Remote))
        {
            continue;
        }
        // Both are at this place on one side each, and one of them shall be on both.
        let rank = |index: usize| {
            let record = &set.all[index].record;
            let base = record.base.as_ref();
            (
                record.is_single(),
                base.is_none(),
                base.map(|base| &base.place),
            )
        };
        let (side, stays, goes) = match rank(here) <= rank(there) {
            true => (Side::Remote, here, there),
            false => (Side::Local, there, here),
        };
        if let (Some(old), Some(new)) = (set.unlink(stays, side), set.unlink(goes, side)) {
            set.link(goes, side, old);
            set.link(stays, side, new);
        }
    }
}

/// Whether a message is on the other side what another one, at its place here, is.
fn lies_across(set: &WorkSet, index: usize, at: usize, side: Side) -> bool {
    let [record, across] = [index, at].map(|index| &set.all[index].record);
    let (Some(seen), Some(old)) = (record.seen(side), record.seen(side.other())) else {
        return false;
    };
    let new = across.seen(side.other());
    if index == at || new.is_none_or(|new| new.entry.digest != seen.entry.digest) {
        return false;
    }
    match old.entry.digest == seen.entry.digest {
        true => is_torn(record),
        false => across.seen(side).is_none() && across.base.is_none(),
    }
}

/// Whether each side has it at another place than was agreed.
fn is_torn(record: &Record) -> bool {
    let agreed = record.base.as_ref().and_then(|base| base.place.as_ref());
    let is_moved = |seen: &Seen| agreed.is_some_and(|agreed| *agreed != seen.place);
    [&record.local, &record.remote]
        .into_iter()
        .all(|seen| seen.as_ref().is_some_and(is_moved))
}

/// Joins the two halves of a message that another client moved on one side, and that was moved once more on the other side. One
/// half is an agreed message that only one side has left, the other one is new on the other side and has the same bytes. They
/// must have the same unique name, or be the only ones with these bytes.
fn pair_moved_on(set: &mut WorkSet) {
    for side in Side::BOTH {
        let left = singles(set, side, |record| record.base.is_some());
        if left.is_empty() {
            continue;
        }
        let mut fresh = singles(set, side.other(), |record| record.base.is_none());
        for (digest, left) in left {
            let fresh = fresh.remove(&digest).unwrap_or_default();
            let likeness = match (left.len(), fresh.len()) {
                (1, 1) => SAME_BYTES,
                _ => SAME_UNIQUE,
            };
            for (to, from) in pair_off(left, fresh, &[likeness]) {
                if let Some(seen) = set.unlink(from, side.other()) {
                    let seen = set.moved(to, side.other(), seen);
                    set.link(to, side.other(), seen);
                    set.all[to].lost[side.other() as usize] = None;
                }
            }
        }
    }
}

/// What a side holds of a message that the other side has not.
fn single(set: &WorkSet, index: usize, side: Side) -> Option<&Seen> {
    let record = &set.all[index].record;
    record.seen(side).filter(|_| record.is_single())
}

/// All that only this side holds, by their bytes, of the kind asked for.
fn singles(
    set: &WorkSet,
    side: Side,
    is_asked: fn(&Record) -> bool,
) -> BTreeMap<Digest, Vec<Candidate>> {
    let mut found: BTreeMap<Digest, Vec<Candidate>> = BTreeMap::new();
    for index in (0..set.all.len()).filter(|&index| is_asked(&set.all[index].record)) {
        if let Some(seen) = single(set, index, side) {
            let candidates = found.entry(seen.entry.digest).or_default();
            candidates.push(Candidate::of(seen, index));
        }
    }
    found
}

/// Pairs messages that stand on one side each with the same bytes: one message (rows 13 and 13b). Returns how many.
pub fn pair_equal(set: &mut WorkSet) -> usize {
    let here = singles(set, Side::Local, |record| record.base.is_none());
    if here.is_empty() {
        return 0;
    }
    let mut there = singles(set, Side::Remote, |record| record.base.is_none());
    let is_gone = |work: &&Work| work.record.is_empty();
    let bases = set.all.iter().filter(is_gone);
    let bases = bases.filter_map(|work| work.record.base.as_ref()?.place.as_ref());
    let gone: HashSet<Unique> = bases.map(|place| place.unique.clone()).collect();
    let is_gone = |candidate: &Candidate| gone.contains(&candidate.place.unique);
    let mut count = 0;
    for (digest, here) in here {
        let there = there.remove(&digest).unwrap_or_default();
        let likenesses: &[Likeness] = match (&here[..], &there[..]) {
            // Edited, and then gone from its place on both sides: one of them still has its name.
            ([one], [other]) if is_gone(one) || is_gone(other) => &[SAME_BYTES],
            _ => &[SAME_ALL, SAME_PLACE, SAME_FOLDER, SAME_UNIQUE],
        };
        for (local, remote) in pair_off(here, there, likenesses) {
            let Some(theirs) = set.unlink(remote, Side::Remote) else {
                continue;
            };
            set.link(local, Side::Remote, theirs);
            let record = &mut set.all[local].record;
            if let (Some(here), Some(there)) = (&mut record.local, &record.remote) {
                *here = set.letters.parted(here, there);
                record.base = Some(Base::common(here, there, &set.letters));
            }
            count += 1;
        }
    }
    count
}

/// Pairs two lists of candidates: everything that is alike in the first way, then in the second among the rest, and so on.
fn pair_off(
    mut one: Vec<Candidate>,
    mut other: Vec<Candidate>,
    likenesses: &[Likeness],
) -> Vec<(usize, usize)> {
    one.sort();
    other.sort();
    let mut pairs = Vec::new();
    for common in likenesses {
        let mut alike: HashMap<Common, VecDeque<usize>> = HashMap::new();
        for (at, candidate) in other.iter().enumerate() {
            alike.entry(common(candidate)).or_default().push_back(at);
        }
        let mut taken = HashSet::new();
        one.retain(|candidate| {
            let at = alike
                .get_mut(&common(candidate))
                .and_then(VecDeque::pop_front);
            let Some(at) = at else { return true };
            pairs.push((candidate.index, other[at].index));
            taken.insert(at);
            false
        });
        let mut at = 0..;
        other.retain(|_| at.next().is_none_or(|at| !taken.contains(&at)));
    }
    pairs
}
