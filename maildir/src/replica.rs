//! One replica: a Maildir, its marker, its index and its trash, behind one face.
//!
//! Knows nothing of peers, connections or merging. Calls block; the caller chooses the thread. The root is locked while it
//! is scanned and while a batch is applied, never in between (I8).

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::{Cursor, IndexId, Op, Outcome, ReplicaId, Tag};

use crate::apply::apply;
use crate::apply::site::Site;
use crate::body::Body;
use crate::discover::{discover, follow_links};
use crate::error::{Context, Result};
use crate::inbox::Inbox;
use crate::index::Index;
use crate::listing::subdir;
use crate::lock::Lock;
use crate::marker::Marker;
use crate::partial::Partials;
use crate::private;
use crate::random::random;
use crate::recover::recover;
use crate::relaxed::{self, may_be_torn, remove_torn};
use crate::root::{Root, join};
use crate::scan::{PATIENCE_NS, Scan, Scanner, grain_ns};
use crate::trash::{Trash, expire};

mod find;
mod place;
mod tags;
pub(crate) use place::check_nothing_below;
use place::{
    check_is_maildir, check_nothing_above, check_trash_is_outside, prepare_root, unsafe_root,
};

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
    pub(crate) told: u64,
    /// Writes those bodies into `tmp` that come with their batch.
    inbox: Inbox,
    partials: Partials,
    has_applied: bool,
    /// The number of the newest row that was streamed, and the last one before somebody else wrote between them.
    pub(crate) streamed: u64,
    pub(crate) foreign: Option<u64>,
    /// How many messages the next group of a stream may have.
    pub(crate) group_files: usize,
    /// The folders that were made in this run: the client does not know their numbers yet.
    made: BTreeSet<u32>,
}

impl Replica {
    /// Opens a replica: checks that the root is the expected one, reads or makes its marker, and finds the index that
    /// belongs to it.
    ///
    /// # Errors
    /// [`Error::Unsafe`] when a known root is missing, emptied or without its marker; [`Error::Usage`] when the path is
    /// no Maildir; else what the system said.
    pub fn open(options: Options) -> Result<Replica> {
        let path = &options.root;
        check_nothing_above(path)?;
        let made_root = prepare_root(&options)?;
        check_trash_is_outside(&options)?;
        // Two runs must not make a marker at once.
        let _lock = lock(path)?;
        let mut root = Root::open(path)?;
        if options.follow_links {
            follow_links(&mut root).context("look at", path)?;
        }
        let found = Marker::read(&root)?;
        let is_fresh = found.is_none();
        let marker = match found {
            Some(marker) => marker,
            None if options.expect.is_some() && !options.adopt => {
                return Err(unsafe_root(path, "has no marker"));
            }
            None => {
                check_is_maildir(&root)?;
                Marker::new(ReplicaId(random()?), Vec::new())
            }
        };
        if is_fresh && !options.dry_run {
            marker.save(&root)?;
        }
        let state = options
            .state_dir
            .join("replicas")
            .join(marker.id.to_string());
        let index = open_index(&options, &marker, &state)?;
        let trash_dir = options
            .trash_dir
            .clone()
            .unwrap_or_else(|| state.join("trash"));
        let trash = Trash::new(trash_dir, options.client.clone());
        let partials = Partials::new(state.join("partial"));
        let root = Arc::new(root);
        let inbox = Inbox::new(Arc::clone(&root), records_in(&state));
        Ok(Replica {
            options,
            root,
            marker,
            index,
            trash,
            state,
            is_fresh,
            made_root,
            tag: None,
            told: 0,
            inbox,
            partials,
            has_applied: false,
            streamed: 0,
            foreign: None,
            group_files: 0,
            made: BTreeSet::new(),
        })
    }

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

