//! How a change is noticed that moves no directory's time (I3): by looking at some files in every run, at drafts in
//! each, and at everything with `--checksum`.

use std::fs;
use std::path::Path;

use harness::{Mount, Snapshot, Tree, World, body};

use crate::errors::{U1, U2};
use crate::first_sync::name;

/// More files than one run looks at in turn.
const MANY: usize = 5_600;

/// A synced pair of so many messages that a run does not look at all of them.
fn large() -> World {
    let world = World::new();
    let tree = world.server();
    tree.make_folder("INBOX");
    for number in 0..MANY {
        // Not through `tmp`: the folder is new, and this is quicker.
        let path = tree
            .dir("INBOX")
            .join("cur")
            .join(format!("{}:2,S", name(number)));
        fs::write(path, body(&format!("message {number}"))).expect("message is written");
    }
    let _ = world.client().sync().run().ok();
    world
}

/// Writes other bytes of the same length into a message's file and gives it its old time back: `touch -r` (C51).
fn edit_in_secret(tree: &Tree, folder: &str, unique: &str) -> Vec<u8> {
    let path = tree.path(folder, unique);
    let time = modified(&path);
    let mut bytes = fs::read(&path).expect("message can be read");
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).expect("message is edited");
    let file = fs::File::options()
        .write(true)
        .open(&path)
        .expect("message opens");
    file.set_modified(time).expect("time is set");
    drop(file);
    assert_eq!(modified(&path), time);
    bytes
}

fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path)
        .and_then(|stat| stat.modified())
        .expect("there are times")
}

/// The slice that each run looks at goes on where the last one stopped, so that any edit is found in the end.
#[test]
fn the_slice_of_files_that_each_run_looks_at_comes_round() {
    for at_server in [false, true] {
        let world = large();
        let (from, to) = sides(&world, at_server);
        let wanted: Vec<(String, Vec<u8>)> = [0, MANY / 2, MANY - 1]
            .map(|number| (name(number), edit_in_secret(from, "INBOX", &name(number))))
            .into();
        let found = (1..=400).find(|_| {
            let _ = world.client().sync().run().ok();
            wanted
                .iter()
                .all(|(unique, bytes)| to.read("INBOX", unique) == *bytes)
        });
        println!("at server: {at_server}, found after {found:?} runs");
        assert!(found.is_some(), "the edits were not found in 400 runs");
    }
}

/// `--checksum` reads everything at once, on both sides.
#[test]
fn checksum_finds_an_edit_wherever_it_is() {
    let world = large();
    let edits: Vec<(&Tree, &Tree, String, Vec<u8>)> = [
        (world.server(), world.local(), 7),
        (world.server(), world.local(), MANY - 7),
        (world.local(), world.server(), 70),
        (world.local(), world.server(), MANY - 70),
    ]
    .map(|(from, to, number)| {
        (
            from,
            to,
            name(number),
            edit_in_secret(from, "INBOX", &name(number)),
        )
    })
    .into();
    let run = world.client().sync().arg("--checksum").run().ok();
    for (_, to, unique, bytes) in &edits {
        to.assert_holds("INBOX", unique, bytes);
    }
    assert_eq!(
        (run.here("replaced"), run.there("replaced")),
        (2, 2),
        "{}",
        run.stdout
    );
    let _ = world.client().sync().arg("--checksum").run().ok().idle();
}

/// Drafts are looked at in every run, however large the tree is.
#[test]
fn an_edited_draft_is_found_at_once() {
    for at_server in [false, true] {
        let world = large();
        world.server().store("Drafts", U1, "DS", &body("draft"));
        let _ = world.client().sync().run().ok();
        let (from, to) = sides(&world, at_server);
        let bytes = edit_in_secret(from, "Drafts", U1);
        let _ = world.client().sync().run().ok();
        to.assert_holds("Drafts", U1, &bytes);
    }
}

/// Bytes that changed while inode, size and both times did not: nobody wrote them, so they are damage. Only
/// `--checksum` can see that; it is reported, never sent, and the good copy comes back.
#[test]
fn rot_is_found_by_checksum_and_healed() {
    for at_server in [false, true] {
        let world = World::new();
        let place = if at_server {
            "server/Maildir"
        } else {
            "c0/Maildir"
        };
        let image = world.path("../disk.img");
        let Some(mount) = Mount::in_image(&world.path(place), &image, 16) else {
            return;
        };
        world
            .server()
            .store("INBOX", U1, "S", &body("to rot, number one"));
        world.server().store("INBOX", U2, "S", &body("to stay"));
        // A file that a scan sees within the clock's grain is hashed again, and then nobody can tell rot from an edit.
        world.server().let_the_clock_tick("INBOX", U2);
        let _ = world.client().sync().run().ok();
        let (from, to) = sides(&world, at_server);
        let good = body("to rot, number one");
        mount.rot(
            b"This is to rot, number one.",
            b"This is to rot, number ONE.",
        );
        assert!(from.read("INBOX", U1) != good, "the disk has rotted");
        let _ = world.client().sync().run().ok().idle();
        let run = world.client().sync().arg("--checksum").run();
        assert_eq!(run.code, Some(0), "{run:?}");
        to.assert_holds("INBOX", U1, &good);
        from.assert_holds("INBOX", U1, &good);
        assert_eq!(Snapshot::of(world.server()).messages.len(), 2);
        let _ = world.client().sync().arg("--checksum").run().ok().idle();
        drop(mount);
    }
}

/// The side where somebody acts, and the other.
fn sides(world: &World, at_server: bool) -> (&Tree, &Tree) {
    if at_server {
        (world.server(), world.local())
    } else {
        (world.local(), world.server())
    }
}
