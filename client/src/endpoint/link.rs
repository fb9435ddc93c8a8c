//! The connection as the driver sees it: requests go in, answers come out, and neither waits for the other.
//!
//! One thread writes, one reads. The driver never blocks on writing, and the reader never waits for the writer, so that
//! both ends always keep reading (`docs/protocol.md`, "flow").

use std::io::{self, BufReader, PipeReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use maildir::{Heard, Pulse};
use protocol::codec::decode;
use protocol::frame::{Frame, FrameReader};
use protocol::handshake::{HandshakeError, VERSIONS, choose_version, hello_word, read_greeting};
use protocol::message::{Hello, Refusal, Welcome};
use protocol::{Request, Response};

use crate::config::address::Address;
use crate::endpoint::connect::connect;
use crate::endpoint::inflow::{Feed, Intake, Next, inflow};
use crate::endpoint::stop::{Call, Stop};
use crate::endpoint::transport::{
    ConnectError, ConnectOptions, Connection, Patience, Peer, wait_readable,
};
use crate::endpoint::{Answer, Bell, Endpoint, EndpointError, unexpected};
use crate::report::exit_code::ExitCode;

mod outflow;
mod silence;
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

    /// Whether no further try mends it, until the network, the configuration or the server is another one.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        use ConnectError::{Denied, HostKey, NotInstalled, OpenKey, Options, Start, Stranger};
        match self {
            LinkError::Connect(error) => matches!(
                error,
                Denied { .. }
                    | OpenKey { .. }
                    | HostKey { .. }
                    | Options(_)
                    | Start { .. }
                    | NotInstalled { .. }
                    | Stranger { .. }
            ),
            LinkError::Protocol(_) => true,
            LinkError::Refused(refusal) => refusal.kind == protocol::message::RefusalKind::Usage,
            LinkError::Interrupted => false,
        }
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

/// What the reading thread has for the driver.
type Arrived = Result<Answer, protocol::Error>;

/// Something for the agent.
enum Outbound {
    Request(Request),
    /// A piece of a body of the last batch, and whether it is the last.
    Body(Vec<u8>, bool),
}

/// How many bytes of bodies may wait to be written, besides one piece.
const UNWRITTEN_BYTES_MAX: u64 = 1 << 20;

/// An open connection.
pub struct Link {
    outbound: Sender<Outbound>,
    /// How many bytes of bodies wait to be written.
    unwritten: Arc<AtomicU64>,
    inbound: Intake<Arrived>,
    peer: Option<Peer>,
    /// Ends with the writing thread.
    written: Receiver<()>,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    silence: Silence,
    /// The bytes of earlier rounds, sent and received.
    before: (u64, u64),
    stop: Stop,
    /// Rings when we are asked to end.
    _call: Call,
}

/// What an agent says between rounds.
#[derive(Debug)]
pub enum Between {
    /// The round that waited has begun.
    Began(Welcome),
    /// How it hears of changes: empty where the system reports them, else why not.
    Waits(String),
    /// It is there.
    Alive,
}

/// How long the end of a finished conversation is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the agent says, waited for no longer than connecting may take while it greets us; later the one who waits for an
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

/// Reads the agent's greeting, which names a version that we speak, too.
fn hear_greeting(reader: &mut impl io::BufRead) -> Result<(), HandshakeError> {
    let greeting = read_greeting(reader)?;
    if choose_version(VERSIONS, greeting.versions).is_none() {
        return Err(HandshakeError::Version {
            ours: VERSIONS,
            theirs: greeting.versions,
        });
    }
    if !greeting.noise.is_empty() {
        let noise = protocol::bytes::escape(&greeting.noise);
        tracing::info!("Before the agent spoke came: {noise}");
    }
    Ok(())
}

impl Link {
    /// Reaches the agent and lets it introduce itself; `reached` is called once it has begun to speak, when no question is asked
    /// for a password any more.
    ///
    /// # Errors
    /// When it cannot be reached, is something else, is too old or too new, or refuses.
    pub fn open(
        address: &Address,
        options: &ConnectOptions,
        hello: &Hello,
        bell: &Bell,
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
        if let Err(error) = hear_greeting(&mut reader) {
            drop(writer);
            return Err(match error {
                HandshakeError::NoMagic { noise } => peer.diagnose(&noise).into(),
                HandshakeError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                    peer.silent(patience).into()
                }
                other => LinkError::Protocol(other.to_string()),
            });
        }
        reader.get_mut().get_mut().patience = None;
        let (sent, received) = (
            Arc::new(AtomicU64::new(word.len() as u64)),
            Arc::new(AtomicU64::new(0)),
        );
        let (outbound, to_send) = channel();
        let (mut to_read, inbound) = inflow(bell);
        let unwritten = Arc::new(AtomicU64::new(0));
        let counters = outflow::Counters {
            sent: Arc::clone(&sent),
            unwritten: Arc::clone(&unwritten),
            bell: bell.clone(),
        };
        let heard = pulse.clone();
        let (ended, written) = channel();
        std::thread::spawn(move || {
            write_all(writer, &to_send, counters, heard);
            drop(ended);
        });
        let counter = Arc::clone(&received);
        std::thread::spawn(move || read_all(reader, &mut to_read, &counter));
        let waker = bell.clone();
        let mut link = Link {
            outbound,
            unwritten,
            inbound,
            peer: Some(peer),
            written,
            sent,
            received,
            silence: Silence::new(options.timeout, pulse),
            before: (0, 0),
            stop: options.stop.clone(),
            _call: options.stop.on_request(move || waker.ring()),
        };
        let welcome = link.welcome()?;
        Ok((link, welcome))
    }

    /// How the agent introduces itself, at the beginning of a round that was asked for.
    ///
    /// # Errors
    /// When it refuses, or says something else, or nothing for too long.
    pub fn welcome(&mut self) -> Result<Welcome, LinkError> {
        loop {
            match self.answer()? {
                Answer::Response(answer) => match between(answer)? {
                    Some(Between::Began(welcome)) => return Ok(welcome),
                    Some(Between::Waits(_) | Between::Alive) | None => {}
                },
                Answer::Body(..) => return Err(unasked()),
            }
        }
    }

    /// Asks for the next round, which waits for news, or to be begun.
    pub fn ask_next(&mut self, hello: Hello) {
        self.before = (
            self.sent.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
        );
        self.request(Request::Round(Box::new(hello)));
    }

    /// What the agent has said since, while a round waits.
    ///
    /// # Errors
    /// When the connection is lost, or it says something else.
    pub fn said_between(&mut self) -> Result<Option<Between>, LinkError> {
        loop {
            let next = self.inbound.next();
            match self.judge(next)? {
                None => return Ok(None),
                Some(Answer::Response(answer)) => match between(answer)? {
                    None => {}
                    said => return Ok(said),
                },
                Some(Answer::Body(..)) => return Err(unasked()),
            }
        }
    }

    /// How many bytes have come in all: the agent's sign of life.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Gives up an agent that was silent for so long.
    #[must_use]
    pub fn give_up(mut self, seconds: u64) -> LinkError {
        match self.peer.take() {
            Some(peer) => LinkError::Connect(peer.hung(seconds)),
            None => self.lost(),
        }
    }

    fn judge(&mut self, next: Next<Arrived>) -> Result<Option<Answer>, LinkError> {
        match next {
            Next::Item(Ok(Answer::Response(Response::Refused(refusal)))) => {
                Err(LinkError::Refused(refusal))
            }
            Next::Item(Ok(answer)) => Ok(Some(answer)),
            Next::Item(Err(protocol::Error::Io(_))) | Next::End => Err(self.lost()),
            Next::Item(Err(error)) => Err(LinkError::Protocol(error.to_string())),
            Next::NotYet => Ok(None),
        }
    }

    /// Whatever comes next, waited for until we are asked to end.
    fn answer(&mut self) -> Result<Answer, LinkError> {
        loop {
            let (begun, slice) = (Instant::now(), self.silence.slice());
            let next = self.inbound.wait(begun + slice);
            match self.judge(next)? {
                Some(Answer::Response(Response::Busy)) => {}
                Some(answer) => return Ok(answer),
                None if self.stop.is_requested() => return Err(LinkError::Interrupted),
                None if self.silence.is_too_long(begun.elapsed()) => return Err(self.hung()),
                None => {}
            }
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
            before,
            ..
        } = self;
        drop(outbound);
        drop(inbound);
        let _ = written.recv_timeout(CLOSE_TIMEOUT);
        if let Some(peer) = peer {
            peer.close();
        }
        (
            sent.load(Ordering::Relaxed) - before.0,
            received.load(Ordering::Relaxed) - before.1,
        )
    }

    /// The bytes that went over the wire so far in this round, sent and received.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.sent.load(Ordering::Relaxed) - self.before.0,
            self.received.load(Ordering::Relaxed) - self.before.1,
        )
    }
}

