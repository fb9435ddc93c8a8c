//! What is left of operations on folders.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::apply::folder::{PARTS, make_parts};
use crate::error::{Context, Result};
use crate::held::Held;
use crate::path::{join, subdir};
use crate::root::Root;
use crate::trash::has_mail;

/// Makes a folder whole of which there is a part. That it was made is seen by the scan.
pub(super) fn end_making(held: &Held, dir: &[u8]) -> Result<()> {
    let is_there = |part: &&[u8]| held.root().dir_stamp(&join(dir, &[part])).is_ok();
    match PARTS.iter().any(is_there) {
        true => make_parts(held, dir).context("make", &held.root().full(dir)),
        false => Ok(()),
    }
}

/// Gives a folder its directory back that went to the trash with mail in it.
pub(super) fn put_back_folder(root: &Root, dir: &[u8], trashed: Option<&[u8]>) -> Result<()> {
    let Some(trashed) = trashed.map(|path| Path::new(OsStr::from_bytes(path))) else {
        return Ok(());
    };
    match has_mail(trashed) {
        Ok(true) => put_back(root, trashed, dir).context("put back", trashed),
        Ok(false) | Err(_) => Ok(()),
    }
}

fn put_back(root: &Root, trashed: &Path, dir: &[u8]) -> io::Result<()> {
    let name = trashed.file_name().unwrap_or_default().as_bytes();
    let above = File::open(trashed.parent().unwrap_or(trashed))?;
    match root.rename_in(above.as_fd(), name, dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    // Somebody has made it anew.
    for sub in [true, false].map(subdir) {
        let from = trashed.join(OsStr::from_bytes(sub));
        root.make_dir(&join(dir, &[sub]))?;
        let held = File::open(&from)?;
        for entry in std::fs::read_dir(&from)? {
            let name = entry?.file_name();
            let path = join(dir, &[sub, name.as_bytes()]);
            root.put_in(held.as_fd(), name.as_bytes(), &path)?;
        }
    }
    Ok(())
}
