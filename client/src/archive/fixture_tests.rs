//! The archive as disks hold it: `fixtures/archive-N.sql` for each format N. The newest is what the code of today writes;
//! another format gets another number, and the change keeps what the failing test prints as one more file.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Debug;
use std::fs;

use protocol::fingerprint::Form;
use protocol::{Cursor, Entry, Flags, FolderDir, IndexId, Info, Keyword, Keywords, Tag, Unique};

use super::*;
use crate::merge::agreed::Agreed;
use crate::merge::folder::{FolderBase, SideFolder};
use crate::merge::letters::Letters;
use crate::merge::mapping::FolderName;
use crate::merge::record::{Base, CopyOf, Place, Seen, Seq, Taken};
use crate::report::heading::Heading;
use crate::report::skipped::Skipped;
use crate::run::stream::Progressed;

#[path = "../../../maildir/src/index/dump.rs"]
mod dump;

const LOCAL: ReplicaId = ReplicaId([1; 16]);
const REMOTE: ReplicaId = ReplicaId([2; 16]);

fn fixture_path(version: i64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/archive-{version}.sql"))
}

/// An archive on disk with what a fixture says.
fn placed(state: &Path, version: i64) -> PathBuf {
    let path = state.join("archives").join(format!("{LOCAL}-{REMOTE}.db"));
    fs::create_dir(state.join("archives")).expect("it is made");
    let fixture = fixture_path(version);
    let sql = fs::read_to_string(&fixture).unwrap_or_else(|_| panic!("{fixture:?} is missing"));
    let db = Connection::open(&path).expect("it opens");
    db.execute_batch(&sql).expect("it is SQL");
    path
}

fn open(state: &Path, dry_run: bool) -> Result<Archive> {
    Archive::open(state, LOCAL, REMOTE, dry_run)
}

fn dump(archive: &Archive) -> String {
    dump::dump(&archive.db).expect("it is read")
}

/// A value of a type whose fields are its own, from the same ones in order.
fn of<T: DeserializeOwned>(fields: &impl Serialize) -> T {
    decode_state(&encode_state(fields)).expect("these are its fields")
}

fn place(name: &str, copy: u16) -> Place {
    Place {
        folder: Fid(1),
        unique: Unique::new(name.as_bytes()).expect("a name"),
        copy,
    }
}

fn seen(name: &str, label: u8, flags: &[u8], seq: u64) -> Seen {
    let entry = Entry {
        in_new: false,
        info: Info::of(Flags::from_letters(flags)),
        digest: Digest::new([label; 32]),
        size: 1000 + u64::from(label),
        mtime_ns: 1_600_000_000_000_000_000 + i64::from(label),
        damaged: false,
    };
    Seen::new(place(name, 3), entry, Seq::Known(seq))
}

fn base(of: &Seen) -> Base {
    Base {
        place: Some(of.place.clone()),
        in_new: Some(false),
        flags: of.flags,
        open: Flags::EMPTY,
        digest: of.entry.digest,
        size: of.entry.size,
    }
}

/// A message on which both sides are alike, but that its file here bears another letter for a keyword.
fn agreed() -> Record {
    let mut remote = seen("1600000000.M1P1.mx", 1, b"Sa", 0);
    remote.seq = Seq::Unknown;
    let mut local = seen("1600000000.M1P1.mx", 1, b"Sb", 5);
    local.flags = remote.flags;
    Record {
        base: Some(base(&remote)),
        local: Some(local),
        remote: Some(remote),
        copy: None,
    }
}

/// A message of which each field differs from what is agreed, and a copy.
fn pending() -> [Record; 2] {
    let mut local = seen("1600000000.M2P1.mx", 2, b"DFa", 7);
    local.owed = Flags::from_letters(b"DFb");
    local.touched = true;
    let mut differs = base(&local);
    (differs.place, differs.in_new) = (None, None);
    differs.open = Flags::from_letters(b"F");
    let form: Form = of(&(
        vec![(1_u32, 1_u8), (0, 0)],
        Some((3_u32, b"X-TUID: 1".to_vec())),
    ));
    let copy = |form| {
        Some(CopyOf {
            digest: Digest::new([3; 32]),
            form,
        })
    };
    let one = Record {
        base: Some(differs),
        local: Some(local),
        remote: None,
        copy: copy(Some(form)),
    };
    let other = Record {
        base: None,
        local: None,
        remote: Some(seen("1600000000.M3\u{e9}", 4, b"", 8)),
        copy: copy(None),
    };
    [one, other]
}

