//! What cannot be read or written (C11, I10, I11), and state or markers that are damaged: reported, and the rest goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::snapshot::{assert_nothing_written, everything};
use harness::{Snapshot, World, body};

use crate::errors::{U1, U2, U3, both, waiting};

/// C11, I10: one message that cannot be read is reported and left, the rest goes on.
#[test]
fn an_unreadable_message_is_reported_and_the_rest_goes_on() {
    for at_server in [false, true] {
        let world = World::unprivileged();
        world.local().create();
        let from = if at_server {
            world.server()
        } else {
            world.local()
        };
        for number in 0..5 {
            from.store(
                "INBOX",
                &format!("{number}.M.mx"),
                "S",
                &body(&format!("message {number}")),
            );
        }
        world.give_away();
        let closed = from.path("INBOX", "2.M.mx");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("message is closed");
        let side = if at_server { "there" } else { "here" };
        let run = world.client().sync().run().exits(3).says("2.M.mx");
        let run = run.says(&format!("\" {side}: "));
        assert_eq!(run.figure(&["skipped"]), 1, "{}", run.stdout);
        let to = if at_server {
            world.local()
        } else {
            world.server()
        };
        assert_eq!(
            Snapshot::of(to).messages.len(),
            4,
            "the others came through"
        );
        let _ = world.client().sync().run().ok();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).expect("message is opened");
        let _ = world.client().sync().run().ok();
        world.assert_same();
    }
}

/// C47, C11: a synced message that cannot be read any more is not deleted on the other side, and a flag still travels.
#[test]
fn a_synced_message_that_became_unreadable_is_not_deleted() {
    for at_server in [false, true] {
        let world = World::unprivileged();
        for number in 0..5 {
            world.server().store(
                "INBOX",
                &format!("{number}.M.mx"),
                "S",
                &body(&format!("message {number}")),
            );
        }
        world.give_away();
        let _ = world.client().sync().run().ok();
        let (from, to) = if at_server {
            (world.server(), world.local())
        } else {
            (world.local(), world.server())
        };
        from.edit("INBOX", "2.M.mx", &body("changed, and then closed"));
        fs::set_permissions(
            from.path("INBOX", "2.M.mx"),
            fs::Permissions::from_mode(0o000),
        )
        .expect("message is closed");
        from.delete("INBOX", "3.M.mx");
        let run = world.client().sync().run();
        assert_eq!(run.code, Some(3), "{run:?}");
        assert!(to.has("INBOX", "2.M.mx"), "the good copy was deleted");
        assert!(from.has("INBOX", "2.M.mx"));
    }
}

/// C11: a folder that cannot be listed is unknown, not empty.
#[test]
fn an_unreadable_folder_deletes_nothing() {
    for at_server in [false, true] {
        let world = World::unprivileged();
        for number in 0..5 {
            world.server().store(
                "Work",
                &format!("{number}.M.mx"),
                "S",
                &body(&format!("message {number}")),
            );
        }
        world.server().store("INBOX", U1, "S", &body("one"));
        world.give_away();
        let _ = world.client().sync().run().ok();
        let (from, to) = if at_server {
            (world.server(), world.local())
        } else {
            (world.local(), world.server())
        };
        let cur = from.dir("Work").join("cur");
        fs::set_permissions(&cur, fs::Permissions::from_mode(0o000)).expect("folder is closed");
        from.delete("INBOX", U1);
        from.store("INBOX", U2, "S", &body("two"));
        world.give_away();
        let _ = world.client().sync().run().exits(3).says("Work");
        assert_eq!(
            Snapshot::of(to).messages.len(),
            7,
            "nothing was deleted while a folder was unknown; two came"
        );
        fs::set_permissions(&cur, fs::Permissions::from_mode(0o700)).expect("folder is opened");
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(
            Snapshot::of(to).messages.len(),
            6,
            "the deletion was carried out when all was known again"
        );
    }
}

