//! The progress line of a terminal: phase, messages and bytes done of total, rate, time left.
//!
//! Only counts and draws; what it says besides is [`crate::report`]'s. Cheap to call for every message, from any
//! thread: drawing is limited to a few times a second.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::When;
use crate::report::figures::{bytes_text, duration_text};

/// How often the line is drawn anew.
const INTERVAL: Duration = Duration::from_millis(100);
/// How often a line is written where there is no terminal to draw on, as `--progress always` asks.
const INTERVAL_PLAIN: Duration = Duration::from_secs(1);
/// A rate means nothing before.
const RATE_AFTER: Duration = Duration::from_secs(1);

/// What a run is busy with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Looking at what changed in the local replica.
    Scanning,
    /// Receiving what changed at the other side, and deciding.
    Comparing,
    /// Moving bodies and carrying out the plan.
    Transferring,
    /// Waiting until either side changes.
    Watching,
    /// Waiting until it is time to connect again.
    Unconnected,
}

impl Phase {
    fn is_rest(self) -> bool {
        matches!(self, Phase::Watching | Phase::Unconnected)
    }
}

/// A progress line, or nothing; clones draw the same line.
#[derive(Clone)]
pub struct Progress(Option<Arc<Line>>);

struct Line {
    account: String,
    terminal: bool,
    /// Made when it is first drawn.
    bar: Mutex<Option<ProgressBar>>,
    /// Whether nothing may be drawn: ssh may be asking for a password.
    is_held: AtomicBool,
    count: Mutex<Count>,
}

struct Count {
    phase: Phase,
    begun: Instant,
    drawn: Instant,
    messages: (u64, u64),
    bytes: (u64, u64),
}

impl Progress {
    /// Shows nothing.
    #[must_use]
    pub fn hidden() -> Progress {
        Progress(None)
    }

    /// A line for one account on stderr: drawn on a terminal, written once a second where there is none and `when` says
    /// always; not before it is released.
    #[must_use]
    pub fn new(when: When, account: &str) -> Progress {
        // A terminal on which nothing can be drawn (`TERM=dumb`) is as good as none.
        let terminal = !ProgressDrawTarget::stderr().is_hidden();
        let shown = match when {
            When::Auto => terminal,
            When::Always => true,
            When::Never => false,
        };
        if !shown {
            return Progress::hidden();
        }
        let now = Instant::now();
        let count = Count {
            phase: Phase::Scanning,
            begun: now,
            drawn: now,
            messages: (0, 0),
            bytes: (0, 0),
        };
        let account = protocol::bytes::escape(account.as_bytes());
        Progress(Some(Arc::new(Line {
            account,
            terminal,
            bar: Mutex::new(None),
            is_held: AtomicBool::new(true),
            count: Mutex::new(count),
        })))
    }

    /// Draws nothing until it is released: another program needs the terminal.
    pub fn hold(&self) {
        let Some(line) = &self.0 else { return };
        line.is_held.store(true, Ordering::SeqCst);
        self.clear();
    }

    /// Draws from now on.
    pub fn release(&self) {
        let Some(line) = &self.0 else { return };
        line.is_held.store(false, Ordering::SeqCst);
        self.update(true, |_| ());
    }

    /// Begins a phase; its totals may be 0 while they are not known.
    pub fn begin(&self, phase: Phase, messages_total: u64, bytes_total: u64) {
        self.update(true, |count| {
            *count = Count {
                phase,
                begun: Instant::now(),
                drawn: count.drawn,
                messages: (0, messages_total),
                bytes: (0, bytes_total),
            };
        });
    }

    /// Adds to the totals of the phase.
    pub fn expect(&self, messages: u64, bytes: u64) {
        self.update(false, |count| {
            count.messages.1 += messages;
            count.bytes.1 = count.bytes.1.saturating_add(bytes);
        });
    }

    /// Adds to what is done.
    pub fn advance(&self, messages: u64, bytes: u64) {
        self.update(false, |count| {
            count.messages.0 += messages;
            count.bytes.0 = count.bytes.0.saturating_add(bytes);
        });
    }

    /// Takes the line away.
    pub fn clear(&self) {
        let bar = self.0.as_ref().and_then(|line| line.bar().take());
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }

