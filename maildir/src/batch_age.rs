//! For how long what has come of a batch waits for the rest of it.

use std::time::{Duration, Instant};

/// How long at first, so that a first message is there soon and little is lost by an end.
const FIRST: Duration = Duration::from_millis(250);
/// How long in the end.
const LAST: Duration = Duration::from_secs(64);

/// How long a batch waits to become whole: each twice as long as the one before, because flushing costs each time.
pub struct BatchAge {
    until: Option<Instant>,
    next: Duration,
}

impl Default for BatchAge {
    fn default() -> BatchAge {
        BatchAge {
            until: None,
            next: FIRST,
        }
    }
}

impl BatchAge {
    /// Something of a batch has come: it waits from the first time on.
    pub fn begin(&mut self) {
        let next = self.next;
        self.until.get_or_insert_with(|| Instant::now() + next);
    }

    /// The batch is handed over. The next one waits longer if this one did.
    pub fn end(&mut self) {
        if self.until.take().is_some() {
            self.next = (self.next * 2).min(LAST);
        }
    }

    /// Until when the batch waits, if it does.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether it has waited for long enough.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}
