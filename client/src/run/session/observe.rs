//! Taking in what both sides report, joining it, and storing it with the cursors that cover it.

use protocol::Cursor;

use std::collections::HashSet;

use super::Session;
use super::lists::PART;
use crate::archive::Archive;
use crate::merge::filter::Scope;
use crate::merge::fold::WorkSet;
use crate::merge::folder::Folder;
use crate::merge::guard::are_strangers;
use crate::merge::record::Side;
use crate::merge::{self, Joined, Merge};
use crate::report::skipped::Skipped;
use crate::run::failure::Failure;

/// How many lines say how folders were mapped where two trees have little in common.
const FOLDERS_SHOWN: usize = 9;

impl Session<'_> {
    /// Takes in what both sides report, joins it, and stores it with the cursors that cover it. Of a long list it may be only a
    /// part: as long as there is a rest, this is called again.
    ///
    /// # Errors
    /// When a side cannot be reached or used, or going on could delete mail.
    pub fn observe(&mut self) -> Result<Joined, Failure> {
        // One transaction for all that is read and stored: it ends in `store`.
        self.archive.begin()?;
        // Of a part that is not the last one, what failed before is not tried again.
        let failed = match self.unlisted > PART as u64 {
            true => self.failed.clone(),
            false => HashSet::new(),
        };
        self.set = WorkSet::load(&self.archive, &failed)?;
        if self.rest.is_some() {
            // Who has these names is known once that side has reported again, which it does in the next run.
            self.set.taken.clear();
        }
        let remote = match self.rest.take() {
            Some(list) => {
                self.take_part(list)?;
                None
            }
            None => self.take_lists()?,
        };
        let joined = self.merge()?;
        if !self.is_continued {
            self.report_joined(&joined)?;
        }
        self.store(remote)?;
        Ok(joined)
    }

    /// Takes in both lists; returns the other side's cursor once its list has ended.
    fn take_lists(&mut self) -> Result<Option<Cursor>, Failure> {
        self.ask_local()?;
        let mut local = Some(self.begin_list(Side::Local)?);
        if !self.is_local_last()?
            && let Some(local) = local.take()
        {
            self.take_list(local)?;
        }
        let remote = self.begin_list(Side::Remote)?;
        let listed = self.take_list(remote)?;
        if let Some(local) = local {
            self.take_list(local)?;
        }
        Ok(listed.map(|listed| listed.cursor))
    }

    /// Plays the merge up to the point where each message is one record, and asks the sides what it wants to know.
    fn merge(&mut self) -> Result<Joined, Failure> {
        let settled = merge::settle(&mut self.merging()?)?;
        self.recall(&settled)?;
        self.report_placeless();
        let paired = merge::pair(&mut self.merging()?, settled);
        let answers = self.answers(&paired.questions)?;
        let mut joined = merge::join(&mut self.merging()?, paired, answers)?;
        for count in joined.singles.iter_mut().chain([&mut joined.paired]) {
            *count += self.paired_at_once;
        }
        Ok(joined)
    }

    fn merging(&mut self) -> Result<Merge<'_, Archive>, Failure> {
        // Also where a first sync is resumed.
        let cursor = self.archive.get::<Cursor>("remote_cursor")?;
        Ok(Merge {
            set: &mut self.set,
            folders: &mut self.folders,
            agreed: &self.archive,
            filter: &self.account.filter,
            is_first: self.is_first,
            is_retold: cursor.is_none_or(|cursor| cursor.number == 0),
        })
    }

    /// Says what people should know of it; trees that have little in common are not joined without being asked.
    fn report_joined(&mut self, joined: &Joined) -> Result<(), Failure> {
        let Joined {
            singles,
            paired,
            copies,
            brought_back,
        } = *joined;
        if brought_back > 0 {
            self.notes.push(format!(
                "A folder was put there from elsewhere, as from a backup: {brought_back} messages that are missing since come back"
            ));
        }
        self.check_overlap(singles, paired)?;
        if self.is_first && self.notes.is_empty() && singles.iter().all(|&count| count > 0) {
            self.notes.push("Nothing is remembered of an earlier sync: both sides are joined, and nothing is deleted".to_owned());
        }
        if copies > 0 {
            self.notes.push(format!("{copies} messages here are copies that were made over IMAP; they get the server's bytes"));
        }
        Ok(())
    }

    /// Says which folders have no place on the other side.
    fn report_placeless(&mut self) {
        let filter = &self.account.filter;
        for (side, name, why) in self.folders.placeless() {
            if self.folders.scope_of(filter, &name) != Scope::Excluded {
                let there = side.other().word();
                self.skipped.push(Skipped {
                    side,
                    path: name.to_string(),
                    why: format!("It has no place {there}: {why}"),
                    holds: false,
                    heading: None,
                });
            }
        }
    }

    /// Two trees that have little in common are not joined without being asked.
    fn check_overlap(&self, singles: [usize; 2], paired: usize) -> Result<(), Failure> {
        if !self.is_first || self.account.adopt || !are_strangers(singles, paired) {
            return Ok(());
        }
        let smaller = singles[0].min(singles[1]);
        let name = |folder: &Folder, side: Side| match folder.on(side) {
            Some(held) if held.dir.as_bytes().is_empty() => "INBOX".to_owned(),
            Some(held) => held.dir.to_string(),
            None => "-".to_owned(),
        };
        let pairs = self.folders.iter().map(|(_, folder)| {
            let [here, there] = Side::BOTH.map(|side| name(folder, side));
            format!("\n  {here} = {there}")
        });
        let mut lines: Vec<String> = pairs.collect();
        if lines.len() > FOLDERS_SHOWN {
            let rest = lines.split_off(FOLDERS_SHOWN - 1).len();
            lines.push(format!("\n  and {rest} more"));
        }
        let lines = lines.concat();
        Err(Failure::Unsafe(format!(
            "Only {paired} of {smaller} messages are on both sides, so these may be different Maildirs; nothing was done. \
             Run again with --adopt to join them (nothing is deleted then). Folders here = there:{lines}"
        )))
    }
}
