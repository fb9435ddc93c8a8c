//! Faults from outside: a process killed at its n-th system call, a link cut after so many bytes, a run held still.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::LIMIT;
use crate::run::Run;
use crate::watch::Watch;
use crate::world::{Invocation, World, agent_command, wrap_program};

/// System calls that change a disk. What a kernel or libc does not have is passed over (`?`). A file that was made and
/// not yet written is seen by a kill at the write.
pub const MUTATING: &[&str] = &[
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "write",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "syncfs",
    "utimensat",
    "copy_file_range",
];

/// Which end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The client.
    Client,
    /// The agent.
    Agent,
}

/// Kills one end as it enters a system call for the n-th time.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// Who dies.
    pub end: End,
    /// In which system call.
    pub call: &'static str,
    /// At which of its calls, from 1, counted per thread.
    pub nth: usize,
}

/// Holds one end as it enters a system call for the n-th time: between its last look and that step.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// Who stands still.
    pub end: End,
    /// Before which system call.
    pub call: &'static str,
    /// Before which of its calls, from 1, counted per thread.
    pub nth: usize,
}

/// Cuts the link after so many bytes in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Where the bytes come from.
    pub from: End,
    /// How many get through.
    pub bytes: u64,
}

impl Kill {
    /// Runs a command and kills as told; waits until the agent has ended, too. True if the run was hit.
    pub fn run(&self, world: &World, invocation: Invocation) -> (bool, Run) {
        let alive = Alive::new(world);
        let log = world.path("strace.log");
        let run = self
            .begin(world, invocation, &self.strace(&log, "SIGKILL"))
            .run();
        alive.wait_for_end();
        let traced = std::fs::read_to_string(log).expect("strace keeps a log");
        (traced.contains("killed by SIGKILL"), run)
    }

    /// How often a watch got that signal so far.
    #[must_use]
    pub fn hits(&self, world: &World, signal: &str) -> usize {
        let log = std::fs::read_to_string(world.path("strace.log")).unwrap_or_default();
        log.matches(&format!("--- {signal} ")).count()
    }

    /// Waits until no agent is left.
    pub fn wait_for_end(&self, world: &World) {
        Alive::new(world).wait_for_end();
    }

    /// Starts a watch whose one end gets a signal there.
    #[must_use]
    pub fn watch(&self, world: &World, invocation: Invocation, signal: Signal) -> Watch {
        let signal = signal.as_raw().to_string();
        let mut strace = self.strace(&world.path("strace.log"), &signal);
        // What is started stays who is asked to end.
        strace.insert(1, "-D".to_owned());
        let invocation = self.begin(world, invocation, &strace);
        Watch::invoke(match self.end {
            End::Client => invocation,
            End::Agent => invocation.through(&self.only_first(world, &strace)),
        })
    }

    /// The agent's command where only the first one is killed.
    fn only_first(&self, world: &World, strace: &[String]) -> String {
        let (script, first) = (world.path("agent.sh"), world.path("first"));
        let (alive, agent) = (Alive::new(world), agent_command(&world.server_state()));
        let traced = alive.wrap("", &format!("{} {agent}", strace.join(" ")));
        let (agent, first) = (alive.wrap("", &agent), first.display());
        let text = format!(
            "if mkdir {first} 2>/dev/null; then exec {traced} \"$@\"; fi\nexec {agent} \"$@\"\n"
        );
        std::fs::write(&script, text).expect("script is written");
        format!("sh {}", script.display())
    }

    fn begin(&self, world: &World, invocation: Invocation, strace: &[String]) -> Invocation {
        let agent = agent_command(&world.server_state());
        let alive = Alive::new(world);
        match self.end {
            End::Client => {
                let words: Vec<&str> = strace.iter().map(String::as_str).collect();
                invocation.through(&alive.wrap("", &agent)).under(&words)
            }
            End::Agent => {
                invocation.through(&alive.wrap("", &format!("{} {agent}", strace.join(" "))))
            }
        }
    }

    /// The agent is started by the client and must not die with it: strace lets go of it when it is executed.
    fn strace(&self, log: &Path, signal: &str) -> Vec<String> {
        let inject = format!("inject=?{}:signal={signal}:when={}", self.call, self.nth);
        let trace = format!("trace=?{}", self.call);
        let log = log.display().to_string();
        [
            "strace", "-f", "-b", "execve", "-q", "-o", &log, "-e", &trace, "-e", &inject,
        ]
        .map(str::to_owned)
        .into()
    }
}

impl Hold {
    /// Runs a command, and does something while it stands still. True if it got there.
    ///
    /// # Panics
    /// When it neither gets there nor ends.
    pub fn run(
        &self,
        world: &World,
        invocation: Invocation,
        meanwhile: impl FnOnce(),
    ) -> (bool, Run) {
        let (invocation, alive, reached) = self.begin(world, invocation);
        let what = invocation.to_string();
        let running = invocation.start();
        let thread = reached.recv_timeout(LIMIT).expect("it gets there or ends");
        if let Some(thread) = thread {
            meanwhile();
            let _ = kill_process(tracer_of(thread), Signal::KILL);
        }
        let run = Run::of(what, running.wait());
        alive.wait_for_end();
        (thread.is_some(), run)
    }

