//! Disks that are full or read-only (I11, C34), played by small file systems in memory: it is said, what was done stays,
//! nothing is lost, and the next run goes on.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use harness::{Mount, Run, Snapshot, Tree, World, body, bulky};

use crate::errors::{U1, U2, U3};
use crate::first_sync::{count, name};

const KIB: usize = 1024;
/// Messages that together have more bytes than [`SMALL`] KiB.
const MESSAGES: usize = 120;
const SMALL: u64 = 3_000;
const ENOUGH: &str = "size=64m";

fn fill(tree: &Tree) {
    for number in 0..MESSAGES {
        let bytes = bulky(&format!("bulky {number}"), 40 * KIB);
        tree.store("INBOX", &name(number), "S", &bytes);
    }
}

fn said_and_clean(world: &World, run: &Run) {
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    for tree in [world.server(), world.local()] {
        let rubbish = Snapshot::of(tree).rubbish;
        assert!(rubbish.is_empty(), "left in tmp: {rubbish:?}");
    }
}

/// The tree that gets the messages lies on a disk that is too small for them.
fn added_until_full(command: &str, place: &str) {
    let world = World::new();
    world.local().create();
    let Some(disk) = Mount::in_memory(&world.path(place), SMALL) else {
        return;
    };
    let (from, to) = if command == "pull" {
        (world.server(), world.local())
    } else {
        (world.local(), world.server())
    };
    to.create();
    fill(from);
    let before = Snapshot::of(from);
    let run = world
        .client()
        .pair(command)
        .run()
        .says(if command == "pull" {
            "The disk here took no more"
        } else {
            "The disk there took no more"
        })
        .says("make room");
    said_and_clean(&world, &run);
    let done = count(to);
    assert!(done > 0 && done < MESSAGES, "what was done stays: {done}");
    harness::assert_untouched(&before, from, command);
    let again = world.client().pair(command).run();
    said_and_clean(&world, &again);
    let status = world.client().pair("status").found_beside().run().exits(1);
    assert!(
        status.stdout.contains("\"last_sync\":null"),
        "it never synced to the end: {}",
        status.stdout
    );
    assert!(count(to) >= done, "what was done is not undone");
    disk.remount(ENOUGH);
    let run = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(run.here("deleted") + run.there("deleted"), 0);
    let _ = world.client().sync().run().ok().idle();
}

#[test]
fn a_full_disk_here_is_said_and_what_was_done_stays() {
    added_until_full("pull", "c0/Maildir");
}

#[test]
fn a_full_disk_there_is_said_and_what_was_done_stays() {
    added_until_full("push", "server/Maildir");
}

/// What takes all the room that a disk has left.
fn fill_up(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let mut file = fs::File::create(&path).expect("a file needs no room");
    while file.write_all(&[1; KIB]).is_ok() {}
    path
}

/// Not even a tag has room: nothing is done in that Maildir, nothing is left beside the marker, and the sentence names the remedy.
#[test]
fn a_disk_without_any_room_is_said_and_nothing_is_left_beside_the_marker() {
    for (place, side) in [("c0/Maildir", "here"), ("server/Maildir", "there")] {
        let world = World::new();
        let Some(_disk) = Mount::in_memory(&world.path(place), SMALL) else {
            return;
        };
        for tree in [world.server(), world.local()] {
            tree.create();
        }
        for (unique, label) in [(U1, "one"), (U2, "two")] {
            world.server().store("INBOX", unique, "S", &body(label));
        }
        let _ = world.client().sync().run().ok();
        let filler = fill_up(&world.path(place));
        let (full, other) = match side {
            "here" => (world.local(), world.server()),
            _ => (world.server(), world.local()),
        };
        other.set_flags("INBOX", U1, "FS");
        other.delete("INBOX", U2);
        other.store("INBOX", U3, "S", &body("three"));
        let before = Snapshot::of(full);
        for _ in 0..2 {
            let run = world.client().sync().run();
            said_and_clean(&world, &run);
            let run = run.says(&format!("The disk {side} took no more"));
            let run = run.says("No space left on device").says("make room");
            assert!(!run.stderr.contains("server_command"), "{}", run.stderr);
            harness::assert_untouched(&before, full, place);
            let all = harness::tree::files(full.root());
            let names: Vec<_> = all
                .iter()
                .map(|path| harness::tree::name_bytes(path))
                .collect();
            let beside = |name: &&[u8]| name.starts_with(b".maildir-sync.new");
            assert!(!names.into_iter().any(|name| beside(&name)), "{all:?}");
        }
        fs::remove_file(filler).expect("there is room");
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert!(full.has("INBOX", U3) && !full.has("INBOX", U2));
        assert_eq!(full.flags("INBOX", U1), "FS");
        let _ = world.client().sync().run().ok().idle();
    }
}

