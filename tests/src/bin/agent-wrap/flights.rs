//! A long way, and how often it has to be gone.
//!
//! Whatever is sent arrives late, so that nobody can answer before the other has said all that he says unasked. Each
//! piece is numbered by what its sender had heard when he sent it, plus one. The last number that the client waited for
//! is how many flights the run took, the first being the agent's, which needs no question.

use std::io::{Read, Write, stdin, stdout};
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the way is. Only the work that a busy machine has with one flight must be shorter than the way and back.
const LATENCY: Duration = Duration::from_millis(700);

/// A piece under way: when it arrives, its number, its bytes; none at the end.
type Piece = (Instant, u64, Vec<u8>);

/// Passes on both directions, and writes the number of flights into a file.
pub(crate) fn relay(to_agent: ChildStdin, from_agent: ChildStdout, file: &str) {
    let heard: &'static [AtomicU64; 2] = Box::leak(Box::default());
    let [agent_heard, client_heard] = heard;
    let (up, down) = (channel(), channel());
    listen(stdin(), client_heard, up.0);
    listen(from_agent, agent_heard, down.0);
    let hung_up: JoinHandle<()> = deliver(up.1, to_agent, agent_heard, None);
    let _ = deliver(
        down.1,
        stdout(),
        client_heard,
        Some((hung_up, file.to_owned())),
    )
    .join();
}

/// Takes in what one end says.
fn listen(mut from: impl Read + Send + 'static, heard: &'static AtomicU64, to: Sender<Piece>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let number = heard.load(Ordering::SeqCst) + 1;
            let piece = (Instant::now() + LATENCY, number, buffer[..count].to_vec());
            if to.send(piece).is_err() {
                return;
            }
        }
    });
}

/// Hands pieces out when they have come all the way. The way to the client counts what he still waited for.
fn deliver(
    pieces: Receiver<Piece>,
    mut to: impl Write + Send + 'static,
    heard: &'static AtomicU64,
    counting: Option<(JoinHandle<()>, String)>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for (arrives, number, bytes) in pieces {
            std::thread::sleep(arrives.saturating_duration_since(Instant::now()));
            let is_over = counting.as_ref().is_some_and(|(up, _)| up.is_finished());
            heard.fetch_max(number, Ordering::SeqCst);
            if to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
                return;
            }
            if let Some((_, file)) = counting.as_ref().filter(|_| !is_over) {
                std::fs::write(file, number.to_string()).expect("flights are noted");
            }
        }
    })
}
