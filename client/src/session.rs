//! Opening a run: both replicas, the archive that belongs to them, and what changed on either side.
//!
//! Order matters for the time it takes: the agent is started first and scans while this side does. Ends with a working
//! set that holds everything that is not agreed, stored together with the cursors that cover it (`docs/state.md`).

use std::collections::{HashMap, HashSet};

use maildir::layout::{Encoding, Setting, Style};
use maildir::{Lock, Options, Replica, Scan};
use protocol::entry::{Change, FolderDigest};
use protocol::message::{Hello, Listed, Listing, PathBytes, Prefix, Problem, Welcome};
use protocol::{BatchId, Cursor, Digest, Request, Response};

use crate::address::Address;
use crate::archive::{Archive, SEQ_UNKNOWN};
use crate::config::{Account, FolderNames, Layout};
use crate::failure::Failure;
use crate::filter::Scope;
use crate::fold::WorkSet;
use crate::folders::Folders;
use crate::known::{self, Pair};
use crate::link::{Link, unexpected};
use crate::pair::{pair_equal, pair_moves, part_usurpers};
use crate::plan::Direction;
use crate::record::{Fid, Place, Side};
use crate::transport::ConnectOptions;

/// Below so many messages on a side nobody is asked whether two trees belong together.
const OVERLAP_FROM: usize = 50;
/// How many unanswered batches a hello has room for; a run leaves two behind.
const ASKED_MAX: usize = 16;

/// A run whose both sides are known.
pub struct Session<'a> {
    /// What is synced.
    pub account: &'a Account,
    /// The replica here.
    pub local: Replica,
    /// The agent.
    pub link: Link,
    /// How the agent introduced itself.
    pub welcome: Welcome,
    /// What both agreed on.
    pub archive: Archive,
    /// What is not agreed.
    pub set: WorkSet,
    /// The folders.
    pub folders: Folders,
    /// What both sides left alone.
    pub problems: Vec<Problem>,
    /// Bodies that the agent has part of.
    pub partials: HashMap<Digest, u64>,
    /// What was deleted or replaced on each side in the last 24 hours, by whomever, that counts for the guard.
    pub deleted_lately: [u64; 2],
    /// Nothing was agreed before this run.
    pub is_first: bool,
    /// What people should know.
    pub notes: Vec<String>,
    scan: Scan,
    told: Cursor,
    _stand: Option<Stand>,
    _lock: Option<Lock>,
}