    /// Takes the line away while something else is printed.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match self.0.as_ref().and_then(|line| line.bar().clone()) {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn update(&self, at_once: bool, change: impl FnOnce(&mut Count)) {
        let Some(line) = &self.0 else { return };
        let mut count = line.count.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut count);
        let interval = if line.terminal {
            INTERVAL
        } else {
            INTERVAL_PLAIN
        };
        let is_held = line.is_held.load(Ordering::SeqCst);
        if is_held || (!at_once && count.drawn.elapsed() < interval) {
            return;
        }
        count.drawn = Instant::now();
        let text = format!("{}: {}", line.account, count.text(count.begun.elapsed()));
        if line.terminal {
            let mut drawn = line.bar();
            let bar = drawn.get_or_insert_with(bar);
            match count.phase.is_rest() {
                // Nothing moves, so nothing wakes up to draw it.
                true => bar.disable_steady_tick(),
                false => bar.enable_steady_tick(INTERVAL),
            }
            bar.set_message(text);
        } else {
            drop(writeln!(std::io::stderr(), "{text}"));
        }
    }
}

impl Line {
    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is valid"),
    );
    bar
}

impl Count {
    fn text(&self, elapsed: Duration) -> String {
        let mut text = match self.phase {
            Phase::Scanning => "scanning",
            Phase::Comparing => "comparing",
            Phase::Transferring => "transferring",
            Phase::Watching => "in sync, watching",
            Phase::Unconnected => "not connected, trying again",
        }
        .to_owned();
        if self.messages != (0, 0) {
            text += &format!(
                " {} messages",
                done_of(self.messages, |number| number.to_string())
            );
        }
        if self.bytes != (0, 0) {
            text += &format!(", {}", done_of(self.bytes, bytes_text));
        }
        match self.phase.is_rest() {
            true => text,
            false => text + &self.rate(elapsed),
        }
    }

    /// Bytes per second, and the time that the rest takes at that rate; messages decide where there are no bytes.
    fn rate(&self, elapsed: Duration) -> String {
        if elapsed < RATE_AFTER {
            return String::new();
        }
        let per_second = |done: u64| done as f64 / elapsed.as_secs_f64();
        let (done, total) = if self.bytes.1 > 0 {
            self.bytes
        } else {
            self.messages
        };
        let mut text = String::new();
        if self.bytes.0 > 0 {
            text += &format!(", {}/s", bytes_text(per_second(self.bytes.0) as u64));
        }
        if done > 0 && total > done {
            let seconds = (total - done) as f64 / per_second(done);
            text += &format!(", {} left", duration_text(seconds.ceil()));
        }
        text
    }
}

fn done_of((done, total): (u64, u64), text: impl Fn(u64) -> String) -> String {
    if total == 0 {
        text(done)
    } else {
        format!("{} of {}", text(done), text(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(phase: Phase, messages: (u64, u64), bytes: (u64, u64), seconds: u64) -> String {
        let now = Instant::now();
        Count {
            phase,
            begun: now,
            drawn: now,
            messages,
            bytes,
        }
        .text(Duration::from_secs(seconds))
    }

    #[test]
    fn the_line_says_what_is_known() {
        assert_eq!(text(Phase::Scanning, (0, 0), (0, 0), 0), "scanning");
        assert_eq!(
            text(Phase::Scanning, (1200, 0), (0, 0), 2),
            "scanning 1200 messages"
        );
        assert_eq!(
            text(Phase::Comparing, (10, 40), (0, 0), 5),
            "comparing 10 of 40 messages, 15 s left"
        );
        assert_eq!(
            text(Phase::Transferring, (100, 400), (2_000_000, 8_000_000), 4),
            "transferring 100 of 400 messages, 2.0 MB of 8.0 MB, 500 kB/s, 12 s left"
        );
        assert_eq!(
            text(Phase::Transferring, (1, 2), (5_000, 0), 0),
            "transferring 1 of 2 messages, 5.0 kB"
        );
    }

    #[test]
    fn a_hidden_line_takes_everything() {
        let progress = Progress::hidden();
        progress.begin(Phase::Scanning, 1, 2);
        progress.expect(1, 1);
        progress.advance(1, 1);
        assert_eq!(progress.suspend(|| 7), 7);
        progress.clear();
    }
}
