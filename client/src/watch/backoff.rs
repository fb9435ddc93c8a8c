//! How long a connection that failed is not tried again: 0, 1, 2, 4 … 300 s, each half as long to one and a half times as long, so that
//! many clients of one server do not come at once.

use std::time::Duration;

/// The longest, before it is varied.
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Begins anew.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one failure more; `chance` says where between the shortest and the longest, of 255.
    pub(super) fn after_failure(&mut self, chance: u8) -> Duration {
        let base = match self.failures {
            0 => Duration::ZERO,
            count => LONGEST.min(Duration::from_secs(1) * 2u32.saturating_pow(count - 1)),
        };
        self.failures = self.failures.saturating_add(1);
        base / 2 + base * u32::from(chance) / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_five_minutes_and_begins_anew() {
        let waits = |chance| {
            let mut backoff = Backoff::default();
            (0..12)
                .map(move |_| backoff.after_failure(chance).as_millis())
                .collect::<Vec<_>>()
        };
        let shortest = [
            0, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 150_000, 150_000,
        ];
        assert_eq!(waits(0), shortest);
        assert_eq!(waits(255), shortest.map(|wait| 3 * wait));
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.after_failure(0);
        }
        backoff.reset();
        assert_eq!(backoff.after_failure(255), Duration::ZERO);
    }
}
