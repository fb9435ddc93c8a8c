//! Stands between client and agent: prints noise first, cuts the link after so many bytes, spoils one byte, stops in the
//! middle until told to go on, lets only so much through in a second, makes the way long and counts flights, and holds a
//! lock as long as the agent lives.
//!
//! `agent-wrap [--alive FILE] [--noise TEXT] [--up N | --down N] [--flip-up N | --flip-down N]
//! [--rate-up N] [--rate-down N] [--stop-after N FIFO_REACHED FIFO_GO] [--stop-sending-after N FIFO_REACHED FIFO_GO]
//! [--stop-asking FIFO_REACHED FIFO_GO] [--in-midst] [--flights FILE] -- PROGRAM ARG…`
//!
//! With `--in-midst` the agent must stand in the middle of what it has to say where `--stop-after` stops it.

#![allow(
    clippy::disallowed_methods,
    reason = "the suite plays the disk and the link"
)]

mod flights;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio, exit};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};

/// What the command line asked for.
#[derive(Default)]
struct Wishes {
    alive: Option<File>,
    noise: String,
    up: Link,
    down: Link,
    flights: Option<String>,
    program: Vec<String>,
}

/// What happens to the bytes of one direction.
#[derive(Default)]
struct Link {
    /// After so many bytes the link breaks, in both directions at once.
    bytes_max: Option<u64>,
    /// The byte with this number arrives with another value.
    flip: Option<u64>,
    /// After so many bytes everything waits: two fifos tell that it does, and when it may go on.
    stop: Option<(u64, String, String)>,
    /// Whether the sender has more to say then than its pipe holds, or else the run fails.
    in_midst: bool,
    /// As `stop`, once the first bytes have come and before they go on.
    stop_first: Option<(String, String)>,
    /// How many bytes go through in a second.
    rate: Option<u64>,
}

/// How much a slow link holds of what has not gone through, in buffers: as much as ssh does.
const HELD_BYTES: usize = 2 << 20;
const BUFFER_BYTES: usize = 8192;
/// How long the sender may take to say more: only one that has nothing more to say takes so long.
const MORE: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

fn main() {
    let wishes = parse();
    print_noise(&wishes.noise);
    let mut command = Command::new(&wishes.program[0]);
    command.args(&wishes.program[1..]);
    if wishes.up.is_plain() && wishes.down.is_plain() && wishes.flights.is_none() {
        panic!("{:?}: {}", wishes.program, command.exec());
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("program starts");
    let mut to_agent = child.stdin.take().expect("stdin is piped");
    let from_agent = child.stdout.take().expect("stdout is piped");
    if let Some(file) = wishes.flights {
        flights::relay(to_agent, from_agent, &file);
        exit(
            child
                .wait()
                .ok()
                .and_then(|status| status.code())
                .unwrap_or(1),
        );
    }
    let (up, down) = (wishes.up, wishes.down);
    if down.stop.is_some() {
        // A pipe of the usual size takes a whole list, and the agent would not stand still.
        fcntl_setpipe_size(&from_agent, 1).expect("a pipe of one page");
    }
    std::thread::spawn(move || {
        up.forward(stdin(), &mut to_agent);
        drop(to_agent);
    });
    down.forward(from_agent, &mut stdout());
    let status = child.wait().expect("program can be waited for");
    exit(status.code().unwrap_or(1));
}

fn parse() -> Wishes {
    let mut wishes = Wishes::default();
    let mut words = std::env::args().skip(1);
    let number = |word: Option<String>| word.and_then(|word| word.parse().ok()).expect("a number");
    while let Some(word) = words.next() {
        match word.as_str() {
            "--alive" => wishes.alive = words.next().map(|file| hold(&file)),
            "--noise" => wishes.noise = words.next().expect("a text"),
            "--up" => wishes.up.bytes_max = Some(number(words.next())),
            "--down" => wishes.down.bytes_max = Some(number(words.next())),
            "--flip-up" => wishes.up.flip = Some(number(words.next())),
            "--flip-down" => wishes.down.flip = Some(number(words.next())),
            "--rate-up" => wishes.up.rate = Some(number(words.next())),
            "--rate-down" => wishes.down.rate = Some(number(words.next())),
            "--stop-after" | "--stop-sending-after" => {
                let link = match word.as_str() {
                    "--stop-after" => &mut wishes.down,
                    _ => &mut wishes.up,
                };
                link.stop = Some((
                    number(words.next()),
                    words.next().expect("a fifo"),
                    words.next().expect("a fifo"),
                ));
            }
            "--in-midst" => wishes.down.in_midst = true,
            "--stop-asking" => {
                let fifos = (words.next(), words.next());
                wishes.up.stop_first = fifos.0.zip(fifos.1);
            }
            "--flights" => wishes.flights = words.next(),
            "--" => break,
            other => panic!("unknown word {other:?}"),
        }
    }
    wishes.program = words.collect();
    wishes
}

/// Locks the file for as long as this process or the agent lives.
fn hold(path: &str) -> File {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("file of life opens");
    file.lock_shared().expect("lock is free or shared");
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).expect("the agent inherits it");
    file
}

