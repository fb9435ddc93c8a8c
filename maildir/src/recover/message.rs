//! What is left of operations on messages.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use protocol::message::Reason;
use protocol::{Digest, Unique, name};

use crate::apply::across::finish_move;
use crate::apply::pending::{Arriving, Changing, Leaving, Replaces};
use crate::apply::site::Site;
use crate::error::{Context, Error, Result};
use crate::hash::hash_file;
use crate::index::{FileRow, Index};
use crate::path::{join, subdir};
use crate::rename::parked_name;
use crate::root::Root;
use crate::stamp::FileStamp;
use crate::trash::{Label, Retired, reason_text};

/// The unique names of what lies in folders, as far as they were asked for; none of one that cannot be listed.
pub(super) type Names = HashMap<u32, Option<HashSet<Unique>>>;

/// Remembers a message that came under the number that it was to have, which its name alone does not say where others have
/// that name, too; and as lost what came and is gone again.
pub(super) fn end_create(
    index: &Index,
    root: &Root,
    names: &mut Names,
    arriving: &Arriving,
) -> Result<()> {
    let come = come(index, root, arriving)?;
    // A link in its place, where the disk cannot rename.
    let is_linked = |stamp: FileStamp| is_at(root, &arriving.tmp, stamp.ino);
    if !is_gone(root, &arriving.tmp)? && !come.is_some_and(is_linked) {
        return Ok(());
    }
    let (folder, unique) = (arriving.folder, &arriving.unique);
    let known = index.file_at(folder, unique, arriving.copy)?;
    if known.is_some_and(|known| !known.gone || come.is_none()) {
        return Ok(());
    }
    let names = match names.entry(folder) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => unknown.insert(names_in(index, root, folder)?),
    };
    let is_away = names.as_ref().is_some_and(|names| !names.contains(unique));
    if come.is_some() || is_away {
        let seq = index.next_number()?;
        index.put_file(&FileRow {
            seq,
            born: seq,
            folder,
            unique: unique.clone(),
            copy: arriving.copy,
            gone: come.is_none(),
            lost: come.is_none(),
            entry: arriving.entry.clone(),
            stamp: come.unwrap_or_default(),
            due: false,
        })?;
    }
    Ok(())
}

/// A message that lies where it was to come; what it is the scan that follows finds out.
fn come(index: &Index, root: &Root, arriving: &Arriving) -> Result<Option<FileStamp>> {
    let Arriving { unique, entry, .. } = arriving;
    let folder = index.folder(arriving.folder)?.filter(|folder| !folder.gone);
    let path = folder.and_then(|folder| {
        let name = name::join(unique, &entry.info).ok()?;
        Some(join(&folder.dir, &[subdir(entry.in_new), &name]))
    });
    let stamp = path.and_then(|path| root.file_stamp(&path).ok());
    let is_it = |stamp: &FileStamp| (stamp.size, stamp.mtime_ns) == (entry.size, entry.mtime_ns);
    let unproven = |stamp| FileStamp {
        ctime_ns: 0,
        ..stamp
    };
    Ok(stamp.filter(is_it).map(unproven))
}

