//! Message bytes on their way: read for sending, and collected as they arrive.
//!
//! A small body is collected in memory; a large one goes to a file in the state directory, where it also stays when the
//! link breaks, so that the next run goes on from there. Whole bodies go on to the [`crate::inbox`].

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::{Digest, Fingerprint};

use crate::hash::hash_prefix;
use crate::partial::{Partial, Partials};
use crate::path::{is_named, join, subdir};
use crate::root::{Root, stamp_of};
use crate::stamp::FileStamp;

/// Up to this size a body is kept in memory; larger ones can be resumed. In bytes.
pub const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Up to this size a body that comes fast may be kept in memory by a side that can still store it when the link breaks. In
/// bytes.
pub(crate) const QUICK_BYTES_MAX: u64 = 4 << 20;
/// Up to this size a message is read into memory whole to be streamed; larger ones are asked for. In bytes.
pub(crate) const STREAMED_BYTES_MAX: u64 = 24 << 20;
/// What took no longer to come is not worth writing twice.
const QUICK: Duration = Duration::from_secs(1);
/// How many bytes of a large body are read and sent at once.
pub const CHUNK_BYTES: usize = 128 * 1024;

/// A complete body, its digest checked.
#[derive(Debug)]
pub enum Body {
    /// In memory.
    Small(Vec<u8>),
    /// In a file of the state directory, which nobody else touches.
    Large(Partial),
}

/// A message's file as it is known to the index, for sending.
#[derive(Clone, Debug)]
pub struct Located {
    pub(crate) path: Vec<u8>,
    pub(crate) dir: Vec<u8>,
    pub(crate) unique: protocol::Unique,
    pub(crate) digest: Digest,
    /// What the file was when it was hashed.
    pub(crate) stamp: FileStamp,
}

impl Located {
    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.stamp.size
    }
}

/// Opens messages for sending; may be used beside the replica, from another thread.
#[derive(Debug)]
pub struct Bodies {
    pub(crate) root: Arc<Root>,
}

/// A message that is open for sending.
pub enum Outgoing {
    /// All of it from the offset on; it is what was hashed (I3).
    Small(Vec<u8>),
    /// A file at the offset, and how many bytes follow; the receiver checks the digest.
    Large(File, u64),
}

