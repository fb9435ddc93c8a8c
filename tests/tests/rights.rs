//! What a key may do (SPEC §3): each kind of change × each right. What is held back is pending, is neither undone nor an
//! error, and goes through when it is allowed again.

use harness::world::agent_command;
use harness::{Run, Snapshot, World, assert_untouched, body};

use crate::first_sync::{fill, name};

/// What an agent lets through.
const READ_ONLY: &str = "--read-only";
const APPEND_ONLY: &str = "--append-only";
const NO_DELETE: &str = "--no-delete";

/// A kind of change: its name, how a user makes it here, and the rights that let it through.
struct Change {
    what: &'static str,
    make: fn(&World),
    allowed: &'static [&'static str],
}

const CHANGES: [Change; 13] = [
    Change {
        what: "a new message",
        make: |world| world.local().deliver("INBOX", &name(90), &body("ninety")),
        allowed: &[APPEND_ONLY, NO_DELETE],
    },
    Change {
        what: "a new message in a new folder",
        make: |world| {
            world
                .local()
                .store("Fresh", &name(91), "S", &body("ninety-one"))
        },
        allowed: &[APPEND_ONLY, NO_DELETE],
    },
    Change {
        what: "a copy",
        make: |world| world.local().copy("INBOX", &name(1), "Work", &name(92)),
        allowed: &[APPEND_ONLY, NO_DELETE],
    },
    Change {
        what: "an empty folder made",
        make: |world| world.local().make_folder("Empty"),
        allowed: &[APPEND_ONLY, NO_DELETE],
    },
    Change {
        what: "a flag set",
        make: |world| world.local().set_flags("INBOX", &name(2), "FS"),
        allowed: &[NO_DELETE],
    },
    Change {
        what: "a flag cleared",
        make: |world| world.local().set_flags("INBOX", &name(2), ""),
        allowed: &[NO_DELETE],
    },
    Change {
        what: "a message read",
        make: |world| world.local().to_cur("INBOX", &name(20), "S"),
        allowed: &[NO_DELETE],
    },
    Change {
        what: "a move",
        make: |world| world.local().rename("INBOX", &name(3), "Work", &name(3)),
        allowed: &[NO_DELETE],
    },
    Change {
        what: "another unique name",
        make: |world| world.local().rename("INBOX", &name(3), "INBOX", &name(93)),
        allowed: &[NO_DELETE],
    },
    Change {
        what: "an edit",
        make: |world| world.local().edit("INBOX", &name(4), &body("edited")),
        allowed: &[NO_DELETE],
    },
    Change {
        what: "a deletion",
        make: |world| world.local().delete("INBOX", &name(5)),
        allowed: &[],
    },
    Change {
        what: "a folder renamed",
        make: |world| world.local().rename_folder("Old", "Neu"),
        allowed: &[NO_DELETE],
    },
    Change {
        what: "a folder removed",
        make: |world| world.local().remove_folder("Old"),
        allowed: &[],
    },
];

fn synced() -> World {
    let world = World::new();
    fill(world.server(), "INBOX", 0..8);
    fill(world.server(), "Old", 10..13);
    world.server().deliver("INBOX", &name(20), &body("unread"));
    world.server().make_folder("Work");
    let _ = world.client().sync().run().ok();
    world
}

fn sync_with(world: &World, right: &str) -> Run {
    let agent = format!("{} {right}", agent_command(&world.server_state()));
    world.client().sync().through(&agent).run().ok()
}

fn check(change: &Change, right: &str) {
    let (what, world) = (change.what, synced());
    println!("-- {what}, {right}");
    let server = Snapshot::of(world.server());
    (change.make)(&world);
    let local = Snapshot::of(world.local());
    let run = sync_with(&world, right);
    assert_untouched(&local, world.local(), &format!("{what} with {right}"));
    if change.allowed.contains(&right) {
        assert_eq!(run.pending(), 0, "{what} with {right}: {}", run.stdout);
        world.assert_same();
    } else {
        assert_untouched(&server, world.server(), &format!("{what} with {right}"));
        assert!(run.pending() > 0, "{what} with {right}: {}", run.stdout);
        let again = sync_with(&world, right).idle();
        assert_eq!(
            again.pending(),
            run.pending(),
            "{what} with {right} stays pending"
        );
    }
    let _ = sync_with(&world, "");
    world.assert_same();
    assert_untouched(&local, world.local(), &format!("{what}, allowed again"));
    assert_eq!(sync_with(&world, "").idle().pending(), 0);
}

fn check_all(right: &str) {
    CHANGES.iter().for_each(|change| check(change, right));
}

#[test]
fn read_only_holds_every_change_back_until_it_is_allowed() {
    check_all(READ_ONLY);
}

#[test]
fn append_only_lets_what_is_new_through_and_holds_the_rest_back() {
    check_all(APPEND_ONLY);
}

#[test]
fn no_delete_holds_back_deletions_and_removed_folders_only() {
    check_all(NO_DELETE);
}

/// The client's own `--no-delete` is the same for both sides.
#[test]
fn the_clients_own_no_delete_holds_back_the_same() {
    for change in CHANGES {
        let (what, world) = (change.what, synced());
        (change.make)(&world);
        let run = world.client().sync().arg("--no-delete").run().ok();
        assert_eq!(
            run.pending() == 0,
            change.allowed.contains(&NO_DELETE),
            "{what}: {}",
            run.stdout
        );
        let _ = world.client().sync().run().ok();
        world.assert_same();
    }
}

/// What waited meets the guard when it is allowed again.
#[test]
fn what_rights_held_back_meets_the_guard_when_it_is_allowed() {
    let world = World::new();
    fill(world.server(), "INBOX", 0..200);
    let _ = world.client().sync().run().ok();
    for number in 0..60 {
        world.local().delete("INBOX", &name(number));
    }
    assert_eq!(sync_with(&world, READ_ONLY).pending(), 60);
    let server = Snapshot::of(world.server());
    let run = world.client().sync().run().exits(4);
    assert_untouched(&server, world.server(), "a refused run");
    let _ = world
        .client()
        .sync()
        .args(&["--confirm", &run.plan()])
        .run()
        .ok();
    world.assert_same();
}

/// Both sides changed: what comes from the server comes, whatever the key may not do there.
#[test]
fn rights_hold_back_nothing_here() {
    for right in [READ_ONLY, APPEND_ONLY, NO_DELETE] {
        let world = synced();
        world.server().delete("INBOX", &name(1));
        world.server().set_flags("INBOX", &name(2), "F");
        world.server().rename("INBOX", &name(3), "Work", &name(3));
        world
            .server()
            .edit("INBOX", &name(4), &body("edited there"));
        world.server().remove_folder("Old");
        let server = Snapshot::of(world.server());
        let run = sync_with(&world, right);
        assert_eq!(run.pending(), 0, "{right}: {}", run.stdout);
        world.assert_same();
        assert_untouched(&server, world.server(), right);
    }
}
