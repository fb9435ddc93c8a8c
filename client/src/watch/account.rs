//! One account that is watched: rounds while it is connected, and the way back where it is not.

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::time::{Duration, Instant};

use maildir::watch::{Changed, Debounce, Mode, Options, Watcher};
use protocol::bytes::escape;

use super::Standing;
use super::alive::{Alive, Due};
use super::backoff::Backoff;
use super::calls::Ear;
use super::metered::Network;
use crate::archive::now_secs;
use crate::config::Account;
use crate::config::file::Metered;
use crate::endpoint::stop::Stop;
use crate::merge::plan::Direction;
use crate::merge::record::Side;
use crate::report::exit_code::ExitCode;
use crate::report::figures::duration_text;
use crate::report::progress::{Phase, Progress};
use crate::report::waiting::Waiting;
use crate::report::{Detail, Reporter, Summary};
use crate::run::kept::Kept;
use crate::run::pause::{self, Paused};
use crate::run::round;
use crate::run::watching::{self, Record};

/// How often everything is looked at, whatever was reported.
const WHOLE: Duration = Duration::from_secs(3600);
/// How long what waits for something that may pass is left alone at least.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a round waits that something wants none of.
const PUT_OFF: Duration = Duration::from_secs(15);
/// How often a failure that no further try mends is looked at again: whether the configuration is another one.
const LASTING: Duration = Duration::from_secs(30);
/// For how long at most it sleeps, so that it can be seen that it works.
const TICK: Duration = Duration::from_secs(60);

/// How large a body may be where the network is metered and only small ones move.
const SMALL: u64 = 64 << 10;
const METERED_PAUSE: &str = "the network is metered, so nothing moves";
const METERED_SMALL: &str = "the network is metered, so bodies over 64 KiB wait";

/// Gives the account as the configuration has it now.
pub(super) type Reload = Box<dyn Fn() -> Result<Account, String> + Send>;

/// What an account's loop is given.
pub(super) struct Setup {
    pub(super) account: Account,
    pub(super) reload: Reload,
    pub(super) reporter: Reporter,
    pub(super) progress: Progress,
    pub(super) stop: Stop,
    pub(super) ear: Ear,
    pub(super) standing: Standing,
}

/// Why it stands still.
enum Held {
    Paused(Paused),
    Metered,
}

impl Held {
    fn sentence(&self) -> String {
        match self {
            Held::Paused(paused) => paused.sentence(),
            Held::Metered => {
                "The network is metered, so nothing moves (metered = \"pause\") until it is another one; \
                 `maildir-sync sync` does not mind"
                    .to_owned()
            }
        }
    }
}

/// Why sleeping ended.
enum Woken {
    /// Something is to be compared.
    Round,
    /// The connection is gone: why, in a sentence.
    Lost(String),
    /// We are asked to end.
    Stopped,
}

pub(super) struct Watched {
    setup: Setup,
    detail: Detail,
    kept: Kept,
    watcher: Option<Watcher>,
    debounce: Debounce,
    backoff: Backoff,
    /// When what waits is tried again, and how often that was in vain.
    again_at: Option<Instant>,
    again: Backoff,
    network: Network,
    whole_at: Instant,
    /// Until when no round begins: something wants none now.
    not_before: Instant,
    record: Record,
    /// What was said of a series of failures.
    said: Option<String>,
    /// Of which side it was said that it is not watched.
    said_polling: [bool; 2],
}

impl Watched {
    pub(super) fn new(setup: Setup) -> Watched {
        let kept = Kept {
            bell: setup.ear.bell().clone(),
            ..Kept::default()
        };
        Watched {
            detail: setup.reporter.detail(),
            kept,
            watcher: None,
            debounce: Debounce::new(),
            backoff: Backoff::default(),
            again_at: None,
            again: Backoff::default(),
            network: Network::default(),
            whole_at: Instant::now(),
            not_before: Instant::now(),
            record: Record {
                pid: std::process::id(),
                since: now_secs(),
                ..Record::default()
            },
            said: None,
            said_polling: [false; 2],
            setup,
        }
    }

    /// Watches until it is asked to end.
    pub(super) fn run(mut self) -> ExitCode {
        let _lock = match watching::lock(&self.setup.account) {
            Ok(lock) => lock,
            Err(error) => {
                self.say(&error.to_string());
                return ExitCode::Temporary;
            }
        };
        let bell = self.kept.bell.clone();
        let _call = self.setup.stop.on_request(move || bell.ring());
        self.kept.whole = true;
        while !self.is_stopped() {
            self.look_at_network(self.kept.resting.is_none());
            if self.held().is_some() {
                self.stand_still();
                continue;
            }
            self.watch_tree();
            self.setup.standing.begin_round();
            let summary = self.round();
            self.setup.standing.end_round();
            let woken = match (&self.kept.resting, summary) {
                (Some(_), _) => self.rest(),
                (None, Some(summary)) => {
                    self.retry(&summary);
                    continue;
                }
                (None, None) => continue,
            };
            match woken {
                Woken::Round | Woken::Stopped => {}
                Woken::Lost(why) => {
                    self.disconnected();
                    self.say(&why);
                    self.said = Some(why);
                    self.kept.whole = true;
                }
            }
        }
        drop(self.kept.resting.take());
        watching::forget(&self.setup.account);
        ExitCode::InSync
    }

