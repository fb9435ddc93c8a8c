//! Timestamp granularity: two changes within it may leave the same time, so a time that is younger proves nothing.

use crate::hash::Hashed;
use crate::root::Root;
use crate::stamp::FileStamp;

/// For so fine a timestamp granularity it is worth waiting.
pub(crate) const PATIENCE_NS: i64 = 100_000_000;

/// Two ticks of the slowest kernel clock (HZ=100).
const TICK_NS: i64 = 20_000_000;
/// FAT has two seconds, NFS servers and old ext3 one.
const COARSE_NS: i64 = 2_500_000_000;

/// How long after a change the file system may still give the same time to another one.
pub(crate) fn granularity_ns(root: &Root) -> i64 {
    match root.file_system_type() {
        Ok(
            0xEF53 | 0x5846_5342 | 0x9123_683E | 0x0102_1994 | 0xF2F5_2010 | 0x2FC1_2FC1
            | 0x794C_7630 | 0xCA45_1A4E,
        ) => TICK_NS,
        Ok(_) | Err(_) => COARSE_NS,
    }
}

/// When something changed last, as far as its times can be believed. Whatever changes it moves its ctime, which nobody can set as
/// the mtime can be: to the future, for one. A file system that is not known may have no ctime of its own.
pub(crate) fn changed_ns(granularity_ns: i64, mtime_ns: i64, ctime_ns: i64) -> i64 {
    match granularity_ns < PATIENCE_NS {
        true => ctime_ns,
        false => ctime_ns.max(mtime_ns),
    }
}

/// The stamp of a file that was read; it proves nothing where a change since that began may have left the same.
pub(crate) fn settled(granularity_ns: i64, hashed: &Hashed) -> FileStamp {
    let mut stamp = hashed.stamp;
    let changed_ns = changed_ns(granularity_ns, stamp.mtime_ns, stamp.ctime_ns);
    if changed_ns > hashed.begun_ns - granularity_ns {
        stamp.ctime_ns = 0;
    }
    stamp
}

#[cfg(test)]
mod tests {
    use protocol::Digest;

    use super::*;

    const BEGUN_NS: i64 = 1_000_000_000_000;

    /// Whether a file that had these times when it began to be read is proven by that.
    fn is_proven(granularity_ns: i64, mtime_ns: i64, ctime_ns: i64) -> bool {
        let stamp = FileStamp {
            ino: 1,
            size: 1,
            mtime_ns,
            ctime_ns,
        };
        let hashed = Hashed {
            digest: Digest::of(b"1"),
            stamp,
            begun_ns: BEGUN_NS,
            is_blank: false,
        };
        settled(granularity_ns, &hashed) == stamp
    }

    #[test]
    fn a_file_is_proven_by_a_ctime_that_was_old_when_it_began_to_be_read() {
        for granularity_ns in [TICK_NS, COARSE_NS] {
            let old_ns = BEGUN_NS - granularity_ns;
            assert!(is_proven(granularity_ns, 5, old_ns));
            assert!(!is_proven(granularity_ns, 5, old_ns + 1));
            assert!(!is_proven(granularity_ns, 5, BEGUN_NS + 1));
        }
    }

    #[test]
    fn an_mtime_in_the_future_counts_only_where_there_may_be_no_ctime() {
        let (old_ns, future_ns) = (BEGUN_NS - COARSE_NS, 2 * BEGUN_NS);
        assert!(is_proven(TICK_NS, future_ns, old_ns));
        assert!(!is_proven(COARSE_NS, future_ns, old_ns));
    }
}
