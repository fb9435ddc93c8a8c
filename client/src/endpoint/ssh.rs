//! A command on a server, through ssh: the only place that knows openssh.
//!
//! Every session runs over a control socket, because that is the fastest way to a second one. It is, in this order:
//! our own, kept open by an earlier run (`persist`); the user's own, if his ssh config has one and it is alive; or
//! a new one, which without `persist` stops listening as soon as our session is open, so that it ends with the
//! session, whatever becomes of us. How a connection is made is `master`'s, where its socket lies `socket`'s.

mod master;
mod socket;
mod terminal;

use std::io::{PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use openssh::{Session, Stdio};

use crate::endpoint::transport::{
    ConnectError, ConnectOptions, Ending, Patience, Relay, Tail, wait_readable,
};

/// Which part of the time a connection of an earlier run may take to its first byte. It looks alive even when its network
/// is gone (suspend, another Wi-Fi), and ssh itself notices only after 45 s; a new one wants time, too.
const REUSED_PART: u32 = 3;
/// How long a new connection that is not to be kept stays if we are killed before our session is open.
const ORPHAN_SECS: u64 = 10;
/// How much room the pipe from ssh gets.
#[cfg(target_os = "linux")]
const PIPE_BYTES: usize = 1 << 20;

/// Who logs in where, and how.
pub(crate) struct Login<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
    pub(crate) options: &'a ConnectOptions,
}

/// A command that runs on a server.
pub(crate) struct Channel {
    pub(crate) reader: PipeReader,
    pub(crate) writer: PipeWriter,
    pub(crate) stderr: Tail,
    pub(crate) ending: Receiver<Ending>,
}

/// What becomes of a connection once our session is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    /// It goes on listening.
    Kept,
    /// It ends with its last session.
    Ends,
}

/// Why a connection gives no session.
enum NoSession {
    /// It says nothing.
    Late,
    /// It says why.
    Said(String),
}

impl From<std::io::Error> for NoSession {
    fn from(error: std::io::Error) -> NoSession {
        NoSession::Said(error.to_string())
    }
}

/// Starts a command, over the fastest connection there is.
///
/// # Errors
/// When there is no connection and none can be made, or the server opens no session.
pub(crate) fn open(
    login: &Login,
    command: &str,
    patience: &mut Patience,
) -> Result<Channel, ConnectError> {
    let sockets = socket::Sockets::find(login)?;
    if let Some(channel) = reuse(&sockets.kept, command, login, patience) {
        return Ok(channel);
    }
    let settings = master::settings(login, patience)?;
    if let Some(channel) = settings
        .control_path
        .as_ref()
        .and_then(|path| attempt(path, command, login, patience))
    {
        return Ok(channel);
    }
    let Some(persist) = login.options.persist else {
        master::start(login, &settings, &sockets.private, ORPHAN_SECS, patience)?;
        return fresh(&sockets.private, command, login, Afterwards::Ends, patience);
    };
    // Two runs that start one connection each would leave one that cannot be reached.
    let lock = sockets.lock(login, patience)?;
    if UnixStream::connect(&sockets.kept).is_err() {
        master::start(login, &settings, &sockets.kept, persist.as_secs(), patience)?;
    }
    drop(lock);
    fresh(&sockets.kept, command, login, Afterwards::Kept, patience)
}

fn fresh(
    socket: &Path,
    command: &str,
    login: &Login,
    afterwards: Afterwards,
    patience: &Patience,
) -> Result<Channel, ConnectError> {
    let host = login.host.to_owned();
    execute(socket, command, login, afterwards, patience.left()).map_err(|error| match error {
        NoSession::Late => ConnectError::Unreachable {
            host,
            said: format!("no session within {} s", patience.seconds()),
        },
        NoSession::Said(said) => ConnectError::Ssh { host, said },
    })
}

