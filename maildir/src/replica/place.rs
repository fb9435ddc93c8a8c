//! Whether a place may be taken for a replica: what is refused before anything is read or written there.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use super::Options;
use crate::discover::discover;
use crate::error::{Context, Error, Result};
use crate::marker;
use crate::marker::check_nothing_below;
use crate::private;
use crate::root::Root;

/// A Maildir in another one would be synced twice, each time as something else.
pub(super) fn check_nothing_above(path: &Path) -> Result<()> {
    // Of a root that is yet to be made, the nearest directory that is there.
    let Some(real) = path.ancestors().find_map(|path| path.canonicalize().ok()) else {
        return Ok(());
    };
    let from = if path.exists() {
        real.parent()
    } else {
        Some(&*real)
    };
    match from.and_then(marker::above) {
        Some(above) => Err(Error::Usage(format!(
            "{path:?} lies in the Maildir {above:?}, which is synced as a whole; name that one, or a place outside of it"
        ))),
        None => Ok(()),
    }
}

/// Makes the root if need be, and returns whether it did; or says what is wrong with it.
pub(super) fn prepare_root(options: &Options) -> Result<bool> {
    let path = &options.root;
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(false),
        Ok(_) => Err(Error::Root(format!(
            "{path:?} is not a directory; name the Maildir itself"
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if options.expect.is_some() && !options.adopt {
                return Err(unsafe_root(path, "is missing"));
            }
            if !options.create {
                return Err(Error::Root(format!(
                    "The Maildir {path:?} does not exist; check the path, or make it with mkdir"
                )));
            }
            private::make_dirs(path)?;
            Ok(true)
        }
        Err(error) => Err(error).context("open", path),
    }
}

/// What was taken away must not be found in the tree again, as mail in a folder called trash.
pub(super) fn check_trash_is_outside(options: &Options) -> Result<()> {
    let trash = options.trash_dir.as_ref().unwrap_or(&options.state_dir);
    let is_inside = |root: &Path| {
        let real = trash.ancestors().find_map(|path| path.canonicalize().ok());
        real.is_some_and(|real| real.starts_with(root))
    };
    if options
        .root
        .canonicalize()
        .is_ok_and(|root| is_inside(&root))
    {
        return Err(Error::Usage(format!(
            "The trash {trash:?} would lie in the Maildir {:?}; name a place outside of it",
            options.root
        )));
    }
    Ok(())
}

pub(super) fn unsafe_root(path: &Path, what: &str) -> Error {
    Error::Unsafe(format!(
        "The Maildir {path:?} {what} although it was synced before, so it may be unmounted, emptied or another one; nothing was done. \
         Put it back, or run again with --adopt to take it as it is (nothing is deleted then)"
    ))
}

/// A root without a marker must be empty or look like a Maildir, so that nobody's home directory becomes one.
pub(super) fn check_is_maildir(root: &Root) -> Result<()> {
    let (path, seen) = (root.path(), discover(root, &HashMap::new()));
    for folder in &seen.folders {
        check_nothing_below(root, &folder.dir)?;
    }
    if !seen.folders.is_empty() {
        return Ok(());
    }
    let mut errors = seen.errors.into_iter();
    if let Some((dir, error)) = errors.find(|(dir, _)| dir != b"lost+found") {
        return Err(error).context("look at", &root.full(&dir));
    }
    let names = root.list(b"").context("list", path)?;
    let is_other = |name: &[u8]| name != b"lost+found" && !marker::is_left_over(name);
    if names.iter().any(|listed| is_other(&listed.name)) {
        return Err(Error::Root(format!(
            "{path:?} is not a Maildir: it has neither cur nor new, nor any folder that has; name the Maildir itself"
        )));
    }
    Ok(())
}
