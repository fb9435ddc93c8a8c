//! Large bodies that broke off, in the state directory.
//!
//! Every body that comes has a file of its own, made anew and locked by its writer; nobody else touches it. When its writer
//! is gone the lock is free, and the next run that takes it may go on from there.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use protocol::Digest;
use protocol::bytes::{hex, unhex};

use crate::private;
use crate::random::random;

/// How long a body that broke off is kept for the next run.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How many are kept, the newest ones.
const KEPT_MAX: usize = 64;

/// What has come of one body, and the lock of it.
#[derive(Debug)]
pub struct Partial {
    pub(crate) file: File,
    path: PathBuf,
    length: u64,
}

impl Partial {
    /// Takes the lock of what a dead run left.
    fn claim(path: &Path) -> Option<Partial> {
        let file = File::options().read(true).write(true).open(path).ok()?;
        file.try_lock().ok()?;
        let length = file.metadata().ok()?.len();
        // It may have been removed before the lock was there, or is not its writer's yet.
        let path = path.exists().then(|| path.to_owned())?;
        (length > 0).then_some(Partial { file, path, length })
    }

    /// Reads it from the beginning.
    pub(crate) fn reader(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }

    /// Removes it: its bytes are elsewhere, or worth nothing.
    pub(crate) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("Cannot remove {:?}: {error}", self.path); // Left behind it would only be found again.
        }
    }
}

/// The bodies that broke off. Clones share what was claimed.
#[derive(Clone, Debug)]
pub struct Partials {
    dir: PathBuf,
    /// Those of dead runs whose lock is ours, until somebody goes on with them.
    claimed: Arc<Mutex<HashMap<Digest, Partial>>>,
}

impl Partials {
    pub(crate) fn new(dir: PathBuf) -> Partials {
        let claimed = Arc::default();
        Partials { dir, claimed }
    }

    /// How many bytes of a body are here to go on from; 0 where there are none, or somebody else writes them.
    #[must_use]
    pub fn length(&self, digest: &Digest) -> u64 {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(partial) = claimed.get(digest) {
            return partial.length;
        }
        let mut longest: Option<Partial> = None;
        for path in self.paths().filter(|path| digest_of(path) == Some(*digest)) {
            let Some(found) = Partial::claim(&path) else {
                continue;
            };
            let is_longer = longest
                .as_ref()
                .is_none_or(|known| known.length < found.length);
            let shorter = match is_longer {
                true => longest.replace(found),
                false => Some(found),
            };
            if let Some(shorter) = shorter {
                shorter.remove();
            }
        }
        let Some(longest) = longest else { return 0 };
        let length = longest.length;
        claimed.insert(*digest, longest);
        length
    }

    /// All that are here to go on from, with their lengths.
    #[must_use]
    pub fn list(&self) -> Vec<(Digest, u64)> {
        let mut digests: Vec<Digest> = self.paths().filter_map(|path| digest_of(&path)).collect();
        digests.sort();
        digests.dedup();
        digests.truncate(KEPT_MAX);
        let with_length = |digest: Digest| (digest, self.length(&digest));
        let all = digests.into_iter().map(with_length);
        all.filter(|(_, length)| *length > 0).collect()
    }

    /// A file for a body of which `offset` bytes are here; they are hashed.
    pub(crate) fn begin(
        &self,
        digest: &Digest,
        offset: u64,
        hasher: &mut blake3::Hasher,
    ) -> io::Result<Partial> {
        let known = self
            .claimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(digest);
        if offset == 0 {
            if let Some(known) = known {
                known.remove();
            }
            return self.make(digest);
        }
        let partial = known.filter(|known| known.length >= offset);
        let partial = partial.ok_or(io::ErrorKind::Interrupted)?;
        partial.file.set_len(offset)?;
        hasher.update_reader(&partial.file)?;
        Ok(partial)
    }

    fn make(&self, digest: &Digest) -> io::Result<Partial> {
        private::make_dirs(&self.dir).map_err(io::Error::other)?;
        let random = random::<8>().map_err(io::Error::other)?;
        let name = format!("{}.{}", hex(digest.as_bytes()), hex(&random));
        let path = self.dir.join(name);
        let file = private::create(&path)?;
        if let Err(error) = file.try_lock() {
            tracing::debug!("{path:?} cannot be locked: {error}"); // Then no other run can lock it either.
        }
        Ok(Partial {
            file,
            path,
            length: 0,
        })
    }

    /// Removes those that nobody came back for within a week, and the oldest of many.
    pub(crate) fn expire(&self) {
        let mut all: Vec<(SystemTime, PathBuf)> = self
            .paths()
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        all.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let is_old = |at: &SystemTime| at.elapsed().is_ok_and(|age| age > KEPT);
        for (number, (at, path)) in all.iter().enumerate() {
            if number >= KEPT_MAX || is_old(at) {
                let file = File::open(path).ok().filter(|file| file.try_lock().is_ok());
                if file.is_some() {
                    let _ = fs::remove_file(path); // It is done when it can be.
                }
            }
        }
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        files.map(|file| file.path())
    }
}

fn digest_of(path: &Path) -> Option<Digest> {
    let name = path.file_name()?.as_bytes();
    let name = name.split(|&byte| byte == b'.').next()?;
    unhex(name).map(Digest::new)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn nobody_touches_what_another_writes_and_the_longest_is_gone_on_with() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (one, other) = (
            Partials::new(dir.path().into()),
            Partials::new(dir.path().into()),
        );
        let digest = Digest::of(b"any");
        let begin = |partials: &Partials, bytes: &[u8]| {
            let partial = partials.begin(&digest, 0, &mut blake3::Hasher::new());
            let partial = partial.expect("it is made");
            (&partial.file).write_all(bytes).expect("it is written");
            partial
        };
        let (long, short) = (begin(&one, b"12345"), begin(&other, b"123"));
        assert_eq!((one.length(&digest), other.length(&digest)), (0, 0));
        drop((long, short));
        assert_eq!(one.list(), [(digest, 5)]);
        assert_eq!(other.length(&digest), 0, "it is claimed");
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 1);
        assert!(other.begin(&digest, 4, &mut blake3::Hasher::new()).is_err());
        let mut hasher = blake3::Hasher::new();
        let partial = one.begin(&digest, 4, &mut hasher).expect("it is ours");
        assert_eq!(hasher.finalize(), blake3::hash(b"1234"));
        partial.remove();
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);
    }

    #[test]
    fn no_more_than_some_are_kept() {
        let dir = tempfile::tempdir().expect("temp dir");
        for number in 0..KEPT_MAX + 5 {
            let name = format!("{}.{number}", hex(Digest::of(&[number as u8]).as_bytes()));
            fs::write(dir.path().join(name), b"some").expect("it is written");
        }
        Partials::new(dir.path().into()).expire();
        assert_eq!(
            fs::read_dir(dir.path()).expect("it is there").count(),
            KEPT_MAX
        );
    }
}
