//! Whether the agent is there while nothing is due from it. After as long a silence as a silent server is waited for otherwise, a minute
//! unless the account says something else, it is asked, and has a quarter of that to answer. Any byte is an answer.

use std::time::{Duration, Instant};

/// What is known of it.
pub(super) struct Alive {
    /// After so long without a byte it is asked.
    silence: Duration,
    /// How many bytes had come, and when the last of them.
    received: u64,
    heard: Instant,
    /// Until when an answer is due.
    until: Option<Instant>,
    /// Something happened that makes it doubtful.
    is_doubted: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing until then.
    Nothing(Instant),
    /// Ask it, and look again.
    Ask,
    /// It did not answer in time, and counts as gone.
    Gone,
    /// It was doubted, and is there.
    Proven,
}

impl Alive {
    /// It has just been heard, after so many bytes.
    pub(super) fn new(silence: Duration, received: u64, now: Instant) -> Alive {
        Alive {
            silence,
            received,
            heard: now,
            until: None,
            is_doubted: false,
        }
    }

    /// Something happened that makes it doubtful: it is asked at once, with less patience.
    pub(super) fn doubt(&mut self) {
        (self.is_doubted, self.until) = (true, None);
    }

    /// For how long it has been silent.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    /// For how long it has to answer.
    fn patience(&self) -> Duration {
        match self.is_doubted {
            true => self.silence / 12,
            false => self.silence / 4,
        }
    }

    /// What is to be done, now that so many bytes have come.
    pub(super) fn look(&mut self, received: u64, now: Instant) -> Due {
        if received != self.received {
            (self.received, self.heard, self.until) = (received, now, None);
            if std::mem::take(&mut self.is_doubted) {
                return Due::Proven;
            }
        }
        match self.until {
            Some(until) if now >= until => Due::Gone,
            Some(until) => Due::Nothing(until),
            None if self.is_doubted || now >= self.heard + self.silence => {
                self.until = Some(now + self.patience());
                Due::Ask
            }
            None => Due::Nothing(self.heard + self.silence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(60);

    #[test]
    fn silence_is_asked_about_once_and_then_it_counts_as_gone() {
        let begun = Instant::now();
        let mut alive = Alive::new(SILENCE, 7, begun);
        let asked = begun + SILENCE;
        assert_eq!(alive.look(7, begun), Due::Nothing(asked));
        assert_eq!(alive.look(7, asked), Due::Ask);
        let until = asked + SILENCE / 4;
        assert_eq!(alive.look(7, asked), Due::Nothing(until));
        assert_eq!(alive.look(8, until), Due::Nothing(until + SILENCE));
        let again = until + SILENCE;
        assert_eq!(alive.look(8, again), Due::Ask);
        assert_eq!(alive.look(8, again + SILENCE / 4), Due::Gone);
    }

    #[test]
    fn a_doubt_is_asked_about_at_once_and_answered_by_any_byte() {
        let begun = Instant::now();
        let mut alive = Alive::new(SILENCE, 7, begun);
        alive.doubt();
        assert_eq!(alive.look(7, begun), Due::Ask);
        let until = begun + SILENCE / 12;
        assert_eq!(alive.look(7, begun), Due::Nothing(until));
        assert_eq!(alive.look(8, begun), Due::Proven);
        alive.doubt();
        assert_eq!(alive.look(8, begun), Due::Ask);
        assert_eq!(alive.look(8, until), Due::Gone);
    }
}
