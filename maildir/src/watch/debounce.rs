//! When a round begins after something happened. Pure: times are handed in.

use std::time::{Duration, Instant};

/// For how long nothing may happen before what waits is looked at.
const QUIET: Duration = Duration::from_millis(200);

/// For how long at most anything waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes few rounds of many events. The first event after quiet starts one at once; what happens during a round, or right
/// after it, waits for 200 ms of quiet, 2 s at the most.
#[derive(Clone, Debug, Default)]
pub struct Debounce {
    waiting: Option<Waiting>,
    is_running: bool,
    /// When the last round ended.
    ended: Option<Instant>,
}

/// Events that no round has looked at yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    first: Instant,
    last: Instant,
    is_first_after_quiet: bool,
}

impl Debounce {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new() -> Debounce {
        Debounce::default()
    }

    /// Something happened.
    pub fn event(&mut self, at: Instant) {
        match &mut self.waiting {
            Some(waiting) => waiting.last = at,
            None => {
                let is_right_after = |ended| at.saturating_duration_since(ended) < QUIET;
                self.waiting = Some(Waiting {
                    first: at,
                    last: at,
                    is_first_after_quiet: !self.is_running
                        && !self.ended.is_some_and(is_right_after),
                });
            }
        }
    }

    /// A round begins, for whatever reason; it looks at all that happened before.
    pub fn begin(&mut self) {
        self.waiting = None;
        self.is_running = true;
    }

    /// The round ended.
    pub fn end(&mut self, at: Instant) {
        self.is_running = false;
        self.ended = Some(at);
    }

    /// When the next round is due: a time that has come means now. None while nothing waits, or a round runs.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let waiting = self.waiting.filter(|_| !self.is_running)?;
        match waiting.is_first_after_quiet {
            true => Some(waiting.first),
            false => Some((waiting.last + QUIET).min(waiting.first + PATIENCE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A debounce after a round that ended at the time that is returned, too.
    fn after_a_round() -> (Debounce, Instant) {
        let (mut debounce, at) = (Debounce::new(), Instant::now());
        debounce.begin();
        debounce.end(at);
        (debounce, at)
    }

    #[test]
    fn nothing_is_due_before_anything_happened() {
        assert_eq!(Debounce::new().due(), None);
        assert_eq!(after_a_round().0.due(), None);
    }

    #[test]
    fn the_first_event_starts_a_round_at_once() {
        let (mut debounce, at) = (Debounce::new(), Instant::now());
        debounce.event(at);
        assert_eq!(debounce.due(), Some(at));
        debounce.event(at + ms(1));
        assert_eq!(debounce.due(), Some(at), "more of them put nothing off");
        let (mut debounce, end) = after_a_round();
        debounce.event(end + QUIET);
        assert_eq!(debounce.due(), Some(end + QUIET), "after quiet, too");
    }

    #[test]
    fn a_round_looks_at_all_that_happened_before() {
        let (mut debounce, at) = (Debounce::new(), Instant::now());
        debounce.event(at);
        debounce.begin();
        assert_eq!(debounce.due(), None);
        debounce.end(at + ms(50));
        assert_eq!(debounce.due(), None);
    }

    #[test]
    fn what_happens_during_a_round_waits_for_its_end_and_for_quiet() {
        let (mut debounce, at) = (Debounce::new(), Instant::now());
        debounce.begin();
        debounce.event(at);
        assert_eq!(debounce.due(), None);
        debounce.end(at + ms(50));
        assert_eq!(debounce.due(), Some(at + QUIET));
        debounce.event(at + ms(150));
        assert_eq!(debounce.due(), Some(at + ms(350)));
    }

    #[test]
    fn what_happens_right_after_a_round_waits_for_quiet() {
        let (mut debounce, end) = after_a_round();
        debounce.event(end + ms(199));
        assert_eq!(debounce.due(), Some(end + ms(399)));
    }

    #[test]
    fn nothing_waits_for_longer_than_two_seconds() {
        let (mut debounce, end) = after_a_round();
        for after in (10..5000).step_by(100) {
            debounce.event(end + ms(after));
        }
        assert_eq!(debounce.due(), Some(end + ms(10) + PATIENCE));
    }

    #[test]
    fn a_stream_of_events_makes_a_round_every_two_seconds() {
        let (mut debounce, start) = (Debounce::new(), Instant::now());
        let mut rounds = 0;
        for at in (0..10_000).step_by(50).map(|after| start + ms(after)) {
            debounce.event(at);
            if debounce.due().is_some_and(|due| due <= at) {
                rounds += 1;
                debounce.begin();
                debounce.end(at + ms(20));
            }
        }
        assert_eq!(rounds, 5);
    }
}
