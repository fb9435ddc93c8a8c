//! Preparing a batch: new bodies lie in `tmp`, checked, with their times, and durable, before anything is changed.

use std::fs::File;
use std::io;
use std::sync::Arc;

use protocol::message::{At, Source};
use protocol::{Digest, Op, Outcome};

use super::lookup::Lookup;
use super::site::Site;
use super::step::{Step, outcome_of, stale};
use crate::discover::check_dir;
use crate::inbox::Inbox;
use crate::path::{join, split_path};
use crate::record::RunRecord;
use crate::root::Root;
use crate::stamp::FileStamp;
use crate::written::{Written, flush};

/// The bytes of an operation, as far as it has any.
pub(crate) enum Ready {
    /// It needs none.
    Plain,
    /// They lie in `tmp`.
    InTmp(TmpFile),
    /// They are unavailable, so it cannot be done.
    No(Outcome),
}

/// A whole body in `tmp`, durable.
pub(crate) struct TmpFile {
    pub(crate) path: Vec<u8>,
    pub(crate) stamp: FileStamp,
    /// Held as long as it may lie there.
    record: Arc<RunRecord>,
}

impl TmpFile {
    /// Where it lies: its folder may have been renamed since, and has this directory now.
    pub(crate) fn path_in(&self, root: &Root, dir: &[u8]) -> Vec<u8> {
        let moved = join(dir, &[b"tmp", split_path(&self.path).1]);
        // Most lie where they came, which needs no look.
        match moved != self.path && root.file_stamp(&moved).is_ok() {
            true => moved,
            false => self.path.clone(),
        }
    }
}

impl From<Written> for TmpFile {
    fn from(written: Written) -> TmpFile {
        let (path, stamp, record) = written.into_file();
        TmpFile {
            path,
            stamp,
            record,
        }
    }
}

impl Ready {
    /// The file in `tmp` of an operation that brings bytes.
    pub(crate) fn file(&self) -> Step<&TmpFile> {
        match self {
            Ready::InTmp(file) => Ok(file),
            Ready::Plain | Ready::No(_) => stale(),
        }
    }

    /// Removes what lies in `tmp` for an operation that did not happen.
    pub(crate) fn forget(&self, root: &Root, outcome: &Outcome) {
        let is_done = matches!(outcome, Outcome::Done { .. } | Outcome::Made { .. });
        if let Ready::InTmp(file) = self
            && !is_done
        {
            file.record.remove(root, &file.path);
        }
    }
}

/// Brings all new bodies into `tmp` and makes them durable. Those that the disk then refuses are
/// unavailable.
pub(crate) fn prepare(
    lookup: &Lookup,
    site: &mut Site,
    ops: &[Op],
    bodies: Vec<io::Result<Written>>,
) -> Vec<Ready> {
    let mut bodies = bodies.into_iter();
    let written: Vec<_> = ops
        .iter()
        .map(|op| write(lookup, site, op, &mut bodies))
        .collect();
    let unflushed = written.iter().flatten().flatten();
    let flushed = flush(unflushed.filter(|written| !written.is_durable));
    let ready = written
        .into_iter()
        .map(|written| match (written, &flushed) {
            (None, _) => Ready::Plain,
            (Some(Err(error)), _) => Ready::No(outcome_of(&error)),
            // Flushing once more would succeed, and prove nothing.
            (Some(Ok(written)), Err(error)) if !written.is_durable => Ready::No(outcome_of(error)),
            (Some(Ok(written)), _) => Ready::InTmp(written.into()),
        });
    ready.collect()
}

/// The new bytes of an operation in `tmp`, if it has any.
fn write(
    lookup: &Lookup,
    site: &mut Site,
    op: &Op,
    bodies: &mut dyn Iterator<Item = io::Result<Written>>,
) -> Option<io::Result<Written>> {
    let (body, to) = (op.new_body()?, op.target()?);
    Some(match (&body.source, op) {
        (Source::Body { .. }, _) => match bodies.next() {
            Some(written) => written,
            None => Err(io::ErrorKind::Interrupted.into()),
        },
        (Source::Copy(from), _) => {
            let source = open_message(lookup, site.root(), from, &body.digest);
            source.and_then(|source| {
                let dir = arriving_dir(lookup, site.inbox, to)?;
                let (digest, mtime_ns) = (&body.digest, body.mtime_ns);
                site.inbox.copy(&dir, digest, mtime_ns, source)
            })
        }
        // Made of the bytes that the message has.
        (Source::Remade(form), Op::Update { at, expect, .. }) => {
            let source = open_message(lookup, site.root(), at, &expect.digest);
            source.and_then(|source| {
                let dir = arriving_dir(lookup, site.inbox, to)?;
                site.inbox.remake(&dir, body, source, form)
            })
        }
        (Source::Remade(_), _) => Err(io::ErrorKind::InvalidInput.into()),
    })
}

/// Opens a message of this replica that has these bytes.
fn open_message(lookup: &Lookup, root: &Root, at: &At, digest: &Digest) -> io::Result<File> {
    let message = lookup.message_at(at).ok().flatten();
    let message = message.filter(|message| message.row.entry.digest == *digest);
    root.open_file(&message.ok_or(io::ErrorKind::NotFound)?.path())
}

/// The directory of a message's folder, which is made ahead where the folder is to be made in this batch.
fn arriving_dir(lookup: &Lookup, inbox: &Inbox, to: &At) -> io::Result<Vec<u8>> {
    if let Some(folder) = lookup.folder_of(to) {
        return Ok(folder.dir.clone());
    }
    if to.number.is_some() || check_dir(&to.folder).is_err() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let dir = to.folder.as_bytes().to_vec();
    inbox.make_dir(&dir)?;
    Ok(dir)
}
