//! One suite for every endpoint: what is asked of the replica here and of an agent's is answered alike.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use maildir::{Options, Replica, Report, Scan};
use protocol::message::{
    At, Consent, Expect, Fetch, Hello, Listing, NewBody, PathBytes, Prefix, Reason, Source,
};
use protocol::{Digest, Flags, FolderDir, Info, Op, Outcome, Request, Response, Unique};

use super::link::Link;
use super::local::Local;
use super::transport::ConnectOptions;
use super::{Answer, Bell, Endpoint};
use crate::config::address::Address;
use crate::endpoint::stop::Stop;

const HERE: &[u8] = b"Subject: it is here\n\nbody\n";
const LARGE: usize = 3 << 20;
/// The number that a new index gives to the only folder there is.
const INBOX: u32 = 1;

/// An endpoint whose INBOX holds one message, and whose list was taken in.
struct Home {
    name: &'static str,
    mail: PathBuf,
    endpoint: Box<dyn Endpoint>,
    bell: Bell,
    _dir: tempfile::TempDir,
}

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    for sub in ["cur", "new", "tmp"] {
        fs::create_dir_all(dir.path().join("mail").join(sub)).expect("it is made");
    }
    fs::write(dir.path().join("mail/cur/1.here:2,S"), HERE).expect("it is written");
    dir
}

/// A replica of `mail` in a directory, with its state beside it, and what it finds there.
pub(super) fn open(dir: &Path) -> (Replica, Scan) {
    let replica = Replica::open(Options {
        root: dir.join("mail"),
        state_dir: dir.join("state"),
        trash_dir: None,
        trash_days: 30,
        client: "test".to_owned(),
        dry_run: false,
        checksum: false,
        expect: None,
        adopt: false,
        create: true,
        follow_links: false,
    });
    let mut replica = replica.expect("it opens");
    let scan = replica.scan().expect("it scans");
    (replica, scan)
}

fn local(dir: &Path, bell: &Bell) -> Local {
    let (mut replica, scan) = open(dir);
    let promised = replica.promise().expect("it promises");
    let mut local = Local::new(replica, bell, &Stop::default());
    local.report(Report {
        from: Listing::Everything,
        since: 0,
        told: promised,
        scan,
        part: None,
    });
    local
}

fn remote(dir: &Path, bell: &Bell) -> Link {
    // Beside the directory of this test's own program.
    let own = std::env::current_exe().expect("a program");
    let agent = own.ancestors().nth(2).expect("a directory");
    let agent = agent.join("maildir-sync-server");
    assert!(
        agent.exists(),
        "{agent:?} is missing; run cargo build --workspace --bins"
    );
    let options = ConnectOptions {
        server_command: Some(format!(
            "{} --state-dir {}",
            agent.display(),
            dir.join("state").display()
        )),
        identity: None,
        ssh_config: None,
        persist: None,
        state_dir: dir.join("client"),
        verbose: false,
        timeout: Duration::from_secs(60),
        stop: Stop::default(),
    };
    let path = dir.join("mail");
    let hello = Hello {
        versions: protocol::handshake::VERSIONS,
        features: 0,
        path: PathBytes::new(path.as_os_str().as_encoded_bytes()).expect("a path"),
        client: "test".to_owned(),
        expect: None,
        cursor: None,
        dry_run: false,
        checksum: false,
        adopt: false,
        timeout: 60,
    };
    let opened = Link::open(&Address::Local(path), &options, &hello, bell, || {});
    opened.expect("the agent serves").0
}

/// Runs a test on each home.
fn on_each(test: impl Fn(&mut Home)) {
    for name in ["here", "an agent's"] {
        let (dir, bell) = (tree(), Bell::default());
        let endpoint: Box<dyn Endpoint> = match name {
            "here" => Box::new(local(dir.path(), &bell)),
            _ => Box::new(remote(dir.path(), &bell)),
        };
        let mut home = Home {
            name,
            mail: dir.path().join("mail"),
            endpoint,
            bell,
            _dir: dir,
        };
        eprintln!("-- {name}");
        let (folders, changes) = home.listed(Listing::Everything);
        assert_eq!((folders, changes), (1, 1), "{name}");
        test(&mut home);
        home.endpoint.request(Request::Finish);
        let end = home.answer();
        assert!(
            matches!(end, Answer::Response(Response::Finished { .. })),
            "{name}: {end:?}"
        );
    }
}

