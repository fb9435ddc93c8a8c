//! The written table, and an exhaustive small universe against the rules by which the table was written.

use protocol::{Digest, Entry, Flags, Info, Unique};

use super::*;
use crate::merge::record::{Fid, Place, Seq};

fn place(name: &str) -> Place {
    let (folder, unique) = name.split_once('/').expect("folder/unique");
    let folder = Fid(u32::from(folder.as_bytes()[0]));
    Place {
        folder,
        unique: Unique::new(unique.as_bytes()).expect("valid"),
        copy: 0,
    }
}

/// `A/u new S x`: place, new or cur, flags (`-` for none), bytes.
fn seen(text: &str) -> Option<Seen> {
    let words: Vec<&str> = text.split(' ').collect();
    let [at, sub, flags, bytes] = words[..] else {
        return None;
    };
    let entry = Entry {
        in_new: sub == "new",
        info: Info::of(Flags::from_letters(flags.as_bytes())),
        digest: Digest::of(bytes.as_bytes()),
        size: bytes.len() as u64,
        mtime_ns: 0,
        damaged: bytes == "!",
    };
    Some(Seen::new(place(at), entry, Seq::Known(1)))
}

fn base(text: &str) -> Option<Base> {
    seen(text).map(|seen| Base::common(&seen, &seen, &Letters::default()))
}

fn merged(record: &Record) -> String {
    match reconcile(record, &Letters::default()) {
        Merged::Gone => "gone".to_owned(),
        Merged::Split => "split".to_owned(),
        Merged::Keep(state, conflict) => {
            let folder = char::from(u8::try_from(state.place.folder.0).expect("a letter"));
            let sub = if state.in_new { "new" } else { "cur" };
            let flags = String::from_utf8(state.flags.letters()).expect("letters");
            let flags = if flags.is_empty() {
                "-".to_owned()
            } else {
                flags
            };
            let bytes = ["x", "y", "z", "!"]
                .into_iter()
                .find(|text| Digest::of(text.as_bytes()) == state.digest);
            let conflict = conflict
                .map(|conflict| format!(" {conflict:?}"))
                .unwrap_or_default();
            format!(
                "{folder}/{} {sub} {flags} {}{conflict}",
                state.place.unique,
                bytes.unwrap_or("?")
            )
        }
    }
}

#[test]
fn the_merge_table_holds_row_by_row() {
    // base, here, there, result, and result with the sides swapped.
    let rows = [
        ("1 new here", "", "A/u new - x", "", "A/u new - x", "="),
        (
            "2 flag set",
            "A/u cur - x",
            "A/u cur S x",
            "A/u cur - x",
            "A/u cur S x",
            "=",
        ),
        (
            "2 flag cleared",
            "A/u cur S x",
            "A/u cur - x",
            "A/u cur S x",
            "A/u cur - x",
            "=",
        ),
        (
            "3 flags on both",
            "A/u cur F x",
            "A/u cur FS x",
            "A/u cur R x",
            "A/u cur RS x",
            "=",
        ),
        (
            "4 new to cur, flags there",
            "A/u new - x",
            "A/u cur - x",
            "A/u new S x",
            "A/u cur S x",
            "=",
        ),
        (
            "4 back to new",
            "A/u cur S x",
            "A/u new S x",
            "A/u cur S x",
            "A/u new S x",
            "=",
        ),
        (
            "5 moved",
            "A/u cur - x",
            "B/u cur - x",
            "A/u cur - x",
            "B/u cur - x",
            "=",
        ),
        (
            "5 renamed, flags there",
            "A/u cur - x",
            "A/v cur - x",
            "A/u cur S x",
            "A/v cur S x",
            "=",
        ),
        (
            "5 moved, edited there",
            "A/u cur - x",
            "B/u cur - x",
            "A/u cur - y",
            "B/u cur - y",
            "=",
        ),
        (
            "6 moved apart",
            "A/u cur - x",
            "B/u cur - x",
            "C/u cur - x",
            "C/u cur - x Moved",
            "B/u cur - x Moved",
        ),
        ("8 deleted", "A/u cur - x", "", "A/u cur - x", "gone", "="),
        (
            "8 deleted, flags there",
            "A/u new - x",
            "",
            "A/u cur S x",
            "gone",
            "=",
        ),
        (
            "9 deleted, moved there",
            "A/u cur - x",
            "",
            "B/u cur - x",
            "B/u cur - x Survived",
            "=",
        ),
        (
            "9 deleted, edited there",
            "A/u cur - x",
            "",
            "A/u cur - y",
            "A/u cur - y Survived",
            "=",
        ),
        (
            "10 edited",
            "A/u cur - x",
            "A/u cur - y",
            "A/u cur - x",
            "A/u cur - y",
            "=",
        ),
        (
            "10 damaged",
            "A/u cur - x",
            "A/u cur - !",
            "A/u cur S x",
            "A/u cur S x",
            "=",
        ),
        (
            "10 damaged, deleted there",
            "A/u cur - x",
            "A/u cur - !",
            "",
            "gone",
            "=",
        ),
        (
            "11 edited apart",
            "A/u cur - x",
            "A/u cur - y",
            "A/u cur - z",
            "split",
            "=",
        ),
        (
            "13 paired",
            "",
            "A/u new S x",
            "A/v cur F x",
            "A/v cur FS x",
            "A/u cur FS x",
        ),
        (
            "13b paired",
            "",
            "A/u cur - x",
            "B/u cur - x",
            "B/u cur - x",
            "A/u cur - x",
        ),
        (
            "14 same change",
            "A/u cur - x",
            "B/u cur S y",
            "B/u cur S y",
            "B/u cur S y",
            "=",
        ),
        ("14 both deleted", "A/u cur - x", "", "", "gone", "="),
    ];
    for (name, base_text, here, there, expected, swapped) in rows {
        let record = Record {
            base: base(base_text),
            local: seen(here),
            remote: seen(there),
            copy: None,
        };
        assert_eq!(merged(&record), expected, "row {name}");
        let mirrored = Record {
            local: record.remote,
            remote: record.local,
            ..record
        };
        let swapped = if swapped == "=" { expected } else { swapped };
        assert_eq!(merged(&mirrored), swapped, "row {name}, sides swapped");
    }
}

