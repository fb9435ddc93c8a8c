//! Bodies that have come and wait in `tmp` for their batch.
//!
//! They are written while earlier batches are carried out, so without the root's lock. Therefore `tmp` has a lock of its
//! own: whoever writes holds it shared, and only who gets it alone may take what lies there for leftovers.

use std::fs::{File, TryLockError};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use protocol::bytes::hex;
use protocol::fingerprint::Form;
use protocol::message::NewBody;
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::body::Body;
use crate::durable::{SYNCFS_FROM, sync_files};
use crate::hash::hash_open;
use crate::root::{Root, join, set_mtime, stamp_of};
use crate::stamp::FileStamp;

/// The beginning of the names of our files in `tmp`.
pub(crate) const TMP_PREFIX: &str = "maildir-sync-";

/// Writes bodies into `tmp`; may be used beside the replica, from another thread.
#[derive(Debug)]
pub struct Inbox {
    root: Root,
    /// `tmp`, relative to the root.
    dir: Vec<u8>,
    held: Arc<File>,
    /// What a message's file may be to whom.
    mode: Mode,
    prefix: String,
    count: u64,
    /// Shared by the bodies whose files are open still.
    open: Arc<()>,
}

/// A body in `tmp`, complete and with its time; removed when it is dropped without having been used.
#[derive(Debug)]
pub struct Written {
    dir: Arc<File>,
    name: String,
    pub(crate) path: Vec<u8>,
    pub(crate) stamp: FileStamp,
    pub(crate) is_durable: bool,
    is_used: bool,
    /// Where it was collected, if it was large: kept until its batch begins, so that nothing of it is sent again.
    partial: Option<PathBuf>,
    /// Its file, for flushing, as long as few are open.
    pub(crate) open: Option<Open>,
}

/// A file that is kept open, and counted.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) file: File,
    _counted: Arc<()>,
}

impl Written {
    /// From here on somebody else sees to the file.
    pub(crate) fn into_file(mut self) -> (Vec<u8>, FileStamp) {
        self.is_used = true;
        if let Some(partial) = &self.partial {
            let _ = std::fs::remove_file(partial); // Left behind it would only be found again.
        }
        (std::mem::take(&mut self.path), self.stamp)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if !self.is_used
            && let Err(error) = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty())
        {
            tracing::debug!("Cannot remove {} from tmp: {error}", self.name); // The next run does.
        }
    }
}

impl Inbox {
    /// Opens `tmp` of a folder, which is made if it is missing.
    pub(crate) fn open(root: &Root, dir: Vec<u8>) -> io::Result<Inbox> {
        let held = Arc::new(open_tmp(root, &dir)?);
        let random = crate::random::<8>().map_err(io::Error::other)?;
        let mode = root.file_mode(&dir)?;
        Ok(Inbox {
            mode,
            root: root.try_clone()?,
            dir,
            held,
            prefix: format!("{TMP_PREFIX}{}", hex(&random)),
            count: 0,
            open: Arc::new(()),
        })
    }

