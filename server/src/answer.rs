//! The agent's output: one stream that the worker and the sender of bodies share.

use std::fs::File;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use maildir::{Bodies, Located, Outlet, Pulse, Timed, send_body};
use protocol::Response;
use protocol::frame::FrameWriter;
use protocol::pace::{Pace, Reading};

use crate::work::Work;

/// The shared output; locked for one frame at a time, so that answers pass a large body between its chunks.
#[derive(Clone)]
pub(crate) struct Output(Arc<Mutex<FrameWriter<Timed<File>>>>);

/// A body that the client asked for, if it is there, and from which byte on.
pub(crate) type Wanted = (Option<Located>, u64);

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
) -> anyhow::Result<()> {
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
        let (located, offset) = next;
        let size = send_body(&mut Pieces(output), bodies, located.as_ref(), offset)?;
        if let Some(effort) = pace.sent(size, || output.read(begun, waited)) {
            output.lock().set_effort(effort);
        }
    }
}

/// Bodies on their way out.
struct Pieces<'o>(&'o Output);

impl Outlet for Pieces<'_> {
    type Error = anyhow::Error;

    fn say(&mut self, response: Response) -> Result<(), anyhow::Error> {
        Ok(self.0.lock().message(&response)?)
    }

    fn piece(&mut self, bytes: Vec<u8>, is_last: bool) -> Result<(), anyhow::Error> {
        Ok(self.0.lock().body_chunk(&bytes, is_last)?)
    }
}
