//! What is too much to delete without asking (I7), and which trees are not joined without asking.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use protocol::Digest;
use protocol::bytes::hex;

use crate::merge::record::{Fid, Place, Side};

/// Up to so many messages the user is not asked.
pub const COUNT_FREE: u64 = 50;
/// The share of a replica from which on the user is asked, in percent.
const PERCENT_MAX: u64 = 5;
/// From so many messages on the user is asked, whatever the share.
const COUNT_MAX: u64 = 2000;
/// Up to so many messages on a side the user is not asked whether two trees belong together.
const SINGLES_FREE: usize = 50;

/// How much may be deleted before the guard stops it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MaxDelete {
    /// The guard's own numbers.
    #[default]
    Default,
    /// So many messages.
    Count(u64),
    /// Such a share of the messages, 0 to 100; 100 is no guard at all.
    Percent(u8),
}

impl FromStr for MaxDelete {
    type Err = String;

    fn from_str(text: &str) -> Result<MaxDelete, String> {
        let wrong =
            || format!("\"{text}\" is neither a number of messages nor a share from 0% to 100%");
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.strip_suffix('%').map(str::trim_end) {
            Some(share) if digits(share) => share
                .parse()
                .ok()
                .filter(|&share: &u8| share <= 100)
                .map(MaxDelete::Percent)
                .ok_or_else(wrong),
            None if digits(text) => text.parse().map(MaxDelete::Count).map_err(|_| wrong()),
            Some(_) | None => Err(wrong()),
        }
    }
}

impl fmt::Display for MaxDelete {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            MaxDelete::Default => f.write_str("default"),
            MaxDelete::Count(count) => write!(f, "{count}"),
            MaxDelete::Percent(share) => write!(f, "{share}%"),
        }
    }
}

/// One deletion or replacement that is planned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deletion {
    /// On which side.
    pub side: Side,
    /// Where the message is.
    pub place: Place,
    /// Its bytes.
    pub digest: Digest,
    /// The bytes that it gets, where it is replaced.
    pub becomes: Option<Digest>,
}

/// What the guard compares with.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// How many messages the replica holds.
    pub messages: u64,
    /// How many it holds in each folder that loses any.
    pub folders: BTreeMap<Fid, u64>,
    /// How many were deleted or replaced in the last 24 hours, by any client, that count.
    pub deleted_lately: u64,
}

/// Whether two trees have too little in common to be one, by how many new messages each has and how many of them are paired.
#[must_use]
pub fn are_strangers(singles: [usize; 2], paired: usize) -> bool {
    let smaller = singles[0].min(singles[1]);
    smaller > SINGLES_FREE && paired * 2 < smaller
}

/// The limit that the deletions of one side are over, if any, as people read it.
#[must_use]
pub fn limit_over(deletions: &[&Deletion], holdings: &Holdings, max: MaxDelete) -> Option<String> {
    if deletions.is_empty() {
        return None;
    }
    // The other end's number may be anything.
    let count = (deletions.len() as u64).saturating_add(holdings.deleted_lately);
    let is_over =
        |percent: u64| count.saturating_mul(100) > holdings.messages.saturating_mul(percent);
    match max {
        MaxDelete::Default if count > COUNT_MAX => Some(format!("over {COUNT_MAX}")),
        MaxDelete::Default if count > COUNT_FREE && is_over(PERCENT_MAX) => Some(format!(
            "over {COUNT_FREE} and over {PERCENT_MAX} % of {} messages",
            holdings.messages
        )),
        MaxDelete::Default => {
            let count = emptied_folder(deletions, holdings)?;
            Some(format!("a whole folder of {count}, over {COUNT_FREE}"))
        }
        MaxDelete::Count(max) => (count > max).then(|| format!("over max_delete, {max}")),
        MaxDelete::Percent(100) => None,
        MaxDelete::Percent(percent) => is_over(u64::from(percent)).then(|| {
            format!(
                "over max_delete, {percent} % of {} messages",
                holdings.messages
            )
        }),
    }
}

