//! Preparing a batch: new bodies lie in `tmp`, checked and with their times, before anything is changed.

use std::io;
use std::sync::Arc;

use protocol::fingerprint::Form;
use protocol::message::{At, NewBody, Source};
use protocol::{Op, Outcome};

use crate::apply::{Applier, outcome_of};
use crate::body::Body;
use crate::discover::check_dir;
use crate::folder_scan::path as path_of;
use crate::record::Record;
use crate::root::{join, split_path};
use crate::stamp::FileStamp;
use crate::written::{Written, flush};

/// What step 1 prepared for an operation.
pub(crate) enum Ready {
    /// Nothing was needed.
    Plain,
    /// The new bytes lie in `tmp`.
    Written {
        tmp: Vec<u8>,
        stamp: FileStamp,
        /// Held as long as they may lie there.
        _record: Arc<Record>,
    },
    /// It cannot be done.
    No(Outcome),
}

impl Applier<'_> {
    /// Brings all new bodies into `tmp` and makes them durable. Those that the disk then refuses are not to be had.
    pub(crate) fn prepare(&mut self, ops: &[Op], bodies: Vec<io::Result<Body>>) -> Vec<Ready> {
        let mut bodies = bodies.into_iter();
        let prepared: Vec<_> = ops.iter().map(|op| self.written(op, &mut bodies)).collect();
        let written = prepared.iter().flatten().flatten();
        let flushed = flush(written.filter(|written| !written.is_durable));
        let ready = prepared
            .into_iter()
            .map(|prepared| match (prepared, &flushed) {
                (None, _) => Ready::Plain,
                (Some(Err(error)), _) => Ready::No(outcome_of(&error)),
                // Flushing once more would succeed, and prove nothing.
                (Some(Ok(written)), Err(error)) if !written.is_durable => {
                    Ready::No(outcome_of(error))
                }
                (Some(Ok(written)), _) => {
                    let (tmp, stamp, _record) = written.into_file();
                    Ready::Written {
                        tmp,
                        stamp,
                        _record,
                    }
                }
            });
        ready.collect()
    }

    /// The new bytes of an operation in `tmp`, if it has any.
    fn written(
        &mut self,
        op: &Op,
        bodies: &mut dyn Iterator<Item = io::Result<Body>>,
    ) -> Option<io::Result<Written>> {
        let (body, to) = (op.new_body()?, op.target()?);
        Some(match &body.source {
            Source::Body { .. } => match bodies.next() {
                Some(Ok(Body::Written(written))) => Ok(written),
                Some(Ok(bytes)) => self.arrived(to, body, bytes),
                Some(Err(error)) => Err(error),
                None => Err(io::ErrorKind::Interrupted.into()),
            },
            Source::Copy(from) => self.copied(to, body, from),
            Source::Remade(form) => self.remade(op, body, form),
        })
    }

    /// The directory of a message's folder, which is made ahead where the folder is to be made in this batch.
    fn arriving_dir(&mut self, to: &At) -> io::Result<Vec<u8>> {
        if let Some(folder) = self.folder_of(to) {
            return Ok(folder.dir.clone());
        }
        if to.number.is_some() || check_dir(&to.folder).is_err() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let dir = to.folder.as_bytes().to_vec();
        self.inbox.make_dir(&dir)?;
        Ok(dir)
    }

    fn arrived(&mut self, to: &At, body: &NewBody, bytes: Body) -> io::Result<Written> {
        let dir = self.arriving_dir(to)?;
        self.inbox.write(&dir, body, bytes)
    }

    fn copied(&mut self, to: &At, body: &NewBody, from: &At) -> io::Result<Written> {
        let row = self
            .row_at(from)
            .ok()
            .flatten()
            .filter(|(_, row)| row.entry.digest == body.digest);
        let (folder, row) = row.ok_or(io::ErrorKind::NotFound)?;
        let source = self.root.open_file(&path_of(&folder.dir, &row))?;
        let dir = self.arriving_dir(to)?;
        self.inbox.copy(&dir, (&body.digest, body.mtime_ns), source)
    }

    /// Where a body lies that waits in `tmp`: its folder may have been renamed since.
    pub(crate) fn waiting(&self, tmp: &[u8], dir: &[u8]) -> Vec<u8> {
        let moved = join(dir, &[b"tmp", split_path(tmp).1]);
        // Most lie where they came, which needs no look.
        match moved != tmp && self.root.file_stamp(&moved).is_ok() {
            true => moved,
            false => tmp.to_vec(),
        }
    }

    /// The bytes that a message is to get, made of those that it has.
    fn remade(&mut self, op: &Op, body: &NewBody, form: &Form) -> io::Result<Written> {
        let Op::Update { at, expect, to, .. } = op else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let row = self.row_at(at).ok().flatten();
        let row = row.filter(|(_, row)| row.entry.digest == expect.digest);
        let (folder, row) = row.ok_or(io::ErrorKind::NotFound)?;
        let source = self.root.open_file(&path_of(&folder.dir, &row))?;
        let dir = self.arriving_dir(to)?;
        self.inbox.remake(&dir, body, source, form)
    }

    /// Removes what lies in `tmp` for an operation that did not happen.
    pub(crate) fn forget(&self, ready: &mut Ready, outcome: &Outcome) {
        if let (Ready::Written { tmp, .. }, false) = (
            &*ready,
            matches!(outcome, Outcome::Done { .. } | Outcome::Made { .. }),
        ) {
            if let Err(error) = self.root.unlink(tmp)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("Cannot remove {:?}: {error}", self.root.full(tmp));
            }
            *ready = Ready::No(outcome.clone());
        }
    }
}
