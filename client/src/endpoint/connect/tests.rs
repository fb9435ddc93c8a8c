//! The agent as a child process, played by the programs that every machine has.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use super::*;
use crate::report::exit_code::ExitCode;

/// C75: one that stops before it has begun is ended, in the time that connecting may take.
#[test]
fn an_agent_that_never_speaks_is_given_up() {
    let (dir, options) = agent("exec 9>\"$(dirname \"$0\")/alive\"; flock 9; exec sleep 600");
    let options = ConnectOptions {
        timeout: Duration::from_secs(1),
        ..options
    };
    let error = connect(&Address::Local("/m".into()), &options, "HELLO")
        .map(|_| ())
        .expect_err("it is silent");
    assert!(
        error.to_string().contains("said nothing for 1 s"),
        "{error}"
    );
    assert_eq!(error.exit_code(), ExitCode::Temporary);
    let alive = std::fs::File::open(dir.path().join("alive")).expect("it began");
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(alive.lock()));
    let ended = ended.recv_timeout(Duration::from_secs(60));
    ended
        .expect("it does not live on")
        .expect("it can be locked");
}

/// A script that stands in for the agent.
fn agent(script: &str) -> (tempfile::TempDir, ConnectOptions) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("agent");
    std::fs::write(&path, script).expect("a new file");
    let server_command = Some(format!("sh {} first", path.display()));
    (
        dir,
        ConnectOptions {
            server_command,
            timeout: Duration::from_secs(60),
            ..ConnectOptions::default()
        },
    )
}

fn started(script: &str) -> Connection {
    let (_dir, options) = agent(script);
    connect(&Address::Local("/m".into()), &options, "HELLO")
        .map_err(|error| error.to_string())
        .expect("it starts")
}

fn read_all(mut reader: PipeReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("a pipe can be read");
    bytes
}

#[test]
fn the_agent_gets_the_hello_last_and_both_streams_work() {
    let Connection {
        mut reader,
        mut writer,
        peer,
        ..
    } = started("echo \"$1 $2\"; cat; echo end");
    writer.write_all(b"a\0b\n").expect("the agent reads");
    let mut said = [0; 16];
    reader.read_exact(&mut said).expect("the agent answers");
    assert_eq!(&said, b"first HELLO\na\0b\n");
    drop(writer);
    assert_eq!(read_all(reader), b"end\n");
    peer.close();
}

#[test]
fn a_missing_agent_is_named() {
    let options = ConnectOptions {
        server_command: Some("/no/such/agent -x".to_owned()),
        ..ConnectOptions::default()
    };
    let error = connect(&Address::Local("/m".into()), &options, "HELLO")
        .map(|_| ())
        .expect_err("it cannot start");
    let sentence = "/no/such/agent -x is not installed on this machine; install it, or name its path in server_command or the key's forced command";
    assert_eq!(error.to_string(), sentence);
    let Connection { reader, peer, .. } = started("exit 127");
    assert!(matches!(
        peer.diagnose(&read_all(reader)),
        ConnectError::NotInstalled { .. }
    ));
    let empty = ConnectOptions {
        server_command: Some(" ".to_owned()),
        ..ConnectOptions::default()
    };
    let error = connect(&Address::Local("/m".into()), &empty, "HELLO")
        .map(|_| ())
        .expect_err("nothing to start");
    assert_eq!(error.exit_code(), ExitCode::Usage);
}

#[test]
fn what_came_instead_of_an_agent_is_explained() {
    let explained = |script: &str| {
        let Connection {
            reader,
            writer,
            peer,
            ..
        } = started(script);
        drop(writer);
        peer.diagnose(&read_all(reader))
    };
    let failed = explained("echo 'No root \"x\"' >&2; exit 1");
    assert!(
        matches!(&failed, ConnectError::Agent { code: 1, said, .. } if said == "No root \"x\""),
        "{failed}"
    );
    let stranger = explained("echo Welcome; exit 1");
    assert!(
        matches!(&stranger, ConnectError::Stranger { said, .. } if said == "\"Welcome\""),
        "{stranger}"
    );
    assert!(matches!(explained("exit 0"), ConnectError::Stranger { .. }));
    assert!(matches!(explained("kill -9 $$"), ConnectError::Lost { .. }));
}

#[test]
fn an_end_in_the_middle_is_a_lost_connection_unless_the_agent_says_why() {
    let lost = |script: &str| started(script).peer.diagnose_loss();
    assert!(matches!(lost("exit 0"), ConnectError::Lost { .. }));
    assert!(matches!(lost("kill -9 $$"), ConnectError::Lost { .. }));
    let failed = lost("echo panicked >&2; exit 101");
    assert!(matches!(failed, ConnectError::Agent { code: 101, .. }));
    // It was found and began: what was typed is not the matter.
    let said = failed.to_string();
    let end = " on this machine failed with status 101: panicked";
    assert!(said.starts_with("sh ") && said.ends_with(end), "{said}");
}

#[test]
fn a_silent_stream_is_not_waited_for_for_ever() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    assert!(!wait_readable(&reader, Duration::from_millis(1)));
    drop(writer);
    assert!(wait_readable(&reader, Duration::from_secs(60)));
}
