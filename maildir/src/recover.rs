//! What a batch that was cut off left behind, put in order before anything else is looked at.
//!
//! Runs under the root's lock, so nobody else's batch is under way. Nothing tells how far the batch came but the tree. What it
//! did is found by the scan that follows, and by the client, which remembers what it asked; here only that is done which they
//! would take for something else:
//! - *Create*: the file is in `tmp` no more, and no message of its name is in the folder. A user has deleted it or moved it on,
//!   or somebody has cleaned `tmp`. So its place gets a tombstone of a message that is *lost*: if it is found elsewhere, it went
//!   there, and else it comes once more.
//! - *Update* without new bytes: where the file has both names, the old one goes. Where its copy has the new name, on another
//!   file system, the old file goes.
//! - *Update* with new bytes: an exchange that goes in steps is ended or taken back first. Then, the file in `tmp` is the new
//!   version: nothing happened. It is the old one: it goes to the trash. It is somebody else's: that gets its place back.
//! - *Retire*: what lies in the trash is another file: that goes back. It is the message: a tombstone makes that what lies in
//!   its place came back since.
//! - A folder of which a part was made is made whole: the scan would take it for one that a user made so.
//! - A folder that lies in the trash with mail in it goes back.
//!
//! What was deleted counts for the guard. All of it is flushed before it counts: the dead run may not have come to that.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use protocol::codec::decode_state;
use protocol::message::Reason;
use protocol::{Digest, Unique, name};

use crate::apply::Applier;
use crate::apply_folder::PARTS;
use crate::error::{Context, Error, Result};
use crate::hash::hash_file;
use crate::index::{FileRow, now_secs};
use crate::listing::subdir;
use crate::pending::Pending;
use crate::record::sweep;
use crate::rename::parked_name;
use crate::root::{join, split_path};
use crate::stamp::FileStamp;
use crate::trash::{Label, Taken, has_mail, reason_text};

/// Puts the leftovers of dead runs in order. Nothing is written where there are none.
pub(crate) fn recover(applier: &mut Applier) -> Result<()> {
    let batches = applier.index.pending()?;
    if !batches.is_empty() {
        recover_batches(applier, batches)?;
    }
    let path = applier.root.path().to_owned();
    sweep(applier.root, &applier.records).context("remove what was left in", &path)
}

fn recover_batches(applier: &mut Applier, batches: Vec<Vec<u8>>) -> Result<()> {
    let mut leftovers = BTreeSet::new();
    for begun in batches {
        let begun: Vec<Pending> =
            decode_state(&begun).map_err(|error| Error::Usage(format!("The index: {error}")))?;
        bring_back(applier, &begun)?;
        leftovers.extend(begun.iter().filter_map(Pending::tmp));
        let (mut names, mut deleted) = (Names::default(), 0);
        applier.index.begin()?;
        for pending in begun {
            let counts = pending.counts();
            let took_away = match pending {
                Pending::Create { .. } => recover_create(applier, &mut names, pending)?,
                Pending::Update { .. } => recover_update(applier, pending)?,
                Pending::Retire { .. } => recover_retire(applier, pending)?,
                Pending::MakeFolder { dir } => recover_made(applier, &dir)?,
                Pending::Folder { .. } => recover_folder(applier, pending)?,
            };
            deleted += u64::from(counts && took_away);
        }
        applier.index.count_deleted(now_secs(), deleted)?;
        // What users did to what did not happen need not have moved a directory's stamp.
        applier.index.distrust_folders()?;
    }
    applier.index.begin()?;
    applier.index.clear_pending()?;
    let path = applier.root.path().to_owned();
    applier
        .held
        .sync(&applier.dirty_dirs)
        .context("flush", &path)?;
    applier.trash.sync().context("flush", &path)?;
    applier.index.commit()?;
    // Only now: what is found in `tmp` tells the next one, should this run die, too.
    for tmp in leftovers {
        match applier.root.unlink(&tmp) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.context("remove", &applier.root.full(&tmp))?,
        }
    }
    Ok(())
}

/// Makes a folder whole of which there is a part. That it was made is seen by the scan.
fn recover_made(applier: &mut Applier, dir: &[u8]) -> Result<bool> {
    let is_begun = PARTS.iter().any(|part| {
        let part = applier.root.dir_stamp(&join(dir, &[part]));
        part.is_ok()
    });
    if is_begun {
        let full = applier.root.full(dir);
        applier.make_parts(dir).context("make", &full)?;
    }
    Ok(false)
}

