//! Small trees on disk.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

fn tree(dirs: &[&str]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().expect("temp dir");
    for dir in dirs {
        fs::create_dir_all(temp.path().join(dir)).expect("it is made");
    }
    temp
}

fn look(path: &Path) -> Discovery {
    let root = Root::open(path).expect("it opens");
    discover(&root, &HashMap::new())
}

fn folders(seen: &Discovery) -> Vec<String> {
    let text = |found: &FoundFolder| String::from_utf8_lossy(&found.dir).into_owned();
    seen.folders.iter().map(text).collect()
}

fn unusable(seen: &Discovery) -> Vec<String> {
    let text = |(dir, _): &(Vec<u8>, String)| String::from_utf8_lossy(dir).into_owned();
    seen.unusable.iter().map(text).collect()
}

#[test]
fn every_directory_with_cur_or_new_is_a_folder_whatever_its_style() {
    let temp = tree(&[
        "cur",
        ".Sent/cur",
        ".Sent/deep/new",
        ".a..b/cur",
        "Lists/debian/cur",
        "dev.tools/new",
        "container/empty",
        ".notmuch/xapian/cur",
        "Work/cur/cur",
        "Work/tmp/cur",
    ]);
    let seen = look(temp.path());
    let expected = [
        "",
        ".Sent",
        ".Sent/deep",
        ".a..b",
        "Lists/debian",
        "Work",
        "dev.tools",
    ];
    assert_eq!(folders(&seen), expected);
    assert!(seen.unusable.is_empty() && seen.errors.is_empty());
}

#[test]
fn what_bears_our_name_is_no_folder_and_is_said_where_it_holds_mail() {
    let temp = tree(&["cur", ".maildir-sync.new/cur", ".maildir-sync.old"]);
    fs::write(temp.path().join(".maildir-sync"), "").expect("written");
    let seen = look(temp.path());
    assert_eq!(folders(&seen), [""]);
    assert_eq!(unusable(&seen), [".maildir-sync.new"]);
}

#[test]
fn a_link_that_may_hide_a_folder_is_told_and_not_followed() {
    let temp = tree(&[
        "mail/cur",
        "mail/.Half",
        "out/cur",
        "above/Sub/new",
        "sieve/x",
    ]);
    let mail = temp.path().join("mail");
    for (name, target) in [
        (".Loop", "."),
        (".Gone", "/nowhere"),
        (".Out", "../out"),
        ("Above", "../above"),
        ("sieve", "../sieve"),
        (".#lock", "me@host.1:2"),
        (".Half/cur", "../../out/cur"),
        ("self", "self"),
    ] {
        symlink(target, mail.join(name)).expect("link is made");
    }
    fs::write(temp.path().join("file"), "").expect("written");
    symlink("../file", mail.join("subscriptions")).expect("link is made");
    let seen = look(&mail);
    assert_eq!(folders(&seen), [""]);
    let expected = [".Gone", ".Half", ".Loop", ".Out", "Above", "self"];
    assert_eq!(unusable(&seen), expected);
}

#[test]
fn a_directory_that_looks_as_it_did_is_not_listed_again() {
    let temp = tree(&["cur", "A/cur", "A/B/cur"]);
    let root = Root::open(temp.path()).expect("it opens");
    let seen = discover(&root, &HashMap::new());
    let leaf = |seen: &Discovery, dir: &[u8]| {
        let found = seen.folders.iter().find(|found| found.dir == dir);
        found.expect("it is there").leaf
    };
    assert_eq!(leaf(&seen, b"A"), DirStamp::default());
    let stamp = leaf(&seen, b"A/B");
    assert_ne!(stamp, DirStamp::default());
    // It would be a folder still, if it were taken at its word.
    let known = HashMap::from([(&b"A/B"[..], stamp)]);
    assert_eq!(folders(&discover(&root, &known)), ["", "A", "A/B"]);
    fs::create_dir_all(temp.path().join("A/B/C/new")).expect("it is made");
    assert_eq!(folders(&discover(&root, &known)), ["", "A", "A/B", "A/B/C"]);
}

#[test]
fn a_tree_that_is_too_deep_is_left_alone_there() {
    let deep = vec!["d"; DEPTH_MAX + 1].join("/");
    let temp = tree(&[&format!("{deep}/cur"), "cur"]);
    let seen = look(temp.path());
    assert_eq!(folders(&seen), [""]);
    assert_eq!(unusable(&seen), [deep]);
}

#[test]
fn some_directories_are_no_folders_place() {
    for (dir, is_good) in [
        (".cur", true),
        ("a/cur", false),
        ("tmp", false),
        (".notmuch", false),
        ("a/.notmuch/b", false),
        (".maildir-sync", false),
        (".maildir-sync.new", false),
        (".a..b", true),
    ] {
        let dir = FolderDir::new(dir.as_bytes()).expect("a directory");
        assert_eq!(check_dir(&dir).is_ok(), is_good, "{dir}");
    }
}

#[test]
fn links_that_lead_elsewhere_are_followed_once_and_loops_end() {
    let temp = tree(&["mail/cur", "out/cur", "out/.Deep", "far/new"]);
    let mail = temp.path().join("mail");
    for (link, target) in [
        ("mail/.Out", "../out"),
        ("mail/.Twice", "../out"),
        ("mail/.Loop", "."),
        ("mail/.Above", ".."),
        ("out/.Far", "../far"),
        ("out/.Deep/cur", "../../far/new"),
    ] {
        symlink(target, temp.path().join(link)).expect("link is made");
    }
    let mut root = Root::open(&mail).expect("it opens");
    follow_links(&mut root).expect("it can be looked at");
    let seen = discover(&root, &HashMap::new());
    assert_eq!(folders(&seen), ["", ".Out", ".Out/.Deep"]);
    assert_eq!(unusable(&seen), [".Above", ".Loop", ".Out/.Far", ".Twice"]);
    assert!(root.dir_stamp(b".Out/.Deep/cur").is_ok());
}
