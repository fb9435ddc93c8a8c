//! First syncs, and everything after which a sync is a first one again: lost state, restored trees, clones (C10–C17).

use std::fs;
use std::os::unix::fs::MetadataExt;

use harness::faults::{Alive, End};
use harness::world::{copy_dir, remove_dir};
use harness::{Client, Cut, Run, Snapshot, Tree, World, body, bulky};

const MARKER: &str = ".maildir-sync";

fn name(number: usize) -> String {
    format!("17000{number:05}.M{number}P1.mx,S=100")
}

/// Messages by number, in `cur` of one folder.
fn fill(tree: &Tree, folder: &str, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        tree.store(
            folder,
            &name(number),
            "S",
            &body(&format!("message {number}")),
        );
    }
}

fn count(tree: &Tree) -> usize {
    Snapshot::of(tree).messages.len()
}

/// A world of 20 messages that has synced.
fn synced(clients: usize) -> World {
    let world = World::with_clients(clients);
    fill(world.server(), "INBOX", 0..15);
    fill(world.server(), "Work", 15..20);
    for client in world.clients() {
        let _ = client.sync().run().ok();
    }
    world.assert_same();
    world
}

fn refused(world: &World, run: Run, before: &(Snapshot, Snapshot)) -> Run {
    harness::assert_untouched(&before.0, world.server(), &run.what);
    harness::assert_untouched(&before.1, world.local(), &run.what);
    run.exits(4).says("--adopt")
}

