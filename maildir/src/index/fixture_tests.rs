//! The index as disks hold it: `fixtures/index-N.sql` for each format N. The newest is what the code of today writes. A
//! change of the format gives it another number, and what the failing test prints is kept as one more file.

use std::fs;

use protocol::codec::{decode_state, encode_state};
use protocol::entry::Entry;
use protocol::{Digest, Flags, Info, Keyword, Keywords, Unique};

use super::*;
use crate::apply::pending::{Arriving, Changing, Leaving, Pending, Replaces};
use crate::stamp::{DirStamp, FileStamp};

#[path = "dump.rs"]
mod dump;

const NOW: u64 = 1_700_000_000;

fn fixture_path(version: i64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/index-{version}.sql"))
}

/// An index on disk with what a fixture says.
fn placed(dir: &Path, version: i64) -> PathBuf {
    let path = dir.join("index.db");
    let fixture = fixture_path(version);
    let sql = fs::read_to_string(&fixture).unwrap_or_else(|_| panic!("{fixture:?} is missing"));
    let db = Connection::open(&path).expect("it opens");
    db.execute_batch(&sql).expect("it is SQL");
    path
}

fn unique(name: &[u8]) -> Unique {
    Unique::new(name).expect("a name")
}

fn entry(label: u8, flags: &[u8], in_new: bool) -> Entry {
    Entry {
        in_new,
        info: Info::of(Flags::from_letters(flags)),
        digest: Digest::new([label; 32]),
        size: 1000 + u64::from(label),
        mtime_ns: 1_600_000_000_000_000_000 + i64::from(label),
        damaged: label == 3,
    }
}

fn stamp(entry: &Entry, ino: u64) -> FileStamp {
    FileStamp {
        ino,
        size: entry.size,
        mtime_ns: entry.mtime_ns,
        ctime_ns: 1_650_000_000_000_000_007,
    }
}

fn dir_stamp(ino: u64) -> DirStamp {
    DirStamp {
        ino,
        birth_ns: 1_500_000_000_000_000_001,
        mtime_ns: 1_500_000_000_000_000_002,
        ctime_ns: 1_500_000_000_000_000_003,
    }
}

fn folders() -> [FolderRow; 2] {
    let keyword = Keyword::new(b"$Forwarded").expect("a keyword");
    let inbox = FolderRow {
        id: 1,
        cur: dir_stamp(12),
        new: dir_stamp(u64::MAX),
        dirty: false,
        seq: 1,
        messages: 2,
        keywords: Some(Keywords::try_from(vec![(b'a', keyword)]).expect("in order")),
        exact: true,
        ..FolderRow::new(Vec::new(), (11, 1_500_000_000_000_000_001))
    };
    let work = FolderRow {
        id: 7,
        leaf: dir_stamp(21),
        put_back: true,
        gone: true,
        seq: 8,
        ..FolderRow::new(b".W\xf6rk".to_vec(), (21, 1_500_000_000_000_000_001))
    };
    [inbox, work]
}

fn files() -> [FileRow; 3] {
    let row = |seq, name: &[u8], entry: Entry| FileRow {
        seq,
        born: seq - 1,
        folder: 1,
        unique: unique(name),
        copy: 0,
        gone: false,
        lost: false,
        stamp: stamp(&entry, 100 + seq),
        entry,
        due: false,
    };
    let draft = FileRow {
        copy: 3,
        due: true,
        ..row(5, b"1600000000.M1P1.mx", entry(1, b"DS", false))
    };
    let gone = FileRow {
        gone: true,
        lost: true,
        ..row(6, b"1600000000.M2P1.mx", entry(2, b"", true))
    };
    let damaged = row(7, b"1600000000.M3\xe9", entry(3, b"Fa", false));
    [draft, gone, damaged]
}

/// A batch of one operation of each kind.
fn begun() -> Vec<Pending> {
    let replaces = Replaces {
        tmp: b"tmp/maildir-sync-0-1".to_vec(),
        ino: 41,
        digest: Digest::new([4; 32]),
        folder: b".Work".to_vec(),
        name: b"1.a:2,S".to_vec(),
        trashed: Some(b"000003".to_vec()),
        counts: true,
    };
    let create = Pending::Create(Arriving {
        tmp: b"tmp/maildir-sync-0-0".to_vec(),
        folder: 1,
        unique: unique(b"1.b"),
        copy: 2,
        entry: entry(4, b"S", true),
    });
    let update = |replaces| {
        Pending::Update(Changing {
            from: b"cur/1.a:2,".to_vec(),
            to: b".Work/cur/1.a:2,S".to_vec(),
            ino: Some(42),
            ctime_ns: -1,
            digest: Digest::new([5; 32]),
            there: Some(44),
            replaces,
        })
    };
    let retire = Pending::Retire(Leaving {
        folder: 1,
        unique: unique(b"1.c"),
        copy: 0,
        path: b"cur/1.c:2,".to_vec(),
        stamp: stamp(&entry(6, b"", false), 43),
        trashed: b"000001".to_vec(),
        counts: true,
    });
    let folder = |trashed| Pending::Folder {
        dir: b".Old".to_vec(),
        trashed,
    };
    let made = Pending::MakeFolder {
        dir: b".New".to_vec(),
    };
    vec![
        create,
        update(None),
        update(Some(replaces)),
        retire,
        made,
        folder(None),
        folder(Some(b"000002".to_vec())),
    ]
}

