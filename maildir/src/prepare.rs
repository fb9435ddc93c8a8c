//! Preparing a batch: new bodies lie in `tmp`, checked and with their times, before anything is changed.

use std::fs::File;
use std::io::{self, Write};

use protocol::message::{At, NewBody, Source};
use protocol::{Op, Outcome};

use crate::apply::{Applier, new_body, outcome_of};
use crate::body::Body;
use crate::durable::SYNCFS_FROM;
use crate::folder_scan::path as path_of;
use crate::hash::hash_open;
use crate::root::{Root, join, set_mtime, stamp_of};
use crate::stamp::FileStamp;

/// The beginning of the names of our files in `tmp`.
pub(crate) const TMP_PREFIX: &str = "maildir-sync-";

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
    pub(crate) fn prepare(
        &mut self,
        op: &Op,
        bodies: &mut dyn Iterator<Item = io::Result<Body>>,
        files: &mut Vec<File>,
    ) -> Ready {
        let Some(body) = new_body(op) else {
            return Ready::Plain;
        };
        let written = match &body.source {
            Source::Body { .. } => match bodies.next() {
                Some(Ok(bytes)) => self.write_tmp(body, bytes),
                Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    Err(io::ErrorKind::Interrupted.into())
                }
                Some(Err(error)) => Err(error),
                None => Err(io::ErrorKind::Interrupted.into()),
            },
            Source::Copy(from) => self.copy_tmp(body, from),
        };
        match written {
            Ok((tmp, stamp, file)) => {
                // Where there are many, one call flushes them all, and a descriptor for each would be too many.
                if files.len() < SYNCFS_FROM {
                    files.push(file);
                }
                Ready::Written { tmp, stamp }
            }
            Err(error) => Ready::No(outcome_of(&error)),
        }
    }

    fn create_tmp(&mut self) -> io::Result<(Vec<u8>, File)> {
        *self.tmp_count += 1;
        let name = format!("{TMP_PREFIX}{}-{}", self.tag, self.tmp_count);
        let tmp = join(&self.tmp_dir, &[name.as_bytes()]);
        match self.held.create_file(&tmp) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.held.release();
                self.root.make_dir(&self.tmp_dir)?;
                self.held.create_file(&tmp).map(|file| (tmp, file))
            }
            other => other.map(|file| (tmp, file)),
        }
    }

    fn write_tmp(&mut self, body: &NewBody, bytes: Body) -> io::Result<(Vec<u8>, FileStamp, File)> {
        let (tmp, mut file) = self.create_tmp()?;
        let written = match &bytes {
            Body::Small(bytes) => file.write_all(bytes),
            Body::Large(path) => {
                File::open(path).and_then(|mut from| io::copy(&mut from, &mut file).map(|_| ()))
            }
        };
        let written = written.and_then(|()| {
            finish_tmp(self.root, &tmp, file, body, matches!(bytes, Body::Large(_)))
        });
        if let (Ok(_), Body::Large(path)) = (&written, &bytes) {
            let _ = std::fs::remove_file(path); // It lies in tmp now; left behind it would only be found again.
        }
        self.or_unlink(written, tmp)
    }

    fn copy_tmp(&mut self, body: &NewBody, from: &At) -> io::Result<(Vec<u8>, FileStamp, File)> {
        let row = self
            .row_at(from)
            .ok()
            .flatten()
            .filter(|(_, row)| row.entry.digest == body.digest);
        let (folder, row) = row.ok_or(io::ErrorKind::NotFound)?;
        let mut source = self.root.open_file(&path_of(&folder.dir, &row))?;
        let (tmp, mut file) = self.create_tmp()?;
        // std copies inside the kernel where it can, which shares blocks on file systems that do.
        let written = io::copy(&mut source, &mut file);
        let written = written.and_then(|_| finish_tmp(self.root, &tmp, file, body, true));
        self.or_unlink(written, tmp)
    }

    fn or_unlink(
        &self,
        written: io::Result<(FileStamp, File)>,
        tmp: Vec<u8>,
    ) -> io::Result<(Vec<u8>, FileStamp, File)> {
        match written {
            Ok((stamp, file)) => Ok((tmp, stamp, file)),
            Err(error) => {
                let _ = self.root.unlink(&tmp); // What failed to be written is of no use; the first error counts.
                Err(error)
            }
        }
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

/// Ends a file in `tmp`: its time, its stamp, and its digest where nobody checked it before.
fn finish_tmp(
    root: &Root,
    tmp: &[u8],
    file: File,
    body: &NewBody,
    must_check: bool,
) -> io::Result<(FileStamp, File)> {
    set_mtime(&file, body.mtime_ns)?;
    if must_check {
        let hashed = hash_open(&mut root.open_file(tmp)?)?;
        if hashed.digest != body.digest {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    let stamp = stamp_of(&file)?;
    Ok((stamp, file))
}
