//! First syncs: one side empty, both filled, little in common, interrupted and continued.

use std::fs;
use std::os::unix::fs::MetadataExt;

use harness::faults::{Alive, End, Hold, Kill};
use harness::world::copy_dir;
use harness::{Client, Cut, Run, Snapshot, Tree, World, body, bulky};

use crate::reading::typed;

pub(crate) const MARKER: &str = ".maildir-sync";

pub(crate) fn name(number: usize) -> String {
    format!("17000{number:05}.M{number}P1.mx,S=100")
}

/// Messages by number, in `cur` of one folder.
pub(crate) fn fill(tree: &Tree, folder: &str, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        tree.store(
            folder,
            &name(number),
            "S",
            &body(&format!("message {number}")),
        );
    }
}

pub(crate) fn count(tree: &Tree) -> usize {
    Snapshot::of(tree).messages.len()
}

pub(crate) fn refused(world: &World, run: Run, before: &(Snapshot, Snapshot)) -> Run {
    harness::assert_untouched(&before.0, world.server(), &run.what);
    harness::assert_untouched(&before.1, world.local(), &run.what);
    run.exits(4).says("--adopt")
}

pub(crate) fn both(world: &World) -> (Snapshot, Snapshot) {
    (Snapshot::of(world.server()), Snapshot::of(world.local()))
}

#[test]
fn an_empty_client_gets_everything_and_its_root_is_made() {
    for command in ["pull", "sync"] {
        let world = World::new();
        fill(world.server(), "INBOX", 0..30);
        world
            .server()
            .deliver("Lists/debian", &name(31), &body("unseen"));
        world.server().make_folder("Empty");
        assert!(!world.local().root().exists());
        let run = world.client().pair(command).run().ok();
        assert_eq!(run.here("new"), 31, "{}", run.stdout);
        world.assert_same();
        let _ = world.client().sync().run().ok().idle();
    }
}

#[test]
fn an_empty_server_gets_everything() {
    for command in ["push", "sync"] {
        let world = World::new();
        world.local().create();
        fill(world.local(), "INBOX", 0..30);
        world
            .local()
            .deliver("Lists/debian", &name(31), &body("unseen"));
        let run = world.client().pair(command).run().ok();
        assert_eq!(run.there("new"), 31, "{}", run.stdout);
        world.assert_same();
        let _ = world.client().sync().run().ok().idle();
    }
}

#[test]
fn two_empty_sides_are_equal() {
    let world = World::new();
    let _ = world.client().sync().run().ok().idle();
    world.assert_same();
}

#[test]
fn an_equal_copy_is_adopted_without_a_body_on_the_wire() {
    for command in ["sync", "pull", "push"] {
        let world = World::new();
        for number in 0..60 {
            world.server().store(
                "INBOX",
                &name(number),
                "S",
                &bulky(&format!("bulky {number}"), 8_000),
            );
        }
        copy_dir(world.server().root(), world.local().root());
        remove_if_there(&world.local().root().join(MARKER));
        let before = both(&world);
        let run = world.client().pair(command).run().ok();
        harness::assert_untouched(&before.0, world.server(), command);
        harness::assert_untouched(&before.1, world.local(), command);
        assert!(
            run.bytes() < 30_000,
            "{} bytes for adopting 480,000 equal ones",
            run.bytes()
        );
        let _ = world.client().sync().run().ok().idle();
    }
}

fn remove_if_there(path: &std::path::Path) {
    if path.exists() {
        fs::remove_file(path).expect("file is removed");
    }
}

#[test]
fn two_filled_sides_become_their_union_and_nothing_is_deleted() {
    for mode in [&["sync"][..], &["pull", "push"], &["push", "pull"]] {
        let world = World::new();
        world.local().create();
        fill(world.server(), "INBOX", 0..60);
        fill(world.local(), "INBOX", 20..80);
        world
            .local()
            .store("INBOX", "other.name.mx", "F", &body("message 5"));
        let runs: Vec<Run> = mode
            .iter()
            .map(|command| world.client().pair(command).run().ok())
            .collect();
        world.assert_same();
        assert_eq!(
            count(world.server()),
            80,
            "0 to 79, message 5 paired with its other name"
        );
        assert_eq!(
            world.server().flags("INBOX", &name(5)),
            "FS",
            "the pair's flags are joined"
        );
        assert_eq!(
            runs.iter()
                .map(|run| run.here("deleted") + run.there("deleted"))
                .sum::<u64>(),
            0
        );
        let _ = world.client().sync().run().ok().idle();
    }
}

