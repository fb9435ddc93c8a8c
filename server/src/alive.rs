//! Says that the agent is alive while it has work and nothing else to say, and ends it when its client is not.
//!
//! Scanning, hashing and flushing can take minutes, in which no byte would move. A client that waits cannot distinguish that
//! from an agent that hangs, so a thread of its own says that it is at work. It knows nothing of what the work is.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use maildir::Pulse;
use protocol::Response;
use protocol::message::Hello;

use crate::answer::Output;
use crate::work::Due;

/// For how long nothing comes from a client, and nothing is taken by it, until it counts as gone. It may be at work, too:
/// it looks at all of its own tree while our list waits. A run that is cut off by this goes on with the next one.
pub(crate) const CLIENT_PATIENCE: Duration = Duration::from_secs(2 * 60 * 60);

/// How often an agent that has work says so: several times before its client gives up, and every ten seconds at least.
pub(crate) fn heartbeat(hello: &Hello) -> Duration {
    Duration::from_secs(hello.timeout.clamp(1, 60).into()) / 6
}

/// Waits until the client hangs up, or for as long as it may be silent.
pub(crate) fn wait_for_end(mut input: File) {
    let (ended, end) = channel();
    std::thread::spawn(move || {
        let copied = io::copy(&mut input, &mut io::sink());
        ended.send(copied.is_ok())
    });
    let _ = end.recv_timeout(CLIENT_PATIENCE);
}

/// Ends the process, and says why if anybody hears it: `eprintln` would panic where the client is gone, and end its thread alone.
pub(crate) fn end_with(why: &dyn Display) -> ! {
    let _ = writeln!(io::stderr(), "maildir-sync-server: {why}");
    std::process::exit(1);
}

/// Starts saying so, and watching over the client.
pub(crate) fn keep_alive(output: Output, due: Due, pulse: Pulse, interval: Duration) {
    let (said, mut heard) = (pulse.clone(), pulse.count());
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(interval);
            let count = said.count();
            if count == heard && output.say_if(|| due.is_any(), &Response::Busy).is_err() {
                return; // The client is gone, as the thread that reads from it will see.
            }
            heard = count;
        }
    });
    // Not the same thread: what is said may have to wait for the client, too.
    watch(pulse, CLIENT_PATIENCE, || {
        end_with(&"The client has been silent for too long");
    });
}

/// Ends it when for so long no byte has come from the client, and none was taken by it.
fn watch(pulse: Pulse, patience: Duration, end: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        let mut heard = (pulse.count(), Instant::now());
        while heard.1.elapsed() < patience {
            std::thread::sleep(patience / 100);
            let count = pulse.count();
            if count != heard.0 {
                heard = (count, Instant::now());
            }
        }
        end();
    });
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use protocol::frame::{Frame, FrameReader};

    use super::*;

    #[test]
    fn a_client_that_is_gone_is_not_waited_for_for_ever() {
        let (sender, ended) = channel();
        let patience = Duration::from_millis(50);
        watch(Pulse::default(), patience, move || {
            sender.send(()).expect("we wait")
        });
        assert!(ended.recv_timeout(1200 * patience).is_ok());
    }

    #[test]
    fn who_has_work_says_so_again_and_again() {
        let (read, write) = std::io::pipe().expect("a pipe");
        let (due, pulse) = (Due::default(), Pulse::default());
        let output = Output::new(File::from(OwnedFd::from(write)), pulse.clone());
        let _work = due.begin();
        keep_alive(output, due, pulse, Duration::from_millis(1));
        let mut reader = FrameReader::new(read);
        for _ in 0..3 {
            let Ok(Some(Frame::Message(bytes))) = reader.next() else {
                panic!("nothing is said");
            };
            let response: Response = protocol::codec::decode(&bytes).expect("a message");
            assert_eq!(response, Response::Busy);
        }
    }
}