fn print_noise(noise: &str) {
    let mut out = stdout();
    out.write_all(noise.as_bytes())
        .and_then(|()| out.flush())
        .expect("noise is printed");
}

impl Link {
    fn is_plain(&self) -> bool {
        self.bytes_max.is_none()
            && self.flip.is_none()
            && self.stop.is_none()
            && self.stop_first.is_none()
            && self.rate.is_none()
    }

    /// Copies until the end or a fault.
    fn forward(mut self, mut from: impl Read + AsFd + Send + 'static, to: &mut impl Write) {
        if let Some(rate) = self.rate {
            return crawl(from, to, rate);
        }
        let mut buffer = [0; BUFFER_BYTES];
        let mut done = 0;
        loop {
            let border = self
                .stop
                .as_ref()
                .map(|(bytes, ..)| *bytes)
                .or(self.bytes_max)
                .unwrap_or(u64::MAX);
            let room = usize::try_from(border - done)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            if room == 0 {
                match self.stop.take() {
                    Some((_, reached, go)) => rendezvous(&reached, &go),
                    None => die(),
                }
                if self.in_midst {
                    let more = more_than_a_pipe(&mut from);
                    done += more.len() as u64;
                    if to.write_all(&more).is_err() {
                        return;
                    }
                }
                continue;
            }
            let count = from.read(&mut buffer[..room]).unwrap_or(0);
            if let Some((reached, go)) = self.stop_first.take_if(|_| count > 0) {
                rendezvous(&reached, &go);
            }
            self.spoil(done, &mut buffer[..count]);
            if count == 0
                || to
                    .write_all(&buffer[..count])
                    .and_then(|()| to.flush())
                    .is_err()
            {
                return;
            }
            done += count as u64;
        }
    }

    /// Spoils the one byte, if it is among these, which come after `done` others.
    fn spoil(&self, done: u64, bytes: &mut [u8]) {
        let at = self
            .flip
            .and_then(|flip| flip.checked_sub(done))
            .and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = at.and_then(|at| bytes.get_mut(at)) {
            *byte ^= 0x55;
            // A spoilt length makes one end wait for bytes that the other never sends: in the end the link breaks.
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_secs(3));
                die();
            });
        }
    }
}

/// Takes in more than a pipe holds. The other end has heard nothing that could make the sender say it: it stood in its midst.
fn more_than_a_pipe(from: &mut (impl Read + AsFd)) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() <= fcntl_getpipe_size(&*from).expect("a pipe") {
        let mut ready = [PollFd::new(&*from, PollFlags::IN)];
        let count = poll(&mut ready, Some(&MORE)).expect("it is looked at");
        assert!(
            count > 0,
            "it stood at its end: all that it had to say was in the pipe"
        );
        let mut buffer = [0; BUFFER_BYTES];
        let count = from.read(&mut buffer).unwrap_or(0);
        assert!(count > 0, "it has ended");
        bytes.extend_from_slice(&buffer[..count]);
    }
    bytes
}

/// Copies as slowly as the link is, to the end.
fn crawl(mut from: impl Read + Send + 'static, to: &mut impl Write, rate: u64) {
    let (sender, held) = sync_channel::<Vec<u8>>(HELD_BYTES / BUFFER_BYTES);
    std::thread::spawn(move || {
        loop {
            let mut bytes = vec![0; BUFFER_BYTES];
            let count = from.read(&mut bytes).unwrap_or(0);
            bytes.truncate(count);
            if count == 0 || sender.send(bytes).is_err() {
                return;
            }
        }
    });
    for bytes in held {
        // What is late because nothing came is not made up for.
        std::thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / rate as f64));
        if to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// Breaks the link: nothing is cleaned up, both pipes just end.
fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    exit(255);
}

/// Tells that the place is reached, and waits to be let go: opening a fifo waits for the other end.
fn rendezvous(reached: &str, go: &str) {
    drop(
        OpenOptions::new()
            .write(true)
            .open(reached)
            .expect("fifo opens"),
    );
    drop(File::open(go).expect("fifo opens"));
}
