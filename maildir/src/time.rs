//! What time it is.

use std::time::SystemTime;

/// Now, on the clock that stamps files.
pub(crate) fn now_ns() -> i64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Seconds since 1970, for ages only; nothing is decided by comparing clocks of two hosts.
pub(crate) fn now_secs() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_secs())
}