    fn is_stopped(&self) -> bool {
        self.setup.stop.is_requested()
    }

    /// Sees to it that the tree here is watched, before it is looked at.
    fn watch_tree(&mut self) {
        let account = &self.setup.account;
        if self.watcher.is_none() {
            let bell = self.kept.bell.clone();
            let wake = Box::new(move || bell.ring());
            let options = Options {
                follow_links: account.follow_links,
                ..Options::default()
            };
            self.watcher = Some(Watcher::new(account.local.clone(), options, wake));
        }
    }

    /// Tries once more to watch a tree that is not: the first round may have made the root, and limits may be others by now.
    fn watch_again(&mut self) {
        if let Some(watcher) = &mut self.watcher
            && *watcher.mode() != Mode::Events
        {
            watcher.renew();
            self.debounce.event(Instant::now());
        }
    }

    /// An ordinary run, over the connection that is kept.
    fn round(&mut self) -> Option<Summary> {
        let is_first = self.kept.resting.is_none();
        let resting = self.kept.resting.as_ref();
        let is_ours = !self.kept.whole && resting.is_some_and(|resting| !resting.has_begun());
        if self.kept.whole || is_first {
            self.whole_at = Instant::now() + WHOLE;
            self.watch_again();
            // The first round may make the root.
            if !is_first {
                self.show_polling_here();
            }
        }
        self.take_events();
        if let Some(watcher) = &mut self.watcher {
            let written = &mut watcher.take_written(Instant::now());
            self.kept.written.append(written);
        }
        self.debounce.begin();
        let Setup {
            account,
            progress,
            stop,
            ..
        } = &self.setup;
        let kept = Some(&mut self.kept);
        let summary = round(account, Direction::Sync, progress, self.detail, stop, kept);
        let has_found = is_ours && summary.is_some();
        self.debounce.end(Instant::now(), has_found);
        let is_put_off = !is_first
            && self.kept.resting.is_some()
            && summary
                .as_ref()
                .is_some_and(|summary| summary.error.is_some());
        if is_put_off {
            // Another run holds the account, a hook wants none now, or the tree here is missing. What happened is looked at later.
            self.not_before = Instant::now() + PUT_OFF;
            self.debounce.event(Instant::now());
            if let Some(summary) = &summary {
                self.say_failure(summary);
            }
            return summary;
        }
        (self.kept.whole, self.kept.written) = (false, BTreeSet::new());
        if self.kept.resting.is_some() {
            if is_first {
                self.watch_again();
                self.show_polling_here();
                self.backoff.reset();
                self.record.connected_since = Some(now_secs());
            }
            if let Some(summary) = &summary {
                self.record.last_round = Some(now_secs());
                self.said = None;
                self.report(summary);
                self.try_again_later(summary);
            }
        }
        summary
    }

    /// What could not be done now and may be done soon is tried again, ever less often.
    fn try_again_later(&mut self, summary: &Summary) {
        let may_pass = summary.waiting().iter().any(Waiting::may_pass);
        self.again_at = may_pass.then(|| {
            let [chance] = maildir::random::<1>().unwrap_or([128]);
            Instant::now() + self.again.after_failure(chance).max(AGAIN)
        });
        if !may_pass {
            self.again.reset();
        }
    }

    /// Says what a round moved, or that it failed.
    fn report(&self, summary: &Summary) {
        if summary.has_news() {
            // Whether a terminal takes it is no reason to stop.
            let _ = self.setup.reporter.summary(summary);
        }
    }

    fn say(&self, sentence: &str) {
        let name = &self.setup.account.name;
        self.setup.reporter.error(Some(name), sentence);
    }

    /// Says what failed, once for as long as it is the same.
    fn say_failure(&mut self, summary: &Summary) {
        let sentence = summary.error.clone().unwrap_or_default();
        // What was asked for is no failure.
        if !self.is_stopped() && self.said.as_ref() != Some(&sentence) {
            let _ = self.setup.reporter.summary(summary);
            self.said = Some(sentence);
        }
    }

