//! What letters mean to each side, in a table of folders.

use protocol::{Digest, Entry, FolderDir, Info, Unique};

use super::*;
use crate::merge::record::{Place, Seq};

const A: Fid = Fid(1);
const B: Fid = Fid(2);

/// Both folders as both sides name their letters; `-` where a side has no file in one.
fn letters(local: [&str; 2], remote: [&str; 2]) -> Letters {
    let (mut letters, mut folders) = (Letters::default(), Folders::default());
    for (side, files) in [(Side::Local, local), (Side::Remote, remote)] {
        let changes: Vec<FolderChange> = (files.iter().zip([("A", 1), ("B", 2)]))
            .map(|(file, (name, id))| FolderChange {
                seq: 1,
                id,
                dir: FolderDir::new(name.as_bytes()).expect("valid"),
                gone: false,
                keywords: Some(file.replace(", ", "\n"))
                    .filter(|file| file != "-")
                    .and_then(|file| Keywords::parse(file.as_bytes())),
            })
            .collect();
        folders.fold(side, &changes);
        letters.learn(side, &changes);
    }
    letters.place(&folders);
    letters
}

fn flags(text: &str) -> Flags {
    Flags::from_letters(text.as_bytes())
}

fn at(folder: Fid, bears: &str) -> Seen {
    let place = Place {
        folder,
        unique: Unique::new(b"u").expect("valid"),
        copy: 0,
    };
    let entry = Entry {
        in_new: false,
        info: Info::of(flags(bears)),
        digest: Digest::of(b"x"),
        size: 1,
        mtime_ns: 0,
        damaged: false,
    };
    Seen::new(place, entry, Seq::Known(1))
}

/// What a message that bore `before` in A means when it bears `bears` in B: common letters, and what it shall bear.
fn moved(letters: &Letters, side: Side, before: &str, bears: &str) -> (String, String) {
    let old = letters.first(side, at(A, before));
    shown(&letters.next(side, &old, at(B, bears)))
}

fn shown(seen: &Seen) -> (String, String) {
    let text = |flags: Flags| String::from_utf8(flags.letters()).expect("letters");
    (text(seen.flags), text(seen.owed))
}

fn is(seen: (String, String), flags: &str, owed: &str) {
    assert_eq!(seen, (flags.to_owned(), owed.to_owned()));
}

#[test]
fn without_names_letters_travel_as_they_are() {
    let letters = letters(["-", "-"], ["-", "-"]);
    assert!(letters.is_plain());
    is(moved(&letters, Side::Local, "Sa", "Sa"), "Sa", "Sa");
    is(moved(&letters, Side::Remote, "Sa", "b"), "b", "b");
}

#[test]
fn what_moves_with_the_letters_it_had_keeps_its_keywords() {
    let letters = letters(["-", "-"], ["0 Work, 1 Late", "0 Junk, 1 Work"]);
    for side in Side::BOTH {
        is(moved(&letters, side, "Sa", "Sa"), "Sb", "Sb");
        is(moved(&letters, side, "Sab", "FSab"), "FSb", "FSb");
        is(moved(&letters, side, "Sq", "Sq"), "S", "S");
    }
    // Dovecot has translated them already; a reader here cannot have.
    is(moved(&letters, Side::Remote, "a", "b"), "b", "b");
    is(moved(&letters, Side::Local, "", "a"), "b", "b");
    is(moved(&letters, Side::Local, "ab", "a"), "b", "b");
}

#[test]
fn names_here_serve_a_server_that_has_none() {
    let letters = letters(["0 Work", "0 Junk, 1 Work"], ["-", "-"]);
    for side in Side::BOTH {
        is(moved(&letters, side, "Sa", "Sa"), "Sb", "Sb");
    }
    is(moved(&letters, Side::Local, "a", "b"), "b", "b");
    is(moved(&letters, Side::Remote, "", "a"), "b", "b");
}

#[test]
fn between_two_sides_that_name_them_letters_are_compared_by_name() {
    let letters = letters(
        ["0 Work, 1 Mine, 2 Late", "0 Late, 1 Work, 2 Mine"],
        ["0 Late, 1 Work, 2 Theirs", "0 Work, 3 Theirs"],
    );
    let here = letters.first(Side::Local, at(A, "Sabc"));
    is(shown(&here), "Sab", "Sabc");
    assert_eq!(
        letters.own(Side::Local, A, flags("Sabc"), flags("b")),
        flags("Sabc")
    );
    assert_eq!(
        letters.own(Side::Local, A, flags("b"), flags("ac")),
        flags("a")
    );
    assert!(letters.foreign(Side::Local, A).contains(b'c'));
    assert!(!letters.foreign(Side::Local, A).contains(b'b'));
    // Mine is nobody else's, Late has no letter in the server's B.
    is(moved(&letters, Side::Local, "abc", "abc"), "a", "abc");
    is(moved(&letters, Side::Local, "ab", "bc"), "a", "bc");
    is(moved(&letters, Side::Remote, "abc", "abc"), "ad", "ad");
}

#[test]
fn a_keyword_without_a_letter_here_is_neither_set_nor_cleared_here() {
    let before = letters(["0 Work", "-"], ["0 Work, 1 Theirs", "0 Theirs"]);
    let old = Seen {
        flags: flags("ab"),
        ..at(A, "a")
    };
    is(
        shown(&before.next(Side::Local, &old, at(A, "Sa"))),
        "Sab",
        "Sa",
    );
    is(
        shown(&before.next(Side::Local, &old, at(A, "S"))),
        "Sb",
        "S",
    );
    is(shown(&before.next(Side::Local, &old, at(B, "a"))), "a", "");
    is(
        shown(&before.next(Side::Local, &old, at(B, "Sab"))),
        "Sa",
        "Sab",
    );
    // It gets one: then it is missing here, and not cleared.
    let after = letters(["0 Work, 5 Theirs", "-"], ["0 Work, 1 Theirs", "0 Theirs"]);
    is(shown(&after.again(Side::Local, &old)), "ab", "af");
    is(
        shown(&after.next(Side::Local, &old, at(A, "Sa"))),
        "Sab",
        "Saf",
    );
}

#[test]
fn what_waits_to_be_written_is_not_carried_twice() {
    let letters = letters(["-", "-"], ["0 Work", "0 Junk, 1 Work"]);
    let old = at(A, "a");
    let waits = letters.next(Side::Local, &old, at(B, "a"));
    is(
        shown(&letters.next(Side::Local, &waits, at(B, "Sa"))),
        "Sb",
        "Sb",
    );
    is(
        shown(&letters.next(Side::Local, &waits, at(B, "b"))),
        "b",
        "b",
    );
    is(
        shown(&letters.next(Side::Local, &waits, at(A, "a"))),
        "a",
        "a",
    );
    is(shown(&letters.again(Side::Local, &waits)), "b", "b");
}

#[test]
fn what_a_folder_has_no_letter_for_is_without_one() {
    let letters = letters(["-", "-"], ["0 Work, 1 Late", "4 Late"]);
    assert_eq!(letters.without(flags("Sabz"), A, B), flags("az"));
    assert_eq!(letters.without(flags("Sabz"), A, A), Flags::EMPTY);
}

#[test]
fn names_of_folders_that_are_no_more_go() {
    let mut letters = letters(["-", "-"], ["0 Work", "0 Junk"]);
    assert_eq!(letters.carry(Side::Local, flags("a"), A, B), Flags::EMPTY);
    letters.prune(&Folders::default());
    assert!(letters.is_plain());
}
