//! One conversation with the real agent, spoken by hand.

use std::io::{BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use protocol::frame::{FrameReader, FrameWriter};
use protocol::handshake::{VERSIONS, hello_word, read_greeting};
use protocol::message::{Hello, PathBytes};
use protocol::{Request, Response};

fn agent(dir: &std::path::Path) -> Child {
    agent_with(dir, Stdio::inherit())
}

fn agent_with(dir: &std::path::Path, stderr: Stdio) -> Child {
    let hello = Hello {
        versions: VERSIONS,
        features: 0,
        path: PathBytes::new(b"").expect("an empty path"),
        client: "test".to_owned(),
        expect: None,
        cursor: None,
        dry_run: false,
        checksum: false,
        adopt: false,
        timeout: 60,
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_maildir-sync-server"));
    command
        .arg("--root")
        .arg(dir.join("root"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg(hello_word(&hello).expect("a short hello"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr);
    std::fs::create_dir_all(dir.join("root/cur")).expect("a Maildir");
    command.spawn().expect("the agent starts")
}

fn finish(child: &mut Child) -> impl Write + use<> {
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    read_greeting(&mut stdout).expect("the greeting");
    let mut reader = FrameReader::new(stdout);
    loop {
        match reader.message::<Response>().expect("an answer") {
            Response::Listed(_) => break,
            Response::Refused(refusal) => panic!("{}", refusal.why),
            _ => {}
        }
    }
    let mut writer = FrameWriter::new(&mut stdin);
    writer.message(&Request::Finish).expect("written");
    writer.flush().expect("flushed");
    drop(writer);
    let last = reader.message::<Response>().expect("an answer");
    assert!(matches!(last, Response::Finished { .. }), "{last:?}");
    stdin
}

/// Over a slow link, the exit status may overtake the last bytes, and ssh's multiplexing ends the session when it
/// comes: a first pull at 6 Mbit/s lost its connection at the very end.
#[test]
fn the_agent_stays_until_the_client_hangs_up() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut child = agent(dir.path());
    let stdin = finish(&mut child);
    let state = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it runs");
    assert!(!state.contains(") Z "), "it has exited: {state}");
    assert!(child.try_wait().expect("asked").is_none(), "it has exited");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn an_agent_whose_client_goes_away_ends_quietly() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut child = agent(dir.path());
    drop(child.stdin.take());
    let mut rest = Vec::new();
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_to_end(&mut rest).expect("readable");
    assert!(child.wait().expect("it ends").success());
}

/// Killed in the middle of a frame, it hears the agent's complaint no more, and printing that must not keep the agent.
#[test]
fn an_agent_whose_client_is_killed_in_a_frame_ends_though_nobody_hears_why() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (stderr, to_stderr) = std::io::pipe().expect("a pipe");
    let mut child = agent_with(dir.path(), to_stderr.into());
    drop(stderr);
    let mut frame = Vec::new();
    let mut writer = FrameWriter::new(&mut frame);
    writer.message(&Request::Finish).expect("written");
    writer.flush().expect("flushed");
    drop(writer);
    let mut stdin = child.stdin.take().expect("a pipe");
    let cut = &frame[..frame.len() - 1];
    stdin.write_all(cut).expect("written");
    drop(stdin);
    let mut rest = Vec::new();
    let mut stdout = child.stdout.take().expect("a pipe");
    // Its end is the agent's.
    stdout.read_to_end(&mut rest).expect("readable");
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
}