/// Brings back what was set aside for a moment, and remembers which directories may not have been flushed.
fn bring_back(applier: &mut Applier, begun: &[Pending]) -> Result<()> {
    let paths = begun.iter().flat_map(Pending::paths);
    for path in paths.collect::<BTreeSet<_>>() {
        let (sub, _) = split_path(&path);
        let (folder, _) = split_path(sub);
        let full = applier.root.full(folder);
        applier
            .root
            .bring_back(folder)
            .context("put back what was set aside in", &full)?;
        applier.dirty_dirs.insert(sub.to_vec());
    }
    Ok(())
}

/// Gives a folder its directory back that went to the trash with mail in it.
fn recover_folder(applier: &Applier, pending: Pending) -> Result<bool> {
    let Pending::Folder {
        dir,
        trashed: Some(trashed),
    } = pending
    else {
        return Ok(false);
    };
    let trashed = Path::new(OsStr::from_bytes(&trashed));
    if has_mail(trashed).unwrap_or(false) {
        put_back_dir(applier, trashed, &dir).context("put back", trashed)?;
    }
    Ok(false)
}

fn put_back_dir(applier: &Applier, trashed: &Path, dir: &[u8]) -> io::Result<()> {
    let name = trashed.file_name().unwrap_or_default().as_bytes();
    let above = File::open(trashed.parent().unwrap_or(trashed))?;
    match applier.root.rename_in(above.as_fd(), name, dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    // Somebody has made it anew.
    for sub in [true, false].map(subdir) {
        let from = trashed.join(OsStr::from_bytes(sub));
        applier.root.make_dir(&join(dir, &[sub]))?;
        let held = File::open(&from)?;
        for entry in std::fs::read_dir(&from)? {
            let name = entry?.file_name();
            let path = join(dir, &[sub, name.as_bytes()]);
            applier.root.put_in(held.as_fd(), name.as_bytes(), &path)?;
        }
    }
    Ok(())
}

/// The unique names of what lies in folders, as far as they were asked for; none of one that cannot be listed.
type Names = HashMap<u32, Option<HashSet<Unique>>>;

fn recover_create(applier: &Applier, names: &mut Names, pending: Pending) -> Result<bool> {
    let Pending::Create {
        tmp,
        folder,
        unique,
        copy,
        entry,
    } = pending
    else {
        return Ok(false);
    };
    if !is_gone(applier, &tmp)? {
        return Ok(false);
    }
    let names = names
        .entry(folder)
        .or_insert_with(|| names_in(applier, folder).ok());
    let is_away = names.as_ref().is_some_and(|names| !names.contains(&unique));
    if is_away && applier.index.file_at(folder, &unique, copy)?.is_none() {
        let seq = applier.index.next_number()?;
        applier.index.put_file(&FileRow {
            seq,
            born: seq,
            folder,
            unique,
            copy,
            gone: true,
            lost: true,
            entry,
            stamp: FileStamp::default(),
            due: false,
        })?;
    }
    Ok(false)
}

fn names_in(applier: &Applier, folder: u32) -> io::Result<HashSet<Unique>> {
    let mut names = HashSet::new();
    let Some(folder) = applier.folder(folder) else {
        return Ok(names);
    };
    for in_new in [true, false] {
        let listed = match applier.root.list(&join(&folder.dir, &[subdir(in_new)])) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let split = |name: &[u8]| Some(name::split(name).ok()?.0);
        names.extend(listed.iter().filter_map(|listed| split(&listed.name)));
    }
    Ok(names)
}

/// Whether the very file lies there.
fn is_at(applier: &Applier, path: &[u8], ino: u64) -> bool {
    let seen = applier.root.file_stamp(path);
    seen.is_ok_and(|stamp| stamp.ino == ino)
}

fn recover_update(applier: &mut Applier, pending: Pending) -> Result<bool> {
    let Pending::Update {
        from,
        to,
        ino,
        ctime_ns,
        digest,
        there,
        replaces,
    } = pending
    else {
        return Ok(false);
    };
    let untouched = |stamp: FileStamp| (stamp.ino, stamp.ctime_ns) == (ino, ctime_ns);
    if !applier.root.file_stamp(&from).is_ok_and(untouched) {
        leave_old_name(applier, (&from, &to), ino)?; // A rename moves the ctime.
    } else if has_copy(applier, &to, [ino, there], &digest) {
        applier.finish_move(&from, &digest)?;
    }
    let Some(replaces) = replaces else {
        return Ok(false);
    };
    // What cannot be read may be the old version, so it is not swept away.
    let path = applier.root.full(&replaces.tmp);
    end_exchange(applier, &replaces.tmp, &to).context("put in order", &path)?;
    if is_gone(applier, &replaces.tmp)? {
        return Ok(Path::new(OsStr::from_bytes(&replaces.trashed)).exists());
    }
    let left = hash_file(applier.root, &replaces.tmp).context("read", &path)?;
    if left.digest == replaces.digest {
        return Ok(false);
    }
    if left.stamp.ino != ino && left.digest != digest {
        // Somebody else's, which had come to that name: it has that again.
        let back = match is_at(applier, &to, replaces.ino) {
            true => applier.root.exchange(&replaces.tmp, &to).map(drop),
            false => applier.root.put_back(&replaces.tmp, &to),
        };
        back.context("put back", &path)?;
        return Ok(false);
    }
    trash_leftover(applier, &replaces.tmp, replaces.folder, replaces.name)?;
    Ok(true)
}

/// Whether a message's copy has the name, on another file system: another file than the message, and than what lay there before.
fn has_copy(applier: &Applier, to: &[u8], others: [u64; 2], digest: &Digest) -> bool {
    let seen = applier.root.file_stamp(to);
    seen.is_ok_and(|seen| !others.contains(&seen.ino))
        && hash_file(applier.root, to).is_ok_and(|hashed| hashed.digest == *digest)
}

/// Ends or takes back an exchange that goes in steps, see [`crate::rename::exchange`].
fn end_exchange(applier: &Applier, tmp: &[u8], to: &[u8]) -> io::Result<()> {
    let root = applier.root;
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
fn leave_old_name(applier: &Applier, (from, to): (&[u8], &[u8]), ino: u64) -> Result<()> {
    if from == to || !is_at(applier, from, ino) || !is_at(applier, to, ino) {
        return Ok(());
    }
    let removed = applier.root.remove(from, |seen| seen.ino == ino);
    removed
        .map(drop)
        .context("remove", &applier.root.full(from))
}

fn recover_retire(applier: &Applier, pending: Pending) -> Result<bool> {
    let Pending::Retire {
        folder,
        unique,
        copy,
        path,
        stamp,
        trashed,
        counts: _,
    } = pending
    else {
        return Ok(false);
    };
    // Then what lies in the trash is a copy, or part of one: that is on another file system.
    if may_be_there(applier.root.file_stamp(&path), stamp.ino) {
        return Ok(false);
    }
    let trashed = Path::new(OsStr::from_bytes(&trashed));
    match FileStamp::outside(trashed) {
        Ok(there) if there.same_bytes(&stamp) => {}
        Ok(_) => {
            put_back_file(applier, trashed, &path).context("put back", trashed)?;
            return Ok(false);
        }
        Err(_) => return Ok(false),
    }
    let row = applier.index.file_at(folder, &unique, copy)?;
    if let Some(mut row) = row.filter(|row| !row.gone) {
        (row.gone, row.lost, row.seq) = (true, false, applier.index.next_number()?);
        applier.index.put_file(&row)?;
    }
    Ok(true)
}

/// Gives another program's file its name back that had gone to the trash with it.
fn put_back_file(applier: &Applier, trashed: &Path, path: &[u8]) -> io::Result<()> {
    let dir = File::open(trashed.parent().unwrap_or(trashed))?;
    let name = trashed.file_name().unwrap_or_default().as_bytes();
    match applier.root.put_in(dir.as_fd(), name, path) {
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

fn is_gone(applier: &Applier, tmp: &[u8]) -> Result<bool> {
    match applier.root.file_stamp(tmp) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).context("look at", &applier.root.full(tmp)),
    }
}

/// Moves the old version of a message, left in `tmp` by a broken-off replacement, into the trash.
fn trash_leftover(applier: &mut Applier, tmp: &[u8], folder: Vec<u8>, name: Vec<u8>) -> Result<()> {
    let path = applier.root.full(tmp);
    let stamp = applier.root.file_stamp(tmp).context("look at", &path)?;
    let label = Label {
        folder,
        name,
        in_new: false,
        digest: None,
        reason: Some(reason_text(Reason::Replaced)),
    };
    let names = applier.trash.announce(applier.tag, &[label])?;
    let taken = applier
        .trash
        .take(applier.root, tmp, &stamp, &names[0])
        .context("move to the trash", &path)?;
    if taken == Taken::Changed {
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
