//! Names both ways in tables, and trees that are looked at.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::survey::{LINK, LINKED};
use super::*;
use proptest::prelude::*;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

const UTF8: Encoding = Encoding::Utf8;
const UTF7: Encoding = Encoding::Utf7;

fn flat(encoding: Encoding) -> Layout {
    Layout {
        style: Style::MaildirPlusPlus,
        encoding,
        inbox: Inbox::Root,
    }
}

fn nested(encoding: Encoding, inbox: Inbox) -> Layout {
    Layout {
        style: Style::Nested,
        encoding,
        inbox,
    }
}

fn folder(name: &[u8]) -> FolderName {
    FolderName::new(name).expect("the test's names are valid")
}

/// A temporary root with these directories in it.
fn tree(dirs: &[&str]) -> TempDir {
    let root = TempDir::new().expect("a temporary directory");
    for dir in dirs {
        make(&root, dir);
    }
    root
}

fn make(root: &TempDir, dir: &str) {
    fs::create_dir_all(root.path().join(dir)).expect("a directory");
}

fn link(root: &TempDir, target: &str, link: &str) {
    symlink(target, root.path().join(link)).expect("a link");
}

fn detect(root: &TempDir) -> Layout {
    Layout::detect(root.path(), Setting::default()).expect("the tree is readable")
}

/// Names and reasons of what is found, as text.
fn found(root: &TempDir, layout: &Layout) -> (Vec<String>, Vec<String>) {
    let discovery = discover(root.path(), layout);
    assert!(discovery.errors.is_empty(), "{:?}", discovery.errors);
    assert!(
        discovery
            .folders
            .is_sorted_by(|left, right| left.dir < right.dir)
    );
    let names = discovery
        .folders
        .iter()
        .map(|found| found.name.to_string())
        .collect();
    (
        names,
        discovery
            .misfits
            .iter()
            .map(|(dir, why)| format!("{}: {why}", escape(dir)))
            .collect(),
    )
}

#[test]
fn valid_names_map_both_ways() {
    let root = nested(UTF8, Inbox::Root);
    let below = nested(UTF8, Inbox::Subdirectory);
    let long = format!(".{}", "x".repeat(254));
    for (layout, dir, name) in [
        (flat(UTF8), &b""[..], &b"INBOX"[..]),
        (flat(UTF8), b".Lists.debian", b"Lists/debian"),
        (flat(UTF8), b".cur", b"cur"),
        (flat(UTF8), b".Lists.new", b"Lists/new"),
        (flat(UTF8), b".INBOX.Sub", b"INBOX/Sub"),
        (flat(UTF8), b".Inbox", b"Inbox"),
        (flat(UTF8), b".Lists.INBOX", b"Lists/INBOX"),
        (flat(UTF8), b".[Gmail].All Mail", b"[Gmail]/All Mail"),
        (flat(UTF8), b".100% *?`id`$(id)", b"100% *?`id`$(id)"),
        (flat(UTF8), b".trailing space ", b"trailing space "),
        (flat(UTF8), b".~tilde", b"~tilde"),
        (flat(UTF8), b".a\nb\\", b"a\nb\\"),
        (flat(UTF8), b".A&B", b"A&B"),
        (flat(UTF8), b".Entw&APw-rfe", b"Entw&APw-rfe"),
        (flat(UTF8), b".Entw\xc3\xbcrfe", b"Entw\xc3\xbcrfe"),
        (flat(UTF8), b".Entwu\xcc\x88rfe", b"Entwu\xcc\x88rfe"),
        (flat(UTF8), b".Entw\xfcrfe", b"Entw\xfcrfe"),
        (flat(UTF8), b".dovecot", b"dovecot"),
        (flat(UTF8), b".notmuch.patches", b"notmuch/patches"),
        (flat(UTF8), long.as_bytes(), &long.as_bytes()[1..]),
        (flat(UTF7), b"", b"INBOX"),
        (flat(UTF7), b".A&-B", b"A&B"),
        (flat(UTF7), b".Entw&APw-rfe", b"Entw\xc3\xbcrfe"),
        (flat(UTF7), b".Entwu&Awg-rfe", b"Entwu\xcc\x88rfe"),
        (flat(UTF7), b".Entw&-APw-rfe", b"Entw&APw-rfe"),
        (
            flat(UTF7),
            b".Entw\xfcrfe.Entw&APw-rfe",
            b"Entw\xfcrfe/Entw\xc3\xbcrfe",
        ),
        (flat(UTF7), b".\xff&APw-", b"\xff&APw-"),
        (
            flat(UTF7),
            b".&U,BTFw-.&ZeVnLIqe-",
            "\u{53f0}\u{5317}/\u{65e5}\u{672c}\u{8a9e}".as_bytes(),
        ),
        (root, b"", b"INBOX"),
        (root, b"INBOX/Sub", b"INBOX/Sub"),
        (root, b"inbox", b"inbox"),
        (root, b"Lists/dev.tools", b"Lists/dev.tools"),
        (root, b"Lists/dovecot", b"Lists/dovecot"),
        (root, b"trailing.", b"trailing."),
        (root, b"notmuch", b"notmuch"),
        (below, b"INBOX", b"INBOX"),
        (below, b"INBOX/Sub", b"INBOX/Sub"),
        (below, b"Lists", b"Lists"),
        (
            nested(UTF7, Inbox::Root),
            b"Lists/Entw&APw-rfe",
            b"Lists/Entw\xc3\xbcrfe",
        ),
    ] {
        assert_eq!(
            layout.name(dir),
            Ok(folder(name)),
            "{layout:?} {}",
            escape(dir)
        );
        assert_eq!(
            layout.dir(&folder(name)),
            Ok(dir.to_vec()),
            "{layout:?} {}",
            escape(name)
        );
    }
}