fn folders() -> [(Fid, Folder); 2] {
    let dir = |text: &str| FolderDir::new(text.as_bytes()).expect("a directory");
    let held = |number, text| {
        Some(SideFolder {
            number,
            dir: dir(text),
            name: FolderName::default(),
        })
    };
    let both = Folder {
        base: Some(FolderBase {
            dirs: [dir("Lists/debian"), dir(".Lists.debian")],
            name: FolderName::default(),
        }),
        local: held(4, "Lists/debian"),
        remote: held(9, ".Lists.debian"),
        forgotten: false,
    };
    let forgotten = Folder {
        remote: held(11, ".Junk"),
        forgotten: true,
        ..Folder::default()
    };
    [(Fid(1), both), (Fid(6), forgotten)]
}

fn asked() -> Vec<Asked> {
    let line = |side, stored, record: Record, target| Asked {
        side,
        stored,
        record,
        target,
    };
    let [one, other] = pending();
    let state = agreed().local.map(|seen| seen.state());
    let agreed_at = Stored::Agreed(place("1600000000.M1P1.mx", 3));
    vec![
        line(Side::Remote, Stored::Pending(1), one, state),
        line(Side::Remote, Stored::Nowhere, other, None),
        line(Side::Remote, agreed_at, agreed(), None),
    ]
}

fn cursor(number: u64) -> Cursor {
    Cursor {
        index: IndexId([6; 8]),
        number,
        tag: Tag([7; 8]),
    }
}

fn taken() -> HashSet<Taken> {
    let place = place("1600000000.M4P1.mx", 0);
    let (side, was_there) = (Side::Remote, true);
    HashSet::from([Taken {
        side,
        place,
        was_there,
    }])
}

fn letters() -> Letters {
    let keyword = Keyword::new(b"$Forwarded").expect("a keyword");
    let keywords = Keywords::try_from(vec![(b'a', keyword)]).expect("in order");
    let named = [BTreeMap::from([(4_u32, keywords)]), BTreeMap::new()];
    of(&(named, [BTreeMap::from([(Fid(1), 4_u32)]), BTreeMap::new()]))
}

fn progressed() -> Progressed {
    let last = place("1600000000.M5P1.mx", 0);
    of(&(BTreeSet::from([Fid(1)]), Some((last.folder, last.unique))))
}

fn skipped() -> BTreeSet<Skipped> {
    let heading = Heading {
        date: Some("2020-09-13 12:26".to_owned()),
        from: None,
        subject: Some("one".to_owned()),
    };
    let skipped = |side, heading, holds| Skipped {
        side,
        path: "cur/1.d".to_owned(),
        why: "it cannot be read".to_owned(),
        heading,
        holds,
    };
    BTreeSet::from([
        skipped(Side::Local, Some(heading), false),
        skipped(Side::Remote, None, true),
    ])
}

fn texts() -> BTreeSet<String> {
    BTreeSet::from(["Junk".to_owned(), "Lists/*".to_owned()])
}

fn plan() -> [Digest; 2] {
    [Digest::new([8; 32]), Digest::new([9; 32])]
}

fn fill(archive: &Archive) -> Result<()> {
    archive.set("local_cursor", &cursor(5))?;
    archive.set("remote_cursor", &cursor(u64::MAX))?;
    archive.set("last_folder", &6_u32)?;
    archive.set("taken", &taken())?;
    archive.set("letters", &letters())?;
    archive.set(Progressed::KEY, &progressed())?;
    archive.set("skipped", &skipped())?;
    archive.set("told", &texts())?;
    archive.set("unmatched", &texts())?;
    for (id, folder) in folders() {
        archive.put_folder(id, &folder)?;
    }
    for record in [agreed()].iter().chain(&pending()) {
        archive.put(&Stored::Nowhere, record)?;
    }
    let lines = asked();
    let lines: Vec<AskedRef> = lines
        .iter()
        .map(|asked| AskedRef {
            side: asked.side,
            stored: &asked.stored,
            record: &asked.record,
            target: asked.target.as_ref(),
        })
        .collect();
    archive.ask(&lines)?;
    archive.put_plan("1a2b3c4d", &plan(), 1_700_000_000)
}

