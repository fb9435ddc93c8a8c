//! The agent's output: one stream that the worker and the sender of bodies share.

use std::fs::File;
use std::io::Read;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use maildir::{Bodies, CHUNK_BYTES, Located, Outgoing, Pulse, Timed};
use protocol::Response;
use protocol::frame::FrameWriter;
use protocol::pace::{Pace, Reading};

use crate::alive::Work;

/// The shared output; locked for one frame at a time, so that answers pass a large body between its chunks.
#[derive(Clone)]
pub(crate) struct Output(Arc<Mutex<FrameWriter<Timed<File>>>>);

/// A body that the client asked for.
pub(crate) enum Wanted {
    /// It is there.
    Body(Located, u64),
    /// It is not; the client may see it in its next run.
    Gone,
}

impl Output {
    pub(crate) fn new(file: File, pulse: Pulse) -> Output {
        let writer = FrameWriter::new(Timed::new(file, pulse));
        Output(Arc::new(Mutex::new(writer)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, FrameWriter<Timed<File>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it is since the beginning, how much of that was spent waiting, for the pipe too, and what went out.
    pub(crate) fn read(&self, begun: Instant, waited: Duration) -> Reading {
        let output = self.lock();
        Reading {
            elapsed: begun.elapsed(),
            waited: waited + output.get_ref().blocked(),
            written: output.bytes_written(),
        }
    }

    /// The same, unless somebody else is sending, if it is still so.
    pub(crate) fn say_if(
        &self,
        is_so: impl Fn() -> bool,
        response: &Response,
    ) -> protocol::Result<()> {
        match self.0.try_lock() {
            Ok(mut output) if is_so() => {
                output.message(response)?;
                output.flush()
            }
            _ => Ok(()),
        }
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
    work: &Work,
) -> protocol::Result<()> {
    let (begun, mut waited) = (Instant::now(), Duration::ZERO);
    let mut pace = Pace::new(output.read(begun, waited));
    loop {
        let next = match wanted.try_recv() {
            Ok(next) => next,
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {
                // The client waits for what was sent so far.
                output.lock().flush()?;
                let idle = Instant::now();
                let Ok(next) = work.rest(|| wanted.recv()) else {
                    return Ok(());
                };
                waited += idle.elapsed();
                next
            }
        };
        let size = send_body(output, bodies, &next)?;
        if let Some(effort) = pace.sent(size, || output.read(begun, waited)) {
            output.lock().set_effort(effort);
        }
    }
}

/// Sends one body, or why it is unavailable; returns its length.
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
