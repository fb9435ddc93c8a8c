//! Runs the user's own commands: `pre` before a run, while no lock is held; after it, once none is held any more, those for what
//! happened ([`Event`]).
//!
//! A command is the user's text and goes to `sh -c`; the paths are other people's and go to its stdin, never onto
//! a command line (a folder called `$(reboot)` is just a folder). What a hook is to get is stored before it begins, and
//! forgotten when it has succeeded: one that fails, or is cut off, gets the same after the next run, and more.

use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use maildir::{Lock, Replica, private};
use protocol::Tag;
use protocol::message::At;

use crate::config::Account;
use crate::config::file::Format;
use crate::endpoint::program::Program;
use crate::endpoint::stop::Stop;
use crate::report::{Summary, Tally};
use crate::run::attempt::{FAILED, RECOVERED};
use crate::run::session::keeps_state_inside;

mod kept;
mod notice;
use kept::Kept;
pub use kept::Told;
pub use notice::Notice;

/// The variable that names the run a hook is for.
const RUN: &str = "MAILDIR_SYNC_RUN";
/// What `pre` ends with where there shall be no run now: `EX_TEMPFAIL`.
const NOT_NOW: i32 = 75;

/// What there are hooks for after a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Something changed here.
    Post,
    /// Unseen messages are new here.
    New,
    /// Both sides had changed the same thing.
    Conflict,
    /// The first run of a series failed, or one succeeded after it.
    Failure,
}

impl Event {
    /// In the order in which their hooks are run.
    pub const ALL: [Event; 4] = [Event::Post, Event::New, Event::Conflict, Event::Failure];

    fn name(self) -> &'static str {
        match self {
            Event::Post => "post",
            Event::New => "new",
            Event::Conflict => "conflict",
            Event::Failure => "failure",
        }
    }

    /// What an account runs for it.
    #[must_use]
    pub fn command(self, account: &Account) -> Option<&str> {
        let hooks = &account.hooks;
        let command = match self {
            Event::Post => &hooks.post,
            Event::New => &hooks.new,
            Event::Conflict => &hooks.conflict,
            Event::Failure => &hooks.failure,
        };
        command.as_deref()
    }

    fn postponed(self) -> String {
        format!("hooks.{} is run after the next run", self.name())
    }

    /// One of them, in words.
    fn noun(self) -> &'static str {
        match self {
            Event::Post => "changed path",
            Event::New => "new message",
            Event::Conflict => "conflict",
            Event::Failure => "report",
        }
    }
}

/// A run's hooks.
pub struct Hooks<'a> {
    account: &'a Account,
    told: Told,
    /// Messages that are new, that are others now, and that went.
    numbers: [u64; 3],
    run: Option<Tag>,
}

