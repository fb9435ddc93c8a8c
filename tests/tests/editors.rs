//! What an editor leaves beside a message is not mail (C65).

use std::fs;
use std::path::{Path, PathBuf};

use harness::tree::{files, write_with_time};
use harness::{Tree, World, body};

use crate::errors::U1;

/// How an editor saves a file: what becomes of the old text, and of the new one.
type Save = fn(&Path, &[u8]);

fn beside(path: &Path, name: impl Fn(&str) -> String) -> PathBuf {
    let old = path.file_name().and_then(|name| name.to_str());
    path.with_file_name(name(old.expect("names of tests are UTF-8")))
}

/// The old file gets another name, and a new one its own.
fn by_rename(path: &Path, bytes: &[u8]) {
    fs::rename(path, beside(path, |name| format!("{name}~"))).expect("old text is kept");
    write_with_time(path, bytes);
}

/// The old text is copied, and the file written in place.
fn by_copy(path: &Path, bytes: &[u8]) {
    fs::copy(path, beside(path, |name| format!("{name}~"))).expect("old text is kept");
    write_with_time(path, bytes);
}

/// Numbered ones, as Emacs makes, with a lock and what is saved by itself.
fn numbered(path: &Path, bytes: &[u8]) {
    let count = files(path.parent().expect("in cur")).len();
    fs::rename(path, beside(path, |name| format!("{name}.~{count}~"))).expect("old text is kept");
    write_with_time(path, bytes);
    fs::write(beside(path, |name| format!("#{name}#")), "unsaved").expect("it is written");
    let lock = beside(path, |name| format!(".#{name}"));
    let _ = fs::remove_file(&lock);
    std::os::unix::fs::symlink("user@host.1:2", lock).expect("it is locked");
}

const SAVES: [(&str, Save); 3] = [
    ("rename", by_rename),
    ("copy", by_copy),
    ("numbers", numbered),
];

/// How many files of either side hold one of these texts, whatever their names.
fn drafts(tree: &Tree, texts: &[Vec<u8>]) -> usize {
    let files = files(&tree.dir("Drafts").join("cur"));
    let texts = |path: &&PathBuf| fs::read(path).is_ok_and(|bytes| texts.contains(&bytes));
    files.iter().filter(texts).count()
}

fn sides(world: &World, edited_here: bool) -> (&Tree, &Tree) {
    match edited_here {
        true => (world.local(), world.server()),
        false => (world.server(), world.local()),
    }
}

#[test]
fn a_draft_that_is_edited_with_backups_travels_under_its_name() {
    for (how, save) in SAVES {
        for edited_here in [true, false] {
            let what = format!("{how}, here: {edited_here}");
            let world = World::new();
            let (edited, other) = sides(&world, edited_here);
            let texts: Vec<Vec<u8>> = (0..5).map(|n| body(&format!("text {n}"))).collect();
            world.server().store("Drafts", U1, "DS", &texts[0]);
            let _ = world.client().sync().run().ok();
            for text in &texts[1..] {
                let path = edited.dir("Drafts").join("cur").join(format!("{U1}:2,DS"));
                save(&path, text);
                let _ = world.client().sync().run().ok();
                assert_eq!(fs::read(&path).expect("it keeps its name"), *text, "{what}");
                let theirs = other.dir("Drafts").join("cur").join(format!("{U1}:2,DS"));
                assert_eq!(
                    fs::read(theirs).expect("it keeps its name"),
                    *text,
                    "{what}"
                );
                assert_eq!(drafts(other, &texts), 1, "{what}: they pile up");
                let _ = world.client().sync().run().ok().idle();
            }
        }
    }
}

/// The backup is still there when its draft is sent and gone: then it is no mail either.
#[test]
fn a_draft_that_is_gone_is_gone_whatever_an_editor_left() {
    for edited_here in [true, false] {
        let world = World::new();
        let (edited, other) = sides(&world, edited_here);
        world.server().store("Drafts", U1, "DS", &body("old"));
        let _ = world.client().sync().run().ok();
        let path = edited.dir("Drafts").join("cur").join(format!("{U1}:2,DS"));
        by_rename(&path, &body("new"));
        let _ = world.client().sync().run().ok();
        fs::remove_file(&path).expect("it is sent");
        let _ = world.client().sync().run().ok();
        assert_eq!(drafts(other, &[body("old"), body("new")]), 0);
        let _ = world.client().sync().run().ok().idle();
    }
}
