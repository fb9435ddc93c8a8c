//! What goes to the agent: requests as they are, batches with their bodies behind them.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use maildir::{Bodies, CHUNK_BYTES, Located, Outgoing, Pulse, Timed};
use protocol::Request;
use protocol::frame::{Effort, FrameWriter};
use protocol::pace::{Pace, Reading};

use super::Outbound;

/// The writing half of the connection.
pub(super) struct Outflow<'a> {
    writer: FrameWriter<Timed<Box<dyn Write + Send>>>,
    /// How many bytes went out, those before the stream included.
    counter: &'a AtomicU64,
    before: u64,
    source: Option<Bodies>,
    begun: Instant,
    /// For how long there was nothing to send.
    waited: Duration,
    /// How bodies are compressed, from the first one on.
    pace: Option<Pace>,
}

impl Outflow<'_> {
    /// Begins the stream.
    pub(super) fn new(
        pipe: Box<dyn Write + Send>,
        counter: &AtomicU64,
        pulse: Pulse,
    ) -> Outflow<'_> {
        let mut writer = FrameWriter::new(Timed::new(pipe, pulse));
        // Lists of what is wanted are digests for the most part: hard work makes them no shorter (800 took 40,071 bytes
        // with it and 39,963 without).
        writer.set_effort(Effort::Fast);
        Outflow {
            writer,
            counter,
            before: counter.load(Ordering::Relaxed),
            source: None,
            begun: Instant::now(),
            waited: Duration::ZERO,
            pace: None,
        }
    }

    /// Writes what comes, until nothing more can come; flushes whenever nothing is there.
    pub(super) fn write_until_closed(
        &mut self,
        outbound: &Receiver<Outbound>,
    ) -> protocol::Result<()> {
        loop {
            let next = match outbound.try_recv() {
                Ok(next) => next,
                Err(TryRecvError::Empty) => {
                    self.writer.flush()?;
                    self.count();
                    let idle = Instant::now();
                    let Ok(next) = outbound.recv() else { break };
                    self.waited += idle.elapsed();
                    next
                }
                Err(TryRecvError::Disconnected) => break,
            };
            match next {
                Outbound::Request(request) => self.writer.message(&request)?,
                Outbound::Source(bodies) => self.source = Some(bodies),
                Outbound::Apply(ops, bodies) => {
                    self.writer.message(&Request::Apply(ops))?;
                    for (located, offset) in bodies {
                        self.write_body(located.as_ref(), offset)?;
                        self.count();
                    }
                }
            }
        }
        self.writer.finish()?;
        self.count();
        Ok(())
    }

    fn count(&self) {
        let written = self.writer.bytes_written();
        self.counter.store(self.before + written, Ordering::Relaxed);
    }

    /// How long it is since the beginning, how much of that was spent waiting, for the pipe too, and what went out.
    fn read(&self) -> Reading {
        Reading {
            elapsed: self.begun.elapsed(),
            waited: self.waited + self.writer.get_ref().blocked(),
            written: self.writer.bytes_written(),
        }
    }

    /// Sends a body; one that is not to be had is sent empty, which the agent sees by its digest.
    fn write_body(&mut self, located: Option<&Located>, offset: u64) -> protocol::Result<()> {
        if self.pace.is_none() {
            self.pace = Some(Pace::new(self.read()));
            self.writer.set_effort(Effort::Dense);
        }
        let source = self.source.as_ref().zip(located);
        let bytes = match source.map(|(source, located)| source.open(located, offset)) {
            Some(Ok(Outgoing::Small(bytes))) => {
                self.writer.body_chunk(&bytes, true)?;
                bytes.len() as u64
            }
            Some(Ok(Outgoing::Large(file, left))) => {
                let mut file = file.take(left);
                let mut buffer = vec![0; CHUNK_BYTES];
                loop {
                    let read = file.read(&mut buffer).unwrap_or(0);
                    self.writer.body_chunk(&buffer[..read], read == 0)?;
                    if read == 0 {
                        break left;
                    }
                }
            }
            missing => {
                if let Some(Err(error)) = missing {
                    tracing::info!("A message is not to be had now: {error}");
                }
                self.writer.body_chunk(&[], true)?;
                0
            }
        };
        let now = self.read();
        let told = self.pace.as_mut().and_then(|pace| pace.sent(bytes, || now));
        if let Some(effort) = told {
            self.writer.set_effort(effort);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::mpsc::sync_channel;

    use maildir::Replica;
    use protocol::message::At;
    use protocol::{Digest, FolderDir, Unique};

    use super::super::Sending;
    use super::*;

    /// Four letters in no order: hard work makes a quarter of them, light work more than half.
    fn letters(seed: u64, length: usize) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        let mut noise = vec![0; length];
        hasher.finalize_xof().fill(&mut noise);
        let letter = |byte: u8| b"acgt"[usize::from(byte % 4)];
        noise.into_iter().map(letter).collect()
    }

    const LENGTH: usize = 1_000_000;

    /// A replica with so many messages of letters, and what sends them.
    fn messages(dir: &Path, count: u64) -> (Replica, Vec<Sending>) {
        drop(crate::endpoint::local::tests::open(dir));
        let cur = dir.join("mail/cur");
        fs::create_dir_all(&cur).expect("INBOX is made");
        let mut places = Vec::new();
        for number in 0..count {
            let (name, bytes) = (format!("{number}.a.b"), letters(number, LENGTH));
            fs::write(cur.join(&name), &bytes).expect("it is written");
            let at = At {
                number: None,
                folder: FolderDir::root(),
                unique: Unique::new(name.as_bytes()).expect("a name"),
                copy: 0,
            };
            places.push((at, Digest::of(&bytes)));
        }
        let replica = crate::endpoint::local::tests::open(dir);
        let wanted: Vec<_> = places.iter().map(|(at, digest)| (at, digest)).collect();
        let located = replica.locate(&wanted).expect("the index answers");
        assert!(located.iter().all(Option::is_some));
        let sendings = located.into_iter().map(|located| (located, 0)).collect();
        (replica, sendings)
    }

    /// Sends batches over a pipe that never blocks, each after a pause; returns how many bytes went out.
    fn send(replica: &Replica, batches: Vec<Vec<Sending>>, pause: Duration) -> u64 {
        let (sender, outbound) = sync_channel(0);
        let source = replica.bodies().expect("it opens");
        let driver = std::thread::spawn(move || {
            let send = |next| sender.send(next).expect("it is taken");
            send(Outbound::Source(source));
            for batch in batches {
                std::thread::sleep(pause);
                send(Outbound::Apply(Vec::new(), batch));
            }
        });
        let counter = AtomicU64::new(7);
        let mut outflow = Outflow::new(Box::new(std::io::sink()), &counter, Pulse::default());
        let written = outflow.write_until_closed(&outbound);
        written.expect("it is written");
        driver.join().expect("all was sent");
        counter.load(Ordering::Relaxed)
    }

    #[test]
    fn where_nothing_blocks_bodies_go_out_with_little_work() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (replica, sendings) = messages(dir.path(), 50);
        let sent = send(&replica, vec![sendings], Duration::ZERO);
        let all = 50 * LENGTH as u64;
        assert!(sent > all * 4 / 10, "{sent} of {all} bytes");
        assert!(sent < all * 9 / 10, "the first ones were compressed");
    }

    #[test]
    fn where_the_driver_waits_for_its_peer_hard_work_delays_nobody() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (replica, sendings) = messages(dir.path(), 28);
        let batches = sendings.chunks(7).map(<[Sending]>::to_vec).collect();
        let sent = send(&replica, batches, Duration::from_millis(500));
        let all = 28 * LENGTH as u64;
        assert!(sent < all * 4 / 10, "{sent} of {all} bytes");
    }
}
