//! A terminal with a person before it: what is drawn can be waited for, and keys can be pressed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::process::LIMIT;

/// A program that has a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    keys: File,
    drawn: Receiver<Vec<u8>>,
    seen: String,
    exit: Receiver<ExitStatus>,
}

impl Terminal {
    /// Starts a command as the leader of the terminal's session; it must be `setsid --ctty PROGRAM …`.
    ///
    /// # Panics
    /// When there is no terminal or no such program.
    #[must_use]
    pub fn start(mut command: Command) -> Terminal {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal");
        grantpt(&ours)
            .and_then(|()| unlockpt(&ours))
            .expect("it is ours");
        let name = ptsname(&ours, Vec::new()).expect("it has a name");
        let theirs = File::options()
            .read(true)
            .write(true)
            .open(OsStr::from_bytes(name.to_bytes()))
            .expect("it opens");
        let keys = File::from(ours);
        let copy = || theirs.try_clone().expect("a descriptor");
        command.stdin(copy()).stdout(copy()).stderr(copy());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        drop((command, theirs));
        let drawn = read_as_it_comes(keys.try_clone().expect("a descriptor"));
        let exit = wait_for(child);
        Terminal {
            keys,
            drawn,
            seen: String::new(),
            exit,
        }
    }

    /// Waits until this was drawn.
    ///
    /// # Panics
    /// When it never is.
    pub fn expect(&mut self, text: &str) {
        let until = Instant::now() + LIMIT;
        while !self.seen.contains(text) {
            let left = until.saturating_duration_since(Instant::now());
            match self.drawn.recv_timeout(left) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(_) => panic!("{text:?} was not drawn, but {:?}", self.seen),
            }
        }
    }

    /// What is drawn in so much time, while the program goes on.
    ///
    /// # Panics
    /// When it ends.
    pub fn drawn_within(&mut self, time: Duration) -> String {
        let (until, before) = (Instant::now() + time, self.seen.len());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.drawn.recv_timeout(left) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(RecvTimeoutError::Timeout) => return self.seen[before..].to_owned(),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended: {:?}", self.seen),
            }
        }
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("keys arrive");
    }

    /// Waits for the end: the exit code, and all that was drawn.
    ///
    /// # Panics
    /// When it hangs.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let Ok(status) = self.exit.recv_timeout(LIMIT) else {
            panic!("hangs, and has drawn {:?}", self.seen);
        };
        // Somebody in the background may keep the terminal open.
        while let Ok(bytes) = self.drawn.recv_timeout(Duration::from_millis(200)) {
            self.seen += &String::from_utf8_lossy(&bytes);
        }
        (status.code(), self.seen)
    }
}

fn read_as_it_comes(mut from: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

fn wait_for(mut child: Child) -> Receiver<ExitStatus> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(child.wait().expect("a child can be waited for")));
    receiver
}
