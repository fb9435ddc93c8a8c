//! Clients that mean no good, spoken by hand: whatever they ask, nothing is stored that their rights do not allow, and the
//! agent's work has an end (I9).

use std::io::{BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use protocol::entry::Change;
use protocol::frame::{Frame, FrameReader, FrameWriter};
use protocol::handshake::{VERSIONS, hello_word, read_greeting};
use protocol::message::{At, Consent, Expect, Fetch, Hello, NewBody, PathBytes, Prefix, Source};
use protocol::{Digest, Flags, FolderDir, Info, Op, Outcome, Request, Response, Unique};

const LARGE: usize = 40 << 20;

/// A client that says what a test wants.
struct Client {
    child: Child,
    writer: FrameWriter<ChildStdin>,
    reader: FrameReader<BufReader<ChildStdout>>,
    changes: Vec<Change>,
}

fn hello() -> Hello {
    Hello {
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
    }
}

impl Client {
    /// Starts an agent with these options and listens to its list.
    fn start(dir: &Path, options: &[&str]) -> Client {
        std::fs::create_dir_all(dir.join("root/cur")).expect("a Maildir");
        let mut command = Command::new(env!("CARGO_BIN_EXE_maildir-sync-server"));
        command
            .args(options)
            .arg("--root")
            .arg(dir.join("root"))
            .arg("--state-dir")
            .arg(dir.join("state"))
            .arg(hello_word(&hello()).expect("a short hello"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the agent starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        read_greeting(&mut stdout).expect("the greeting");
        let mut client = Client {
            writer: FrameWriter::new(child.stdin.take().expect("a pipe")),
            reader: FrameReader::new(stdout),
            child,
            changes: Vec::new(),
        };
        loop {
            match client.hear() {
                Response::Listed(_) => return client,
                Response::Changes(changes) => client.changes.extend(changes),
                Response::Refused(refusal) => panic!("{}", refusal.why),
                _ => {}
            }
        }
    }

    fn hear(&mut self) -> Response {
        self.reader.message().expect("an answer")
    }

    fn say(&mut self, request: &Request) {
        self.writer.message(request).expect("written");
        self.writer.flush().expect("flushed");
    }

    /// Sends so many bytes as one body, if the agent takes them.
    fn send_body(&mut self, length: usize) -> protocol::Result<()> {
        let bytes = vec![b'x'; length];
        self.writer.body_chunk(&bytes, true)?;
        self.writer.flush()
    }

    fn apply(&mut self, ops: Vec<Op>) {
        self.say(&Request::Apply(ops));
    }

    fn outcomes(&mut self) -> Vec<Outcome> {
        match self.hear() {
            Response::Outcomes(outcomes) => outcomes,
            other => panic!("{other:?}"),
        }
    }

    fn finish(mut self) {
        self.say(&Request::Finish);
        while !matches!(self.hear(), Response::Finished { .. }) {}
        drop(self.writer);
        assert!(self.child.wait().expect("it ends").success());
    }

    /// The agent has ended the conversation by itself, and not by a panic.
    fn expect_cut_off(mut self) {
        let mut rest = Ok(Some(Frame::Message(Vec::new())));
        while let Ok(Some(_)) = rest {
            rest = self.reader.next();
        }
        let code = self.child.wait().expect("it ends").code();
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().expect("a pipe");
        std::io::Read::read_to_string(stderr, &mut said).expect("text");
        assert_eq!(code, Some(1), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }

    /// The place of the message that the agent told first.
    fn first(&self) -> (At, Digest) {
        let change = self.changes.first().expect("there is one");
        let at = At {
            number: Some(change.folder),
            folder: FolderDir::root(),
            unique: change.unique.clone(),
            copy: 0,
        };
        (at, change.entry.digest)
    }
}

fn at(name: &str) -> At {
    At {
        number: Some(1),
        folder: FolderDir::root(),
        unique: Unique::new(name.as_bytes()).expect("a name"),
        copy: 0,
    }
}

fn body(length: u64, offset: u64) -> NewBody {
    let bytes = vec![b'x'; usize::try_from(length.min(LARGE as u64)).expect("short")];
    NewBody {
        digest: Digest::of(&bytes),
        size: length,
        mtime_ns: 1_000_000_000,
        source: Source::Body { offset },
    }
}

fn create(name: &str, length: u64, offset: u64) -> Op {
    Op::Create {
        at: at(name),
        in_new: false,
        info: Info::default(),
        body: body(length, offset),
    }
}

fn store(dir: &Path, name: &str, bytes: &[u8]) {
    let cur = dir.join("root/cur");
    std::fs::create_dir_all(&cur).expect("a Maildir");
    std::fs::write(cur.join(name), bytes).expect("it is written");
}

/// Everything of which a name ends so below a directory.
fn found(dir: &Path, part: &str) -> Vec<std::path::PathBuf> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            paths.extend(found(&path, part));
        } else if path.to_str().is_some_and(|path| path.contains(part)) {
            paths.push(path);
        }
    }
    paths
}

#[test]
fn nothing_of_a_body_is_stored_that_the_rights_do_not_allow() {
    for (option, kept) in [("--read-only", 0), ("--append-only", 2)] {
        let dir = tempfile::tempdir().expect("temp dir");
        store(dir.path(), "1.a.b:2,", b"here");
        let mut client = Client::start(dir.path(), &[option]);
        let (first, digest) = client.first();
        let replace = Op::Update {
            at: first.clone(),
            expect: Expect {
                in_new: false,
                flags: Flags::EMPTY,
                digest,
            },
            to: first,
            in_new: false,
            flags: Flags::EMPTY,
            body: Some(body(3 << 20, 0)),
            consent: Consent::Free,
        };
        let ops = vec![
            create("2.a.b", 3 << 20, 0),
            replace,
            create("3.a.b", 100, 0),
        ];
        client.apply(ops);
        for length in [2 << 20, 3 << 20, 100] {
            client.send_body(length).expect("it is read");
            // A large body that breaks off would be kept for the next time.
            let partial = found(&dir.path().join("state"), "/partial/");
            assert!(kept > 0 || partial.is_empty(), "{option}: {partial:?}");
        }
        let outcomes = client.outcomes();
        assert_eq!(outcomes[1], Outcome::Denied, "{option}");
        if kept == 0 {
            assert_eq!(outcomes, vec![Outcome::Denied; 3]);
        } else {
            assert!(
                matches!(outcomes[0], Outcome::Failed { .. }),
                "too short: {outcomes:?}"
            );
            assert!(matches!(outcomes[2], Outcome::Done { .. }), "{outcomes:?}");
        }
        client.finish();
        let mail = std::fs::read_dir(dir.path().join("root/cur")).expect("cur");
        assert_eq!(mail.count(), if kept == 0 { 1 } else { 2 }, "{option}");
        assert_eq!(
            std::fs::read(dir.path().join("root/cur/1.a.b:2,")).expect("it is there"),
            b"here"
        );
    }
}

#[test]
fn denied_bodies_are_passed_over_for_a_while_only() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut client = Client::start(dir.path(), &["--read-only"]);
    client.apply(
        (0..3)
            .map(|n| create(&n.to_string(), LARGE as u64, 0))
            .collect(),
    );
    for _ in 0..3 {
        let _ = client.send_body(LARGE); // It may be gone before the last one.
    }
    client.expect_cut_off();
}

