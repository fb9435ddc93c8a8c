//! Preparing a batch: new bodies lie in `tmp`, checked and with their times, before anything is changed.

use std::io;

use protocol::fingerprint::Form;
use protocol::message::{At, NewBody, Source};
use protocol::{Op, Outcome};

use crate::apply::{Applier, outcome_of};
use crate::body::Body;
use crate::folder_scan::path as path_of;
use crate::inbox::{Inbox, Written, flush};
use crate::stamp::FileStamp;

/// What step 1 prepared for an operation.
pub(crate) enum Ready {
    /// Nothing was needed.
    Plain,
    /// The new bytes lie in `tmp`.
    Written { tmp: Vec<u8>, stamp: FileStamp },
    /// It cannot be done.
    No(Outcome),
}

impl Applier<'_> {
    /// Brings all new bodies into `tmp` and makes them durable.
    pub(crate) fn prepare(
        &mut self,
        ops: &[Op],
        bodies: Vec<io::Result<Body>>,
    ) -> (Vec<Ready>, io::Result<()>) {
        let mut bodies = bodies.into_iter();
        let prepared: Vec<_> = ops.iter().map(|op| self.written(op, &mut bodies)).collect();
        let written = prepared.iter().flatten().flatten();
        let flushed = flush(self.root, written.filter(|written| !written.is_durable));
        let ready = prepared.into_iter().map(|prepared| match prepared {
            None => Ready::Plain,
            Some(Ok(written)) => {
                let (tmp, stamp) = written.into_file();
                Ready::Written { tmp, stamp }
            }
            Some(Err(error)) => Ready::No(outcome_of(&error)),
        });
        (ready.collect(), flushed)
    }

    /// The new bytes of an operation in `tmp`, if it has any.
    fn written(
        &mut self,
        op: &Op,
        bodies: &mut dyn Iterator<Item = io::Result<Body>>,
    ) -> Option<io::Result<Written>> {
        let body = op.new_body()?;
        Some(match &body.source {
            Source::Body { .. } => match bodies.next() {
                Some(Ok(Body::Written(written))) => Ok(written),
                Some(Ok(bytes)) => self.inbox().and_then(|inbox| inbox.write(body, bytes)),
                Some(Err(error)) => Err(error),
                None => Err(io::ErrorKind::Interrupted.into()),
            },
            Source::Copy(from) => self.copied(body, from),
            Source::Remade(form) => self.remade(op, body, form),
        })
    }

    fn inbox(&mut self) -> io::Result<&mut Inbox> {
        Ok(match &mut self.inbox {
            Some(inbox) => inbox,
            none => none.insert(Inbox::open(self.root, self.tmp_dir.clone())?),
        })
    }

    fn copied(&mut self, body: &NewBody, from: &At) -> io::Result<Written> {
        let row = self
            .row_at(from)
            .ok()
            .flatten()
            .filter(|(_, row)| row.entry.digest == body.digest);
        let (folder, row) = row.ok_or(io::ErrorKind::NotFound)?;
        let source = self.root.open_file(&path_of(&folder.dir, &row))?;
        self.inbox()?.copy(body, source)
    }

    /// The bytes that a message is to get, made of those that it has.
    fn remade(&mut self, op: &Op, body: &NewBody, form: &Form) -> io::Result<Written> {
        let Op::Update { at, expect, .. } = op else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let row = self.row_at(at).ok().flatten();
        let row = row.filter(|(_, row)| row.entry.digest == expect.digest);
        let (folder, row) = row.ok_or(io::ErrorKind::NotFound)?;
        let source = self.root.open_file(&path_of(&folder.dir, &row))?;
        self.inbox()?.remake(body, source, form)
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
