//! What a batch that was cut off left behind, put in order before anything else is looked at.
//!
//! Runs under the root's lock, so nobody else's batch is under way. For each recorded operation the file system tells whether it happened:
//! - *Create*: the file in `tmp` is there, and not in its place, too: no. It is gone, and the note says that it came, or it
//!   lies where it shall: yes. Then its row is written, and if the user deleted the message meanwhile, the scan that follows
//!   makes a tombstone of it: known as deleted, not as never there. It is gone without that: somebody has cleaned `tmp`, so
//!   no.
//! - *Update* without new bytes: the file has its old name and the ctime that it had: no. Otherwise the note of it says
//!   so, or the file has its new name. A row need not be written: the scan sees what there is. Where it has both names, the
//!   old one goes.
//! - *Update* with new bytes: an exchange that goes in steps is ended or taken back first. Then, the file in `tmp` is the new
//!   version: no, but it may have been renamed. It is the old one: the exchange happened, and it goes to the trash. It is
//!   somebody else's: that gets its place back. It is gone: as with *Create*.
//! - *Retire*: its file is in its place with the ctime that it had: no. What is in the trash is another file: that goes back,
//!   and no. Otherwise the note says that it went, or it lies in the trash and not in its place: yes. What is in its place
//!   then came back since: the tombstone makes it so.
//! - A folder of which a part was made is made whole: the scan would take it for one that a user made so.
//! - A folder that lies in the trash with mail in it goes back.
//!
//! What is found is kept under the batch's name, and its client will ask for it; what was deleted counts for the guard. All
//! of it is flushed before it counts: the dead run may not have come to that.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use protocol::Digest;
use protocol::codec::decode_state;
use protocol::message::{Fate, Reason};

use crate::apply::Applier;
use crate::apply_folder::PARTS;
use crate::error::{Context, Error, Result};
use crate::folder_scan::path as path_of;
use crate::hash::hash_file;
use crate::index::{FileRow, now_secs};
use crate::listing::subdir;
use crate::notes::{self, Note};
use crate::pending::{Begun, Pending};
use crate::record::sweep;
use crate::rename::parked_name;
use crate::root::{join, split_path};
use crate::stamp::FileStamp;
use crate::trash::{Label, Taken, has_mail, reason_text};

