//! Trees and states that are not what they were: lost, restored from backups, cloned, gone (C10, C13–C17, I2, I12).

use std::fs;

use harness::world::{copy_dir, remove_dir};
use harness::{Run, Tree, World, body};

use crate::first_sync::{MARKER, both, count, fill, name, refused};

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

/// Its numbers are given a second time, for other changes; only the tags tell.
#[test]
fn an_old_index_under_a_newer_tree_hides_nothing() {
    for (is_server, command) in [
        (true, "sync"),
        (true, "pull"),
        (false, "sync"),
        (false, "push"),
    ] {
        let world = synced(1);
        let (tree, state) = match is_server {
            true => (world.server(), world.server_state()),
            false => (world.local(), world.client().state().join("replicas")),
        };
        copy_dir(&state, &world.path("old-state"));
        tree.store("INBOX", &name(30), "", &body("message 30"));
        tree.delete("INBOX", &name(1));
        let _ = world.client().sync().run().ok();
        tree.rename_folder("Work", "Else");
        remove_dir(&state);
        copy_dir(&world.path("old-state"), &state);
        tree.set_flags("INBOX", &name(4), "FS");
        tree.delete("INBOX", &name(5));
        tree.rename("INBOX", &name(6), "Else", &name(6));
        let _ = world.client().pair(command).run().ok();
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(count(tree), 19, "30 came, 1 and 5 went");
        assert_eq!(world.local().flags("INBOX", &name(4)), "FS");
        assert!(world.local().has_folder("Else") && !world.server().has_folder("Work"));
        let _ = world.client().sync().run().ok().idle();
        remove_dir(&world.path("old-state"));
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
            assert_did_nothing(&refused(
                &world,
                world.client().pair(command).run(),
                &before,
            ));
        }
    }
}

/// A refused run did nothing, whether it prints its tallies or not.
fn assert_did_nothing(run: &Run) {
    if run
        .json
        .as_ref()
        .is_some_and(|json| json.get("here").is_some())
    {
        assert_eq!(run.done(), 0, "{}", run.stdout);
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