/// C2: equal bytes are a multiset also where there is no base.
#[test]
fn copies_are_counted_when_adopting() {
    let world = World::new();
    world.local().create();
    for number in 0..3 {
        world
            .server()
            .store("INBOX", &name(number), "S", &body("thrice"));
        world
            .local()
            .store("Work", &name(10 + number), "S", &body("thrice there"));
    }
    world.local().store("INBOX", &name(7), "S", &body("thrice"));
    world
        .server()
        .store("Work", &name(17), "S", &body("thrice there"));
    world
        .server()
        .store("Work", &name(18), "S", &body("thrice there"));
    let _ = world.client().sync().run().ok();
    world.assert_same();
    let snapshot = Snapshot::of(world.server());
    assert!(
        snapshot.counts().values().all(|&count| count == 3),
        "{snapshot:?}"
    );
    let _ = world.client().sync().run().ok().idle();
}

#[test]
fn sides_with_little_in_common_are_refused_until_adopt() {
    for command in ["sync", "pull", "push"] {
        let world = World::new();
        world.local().create();
        fill(world.server(), "INBOX", 0..60);
        fill(world.local(), "INBOX", 40..100);
        let before = both(&world);
        let run = refused(&world, world.client().pair(command).run(), &before);
        assert!(
            run.stderr.contains("INBOX"),
            "it shows how folders were mapped: {}",
            run.stderr
        );
        let _ = refused(&world, world.client().pair(command).run(), &before);
        let _ = world.client().sync().arg("--adopt").run().ok();
        world.assert_same();
        assert_eq!(count(world.server()), 100);
        let _ = world.client().sync().run().ok().idle();
    }
}

#[test]
fn small_sides_with_nothing_in_common_are_just_joined() {
    let world = World::new();
    world.local().create();
    fill(world.server(), "INBOX", 0..50);
    fill(world.local(), "INBOX", 50..120);
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(count(world.server()), 120);
}

#[test]
fn an_interrupted_first_sync_goes_on_where_it_was() {
    let (bodies, size) = (300, 20_000_u64);
    let world = World::new();
    for number in 0..bodies {
        let bytes = bulky(
            &format!("bulky {number}"),
            usize::try_from(size).expect("fits"),
        );
        world.server().store("INBOX", &name(number), "S", &bytes);
    }
    // Base64 of random bytes shrinks to three quarters; nearly all of it goes over the link before it breaks.
    let whole = bodies as u64 * size * 3 / 4;
    let cut = Cut {
        from: End::Agent,
        bytes: whole * 8 / 10,
    };
    let run = cut.run(&world, world.client().pull()).exits(75);
    assert!(!run.stderr.is_empty(), "a lost connection is said");
    let _ = world.client().pull().run().ok();
    world.assert_same();
    let again = world.client().sync().run().ok().idle();
    assert!(again.bytes() < 10_000, "{}", again.stdout);
}

#[test]
fn what_has_arrived_is_not_sent_again() {
    let world = World::new();
    for number in 0..300 {
        world.server().store(
            "INBOX",
            &name(number),
            "S",
            &bulky(&format!("bulky {number}"), 20_000),
        );
    }
    let cut = Cut {
        from: End::Agent,
        bytes: 300 * 15_000 * 8 / 10,
    };
    let _ = cut.run(&world, world.client().pull()).exits(75);
    let rest = world.client().pull().run().ok();
    world.assert_same();
    let received = rest.figure(&["bytes_received"]);
    assert!(
        received < 300 * 15_000 / 2,
        "four fifths had arrived, yet {received} bytes came again"
    );
}

#[test]
fn a_client_killed_in_its_first_pull_goes_on() {
    let world = World::new();
    for number in 0..200 {
        world.server().store(
            "INBOX",
            &name(number),
            "S",
            &bulky(&format!("bulky {number}"), 20_000),
        );
    }
    let held = harness::faults::Held::new(&world, "pull");
    let alive = Alive::new(&world);
    let agent = alive.wrap("", &harness::world::agent_command(&world.server_state()));
    let running = world
        .client()
        .pull()
        .through(&held.command(1_500_000, &agent))
        .start();
    held.wait_until_held();
    running.kill();
    held.release();
    let _ = running.wait();
    alive.wait_for_end();
    let _ = world.client().pull().run().ok();
    world.assert_same();
    let _ = world.client().sync().run().ok().idle();
}

/// The message files of an adopted tree stay the very files they were.
#[test]
fn adopting_rewrites_nothing() {
    let world = World::new();
    fill(world.server(), "INBOX", 0..20);
    world.local().create();
    for number in 0..20 {
        let renamed = format!("renamed.{number}.mx");
        world
            .local()
            .store("INBOX", &renamed, "", &body(&format!("message {number}")));
    }
    let inode = |tree: &Tree, unique: &str| {
        fs::metadata(tree.path("INBOX", unique))
            .expect("is there")
            .ino()
    };
    let before: Vec<u64> = (0..20)
        .map(|number| inode(world.local(), &format!("renamed.{number}.mx")))
        .collect();
    let client: &Client = world.client();
    let _ = client.sync().run().ok();
    world.assert_same();
    let after: Vec<u64> = (0..20)
        .map(|number| inode(world.local(), &name(number)))
        .collect();
    assert_eq!(before, after, "a rename was done by writing");
}

