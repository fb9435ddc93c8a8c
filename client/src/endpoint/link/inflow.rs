//! What came and was not looked at yet: between the thread that reads and the driver, limited by bytes.
//!
//! The driver has other things to do now and then. Meanwhile the agent must not wait, so some bytes are read ahead. Most
//! bodies are small, and waking a thread costs as much as taking in some of them: so what came together is handed over
//! together, and nobody is woken who is not waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How many bytes are read ahead of the driver, besides what it has taken and as much.
const BYTES_AHEAD: usize = 2 << 20;
/// From how many bytes on what came is handed over, though more has come.
const GROUP_BYTES: usize = 256 << 10;

/// What is queued, and who waits.
struct State<T> {
    queue: VecDeque<T>,
    bytes: usize,
    /// One of the two ends is gone.
    is_closed: bool,
    is_reader_waiting: bool,
    is_driver_waiting: bool,
    /// The driver shall look up from waiting.
    is_woken: bool,
}

/// What waiting for the next item ends with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// It is there.
    Item(T),
    /// No more will come.
    End,
    /// The time is over, or somebody wakes the driver.
    NotYet,
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
pub(super) struct Feed<T> {
    shared: Arc<Shared<T>>,
    /// What was not handed over yet.
    group: VecDeque<T>,
    bytes: usize,
}

/// The driver's end.
pub(super) struct Intake<T> {
    shared: Arc<Shared<T>>,
    taken: VecDeque<T>,
}

/// An empty queue.
pub(super) fn inflow<T>() -> (Feed<T>, Intake<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            bytes: 0,
            is_closed: false,
            is_reader_waiting: false,
            is_driver_waiting: false,
            is_woken: false,
        }),
        came: Condvar::new(),
        left: Condvar::new(),
    });
    let feed = Feed {
        shared: Arc::clone(&shared),
        group: VecDeque::new(),
        bytes: 0,
    };
    let taken = VecDeque::new();
    (feed, Intake { shared, taken })
}

impl<T> Feed<T> {
    /// Adds what came. Unless more follows without waiting, it is handed over, once there is room; `false` when the
    /// driver is gone.
    pub(super) fn put(&mut self, item: T, bytes: usize, more_follows: bool) -> bool {
        self.group.push_back(item);
        self.bytes += bytes + size_of::<T>();
        if more_follows && self.bytes < GROUP_BYTES {
            return true;
        }
        let mut state = self.shared.lock();
        while state.bytes >= BYTES_AHEAD && !state.is_closed {
            state.is_reader_waiting = true;
            let left = self.shared.left.wait(state);
            state = left.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_reader_waiting = false;
        state.bytes += std::mem::take(&mut self.bytes);
        state.queue.append(&mut self.group);
        if state.is_driver_waiting {
            self.shared.came.notify_one();
        }
        !state.is_closed
    }
}

impl<T> Intake<T> {
    /// Whether the next item is there.
    pub(super) fn has_next(&self) -> bool {
        !self.taken.is_empty() || !self.shared.lock().queue.is_empty()
    }

    /// What makes the driver look up from waiting, or from the next time that it waits.
    pub(super) fn waker(&self) -> impl Fn() + Send + use<T>
    where
        T: Send + 'static,
    {
        let shared = Arc::downgrade(&self.shared);
        move || {
            if let Some(shared) = shared.upgrade() {
                shared.lock().is_woken = true;
                shared.came.notify_all();
            }
        }
    }

    /// The next item, waited for until then.
    pub(super) fn next(&mut self, until: Instant) -> Next<T> {
        if let Some(item) = self.taken.pop_front() {
            return Next::Item(item);
        }
        let mut state = self.shared.lock();
        while state.queue.is_empty() && !state.is_closed {
            let left = until.saturating_duration_since(Instant::now());
            if std::mem::take(&mut state.is_woken) || left.is_zero() {
                state.is_driver_waiting = false;
                return Next::NotYet;
            }
            state.is_driver_waiting = true;
            let came = self.shared.came.wait_timeout(state, left);
            (state, _) = came.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_driver_waiting = false;
        state.bytes = 0;
        std::mem::swap(&mut self.taken, &mut state.queue);
        if state.is_reader_waiting {
            self.shared.left.notify_one();
        }
        drop(state);
        self.taken.pop_front().map_or(Next::End, Next::Item)
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl<T> Drop for Intake<T> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    impl<T> Intake<T> {
        fn wait(&mut self) -> Option<T> {
            match self.next(Instant::now() + Duration::from_secs(60)) {
                Next::Item(item) => Some(item),
                Next::End => None,
                Next::NotYet => panic!("nothing came"),
            }
        }
    }

    #[test]
    fn waiting_ends_in_time_and_when_somebody_wakes_the_driver() {
        let (mut feed, mut intake) = inflow::<u8>();
        assert_eq!(intake.next(Instant::now()), Next::NotYet);
        let wake = intake.waker();
        let waker = std::thread::spawn(wake);
        let far = Instant::now() + Duration::from_secs(600);
        assert_eq!(intake.next(far), Next::NotYet, "it was woken");
        waker.join().expect("it wakes");
        assert!(feed.put(1, 1, false));
        assert_eq!(intake.next(far), Next::Item(1));
    }

    #[test]
    fn what_came_is_had_in_order_and_at_once_where_nothing_follows() {
        let (mut feed, mut intake) = inflow();
        assert!(feed.put(1, 10, true));
        assert!(!intake.has_next(), "more follows");
        assert!(feed.put(2, 10, false));
        assert!(intake.has_next());
        assert_eq!((intake.wait(), intake.wait()), (Some(1), Some(2)));
        assert!(feed.put(3, GROUP_BYTES, true));
        assert!(intake.has_next(), "it is much already");
        drop(feed);
        assert_eq!((intake.wait(), intake.wait()), (Some(3), None));
    }

    #[test]
    fn the_reader_waits_while_much_is_unread_and_ends_with_the_driver() {
        let (mut feed, mut intake) = inflow();
        let reader = std::thread::spawn(move || {
            let mut count = 0_u64;
            while feed.put(count, BYTES_AHEAD / 2, false) {
                count += 1;
            }
            count
        });
        for number in 0..100 {
            assert_eq!(intake.wait(), Some(number));
        }
        let had = 100 + intake.taken.len() as u64;
        drop(intake);
        let put = reader.join().expect("it ends");
        assert!(put <= had + 3, "{put} were put, {had} had been taken");
    }
}
