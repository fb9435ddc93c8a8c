//! Contents: odd ones arrive as they are, and damage (SPEC §4) is healed and never sent.

use harness::tree::write_with_time;
use harness::{Snapshot, Tree, World, body, bulky};

use crate::errors::{U1, U2};

/// C52, C30: contents of every kind arrive as they are.
#[test]
fn odd_contents_arrive_byte_for_byte() {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let odd: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"x".to_vec(),
        b"\n".to_vec(),
        b"\0".to_vec(),
        vec![0; 5000],
        b"From: a\r\nSubject: crlf\r\n\r\ntext\r\n".to_vec(),
        b"Subject: no blank line\n".to_vec(),
        b"Subject: no final newline\n\ntext".to_vec(),
        b"no header at all".to_vec(),
        b"\n\nno header, body only\n".to_vec(),
        b"From a mbox line\nSubject: x\n\n>From y\n".to_vec(),
        all_bytes,
        b"\xef\xbb\xbfSubject: bom\n\n".to_vec(),
        vec![b'a'; 300_000],
        bulky("big", 2_000_000),
        vec![b'\n'; 4096],
        b"Subject: nul \0 inside\n\n\0\0".to_vec(),
    ];
    for from_server in [true, false] {
        let world = World::new();
        world.local().create();
        let (from, to) = if from_server {
            (world.server(), world.local())
        } else {
            (world.local(), world.server())
        };
        for (number, bytes) in odd.iter().enumerate() {
            from.store("INBOX", &format!("{number}.M.mx"), "S", bytes);
        }
        let _ = world.client().sync().run().ok();
        for (number, bytes) in odd.iter().enumerate() {
            assert!(
                to.read("INBOX", &format!("{number}.M.mx")) == *bytes,
                "content {number} came out changed"
            );
        }
        world.assert_same();
        let _ = world.client().sync().run().ok().idle();
    }
}

/// C49: an edit of odd content travels as it is.
#[test]
fn an_edit_of_odd_content_travels_byte_for_byte() {
    let world = World::new();
    world
        .server()
        .store("INBOX", U1, "S", b"Subject: no final newline\n\n\0text");
    let _ = world.client().sync().run().ok();
    let edited = b"Subject: edited header\nX-Label: a\n\n\0text".to_vec();
    world.local().edit("INBOX", U1, &edited);
    let _ = world.client().sync().run().ok();
    world.server().assert_holds("INBOX", U1, &edited);
}

/// C50: what has just arrived and is copied is a copy, not a move.
#[test]
fn copying_what_has_just_arrived_keeps_the_original() {
    let world = World::new();
    world.server().deliver("INBOX", U1, &body("one"));
    let _ = world.client().pull().run().ok();
    world.local().copy("INBOX", U1, "INBOX", U2);
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(Snapshot::of(world.server()).messages.len(), 2);
}

/// What befell a file, and what it must look like for the program.
fn damage(tree: &Tree, kind: &str, unique: &str, good: &[u8]) -> Vec<u8> {
    let bytes = match kind {
        "became empty" => Vec::new(),
        "all NUL" => vec![0; good.len()],
        "shorter and all NUL" => vec![0; good.len() / 2],
        _ => good[..good.len() / 2].to_vec(),
    };
    write_with_time(&tree.path("INBOX", unique), &bytes);
    bytes
}

/// SPEC §4, C47: damage is never sent; where the other side is good it comes back, the damaged file goes to the trash.
#[test]
fn damage_is_healed_and_not_sent() {
    for kind in ["became empty", "all NUL", "shorter and all NUL", "cut off"] {
        for at_server in [true, false] {
            for mode in [&["sync"][..], &["pull", "push"], &["push", "pull"]] {
                println!("-- {kind}, at server: {at_server}, {mode:?}");
                let world = World::new();
                let good = bulky("good", 3_000);
                world.server().store("INBOX", U1, "S", &good);
                world.server().store("INBOX", U2, "S", &body("two"));
                let _ = world.client().sync().run().ok();
                let (tree, other) = if at_server {
                    (world.server(), world.local())
                } else {
                    (world.local(), world.server())
                };
                let _ = damage(tree, kind, U1, &good);
                tree.set_flags("INBOX", U2, "FS");
                let mut said = String::new();
                for command in mode {
                    let run = world.client().pair(command).run();
                    assert_eq!(run.code, Some(0), "{run:?}");
                    assert!(
                        other.read("INBOX", U1) == good,
                        "the good copy was replaced by {command}"
                    );
                    said += &run.stderr;
                }
                assert!(!said.is_empty(), "damage is reported");
                assert!(
                    tree.read("INBOX", U1) == good,
                    "the good version did not come back"
                );
                assert_eq!(other.flags("INBOX", U2), "FS", "the rest went on");
                let _ = world.client().sync().run().ok().idle();
                world.assert_same();
            }
        }
    }
}

