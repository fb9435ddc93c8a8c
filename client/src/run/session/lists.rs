//! Taking in what a side reports: changes since its cursor, or whole folders where that means nothing any more. The same for both.

use std::collections::{HashMap, HashSet};

use maildir::{Report, Scan};
use protocol::entry::{Change, FolderDigest};
use protocol::message::{Listed, Listing, Rights};
use protocol::{Cursor, Digest, FolderChange, Request, Response};

use super::Session;
use crate::config::Account;
use crate::endpoint::unexpected;
use crate::merge::agreed::{Agreed, Stored};
use crate::merge::filter::Scope;
use crate::merge::plan::Direction;
use crate::merge::record::{Fid, Place, Record, Seen, Seq, Side};
use crate::report::skipped::Skipped;
use crate::run::failure::Failure;

/// Where the archive has how far each side's journal is known.
const CURSORS: [&str; 2] = ["local_cursor", "remote_cursor"];
/// How many problems, and bodies that broke off, are taken in: the other end may report any number.
const PROBLEMS_MAX: usize = 10_000;
const PARTIALS_MAX: usize = 100_000;
/// How many changes of a list are taken in before they are merged, where that need not wait for the rest.
pub(super) const PART: usize = 8192;
/// Where the archive has how far this side had been scanned when a first sync began. What changed since has a higher number: only
/// a list of what lies before that comes in parts.
pub(super) const PARTS_UNTIL: &str = "parts_until";

/// A list that a side reports, as far as it was taken in.
pub(super) struct List {
    side: Side,
    /// Its numbers mean nothing to the archive.
    is_new_life: bool,
    /// Folders that are gone. Their messages are reported under their numbers, so they go after those.
    gone: Vec<FolderChange>,
    /// What follows the folders that come first.
    next: Option<Response>,
    /// What it named, where it says what is there and not what changed.
    places: HashSet<Place>,
    /// Of folders, by the side's numbers.
    digests: Vec<(u32, Digest)>,
}

impl List {
    fn new(side: Side, is_new_life: bool) -> List {
        List {
            side,
            is_new_life,
            gone: Vec::new(),
            next: None,
            places: HashSet::new(),
            digests: Vec::new(),
        }
    }
}

