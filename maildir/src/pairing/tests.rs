//! Pairing in pieces, with rows read ahead, against a slow and simple one.

use std::path::Path;

use proptest::prelude::*;
use protocol::{Digest, Entry, IndexId, Info};

use super::*;
use crate::stamp::{FileStamp, Origin};

const FOLDER: u32 = 7;

fn stamp(ino: u64, is_edited: bool) -> FileStamp {
    FileStamp {
        ino,
        size: 10 + u64::from(is_edited),
        mtime_ns: 5,
        ctime_ns: 6,
    }
}

fn info(is_seen: bool) -> Info {
    Info::new(if is_seen { b":2,S" } else { b":2," }).expect("an info")
}

fn unique(name: u8) -> Unique {
    Unique::new(&[name]).expect("a name")
}

/// Files of few names, inodes and states; no directory holds one name twice.
fn files() -> impl Strategy<Value = Vec<(u8, bool, bool, u64, bool)>> {
    let one = (
        b'a'..b'e',
        any::<bool>(),
        any::<bool>(),
        1..4_u64,
        any::<bool>(),
    );
    prop::collection::vec(one, 0..8).prop_map(|mut files| {
        files.sort_unstable();
        files.dedup_by_key(|file| (file.0, file.1, file.2));
        files
    })
}

/// The name, the copy, whether it is gone, in `new`, seen and edited, and the inode.
type OneRow = (u8, u16, [bool; 4], u64);

/// Rows of as few; each place has one.
fn rows() -> impl Strategy<Value = Vec<FileRow>> {
    let one = (b'a'..b'e', 0..3_u16, any::<[bool; 4]>(), 1..4_u64);
    prop::collection::vec(one, 0..8).prop_map(|mut rows| {
        rows.sort_unstable();
        rows.dedup_by_key(|row| (row.0, row.1));
        rows_of(&rows)
    })
}

fn rows_of(rows: &[OneRow]) -> Vec<FileRow> {
    let row = |(at, &(name, copy, [gone, in_new, is_seen, is_edited], ino)): (usize, &OneRow)| {
        let stamp = stamp(ino, is_edited);
        FileRow {
            seq: at as u64 + 1,
            born: at as u64 + 1,
            folder: FOLDER,
            unique: unique(name),
            copy,
            gone,
            lost: false,
            entry: Entry {
                in_new,
                info: info(is_seen),
                digest: Digest::of(b"bytes"),
                size: stamp.size,
                mtime_ns: stamp.mtime_ns,
                damaged: false,
            },
            stamp,
            due: false,
        }
    };
    rows.iter().enumerate().map(row).collect()
}

fn found(files: &[(u8, bool, bool, u64, bool)]) -> Vec<FoundFile> {
    let one = |&(name, in_new, is_seen, ino, is_edited): &_| FoundFile {
        unique: unique(name),
        info: info(is_seen),
        in_new,
        ino,
        looked: Some((stamp(ino, is_edited), Origin::default())),
    };
    files.iter().map(one).collect()
}

fn sorted(files: &[(u8, bool, bool, u64, bool)]) -> Sorted {
    let mut sorted = Sorted::default();
    for file in found(files) {
        sorted.add(&file.name(), file.in_new, file.ino, file.looked);
    }
    sorted.sort();
    sorted
}

/// What is told of a pairing, as text, in one order.
#[derive(Default, PartialEq, Debug)]
struct Told {
    messages: u64,
    to_look: Vec<String>,
    missing: Vec<String>,
}

impl Told {
    fn take(&mut self, (copy, found, row): &Paired) {
        let FoundFile {
            unique,
            info,
            in_new,
            ino,
            ..
        } = found;
        let row = row.as_ref().map(|row| row.born);
        let text = format!("{unique:?} {info:?} {in_new} {ino} is copy {copy} of {row:?}");
        self.to_look.push(text);
    }

    fn end(mut self, pairs: &Pairs) -> Told {
        self.messages = pairs.messages;
        let missing = pairs.missing.iter();
        self.missing = missing
            .map(|row| format!("{} is missing", row.born))
            .collect();
        self.to_look.sort();
        self.missing.sort();
        self
    }
}

/// In pieces, of which each is written before the next one is asked for.
fn quickly(index: &Index, ahead: &Ahead, files: &Sorted, checksum: bool, piece_max: usize) -> Told {
    let mut pairs = Pairs::new(index, ahead, files, checksum);
    pairs.piece_max = piece_max;
    let (mut told, mut seq) = (Told::default(), 100);
    while let Some(piece) = pairs.next().expect("it is paired") {
        for paired in piece {
            told.take(&paired);
            let (copy, found, row) = paired;
            seq += 1;
            let template = FileRow {
                unique: found.unique,
                copy,
                ..rows_of(&[(b'a', 0, [false; 4], 1)]).remove(0)
            };
            let row = FileRow {
                seq,
                gone: false,
                ..row.unwrap_or(template)
            };
            index.put_file(&row).expect("it is written");
        }
    }
    told.end(&pairs)
}

/// The same by unique name, where every row is looked at in full.
fn slowly(index: &Index, files: Vec<FoundFile>, rows: &[FileRow], checksum: bool) -> Told {
    let (none, ahead) = (Sorted::default(), Ahead::none(FOLDER));
    let mut pairs = Pairs::new(index, &ahead, &none, checksum);
    let mut groups: std::collections::BTreeMap<Unique, Vec<FoundFile>> = Default::default();
    for row in rows {
        groups.entry(row.unique.clone()).or_default();
    }
    for file in files {
        groups.entry(file.unique.clone()).or_default().push(file);
    }
    for (unique, group) in groups {
        let mut known = rows.to_vec();
        known.retain(|row| row.unique == unique);
        pairs.pair(group, &mut known);
        known.retain(|row| !row.gone);
        pairs.missing.append(&mut known);
    }
    let mut told = Told::default();
    pairs.piece.iter().for_each(|paired| told.take(paired));
    told.end(&pairs)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn neither_rows_that_are_not_decoded_nor_those_read_ahead_nor_pieces_change_anything(
        files in files(), rows in rows(), checksum: bool, ahead in 0..9_usize, piece_max in 1..5_usize,
    ) {
        let index = Index::temporary(Path::new("nowhere"), || IndexId([1; 8])).expect("it opens");
        for row in &rows {
            index.put_file(row).expect("it is written");
        }
        let slowly = slowly(&index, found(&files), &rows, checksum);
        let ahead = Ahead::read(&index, FOLDER, ahead).expect("they are read");
        let quickly = quickly(&index, &ahead, &sorted(&files), checksum, piece_max);
        prop_assert_eq!(quickly, slowly);
    }
}

/// In the order in which a stream of them would come, too.
#[test]
fn of_a_folder_that_was_never_read_the_newest_come_first() {
    let index = Index::temporary(Path::new("nowhere"), || IndexId([1; 8])).expect("it opens");
    let mut files = Sorted::default();
    let names = ["1000000001.a", "1000000001.b", "999999999.c", "d"];
    for (ino, name) in (1..).zip(names) {
        files.add(format!("{name}:2,S").as_bytes(), false, ino, None);
    }
    files.sort();
    let ahead = Ahead::none(FOLDER);
    let mut pairs = Pairs::new(&index, &ahead, &files, false);
    pairs.piece_max = 3;
    let mut told = Vec::new();
    while let Some(piece) = pairs.next().expect("it is paired") {
        told.extend(
            piece
                .into_iter()
                .map(|(_, found, _)| found.unique.to_string()),
        );
    }
    assert_eq!(told, names);
}
