//! The merge: from what both sides reported to what has to be done.
//!
//! One pipeline. Its order is here and nowhere else: each step takes what the one before it gave, so that none can be left
//! out or played out of turn. Between two of them a side may have to be asked something; then a step returns the questions,
//! and the next one takes the answers.
//!
//! 1. Take in ([`fold`]): each side's changes come into the records that the archive has of them ([`record`]). [`settle`]
//!    ends it. *Afterwards* what was asked earlier and happened is agreed (I4). Every folder has one name on both sides, or is
//!    about to be renamed to it ([`naming`]). Each message belongs to the folder of its name.
//! 2. Pair: [`pair()`], and [`join`] with what the sides answered. *Afterwards* each message is one record, wherever the two
//!    sides have it: moved within a side ([`mod@pair`]), equal on both, copied over IMAP ([`copies`]), or damaged ([`damage`]).
//! 3. Reconcile ([`reconcile`]): base, here and there become what each message shall be. Deletion is decided there and
//!    nowhere else.
//! 4. Plan ([`plan()`]): what has to be done on each side, in an order that works ([`mod@plan`]).
//! 5. Guard ([`guard`]): what is too much to delete unasked, and which trees are not joined unasked.
//!
//! Folders go along: which they are ([`folders`]), what they are called ([`naming`]), and which directory here stands for which
//! there ([`mapping`], `utf7`). [`letters`] says what Dovecot's keywords mean in each.
//!
//! It must never know disks, connections, clocks or the archive's database. What it may look up there is [`agreed::Agreed`].

use std::collections::{BTreeMap, HashSet};

use protocol::message::{At, Prefix};
use protocol::{Digest, Fingerprint};

use crate::merge::agreed::Agreed;
use crate::merge::copies::{Sides, pair_copies, unpaired};
use crate::merge::damage::{Suspect, follow_damaged, mark_cut_short, suspects};
use crate::merge::filter::Filter;
use crate::merge::fold::WorkSet;
use crate::merge::folders::{Folders, Recalled};
use crate::merge::pair::{follow_moves, pair_equal, pair_survivors};
use crate::merge::plan::{Limits, Planner};
use crate::merge::record::{Fid, Side};

pub mod agreed;
mod agreement;
mod copies;
mod damage;
pub mod filter;
pub mod fold;
pub mod folder;
pub mod folders;
pub mod guard;
pub mod letters;
pub mod mapping;
mod naming;
mod pair;
pub mod plan;
pub mod reconcile;
pub mod record;
mod utf7;

/// What the merge works on, once both lists are in.
pub struct Merge<'a, A> {
    /// The messages.
    pub set: &'a mut WorkSet,
    /// The folders.
    pub folders: &'a mut Folders,
    /// What is agreed on all other messages.
    pub agreed: &'a A,
    /// Which folders are meant.
    pub filter: &'a Filter,
    /// Nothing was agreed before this run.
    pub is_first: bool,
    /// The server's side reports everything anew, as also where a first sync goes on.
    pub is_retold: bool,
}

/// What was taken in is settled.
pub struct Settled {
    /// What was agreed on the forgotten folders is to be dropped, and all that is in the included ones to be taken in, too.
    pub recalled: Recalled,
}

/// What a side is asked about its messages.
#[derive(Default)]
pub struct Questions {
    /// What these have in common with their copies.
    pub fingerprints: Vec<(At, Digest)>,
    /// What the first bytes of these digest to, where it has them, or had.
    pub prefixes: Vec<Prefix>,
}

/// What a side answered, in the order of the questions.
#[derive(Default)]
pub struct Answers {
    /// None for what cannot be read.
    pub fingerprints: Vec<Option<Fingerprint>>,
    /// None for what is not there.
    pub prefixes: Vec<Option<Digest>>,
}

/// What has equal bytes is paired.
pub struct Paired {
    /// What each side is asked.
    pub questions: [Questions; 2],
    joined: Joined,
    unpaired: BTreeMap<Fid, Sides<usize>>,
    suspects: [Vec<Suspect>; 2],
}

