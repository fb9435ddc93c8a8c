//! Places that cannot be looked at hold back the deletions that they may have to do with, and no others (C61, I2).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use harness::{Run, Tree, World, body};

use crate::errors::{U1, U2, U3};

/// A synced pair whose programs run as an ordinary user, after somebody prepared a side.
fn synced(at_server: bool, prepare: impl Fn(&Tree)) -> World {
    let world = World::unprivileged();
    for folder in ["INBOX", "A"] {
        for (number, unique) in [U1, U2, U3].into_iter().enumerate() {
            let bytes = body(&format!("{folder} {number}"));
            world.server().store(folder, unique, "S", &bytes);
        }
    }
    world.give_away();
    let _ = world.client().sync().run().ok();
    prepare(side(&world, at_server));
    world.give_away();
    world
}

fn side(world: &World, at_server: bool) -> &Tree {
    if at_server {
        world.server()
    } else {
        world.local()
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode is set");
}

/// What was left alone and holds deletions back.
fn holding(run: &Run) -> Vec<String> {
    let skipped = run
        .json
        .as_ref()
        .and_then(|json| json.get("skipped")?.as_array());
    let holds = skipped
        .into_iter()
        .flatten()
        .filter(|one| one["holds"] == true);
    holds.map(|one| one["path"].to_string()).collect()
}

/// After one run that reports what cannot be looked at (3), or one that has nothing new to report (0), deletions travel.
#[track_caller]
fn assert_holds_nothing_back(world: &World, at_server: bool, code: i32) {
    let (here, there) = (side(world, at_server), side(world, !at_server));
    let first = world.client().sync().run().exits(code);
    assert_eq!(holding(&first), Vec::<String>::new());
    for unique in [U1, U2] {
        here.delete("INBOX", unique);
        let run = world.client().sync().run().ok();
        assert_eq!(
            run.here("deleted") + run.there("deleted"),
            1,
            "{}",
            run.stdout
        );
        assert!(!there.has("INBOX", unique), "{unique} waits");
        let _ = world.client().sync().run().ok().idle();
    }
    assert!(there.has("A", U1) && there.has("A", U2) && there.has("A", U3));
}

/// `lost+found` and the like: nobody may look into it, and nothing goes there.
#[test]
fn a_directory_that_nobody_may_read_holds_nothing_back() {
    for at_server in [false, true] {
        let world = synced(at_server, |tree| {
            let dir = tree.root().join(".lost+found");
            fs::create_dir(&dir).expect("it is made");
            mode(&dir, 0);
        });
        assert_holds_nothing_back(&world, at_server, 3);
    }
}

#[test]
fn a_folder_that_became_unreadable_holds_nothing_of_others_back() {
    for at_server in [false, true] {
        for part in ["", "cur"] {
            println!("-- at server: {at_server}, {part:?}");
            let world = synced(at_server, |tree| mode(&tree.dir("A").join(part), 0));
            assert_holds_nothing_back(&world, at_server, 3);
        }
    }
}

#[test]
fn a_folder_that_went_behind_a_link_holds_nothing_of_others_back() {
    for at_server in [false, true] {
        let world = synced(at_server, |tree| {
            let elsewhere = tree.root().with_extension("elsewhere");
            fs::rename(tree.dir("A"), &elsewhere).expect("it is moved");
            symlink(&elsewhere, tree.dir("A")).expect("it is linked");
        });
        assert_holds_nothing_back(&world, at_server, 3);
    }
}

/// What a mail server or a person left of a folder: its `cur` is away, or its directory is called otherwise.
#[test]
fn what_is_left_of_a_folder_holds_nothing_of_others_back() {
    for at_server in [false, true] {
        let world = synced(at_server, |tree| {
            let dir = tree.dir("A");
            tree.deliver("A", "1700000009.M9P1.mx", &body("new"));
            fs::rename(dir.join("cur"), dir.join("cur.old")).expect("it is moved");
        });
        assert_holds_nothing_back(&world, at_server, 3);
        let world = synced(at_server, |tree| {
            fs::rename(tree.dir("A"), tree.root().join("A")).expect("it is renamed");
        });
        let run = world.client().sync().run();
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(side(&world, !at_server).has("A", U1));
        assert_holds_nothing_back(&world, at_server, 0);
    }
}

/// What went in the very run that first saw the place may have gone there; and what receives something is another place.
#[test]
fn what_may_have_gone_where_nobody_can_look_waits_and_says_so() {
    for at_server in [false, true] {
        let world = synced(at_server, |tree| {
            let dir = tree.root().join(".hidden");
            fs::create_dir_all(dir.join("cur")).expect("it is made");
            fs::rename(tree.path("INBOX", U1), dir.join("cur").join(U1)).expect("it is moved");
            mode(&dir, 0);
        });
        let (here, there) = (side(&world, at_server), side(&world, !at_server));
        let hidden = here.root().join(".hidden");
        for _ in 0..2 {
            let run = world.client().sync().run();
            assert_eq!(run.here("deleted") + run.there("deleted"), 0, "{run:?}");
            assert!(there.has("INBOX", U1), "it may lie in .hidden");
        }
        // The way out: let it be read.
        mode(&hidden, 0o755);
        let _ = world.client().sync().run();
        world.assert_same();
        assert!(!there.has("INBOX", U1));
        // It cannot be read again, and so long nothing goes, it holds nothing; until it receives something.
        mode(&hidden, 0);
        let _ = world.client().sync().run();
        fs::rename(here.path("INBOX", U2), hidden.join("cur").join(U2)).expect("it is moved");
        fs::File::create(hidden.join("cur").join("other")).expect("it is made");
        mode(&hidden.join("cur"), 0);
        mode(&hidden, 0o111);
        let run = world.client().sync().run();
        assert_eq!(run.here("deleted") + run.there("deleted"), 0, "{run:?}");
        assert!(there.has("INBOX", U2), "it may lie in .hidden");
        mode(&hidden, 0o755);
        mode(&hidden.join("cur"), 0o755);
    }
}
