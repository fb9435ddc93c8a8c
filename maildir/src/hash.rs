//! Hashing of message files, several at a time.
//!
//! A digest counts only if the file did not change while it was read: its stamp is taken before and after.

use std::fs::File;
use std::io::{self, Read};

use protocol::Digest;

use crate::root::{Root, stamp_of};
use crate::stamp::FileStamp;

/// Readers at once: cold disks answer 8 to 16 readers three times as fast as one (measured).
const THREADS: usize = 8;
/// From how many files on threads are worth starting.
const THREADS_FROM: usize = 32;
const BUFFER_BYTES: usize = 64 * 1024;

/// What hashing a file told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashed {
    pub(crate) digest: Digest,
    pub(crate) stamp: FileStamp,
    /// Empty, or nothing but NUL bytes: what a crash leaves of a file.
    pub(crate) is_blank: bool,
}

/// Hashes one file.
///
/// # Errors
/// The system's; `Interrupted` when the file changed while it was read.
pub(crate) fn hash_file(root: &Root, path: &[u8]) -> io::Result<Hashed> {
    let mut file = root.open_file(path)?;
    hash_open(&mut file)
}

/// Hashes an open file from its beginning.
///
/// # Errors
/// Like [`hash_file`].
pub(crate) fn hash_open(file: &mut File) -> io::Result<Hashed> {
    let before = stamp_of(file)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer =
        vec![0; BUFFER_BYTES.min(usize::try_from(before.size).unwrap_or(BUFFER_BYTES) + 1)];
    let (mut size, mut is_blank) = (0_u64, true);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                is_blank = is_blank && buffer[..count].iter().all(|&byte| byte == 0);
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let stamp = stamp_of(file)?;
    if stamp != before || stamp.size != size {
        return Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "changed while it was read",
        ));
    }
    Ok(Hashed {
        digest: Digest::new(*hasher.finalize().as_bytes()),
        stamp,
        is_blank,
    })
}

/// Hashes many files; results stand in the order of the paths.
pub(crate) fn hash_files(root: &Root, paths: &[Vec<u8>]) -> Vec<io::Result<Hashed>> {
    if paths.len() < THREADS_FROM {
        return paths.iter().map(|path| hash_file(root, path)).collect();
    }
    let share = paths.len().div_ceil(THREADS);
    std::thread::scope(|scope| {
        let work: Vec<_> = paths
            .chunks(share)
            .map(|paths| {
                scope.spawn(|| {
                    paths
                        .iter()
                        .map(|path| hash_file(root, path))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        work.into_iter()
            .flat_map(|work| work.join().expect("hashing does not panic"))
            .collect()
    })
}

/// The digest of a file's first bytes; `None` when it has fewer.
///
/// # Errors
/// The system's.
pub(crate) fn hash_prefix(file: &mut File, length: u64) -> io::Result<Option<Digest>> {
    let mut hasher = blake3::Hasher::new();
    let mut prefix = file.take(length);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut size = 0;
    loop {
        let count = prefix.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
    Ok((size == length).then(|| Digest::new(*hasher.finalize().as_bytes())))
}
