//! One value of every variant of every message, as the golden bytes pin them.

use protocol::message::{
    At, Consent, Course, Expect, Fetch, Hello, Listed, Listing, NewBody, PathBytes, Prefix,
    Problem, Reason, Refusal, RefusalKind, Rights, Source, Welcome,
};
use protocol::{
    Change, Cursor, Digest, Entry, Fingerprint, Flags, FolderChange, FolderDir, IndexId, Info,
    Keywords, Op, Outcome, ReplicaId, Request, Response, Tag, Unique,
};

/// The names that stand in the samples wherever one can stand.
pub(crate) const FOLDER: &[u8] = b"Lists/debian";
pub(crate) const UNIQUE: &[u8] = b"17.M1P2.host,S=5";
pub(crate) const INFO: &[u8] = b":2,FS";
pub(crate) const PATH: &[u8] = b"/home/me/Maildir";

pub(crate) fn hello() -> Hello {
    Hello {
        versions: (1, 1),
        features: 0,
        path: path(),
        client: "me@laptop".into(),
        expect: Some(replica()),
        cursor: Some(cursor()),
        dry_run: false,
        checksum: true,
        adopt: false,
        timeout: 60,
    }
}

pub(crate) fn hello_first() -> Hello {
    Hello {
        path: PathBytes::new(b"").expect("valid"),
        expect: None,
        cursor: None,
        ..hello()
    }
}

pub(crate) fn requests() -> Vec<Request> {
    vec![
        Request::Manifests {
            folders: vec![1, 250, 251, 65_536],
        },
        Request::Fetch(vec![Fetch {
            at: at(),
            digest: digest(),
            offset: 1 << 20,
        }]),
        Request::Prefixes(vec![Prefix {
            at: at(),
            digest: digest(),
            length: 300,
        }]),
        Request::Apply(vec![Op::MakeFolder { dir: folder() }]),
        Request::Finish,
        Request::Fingerprints(vec![(at(), digest())]),
        Request::Stream {
            folders: vec![Course {
                folder: 7,
                after: Some(unique()),
            }],
            kept: vec![digest()],
        },
        Request::Round(Box::new(hello())),
        Request::Begin { whole: true },
        Request::Ping,
    ]
}

pub(crate) fn ops() -> Vec<Op> {
    let dir = folder;
    vec![
        Op::MakeFolder { dir: dir() },
        Op::RenameFolder {
            number: 7,
            from: dir(),
            to: FolderDir::root(),
        },
        Op::RemoveFolder {
            number: 7,
            dir: dir(),
        },
        Op::Create {
            at: at(),
            in_new: true,
            info: info(),
            body: body(Source::Body { offset: 4096 }),
        },
        Op::Update {
            at: at(),
            expect: expect(),
            to: At {
                number: None,
                copy: 1,
                ..at()
            },
            in_new: false,
            flags: Flags::from_letters(b"RSa"),
            body: Some(body(Source::Copy(at()))),
            consent: Consent::Counts,
        },
        Op::Retire {
            at: at(),
            expect: expect(),
            reason: Reason::Replaced,
            consent: Consent::Free,
        },
    ]
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::Done { seq: 70_000 },
        Outcome::Stale,
        Outcome::Denied,
        Outcome::Failed { why: why() },
        Outcome::Full { why: why() },
        Outcome::Made { folder: 7 },
        Outcome::Taken,
    ]
}