    /// Writes a body whose digest was checked.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&mut self, body: &NewBody, bytes: Body) -> io::Result<Written> {
        let mut written = match &bytes {
            Body::Written(_) => Err(io::ErrorKind::InvalidInput.into()), // It is there already.
            Body::Small(bytes) => self.fill(body, |file| file.write_all(bytes)),
            // Copied, because a file that is made here has the group that files get here.
            Body::Large(path) => self.fill(body, |file| {
                let copied = io::copy(&mut File::open(path)?, file)?;
                if copied == body.size {
                    Ok(())
                } else {
                    Err(io::ErrorKind::Interrupted.into())
                }
            }),
        }?;
        if let Body::Large(path) = bytes {
            written.partial = Some(path);
        }
        Ok(written)
    }

    /// Copies a message of this replica, whose digest is compared.
    pub(crate) fn copy(&mut self, body: &NewBody, mut source: File) -> io::Result<Written> {
        // std copies inside the kernel where it can, which shares blocks on file systems that do.
        let written = self.fill(body, |file| io::copy(&mut source, file).map(|_| ()))?;
        self.checked(body, written)
    }

    /// Makes bytes of those of a message of this replica; their digest is compared.
    pub(crate) fn remake(
        &mut self,
        body: &NewBody,
        source: File,
        form: &Form,
    ) -> io::Result<Written> {
        let written = self.fill(body, |file| {
            let mut to = Limited {
                to: BufWriter::new(file),
                left: body.size,
            };
            match form.restore(BufReader::new(source), &mut to) {
                Ok(true) => to.flush(),
                Ok(false) => Err(io::ErrorKind::Interrupted.into()),
                Err(_) if to.left == 0 => Err(io::ErrorKind::Interrupted.into()),
                Err(error) => Err(error),
            }
        })?;
        self.checked(body, written)
    }

    fn checked(&self, body: &NewBody, written: Written) -> io::Result<Written> {
        let hashed = hash_open(&mut self.root.open_file(&written.path)?)?;
        if hashed.digest == body.digest {
            Ok(written)
        } else {
            Err(io::ErrorKind::Interrupted.into())
        }
    }

    fn fill(
        &mut self,
        body: &NewBody,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Written> {
        let (mut file, mut written) = self.create()?;
        fill(&mut file)?;
        rustix::fs::fchmod(&file, self.mode)?;
        set_mtime(&file, body.mtime_ns)?;
        written.stamp = stamp_of(&file)?;
        if Arc::strong_count(&self.open) <= SYNCFS_FROM {
            let _counted = Arc::clone(&self.open);
            written.open = Some(Open { file, _counted });
        }
        Ok(written)
    }

    fn create(&mut self) -> io::Result<(File, Written)> {
        self.count += 1;
        let name = format!("{}-{}", self.prefix, self.count);
        let file = match self.create_named(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.held = Arc::new(open_tmp(&self.root, &self.dir)?);
                self.create_named(&name)
            }
            other => other,
        }?;
        let written = Written {
            dir: Arc::clone(&self.held),
            path: join(&self.dir, &[name.as_bytes()]),
            name,
            stamp: FileStamp::default(),
            is_durable: false,
            is_used: false,
            partial: None,
            open: None,
        };
        Ok((file, written))
    }

    fn create_named(&self, name: &str) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*self.held, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(file.into())
    }
}

/// Takes no more bytes than were promised.
struct Limited<W> {
    to: W,
    left: u64,
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nothing written is an error to whoever has something left.
        let some = bytes
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= some as u64;
        self.to.write_all(&bytes[..some]).map(|()| some)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Makes bodies in `tmp` durable; may be used beside the replica, from another thread.
#[derive(Debug)]
pub struct Flusher {
    pub(crate) root: Root,
}

impl Flusher {
    /// Flushes the bodies of a batch; where the disk refuses, they count as not to be had.
    pub fn flush(&self, bodies: &mut [io::Result<Body>]) {
        let written = bodies.iter_mut().filter_map(|body| match body {
            Ok(Body::Written(written)) => Some(written),
            Ok(Body::Small(_) | Body::Large(_)) | Err(_) => None,
        });
        let mut written: Vec<_> = written.collect();
        match flush(&self.root, written.iter().map(|written| &**written)) {
            Ok(()) => written
                .iter_mut()
                .for_each(|written| (written.is_durable, written.open) = (true, None)),
            Err(error) => {
                for body in bodies.iter_mut().filter(|body| body.is_ok()) {
                    *body = Err(copy_of(&error));
                }
            }
        }
    }
}

/// Makes bodies in `tmp` durable.
pub(crate) fn flush<'w>(root: &Root, written: impl Iterator<Item = &'w Written>) -> io::Result<()> {
    let files: Vec<Option<&File>> = written
        .map(|written| written.open.as_ref().map(|open| &open.file))
        .collect();
    sync_files(root, &files)
}

fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => error.kind().into(),
    }
}

/// Opens `tmp`, and holds its lock shared as long as it is open.
fn open_tmp(root: &Root, dir: &[u8]) -> io::Result<File> {
    let opened = match root.open_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            root.make_dir(dir)?;
            root.open_dir(dir)
        }
        other => other,
    }?;
    let held = File::from(opened);
    if let Err(error) = held.lock_shared() {
        // Then another run may take our files for leftovers: their messages wait for the run after.
        tracing::debug!("tmp cannot be locked: {error}");
    }
    Ok(held)
}

