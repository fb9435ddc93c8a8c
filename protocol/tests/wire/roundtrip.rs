//! Whatever can be said is read back the same, and whatever is read does no harm.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use protocol::codec::{BODY_BYTES_MAX, MESSAGE_BYTES_MAX, batches, decode, encode};
use protocol::frame::{Frame, FrameReader, FrameWriter};
use protocol::handshake::{hello_word, parse_hello};
use protocol::message::{
    At, Course, Expect, Fetch, Hello, Listed, NewBody, PathBytes, Prefix, Problem, Refusal, Source,
    Welcome,
};
use protocol::{
    Change, Cursor, Digest, Entry, Fingerprint, Flags, FolderChange, FolderDir, IndexId, Info,
    Keywords, Op, Outcome, ReplicaId, Request, Response, Tag, Unique,
};

use crate::samples;

fn number() -> impl Strategy<Value = u64> {
    // Lengths of an integer on the wire change at 251, 2^16 and 2^32.
    prop_oneof![0..300_u64, 65_000..66_000_u64, any::<u64>()]
}

fn size() -> impl Strategy<Value = u64> {
    number().prop_map(|number| number % (BODY_BYTES_MAX + 1))
}

fn folder() -> impl Strategy<Value = FolderDir> {
    let names = prop_oneof![
        "[a-z ]{1,9}(/[A-Z\u{e9}.]{1,9}){0,3}".prop_map(String::into_bytes),
        vec(any::<u8>(), 1..40)
    ];
    names.prop_filter_map("a folder", |name| FolderDir::new(&name).ok())
}

fn unique() -> impl Strategy<Value = Unique> {
    let name = vec(1..=u8::MAX, 0..256).prop_map(|mut name| {
        for byte in name.iter_mut().filter(|byte| matches!(byte, b'/' | b'.')) {
            *byte = b',';
        }
        name
    });
    name.prop_filter_map("a unique name", |name| Unique::new(&name).ok())
}

fn info() -> impl Strategy<Value = Info> {
    prop_oneof![Just(String::new()), ":2,[A-Za-z]{0,9}(,[a-z=]{0,9})?"]
        .prop_map(|info| Info::new(info.as_bytes()).expect("an info"))
}

