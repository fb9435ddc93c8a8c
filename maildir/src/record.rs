//! Which run has bodies in which `tmp`, so that the next run can remove what a dead one left.
//!
//! Every run that writes bodies has a file in the state directory, which it holds locked as long as one of its bodies may
//! lie in a `tmp`. The file lists the directories, each ended by NUL, and each written before the first body comes there.
//! The names of the bodies begin with the file's name. So only where a dead run wrote is anything looked for, and what a
//! living one is writing is left alone. As a folder may have been renamed meanwhile, every `tmp` is looked into then.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::bytes::{escape, hex};
use rustix::io::Errno;

use crate::discover::discover;
use crate::path::join;
use crate::private;
use crate::random::random;
use crate::root::Root;

/// The beginning of the names of our files in `tmp`.
pub(crate) const TMP_PREFIX: &str = "maildir-sync-";

/// The record of a living run; it goes with it, unless one of its bodies could not be found.
#[derive(Debug)]
pub(crate) struct RunRecord {
    file: File,
    path: PathBuf,
    prefix: String,
    has_lost: AtomicBool,
}

impl RunRecord {
    /// Begins one in a directory that is made if it is missing.
    pub(crate) fn begin(dir: &Path) -> io::Result<RunRecord> {
        private::make_dirs(dir).map_err(io::Error::other)?;
        loop {
            let random = hex(&random::<8>().map_err(io::Error::other)?);
            let path = dir.join(&random);
            let file = private::create(&path)?;
            if let Err(error) = file.lock() {
                // Then another run may take our files for leftovers: their messages wait for the run after.
                tracing::debug!("{path:?} cannot be locked: {error}");
            }
            // Before it was locked somebody may have taken it for a dead run's.
            if path.exists() {
                let prefix = format!("{TMP_PREFIX}{random}");
                return Ok(RunRecord {
                    file,
                    path,
                    prefix,
                    has_lost: AtomicBool::new(false),
                });
            }
        }
    }

    /// The name of a body.
    pub(crate) fn name(&self, count: u64) -> String {
        format!("{}-{count}", self.prefix)
    }

    /// Adds a folder's directory.
    pub(crate) fn add(&self, dir: &[u8]) -> io::Result<()> {
        (&self.file).write_all(&[dir, b"\0"].concat())
    }

    /// Removes a body that nobody uses. Where it is not, its folder may have been renamed, so the next run looks for it.
    pub(crate) fn remove(&self, root: &Root, path: &[u8]) {
        match root.unlink(path) {
            Err(error) if is_gone(&error) => self.has_lost.store(true, Ordering::Relaxed),
            Err(error) => tracing::warn!("Cannot remove {:?}: {error}", root.full(path)),
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
impl RunRecord {
    /// As a kill does: the lock goes, and nothing else.
    pub(crate) fn let_go(&self) {
        self.file.unlock().expect("it can be unlocked");
    }
}

impl Drop for RunRecord {
    fn drop(&mut self) {
        if !*self.has_lost.get_mut()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!("Cannot remove {:?}: {error}", self.path); // Nobody holds it any more.
        }
    }
}

/// Removes what dead runs left in `tmp`; what it held is complete elsewhere. Under the root's lock.
pub(crate) fn sweep(root: &Root, records: &Path) -> io::Result<()> {
    let listed = match fs::read_dir(records) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut tree = None;
    for record in listed {
        let path = record?.path();
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // Its run has ended.
            other => other?,
        };
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            continue;
        }
        let mut dirs = Vec::new();
        file.read_to_end(&mut dirs)?;
        let name = path.file_name().unwrap_or_default().as_bytes();
        let prefix = [TMP_PREFIX.as_bytes(), name, b"-"].concat();
        for dir in dirs.split_inclusive(|&byte| byte == 0) {
            // The last one was not written in full, so nothing came there.
            if let Some(dir) = dir.strip_suffix(b"\0") {
                sweep_tmp(root, dir, &prefix)?;
            }
        }
        for dir in tree.get_or_insert_with(|| discover(root, &HashMap::new()).entered) {
            if let Err(error) = sweep_tmp(root, dir, &prefix) {
                tracing::debug!("Cannot look into the tmp of {:?}: {error}", root.full(dir));
            }
        }
        fs::remove_file(&path)?;
    }
    Ok(())
}

fn sweep_tmp(root: &Root, dir: &[u8], prefix: &[u8]) -> io::Result<()> {
    let tmp = join(dir, &[b"tmp"]);
    let listed = match root.list(&tmp) {
        Err(error) if is_gone(&error) => return Ok(()),
        other => other?,
    };
    for listed in listed
        .iter()
        .filter(|listed| listed.name.starts_with(prefix))
    {
        tracing::info!(
            "Removing {} that a broken-off run left in tmp",
            escape(&listed.name)
        );
        root.unlink(&join(&tmp, &[&listed.name]))?;
    }
    Ok(())
}

/// Whether a folder's directory has gone; a link may be in its place.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
    )
}