/// The run's tag is written before bodies come, and what needs no room goes first.
#[test]
fn flags_go_through_beside_mail_that_fills_the_disk_and_deletions_when_it_is_mended() {
    let world = World::new();
    let Some(disk) = Mount::in_memory(&world.path("c0/Maildir"), SMALL) else {
        return;
    };
    world.local().create();
    for (unique, label) in [(U1, "one"), (U2, "two")] {
        world.server().store("INBOX", unique, "S", &body(label));
    }
    let _ = world.client().sync().run().ok();
    fill(world.server());
    world.server().set_flags("INBOX", U1, "FS");
    world.server().delete("INBOX", U2);
    let run = world.client().sync().run();
    said_and_clean(&world, &run);
    assert_eq!(world.local().flags("INBOX", U1), "FS");
    disk.remount(ENOUGH);
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert!(!world.local().has("INBOX", U2) && world.local().flags("INBOX", U1) == "FS");
}

/// The disk fills in the middle of bodies: what adds nothing to it goes on, on both sides, and so does mail for the other one.
#[test]
fn what_needs_no_room_goes_on_beside_mail_that_fills_the_disk() {
    for place in ["c0/Maildir", "server/Maildir"] {
        println!("-- {place}");
        let world = World::new();
        let Some(disk) = Mount::in_memory(&world.path(place), SMALL) else {
            return;
        };
        for tree in [world.server(), world.local()] {
            tree.create();
        }
        for number in 500..508 {
            let bytes = body(&number.to_string());
            world.server().store("INBOX", &name(number), "S", &bytes);
        }
        let _ = world.client().sync().run().ok();
        let (full, other) = if place == "c0/Maildir" {
            (world.local(), world.server())
        } else {
            (world.server(), world.local())
        };
        // So many that the disk is full before the last of them is asked for.
        for number in 0..MESSAGES {
            let bytes = bulky(&format!("bulky {number}"), 300 * KIB);
            other.store("INBOX", &name(number), "S", &bytes);
        }
        for (tree, number) in [(full, 500), (other, 504)] {
            tree.set_flags("INBOX", &name(number), "FS");
            tree.rename("INBOX", &name(number + 1), "INBOX", &name(number + 100));
            tree.delete("INBOX", &name(number + 2));
        }
        full.store("INBOX", &name(700), "S", &body("700"));
        let run = world.client().sync().run();
        said_and_clean(&world, &run);
        let run = run.says("took no more").says("make room");
        for (tree, number) in [(other, 500), (full, 504)] {
            assert_eq!(tree.flags("INBOX", &name(number)), "FS");
            assert!(tree.has("INBOX", &name(number + 100)));
            assert!(!tree.has("INBOX", &name(number + 2)), "{}", run.stdout);
        }
        assert!(other.has("INBOX", &name(700)));
        let (came, all) = (count(full), count(other));
        assert_eq!(all, MESSAGES + 7);
        assert!(came > 7 && came < all, "it filled in the middle: {came}");
        assert_eq!(run.pending(), (all - came) as u64, "{}", run.stdout);
        disk.remount(ENOUGH);
        let run = world.client().sync().run().ok();
        assert_eq!(run.here("deleted") + run.there("deleted"), 0);
        world.assert_same();
        assert_eq!(count(full), all);
        let _ = world.client().sync().run().ok().idle();
    }
}

/// A folder lies on a disk that can only be read: the remedy is no room.
#[test]
fn a_read_only_disk_of_a_folder_is_said_as_such() {
    for (place, side) in [
        ("c0/Maildir/.Work", "here"),
        ("server/Maildir/.Work", "there"),
    ] {
        let world = World::new();
        for tree in [world.server(), world.local()] {
            tree.create();
        }
        let Some(disk) = Mount::in_memory(&world.path(place), SMALL) else {
            return;
        };
        for tree in [world.server(), world.local()] {
            tree.make_folder("Work");
        }
        let _ = world.client().sync().run().ok();
        let (read_only, other) = match side {
            "here" => (world.local(), world.server()),
            _ => (world.server(), world.local()),
        };
        read_only.store("INBOX", U1, "S", &body("one"));
        other.store("Work", U2, "S", &body("two"));
        disk.remount("ro");
        let run = world.client().sync().run().exits(1);
        let run = run.says(&format!("The file system {side} is read-only"));
        let run = run.says("make it writable and run again");
        assert!(!run.stderr.contains("room"), "{}", run.stderr);
        assert!(other.has("INBOX", U1));
        disk.remount("rw");
        let _ = world.client().sync().run().ok();
        world.assert_same();
    }
}