impl<'a> Session<'a> {
    /// Opens both sides and takes in what they tell.
    ///
    /// # Errors
    /// When a side cannot be reached or used, or going on could delete mail.
    pub fn open(
        account: &'a Account,
        direction: Direction,
        verbose: bool,
    ) -> Result<Session<'a>, Failure> {
        refuse_overlap(account)?;
        let lock = if account.dry_run {
            None
        } else {
            Some(known::lock(account)?)
        };
        let hint = known::find(account).filter(|_| !account.adopt);
        let (mut local, stand) = open_local(account, hint, direction)?;
        let mut archive = hint
            .filter(|pair| {
                pair.local == local.id()
                    && Archive::exists(&account.state_dir, pair.local, pair.remote)
            })
            .map(|pair| Archive::open(&account.state_dir, pair.local, pair.remote, account.dry_run))
            .transpose()?;
        let continues_here = match &archive {
            Some(archive) => match archive.get::<Cursor>("local_cursor")? {
                Some(cursor) => local.continues(cursor.tag)?,
                None => true,
            },
            None => true,
        };
        let cursor = match &archive {
            Some(archive) if continues_here => archive.get::<Cursor>("remote_cursor")?,
            Some(_) | None => None,
        };
        let mut asked = match &archive {
            Some(archive) => archive.unanswered(Side::Remote)?,
            None => Vec::new(),
        };
        asked.truncate(ASKED_MAX);
        let hello = hello(account, hint, cursor, asked)?;
        let options = ConnectOptions::of(account, verbose);
        let (opened, scanned) = std::thread::scope(|scope| {
            let opening = scope.spawn(|| Link::open(&account.remote, &options, &hello));
            let scanned = local.scan();
            (opening.join(), scanned)
        });
        let opened = opened.map_err(|_| Failure::internal("The connecting thread panicked"))?;
        let (link, welcome) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                local.unmake(); // A mistyped address leaves no Maildir behind.
                return Err(error.into());
            }
        };
        let mut scan = scanned?;
        if welcome.replica == local.id() {
            local = local.renew_id()?;
            scan = local.scan()?;
            archive = None;
        }
        let pair = Pair {
            local: local.id(),
            remote: welcome.replica,
        };
        if archive.is_none() || hint.is_none_or(|hint| hint != pair) {
            archive = None;
            if !account.adopt
                && Archive::exists(&account.state_dir, pair.local, pair.remote)
                && hint != Some(pair)
            {
                // The pair is known under another address: ask again, now with its cursor.
                if !account.dry_run {
                    known::remember(account, pair)?;
                    drop((link, local, lock));
                    return Session::open(account, direction, verbose);
                }
            }
        }
        let archive = match archive {
            Some(archive) => archive,
            None => Archive::open(&account.state_dir, pair.local, pair.remote, account.dry_run)?,
        };
        let mut notes = Vec::new();
        if hint.is_some_and(|hint| hint != pair) {
            notes.push("This is another pair of Maildirs than last time: both sides are joined, and nothing is deleted".to_owned());
        }
        let is_known = !archive.is_empty()?;
        if account.adopt || (is_known && (!continues_here || welcome.continues != Some(true))) {
            if is_known {
                notes.push("What was agreed before is set aside: both sides are joined, and nothing is deleted".to_owned());
            }
            archive.reset()?;
        }
        let told = local.tell()?;
        let mut session = Session {
            account,
            deleted_lately: [local.deleted_lately()?, 0],
            local,
            link,
            welcome,
            is_first: archive.is_empty()?,
            set: WorkSet::default(),
            folders: Folders::load(&archive)?,
            archive,
            problems: std::mem::take(&mut scan.problems),
            partials: HashMap::new(),
            notes,
            scan,
            told,
            _stand: stand,
            _lock: lock,
        };
        session.observe()?;
        if !account.dry_run {
            known::remember(account, pair)?;
        }
        Ok(session)
    }

    /// Takes in what both sides tell, and stores it with the cursors that cover it.
    fn observe(&mut self) -> Result<(), Failure> {
        // One transaction for all that is read and stored: it ends in `store`.
        self.archive.begin()?;
        self.set = WorkSet::load(&self.archive)?;
        self.observe_local()?;
        for batch in self.archive.unanswered(Side::Local)? {
            if let Some(fates) = self.local.fates(batch)? {
                self.set.learn_fates(batch, fates);
            }
        }
        let listed = self.observe_remote()?;
        self.deleted_lately[Side::Remote as usize] = listed.deleted_lately;
        for side in Side::BOTH {
            part_usurpers(&mut self.set, side);
        }
        // What was asked was asked of the folders as they were known then.
        self.set.confirm_asked();
        let rehomed = self.folders.part_names(&self.account.filter);
        for side in Side::BOTH {
            self.set
                .rehome(&self.archive, side, &rehomed[side as usize])?;
        }
        self.recall_folders()?;
        for side in Side::BOTH {
            part_usurpers(&mut self.set, side);
            pair_moves(&mut self.set, side);
        }
        let folders = &self.folders;
        self.set.touch_renamed(&|side, folder| {
            folders
                .get(folder)
                .is_some_and(|folder| folder.is_renamed(side))
        });
        self.drop_excluded();
        let singles = [self.set.loose[0].len(), self.set.loose[1].len()];
        self.set.add_loose();
        let paired = pair_equal(&mut self.set);
        self.check_overlap(singles, paired)?;
        if self.is_first && self.notes.is_empty() && singles.iter().all(|&count| count > 0) {
            self.notes.push("Nothing is remembered of an earlier sync: both sides are joined, and nothing is deleted".to_owned());
        }
        self.find_truncated()?;
        self.store(listed.cursor)
    }

    fn observe_local(&mut self) -> Result<(), Failure> {
        let cursor = self.archive.get::<Cursor>("local_cursor")?;
        let known = match cursor {
            Some(cursor) => self.local.knows(&cursor)?,
            None => false,
        };
        let since = cursor.filter(|_| known).map_or(0, |cursor| cursor.number);
        let is_new_life = !known;
        if is_new_life {
            self.begin_new_life(Side::Local)?;
        }
        let mut folders = self.local.folders_since(since)?;
        folders.retain(|folder| known || !folder.gone);
        // The messages of a folder that is gone are told under its number, so it goes after them.
        let (gone, live): (Vec<_>, Vec<_>) = folders.into_iter().partition(|folder| folder.gone);
        self.take_folders(Side::Local, &live);
        let mut changes = Vec::new();
        self.local.changes_since(since, |change| {
            if known || !change.gone {
                changes.push(change);
            }
            Ok(())
        })?;
        let mut listed = HashSet::new();
        self.take_changes(Side::Local, changes, is_new_life, &mut listed)?;
        self.take_folders(Side::Local, &gone);
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
                Response::Problems(problems) => self.problems.extend(problems),
                Response::Partials(partials) => self.partials.extend(partials),
                Response::Fates { batch, fates } => self.set.learn_fates(batch, fates),
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
        if listed.from == Listing::Digests {
            self.compare_digests(&digests, listed.complete)?;
        } else if is_new_life && !self.is_first && listed.complete {
            self.lose_unlisted(Side::Remote, None, &places)?;
        }
        Ok(listed)
    }

    /// A side's numbers begin anew: what is remembered of them means nothing.
    fn begin_new_life(&mut self, side: Side) -> Result<(), Failure> {
        self.archive.distrust_numbers(side)?;
        self.folders.unlink(side);
        for work in &mut self.set.all {
            if let Some(seen) = work.record.seen_mut(side) {
                seen.seq = SEQ_UNKNOWN;
            }
        }
        Ok(())
    }

    fn take_folders(&mut self, side: Side, changes: &[protocol::FolderChange]) {
        self.folders.fold(side, changes);
    }

    fn take_changes(
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
            self.set
                .fold(&self.archive, side, folder, &change, is_new_life)?;
        }
        Ok(())
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
        let theirs: HashMap<Fid, (u32, Digest)> = digests
            .iter()
            .filter_map(|(number, digest)| {
                Some((
                    self.folders.find(Side::Remote, *number)?,
                    (*number, *digest),
                ))
            })
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
        if !wanted.is_empty() {
            self.link.request(Request::Manifests { folders: wanted });
            self.take_manifests(&mut listed)?;
        }
        if complete {
            self.lose_unlisted(Side::Remote, Some(&differing), &listed)?;
        }
        Ok(())
    }

    /// What the server's folder would digest to if it were as it was last seen.
    fn remembered_digest(&self, folder: Fid) -> Result<Digest, Failure> {
        let agreed = self.archive.agreed_in(folder)?;
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

    fn take_manifests(&mut self, listed: &mut HashSet<Place>) -> Result<(), Failure> {
        loop {
            match self.link.response()? {
                Response::Changes(changes) => {
                    for change in changes {
                        if let Some(folder) = self.folders.find(Side::Remote, change.folder) {
                            listed.insert(Place {
                                folder,
                                unique: change.unique.clone(),
                                copy: change.copy,
                            });
                            self.set
                                .fold(&self.archive, Side::Remote, folder, &change, true)?;
                        }
                    }
                }
                Response::Listed(_) => return Ok(()),
                other => return Err(unexpected(&other).into()),
            }
        }
    }

    /// Forgets folders that are excluded now, and compares those in full that are included again.
    fn recall_folders(&mut self) -> Result<(), Failure> {
        let scopes: Vec<(Fid, Scope, bool)> = self
            .folders
            .iter()
            .map(|(id, folder)| {
                (
                    id,
                    self.account.filter.scope(folder.name().as_bytes()),
                    folder.forgotten,
                )
            })
            .collect();
        let mut wanted = Vec::new();
        for (id, scope, forgotten) in scopes {
            match (scope, forgotten) {
                (Scope::Excluded, false) => {
                    self.archive.forget_folder(id)?;
                    self.folders.set_forgotten(id, true);
                }
                (Scope::Included, true) => {
                    self.folders.set_forgotten(id, false);
                    wanted.extend(
                        self.folders
                            .get(id)
                            .and_then(|folder| folder.remote.as_ref())
                            .map(|(number, _)| *number),
                    );
                    self.recall_local(id)?;
                }
                _ => {}
            }
        }
        if !wanted.is_empty() {
            self.link.request(Request::Manifests { folders: wanted });
            let known = self.set.loose[Side::Remote as usize]
                .iter()
                .map(|seen| seen.place.clone())
                .collect::<HashSet<_>>();
            let before = self.set.loose[Side::Remote as usize].len();
            self.take_manifests(&mut HashSet::new())?;
            // What was told as a change already is told again.
            let mut index = 0;
            self.set.loose[Side::Remote as usize].retain(|seen| {
                index += 1;
                index <= before || !known.contains(&seen.place)
            });
        }
        Ok(())
    }

    fn recall_local(&mut self, id: Fid) -> Result<(), Failure> {
        let Some((number, _)) = self.folders.get(id).and_then(|folder| folder.local.clone()) else {
            return Ok(());
        };
        let known: HashSet<Place> = self.set.loose[Side::Local as usize]
            .iter()
            .map(|seen| seen.place.clone())
            .collect();
        for change in self.local.manifest(number)? {
            let place = Place {
                folder: id,
                unique: change.unique.clone(),
                copy: change.copy,
            };
            if !known.contains(&place) {
                self.set
                    .fold(&self.archive, Side::Local, id, &change, true)?;
            }
        }
        Ok(())
    }

    /// Lets go of messages that lie in excluded folders only.
    fn drop_excluded(&mut self) {
        let (folders, filter) = (&self.folders, &self.account.filter);
        if filter.is_everything() {
            return;
        }
        let is_out = |folder: Fid| folders.scope(filter, folder) == Scope::Excluded;
        for loose in &mut self.set.loose {
            loose.retain(|seen| !is_out(seen.place.folder));
        }
        for index in 0..self.set.all.len() {
            let record = &self.set.all[index].record;
            let all_out = record.folders().all(is_out);
            if all_out && (record.base.is_some() || !record.is_empty()) {
                self.set.forget(index);
            }
        }
    }

    /// Two trees that have little in common are not joined without being asked.
    fn check_overlap(&self, singles: [usize; 2], paired: usize) -> Result<(), Failure> {
        let smaller = singles[0].min(singles[1]);
        if !self.is_first || self.account.adopt || smaller <= OVERLAP_FROM || paired * 2 >= smaller
        {
            return Ok(());
        }
        let mut lines = String::new();
        for (_, folder) in self.folders.iter() {
            let name = |side: Side| {
                folder
                    .on(side)
                    .map_or("-".to_owned(), |(_, name)| name.to_string())
            };
            lines.push_str(&format!(
                "\n  {} = {}",
                name(Side::Local),
                name(Side::Remote)
            ));
        }
        Err(Failure::Unsafe(format!(
            "Only {paired} of {smaller} messages are on both sides, so these may be different Maildirs; nothing was done. \
             Run again with --adopt to join them (nothing is deleted then). Folders here = there:{lines}"
        )))
    }

    /// Finds messages that are a proper beginning of what they were: that is damage, not an edit (§4).
    fn find_truncated(&mut self) -> Result<(), Failure> {
        let mut asked = Vec::new();
        let mut lines = Vec::new();
        for (index, work) in self.set.all.iter().enumerate() {
            for side in Side::BOTH {
                let (Some(base), Some(seen), Some(good)) = (
                    &work.record.base,
                    work.record.seen(side),
                    work.record.seen(side.other()),
                ) else {
                    continue;
                };
                let is_shorter = seen.entry.digest != base.digest && seen.entry.size < base.size;
                if !is_shorter
                    || seen.entry.damaged
                    || seen.entry.flags().contains(b'D')
                    || good.entry.digest != base.digest
                {
                    continue;
                }
                let at = self.at(side.other(), &good.place);
                lines.push(Prefix {
                    at,
                    digest: base.digest,
                    length: seen.entry.size,
                });
                asked.push((index, side, seen.entry.digest));
            }
        }
        let digests = self.prefixes(&asked, lines)?;
        for ((index, side, digest), prefix) in asked.into_iter().zip(digests) {
            if prefix == Some(digest) {
                self.set.mark_damaged(index, side);
            }
        }
        Ok(())
    }

    /// Asks whoever holds the good version what its first bytes digest to.
    fn prefixes(
        &mut self,
        asked: &[(usize, Side, Digest)],
        lines: Vec<Prefix>,
    ) -> Result<Vec<Option<Digest>>, Failure> {
        let (mut remote, mut answers) = (Vec::new(), Vec::new());
        let bodies = self.local.bodies()?;
        for ((_, side, _), line) in asked.iter().zip(lines) {
            answers.push(match side {
                Side::Local => {
                    remote.push(line);
                    None
                }
                Side::Remote => {
                    let located = self
                        .local
                        .locate(&[(&line.at, &line.digest)])?
                        .pop()
                        .flatten();
                    located.and_then(|located| bodies.prefix(&located, line.length).ok().flatten())
                }
            });
        }
        let mut told = Vec::new();
        for lines in protocol::codec::batches(remote) {
            self.link.request(Request::Prefixes(lines));
            match self.link.response()? {
                Response::Prefixes(digests) => told.extend(digests),
                other => return Err(unexpected(&other).into()),
            }
        }
        let mut told = told.into_iter();
        for ((_, side, _), answer) in asked.iter().zip(&mut answers) {
            if *side == Side::Local {
                *answer = told.next().flatten();
            }
        }
        Ok(answers)
    }

    /// A place as a side names it now.
    #[must_use]
    pub fn at(&self, side: Side, place: &Place) -> protocol::message::At {
        let folder = self
            .folders
            .get(place.folder)
            .and_then(|folder| folder.on(side))
            .map(|(_, name)| name.clone());
        protocol::message::At {
            folder: folder.unwrap_or_else(|| self.folders.name(place.folder)),
            unique: place.unique.clone(),
            copy: place.copy,
        }
    }

    /// Stores what planning changed, before anything of it is carried out: a message that was split in two must not be
    /// one again after a kill.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn store_changed(&mut self) -> Result<(), Failure> {
        if self.is_first || self.set.all.iter().all(|work| !work.is_dirty) {
            return Ok(());
        }
        self.archive.begin()?;
        for index in 0..self.set.all.len() {
            if self.set.all[index].is_dirty {
                self.set.store(&self.archive, index)?;
            }
        }
        Ok(self.archive.commit()?)
    }

    /// Stores what was observed, with the cursors that cover it, in one transaction.
    ///
    /// A first sync stores its messages as they are transferred, and keeps cursors at the journals' beginning until its
    /// end: interrupted, the next run hears everything again and pairs what has arrived.
    fn store(&mut self, remote: Cursor) -> Result<(), Failure> {
        let is_resumable = self.is_first;
        for index in 0..self.set.all.len() {
            let work = &self.set.all[index];
            let is_new = work.record.base.is_none() && work.record.is_single();
            if work.is_dirty && !(is_resumable && is_new) {
                self.set.store(&self.archive, index)?;
            }
        }
        self.folders.save(&self.archive)?;
        let number = |cursor: Cursor| Cursor {
            number: if is_resumable { 0 } else { cursor.number },
            ..cursor
        };
        self.archive.set("local_cursor", &number(self.told))?;
        self.archive.set("remote_cursor", &number(remote))?;
        for (id, ..) in self.archive.asked()? {
            self.archive.answered(id)?;
        }
        self.archive.commit()?;
        Ok(())
    }
}

