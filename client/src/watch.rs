//! `watch`: ordinary runs over a connection that is kept, for as long as the process lives.
//!
//! One thread for each account ([`mod@account`]), which sleeps until either tree changes; [`alive`] knows whether the agent is there,
//! [`backoff`] how long a failed connection is not tried again, [`calls`] what all of them are to hear, [`machine`]
//! when this machine has slept or its network is another one, [`metered`] whether that costs, [`service`] what systemd wants to know. It must never know what is synced, nor how: that is [`mod@crate::run`]'s.

mod account;
mod alive;
mod backoff;
mod calls;
mod machine;
mod metered;
mod service;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;

use self::account::{Reload, Setup, Watched};
use self::calls::Calls;
use self::service::Service;
use crate::config::Account;
use crate::endpoint::Bell;
use crate::endpoint::stop::Stop;
use crate::report::Reporter;
use crate::report::exit_code::ExitCode;
use crate::report::progress::Progress;

/// An account that is to be watched.
pub struct ToWatch {
    /// As it is configured now.
    pub account: Account,
    /// Gives it as it is configured later.
    pub reload: Box<dyn Fn() -> Result<Account, String> + Send>,
    /// Prints what becomes of it.
    pub reporter: Reporter,
    /// Its line on a terminal.
    pub progress: Progress,
}

/// How an account's loop stands, for systemd.
#[derive(Clone)]
struct Standing(Arc<Mutex<State>>);

struct State {
    text: String,
    /// When it was last seen to work, and whether it is in a round, which may take its time.
    ticked: Instant,
    is_in_round: bool,
    has_had_round: bool,
    has_ended: bool,
    changed: Bell,
}

impl Standing {
    fn new(changed: &Bell) -> Standing {
        Standing(Arc::new(Mutex::new(State {
            text: String::new(),
            ticked: Instant::now(),
            is_in_round: false,
            has_had_round: false,
            has_ended: false,
            changed: changed.clone(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop works.
    fn tick(&self) {
        self.lock().ticked = Instant::now();
    }

    /// A round begins.
    fn begin_round(&self) {
        let mut state = self.lock();
        (state.is_in_round, state.ticked) = (true, Instant::now());
    }

    /// A round has ended, however.
    fn end_round(&self) {
        let mut state = self.lock();
        (state.is_in_round, state.ticked) = (false, Instant::now());
        if !std::mem::replace(&mut state.has_had_round, true) {
            state.changed.ring();
        }
    }

    /// Whether it has not been seen to work for too long.
    fn hangs(&self) -> bool {
        let state = self.lock();
        let limit = if state.is_in_round {
            ROUND_MAX
        } else {
            REST_MAX
        };
        !state.has_ended && state.ticked.elapsed() > limit
    }

    /// In words.
    fn say(&self, name: &str, text: String) {
        let mut state = self.lock();
        state.text = format!("{name}: {text}");
        state.changed.ring();
    }

    fn end(&self) {
        let mut state = self.lock();
        (state.has_ended, state.has_had_round) = (true, true);
        state.changed.ring();
    }
}

/// Watches accounts until it is asked to end; one that fails does not stop the others.
///
/// # Errors
/// When signals cannot be listened for.
pub fn watch(accounts: Vec<ToWatch>, stop: &Stop) -> io::Result<ExitCode> {
    let calls = Calls::default();
    let mut signals = Signals::new([SIGUSR1])?;
    let called = calls.clone();
    thread::spawn(move || {
        for _ in signals.forever() {
            called.try_again();
        }
    });
    machine::listen(calls.clone());
    let changed = Bell::default();
    let mut standings = Vec::new();
    let mut threads = Vec::new();
    for one in accounts {
        let standing = Standing::new(&changed);
        standings.push(standing.clone());
        let setup = Setup {
            account: one.account,
            reload: one.reload as Reload,
            reporter: one.reporter,
            progress: one.progress,
            stop: stop.clone(),
            ear: calls.listen(),
            standing: standing.clone(),
        };
        threads.push(thread::spawn(move || {
            let _end = AtEnd(standing);
            Watched::new(setup).run()
        }));
    }
    Service::from_env().run(&standings, &changed);
    let codes = threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or(ExitCode::Error));
    Ok(codes.fold(ExitCode::InSync, ExitCode::worst))
}

/// Says that a loop has ended, also where it panicked.
struct AtEnd(Standing);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// For how long a loop that sleeps may not be seen to work, and one that is in a round: hashing a tree takes as long as it takes.
const REST_MAX: Duration = Duration::from_secs(180);
const ROUND_MAX: Duration = Duration::from_secs(12 * 3600);
