//! What is asked of open directories and files.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::rename::NameIn;
use crate::stamp::{DirStamp, FileStamp, Origin};
use crate::time::now_ns;

/// How much of a directory is read at once.
const LISTED_BYTES: usize = 64 << 10;

/// One name in a directory as it was listed.
pub(crate) struct Listed {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: FileType,
}

/// A name in an open directory.
pub(crate) fn name_in<'a>(dir: &'a OwnedFd, name: &'a [u8]) -> NameIn<'a> {
    let dir = dir.as_fd();
    NameIn { dir, name }
}

/// Who may do what with a directory.
pub(super) fn access_of(dir: BorrowedFd) -> io::Result<Mode> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(dir)?.st_mode);
    Ok(mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO))
}

/// Flushes an open directory.
pub(crate) fn sync_held(dir: BorrowedFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(dir)?)
}

/// Lists an open directory, without `.` and `..`.
pub(super) fn list_fd(dir: BorrowedFd) -> io::Result<Vec<Listed>> {
    let mut names = Vec::new();
    each_in(dir, |name, kind, _| {
        let name = name.to_vec();
        names.push(Listed { name, kind });
    })?;
    Ok(names)
}

/// The same, name by name, with what it is, and its inode as far as the file system says so here.
pub(crate) fn each_in(
    dir: BorrowedFd,
    mut take: impl FnMut(&[u8], FileType, u64),
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(LISTED_BYTES);
    let mut names = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = names.next() {
        let entry = match entry {
            Err(Errno::NOENT) => return Ok(()), // It was removed, so it was empty.
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            take(name, entry.file_type(), entry.ino());
        }
    }
    Ok(())
}

/// The stamp of an open directory.
pub(crate) fn stamp_of_dir(dir: BorrowedFd) -> io::Result<DirStamp> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, wanted)?;
    Ok(DirStamp::from(&stat).born_if(keeps_birth(dir)?))
}

/// What statfs(2) calls an overlay.
const OVERLAY: i64 = 0x794c_7630;

/// Whether directories of this file system keep their time of birth for life. An overlay makes one anew in its upper layer when
/// the first name in it changes; its inode number stays.
pub(crate) fn keeps_birth(dir: BorrowedFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(dir)?.f_type != OVERLAY)
}

/// The stamp of a regular file in an open directory.
///
/// # Errors
/// When it cannot be asked, or is not a regular file (`InvalidInput`).
pub(crate) fn stamp_in(dir: BorrowedFd, name: &[u8]) -> io::Result<FileStamp> {
    look_in(dir, name).map(|(stamp, _)| stamp)
}

/// The same, and where it comes from.
pub(crate) fn look_in(dir: BorrowedFd, name: &[u8]) -> io::Result<(FileStamp, Origin)> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        FileType::RegularFile => Ok((FileStamp::from(&stat), Origin::from(&stat))),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
    }
}

/// Opens a file of a held directory for reading, following no link and waiting for nothing.
pub(crate) fn open_in(dir: BorrowedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?.into())
}

/// What the system says of an open file.
pub(crate) fn stat_of(file: &File) -> io::Result<rustix::fs::Stat> {
    Ok(rustix::fs::fstat(file)?)
}

/// The stamp of an open file.
pub(crate) fn stamp_of(file: impl AsFd) -> io::Result<FileStamp> {
    let stat = rustix::fs::fstat(file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(FileStamp::from(&stat)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
    }
}

/// Gives a file the modification time that travelled with the message.
pub(crate) fn set_mtime(file: &File, mtime_ns: i64) -> io::Result<()> {
    let time = |ns: i64| Timespec {
        tv_sec: ns.div_euclid(1_000_000_000),
        tv_nsec: ns.rem_euclid(1_000_000_000),
    };
    // Both, since some FUSE file systems set neither right where one is left out.
    let times = Timestamps {
        last_access: time(now_ns()),
        last_modification: time(mtime_ns),
    };
    Ok(rustix::fs::futimens(file, &times)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_removed_holds_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let open = File::open(dir.path()).expect("it opens");
        dir.close().expect("it is removed");
        let listed = list_fd(open.as_fd()).expect("it is listed");
        assert!(listed.is_empty());
    }
}
