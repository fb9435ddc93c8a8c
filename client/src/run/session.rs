//! Opening a run: both replicas, the archive that belongs to them, and what changed on either side.
//!
//! Order matters for the time it takes: the agent is started first and scans while this side does. Ends with a working
//! set that holds everything that is not agreed, or a part of a long list, stored together with the cursors that cover it
//! (`docs/state.md`).

use std::collections::{HashMap, HashSet};

use maildir::{Lock, Scan};
use protocol::message::{Hello, ROUNDS, Welcome};
use protocol::{Cursor, Digest};

use crate::archive::Archive;
use crate::config::Account;
use crate::endpoint::Endpoint;
use crate::endpoint::link::Link;
use crate::endpoint::local::Local;
use crate::endpoint::transport::ConnectOptions;
use crate::merge::agreed::Stored;
use crate::merge::fold::WorkSet;
use crate::merge::folders::Folders;
use crate::merge::letters::Letters;
use crate::merge::plan::Direction;
use crate::merge::record::{Place, Side, Taken};
use crate::report::heading::Heading;
use crate::report::progress::Progress;
use crate::report::skipped::Skipped;
use crate::run::failure::Failure;
use crate::run::kept::{Kept, Resting};
use crate::run::known::{self, Pair};

mod answers;
mod exclude;
mod lists;
mod observe;
mod open;

use lists::{List, PARTS_UNTIL};
pub(crate) use open::keeps_state_inside;
use open::{Before, Expected, PlaceholderRoot, reach, refuse_overlap};

/// A run whose both sides are reached.
pub struct Session<'a> {
    /// What is synced.
    pub account: &'a Account,
    /// The replica here.
    pub local: Local,
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
    pub skipped: Vec<Skipped>,
    /// Bodies that each side has part of, and how many bytes.
    pub partials: [HashMap<Digest, u64>; 2],
    /// What was deleted or replaced on each side in the last 24 hours, by any client, that counts for the guard.
    pub deleted_lately: [u64; 2],
    /// How many messages are missing on each side and may not be called gone: a place that cannot be read, among the
    /// skipped with `holds`, or a busy tree.
    pub held: [u64; 2],
    /// Nothing was agreed before this run.
    pub is_first: bool,
    /// What people should know.
    pub notes: Vec<String>,
    /// How many messages were agreed on as they were reported.
    paired_at_once: usize,
    direction: Direction,
    scan: Scan,
    /// Up to which number this side's journal is taken in, and up to which it is merged.
    listed_to: u64,
    merged_to: u64,
    /// Behind which number its list comes in one piece.
    parts_until: u64,
    /// How many messages this side's list has after that.
    unlisted: u64,
    /// The list that is not taken in to its end.
    rest: Option<List>,
    /// Whether a part of it was merged before.
    is_continued: bool,
    /// What was tried with earlier parts and is pending still.
    failed: HashSet<i64>,
    /// What the local replica promised: the cursor of all that its journal held then.
    pub(crate) promised: Cursor,
    _placeholder: Option<PlaceholderRoot>,
    _lock: Option<Lock>,
}