#[test]
fn the_format_of_today_has_a_fixture_and_is_written_as_it_stands_there() {
    let dir = tempfile::tempdir().expect("temp dir");
    let archive = open(dir.path(), false).expect("it opens");
    fill(&archive).expect("it is written");
    let is_written = dump(&archive);
    let path = fixture_path(SCHEMA_VERSION);
    let stands = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == is_written,
        "another format needs another SCHEMA_VERSION, and this as {path:?}:\n{is_written}"
    );
}

#[track_caller]
fn assert_stands<T: DeserializeOwned + PartialEq + Debug>(archive: &Archive, key: &str, value: T) {
    assert_eq!(archive.get(key).expect("it is read"), Some(value), "{key}");
}

#[test]
fn the_format_of_today_is_read_with_the_very_values_that_stand_there() {
    let dir = tempfile::tempdir().expect("temp dir");
    placed(dir.path(), SCHEMA_VERSION);
    for dry_run in [true, false] {
        let archive = open(dir.path(), dry_run).expect("it opens");
        assert_eq!(archive.set_aside, None);
        assert_stands(&archive, "local_cursor", cursor(5));
        assert_stands(&archive, "remote_cursor", cursor(u64::MAX));
        assert_stands(&archive, "last_folder", 6_u32);
        assert_stands(&archive, "taken", taken());
        assert_stands(&archive, "letters", letters());
        assert_stands(&archive, Progressed::KEY, progressed());
        assert_stands(&archive, "skipped", skipped());
        assert_stands(&archive, "told", texts());
        assert_stands(&archive, "unmatched", texts());
        assert_eq!(archive.folders().expect("read"), folders());
        assert_eq!(archive.in_folder(Fid(1)).expect("read"), [agreed()]);
        let [one, other] = pending();
        assert_eq!(archive.pending().expect("read"), [(1, one), (2, other)]);
        assert_eq!(archive.asked().expect("read"), [(1, asked())]);
        let stands = archive.plan("1a2b3c4d").expect("read");
        assert_eq!(stands.as_deref(), Some(&plan()[..]));
    }
}

#[test]
fn every_older_format_has_a_fixture_and_is_set_aside_whole() {
    for version in 1..SCHEMA_VERSION {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = placed(dir.path(), version);
        let before = fs::read(&path).expect("it is there");
        for dry_run in [true, false] {
            let archive = open(dir.path(), dry_run).expect("it opens");
            assert!(archive.is_empty().expect("it can be asked"));
            assert!(archive.folders().expect("it can be asked").is_empty());
            let aside = archive.set_aside.as_ref().expect("it was set aside");
            assert_eq!(aside.exists(), !dry_run);
            let whole = if dry_run { &path } else { aside };
            assert!(fs::read(whole).expect("it is there") == before);
        }
        let again = open(dir.path(), false).expect("it opens");
        assert_eq!(again.set_aside, None);
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = placed(dir.path(), SCHEMA_VERSION);
    let newer = SCHEMA_VERSION + 1;
    let db = Connection::open(&path).expect("it opens");
    db.pragma_update(None, "user_version", newer)
        .expect("it is written");
    let before = fs::read(&path).expect("it is there");
    for dry_run in [true, false] {
        let said = open(dir.path(), dry_run).err().expect("it is refused");
        let said = said.to_string();
        assert!(
            said.contains(&format!("its format {newer} is newer")),
            "{said}"
        );
        assert!(said.contains("move it away"), "{said}");
    }
    assert!(fs::read(&path).expect("it is there") == before);
}

/// Somebody was asked for something: what became of it is to be found out, and what happened since to be heard of.
#[test]
fn what_was_asked_before_anything_was_agreed_is_remembered() {
    let dir = tempfile::tempdir().expect("temp dir");
    let [local, remote] = [1, 2].map(|number| protocol::ReplicaId([number; 16]));
    let archive = Archive::open(dir.path(), local, remote, false).expect("it opens");
    assert!(archive.is_empty().expect("it can be asked"));
    let asked = asked();
    let lines: Vec<AskedRef> = asked
        .iter()
        .map(|asked| AskedRef {
            side: asked.side,
            stored: &asked.stored,
            record: &asked.record,
            target: asked.target.as_ref(),
        })
        .collect();
    archive.ask(&lines).expect("it is stored");
    assert!(!archive.is_empty().expect("it can be asked"));
}
