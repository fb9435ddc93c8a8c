//! One replica: a Maildir, its marker, its index and its trash, behind one face.
//!
//! Knows nothing of peers, connections or merging. Calls block; the caller chooses the thread. The root is locked while it
//! is scanned and while a batch is applied, never in between (I8).

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::{Cursor, Op, Outcome, ReplicaId, Tag};

use crate::apply::apply;
use crate::apply::site::Site;
use crate::discover::discover;
use crate::error::{Context, Result};
use crate::granularity::{PATIENCE_NS, granularity_ns};
use crate::inbox::Inbox;
use crate::index::Index;
use crate::lock::Lock;
use crate::marker::Marker;
use crate::partial::Partials;
use crate::path::{join, subdir};
use crate::private;
use crate::recover::recover;
use crate::relaxed;
use crate::root::Root;
use crate::scan::Scan;
use crate::scanner::Scanner;
use crate::touched::Touched;
use crate::trash::{Trash, expire};
use crate::written::Written;

mod find;
mod open;
mod place;
mod tags;

/// How long a run waits for another one that scans or applies a batch.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// How a replica is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Maildir.
    pub root: PathBuf,
    /// The directory that holds the state of all replicas.
    pub state_dir: PathBuf,
    /// Another place for the trash.
    pub trash_dir: Option<PathBuf>,
    /// How long the trash keeps what it got, in days.
    pub trash_days: u64,
    /// Who makes changes, for the trash's log.
    pub client: String,
    /// Write nothing at all.
    pub dry_run: bool,
    /// Trust no cached digest.
    pub checksum: bool,
    /// The replica that was synced here before, if any.
    pub expect: Option<ReplicaId>,
    /// Take the tree as it is, even if it is not the expected one.
    pub adopt: bool,
    /// Make the root if it is not there.
    pub create: bool,
    /// Follow symbolic links to folders, wherever they lead.
    pub follow_links: bool,
}

/// An open replica.
pub struct Replica {
    options: Options,
    root: Arc<Root>,
    marker: Marker,
    pub(crate) index: Index,
    trash: Trash,
    state: PathBuf,
    is_fresh: bool,
    made_root: bool,
    tag: Option<Tag>,
    pub(crate) reported: u64,
    /// Writes those bodies into `tmp` that come with their batch.
    inbox: Inbox,
    partials: Partials,
    /// When the last batch ended, and what all of them touched.
    applied_at: Option<Instant>,
    /// Somebody watches the tree.
    is_watched: bool,
    touched: Touched,
    /// How far a stream has come.
    pub(crate) streaming: Streaming,
    /// The folders that were made in this run: the client does not know their numbers yet.
    made: BTreeSet<u32>,
}

/// How far a stream has come, from its beginning on.
#[derive(Default)]
pub(crate) struct Streaming {
    /// The number of the newest row that was streamed.
    pub(crate) newest: u64,
    /// The last number before somebody else wrote, if anybody has.
    pub(crate) foreign_from: Option<u64>,
    /// How many messages the next group may have.
    pub(crate) group_files: usize,
}

impl Streaming {
    /// Takes in how far the index has come: behind what was streamed, somebody else wrote.
    pub(crate) fn meet(&mut self, number: u64) {
        if number != self.newest {
            self.foreign_from.get_or_insert(self.newest);
        }
    }
}