/// A draft (flag D) may be cut short by its writer: that is an edit.
#[test]
fn a_draft_cut_short_is_an_edit() {
    for at_server in [true, false] {
        let world = World::new();
        let long = bulky("draft", 3_000);
        world.server().store("Drafts", U1, "DS", &long);
        let _ = world.client().sync().run().ok();
        let (tree, other) = if at_server {
            (world.server(), world.local())
        } else {
            (world.local(), world.server())
        };
        tree.edit("Drafts", U1, &long[..1_000]);
        let _ = world.client().sync().run().ok();
        assert!(
            other.read("Drafts", U1) == long[..1_000],
            "the shorter draft did not travel"
        );
        world.assert_same();
    }
}

/// A message that grew is edited, not damaged.
#[test]
fn a_message_that_grew_is_an_edit() {
    let world = World::new();
    let short = body("short");
    world.server().store("INBOX", U1, "S", &short);
    let _ = world.client().sync().run().ok();
    let longer = [&short[..], b"and more\n"].concat();
    world.local().edit("INBOX", U1, &longer);
    let _ = world.client().sync().run().ok();
    world.server().assert_holds("INBOX", U1, &longer);
}

/// Damage on one side, an edit on the other: the edit is the good version.
#[test]
fn an_edit_heals_damage() {
    let world = World::new();
    let good = bulky("good", 3_000);
    world.server().store("INBOX", U1, "S", &good);
    let _ = world.client().sync().run().ok();
    let _ = damage(world.local(), "all NUL", U1, &good);
    world.server().edit("INBOX", U1, &body("edited"));
    let run = world.client().sync().run();
    assert_eq!(run.code, Some(0), "{run:?}");
    world.local().assert_holds("INBOX", U1, &body("edited"));
    let _ = world.client().sync().run().ok();
    world.assert_same();
}

/// Damage on both sides: nothing is known to be good, so nothing is replaced or deleted.
#[test]
fn damage_on_both_sides_is_left_alone() {
    let world = World::new();
    let good = bulky("good", 3_000);
    world.server().store("INBOX", U1, "S", &good);
    let _ = world.client().sync().run().ok();
    let here = damage(world.local(), "all NUL", U1, &good);
    let there = damage(world.server(), "became empty", U1, &good);
    let run = world.client().sync().run();
    assert!(run.code == Some(0) && !run.stderr.is_empty(), "{run:?}");
    assert!(world.local().read("INBOX", U1) == here && world.server().read("INBOX", U1) == there);
}

/// A message deleted on the side where the other one is damaged: the deletion stands, or the damaged one is kept; no
/// damaged file comes back as if it were mail.
#[test]
fn a_damaged_file_never_replaces_a_deletion() {
    let world = World::new();
    let good = bulky("good", 3_000);
    world.server().store("INBOX", U1, "S", &good);
    let _ = world.client().sync().run().ok();
    let _ = damage(world.server(), "all NUL", U1, &good);
    world.local().delete("INBOX", U1);
    let run = world.client().sync().run();
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!world.local().has("INBOX", U1), "the damaged file was sent");
}

/// Also where the damaged one was moved, alone or with its folder: nobody takes it for the message.
#[test]
fn a_damaged_file_that_was_moved_never_replaces_a_deletion() {
    for kind in [0, 20] {
        let bytes = vec![0; kind];
        for with_folder in [false, true] {
            let world = World::new();
            let good = body("good");
            world.server().store("Work", U1, "S", &good);
            world.server().store("Work", U2, "S", &body("another"));
            let _ = world.client().sync().run().ok();
            write_with_time(&world.local().path("Work", U1), &bytes);
            match with_folder {
                true => world.local().rename_folder("Work", "Renamed"),
                false => world.local().rename("Work", U1, "INBOX", U1),
            }
            world.server().delete("Work", U1);
            for _ in 0..2 {
                let _ = world.client().sync().run();
            }
            world.assert_same();
            let snapshot = Snapshot::of(world.server());
            let counts = snapshot.counts();
            let sent = counts.get(harness::digest_hex(&bytes).as_str());
            assert_eq!(sent, None, "{kind} NULs, with its folder: {with_folder}");
        }
    }
}

/// C47: a damaged file is known by its unique name wherever it is moved.
#[test]
fn a_damaged_message_that_was_moved_is_healed_where_it_is() {
    let good = bulky("good", 3_000);
    for at_server in [false, true] {
        for kind in ["became empty", "all NUL", "shorter and all NUL", "cut off"] {
            for to in ["A", "INBOX"] {
                println!("-- {kind}, moved to {to}, at the server: {at_server}");
                let world = World::new();
                world.server().store("INBOX", U1, "S", &good);
                world.server().make_folder("A");
                let _ = world.client().sync().run().ok();
                let here = if at_server {
                    world.server()
                } else {
                    world.local()
                };
                here.let_the_clock_tick("INBOX", U1);
                let bytes = damage(here, kind, U1, &good);
                if to == "INBOX" {
                    // Away and back again, as a file of its own.
                    here.delete("INBOX", U1);
                    here.store("INBOX", U1, "S", &bytes);
                } else {
                    here.rename("INBOX", U1, to, U1);
                }
                let _ = world.client().sync().run().ok();
                for tree in [world.server(), world.local()] {
                    tree.assert_holds(to, U1, &good);
                }
                world.assert_same();
                assert_eq!(Snapshot::of(world.local()).messages.len(), 1);
                let _ = world.client().sync().run().ok().idle();
            }
        }
    }
}

