//! The end of what a process says on its stderr, kept to explain its failure.

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::bytes::escape;

use super::wait_readable;
use crate::report;

/// How much is kept.
const TAIL_BYTES_MAX: usize = 8 * 1024;
/// How much of it goes into a sentence.
const SAID_BYTES_MAX: usize = 400;
/// How long to wait for the end of a stream whose process has ended; a process in the background may hold it open.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// What a process says and then lives on for so long is no last word, so people should see it.
const HELD_BACK: Duration = Duration::from_millis(500);

/// Whether people see what is said while it is said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relay {
    /// Never; it goes into the error, if there is one.
    Never,
    /// At once.
    AtOnce,
    /// Unless the process ends right after it: "touch your security key" must be seen, "Permission denied" is in the
    /// error.
    HeldBack,
}

/// The end of what a process says on its stderr.
pub(crate) struct Tail {
    kept: Arc<Mutex<Vec<u8>>>,
    end: Receiver<()>,
}

impl Tail {
    /// Reads a stream to its end, on a thread of its own.
    pub(crate) fn collect(mut stream: impl Read + AsFd + Send + 'static, relay: Relay) -> Tail {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (ended, end) = channel();
        let shared = Arc::clone(&kept);
        std::thread::spawn(move || {
            let mut chunk = [0; 1024];
            let mut unseen = Vec::new();
            loop {
                if !unseen.is_empty()
                    && (relay == Relay::AtOnce || !wait_readable(&stream, HELD_BACK))
                {
                    report::relay(&unseen);
                    unseen.clear();
                }
                let Ok(length @ 1..) = stream.read(&mut chunk) else {
                    break;
                };
                keep(
                    &mut shared.lock().unwrap_or_else(PoisonError::into_inner),
                    &chunk[..length],
                );
                if relay != Relay::Never {
                    keep(&mut unseen, &chunk[..length]);
                }
            }
            let _ = ended.send(());
        });
        Tail { kept, end }
    }

    /// What was said last, in one line; to be asked once the process has ended.
    pub(crate) fn said(self) -> String {
        let _ = self.end.recv_timeout(END_TIMEOUT);
        one_line(&self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything that was kept; to be asked once the process has ended.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let _ = self.end.recv_timeout(END_TIMEOUT);
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn keep(kept: &mut Vec<u8>, said: &[u8]) {
    kept.extend_from_slice(said);
    kept.drain(..kept.len().saturating_sub(TAIL_BYTES_MAX));
}

/// The last lines, as many as fit, joined and escaped.
pub(crate) fn one_line(said: &[u8]) -> String {
    let mut text = String::new();
    for line in said.split(|byte| b"\r\n".contains(byte)).rev() {
        let line = escape(line.trim_ascii());
        if line.is_empty() {
            continue;
        }
        if text.is_empty() {
            text = line;
        } else if text.len() + line.len() > SAID_BYTES_MAX {
            break;
        } else {
            text = format!("{line} / {text}");
        }
    }
    text
}

/// The last line that says anything, without the `ssh: ` before it and the period behind it.
pub(crate) fn last_line(said: &[u8]) -> String {
    let mut lines = said
        .split(|byte| b"\r\n".contains(byte))
        .rev()
        .map(<[u8]>::trim_ascii);
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let line = line.strip_prefix(b"ssh: ").unwrap_or(line);
    escape(line.strip_suffix(b".").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_become_one() {
        assert_eq!(one_line(b""), "");
        assert_eq!(one_line(b"\r\n a \r\n\nb\x07\n"), "a / b\\x07");
        let long = [&[b'x'; 300][..], b"\n", &[b'y'; 300], b"\nend\n"].concat();
        assert_eq!(one_line(&long), format!("{} / end", "y".repeat(300)));
    }

    #[test]
    fn no_more_than_the_end_is_kept() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let tail = Tail::collect(reader, Relay::Never);
        std::thread::spawn(move || {
            let mut writer = writer;
            for number in 0..100_000 {
                std::io::Write::write_all(&mut writer, format!("{number}\n").as_bytes())
                    .expect("somebody reads");
            }
        })
        .join()
        .expect("the writer ends");
        let kept = tail.bytes();
        assert!(
            kept.len() <= TAIL_BYTES_MAX && kept.ends_with(b"\n99999\n"),
            "{} bytes",
            kept.len()
        );
    }
}