impl Home {
    fn answer(&mut self) -> Answer {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let count = self.bell.count();
            let answer = self.endpoint.poll();
            if let Some(answer) = answer.expect("it is of use") {
                return answer;
            }
            assert!(Instant::now() < end, "{}: no answer", self.name);
            self.endpoint.rest();
            self.bell.wait(count, end);
        }
    }

    fn response(&mut self) -> Response {
        self.endpoint.response().expect("it is of use")
    }

    /// Takes in a list of a kind; returns how many folders and messages it named.
    fn listed(&mut self, kind: Listing) -> (usize, usize) {
        let (mut folders, mut changes) = (0, 0);
        loop {
            match self.response() {
                Response::Folders(more) => folders += more.len(),
                Response::Changes(more) => changes += more.len(),
                Response::Listed(listed) => {
                    assert_eq!(
                        (listed.from, listed.complete),
                        (kind, true),
                        "{}",
                        self.name
                    );
                    return (folders, changes);
                }
                Response::Problems(_) | Response::Partials(_) => {}
                other => panic!("{}: {other:?}", self.name),
            }
        }
    }

    /// Outcomes of operations, which may come in parts.
    fn outcomes(&mut self, count: usize) -> Vec<Outcome> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.answer() {
                Answer::Response(Response::Outcomes(outcomes)) => all.extend(outcomes),
                other => panic!("{}: {other:?}", self.name),
            }
        }
        all
    }

    /// The next body, or why there is none.
    fn body(&mut self) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        loop {
            match self.answer() {
                Answer::Body(bytes, is_last) => {
                    all.extend(bytes);
                    if is_last {
                        return Ok(all);
                    }
                }
                Answer::Response(Response::NoBody { why }) => return Err(why),
                other => panic!("{}: {other:?}", self.name),
            }
        }
    }

    fn give(&mut self, bytes: &[u8]) {
        let pieces = bytes.chunks(100_000).collect::<Vec<_>>();
        for (at, piece) in pieces.iter().enumerate() {
            let taken = self.endpoint.body(piece.to_vec(), at + 1 == pieces.len());
            taken.expect("it is due");
        }
    }

    fn in_tmp(&self) -> usize {
        fs::read_dir(self.mail.join("tmp")).map_or(0, Iterator::count)
    }
}

fn at(unique: &str) -> At {
    At {
        number: Some(INBOX),
        folder: FolderDir::root(),
        unique: Unique::new(unique.as_bytes()).expect("a name"),
        copy: 0,
    }
}

fn create(unique: &str, bytes: &[u8], source: Source) -> Op {
    Op::Create {
        at: at(unique),
        in_new: true,
        info: Info::default(),
        body: NewBody {
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            mtime_ns: 1_000_000_000,
            source,
        },
    }
}

const SENT: Source = Source::Body { offset: 0 };

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done { .. })
}

fn fetch(unique: &str, bytes: &[u8], offset: u64) -> Fetch {
    Fetch {
        at: at(unique),
        digest: Digest::of(bytes),
        offset,
    }
}

