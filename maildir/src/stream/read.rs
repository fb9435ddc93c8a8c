//! Reading the files of a folder ahead, several at a time.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::sync_channel;

use protocol::Digest;

use crate::body::{SMALL_BYTES_MAX, STREAMED_BYTES_MAX};
use crate::hash::{Hashed, hash_open};
use crate::root::{open_in, stamp_of};
use crate::sorted::Sorted;
use crate::stamp::FileStamp;
use crate::time::now_ns;

/// Readers at once, as for hashing.
const THREADS: usize = 4;
/// From how many files on they are worth starting.
const THREADS_FROM: usize = 32;
/// How many files one of them hands over at once, and from how many bytes on: handing over costs as much as reading a small one.
const FILES_AT_ONCE: usize = 8;
const BYTES_AT_ONCE: u64 = 256 << 10;
/// How often each of them has handed over what is not taken yet.
const AHEAD: usize = 2;

/// A file that was read.
pub(super) struct FileRead {
    pub(super) hashed: Hashed,
    /// Nothing where it is too large for memory.
    pub(super) bytes: Option<Vec<u8>>,
}

/// Reads files, several at a time, and hands each over with its number, in order.
pub(super) fn read_ahead<E>(
    dirs: &[Option<OwnedFd>; 2],
    files: &Sorted,
    order: &[usize],
    mut take: impl FnMut(usize, io::Result<FileRead>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let open = |at: usize| {
        let dir = dirs[usize::from(files.in_new(at))].as_ref();
        let dir = dir.ok_or(io::ErrorKind::NotFound)?;
        let file = open_in(dir.as_fd(), files.name(at))?;
        let begun_ns = now_ns();
        let stamp = stamp_of(&file)?;
        Ok::<_, io::Error>(Open {
            file,
            stamp,
            begun_ns,
        })
    };
    let threads = if order.len() < THREADS_FROM {
        1
    } else {
        THREADS
    };
    std::thread::scope(|scope| {
        let share = |thread: usize| {
            let (sender, receiver) = sync_channel(AHEAD);
            scope.spawn(move || {
                let (mut group, mut bytes, mut room) = (Vec::new(), 0, 1);
                for &at in order.iter().skip(thread).step_by(threads) {
                    // Large ones are read one at a time, or memory had no bound.
                    group.push(open(at).map(|open| match open.stamp.size {
                        0..=SMALL_BYTES_MAX => {
                            bytes += open.stamp.size;
                            Opened::Read(read_whole(open))
                        }
                        _ => Opened::Large(open),
                    }));
                    if group.len() < room && bytes < BYTES_AT_ONCE {
                        continue;
                    }
                    (bytes, room) = (0, (room * 2).min(FILES_AT_ONCE));
                    if sender.send(std::mem::take(&mut group)).is_err() {
                        return;
                    }
                }
                let _ = sender.send(group); // The caller may have enough.
            });
            receiver.into_iter().flatten()
        };
        let mut readers: Vec<_> = (0..threads).map(share).collect();
        for (number, &at) in order.iter().enumerate() {
            let opened = readers[number % threads]
                .next()
                .unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()));
            let read = opened.and_then(|opened| match opened {
                Opened::Read(read) => read,
                Opened::Large(open) => read_whole(open),
            });
            take(at, read)?;
        }
        Ok(())
    })
}

/// A file that is to be read, and what it was before that began.
struct Open {
    file: File,
    stamp: FileStamp,
    begun_ns: i64,
}

/// A file that a reader is through with, or that is too large for it.
enum Opened {
    Read(io::Result<FileRead>),
    Large(Open),
}

/// Reads and hashes a file; one that is too large for memory is only hashed.
fn read_whole(open: Open) -> io::Result<FileRead> {
    let Open {
        mut file,
        stamp: before,
        begun_ns,
    } = open;
    if before.size > STREAMED_BYTES_MAX {
        let hashed = hash_open(&mut file)?;
        let bytes = None;
        return Ok(FileRead { hashed, bytes });
    }
    let size = usize::try_from(before.size).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    file.read_exact(&mut bytes)?;
    let stamp = stamp_of(&file)?;
    if stamp != before {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let hashed = Hashed {
        digest: Digest::of(&bytes),
        stamp,
        begun_ns,
        is_blank: bytes.iter().all(|&byte| byte == 0),
    };
    let bytes = Some(bytes);
    Ok(FileRead { hashed, bytes })
}
