//! A run ends without reading what it has changed itself, and with reading it wherever anybody else was there.

use std::fs;
use std::path::PathBuf;

use protocol::message::{Consent, Expect, NewBody, Reason, Source};
use protocol::{Digest, Flags, FolderDir, Info, Outcome, Unique};

use super::*;
use crate::Replica;
use crate::inbox::written;
use crate::listing;
use crate::replica::open_for_test;

const BYTES: &[u8] = b"Subject: one of some\n\n";
const NEW: &[u8] = b"Subject: a new one\n\n";

/// A replica with messages in INBOX (folder 1) and Old, of which all is known: no time in it is younger than the granularity.
struct Fixture {
    dir: tempfile::TempDir,
    replica: Replica,
}

impl Fixture {
    fn new(prepare: impl FnOnce(&Fixture)) -> Fixture {
        let dir = tempfile::tempdir().expect("temp dir");
        for part in ["cur", "new", "tmp", ".Old/cur", ".Old/new", ".Old/tmp"] {
            fs::create_dir_all(dir.path().join("mail").join(part)).expect("it is made");
        }
        let replica = open_for_test(dir.path(), "state");
        let mut fixture = Fixture { dir, replica };
        for name in [
            "cur/1.a:2,",
            "cur/2.b:2,S",
            "cur/3.c:2,",
            "new/4.d",
            ".Old/cur/5.e:2,S",
        ] {
            fixture.put(name, BYTES);
        }
        prepare(&fixture);
        // Until no folder is too young to be believed.
        loop {
            fixture.replica.scan().expect("it scans");
            let folders = fixture.replica.index.folders().expect("they are asked");
            if folders.iter().all(|row| !row.dirty) {
                return fixture;
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("mail").join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("it is written");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("it is renamed");
    }

    fn at(&self, dir: &str, unique: &str) -> At {
        let folder = FolderDir::new(dir.as_bytes()).expect("a directory");
        let row = self.replica.index.folder_in(&folder).expect("it is asked");
        At {
            number: row.map(|row| row.id),
            folder,
            unique: Unique::new(unique.as_bytes()).expect("a name"),
            copy: 0,
        }
    }

    /// What an operation expects of a message that is as it is known.
    fn expect(&self, at: &At) -> Expect {
        let folder = at.number.expect("it is known");
        let row = self.replica.index.file_at(folder, &at.unique, 0);
        let entry = row.expect("it is asked").expect("it is there").entry;
        Expect {
            in_new: entry.in_new,
            flags: entry.flags(),
            digest: entry.digest,
        }
    }

    fn create(&self, unique: &str) -> Op {
        Op::Create {
            at: self.at("", unique),
            in_new: true,
            info: Info::default(),
            body: new_body(),
        }
    }

    fn update(&self, (dir, unique): (&str, &str), to: &str, body: Option<NewBody>) -> Op {
        let at = self.at(dir, unique);
        Op::Update {
            expect: self.expect(&at),
            to: self.at(to, unique),
            at,
            in_new: false,
            flags: Flags::from_letters(b"R"),
            body,
            consent: Consent::Free,
        }
    }

    fn flag(&self, unique: &str, letters: &[u8]) -> Op {
        let at = self.at("", unique);
        Op::Update {
            expect: self.expect(&at),
            to: at.clone(),
            at,
            in_new: false,
            flags: Flags::from_letters(letters),
            body: None,
            consent: Consent::Free,
        }
    }

    fn retire(&self, unique: &str) -> Op {
        let at = self.at("", unique);
        Op::Retire {
            expect: self.expect(&at),
            at,
            reason: Reason::Deleted,
            consent: Consent::Free,
        }
    }

    /// Carries a batch out, with a body for each operation that wants one.
    fn apply(&mut self, ops: Vec<Op>) -> Vec<Outcome> {
        let bodies = written(&mut self.replica, &ops, NEW);
        self.replica.apply(&ops, bodies).expect("it is applied")
    }

    /// Ends the run; returns whether the tree was looked at for that.
    fn settle(&mut self) -> bool {
        let before = self.replica.index.listings.get();
        self.replica.settle().expect("it ends");
        self.replica.index.listings.get() > before
    }

    /// What is known of the messages that are there: directory, name, bytes.
    fn known(&self) -> Vec<String> {
        let folders = self.replica.index.folders().expect("they are asked");
        let mut known = Vec::new();
        for folder in folders.iter().filter(|folder| !folder.gone) {
            let rows = self.replica.index.files_of(folder.id);
            let rows = rows.expect("they are asked").into_iter();
            let live: Vec<_> = rows.filter(|row| !row.gone).collect();
            assert_eq!(folder.messages, live.len() as u64, "{folder:?}");
            known.extend(live.iter().map(|row| {
                let path = crate::index::path_of(&folder.dir, row);
                format!("{} {:?}", String::from_utf8_lossy(&path), row.entry.digest)
            }));
        }
        known.sort();
        known
    }

    /// What somebody finds who reads everything for the first time.
    fn found(&self) -> Vec<String> {
        let mut other = open_for_test(self.dir.path(), "another state");
        other.scan().expect("it scans");
        let (dir, replica) = (tempfile::tempdir().expect("temp dir"), other);
        Fixture { dir, replica }.known()
    }

    /// Nothing is left that the next run has to read.
    fn assert_read(&self) {
        for row in self.replica.index.folders().expect("they are asked") {
            let now = listing::stamps(self.replica.root(), &row.dir).expect("it is there");
            assert!(!row.dirty && row.exact, "{row:?}");
            assert!((row.cur, row.new) == (now.cur, now.new), "{row:?}");
        }
        assert_eq!(self.known(), self.found());
    }
}

fn new_body() -> NewBody {
    NewBody {
        digest: Digest::of(NEW),
        size: NEW.len() as u64,
        mtime_ns: 1_000_000_000,
        source: Source::Body { offset: 0 },
    }
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done { .. })
}

/// One operation of each kind on messages.
fn all_kinds(fixture: &Fixture) -> Vec<Op> {
    vec![
        fixture.create("6.f"),
        fixture.create("7.g"),
        fixture.flag("1.a", b"F"),
        fixture.update(("", "2.b"), "", Some(new_body())),
        fixture.retire("3.c"),
        fixture.update(("", "4.d"), ".Old", None),
        fixture.update((".Old", "5.e"), "", None),
    ]
}

#[test]
fn what_a_run_itself_did_is_not_read_again() {
    let mut fixture = Fixture::new(|_| ());
    let kind = fstatfs(fs::File::open(fixture.dir.path()).expect("it opens"));
    if !LOCAL.contains(&kind.expect("it is asked").f_type) {
        println!("this file system is always looked at");
        return;
    }
    fixture.assert_read();
    for again in [false, true] {
        let ops = match again {
            false => all_kinds(&fixture),
            true => vec![fixture.retire("6.f"), fixture.flag("1.a", b"")],
        };
        let outcomes = fixture.apply(ops);
        assert!(outcomes.iter().all(is_done), "{outcomes:?}");
        // Also what came in this very run, in another batch.
        if !again {
            let outcomes = fixture.apply(vec![fixture.retire("7.g")]);
            assert!(outcomes.iter().all(is_done), "{outcomes:?}");
        }
        assert!(!fixture.settle(), "the tree was read");
        fixture.assert_read();
        let number = fixture.replica.index.number().expect("it is asked");
        let scan = fixture.replica.scan().expect("it scans");
        assert!(scan.complete && scan.held == 0);
        let after = fixture.replica.index.number().expect("it is asked");
        assert_eq!(number, after, "somebody told something new");
    }
}

type Act = fn(&Fixture);

/// What others do in the directories that a run works in, after it has looked there.
fn strangers() -> Vec<(&'static str, Act)> {
    vec![
        ("a delivery", |here| here.put("new/8.h", NEW)),
        ("a message read", |here| {
            here.rename("cur/2.b:2,R", "cur/2.b:2,RS")
        }),
        ("a deletion", |here| {
            fs::remove_file(here.path("cur/1.a:2,F")).expect("it is there");
        }),
        ("a version renamed over", |here| {
            here.put("tmp/x", NEW);
            here.rename("tmp/x", "cur/1.a:2,F");
        }),
        ("a second name", |here| {
            let (of, name) = (here.path("cur/1.a:2,F"), here.path("cur/8.h:2,"));
            fs::hard_link(of, name).expect("it is linked");
        }),
        ("a move to another folder", |here| {
            here.rename("new/6.f", ".Old/new/6.f")
        }),
        ("an exchange", |here| {
            here.rename("new/6.f", "new/x");
            here.rename("new/7.g", "new/6.f");
            here.rename("new/x", "new/7.g");
        }),
        ("another directory", |here| {
            here.rename("cur", "aside");
            fs::create_dir(here.path("cur")).expect("it is made");
            for entry in fs::read_dir(here.path("aside")).expect("it is there") {
                let entry = entry.expect("it is listed");
                fs::rename(entry.path(), here.path("cur").join(entry.file_name()))
                    .expect("it is renamed");
            }
            fs::remove_dir(here.path("aside")).expect("it is empty");
        }),
        ("too much to be told", |here| {
            let names = ["cur/1.a:2,F", "cur/1.a:2,FS"];
            for turn in 0..20_000 {
                here.rename(names[turn % 2], names[1 - turn % 2]);
            }
        }),
    ]
}

#[test]
fn what_a_stranger_does_beside_a_run_is_seen_at_its_end() {
    for (what, act) in strangers() {
        // A moment ago, which the directory's own time tells, and longer ago, after which a batch went well.
        for lately in [true, false] {
            let mut fixture = Fixture::new(|_| ());
            let outcomes = fixture.apply(all_kinds(&fixture));
            assert!(outcomes.iter().all(is_done), "{what}: {outcomes:?}");
            act(&fixture);
            if !lately {
                let outcomes = fixture.apply(vec![fixture.create("9.i")]);
                assert!(outcomes.iter().all(is_done), "{what}: {outcomes:?}");
            }
            assert!(fixture.settle(), "{what} was not noticed");
            fixture.replica.scan().expect("it scans");
            assert_eq!(fixture.known(), fixture.found(), "{what}");
        }
    }
}

#[test]
fn what_a_stranger_does_between_the_look_and_the_first_batch_is_seen_at_the_end() {
    let mut fixture = Fixture::new(|_| ());
    fixture.put("new/8.h", NEW);
    let outcomes = fixture.apply(vec![fixture.flag("1.a", b"F")]);
    assert!(outcomes.iter().all(is_done), "{outcomes:?}");
    assert!(fixture.settle());
    assert_eq!(fixture.known(), fixture.found());
}

/// Two agents of one index: what one of them has recorded meanwhile the other does not take for its own.
#[test]
fn a_folder_that_somebody_else_recorded_meanwhile_is_looked_at() {
    let mut fixture = Fixture::new(|_| ());
    let outcomes = fixture.apply(vec![fixture.flag("1.a", b"F")]);
    assert!(outcomes.iter().all(is_done), "{outcomes:?}");
    let mut other = open_for_test(fixture.dir.path(), "state");
    fixture.put("new/8.h", NEW);
    other.scan().expect("it scans");
    let outcomes = fixture.apply(vec![fixture.create("6.f")]);
    assert!(outcomes.iter().all(is_done), "{outcomes:?}");
    assert!(fixture.settle());
    assert_eq!(fixture.known(), fixture.found());
}

/// Two state directories of one tree: the other's batches are a stranger's.
#[test]
fn what_another_client_of_the_tree_does_between_two_batches_is_seen_at_the_end() {
    let mut fixture = Fixture::new(|_| ());
    let outcomes = fixture.apply(vec![fixture.flag("1.a", b"F")]);
    assert!(outcomes.iter().all(is_done), "{outcomes:?}");
    let mut replica = open_for_test(fixture.dir.path(), "another state");
    replica.scan().expect("it scans");
    let mut other = Fixture {
        dir: tempfile::tempdir().expect("temp dir"),
        replica,
    };
    let outcomes = other.apply(vec![other.create("8.h"), other.retire("3.c")]);
    assert!(outcomes.iter().all(is_done), "{outcomes:?}");
    let outcomes = fixture.apply(vec![fixture.create("6.f")]);
    assert!(outcomes.iter().all(is_done), "{outcomes:?}");
    assert!(fixture.settle());
    assert_eq!(fixture.known(), fixture.found());
}

/// What lies beside a message and is none becomes mail when the message goes.
#[test]
fn a_folder_in_which_something_lies_beside_messages_is_read_again() {
    let beside: [Act; 2] = [
        |here| here.put("cur/3.c:2,S~", NEW),
        |here| {
            let names = ["cur/3.c:2,", "cur/3.c:2,S"].map(|name| here.path(name));
            fs::hard_link(&names[0], &names[1]).expect("it is linked");
        },
    ];
    for lay in beside {
        let mut fixture = Fixture::new(lay);
        let outcomes = fixture.apply(vec![fixture.retire("3.c")]);
        assert!(outcomes.iter().all(is_done), "{outcomes:?}");
        assert!(fixture.settle());
        fixture.replica.scan().expect("it scans");
        assert_eq!(fixture.known(), fixture.found());
    }
}

#[test]
fn folders_that_a_run_makes_or_renames_are_looked_at() {
    let mut fixture = Fixture::new(|_| ());
    let dir = |name: &str| FolderDir::new(name.as_bytes()).expect("a directory");
    let made = fixture.apply(vec![Op::MakeFolder { dir: dir(".New") }]);
    assert!(matches!(made[..], [Outcome::Made { .. }]), "{made:?}");
    assert!(fixture.settle());
    fixture.assert_read();
    let renamed = fixture.apply(vec![Op::RenameFolder {
        number: fixture.at(".Old", "5.e").number.expect("it is known"),
        from: dir(".Old"),
        to: dir(".Older"),
    }]);
    assert!(renamed.iter().all(is_done), "{renamed:?}");
    assert!(fixture.settle());
    fixture.assert_read();
}
