//! A request to end: Ctrl-C, SIGTERM and SIGHUP. The first one is heard by every thread that waits, and what is under way is ended
//! in order; a second one ends the process at once, as signals do.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

type Hearer = Box<dyn Fn() + Send>;

/// Whether the process shall end; clones tell the same.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    is_requested: AtomicBool,
    hearers: Mutex<Vec<Hearer>>,
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
        let heard = [SIGHUP, SIGINT, SIGTERM]
            .into_iter()
            .filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let mut signals = Signals::new(heard)?;
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
        for hearer in &*self.hearers() {
            hearer();
        }
    }

    /// Has somebody told, at once where it was requested already.
    pub fn tell(&self, hearer: impl Fn() + Send + 'static) {
        let mut hearers = self.hearers();
        if self.is_requested() {
            hearer();
        }
        hearers.push(Box::new(hearer));
    }

    fn hearers(&self) -> std::sync::MutexGuard<'_, Vec<Hearer>> {
        self.0
            .hearers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signals that are ignored, as bits; none where the system does not tell.
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
    fn whoever_waits_hears_of_it_also_when_he_comes_late() {
        let stop = Stop::default();
        let (sender, heard) = channel();
        let early = sender.clone();
        stop.tell(move || early.send("early").expect("it is heard"));
        assert!(heard.try_recv().is_err() && !stop.is_requested());
        stop.clone().request();
        assert_eq!(heard.try_recv(), Ok("early"));
        assert!(stop.is_requested());
        stop.tell(move || sender.send("late").expect("it is heard"));
        assert_eq!(heard.try_recv(), Ok("late"));
    }
}
