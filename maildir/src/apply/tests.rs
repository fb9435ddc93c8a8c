//! What another program does between scan and batch: nothing of it is overwritten, and nothing is taken away (I2, I5).

use std::fs;
use std::path::{Path, PathBuf};

use protocol::message::{At, Consent, Expect, NewBody, Reason, Source};
use protocol::{Digest, Flags, FolderDir, Info, Op, Outcome, Unique};

use crate::Replica;
use crate::inbox::written;
use crate::replica::open_for_test;

const OLD: &[u8] = b"Subject: what was agreed on\n\n";
const NEW: &[u8] = b"Subject: what the other side has\n\n";
const FOREIGN: &[u8] = b"Subject: what somebody put here meanwhile\n\n";

/// A scanned replica with INBOX and one message in it, `cur/1.a:2,`.
struct Fixture {
    dir: tempfile::TempDir,
    replica: Replica,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("temp dir");
        for part in ["cur", "new", "tmp", ".Old/cur", ".Old/new", ".Old/tmp"] {
            fs::create_dir_all(dir.path().join("mail").join(part)).expect("it is made");
        }
        fs::write(dir.path().join("mail/cur/1.a:2,"), OLD).expect("it is written");
        let mut replica = open_for_test(dir.path(), "state");
        replica.scan().expect("it scans");
        Fixture { dir, replica }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("mail").join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("it is written");
    }

    fn number(&self, name: &str) -> u32 {
        let mut reader = crate::journal::Reader::since(0, false);
        let page = self.replica.next_page(&mut reader);
        let folders = page.expect("they are known").expect("a page").folders;
        let found = folders.iter().find(|folder| folder.dir == folder_dir(name));
        found.expect("it was scanned").id
    }

    fn at(&self, folder: &str, unique: &str) -> At {
        At {
            number: Some(self.number(folder)),
            folder: folder_dir(folder),
            unique: Unique::new(unique.as_bytes()).expect("a name"),
            copy: 0,
        }
    }

    fn update(&self, to: &str, flags: &[u8], body: Option<NewBody>) -> Op {
        Op::Update {
            at: self.at("INBOX", "1.a"),
            expect: agreed(),
            to: self.at(to, "1.a"),
            in_new: false,
            flags: Flags::from_letters(flags),
            body,
            consent: Consent::Free,
        }
    }

    /// Carries one operation out, with a body where it wants one.
    fn apply(&mut self, op: Op) -> Outcome {
        let bodies = written(&mut self.replica, std::slice::from_ref(&op), NEW);
        let done = self.replica.apply(&[op], bodies);
        done.expect("it is applied").remove(0)
    }

    /// Every message file with its bytes, by its path.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for dir in ["cur", "new", "tmp", ".Old/cur", ".Old/new", ".New/cur"] {
            for entry in fs::read_dir(self.path(dir)).into_iter().flatten() {
                let name = entry.expect("it is listed").file_name();
                let path = Path::new(dir).join(name);
                let bytes = fs::read(self.path(&path.to_string_lossy())).expect("it is read");
                files.push((path.to_string_lossy().into_owned(), bytes));
            }
        }
        files.sort();
        files
    }
}

fn files(expected: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    let owned = |(path, bytes): &(&str, &[u8])| ((*path).to_owned(), bytes.to_vec());
    expected.iter().map(owned).collect()
}

fn folder_dir(name: &str) -> FolderDir {
    let dir = match name {
        "INBOX" => String::new(),
        name => format!(".{name}"),
    };
    FolderDir::new(dir.as_bytes()).expect("a directory")
}

fn agreed() -> Expect {
    Expect {
        in_new: false,
        flags: Flags::default(),
        digest: Digest::of(OLD),
    }
}

fn body() -> NewBody {
    NewBody {
        digest: Digest::of(NEW),
        size: NEW.len() as u64,
        mtime_ns: 1_000_000_000,
        source: Source::Body { offset: 0 },
    }
}