/// How many messages a folder of more than 50 has that would vanish whole.
fn emptied_folder(deletions: &[&Deletion], holdings: &Holdings) -> Option<u64> {
    let mut lost: BTreeMap<Fid, u64> = BTreeMap::new();
    for deletion in deletions {
        *lost.entry(deletion.place.folder).or_default() += 1;
    }
    let mut emptied = lost.into_iter().filter(|(folder, count)| {
        let held = holdings.folders.get(folder);
        *count > COUNT_FREE && held.is_some_and(|held| count >= held)
    });
    emptied.next().map(|(_, count)| count)
}

/// What stands for one deletion in a plan: side, place, bytes, and those that replace them.
#[must_use]
pub fn line(deletion: &Deletion, folder: &[u8]) -> Digest {
    let mut text = vec![deletion.side as u8];
    text.extend_from_slice(folder);
    text.push(0);
    text.extend_from_slice(deletion.place.unique.as_bytes());
    text.extend_from_slice(&deletion.place.copy.to_le_bytes());
    text.extend_from_slice(deletion.digest.as_bytes());
    text.extend(
        deletion
            .becomes
            .iter()
            .flat_map(|digest| *digest.as_bytes()),
    );
    Digest::of(&text)
}

/// The name of a plan: it stands for exactly this set of deletions.
#[must_use]
pub fn plan_name(lines: &BTreeSet<Digest>) -> String {
    let text: Vec<u8> = lines.iter().flat_map(|line| *line.as_bytes()).collect();
    hex(&Digest::of(&text).as_bytes()[..6])
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Unique;

    #[test]
    fn who_confirmed_a_replacement_confirmed_no_deletion() {
        let deleted = deletions(1).remove(0);
        let replaced = |bytes: &[u8]| Deletion {
            becomes: Some(Digest::of(bytes)),
            ..deleted.clone()
        };
        let lines = [deleted.clone(), replaced(b"one"), replaced(b"two")];
        let lines: BTreeSet<Digest> = lines.iter().map(|one| line(one, b"INBOX")).collect();
        assert_eq!(lines.len(), 3);
    }

    fn deletions(count: usize) -> Vec<Deletion> {
        let place = |n: usize| Place {
            folder: Fid(1),
            unique: Unique::new(n.to_string().as_bytes()).expect("valid"),
            copy: 0,
        };
        (0..count)
            .map(|n| Deletion {
                side: Side::Local,
                place: place(n),
                digest: Digest::of(b"x"),
                becomes: None,
            })
            .collect()
    }

    fn too_much(count: usize, messages: u64, lately: u64, max: MaxDelete) -> bool {
        let all = deletions(count);
        let holdings = Holdings {
            messages,
            folders: BTreeMap::from([(Fid(1), messages)]),
            deleted_lately: lately,
        };
        limit_over(&all.iter().collect::<Vec<_>>(), &holdings, max).is_some()
    }

    #[test]
    fn the_guard_asks_over_fifty_and_five_percent_or_over_two_thousand() {
        assert!(!too_much(50, 100, 0, MaxDelete::Default));
        assert!(too_much(51, 1000, 0, MaxDelete::Default));
        assert!(!too_much(51, 1020, 0, MaxDelete::Default));
        assert!(
            too_much(30, 1000, 21, MaxDelete::Default),
            "the last day counts"
        );
        assert!(!too_much(2000, 400_000, 0, MaxDelete::Default));
        assert!(too_much(2001, 400_000, 0, MaxDelete::Default));
    }

    #[test]
    fn a_folder_of_over_fifty_does_not_vanish_unasked() {
        let all = deletions(51);
        let refs: Vec<&Deletion> = all.iter().collect();
        let mut holdings = Holdings {
            messages: 400_000,
            folders: BTreeMap::from([(Fid(1), 51)]),
            deleted_lately: 0,
        };
        let limit = limit_over(&refs, &holdings, MaxDelete::Default);
        assert_eq!(limit.as_deref(), Some("a whole folder of 51, over 50"));
        holdings.folders.insert(Fid(1), 52);
        assert_eq!(limit_over(&refs, &holdings, MaxDelete::Default), None);
    }

    #[test]
    fn max_delete_replaces_the_numbers() {
        assert!(too_much(4, 1000, 0, MaxDelete::Count(3)));
        assert!(!too_much(3, 3, 0, MaxDelete::Count(3)));
        assert!(too_much(11, 100, 0, MaxDelete::Percent(10)));
        assert!(!too_much(100, 100, 0, MaxDelete::Percent(100)));
    }
}