fn problem() -> Problem {
    Problem {
        path: "cur/1.d".to_owned(),
        why: "it cannot be read".to_owned(),
        holds: false,
    }
}

fn unseen() -> BTreeMap<Vec<u8>, i64> {
    BTreeMap::from([(b".Clos\xe9".to_vec(), -5)])
}

fn fill(index: &Index) -> Result<()> {
    for _ in 0..9 {
        index.next_number()?;
    }
    index.set_meta("floor", 4)?;
    index.set_meta("file_system", -77)?;
    for (tag, number) in [([1; 8], 4), ([2; 8], 9)] {
        index.add_tag(Tag(tag), number)?;
    }
    index.batch("UPDATE tags SET at = 1699999000 + position")?;
    for folder in folders() {
        index.put_folder(&folder)?;
    }
    for file in files() {
        index.put_file(&file)?;
    }
    index.put_pending(&encode_state(&begun()))?;
    index.count_deleted(NOW, 12)?;
    index.replace_problems(1, &[problem()])?;
    index.replace_unseen(&unseen())?;
    index.commit()
}

#[test]
fn the_format_of_today_has_a_fixture_and_is_written_as_it_stands_there() {
    let index = Index::temporary(Path::new("nowhere"), || IndexId([9; 8])).expect("it opens");
    fill(&index).expect("it is written");
    let is_written = dump::dump(&index.db).expect("it is read");
    let path = fixture_path(SCHEMA_VERSION);
    let stands = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == is_written,
        "another format needs another SCHEMA_VERSION, and this as {path:?}:\n{is_written}"
    );
}

#[test]
fn the_format_of_today_is_read_with_the_very_values_that_stand_there() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = placed(dir.path(), SCHEMA_VERSION);
    let read = || -> Result<()> {
        let index = Index::open(&path, || unreachable!("it has an id"))?;
        assert_eq!(index.id()?, IndexId([9; 8]));
        assert_eq!((index.number()?, index.floor()?), (9, 4));
        assert_eq!(index.file_system()?, Some(-77));
        assert_eq!(index.newest_tag()?, Some((Tag([2; 8]), 9)));
        let times = vec![(Tag([1; 8]), 1_699_999_001), (Tag([2; 8]), 1_699_999_002)];
        assert_eq!(index.clock()?.0, times);
        assert_eq!(index.folders()?, folders());
        let [draft, gone, damaged] = files();
        assert_eq!(index.files_of(1)?, [draft, gone, damaged]);
        let stored = index.pending()?;
        assert_eq!(stored.len(), 1);
        let stored = decode_state::<Vec<Pending>>(&stored[0]);
        assert_eq!(stored.expect("it is one"), begun());
        assert_eq!(index.deleted_lately(NOW)?, 12);
        assert_eq!(index.problems()?, [problem()]);
        assert_eq!(index.unseen()?, unseen());
        Ok(())
    };
    read().expect("it is read");
}

#[test]
fn the_format_before_is_carried_over_with_all_that_it_says() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = placed(dir.path(), SCHEMA_VERSION - 1);
    let open = || Index::open(&path, || unreachable!("it has an id")).expect("it opens");
    let dumped = dump::dump(&open().db).expect("it is read");
    // Whether its folders are exact is not known.
    let wanted = Connection::open_in_memory().expect("it opens");
    let sql = fs::read_to_string(fixture_path(SCHEMA_VERSION)).expect("there is one");
    wanted.execute_batch(&sql).expect("it is SQL");
    wanted
        .execute_batch("UPDATE folders SET exact = 0")
        .expect("it is written");
    assert_eq!(dumped, dump::dump(&wanted).expect("it is read"));
    assert_eq!(dump::dump(&open().db).expect("it is read"), dumped);
}

#[test]
fn every_older_format_has_a_fixture_and_is_built_anew() {
    for version in 1..SCHEMA_VERSION - 1 {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = placed(dir.path(), version);
        let index = Index::open(&path, || IndexId([7; 8])).expect("it opens");
        let fresh = Index::temporary(Path::new("nowhere"), || IndexId([7; 8])).expect("it opens");
        let [is, wanted] = [&index, &fresh].map(|index| dump::dump(&index.db).expect("it is read"));
        assert_eq!(is, wanted, "format {version}");
        drop(index);
        let index = Index::open(&path, || IndexId([8; 8])).expect("it opens");
        assert_eq!(index.id().expect("it has one"), IndexId([7; 8]));
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = placed(dir.path(), SCHEMA_VERSION);
    let db = Connection::open(&path).expect("it opens");
    let newer = SCHEMA_VERSION + 1;
    db.pragma_update(None, "user_version", newer)
        .expect("it is written");
    let before = fs::read(&path).expect("it is there");
    let id = || -> IndexId { unreachable!("nothing begins") };
    for opened in [Index::open(&path, id), Index::temporary(&path, id)] {
        let said = opened.err().expect("it is refused").to_string();
        assert!(said.contains(&format!("format {newer}, and")), "{said}");
        assert!(said.contains("install the newer version"), "{said}");
    }
    assert!(fs::read(&path).expect("it is there") == before);
}
