//! From one file system to another, where no rename leads: a folder may be a mount or a subvolume, and some refuse
//! renames within.
//!
//! A durable copy gets the new name, then the old file goes to the trash, or away where it is ours. If interrupted before
//! the copy has its name, nothing has happened; after it, [`crate::recover`] takes the old file away.

use std::io;

use protocol::Digest;
use protocol::message::NewBody;

use super::site::Site;
use super::step::{Step, failed, named, stale};
use crate::error::{Context, Result};
use crate::hash::hash_file;
use crate::index::FileRow;
use crate::path::{split_path, subdir};
use crate::root::Root;
use crate::stamp::FileStamp;
use crate::trash::{Label, MOVED, Retired, Trash};
use crate::written::{Written, flush};

/// A file, and its durable copy that has the new name on another file system.
struct Copied<'p> {
    from: &'p [u8],
    old: FileStamp,
    to: &'p [u8],
    new: FileStamp,
}

/// Delivers a body that waits in the `tmp` of another file system.
pub(crate) fn deliver_across(site: &mut Site, tmp: &[u8], path: &[u8], body: &NewBody) -> Step<()> {
    let near = copy_near(site, tmp, folder_of(path), &body.digest, body.mtime_ns)?;
    named(site.held.give_name(&near.path, path))?;
    drop(near.into_file());
    Ok(site.root().unlink(tmp)?)
}

/// Moves a message to a folder on another file system.
pub(crate) fn move_across(site: &mut Site, row: &FileRow, from: &[u8], path: &[u8]) -> Step<()> {
    let digest = &row.entry.digest;
    let near = copy_near(site, from, folder_of(path), digest, row.stamp.mtime_ns)?;
    let trash_name = announce(site.trash, from, digest)?;
    named(site.held.give_name(&near.path, path))?;
    let (_, stamp, _record) = near.into_file();
    site.root().sync_dir(split_path(path).0)?;
    let copied = Copied {
        from,
        old: row.stamp,
        to: path,
        new: stamp,
    };
    drop_old(site, &copied, &trash_name)
}

/// Moves a file of a folder that is renamed, whatever lies between both directories; `dir` is the folder's new one.
pub(crate) fn carry(site: &mut Site, from: &[u8], to: &[u8], dir: &[u8]) -> Step<()> {
    match site.root().rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        other => return Ok(other?),
    }
    let hashed = hash_file(site.root(), from)?;
    let near = copy_near(site, from, dir, &hashed.digest, hashed.stamp.mtime_ns)?;
    let trash_name = announce(site.trash, from, &hashed.digest)?;
    named(site.root().rename(&near.path, to))?;
    let (_, stamp, _record) = near.into_file();
    site.root().sync_dir(split_path(to).0)?;
    let copied = Copied {
        from,
        old: hashed.stamp,
        to,
        new: stamp,
    };
    drop_old(site, &copied, &trash_name)
}

/// Takes away the old file of a message whose copy got its name before a run was cut off.
pub(crate) fn finish_move(
    root: &Root,
    trash: &mut Trash,
    from: &[u8],
    digest: &Digest,
) -> Result<()> {
    let full = root.full(from);
    let stamp = root.file_stamp(from).context("look at", &full)?;
    let names = trash.announce(&[label_of(from, digest)])?;
    let retired = trash.take(root, from, &stamp, &names[0]);
    retired.map(drop).context("move to the trash", &full)
}

/// The directory of the folder in whose `cur` or `new` a path lies.
fn folder_of(path: &[u8]) -> &[u8] {
    split_path(split_path(path).0).0
}

/// A durable copy of a file in the `tmp` of a folder.
fn copy_near(
    site: &mut Site,
    from: &[u8],
    dir: &[u8],
    digest: &Digest,
    mtime_ns: i64,
) -> io::Result<Written> {
    let source = site.root().open_file(from)?;
    let written = site.inbox.copy(dir, digest, mtime_ns, source)?;
    flush([&written].into_iter())?;
    Ok(written)
}

/// Takes the old file of a message away; where that cannot be, the copy goes again.
fn drop_old(site: &mut Site, copied: &Copied, trash_name: &str) -> Step<()> {
    let root = site.root();
    let retired = site.trash.take(root, copied.from, &copied.old, trash_name);
    if matches!(retired, Ok(Retired::Yes)) {
        site.held.mark_dirty(split_path(copied.from).0);
        return Ok(());
    }
    root.remove(copied.to, |seen| seen.ino == copied.new.ino)?;
    match retired {
        Err(error) => Err(error.into()),
        Ok(_) => stale(),
    }
}

/// What the trash says of a file that goes because its copy has come elsewhere.
fn label_of(from: &[u8], digest: &Digest) -> Label {
    let (sub, name) = split_path(from);
    let (dir, sub) = split_path(sub);
    Label {
        folder: dir.to_vec(),
        name: name.to_vec(),
        in_new: sub == subdir(true),
        digest: Some(*digest),
        reason: Some(MOVED),
    }
}

fn announce(trash: &mut Trash, from: &[u8], digest: &Digest) -> Step<String> {
    match trash.announce(&[label_of(from, digest)]) {
        Ok(mut names) => Ok(names.remove(0)),
        Err(error) => failed(error.to_string()),
    }
}