#[test]
fn a_delivery_leaves_a_file_that_appeared_under_its_name() {
    let mut fixture = Fixture::new();
    fixture.put("new/2.b", FOREIGN);
    let outcome = fixture.apply(Op::Create {
        at: fixture.at("INBOX", "2.b"),
        in_new: true,
        info: Info::default(),
        body: body(),
    });
    assert_eq!(outcome, Outcome::Taken);
    let expected = files(&[("cur/1.a:2,", OLD), ("new/2.b", FOREIGN)]);
    assert_eq!(fixture.files(), expected, "and tmp is empty");
}

#[test]
fn a_rename_leaves_a_file_that_appeared_under_its_name() {
    for (to, name) in [("INBOX", "cur/1.a:2,S"), ("Old", ".Old/cur/1.a:2,S")] {
        let mut fixture = Fixture::new();
        fixture.put(name, FOREIGN);
        let outcome = fixture.apply(fixture.update(to, b"S", None));
        assert_eq!(outcome, Outcome::Taken, "{name}");
        let mut expected = files(&[("cur/1.a:2,", OLD), (name, FOREIGN)]);
        expected.sort();
        assert_eq!(fixture.files(), expected);
    }
}

#[test]
fn a_replacement_leaves_what_was_edited_meanwhile() {
    for flags in [&b""[..], b"S"] {
        let mut fixture = Fixture::new();
        fixture.put("cur/1.a:2,", FOREIGN);
        let outcome = fixture.apply(fixture.update("INBOX", flags, Some(body())));
        assert_eq!(outcome, Outcome::Stale);
        assert_eq!(fixture.files(), files(&[("cur/1.a:2,", FOREIGN)]));
    }
}

#[test]
fn a_replacement_under_a_new_name_leaves_a_file_that_appeared_there() {
    let mut fixture = Fixture::new();
    fixture.put("cur/1.a:2,S", FOREIGN);
    let outcome = fixture.apply(fixture.update("INBOX", b"S", Some(body())));
    assert_eq!(outcome, Outcome::Taken);
    let expected = files(&[("cur/1.a:2,", OLD), ("cur/1.a:2,S", FOREIGN)]);
    assert_eq!(fixture.files(), expected);
}

#[test]
fn a_deletion_leaves_what_was_edited_or_renamed_meanwhile() {
    for (name, bytes) in [("cur/1.a:2,", FOREIGN), ("cur/1.a:2,F", OLD)] {
        let mut fixture = Fixture::new();
        fs::remove_file(fixture.path("cur/1.a:2,")).expect("it was there");
        fixture.put(name, bytes);
        let outcome = fixture.apply(Op::Retire {
            at: fixture.at("INBOX", "1.a"),
            expect: agreed(),
            reason: Reason::Deleted,
            consent: Consent::Free,
        });
        assert_eq!(outcome, Outcome::Stale, "{name}");
        assert_eq!(fixture.files(), files(&[(name, bytes)]));
    }
}

#[test]
fn a_renamed_folder_leaves_a_directory_that_appeared_under_its_name() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.path(".New/cur")).expect("it is made");
    fixture.put(".New/cur/2.b:2,", FOREIGN);
    let outcome = fixture.apply(Op::RenameFolder {
        number: fixture.number("Old"),
        from: folder_dir("Old"),
        to: folder_dir("New"),
    });
    let is_done = matches!(outcome, Outcome::Done { .. } | Outcome::Made { .. });
    assert!(!is_done, "{outcome:?}");
    assert!(fixture.path(".Old/cur").is_dir());
    let expected = files(&[(".New/cur/2.b:2,", FOREIGN), ("cur/1.a:2,", OLD)]);
    assert_eq!(fixture.files(), expected);
}

