//! The connection as the driver sees it: requests go in, answers come out, and neither waits for the other.
//!
//! One thread writes, one reads. The driver never blocks on writing, and the reader never waits for the writer, so that
//! both ends always keep reading (`docs/protocol.md`, "flow").

use std::io::{self, BufReader, PipeReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use maildir::{Bodies, Heard, Located, Pulse};
use protocol::codec::decode;
use protocol::frame::{Frame, FrameReader};
use protocol::handshake::{HandshakeError, VERSIONS, choose_version, hello_word, read_greeting};
use protocol::message::{Hello, Refusal, Welcome};
use protocol::{Op, Request, Response};

use crate::config::address::Address;
use crate::endpoint::transport::{
    ConnectError, ConnectOptions, Connection, Patience, Peer, connect, wait_readable,
};
use crate::run::exit_code::ExitCode;
use crate::run::stop::Stop;

mod inflow;
mod outflow;
mod silence;
use inflow::{Feed, Intake, Next, inflow};
use outflow::Outflow;
use silence::Silence;

/// Why the other end is of no use.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It could not be reached, or is no agent, or went away.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It does not speak our protocol.
    #[error("{0}")]
    Protocol(String),
    /// It says no.
    #[error("The agent says: {}", .0.why)]
    Refused(Refusal),
    /// A person, or the system, wants us to end.
    #[error("Interrupted")]
    Interrupted,
}

impl LinkError {
    /// Whether a conversation that had begun was cut off, so that the next run goes on with it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        use ConnectError::{Hung, Interrupted, Lost};
        matches!(
            self,
            LinkError::Interrupted | LinkError::Connect(Lost { .. } | Hung { .. } | Interrupted)
        )
    }

    /// How a run ends because of it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        use protocol::message::RefusalKind;
        match self {
            LinkError::Connect(error) => error.exit_code(),
            LinkError::Protocol(_) => ExitCode::Error,
            LinkError::Interrupted => ExitCode::Temporary,
            LinkError::Refused(refusal) => match refusal.kind {
                RefusalKind::Usage => ExitCode::Usage,
                RefusalKind::Error => ExitCode::Error,
                RefusalKind::Unsafe => ExitCode::Unsafe,
                RefusalKind::Temporary => ExitCode::Temporary,
            },
        }
    }
}

/// A body to be sent: where it is read from here (`None` where it is not to be had any more), and from which byte on.
pub type Sending = (Option<Located>, u64);

/// Something for the agent.
enum Outbound {
    Request(Request),
    /// A batch with the bodies that follow it; `None` for one that is not to be had any more.
    Apply(Vec<Op>, Vec<Sending>),
    /// Where bodies are read from here.
    Source(Bodies),
}

/// Something from the agent.
#[derive(Debug)]
pub enum Answer {
    /// A message.
    Response(Response),
    /// A piece of a body, and whether it is the last.
    Body(Vec<u8>, bool),
}

/// An open connection.
pub struct Link {
    outbound: Sender<Outbound>,
    inbound: Intake<Result<Answer, protocol::Error>>,
    peer: Option<Peer>,
    /// Ends with the writing thread.
    written: Receiver<()>,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    silence: Silence,
    stop: Stop,
}

/// How long the end of a finished conversation is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the agent says, waited for no longer than connecting may take while it greets us; later whoever waits for an
/// answer sees to that.
struct Greeting {
    pipe: PipeReader,
    patience: Option<Patience>,
}

impl Read for Greeting {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.patience {
            Some(patience) if !wait_readable(&self.pipe, patience.left()) => {
                Err(io::ErrorKind::TimedOut.into())
            }
            _ => self.pipe.read(bytes),
        }
    }
}

