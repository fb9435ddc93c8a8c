//! Which run has bodies in which `tmp`, so that the next run can remove what a dead one left.
//!
//! Every run that writes bodies has a file in the state directory, which it holds locked as long as one of its bodies may
//! lie in a `tmp`. The file lists the directories, each ended by NUL, and each written before the first body comes there.
//! The names of the bodies begin with the file's name. So what a dead run left is found without listing any other
//! directory, and what a living one is writing is left alone.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use protocol::bytes::{escape, hex};

use crate::path::join;
use crate::private;
use crate::random::random;
use crate::root::Root;

/// The beginning of the names of our files in `tmp`.
pub(crate) const TMP_PREFIX: &str = "maildir-sync-";

/// The record of a living run; it goes with it.
#[derive(Debug)]
pub(crate) struct RunRecord {
    file: File,
    path: PathBuf,
    prefix: String,
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
                return Ok(RunRecord { file, path, prefix });
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
        if let Err(error) = fs::remove_file(&self.path) {
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
                sweep_tmp(root, &join(dir, &[b"tmp"]), &prefix)?;
            }
        }
        fs::remove_file(&path)?;
    }
    Ok(())
}

fn sweep_tmp(root: &Root, tmp: &[u8], prefix: &[u8]) -> io::Result<()> {
    let listed = match root.list(tmp) {
        Err(error) if is_no_directory(&error) => return Ok(()), // Its folder has gone.
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
        root.unlink(&join(tmp, &[&listed.name]))?;
    }
    Ok(())
}

fn is_no_directory(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
