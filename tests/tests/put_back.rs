//! Trees that were put back by hard links or by copies under their marker, Maildirs in each other, and what lies under the
//! marker's name (C56, C57, C69, C84).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use harness::snapshot::{assert_nothing_written, everything};
use harness::world::{link_dir, remove_dir};
use harness::{Layout, Tree, World, body};

use crate::first_sync::{MARKER, count, fill, name};

/// 20 messages that have synced.
fn synced() -> World {
    let world = World::new();
    fill(world.server(), "INBOX", 0..15);
    fill(world.server(), "Work", 15..20);
    let _ = world.client().sync().run().ok();
    world
}

/// The side where somebody acts, and the other.
fn sides(world: &World, at_server: bool) -> (&Tree, &Tree) {
    if at_server {
        (world.server(), world.local())
    } else {
        (world.local(), world.server())
    }
}

/// C56: `cp -al` gave the marker a second name, so what is written into it is in the snapshot, too.
#[test]
fn a_snapshot_of_hard_links_that_is_put_back_deletes_nothing() {
    for (at_server, command) in [
        (false, "sync"),
        (false, "push"),
        (true, "sync"),
        (true, "pull"),
    ] {
        let world = synced();
        let (tree, _) = sides(&world, at_server);
        let snapshot = world.path("snapshot");
        link_dir(tree.root(), &snapshot);
        fill(world.server(), "INBOX", 30..40);
        fill(world.local(), "Work", 40..45);
        let _ = world.client().sync().run().ok();
        link_dir(&snapshot, tree.root());
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
        remove_dir(&snapshot);
    }
}

/// Runs that must be refused with exit 2 in one sentence that names both, and write nothing.
#[track_caller]
fn refused_inside(world: &World, run: impl FnOnce() -> harness::Run, both: [&Path; 2]) {
    let before = everything(&world.path(""));
    let run = run().exits(2).says_one_sentence();
    for path in both {
        let _ = run.clone().says(&path.display().to_string());
    }
    let trees = [world.server().root(), world.local().root()];
    let after = everything(&world.path(""));
    let of = |all: &std::collections::BTreeMap<PathBuf, String>| {
        let inside = all
            .iter()
            .filter(|(path, _)| trees.iter().any(|tree| path.starts_with(tree)));
        inside
            .map(|(path, what)| (path.clone(), what.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&before), of(&after));
}

/// C69: the mail of a folder here was taken for the whole of the server's.
#[test]
fn a_folder_of_a_synced_maildir_is_no_root() {
    for command in ["pull", "push", "sync"] {
        let world = synced();
        let folder = world.local().dir("Work");
        let other = World::new();
        fill(other.server(), "INBOX", 50..53);
        let here = world
            .client()
            .with_tree(&Tree::at(&folder, Layout::MaildirPlusPlus));
        let remote = other.server().root().to_owned();
        let run = || here.pair(command).remote(&remote).run();
        refused_inside(&world, run, [&folder, world.local().root()]);
        // Nor is a directory that would be made there.
        let deep = folder.join("a/b");
        let here = world
            .client()
            .with_tree(&Tree::at(&deep, Layout::MaildirPlusPlus));
        let run = || here.pair("pull").remote(&remote).run();
        refused_inside(&world, run, [&deep, world.local().root()]);
        assert!(!folder.join("a").exists());
    }
}

#[test]
fn a_folder_of_a_synced_maildir_is_no_root_at_the_server() {
    for command in ["pull", "push", "sync"] {
        let world = synced();
        let folder = world.server().dir("Work");
        let local = world.path("c0/Other");
        Tree::at(&local, Layout::MaildirPlusPlus).create();
        let here = world
            .client()
            .with_tree(&Tree::at(&local, Layout::MaildirPlusPlus));
        let run = || here.pair(command).remote(&folder).run();
        refused_inside(&world, run, [&folder, world.server().root()]);
    }
}

#[test]
fn a_root_with_a_synced_maildir_below_it_is_refused() {
    for (layout, inside) in [
        (Layout::MaildirPlusPlus, ".Old"),
        (Layout::Nested, "Old/deep"),
    ] {
        let world = synced();
        let (big, other) = (world.path("c0/Big"), World::new());
        fill(other.server(), "INBOX", 50..53);
        Tree::at(&big, layout).create();
        let below = big.join(inside);
        fs::create_dir_all(below.parent().expect("it has one")).expect("made");
        fs::rename(world.local().root(), &below).expect("moved");
        let here = world.client().with_tree(&Tree::at(&big, layout));
        let remote = other.server().root().to_owned();
        let before = everything(&big);
        let run = here
            .sync()
            .remote(&remote)
            .run()
            .exits(2)
            .says_one_sentence();
        let _ = run
            .says(&big.display().to_string())
            .says(&below.display().to_string());
        assert_nothing_written(&before, &big);
    }
}

/// A whole Maildir that is put into a synced one, marker and all.
#[test]
fn a_synced_maildir_that_appears_in_another_one_is_refused() {
    for at_server in [false, true] {
        let world = synced();
        let (tree, _) = sides(&world, at_server);
        let inside = tree.root().join(".Backup");
        harness::world::copy_dir(tree.root(), &world.path("copy"));
        remove_dir(&world.path("copy/.Work"));
        fs::rename(world.path("copy"), &inside).expect("moved");
        let run = world.client().sync().run().exits(2).says_one_sentence();
        let _ = run
            .says(&inside.display().to_string())
            .says(".maildir-sync");
        fs::remove_file(inside.join(MARKER)).expect("marker is removed");
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(
            count(world.server()),
            35,
            "INBOX of the copy is a folder now"
        );
    }
}

fn fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a fifo is made");
}

