//! Stands between client and agent: prints noise first, cuts the link after so many bytes, stops in the middle until
//! told to go on, and holds a lock as long as the agent lives.
//!
//! `agent-wrap [--alive FILE] [--noise TEXT] [--up N | --down N] [--stop-after N FIFO_REACHED FIFO_GO] -- PROGRAM ARG…`

#![allow(
    clippy::disallowed_methods,
    reason = "the suite plays the disk and the link"
)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write, stdin, stdout};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio, exit};

/// What the command line asked for.
#[derive(Default)]
struct Wishes {
    alive: Option<File>,
    noise: String,
    up_bytes_max: Option<u64>,
    down_bytes_max: Option<u64>,
    stop: Option<(u64, String, String)>,
    program: Vec<String>,
}

fn main() {
    let mut wishes = parse();
    print_noise(&wishes.noise);
    let mut command = Command::new(&wishes.program[0]);
    command.args(&wishes.program[1..]);
    if wishes.up_bytes_max.is_none() && wishes.down_bytes_max.is_none() && wishes.stop.is_none() {
        panic!("{:?}: {}", wishes.program, command.exec());
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("program starts");
    let mut to_agent = child.stdin.take().expect("stdin is piped");
    let from_agent = child.stdout.take().expect("stdout is piped");
    let up_bytes_max = wishes.up_bytes_max;
    std::thread::spawn(move || {
        forward(stdin(), &mut to_agent, up_bytes_max, None);
        drop(to_agent);
    });
    forward(
        from_agent,
        &mut stdout(),
        wishes.down_bytes_max,
        wishes.stop.take(),
    );
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
            "--up" => wishes.up_bytes_max = Some(number(words.next())),
            "--down" => wishes.down_bytes_max = Some(number(words.next())),
            "--stop-after" => {
                let bytes = number(words.next());
                wishes.stop = Some((
                    bytes,
                    words.next().expect("a fifo"),
                    words.next().expect("a fifo"),
                ));
            }
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

/// Copies until the end, or until the limit, where the link breaks in both directions at once.
fn forward(
    mut from: impl Read,
    to: &mut impl Write,
    limit: Option<u64>,
    mut stop: Option<(u64, String, String)>,
) {
    let mut buffer = [0; 8192];
    let mut done = 0;
    loop {
        let border = stop
            .as_ref()
            .map(|(bytes, ..)| *bytes)
            .or(limit)
            .unwrap_or(u64::MAX);
        let room = usize::try_from(border - done)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if room == 0 {
            match stop.take() {
                Some((_, reached, go)) => rendezvous(&reached, &go),
                None => exit(1),
            }
            continue;
        }
        let count = from.read(&mut buffer[..room]).unwrap_or(0);
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
