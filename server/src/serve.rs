//! One conversation, of one round or many.
//!
//! Threads of its own: one reads stdin and sees its end at any time, one sends bodies, and the caller's works on the replica.
//! None of them waits for the client to read before it reads itself, so that neither end can block the other.

use std::fs::File;
use std::thread::JoinHandle;

use maildir::Pulse;
use protocol::Response;
use protocol::handshake::{VERSIONS, choose_version, write_greeting};
use protocol::message::{Hello, ROUNDS};

use crate::agent::{Agent, Line, Refused, choose_root, usage};
use crate::alive::{heartbeat, keep_alive, wait_for_end};
use crate::answer::Output;
use crate::arguments::Service;
use crate::arrivals::Arrivals;
use crate::rest::Rest;
use crate::work::Due;

/// Serves one client until it finishes or goes away.
///
/// # Errors
/// When the connection breaks or the client does not keep to the protocol; the tree is right all the same.
pub(crate) fn serve(
    service: &Service,
    hello: Hello,
    input: File,
    mut output: File,
) -> anyhow::Result<()> {
    write_greeting(&mut output)?;
    let Some(version) = choose_version(VERSIONS, hello.versions) else {
        wait_for_end(input);
        return Ok(()); // The greeting names our versions; the client explains.
    };
    let (pulse, due) = (Pulse::default(), Due::default());
    let has_rounds = hello.features & ROUNDS != 0 && !hello.dry_run;
    let (arrivals, reader) = Arrivals::read(input, pulse.clone(), has_rounds);
    let output = Output::new(output, pulse.clone());
    keep_alive(output.clone(), due.clone(), pulse, heartbeat(&hello));
    let line = Line {
        output: output.clone(),
        arrivals,
        due,
    };
    match converse(service, hello, version, line) {
        Ok(()) => {}
        Err(error) => {
            // What is no refusal broke the conversation, and nothing is said any more.
            let refusal = error.downcast::<Refused>()?;
            output.say(&Response::Refused(refusal.0))?;
            output.lock().finish()?;
        }
    }
    linger(reader)
}

/// One round, or as many as the client asks for.
fn converse(service: &Service, hello: Hello, version: u16, line: Line) -> anyhow::Result<()> {
    if hello.features & ROUNDS == 0 || hello.dry_run {
        let mut agent = Agent::open(service, &hello, line)?;
        agent.welcome(&hello, version, None)?;
        let line = agent.converse()?;
        return Ok(line.output.lock().finish()?);
    }
    let root = choose_root(service.root.clone(), hello.path.as_bytes()).map_err(usage)?;
    // Watched before the first look, so that nothing falls between.
    let mut rest = Rest::begin(&root, service, &hello, &line.arrivals);
    let mut agent = Agent::open(service, &hello, line)?;
    let (mut hello, mut scan) = (hello, None);
    loop {
        agent.welcome(&hello, version, scan.take())?;
        let line = agent.converse()?;
        line.output.lock().flush()?;
        (agent, hello, scan) = rest.next_round(service, line)?;
    }
}

/// Waits until the client hangs up. An exit status may overtake the last bytes on a slow link, and ssh's multiplexing
/// closes the session when it comes.
fn linger(reader: JoinHandle<()>) -> anyhow::Result<()> {
    reader
        .join()
        .map_err(|_| anyhow::anyhow!("The reading thread panicked"))
}
