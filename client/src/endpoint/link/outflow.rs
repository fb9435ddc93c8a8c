//! What goes to the agent: requests as they are, and the bodies of batches behind them.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use maildir::{Pulse, Timed};
use protocol::frame::{Effort, FrameWriter};
use protocol::pace::{Pace, Reading};
use protocol::{Op, Request};

use super::Outbound;
use crate::endpoint::Bell;

/// What the driver knows of it.
pub(super) struct Counters {
    /// How many bytes went out, those before the stream included.
    pub(super) sent: Arc<AtomicU64>,
    /// How many bytes of bodies wait for it.
    pub(super) unwritten: Arc<AtomicU64>,
    /// Rung when there is room for more.
    pub(super) bell: Bell,
}

/// The writing half of the connection.
pub(super) struct Outflow {
    writer: FrameWriter<Timed<Box<dyn Write + Send>>>,
    counters: Counters,
    /// How many bytes went out before the stream.
    before: u64,
    begun: Instant,
    /// For how long there was nothing to send.
    waited: Duration,
    /// How bodies are compressed, from the first one on.
    pace: Option<Pace>,
    /// How many bodies of a batch are still to come. Nothing may come between them, and nothing is waited for that is not flushed.
    due: usize,
    /// What was asked for meanwhile.
    held: VecDeque<Request>,
    /// How many bytes of the one that comes have come.
    length: u64,
}

impl Outflow {
    /// Begins the stream.
    pub(super) fn new(pipe: Box<dyn Write + Send>, counters: Counters, pulse: Pulse) -> Outflow {
        let mut writer = FrameWriter::new(Timed::new(pipe, pulse));
        // Lists of what is wanted are digests for the most part: hard work makes them no shorter (800 took 40,071 bytes
        // with it and 39,963 without).
        writer.set_effort(Effort::Fast);
        Outflow {
            writer,
            before: counters.sent.load(Ordering::Relaxed),
            counters,
            begun: Instant::now(),
            waited: Duration::ZERO,
            pace: None,
            due: 0,
            held: VecDeque::new(),
            length: 0,
        }
    }

    /// Writes what comes, until nothing more can come; flushes where nothing is there and the agent can do something with what
    /// it has.
    pub(super) fn write_until_closed(
        &mut self,
        outbound: &Receiver<Outbound>,
    ) -> protocol::Result<()> {
        loop {
            let next = match outbound.try_recv() {
                Ok(next) => next,
                Err(TryRecvError::Empty) => {
                    if self.due == 0 {
                        self.writer.flush()?;
                    }
                    self.count();
                    let idle = Instant::now();
                    let Ok(next) = outbound.recv() else { break };
                    self.waited += idle.elapsed();
                    next
                }
                Err(TryRecvError::Disconnected) => break,
            };
            match next {
                Outbound::Request(request) => self.held.push_back(request),
                Outbound::Body(bytes, is_last) => self.write_piece(&bytes, is_last)?,
            }
            self.write_requests()?;
        }
        self.writer.finish()?;
        self.count();
        Ok(())
    }

    /// Writes what was asked for, up to a batch whose bodies are to come.
    fn write_requests(&mut self) -> protocol::Result<()> {
        while self.due == 0
            && let Some(request) = self.held.pop_front()
        {
            if let Request::Apply(ops) = &request {
                self.due = ops.iter().filter_map(Op::wired).count();
            }
            self.writer.message(&request)?;
        }
        Ok(())
    }

    fn count(&self) {
        let written = self.writer.bytes_written();
        self.counters
            .sent
            .store(self.before + written, Ordering::Relaxed);
    }

    /// How long it is since the beginning, how much of that was spent waiting, for the pipe too, and what went out.
    fn read(&self) -> Reading {
        Reading {
            elapsed: self.begun.elapsed(),
            waited: self.waited + self.writer.get_ref().blocked(),
            written: self.writer.bytes_written(),
        }
    }