#[test]
fn a_body_that_does_not_end_expect_cut_off() {
    let dir = tempfile::tempdir().expect("temp dir");
    store(dir.path(), "1.a.b:2,", b"here");
    let mut client = Client::start(dir.path(), &[]);
    client.apply(vec![create("2.a.b", 10, 0)]);
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        let written = client.writer.body_chunk(&piece, false);
        if written.and_then(|()| client.writer.flush()).is_err() {
            break;
        }
    }
    client.expect_cut_off();
}

/// A file that is made as long as the offset says, and read to its end, would take hours.
#[test]
fn an_offset_past_what_is_here_is_used_for_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    store(dir.path(), "1.a.b:2,", b"here");
    let mut client = Client::start(dir.path(), &[]);
    let huge = 1 << 45;
    client.apply(vec![
        create("2.a.b", huge, huge - 1),
        create("3.a.b", huge, huge),
    ]);
    client.send_body(1).expect("it is read");
    client.send_body(0).expect("it is read");
    assert_eq!(client.outcomes(), vec![Outcome::Stale; 2]);
    let partial = found(&dir.path().join("state"), "/partial/");
    assert!(partial.is_empty(), "{partial:?}");
    client.apply(vec![create("4.a.b", 10, 11)]);
    client.expect_cut_off();
}

#[test]
fn who_wants_everything_read_again_and_again_expect_cut_off() {
    let dir = tempfile::tempdir().expect("temp dir");
    store(dir.path(), "1.a.b:2,", &vec![b'x'; LARGE]);
    let lines = 200;
    let mut client = Client::start(dir.path(), &["--read-only"]);
    let (at, digest) = client.first();
    let prefix = Prefix {
        at: at.clone(),
        digest,
        length: LARGE as u64,
    };
    let longer = Prefix {
        length: LARGE as u64 + 1,
        ..prefix.clone()
    };
    client.say(&Request::Prefixes(vec![prefix.clone(), longer]));
    assert_eq!(client.hear(), Response::Prefixes(vec![Some(digest), None]));
    client.say(&Request::Prefixes(vec![prefix; lines]));
    client.expect_cut_off();
    let mut client = Client::start(dir.path(), &["--read-only"]);
    let fetch = Fetch {
        at,
        digest,
        offset: 0,
    };
    client.say(&Request::Fetch(vec![fetch; lines]));
    client.expect_cut_off();
    let mut client = Client::start(dir.path(), &["--read-only"]);
    for _ in 0..2 {
        let folders = vec![1; 60_000];
        let written = client.writer.message(&Request::Manifests { folders });
        let _ = written.and_then(|()| client.writer.flush());
    }
    client.expect_cut_off();
}

#[test]
fn what_breaks_the_protocol_ends_the_conversation_and_panics_nowhere() {
    let wrong: [&dyn Fn(&mut Client); 5] = [
        // A body that nobody asked for.
        &|client| client.send_body(10).expect("it is read"),
        // A message where a body was due.
        &|client| {
            client.apply(vec![create("2.a.b", 10, 0)]);
            client.say(&Request::Finish);
        },
        // No request at all.
        &|client| {
            client.writer.message(&250_u8).expect("written");
            client.writer.flush().expect("flushed");
        },
        &|client| {
            client.writer.message(&()).expect("written");
            client.writer.flush().expect("flushed");
        },
        // More than a batch has room for.
        &|client| {
            client.apply(
                (0..70)
                    .map(|n| create(&n.to_string(), 1 << 20, 0))
                    .collect(),
            )
        },
    ];
    for (number, wrong) in wrong.iter().enumerate() {
        let dir = tempfile::tempdir().expect("temp dir");
        store(dir.path(), "1.a.b:2,", b"here");
        let mut client = Client::start(dir.path(), &[]);
        wrong(&mut client);
        let _ = client.writer.get_ref().flush();
        eprintln!("number {number}");
        client.expect_cut_off();
        assert_eq!(
            std::fs::read_dir(dir.path().join("root/cur"))
                .expect("cur")
                .count(),
            1
        );
    }
}
