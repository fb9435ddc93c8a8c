//! The three-way merge: base and both sides in, what the message shall be out.
//!
//! Pure: values in, values out. A body does not change once it is delivered, so a sync is a merge of tiny values; each
//! field is merged by itself. A flag letter is a boolean and cannot conflict; an in-place edit is a new digest in the
//! same table. Deletion is decided here and nowhere else.
//!
//! | field | here changed | there changed | both changed |
//! |---|---|---|---|
//! | place | here's | there's | there's, reported (row 6) |
//! | new or cur | here's | there's | they are alike |
//! | each flag | here's | there's | they are alike |
//! | digest | here's | there's | both are kept (row 11) |
//! | presence | gone, unless the other side moved or edited it (rows 8, 9) | likewise | gone |
//!
//! What is not agreed has no base: places are the server's, flags are joined, and seen anywhere is seen (row 13).

use protocol::{Digest, Entry, Flags};

use crate::merge::letters::Letters;
use crate::merge::record::{Base, Record, Seen, Side, State};

/// What a message shall be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Merged {
    /// On both sides this.
    Keep(State, Option<Conflict>),
    /// On neither side.
    Gone,
    /// Both sides edited it: the server's version keeps the name, the local one becomes a message of its own (row 11).
    Split,
}

/// Where both sides had changed the same thing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Conflict {
    /// Moved to two places; the server's won.
    Moved,
    /// Deleted on one side, moved or edited on the other; it survived.
    Survived,
    /// The same, and it became shorter: the bytes that would distinguish an edit from damage are gone.
    Shortened,
    /// Edited on both sides; both versions are kept.
    Edited,
    /// Two messages wanted one name; one of them got a fresh one.
    Named,
    /// A side's bytes are damaged; they are not sent, and the good version comes back where there is one.
    Damaged,
}

/// Merges one message.
#[must_use]
pub fn reconcile(record: &Record, letters: &Letters) -> Merged {
    match (&record.base, &record.local, &record.remote) {
        (_, None, None) => Merged::Gone,
        (None, Some(seen), None) | (None, None, Some(seen)) => Merged::Keep(seen.state(), None),
        (Some(base), Some(seen), None) | (Some(base), None, Some(seen)) => survivor(base, seen),
        (Some(base), Some(local), Some(remote)) => both(base, local, remote, letters),
        (None, Some(local), Some(remote)) if local.entry.digest == remote.entry.digest => {
            let base = Base::common(local, remote, letters);
            both(&base, local, remote, letters)
        }
        (None, Some(_), Some(_)) => Merged::Split,
    }
}

/// One side deleted it: the other one's change of place or bytes beats that, nothing else does. Damage is never taken,
/// wherever it lies.
fn survivor(base: &Base, seen: &Seen) -> Merged {
    if seen.entry.damaged && seen.entry.digest != base.digest {
        return Merged::Gone;
    }
    let moved = base
        .place
        .as_ref()
        .is_some_and(|place| *place != seen.place);
    if seen.touched || moved || good_digest(base, seen) != base.digest {
        let conflict = match is_shorter(&seen.entry, base) {
            true => Conflict::Shortened,
            false => Conflict::Survived,
        };
        return Merged::Keep(seen.state(), Some(conflict));
    }
    Merged::Gone
}

fn both(base: &Base, local: &Seen, remote: &Seen, letters: &Letters) -> Merged {
    let (here, there) = (good_digest(base, local), good_digest(base, remote));
    let Some(digest) = merge(&base.digest, &here, &there) else {
        return Merged::Split;
    };
    let place = base.place.as_ref().map_or(Some(&remote.place), |base| {
        merge(base, &local.place, &remote.place)
    });
    let conflict = place.is_none().then_some(Conflict::Moved);
    let (new_here, new_there) = (local.entry.in_new, remote.entry.in_new);
    let in_new = base.in_new.map_or(new_here && new_there, |base| {
        *merge(&base, &new_here, &new_there).unwrap_or(&false)
    });
    let place = place.unwrap_or(&remote.place).clone();
    // All in the letters of the folder where it shall be. What had no letter where a side has it was not cleared there.
    let was_in = base.folder(remote);
    let carry = |seen: &Seen| {
        let (from, to) = (seen.place.folder, place.folder);
        let kept = letters.without(base.flags, was_in, from);
        let kept = letters.carry(Side::Remote, kept, was_in, to);
        let flags = letters.carry(Side::Remote, seen.flags, from, to);
        flags.union(kept)
    };
    let mut carried = base.clone();
    carried.carry(was_in, place.folder, letters);
    let state = State {
        in_new,
        flags: merge_flags(&carried, carry(local), carry(remote)),
        digest: *digest,
        place,
    };
    Merged::Keep(state, conflict)
}

/// The three-way merge of one value; `None` when both sides changed it differently.
fn merge<'a, T: PartialEq>(base: &T, local: &'a T, remote: &'a T) -> Option<&'a T> {
    if local == remote || remote == base {
        Some(local)
    } else if local == base {
        Some(remote)
    } else {
        None
    }
}

/// Letter by letter: what changed against base counts; where nothing is agreed, set wins.
fn merge_flags(base: &Base, local: Flags, remote: Flags) -> Flags {
    let changed = base
        .flags
        .difference(local)
        .union(base.flags.difference(remote));
    base.flags
        .difference(changed)
        .with(base.open, local.union(remote))
}

/// The bytes that a side stands for: damage is not an edit.
fn good_digest(base: &Base, seen: &Seen) -> Digest {
    if seen.entry.damaged {
        base.digest
    } else {
        seen.entry.digest
    }
}

/// Whether a message may be a proper prefix of what it was. A draft may be cut short by its writer.
#[must_use]
pub fn is_shorter(entry: &Entry, base: &Base) -> bool {
    entry.digest != base.digest
        && entry.size < base.size
        && !entry.damaged
        && !entry.flags().contains(b'D')
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