/// All messages of the small universe: two places, new or cur, a flag or not, two bodies.
fn universe() -> Vec<Option<Seen>> {
    let mut all = vec![None];
    for at in ["A/u", "B/u"] {
        for sub in ["new", "cur"] {
            for flags in ["-", "S"] {
                for bytes in ["x", "y"] {
                    all.push(seen(&format!("{at} {sub} {flags} {bytes}")));
                }
            }
        }
    }
    all
}

#[test]
fn every_combination_of_the_small_universe_follows_the_rules_of_its_fields() {
    for base in universe() {
        let base = base.map(|seen| Base::common(&seen, &seen, &Letters::default()));
        for local in universe() {
            for remote in universe() {
                let record = Record {
                    base: base.clone(),
                    local: local.clone(),
                    remote,
                    copy: None,
                };
                check(&record);
            }
        }
    }
}

fn check(record: &Record) {
    let result = reconcile(record, &Letters::default());
    match (&record.base, &record.local, &record.remote) {
        (_, None, None) => assert_eq!(result, Merged::Gone),
        (None, Some(seen), None) | (None, None, Some(seen)) => {
            assert_eq!(result, Merged::Keep(seen.state(), None))
        }
        (Some(base), Some(seen), None) | (Some(base), None, Some(seen)) => {
            let touched =
                base.place.as_ref() != Some(&seen.place) || base.digest != seen.entry.digest;
            let expected = if touched {
                Merged::Keep(seen.state(), Some(Conflict::Survived))
            } else {
                Merged::Gone
            };
            assert_eq!(result, expected, "{record:?}");
        }
        (base, Some(local), Some(remote)) => check_both(base.as_ref(), local, remote, &result),
    }
}

fn check_both(base: Option<&Base>, local: &Seen, remote: &Seen, result: &Merged) {
    let (here, there) = (local.state(), remote.state());
    let was = |field: fn(&Base) -> Digest| base.map(field);
    let edited_apart = here.digest != there.digest
        && was(|base| base.digest).is_none_or(|base| here.digest != base && there.digest != base);
    if edited_apart {
        assert_eq!(*result, Merged::Split);
        return;
    }
    let Merged::Keep(state, _) = result else {
        panic!("{local:?} and {remote:?} became {result:?}")
    };
    // A value that both hold stays; a value that one side alone changed wins.
    if here.place == there.place {
        assert_eq!(state.place, here.place);
    }
    if let Some(base) = base {
        for (mine, other, wanted) in [(&here, &there, state), (&there, &here, state)] {
            if base.place.as_ref() == Some(&other.place) {
                assert_eq!(wanted.place, mine.place);
            }
            if base.in_new == Some(other.in_new) {
                assert_eq!(wanted.in_new, mine.in_new);
            }
            if base.flags == other.flags {
                assert_eq!(wanted.flags, mine.flags);
            }
            if base.digest == other.digest {
                assert_eq!(wanted.digest, mine.digest);
            }
        }
    } else {
        assert_eq!(state.flags, here.flags.union(there.flags));
        assert_eq!(state.in_new, here.in_new && there.in_new);
        assert_eq!(state.place, there.place);
    }
}

#[test]
fn a_message_that_went_and_came_back_beats_a_deletion() {
    let mut back = seen("A/u cur - x").expect("there");
    back.touched = true;
    let record = Record {
        base: base("A/u cur - x"),
        local: Some(back),
        remote: None,
        copy: None,
    };
    assert_eq!(merged(&record), "A/u cur - x Survived");
}