    /// Takes in what happened here; whether anything did.
    fn take_events(&mut self) -> bool {
        let watcher = self.watcher.as_mut();
        let happened = watcher.is_some_and(|watcher| watcher.take() != Changed::Nothing);
        if happened {
            self.debounce.event(Instant::now());
            self.record.last_event = Some(now_secs());
        }
        happened
    }

    /// When there is to be a round in any case, and when to look whether one is due.
    fn due(&self) -> (Instant, Option<Instant>) {
        let whole_at = self
            .again_at
            .map_or(self.whole_at, |at| at.min(self.whole_at));
        let written_due = self.watcher.as_ref().and_then(Watcher::written_due);
        let look_at = self.debounce.due().into_iter().chain(written_due).min();
        let free = |at: Instant| at.max(self.not_before);
        (free(whole_at), look_at.map(free))
    }

    /// Sleeps, holding nothing, until there is something to do.
    fn rest(&mut self) -> Woken {
        let received = self
            .kept
            .resting
            .as_ref()
            .map_or(0, |resting| resting.received());
        let mut alive = Alive::new(self.setup.account.timeout, received, Instant::now());
        self.show();
        loop {
            let count = self.kept.bell.count();
            self.setup.standing.tick();
            if self.is_stopped() {
                return Woken::Stopped;
            }
            let mut was_called = self.setup.ear.take_again();
            was_called |= self.look_at_network(was_called);
            if was_called {
                self.not_before = Instant::now();
            }
            if self.is_held_by_network() {
                return Woken::Round;
            }
            if self.setup.ear.take_doubt() {
                // First it must be known whether the connection is of any use.
                alive.doubt();
                was_called = false;
            }
            let Some(resting) = &mut self.kept.resting else {
                return Woken::Round;
            };
            if let Err(error) = resting.hear() {
                return Woken::Lost(error.to_string());
            }
            let now = Instant::now();
            let is_free = now >= self.not_before;
            if resting.has_begun() && is_free {
                return Woken::Round;
            }
            let until = match alive.look(resting.received(), now) {
                Due::Nothing(until) => until,
                // It waits for us.
                Due::Ask | Due::Gone | Due::Proven if resting.has_begun() => self.not_before,
                Due::Ask => {
                    resting.ping();
                    now
                }
                // After a sleep of the machine everything is looked at.
                Due::Proven => {
                    self.kept.whole = true;
                    return Woken::Round;
                }
                Due::Gone => {
                    let seconds = alive.silence(now).as_secs();
                    let gone = self.kept.resting.take();
                    let why = gone.map(|resting| resting.give_up(seconds).to_string());
                    return Woken::Lost(why.unwrap_or_default());
                }
            };
            let polling = resting.polling.clone();
            if self.record.polling_there != polling {
                self.say_polling(Side::Remote, polling.as_deref().unwrap_or_default());
                self.record.polling_there = polling;
                self.show();
            }
            if self.take_events() {
                self.show_polling_here();
            }
            let (whole_at, look_at) = self.due();
            if (now >= whole_at || was_called) && is_free {
                self.kept.whole = true;
                return Woken::Round;
            }
            if look_at.is_some_and(|due| due <= now) {
                return Woken::Round;
            }
            let until = until.min(whole_at).min(now + TICK);
            let until = look_at.map_or(until, |due| due.min(until));
            self.kept.bell.wait(count, until);
        }
    }

    /// Waits until it is worth trying again after a failure, which is said once.
    fn retry(&mut self, summary: &Summary) {
        self.disconnected();
        if self.is_stopped() {
            return;
        }
        self.say_failure(summary);
        self.kept.whole = true;
        self.show();
        let [chance] = maildir::random::<1>().unwrap_or([128]);
        let wait = match summary.is_lasting {
            true => None,
            false if summary.is_not_now => Some(Instant::now() + PUT_OFF),
            // A disk that is put back costs nobody anything to look for.
            false if summary.exit == ExitCode::Unsafe => Some(Instant::now() + LASTING),
            false => Some(Instant::now() + self.backoff.after_failure(chance)),
        };
        loop {
            let count = self.kept.bell.count();
            self.setup.standing.tick();
            let now = Instant::now();
            self.setup.ear.take_doubt();
            if self.setup.ear.take_again() {
                self.backoff.reset();
                return self.reload();
            }
            if self.is_stopped() {
                return;
            }
            match wait {
                Some(wait) if now >= wait => return self.reload(),
                None if self.reload_changed() => return,
                Some(_) | None => {}
            }
            let until = wait.unwrap_or(now + LASTING).min(now + TICK);
            self.kept.bell.wait(count, until);
        }
    }

    /// Takes the account as the configuration has it now; what is wrong with that is said, and the old one stands.
    fn reload(&mut self) {
        self.reload_changed();
    }

