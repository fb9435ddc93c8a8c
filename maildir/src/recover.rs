//! What a batch that was cut off left behind, put in order before anything else is looked at.
//!
//! Runs under the root's lock, so nobody else's batch is under way. If nobody writes into `tmp` either, every file of ours
//! there is a leftover. For each recorded operation the file system tells whether it happened:
//! - *Create*: the file in `tmp` is there: no. It is gone, and the note says that it came, or it lies where it shall:
//!   yes. Then its row is written, and if the user deleted the message meanwhile, the scan that follows makes a tombstone
//!   of it: known as deleted, not as never there. It is gone without that: somebody has cleaned `tmp`, so no.
//! - *Update* without new bytes: the file has its old name and the ctime that it had: no. Otherwise the note of it says
//!   so, or the file has its new name. A row need not be written: the scan sees what there is.
//! - *Update* with new bytes: the file in `tmp` is the new version: no, but it may have been renamed. It is another: the
//!   exchange happened, and the old version goes to the trash. It is gone: as with *Create*.
//! - *Retire*: its file is in its place with the ctime that it had: no. Otherwise the note says that it went, or it lies in
//!   the trash and not in its place: yes. What is in its place then came back since: the tombstone makes it so.
//!
//! What is found is kept under the batch's name, and its client will ask for it; what was deleted counts for the guard.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use protocol::bytes::escape;
use protocol::codec::decode_state;
use protocol::message::{Fate, Reason};

use crate::apply::Applier;
use crate::error::{Context, Error, Result};
use crate::folder_scan::path as path_of;
use crate::hash::hash_file;
use crate::inbox::{TMP_PREFIX, lock_alone};
use crate::index::{FileRow, now_secs};
use crate::notes::{self, Note};
use crate::pending::{Begun, Pending};
use crate::root::join;
use crate::stamp::FileStamp;
use crate::trash::{Label, Taken};

/// Puts the leftovers of dead runs in order.
pub(crate) fn recover(applier: &mut Applier) -> Result<()> {
    for begun in applier.index.pending()? {
        let begun: Begun =
            decode_state(&begun).map_err(|error| Error::Usage(format!("The index: {error}")))?;
        let found = Found::of(applier, &begun);
        let (mut fates, mut deleted) = (vec![Fate::No; begun.ops], 0);
        applier.index.begin()?;
        for (number, pending) in begun.pending {
            let counts = pending.counts();
            let fate = match pending {
                Pending::Create { .. } => recover_create(applier, &found, number, pending)?,
                Pending::Update { .. } => recover_update(applier, &found, number, pending)?,
                Pending::Retire { .. } => recover_retire(applier, &found, number, pending)?,
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
    applier.index.commit()?;
    // Only now: what is found in `tmp` tells the next one, should this run die, too.
    sweep(applier)
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
    if !is_gone(applier, &tmp)? {
        return Ok(Fate::No);
    }
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
    if found.notes.get(number) != Some(&Note::Renamed) && !is_there() {
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
        replaces,
    } = pending
    else {
        return Ok(Fate::No);
    };
    let Some(replaces) = replaces else {
        let is_renamed = found.is_renamed(applier, number, (&from, &to), (ino, ctime_ns));
        return Ok(if is_renamed { Fate::Done } else { Fate::No });
    };
    let is_renamed = || found.is_renamed(applier, number, (&from, &to), (ino, ctime_ns));
    if is_gone(applier, &replaces.tmp)? {
        let is_replaced =
            found.notes.get(number) == Some(&Note::Replaced) || is_at(applier, &to, replaces.ino);
        return Ok(match is_replaced {
            true => Fate::Done,
            false if is_renamed() => Fate::Renamed,
            false => Fate::No,
        });
    }
    // What cannot be read may be the old version, so it is not swept away.
    let path = applier.root.full(&replaces.tmp);
    let left = hash_file(applier.root, &replaces.tmp).context("read", &path)?;
    if left.digest != replaces.digest {
        trash_leftover(applier, &replaces.tmp, replaces.folder, replaces.name)?;
        return Ok(Fate::Done);
    }
    Ok(if is_renamed() {
        Fate::Renamed
    } else {
        Fate::No
    })
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
        ino,
        ctime_ns,
        trashed,
        counts: _,
    } = pending
    else {
        return Ok(Fate::No);
    };
    let seen = applier.root.file_stamp(&path);
    // A machine that lost power may have kept a note and lost its rename.
    let is_untouched = matches!(&seen, Ok(stamp) if (stamp.ino, stamp.ctime_ns) == (ino, ctime_ns));
    let has_gone = match found.notes.get(number) {
        _ if is_untouched => false,
        Some(Note::Renamed | Note::Replaced) => true,
        Some(Note::Refused) => false,
        Some(Note::Nothing) | None => {
            !may_be_there(seen, ino) && Path::new(OsStr::from_bytes(&trashed)).exists()
        }
    };
    if !has_gone {
        return Ok(Fate::No);
    }
    let row = applier.index.file_at(folder, &unique, copy)?;
    if let Some(mut row) = row.filter(|row| !row.gone) {
        (row.gone, row.seq) = (true, applier.index.next_number()?);
        applier.index.put_file(&row)?;
    }
    Ok(Fate::Done)
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
            Some(Note::Renamed | Note::Replaced) => true,
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
        reason: Some(Reason::Replaced),
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

/// Removes our files from `tmp`; what they held is complete elsewhere.
fn sweep(applier: &Applier) -> Result<()> {
    let dir = &applier.tmp_dir;
    let alone = match lock_alone(applier.root, dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.context("open", &applier.root.full(dir))?,
    };
    if alone.is_none() {
        return Ok(()); // Another run is writing; a later one removes what dead ones left.
    }
    let listed = applier.root.list(dir);
    let listed = listed.context("list", &applier.root.full(dir))?;
    for listed in listed
        .iter()
        .filter(|listed| listed.name.starts_with(TMP_PREFIX.as_bytes()))
    {
        tracing::info!(
            "Removing {} that a broken-off run left in tmp",
            escape(&listed.name)
        );
        let path = join(&applier.tmp_dir, &[&listed.name]);
        applier
            .root
            .unlink(&path)
            .context("remove", &applier.root.full(&path))?;
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