/// Nobody writes into `tmp` as long as what is returned is held; `None` where somebody does. Asked under the root's lock.
pub(crate) fn lock_alone(root: &Root, dir: &[u8]) -> io::Result<Option<File>> {
    let held = File::from(root.open_dir(dir)?);
    match held.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(None),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(held)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use protocol::message::{At, Source};
    use protocol::{Digest, FolderDir, Info, Op, Outcome, Unique};

    use super::*;
    use crate::replica::open_for_test as open;

    const BYTES: &[u8] = b"Subject: on its way\n\n";

    fn new_body() -> NewBody {
        NewBody {
            digest: Digest::of(BYTES),
            size: BYTES.len() as u64,
            mtime_ns: 1_000_000_000,
            source: Source::Body { offset: 0 },
        }
    }

    fn in_tmp(root: &Path) -> usize {
        let names = std::fs::read_dir(root.join("mail/tmp")).expect("tmp is there");
        names.count()
    }

    #[test]
    fn what_one_run_writes_another_takes_for_no_leftover() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut one = open(dir.path(), "one");
        one.scan().expect("it scans");
        let mut inbox = one.inbox().expect("tmp opens");
        let written = inbox.write(&new_body(), Body::Small(BYTES.to_vec()));
        let mut bodies = vec![written.map(Body::Written)];
        one.flusher().expect("it opens").flush(&mut bodies);
        assert!(matches!(&bodies[..], [Ok(Body::Written(written))] if written.is_durable));
        assert_eq!(in_tmp(dir.path()), 1);
        open(dir.path(), "two").scan().expect("it scans");
        assert_eq!(in_tmp(dir.path()), 1, "it is still there");
        let op = Op::Create {
            at: At {
                number: None,
                folder: FolderDir::root(),
                unique: Unique::new(b"1.a.b").expect("a name"),
                copy: 0,
            },
            in_new: true,
            info: Info::default(),
            body: new_body(),
        };
        let made = Op::MakeFolder {
            dir: FolderDir::root(),
        };
        one.apply(None, &[made], Vec::new()).expect("it is made");
        let outcomes = one.apply(None, &[op], bodies).expect("it is applied");
        assert!(
            matches!(outcomes[..], [Outcome::Done { .. }]),
            "{outcomes:?}"
        );
        let bytes = std::fs::read(dir.path().join("mail/new/1.a.b"));
        assert_eq!(bytes.expect("it arrived"), BYTES);
        assert_eq!(in_tmp(dir.path()), 0);
    }

    #[test]
    fn what_a_dead_run_left_goes_and_what_nobody_uses_goes_at_once() {
        let dir = tempfile::tempdir().expect("temp dir");
        let one = open(dir.path(), "one");
        let mut inbox = one.inbox().expect("tmp opens");
        let written = inbox.write(&new_body(), Body::Small(BYTES.to_vec()));
        drop(written.expect("it is written"));
        assert_eq!(in_tmp(dir.path()), 0, "nobody used it");
        let left = inbox.write(&new_body(), Body::Small(BYTES.to_vec()));
        std::mem::forget(left.expect("it is written").into_file());
        drop((inbox, one));
        assert_eq!(in_tmp(dir.path()), 1);
        open(dir.path(), "two").scan().expect("it scans");
        assert_eq!(in_tmp(dir.path()), 0, "it was swept away");
    }

    #[test]
    fn a_large_body_stays_where_it_was_collected_until_its_batch_begins() {
        let dir = tempfile::tempdir().expect("temp dir");
        let one = open(dir.path(), "one");
        let mut inbox = one.inbox().expect("tmp opens");
        let partial = dir.path().join("partial");
        std::fs::write(&partial, BYTES).expect("it is collected");
        let written = inbox.write(&new_body(), Body::Large(partial.clone()));
        drop(written.expect("it is written"));
        assert!(partial.exists(), "nobody used it, so the next run does");
        let written = inbox.write(&new_body(), Body::Large(partial.clone()));
        let (tmp, _) = written.expect("it is written").into_file();
        assert!(!partial.exists());
        let bytes = std::fs::read(one.path().join(std::str::from_utf8(&tmp).expect("a name")));
        assert_eq!(bytes.expect("it lies in tmp"), BYTES);
    }

    #[test]
    fn few_files_stay_open_for_flushing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let one = open(dir.path(), "one");
        let mut inbox = one.inbox().expect("tmp opens");
        let mut write = || {
            let written = inbox.write(&new_body(), Body::Small(BYTES.to_vec()));
            written.expect("it is written")
        };
        let many: Vec<Written> = (0..20).map(|_| write()).collect();
        let open = |written: &&Written| written.open.is_some();
        assert_eq!(many.iter().filter(open).count(), SYNCFS_FROM);
        assert!(write().open.is_none());
        drop(many);
        assert!(write().open.is_some(), "those are closed");
    }
}
