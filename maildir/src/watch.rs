//! Watching a replica's tree: when to look, and where.
//!
//! Events never decide anything, they only shorten the wait for a look at the disk. Where they cannot be had, the wait is an
//! interval. [`Watcher`] is all of it; [`Debounce`] says when a round begins. Must never read or write mail, nor know who asks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use notify::{ErrorKind, Event, EventHandler, INotifyWatcher, RecursiveMode, Watcher as _};
use protocol::FolderDir;
use rustix::fs::inotify::CreateFlags;
use rustix::io::Errno;

use crate::root::Root;

mod debounce;
mod heard;
mod keeper;
mod limits;
mod tree;

pub use debounce::Debounce;

use heard::{Difference, Heard, Identity};
use keeper::Keeper;
use limits::Limit;

/// How long an event may take when watches are tried out.
const PROBE: Duration = Duration::from_secs(1);

/// How long a file must be left alone after it was written to: an editor that writes in place empties it first, and what is looked at
/// then is taken for damaged.
pub(crate) const WRITING: Duration = Duration::from_secs(2);

/// How often a tree is walked through anew because there was something new in it.
const WALKS_MAX: usize = 16;

/// How to watch.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Follow links to folders outside of the root.
    pub follow_links: bool,
    /// How often everything is to be looked at where there are no events.
    pub interval: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            follow_links: false,
            interval: Duration::from_secs(30),
        }
    }
}

/// How changes are noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The system tells of them.
    Events,
    /// Somebody has to look every so often.
    Polling {
        /// In one sentence, with the remedy if there is one.
        why: String,
    },
}

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nowhere.
    Nothing,
    /// In these folders' `cur` and `new`.
    Folders(BTreeSet<FolderDir>),
    /// Everywhere: folders came or went, events were lost, or there are none.
    Everything,
}

/// Watches the tree below one root, until it is dropped.
pub struct Watcher {
    root: PathBuf,
    options: Options,
    heard: Arc<Heard>,
    instance: Option<Instance>,
    mode: Mode,
    /// Why there are no events may be over by itself.
    may_pass: bool,
    keeper: Keeper,
    /// Files that were written to, and when that was heard last.
    written: BTreeMap<Vec<u8>, Instant>,
}

impl Watcher {
    /// Sets the watches: whatever changes after that is told. `wake` is called at each change of mail, and every interval in
    /// [`Mode::Polling`], on other threads and maybe within [`Watcher::take`]. It must not wait for anything, since dropping
    /// the watcher waits for it.
    ///
    /// Never fails: where the tree cannot be watched, [`Watcher::mode`] says why.
    #[must_use]
    pub fn new(root: PathBuf, options: Options, wake: Box<dyn Fn() + Send>) -> Watcher {
        let root = std::path::absolute(&root).unwrap_or(root);
        let heard = Arc::new(Heard::new(root.clone(), options.follow_links, wake));
        let mut watcher = Watcher {
            root,
            options,
            instance: None,
            mode: Mode::Events,
            may_pass: false,
            keeper: Keeper::new(Arc::clone(&heard)),
            written: BTreeMap::new(),
            heard,
        };
        watcher.set_anew();
        watcher
    }

    /// How changes are noticed from now on. It may be another way after each [`Watcher::take`] and [`Watcher::renew`].
    #[must_use]
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// What happened since the last call. New folders are watched before they are told of, so nothing falls in between.
    pub fn take(&mut self) -> Changed {
        let (news, now) = (self.heard.take(), Instant::now());
        let written = news.written.into_iter().map(|path| (path, now));
        self.written.extend(written);
        if news.is_lost || news.everything && self.may_pass {
            self.set_anew();
            return Changed::Everything;
        }
        if !news.moved.is_empty() {
            self.follow(&news.moved);
            return Changed::Everything;
        }
        match news.folders {
            _ if news.everything => Changed::Everything,
            folders if folders.is_empty() => Changed::Nothing,
            folders => Changed::Folders(folders),
        }
    }

    /// The files that were written to in place and have been left alone for a while since, as far as [`Watcher::take`] has come: paths
    /// below the root. The directories that hold them do not show it. Each is named once.
    pub fn take_written(&mut self, now: Instant) -> BTreeSet<Vec<u8>> {
        let is_due = |_: &Vec<u8>, at: &mut Instant| *at + WRITING <= now;
        self.written
            .extract_if(.., is_due)
            .map(|(path, _)| path)
            .collect()
    }

    /// When the next of them can be taken.
    #[must_use]
    pub fn written_due(&self) -> Option<Instant> {
        self.written.values().min().map(|&at| at + WRITING)
    }

    /// Sets all watches anew, whatever the mode was, and so finds out whether its reason is over. Everything has to be looked
    /// at afterwards.
    pub fn renew(&mut self) {
        self.heard.take();
        self.set_anew();
    }

    fn set_anew(&mut self) {
        self.instance = None;
        self.heard.forget();
        let instance = Instance::new(&self.heard);
        let instance = instance.and_then(|mut instance| {
            self.set(&mut instance)?;
            self.probe()?;
            Ok(instance)
        });
        self.go_on(instance);
    }

    /// Directories came or went.
    fn follow(&mut self, moved: &HashSet<Vec<u8>>) {
        let Some(mut instance) = self.instance.take() else {
            return;
        };
        self.heard.forget_moved(moved);
        let set = self.set(&mut instance);
        self.go_on(set.map(|()| instance));
    }