    /// Starts a watch that stands still there, if it ever gets there.
    #[must_use]
    pub fn watch(&self, world: &World, invocation: Invocation) -> (Watch, StandsStill) {
        let (invocation, _, reached) = self.begin(world, invocation);
        let watch = Watch::invoke(invocation);
        let state = Arc::new(Mutex::new(Standing::default()));
        let still = StandsStill(Arc::clone(&state));
        std::thread::spawn(move || {
            if let Some(thread) = reached.iter().flatten().next() {
                let mut state = state.lock().expect("nobody panics with it");
                state.thread = Some(thread);
                if state.is_let_go {
                    let_go(thread);
                }
            }
        });
        (watch, still)
    }

    /// What is to be started, and what tells that it stands still: the thread, or none if everything ends before.
    fn begin(
        &self,
        world: &World,
        invocation: Invocation,
    ) -> (Invocation, Alive, Receiver<Option<i32>>) {
        let alive = Alive::new(world);
        let log = world.path("strace.fifo");
        let _ = std::fs::remove_file(&log);
        mknodat(CWD, &log, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("fifo is made");
        let strace = self.strace(&log);
        let agent = agent_command(&world.server_state());
        let invocation = match self.end {
            End::Client => {
                let words: Vec<&str> = strace.iter().map(String::as_str).collect();
                invocation.through(&alive.wrap("", &agent)).under(&words)
            }
            End::Agent => {
                invocation.through(&alive.wrap("", &format!("{} {agent}", strace.join(" "))))
            }
        };
        let (sender, reached) = channel();
        let start = format!("{}(", self.call);
        let nth = self.nth;
        std::thread::spawn(move || {
            let mut log = File::open(log).expect("fifo opens");
            let _ = sender.send(thread_at(&mut log, &start, nth));
            // Whoever writes must not stand still for want of a reader.
            let _ = std::io::copy(&mut log, &mut std::io::sink());
        });
        (invocation, alive, reached)
    }

    /// A tracer that is killed lets go of what it traces, which then makes the call.
    fn strace(&self, log: &Path) -> Vec<String> {
        let delay = LIMIT.as_micros();
        let inject = format!(
            "inject=?{}:delay_enter={delay}:when={}",
            self.call, self.nth
        );
        let trace = format!("trace=?{}", self.call);
        let log = log.display().to_string();
        [
            "strace", "-D", "-f", "-b", "execve", "-q", "-o", &log, "-e", &trace, "-e", &inject,
        ]
        .map(str::to_owned)
        .into()
    }
}

/// A watch that may stand still; it goes on when this is dropped, and never stands still after that.
#[derive(Debug)]
pub struct StandsStill(Arc<Mutex<Standing>>);

#[derive(Debug, Default)]
struct Standing {
    thread: Option<i32>,
    is_let_go: bool,
}

impl StandsStill {
    /// Whether it stands still now.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.0.lock().is_ok_and(|state| state.thread.is_some())
    }
}

impl Drop for StandsStill {
    fn drop(&mut self) {
        if let Ok(mut state) = self.0.lock() {
            state.is_let_go = true;
            if let Some(thread) = state.thread {
                let_go(thread);
            }
        }
    }
}

/// Kills the tracer of a thread, which may have ended by now.
fn let_go(thread: i32) {
    if Path::new(&format!("/proc/{thread}/status")).exists() {
        let _ = kill_process(tracer_of(thread), Signal::KILL);
    }
}

/// The first thread that begins a call for the n-th time, as strace tells it; none if everything ends before.
fn thread_at(log: &mut File, start: &str, nth: usize) -> Option<i32> {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let count = log.read(&mut buffer).expect("strace tells");
        if count == 0 {
            return None;
        }
        text += &String::from_utf8_lossy(&buffer[..count]);
        let mut counts: HashMap<i32, usize> = HashMap::new();
        for line in text.lines() {
            let Some((thread, rest)) = line.split_once(' ') else {
                continue;
            };
            if rest.trim_start().starts_with(start) {
                let thread = thread.parse().expect("lines begin with a thread");
                let count = counts.entry(thread).or_default();
                *count += 1;
                if *count == nth {
                    return Some(thread);
                }
            }
        }
    }
}

fn tracer_of(thread: i32) -> Pid {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).expect("it is there");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    let tracer = line.and_then(|pid| pid.trim().parse().ok());
    tracer.and_then(Pid::from_raw).expect("it is traced")
}

