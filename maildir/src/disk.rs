//! A file system on which files are written, as long as they wait to become durable.

use std::fs::File;
use std::io;

/// FUSE passes syncfs on to nobody, see statfs(2) for the number.
const FUSE: i64 = 0x6573_5546;

/// A file system on which bodies lie, held from before the first one is written: so it reports every error since.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: File,
    pub(crate) device: u64,
    pub(crate) has_syncfs: bool,
}

impl Disk {
    /// The one that an open directory lies on.
    pub(crate) fn of(dir: &File) -> io::Result<Disk> {
        Ok(Disk {
            device: rustix::fs::fstat(dir)?.st_dev,
            has_syncfs: rustix::fs::fstatfs(dir)?.f_type != FUSE,
            dir: dir.try_clone()?,
        })
    }

    /// Flushes all of it; reports write-back errors since Linux 5.8 (syncfs(2)).
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.dir)?)
    }
}
