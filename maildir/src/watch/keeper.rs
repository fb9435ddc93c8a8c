//! The thread beside the events: it looks every so often where there are none, and at what is mounted.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::heard::Heard;

/// A thread that ends when this is dropped.
pub(super) struct Keeper {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

struct Orders {
    now: Mutex<Order>,
    /// None where no more files can be opened: then the thread is only unparked.
    bell: Option<OwnedFd>,
}

#[derive(Clone, Copy, Default)]
struct Order {
    /// How often everything is to be looked at, and when next.
    every: Option<(Duration, Instant)>,
    is_over: bool,
}

impl Keeper {
    pub(super) fn new(heard: Arc<Heard>) -> Keeper {
        let orders = Arc::new(Orders {
            now: Mutex::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok(),
        });
        let keeper = thread::Builder::new().name("watch".into());
        let own = Arc::clone(&orders);
        Keeper {
            orders,
            thread: keeper.spawn(move || own.keep(&heard)).ok(),
        }
    }

    /// From now on, everything is to be looked at so often.
    pub(super) fn look_every(&self, every: Option<Duration>) {
        self.order(|order| order.every = every.map(|every| (every, Instant::now() + every)));
    }

    fn order(&self, give: impl FnOnce(&mut Order)) {
        give(&mut self.orders.now());
        if let Some(bell) = &self.orders.bell {
            // It can only fail by having rung very often already.
            let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.order(|order| order.is_over = true);
        if let Some(thread) = self.thread.take() {
            // What it panicked with was printed.
            let _ = thread.join();
        }
    }
}

impl Orders {
    fn now(&self) -> MutexGuard<'_, Order> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, heard: &Heard) {
        let mounts = File::open("/proc/self/mountinfo").ok();
        loop {
            let order = *self.now();
            if order.is_over {
                return;
            }
            let left = order
                .every
                .map(|(_, next)| next.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                self.put_off();
                heard.look_at_everything();
            } else if self.wait(left, mounts.as_ref()) {
                heard.look_at_mounts();
            }
        }
    }

    /// The next look is so much later.
    fn put_off(&self) {
        if let Some((every, next)) = &mut self.now().every {
            *next = Instant::now() + *every;
        }
    }

    /// Waits for orders, or for so long; whether something was mounted or unmounted.
    fn wait(&self, left: Option<Duration>, mounts: Option<&File>) -> bool {
        let Some(bell) = &self.bell else {
            left.map_or_else(thread::park, thread::park_timeout);
            return false;
        };
        let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
        fds.extend(mounts.map(|mounts| PollFd::new(mounts, PollFlags::PRI)));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return false,
            Err(_) => {
                thread::park_timeout(Duration::from_secs(1));
                return false;
            }
        }
        // Silent if there is nothing to read.
        let _ = rustix::io::read(bell, &mut [0; 8]);
        fds.get(1)
            .is_some_and(|mounts| !mounts.revents().is_empty())
    }
}