#[test]
fn directories_without_a_name_are_misfits() {
    let root = nested(UTF8, Inbox::Root);
    let deep = ["d"; DEPTH_MAX + 1].join("/");
    let wide = format!(".{}", utf7::encode(&"\u{65e5}".repeat(90)).escape_ascii());
    for (layout, dir, why) in [
        (flat(UTF8), &b".INBOX"[..], "would be INBOX"),
        (flat(UTF8), b"Lists", "begins with a dot"),
        (flat(UTF8), b".", "empty"),
        (flat(UTF8), b"..", "empty"),
        (flat(UTF8), b"...dots", "empty"),
        (flat(UTF8), b".a..b", "empty"),
        (flat(UTF8), b".trailing.", "empty"),
        (flat(UTF8), b".a/b", "same name"),
        (flat(UTF8), b".a\0b", "NUL"),
        (flat(UTF8), b".notmuch", "database"),
        (flat(UTF7), b".Entw\xc3\xbcrfe", "is in UTF-8"),
        (flat(UTF7), b".A&B", "canonical"),
        (flat(UTF7), b".&AGE-", "canonical"),
        (flat(UTF7), b".a&AC8-b", "canonical"),
        (flat(UTF7), b".&AAA-", "NUL"),
        (flat(UTF7), wide.as_bytes(), "over 255 bytes"),
        (root, b"INBOX", "would be INBOX"),
        (root, b"Lists/cur", "\"cur\" is where"),
        (root, b"new", "\"new\" is where"),
        (root, b"tmp/Sub", "\"tmp\" is where"),
        (root, b".Lists", "begins with a dot"),
        (root, b"Lists/.git", "begins with a dot"),
        (root, b"a/../b", "\"..\""),
        (root, b"/a", "empty"),
        (root, deep.as_bytes(), "levels deep"),
        (nested(UTF8, Inbox::Subdirectory), b"", "not the root"),
    ] {
        let misfit = layout.name(dir).expect_err("it has no name");
        assert!(
            misfit.why.contains(why),
            "{layout:?} {}: {}",
            escape(dir),
            misfit.why
        );
    }
}

