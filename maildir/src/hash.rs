//! Hashing of message files, several at a time.
//!
//! A digest counts only if the file did not change while it was read: its stamp is taken before and after.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use protocol::Digest;

use crate::root::{Root, stamp_of};
use crate::stamp::FileStamp;
use crate::time::now_ns;

/// Readers at once: cold disks answer 8 to 16 readers three times as fast as one (measured).
const THREADS: usize = 8;
/// From how many files on threads are worth starting.
const THREADS_FROM: usize = 32;
const BUFFER_BYTES: usize = 64 * 1024;
/// How many files a reader takes at once: handing a result over costs as much as hashing a small file.
const GROUP: usize = 8;
/// How many groups of results may wait to be taken.
const GROUPS_AHEAD: usize = 32;

/// What hashing a file showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashed {
    pub(crate) digest: Digest,
    pub(crate) stamp: FileStamp,
    /// When it began to be read, on the clock that stamps files.
    pub(crate) begun_ns: i64,
    /// Empty, or nothing but NUL bytes: what a crash leaves of a file.
    pub(crate) is_blank: bool,
}

/// Hashes one file.
///
/// # Errors
/// The system's; `Interrupted` when the file changed while it was read.
pub(crate) fn hash_file(root: &Root, path: &[u8]) -> io::Result<Hashed> {
    hash_with(&mut root.open_file(path)?, &mut buffer())
}

fn buffer() -> Box<[u8]> {
    vec![0; BUFFER_BYTES].into()
}

/// Hashes an open file from its beginning.
///
/// # Errors
/// Like [`hash_file`].
pub(crate) fn hash_open(file: &mut File) -> io::Result<Hashed> {
    hash_with(file, &mut buffer())
}

fn hash_with(file: &mut (impl Read + AsFd), buffer: &mut [u8]) -> io::Result<Hashed> {
    let begun_ns = now_ns();
    let before = stamp_of(&*file)?;
    let mut hasher = blake3::Hasher::new();
    let (mut size, mut is_blank) = (0_u64, true);
    loop {
        match file.read(buffer) {
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
    let stamp = stamp_of(&*file)?;
    if stamp != before || stamp.size != size {
        return Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "changed while it was read",
        ));
    }
    Ok(Hashed {
        digest: Digest::new(*hasher.finalize().as_bytes()),
        stamp,
        begun_ns,
        is_blank,
    })
}

/// Hashes many files and hands over each result with the number of its path, in any order, while others are hashed.
///
/// # Errors
/// What `take` says; then the rest is left.
pub(crate) fn hash_files<E>(
    root: &Root,
    paths: &[Vec<u8>],
    mut take: impl FnMut(usize, io::Result<Hashed>) -> Result<(), E>,
) -> Result<(), E> {
    if paths.len() < THREADS_FROM {
        let mut all = paths.iter().enumerate();
        return all.try_for_each(|(at, path)| take(at, hash_file(root, path)));
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (sender, results) = sync_channel(GROUPS_AHEAD);
        for _ in 0..THREADS {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                let mut buffer = buffer();
                loop {
                    let first = next.fetch_add(GROUP, Ordering::Relaxed);
                    let group = paths.iter().enumerate().skip(first).take(GROUP);
                    let hashed: Vec<_> = group
                        .map(|(at, path)| {
                            let file = root.open_file(path);
                            (
                                at,
                                file.and_then(|mut file| hash_with(&mut file, &mut buffer)),
                            )
                        })
                        .collect();
                    if hashed.is_empty() || sender.send(hashed).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        results
            .iter()
            .flatten()
            .try_for_each(|(at, hashed)| take(at, hashed))
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

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;

    use super::*;

    /// A file that tells when it was read first, and takes until the clock has gone on.
    struct Slow {
        file: File,
        read_ns: Option<i64>,
    }

    impl AsFd for Slow {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.file.as_fd()
        }
    }

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let first_ns = *self.read_ns.get_or_insert_with(now_ns);
            while now_ns() == first_ns {
                std::hint::spin_loop();
            }
            self.file.read(buffer)
        }
    }

    #[test]
    fn the_time_of_reading_is_that_before_the_first_byte() {
        let mut file = tempfile::tempfile().expect("temp file");
        io::Write::write_all(&mut file, b"bytes").expect("it is written");
        io::Seek::rewind(&mut file).expect("it is rewound");
        let mut slow = Slow {
            file,
            read_ns: None,
        };
        let hashed = hash_with(&mut slow, &mut buffer()).expect("it is hashed");
        assert_eq!(hashed.digest, Digest::of(b"bytes"));
        assert!(
            slow.read_ns
                .is_some_and(|read_ns| hashed.begun_ns <= read_ns)
        );
    }
}