impl Link {
    /// Reaches the agent and lets it introduce itself; `reached` is called once it has begun to speak, when nobody is asked
    /// for a password any more.
    ///
    /// # Errors
    /// When it cannot be reached, is something else, is too old or too new, or refuses.
    pub fn open(
        address: &Address,
        options: &ConnectOptions,
        hello: &Hello,
        reached: impl FnOnce(),
    ) -> Result<(Link, Welcome), LinkError> {
        let word = hello_word(hello).map_err(|error| LinkError::Protocol(error.to_string()))?;
        let Connection {
            reader,
            writer,
            peer,
            patience,
        } = connect(address, options, &word)?;
        reached();
        let pulse = Pulse::default();
        let greeting = Greeting {
            pipe: reader,
            patience: Some(patience),
        };
        let mut reader = BufReader::with_capacity(64 * 1024, Heard::new(greeting, pulse.clone()));
        match read_greeting(&mut reader) {
            Ok(greeting) if choose_version(VERSIONS, greeting.versions).is_none() => {
                let error = HandshakeError::Version {
                    ours: VERSIONS,
                    theirs: greeting.versions,
                };
                return Err(LinkError::Protocol(error.to_string()));
            }
            Ok(greeting) if !greeting.noise.is_empty() => {
                let noise = protocol::bytes::escape(&greeting.noise);
                tracing::info!("Before the agent spoke came: {noise}");
            }
            Ok(_) => {}
            Err(HandshakeError::NoMagic { noise }) => {
                drop(writer);
                return Err(peer.diagnose(&noise).into());
            }
            Err(HandshakeError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                drop(writer);
                return Err(peer.silent(patience).into());
            }
            Err(error) => return Err(LinkError::Protocol(error.to_string())),
        }
        reader.get_mut().get_mut().patience = None;
        let (sent, received) = (
            Arc::new(AtomicU64::new(word.len() as u64)),
            Arc::new(AtomicU64::new(0)),
        );
        let (outbound, to_send) = channel();
        let (mut to_read, inbound) = inflow();
        let (counter, heard) = (Arc::clone(&sent), pulse.clone());
        let (ended, written) = channel();
        std::thread::spawn(move || {
            write_all(writer, &to_send, &counter, heard);
            drop(ended);
        });
        let counter = Arc::clone(&received);
        std::thread::spawn(move || read_all(reader, &mut to_read, &counter));
        let mut link = Link {
            outbound,
            inbound,
            peer: Some(peer),
            written,
            sent,
            received,
            silence: Silence::new(options.timeout, pulse),
            stop: options.stop.clone(),
        };
        link.stop.tell(link.inbound.waker());
        match link.response()? {
            Response::Welcome(welcome) => Ok((link, welcome)),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for something.
    pub fn request(&self, request: Request) {
        // A writer that is gone has failed; the reader will say how the connection ended.
        let _ = self.outbound.send(Outbound::Request(request));
    }

    /// Sends a batch of operations and the bodies that belong to it.
    pub fn apply(&self, ops: Vec<Op>, bodies: Vec<Sending>) {
        let _ = self.outbound.send(Outbound::Apply(ops, bodies));
    }

    /// Says where bodies are read from.
    pub fn read_from(&self, bodies: Bodies) {
        let _ = self.outbound.send(Outbound::Source(bodies));
    }

    /// Whether the next answer is there, so that nobody needs to wait for it.
    #[must_use]
    pub fn has_answer(&self) -> bool {
        self.inbound.has_next()
    }

    /// The next answer, waited for until then, or until somebody wants us to end: `None` where it has not come.
    ///
    /// # Errors
    /// When the connection is lost, the agent has been silent for too long, it refuses, or what came is no answer.
    pub fn answer(&mut self, until: Option<Instant>) -> Result<Option<Answer>, LinkError> {
        loop {
            let slice = self.silence.slice();
            let begun = Instant::now();
            let end = until.map_or(begun + slice, |until| until.min(begun + slice));
            match self.inbound.next(end) {
                Next::Item(Ok(Answer::Response(Response::Busy))) => continue,
                Next::Item(Ok(Answer::Response(Response::Refused(refusal)))) => {
                    return Err(LinkError::Refused(refusal));
                }
                Next::Item(Ok(answer)) => return Ok(Some(answer)),
                Next::Item(Err(protocol::Error::Io(_))) | Next::End => return Err(self.lost()),
                Next::Item(Err(error)) => return Err(LinkError::Protocol(error.to_string())),
                Next::NotYet => {}
            }
            if self.silence.is_too_long(begun.elapsed()) {
                return Err(self.hung());
            }
            if self.stop.is_requested() || until.is_some_and(|until| until <= Instant::now()) {
                return Ok(None);
            }
        }
    }

    /// The next answer, which must be a message.
    ///
    /// # Errors
    /// Like [`Link::answer`].
    pub fn response(&mut self) -> Result<Response, LinkError> {
        match self.answer(None)? {
            Some(Answer::Response(response)) => Ok(response),
            Some(Answer::Body(..)) => Err(LinkError::Protocol(
                "A body came that nobody asked for".to_owned(),
            )),
            None => Err(LinkError::Interrupted),
        }
    }

    fn lost(&mut self) -> LinkError {
        match self.peer.take() {
            Some(peer) => LinkError::Connect(peer.diagnose_loss()),
            None => LinkError::Protocol("The connection was lost".to_owned()),
        }
    }

    fn hung(&mut self) -> LinkError {
        let seconds = self.silence.limit().as_secs();
        match self.peer.take() {
            Some(peer) => LinkError::Connect(peer.hung(seconds)),
            None => self.lost(),
        }
    }

    /// Ends a finished conversation; returns the bytes sent and received.
    pub fn close(self) -> (u64, u64) {
        let Link {
            outbound,
            inbound,
            peer,
            written,
            sent,
            received,
            ..
        } = self;
        drop(outbound);
        drop(inbound);
        let _ = written.recv_timeout(CLOSE_TIMEOUT);
        if let Some(peer) = peer {
            peer.close();
        }
        (
            sent.load(Ordering::Relaxed),
            received.load(Ordering::Relaxed),
        )
    }

    /// The bytes that went over the wire so far, sent and received.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.sent.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
        )
    }
}