    /// The same; whether it is another one.
    fn reload_changed(&mut self) -> bool {
        match (self.setup.reload)() {
            Ok(account) if account == self.setup.account => false,
            Ok(account) => {
                if account.local != self.setup.account.local {
                    self.watcher = None;
                }
                self.setup.account = account;
                true
            }
            Err(why) => {
                if self.said.as_ref() != Some(&why) {
                    self.say(&why);
                    self.said = Some(why);
                }
                false
            }
        }
    }

    /// Asks whether the network is metered, where that matters: because it may be another one, or now and then. Says whether it is not
    /// any more, so that what waited for that goes.
    fn look_at_network(&mut self, is_another: bool) -> bool {
        let now = Instant::now();
        let was_metered = self.network.is_metered();
        let every = if is_another { Duration::ZERO } else { TICK };
        let setting = self.setup.account.metered;
        match setting {
            Metered::Ignore => self.network.forget(),
            Metered::Pause | Metered::Small => self.network.look(now, every),
        }
        let is_metered = self.network.is_metered();
        let words = match setting {
            Metered::Pause if is_metered => METERED_PAUSE,
            Metered::Small if is_metered => METERED_SMALL,
            Metered::Pause | Metered::Small | Metered::Ignore => "",
        };
        self.kept.body_max = (words == METERED_SMALL).then_some(SMALL);
        if self.record.metered != words {
            words.clone_into(&mut self.record.metered);
            self.show();
        }
        let is_over = was_metered && !is_metered;
        self.kept.whole |= is_over;
        is_over
    }

    fn is_held_by_network(&self) -> bool {
        self.setup.account.metered == Metered::Pause && self.network.is_metered()
    }

    /// Why it is to stand still, if it is.
    fn held(&self) -> Option<Held> {
        match pause::current(&self.setup.account.state_dir) {
            Some(paused) => Some(Held::Paused(paused)),
            None => self.is_held_by_network().then_some(Held::Metered),
        }
    }

    /// Stands still, without a connection, for as long as something holds it. Its beginning is said once.
    fn stand_still(&mut self) {
        self.kept.resting = None;
        self.record.connected_since = None;
        self.kept.whole = true;
        let mut said = None;
        while !self.is_stopped() {
            let count = self.kept.bell.count();
            let is_called = self.setup.ear.take_again();
            self.look_at_network(is_called);
            let Some(held) = self.held() else {
                break;
            };
            self.said = Some(held.sentence());
            self.setup.standing.tick();
            self.show();
            if said.replace(discriminant(&held)) != Some(discriminant(&held)) {
                self.say(&held.sentence());
            }
            let until = match held {
                Held::Paused(paused) => paused.until,
                Held::Metered => None,
            };
            let left = until.map(|until| until.saturating_sub(now_secs()).max(1));
            let left = left.map_or(TICK, |left| TICK.min(Duration::from_secs(left)));
            self.kept.bell.wait(count, Instant::now() + left);
        }
        self.said = None;
    }

    fn disconnected(&mut self) {
        self.kept.resting = None;
        if self.record.connected_since.take().is_some() {
            self.record.reconnected();
        }
        self.record.polling_there = None;
        self.show();
    }

    /// Says why a side is looked at now and then instead of being watched: once, since the reason may go and come with every folder.
    /// `status` has it as it is.
    fn say_polling(&mut self, side: Side, polling: &str) {
        if !polling.is_empty() && !std::mem::replace(&mut self.said_polling[side as usize], true) {
            let side = side.word();
            self.say(&format!(
                "What changes {side} is found within 30 s: {polling}"
            ));
        }
    }

    fn show_polling_here(&mut self) {
        let mode = self.watcher.as_ref().map(Watcher::mode);
        let why = match mode {
            Some(Mode::Polling { why }) => why.clone(),
            Some(Mode::Events) | None => String::new(),
        };
        if why != self.record.polling_here {
            self.say_polling(Side::Local, &why);
            self.record.polling_here = why;
            self.show();
        }
    }

    /// Shows how it stands: for `status`, for systemd, and on a terminal.
    fn show(&mut self) {
        let Setup {
            account,
            progress,
            standing,
            ..
        } = &self.setup;
        if let Err(error) = self.record.store(account) {
            tracing::debug!("Cannot remember how the watch stands: {error}"); // It costs `status` an answer.
        }
        let text = match (&self.record.connected_since, &self.said) {
            (Some(since), _) => {
                let seconds = now_secs().saturating_sub(*since);
                format!("connected for {}", duration_text(seconds as f64))
            }
            (None, Some(why)) => escape(why.as_bytes()),
            (None, None) => "connecting".to_owned(),
        };
        standing.say(&account.name, text);
        let phase = match self.record.connected_since {
            Some(_) => Phase::Watching,
            None => Phase::Unconnected,
        };
        progress.begin(phase, 0, 0);
    }
}