/// What a hook finds in its environment.
type Environment = Vec<(&'static str, String)>;

/// The names of that, in the order of their values.
pub const VARIABLES: [&str; 6] = [
    "MAILDIR_SYNC_ACCOUNT",
    RUN,
    "MAILDIR_SYNC_NEW",
    "MAILDIR_SYNC_CHANGED",
    "MAILDIR_SYNC_DELETED",
    "MAILDIR_SYNC_EXIT",
];

/// Whether some hook of an account runs us.
fn is_in_hook() -> bool {
    std::env::var_os(RUN).is_some()
}

impl<'a> Hooks<'a> {
    /// Has nothing to report yet.
    #[must_use]
    pub fn new(account: &'a Account) -> Hooks<'a> {
        Hooks {
            account,
            told: Told::default(),
            numbers: [0; 3],
            run: None,
        }
    }

    /// Runs `pre`; what went wrong with it is one sentence for a warning.
    ///
    /// # Errors
    /// When it says that there shall be no run now, one sentence.
    pub fn before(&self, stop: &Stop) -> Result<Option<String>, String> {
        let account = self.account;
        let command = account.hooks.pre.as_deref();
        // A run that a hook begins is that hook's own affair.
        let Some(command) =
            command.filter(|_| !account.dry_run && !is_in_hook() && !keeps_state_inside(account))
        else {
            return Ok(None);
        };
        let _lock = match private::make_dirs(&account.state_dir).and_then(|()| self.lock(true)) {
            Ok(lock) => lock,
            Err(error) => return Ok(Some(format!("Cannot wait for hooks.pre: {error}"))),
        };
        let environment = self.environment([0; 3], 0);
        let limit = account.hooks.limit();
        match call("hooks.pre", command, Vec::new(), &environment, limit, stop) {
            Ok(status) if status.code() == Some(NOT_NOW) => Err(
                "hooks.pre says not now (status 75), so nothing was begun; the next run asks it again"
                    .to_owned(),
            ),
            Ok(status) => Ok(judge("hooks.pre", status).err()),
            Err(why) => Ok(Some(why)),
        }
    }

    /// Takes in what a run did here so far.
    pub fn add(&mut self, told: &mut Told, tally: &Tally, run: Tag) {
        let others = tally.flags + tally.moved + tally.copied + tally.replaced;
        self.told.append(told);
        self.numbers = [tally.new, others, tally.deleted];
        self.run = Some(run);
    }

    /// Takes in that a series of failures began, or ended.
    pub fn add_turn(&mut self, operation: &'static str) {
        let notice = Notice::new(operation, "", &self.account.local);
        self.told.add(self.account, Event::Failure, &notice);
    }

    /// Runs the hooks for which there is something to report, one at a time. Returns what went wrong, one sentence for a warning
    /// each, and no reason for the run to fail; what a hook did not get it gets after the next run.
    #[must_use]
    pub fn run(self, summary: &Summary, stop: &Stop) -> Vec<String> {
        if self.account.dry_run {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        let mut due = Vec::new();
        let mut is_new = false;
        for event in Event::ALL {
            let Some(command) = event.command(self.account) else {
                continue;
            };
            let kept = Kept::of(self.account, event);
            is_new |= self.told.has(event);
            if let Err(error) = kept.add(&self.told, event, self.numbers) {
                warnings.push(failed("keep what changed", event, &error));
            } else if kept.is_any() {
                due.push((event, command, kept));
            }
        }
        if stop.is_requested() {
            warnings.extend(due.iter().map(|(event, ..)| event.postponed()));
            return warnings;
        }
        if due.is_empty() || is_in_hook() {
            return warnings; // A hook runs us, and hooks run one at a time: the next run that is not a hook's runs them.
        }
        let _lock = match self.lock(is_new) {
            Err(maildir::Error::Busy(_)) if !is_new => return warnings,
            Err(error) => {
                warnings.extend(due.iter().map(|(event, ..)| failed("wait", *event, &error)));
                return warnings;
            }
            Ok(lock) => lock,
        };
        for (event, command, kept) in due {
            let exit = summary.exit.number();
            warnings.extend(self.tell(event, command, &kept, exit, stop).err());
        }
        warnings
    }

    fn lock(&self, waits: bool) -> maildir::Result<Lock> {
        let path = self.account.state_dir.join("hooks.lock");
        let patience = match waits {
            true => self.account.hooks.limit(),
            false => Duration::ZERO,
        };
        Lock::take(&path, patience, "another hook is still running")
    }

    fn tell(
        &self,
        event: Event,
        command: &str,
        kept: &Kept,
        exit: u8,
        stop: &Stop,
    ) -> Result<(), String> {
        let hook = format!("hooks.{}", event.name());
        if stop.is_requested() {
            return Err(event.postponed());
        }
        let stored = kept.read();
        let stored = stored.map_err(|error| failed("read what changed", event, &error))?;
        let mut told = notice::each(&stored).map(|notice| notice.operation());
        let Some(first) = told.next() else {
            return Ok(()); // Another run's hook got it.
        };
        let turns = match event {
            Event::Failure => [Some(first), told.last()],
            Event::Post | Event::New | Event::Conflict => [None; 2],
        };
        if turns == [FAILED, RECOVERED].map(|turn| Some(turn.as_bytes())) && kept.why().is_empty() {
            // It was over before the hook could be told, as where a person interrupted a run.
            let settled = kept.settle(&stored, &Ok(()));
            return settled.map_err(|error| failed("remember", event, &error));
        }
        let hooks = &self.account.hooks;
        let input = notice::written(notice::each(&stored), hooks.format);
        let environment = self.environment(notice::numbers(&stored), exit);
        let called = call(&hook, command, input, &environment, hooks.limit(), stop);
        let result = called.and_then(|status| judge(&hook, status));
        let settled = kept.settle(&stored, &result);
        settled.map_err(|error| failed("remember", event, &error))?;
        result
    }

    fn environment(&self, [new, changed, deleted]: [u64; 3], exit: u8) -> Environment {
        let run = self.run.map(|run| protocol::bytes::hex(&run.0));
        let values = [
            self.account.name.clone(),
            run.unwrap_or_default(),
            new.to_string(),
            changed.to_string(),
            deleted.to_string(),
            exit.to_string(),
        ];
        VARIABLES.into_iter().zip(values).collect()
    }
}

/// What an account's hooks have not got with success, a sentence each: how much, and why.
#[must_use]
pub fn waiting(account: &Account) -> Vec<String> {
    let wanted = Event::ALL.into_iter();
    let wanted = wanted.filter(|event| event.command(account).is_some());
    let sentence = |event: Event| {
        let kept = Kept::of(account, event);
        let stored = kept.read().ok()?;
        let count = match event {
            // As people have it in their hook: a renamed folder is two paths.
            Event::Post => {
                let paths = notice::written(notice::each(&stored), Format::Paths);
                paths.iter().filter(|&&byte| byte == 0).count()
            }
            Event::New | Event::Conflict | Event::Failure => notice::each(&stored).count(),
        };
        let why = match kept.why() {
            why if why.is_empty() => format!("hooks.{} was not run", event.name()),
            why => why,
        };
        let noun = event.noun();
        let what = match count {
            0 => return None,
            1 => format!("1 {noun}"),
            count => format!("{count} {noun}s"),
        };
        Some(format!(
            "{why}; it is run again after the next run, with {what}"
        ))
    };
    wanted.filter_map(sentence).collect()
}

/// Whether hooks are told of what happens to messages and folders here.
#[must_use]
pub fn are_told(account: &Account) -> bool {
    account.hooks.post.is_some() || account.hooks.new.is_some()
}

/// Whether they are told under which path a message was before.
#[must_use]
pub fn are_told_before(account: &Account) -> bool {
    account.hooks.post.is_some() && account.hooks.format != Format::Paths
}

/// The paths of the files that are or last were at places.
///
/// # Errors
/// When the index cannot be asked.
pub fn paths(local: &Replica, places: &[&At]) -> maildir::Result<Vec<Option<PathBuf>>> {
    let known = local.file_paths(places)?;
    if known.len() == places.len() {
        return Ok(known.into_iter().map(Some).collect());
    }
    places.iter().map(|at| local.file_path(at)).collect()
}

fn failed(what: &str, event: Event, error: &dyn std::fmt::Display) -> String {
    format!("Cannot {what} for hooks.{}: {error}", event.name())
}

/// Why waiting for a hook ends.
enum Waited {
    Ended(std::io::Result<ExitStatus>),
    Stopped,
}

/// Runs `sh -c COMMAND` with this on its stdin, and waits for it, but no longer than that.
///
/// What it prints goes to stderr, because stdout is for the summary. It need not read its stdin. It has a process group of
/// its own, which is killed with it.
fn call(
    hook: &str,
    command: &str,
    input: Vec<u8>,
    environment: &Environment,
    limit: Duration,
    stop: &Stop,
) -> Result<ExitStatus, String> {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(command)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(std::io::stderr())
        .process_group(0);
    let mut child = shell
        .spawn()
        .map_err(|error| format!("Cannot start sh for {hook}: {error}"))?;
    write(child.stdin.take(), input);
    let (sender, waited) = channel();
    let stopped = sender.clone();
    let program = Program::watch(child, move |status| {
        drop(sender.send(Waited::Ended(status)))
    });
    let _call = stop.on_request(move || drop(stopped.send(Waited::Stopped)));
    let why = match waited.recv_timeout(limit) {
        Ok(Waited::Ended(Ok(status))) => return Ok(status),
        Ok(Waited::Ended(Err(error))) => return Err(format!("Cannot wait for {hook}: {error}")),
        Ok(Waited::Stopped) | Err(RecvTimeoutError::Disconnected) => {
            format!("{hook} was interrupted")
        }
        Err(RecvTimeoutError::Timeout) => format!(
            "{hook} took over {} s and was killed; raise hooks.timeout if it needs more",
            limit.as_secs()
        ),
    };
    program.kill_group();
    Err(why)
}

/// Writes on a thread of its own: a command that does not want to know closes its stdin, ends, or just leaves it there.
fn write(stdin: Option<ChildStdin>, input: Vec<u8>) {
    std::thread::spawn(move || {
        if let Some(Err(error)) = stdin.map(|mut stdin| stdin.write_all(&input)) {
            tracing::debug!("A hook does not read what happened: {error}");
        }
    });
}

fn judge(hook: &str, status: ExitStatus) -> Result<(), String> {
    Err(match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(127), _) => {
            format!("{hook} failed with status 127: a command in it was not found")
        }
        (Some(code), _) => format!("{hook} failed with status {code}"),
        (None, signal) => format!("{hook} was killed by signal {}", signal.unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn told(paths: &[PathBuf]) -> Vec<u8> {
        let notice = |path| Notice::new("new", "INBOX", path);
        let notices: Vec<Notice> = paths.iter().map(|path| notice(path as &Path)).collect();
        notice::written(notices.into_iter(), Format::Paths)
    }

    fn call(
        command: &str,
        changed: &[PathBuf],
        limit: Duration,
        stop: &Stop,
    ) -> Result<(), String> {
        let hook = "hooks.post";
        let called = super::call(hook, command, told(changed), &Vec::new(), limit, stop);
        called.and_then(|status| judge(hook, status))
    }

    fn run_post(command: &str, changed: &[PathBuf]) -> Result<(), String> {
        call(command, changed, Duration::from_secs(60), &Stop::default())
    }

    /// C75: nor does what it started stay.
    #[test]
    fn one_that_hangs_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lock = dir.path().join("alive");
        let command = format!(
            "exec 9>'{}'; flock 9; sleep 600 & sleep 600; true",
            lock.display()
        );
        let limit = Duration::from_millis(500);
        let many = vec![PathBuf::from("/m/cur/1"); 100_000];
        let result = call(&command, &many, limit, &Stop::default());
        let why = result.expect_err("it takes too long");
        assert!(why.contains("was killed"), "{why}");
        let file = std::fs::File::open(&lock).expect("it was made");
        let (sender, receiver) = channel();
        std::thread::spawn(move || sender.send(file.lock()));
        let locked = receiver.recv_timeout(Duration::from_secs(60));
        locked.expect("nobody holds it").expect("it can be locked");
    }

    #[test]
    fn one_that_runs_when_we_are_to_end_is_ended() {
        let stop = Stop::default();
        stop.request();
        let limit = Duration::from_secs(600);
        let result = call("sleep 600", &[], limit, &stop);
        assert_eq!(result, Err("hooks.post was interrupted".to_owned()));
    }

    #[test]
    fn paths_arrive_verbatim_and_never_on_a_command_line() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let seen = dir.path().join("seen");
        let paths = ["/m/cur/a\nb:2,S", "/m/.$(exit 9)/`x`", "/m/\u{fc}"].map(PathBuf::from);
        assert_eq!(
            run_post(&format!("cat > '{}'", seen.display()), &paths),
            Ok(())
        );
        let read = std::fs::read(&seen).expect("the hook wrote it");
        assert_eq!(
            read,
            "/m/cur/a\nb:2,S\0/m/.$(exit 9)/`x`\0/m/\u{fc}\0".as_bytes()
        );
    }

    #[test]
    fn a_hook_that_does_not_read_is_fine() {
        let many: Vec<PathBuf> = (0..50_000)
            .map(|number| PathBuf::from(format!("/m/cur/{number}")))
            .collect();
        assert_eq!(run_post("exit 0", &many), Ok(()));
        assert_eq!(run_post("exec <&-; true", &many), Ok(()));
    }

    #[test]
    fn a_failure_is_told_with_its_status() {
        assert_eq!(
            run_post("exit 3", &[]),
            Err("hooks.post failed with status 3".to_owned())
        );
        assert_eq!(
            run_post("kill -9 $$", &[]),
            Err("hooks.post was killed by signal 9".to_owned())
        );
        let missing = run_post("/no/such/command", &[]).expect_err("it is not there");
        assert_eq!(
            missing,
            "hooks.post failed with status 127: a command in it was not found"
        );
    }
}