#[test]
fn names_without_a_directory_are_misfits() {
    let root = nested(UTF8, Inbox::Root);
    let (long, wide) = ("x".repeat(255), "\u{e9}x".repeat(80));
    let (deep, far) = (
        ["d"; DEPTH_MAX + 1].join("/"),
        vec!["\u{e9}x".repeat(30); 39].join("/"),
    );
    for (layout, name, why) in [
        (flat(UTF8), "Lists/dev.tools", "\"dev.tools\" holds a dot"),
        (flat(UTF7), "trailing.", "holds a dot"),
        (flat(UTF7), ".hidden", "holds a dot"),
        (flat(UTF8), "notmuch", "database"),
        (flat(UTF8), &long, "over 255 bytes"),
        (flat(UTF7), &wide, "over 255 bytes"),
        (root, "cur", "is where"),
        (root, "Lists/tmp", "is where"),
        (root, ".hidden", "begins with a dot"),
        (root, &deep, "levels deep"),
        (nested(UTF7, Inbox::Root), &wide, "over 255 bytes"),
        (nested(UTF7, Inbox::Root), &far, "path would be over"),
    ] {
        let misfit = layout
            .dir(&folder(name.as_bytes()))
            .expect_err("it has no directory");
        assert!(
            misfit.why.contains(why),
            "{layout:?} {name}: {}",
            misfit.why
        );
    }
    assert_eq!(root.dir(&folder(long.as_bytes())), Ok(long.into_bytes()));
    assert_eq!(root.dir(&folder(far.as_bytes())), Ok(far.into_bytes()));
}

#[test]
fn reasons_show_no_control_characters() {
    let why = nested(UTF8, Inbox::Root)
        .name(b".a\x1b[31m\n")
        .expect_err("a dot-file")
        .why;
    assert!(why.contains("\".a\\x1b[31m\\x0a\""), "{why}");
}

#[test]
fn the_style_is_found_by_looking() {
    let style = |dirs: &[&str]| detect(&tree(dirs)).style;
    assert_eq!(style(&[]), Style::MaildirPlusPlus);
    assert_eq!(style(&["cur", "new", "tmp"]), Style::MaildirPlusPlus);
    assert_eq!(style(&["cur", ".Sent/cur"]), Style::MaildirPlusPlus);
    assert_eq!(
        style(&["cur", ".Sent/cur", "Old/cur"]),
        Style::MaildirPlusPlus
    );
    assert_eq!(style(&["cur", "Sent/cur"]), Style::Nested);
    assert_eq!(
        style(&["cur", ".notmuch/xapian", "Lists/debian/devel/cur"]),
        Style::Nested
    );
    assert_eq!(style(&["INBOX/cur"]), Style::Nested);
    assert_eq!(
        style(&["cur/Sub/cur", ".notmuch/hooks", "sieve"]),
        Style::MaildirPlusPlus
    );
}

#[test]
fn inbox_is_the_root_or_a_directory_of_that_name() {
    assert_eq!(detect(&tree(&["cur", "Sent/cur"])).inbox, Inbox::Root);
    assert_eq!(
        detect(&tree(&["INBOX/cur", "Sent/cur"])).inbox,
        Inbox::Subdirectory
    );
    assert_eq!(
        detect(&tree(&["INBOX/cur", ".Sent/cur"])).inbox,
        Inbox::Root
    );
    let linked = tree(&["Sent/cur", "elsewhere"]);
    link(&linked, "elsewhere", "cur");
    assert_eq!(detect(&linked).inbox, Inbox::Root);
    let file = tree(&["Sent/cur"]);
    fs::write(file.path().join("cur"), b"").expect("a file");
    assert_eq!(detect(&file).inbox, Inbox::Subdirectory);
}