/// The unique names in a folder; none where it cannot be listed.
fn names_in(index: &Index, root: &Root, folder: u32) -> Result<Option<HashSet<Unique>>> {
    let mut names = HashSet::new();
    let Some(folder) = index.folder(folder)?.filter(|folder| !folder.gone) else {
        return Ok(Some(names));
    };
    for in_new in [true, false] {
        match root.list(&join(&folder.dir, &[subdir(in_new)])) {
            Ok(listed) => {
                let split = listed.iter().filter_map(|one| name::split(&one.name).ok());
                names.extend(split.map(|(unique, _)| unique));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(names))
}

/// Ends or takes back what was to be done to a message; returns whether an old version was taken away.
pub(super) fn end_update(site: &mut Site, changing: &Changing) -> Result<bool> {
    let root = site.root();
    let Changing { from, to, ino, .. } = changing;
    let untouched =
        |stamp: FileStamp| (Some(stamp.ino), stamp.ctime_ns) == (*ino, changing.ctime_ns);
    if !root.file_stamp(from).is_ok_and(untouched) {
        leave_old_name(root, changing)?; // A rename moves the ctime.
    } else if has_copy(root, to, [*ino, changing.there], &changing.digest) {
        finish_move(root, site.trash, from, &changing.digest)?;
    }
    match &changing.replaces {
        Some(replaces) => end_replacement(site, changing, replaces),
        None => Ok(false),
    }
}

fn end_replacement(site: &mut Site, changing: &Changing, replaces: &Replaces) -> Result<bool> {
    let (root, tmp) = (site.root(), &replaces.tmp);
    // What cannot be read may be the old version, so it is not swept away.
    let path = root.full(tmp);
    end_exchange(root, tmp, &changing.to).context("put in order", &path)?;
    if is_gone(root, tmp)? {
        let trashed = replaces.trashed.as_deref().map(OsStr::from_bytes);
        return Ok(trashed.is_some_and(|path| Path::new(path).exists()));
    }
    let left = hash_file(root, tmp).context("read", &path)?;
    if left.digest == replaces.digest {
        return Ok(false);
    }
    if Some(left.stamp.ino) != changing.ino && left.digest != changing.digest {
        // Somebody else's, which had come to that name: it has that again.
        let back = match is_at(root, &changing.to, replaces.ino) {
            true => root.exchange(tmp, &changing.to).map(drop),
            false => root.put_back(tmp, &changing.to),
        };
        back.context("put back", &path)?;
        return Ok(false);
    }
    trash_leftover(site, replaces)?;
    Ok(true)
}

/// Whether the very file lies there.
fn is_at(root: &Root, path: &[u8], ino: u64) -> bool {
    root.file_stamp(path).is_ok_and(|stamp| stamp.ino == ino)
}

/// Whether a message's copy has the name, on another file system: another file than the message, and than what lay there before.
fn has_copy(root: &Root, to: &[u8], others: [Option<u64>; 2], digest: &Digest) -> bool {
    let seen = root.file_stamp(to);
    seen.is_ok_and(|seen| !others.contains(&Some(seen.ino)))
        && hash_file(root, to).is_ok_and(|hashed| hashed.digest == *digest)
}

/// Ends or takes back an exchange that goes in steps, see [`crate::rename::exchange`].
fn end_exchange(root: &Root, tmp: &[u8], to: &[u8]) -> io::Result<()> {
    let parked = parked_name(tmp);
    let ino = |path: &[u8]| match root.file_stamp(path) {
        Ok(stamp) => Ok(Some(stamp.ino)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let Some(old) = ino(&parked)? else {
        return Ok(());
    };
    match (ino(tmp)?, ino(to)?) {
        (None, _) => root.rename_to_ours(&parked, tmp),
        (Some(_), None) => root.rename(&parked, to),
        (Some(_), Some(there)) if there == old => root.unlink(&parked),
        (Some(_), Some(_)) => {
            root.unlink(tmp)?;
            root.rename_to_ours(&parked, tmp)
        }
    }
}

/// Removes the old name of a message that has the new one, too.
fn leave_old_name(root: &Root, changing: &Changing) -> Result<()> {
    let (from, to) = (&changing.from, &changing.to);
    let Some(ino) = changing.ino.filter(|_| from != to) else {
        return Ok(());
    };
    if !is_at(root, from, ino) || !is_at(root, to, ino) {
        return Ok(());
    }
    let removed = root.remove(from, |seen| seen.ino == ino);
    removed.map(drop).context("remove", &root.full(from))
}

/// Puts back what went to the trash in place of a message, or remembers that the message did; returns whether it did.
pub(super) fn end_retire(index: &Index, root: &Root, leaving: &Leaving) -> Result<bool> {
    // Then what lies in the trash is a copy, or part of one: that is on another file system.
    if may_be_there(root.file_stamp(&leaving.path), leaving.stamp.ino) {
        return Ok(false);
    }
    let trashed = Path::new(OsStr::from_bytes(&leaving.trashed));
    match FileStamp::outside(trashed) {
        Ok(there) if there.same_bytes(&leaving.stamp) => {}
        Ok(_) => {
            put_back_file(root, trashed, &leaving.path).context("put back", trashed)?;
            return Ok(false);
        }
        Err(_) => return Ok(false),
    }
    let row = index.file_at(leaving.folder, &leaving.unique, leaving.copy)?;
    if let Some(mut row) = row.filter(|row| !row.gone) {
        (row.gone, row.lost, row.seq) = (true, false, index.next_number()?);
        index.put_file(&row)?;
    }
    Ok(true)
}

/// Gives another program's file its name back that had gone to the trash with it.
fn put_back_file(root: &Root, trashed: &Path, path: &[u8]) -> io::Result<()> {
    let dir = File::open(trashed.parent().unwrap_or(trashed))?;
    let name = trashed.file_name().unwrap_or_default().as_bytes();
    match root.put_in(dir.as_fd(), name, path) {
        // On another file system it is part of a copy of what stayed.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(()),
        other => other,
    }
}

/// Whether a message may be where it was before it was to be retired. What cannot be looked at is unknown, not absent: the
/// scan that follows judges it (I2).
fn may_be_there(seen: io::Result<FileStamp>, ino: u64) -> bool {
    match seen {
        Ok(stamp) => ino == 0 || stamp.ino == ino,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn is_gone(root: &Root, tmp: &[u8]) -> Result<bool> {
    match root.file_stamp(tmp) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).context("look at", &root.full(tmp)),
    }
}

/// Moves the old version of a message, left in `tmp` by a broken-off replacement, into the trash.
fn trash_leftover(site: &mut Site, replaces: &Replaces) -> Result<()> {
    let (root, tmp) = (site.root(), &replaces.tmp);
    let path = root.full(tmp);
    let stamp = root.file_stamp(tmp).context("look at", &path)?;
    let label = Label {
        folder: replaces.folder.clone(),
        name: replaces.name.clone(),
        in_new: false,
        digest: None,
        reason: Some(reason_text(Reason::Replaced)),
    };
    let names = site.trash.announce(&[label])?;
    let retired = site.trash.take(root, tmp, &stamp, &names[0]);
    if retired.context("move to the trash", &path)? == Retired::Changed {
        // It lies in `tmp` again, where the sweep that follows would destroy it.
        return Err(Error::Busy(format!(
            "{path:?} changes while it is put in order; try again later"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_not_to_be_there_is_absent() {
        let seen = |ino| {
            Ok(FileStamp {
                ino,
                ..FileStamp::default()
            })
        };
        assert!(may_be_there(seen(7), 7));
        assert!(!may_be_there(seen(8), 7));
        assert!(!may_be_there(Err(io::ErrorKind::NotFound.into()), 7));
        for unknown in [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::StaleNetworkFileHandle,
        ] {
            assert!(may_be_there(Err(unknown.into()), 7), "{unknown}");
        }
    }
}