/// What somebody plants under a name of ours.
fn plant(kind: &str, path: &Path, outside: &Path) {
    match kind {
        "fifo" => fifo(path),
        "link" => symlink(outside, path).expect("a link is made"),
        _ => fs::create_dir(path).expect("a directory is made"),
    }
}

/// C84: what is written goes to a file of its own, whatever lies beside the marker.
#[test]
fn what_is_planted_beside_the_marker_stops_nobody_and_is_not_written_through() {
    for at_server in [false, true] {
        for kind in ["fifo", "link", "directory"] {
            println!("-- {kind}, at server: {at_server}");
            let world = synced();
            let (tree, _) = sides(&world, at_server);
            let outside = world.path("outside");
            fs::write(&outside, "not ours").expect("it is written");
            plant(kind, &tree.root().join(".maildir-sync.new"), &outside);
            fill(world.server(), "INBOX", [30]);
            fill(world.local(), "INBOX", [31]);
            let _ = world.client().sync().run().ok();
            world
                .server()
                .assert_holds("INBOX", &name(31), &body("message 31"));
            world
                .local()
                .assert_holds("INBOX", &name(30), &body("message 30"));
            assert_eq!(fs::read(&outside).expect("it is there"), b"not ours");
        }
    }
}

/// C84: an agent that opened a fifo stood still with the root's lock held.
#[test]
fn what_is_planted_under_the_markers_name_is_refused_at_once() {
    for at_server in [false, true] {
        for kind in ["fifo", "link", "directory"] {
            println!("-- {kind}, at server: {at_server}");
            let world = synced();
            let (tree, _) = sides(&world, at_server);
            let (marker, outside) = (tree.root().join(MARKER), world.path("outside"));
            fs::rename(&marker, &outside).expect("it is moved");
            let text = fs::read(&outside).expect("it is there");
            plant(kind, &marker, &outside);
            let run = world.client().sync().run().exits(4).says_one_sentence();
            let _ = run.says("--adopt").says(&marker.display().to_string());
            assert_eq!(fs::read(&outside).expect("it is there"), text);
            match kind {
                "directory" => fs::remove_dir(&marker).expect("removed"),
                _ => fs::remove_file(&marker).expect("removed"),
            }
            let _ = world.client().sync().arg("--adopt").run().ok();
            world.assert_same();
        }
    }
}
