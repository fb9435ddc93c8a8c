//! A request to end: Ctrl-C, SIGTERM and SIGHUP. The first one reaches every thread that waits, and what is under way is ended
//! in order; a second one ends the process at once, as signals do.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

type Callback = Box<dyn Fn() + Send>;

/// A function is called on a request to end as long as this lives.
pub struct Call {
    number: u64,
    inner: Arc<Inner>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.inner.callbacks().remove(&self.number);
    }
}

/// Whether the process shall end; clones say the same.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    is_requested: AtomicBool,
    callbacks: Mutex<BTreeMap<u64, Callback>>,
}

impl Inner {
    fn callbacks(&self) -> MutexGuard<'_, BTreeMap<u64, Callback>> {
        self.callbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_tuple("Stop").field(&self.is_requested()).finish()
    }
}

impl Stop {
    /// Listens for signals from now on, but for those that were ignored when this program was started, as by nohup.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn on_signals() -> io::Result<Stop> {
        let stop = Stop::default();
        let listener = stop.clone();
        let ignored = ignored_signals();
        let awaited = [SIGHUP, SIGINT, SIGTERM]
            .into_iter()
            .filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let mut signals = Signals::new(awaited)?;
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if listener.is_requested() {
                    let _ = emulate_default_handler(signal); // It does not return.
                }
                listener.request();
            }
        });
        Ok(stop)
    }

    /// Whether it was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_requested.load(Ordering::SeqCst)
    }

    /// Requests it.
    pub fn request(&self) {
        self.0.is_requested.store(true, Ordering::SeqCst);
        for callback in self.0.callbacks().values() {
            callback();
        }
    }

    /// Calls a function when it is requested, at once where it was requested already, as long as what is returned lives.
    #[must_use]
    pub fn on_request(&self, callback: impl Fn() + Send + 'static) -> Call {
        let mut callbacks = self.0.callbacks();
        if self.is_requested() {
            callback();
        }
        let number = callbacks.last_key_value().map_or(0, |(last, _)| last + 1);
        callbacks.insert(number, Box::new(callback));
        drop(callbacks);
        Call {
            number,
            inner: Arc::clone(&self.0),
        }
    }
}

/// The signals that are ignored, as bits; none where the system does not say.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_callback_is_called_also_when_it_comes_late_and_not_once_it_is_dropped() {
        let stop = Stop::default();
        let (sender, heard) = channel();
        let early = sender.clone();
        let _early = stop.on_request(move || early.send("early").expect("it is heard"));
        drop(stop.on_request(|| panic!("it is not wanted any more")));
        assert!(heard.try_recv().is_err() && !stop.is_requested());
        stop.clone().request();
        assert_eq!(heard.try_recv(), Ok("early"));
        assert!(stop.is_requested());
        let _late = stop.on_request(move || sender.send("late").expect("it is heard"));
        assert_eq!(heard.try_recv(), Ok("late"));
    }
}
