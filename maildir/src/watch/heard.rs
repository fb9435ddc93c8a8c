//! What events say, collected until somebody asks. They say when and where to look, and decide nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind};
use protocol::FolderDir;

use crate::discover::{is_never_looked_into, is_ours};
use crate::path::split_path;

/// How many files that were written to are remembered until somebody asks.
const WRITTEN_MAX: usize = 1000;

/// A directory, whatever it is called: device and inode.
pub(super) type Identity = (u64, u64);

/// Shared by the threads that hear something and the one that asks.
pub(super) struct Heard {
    /// Absolute.
    root: PathBuf,
    follow_links: bool,
    state: Mutex<State>,
    wake: Mutex<Box<dyn Fn() + Send>>,
}

#[derive(Default)]
struct State {
    /// What is watched, by its path below the root. Never behind: it is put in before its watch is set.
    watched: HashMap<Vec<u8>, Identity>,
    news: News,
    /// Who waits for any event, also for one of a reader.
    probing: Option<Sender<()>>,
}

/// What happened since somebody asked last.
#[derive(Default)]
pub(super) struct News {
    /// Folders in which mail changed.
    pub(super) folders: BTreeSet<FolderDir>,
    /// Files that were written to: their paths below the root. No directory shows that.
    pub(super) written: BTreeSet<Vec<u8>>,
    /// Directories that came or went: what is at or below these paths is watched no more, or something else is.
    pub(super) moved: HashSet<Vec<u8>>,
    /// Everything is to be looked at.
    pub(super) everything: bool,
    /// All watches are to be set anew.
    pub(super) is_lost: bool,
}

/// What is watched and should not be, and what should be and is not.
pub(super) struct Difference {
    pub(super) stale: Vec<Vec<u8>>,
    pub(super) missing: Vec<(Vec<u8>, Identity)>,
}

/// What one event says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Mail(FolderDir),
    Written(FolderDir, Vec<u8>),
    Moved(Vec<u8>),
    Lost,
}

/// What happened to a name, as far as an event tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Happened {
    Came,
    CameAsDirectory,
    Went,
    WasWritten,
    /// Mode, owner, times.
    WasTouched,
}