/// Text for people, which is escaped when it is read, as it is then.
fn text() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| protocol::bytes::escape(text.as_bytes()))
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::new)
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (any::<[u8; 8]>(), number(), any::<[u8; 8]>()).prop_map(|(index, number, tag)| Cursor {
        index: IndexId(index),
        number,
        tag: Tag(tag),
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    (
        any::<bool>(),
        info(),
        digest(),
        size(),
        any::<i64>(),
        any::<bool>(),
    )
        .prop_map(|(in_new, info, digest, size, mtime_ns, damaged)| Entry {
            in_new,
            info,
            digest,
            size,
            mtime_ns,
            damaged,
        })
}

fn change() -> impl Strategy<Value = Change> {
    (
        number(),
        number(),
        any::<u32>(),
        unique(),
        any::<u16>(),
        any::<bool>(),
        entry(),
    )
        .prop_map(|(seq, born, folder, unique, copy, gone, entry)| Change {
            seq,
            born,
            folder,
            unique,
            copy,
            gone,
            lost: gone && seq % 2 == 0,
            entry,
        })
}

fn folder_change() -> impl Strategy<Value = FolderChange> {
    let told = (number(), any::<u32>(), folder(), any::<bool>());
    (told, keywords()).prop_map(|((seq, id, dir, gone), keywords)| FolderChange {
        seq,
        id,
        dir,
        gone,
        keywords,
    })
}

fn keywords() -> impl Strategy<Value = Option<Keywords>> {
    let lines = proptest::collection::vec((0..30_u8, "[ -~]{0,60}"), 0..30);
    let file = lines.prop_map(|lines| {
        let line = |(letter, name): &(u8, String)| format!("{letter} {name}\n");
        lines.iter().map(line).collect::<String>()
    });
    file.prop_map(|file| Keywords::parse(file.as_bytes()))
}

fn at() -> impl Strategy<Value = At> {
    let number = any::<Option<u32>>();
    (number, folder(), unique(), any::<u16>()).prop_map(|(number, folder, unique, copy)| At {
        number,
        folder,
        unique,
        copy,
    })
}

fn expect() -> impl Strategy<Value = Expect> {
    (any::<bool>(), flags(), digest()).prop_map(|(in_new, flags, digest)| Expect {
        in_new,
        flags,
        digest,
    })
}

fn flags() -> impl Strategy<Value = Flags> {
    any::<u64>().prop_map(Flags::from_bits)
}

fn body() -> impl Strategy<Value = NewBody> {
    let source = prop_oneof![
        number().prop_map(|offset| Source::Body { offset }),
        at().prop_map(Source::Copy),
        fingerprint().prop_filter_map("no form", |print| print.form.map(Source::Remade)),
    ];
    (digest(), size(), any::<i64>(), source).prop_map(|(digest, size, mtime_ns, source)| NewBody {
        digest,
        size,
        mtime_ns,
        source,
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        folder().prop_map(|dir| Op::MakeFolder { dir }),
        (any::<u32>(), folder(), folder()).prop_map(|(number, from, to)| Op::RenameFolder {
            number,
            from,
            to
        }),
        (any::<u32>(), folder()).prop_map(|(number, dir)| Op::RemoveFolder { number, dir }),
        (at(), any::<bool>(), info(), body()).prop_map(|(at, in_new, info, body)| Op::Create {
            at,
            in_new,
            info,
            body
        }),
        (
            at(),
            expect(),
            at(),
            any::<bool>(),
            flags(),
            option::of(body()),
            select(samples::CONSENTS.to_vec())
        )
            .prop_map(
                |(at, expect, to, in_new, flags, body, consent)| Op::Update {
                    at,
                    expect,
                    to,
                    in_new,
                    flags,
                    body,
                    consent
                }
            ),
        (
            at(),
            expect(),
            select(samples::REASONS.to_vec()),
            select(samples::CONSENTS.to_vec())
        )
            .prop_map(|(at, expect, reason, consent)| Op::Retire {
                at,
                expect,
                reason,
                consent
            }),
    ]
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    "(([A-C]|X-TUID|Message-ID): ?[a-c]{0,3}\r?\n){0,4}\r?\n([a-c]{0,3}\r{0,2}\n){0,4}"
        .prop_filter_map("no header", |text| {
            Fingerprint::of(text.as_bytes()).ok().flatten()
        })
}

fn request() -> impl Strategy<Value = Request> {
    let fetch =
        (at(), digest(), number()).prop_map(|(at, digest, offset)| Fetch { at, digest, offset });
    let prefix =
        (at(), digest(), number()).prop_map(|(at, digest, length)| Prefix { at, digest, length });
    let course =
        (any::<u32>(), option::of(unique())).prop_map(|(folder, after)| Course { folder, after });
    prop_oneof![
        vec(any::<u32>(), 0..20).prop_map(|folders| Request::Manifests { folders }),
        vec(fetch, 0..9).prop_map(Request::Fetch),
        vec(prefix, 0..9).prop_map(Request::Prefixes),
        vec(op(), 0..9).prop_map(Request::Apply),
        Just(Request::Finish),
        vec((at(), digest()), 0..9).prop_map(Request::Fingerprints),
        (vec(course, 0..9), vec(digest(), 0..9))
            .prop_map(|(folders, kept)| Request::Stream { folders, kept }),
        hello().prop_map(|hello| Request::Round(Box::new(hello))),
        any::<bool>().prop_map(|whole| Request::Begin { whole }),
        Just(Request::Ping),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        number().prop_map(|seq| Outcome::Done { seq }),
        select(vec![Outcome::Stale, Outcome::Denied, Outcome::Taken]),
        text().prop_map(|why| Outcome::Failed { why }),
        text().prop_map(|why| Outcome::Full { why }),
        any::<u32>().prop_map(|folder| Outcome::Made { folder }),
    ]
}

fn path() -> impl Strategy<Value = PathBytes> {
    vec(1..=u8::MAX, 0..1000).prop_map(|path| PathBytes::new(&path).expect("a path"))
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let ids = (
        any::<u16>(),
        number(),
        any::<[u8; 16]>().prop_map(ReplicaId),
    );
    let tree = (any::<bool>(), option::of(any::<bool>()), path());
    (ids, text(), select(samples::RIGHTS.to_vec()), tree).prop_map(
        |((version, features, replica), agent, rights, (fresh, continues, root))| Welcome {
            version,
            features,
            agent,
            rights,
            replica,
            fresh,
            continues,
            root,
        },
    )
}

fn response() -> impl Strategy<Value = Response> {
    let problem =
        (text(), text(), any::<bool>()).prop_map(|(path, why, holds)| Problem { path, why, holds });
    let listed = (
        select(samples::LISTINGS.to_vec()),
        cursor(),
        any::<bool>(),
        number(),
        number(),
        number(),
    )
        .prop_map(
            |(from, cursor, complete, held, messages, deleted_lately)| Listed {
                from,
                cursor,
                complete,
                held,
                messages,
                deleted_lately,
            },
        );
    prop_oneof![
        welcome().prop_map(Response::Welcome),
        (select(samples::REFUSALS.to_vec()), text())
            .prop_map(|(kind, why)| Response::Refused(Refusal { kind, why })),
        vec(folder_change(), 0..9).prop_map(Response::Folders),
        vec(change(), 0..9).prop_map(Response::Changes),
        vec((any::<u32>(), digest()), 0..9).prop_map(Response::Digests),
        vec(problem, 0..9).prop_map(Response::Problems),
        vec((digest(), number()), 0..9).prop_map(Response::Partials),
        listed.prop_map(Response::Listed),
        text().prop_map(|why| Response::NoBody { why }),
        vec(option::of(digest()), 0..9).prop_map(Response::Prefixes),
        vec(outcome(), 0..9).prop_map(Response::Outcomes),
        Just(Response::Busy),
        cursor().prop_map(|cursor| Response::Finished { cursor }),
        vec(option::of(fingerprint()), 0..9).prop_map(Response::Fingerprints),
        text().prop_map(|polling| Response::Waits { polling }),
        Just(Response::Alive),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let switches = any::<(bool, bool, bool)>();
    let memory = (
        option::of(any::<[u8; 16]>().prop_map(ReplicaId)),
        option::of(cursor()),
        any::<u16>(),
    );
    (
        1..=1_u16,
        1..=9_u16,
        number(),
        path(),
        "[a-z@]{0,60}",
        memory,
        switches,
    )
        .prop_map(
            |(
                min,
                max,
                features,
                path,
                client,
                (expect, cursor, timeout),
                (dry_run, checksum, adopt),
            )| {
                Hello {
                    versions: (min, max),
                    features,
                    path,
                    client,
                    expect,
                    cursor,
                    dry_run,
                    checksum,
                    adopt,
                    timeout,
                }
            },
        )
}

proptest! {
    #[test]
    fn requests_come_back(request in request()) {
        prop_assert_eq!(decode::<Request>(&encode(&request)).expect("decodes"), request);
    }

    #[test]
    fn responses_come_back(response in response()) {
        prop_assert_eq!(decode::<Response>(&encode(&response)).expect("decodes"), response);
    }

    #[test]
    fn hellos_come_back_through_one_word(hello in hello()) {
        let word = hello_word(&hello).expect("short enough");
        prop_assert!(word.bytes().all(|char| char.is_ascii_alphanumeric() || b"-_".contains(&char)));
        prop_assert_eq!(parse_hello(&word).expect("a hello"), hello);
    }

    #[test]
    fn frames_come_back_in_order(bodies in vec((vec(any::<u8>(), 0..2000), any::<bool>(), any::<bool>()), 0..20)) {
        let mut stream = Vec::new();
        let mut writer = FrameWriter::new(&mut stream);
        for (bytes, last, flush) in &bodies {
            writer.body_chunk(bytes, *last).expect("writes");
            if *flush {
                writer.flush().expect("flushes");
            }
        }
        writer.finish().expect("ends");
        drop(writer);
        let mut reader = FrameReader::new(&stream[..]);
        for (bytes, last, _) in bodies {
            prop_assert_eq!(reader.next().expect("a frame"), Some(Frame::Body { bytes, last }));
        }
        prop_assert_eq!(reader.next().expect("the end"), None);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..300), word in "[A-Za-z0-9_-]{0,300}") {
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Response>(&bytes);
        let _ = parse_hello(&word);
        let _ = FrameReader::new(&bytes[..]).next();
    }

    #[test]
    fn batches_keep_order_and_fit_a_message(changes in vec(change(), 0..2000)) {
        let cut: Vec<_> = batches(changes.clone()).collect();
        for batch in &cut {
            prop_assert!(encode(&Response::Changes(batch.clone())).len() <= MESSAGE_BYTES_MAX);
        }
        prop_assert_eq!(cut.concat(), changes);
    }
}