/// Puts the leftovers of dead runs in order.
pub(crate) fn recover(applier: &mut Applier) -> Result<()> {
    let mut leftovers = BTreeSet::new();
    for begun in applier.index.pending()? {
        let begun: Begun =
            decode_state(&begun).map_err(|error| Error::Usage(format!("The index: {error}")))?;
        bring_back(applier, &begun)?;
        leftovers.extend(
            begun
                .pending
                .iter()
                .filter_map(|(_, pending)| pending.tmp()),
        );
        let found = Found::of(applier, &begun);
        let (mut fates, mut deleted) = (vec![Fate::No; begun.ops], 0);
        applier.index.begin()?;
        for (number, pending) in begun.pending {
            let counts = pending.counts();
            let fate = match pending {
                Pending::Create { .. } => recover_create(applier, &found, number, pending)?,
                Pending::Update { .. } => recover_update(applier, &found, number, pending)?,
                Pending::Retire { .. } => recover_retire(applier, &found, number, pending)?,
                Pending::MakeFolder { dir } => recover_made(applier, &dir)?,
                Pending::Folder { .. } => recover_folder(applier, pending)?,
            };
            deleted += u64::from(counts && fate == Fate::Done);
            if let Some(place) = fates.get_mut(number) {
                *place = fate;
            }
        }
        applier.index.count_deleted(now_secs(), deleted)?;
        if let Some(batch) = begun.batch {
            applier.index.put_fates(batch, &fates)?;
        }
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
    sweep(applier.root, &applier.records).context("remove what was left in", &path)
}

/// Makes a folder whole of which there is a part. That it was made is seen by the scan.
fn recover_made(applier: &mut Applier, dir: &[u8]) -> Result<Fate> {
    let is_begun = PARTS.iter().any(|part| {
        let part = applier.root.dir_stamp(&join(dir, &[part]));
        part.is_ok()
    });
    if is_begun {
        let full = applier.root.full(dir);
        applier.make_parts(dir).context("make", &full)?;
    }
    Ok(Fate::No)
}

/// Brings back what was set aside for a moment, and remembers which directories may not have been flushed.
fn bring_back(applier: &mut Applier, begun: &Begun) -> Result<()> {
    let paths = begun
        .pending
        .iter()
        .flat_map(|(_, pending)| pending.paths());
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
fn recover_folder(applier: &Applier, pending: Pending) -> Result<Fate> {
    let Pending::Folder {
        dir,
        trashed: Some(trashed),
    } = pending
    else {
        return Ok(Fate::No);
    };
    let trashed = Path::new(OsStr::from_bytes(&trashed));
    if has_mail(trashed).unwrap_or(false) {
        put_back_dir(applier, trashed, &dir).context("put back", trashed)?;
    }
    Ok(Fate::No)
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

fn recover_create(
    applier: &Applier,
    found: &Found,
    number: usize,
    pending: Pending,
) -> Result<Fate> {
    let Pending::Create {
        tmp,
        ino,
        folder,
        unique,
        copy,
        entry,
    } = pending
    else {
        return Ok(Fate::No);
    };
    let at = applier.index.file_at(folder, &unique, copy)?;
    let seq = applier.index.next_number()?;
    let row = FileRow {
        seq,
        born: seq,
        folder,
        unique,
        copy,
        gone: false,
        lost: false,
        entry,
        stamp: FileStamp::default(), // Proves nothing, so the scan looks at the file.
        due: false,
    };
    let is_there = || {
        let dir = applier.folders.iter().find(|known| known.id == folder);
        dir.is_some_and(|known| is_at(applier, &path_of(&known.dir, &row), ino))
    };
    // In `tmp` and in its place: that is one file with two names.
    let has_come = match is_gone(applier, &tmp)? {
        true => found.notes.get(number) == Some(&Note::Renamed) || is_there(),
        false => is_there(),
    };
    if !has_come {
        return Ok(Fate::No);
    }
    if at.is_none_or(|row| row.gone) {
        applier.index.put_file(&row)?;
    }
    Ok(Fate::Done)
}

/// Whether the very file lies there.
fn is_at(applier: &Applier, path: &[u8], ino: u64) -> bool {
    let seen = applier.root.file_stamp(path);
    seen.is_ok_and(|stamp| stamp.ino == ino)
}

fn recover_update(
    applier: &mut Applier,
    found: &Found,
    number: usize,
    pending: Pending,
) -> Result<Fate> {
    let Pending::Update {
        from,
        to,
        ino,
        ctime_ns,
        digest,
        replaces,
    } = pending
    else {
        return Ok(Fate::No);
    };
    if found.is_copied(applier, number, (&from, &to), (ino, ctime_ns), &digest) {
        applier.finish_move(&from, &digest)?;
        return Ok(if replaces.is_some() {
            Fate::Renamed
        } else {
            Fate::Done
        });
    }
    let is_renamed = found.is_renamed(applier, number, (&from, &to), (ino, ctime_ns));
    if is_renamed {
        leave_old_name(applier, (&from, &to), ino)?;
    }
    let renamed = if is_renamed { Fate::Renamed } else { Fate::No };
    let Some(replaces) = replaces else {
        return Ok(if is_renamed { Fate::Done } else { Fate::No });
    };
    // What cannot be read may be the old version, so it is not swept away.
    let path = applier.root.full(&replaces.tmp);
    let is_ended = end_exchange(applier, &replaces.tmp, &to).context("put in order", &path)?;
    if is_gone(applier, &replaces.tmp)? {
        let is_replaced =
            found.notes.get(number) == Some(&Note::Replaced) || is_at(applier, &to, replaces.ino);
        return Ok(if is_replaced { Fate::Done } else { renamed });
    }
    let left = hash_file(applier.root, &replaces.tmp).context("read", &path)?;
    if left.digest == replaces.digest {
        return Ok(renamed);
    }
    if left.stamp.ino != ino && left.digest != digest {
        // Somebody else's, which had come to that name: it has that again.
        let back = match is_at(applier, &to, replaces.ino) {
            true => applier.root.exchange(&replaces.tmp, &to).map(drop),
            false => applier.root.put_back(&replaces.tmp, &to),
        };
        back.context("put back", &path)?;
        return Ok(renamed);
    }
    trash_leftover(applier, &replaces.tmp, replaces.folder, replaces.name)?;
    Ok(if is_ended { Fate::Done } else { renamed })
}

/// Ends or takes back an exchange that goes in steps, see [`crate::rename::exchange`]. Returns whether the new version has its
/// place, as far as that can be told; `false` where somebody else had come to the name.
fn end_exchange(applier: &Applier, tmp: &[u8], to: &[u8]) -> io::Result<bool> {
    let root = applier.root;
    let parked = parked_name(tmp);
    let ino = |path: &[u8]| match root.file_stamp(path) {
        Ok(stamp) => Ok(Some(stamp.ino)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let Some(old) = ino(&parked)? else {
        return Ok(true);
    };
    match (ino(tmp)?, ino(to)?) {
        (None, _) => root.rename_to_ours(&parked, tmp).map(|()| true),
        (Some(_), None) => root.rename(&parked, to).map(|()| true),
        (Some(_), Some(there)) if there == old => root.unlink(&parked).map(|()| true),
        (Some(new), Some(there)) => {
            root.unlink(tmp)?;
            root.rename_to_ours(&parked, tmp).map(|()| there == new)
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

fn recover_retire(
    applier: &Applier,
    found: &Found,
    number: usize,
    pending: Pending,
) -> Result<Fate> {
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
        return Ok(Fate::No);
    };
    let seen = applier.root.file_stamp(&path);
    // A machine that lost power may have kept a note and lost its rename.
    let is_untouched =
        matches!(&seen, Ok(seen) if (seen.ino, seen.ctime_ns) == (stamp.ino, stamp.ctime_ns));
    let trashed = Path::new(OsStr::from_bytes(&trashed));
    let has_gone = match found.notes.get(number) {
        _ if is_untouched => false,
        Some(Note::Renamed | Note::Replaced | Note::Copied) => true,
        Some(Note::Refused) => false,
        Some(Note::Nothing) | None => match FileStamp::outside(trashed) {
            Ok(there) if there.same_bytes(&stamp) => !may_be_there(seen, stamp.ino),
            Ok(_) => {
                put_back_file(applier, trashed, &path).context("put back", trashed)?;
                false
            }
            Err(_) => false,
        },
    };
    if !has_gone {
        return Ok(Fate::No);
    }
    let row = applier.index.file_at(folder, &unique, copy)?;
    if let Some(mut row) = row.filter(|row| !row.gone) {
        (row.gone, row.lost, row.seq) = (true, false, applier.index.next_number()?);
        applier.index.put_file(&row)?;
    }
    Ok(Fate::Done)
}

/// Gives another program's file its name back that had gone to the trash with it.
fn put_back_file(applier: &Applier, trashed: &Path, path: &[u8]) -> io::Result<()> {
    let dir = File::open(trashed.parent().unwrap_or(trashed))?;
    let name = trashed.file_name().unwrap_or_default().as_bytes();
    applier.root.put_in(dir.as_fd(), name, path)
}

/// Whether a message may be where it was before it was to be retired. What cannot be looked at is unknown, not absent: the
/// scan that follows judges it (I2).
fn may_be_there(seen: io::Result<FileStamp>, ino: u64) -> bool {
    match seen {
        Ok(stamp) => ino == 0 || stamp.ino == ino,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// How far a batch had come by its notes.
struct Found {
    notes: Vec<Note>,
    /// The operation during which it may have been cut off: its rename may have happened without a note.
    cut_off: Option<usize>,
}

impl Found {
    fn of(applier: &Applier, begun: &Begun) -> Found {
        let notes = notes::read(&applier.notes_path, begun.notes, begun.ops);
        let last = notes.iter().rposition(|note| *note != Note::Nothing);
        let mut begun = begun.pending.iter().map(|(number, _)| *number);
        let cut_off = begun.find(|number| last.is_none_or(|last| *number > last));
        Found { notes, cut_off }
    }

    /// Whether a message's copy has its new name on another disk, and the old file is still there as it was.
    fn is_copied(
        &self,
        applier: &Applier,
        number: usize,
        (from, to): (&[u8], &[u8]),
        (ino, ctime_ns): (u64, i64),
        digest: &Digest,
    ) -> bool {
        let untouched = |stamp: FileStamp| (stamp.ino, stamp.ctime_ns) == (ino, ctime_ns);
        self.notes.get(number) == Some(&Note::Copied)
            && applier.root.file_stamp(from).is_ok_and(untouched)
            && hash_file(applier.root, to).is_ok_and(|hashed| hashed.digest == *digest)
    }

    /// Whether a message was renamed, whatever a user made of it since. A rename moves the ctime.
    fn is_renamed(
        &self,
        applier: &Applier,
        number: usize,
        (from, to): (&[u8], &[u8]),
        (ino, ctime_ns): (u64, i64),
    ) -> bool {
        let seen = |path: &[u8]| {
            let stamp = applier.root.file_stamp(path).ok();
            stamp.filter(|stamp| ino != 0 && stamp.ino == ino)
        };
        if from == to {
            return false;
        }
        let stayed = seen(from);
        if stayed.is_some_and(|stamp| stamp.ctime_ns == ctime_ns) {
            return false;
        }
        match self.notes.get(number) {
            Some(Note::Renamed | Note::Replaced | Note::Copied) => true,
            Some(Note::Refused) => false,
            // Back under its old name: most likely it was away. Under a third one: most likely it was not.
            Some(Note::Nothing) | None => {
                seen(to).is_some() || (stayed.is_some() && self.cut_off == Some(number))
            }
        }
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