fn both(world: &World) -> (Snapshot, Snapshot) {
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

#[test]
fn lost_client_state_resurrects_but_loses_nothing() {
    for command in ["sync", "pull", "push"] {
        let world = synced(1);
        world.local().delete("INBOX", &name(1));
        world.server().delete("INBOX", &name(2));
        world.local().set_flags("INBOX", &name(3), "FS");
        world
            .server()
            .store("INBOX", &name(30), "", &body("message 30"));
        remove_dir(&world.client().state());
        let first = world.client().pair(command).run().ok();
        assert!(!first.stderr.is_empty(), "an adoption is said");
        assert_eq!(first.here("deleted") + first.there("deleted"), 0);
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(count(world.server()), 21, "the union");
        assert_eq!(world.server().flags("INBOX", &name(3)), "FS");
        let _ = world.client().sync().run().ok().idle();
    }
}

/// C13: the tree still continues the archive, so this costs time only.
#[test]
fn a_lost_server_index_loses_no_deletion() {
    for command in ["sync", "pull", "push"] {
        let world = synced(1);
        world.local().delete("INBOX", &name(1));
        world.server().delete("INBOX", &name(2));
        world.local().rename("INBOX", &name(3), "Work", &name(3));
        world.server().set_flags("INBOX", &name(4), "FS");
        world
            .server()
            .store("INBOX", &name(30), "", &body("message 30"));
        remove_dir(&world.server_state());
        let _ = world.client().pair(command).run().ok();
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(count(world.server()), 19);
        for gone in [1, 2] {
            assert!(
                !world.server().has("INBOX", &name(gone)),
                "{gone} came back"
            );
        }
        let _ = world.client().sync().run().ok().idle();
    }
}

#[test]
fn both_states_lost_is_a_first_sync_of_two_filled_sides() {
    let world = synced(1);
    world.local().delete("INBOX", &name(1));
    world.server().set_flags("INBOX", &name(4), "FS");
    remove_dir(&world.server_state());
    remove_dir(&world.client().state());
    let run = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(count(world.server()), 20);
    assert!(run.bytes() < 20_000, "{}", run.stdout);
    let _ = world.client().sync().run().ok().idle();
}

/// C14: three weeks that are missing from an old tree were not deleted by anybody.
#[test]
fn an_old_client_tree_under_newer_state_deletes_nothing() {
    for command in ["sync", "pull", "push"] {
        let world = synced(1);
        copy_dir(world.local().root(), &world.path("backup"));
        fill(world.server(), "INBOX", 30..40);
        let _ = world.client().sync().run().ok();
        fill(world.local(), "Work", 40..45);
        let _ = world.client().sync().run().ok();
        copy_dir(&world.path("backup"), world.local().root());
        let first = world.client().pair(command).run().ok();
        assert_eq!(
            first.here("deleted") + first.there("deleted"),
            0,
            "{}",
            first.stdout
        );
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(count(world.server()), 35);
        let _ = world.client().sync().run().ok().idle();
    }
}

/// C14: tree and state of one backup agree, so the ordinary merge goes on from there, deletions included.
#[test]
fn an_old_client_tree_with_its_old_state_goes_on() {
    let world = synced(1);
    copy_dir(world.local().root(), &world.path("backup"));
    copy_dir(&world.client().state(), &world.path("backup-state"));
    fill(world.server(), "INBOX", 30..40);
    world.server().delete("INBOX", &name(1));
    let _ = world.client().sync().run().ok();
    world.local().delete("INBOX", &name(2));
    let _ = world.client().sync().run().ok();
    copy_dir(&world.path("backup"), world.local().root());
    copy_dir(&world.path("backup-state"), &world.client().state());
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(
        count(world.server()),
        28,
        "1 and 2 stay deleted, 30 to 39 come again"
    );
    let _ = world.client().sync().run().ok().idle();
}

/// The archive is older than the tree: what it asked for once stands there and is agreed.
#[test]
fn old_client_state_under_a_newer_tree_loses_nothing() {
    let world = synced(1);
    copy_dir(&world.client().state(), &world.path("backup-state"));
    fill(world.server(), "INBOX", 30..40);
    world.server().delete("INBOX", &name(1));
    world.local().rename("INBOX", &name(2), "Work", &name(2));
    let _ = world.client().sync().run().ok();
    world.local().set_flags("INBOX", &name(3), "FS");
    copy_dir(&world.path("backup-state"), &world.client().state());
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(count(world.server()), 29);
    assert_eq!(world.server().flags("INBOX", &name(3)), "FS");
    let _ = world.client().sync().run().ok().idle();
}

/// The archive is older than the tree, and a message deleted since was put back by a user meanwhile: it is new.
#[test]
fn what_was_deleted_and_put_back_is_new_even_to_an_old_archive() {
    let world = synced(2);
    copy_dir(&world.client().state(), &world.path("backup-state"));
    world.server().delete("INBOX", &name(1));
    let _ = world.client().sync().run().ok();
    assert!(!world.local().has("INBOX", &name(1)));
    world
        .server()
        .store("INBOX", &name(1), "S", &body("message 1"));
    let _ = world.nth(1).sync().run().ok();
    copy_dir(&world.path("backup-state"), &world.client().state());
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert!(
        world.server().has("INBOX", &name(1)),
        "a message that a user put back was deleted"
    );
}

/// C15, with and without the agent's state in the backup.
#[test]
fn an_old_server_tree_gets_back_what_it_misses() {
    for (state_too, command) in [
        (false, "sync"),
        (true, "sync"),
        (false, "push"),
        (true, "pull"),
    ] {
        let world = synced(1);
        copy_dir(world.server().root(), &world.path("backup"));
        copy_dir(&world.server_state(), &world.path("backup-state"));
        fill(world.server(), "INBOX", 30..40);
        let _ = world.client().sync().run().ok();
        copy_dir(&world.path("backup"), world.server().root());
        if state_too {
            copy_dir(&world.path("backup-state"), &world.server_state());
        }
        let first = world.client().pair(command).run().ok();
        assert_eq!(
            first.here("deleted") + first.there("deleted"),
            0,
            "{}",
            first.stdout
        );
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(count(world.server()), 30);
        let _ = world.client().sync().run().ok().idle();
    }
}

/// C15: another client may have raised the restored replica since, with new runs and new mail.
#[test]
fn an_old_server_tree_raised_by_another_client_still_deletes_nothing() {
    let world = synced(2);
    copy_dir(world.server().root(), &world.path("backup"));
    copy_dir(&world.server_state(), &world.path("backup-state"));
    fill(world.server(), "INBOX", 30..40);
    let _ = world.nth(0).sync().run().ok();
    copy_dir(&world.path("backup"), world.server().root());
    copy_dir(&world.path("backup-state"), &world.server_state());
    for round in 0..5 {
        fill(world.server(), "Work", [50 + round]);
        let _ = world.nth(1).sync().run().ok();
    }
    let _ = world.nth(0).sync().run().ok();
    assert_eq!(
        count(world.nth(0).tree()),
        35,
        "nothing was deleted on the client that knew more"
    );
    let _ = world.nth(1).sync().run().ok();
    for client in world.clients() {
        harness::assert_same(world.server(), client.tree());
        let _ = client.sync().run().ok().idle();
    }
}

/// C16: both halves of a cloned laptop go on; nothing is lost and nothing comes back for ever.
#[test]
fn a_cloned_client_settles() {
    let world = synced(2);
    copy_dir(world.nth(0).tree().root(), world.nth(1).tree().root());
    copy_dir(&world.nth(0).state(), &world.nth(1).state());
    world.nth(0).tree().delete("INBOX", &name(1));
    fill(world.nth(0).tree(), "INBOX", [30]);
    let _ = world.nth(0).sync().run().ok();
    fill(world.nth(1).tree(), "INBOX", [31]);
    let _ = world.nth(1).sync().run().ok();
    for client in [0, 1, 0, 1] {
        let _ = world.nth(client).sync().run().ok();
    }
    for number in [30, 31] {
        assert!(world.server().has("INBOX", &name(number)));
    }
    world.nth(1).tree().delete("INBOX", &name(2));
    for client in [1, 0] {
        let _ = world.nth(client).sync().run().ok();
        harness::assert_same(world.server(), world.nth(client).tree());
    }
    assert!(
        !world.server().has("INBOX", &name(2)),
        "a deletion after the clones had met came back"
    );
    for client in world.clients() {
        let _ = client.sync().run().ok().idle();
    }
}

/// A tree copied with `rsync -a` from the server brings the server's marker along.
#[test]
fn a_marker_copied_from_the_server_gets_a_new_id() {
    let world = synced(2);
    copy_dir(world.server().root(), world.nth(1).tree().root());
    remove_dir(&world.nth(1).state());
    let marker = |tree: &Tree| fs::read(tree.root().join(MARKER)).expect("marker is there");
    assert_eq!(marker(world.server()), marker(world.nth(1).tree()));
    let run = world.nth(1).sync().run().ok();
    assert!(run.bytes() < 20_000 && run.done() == 0, "{}", run.stdout);
    world.nth(1).tree().delete("INBOX", &name(1));
    let _ = world.nth(1).sync().run().ok();
    let _ = world.nth(0).sync().run().ok();
    for client in world.clients() {
        harness::assert_same(world.server(), client.tree());
        assert!(
            !client.tree().has("INBOX", &name(1)),
            "the deletion went through"
        );
        let _ = client.sync().run().ok().idle();
    }
}

/// What becomes of a known root: all of it must be refused with the one safe command.
fn spoil(kind: &str, root: &std::path::Path) {
    match kind {
        "missing" => fs::remove_dir_all(root).expect("root is removed"),
        "emptied" => {
            fs::remove_dir_all(root).expect("root is removed");
            fs::create_dir(root).expect("an empty one is made");
        }
        "an empty Maildir" => {
            fs::remove_dir_all(root).expect("root is removed");
            Tree::at(root, harness::Layout::MaildirPlusPlus).create();
        }
        _ => fs::remove_file(root.join(MARKER)).expect("marker is removed"),
    }
}

fn assert_known_root_is_refused(at_server: bool) {
    for kind in [
        "missing",
        "emptied",
        "an empty Maildir",
        "without its marker",
    ] {
        for command in ["sync", "pull", "push"] {
            println!("-- {kind}, {command}");
            let world = synced(1);
            spoil(
                kind,
                if at_server {
                    world.server().root()
                } else {
                    world.local().root()
                },
            );
            let before = both(&world);
            let _ = refused(&world, world.client().pair(command).run(), &before).idle_or_silent();
        }
    }
}

/// A refused run did nothing, whether it prints its tallies or not.
trait IdleOrSilent {
    fn idle_or_silent(self) -> Run;
}

impl IdleOrSilent for Run {
    fn idle_or_silent(self) -> Run {
        if self
            .json
            .as_ref()
            .is_some_and(|json| json.get("here").is_some())
        {
            self.idle()
        } else {
            self
        }
    }
}

/// C10, C46.
#[test]
fn a_known_local_root_that_is_gone_emptied_or_unmarked_is_refused() {
    assert_known_root_is_refused(false);
}

/// C10, C46.
#[test]
fn a_known_server_root_that_is_gone_emptied_or_unmarked_is_refused() {
    assert_known_root_is_refused(true);
}

#[test]
fn a_root_without_its_marker_is_adopted_when_told_so() {
    for at_server in [false, true] {
        let world = synced(1);
        let root = if at_server {
            world.server().root()
        } else {
            world.local().root()
        };
        fs::remove_file(root.join(MARKER)).expect("marker is removed");
        world.local().delete("INBOX", &name(1));
        let _ = world.client().sync().arg("--adopt").run().ok();
        world.assert_same();
        assert_eq!(count(world.server()), 20, "the union, no deletions");
        let _ = world.client().sync().run().ok().idle();
    }
}

/// I12: the state directories hold nothing that is needed.
#[test]
fn deleting_any_state_at_any_time_costs_no_mail() {
    let world = synced(1);
    for round in 0..6 {
        fill(world.server(), "INBOX", [100 + round]);
        fill(world.local(), "Work", [200 + round]);
        if round % 2 == 0 {
            remove_dir(&world.client().state());
        }
        if round % 3 == 0 {
            remove_dir(&world.server_state());
        }
        let _ = world.client().sync().run().ok();
        world.assert_same();
    }
    assert_eq!(count(world.server()), 32);
}

/// C17: nothing is keyed on where the pair lies or how it is reached.
#[test]
fn another_path_to_the_same_server_is_the_same_pair() {
    let world = synced(1);
    let moved = world.path("server/Moved");
    fs::rename(world.server().root(), &moved).expect("root is renamed");
    world.local().delete("INBOX", &name(1));
    let run = world.client().sync().remote(&moved).run().ok();
    assert_eq!(
        run.there("deleted"),
        1,
        "the archive was found again: {}",
        run.stdout
    );
    assert_eq!(run.here("new"), 0);
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
