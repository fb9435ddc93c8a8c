//! Why a difference between the sides waits for a later run, and how many do. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::merge::plan::Why;
use crate::merge::record::Side;
use crate::report::skipped::Skipped;

/// Differences that wait for one reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// How many.
    pub count: u64,
    /// Whether they are messages to be deleted or replaced.
    pub deletions: bool,
    /// Why, in words.
    pub why: String,
    /// Whether it is for what a side cannot look at: it may not have been noticed yet.
    pub unseen: bool,
}

impl Waiting {
    /// Counts alike ones; in the order of [`Why`], so that what a person should decide comes first.
    #[must_use]
    pub fn count(all: impl IntoIterator<Item = (Why, bool)>) -> Vec<Waiting> {
        let mut counts: BTreeMap<(Why, bool), u64> = BTreeMap::new();
        for one in all {
            *counts.entry(one).or_default() += 1;
        }
        let counted = counts.into_iter().map(|((why, deletions), count)| Waiting {
            count,
            deletions,
            why: words(why).to_owned(),
            unseen: false,
        });
        counted.collect()
    }

    /// What is missing on a side and may not be taken for deleted, because of what it left alone.
    #[must_use]
    pub fn unseen(side: Side, count: u64, skipped: &[Skipped]) -> Option<Waiting> {
        let holds = |skipped: &&Skipped| skipped.side == side && skipped.holds;
        let mut holding = skipped.iter().filter(holds);
        let why = match (holding.next(), holding.count()) {
            (None, _) => format!(
                "much was moved {} during the run; the next one looks again",
                side.word()
            ),
            (Some(one), 0) => one.text(),
            (Some(one), more) => format!("{}; and {more} more like it", one.text()),
        };
        (count > 0).then_some(Waiting {
            count,
            deletions: true,
            why,
            unseen: true,
        })
    }

    /// Whether it may be over by itself, so that another try is worth it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        let passing = [Why::Changed, Why::Failed, Why::Filled, Why::Unreached]
            .into_iter()
            .chain(Side::BOTH.map(Why::Full));
        self.unseen || passing.map(words).any(|why| why == self.why)
    }

    /// Adds what else waits.
    pub fn add(all: &mut Vec<Waiting>, more: Vec<Waiting>) {
        for one in more {
            let is_alike = |known: &&mut Waiting| {
                (&known.why, known.deletions, known.unseen) == (&one.why, one.deletions, one.unseen)
            };
            match all.iter_mut().find(is_alike) {
                Some(known) => known.count += one.count,
                None => all.push(one),
            }
        }
    }

    /// How many wait, for whatever reason.
    #[must_use]
    pub fn total(all: &[Waiting]) -> u64 {
        all.iter().map(|waiting| waiting.count).sum()
    }

    /// For people: "3 wait: the key is read-only".
    #[must_use]
    pub fn text(&self) -> String {
        let Waiting {
            count,
            deletions,
            why,
            ..
        } = self;
        let what = match (deletions, count) {
            (true, 1) => "deletion waits",
            (true, _) => "deletions wait",
            (false, 1) => "waits",
            (false, _) => "wait",
        };
        format!("{count} {what}: {why}")
    }
}

/// In words, behind "3 wait: ".
fn words(why: Why) -> &'static str {
    match why {
        Why::Guard => "the guard asks first",
        Why::NoDelete => "nothing is to be deleted (--no-delete)",
        Why::RightNoDelete => "the key may not delete",
        Why::RightAppend => "the key is append-only",
        Why::RightRead => "the key is read-only",
        Why::Unchanged(Side::Local) => "push changes nothing here",
        Why::Unchanged(Side::Remote) => "pull changes nothing there",
        Why::NotChosen => "their folder is excluded or not chosen",
        Why::NoPlace(Side::Local) => "their folder has no place here",
        Why::NoPlace(Side::Remote) => "their folder has no place there",
        Why::Large => "the network is metered, and they are over 64 KiB",
        Why::NoGoodCopy => "no good copy is left to send",
        Why::Full(Side::Local) => "the disk here takes no more",
        Why::Full(Side::Remote) => "the disk there takes no more",
        Why::Failed => "they could not be brought over, see what was skipped",
        Why::Filled => "what is in the folder waits, too",
        Why::Changed => "they changed meanwhile; the next run takes them",
        Why::Unreached => "the run did not get to them; the next one goes on",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_by_its_reason() {
        let all = [
            (Why::RightRead, false),
            (Why::Guard, true),
            (Why::RightRead, false),
            (Why::RightRead, true),
        ];
        let waiting = Waiting::count(all);
        let texts: Vec<String> = waiting.iter().map(Waiting::text).collect();
        assert_eq!(
            texts,
            [
                "1 deletion waits: the guard asks first",
                "2 wait: the key is read-only",
                "1 deletion waits: the key is read-only"
            ]
        );
        assert_eq!(Waiting::total(&waiting), 4);
    }

    #[test]
    fn what_cannot_be_looked_at_is_named() {
        let skipped = |path: &str, side, holds| Skipped {
            side,
            path: path.to_owned(),
            why: "permission denied".to_owned(),
            holds,
            heading: None,
        };
        let mut all = vec![
            skipped("a", Side::Local, true),
            skipped("b", Side::Remote, false),
            skipped("Lists", Side::Remote, true),
        ];
        let text = |all: &[Skipped], count| {
            let waiting = Waiting::unseen(Side::Remote, count, all)?;
            Some(waiting.text())
        };
        assert_eq!(text(&all, 0), None);
        let one = "12 deletions wait: \"Lists\" there: permission denied";
        assert_eq!(text(&all, 12).as_deref(), Some(one));
        all.push(skipped("Work", Side::Remote, true));
        let two = format!("{one}; and 1 more like it");
        assert_eq!(text(&all, 12), Some(two));
        let busy =
            "1 deletion waits: much was moved there during the run; the next one looks again";
        assert_eq!(text(&[], 1).as_deref(), Some(busy));
    }
}