/// A Maildir is not synced with itself, nor with one inside it.
fn refuse_overlap(account: &Account) -> Result<(), Failure> {
    let Address::Local(remote) = &account.remote else {
        return Ok(());
    };
    let real = |path: &std::path::Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (here, there) = (real(&account.local), real(remote));
    if here == there {
        return Err(Failure::Usage(format!(
            "{here:?} is both sides; name two Maildirs"
        )));
    }
    if here.starts_with(&there) || there.starts_with(&here) {
        return Err(Failure::Usage(format!(
            "{here:?} and {there:?} lie one inside the other; name two separate Maildirs"
        )));
    }
    Ok(())
}

/// An empty directory that stands for a root that is not there yet while a dry run looks at it.
struct Stand {
    dir: std::path::PathBuf,
}

impl Stand {
    fn make() -> Result<Stand, Failure> {
        let dir = std::env::temp_dir().join(format!("maildir-sync-{}", std::process::id()));
        std::fs::create_dir(&dir).map_err(|source| maildir::Error::Io {
            what: "make",
            path: dir.clone(),
            source,
        })?;
        Ok(Stand { dir })
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.dir); // It is empty, and the system clears its own directory anyway.
    }
}

fn open_local(
    account: &Account,
    hint: Option<Pair>,
    direction: Direction,
) -> Result<(Replica, Option<Stand>), Failure> {
    let makes_root = direction != Direction::Push && hint.is_none();
    let stand = if account.dry_run && makes_root && !account.local.exists() {
        Some(Stand::make()?)
    } else {
        None
    };
    let root = stand
        .as_ref()
        .map_or_else(|| account.local.clone(), |stand| stand.dir.clone());
    let options = Options {
        root,
        state_dir: account.state_dir.clone(),
        trash_dir: None,
        trash_days: u64::from(account.trash_days),
        client: client_name(),
        dry_run: account.dry_run,
        checksum: account.checksum,
        expect: hint.map(|pair| pair.local),
        adopt: account.adopt,
        create: direction != Direction::Push && !account.dry_run,
        layout: Setting {
            style: account.layout.map(|layout| match layout {
                Layout::MaildirPlusPlus => Style::MaildirPlusPlus,
                Layout::Nested => Style::Nested,
            }),
            encoding: account.folder_names.map(|names| match names {
                FolderNames::Utf8 => Encoding::Utf8,
                FolderNames::Utf7 => Encoding::Utf7,
            }),
        },
    };
    Ok((Replica::open(options)?, stand))
}

/// Who we are, for the trash's log at the other end; nothing is decided by it.
fn client_name() -> String {
    let name = rustix::system::uname().nodename().to_bytes().to_vec();
    protocol::bytes::escape(&name[..name.len().min(64)])
}

fn hello(
    account: &Account,
    hint: Option<Pair>,
    cursor: Option<Cursor>,
    asked: Vec<BatchId>,
) -> Result<Hello, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let path = match &account.remote {
        Address::Ssh { path, .. } => path.as_os_str().as_bytes(),
        Address::Local(path) => path.as_os_str().as_bytes(),
    };
    Ok(Hello {
        versions: protocol::handshake::VERSIONS,
        features: 0,
        path: PathBytes::new(path).map_err(|error| Failure::Usage(error.to_string()))?,
        client: client_name(),
        expect: hint.map(|pair| pair.remote),
        cursor,
        dry_run: account.dry_run,
        checksum: account.checksum,
        adopt: account.adopt,
        asked,
    })
}
