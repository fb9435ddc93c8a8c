//! Bodies that have come and wait in the `tmp` of their folder for their batch.
//!
//! The disk, the group and the quota are the folder's. They are written while earlier batches are carried out, so without
//! the root's lock; [`crate::record`] says whose they are, and where a dead run left some.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use protocol::Digest;
use protocol::fingerprint::Form;
use protocol::message::NewBody;
use rustix::fs::{Mode, OFlags};

use crate::body::Body;
use crate::disk::Disk;
use crate::durable::SYNCFS_FROM;
use crate::hash::hash_open;
use crate::path::{join, split_path};
use crate::record::RunRecord;
use crate::root::{Root, set_mtime, stat_of};
use crate::stamp::FileStamp;
use crate::written::{Open, Written, flush};

/// How many `tmp` are open at once at most.
const OPEN_MAX: usize = 32;

/// Writes bodies into `tmp`; may be used beside the replica, from another thread.
#[derive(Debug)]
pub struct Inbox {
    root: Arc<Root>,
    /// Where records are kept.
    records: PathBuf,
    record: Option<Arc<RunRecord>>,
    open: HashMap<Vec<u8>, Tmp>,
    recorded: HashSet<Vec<u8>>,
    disks: HashMap<u64, Arc<Disk>>,
    count: u64,
    /// Shared by the bodies whose files are open still.
    handles: Arc<()>,
}

/// An open `tmp`.
#[derive(Debug)]
struct Tmp {
    dir: File,
    /// What a message's file may be to whom.
    mode: Mode,
    disk: Arc<Disk>,
}

impl Inbox {
    /// Nothing is opened or made yet.
    pub(crate) fn new(root: Arc<Root>, records: PathBuf) -> Inbox {
        Inbox {
            root,
            records,
            record: None,
            open: HashMap::new(),
            recorded: HashSet::new(),
            disks: HashMap::new(),
            count: 0,
            handles: Arc::new(()),
        }
    }

