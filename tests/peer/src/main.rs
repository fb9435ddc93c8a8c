//! An agent that lies: the real one behind it speaks, and on the way each message and body is changed as the command line
//! says. The suite starts it as a program, so it links none of our code; this one knows the protocol and nothing else.
//!
//! `agent-twists LIE… -- AGENT ARG…`; the lies are in [`lies`].

mod lies;

use std::io::{BufReader, Read, Write, stdin, stdout};
use std::process::{Command, Stdio, exit};

use protocol::codec::decode;
use protocol::frame::{Frame, FrameReader, FrameWriter};
use protocol::handshake::{read_greeting, write_greeting};

use lies::Lies;

fn main() {
    let mut words = std::env::args().skip(1);
    let told: Vec<String> = words.by_ref().take_while(|word| word != "--").collect();
    let agent: Vec<String> = words.collect();
    let mut child = Command::new(&agent[0])
        .args(&agent[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the agent starts");
    let to_agent = child.stdin.take().expect("stdin is piped");
    let mut from_agent = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let lies = Lies::parse(&told);
    let asked = lies.clone();
    std::thread::spawn(move || pass_on_asked(asked, to_agent));
    let mut client = stdout();
    if read_greeting(&mut from_agent).is_ok() {
        write_greeting(&mut client).expect("the client listens");
        pass_on_told(lies, from_agent, client);
    }
    exit(child.wait().map_or(1, |status| status.code().unwrap_or(1)));
}

/// What the client asks goes to the agent, its bodies changed.
fn pass_on_asked(mut lies: Lies, to_agent: impl Write) {
    let mut reader = FrameReader::new(stdin());
    let mut writer = FrameWriter::new(to_agent);
    // A link that ends in the middle ends for the agent, too: the writer is dropped.
    while let Ok(Some(frame)) = reader.next() {
        let written = match frame {
            Frame::Message(bytes) => {
                let request: protocol::Request = decode(&bytes).expect("a request");
                writer.message(&request)
            }
            Frame::Body { bytes, last } => write_body(&mut writer, lies.uploaded(bytes, last)),
        };
        if written.is_err() || (!reader.is_ahead() && writer.flush().is_err()) {
            return;
        }
    }
    let _ = writer.finish();
}

/// What the agent tells goes to the client, changed.
fn pass_on_told(mut lies: Lies, from_agent: impl Read, client: impl Write) {
    let mut reader = FrameReader::new(from_agent);
    let mut writer = FrameWriter::new(client);
    while let Ok(Some(frame)) = reader.next() {
        let written = match frame {
            Frame::Message(bytes) => {
                let response = decode(&bytes).expect("an answer");
                let told = lies.told(response);
                told.iter()
                    .try_for_each(|response| writer.message(response))
            }
            Frame::Body { bytes, last } => match lies.instead_of_body(last) {
                Some(told) => told
                    .iter()
                    .try_for_each(|response| writer.message(response)),
                None if lies.is_endless() => write_for_ever(&mut writer),
                None => write_body(&mut writer, lies.downloaded(bytes, last)),
            },
        };
        if written.is_err() || (!reader.is_ahead() && writer.flush().is_err()) {
            return;
        }
        if !reader.is_ahead() {
            lies.note();
        }
    }
    let _ = writer.finish();
}

fn write_for_ever(writer: &mut FrameWriter<impl Write>) -> protocol::Result<()> {
    let piece = vec![0; 1 << 20];
    loop {
        writer.body_chunk(&piece, false)?;
        writer.flush()?;
    }
}

fn write_body(
    writer: &mut FrameWriter<impl Write>,
    (bytes, last): (Vec<u8>, bool),
) -> protocol::Result<()> {
    writer.body_chunk(&bytes, last)
}
