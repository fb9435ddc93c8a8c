//! Taking in what both sides tell: changes since the cursors, or whole folders where those mean nothing any more.

use std::collections::{HashMap, HashSet};

use maildir::{Page, Reader};
use protocol::entry::{Change, FolderDigest};
use protocol::message::{Listed, Listing};
use protocol::{Cursor, Digest, FolderChange, Request, Response};

use super::Session;
use crate::archive::Archive;
use crate::config::filter::Scope;
use crate::endpoint::{Endpoint, unexpected};
use crate::merge::agreed::{Agreed, SEQ_UNKNOWN, Stored};
use crate::merge::fold::WorkSet;
use crate::merge::folder::Folder;
use crate::merge::guard::are_strangers;
use crate::merge::record::{Fid, Place, Record, Seen, Side};
use crate::merge::{self, Joined, Merge};
use crate::report::Skipped;
use crate::run::failure::Failure;

/// How many problems, and bodies that broke off, are taken in: the other end may tell of any number.
const PROBLEMS_MAX: usize = 10_000;
const PARTIALS_MAX: usize = 100_000;
/// How many lines tell how folders were mapped where two trees have little in common.
const FOLDERS_SHOWN: usize = 9;

/// What this side tells, of which the folders are taken in already.
struct LocalList {
    is_new_life: bool,
    reader: Reader,
    page: Page,
    gone: Vec<FolderChange>,
}