/// What the driver says of an answer that makes no sense where it came.
#[must_use]
pub fn unexpected(response: &Response) -> LinkError {
    let text = format!("{response:?}");
    let name = text.split(['(', ' ', '{']).next().unwrap_or_default();
    LinkError::Protocol(format!(
        "The agent answered {name} where something else was due; install the same release on both sides"
    ))
}

fn write_all(
    pipe: Box<dyn Write + Send>,
    outbound: &Receiver<Outbound>,
    counter: &AtomicU64,
    pulse: Pulse,
) {
    let mut outflow = Outflow::new(pipe, counter, pulse);
    if let Err(error) = outflow.write_until_closed(outbound) {
        // The reader learns of a lost connection too, and knows more of why.
        tracing::debug!("Cannot write to the agent: {error}");
    }
}

fn read_all(
    reader: impl Read,
    inbound: &mut Feed<Result<Answer, protocol::Error>>,
    counter: &AtomicU64,
) {
    let mut reader = FrameReader::new(reader);
    loop {
        let (answer, bytes) = match reader.next() {
            Ok(Some(Frame::Message(bytes))) => (decode(&bytes).map(Answer::Response), bytes.len()),
            Ok(Some(Frame::Body { bytes, last })) => {
                let length = bytes.len();
                (Ok(Answer::Body(bytes, last)), length)
            }
            Ok(None) => return,
            Err(error) => (Err(error), 0),
        };
        counter.store(reader.bytes_read(), Ordering::Relaxed);
        let is_error = answer.is_err();
        let more_follows = reader.is_ahead() && !is_error;
        if !inbound.put(answer, bytes, more_follows) || is_error {
            return;
        }
    }
}