    fn write_piece(&mut self, bytes: &[u8], is_last: bool) -> protocol::Result<()> {
        if self.pace.is_none() {
            self.pace = Some(Pace::new(self.read()));
            self.writer.set_effort(Effort::Dense);
        }
        self.writer.body_chunk(bytes, is_last)?;
        let count = bytes.len() as u64;
        self.counters.unwritten.fetch_sub(count, Ordering::SeqCst);
        self.counters.bell.ring();
        self.length += count;
        if !is_last {
            return Ok(());
        }
        self.due = self.due.saturating_sub(1);
        self.count();
        let (length, now) = (std::mem::take(&mut self.length), self.read());
        let effort = self
            .pace
            .as_mut()
            .and_then(|pace| pace.sent(length, || now));
        if let Some(effort) = effort {
            self.writer.set_effort(effort);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use protocol::codec::decode;
    use protocol::frame::{Frame, FrameReader};
    use protocol::message::{At, NewBody, Source};
    use protocol::{Digest, FolderDir, Info, Unique};

    use super::*;

    const LENGTH: usize = 1_000_000;

    /// Four letters in no order: hard work makes a quarter of them, light work more than half.
    fn letters(seed: u64) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        let mut noise = vec![0; LENGTH];
        hasher.finalize_xof().fill(&mut noise);
        let letter = |byte: u8| b"acgt"[usize::from(byte % 4)];
        noise.into_iter().map(letter).collect()
    }

    /// Sends so many bodies over a pipe that never blocks, with a pause before each batch of so many; returns how many bytes
    /// went out.
    fn send(count: u64, batch: u64, pause: Duration) -> u64 {
        let (sender, outbound) = sync_channel(1);
        let bodies: Vec<_> = (0..count).map(letters).collect();
        let driver = std::thread::spawn(move || {
            for (number, body) in (0..).zip(bodies) {
                if number % batch == 0 {
                    std::thread::sleep(pause);
                }
                let sent = sender.send(Outbound::Body(body, true));
                sent.expect("it is taken");
            }
        });
        let counters = Counters {
            sent: Arc::new(AtomicU64::new(7)),
            unwritten: Arc::new(AtomicU64::new(count * LENGTH as u64)),
            bell: Bell::default(),
        };
        let (sent, unwritten) = (counters.sent.clone(), counters.unwritten.clone());
        let mut outflow = Outflow::new(Box::new(std::io::sink()), counters, Pulse::default());
        let written = outflow.write_until_closed(&outbound);
        written.expect("it is written");
        driver.join().expect("all was sent");
        assert_eq!(unwritten.load(Ordering::SeqCst), 0);
        sent.load(Ordering::Relaxed)
    }

    /// What is asked for while the bodies of a batch come follows the last of them.
    #[test]
    fn nothing_comes_between_a_batch_and_its_bodies() {
        let create = |unique: &[u8]| Op::Create {
            at: At {
                number: None,
                folder: FolderDir::root(),
                unique: Unique::new(unique).expect("a name"),
                copy: 0,
            },
            in_new: true,
            info: Info::default(),
            body: NewBody {
                digest: Digest::of(b""),
                size: 0,
                mtime_ns: 0,
                source: Source::Body { offset: 0 },
            },
        };
        let (sender, outbound) = std::sync::mpsc::channel();
        let fetch = || Outbound::Request(Request::Fetch(Vec::new()));
        let body = || Outbound::Body(Vec::new(), true);
        let batch = Request::Apply(vec![create(b"1.a"), create(b"2.a")]);
        let sent = [Outbound::Request(batch), fetch(), body(), fetch(), body()];
        for next in sent.into_iter().chain([Outbound::Request(Request::Finish)]) {
            sender.send(next).expect("it is taken");
        }
        drop(sender);
        let (read, write) = std::io::pipe().expect("a pipe");
        let counters = Counters {
            sent: Arc::default(),
            unwritten: Arc::default(),
            bell: Bell::default(),
        };
        let mut outflow = Outflow::new(Box::new(write), counters, Pulse::default());
        let written = outflow.write_until_closed(&outbound);
        written.expect("it is written");
        drop(outflow);
        let mut reader = FrameReader::new(read);
        let kinds: Vec<&str> = std::iter::from_fn(|| reader.next().expect("frames"))
            .map(|frame| match frame {
                Frame::Body { .. } => "body",
                Frame::Message(bytes) => match decode(&bytes).expect("a request") {
                    Request::Apply(_) => "batch",
                    Request::Fetch(_) => "fetch",
                    _ => "end",
                },
            })
            .collect();
        let expected = ["batch", "body", "body", "fetch", "fetch", "end"];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn where_nothing_blocks_bodies_go_out_with_little_work() {
        let sent = send(50, 50, Duration::ZERO);
        let all = 50 * LENGTH as u64;
        assert!(sent > all * 4 / 10, "{sent} of {all} bytes");
        assert!(sent < all * 9 / 10, "the first ones were compressed");
    }

    #[test]
    fn where_the_driver_waits_for_its_peer_hard_work_delays_nobody() {
        let sent = send(28, 7, Duration::from_millis(500));
        let all = 28 * LENGTH as u64;
        assert!(sent < all * 4 / 10, "{sent} of {all} bytes");
    }
}