impl Cut {
    /// Runs a command over a link that breaks, and waits until the agent has ended, too.
    pub fn run(&self, world: &World, invocation: Invocation) -> Run {
        let alive = Alive::new(world);
        let option = match self.from {
            End::Client => "--up",
            End::Agent => "--down",
        };
        let agent = agent_command(&world.server_state());
        let run = invocation
            .through(&alive.wrap(&format!("{option} {}", self.bytes), &agent))
            .run();
        alive.wait_for_end();
        run
    }
}

/// Runs a command over a long way, and counts how often it was gone until the client had enough: 1 if he asked nothing,
/// 2 more for each round trip.
///
/// # Panics
/// When the agent never spoke.
pub fn flights(world: &World, invocation: Invocation) -> (u64, Run) {
    let file = world.path("flights");
    let _ = std::fs::remove_file(&file);
    let (wrap, agent) = (wrap_program(), agent_command(&world.server_state()));
    let command = format!("{} --flights {} -- {agent}", wrap.display(), file.display());
    let run = invocation.through(&command).run();
    let count = std::fs::read_to_string(file).expect("the agent spoke");
    (count.parse().expect("a number"), run)
}

/// Spoils one byte of one direction.
#[derive(Clone, Copy, Debug)]
pub struct Flip {
    /// Where the bytes come from.
    pub from: End,
    /// Which of them.
    pub at: u64,
}

impl Flip {
    /// Runs a command over a link that spoils one byte, and waits until the agent has ended, too.
    pub fn run(&self, world: &World, invocation: Invocation) -> Run {
        let alive = Alive::new(world);
        let option = match self.from {
            End::Client => "--flip-up",
            End::Agent => "--flip-down",
        };
        let agent = agent_command(&world.server_state());
        let run = invocation
            .through(&alive.wrap(&format!("{option} {}", self.at), &agent))
            .run();
        alive.wait_for_end();
        run
    }
}

/// A file that is locked as long as an agent lives.
#[derive(Debug)]
pub struct Alive {
    file: PathBuf,
}

impl Alive {
    /// Takes the world's file.
    #[must_use]
    pub fn new(world: &World) -> Alive {
        Alive {
            file: world.path("alive"),
        }
    }

    /// The server command that holds the lock.
    #[must_use]
    pub fn wrap(&self, options: &str, agent: &str) -> String {
        format!(
            "{} --alive {} {options} -- {agent}",
            wrap_program().display(),
            self.file.display()
        )
    }

    /// Waits until no agent is left.
    ///
    /// # Panics
    /// When one stays.
    pub fn wait_for_end(&self) {
        let Ok(file) = File::open(&self.file) else {
            return;
        };
        let (sender, receiver) = channel();
        std::thread::spawn(move || sender.send(file.lock()));
        let locked = receiver
            .recv_timeout(LIMIT)
            .expect("the agent outlives its client");
        locked.expect("file of life can be locked");
    }
}

/// A run that is stopped in the middle, until it is let go.
#[derive(Debug)]
pub struct Held {
    reached: PathBuf,
    go: PathBuf,
}

impl Held {
    /// Makes what is needed to hold one run.
    #[must_use]
    pub fn new(world: &World, name: &str) -> Held {
        let held = Held {
            reached: world.path(&format!("{name}.reached")),
            go: world.path(&format!("{name}.go")),
        };
        for fifo in [&held.reached, &held.go] {
            mknodat(CWD, fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("fifo is made");
        }
        held
    }

    /// The server command that stops after so many bytes.
    #[must_use]
    pub fn command(&self, bytes: u64, agent: &str) -> String {
        let wrap = wrap_program();
        let fifos = format!("{} {}", self.reached.display(), self.go.display());
        format!("{} --stop-after {bytes} {fifos} -- {agent}", wrap.display())
    }

    /// The server command that stops after so many bytes of the client's.
    #[must_use]
    pub fn sending(&self, bytes: u64, agent: &str) -> String {
        self.command(bytes, agent)
            .replacen("--stop-after", "--stop-sending-after", 1)
    }

    /// The server command that stops when the client has been told everything and asks for the first thing.
    #[must_use]
    pub fn asking(&self, agent: &str) -> String {
        let wrap = wrap_program();
        let fifos = format!("{} {}", self.reached.display(), self.go.display());
        format!("{} --stop-asking {fifos} -- {agent}", wrap.display())
    }

    /// Waits until the run stands still.
    pub fn wait_until_held(&self) {
        within_limit(
            &self.reached,
            false,
            "the run never got as far as it should be held",
        );
    }

    /// Lets it go on.
    pub fn release(&self) {
        within_limit(&self.go, true, "the held run is gone");
    }
}

/// Opening a fifo waits for the other end.
fn within_limit(fifo: &Path, write: bool, what: &str) {
    let fifo = fifo.to_owned();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        sender.send(
            OpenOptions::new()
                .read(!write)
                .write(write)
                .open(fifo)
                .is_ok(),
        )
    });
    assert!(receiver.recv_timeout(LIMIT).unwrap_or(false), "{what}");
}
