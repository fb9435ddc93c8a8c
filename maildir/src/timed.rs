//! Pipes that know what becomes of them: for how long writing has blocked, so whether the link or the processor is slow;
//! and that bytes go through at all.

use std::io::{Read, Result, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The bytes that went through a connection, in both directions together: who waits sees that it is alive. Clones count
/// the same.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// How many so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The end of a pipe that is read.
pub struct Heard<R> {
    pipe: R,
    pulse: Pulse,
}

impl<R> Heard<R> {
    /// Begins to count.
    #[must_use]
    pub fn new(pipe: R, pulse: Pulse) -> Heard<R> {
        Heard { pipe, pulse }
    }

    /// The pipe itself.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.pipe
    }
}

impl<R: Read> Read for Heard<R> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let count = self.pipe.read(bytes)?;
        self.pulse.add(count);
        Ok(count)
    }
}

/// The end of a pipe that is written, and the time that went into it.
pub struct Timed<W> {
    pipe: W,
    pulse: Pulse,
    blocked: Duration,
}

impl<W> Timed<W> {
    /// Begins to measure.
    #[must_use]
    pub fn new(pipe: W, pulse: Pulse) -> Timed<W> {
        Timed {
            pipe,
            pulse,
            blocked: Duration::ZERO,
        }
    }

    /// How long that was so far.
    #[must_use]
    pub fn blocked(&self) -> Duration {
        self.blocked
    }
}

impl<W: Write> Write for Timed<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let begun = Instant::now();
        let written = self.pipe.write(bytes);
        self.blocked += begun.elapsed();
        self.pulse.add(*written.as_ref().unwrap_or(&0));
        written
    }

    fn flush(&mut self) -> Result<()> {
        self.pipe.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a byte at a time, each after a while.
    struct Slow(Vec<u8>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(1) {
                std::hint::spin_loop();
            }
            self.0.extend(&bytes[..1]);
            Ok(1)
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_writing_counts() {
        let pulse = Pulse::default();
        let mut timed = Timed::new(Slow(Vec::new()), pulse.clone());
        timed.flush().expect("flushes");
        assert_eq!(timed.blocked(), Duration::ZERO);
        timed.write_all(b"abc").expect("writes");
        assert!(timed.blocked() >= Duration::from_millis(3));
        assert_eq!(timed.pipe.0, b"abc");
        assert_eq!(pulse.count(), 3);
        let mut heard = Heard::new(&b"defg"[..], pulse.clone());
        heard.read_exact(&mut [0; 2]).expect("reads");
        assert_eq!(pulse.count(), 5);
    }
}
