//! What the driver waits by: each thread that has something for it rings.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One driver's bell; clones are the same bell.
#[derive(Clone, Default)]
pub struct Bell(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Default)]
struct State {
    /// How often it was rung.
    count: u64,
    /// A thread that does not wait is not woken: waking costs as much as taking in a small body.
    is_waited_for: bool,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the driver look up from waiting, or from the next time that it waits.
    pub fn ring(&self) {
        let mut state = self.lock();
        state.count += 1;
        if state.is_waited_for {
            self.0.woken.notify_all();
        }
    }

    /// How often it was rung; to be asked before looking for what to do.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lock().count
    }

    /// Waits until it has been rung more often than this, or until then.
    pub fn wait(&self, count: u64, until: Instant) {
        let mut state = self.lock();
        while state.count == count {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.is_waited_for = true;
            let woken = self.0.woken.wait_timeout(state, left);
            (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_waited_for = false;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn waiting_ends_with_a_ring_that_came_since_and_in_time() {
        let bell = Bell::default();
        let count = bell.count();
        bell.wait(count, Instant::now());
        let ringer = bell.clone();
        let thread = std::thread::spawn(move || ringer.ring());
        let far = Instant::now() + Duration::from_secs(600);
        bell.wait(count, far);
        assert!(bell.count() > count && Instant::now() < far);
        thread.join().expect("it rings");
    }
}