impl Replica {
    /// The replica's id.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.marker.id
    }

    /// Whether the root had no marker until now.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// The root's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Whether any message lies in the tree; what cannot be looked at may hold some.
    #[must_use]
    pub fn holds_messages(&self) -> bool {
        let found = discover(&self.root, &HashMap::new());
        let is_empty = |dir: &[u8]| match self.root.list(dir) {
            Ok(listed) => listed.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        let dirs = found
            .folders
            .iter()
            .flat_map(|folder| [true, false].map(|in_new| join(&folder.dir, &[subdir(in_new)])));
        !found.errors.is_empty() || dirs.into_iter().any(|dir| !is_empty(&dir))
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn adopts(&self) -> bool {
        self.options.adopt
    }

    fn lock(&self) -> Result<Option<Lock>> {
        lock(self.root.path())
    }

    /// Looks at the tree and brings the index up to date.
    ///
    /// # Errors
    /// When the index fails, the lock cannot be taken, or the tree has lost its INBOX.
    pub fn scan(&mut self) -> Result<Scan> {
        self.look_at(true, &BTreeSet::new())
    }

    /// The same for somebody who watches the tree; whether with the slice of all files, which a run of its own looks at. These files are said
    /// to have been written to: paths below the root. What is being written is left alone, here and by [`Replica::settle`].
    ///
    /// # Errors
    /// Like [`Replica::scan`].
    pub fn look(&mut self, has_slice: bool, written: &BTreeSet<Vec<u8>>) -> Result<Scan> {
        self.is_watched = true;
        self.look_at(has_slice, written)
    }

    fn look_at(&mut self, has_slice: bool, written: &BTreeSet<Vec<u8>>) -> Result<Scan> {
        let _lock = self.lock()?;
        if !self.options.dry_run {
            self.recover()?;
            relaxed::flush(&self.state, &self.index)?;
        }
        self.scan_locked(self.options.checksum, has_slice, written)
    }

    fn scan_locked(
        &mut self,
        checksum: bool,
        has_slice: bool,
        written: &BTreeSet<Vec<u8>>,
    ) -> Result<Scan> {
        let _whole = self.index.whole();
        let file_system = self
            .root
            .file_system()
            .context("look at", self.root.path())?;
        if self
            .index
            .file_system()?
            .is_some_and(|known| known != file_system)
        {
            self.index.begin()?;
            self.index.distrust_stamps()?;
        }
        if self.index.file_system()? != Some(file_system) {
            self.index.begin()?;
            self.index.set_meta("file_system", file_system)?;
        }
        let spot_path = self.state.join("spot");
        let mut spot = fs::read_to_string(&spot_path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        let adopt = self.options.adopt;
        let mut scanner = Scanner::new(&self.root, &self.index, checksum, adopt)?;
        scanner.is_watched = self.is_watched;
        let scan = scanner.run(has_slice.then_some(&mut spot), written)?;
        if has_slice
            && !self.options.dry_run
            && let Err(error) = private::write(&spot_path, spot.to_string().as_bytes())
        {
            tracing::debug!("Cannot remember where the spot check was: {error}"); // It begins anew, that is all.
        }
        Ok(scan)
    }

    /// A way to bring bodies into `tmp` before their batch is carried out. They may fill the disk, so the tag comes first:
    /// what needs no room is carried out all the same.
    ///
    /// # Errors
    /// When the marker cannot be written, or the lock cannot be taken.
    pub fn inbox(&mut self) -> Result<Inbox> {
        if self.tag.is_none() {
            let _lock = self.lock()?;
            self.append_tag()?;
        }
        let root = Arc::clone(&self.root);
        Ok(Inbox::new(root, records_in(&self.state)))
    }

    /// The large bodies that broke off.
    #[must_use]
    pub fn partials(&self) -> Partials {
        self.partials.clone()
    }

    /// Carries out a batch; `bodies` has one entry for each operation whose bytes come from outside, in order.
    /// Where the disk has no room for the run's tag, nothing is done.
    ///
    /// # Errors
    /// When the index, the marker or the trash's log fails, or the lock cannot be taken; the next scan puts in order
    /// what was begun.
    pub fn apply(&mut self, ops: &[Op], bodies: Vec<io::Result<Written>>) -> Result<Vec<Outcome>> {
        let _lock = self.lock()?;
        if self.tag.is_none()
            && let Err(error) = self.append_tag()
        {
            let why = error.full()?;
            return Ok(vec![Outcome::Full { why }; ops.len()]);
        }
        let before = self.index.number()?;
        self.touched.expect(&self.root, &self.index, ops)?;
        let outcomes = {
            let _whole = self.index.whole();
            let mut site = Site::new(&self.root, &mut self.inbox, &mut self.trash);
            apply(&self.index, &mut self.made, &mut site, ops, bodies)
        };
        self.applied_at = Some(Instant::now());
        let outcomes = outcomes?;
        // The client knows its own changes, but must not be taken past somebody else's that was not reported to it.
        if before == self.reported {
            self.reported = self.index.number()?;
        }
        Ok(outcomes)
    }

    /// Puts in order what dead runs left.
    pub(crate) fn recover(&mut self) -> Result<()> {
        let _whole = self.index.whole();
        let mut site = Site::new(&self.root, &mut self.inbox, &mut self.trash);
        recover(&self.index, &mut site, &records_in(&self.state))
    }

    /// Ends a run: looks once more at what it changed, so that the next one need not, vouches for it in the marker, and
    /// clears the trash of what is too old. Returns how far the client knows the replica.
    ///
    /// # Errors
    /// When the index or the marker cannot be written.
    pub fn settle(&mut self) -> Result<Cursor> {
        if let Some(applied_at) = self.applied_at {
            let _lock = self.lock()?;
            self.look_again(applied_at)?;
            if let Err(error) = self.vouch() {
                error.full()?;
                // Then what no tag vouches for is reported once more, when there is room.
                let vouched = self.index.newest_tag()?.map_or(0, |(_, number)| number);
                self.reported = self.reported.min(vouched);
            }
            self.index.commit()?; // What no tag took along.
            let clock = self.index.clock()?;
            self.index.prune(&clock)?;
            let trash = self.trash_dir();
            if let Err(error) = expire(&trash, self.options.trash_days, &clock) {
                tracing::warn!("Cannot clear the trash {trash:?}: {error}"); // It is done when it can be.
            }
            self.partials().expire();
            self.root.clear_asides();
        }
        self.cursor()
    }

    /// Sees to it that the next run need not read what this one has changed. Leaves a transaction open.
    fn look_again(&mut self, applied_at: Instant) -> Result<()> {
        let touched = std::mem::take(&mut self.touched);
        let settled = touched.settle(&self.root, &self.index);
        if settled.inspect_err(|_| self.index.rollback())? {
            return Ok(());
        }
        self.index.commit()?;
        // A directory that changed within the clock's granularity proves nothing, so the granularity is waited for where it is short;
        // no event announces its end.
        let granularity_ns = granularity_ns(&self.root);
        if granularity_ns < PATIENCE_NS {
            let granularity = Duration::from_nanos(granularity_ns.unsigned_abs());
            std::thread::sleep(granularity.saturating_sub(applied_at.elapsed()));
        }
        self.scan_locked(false, true, &BTreeSet::new()).map(drop)
    }

    fn trash_dir(&self) -> PathBuf {
        self.options
            .trash_dir
            .clone()
            .unwrap_or_else(|| self.state.join("trash"))
    }
}

/// Where it is recorded into which `tmp` bodies are written.
fn records_in(state: &Path) -> PathBuf {
    state.join("incoming")
}

pub(crate) fn lock(root: &Path) -> Result<Option<Lock>> {
    let busy = format!("Another run is busy in {root:?}; try again later");
    Lock::take_dir(root, LOCK_PATIENCE, &busy)
}

/// A replica of `mail` in a directory, with its state beside it.
#[cfg(test)]
pub(crate) fn open_for_test(root: &Path, state: &str) -> Replica {
    let options = Options {
        root: root.join("mail"),
        state_dir: root.join(state),
        trash_dir: None,
        trash_days: 30,
        client: "test".to_owned(),
        dry_run: false,
        checksum: false,
        expect: None,
        adopt: false,
        create: true,
        follow_links: false,
    };
    Replica::open(options).expect("it opens")
}
