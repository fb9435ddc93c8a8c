//! Which directories are to be watched.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use rustix::fs::fstatfs;

use super::heard::Identity;
use super::limits::silent;
use crate::discover::{discover, follow_links};
use crate::error::{Context, Result};
use crate::path::join;
use crate::root::Root;

/// The directories below a root that have to be watched: each folder's `cur` and `new`, and all in which there may be
/// folders.
pub(super) fn directories(root: &Root) -> HashMap<Vec<u8>, Identity> {
    let seen = discover(root, &HashMap::new());
    let subs = |dir: &[u8]| [b"cur", b"new"].map(|sub| join(dir, &[sub]));
    let subs = seen.folders.iter().flat_map(|found| subs(&found.dir));
    let identified = |path: Vec<u8>| {
        // One that has just gone, is not there, or is a link that is not followed.
        let stamp = root.dir_stamp(&path).ok()?;
        let device = root.device_of(&path).ok()?;
        Some((path, (device, stamp.ino)))
    };
    let paths = seen.entered.iter().cloned().chain(subs);
    paths.filter_map(identified).collect()
}

/// Follows the links of a root as a run does.
pub(super) fn with_links(mut root: Root) -> Result<Root> {
    let path = root.path().to_owned();
    follow_links(&mut root).context("look at", &path)?;
    Ok(root)
}

/// A directory that lies on a file system that does not tell of all changes, and what that is called.
pub(super) fn silent_place(
    root: &Root,
    directories: &HashMap<Vec<u8>, Identity>,
) -> Option<(PathBuf, &'static str)> {
    let mut uppermost: HashMap<u64, &[u8]> = HashMap::new();
    for (path, (device, _)) in directories {
        let found = uppermost.entry(*device).or_insert(path);
        *found = path.as_slice().min(found);
    }
    let kind = |path: &[u8]| io::Result::Ok(fstatfs(root.open_dir(path)?)?.f_type);
    let mut places = uppermost.into_values();
    places.find_map(|path| Some((root.full(path), silent(kind(path).ok()?)?)))
}