impl Endpoint for Link {
    fn request(&mut self, request: Request) {
        // A writer that is gone has failed; the reader will say how the connection ended.
        let _ = self.outbound.send(Outbound::Request(request));
    }

    fn body(&mut self, bytes: Vec<u8>, is_last: bool) -> Result<(), EndpointError> {
        let count = bytes.len() as u64;
        self.unwritten.fetch_add(count, Ordering::SeqCst);
        let _ = self.outbound.send(Outbound::Body(bytes, is_last));
        Ok(())
    }

    fn cut_off(&mut self) -> bool {
        false // The agent ends with the connection, and keeps what has come of a large body.
    }

    fn has_room(&self) -> bool {
        self.unwritten.load(Ordering::SeqCst) < UNWRITTEN_BYTES_MAX
    }

    fn poll(&mut self) -> Result<Option<Answer>, EndpointError> {
        loop {
            let next = self.inbound.next();
            match self.judge(next)? {
                Some(Answer::Response(Response::Busy)) => {}
                answer => return Ok(answer),
            }
        }
    }

    fn response(&mut self) -> Result<Response, EndpointError> {
        match self.answer()? {
            Answer::Response(response) => Ok(response),
            Answer::Body(..) => Err(unasked().into()),
        }
    }

    fn waited(&mut self, time: Duration) -> Result<(), EndpointError> {
        match self.silence.is_too_long(time) {
            true => Err(self.hung().into()),
            false => Ok(()),
        }
    }

    fn rest(&mut self) {}
}

fn unasked() -> LinkError {
    LinkError::Protocol("A body came that nobody asked for".to_owned())
}

/// Takes an answer between rounds; nothing where it says nothing new.
fn between(answer: Response) -> Result<Option<Between>, LinkError> {
    match answer {
        Response::Welcome(welcome) => Ok(Some(Between::Began(welcome))),
        Response::Waits { polling } => Ok(Some(Between::Waits(polling))),
        Response::Alive => Ok(Some(Between::Alive)),
        // The end of a round in which nothing was asked is not waited for; and it may be looking.
        Response::Finished { .. } | Response::Busy => Ok(None),
        other => Err(unexpected(&other)),
    }
}

fn write_all(
    pipe: Box<dyn Write + Send>,
    outbound: &Receiver<Outbound>,
    counters: outflow::Counters,
    pulse: Pulse,
) {
    let mut outflow = Outflow::new(pipe, counters, pulse);
    if let Err(error) = outflow.write_until_closed(outbound) {
        // The reader learns of a lost connection too, and knows more of why.
        tracing::debug!("Cannot write to the agent: {error}");
    }
}

fn read_all(reader: impl Read, inbound: &mut Feed<Arrived>, counter: &AtomicU64) {
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
