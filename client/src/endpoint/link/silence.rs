//! How long the agent has been silent while something was due from it.
//!
//! Bytes in either direction are a sign of life: what we send is taken. Nothing is due while the driver has something else
//! to do, so only waiting counts.

use std::time::Duration;

use maildir::Pulse;

/// In how many slices the limit is waited for.
const SLICES: u32 = 10;

/// Silence so far.
pub(super) struct Silence {
    limit: Duration,
    pulse: Pulse,
    heard: u64,
    /// Only what was waited for, in slices: a process that was stopped itself and goes on looks once more before it says
    /// that another is silent.
    so_far: Duration,
}

impl Silence {
    /// None yet.
    pub(super) fn new(limit: Duration, pulse: Pulse) -> Silence {
        Silence {
            limit,
            heard: pulse.count(),
            pulse,
            so_far: Duration::ZERO,
        }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// How long to wait at a time.
    pub(super) fn slice(&self) -> Duration {
        self.limit / SLICES
    }

    /// Notes that so long was waited, but for more than a slice; `true` when it is too long by now.
    pub(super) fn is_too_long(&mut self, waited: Duration) -> bool {
        let heard = self.pulse.count();
        if heard == self.heard {
            self.so_far += waited.min(self.slice());
        } else {
            (self.heard, self.so_far) = (heard, Duration::ZERO);
        }
        self.so_far >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use maildir::Timed;

    use super::*;

    #[test]
    fn it_grows_while_nothing_moves_and_ends_with_any_byte() {
        let (pulse, second) = (Pulse::default(), Duration::from_secs(1));
        let mut pipe = Timed::new(std::io::sink(), pulse.clone());
        let mut silence = Silence::new(10 * second, pulse);
        for _ in 0..3 {
            // However long the process itself was stopped, it is one slice.
            assert!((0..9).all(|_| !silence.is_too_long(1000 * second)));
            pipe.write_all(b".").expect("it is taken");
        }
        assert!((0..10).all(|_| !silence.is_too_long(second)));
        assert!(silence.is_too_long(second));
    }
}