/// More messages than one part of a list has.
const LONG: usize = 8_192 + 300;

fn long_mailbox(tree: &Tree) {
    tree.create();
    fill(tree, "Archive", 0..LONG - 100);
    fill(tree, "INBOX", LONG - 100..LONG);
}

/// Cut off in its second part, the first one is not listed again, and what it brought is not sent again.
#[test]
fn a_long_first_push_goes_part_by_part_and_on_from_there() {
    let world = World::new();
    long_mailbox(world.local());
    let kill = Kill {
        end: End::Agent,
        call: "renameat2",
        nth: 8_192 + 150,
    };
    let (hit, _) = kill.run(&world, world.client().push());
    assert!(hit, "does strace work here?");
    let there = count(world.server());
    assert!((8_192..LONG).contains(&there), "{there}");
    let run = world.client().push().run().ok();
    assert_eq!(run.there("new") as usize + there, LONG, "{}", run.stdout);
    let sent = run.figure(&["bytes_sent"]);
    assert!(sent < 100_000, "{sent} bytes for the rest");
    world.assert_same();
    let _ = world.client().sync().run().ok().idle();
}

/// It says as many as it would be, in how many parts ever, and no folder twice.
#[test]
fn a_long_first_sync_is_previewed_in_full() {
    // The server has an INBOX; here is nothing at all.
    for (command, side, folders) in [
        ("push", "there", "1 folder "),
        ("pull", "here", "2 folders "),
    ] {
        let world = World::new();
        let full = match command {
            "push" => world.local(),
            _ => world.server(),
        };
        long_mailbox(full);
        // Copies of what comes in another part: in a first sync they are new, too.
        full.copy("INBOX", &name(LONG - 1), "Archive", &name(LONG));
        let before = Snapshot::of(full);
        let run = typed(&world, command, &["-n"]).ok();
        harness::assert_untouched(&before, full, command);
        let lines = [
            format!("{side} new Archive: {}", LONG - 99),
            format!("{side} new INBOX: 100"),
            format!("{side} make-folder: {}", &folders[..1]),
        ];
        for line in lines {
            let is_said = run.stdout.lines().any(|said| said == line);
            assert!(is_said, "{line:?} is not in {}", run.stdout);
        }
        let summary = format!("{} new, {folders}{side}", LONG + 1);
        assert!(run.stdout.contains(&summary), "{}", run.stdout);
        if command == "push" {
            let run = typed(&world, command, &[]).ok();
            assert!(run.stdout.contains(&summary), "{}", run.stdout);
        }
    }
}

/// Neither list is merged before the other one is known.
#[test]
fn two_long_trees_are_previewed_as_the_one_that_they_are() {
    let world = World::new();
    long_mailbox(world.server());
    copy_dir(world.server().root(), world.local().root());
    let before = both(&world);
    let run = world.client().sync().arg("-n").run().ok();
    assert_eq!(run.done() + run.pending(), 0, "{}", run.stdout);
    harness::assert_untouched(&before.0, world.server(), "sync -n");
    harness::assert_untouched(&before.1, world.local(), "sync -n");
}

/// What users do to a message after a kill, before anything was agreed, counts.
#[test]
fn what_was_asked_in_a_first_sync_that_was_killed_is_no_message_for_ever() {
    let world = World::new();
    long_mailbox(world.local());
    let kill = Kill {
        end: End::Agent,
        call: "renameat2",
        nth: 3,
    };
    let (hit, _) = kill.run(&world, world.client().sync());
    assert!(hit, "does strace work here?");
    for number in LONG - 40..LONG - 20 {
        world.local().delete("INBOX", &name(number));
    }
    for number in LONG - 20..LONG {
        let unique = name(number);
        world.local().rename("INBOX", &unique, "Archive", &unique);
    }
    let is_quiet = |run: Run| run.done() + run.pending() == 0;
    let is_done = (0..4).any(|_| is_quiet(world.client().sync().run().ok()));
    assert!(is_done, "it never ends");
    world.assert_same();
    assert_eq!(count(world.server()), LONG - 20);
}

/// Another client, or rsync, puts the same mail there while it is on its way: it is one message, under its name.
#[test]
fn what_comes_there_in_a_long_first_sync_is_no_other_message() {
    let world = World::new();
    long_mailbox(world.local());
    let hold = Hold {
        end: End::Agent,
        call: "renameat2",
        nth: 5,
    };
    let same = LONG - 120..LONG - 110;
    let (hit, run) = hold.run(&world, world.client().sync(), || {
        fill(world.server(), "Archive", same.clone());
    });
    assert!(hit, "does strace work here?");
    assert_eq!(run.ok().conflicts(), 0);
    let is_quiet = |run: Run| run.done() + run.pending() == 0;
    let is_done = (0..3).any(|_| is_quiet(world.client().sync().run().ok()));
    assert!(is_done, "it never ends");
    world.assert_same();
    assert_eq!(count(world.server()), LONG);
}
