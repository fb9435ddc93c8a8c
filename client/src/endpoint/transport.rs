//! A pair of blocking streams to an agent, however it is reached: through ssh, or as a child process.
//!
//! Starts the agent with the hello as the last word of its command line, and explains what went wrong when it does
//! not answer. Knows nothing of what is said on the streams; [`crate::endpoint::ssh`] is the only place that knows openssh.

mod error;
mod tail;

use std::io::{PipeReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::Account;
use crate::config::address::Address;
use crate::endpoint::program::Program;
use crate::endpoint::ssh;
use crate::endpoint::stop::Stop;

pub use error::ConnectError;
pub(crate) use tail::{Relay, Tail, last_line, one_line};

/// The agent's program, where no other command is set.
pub const SERVER: &str = "maildir-sync-server";

/// How long connecting may take, from the beginning to the agent's first words, where an account is not less patient.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for an exit status once the stream has ended.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// How to connect.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// The command that starts the agent; at ssh for the login's shell, for a local path split into words at blanks.
    pub server_command: Option<String>,
    /// The private key to log in with.
    pub identity: Option<PathBuf>,
    /// The ssh config to use.
    pub ssh_config: Option<PathBuf>,
    /// How long the ssh connection stays open after a run; without it the connection ends with the session.
    pub persist: Option<Duration>,
    /// Where control sockets go if nothing more fleeting will do.
    pub state_dir: PathBuf,
    /// Shows what ssh and the agent say on their stderr.
    pub verbose: bool,
    /// How long a silent agent is waited for.
    pub timeout: Duration,
    /// Whether somebody wants us to end.
    pub stop: Stop,
}

impl ConnectOptions {
    /// The options of an account.
    #[must_use]
    pub fn of(account: &Account, verbose: bool, stop: &Stop) -> ConnectOptions {
        ConnectOptions {
            server_command: account.server_command.clone(),
            identity: account.identity.clone(),
            ssh_config: account.ssh_config.clone(),
            // A dry run leaves nothing behind, not even a connection.
            persist: account.persist.filter(|_| !account.dry_run),
            state_dir: account.state_dir.clone(),
            verbose,
            timeout: account.timeout,
            stop: stop.clone(),
        }
    }
}

/// Until when connecting may take. The time in which a person is asked something is given back.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    limit: Duration,
    until: Instant,
}

impl Patience {
    /// As long as an account has it, from now on.
    #[must_use]
    pub fn of(options: &ConnectOptions) -> Patience {
        let limit = options.timeout.min(CONNECT_TIMEOUT);
        let until = Instant::now() + limit;
        Patience { limit, until }
    }

    /// How long it was at the beginning, in seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.limit.as_secs()
    }

    /// How much of it is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Gives time back.
    pub fn give(&mut self, time: Duration) {
        self.until += time;
    }
}

/// An agent that was started, and has said something.
pub struct Connection {
    /// What the agent says.
    pub reader: PipeReader,
    /// What the agent hears; dropping it is how the agent is told to end.
    pub writer: Box<dyn Write + Send>,
    /// The process behind both.
    pub peer: Peer,
    /// What is left of the time for connecting.
    pub patience: Patience,
}

/// The process at the other end of a connection, here or on the server.
pub struct Peer {
    machine: String,
    command: String,
    ending: Receiver<Ending>,
    stderr: Tail,
    /// The agent itself, where it is our own child.
    child: Option<Program>,
}

/// How a process ended, as far as that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// With this status.
    Code(i32),
    /// By a signal, or by the end of the connection: ssh does not tell which.
    Cut,
}

impl Ending {
    fn of(status: ExitStatus) -> Ending {
        status.code().map_or(Ending::Cut, Ending::Code)
    }
}

/// Starts the agent at an address, and returns once it has begun to speak or has ended.
///
/// # Errors
/// When the host or the program cannot be reached or started, or stays silent for longer than connecting may take.
pub fn connect(
    address: &Address,
    options: &ConnectOptions,
    hello_word: &str,
) -> Result<Connection, ConnectError> {
    let server = options.server_command.as_deref().unwrap_or(SERVER).trim();
    if server.is_empty() {
        return Err(ConnectError::Options("server_command is empty".to_owned()));
    }
    let mut patience = Patience::of(options);
    let (reader, writer, peer) = match address {
        Address::Ssh {
            user, host, port, ..
        } => {
            let login = ssh::Login {
                user: user.as_deref(),
                host,
                port: *port,
                options,
            };
            let channel = ssh::open(&login, &format!("{server} {hello_word}"), &mut patience)?;
            let peer = Peer {
                machine: host.clone(),
                command: server.to_owned(),
                ending: channel.ending,
                stderr: channel.stderr,
                child: None,
            };
            (
                channel.reader,
                Box::new(channel.writer) as Box<dyn Write + Send>,
                peer,
            )
        }
        Address::Local(_) => spawn(options, hello_word)?,
    };
    if !wait_readable(&reader, patience.left()) {
        drop(writer);
        return Err(peer.silent(patience));
    }
    Ok(Connection {
        reader,
        writer,
        peer,
        patience,
    })
}

