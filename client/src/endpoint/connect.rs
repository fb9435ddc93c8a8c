//! Starting an agent, through ssh or as a child process, with the hello as the last word of its command line. What then
//! becomes of it is [`crate::endpoint::transport`]'s.

use std::io::{PipeReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use crate::config::address::Address;
use crate::endpoint::program::Program;
use crate::endpoint::ssh;
use crate::endpoint::transport::{
    ConnectError, ConnectOptions, Connection, Ending, Patience, Peer, Relay, Tail, wait_readable,
};

/// The agent's program, where no other command is set.
const SERVER: &str = "maildir-sync-server";

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

#[cfg(test)]
mod tests;