pub(crate) fn responses() -> Vec<Response> {
    vec![
        Response::Welcome(welcome()),
        Response::Refused(Refusal {
            kind: RefusalKind::Unsafe,
            why: why(),
        }),
        Response::Folders(vec![
            FolderChange {
                seq: 3,
                id: 7,
                dir: folder(),
                gone: false,
                keywords: None,
            },
            FolderChange {
                seq: 4,
                id: 8,
                dir: folder(),
                gone: false,
                keywords: Keywords::parse(b"0 Work\n25 $Forwarded\n"),
            },
        ]),
        Response::Changes(vec![change()]),
        Response::Digests(vec![(7, digest())]),
        Response::Problems(vec![Problem {
            path: "cur/x".into(),
            why: why(),
            holds: true,
        }]),
        Response::Partials(vec![(digest(), 1 << 20)]),
        Response::Listed(Listed {
            from: Listing::Everything,
            cursor: cursor(),
            complete: true,
            held: 3,
            messages: 400_000,
            deleted_lately: 40,
        }),
        Response::NoBody { why: why() },
        Response::Prefixes(vec![Some(digest()), None]),
        Response::Outcomes(vec![Outcome::Stale]),
        Response::Fingerprints(vec![Some(fingerprint()), None]),
        Response::Busy,
        Response::Finished { cursor: cursor() },
        Response::Waits { polling: why() },
        Response::Alive,
    ]
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        version: 1,
        features: 0,
        agent: "0.1.0".into(),
        rights: Rights::NoDelete,
        replica: replica(),
        fresh: false,
        continues: Some(true),
        root: path(),
    }
}

pub(crate) fn change() -> Change {
    Change {
        seq: 1000,
        born: 900,
        folder: 7,
        unique: unique(),
        copy: 0,
        gone: false,
        lost: false,
        entry: entry(),
    }
}

pub(crate) fn entry() -> Entry {
    Entry {
        in_new: false,
        info: info(),
        digest: digest(),
        size: 5000,
        mtime_ns: -1_500_000_000,
        damaged: false,
    }
}

/// Of a message whose header has other line ends than its body.
pub(crate) fn fingerprint() -> Fingerprint {
    let message = b"From: Ada\nX-TUID: 0123456789ab\nMessage-ID: <1@example.org>\n\nHello\r\n";
    let read = Fingerprint::of(&message[..]).expect("memory does not fail");
    read.expect("its header can be read")
}

pub(crate) fn sources() -> Vec<Source> {
    let form = fingerprint().form.expect("it can be told");
    vec![
        Source::Body { offset: 0 },
        Source::Copy(at()),
        Source::Remade(form),
    ]
}

pub(crate) const RIGHTS: [Rights; 4] = [
    Rights::All,
    Rights::NoDelete,
    Rights::AppendOnly,
    Rights::ReadOnly,
];
pub(crate) const LISTINGS: [Listing; 6] = [
    Listing::Cursor,
    Listing::Everything,
    Listing::Digests,
    Listing::Manifests,
    Listing::Folders,
    Listing::Stream,
];
pub(crate) const REASONS: [Reason; 4] = [
    Reason::Deleted,
    Reason::Excluded,
    Reason::Replaced,
    Reason::Damaged,
];
pub(crate) const CONSENTS: [Consent; 2] = [Consent::Counts, Consent::Free];
pub(crate) const REFUSALS: [RefusalKind; 4] = [
    RefusalKind::Usage,
    RefusalKind::Error,
    RefusalKind::Unsafe,
    RefusalKind::Temporary,
];

fn at() -> At {
    At {
        number: Some(7),
        folder: folder(),
        unique: unique(),
        copy: 0,
    }
}

fn expect() -> Expect {
    Expect {
        in_new: true,
        flags: info().flags(),
        digest: digest(),
    }
}

fn body(source: Source) -> NewBody {
    NewBody {
        digest: digest(),
        size: 5000,
        mtime_ns: 1_700_000_000_123_456_789,
        source,
    }
}

fn cursor() -> Cursor {
    Cursor {
        index: IndexId([0x11; 8]),
        number: 1000,
        tag: Tag([0x22; 8]),
    }
}

fn replica() -> ReplicaId {
    ReplicaId([0x33; 16])
}

fn digest() -> Digest {
    Digest::new([0xdd; 32])
}

fn folder() -> FolderDir {
    FolderDir::new(FOLDER).expect("valid")
}

fn unique() -> Unique {
    Unique::new(UNIQUE).expect("valid")
}

fn info() -> Info {
    Info::new(INFO).expect("valid")
}

fn path() -> PathBytes {
    PathBytes::new(PATH).expect("valid")
}

fn why() -> String {
    "Not today".into()
}
