//! What the file system says of a file or directory: the evidence that it did not change.

use rustix::fs::{Stat, Statx, StatxTimestamp};
use serde::{Deserialize, Serialize};

/// A directory's identity and times. Equal stamps mean an unchanged listing once the times are older than the clock's
/// granularity (I3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct DirStamp {
    pub(crate) ino: u64,
    /// When it was made; 0 where the file system does not say.
    pub(crate) birth_ns: i64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
}

/// A file's identity, length and times. Equal stamps mean unchanged bytes, but for damage below the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FileStamp {
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
}

/// What distinguishes a file that stayed from one that was put in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Origin {
    /// How many names it has.
    pub(crate) links: u32,
    /// When it was made; 0 where the file system does not say.
    pub(crate) birth_ns: i64,
}

impl From<&Statx> for DirStamp {
    fn from(stat: &Statx) -> DirStamp {
        DirStamp {
            ino: stat.stx_ino,
            birth_ns: time_ns(&stat.stx_btime),
            mtime_ns: time_ns(&stat.stx_mtime),
            ctime_ns: time_ns(&stat.stx_ctime),
        }
    }
}

impl From<&Statx> for FileStamp {
    fn from(stat: &Statx) -> FileStamp {
        FileStamp {
            ino: stat.stx_ino,
            size: stat.stx_size,
            mtime_ns: time_ns(&stat.stx_mtime),
            ctime_ns: time_ns(&stat.stx_ctime),
        }
    }
}

impl From<&Statx> for Origin {
    fn from(stat: &Statx) -> Origin {
        Origin {
            links: stat.stx_nlink,
            birth_ns: time_ns(&stat.stx_btime),
        }
    }
}

fn time_ns(time: &StatxTimestamp) -> i64 {
    nanos(time.tv_sec, i64::from(time.tv_nsec))
}

impl DirStamp {
    /// The same, without the birth where that is none for life.
    pub(crate) fn born_if(self, is_kept: bool) -> DirStamp {
        DirStamp {
            birth_ns: if is_kept { self.birth_ns } else { 0 },
            ..self
        }
    }

    /// Whether this is another directory than the one that looked like `before`; none is no other one.
    pub(crate) fn is_another(&self, before: &DirStamp) -> bool {
        let has_birth = self.birth_ns != 0 && before.birth_ns != 0;
        self.ino != 0
            && before.ino != 0
            && (self.ino != before.ino || (has_birth && self.birth_ns != before.birth_ns))
    }

    /// Whether it was there already when the one in whose place it is now changed last.
    pub(crate) fn is_older(&self, before: &DirStamp) -> bool {
        self.birth_ns != 0 && self.birth_ns < before.ctime_ns
    }

    /// The newest time in it.
    pub(crate) fn newest_ns(&self) -> i64 {
        self.mtime_ns.max(self.ctime_ns)
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
    /// What the system says of a file outside of the root.
    pub(crate) fn outside(path: &std::path::Path) -> std::io::Result<FileStamp> {
        Ok(FileStamp::from(&rustix::fs::lstat(path)?))
    }

    /// Whether it may be the same file or a copy of it.
    pub(crate) fn same_bytes(&self, other: &FileStamp) -> bool {
        (self.size, self.mtime_ns) == (other.size, other.mtime_ns)
    }

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