/// The state's disk is full: index and archive cannot be written. An error, no lost mail, and all is well afterwards.
#[test]
fn a_full_disk_of_the_state_costs_no_mail() {
    for place in ["c0/state", "server/state"] {
        let world = World::new();
        let Some(disk) = Mount::in_memory(&world.path(place), 400) else {
            return;
        };
        for (unique, label) in [(U1, "one"), (U2, "two")] {
            world.server().store("INBOX", unique, "S", &body(label));
        }
        let _ = world.client().sync().run().ok();
        world.local().set_flags("INBOX", U1, "FS");
        world.server().delete("INBOX", U2);
        fill(world.server());
        fs::write(world.path(place).join("filler"), vec![0; 64 * KIB]).expect("there is some room");
        let mut filler = vec![0; KIB];
        for number in 0.. {
            if fs::write(world.path(place).join(format!("filler{number}")), &filler).is_err() {
                break;
            }
            filler.resize(filler.len() * 2, 0);
        }
        let run = world.client().sync().run();
        assert!(
            run.code == Some(1) && run.stderr.contains("make room"),
            "{place}: {run:?}"
        );
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        disk.remount(ENOUGH);
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(count(world.server()), MESSAGES + 1, "{place}");
    }
}

/// A large message needs room in the state directory first.
#[test]
fn a_full_disk_of_the_state_takes_no_large_message() {
    for (command, place) in [("pull", "c0/state"), ("push", "server/state")] {
        let world = World::new();
        world.local().create();
        let Some(disk) = Mount::in_memory(&world.path(place), 2_000) else {
            return;
        };
        let from = if command == "pull" {
            world.server()
        } else {
            world.local()
        };
        from.store("INBOX", U1, "S", &bulky("large", 6_000 * KIB));
        from.store("INBOX", U2, "S", &body("small"));
        let run = world.client().pair(command).run();
        assert!(
            run.code == Some(1) && !run.stderr.is_empty(),
            "{place}: {run:?}"
        );
        disk.remount(ENOUGH);
        let _ = world.client().sync().run().ok();
        world.assert_same();
    }
}

/// I6: where the trash cannot take it, nothing is deleted or replaced.
#[test]
fn a_full_trash_means_that_nothing_is_deleted() {
    let world = World::new();
    let trash = world.path("trash");
    let Some(disk) = Mount::in_memory(&trash, 64) else {
        return;
    };
    for (unique, label) in [(U1, "one"), (U2, "two")] {
        world
            .server()
            .store("INBOX", unique, "S", &bulky(label, 100 * KIB));
    }
    let _ = world.client().sync().run().ok();
    world.local().delete("INBOX", U1);
    world.local().edit("INBOX", U2, &bulky("edited", 100 * KIB));
    world.local().store("INBOX", "3.M.mx", "S", &body("three"));
    let before = Snapshot::of(world.server());
    let agent = harness::world::agent_command(&world.server_state());
    let command = format!("{agent} --trash {}", trash.display());
    let run = world.client().sync().through(&command).run();
    said_and_clean(&world, &run);
    for (message, _) in &before.messages {
        let unique = String::from_utf8_lossy(&message.unique).into_owned();
        assert!(
            world.server().has("INBOX", &unique),
            "{unique} is gone, and in no trash"
        );
    }
    world
        .server()
        .assert_holds("INBOX", U2, &bulky("two", 100 * KIB));
    disk.remount(ENOUGH);
    let _ = world.client().sync().through(&command).run().ok();
    world.assert_same();
    for label in ["one", "two"] {
        assert!(
            harness::snapshot::holds_bytes(&trash, &bulky(label, 100 * KIB)),
            "{label}"
        );
    }
}

/// A Maildir that can only be read: one sentence, nothing changed, and all goes on when it can be written again.
#[test]
fn a_read_only_disk_is_said() {
    for place in ["c0/Maildir", "server/Maildir"] {
        let world = World::new();
        let Some(disk) = Mount::in_memory(&world.path(place), SMALL) else {
            return;
        };
        world.server().create();
        world.server().store("INBOX", U1, "S", &body("one"));
        let _ = world.client().sync().run().ok();
        world.server().set_flags("INBOX", U1, "FS");
        world.local().store("INBOX", U2, "S", &body("two"));
        disk.remount("ro");
        let before = (Snapshot::of(world.server()), Snapshot::of(world.local()));
        let run = world.client().sync().run().exits(1).says("read-only");
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        let read_only = if place == "c0/Maildir" {
            (&before.1, world.local())
        } else {
            (&before.0, world.server())
        };
        harness::assert_untouched(read_only.0, read_only.1, place);
        disk.remount("rw");
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(count(world.server()), 2);
    }
}