/// Each message is one record.
pub struct Joined {
    /// How many new messages each side had.
    pub singles: [usize; 2],
    /// How many of them are one message with one of the other side's.
    pub paired: usize,
    /// How many of those are copies that were made over IMAP.
    pub copies: usize,
    /// How many messages come back because their folder was put there from elsewhere.
    pub brought_back: usize,
}

/// Ends taking in.
///
/// # Errors
/// When what is agreed cannot be read.
pub fn settle<A: Agreed>(merge: &mut Merge<A>) -> Result<Settled, A::Error> {
    let Merge { set, folders, .. } = merge;
    // What was asked was asked of the folders as they were known then.
    set.confirm_asked();
    let homes = folders.part_names(merge.filter);
    for side in Side::BOTH {
        set.reassign(merge.agreed, side, &homes[side as usize])?;
    }
    set.letters.place(folders);
    set.letter_unmatched();
    let recalled = folders.recall(merge.filter);
    Ok(Settled { recalled })
}

/// Pairs by bytes, once what was recalled is taken in.
#[must_use]
pub fn pair<A: Agreed>(merge: &mut Merge<A>, settled: Settled) -> Paired {
    let Settled { .. } = settled;
    let Merge { set, folders, .. } = merge;
    for side in Side::BOTH {
        follow_moves(set, side);
        follow_damaged(set, side);
    }
    let brought_back = set.bring_back();
    set.drop_excluded(folders, merge.filter);
    let singles = [0, 1].map(|side| set.unmatched[side].len());
    set.add_unmatched();
    pair_survivors(set);
    let paired = pair_equal(set);
    let unpaired = unpaired(set, merge.is_retold);
    let mut questions: [Questions; 2] = Default::default();
    let suspects = Side::BOTH.map(|side| {
        let indexes = unpaired.values().flat_map(|sides| &sides[side as usize]);
        let seen = indexes.filter_map(|index| set.all[*index].record.seen(side));
        let at = |place| folders.at(side, place, &HashSet::new());
        let lines = seen.map(|seen| (at(&seen.place), seen.entry.digest));
        questions[side as usize].fingerprints = lines.collect();
        let (suspects, prefixes) = suspects(set, folders, side);
        // The side that may have the whole of it is asked.
        questions[side.other() as usize].prefixes = prefixes;
        suspects
    });
    let joined = Joined {
        singles,
        paired,
        copies: 0,
        brought_back,
    };
    Paired {
        questions,
        joined,
        unpaired,
        suspects,
    }
}

/// Pairs what no bytes pair, by what each side answered.
///
/// # Errors
/// When what is agreed cannot be read.
pub fn join<A: Agreed>(
    merge: &mut Merge<A>,
    paired: Paired,
    [here, there]: [Answers; 2],
) -> Result<Joined, A::Error> {
    let Merge { set, folders, .. } = merge;
    let fingerprints = [here.fingerprints, there.fingerprints];
    let copies = pair_copies(set, paired.unpaired, fingerprints);
    if !merge.is_first {
        set.mend_letters(merge.agreed, folders)?;
    }
    let answers = [there.prefixes, here.prefixes];
    for ((side, suspects), prefixes) in Side::BOTH.into_iter().zip(paired.suspects).zip(answers) {
        mark_cut_short(set, side, suspects, prefixes);
    }
    let joined = paired.joined;
    Ok(Joined {
        paired: joined.paired + copies,
        copies,
        ..joined
    })
}

/// Reconciles every message, once what was joined is stored, and says how to get there.
#[must_use]
pub fn plan<'a>(
    set: &'a mut WorkSet,
    folders: &'a Folders,
    filter: &'a Filter,
    joined: Joined,
    limits: Limits,
) -> Planner<'a> {
    let Joined { .. } = joined;
    Planner::new(set, folders, filter, limits)
}

#[cfg(test)]
mod properties_tests;
