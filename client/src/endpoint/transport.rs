//! A pair of blocking streams to an agent, however it is reached: through ssh, or as a child process.
//!
//! Says how to connect and for how long, and explains what went wrong when an agent does not answer. Knows nothing of what
//! is said on the streams, nor how the agent is started: that is [`mod@crate::endpoint::connect`]'s.

mod error;
mod tail;

use std::io::{PipeReader, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::Account;
use crate::endpoint::program::Program;
use crate::endpoint::stop::Stop;

pub use error::ConnectError;
pub(crate) use tail::{Relay, Tail, last_line, one_line};

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
    /// Whether we are asked to end.
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
    /// What the agent reads; dropping it ends the agent.
    pub writer: Box<dyn Write + Send>,
    /// The process behind both.
    pub peer: Peer,
    /// What is left of the time for connecting.
    pub patience: Patience,
}

/// The process at the other end of a connection, here or on the server.
pub struct Peer {
    pub(super) machine: String,
    pub(super) command: String,
    pub(super) ending: Receiver<Ending>,
    pub(super) stderr: Tail,
    /// The agent itself, where it is our own child.
    pub(super) child: Option<Program>,
}

/// How a process ended, as far as that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// With this status.
    Code(i32),
    /// By a signal, or by the end of the connection: ssh does not say which.
    Cut,
}

impl Ending {
    pub(super) fn of(status: ExitStatus) -> Ending {
        status.code().map_or(Ending::Cut, Ending::Code)
    }
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
            // A stream that cannot be polled is left to the reader, who will get the error.
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