/// Runs a command over a connection of ours that an earlier run left; one that does not answer is ended.
fn reuse(socket: &Path, command: &str, login: &Login, patience: &Patience) -> Option<Channel> {
    if !socket.exists() {
        return None;
    }
    let channel = attempt(socket, command, login, patience);
    if channel.is_none() {
        tracing::info!("the kept ssh connection does not answer; making a new one");
        stop(socket);
    }
    channel
}

/// Runs a command over a connection that was there before us; the user's own is left alone when it does not answer.
fn attempt(socket: &Path, command: &str, login: &Login, patience: &Patience) -> Option<Channel> {
    let limit = patience.left() / REUSED_PART;
    let begun = Instant::now();
    let channel = execute(socket, command, login, Afterwards::Kept, limit).ok()?;
    wait_readable(&channel.reader, limit.saturating_sub(begun.elapsed())).then_some(channel)
}

/// Opens a session over a control socket and starts a command in it; a thread waits for its end.
fn execute(
    socket: &Path,
    command: &str,
    login: &Login,
    afterwards: Afterwards,
    timeout: Duration,
) -> Result<Channel, NoSession> {
    let (stdin, writer) = std::io::pipe()?;
    let (reader, stdout) = std::io::pipe()?;
    widen(&reader);
    let (said, stderr) = std::io::pipe()?;
    let (opened, opening) = channel();
    let (ended, ending) = channel();
    let (socket, command) = (socket.to_owned(), command.to_owned());
    std::thread::spawn(move || {
        let streams = [stdin.into(), stdout.into(), stderr.into()];
        let begin = async { run(&socket, &command, streams, afterwards, &opened, timeout).await };
        match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => {
                // There is no reader any more once the streams are all that is wanted.
                let _ = ended.send(runtime.block_on(begin));
            }
            Err(error) => drop(opened.send(Err(error.into()))),
        }
    });
    opening
        .recv()
        .map_err(|_| NoSession::Said("the session ended at once".to_owned()))??;
    let relay = if login.options.verbose {
        Relay::AtOnce
    } else {
        Relay::Never
    };
    Ok(Channel {
        reader,
        writer,
        stderr: Tail::collect(said, relay),
        ending,
    })
}

/// Gives the pipe from ssh as much room as Linux lets everybody have.
///
/// ssh keeps what the pipe does not hold in a buffer that it moves about with each read: with 1 MiB, and no more asked for
/// than there is room for, it took a third less processor time for 360 MB (measured: OpenSSH 9.2, Linux 6.18).
fn widen(pipe: &PipeReader) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES) {
        tracing::debug!("The pipe stays as small as it is: {error}");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}

/// The life of a session: opened, reported, and waited for.
async fn run(
    socket: &Path,
    command: &str,
    [stdin, stdout, stderr]: [OwnedFd; 3],
    afterwards: Afterwards,
    opened: &Sender<Result<(), NoSession>>,
    timeout: Duration,
) -> Ending {
    let session = Session::resume_mux(socket.into(), None);
    let child = {
        let mut starter = session.raw_command(command);
        starter
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr));
        tokio::time::timeout(timeout, starter.spawn()).await
    };
    let reported = match &child {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(NoSession::Said(chain(error))),
        Err(_) => Err(NoSession::Late),
    };
    let _ = opened.send(reported);
    if afterwards == Afterwards::Ends {
        // Fails only where the connection is gone already.
        let _ = Session::resume_mux(socket.into(), None).close().await;
    }
    let Ok(Ok(child)) = child else {
        return Ending::Cut;
    };
    match child.wait().await {
        Ok(status) => status.code().map_or(Ending::Cut, Ending::Code),
        // The crate's way to say exit status 127.
        Err(openssh::Error::Remote(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Ending::Code(127)
        }
        Err(_) => Ending::Cut,
    }
}

/// Asks a connection to end with its last session.
fn stop(socket: &Path) {
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        let stop = async { Session::resume_mux(socket.into(), None).close().await };
        let _ =
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), stop).await });
    }
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes =
        std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string);
    std::iter::once(error.to_string())
        .chain(causes)
        .collect::<Vec<_>>()
        .join(": ")
}
