//! Locks by flock, which the kernel lets go when its holder dies; never a pid file.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::private;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, waiting for at most `patience`.
    ///
    /// # Errors
    /// [`Error::Busy`] when another run still holds it then; `busy` says whose lock it is.
    pub fn take(path: &Path, patience: Duration, busy: &str) -> Result<Lock> {
        let file = private::open(path).context("open", path)?;
        Lock::wait(file, path, patience, busy)
    }

    /// Takes a lock on a directory itself, so that nothing is written for it; `None` where the file system has no such
    /// locks (NFS maps them to ones that need a writable file).
    ///
    /// # Errors
    /// Like [`Lock::take`].
    pub(crate) fn take_dir(path: &Path, patience: Duration, busy: &str) -> Result<Option<Lock>> {
        let dir = File::open(path).context("open", path)?;
        match Lock::wait(dir, path, patience, busy) {
            Err(Error::Io { source, .. }) => {
                tracing::warn!("{path:?} cannot be locked ({source}); do not run twice at once");
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    fn wait(file: File, path: &Path, patience: Duration, busy: &str) -> Result<Lock> {
        // flock has no timeout, so a held lock is asked for again; the pause only bounds how late we notice.
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Err(Error::Busy(busy.to_owned())),
                Err(TryLockError::Error(error)) => return Err(error).context("lock", path),
            }
        }
    }
}
