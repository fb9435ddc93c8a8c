//! A pipe that tells for how long writing to it has blocked: whether the link or the processor is slow.

use std::io::{Result, Write};
use std::time::{Duration, Instant};

/// A pipe, and the time that went into writing to it.
pub struct Timed<W> {
    pipe: W,
    blocked: Duration,
}

impl<W> Timed<W> {
    /// Begins to measure.
    #[must_use]
    pub fn new(pipe: W) -> Timed<W> {
        Timed {
            pipe,
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
        let mut timed = Timed::new(Slow(Vec::new()));
        timed.flush().expect("flushes");
        assert_eq!(timed.blocked(), Duration::ZERO);
        timed.write_all(b"abc").expect("writes");
        assert!(timed.blocked() >= Duration::from_millis(3));
        assert_eq!(timed.pipe.0, b"abc");
    }
}
