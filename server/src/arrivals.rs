//! What arrives for the agent: frames from its client, read on a thread of their own, and calls of whoever watches the tree.

use std::fs::File;
use std::io::{self, BufReader};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use maildir::{Heard, Pulse};
use protocol::Request;
use protocol::codec::encode;
use protocol::frame::{Frame, FrameReader};

use crate::alive::end_with;

/// How many frames are read ahead of the work.
const FRAMES_AHEAD: usize = 16;

/// One of both.
pub(crate) enum Arrival {
    /// From the client.
    Frame(Frame),
    /// Something happened in the tree.
    Call,
}

/// Whoever waits for frames would do so for ever if the thread that reads them were gone.
struct EndsAll;

impl Drop for EndsAll {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::exit(1);
        }
    }
}

/// Frames and calls, in the order in which they came.
pub(crate) struct Arrivals {
    sender: SyncSender<Arrival>,
    receiver: Receiver<Arrival>,
}

impl Arrivals {
    /// Reads stdin on a thread of its own. When the client goes away before it finished, the process ends there and then:
    /// everything is made to be killed at any moment, and nobody is left to hear. A conversation that has rounds ends no other way.
    pub(crate) fn read(input: File, pulse: Pulse, has_rounds: bool) -> (Arrivals, JoinHandle<()>) {
        let (sender, receiver) = sync_channel(FRAMES_AHEAD);
        let arrivals = Arrivals {
            sender: sender.clone(),
            receiver,
        };
        let reader = std::thread::spawn(move || {
            let _end = EndsAll;
            let rest = input.try_clone();
            let mut reader = FrameReader::new(BufReader::new(Heard::new(input, pulse)));
            loop {
                match reader.next() {
                    Ok(Some(frame)) => {
                        let is_end = !has_rounds
                            && matches!(&frame, Frame::Message(bytes) if *bytes == encode(&Request::Finish));
                        if sender.send(Arrival::Frame(frame)).is_err() {
                            return;
                        }
                        if is_end {
                            // Nothing more is expected but the end.
                            let _ = rest.and_then(|mut rest| io::copy(&mut rest, &mut io::sink()));
                            return;
                        }
                    }
                    Ok(None) => std::process::exit(0),
                    Err(error) => end_with(&error),
                }
            }
        });
        (arrivals, reader)
    }

    /// A function that calls. One call that was not heard yet is as good as many, so it never waits.
    pub(crate) fn caller(&self) -> impl Fn() + Send + Sync + 'static {
        let sender = self.sender.clone();
        move || drop(sender.try_send(Arrival::Call))
    }

    /// The next frame, waited for as long as the client may be silent; calls are passed over.
    pub(crate) fn frame(&self, patience: Duration) -> anyhow::Result<Frame> {
        let until = Instant::now() + patience;
        loop {
            match self.next(until)? {
                Some(Arrival::Frame(frame)) => return Ok(frame),
                Some(Arrival::Call) => {}
                None => anyhow::bail!("The client has been silent for too long"),
            }
        }
    }

    /// Whatever comes next, or nothing until then.
    pub(crate) fn next(&self, until: Instant) -> anyhow::Result<Option<Arrival>> {
        let left = until.saturating_duration_since(Instant::now());
        match self.receiver.recv_timeout(left) {
            Ok(arrival) => Ok(Some(arrival)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