impl<'a> Session<'a> {
    /// Opens both sides; what they report is taken in by [`Session::stream`] and [`Session::observe`]. With a connection that was
    /// kept, this is the round that waits on it: nothing where neither side has anything new. `before` is called before it begins,
    /// while nothing is locked.
    ///
    /// # Errors
    /// When a side cannot be reached or used, or going on could delete mail.
    pub fn open(
        account: &'a Account,
        direction: Direction,
        options: &ConnectOptions,
        progress: &Progress,
        mut kept: Option<&mut Kept>,
        before: Before,
    ) -> Result<Option<Session<'a>>, Failure> {
        refuse_overlap(account)?;
        let reached = reach(account, direction, options, progress, &mut kept, before)?;
        let Some((mut expected, (link, welcome, scan))) = reached else {
            return Ok(None);
        };
        let pair = Pair {
            local: expected.local.lock().id(),
            remote: welcome.replica,
        };
        if expected.is_known_elsewhere(pair) {
            // Ask again, now with its cursor.
            known::remember(account, pair)?;
            drop((link, expected));
            let asked = &mut || Ok(());
            return Session::open(account, direction, options, progress, kept, asked);
        }
        let (archive, notes) = expected.archive_of(pair, &welcome)?;
        let Expected {
            local,
            placeholder,
            lock,
            ..
        } = expected;
        let promised = local.lock().promise()?;
        let session = Session {
            account,
            deleted_lately: [0; 2],
            held: [0; 2],
            local,
            link,
            welcome,
            is_first: archive.is_empty()?,
            set: WorkSet::default(),
            folders: Folders::load(&archive, account.setting())?,
            archive,
            skipped: Vec::new(),
            partials: Default::default(),
            notes,
            paired_at_once: 0,
            direction,
            scan,
            listed_to: 0,
            merged_to: 0,
            parts_until: 0,
            unlisted: 0,
            rest: None,
            is_continued: false,
            failed: HashSet::new(),
            promised,
            _placeholder: placeholder,
            _lock: lock,
        };
        if !account.dry_run {
            known::remember(account, pair)?;
        }
        Ok(Some(session))
    }

    /// Ends a run whose both sides are through: the connection is closed, or rests until the next round. Returns the bytes that were
    /// sent and received.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn end(self, kept: Option<&mut Kept>) -> Result<(u64, u64), Failure> {
        let Some(kept) = kept.filter(|_| self.welcome.features & ROUNDS != 0) else {
            return Ok(self.link.close());
        };
        let bytes = self.link.bytes();
        let pair = Pair {
            local: self.local.lock().id(),
            remote: self.welcome.replica,
        };
        let cursor = self.archive.get::<Cursor>("remote_cursor")?;
        let hello = Hello {
            features: ROUNDS,
            ..open::hello(self.account, Some(pair), cursor)?
        };
        kept.resting = Some(Resting::new(self.link, hello));
        Ok(bytes)
    }

    /// Whether all of both lists is taken in.
    #[must_use]
    pub fn is_through(&self) -> bool {
        self.rest.is_none()
    }

    /// Takes in that a part was carried out: what was deleted on the other side with it, and what it could not do.
    pub fn end_part(&mut self, deleted: u64) {
        self.deleted_lately[Side::Remote as usize] += deleted;
        let pending = self.set.all.iter().filter_map(|work| match work.stored {
            Stored::Pending(id) if work.record.local.is_some() => Some(id),
            Stored::Pending(_) | Stored::Agreed(_) | Stored::Nowhere => None,
        });
        self.failed.extend(pending);
    }

    /// Whether what was taken in last is a further part of a long list.
    #[must_use]
    pub fn is_continued(&self) -> bool {
        self.is_continued
    }

    /// How far this side's journal is taken in.
    #[must_use]
    pub fn listed(&self) -> Cursor {
        Cursor {
            number: self.listed_to,
            ..self.promised
        }
    }

    /// How many messages of a long list are still to be taken in.
    #[must_use]
    pub fn unlisted(&self) -> u64 {
        self.unlisted
    }

    /// The replica of a side.
    pub fn endpoint(&mut self, side: Side) -> &mut dyn Endpoint {
        match side {
            Side::Local => &mut self.local,
            Side::Remote => &mut self.link,
        }
    }

    /// A place as a side names it now.
    #[must_use]
    pub fn at(&self, side: Side, place: &Place) -> protocol::message::At {
        self.folders.at(side, place, &HashSet::new())
    }

    /// What a message of the working set says of itself, where its file lies here.
    #[must_use]
    pub fn heading(&self, index: usize) -> Option<Heading> {
        let seen = self.set.all[index].record.local.as_ref()?;
        let at = self.at(Side::Local, &seen.place);
        let path = self.local.lock().file_path(&at).ok()??;
        Heading::read(&path)
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
    /// A first sync stores its messages as they are transferred, and keeps cursors where they were until then: interrupted, the
    /// next run takes in everything after them again and pairs what has arrived.
    fn store(&mut self, remote: Option<Cursor>) -> Result<(), Failure> {
        let is_resumable = self.is_first;
        for index in 0..self.set.all.len() {
            let work = &self.set.all[index];
            let is_new = work.record.base.is_none() && work.record.is_single();
            if work.is_dirty && !(is_resumable && is_new) {
                self.set.store(&self.archive, index)?;
            }
        }
        self.folders.save(&self.archive)?;
        self.set.letters.prune(&self.folders);
        let letters = self.set.letters.stored();
        if self.archive.get::<Letters>("letters")?.unwrap_or_default() != letters {
            self.archive.set("letters", &letters)?;
        }
        if !self.set.taken.is_empty() {
            self.archive.set("taken", &HashSet::<Taken>::new())?;
        }
        let mut local = self.listed();
        if is_resumable {
            local.number = self.merged_to;
        }
        self.archive.set("local_cursor", &local)?;
        if is_resumable && !self.is_through() && !self.is_continued {
            self.archive.set(PARTS_UNTIL, &self.promised)?;
        }
        if let Some(mut remote) = remote {
            if is_resumable {
                remote.number = 0;
            }
            self.archive.set("remote_cursor", &remote)?;
        }
        for (id, ..) in self.archive.asked()? {
            self.archive.answered(id)?;
        }
        self.archive.commit()?;
        Ok(())
    }
}