impl Session<'_> {
    /// Takes in what both sides report, joins it, and stores it with the cursors that cover it.
    ///
    /// # Errors
    /// When a side cannot be heard or used, or going on could delete mail.
    pub fn observe(&mut self) -> Result<Joined, Failure> {
        // One transaction for all that is read and stored: it ends in `store`.
        self.archive.begin()?;
        self.set = WorkSet::load(&self.archive)?;
        let local = self.begin_local()?;
        // Before the first sync nothing is agreed: then each message of the other side is looked up here as it is told.
        let mut local = Some(local);
        if !self.is_first
            && let Some(local) = local.take()
        {
            self.observe_local(local)?;
        }
        let listed = self.observe_remote()?;
        if let Some(local) = local {
            self.observe_local(local)?;
        }
        self.deleted_lately[Side::Remote as usize] = listed.deleted_lately;
        self.held = [self.scan.held, listed.held];
        let joined = self.merge()?;
        self.report_joined(&joined)?;
        self.store(listed.cursor)?;
        Ok(joined)
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

    /// Begins to take in what changed here: the folders, which the first page has.
    fn begin_local(&mut self) -> Result<LocalList, Failure> {
        let cursor = self.archive.get::<Cursor>("local_cursor")?;
        let known = match cursor {
            Some(cursor) => self.local.lock().knows(&cursor)?,
            None => false,
        };
        let since = cursor.filter(|_| known).map_or(0, |cursor| cursor.number);
        let is_new_life = !known;
        if is_new_life {
            self.begin_new_life(Side::Local)?;
        }
        let mut reader = Reader::since(since, known);
        let mut page = self
            .local
            .lock()
            .next_page(&mut reader)?
            .unwrap_or_default();
        let folders = std::mem::take(&mut page.folders);
        let (gone, live): (Vec<_>, Vec<_>) = folders.into_iter().partition(|folder| folder.gone);
        self.take_folders(Side::Local, &live);
        Ok(LocalList {
            is_new_life,
            reader,
            page,
            gone,
        })
    }

    fn observe_local(&mut self, list: LocalList) -> Result<(), Failure> {
        let LocalList {
            is_new_life,
            mut reader,
            page,
            mut gone,
        } = list;
        let (mut next, mut listed) = (Some(page), HashSet::new());
        while let Some(page) = next {
            // The messages of a folder that is gone are told under its number, so it goes after them.
            let (dead, live): (Vec<_>, Vec<_>) =
                page.folders.into_iter().partition(|folder| folder.gone);
            gone.extend(dead);
            self.take_folders(Side::Local, &live);
            self.take_changes(Side::Local, page.changes, is_new_life, &mut listed)?;
            next = self.local.lock().next_page(&mut reader)?;
        }
        self.take_folders(Side::Local, &gone);
        self.set.keep_last(Side::Local);
        if is_new_life && !self.is_first && self.scan.complete {
            self.lose_unlisted(Side::Local, None, &listed)?;
        }
        Ok(())
    }

    /// Takes in the agent's list, and asks for the folders that it only gave digests of and that differ.
    fn observe_remote(&mut self) -> Result<Listed, Failure> {
        // Nothing may be folded under old numbers before it is known what the list is; its kind follows from what we
        // asked for: without a cursor everything comes, and digests come instead of changes.
        let has_cursor = self.archive.get::<Cursor>("remote_cursor")?.is_some();
        let mut is_new_life = !has_cursor;
        if is_new_life {
            self.begin_new_life(Side::Remote)?;
        }
        let (mut places, mut digests) = (HashSet::new(), Vec::new());
        let (mut held, mut gone) = (Vec::new(), Vec::new());
        let listed = loop {
            match self.link.response()? {
                // Folders come first; digests tell that their numbers are of a new life, so they wait for that. Those
                // that are gone wait for their messages.
                Response::Folders(folders) => {
                    let (dead, live): (Vec<_>, Vec<_>) =
                        folders.into_iter().partition(|folder| folder.gone);
                    gone.extend(dead);
                    held.extend(live);
                }
                Response::Changes(changes) => {
                    let folders = std::mem::take(&mut held);
                    self.take_folders(Side::Remote, &folders);
                    self.take_changes(Side::Remote, changes, is_new_life, &mut places)?;
                }
                Response::Digests(more) => {
                    if !is_new_life {
                        is_new_life = true;
                        self.begin_new_life(Side::Remote)?;
                    }
                    digests.extend(more);
                }
                Response::Problems(problems) => {
                    let room = PROBLEMS_MAX.saturating_sub(self.skipped.len());
                    let problems = Skipped::on(Side::Remote, problems);
                    self.skipped.extend(problems.into_iter().take(room));
                }
                Response::Partials(partials) => {
                    let known = &mut self.partials[Side::Remote as usize];
                    let room = PARTIALS_MAX.saturating_sub(known.len());
                    known.extend(partials.into_iter().take(room));
                }
                Response::Listed(listed) => break listed,
                other => return Err(unexpected(&other).into()),
            }
        };
        if listed.from == Listing::Digests && !is_new_life {
            is_new_life = true;
            self.begin_new_life(Side::Remote)?;
        }
        self.take_folders(Side::Remote, &held);
        self.take_folders(Side::Remote, &gone);
        self.set.keep_last(Side::Remote);
        if listed.from == Listing::Digests {
            self.compare_digests(&digests, listed.complete)?;
        } else if is_new_life && !self.is_first && listed.complete {
            self.lose_unlisted(Side::Remote, None, &places)?;
        }
        Ok(listed)
    }

    /// A side's numbers begin anew: what is remembered of them means nothing.
    pub(crate) fn begin_new_life(&mut self, side: Side) -> Result<(), Failure> {
        self.archive.distrust_numbers(side)?;
        self.set.letters.forget(side);
        self.folders.unlink(side);
        for work in &mut self.set.all {
            if let Some(seen) = work.record.seen_mut(side) {
                seen.seq = SEQ_UNKNOWN;
            }
        }
        Ok(())
    }

    pub(crate) fn take_folders(&mut self, side: Side, changes: &[protocol::FolderChange]) {
        self.folders.fold(side, changes);
        self.set.letters.learn(side, changes);
        if !changes.is_empty() {
            self.set.letters.place(&self.folders);
        }
    }

    pub(super) fn take_changes(
        &mut self,
        side: Side,
        changes: Vec<Change>,
        is_new_life: bool,
        listed: &mut HashSet<Place>,
    ) -> Result<(), Failure> {
        let numbers = self.folders.numbers(side);
        for change in changes {
            let Some(&folder) = numbers.get(&change.folder) else {
                // The folder went with all that was in it, and another took its number or its name.
                tracing::debug!(
                    "A change in folder {} that is not known any more",
                    change.folder
                );
                continue;
            };
            if is_new_life && !self.is_first {
                listed.insert(Place {
                    folder,
                    unique: change.unique.clone(),
                    copy: change.copy,
                });
            }
            if side == Side::Remote && self.is_first && self.pair_at_once(folder, &change)? {
                continue;
            }
            self.set.fold(&self.archive, side, folder, &change)?;
        }
        Ok(())
    }

    /// Agrees on a message of a first list that this side has at the same place, as it is told: equal trees need no memory.
    /// All else goes the ordinary way.
    fn pair_at_once(&mut self, folder: Fid, change: &Change) -> Result<bool, Failure> {
        let filter = &self.account.filter;
        let known = self.folders.get(folder);
        let number = known.and_then(|folder| Some(folder.local.as_ref()?.number));
        let (Some(number), false) = (number, change.gone) else {
            return Ok(false);
        };
        let place = Place {
            folder,
            unique: change.unique.clone(),
            copy: change.copy,
        };
        let is_in_work = |side: Side| self.set.at(side, &place).is_some();
        if self.folders.scope(filter, folder) != Scope::Included
            || !self.set.letters.is_plain()
            || Side::BOTH.into_iter().any(is_in_work)
            || self.archive.at(&place)?.is_some()
        {
            return Ok(false);
        }
        let Some(twin) = self.local.lock().twin(number, change)? else {
            return Ok(false);
        };
        let seen = |change: &Change| Seen::new(place.clone(), change.entry.clone(), change.seq);
        let mut record = Record {
            local: Some(seen(&twin)),
            remote: Some(seen(change)),
            ..Record::default()
        };
        record.agree(&self.set.letters);
        if !record.is_agreed() {
            return Ok(false);
        }
        self.archive.put(&Stored::Nowhere, &record)?;
        self.paired_at_once += 1;
        Ok(true)
    }

    /// After a complete list of these folders (or of all), what it did not name is gone.
    fn lose_unlisted(
        &mut self,
        side: Side,
        only: Option<&[Fid]>,
        listed: &HashSet<Place>,
    ) -> Result<(), Failure> {
        let all: Vec<Fid> = self.folders.iter().map(|(id, _)| id).collect();
        for folder in only.unwrap_or(&all) {
            self.set
                .lose_unlisted(&self.archive, side, *folder, listed)?;
        }
        Ok(())
    }

    fn compare_digests(
        &mut self,
        digests: &[(u32, Digest)],
        complete: bool,
    ) -> Result<(), Failure> {
        let known = self.folders.numbers(Side::Remote);
        let theirs: HashMap<Fid, (u32, Digest)> = digests
            .iter()
            .filter_map(|(number, digest)| Some((*known.get(number)?, (*number, *digest))))
            .collect();
        let mut wanted = Vec::new();
        let mut differing = Vec::new();
        for (id, _) in self.folders.iter() {
            match theirs.get(&id) {
                Some((_, digest)) if self.remembered_digest(id)? == *digest => {}
                Some((number, _)) => {
                    wanted.push(*number);
                    differing.push(id);
                }
                None => differing.push(id),
            }
        }
        let mut listed = HashSet::new();
        if !differing.is_empty() {
            self.take_manifests(wanted, &mut listed)?;
        }
        if complete {
            self.lose_unlisted(Side::Remote, Some(&differing), &listed)?;
        }
        Ok(())
    }

    /// What the server's folder would digest to if it were as it was last seen.
    fn remembered_digest(&self, folder: Fid) -> Result<Digest, Failure> {
        let agreed = self.archive.in_folder(folder)?;
        let unclaimed = agreed
            .iter()
            .filter_map(|record| record.remote.as_ref())
            .filter(|seen| !self.set.is_claimed(&seen.place));
        let held = self
            .set
            .all
            .iter()
            .filter_map(|work| work.record.remote.as_ref());
        let mut seen: Vec<_> = unclaimed
            .chain(held.filter(|seen| seen.place.folder == folder))
            .collect();
        seen.sort_by(|a, b| a.place.cmp(&b.place));
        let mut digest = FolderDigest::default();
        for seen in seen {
            let entry = &seen.entry;
            digest.add(
                &seen.place.unique,
                seen.place.copy,
                entry.in_new,
                entry.flags(),
                &entry.digest,
            );
        }
        Ok(digest.finish())
    }

    /// Asks for all that is in some folders, and takes in what changed anywhere since the list: what left one of them may
    /// be in another.
    pub(super) fn take_manifests(
        &mut self,
        folders: Vec<u32>,
        listed: &mut HashSet<Place>,
    ) -> Result<(), Failure> {
        let mut requests: Vec<_> = protocol::codec::batches(folders).collect();
        if requests.is_empty() {
            requests.push(Vec::new());
        }
        for folders in requests {
            self.link.request(Request::Manifests { folders });
            let mut gone = Vec::new();
            loop {
                match self.link.response()? {
                    Response::Folders(folders) => {
                        let (dead, live): (Vec<_>, Vec<_>) =
                            folders.into_iter().partition(|folder| folder.gone);
                        gone.extend(dead);
                        self.take_folders(Side::Remote, &live);
                    }
                    Response::Changes(changes) => {
                        self.take_changes(Side::Remote, changes, true, listed)?;
                    }
                    Response::Listed(_) => break,
                    other => return Err(unexpected(&other).into()),
                }
            }
            self.take_folders(Side::Remote, &gone);
        }
        self.set.keep_last(Side::Remote);
        Ok(())
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