/// Starts the agent as a child process; no shell is involved.
fn spawn(
    options: &ConnectOptions,
    hello_word: &str,
) -> Result<(PipeReader, Box<dyn Write + Send>, Peer), ConnectError> {
    let mut words = options
        .server_command
        .iter()
        .flat_map(|command| command.split_whitespace());
    let program = words.next().map_or_else(server_beside, PathBuf::from);
    let command = options
        .server_command
        .clone()
        .unwrap_or_else(|| program.display().to_string());
    let failed = |source| ConnectError::Start {
        program: program.display().to_string(),
        source,
    };
    let (reader, stdout) = std::io::pipe().map_err(failed)?;
    let mut starter = Command::new(&program);
    starter
        .args(words)
        .arg(hello_word)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped());
    let mut child = starter.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            ConnectError::not_installed("this machine", &command, true, String::new())
        }
        _ => failed(error),
    })?;
    // It holds the write end of the child's stdout, whose end could not be seen otherwise.
    drop(starter);
    let stdin = child.stdin.take().expect("stdin was asked to be a pipe");
    let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
    let (ended, ending) = channel();
    let child = Program::watch(child, move |status| {
        let _ = ended.send(status.map_or(Ending::Cut, Ending::of));
    });
    let relay = if options.verbose {
        Relay::AtOnce
    } else {
        Relay::Never
    };
    let stderr = Tail::collect(stderr, relay);
    Ok((
        reader,
        Box::new(stdin),
        Peer {
            machine: "this machine".to_owned(),
            command,
            ending,
            stderr,
            child: Some(child),
        },
    ))
}

/// The agent beside our own program, where a build or an unpacked archive has it, else by its name.
fn server_beside() -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own
        .as_deref()
        .and_then(Path::parent)
        .map(|dir| dir.join(SERVER));
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(SERVER))
}

/// Waits until a stream has something to read or has ended; false if neither happens in time.
pub(crate) fn wait_readable(stream: &impl AsFd, timeout: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    loop {
        match poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            // A stream that cannot be polled is left to the reader, who will hear why.
            Err(_) => return true,
        }
    }
}

impl Peer {
    /// Lets go of the process after a session that was finished in order; both streams must have been dropped.
    ///
    /// Waits for a child process, so that nothing of it outlives us, but not for a server: its end takes a round trip.
    pub fn close(self) {
        if self.child.is_some() {
            let _ = self.ending.recv_timeout(STATUS_TIMEOUT);
        }
    }

    /// Explains why the stream ended, or went wrong, before the agent had introduced itself; `noise` is what came
    /// instead.
    #[must_use]
    pub fn diagnose(self, noise: &[u8]) -> ConnectError {
        let ending = self
            .ending
            .recv_timeout(STATUS_TIMEOUT)
            .unwrap_or(Ending::Cut);
        let (machine, command) = (self.machine, self.command);
        match ending {
            Ending::Code(127) => ConnectError::not_installed(
                &machine,
                &command,
                self.child.is_some(),
                self.stderr.said(),
            ),
            Ending::Code(code) if noise.is_empty() && code != 0 => ConnectError::Agent {
                machine,
                command,
                code,
                said: self.stderr.said(),
                hint: "; check server_command, or the key's forced command",
            },
            Ending::Cut if noise.is_empty() => ConnectError::Lost {
                machine,
                said: self.stderr.said(),
            },
            Ending::Code(_) | Ending::Cut => {
                ConnectError::stranger(&machine, noise, &self.stderr.said())
            }
        }
    }

    /// Explains why the stream ended in the middle of a session.
    #[must_use]
    pub fn diagnose_loss(self) -> ConnectError {
        let ending = self
            .ending
            .recv_timeout(STATUS_TIMEOUT)
            .unwrap_or(Ending::Cut);
        let said = self.stderr.said();
        match ending {
            Ending::Code(code) if code != 0 && !said.is_empty() => ConnectError::Agent {
                machine: self.machine,
                command: self.command,
                code,
                said,
                hint: "",
            },
            Ending::Code(_) | Ending::Cut => ConnectError::Lost {
                machine: self.machine,
                said,
            },
        }
    }

    /// Lets go of a process that said nothing, or did not go on with what it said.
    pub(crate) fn silent(self, patience: Patience) -> ConnectError {
        self.end();
        ConnectError::Silent {
            machine: self.machine,
            command: self.command,
            seconds: patience.seconds(),
        }
    }

    /// Lets go of an agent that says nothing any more.
    pub(crate) fn hung(self, seconds: u64) -> ConnectError {
        self.end();
        ConnectError::Hung {
            machine: self.machine,
            seconds,
        }
    }

    /// What hangs here would hold its locks. At a server it is out of our reach; there, too, it ends when it goes on.
    fn end(&self) {
        if let Some(child) = &self.child {
            child.kill();
        }
    }
}

#[cfg(test)]
mod tests;
