//! What a batch that was cut off left behind, put in order before anything else is looked at.
//!
//! Runs under the root's lock, so nobody else's batch is under way, and every file of ours in `tmp` is a leftover. For
//! each recorded operation the file system tells whether it happened:
//! - *Create*: the file in `tmp` is there: no. It is gone: the message appeared. Then its row is written, and if the
//!   user deleted the message meanwhile, the scan that follows makes a tombstone of it: known as deleted, not as never
//!   there.
//! - *Replace*: the file in `tmp` is the new version: no. It is another: the exchange happened, and the old version goes
//!   to the trash. It is gone: all happened.
//! - *Retire*: the message is there with the same inode and ctime: no. Otherwise it went, and what is there now came
//!   back since: the tombstone makes it so.

use std::io;

use protocol::bytes::escape;
use protocol::codec::decode_state;
use protocol::message::Reason;

use crate::apply::Applier;
use crate::error::{Context, Error, Result};
use crate::hash::hash_file;
use crate::index::FileRow;
use crate::pending::Pending;
use crate::prepare::TMP_PREFIX;
use crate::root::join;
use crate::stamp::FileStamp;
use crate::trash::{Label, Taken};

/// Puts the leftovers of dead runs in order.
pub(crate) fn recover(applier: &mut Applier) -> Result<()> {
    for batch in applier.index.pending()? {
        let batch: Vec<Pending> =
            decode_state(&batch).map_err(|error| Error::Usage(format!("The index: {error}")))?;
        for pending in batch {
            applier.index.begin()?;
            match pending {
                Pending::Create {
                    tmp,
                    folder,
                    unique,
                    copy,
                    entry,
                } => {
                    let at = applier.index.file_at(folder, &unique, copy)?;
                    if is_gone(applier, &tmp)? && at.is_none_or(|row| row.gone) {
                        let seq = applier.index.next_number()?;
                        let stamp = FileStamp::default(); // Proves nothing, so the scan looks at the file.
                        let row = FileRow {
                            seq,
                            born: seq,
                            folder,
                            unique,
                            copy,
                            gone: false,
                            confirmed: false,
                            entry,
                            stamp,
                        };
                        applier.index.put_file(&row)?;
                    }
                }
                Pending::Replace {
                    tmp,
                    digest,
                    folder,
                    name,
                } => {
                    if !is_gone(applier, &tmp)? {
                        // What cannot be read may be the old version, so it is not swept away.
                        let path = applier.root.full(&tmp);
                        let left = hash_file(applier.root, &tmp).context("read", &path)?;
                        if left.digest != digest {
                            trash_leftover(applier, &tmp, folder, name)?;
                        }
                    }
                }
                Pending::Retire {
                    folder,
                    unique,
                    copy,
                    path,
                    ino,
                    ctime_ns,
                } => {
                    let stayed = match applier.root.file_stamp(&path) {
                        Ok(stamp) => {
                            ctime_ns == 0 || (stamp.ino, stamp.ctime_ns) == (ino, ctime_ns)
                        }
                        Err(_) => false,
                    };
                    let row = applier
                        .index
                        .file_at(folder, &unique, copy)?
                        .filter(|row| !row.gone);
                    if let (false, Some(mut row)) = (stayed, row) {
                        (row.gone, row.seq) = (true, applier.index.next_number()?);
                        applier.index.put_file(&row)?;
                    }
                }
            }
        }
        // The folders concerned are read again: their stamps moved with the batch.
    }
    sweep(applier)?;
    applier.index.begin()?;
    applier.index.clear_pending()?;
    applier.index.commit()
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
    let listed = match applier.root.list(&applier.tmp_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.context("list", &applier.root.full(&applier.tmp_dir))?,
    };
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
