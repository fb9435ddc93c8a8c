//! The trash (I6): nothing that is deleted or replaced is destroyed; it lies in that replica's state directory.

use std::path::Path;

use harness::snapshot::holds_bytes;
use harness::{Tree, World, body};

const U1: &str = "1700000001.M1P1.mx,S=20";
const U2: &str = "1700000002.M2P1.mx,S=20";
const U3: &str = "1700000003.M3P1.mx,S=20";

fn synced() -> World {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    world.server().store("INBOX", U2, "S", &body("two"));
    world.server().store("Work", U3, "FS", &body("three"));
    let _ = world.client().sync().run().ok();
    world.assert_same();
    world
}

/// The side where the user acts, the side that follows, and the state directory of the follower.
fn sides(world: &World, at_server: bool) -> (&Tree, &Tree, std::path::PathBuf) {
    if at_server {
        (world.server(), world.local(), world.client().state())
    } else {
        (world.local(), world.server(), world.server_state())
    }
}

fn assert_only_in_trash(tree: &Tree, state: &Path, bytes: &[u8]) {
    assert!(!holds_bytes(tree.root(), bytes), "it is still in the tree");
    assert!(
        holds_bytes(state, bytes),
        "it is not in the trash below {}",
        state.display()
    );
}

#[test]
fn a_deleted_message_lies_in_the_trash_of_the_side_that_deleted_it() {
    for (at_server, command) in [
        (false, "sync"),
        (false, "push"),
        (true, "sync"),
        (true, "pull"),
    ] {
        let world = synced();
        let (from, to, state) = sides(&world, at_server);
        from.delete("INBOX", U1);
        let _ = world.client().pair(command).run().ok();
        assert_only_in_trash(to, &state, &body("one"));
        assert!(
            !holds_bytes(&state, &body("two")),
            "what was not deleted is not in the trash"
        );
    }
}

#[test]
fn a_replaced_version_lies_in_the_trash() {
    for (at_server, command) in [
        (false, "sync"),
        (false, "push"),
        (true, "sync"),
        (true, "pull"),
    ] {
        let world = synced();
        let (from, to, state) = sides(&world, at_server);
        from.edit("INBOX", U1, &body("one, edited"));
        let _ = world.client().pair(command).run().ok();
        to.assert_holds("INBOX", U1, &body("one, edited"));
        assert_only_in_trash(to, &state, &body("one"));
    }
}

#[test]
fn the_messages_of_a_removed_folder_lie_in_the_trash() {
    for at_server in [false, true] {
        let world = synced();
        let (from, to, state) = sides(&world, at_server);
        from.remove_folder("Work");
        let _ = world.client().sync().run().ok();
        assert!(!to.has_folder("Work"));
        assert_only_in_trash(to, &state, &body("three"));
    }
}

#[test]
fn a_damaged_file_lies_in_the_trash_once_the_good_one_is_back() {
    for at_server in [false, true] {
        let world = synced();
        let (from, _, _) = sides(&world, at_server);
        let state = if at_server {
            world.server_state()
        } else {
            world.client().state()
        };
        let nothing_but_nul = vec![0; body("one").len()];
        from.edit("INBOX", U1, &nothing_but_nul);
        let _ = world.client().sync().run();
        from.assert_holds("INBOX", U1, &body("one"));
        assert_only_in_trash(from, &state, &nothing_but_nul);
    }
}

/// The agent's operator may say where it lies.
#[test]
fn the_agents_trash_may_lie_elsewhere() {
    let world = synced();
    world.local().delete("INBOX", U1);
    let agent = harness::world::agent_command(&world.server_state());
    let trash = world.path("elsewhere");
    let _ = world
        .client()
        .sync()
        .through(&format!("{agent} --trash {}", trash.display()))
        .run()
        .ok();
    assert_only_in_trash(world.server(), &trash, &body("one"));
}

/// On another file system the message is copied and synced first; where there is none to test on, nothing is shown.
#[test]
fn a_trash_on_another_file_system_gets_a_copy() {
    use std::os::unix::fs::MetadataExt;
    let world = synced();
    let device = |path: &Path| std::fs::metadata(path).map(|stat| stat.dev());
    let elsewhere = Path::new("/dev/shm");
    let (Ok(there), Ok(here)) = (device(elsewhere), device(world.server().root())) else {
        return;
    };
    if there == here {
        println!("no second file system here");
        return;
    }
    let trash = tempfile::Builder::new()
        .prefix("ms-trash")
        .tempdir_in(elsewhere)
        .expect("a directory");
    world.local().delete("INBOX", U1);
    let agent = harness::world::agent_command(&world.server_state());
    let run = world
        .client()
        .sync()
        .through(&format!("{agent} --trash {}", trash.path().display()))
        .run()
        .ok();
    assert_eq!(run.there("deleted"), 1);
    assert_only_in_trash(world.server(), trash.path(), &body("one"));
}

/// A trash that cannot be written means that nothing is deleted.
#[test]
fn without_a_trash_nothing_is_deleted() {
    let world = synced();
    world.local().delete("INBOX", U1);
    let agent = harness::world::agent_command(&world.server_state());
    let file = world.path("a-file");
    std::fs::write(&file, "no directory").expect("file is written");
    let run = world
        .client()
        .sync()
        .through(&format!("{agent} --trash {}/trash", file.display()))
        .run();
    assert!(matches!(run.code, Some(1 | 3)), "it must say so: {run:?}");
    world.server().assert_holds("INBOX", U1, &body("one"));
    let _ = world.client().sync().run().ok();
    assert!(
        !world.server().has("INBOX", U1),
        "and goes when there is a trash again"
    );
}
