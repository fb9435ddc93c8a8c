//! A pair of blocking streams to an agent, however it is reached.
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use crate::address::Address;
use crate::exit_code::ExitCode;

/// How to connect.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// The command that starts the agent, instead of `maildir-sync-server`.
    pub server_command: Option<String>,
    /// The private key to log in with.
    pub identity: Option<PathBuf>,
    /// The ssh config to use.
    pub ssh_config: Option<PathBuf>,
    /// How long the ssh connection stays open after a run.
    pub persist: Option<Duration>,
    /// Where a control socket goes if there is no `$XDG_RUNTIME_DIR`.
    pub state_dir: PathBuf,
    /// Show what the agent and ssh say on their stderr.
    pub verbose: bool,
}

/// An agent that was started.
pub struct Connection {
    /// What the agent says.
    pub reader: Box<dyn Read + Send>,
    /// What the agent hears; its end is the agent's end.
    pub writer: Box<dyn Write + Send>,
    /// The process or channel behind both.
    pub peer: Peer,
}

/// The process or channel behind a connection.
pub struct Peer {}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Stub.
    #[error("{0}")]
    Stub(String),
}

impl ConnectError {
    /// How the run ends.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::Temporary
    }
}

/// Starts the agent at an address.
///
/// # Errors
/// When it cannot be reached or started.
pub fn connect(
    address: &Address,
    options: &ConnectOptions,
    hello_word: &str,
) -> Result<Connection, ConnectError> {
    let _ = (address, options, hello_word);
    Err(ConnectError::Stub("not yet".to_owned()))
}

impl Peer {
    /// Waits, a little, for the agent to end; to be called after both streams were dropped.
    pub fn close(self) {}

    /// Explains why the stream ended, or went wrong, before the agent's magic was seen; `noise` is what came instead.
    #[must_use]
    pub fn diagnose(self, noise: &[u8]) -> ConnectError {
        ConnectError::Stub(protocol::bytes::escape(noise))
    }

    /// Explains why the stream ended in the middle of a session.
    #[must_use]
    pub fn diagnose_loss(self) -> ConnectError {
        ConnectError::Stub(String::new())
    }
}