/// C11: while one folder is unknown, a move between others is a move, and no copy that is deleted later. What goes after that
/// did not go into the folder, which is as it was (C61).
#[test]
fn a_move_beside_an_unreadable_folder_is_a_move() {
    for at_server in [false, true] {
        let world = World::unprivileged();
        for (folder, unique) in [("Closed", U1), ("INBOX", U2), ("Work", U3)] {
            world.server().store(folder, unique, "S", &body(folder));
        }
        world.give_away();
        let _ = world.client().sync().run().ok();
        let (from, to) = if at_server {
            (world.server(), world.local())
        } else {
            (world.local(), world.server())
        };
        let cur = from.dir("Closed").join("cur");
        fs::set_permissions(&cur, fs::Permissions::from_mode(0o000)).expect("folder is closed");
        from.rename("INBOX", U2, "Work", U2);
        // Another name of one file in a third folder: that it was missed there says nothing of this one.
        from.link("Work", U3, "INBOX", U3);
        let run = world.client().sync().run().exits(3).says("Closed");
        let tally = |what: &str| run.here(what) + run.there(what);
        assert_eq!((tally("moved"), tally("deleted")), (1, 0), "{}", run.stdout);
        assert!(to.has("Work", U2) && !to.has("INBOX", U2));
        assert!(to.has("Work", U3) && to.has("INBOX", U3) && to.has("Closed", U1));
        from.delete("INBOX", U3);
        let run = world.client().sync().run().ok();
        assert!(!to.has("INBOX", U3), "{}", run.stdout);
        assert!(to.has("Work", U3) && to.has("Closed", U1));
        fs::set_permissions(&cur, fs::Permissions::from_mode(0o700)).expect("folder is opened");
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(Snapshot::of(to).messages.len(), 3);
    }
}

/// I11: a folder that cannot be written stops nothing else and leaves the state true.
#[test]
fn a_folder_that_cannot_be_written_is_reported() {
    let world = World::unprivileged();
    world.server().store("Work", U1, "S", &body("one"));
    world.server().store("INBOX", U2, "S", &body("two"));
    world.give_away();
    let _ = world.client().sync().run().ok();
    for part in ["cur", "new", "tmp"] {
        let dir = world.local().dir("Work").join(part);
        fs::set_permissions(dir, fs::Permissions::from_mode(0o500)).expect("folder is closed");
    }
    world.server().store("Work", U3, "S", &body("three"));
    world.server().store("INBOX", "4.M.mx", "S", &body("four"));
    world.server().set_flags("INBOX", U2, "FS");
    world.give_away();
    let run = world.client().sync().run();
    assert!(run.code == Some(3) && !run.stderr.is_empty(), "{run:?}");
    assert!(
        world.local().has("INBOX", "4.M.mx") && world.local().flags("INBOX", U2) == "FS",
        "the rest went on"
    );
    for part in ["cur", "new", "tmp"] {
        let dir = world.local().dir("Work").join(part);
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).expect("folder is opened");
    }
    let _ = world.client().sync().run().ok();
    world.assert_same();
}

/// I10: a message that the disk refuses, for its size, is reported and left; the rest goes on.
#[test]
fn a_message_too_large_for_the_disk_is_reported_and_the_rest_goes_on() {
    let world = World::new();
    for number in 0..20 {
        let bytes = harness::bulky(&format!("{number}"), 20_000);
        world
            .server()
            .store("INBOX", &format!("{number}.M.mx"), "S", &bytes);
    }
    let large = harness::bulky("large", 6_000_000);
    world.server().store("INBOX", "20.M.mx", "S", &large);
    // No file may be written that is as long as this message.
    let limited = [
        "sh",
        "-c",
        "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\"",
    ];
    let run = world
        .client()
        .pull()
        .under(&limited)
        .run()
        .exits(3)
        .says("20.M.mx");
    assert_eq!(
        (run.here("new"), run.figure(&["skipped"])),
        (20, 1),
        "{}",
        run.stdout
    );
    let _ = world.client().pull().run().ok();
    world.assert_same();
}

#[test]
fn state_that_is_damaged_costs_no_mail() {
    for at_server in [false, true] {
        let world = waiting();
        let state = if at_server {
            world.server_state()
        } else {
            world.client().state()
        };
        let mut spoilt = 0;
        for path in everything(&state).into_keys().filter(|path| path.is_file()) {
            if fs::metadata(&path).expect("is there").len() > 0 {
                fs::write(&path, "this is no database at all, and no log either")
                    .expect("file is spoilt");
                spoilt += 1;
            }
        }
        assert!(spoilt > 0, "there is state to spoil");
        let run = world.client().sync().run();
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        let _ = run.exits(1).says("deleting it costs time, never mail");
        harness::world::remove_dir(&state);
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert!(world.server().has("INBOX", U3) && world.local().has("INBOX", U1));
    }
}

#[test]
fn a_marker_that_is_damaged_is_no_continuation() {
    for at_server in [false, true] {
        let world = waiting();
        let tree = if at_server {
            world.server()
        } else {
            world.local()
        };
        fs::write(tree.root().join(".maildir-sync"), b"\xff\0garbage").expect("marker is spoilt");
        let before = both(&world);
        let run = world.client().sync().run();
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        let _ = run.exits(4).says("is damaged").says("--adopt");
        assert_nothing_written(&before.0, world.server().root());
        assert_nothing_written(&before.1, world.local().root());
    }
}
