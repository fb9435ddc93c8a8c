//! A guard's refusal before people and scripts: what is over which limit, in which folders, and both ways out. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::merge::record::Side;
use crate::report::heading::{Heading, named};

/// How many folders a line names.
const FOLDERS_NAMED: usize = 4;

/// What the guard held back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The name under which exactly this can be confirmed.
    pub plan: String,
    /// Whether the same was refused before.
    pub is_known: bool,
    /// Which sides are over a limit.
    pub over: Vec<Over>,
    /// What waits, on both sides.
    pub holds: Vec<HeldMessage>,
}

/// One side that would lose too much.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Over {
    /// The side.
    pub side: Side,
    /// What it lost in the last 24 hours besides.
    pub lately: u64,
    /// The limit, in words behind "that is".
    pub limit: String,
}

/// One message that would go or get other bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldMessage {
    /// Its index in the working set.
    pub index: usize,
    /// On which side.
    pub side: Side,
    /// Its folder, escaped.
    pub folder: String,
    /// Its unique name, escaped.
    pub name: String,
    /// Whether it gets other bytes, and does not go.
    pub replaces: bool,
    /// What it says of itself, where that is shown.
    pub heading: Option<Heading>,
}

impl Refusal {
    /// One sentence with both ways out.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Refusal { plan, holds, .. } = self;
        let what = match holds.len() {
            1 => "1 deletion waits".to_owned(),
            count => format!("{count} deletions wait"),
        };
        let same = if self.is_known {
            ", the same as before"
        } else {
            ""
        };
        format!(
            "{what}{same}, and nothing was deleted: run again with --confirm {plan} to make exactly these, or with \
             --adopt to bring them back"
        )
    }

    /// What people read: at most six lines, or one where they read it before.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if self.is_known {
            return vec![self.sentence()];
        }
        let mut lines =
            vec!["The guard holds back all deletions, and nothing was deleted:".to_owned()];
        lines.extend(
            Side::BOTH
                .into_iter()
                .filter_map(|side| self.side_line(side)),
        );
        lines.push(format!(
            "  to make exactly these, run the same command for this account with --confirm {}",
            self.plan
        ));
        lines.push("  to bring the messages back instead, run it with --adopt".to_owned());
        lines
    }

    /// "60 there (over 50 and over 5 % of 200 messages): 55 in INBOX, 5 in Lists".
    fn side_line(&self, side: Side) -> Option<String> {
        let mut folders: BTreeMap<&str, u64> = BTreeMap::new();
        for held in self.holds.iter().filter(|held| held.side == side) {
            *folders.entry(&held.folder).or_default() += 1;
        }
        let count: u64 = folders.values().sum();
        let replaced = self
            .holds
            .iter()
            .filter(|held| held.side == side && held.replaces);
        let mut said = match replaced.count() {
            _ if count == 0 => return None,
            0 => format!("  {count} to be deleted {}", side.word()),
            replaced => format!(
                "  {count} to be deleted or replaced ({replaced}) {}",
                side.word()
            ),
        };
        if let Some(over) = self.over.iter().find(|over| over.side == side) {
            said += &match over.lately {
                0 => format!(", that is {}", over.limit),
                lately => format!(
                    ", with {lately} in the last 24 hours that is {}",
                    over.limit
                ),
            };
        }
        let mut most: Vec<(&str, u64)> = folders.into_iter().collect();
        most.sort_by_key(|(folder, count)| (std::cmp::Reverse(*count), *folder));
        let rest: u64 = most
            .iter()
            .skip(FOLDERS_NAMED)
            .map(|(_, count)| count)
            .sum();
        let folders = most.len().saturating_sub(FOLDERS_NAMED);
        let named = most.iter().take(FOLDERS_NAMED);
        let mut named: Vec<String> = named
            .map(|(folder, count)| format!("{count} in {folder}"))
            .collect();
        if folders > 0 {
            named.push(format!("{rest} in {folders} more"));
        }
        Some(format!("{said}: {}", named.join(", ")))
    }

    /// A line for each message that waits.
    pub fn messages(&self) -> impl Iterator<Item = String> {
        self.holds.iter().map(|held| {
            let what = if held.replaces { "replace" } else { "delete" };
            let named = named(&held.folder, &held.name, held.heading.as_ref());
            format!("  {what} {} {named}", held.side.word())
        })
    }

    /// For scripts: the plan with what it holds.
    #[must_use]
    pub fn json(&self) -> Value {
        let holds = self.holds.iter().map(|held| {
            json!({
                "side": held.side.word(), "folder": held.folder, "name": held.name,
                "action": if held.replaces { "replace" } else { "delete" },
            })
        });
        let over = self.over.iter();
        let over = over.map(
            |over| json!({ "side": over.side.word(), "limit": over.limit, "lately": over.lately }),
        );
        json!({
            "name": self.plan, "over": over.collect::<Vec<_>>(), "holds": holds.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(side: Side, folder: &str, index: usize) -> HeldMessage {
        HeldMessage {
            index,
            side,
            folder: folder.to_owned(),
            name: format!("{index}.mx"),
            replaces: side == Side::Local,
            heading: None,
        }
    }

    #[test]
    fn a_refusal_takes_few_lines_and_the_same_one_takes_one() {
        let mut holds: Vec<HeldMessage> = (0..60)
            .map(|number| held(Side::Remote, "INBOX", number))
            .collect();
        holds.extend((0..9).map(|number| held(Side::Remote, &format!("Lists/{number}"), number)));
        holds.push(held(Side::Local, "INBOX", 70));
        let over = Over {
            side: Side::Remote,
            lately: 3,
            limit: "over 50 and over 5 % of 200 messages".to_owned(),
        };
        let mut refusal = Refusal {
            plan: "abc".to_owned(),
            is_known: false,
            over: vec![over],
            holds,
        };
        assert_eq!(
            refusal.lines(),
            [
                "The guard holds back all deletions, and nothing was deleted:",
                "  1 to be deleted or replaced (1) here: 1 in INBOX",
                "  69 to be deleted there, with 3 in the last 24 hours that is over 50 and over 5 % of 200 messages: \
                 60 in INBOX, 1 in Lists/0, 1 in Lists/1, 1 in Lists/2, 6 in 6 more",
                "  to make exactly these, run the same command for this account with --confirm abc",
                "  to bring the messages back instead, run it with --adopt",
            ]
        );
        refusal.is_known = true;
        assert_eq!(
            refusal.lines(),
            [
                "70 deletions wait, the same as before, and nothing was deleted: run again with --confirm abc to make \
              exactly these, or with --adopt to bring them back"
            ]
        );
        let first = refusal.messages().next();
        assert_eq!(first.as_deref(), Some("  delete there INBOX/0.mx"));
    }
}
