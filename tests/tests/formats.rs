//! State that another version left, of each stored format: an older index is rebuilt, an older archive set aside and the pair
//! adopted, a newer one of either, and a newer marker, refused. `fixtures` of the crates have the older ones.

use std::fs;
use std::path::{Path, PathBuf};

use harness::snapshot::{assert_nothing_written, everything};
use harness::tree::files;
use harness::{World, body};
use rusqlite::Connection;

use crate::first_sync::name;
use crate::tidy;

const MESSAGES: usize = 12;

/// A synced pair, of whose messages one is deleted here, one is flagged there, and one is new on each side.
fn waiting() -> World {
    let world = World::new();
    for number in 0..MESSAGES {
        let bytes = body(&format!("message {number}"));
        world.server().store("INBOX", &name(number), "S", &bytes);
    }
    let _ = world.client().sync().run().ok();
    world.local().delete("INBOX", &name(1));
    world.server().set_flags("INBOX", &name(2), "FS");
    world.local().store("INBOX", &name(30), "S", &body("here"));
    world
        .server()
        .store("INBOX", &name(31), "S", &body("there"));
    world
}

fn count(world: &World) -> usize {
    assert!(world.local().has("INBOX", &name(31)) && world.server().has("INBOX", &name(30)));
    assert_eq!(world.local().flags("INBOX", &name(2)), "FS");
    world.assert_same();
    harness::Snapshot::of(world.local()).messages.len()
}

/// The only database of that kind below a state directory.
fn database(state: &Path, kind: &str) -> PathBuf {
    let is_one = |path: &PathBuf| {
        path.to_string_lossy().contains(kind) && path.extension().is_some_and(|end| end == "db")
    };
    let found: Vec<_> = everything(state).into_keys().filter(is_one).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn version(path: &Path) -> i64 {
    let db = Connection::open(path).expect("it opens");
    let version = db.query_row("PRAGMA user_version", [], |row| row.get(0));
    version.expect("it has one")
}

/// The fixtures of formats that are older than that of a database.
fn older(krate: &str, kind: &str, path: &Path) -> Vec<String> {
    let newest = version(path);
    assert!(newest > 1, "then there is none");
    let dir = tidy::root().join(krate).join("fixtures");
    let read = |version| {
        let path = dir.join(format!("{kind}-{version}.sql"));
        fs::read_to_string(&path).unwrap_or_else(|_| panic!("{path:?} is missing"))
    };
    (1..newest).map(read).collect()
}

fn put(path: &Path, sql: &str) {
    fs::remove_file(path).expect("it is removed");
    let db = Connection::open(path).expect("it opens");
    db.execute_batch(sql).expect("it is SQL");
}

#[test]
fn an_older_index_costs_time_and_no_mail_and_deletions_travel() {
    for at_server in [false, true] {
        let world = waiting();
        world.save("waiting");
        let state = if at_server {
            world.server_state()
        } else {
            world.client().state()
        };
        let index = database(&state, "/index");
        for sql in older("maildir", "index", &index) {
            world.load("waiting");
            let newest = version(&index);
            put(&index, &sql);
            let run = world.client().sync().run().ok();
            assert_eq!(version(&index), newest);
            assert_eq!(count(&world), MESSAGES + 1, "{}", run.stdout);
            assert!(!world.server().has("INBOX", &name(1)), "{}", run.stdout);
            assert!(run.bytes() < 8_000, "{}", run.stdout);
            let _ = world.client().sync().run().ok().idle();
        }
    }
}

#[test]
fn an_older_archive_is_set_aside_with_a_sentence_and_nothing_is_deleted() {
    let world = waiting();
    world.save("waiting");
    let archive = database(&world.client().state(), "/archives/");
    for (past, sql) in (1..).zip(older("client", "archive", &archive)) {
        world.load("waiting");
        put(&archive, &sql);
        let bytes = fs::read(&archive).expect("it is there");
        let aside = archive.with_extension(format!("format-{past}"));
        let run = world.client().sync().run().ok();
        let run = run.says(&format!(
            "has an older format and is set aside as {aside:?}"
        ));
        let run = run.says("both sides are joined, and nothing is deleted");
        assert_eq!(run.here("deleted") + run.there("deleted"), 0);
        assert_eq!(count(&world), MESSAGES + 2, "{}", run.stdout);
        assert!(fs::read(&aside).expect("it is there") == bytes);
        let again = world.client().sync().run().ok().idle();
        assert!(!again.stderr.contains("set aside"), "{}", again.stderr);
    }
}

/// A run that is refused with a sentence, and changes nothing in either tree nor in the file.
#[track_caller]
fn assert_refused(world: &World, path: &Path, code: i32, said: &[&str]) {
    let trees = [world.server().root(), world.local().root()];
    let before = trees.map(everything);
    let bytes = fs::read(path).expect("it is there");
    for command in ["sync", "pull", "push"] {
        let mut run = world.client().pair(command).run().exits(code);
        for words in said {
            run = run.says(words);
        }
        let _ = run.says_one_sentence();
        for (tree, before) in trees.iter().zip(&before) {
            assert_nothing_written(before, tree);
        }
        assert!(fs::read(path).expect("it is there") == bytes);
    }
}

#[test]
fn a_newer_index_archive_or_marker_is_refused_and_left_alone() {
    let newer = |path: &Path| {
        let version = version(path) + 1;
        let db = Connection::open(path).expect("it opens");
        db.pragma_update(None, "user_version", version)
            .expect("it is written");
    };
    for at_server in [false, true] {
        let world = waiting();
        let (tree, state) = if at_server {
            (world.server(), world.server_state())
        } else {
            (world.local(), world.client().state())
        };
        world.save("waiting");
        let index = database(&state, "/index");
        newer(&index);
        assert_refused(&world, &index, 2, &["index", "install the newer version"]);
        world.load("waiting");
        let marker = tree.root().join(".maildir-sync");
        let text = fs::read_to_string(&marker).expect("it is text");
        let text = text.replacen("maildir-sync 1 ", "maildir-sync 2 ", 1);
        fs::write(&marker, text).expect("it is written");
        let said = ["marker", "has format 2", "install the newer version"];
        assert_refused(&world, &marker, 2, &said);
    }
    let world = waiting();
    let archive = database(&world.client().state(), "/archives/");
    newer(&archive);
    let said = ["is newer than this version's", "move it away"];
    assert_refused(&world, &archive, 1, &said);
    assert_eq!(
        files(archive.parent().expect("a directory")).len(),
        2,
        "it and its lock"
    );
}
