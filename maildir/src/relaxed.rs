//! An index whose rows are written and not flushed: if it is lost, that costs time.
//!
//! A file in the state directory says so, durably, before the first such row, and in which boot of the system. After another
//! boot that index may be torn, and is made anew.

use std::io;
use std::path::{Path, PathBuf};

use crate::durable::replace_file;
use crate::error::{Context, Result};
use crate::index::Index;

/// The file that says in which boot the index was written without being flushed.
pub(crate) fn path_in(state: &Path) -> PathBuf {
    state.join("relaxed")
}

/// From here on rows are written and not flushed, and the disk knows that before the first one. Asked before each group,
/// since a scan of another agent flushes all and takes the file away.
pub(crate) fn relax(state: &Path, index: &Index) -> Result<()> {
    let (path, boot) = (path_in(state), boot());
    if !std::fs::read_to_string(&path).is_ok_and(|written| written == boot) {
        replace_file(&path, boot.as_bytes())?;
    }
    index.flush_commits(false)
}

/// Makes durable what was written so, by this run or by one that was cut off.
pub(crate) fn flush(state: &Path, index: &Index) -> Result<()> {
    let path = path_in(state);
    if !path.exists() {
        return Ok(());
    }
    index.flush_commits(true)?;
    let _whole = index.whole();
    index.begin()?;
    index.commit()?;
    std::fs::remove_file(&path).context("remove", &path)
}

/// Which boot of the system this is; empty where it does not say.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Whether an index may be torn: the system went down while it was written without being flushed.
pub(crate) fn may_be_torn(state: &Path) -> bool {
    match std::fs::read_to_string(path_in(state)) {
        Ok(written) => written.is_empty() || written != boot(),
        Err(_) => false,
    }
}

/// Removes an index that may be torn; it is made anew from the tree, which costs time.
pub(crate) fn remove_torn(state: &Path, index: &Path) -> Result<()> {
    let journal = state.join("index.db-journal");
    for path in [index, &journal, &path_in(state)] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context("remove", path);
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
