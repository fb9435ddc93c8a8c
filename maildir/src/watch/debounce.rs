//! When a round begins after something happened. Pure: times are handed in.

use std::time::{Duration, Instant};

/// For how long nothing may happen before what waits is looked at.
const QUIET: Duration = Duration::from_millis(200);

/// What comes so long after a round is an event of its own, and not one of many.
const CALM: Duration = Duration::from_millis(50);

/// For how long at most anything waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes few rounds of many events. A lone event starts one at once. What happens during a round may be what it does itself, so it is
/// looked at as soon as it has ended; where there was more to it than that, much is going on, and what comes then waits for 200 ms
/// of quiet, 2 s at the most.
#[derive(Clone, Debug, Default)]
pub struct Debounce {
    waiting: Option<Waiting>,
    is_running: bool,
    /// When the last round ended.
    ended: Option<Instant>,
    /// How many looks in a row, one right after the other, found something.
    finds: u32,
}

/// Events that no round has looked at yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    first: Instant,
    last: Instant,
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
                let is_calm = |ended| at.saturating_duration_since(ended) >= CALM;
                if !self.is_running && self.ended.is_none_or(is_calm) {
                    self.finds = 0;
                }
                self.waiting = Some(Waiting {
                    first: at,
                    last: at,
                });
            }
        }
    }

    /// A round begins, for whatever reason; it looks at all that happened before.
    pub fn begin(&mut self) {
        self.waiting = None;
        self.is_running = true;
    }

    /// The round ended; whether it began because of something that was found in this tree.
    pub fn end(&mut self, at: Instant, has_found: bool) {
        self.is_running = false;
        self.ended = Some(at);
        self.finds = match has_found {
            true => self.finds.saturating_add(1),
            false => 0,
        };
    }

    /// When the next round is due: a time that has come means now. None while nothing waits, or a round runs.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let waiting = self.waiting.filter(|_| !self.is_running)?;
        Some(match self.finds {
            0 | 1 => waiting.first,
            _ => (waiting.last + QUIET).min(waiting.first + PATIENCE),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A debounce after so many rounds in a row that found something, and when the last one ended.
    fn after_rounds(count: usize) -> (Debounce, Instant) {
        let (mut debounce, at) = (Debounce::new(), Instant::now());
        for _ in 0..count {
            debounce.begin();
            debounce.end(at, true);
        }
        (debounce, at)
    }

    #[test]
    fn nothing_is_due_before_anything_happened() {
        assert_eq!(Debounce::new().due(), None);
        assert_eq!(after_rounds(1).0.due(), None);
    }

    #[test]
    fn a_lone_event_starts_a_round_at_once() {
        let (mut debounce, at) = (Debounce::new(), Instant::now());
        debounce.event(at);
        assert_eq!(debounce.due(), Some(at));
        debounce.event(at + ms(1));
        assert_eq!(debounce.due(), Some(at), "more of them put nothing off");
        for rounds in [1, 2, 9] {
            let (mut debounce, end) = after_rounds(rounds);
            debounce.event(end + CALM);
            assert_eq!(debounce.due(), Some(end + CALM), "after others, too");
        }
    }

    #[test]
    fn a_round_looks_at_all_that_happened_before() {
        let (mut debounce, at) = (Debounce::new(), Instant::now());
        debounce.event(at);
        debounce.begin();
        assert_eq!(debounce.due(), None);
        debounce.end(at + ms(50), true);
        assert_eq!(debounce.due(), None);
    }

    /// What it does itself makes events, and the next delivery must not wait for that.
    #[test]
    fn what_happens_during_a_round_is_looked_at_once_it_has_ended() {
        let (mut debounce, at) = (Debounce::new(), Instant::now());
        debounce.begin();
        debounce.event(at);
        assert_eq!(debounce.due(), None);
        debounce.end(at + ms(50), true);
        assert_eq!(debounce.due(), Some(at));
        debounce.begin();
        debounce.end(at + ms(60), false);
        debounce.event(at + ms(70));
        assert_eq!(debounce.due(), Some(at + ms(70)), "it was nothing else");
    }

    #[test]
    fn where_much_is_going_on_it_waits_for_quiet() {
        let (mut debounce, end) = after_rounds(2);
        debounce.event(end + ms(1));
        assert_eq!(debounce.due(), Some(end + ms(201)));
        debounce.event(end + ms(150));
        assert_eq!(debounce.due(), Some(end + ms(350)));
    }

    #[test]
    fn nothing_waits_for_longer_than_two_seconds() {
        let (mut debounce, end) = after_rounds(2);
        for after in (10..5000).step_by(100) {
            debounce.event(end + ms(after));
        }
        assert_eq!(debounce.due(), Some(end + ms(10) + PATIENCE));
    }

    #[test]
    fn a_stream_of_events_makes_a_round_every_two_seconds() {
        let (mut debounce, start) = (Debounce::new(), Instant::now());
        let mut rounds = 0;
        for at in (0..10_000).step_by(20).map(|after| start + ms(after)) {
            debounce.event(at);
            if debounce.due().is_some_and(|due| due <= at) {
                rounds += 1;
                debounce.begin();
                debounce.end(at + ms(10), true);
            }
        }
        assert_eq!(rounds, 6);
    }
}