#[test]
fn the_encoding_is_found_by_looking() {
    let encoding = |dirs: &[&str]| detect(&tree(dirs)).encoding;
    assert_eq!(encoding(&[".Sent/cur"]), UTF7);
    assert_eq!(encoding(&["Sent/cur"]), UTF8);
    assert_eq!(encoding(&[".Entw&APw-rfe/cur", ".A&B/cur"]), UTF7);
    assert_eq!(encoding(&["Lists/R&-D/cur"]), UTF7);
    assert_eq!(encoding(&[".A&B/cur"]), UTF8);
    assert_eq!(encoding(&[".Entw\u{fc}rfe/new/1.mx"]), UTF8);
    assert_eq!(
        encoding(&[".A&-B/cur", ".Entw\u{fc}rfe/cur", ".Entw&APw-rfe/cur"]),
        UTF8
    );
    assert_eq!(
        encoding(&[".Sent/cur", ".Entw\u{fc}rfe/something", "Entw\u{fc}rfe/cur"]),
        UTF7
    );
    let latin1 = tree(&[]);
    fs::create_dir_all(latin1.path().join(OsStr::from_bytes(b".Entw\xfcrfe/cur")))
        .expect("a directory");
    assert_eq!(detect(&latin1).encoding, UTF7);
}

#[test]
fn a_setting_is_not_looked_for() {
    let root = tree(&["Entw\u{fc}rfe/cur"]);
    let set = |style, encoding| {
        Layout::detect(root.path(), Setting { style, encoding }).expect("a layout")
    };
    assert_eq!(set(Some(Style::MaildirPlusPlus), None), flat(UTF7));
    assert_eq!(
        set(Some(Style::Nested), None),
        nested(UTF8, Inbox::Subdirectory)
    );
    assert_eq!(set(None, Some(UTF7)), nested(UTF7, Inbox::Subdirectory));
    assert_eq!(set(Some(Style::MaildirPlusPlus), Some(UTF8)), flat(UTF8));
}

#[test]
fn a_root_that_is_none_is_an_error() {
    let root = tree(&[]);
    fs::write(root.path().join("file"), b"").expect("a file");
    for (name, kind) in [
        ("file", io::ErrorKind::NotADirectory),
        ("gone", io::ErrorKind::NotFound),
    ] {
        let path = root.path().join(name);
        for style in [None, Some(Style::MaildirPlusPlus), Some(Style::Nested)] {
            for encoding in [None, Some(UTF8)] {
                let error =
                    Layout::detect(&path, Setting { style, encoding }).expect_err("no tree");
                assert_eq!(error.kind(), kind);
            }
        }
        for layout in [flat(UTF8), nested(UTF8, Inbox::Root)] {
            let discovery = discover(&path, &layout);
            assert!(
                discovery.folders.is_empty() && discovery.errors.len() == 1,
                "{discovery:?}"
            );
        }
    }
}

#[test]
fn folders_of_maildir_plus_plus_are_found() {
    let root = tree(&[
        "cur",
        ".b/cur",
        ".b/new",
        ".NoCur/new/1.mx",
        ".NoTmp/cur",
        ".a..b/cur",
        ".INBOX/cur",
        ".a.c/cur",
    ]);
    for dir in [
        ".notmuch/xapian",
        ".JustADirectory",
        ".OnlyTmp/tmp",
        ".Torn/new",
        "plain/cur",
        "cur/x/cur",
        ".CurIsAFile",
    ] {
        make(&root, dir);
    }
    for file in [".CurIsAFile/cur", "dovecot-uidlist", ".uidvalidity"] {
        fs::write(root.path().join(file), b"").expect("a file");
    }
    let (names, misfits) = found(&root, &detect(&root));
    assert_eq!(names, ["INBOX", "NoCur", "NoTmp", "a/c", "b"]);
    assert_eq!(misfits.len(), 2, "{misfits:?}");
    assert!(
        misfits[0].starts_with(".INBOX: ") && misfits[1].starts_with(".a..b: "),
        "{misfits:?}"
    );
}

