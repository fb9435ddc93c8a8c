//! Damaged messages: what moved although it was damaged, and what was cut short.
//!
//! Bytes that are empty or all NUL bear a mark. What was cut short is a proper prefix of what it was, which only the side that
//! has the whole of it can say: its digest is asked for.

use std::collections::HashMap;

use protocol::message::Prefix;
use protocol::{Digest, Unique};

use crate::merge::fold::WorkSet;
use crate::merge::folders::Folders;
use crate::merge::reconcile::is_shorter;
use crate::merge::record::Side;

/// A message that may be a prefix of another.
pub struct Suspect {
    /// Its index.
    at: usize,
    /// That of the record it belongs to if it is damaged: another one if it was moved, too.
    of: usize,
    digest: Digest,
}

/// Afterwards a message that was damaged and moved is one record: it is not known by its bytes any more, but by its name.
pub fn follow_damaged(set: &mut WorkSet, side: Side) {
    if !(set.unmatched[side as usize].iter()).any(|seen| seen.entry.damaged) {
        return;
    }
    let mut gone = gone_by_name(set, side);
    for at in (0..set.unmatched[side as usize].len()).rev() {
        let seen = &set.unmatched[side as usize][at];
        if seen.entry.damaged
            && let Some(Some(index)) = gone.remove(&seen.place.unique)
        {
            let seen = set.unmatched[side as usize].swap_remove(at);
            let seen = set.moved(index, side, seen);
            set.link(index, side, seen);
        }
    }
}

/// The messages of a side that may be cut short, and what the other side is asked about each.
pub fn suspects(set: &WorkSet, folders: &Folders, side: Side) -> (Vec<Suspect>, Vec<Prefix>) {
    let gone = gone_by_name(set, side);
    let suspects = set.all.iter().enumerate().filter_map(|(at, work)| {
        let seen = work.record.seen(side)?;
        let is_new = work.record.base.is_none() && work.record.is_single();
        let of = match is_new {
            true => gone.get(&seen.place.unique).copied().flatten()?,
            false => at,
        };
        let record = &set.all[of].record;
        let base = record.base.as_ref()?;
        // A copy may be longer than its original, and begin like it.
        if record.copied().is_some() || !is_shorter(&seen.entry, base) {
            return None;
        }
        let good = record.seen(side.other()).unwrap_or(seen);
        let prefix = Prefix {
            at: folders.at(side.other(), &good.place, &Default::default()),
            digest: base.digest,
            length: seen.entry.size,
        };
        let digest = seen.entry.digest;
        Some((Suspect { at, of, digest }, prefix))
    });
    suspects.unzip()
}

/// Afterwards what was cut short is marked as damaged, and is one record with what it was.
pub fn mark_cut_short(
    set: &mut WorkSet,
    side: Side,
    suspects: Vec<Suspect>,
    prefixes: Vec<Option<Digest>>,
) {
    for (suspect, prefix) in suspects.into_iter().zip(prefixes) {
        let Suspect { at, of, digest } = suspect;
        let is_paired = at != of && set.all[at].record.base.is_some();
        if prefix != Some(digest) || is_paired {
            continue;
        }
        if let Some(seen) = set.unlink(at, side) {
            let seen = set.moved(of, side, seen);
            set.link(of, side, seen);
            set.mark_damaged(of, side);
        }
    }
}

/// The messages that are gone from a side, by unique name; `None` where one name stands for several.
fn gone_by_name(set: &WorkSet, side: Side) -> HashMap<Unique, Option<usize>> {
    let mut gone = HashMap::new();
    for (index, work) in set.all.iter().enumerate() {
        let base = work.record.base.as_ref();
        let place = base.and_then(|base| base.place.as_ref());
        if let (None, Some(place)) = (work.record.seen(side), place) {
            gone.entry(place.unique.clone())
                .and_modify(|known| *known = None)
                .or_insert(Some(index));
        }
    }
    gone
}
