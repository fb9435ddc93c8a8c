//! What a changed directory costs, and what the slice of files that every run looks at finds (I3).

use std::fs;
use std::path::Path;

use harness::{Tree, World, body};

use crate::first_sync::name;

/// More files than one run looks at in turn.
const MANY: usize = 5_600;

/// A synced pair of so many unread messages.
fn large() -> World {
    let world = World::new();
    let tree = world.server();
    tree.make_folder("INBOX");
    for number in 0..MANY {
        let path = tree
            .dir("INBOX")
            .join("cur")
            .join(format!("{}:2,", name(number)));
        fs::write(path, body(&format!("message {number}"))).expect("message is written");
    }
    let _ = world.client().sync().run().ok();
    world
}

fn sides(world: &World, at_server: bool) -> (&Tree, &Tree) {
    if at_server {
        (world.server(), world.local())
    } else {
        (world.local(), world.server())
    }
}

/// How many message files a run's programs opened.
fn opened(log: &Path) -> usize {
    let text = fs::read_to_string(log).expect("strace keeps a log");
    let opens = text
        .lines()
        .filter(|line| line.contains("open") && line.contains("/17000"));
    opens.count() + text.lines().filter(|line| line.contains("\"17000")).count()
}

/// Marking a whole folder as read renames every file in it, and moves no byte of any.
#[test]
fn a_folder_that_is_marked_as_read_is_not_read() {
    for at_server in [false, true] {
        let world = large();
        let (from, to) = sides(&world, at_server);
        for number in 0..MANY {
            from.set_flags("INBOX", &name(number), "S");
        }
        let log = world.path("strace.log");
        let log_text = log.display().to_string();
        let strace = [
            "strace",
            "-f",
            "-q",
            "-e",
            "trace=open,openat,openat2",
            "-o",
            &log_text,
        ];
        let run = world.client().sync().under(&strace).run().ok();
        assert_eq!(
            run.here("flags") + run.there("flags"),
            MANY as u64,
            "{}",
            run.stdout
        );
        let opened = opened(&log);
        assert!(
            opened < MANY / 8,
            "{opened} message files were opened, more than a slice"
        );
        assert_eq!(to.flags("INBOX", &name(MANY - 1)), "S");
        world.assert_same();
        let _ = world.client().sync().run().ok().idle();
    }
}

/// Writes other bytes of the same length into a message's file, gives it its old time back, and flags it.
fn edit_and_flag(tree: &Tree, unique: &str) -> Vec<u8> {
    let path = tree.path("INBOX", unique);
    let time = fs::metadata(&path)
        .and_then(|stat| stat.modified())
        .expect("it has a time");
    let mut bytes = fs::read(&path).expect("it can be read");
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).expect("it is edited");
    let file = fs::File::options()
        .write(true)
        .open(&path)
        .expect("it opens");
    file.set_modified(time).expect("its time is set");
    tree.set_flags("INBOX", unique, "F");
    bytes
}

/// An edit that keeps size and time and comes with a rename looks like the rename alone. What was renamed is looked at before
/// all others, so that the next run finds it, however large the tree is.
#[test]
fn an_edit_behind_a_rename_is_found_by_the_next_run() {
    for at_server in [false, true] {
        let world = large();
        let (from, to) = sides(&world, at_server);
        let wanted = [1, MANY / 2, MANY - 2]
            .map(|number| (name(number), edit_and_flag(from, &name(number))));
        let _ = world.client().sync().run().ok();
        for (unique, _) in &wanted {
            assert_eq!(to.flags("INBOX", unique), "F");
        }
        let _ = world.client().sync().run().ok();
        for (unique, bytes) in &wanted {
            to.assert_holds("INBOX", unique, bytes);
        }
        world.assert_same();
        let _ = world.client().sync().run().ok().idle();
    }
}
