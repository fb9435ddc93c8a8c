//! A running `watch`, heard line by line: what it says are the events that a test waits for.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::process::pid_of;
use crate::world::{Client, Invocation};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What a service manager hears of a process that it starts (sd_notify(3)).
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    /// Listens in a directory.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn new(dir: &Path) -> Manager {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(LIMIT)).expect("a deadline");
        Manager { socket, path }
    }

    /// For the variable `NOTIFY_SOCKET`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until it hears a line that begins so; returns the rest of it.
    ///
    /// # Panics
    /// When it does not.
    pub fn hears(&self, begin: &str) -> String {
        let mut heard = [0; 4096];
        loop {
            let length = self.socket.recv(&mut heard);
            let length = length.unwrap_or_else(|error| panic!("no {begin}: {error}"));
            let text = String::from_utf8_lossy(&heard[..length]).into_owned();
            if let Some(rest) = text.lines().find_map(|line| line.strip_prefix(begin)) {
                return rest.to_owned();
            }
        }
    }
}

/// A `watch` that goes on until it is ended; killed when it is dropped.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    rounds: Receiver<String>,
    said: Receiver<String>,
    last: Vec<String>,
}

impl Watch {
    /// Watches a client's pair, and waits until the first round has ended.
    #[must_use]
    pub fn start(client: &Client) -> Watch {
        Watch::invoke(client.pair("watch"))
    }

    /// The same as it is called.
    #[must_use]
    pub fn invoke(invocation: Invocation) -> Watch {
        Watch::spawn(invocation.command())
    }

    /// The same as any command that becomes one.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(mut command: Command) -> Watch {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().expect("it starts");
        let rounds = follow(child.stdout.take().expect("stdout is piped"));
        let said = follow(child.stderr.take().expect("stderr is piped"));
        Watch {
            child,
            rounds,
            said,
            last: Vec::new(),
        }
    }

    /// The next round that moved something, as its JSON says; those that failed are passed over.
    ///
    /// # Panics
    /// When there is none in time.
    #[must_use]
    pub fn round(&self) -> Value {
        loop {
            let Ok(line) = self.rounds.recv_timeout(LIMIT) else {
                panic!("no round, but: {:?}", self.said());
            };
            let round: Value = serde_json::from_str(&line).expect("a line of JSON");
            if round["exit"] == 0 {
                return round;
            }
        }
    }

    /// Waits for rounds until something holds, which one of them must have brought.
    ///
    /// # Panics
    /// When it does not hold in time.
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(
                begun.elapsed() < LIMIT,
                "{what}: not in time; {:?}",
                self.said()
            );
            // A round says what it did once all of it is done.
            let _ = self.rounds.recv_timeout(Duration::from_millis(200));
        }
    }

    /// The same, unless it ends before; whether it holds.
    ///
    /// # Panics
    /// When it neither holds in time nor ends.
    pub fn until_or_end(&mut self, what: &str, holds: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        while !holds() {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return false;
            }
            assert!(
                begun.elapsed() < LIMIT,
                "{what}: not in time; {:?}",
                self.said()
            );
            let _ = self.rounds.recv_timeout(Duration::from_millis(200));
        }
        true
    }

    /// How many rounds moved something and were not taken yet.
    #[must_use]
    pub fn rounds_left(&self) -> usize {
        self.rounds.try_iter().count()
    }

    /// The next line on stderr that has these words; those before it are passed over.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn says(&self, words: &str) -> String {
        let begun = Instant::now();
        let mut others = Vec::new();
        while let Ok(line) = self
            .said
            .recv_timeout(LIMIT.saturating_sub(begun.elapsed()))
        {
            if line.contains(words) {
                return line;
            }
            others.push(line);
        }
        panic!("it does not say \"{words}\", but: {others:?}")
    }

    /// What else it said.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        self.said.try_iter().collect()
    }

    /// What it said while [`Watch::wait`] waited.
    #[must_use]
    pub fn last_words(&self) -> &[String] {
        &self.last
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> rustix::process::Pid {
        pid_of(&self.child)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// Asks it to end, and waits for that; its exit code, and how long it took.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(mut self) -> (Option<i32>, Duration) {
        self.signal(Signal::TERM);
        let begun = Instant::now();
        let code = self.wait();
        (code, begun.elapsed())
    }

    /// Waits until it ends by itself; its exit code.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait(&mut self) -> Option<i32> {
        // Its end closes its output, which is an event.
        let begun = Instant::now();
        while let Ok(line) = self
            .said
            .recv_timeout(LIMIT.saturating_sub(begun.elapsed()))
        {
            eprintln!("{line}");
            self.last.push(line);
        }
        assert!(begun.elapsed() < LIMIT, "it does not end");
        let status = self.child.wait().expect("it is our child");
        status.code().or(status.signal().map(|signal| -signal))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }
}

fn follow(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
