//! Timestamp granularity: two changes within it may leave the same time, so a time that is younger proves nothing.

use crate::root::Root;
use crate::stamp::FileStamp;
use crate::time::now_ns;

/// For so fine a timestamp granularity it is worth waiting.
pub(crate) const PATIENCE_NS: i64 = 100_000_000;

/// How long after a change the file system may still give the same time to another one.
pub(crate) fn granularity_ns(root: &Root) -> i64 {
    const TICK_NS: i64 = 20_000_000; // Two ticks of the slowest kernel clock (HZ=100).
    const COARSE_NS: i64 = 2_500_000_000; // FAT has two seconds, NFS servers and old ext3 one.
    match root.file_system_type() {
        Ok(
            0xEF53 | 0x5846_5342 | 0x9123_683E | 0x0102_1994 | 0xF2F5_2010 | 0x2FC1_2FC1
            | 0x794C_7630 | 0xCA45_1A4E,
        ) => TICK_NS,
        Ok(_) | Err(_) => COARSE_NS,
    }
}

/// A stamp that proves nothing where it is so fresh that another change may leave the same.
pub(crate) fn settled(granularity_ns: i64, mut stamp: FileStamp) -> FileStamp {
    if stamp.ctime_ns.max(stamp.mtime_ns) > now_ns() - granularity_ns {
        stamp.ctime_ns = 0;
    }
    stamp
}
