//! What a batch that was cut off left behind, put in order before anything else is looked at.
//!
//! Runs under the root's lock, so nobody else's batch is under way. If nobody writes into `tmp` either, every file of ours
//! there is a leftover. For each recorded operation the file system tells whether it happened:
//! - *Create*: the file in `tmp` is there: no. It is gone: the message appeared. Then its row is written, and if the
//!   user deleted the message meanwhile, the scan that follows makes a tombstone of it: known as deleted, not as never
//!   there.
//! - *Update* without new bytes: the file has its old name and the ctime that it had: no. Otherwise the note of it says
//!   so, or the file has its new name. A row need not be written: the scan sees what there is.
//! - *Update* with new bytes: the file in `tmp` is the new version: no, but it may have been renamed. It is another: the
//!   exchange happened, and the old version goes to the trash. It is gone: all happened.
//! - *Retire*: the message is there with the same inode and ctime: no. Otherwise it went, and what is there now came
//!   back since: the tombstone makes it so.
//!
//! What is found is kept under the batch's name, and its client will ask for it; what was deleted counts for the guard.

use std::io;

use protocol::bytes::escape;
use protocol::codec::decode_state;
use protocol::message::{Fate, Reason};

use crate::apply::Applier;
use crate::error::{Context, Error, Result};
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
                Pending::Create { .. } => recover_create(applier, pending)?,
                Pending::Update { .. } => recover_update(applier, &found, number, pending)?,
                Pending::Retire { .. } => recover_retire(applier, pending)?,
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
        // The folders concerned are read again: their stamps moved with the batch.
    }
    sweep(applier)?;
    applier.index.begin()?;
    applier.index.clear_pending()?;
    applier.index.commit()
}

fn recover_create(applier: &Applier, pending: Pending) -> Result<Fate> {
    let Pending::Create {
        tmp,
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
    if at.is_none_or(|row| row.gone) {
        let seq = applier.index.next_number()?;
        let stamp = FileStamp::default(); // Proves nothing, so the scan looks at the file.
        applier.index.put_file(&FileRow {
            seq,
            born: seq,
            folder,
            unique,
            copy,
            gone: false,
            confirmed: false,
            entry,
            stamp,
        })?;
    }
    Ok(Fate::Done)
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
    if is_gone(applier, &replaces.tmp)? {
        return Ok(Fate::Done);
    }
    // What cannot be read may be the old version, so it is not swept away.
    let path = applier.root.full(&replaces.tmp);
    let left = hash_file(applier.root, &replaces.tmp).context("read", &path)?;
    if left.digest != replaces.digest {
        trash_leftover(applier, &replaces.tmp, replaces.folder, replaces.name)?;
        return Ok(Fate::Done);
    }
    let is_renamed = found.is_renamed(applier, number, (&from, &to), (ino, ctime_ns));
    Ok(if is_renamed { Fate::Renamed } else { Fate::No })
}

fn recover_retire(applier: &Applier, pending: Pending) -> Result<Fate> {
    let Pending::Retire {
        folder,
        unique,
        copy,
        path,
        ino,
        ctime_ns,
        counts: _,
    } = pending
    else {
        return Ok(Fate::No);
    };
    if has_stayed(applier.root.file_stamp(&path), ino, ctime_ns) {
        return Ok(Fate::No);
    }
    let row = applier.index.file_at(folder, &unique, copy)?;
    if let Some(mut row) = row.filter(|row| !row.gone) {
        (row.gone, row.seq) = (true, applier.index.next_number()?);
        applier.index.put_file(&row)?;
    }
    Ok(Fate::Done)
}

/// Whether a message is where it was before it was to be retired. What cannot be looked at is unknown, not absent: the scan
/// that follows judges it (I2).
fn has_stayed(seen: io::Result<FileStamp>, ino: u64, ctime_ns: i64) -> bool {
    match seen {
        Ok(stamp) => ctime_ns == 0 || (stamp.ino, stamp.ctime_ns) == (ino, ctime_ns),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// How far a batch had come by its notes.
struct Found {
    notes: Vec<Note>,
    /// The update during which it may have been cut off: its rename may have happened without a note.
    cut_off: Option<usize>,
}

impl Found {
    fn of(applier: &Applier, begun: &Begun) -> Found {
        let notes = notes::read(&applier.notes_path, begun.notes, begun.ops);
        let last = notes.iter().rposition(|note| *note != Note::Nothing);
        let mut updates = begun
            .pending
            .iter()
            .filter(|(_, pending)| matches!(pending, Pending::Update { .. }))
            .map(|(number, _)| *number);
        let cut_off = updates.find(|number| last.is_none_or(|last| *number > last));
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
            Some(Note::Renamed) => true,
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
    fn only_what_is_not_there_or_was_changed_did_not_stay() {
        let seen = |ino, ctime_ns| {
            Ok(FileStamp {
                ino,
                ctime_ns,
                ..FileStamp::default()
            })
        };
        assert!(has_stayed(seen(7, 9), 7, 9));
        assert!(!has_stayed(seen(7, 10), 7, 9));
        assert!(!has_stayed(seen(8, 9), 7, 9));
        assert!(!has_stayed(Err(io::ErrorKind::NotFound.into()), 7, 9));
        for unknown in [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::StaleNetworkFileHandle,
        ] {
            assert!(has_stayed(Err(unknown.into()), 7, 9), "{unknown}");
        }
    }
}
