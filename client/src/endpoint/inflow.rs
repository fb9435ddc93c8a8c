//! What came and was not looked at yet: between the threads that bring it and the driver, limited by bytes.
//!
//! The driver has other things to do now and then. Meanwhile nothing must wait for it, so some bytes are read ahead. Most
//! bodies are small, and waking a thread costs as much as taking in some of them: so what came together is handed over
//! together. The standard library's bounded channel counts items, and these are anything from a flag to 128 KiB.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::bell::Bell;

/// The queue is full at so many bytes. The driver may hold another queue's worth that it has taken and not used yet.
const BYTES_AHEAD: usize = 2 << 20;
/// From how many bytes on what came is handed over, though more has come.
const GROUP_BYTES: usize = 256 << 10;

/// What is queued, and who waits.
struct State<T> {
    queue: VecDeque<T>,
    bytes: usize,
    feeds: usize,
    is_driver_gone: bool,
}

/// What looking for the next item ends with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// It is there.
    Item(T),
    /// No more will come.
    End,
    /// It is not there yet.
    NotYet,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    left: Condvar,
    bell: Bell,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bringing thread's end.
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

/// An empty queue, whose driver waits by this bell.
pub(super) fn inflow<T>(bell: &Bell) -> (Feed<T>, Intake<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            bytes: 0,
            feeds: 1,
            is_driver_gone: false,
        }),
        left: Condvar::new(),
        bell: bell.clone(),
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
        (more_follows && self.bytes < GROUP_BYTES) || self.hand_over()
    }

    /// Hands over what was not yet, once there is room; `false` when the driver is gone.
    pub(super) fn hand_over(&mut self) -> bool {
        let mut state = self.shared.lock();
        while state.bytes >= BYTES_AHEAD && !state.is_driver_gone {
            let left = self.shared.left.wait(state);
            state = left.unwrap_or_else(PoisonError::into_inner);
        }
        let is_heard = !state.is_driver_gone;
        state.bytes += std::mem::take(&mut self.bytes);
        state.queue.append(&mut self.group);
        drop(state);
        self.shared.bell.ring();
        is_heard
    }

    /// Hands over something small, whether or not there is room: the driver may be waiting for it, and take nothing else.
    pub(super) fn put_at_once(&self, item: T) {
        self.shared.lock().queue.push_back(item);
        self.shared.bell.ring();
    }
}

impl<T> Clone for Feed<T> {
    /// For another thread that brings something to the same driver.
    fn clone(&self) -> Feed<T> {
        self.shared.lock().feeds += 1;
        Feed {
            shared: Arc::clone(&self.shared),
            group: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> Intake<T> {
    /// The next item, if it is there.
    pub(super) fn next(&mut self) -> Next<T> {
        if let Some(item) = self.taken.pop_front() {
            return Next::Item(item);
        }
        let mut state = self.shared.lock();
        let is_ended = state.feeds == 0;
        state.bytes = 0;
        std::mem::swap(&mut self.taken, &mut state.queue);
        self.shared.left.notify_all();
        drop(state);
        match self.taken.pop_front() {
            Some(item) => Next::Item(item),
            None if is_ended => Next::End,
            None => Next::NotYet,
        }
    }

    /// The same, waited for until then, or until the bell rings.
    pub(super) fn wait(&mut self, until: Instant) -> Next<T> {
        let count = self.shared.bell.count();
        match self.next() {
            Next::NotYet => self.shared.bell.wait(count, until),
            next => return next,
        }
        self.next()
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        self.shared.lock().feeds -= 1;
        self.shared.bell.ring();
    }
}

impl<T> Drop for Intake<T> {
    fn drop(&mut self) {
        self.shared.lock().is_driver_gone = true;
        self.shared.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wait<T>(intake: &mut Intake<T>) -> Option<T> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match intake.wait(end) {
                Next::Item(item) => return Some(item),
                Next::End => return None,
                Next::NotYet => assert!(Instant::now() < end, "nothing came"),
            }
        }
    }

    #[test]
    fn what_came_is_had_in_order_and_at_once_where_nothing_follows() {
        let (mut feed, mut intake) = inflow(&Bell::default());
        assert_eq!(intake.wait(Instant::now()), Next::NotYet);
        assert!(feed.put(1, 10, true));
        assert_eq!(intake.next(), Next::NotYet, "more follows");
        assert!(feed.put(2, 10, false));
        assert_eq!((intake.next(), wait(&mut intake)), (Next::Item(1), Some(2)));
        assert!(feed.put(3, GROUP_BYTES, true));
        assert_eq!(intake.next(), Next::Item(3), "it is much already");
        let mut other = feed.clone();
        drop(feed);
        assert!(other.put(4, 1, false));
        drop(other);
        assert_eq!((wait(&mut intake), wait(&mut intake)), (Some(4), None));
    }

    #[test]
    fn the_reader_waits_while_much_is_unread_and_ends_with_the_driver() {
        let (mut feed, mut intake) = inflow(&Bell::default());
        let reader = std::thread::spawn(move || {
            let mut count = 0_u64;
            while feed.put(count, BYTES_AHEAD / 2, false) {
                count += 1;
            }
            count
        });
        for number in 0..100 {
            assert_eq!(wait(&mut intake), Some(number));
        }
        let had = 100 + intake.taken.len() as u64;
        drop(intake);
        let put = reader.join().expect("it ends");
        assert!(put <= had + 3, "{put} were put, {had} had been taken");
    }
}
