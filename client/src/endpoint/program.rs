//! A program of this machine that runs beside us: its end is reported to the waiting thread, and it can be ended.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

/// A program that was started.
#[derive(Clone)]
pub(crate) struct Program {
    pid: Pid,
    /// Held while it is reaped and while it is signalled, so that no other process is who got its number.
    child: Arc<Mutex<Child>>,
}

impl Program {
    /// Takes a child over; a thread waits for its end and reports it.
    pub(crate) fn watch(
        child: Child,
        ended: impl FnOnce(io::Result<ExitStatus>) + Send + 'static,
    ) -> Program {
        let raw = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = raw.expect("process ids are positive and fit");
        let child = Arc::new(Mutex::new(child));
        let watched = Arc::clone(&child);
        std::thread::spawn(move || {
            let end = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while waitid(WaitId::Pid(pid), end).is_err_and(|error| error == rustix::io::Errno::INTR)
            {
            }
            let mut child = watched.lock().unwrap_or_else(PoisonError::into_inner);
            let status = child.wait();
            drop(child);
            ended(status);
        });
        Program { pid, child }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.while_there(|pid| kill_process(pid, Signal::TERM));
    }

    /// Ends it, whatever it is at.
    pub(crate) fn kill(&self) {
        self.while_there(|pid| kill_process(pid, Signal::KILL));
    }

    /// Ends it and whatever it started; it must have been started in a process group of its own.
    pub(crate) fn kill_group(&self) {
        self.while_there(|pid| kill_process_group(pid, Signal::KILL));
    }

    fn while_there(&self, signal: impl FnOnce(Pid) -> rustix::io::Result<()>) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(child.try_wait(), Ok(None)) {
            let _ = signal(self.pid); // It may have become another user's.
        }
    }
}

/// Runs a program that needs no person, and collects what it prints; `None` where it does not end in time.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn output(command: &mut Command, limit: Duration) -> io::Result<Option<Output>> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let (ended, end) = channel();
    let program = Program::watch(child, move |status| drop(ended.send(status)));
    let until = Instant::now() + limit;
    let left = || until.saturating_duration_since(Instant::now());
    let Ok(status) = end.recv_timeout(limit) else {
        program.kill_group();
        return Ok(None);
    };
    let output = stdout.recv_timeout(left()).ok();
    let output = output.zip(stderr.recv_timeout(left()).ok());
    let status = status?;
    Ok(output.map(|(stdout, stderr)| Output {
        status,
        stdout,
        stderr,
    }))
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stream.map(|mut stream| stream.read_to_end(&mut bytes));
        sender.send(bytes).ok().zip(read)
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn shell(script: &str) -> (Program, std::sync::mpsc::Receiver<ExitStatus>) {
        let (ended, end) = channel();
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        let child = command.spawn().expect("sh is there");
        let program = Program::watch(child, move |status| {
            ended.send(status.expect("it is ours")).expect("we wait");
        });
        (program, end)
    }

    #[test]
    fn the_end_is_told_and_after_it_nobody_is_signalled() {
        let (program, end) = shell("exit 7");
        assert_eq!(end.recv().expect("it ends").code(), Some(7));
        program.kill_group();
        program.terminate();
    }

    #[test]
    fn what_is_printed_is_had_unless_it_takes_too_long() {
        let run = |script, limit| output(Command::new("sh").args(["-c", script]), limit);
        let minute = Duration::from_secs(60);
        let done = run("echo out; echo err >&2; exit 3", minute);
        let done = done.expect("sh is there").expect("it ends");
        assert_eq!(done.status.code(), Some(3));
        assert_eq!(
            (&*done.stdout, &*done.stderr),
            (&b"out\n"[..], &b"err\n"[..])
        );
        let late = run("exec sleep 600", Duration::from_millis(20));
        assert!(late.expect("sh is there").is_none());
    }

    #[test]
    fn what_does_not_end_is_ended_with_what_it_started() {
        let (program, end) = shell("trap '' TERM; sleep 600 & wait");
        program.kill_group();
        assert_eq!(end.recv().expect("it ends").signal(), Some(9));
    }
}
