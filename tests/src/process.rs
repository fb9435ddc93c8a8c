//! Child processes with a deadline: a hang fails a test instead of stopping the suite.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// How long any run may take before it counts as hanging.
pub const LIMIT: Duration = Duration::from_secs(90);

/// What a finished process left behind.
#[derive(Clone)]
#[must_use]
pub struct Finished {
    /// Its exit code, none when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: String,
}

impl std::fmt::Debug for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let end = self
            .code
            .map_or(format!("signal {:?}", self.signal), |code| {
                format!("exit {code}")
            });
        write!(
            f,
            "{end}, stdout {}, stderr {}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        )
    }
}

/// A process on its way, leader of its own group.
#[derive(Debug)]
#[must_use]
pub struct Running {
    what: String,
    pid: Pid,
    limit: Duration,
    exit: Receiver<ExitStatus>,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

/// Starts a command with captured output and nothing to read.
pub fn start(command: Command, limit: Duration) -> Running {
    let (stderr, to_stderr) = std::io::pipe().expect("a pipe");
    start_with(command, limit, stderr, to_stderr)
}

/// The same, its stderr a terminal of its own.
pub fn start_on_terminal(command: Command, limit: Duration) -> Running {
    let (terminal, to_stderr) = terminal().expect("a terminal");
    start_with(command, limit, terminal, to_stderr)
}

fn start_with(
    mut command: Command,
    limit: Duration,
    stderr: impl Read + Send + 'static,
    to_stderr: impl Into<Stdio>,
) -> Running {
    let what = format!("{command:?}");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(to_stderr)
        .process_group(0);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(command); // It holds the other end of stderr.
    let stdout = read_all(child.stdout.take().expect("stdout is piped"));
    let stderr = read_all(stderr);
    Running {
        what,
        pid: pid_of(&child),
        limit,
        exit: wait_for(child),
        stdout,
        stderr,
    }
}

/// Runs a command to its end.
pub fn run(command: Command, limit: Duration) -> Finished {
    start(command, limit).wait()
}

impl Running {
    /// Waits for the end, of the process and of its output.
    ///
    /// # Panics
    /// When it hangs, or when something that it left behind keeps its output open.
    pub fn wait(self) -> Finished {
        let Ok(status) = self.exit.recv_timeout(self.limit) else {
            let _ = kill_process_group(self.pid, Signal::KILL);
            let stderr = self
                .stderr
                .recv_timeout(Duration::from_secs(2))
                .unwrap_or_default();
            panic!(
                "hangs (over {:?}): {}\n{}",
                self.limit,
                self.what,
                String::from_utf8_lossy(&stderr)
            );
        };
        let open = "something left behind keeps the output open";
        let stdout = self
            .stdout
            .recv_timeout(self.limit)
            .unwrap_or_else(|_| panic!("{open}: {}", self.what));
        let stderr = self
            .stderr
            .recv_timeout(self.limit)
            .unwrap_or_else(|_| panic!("{open}: {}", self.what));
        Finished {
            code: status.code(),
            signal: status.signal(),
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Kills the process alone, without a chance to clean up.
    pub fn kill(&self) {
        // It may have ended by itself meanwhile.
        let _ = kill_process(self.pid, Signal::KILL);
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid, signal);
    }

    /// Whether it is still there after so much time.
    #[must_use]
    pub fn goes_on_for(&self, time: Duration) -> bool {
        self.exit.recv_timeout(time).is_err()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }
}

/// The id of a child as rustix wants it.
///
/// # Panics
/// Never: ids of children are positive.
#[must_use]
pub fn pid_of(child: &Child) -> Pid {
    let raw = i32::try_from(child.id()).expect("process ids fit");
    Pid::from_raw(raw).expect("process ids are positive")
}

/// Runs a helper program that must succeed.
///
/// # Panics
/// When it does not.
pub fn must(program: &str, args: &[&std::ffi::OsStr]) {
    let mut command = Command::new(program);
    command.args(args);
    let done = run(command, LIMIT);
    assert_eq!(done.code, Some(0), "{program} {args:?}: {}", done.stderr);
}

/// A terminal: where what is drawn on it can be read, and itself.
fn terminal() -> std::io::Result<(File, File)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let theirs = File::options()
        .write(true)
        .open(OsStr::from_bytes(name.to_bytes()))?;
    Ok((ours.into(), theirs))
}

fn read_all(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        sender.send(bytes)
    });
    receiver
}

fn wait_for(mut child: Child) -> Receiver<ExitStatus> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(child.wait().expect("a child can be waited for")));
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn code_and_output_are_kept() {
        let done = run(shell("echo out; echo err >&2; exit 7"), LIMIT);
        assert_eq!(
            (done.code, &*done.stdout, &*done.stderr),
            (Some(7), &b"out\n"[..], "err\n")
        );
    }

    #[test]
    fn a_terminal_is_one() {
        let done = start_on_terminal(shell("test -t 2 && echo err >&2"), LIMIT).wait();
        assert_eq!((done.code, &*done.stderr), (Some(0), "err\r\n"));
    }

    #[test]
    #[should_panic(expected = "hangs")]
    fn a_hang_fails() {
        let _ = run(shell("exec sleep 600"), Duration::from_millis(50));
    }

    #[test]
    fn a_kill_is_a_signal() {
        let running = start(shell("exec sleep 600"), LIMIT);
        running.kill();
        assert_eq!(running.wait().signal, Some(9));
    }
}