    /// Takes back a root that was made for a run which then came to nothing, and what is remembered of it.
    pub fn unmake(&self) {
        if !self.made_root {
            return;
        }
        let path = self.root.path();
        let removed = Marker::remove(&self.root)
            .and_then(|()| fs::remove_dir(path).context("remove", path))
            .and_then(|()| fs::remove_dir_all(&self.state).context("remove", &self.state));
        if let Err(error) = removed {
            tracing::debug!("{error}"); // It is empty, and does no harm.
        }
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

    /// Gives a tree that was copied with its marker an id of its own; must come before anything else is done with it.
    ///
    /// # Errors
    /// When the marker cannot be written or the new index cannot be made.
    pub fn renew_id(&mut self) -> Result<()> {
        let marker = Marker::new(ReplicaId(random()?), self.marker.tags().to_vec());
        if !self.options.dry_run {
            {
                let _lock = self.lock()?;
                marker.save(&self.root)?;
            }
            *self = Replica::open(Options {
                expect: None,
                ..self.options.clone()
            })?;
            return Ok(());
        }
        (self.marker, self.is_fresh) = (marker, true);
        Ok(())
    }

    fn lock(&self) -> Result<Option<Lock>> {
        lock(self.root.path())
    }

    /// Looks at the tree and brings the index up to date.
    ///
    /// # Errors
    /// When the index fails, the lock cannot be taken, or the tree has lost its INBOX.
    pub fn scan(&mut self) -> Result<Scan> {
        let _lock = self.lock()?;
        if !self.options.dry_run {
            self.recover()?;
            relaxed::flush(&self.state, &self.index)?;
        }
        self.scan_locked(self.options.checksum)
    }

    fn scan_locked(&mut self, checksum: bool) -> Result<Scan> {
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
        let scan = Scanner::new(&self.root, &self.index, checksum, adopt)?.run(&mut spot)?;
        if !self.options.dry_run
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
    pub fn apply(&mut self, ops: &[Op], bodies: Vec<io::Result<Body>>) -> Result<Vec<Outcome>> {
        let _lock = self.lock()?;
        if self.tag.is_none()
            && let Err(error) = self.append_tag()
        {
            let why = error.full()?;
            return Ok(vec![Outcome::Full { why }; ops.len()]);
        }
        let before = self.index.number()?;
        self.has_applied = true;
        let outcomes = {
            let _whole = self.index.whole();
            let mut site = Site::new(&self.root, &mut self.inbox, &mut self.trash);
            apply(&self.index, &mut self.made, &mut site, ops, bodies)?
        };
        // The client knows its own changes, but must not be taken past somebody else's that it was not told of.
        if before == self.told {
            self.told = self.index.number()?;
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
        if self.has_applied {
            let _lock = self.lock()?;
            // A directory that changed within the clock's grain proves nothing, so the grain is waited for where it is
            // short; no event tells of its end.
            let grain = grain_ns(&self.root);
            if grain < PATIENCE_NS {
                std::thread::sleep(Duration::from_nanos(grain.unsigned_abs()));
            }
            self.scan_locked(false)?;
            if let Err(error) = self.vouch() {
                error.full()?;
                // Then what no tag vouches for is told once more, when there is room.
                let vouched = self.index.newest_tag()?.map_or(0, |(_, number)| number);
                self.told = self.told.min(vouched);
            }
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

/// Opens the index of a replica; where it is of another tree it is made anew.
fn open_index(options: &Options, marker: &Marker, state: &Path) -> Result<Index> {
    let path = state.join("index.db");
    let id = IndexId(random()?);
    let index = if options.dry_run {
        Index::temporary(&path, || id)?
    } else {
        private::make_dirs(state)?;
        if may_be_torn(state) {
            remove_torn(state, &path)?;
        }
        private::prepare_database(&path)?;
        Index::open(&path, || id)?
    };
    let newest = index.newest_tag()?;
    if newest.is_some_and(|(tag, _)| !marker.lists(tag)) {
        let root = &options.root;
        tracing::info!("{root:?} is not the tree that its index knows; the index is made anew");
        index.reset(IndexId(random()?))?;
    }
    Ok(index)
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