/// A message that was made shorter and moved, and is no beginning of what it was, is another one.
#[test]
fn a_shorter_message_that_was_moved_is_an_edit() {
    for at_server in [false, true] {
        let world = World::new();
        world
            .server()
            .store("INBOX", U1, "S", &bulky("long", 3_000));
        world.server().make_folder("A");
        let _ = world.client().sync().run().ok();
        let here = if at_server {
            world.server()
        } else {
            world.local()
        };
        here.edit("INBOX", U1, &body("short"));
        here.rename("INBOX", U1, "A", U1);
        let _ = world.client().sync().run().ok();
        for tree in [world.server(), world.local()] {
            tree.assert_holds("A", U1, &body("short"));
        }
        world.assert_same();
        let _ = world.client().sync().run().ok().idle();
    }
}

/// What becomes of a file before it is synced with a side that lost the message.
type Deed = fn(&Tree, &[u8]);

/// Cut short, and left where it was or moved by itself or with its folder.
const CUTS: [Deed; 3] = [
    |tree, good| write_with_time(&tree.path("Work", U1), &good[..1_000]),
    |tree, good| {
        write_with_time(&tree.path("Work", U1), &good[..1_000]);
        tree.rename("Work", U1, "INBOX", U1);
    },
    |tree, good| {
        write_with_time(&tree.path("Work", U1), &good[..1_000]);
        tree.rename_folder("Work", "Renamed");
    },
];

/// What is cut short is known for that as long as the trash has what it was: where another client deleted it at the server,
/// and where a run with another server deleted it here.
#[test]
fn what_was_cut_short_never_replaces_what_a_run_deleted() {
    for at_server in [false, true] {
        for cut in CUTS {
            let world = World::with_clients(2);
            let good = bulky("good", 3_000);
            world.server().store("Work", U1, "S", &good);
            world.server().store("Work", U2, "S", &body("another"));
            // The middle one has two others: it is the server of both clients, or the client of two servers.
            let (middle, one, two) = match at_server {
                false => (world.server(), world.nth(0).clone(), world.nth(1).clone()),
                true => {
                    let agent = harness::world::agent_command(&world.path("c1/agent"));
                    world.nth(1).tree().create();
                    let other = world.nth(1).tree().root().to_owned();
                    let two = world.client().reaching(other, Some(agent));
                    (world.local(), world.client().clone(), two)
                }
            };
            let (cut_one, deleting) = match at_server {
                false => (one.tree(), world.nth(1).tree()),
                true => (world.server(), world.nth(1).tree()),
            };
            for client in [&one, &two] {
                let _ = client.sync().run().ok();
            }
            deleting.delete("Work", U1);
            let _ = two.sync().run().ok();
            assert!(!middle.has("Work", U1), "the deletion did not come");
            cut(cut_one, &good);
            let run = one.sync().run().ok();
            assert!(run.stderr.contains("is damaged"), "{}", run.stderr);
            for tree in [middle, cut_one] {
                let left = Snapshot::of(tree);
                assert_eq!(left.messages.len(), 1, "{:?}", left.messages);
            }
            let _ = one.sync().run().ok().idle();
        }
    }
}

/// Nobody can tell a cut from an edit once the good bytes are gone from everywhere: it is kept, and said.
#[test]
fn what_became_shorter_is_kept_where_nobody_has_what_it_was() {
    for at_server in [false, true] {
        let world = World::new();
        let good = bulky("good", 3_000);
        world.server().store("INBOX", U1, "S", &good);
        let _ = world.client().sync().run().ok();
        let (tree, other) = match at_server {
            true => (world.server(), world.local()),
            false => (world.local(), world.server()),
        };
        let bytes = damage(tree, "cut off", U1, &good);
        other.delete("INBOX", U1);
        let run = world.client().sync().run().ok();
        assert!(run.stderr.contains("became shorter"), "{}", run.stderr);
        for tree in [tree, other] {
            tree.assert_holds("INBOX", U1, &bytes);
        }
        let _ = world.client().sync().run().ok().idle();
    }
}

/// What a run deleted and somebody edited to fewer bytes, not a beginning of what it was, is an edit.
#[test]
fn an_edit_that_is_shorter_beats_the_deletion_by_a_run() {
    let world = World::with_clients(2);
    world
        .server()
        .store("INBOX", U1, "S", &bulky("long", 3_000));
    for client in world.clients() {
        let _ = client.sync().run().ok();
    }
    world.nth(1).tree().delete("INBOX", U1);
    let _ = world.nth(1).sync().run().ok();
    world.local().edit("INBOX", U1, &body("short"));
    let _ = world.client().sync().run().ok();
    world.server().assert_holds("INBOX", U1, &body("short"));
}