impl Heard {
    pub(super) fn new(root: PathBuf, follow_links: bool, wake: Box<dyn Fn() + Send>) -> Heard {
        Heard {
            root,
            follow_links,
            state: Mutex::default(),
            wake: Mutex::new(wake),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened since the last call.
    pub(super) fn take(&self) -> News {
        std::mem::take(&mut self.state().news)
    }

    /// Nothing is watched any more.
    pub(super) fn forget(&self) {
        self.state().watched.clear();
    }

    /// Forgets the watches at or below paths that came or went.
    pub(super) fn forget_moved(&self, moved: &HashSet<Vec<u8>>) {
        let is_in = |path: &[u8]| {
            let levels = (0..path.len()).filter(|&at| path[at] == b'/');
            let mut above = levels.map(|at| &path[..at]).chain([path]);
            above.any(|above| moved.contains(above))
        };
        self.state().watched.retain(|path, _| !is_in(path));
    }

    /// What is to be done so that these directories are watched and no others.
    pub(super) fn difference(&self, wanted: &HashMap<Vec<u8>, Identity>) -> Difference {
        let watched = &self.state().watched;
        let stale = watched.iter();
        let stale = stale.filter(|(path, identity)| wanted.get(*path) != Some(identity));
        let missing = wanted.iter();
        let missing = missing.filter(|(path, identity)| watched.get(*path) != Some(identity));
        Difference {
            stale: stale.map(|(path, _)| path.clone()).collect(),
            missing: missing.map(|(path, id)| (path.clone(), *id)).collect(),
        }
    }

    pub(super) fn put_in(&self, path: Vec<u8>, identity: Identity) {
        self.state().watched.insert(path, identity);
    }

    pub(super) fn strike(&self, path: &[u8]) {
        self.state().watched.remove(path);
    }

    pub(super) fn full(&self, path: &[u8]) -> PathBuf {
        // An empty path would leave a slash at the end.
        match path {
            b"" => self.root.clone(),
            path => self.root.join(std::ffi::OsStr::from_bytes(path)),
        }
    }

    fn wake(&self) {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner)();
    }

    /// It is time to look at everything.
    pub(super) fn look_at_everything(&self) {
        self.state().news.everything = true;
        self.wake();
    }

    /// Nobody knows what happened, or to what.
    pub(super) fn lose(&self) {
        self.state().news.is_lost = true;
        self.wake();
    }

    /// File systems were mounted or unmounted, maybe here. That makes no event.
    pub(super) fn look_at_mounts(&self) {
        let watched = self.state().watched.clone();
        let is_same = |(path, identity): (Vec<u8>, Identity)| {
            let found = std::fs::metadata(self.full(&path));
            found.is_ok_and(|found| (found.dev(), found.ino()) == identity)
        };
        if !watched.into_iter().all(is_same) {
            self.lose();
        }
    }

    /// Whether there is an event of any kind within a time, after something was done that makes one.
    pub(super) fn probe(&self, within: Duration, act: impl FnOnce()) -> bool {
        let (probing, probed) = channel();
        self.state().probing = Some(probing);
        act();
        probed.recv_timeout(within).is_ok()
    }

    /// Takes in what the system tells.
    pub(super) fn hear(&self, told: notify::Result<Event>) {
        if let Some(probing) = self.state().probing.take() {
            let _ = probing.send(());
        }
        let said = match told {
            Ok(event) if !event.need_rescan() => self.meaning(&event),
            Ok(_) | Err(_) => Some(Said::Lost),
        };
        let Some(said) = said else {
            return;
        };
        {
            let news = &mut self.state().news;
            match said {
                Said::Mail(folder) => drop(news.folders.insert(folder)),
                Said::Written(folder, path) => {
                    news.folders.insert(folder);
                    // Of more than that the slice of all files has to find some.
                    if news.written.len() < WRITTEN_MAX {
                        news.written.insert(path);
                    }
                }
                Said::Moved(path) => drop(news.moved.insert(path)),
                Said::Lost => news.is_lost = true,
            }
        }
        self.wake();
    }

    fn meaning(&self, event: &Event) -> Option<Said> {
        let happened = happened(event.kind)?;
        let path = event.paths.first()?;
        let below = path.strip_prefix(&self.root).ok()?.as_os_str().as_bytes();
        if below.is_empty() {
            return (happened == Happened::Went).then_some(Said::Lost);
        }
        let (dir, name) = split_path(below);
        // What lay in a directory that is watched no more is looked at for another reason.
        if !self.is_watched(dir) {
            return None;
        }
        let (folder, sub) = split_path(dir);
        if is_for_mail(sub) {
            let may_be_mail = happened != Happened::WasTouched && !name.starts_with(b".");
            let folder = FolderDir::new(folder).ok()?;
            return may_be_mail.then(|| match happened {
                Happened::WasWritten => Said::Written(folder, below.to_vec()),
                _ => Said::Mail(folder),
            });
        }
        let is_said = !is_never_looked_into(name)
            && !is_ours(name)
            && match happened {
                Happened::CameAsDirectory => true,
                Happened::Came => self.may_lead_to_folders(path),
                Happened::Went => self.is_watched(below),
                Happened::WasWritten => false,
                // It may not have been ours to read before, or its contents not.
                Happened::WasTouched => self.may_lead_to_folders(path),
            };
        is_said.then(|| Said::Moved(below.to_vec()))
    }

    fn is_watched(&self, path: &[u8]) -> bool {
        self.state().watched.contains_key(path)
    }

    /// Renames do not tell of what.
    fn may_lead_to_folders(&self, path: &Path) -> bool {
        let kind = std::fs::symlink_metadata(path).map(|found| found.file_type());
        kind.is_ok_and(|kind| kind.is_dir() || kind.is_symlink() && self.follow_links)
    }
}

/// Whether a directory of this name holds messages.
pub(super) fn is_for_mail(name: &[u8]) -> bool {
    matches!(name, b"cur" | b"new")
}

/// None for what readers do.
fn happened(kind: EventKind) -> Option<Happened> {
    Some(match kind {
        EventKind::Create(CreateKind::Folder) => Happened::CameAsDirectory,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
            Happened::Came
        }
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
            Happened::Went
        }
        EventKind::Modify(ModifyKind::Data(_))
        | EventKind::Access(AccessKind::Close(AccessMode::Write)) => Happened::WasWritten,
        EventKind::Modify(ModifyKind::Metadata(_)) => Happened::WasTouched,
        _ => return None,
    })
}
