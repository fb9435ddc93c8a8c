//! What a batch that was cut off left behind, put in order before anything else is looked at.
//!
//! Runs under the root's lock, so nobody else's batch is under way. Nothing but the tree shows how far the batch came. What it
//! did is found by the scan that follows, and by the client, which remembers what it asked; here only that is done which they
//! would take for something else:
//! - *Create*: the file is in `tmp` no more. If it has its name, it gets its row: of several files with one unique name, the name
//!   alone does not say which of them it is. If no message of its unique name is in the folder, a user has deleted it or moved it
//!   on, or somebody has cleaned `tmp`. So its place gets a tombstone of a message that is *lost*: if it is found elsewhere, it
//!   went there, and else it comes once more.
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

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use protocol::codec::decode_state;

use crate::apply::pending::Pending;
use crate::apply::site::Site;
use crate::error::{Context, Error, Result};
use crate::index::Index;
use crate::path::split_path;
use crate::record::sweep;
use crate::root::Root;
use crate::time::now_secs;

mod folder;
mod message;

use folder::{end_making, put_back_folder};
use message::{Names, end_create, end_retire, end_update};

/// Puts the leftovers of dead runs in order. Nothing is written where there are none.
pub(crate) fn recover(index: &Index, site: &mut Site, records: &Path) -> Result<()> {
    let batches = index.pending()?;
    if !batches.is_empty() {
        end_batches(index, site, batches)?;
    }
    sweep(site.root(), records).context("remove what was left in", site.root().path())
}

fn end_batches(index: &Index, site: &mut Site, batches: Vec<Vec<u8>>) -> Result<()> {
    let mut leftovers = BTreeSet::new();
    for begun in batches {
        let begun: Vec<Pending> =
            decode_state(&begun).map_err(|error| Error::Usage(format!("The index: {error}")))?;
        bring_back(site, &begun)?;
        leftovers.extend(begun.iter().filter_map(Pending::tmp));
        index.begin()?;
        let deleted = end_batch(index, site, &begun)?;
        index.count_deleted(now_secs(), deleted)?;
        // What users did to what did not happen need not have moved a directory's stamp.
        index.distrust_folders()?;
    }
    index.begin()?;
    index.clear_pending()?;
    site.flush()?;
    index.commit()?;
    // Only now: what is found in `tmp` shows the next run how far this one came, should it die, too.
    leftovers
        .iter()
        .try_for_each(|tmp| remove_leftover(site.root(), tmp))
}

/// Puts in order what one batch began; returns how much it took away that counts for the guard.
fn end_batch(index: &Index, site: &mut Site, begun: &[Pending]) -> Result<u64> {
    let (mut names, mut deleted) = (Names::default(), 0);
    for pending in begun {
        let took_away = match pending {
            Pending::Create(arriving) => {
                end_create(index, site.root(), &mut names, arriving)?;
                false
            }
            Pending::Update(changing) => end_update(site, changing)?,
            Pending::Retire(leaving) => end_retire(index, site.root(), leaving)?,
            Pending::MakeFolder { dir } => {
                end_making(&site.held, dir)?;
                false
            }
            Pending::Folder { dir, trashed } => {
                put_back_folder(site.root(), dir, trashed.as_deref())?;
                false
            }
        };
        deleted += u64::from(pending.counts() && took_away);
    }
    Ok(deleted)
}

/// Brings back what was set aside for a moment, and remembers which directories may not have been flushed.
fn bring_back(site: &Site, begun: &[Pending]) -> Result<()> {
    let paths = begun.iter().flat_map(Pending::paths);
    for path in paths.collect::<BTreeSet<_>>() {
        let (sub, _) = split_path(&path);
        let (folder, _) = split_path(sub);
        let brought = site.root().bring_back(folder);
        brought.context("put back what was set aside in", &site.root().full(folder))?;
        site.held.mark_dirty(sub);
    }
    Ok(())
}

fn remove_leftover(root: &Root, tmp: &[u8]) -> Result<()> {
    match root.unlink(tmp) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.context("remove", &root.full(tmp)),
    }
}
