//! Trees of several kinds against each other, in tables.

use super::*;

fn dir(bytes: &[u8]) -> FolderDir {
    FolderDir::new(bytes).expect("a directory")
}

fn between(setting: Setting, here: &[&str], there: &[&str]) -> Mapping {
    let bytes = |dirs: &[&'static str]| dirs.iter().map(|dir| dir.as_bytes()).collect::<Vec<_>>();
    let leak = |dirs: &[&str]| -> Vec<&'static str> {
        dirs.iter().map(|dir| &*String::from(*dir).leak()).collect()
    };
    Mapping::find(setting, [bytes(&leak(here)), bytes(&leak(there))])
}

fn find(here: &[&str], there: &[&str]) -> Mapping {
    between(Setting::default(), here, there)
}

/// Where a folder of one side lies on the other.
fn across(mapping: &Mapping, side: Side, path: &str) -> Option<String> {
    let name = mapping.name(side, &dir(path.as_bytes()));
    let there = mapping.dir(side.other(), &name).ok()?;
    Some(String::from_utf8_lossy(there.as_bytes()).into_owned())
}

#[test]
fn between_trees_that_look_alike_a_directory_is_the_same_bytes() {
    for (here, there) in [
        (&["", ".Sent"][..], &["", ".Sent", ".Entw&APw-rfe"][..]),
        (&[], &["", ".Sent", ".Entw&APw-rfe", ".deep"]),
        (&["", "Sent", "Entw\u{fc}rfe"], &[]),
        (&[""], &["", "Lists/debian"]),
        (&["", ".One", "Two"], &["", ".One", "Two", ".Entw\u{fc}rfe"]),
    ] {
        let mapping = find(here, there);
        for path in [
            ".a..b",
            ".trailing.",
            ".A&B",
            ".&AOk-",
            ".line\nfeed",
            "dev.tools",
            "Lists/.odd",
            ".Foo/bar",
            "INBOX",
            ".INBOX.Sub",
        ] {
            assert_eq!(across(&mapping, Side::Remote, path).as_deref(), Some(path));
            assert_eq!(across(&mapping, Side::Local, path).as_deref(), Some(path));
        }
        let latin = dir(b".Entw\xfcrfe");
        let name = mapping.name(Side::Local, &latin);
        assert_eq!(mapping.dir(Side::Remote, &name), Ok(latin));
    }
}

#[test]
fn between_other_trees_a_folder_is_known_by_its_text() {
    let flat = &["", ".Lists", ".Entw&APw-rfe"];
    let nested = &["INBOX", "Lists", "Sent"];
    let mapping = find(nested, flat);
    for (here, there) in [
        ("INBOX", ""),
        ("Lists/debian", ".Lists.debian"),
        ("Entw\u{fc}rfe", ".Entw&APw-rfe"),
        ("INBOX/Sub", ".INBOX.Sub"),
        ("A&B", ".A&-B"),
        ("[Gmail]/All Mail", ".[Gmail].All Mail"),
    ] {
        assert_eq!(across(&mapping, Side::Local, here).as_deref(), Some(there));
        assert_eq!(across(&mapping, Side::Remote, there).as_deref(), Some(here));
    }
    for path in ["dev.tools", "a/.b"] {
        assert_eq!(across(&mapping, Side::Local, path), None, "{path}");
    }
    for path in [".a..b", ".trailing.", ".cur", ".x.tmp", ".INBOX"] {
        assert_eq!(across(&mapping, Side::Remote, path), None, "{path}");
    }
}

#[test]
fn two_encodings_are_one_text() {
    let mapping = find(
        &["", ".Entw\u{fc}rfe", ".\u{e9}t\u{e9}"],
        &["", ".Entw&APw-rfe", ".Gel&APY-scht"],
    );
    assert_eq!(
        across(&mapping, Side::Local, ".Entw\u{fc}rfe").as_deref(),
        Some(".Entw&APw-rfe")
    );
    // What is no modified UTF-7 there is what it is.
    assert_eq!(
        across(&mapping, Side::Remote, ".A&B").as_deref(),
        Some(".A&B")
    );
}