    fn go_on(&mut self, instance: Result<Instance, Unwatched>) {
        match instance {
            Ok(instance) => {
                self.instance = Some(instance);
                self.mode = Mode::Events;
                self.may_pass = false;
                self.keeper.look_every(None);
            }
            Err(Unwatched { why, may_pass }) => {
                self.heard.forget();
                self.mode = Mode::Polling { why };
                self.may_pass = may_pass;
                self.keeper.look_every(Some(self.options.interval));
            }
        }
    }

    /// Watches the tree as it is: once all that a walk found is watched, whatever comes later is told.
    fn set(&self, instance: &mut Instance) -> Result<(), Unwatched> {
        for _ in 0..WALKS_MAX {
            let root = Root::open(&self.root).and_then(|root| self.with_links(root));
            let root = root.map_err(|error| Unwatched::for_now(error.to_string()))?;
            let wanted = tree::directories(&root);
            if let Some((place, kind)) = tree::silent_place(&root, &wanted) {
                let why = format!("{place:?} lies on {kind}, which does not tell of all changes");
                return Err(Unwatched::for_good(why));
            }
            if !instance.set(&self.heard, &wanted)? {
                return Ok(());
            }
        }
        self.heard.lose();
        Ok(())
    }

    fn with_links(&self, root: Root) -> crate::Result<Root> {
        match self.options.follow_links {
            true => tree::with_links(root),
            false => Ok(root),
        }
    }

    /// Whether there are events at all: reading a directory makes one.
    fn probe(&self) -> Result<(), Unwatched> {
        let mut opened = Ok(());
        let is_told = self
            .heard
            .probe(PROBE, || opened = File::open(&self.root).map(drop));
        opened.map_err(|error| Unwatched::for_now(format!("{:?}: {error}", self.root)))?;
        if is_told {
            return Ok(());
        }
        let why = format!(
            "The system tells of nothing that happens in {:?}",
            self.root
        );
        Err(Unwatched::for_good(why))
    }
}

/// Why there are no events.
#[derive(Debug)]
struct Unwatched {
    why: String,
    /// Whether that may be over when it is time to look again.
    may_pass: bool,
}

impl Unwatched {
    fn for_now(why: String) -> Unwatched {
        let may_pass = true;
        Unwatched { why, may_pass }
    }

    fn for_good(why: String) -> Unwatched {
        let may_pass = false;
        Unwatched { why, may_pass }
    }
}

/// One inotify instance, and the thread that reads it.
struct Instance {
    notify: INotifyWatcher,
    /// Dropped last: it waits for the thread, which dropping the other tells to end.
    _thread: Ended,
}

struct Ended(Receiver<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Nothing is ever sent; the other end goes with the thread.
        let _ = self.0.recv();
    }
}

/// What the thread calls, and owns until it ends.
struct Ear {
    heard: Arc<Heard>,
    _ended: Sender<()>,
}

impl EventHandler for Ear {
    fn handle_event(&mut self, told: notify::Result<Event>) {
        self.heard.hear(told);
    }
}

impl Instance {
    fn new(heard: &Arc<Heard>) -> Result<Instance, Unwatched> {
        let (ended, thread) = channel();
        let ear = Ear {
            heard: Arc::clone(heard),
            _ended: ended,
        };
        let made = INotifyWatcher::new(ear, notify::Config::default());
        let notify = made.map_err(|error| {
            let is_full = |error: &io::Error| Errno::from_io_error(error) == Some(Errno::MFILE);
            Unwatched::for_good(match &error.kind {
                ErrorKind::Io(error) if is_full(error) && lacks_instances() => {
                    Limit::Instances.reached(1)
                }
                _ => format!("inotify cannot be used: {error}"),
            })
        })?;
        if thread.try_recv() == Err(TryRecvError::Disconnected) {
            // It would panic for want of its thread, even when dropped.
            std::mem::forget(notify);
            let why = "inotify cannot be used: no thread could be started";
            return Err(Unwatched::for_good(why.into()));
        }
        Ok(Instance {
            notify,
            _thread: Ended(thread),
        })
    }

    /// Watches these directories and no others; whether there was a new one.
    fn set(
        &mut self,
        heard: &Heard,
        wanted: &HashMap<Vec<u8>, Identity>,
    ) -> Result<bool, Unwatched> {
        let Difference { stale, missing } = heard.difference(wanted);
        // First: a directory that was renamed has one watch under both names.
        for path in stale {
            // It may have gone by itself.
            let _ = self.notify.unwatch(&heard.full(&path));
            heard.strike(&path);
        }
        let mut is_more = false;
        for (path, identity) in missing {
            heard.put_in(path.clone(), identity);
            let full = heard.full(&path);
            let Err(error) = self.notify.watch(&full, RecursiveMode::NonRecursive) else {
                is_more = true;
                continue;
            };
            heard.strike(&path);
            match &error.kind {
                ErrorKind::MaxFilesWatch => {
                    return Err(Unwatched::for_good(Limit::Watches.reached(wanted.len())));
                }
                _ if path.is_empty() => return Err(Unwatched::for_now(error.to_string())),
                ErrorKind::PathNotFound => {}
                ErrorKind::Io(error) if is_left_alone(error) => {}
                _ => return Err(Unwatched::for_good(error.to_string())),
            }
        }
        Ok(is_more)
    }
}

/// The very same error comes where this process has too many files open.
fn lacks_instances() -> bool {
    matches!(
        rustix::fs::inotify::init(CreateFlags::CLOEXEC),
        Err(Errno::MFILE)
    ) && File::open("/dev/null").is_ok()
}

/// A directory that has just gone, or that cannot be read anyway; the one above tells when that changes.
fn is_left_alone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

#[cfg(test)]
mod tests;