impl Bodies {
    /// Opens a message at an offset.
    ///
    /// # Errors
    /// `NotFound` or `Interrupted` where it vanished or changed, which the next run will see; else the system's.
    pub fn open(&self, located: &Located, offset: u64) -> io::Result<Outgoing> {
        let mut file = self.open_located(located)?;
        let stamp = stamp_of(&file)?;
        if stamp.size != located.stamp.size || offset > stamp.size {
            return Err(changed());
        }
        if stamp.size > SMALL_BYTES_MAX {
            file.seek(SeekFrom::Start(offset))?;
            return Ok(Outgoing::Large(file, stamp.size - offset));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or(0) + 1);
        file.take(SMALL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        // The receiver compares digests too, so hashing again what has not changed would only take time.
        let is_same = stamp == located.stamp && bytes.len() as u64 == stamp.size;
        if !is_same && Digest::of(&bytes) != located.digest {
            return Err(changed());
        }
        bytes.drain(..usize::try_from(offset).map_err(|_| changed())?);
        Ok(Outgoing::Small(bytes))
    }

    fn open_located(&self, located: &Located) -> io::Result<File> {
        match self.root.open_file(&located.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.find_renamed(located),
            other => other,
        }
    }

    /// A mail reader may have moved the file from `new` to `cur` or changed its flags since the scan.
    fn find_renamed(&self, located: &Located) -> io::Result<File> {
        for in_new in [true, false] {
            let sub = join(&located.dir, &[subdir(in_new)]);
            let listed = match self.root.list(&sub) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let found = listed
                .into_iter()
                .find(|listed| is_named(&listed.name, &located.unique));
            if let Some(found) = found {
                return self.root.open_file(&join(&sub, &[&found.name]));
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// What a message has in common with its copies; `None` where it is not as described, or its header is too long.
    ///
    /// # Errors
    /// The system's.
    pub fn fingerprint(&self, located: &Located) -> io::Result<Option<Fingerprint>> {
        let file = self.open_located(located)?;
        if stamp_of(&file)?.size != located.stamp.size {
            return Ok(None);
        }
        Fingerprint::of(BufReader::with_capacity(CHUNK_BYTES, file))
    }

    /// The digest of a message's first bytes, `None` when it is not as described.
    ///
    /// # Errors
    /// The system's.
    pub fn prefix(&self, located: &Located, length: u64) -> io::Result<Option<Digest>> {
        hash_prefix(&mut self.root.open_file(&located.path)?, length)
    }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "changed since the scan")
}

/// Collects one body as it arrives.
pub(crate) struct Incoming {
    digest: Digest,
    size: u64,
    /// From which byte on it comes.
    offset: u64,
    received: u64,
    to: Store,
    /// Until when, and where to, a large body is not stored yet.
    quick: Option<(Instant, Partials)>,
}

enum Store {
    Memory(Vec<u8>),
    /// It is hashed as it comes.
    File(Partial, Box<blake3::Hasher>),
    /// The disk refused; the rest is thrown away so that the stream goes on.
    Nowhere(io::Error),
}

impl Incoming {
    /// Begins a body of which `offset` bytes are in the partial file already.
    #[must_use]
    pub(crate) fn begin(partials: &Partials, digest: Digest, size: u64, offset: u64) -> Incoming {
        let to = if size <= SMALL_BYTES_MAX {
            Store::Memory(Vec::new())
        } else {
            let mut hasher = Box::default();
            match partials.begin(&digest, offset, &mut hasher) {
                Ok(partial) => Store::File(partial, hasher),
                Err(error) => Store::Nowhere(error),
            }
        };
        Incoming {
            digest,
            size,
            offset,
            received: offset,
            to,
            quick: None,
        }
    }

    /// The same for a side that is still there when the link breaks. A large body is stored when it turns out to be slow, or
    /// breaks off.
    #[must_use]
    pub(crate) fn begin_quick(
        partials: &Partials,
        digest: Digest,
        size: u64,
        offset: u64,
    ) -> Incoming {
        if offset > 0 || !(SMALL_BYTES_MAX + 1..=QUICK_BYTES_MAX).contains(&size) {
            return Incoming::begin(partials, digest, size, offset);
        }
        Incoming {
            digest,
            size,
            offset: 0,
            received: 0,
            to: Store::Memory(Vec::new()),
            quick: Some((Instant::now() + QUICK, partials.clone())),
        }
    }

    /// Stores what has come of a large body.
    fn store(&mut self) {
        let (Some((_, partials)), Store::Memory(bytes)) = (self.quick.take(), &self.to) else {
            return;
        };
        let mut hasher = Box::default();
        let stored = partials.begin(&self.digest, 0, &mut hasher);
        let stored = stored.and_then(|partial| {
            (&partial.file).write_all(bytes)?;
            Ok(partial)
        });
        self.to = match stored {
            Ok(partial) => {
                hasher.update(bytes);
                Store::File(partial, hasher)
            }
            Err(error) => Store::Nowhere(error),
        };
    }

    /// Takes the next bytes; more than were announced are an error of the peer and dropped.
    pub(crate) fn take(&mut self, bytes: Vec<u8>) {
        self.received = self.received.saturating_add(bytes.len() as u64);
        if self.received > self.size {
            let to = std::mem::replace(&mut self.to, Store::Nowhere(wrong()));
            if let Store::File(partial, _) = to {
                partial.remove(); // Resuming would only repeat it.
            }
        }
        let written = match &mut self.to {
            Store::Memory(memory) if memory.is_empty() => {
                *memory = bytes; // Most come in one piece.
                Ok(())
            }
            Store::Memory(memory) => {
                memory.extend_from_slice(&bytes);
                Ok(())
            }
            Store::File(partial, hasher) => {
                hasher.update(&bytes);
                (&partial.file).write_all(&bytes)
            }
            Store::Nowhere(_) => Ok(()),
        };
        if let Err(error) = written {
            self.to = Store::Nowhere(error);
        }
        let is_whole = self.received >= self.size;
        if !is_whole && matches!(&self.quick, Some((until, _)) if Instant::now() >= *until) {
            self.store();
        }
    }

    /// How many bytes came that were not announced.
    #[must_use]
    pub(crate) fn excess(&self) -> u64 {
        self.received.saturating_sub(self.size)
    }

    /// Ends the body.
    ///
    /// # Errors
    /// `Interrupted` when nothing of it came: the message vanished before it was sent. `InvalidData` when it is not the one
    /// that was announced; else what the disk said.
    pub(crate) fn finish(mut self) -> io::Result<Body> {
        self.quick = None;
        if self.received == self.offset && self.offset < self.size {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let (is_whole, due) = (self.received == self.size, self.digest);
        let is_right = |digest: Digest| is_whole && digest == due;
        match std::mem::replace(&mut self.to, Store::Memory(Vec::new())) {
            Store::Nowhere(error) => Err(error),
            Store::Memory(bytes) if is_right(Digest::of(&bytes)) => Ok(Body::Small(bytes)),
            Store::Memory(_) => Err(wrong()),
            Store::File(partial, hasher) => {
                if is_right(Digest::new(*hasher.finalize().as_bytes())) {
                    return Ok(Body::Large(partial));
                }
                partial.remove(); // Resuming would only repeat it.
                Err(wrong())
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.received > 0 {
            self.store();
        }
    }
}

fn wrong() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "other bytes came than were announced; the next run asks for it again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: usize = SMALL_BYTES_MAX as usize;

    fn read(partial: &Partial) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = partial
            .reader()
            .and_then(|mut file| file.read_to_end(&mut bytes));
        read.expect("it is there");
        bytes
    }

    /// A body of two halves, and where what breaks off is kept.
    fn body() -> (tempfile::TempDir, Partials, Vec<u8>, Incoming) {
        let dir = tempfile::tempdir().expect("temp dir");
        let partials = Partials::new(dir.path().join("partial"));
        let bytes: Vec<u8> = (0..2 * HALF).map(|at| (at % 251) as u8).collect();
        let incoming = Incoming::begin_quick(&partials, Digest::of(&bytes), bytes.len() as u64, 0);
        (dir, partials, bytes, incoming)
    }

    #[test]
    fn a_large_body_that_comes_fast_is_stored_nowhere() {
        let (_dir, partials, bytes, mut incoming) = body();
        incoming.take(bytes[..HALF].to_vec());
        incoming.take(bytes[HALF..].to_vec());
        let body = incoming.finish().expect("it is right");
        assert!(matches!(body, Body::Small(got) if got == bytes));
        assert!(partials.list().is_empty());
    }

    #[test]
    fn a_large_body_that_breaks_off_is_kept_and_goes_on() {
        let (_dir, partials, bytes, mut incoming) = body();
        incoming.take(bytes[..HALF].to_vec());
        drop(incoming);
        let digest = Digest::of(&bytes);
        assert_eq!(partials.list(), [(digest, HALF as u64)]);
        let mut rest = Incoming::begin_quick(&partials, digest, bytes.len() as u64, HALF as u64);
        rest.take(bytes[HALF..].to_vec());
        let Ok(Body::Large(partial)) = rest.finish() else {
            panic!("what was kept is not gone on with");
        };
        assert!(read(&partial) == bytes);
    }

    #[test]
    fn a_large_body_that_is_slow_is_stored_as_it_comes() {
        let (_dir, partials, bytes, mut incoming) = body();
        incoming.quick = Some((Instant::now(), partials.clone()));
        incoming.take(bytes[..HALF].to_vec());
        incoming.take(bytes[HALF..HALF + 1].to_vec());
        assert!(partials.list().is_empty(), "nobody else may touch it");
        incoming.take(bytes[HALF + 1..].to_vec());
        let Ok(Body::Large(partial)) = incoming.finish() else {
            panic!("it is not where it was stored");
        };
        assert!(read(&partial) == bytes);
    }

    /// Of two bodies of one digest in one batch the second is too long.
    #[test]
    fn a_body_that_is_too_long_does_not_touch_an_earlier_one_of_its_digest() {
        let (_dir, partials, bytes, _) = body();
        let digest = Digest::of(&bytes);
        let begin = || Incoming::begin(&partials, digest, bytes.len() as u64, 0);
        let mut first = begin();
        first.take(bytes.clone());
        let Ok(Body::Large(first)) = first.finish() else {
            panic!("it is right");
        };
        let mut second = begin();
        second.take(vec![b'x'; bytes.len()]);
        second.take(b"more".to_vec());
        assert!(second.finish().is_err());
        assert!(read(&first) == bytes);
    }

    #[test]
    fn a_large_body_of_other_bytes_is_not_kept() {
        let (_dir, partials, mut bytes, mut incoming) = body();
        bytes[HALF] ^= 1;
        incoming.take(bytes);
        assert!(incoming.finish().is_err());
        assert!(partials.list().is_empty());
    }
}