    /// Writes a body whose digest was checked into the `tmp` of a folder's directory.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&mut self, dir: &[u8], body: &NewBody, bytes: Body) -> io::Result<Written> {
        match bytes {
            Body::Small(bytes) => self.fill(dir, body.mtime_ns, |file| file.write_all(&bytes)),
            Body::Large(partial) => {
                let source = partial.reader()?;
                let mut written = self.copy(dir, &body.digest, body.mtime_ns, source)?;
                written.partial = Some(partial);
                Ok(written)
            }
        }
    }

    /// Copies a file, and compares the digest with what lies there then.
    pub(crate) fn copy(
        &mut self,
        dir: &[u8],
        digest: &Digest,
        mtime_ns: i64,
        mut source: File,
    ) -> io::Result<Written> {
        self.fill(dir, mtime_ns, |file| {
            // std copies inside the kernel where it can, which shares blocks on file systems that do.
            io::copy(&mut source, file)?;
            check(file, digest)
        })
    }

    /// Makes bytes of those of a message of this replica; their digest is compared.
    pub(crate) fn remake(
        &mut self,
        dir: &[u8],
        body: &NewBody,
        source: File,
        form: &Form,
    ) -> io::Result<Written> {
        self.fill(dir, body.mtime_ns, |file| {
            let mut to = Limited {
                to: BufWriter::new(&mut *file),
                left: body.size,
            };
            match form.restore(BufReader::new(source), &mut to) {
                Ok(true) => to.flush()?,
                Ok(false) => return Err(io::ErrorKind::Interrupted.into()),
                Err(_) if to.left == 0 => return Err(io::ErrorKind::Interrupted.into()),
                Err(error) => return Err(error),
            }
            drop(to);
            check(file, &body.digest)
        })
    }

    /// Whether a folder's directory is there.
    #[must_use]
    pub fn has_dir(&self, dir: &[u8]) -> bool {
        self.root.dir_stamp(dir).is_ok()
    }

    /// Makes the directory of a folder that is to be made, for what comes before it is.
    ///
    /// # Errors
    /// The disk's.
    pub fn make_dir(&self, dir: &[u8]) -> io::Result<()> {
        make_dirs(&self.root, dir)
    }

    fn fill(
        &mut self,
        dir: &[u8],
        mtime_ns: i64,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Written> {
        let (mut file, mode, mut written) = self.create(dir)?;
        fill(&mut file)?;
        set_mtime(&file, mtime_ns)?;
        let stat = stat_of(&file)?;
        // In most folders it has its mode already.
        if Mode::from_raw_mode(stat.st_mode) != mode {
            rustix::fs::fchmod(&file, mode)?;
        }
        written.stamp = FileStamp::from(&stat);
        if Arc::strong_count(&self.handles) <= SYNCFS_FROM {
            let _counted = Arc::clone(&self.handles);
            written.open = Some(Open { file, _counted });
        }
        Ok(written)
    }

    fn create(&mut self, dir: &[u8]) -> io::Result<(File, Mode, Written)> {
        let record = self.record_dir(dir)?;
        self.count += 1;
        let name = record.name(self.count);
        let file = match self.create_named(dir, &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.open.remove(dir); // Somebody made it anew.
                self.create_named(dir, &name)
            }
            other => other,
        }?;
        let tmp = self.tmp(dir)?;
        let (mode, disk) = (tmp.mode, Arc::clone(&tmp.disk));
        let path = join(dir, &[b"tmp", name.as_bytes()]);
        let written = Written::empty(Arc::clone(&self.root), path, disk, record);
        Ok((file, mode, written))
    }

    fn create_named(&mut self, dir: &[u8], name: &str) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Until it is whole it is its owner's alone, even where others may read it then.
        let file = rustix::fs::openat(&self.tmp(dir)?.dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(file.into())
    }

    /// The record of this inbox, which lists the directory from now on.
    fn record_dir(&mut self, dir: &[u8]) -> io::Result<Arc<RunRecord>> {
        let record = match &self.record {
            Some(record) => Arc::clone(record),
            None => Arc::new(RunRecord::begin(&self.records)?),
        };
        self.record = Some(Arc::clone(&record));
        if !self.recorded.contains(dir) {
            record.add(dir)?;
            self.recorded.insert(dir.to_vec());
        }
        Ok(record)
    }

    /// Opens the `tmp` of a folder. It is made if it is missing.
    fn tmp(&mut self, dir: &[u8]) -> io::Result<&Tmp> {
        if !self.open.contains_key(dir) {
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            let tmp = self.open_tmp(dir)?;
            self.open.insert(dir.to_vec(), tmp);
        }
        Ok(&self.open[dir])
    }

    fn open_tmp(&mut self, dir: &[u8]) -> io::Result<Tmp> {
        let path = join(dir, &[b"tmp"]);
        let held = match self.root.open_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.root.make_dir(&path)?;
                self.root.open_dir(&path)
            }
            other => other,
        }?;
        let held = File::from(held);
        let mode = match self.root.file_mode(&join(dir, &[b"cur"])) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.root.file_mode(dir),
            other => other,
        }?;
        let disk = Disk::of(&held)?;
        let known = self
            .disks
            .entry(disk.device)
            .or_insert_with(|| Arc::new(disk));
        let disk = Arc::clone(known);
        Ok(Tmp {
            dir: held,
            mode,
            disk,
        })
    }
}

/// Takes no more bytes than were promised.
struct Limited<W> {
    to: W,
    left: u64,
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A writer that has something left takes 0 for an error.
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

/// Compares a digest with that of what lies in a file.
fn check(file: &mut File, digest: &Digest) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    match hash_open(file)?.digest == *digest {
        true => Ok(()),
        false => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// Makes a directory of the root and those above it that are missing.
fn make_dirs(root: &Root, dir: &[u8]) -> io::Result<()> {
    if dir.is_empty() {
        return Ok(()); // The root itself.
    }
    match root.make_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dirs(root, split_path(dir).0)?;
            root.make_dir(dir)
        }
        other => other,
    }
}

/// Makes the bodies of a batch durable; where the disk refuses, they are unavailable.
pub(crate) fn flush_bodies(bodies: &mut [io::Result<Written>]) {
    let mut written: Vec<_> = bodies.iter_mut().flatten().collect();
    match flush(written.iter().map(|written| &**written)) {
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

fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => error.kind().into(),
    }
}

/// Bodies of these bytes for the operations that want one, as the receiver brings them.
#[cfg(test)]
pub(crate) fn written(
    replica: &mut crate::Replica,
    ops: &[protocol::Op],
    bytes: &[u8],
) -> Vec<io::Result<Written>> {
    let mut inbox = replica.inbox().expect("tmp opens");
    let wired = ops
        .iter()
        .filter_map(|op| Some((op.target()?, op.wired()?)));
    let write = |(to, body): (&protocol::message::At, &NewBody)| {
        inbox.write(to.folder.as_bytes(), body, Body::Small(bytes.to_vec()))
    };
    wired.map(write).collect()
}

#[cfg(test)]
mod tests;