#[test]
fn nested_folders_are_found() {
    let root = tree(&[
        "INBOX/cur",
        "Lists/debian/cur",
        "Lists/dev.tools/new/1.mx",
        "A/cur/deep/cur",
        "A/tmp/x/cur",
    ]);
    for dir in [
        ".notmuch/xapian",
        "A/.hidden/cur",
        "Empty/Emptier",
        "Only/tmp",
        "Torn/new",
        "INBOX/Sub/cur",
        "INBOX/Sub/new",
    ] {
        make(&root, dir);
    }
    fs::write(root.path().join("Empty/cur"), b"").expect("a file");
    let (names, misfits) = found(&root, &detect(&root));
    assert_eq!(
        names,
        ["A", "INBOX", "INBOX/Sub", "Lists/debian", "Lists/dev.tools"]
    );
    assert_eq!(misfits, [""; 0]);

    make(&root, "cur");
    let (names, misfits) = found(&root, &detect(&root));
    assert_eq!(
        names,
        ["INBOX", "A", "INBOX/Sub", "Lists/debian", "Lists/dev.tools"]
    );
    assert_eq!(
        misfits,
        ["INBOX: Its name would be INBOX, which is the root itself"]
    );
}

#[test]
fn links_are_reported_and_never_followed() {
    let root = tree(&[
        "cur",
        ".a/cur",
        ".Half/new/1.mx",
        ".Linked",
        "elsewhere/cur",
        "database",
    ]);
    for (target, name) in [
        ("elsewhere", ".Elsewhere"),
        (".", ".Loop"),
        (".Self", ".Self"),
        ("gone", ".Dangling"),
        ("database", ".notmuch"),
        ("/dev/null", ".rc"),
        ("gone", "plain"),
        ("../elsewhere/cur", ".Linked/cur"),
        ("../elsewhere/cur", ".Half/cur"),
    ] {
        link(&root, target, name);
    }
    let (names, misfits) = found(&root, &flat(UTF8));
    assert_eq!(names, ["INBOX", "Half", "a"]);
    let expected = [
        (".Dangling", LINK),
        (".Elsewhere", LINK),
        (".Linked", LINKED),
        (".Loop", LINK),
        (".Self", LINK),
    ];
    assert_eq!(misfits, expected.map(|(dir, why)| format!("{dir}: {why}")));
}

#[test]
fn links_in_a_nested_tree_are_reported_and_never_followed() {
    let root = tree(&["cur", "a/cur", "Half/new/1.mx", "Linked", "Lists/x/cur"]);
    for (target, name) in [
        ("../a", "Lists/Link"),
        ("..", "Lists/Loop"),
        ("Self", "Self"),
        ("gone", "Dangling"),
        ("/dev/null", "null"),
        ("a", ".a"),
        ("../a/cur", "Linked/cur"),
        ("../a/cur", "Half/cur"),
        ("../a", "Lists/x/tmp"),
    ] {
        link(&root, target, name);
    }
    let (names, misfits) = found(&root, &nested(UTF8, Inbox::Root));
    assert_eq!(names, ["INBOX", "Half", "Lists/x", "a"]);
    let expected = [
        ("Linked", LINKED),
        ("Lists/Link", LINK),
        ("Lists/Loop", LINK),
    ];
    assert_eq!(misfits, expected.map(|(dir, why)| format!("{dir}: {why}")));
}

#[test]
fn the_root_itself_may_be_a_link() {
    for (style, dir) in [(Style::MaildirPlusPlus, ".Sent"), (Style::Nested, "Sent")] {
        let root = tree(&["mail/cur", &format!("mail/{dir}/cur")]);
        link(&root, "mail", "link");
        let path = root.path().join("link");
        let layout = Layout::detect(&path, Setting::default()).expect("the tree is readable");
        assert_eq!(layout.style, style);
        let dirs: Vec<_> = discover(&path, &layout)
            .folders
            .into_iter()
            .map(|found| found.dir)
            .collect();
        assert_eq!(dirs, [b"", dir.as_bytes()]);
    }
}