#[test]
fn a_removed_folder_keeps_a_message_that_was_delivered_meanwhile() {
    let mut fixture = Fixture::new();
    fixture.put(".Old/new/2.b", FOREIGN);
    let outcome = fixture.apply(Op::RemoveFolder {
        number: fixture.number("Old"),
        dir: folder_dir("Old"),
    });
    assert!(!matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    let expected = files(&[(".Old/new/2.b", FOREIGN), ("cur/1.a:2,", OLD)]);
    assert_eq!(fixture.files(), expected);
}

/// Two folders exchanged their names, and a message lies in both: what is asked of one is not done to the other.
#[test]
fn another_directory_in_a_folders_place_is_left_alone() {
    let mut fixture = Fixture::new();
    fixture.put(".Old/cur/1.a:2,", OLD);
    fs::create_dir_all(fixture.path(".New/cur")).expect("it is made");
    fixture.put(".New/cur/1.a:2,", OLD);
    fixture.replica.scan().expect("it scans");
    fs::rename(fixture.path(".Old"), fixture.path(".Gone")).expect("it is renamed");
    fs::rename(fixture.path(".New"), fixture.path(".Old")).expect("it is renamed");
    let op = Op::Retire {
        at: fixture.at("Old", "1.a"),
        expect: agreed(),
        reason: Reason::Deleted,
        consent: Consent::Free,
    };
    assert_eq!(fixture.apply(op), Outcome::Stale);
    let op = Op::Create {
        at: fixture.at("Old", "2.b"),
        in_new: false,
        info: Info::default(),
        body: body(),
    };
    assert_eq!(fixture.apply(op), Outcome::Stale);
    let op = Op::RenameFolder {
        number: fixture.number("Old"),
        from: folder_dir("Old"),
        to: folder_dir("Other"),
    };
    assert_eq!(fixture.apply(op), Outcome::Stale);
    let expected = files(&[(".Old/cur/1.a:2,", OLD), ("cur/1.a:2,", OLD)]);
    assert_eq!(fixture.files(), expected);
}

/// Only who made a folder in this run may name it without its number.
#[test]
fn a_folder_of_the_right_name_is_not_any_folder() {
    let mut fixture = Fixture::new();
    let make = |name| Op::MakeFolder {
        dir: folder_dir(name),
    };
    assert_eq!(fixture.apply(make("Old")), Outcome::Stale);
    assert!(matches!(fixture.apply(make("New")), Outcome::Made { .. }));
    assert!(matches!(fixture.apply(make("New")), Outcome::Made { .. }));
    for (name, is_made) in [("Old", false), ("New", true)] {
        let op = Op::Create {
            at: At {
                number: None,
                ..fixture.at(name, "2.b")
            },
            in_new: false,
            info: Info::default(),
            body: body(),
        };
        let outcome = fixture.apply(op);
        assert_eq!(matches!(outcome, Outcome::Done { .. }), is_made, "{name}");
    }
}

/// A directory may be replaced with all that is in it, so that `cur` and `new` are the same: the next scan takes it as it is.
#[test]
fn a_directory_made_anew_around_a_folder_is_known_after_the_next_scan() {
    let mut fixture = Fixture::new();
    fixture.put(".Old/cur/1.a:2,", OLD);
    fixture.replica.scan().expect("it scans");
    fs::create_dir(fixture.path(".Other")).expect("it is made");
    for part in ["cur", "new", "tmp"] {
        let (from, to) = (format!(".Old/{part}"), format!(".Other/{part}"));
        fs::rename(fixture.path(&from), fixture.path(&to)).expect("it is moved");
    }
    fs::remove_dir(fixture.path(".Old")).expect("it is empty");
    fs::rename(fixture.path(".Other"), fixture.path(".Old")).expect("it is renamed");
    let retire = |fixture: &Fixture| Op::Retire {
        at: fixture.at("Old", "1.a"),
        expect: agreed(),
        reason: Reason::Deleted,
        consent: Consent::Free,
    };
    let op = retire(&fixture);
    assert_eq!(fixture.apply(op), Outcome::Stale);
    fixture.replica.scan().expect("it scans");
    let op = retire(&fixture);
    assert!(matches!(fixture.apply(op), Outcome::Done { .. }));
}
