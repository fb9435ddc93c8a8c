//! What the file system says of a file or directory: the evidence that it did not change.

use rustix::fs::Stat;

/// A directory's identity and times. Equal stamps mean an unchanged listing once the times are older than the clock's
/// grain (I3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct DirStamp {
    pub(crate) ino: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
}

/// A file's identity, length and times. Equal stamps mean unchanged bytes, but for damage below the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct FileStamp {
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
}

impl From<&Stat> for DirStamp {
    fn from(stat: &Stat) -> DirStamp {
        DirStamp {
            ino: stat.st_ino,
            mtime_ns: mtime_ns(stat),
            ctime_ns: ctime_ns(stat),
        }
    }
}

impl From<&Stat> for FileStamp {
    fn from(stat: &Stat) -> FileStamp {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        FileStamp {
            ino: stat.st_ino,
            size,
            mtime_ns: mtime_ns(stat),
            ctime_ns: ctime_ns(stat),
        }
    }
}

impl FileStamp {
    /// Whether it may be the same file after a rename, which moves the ctime only.
    pub(crate) fn same_but_renamed(&self, other: &FileStamp) -> bool {
        (self.ino, self.size, self.mtime_ns) == (other.ino, other.size, other.mtime_ns)
    }
}

fn mtime_ns(stat: &Stat) -> i64 {
    nanos(stat.st_mtime, stat.st_mtime_nsec as i64)
}

fn ctime_ns(stat: &Stat) -> i64 {
    nanos(stat.st_ctime, stat.st_ctime_nsec as i64)
}

/// Saturates: an mtime beyond the year 2262 is odd, not fatal.
fn nanos(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