#[test]
fn inbox_in_other_letters_is_inbox_with_all_below_it() {
    let mapping = find(&["Inbox", "Sent"], &["INBOX", "INBOX/Sub", "Sent"]);
    for (here, there) in [
        ("Inbox", "INBOX"),
        ("Inbox/Sub", "INBOX/Sub"),
        ("Sent", "Sent"),
    ] {
        assert_eq!(across(&mapping, Side::Local, here).as_deref(), Some(there));
        assert_eq!(across(&mapping, Side::Remote, there).as_deref(), Some(here));
    }
}

#[test]
fn a_tree_without_inbox_gets_a_place_for_it() {
    for (here, there, place) in [
        (&["Lists"][..], &["", "Lists"][..], "INBOX"),
        (&["Lists"], &["", ".Lists"], "INBOX"),
        (&["Lists"], &["Inbox", "Lists"], "INBOX"),
        (&[".Lists"], &["", ".Lists"], ""),
        (&[], &["", "Lists"], ""),
        (&[], &["Inbox", "Lists"], "Inbox"),
        (&[], &["INBOX"], "INBOX"),
        (&[], &[""], ""),
    ] {
        let mapping = find(here, there);
        let found = mapping.dir(Side::Local, &FolderName::default());
        assert_eq!(found, Ok(dir(place.as_bytes())), "{here:?} {there:?}");
    }
}

#[test]
fn the_configuration_counts_for_a_tree_without_folders_and_where_both_differ() {
    let nested = Setting {
        layout: Some(Layout::Nested),
        folder_names: Some(FolderNames::Utf8),
    };
    for here in [&[][..], &[""]] {
        let mapping = between(nested, here, &["", ".Entw&APw-rfe.alt"]);
        let found = across(&mapping, Side::Remote, ".Entw&APw-rfe.alt");
        assert_eq!(found.as_deref(), Some("Entw\u{fc}rfe/alt"));
    }
    let both = ["", ".Sent", ".Entw&APw-rfe"];
    let found = across(&between(nested, &both, &both), Side::Remote, ".New");
    assert_eq!(found.as_deref(), Some(".New"));
    let flat = Setting {
        layout: Some(Layout::MaildirPlusPlus),
        ..Setting::default()
    };
    let mapping = between(flat, &["", "Sent"], &["", ".Sent"]);
    let found = across(&mapping, Side::Local, "Sent");
    assert_eq!(found.as_deref(), Some(".Sent"), "it is read as it stands");
    let found = across(&mapping, Side::Remote, ".New");
    assert_eq!(found.as_deref(), Some(".New"));
}

#[test]
fn what_most_folders_say_is_not_undone_by_some_of_another_kind() {
    let here = ["", "Lists", "Work", ".odd", ".odder", ".oddest"];
    let mapping = find(&here, &["", "Lists", "Work"]);
    assert_eq!(
        across(&mapping, Side::Local, ".odd").as_deref(),
        Some(".odd")
    );
}

#[test]
fn people_read_text_whatever_stands_on_disk() {
    let flat = find(&["", ".Entw&APw-rfe"], &["", ".Entw&APw-rfe"]);
    let nested = find(&["Inbox", "A/b"], &["Inbox", "A/b"]);
    for (mapping, path, text) in [
        (&flat, "", "INBOX"),
        (&flat, ".[Gmail].All Mail", "[Gmail]/All Mail"),
        (&flat, ".Entw&APw-rfe", "Entw\u{fc}rfe"),
        (&flat, ".A&B", "A&B"),
        (&flat, ".INBOX", ".INBOX"),
        (&flat, "Odd/one", "Odd/one"),
        (&nested, "Inbox", "INBOX"),
        (&nested, "Inbox/Sub", "INBOX/Sub"),
        (&nested, "dev.tools", "dev.tools"),
    ] {
        let name = mapping.name(Side::Local, &dir(path.as_bytes()));
        assert_eq!(name.to_string(), text, "{path}");
    }
}

#[test]
fn nothing_is_made_that_would_be_inbox() {
    let mapping = find(&["", "Inbox", "Work"], &["Work", "inbox"]);
    // INBOX is the root here and `inbox` there.
    assert_eq!(across(&mapping, Side::Local, "").as_deref(), Some("inbox"));
    assert_eq!(across(&mapping, Side::Local, "Inbox"), None);
}
