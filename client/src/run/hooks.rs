//! Runs the user's own command after a run that changed something here, once no lock is held any more.
//!
//! The command is the user's text and goes to `sh -c`; the paths are other people's and go to its stdin, never onto
//! a command line (a folder called `$(reboot)` is just a folder). What a hook is to get is stored before it begins, and
//! forgotten when it has succeeded: one that fails, or is cut off, gets the same after the next run, and more.

use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use maildir::Lock;
use protocol::Tag;

use crate::config::Account;
use crate::endpoint::program::Program;
use crate::endpoint::stop::Stop;
use crate::report::{Summary, Tally};

mod kept;
pub use kept::waiting;
use kept::{Kept, News};

/// The variable that names the run a hook is for.
const RUN: &str = "MAILDIR_SYNC_RUN";

/// A run's `hooks.post`.
pub struct Hook<'a> {
    account: &'a Account,
    news: News,
    run: Tag,
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

impl<'a> Hook<'a> {
    /// Has nothing to report yet.
    #[must_use]
    pub fn new(account: &'a Account) -> Hook<'a> {
        Hook {
            account,
            news: News::default(),
            run: Tag([0; 8]),
        }
    }

    /// Adds what a run changed here.
    pub fn add(&mut self, changed: Vec<PathBuf>, tally: &Tally, run: Tag) {
        let others = tally.flags + tally.moved + tally.copied + tally.replaced;
        self.news = News::new(changed, [tally.new, others, tally.deleted]);
        self.run = run;
    }

    /// Runs the hook, if the account has one and there is something to report; one at a time.
    ///
    /// # Errors
    /// When it fails, one sentence for a warning, no reason for the run to fail; it is run again after the next one.
    pub fn run(self, summary: &Summary, stop: &Stop) -> Result<(), String> {
        let account = self.account;
        let Some(command) = account.post_hook.as_deref().filter(|_| !account.dry_run) else {
            return Ok(());
        };
        let kept = Kept::of(account);
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            format!("Cannot {what} for hooks.post: {error}")
        };
        kept.add(&self.news)
            .map_err(|error| failed("keep what changed", &error))?;
        if !kept.is_any() {
            return Ok(());
        }
        if stop.is_requested() {
            return Err("hooks.post is run after the next run".to_owned());
        }
        if std::env::var_os(RUN).is_some() {
            return Ok(()); // A hook runs us, and hooks run one at a time: the next run that is not a hook's runs it.
        }
        let busy = "another hook is still running";
        let lock = account.state_dir.join("hooks.lock");
        let patience = if self.news.is_empty() {
            Duration::ZERO
        } else {
            account.hook_timeout
        };
        let _lock = match Lock::take(&lock, patience, busy) {
            Err(maildir::Error::Busy(_)) if self.news.is_empty() => return Ok(()),
            locked => locked.map_err(|error| failed("wait", &error))?,
        };
        let news = kept
            .read()
            .map_err(|error| failed("read what changed", &error))?;
        if news.is_empty() {
            return Ok(()); // Another run's hook got it.
        }
        let environment = environment(account, self.run, &news, summary);
        let result = run_post(
            command,
            &news.paths,
            &environment,
            account.hook_timeout,
            stop,
        );
        kept.settle(&news, &result)
            .map_err(|error| failed("remember", &error))?;
        result
    }
}

fn environment(account: &Account, run: Tag, news: &News, summary: &Summary) -> Environment {
    let values = [
        account.name.clone(),
        protocol::bytes::hex(&run.0),
        news.new.to_string(),
        news.changed.to_string(),
        news.deleted.to_string(),
        summary.exit.number().to_string(),
    ];
    VARIABLES.into_iter().zip(values).collect()
}

/// Why waiting for a hook ends.
enum Event {
    Ended(std::io::Result<ExitStatus>),
    Stopped,
}

/// Runs `sh -c COMMAND` with the changed paths on its stdin, each ended by NUL, and waits for it, but no longer than that.
///
/// What it prints goes to stderr, because stdout is for the summary. It need not read its stdin. It has a process group of
/// its own, which is killed with it.
fn run_post(
    command: &str,
    changed: &[PathBuf],
    environment: &Environment,
    limit: Duration,
    stop: &Stop,
) -> Result<(), String> {
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
        .map_err(|error| format!("Cannot start sh for hooks.post: {error}"))?;
    write_paths(child.stdin.take(), changed);
    let (sender, event) = channel();
    let stopped = sender.clone();
    let hook = Program::watch(child, move |status| drop(sender.send(Event::Ended(status))));
    stop.on_request(move || drop(stopped.send(Event::Stopped)));
    let why = match event.recv_timeout(limit) {
        Ok(Event::Ended(Ok(status))) if status.success() => return Ok(()),
        Ok(Event::Ended(Ok(status))) => return Err(ended(status)),
        Ok(Event::Ended(Err(error))) => return Err(format!("Cannot wait for hooks.post: {error}")),
        Ok(Event::Stopped) | Err(RecvTimeoutError::Disconnected) => {
            "hooks.post was interrupted".to_owned()
        }
        Err(RecvTimeoutError::Timeout) => format!(
            "hooks.post took over {} s and was killed; raise hooks.timeout if it needs more",
            limit.as_secs()
        ),
    };
    hook.kill_group();
    Err(why)
}

/// Writes the paths on a thread of its own: a command that does not want to know them closes its stdin, ends, or just leaves
/// them there.
fn write_paths(stdin: Option<ChildStdin>, changed: &[PathBuf]) {
    let bytes = kept::joined(changed);
    std::thread::spawn(move || {
        if let Some(Err(error)) = stdin.map(|mut stdin| stdin.write_all(&bytes)) {
            tracing::debug!("hooks.post does not read what changed: {error}");
        }
    });
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(127), _) => {
            "hooks.post failed with status 127: a command in it was not found".to_owned()
        }
        (Some(code), _) => format!("hooks.post failed with status {code}"),
        (None, signal) => format!(
            "hooks.post was killed by signal {}",
            signal.unwrap_or_default()
        ),
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn run_post(command: &str, changed: &[PathBuf]) -> Result<(), String> {
        let limit = Duration::from_secs(60);
        super::run_post(command, changed, &Vec::new(), limit, &Stop::default())
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
        let result = super::run_post(&command, &many, &Vec::new(), limit, &Stop::default());
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
        let result = super::run_post("sleep 600", &[], &Vec::new(), limit, &stop);
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
