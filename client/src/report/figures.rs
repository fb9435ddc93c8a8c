//! Bytes and time spans before people. Pure.

/// A number of bytes in powers of 1000, as disks and links are sold.
#[must_use]
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if value < 99.95 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// A time span, as coarse as it is long.
#[must_use]
pub fn duration_text(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 if seconds.fract() != 0.0 => format!("{seconds:.1} s"),
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min {} s", whole / 60, whole % 60),
        7200.. => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_as_coarse_as_they_are_large() {
        let bytes = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (99_949, "99.9 kB"),
            (99_950, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (13_000_000_000, "13.0 GB"),
            (u64::MAX, "18447 PB"),
        ];
        for (number, text) in bytes {
            assert_eq!(bytes_text(number), text);
        }
        let spans = [
            (0.0, "0 s"),
            (0.04, "0.0 s"),
            (2.16, "2.2 s"),
            (9.96, "10 s"),
            (15.0, "15 s"),
            (119.4, "119 s"),
            (125.0, "2 min 5 s"),
            (7260.0, "2 h 1 min"),
        ];
        for (seconds, text) in spans {
            assert_eq!(duration_text(seconds), text);
        }
    }
}