#[test]
fn each_batch_gets_its_own_bodies_and_gives_them_back() {
    on_each(|home| {
        let large = vec![b'x'; LARGE];
        let first = vec![
            create("2.a", b"two", SENT),
            create("3.bad", b"three", SENT),
            create("4.copy", HERE, Source::Copy(at("1.here"))),
            create("5.large", &large, SENT),
        ];
        home.endpoint.request(Request::Apply(first));
        home.give(b"two");
        home.give(b"other bytes");
        home.give(&large);
        home.endpoint
            .request(Request::Apply(vec![create("6.a", b"six", SENT)]));
        home.give(b"six");
        let outcomes = home.outcomes(5);
        let done: Vec<bool> = outcomes.iter().map(is_done).collect();
        assert_eq!(done, [true, false, true, true, true], "{}", home.name);
        assert_eq!(home.in_tmp(), 0, "{}", home.name);
        home.endpoint.request(Request::Fetch(vec![
            fetch("5.large", &large, 0),
            fetch("3.bad", b"three", 0),
            fetch("2.a", b"two", 0),
            fetch("5.large", &large, LARGE as u64 - 5),
            fetch("4.copy", HERE, 0),
        ]));
        assert!(home.body().as_deref() == Ok(&large), "{}", home.name);
        assert_eq!(home.body(), Err(String::new()), "{}", home.name);
        assert_eq!(home.body().as_deref(), Ok(&b"two"[..]), "{}", home.name);
        assert_eq!(home.body().as_deref(), Ok(&b"xxxxx"[..]), "{}", home.name);
        assert_eq!(home.body().as_deref(), Ok(HERE), "{}", home.name);
    });
}

#[test]
fn a_body_that_is_unavailable_leaves_its_message_out_and_nothing_behind() {
    on_each(|home| {
        let ops = vec![
            create("2.gone", b"two", SENT),
            create("3.a", b"three", SENT),
        ];
        home.endpoint.request(Request::Apply(ops));
        home.endpoint.body(Vec::new(), true).expect("it is due");
        home.give(b"three");
        let outcomes = home.outcomes(2);
        assert_eq!(outcomes[0], Outcome::Stale, "{}", home.name);
        assert!(is_done(&outcomes[1]), "{}: {outcomes:?}", home.name);
        assert!(home.mail.join("new/3.a").exists());
        assert_eq!(home.in_tmp(), 0, "{}", home.name);
    });
}

#[test]
fn what_is_not_as_expected_is_stale() {
    on_each(|home| {
        let expect = |flags: &[u8]| Expect {
            in_new: false,
            flags: Flags::from_letters(flags),
            digest: Digest::of(HERE),
        };
        let retire = |flags| Op::Retire {
            at: at("1.here"),
            expect: expect(flags),
            reason: Reason::Deleted,
            consent: Consent::Counts,
        };
        let flag = Op::Update {
            at: at("1.here"),
            expect: expect(b"S"),
            to: at("1.here"),
            in_new: false,
            flags: Flags::from_letters(b"FS"),
            body: None,
            consent: Consent::Counts,
        };
        let ops = vec![retire(b"R"), flag, retire(b"S"), retire(b"FS")];
        home.endpoint.request(Request::Apply(ops));
        let done: Vec<bool> = home.outcomes(4).iter().map(is_done).collect();
        assert_eq!(done, [false, true, false, true], "{}", home.name);
        assert_eq!(fs::read_dir(home.mail.join("cur")).expect("cur").count(), 0);
    });
}

#[test]
fn questions_are_answered_in_their_order() {
    on_each(|home| {
        home.endpoint.request(Request::Fingerprints(vec![
            (at("1.here"), Digest::of(HERE)),
            (at("2.none"), Digest::of(b"")),
        ]));
        let Response::Fingerprints(fingerprints) = home.response() else {
            panic!("{}: no fingerprints", home.name);
        };
        let known: Vec<bool> = fingerprints.iter().map(Option::is_some).collect();
        assert_eq!(known, [true, false], "{}", home.name);
        let prefix = |unique: &str, length| Prefix {
            at: at(unique),
            digest: Digest::of(HERE),
            length,
        };
        home.endpoint.request(Request::Prefixes(vec![
            prefix("1.here", 7),
            prefix("1.here", 1000),
            prefix("2.none", 7),
        ]));
        let Response::Prefixes(prefixes) = home.response() else {
            panic!("{}: no prefixes", home.name);
        };
        let expected = [Some(Digest::of(&HERE[..7])), None, None];
        assert_eq!(prefixes, expected, "{}", home.name);
        home.endpoint.request(Request::Manifests {
            folders: vec![INBOX],
        });
        assert_eq!(home.listed(Listing::Manifests), (0, 1), "{}", home.name);
    });
}
