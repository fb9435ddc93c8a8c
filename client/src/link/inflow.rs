//! What came and was not looked at yet: between the thread that reads and the driver, limited by bytes.
//!
//! The driver has other things to do now and then. Meanwhile the agent must not wait, so some bytes are read ahead; and
//! most bodies are small, so nobody is woken who is not waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many bytes are read ahead of the driver.
const BYTES_AHEAD: usize = 4 << 20;

/// What is queued, and who waits.
struct State<T> {
    queue: VecDeque<(T, usize)>,
    bytes: usize,
    /// One of the two ends is gone.
    is_closed: bool,
    is_reader_waiting: bool,
    is_driver_waiting: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    came: Condvar,
    left: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.came.notify_all();
        self.left.notify_all();
    }
}

/// The reading thread's end.
pub(super) struct Feed<T>(Arc<Shared<T>>);

/// The driver's end.
pub(super) struct Intake<T>(Arc<Shared<T>>);

/// An empty queue.
pub(super) fn inflow<T>() -> (Feed<T>, Intake<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            bytes: 0,
            is_closed: false,
            is_reader_waiting: false,
            is_driver_waiting: false,
        }),
        came: Condvar::new(),
        left: Condvar::new(),
    });
    (Feed(Arc::clone(&shared)), Intake(shared))
}

impl<T> Feed<T> {
    /// Adds what came, once there is room; `false` when the driver is gone.
    pub(super) fn put(&self, item: T, bytes: usize) -> bool {
        let mut state = self.0.lock();
        while state.bytes >= BYTES_AHEAD && !state.is_closed {
            state.is_reader_waiting = true;
            let left = self.0.left.wait(state);
            state = left.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_reader_waiting = false;
        let bytes = bytes + size_of::<T>();
        state.bytes += bytes;
        state.queue.push_back((item, bytes));
        if state.is_driver_waiting {
            self.0.came.notify_one();
        }
        !state.is_closed
    }
}

impl<T> Intake<T> {
    /// The next item, waited for; `None` when no more will come.
    pub(super) fn next(&self) -> Option<T> {
        let mut state = self.0.lock();
        while state.queue.is_empty() && !state.is_closed {
            state.is_driver_waiting = true;
            let came = self.0.came.wait(state);
            state = came.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_driver_waiting = false;
        let (item, bytes) = state.queue.pop_front()?;
        state.bytes -= bytes;
        // Half of the room at once, so that the two do not take turns frame by frame.
        if state.is_reader_waiting && state.bytes < BYTES_AHEAD / 2 {
            self.0.left.notify_one();
        }
        Some(item)
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<T> Drop for Intake<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}
