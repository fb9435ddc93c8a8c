//! Copies that mbsync or OfflineIMAP made of the server's messages, over IMAP: not equal byte for byte, and yet the same.
//!
//! They pair off within a folder, by what is surest first, and only where one of the two bears such a tool's mark. The server's bytes win; what they have in common is in [`protocol::fingerprint`].

use std::collections::BTreeMap;

use protocol::fingerprint::{Fingerprint, Named};

use crate::merge::agreed::Stored;
use crate::merge::fold::{Work, WorkSet};
use crate::merge::record::{Base, CopyOf, Fid, Seen, Side};

/// The messages of each side.
pub type Sides<T> = [Vec<T>; 2];

/// A message that has no other one to pair off with, and what it has in common with its copies.
struct Printed {
    index: usize,
    fingerprint: Fingerprint,
}

/// By what two messages pair off, the surest first. Several pair off one by one, but not without a Message-ID.
const KEYS: [fn(&Fingerprint) -> Option<Named>; 5] = [
    |print| Some(sure(print.plain)),
    |print| Some(sure(print.squeezed)),
    |print| print.message,
    |print| print.broken.or(print.message),
    |print| print.parts.map(sure),
];

fn sure(key: protocol::fingerprint::Key) -> Named {
    Named { key, has_id: true }
}

/// The new messages that stand on one side, in folders where both sides have some. Unless everything is reported anew, as
/// where nothing was agreed before, only folders with names that such a tool gave.
#[must_use]
pub fn unpaired(set: &WorkSet, is_everything: bool) -> BTreeMap<Fid, Sides<usize>> {
    let mut folders: BTreeMap<Fid, Sides<usize>> = BTreeMap::new();
    for (index, work) in set.all.iter().enumerate() {
        for side in Side::BOTH {
            if let Some(seen) = single(work, side) {
                folders.entry(seen.place.folder).or_default()[side as usize].push(index);
            }
        }
    }
    folders.retain(|_, sides| {
        let mut all = sides.iter().flatten();
        sides.iter().all(|side| !side.is_empty())
            && (is_everything || all.any(|index| is_named_by_a_tool(&set.all[*index])))
    });
    folders
}

/// What a side holds of a message that is new in this run, and only on that side.
fn single(work: &Work, side: Side) -> Option<&Seen> {
    let record = &work.record;
    let is_new = record.base.is_none() && work.stored == Stored::Nowhere;
    let seen = record
        .seen(side)
        .filter(|seen| is_new && !seen.entry.damaged);
    seen.filter(|_| record.is_single())
}

fn is_named_by_a_tool(work: &Work) -> bool {
    let mut seen = Side::BOTH.iter().filter_map(|side| work.record.seen(*side));
    seen.any(|seen| seen.place.unique.is_of_a_copy())
}

/// Pairs off what [`unpaired`] found, by what each side reported of these messages, in their order. Returns how many.
pub fn pair_copies(
    set: &mut WorkSet,
    folders: BTreeMap<Fid, Sides<usize>>,
    fingerprints: Sides<Option<Fingerprint>>,
) -> usize {
    let mut fingerprints = fingerprints.map(Vec::into_iter);
    let mut count = 0;
    for sides in folders.into_values() {
        let mut printed: Sides<Printed> = Default::default();
        for ((indexes, reported), printed) in
            sides.into_iter().zip(&mut fingerprints).zip(&mut printed)
        {
            // One that cannot be read has none.
            let reported = indexes.into_iter().zip(reported);
            let read = reported.filter_map(|(index, print)| Some((index, print?)));
            printed.extend(read.map(|(index, fingerprint)| Printed { index, fingerprint }));
        }
        count += pair_folder(set, printed);
    }
    count
}

fn pair_folder(set: &mut WorkSet, [mut here, mut there]: Sides<Printed>) -> usize {
    let mut count = 0;
    for key in KEYS {
        let mut groups: BTreeMap<_, Sides<Printed>> = BTreeMap::new();
        let mut left: Sides<Printed> = Default::default();
        for (side, candidates) in [here, there].into_iter().enumerate() {
            for candidate in candidates {
                match key(&candidate.fingerprint) {
                    Some(named) => {
                        groups.entry((named.key, named.has_id)).or_default()[side].push(candidate)
                    }
                    None => left[side].push(candidate),
                }
            }
        }
        for ((_, is_sure), mut group) in groups {
            if is_sure || group.iter().all(|side| side.len() == 1) {
                for is_alike in [true, false] {
                    count += pair_off(set, &mut group, is_alike);
                }
            }
            for (left, group) in left.iter_mut().zip(group) {
                left.extend(group);
            }
        }
        [here, there] = left;
    }
    count
}

/// Pairs off one by one, in the order of names; at first those that are alike in their flags.
fn pair_off(set: &mut WorkSet, [here, there]: &mut Sides<Printed>, is_alike: bool) -> usize {
    for side in [&mut *here, there] {
        side.sort_by_cached_key(|candidate| place(set, candidate));
    }
    let before = here.len();
    here.retain(|local| {
        let found = there.iter().position(|remote| {
            let is_marked = |one: &Printed| {
                one.fingerprint.is_marked || is_named_by_a_tool(&set.all[one.index])
            };
            (is_marked(local) || is_marked(remote))
                && (!is_alike || shown(set, local) == shown(set, remote))
        });
        let Some(at) = found else { return true };
        link(set, local, &there.remove(at));
        false
    });
    before - here.len()
}

fn seen<'s>(set: &'s WorkSet, candidate: &Printed) -> Option<&'s Seen> {
    let record = &set.all[candidate.index].record;
    record.local.as_ref().or(record.remote.as_ref())
}

fn place(set: &WorkSet, candidate: &Printed) -> Option<crate::merge::record::Place> {
    seen(set, candidate).map(|seen| seen.place.clone())
}

fn shown(set: &WorkSet, candidate: &Printed) -> Option<(bool, protocol::Flags)> {
    seen(set, candidate).map(|seen| (seen.entry.in_new, seen.flags))
}

/// Makes two messages one: what they have in common is agreed, and the bytes here count as agreed, too, so that the
/// server's are a change.
fn link(set: &mut WorkSet, local: &Printed, remote: &Printed) {
    let Some(theirs) = set.unlink(remote.index, Side::Remote) else {
        return;
    };
    let is_made = local.fingerprint.plain == remote.fingerprint.plain;
    let copy = CopyOf {
        digest: theirs.entry.digest,
        form: remote.fingerprint.form.clone().filter(|_| is_made),
    };
    set.link(local.index, Side::Remote, theirs);
    let record = &mut set.all[local.index].record;
    if let (Some(here), Some(there)) = (&mut record.local, &record.remote) {
        *here = set.letters.parted(here, there);
        record.base = Some(Base::common(here, there, &set.letters));
        record.copy = Some(copy);
    }
}