impl Session<'_> {
    /// Asks this side for its list, as the hello asked the agent.
    pub(super) fn ask_local(&mut self) -> Result<(), Failure> {
        let cursor = self.archive.get::<Cursor>("local_cursor")?;
        let known = match cursor {
            Some(cursor) => self.local.lock().knows(&cursor)?.then_some(cursor),
            None => None,
        };
        if known.is_none() {
            self.archive.remove("local_cursor")?;
        }
        self.listed_to = known.map_or(0, |cursor| cursor.number);
        self.merged_to = self.listed_to;
        self.parts_until = match self.archive.get::<Cursor>(PARTS_UNTIL)? {
            _ if self.is_first => self.promised.number,
            Some(begun) if known.is_some_and(|known| known.index == begun.index) => begun.number,
            Some(_) | None => 0,
        };
        self.report_local(known.is_some());
        Ok(())
    }

    fn report_local(&mut self, from_cursor: bool) {
        let Scan { complete, held, .. } = self.scan;
        self.local.report(Report {
            from: match from_cursor {
                true => Listing::Cursor,
                false => Listing::Everything,
            },
            since: self.listed_to,
            told: self.promised,
            scan: Scan {
                complete,
                held,
                problems: std::mem::take(&mut self.scan.problems),
            },
            part: Some((PART, self.parts_until)),
        });
    }

    /// Whether the server's list is taken in first. It is where ours may be long: a part of ours can be merged only once all of the
    /// server's is known. Before anything is agreed each message of the server's is looked up here as it is reported.
    pub(super) fn is_local_last(&self) -> Result<bool, Failure> {
        let is_to_come = self.listed_to < self.parts_until;
        Ok(is_to_come && self.local.lock().messages()? > 0)
    }

    /// Takes in the folders that a side's list begins with.
    ///
    /// Nothing may be folded under old numbers before it is known what the list is. That follows from what was asked: without a
    /// cursor everything comes, and digests come instead of changes.
    pub(super) fn begin_list(&mut self, side: Side) -> Result<List, Failure> {
        let (mut live, mut gone) = (Vec::new(), Vec::new());
        let next = loop {
            match self.endpoint(side).response()? {
                Response::Folders(folders) => {
                    let (dead, there): (Vec<_>, Vec<_>) =
                        folders.into_iter().partition(|folder| folder.gone);
                    gone.extend(dead);
                    live.extend(there);
                }
                next => break next,
            }
        };
        let has_cursor = self
            .archive
            .get::<Cursor>(CURSORS[side as usize])?
            .is_some();
        let is_digests = match &next {
            Response::Digests(_) => true,
            Response::Listed(listed) => listed.from == Listing::Digests,
            _ => false,
        };
        let is_new_life = !has_cursor || is_digests;
        if is_new_life {
            self.begin_new_life(side)?;
        }
        self.take_folders(side, &live);
        Ok(List {
            gone,
            next: Some(next),
            ..List::new(side, is_new_life)
        })
    }

    /// Takes in what follows of a side's list, and asks for the folders that it only gave digests of and that differ. Returns how it
    /// ended, or nothing where the rest is left for the next part.
    pub(super) fn take_list(&mut self, mut list: List) -> Result<Option<Listed>, Failure> {
        let side = list.side;
        let Some(listed) = self.take_rest(&mut list)? else {
            self.rest = Some(list);
            return Ok(None);
        };
        if listed.from == Listing::Digests {
            self.compare_digests(&list.digests, listed.complete)?;
        } else if list.is_new_life && !self.is_first && listed.complete {
            self.lose_unlisted(side, None, &list.places)?;
        }
        Ok(Some(listed))
    }

    /// Takes in the next part of a list of which a part is merged.
    pub(super) fn take_part(&mut self, list: List) -> Result<(), Failure> {
        self.is_continued = true;
        if list.side == Side::Local {
            self.merged_to = self.listed_to;
            self.report_local(!self.is_first);
        }
        self.take_list(list).map(drop)
    }

    /// Whether the part that has come can be merged now, with the same result as after the whole list. It can if all of the other
    /// side's list is taken in, and nothing there could be one of these messages: then all of them are simply sent.
    fn may_part(&self, list: &List) -> Result<bool, Failure> {
        let Account {
            dry_run, filter, ..
        } = self.account;
        // What a dry run has merged is not agreed, and must not be pending either.
        let brings = match list.side {
            Side::Local => self.welcome.rights != Rights::ReadOnly && (self.is_first || !dry_run),
            Side::Remote => self.is_first && *dry_run && !self.is_local_last()?,
        };
        let other = list.side.other();
        // What a push does not bring here it may still meet in any part.
        let single_max = match self.direction {
            Direction::Push if !dry_run => PART,
            Direction::Push | Direction::Pull | Direction::Sync => 0,
        };
        Ok(brings
            && self.direction.changes(other)
            && !filter.selects()
            && self.set.count_single(other) <= single_max)
    }

    /// Takes in a list up to its end, or up to where the rest may be left.
    fn take_rest(&mut self, list: &mut List) -> Result<Option<Listed>, Failure> {
        let (side, is_new_life) = (list.side, list.is_new_life);
        let mut count = 0;
        let listed = loop {
            let next = match list.next.take() {
                Some(next) => next,
                None => self.endpoint(side).response()?,
            };
            match next {
                Response::Folders(folders) => {
                    let (dead, live): (Vec<_>, Vec<_>) =
                        folders.into_iter().partition(|folder| folder.gone);
                    list.gone.extend(dead);
                    self.take_folders(side, &live);
                }
                Response::Changes(changes) => {
                    count += changes.len();
                    self.take_changes(side, changes, is_new_life, &mut list.places)?;
                    if side == Side::Remote && count >= PART && self.may_part(list)? {
                        self.set.keep_last(side);
                        return Ok(None);
                    }
                }
                Response::Digests(more) if is_new_life => list.digests.extend(more),
                Response::Problems(problems) => {
                    let room = PROBLEMS_MAX.saturating_sub(self.skipped.len());
                    let problems = Skipped::on(side, problems);
                    self.skipped.extend(problems.into_iter().take(room));
                }
                Response::Partials(partials) => {
                    let known = &mut self.partials[side as usize];
                    let room = PARTIALS_MAX.saturating_sub(known.len());
                    known.extend(partials.into_iter().take(room));
                }
                Response::Listed(listed) => {
                    self.take_end(side, &listed)?;
                    if side == Side::Remote || self.unlisted == 0 {
                        break listed;
                    }
                    if self.may_part(list)? {
                        self.set.keep_last(side);
                        return Ok(None);
                    }
                    self.report_local(listed.from == Listing::Cursor);
                }
                other => return Err(unexpected(&other).into()),
            }
        };
        self.take_folders(side, &std::mem::take(&mut list.gone));
        self.set.keep_last(side);
        Ok(Some(listed))
    }

    fn take_end(&mut self, side: Side, listed: &Listed) -> Result<(), Failure> {
        if listed.from == Listing::Manifests {
            return Ok(());
        }
        self.deleted_lately[side as usize] = listed.deleted_lately;
        self.held[side as usize] = listed.held;
        if side == Side::Local {
            self.listed_to = listed.cursor.number;
            self.unlisted = match self.listed_to < self.promised.number {
                true => self.local.lock().count_since(self.listed_to)?,
                false => 0,
            };
        }
        Ok(())
    }

    /// A side's numbers begin anew: what is remembered of them means nothing.
    pub(crate) fn begin_new_life(&mut self, side: Side) -> Result<(), Failure> {
        self.archive.distrust_numbers(side)?;
        self.set.letters.forget(side);
        self.folders.unlink(side);
        for work in &mut self.set.all {
            if let Some(seen) = work.record.seen_mut(side) {
                seen.seq = Seq::Unknown;
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

    /// Agrees on a message of a first list that this side has at the same place, as it is reported: equal trees need no memory.
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
        let Some(ours) = self.local.lock().same_at(number, change)? else {
            return Ok(false);
        };
        let seen = |change: &Change| {
            Seen::new(place.clone(), change.entry.clone(), Seq::Known(change.seq))
        };
        let mut record = Record {
            local: Some(seen(&ours)),
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
        let listed = match differing.is_empty() {
            true => HashSet::new(),
            false => self.take_manifests(Side::Remote, wanted)?,
        };
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

    /// Asks a side for all that is in some folders, and takes in what changed anywhere since the list: what left one of them may
    /// be in another. Returns what is there.
    pub(super) fn take_manifests(
        &mut self,
        side: Side,
        folders: Vec<u32>,
    ) -> Result<HashSet<Place>, Failure> {
        let mut requests: Vec<_> = protocol::codec::batches(folders).collect();
        if requests.is_empty() {
            requests.push(Vec::new());
        }
        let mut listed = HashSet::new();
        for folders in requests {
            self.endpoint(side).request(Request::Manifests { folders });
            let mut list = List::new(side, true);
            self.take_rest(&mut list)?;
            listed.extend(list.places);
        }
        Ok(listed)
    }
}
