//! The agent's output: one stream that the worker and the sender of bodies share.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use maildir::{Bodies, CHUNK_BYTES, Located, Outgoing};
use protocol::Response;
use protocol::frame::{Effort, FrameWriter};

/// The shared output; locked for one frame at a time, so that answers pass a large body between its chunks.
#[derive(Clone)]
pub(crate) struct Output(Arc<Mutex<FrameWriter<Timed>>>, Arc<AtomicU64>);

/// A pipe, and for how many nanoseconds writing to it has blocked: that tells whether the link or the processor is slow.
pub(crate) struct Timed(File, Arc<AtomicU64>);

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let begun = Instant::now();
        let written = self.0.write(bytes);
        self.1.fetch_add(
            u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        written
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Chooses how hard to compress bodies. Bytes are dear on a slow link. On a fast one whoever is slowest decides, link or
/// either processor, and nobody here knows which that is: so two efforts are tried, and the faster one goes on.
struct Pace {
    effort: Effort,
    /// How many bytes of bodies a second went out with each of the two, when it was last tried.
    speeds: [f64; 2],
    /// How many bytes of bodies are sent before the pace is looked at.
    period: u64,
    sent: u64,
    begun: Instant,
    blocked_ns: u64,
    written: u64,
}

/// How many bytes of bodies tell whether the link is slow.
const LOOK_BYTES: u64 = 2 << 20;
/// How many bytes tell how fast an effort is: more than what is under way to the client.
const TRIAL_BYTES: u64 = 16 << 20;
/// For how many bytes a choice is good.
const CHOICE_BYTES: u64 = 128 << 20;
/// From how many compressed bytes a second on hard work saves less on a link than it takes: 200 Mbit/s.
const FAST_LINK_BYTES: f64 = 25e6;

impl Pace {
    fn new(output: &Output) -> Pace {
        let mut pace = Pace {
            // Until it is known better, bytes are dear: most runs end before it is.
            effort: Effort::Dense,
            speeds: [0.0; 2],
            period: LOOK_BYTES,
            sent: 0,
            begun: Instant::now(),
            blocked_ns: 0,
            written: 0,
        };
        pace.begin(output, Effort::Dense, LOOK_BYTES);
        pace
    }

    fn begin(&mut self, output: &Output, effort: Effort, period: u64) {
        let mut writer = output.lock();
        writer.set_effort(effort);
        (self.effort, self.period, self.sent) = (effort, period, 0);
        (self.begun, self.written) = (Instant::now(), writer.bytes_written());
        self.blocked_ns = output.1.load(Ordering::Relaxed);
    }

    fn sent(&mut self, output: &Output, bytes: u64) {
        self.sent += bytes;
        let looks = self.sent - bytes < LOOK_BYTES && self.sent >= LOOK_BYTES;
        if !looks && self.sent < self.period {
            return;
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        let blocked_ns = output.1.load(Ordering::Relaxed) - self.blocked_ns;
        let rate = (output.lock().bytes_written() - self.written) as f64 / seconds;
        if blocked_ns as f64 > seconds * 5e8 && rate < FAST_LINK_BYTES {
            self.speeds = [0.0; 2];
            return self.begin(output, Effort::Dense, LOOK_BYTES);
        }
        if self.sent < self.period {
            return;
        }
        let speed = self.sent as f64 / seconds;
        let (effort, period) = match self.effort {
            Effort::Dense => (Effort::Fast, TRIAL_BYTES),
            Effort::Fast => self.choose(0, speed, Effort::Light),
            Effort::Light => self.choose(1, speed, Effort::Fast),
        };
        self.begin(output, effort, period);
    }

    /// What comes after an effort was tried, or was good for long enough.
    fn choose(&mut self, this: usize, speed: f64, other: Effort) -> (Effort, u64) {
        self.speeds[this] = speed;
        if self.period == CHOICE_BYTES {
            return (other, TRIAL_BYTES);
        }
        let is_other_faster = self.speeds[1 - this] > speed;
        if self.speeds[1 - this] == 0.0 {
            (other, TRIAL_BYTES)
        } else if is_other_faster {
            (other, CHOICE_BYTES)
        } else {
            (self.effort, CHOICE_BYTES)
        }
    }
}

/// A body that the client asked for.
pub(crate) enum Wanted {
    /// It is there.
    Body(Located, u64),
    /// It is not; the client may see it in its next run.
    Gone,
}

impl Output {
    pub(crate) fn new(file: File) -> Output {
        let blocked = Arc::new(AtomicU64::new(0));
        Output(
            Arc::new(Mutex::new(FrameWriter::new(Timed(
                file,
                Arc::clone(&blocked),
            )))),
            blocked,
        )
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, FrameWriter<Timed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an answer and makes it readable for the client at once.
    pub(crate) fn say(&self, response: &Response) -> protocol::Result<()> {
        let mut output = self.lock();
        output.message(response)?;
        output.flush()
    }
}

/// Sends bodies in the order in which they were asked for, until the asker hangs up.
pub(crate) fn send_bodies(
    output: &Output,
    bodies: &Bodies,
    wanted: &Receiver<Wanted>,
) -> protocol::Result<()> {
    let mut pace = Pace::new(output);
    loop {
        let next = match wanted.try_recv() {
            Ok(next) => next,
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {
                // The client waits for what was sent so far.
                output.lock().flush()?;
                match wanted.recv() {
                    Ok(next) => next,
                    Err(_) => return Ok(()),
                }
            }
        };
        let size = send_body(output, bodies, &next)?;
        pace.sent(output, size);
    }
}

/// Sends one body, or why it is not to be had; returns its length.
fn send_body(output: &Output, bodies: &Bodies, wanted: &Wanted) -> protocol::Result<u64> {
    let opened = match wanted {
        Wanted::Body(located, offset) => bodies.open(located, *offset),
        Wanted::Gone => Err(std::io::ErrorKind::NotFound.into()),
    };
    match opened {
        Ok(Outgoing::Small(bytes)) => {
            output.lock().body_chunk(&bytes, true)?;
            Ok(bytes.len() as u64)
        }
        Ok(Outgoing::Large(file, left)) => send_large(output, file, left).map(|()| left),
        Err(error) => {
            let timing = matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::Interrupted
            );
            let why = if timing {
                String::new()
            } else {
                error.to_string()
            };
            output.lock().message(&Response::NoBody { why })?;
            Ok(0)
        }
    }
}

/// Sends a large file; if it cannot be read to its end, the client sees by the digest that it is not whole.
fn send_large(output: &Output, file: File, left: u64) -> protocol::Result<()> {
    let mut file = file.take(left);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = file.read(&mut buffer).unwrap_or_else(|error| {
            tracing::warn!("A message could not be read to its end: {error}");
            0
        });
        output.lock().body_chunk(&buffer[..count], count == 0)?;
        if count == 0 {
            return Ok(());
        }
    }
}