#[test]
fn a_walk_ends_at_its_deepest_level() {
    let deepest = ["d"; DEPTH_MAX].join("/");
    let root = tree(&[&format!("{deepest}/cur"), &format!("{deepest}/e/cur")]);
    let (names, misfits) = found(&root, &nested(UTF8, Inbox::Root));
    assert_eq!(
        misfits,
        [format!("{deepest}/e: It is over {DEPTH_MAX} levels deep")]
    );
    assert_eq!(names, [deepest]);
}

#[test]
fn what_is_discovered_has_one_name_each_and_is_found_by_it() {
    let root = tree(&[
        "cur",
        ".A&B/cur",
        ".A&-B/cur",
        ".Entw\u{fc}rfe/cur",
        ".Entw&APw-rfe/cur",
        ".a/cur",
        ".A/cur",
    ]);
    for (encoding, misfit_count) in [(UTF8, 0), (UTF7, 2)] {
        let layout = flat(encoding);
        let Discovery {
            folders, misfits, ..
        } = discover(root.path(), &layout);
        let names: BTreeSet<_> = folders.iter().map(|found| found.name.clone()).collect();
        assert_eq!(
            (names.len(), misfits.len()),
            (7 - misfit_count, misfit_count)
        );
        assert_eq!(names.len(), folders.len());
        for found in folders {
            assert_eq!(layout.dir(&found.name), Ok(found.dir));
        }
    }
}

#[test]
fn the_words_of_the_configuration_are_read_and_written() {
    for style in [Style::MaildirPlusPlus, Style::Nested] {
        assert_eq!(
            serde_json::from_value::<Style>(style.as_str().into()).ok(),
            Some(style)
        );
    }
    for encoding in [UTF8, UTF7] {
        assert_eq!(
            serde_json::from_value::<Encoding>(encoding.as_str().into()).ok(),
            Some(encoding)
        );
    }
}

fn layouts() -> impl Strategy<Value = Layout> {
    prop::sample::select(vec![
        flat(UTF8),
        flat(UTF7),
        nested(UTF8, Inbox::Root),
        nested(UTF7, Inbox::Root),
        nested(UTF8, Inbox::Subdirectory),
        nested(UTF7, Inbox::Subdirectory),
    ])
}

/// Bytes rich in what separates, shifts and is reserved.
fn paths() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        ".", "/", "&", "-", "&-", "&APw-", "&AC8-", "\u{fc}", "cur", "INBOX", "inbox", "a", "\n",
        "notmuch",
    ];
    let words = words
        .iter()
        .map(|word| word.as_bytes())
        .chain([&b"\xfc"[..]])
        .collect::<Vec<_>>();
    prop::collection::vec(prop::sample::select(words), 0..7).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_directory_with_a_name_is_found_by_it(layout in layouts(), dir in paths()) {
        if let Ok(name) = layout.name(&dir) {
            prop_assert_eq!(layout.dir(&name), Ok(dir));
        }
    }

    #[test]
    fn a_name_with_a_directory_is_read_from_it(layout in layouts(), path in paths()) {
        if let Ok(name) = FolderName::new(&path) && let Ok(dir) = layout.dir(&name) {
            prop_assert_eq!(layout.name(&dir), Ok(name));
        }
    }

    #[test]
    fn ordinary_names_have_a_place_everywhere(
        layout in layouts(),
        name in "[A-Z&\u{e9} ]{2,4}(/[a-z\u{fc}]{4,9}){0,3}",
    ) {
        let dir = layout.dir(&folder(name.as_bytes()));
        prop_assert!(dir.is_ok(), "{:?}", dir);
    }
}
