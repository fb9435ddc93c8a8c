//! Trees that were put back by hard links or by copies under their marker, Maildirs in each other, and what lies under the
//! marker's name (C56, C57, C69, C84).

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use harness::snapshot::{assert_nothing_written, everything};
use harness::world::{copy_dir, link_dir, remove_dir};
use harness::{Layout, Snapshot, Tree, World, body};

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

/// A backup brings back what a message was before it was edited, or another one had its name: no edit of today's, which stays.
#[test]
fn what_a_backup_has_under_the_name_of_another_message_replaces_nothing() {
    for at_server in [false, true] {
        let world = synced();
        let (tree, _) = sides(&world, at_server);
        let backup = world.path("backup");
        copy_dir(&tree.dir("INBOX").join("cur"), &backup);
        let (old, new) = (body("a draft"), body("a draft, ended"));
        tree.store("INBOX", &name(60), "S", &old);
        let _ = world.client().sync().run().ok();
        copy_dir(&tree.dir("INBOX").join("cur"), &backup);
        tree.edit("INBOX", &name(60), &new);
        let _ = world.client().sync().run().ok();
        copy_dir(&backup, &tree.dir("INBOX").join("cur"));
        let _ = world.client().sync().run().ok();
        world.assert_same();
        for tree in [world.server(), world.local()] {
            let snapshot = Snapshot::of(tree);
            let counts = snapshot.counts();
            for bytes in [&old, &new] {
                let kept = counts.get(harness::digest_hex(bytes).as_str());
                assert_eq!(kept.copied(), Some(1), "at_server {at_server}: {counts:?}");
            }
        }
        let _ = world.client().sync().run().ok().idle();
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

/// C84: what is written goes to a file of its own, whatever lies beside the marker; also where there is no marker yet.
#[test]
fn what_is_planted_beside_the_marker_stops_nobody_and_is_not_written_through() {
    for at_server in [false, true] {
        for (kind, is_first) in ["fifo", "link", "directory"]
            .into_iter()
            .flat_map(|kind| [(kind, true), (kind, false)])
        {
            println!("-- {kind}, at server: {at_server}, first: {is_first}");
            let world = if is_first { World::new() } else { synced() };
            let (tree, _) = sides(&world, at_server);
            tree.create();
            let outside = world.path("outside");
            fs::write(&outside, "not ours").expect("it is written");
            let planted = tree.root().join(".maildir-sync.new");
            plant(kind, &planted, &outside);
            let before = fs::symlink_metadata(&planted).expect("it is there");
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
            let after = fs::symlink_metadata(&planted).expect("it still is");
            assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
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

/// Empties a Maildir as `rm -rf Maildir/*` does: the marker and everything else with a dot stays.
fn empty_as_a_shell(tree: &Tree) {
    for entry in fs::read_dir(tree.root()).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if !is_hidden {
            fs::remove_dir_all(&path).expect("it is removed");
        }
    }
}

/// How a backup is made and put back.
type Copying = fn(&Path, &Path);
const COPYINGS: [(&str, Copying); 2] = [("cp -a", harness::world::copy_dir), ("cp -al", link_dir)];

/// A synced pair, a backup of one side by then, mail that came since on both sides, and deletions: 1 long before the backup
/// is put back, and 2 just before.
fn with_backup(layout: Layout, at_server: bool, copying: Copying) -> (World, PathBuf) {
    let world = World::with_layouts(layout, &[layout]);
    if layout == Layout::Nested {
        world.local().create();
    }
    fill(world.server(), "INBOX", 0..15);
    fill(world.server(), "Work", 15..20);
    let _ = world.client().sync().run().ok();
    let backup = world.path("backup");
    copying(sides(&world, at_server).0.root(), &backup);
    fill(world.server(), "INBOX", 30..34);
    fill(world.local(), "Work", 40..44);
    world.server().delete("INBOX", &name(1));
    let _ = world.client().sync().run().ok();
    world.assert_same();
    (world, backup)
}

/// Fails unless everything that nobody deleted is on both sides, and the next run has nothing to do.
#[track_caller]
fn assert_came_back(world: &World, first: &harness::Run, total: usize) {
    assert_eq!(
        first.here("deleted") + first.there("deleted"),
        0,
        "{}",
        first.stdout
    );
    let _ = world.client().sync().run().ok();
    world.assert_same();
    for number in (30..34)
        .map(|number| ("INBOX", number))
        .chain((40..44).map(|number| ("Work", number)))
    {
        let (folder, number) = number;
        assert!(
            world.server().has(folder, &name(number)),
            "{number} is lost"
        );
    }
    assert_eq!(count(world.server()), total);
    let _ = world.client().sync().run().ok().idle();
}

/// C57: the shell leaves the dot-file, so the marker is the newest one, and yet the tree is an old one.
#[test]
fn a_backup_that_is_copied_back_under_the_marker_deletes_nothing() {
    for (how, copying) in COPYINGS {
        for layout in [Layout::MaildirPlusPlus, Layout::Nested] {
            for (at_server, command) in [
                (false, "sync"),
                (false, "push"),
                (true, "sync"),
                (true, "pull"),
            ] {
                println!("-- {how}, {layout:?}, at server: {at_server}, {command}");
                let (world, backup) = with_backup(layout, at_server, copying);
                let (tree, _) = sides(&world, at_server);
                empty_as_a_shell(tree);
                for entry in fs::read_dir(&backup).expect("it can be listed") {
                    let path = entry.expect("it can be listed").path();
                    let to = tree.root().join(path.file_name().expect("a name"));
                    if !path
                        .file_name()
                        .expect("a name")
                        .as_encoded_bytes()
                        .starts_with(b".")
                    {
                        copying(&path, &to);
                    }
                }
                let first = world.client().pair(command).run().ok();
                // Message 1 was deleted long before, and the backup has it.
                assert_came_back(&world, &first, 28);
                remove_dir(&backup);
            }
        }
    }
}

#[test]
fn one_folder_that_is_put_back_deletes_nothing() {
    for (how, copying) in COPYINGS {
        for layout in [Layout::MaildirPlusPlus, Layout::Nested] {
            for (at_server, part) in [(false, ""), (false, "cur"), (true, ""), (true, "cur")] {
                println!("-- {how}, {layout:?}, at server: {at_server}, {part:?}");
                let (world, backup) = with_backup(layout, at_server, copying);
                let (tree, _) = sides(&world, at_server);
                let dir = tree.dir("Work");
                let inside = dir.strip_prefix(tree.root()).expect("it lies in it");
                copying(&backup.join(inside).join(part), &dir.join(part));
                let first = world.client().sync().run().ok();
                assert_came_back(&world, &first, 27);
                remove_dir(&backup);
            }
        }
    }
}

/// Moved into it just before it was replaced: nobody deleted that.
#[test]
fn what_was_moved_into_a_folder_before_it_is_put_back_comes_back() {
    for at_server in [false, true] {
        let (world, backup) =
            with_backup(Layout::MaildirPlusPlus, at_server, harness::world::copy_dir);
        let (tree, other) = sides(&world, at_server);
        tree.rename("INBOX", &name(3), "Work", &name(3));
        harness::world::copy_dir(&backup.join(".Work"), &tree.dir("Work"));
        let first = world.client().sync().run().ok();
        assert!(other.has("INBOX", &name(3)));
        assert_came_back(&world, &first, 27);
    }
}

/// A scan that may call nothing gone must not forget that a directory was put there.
#[test]
fn a_folder_that_is_put_back_while_another_cannot_be_read_deletes_nothing_later() {
    for at_server in [false, true] {
        let (world, backup) =
            with_backup(Layout::MaildirPlusPlus, at_server, harness::world::copy_dir);
        let (tree, _) = sides(&world, at_server);
        harness::world::copy_dir(&backup.join(".Work"), &tree.dir("Work"));
        // Away, with messages in it: nobody knows what became of them.
        fill(tree, "Third", [60]);
        tree.deliver("Third", &name(61), &body("message 61"));
        let _ = world.client().sync().run();
        let cur = tree.dir("Third").join("cur");
        fs::rename(&cur, cur.with_file_name("cur.old")).expect("it is moved");
        harness::world::copy_dir(&backup.join(".Work"), &tree.dir("Work"));
        let first = world.client().sync().run().exits(3);
        assert_eq!(first.here("deleted") + first.there("deleted"), 0);
        fs::rename(cur.with_file_name("cur.old"), &cur).expect("it is moved back");
        let _ = world.client().sync().run();
        let first = world.client().sync().run().ok();
        assert_came_back(&world, &first, 29);
    }
}

/// Row 16 stays: what was removed and made anew empty was deleted by somebody.
/// It holds only what is gone since, as a backup of long ago.
#[test]
fn a_backup_of_which_nothing_is_left_deletes_nothing() {
    for at_server in [false, true] {
        let world = synced();
        let (tree, _) = sides(&world, at_server);
        let backup = world.path("backup");
        copy_dir(tree.root(), &backup);
        for number in 0..20 {
            let folder = if number < 15 { "INBOX" } else { "Work" };
            world.server().delete(folder, &name(number));
        }
        fill(world.server(), "INBOX", 30..40);
        fill(world.server(), "Work", 40..45);
        let all = ["--max-delete", "100%"];
        let _ = world.client().sync().args(&all).run().ok();
        world.assert_same();
        for part in harness::tree::files(&backup) {
            let to = tree.root().join(part.file_name().expect("a name"));
            if !part.ends_with(MARKER) {
                remove_dir(&to);
                copy_dir(&part, &to);
            }
        }
        let run = world.client().sync().args(&all).run().ok();
        let deleted = run.here("deleted") + run.there("deleted");
        assert_eq!(deleted, 0, "{}", run.stdout);
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(count(world.server()), 35);
        remove_dir(&backup);
    }
}

#[test]
fn a_folder_that_is_made_anew_and_empty_was_emptied() {
    for at_server in [false, true] {
        let world = synced();
        let (tree, other) = sides(&world, at_server);
        fs::remove_dir_all(tree.dir("Work")).expect("it is removed");
        tree.make_folder("Work");
        let _ = world
            .client()
            .sync()
            .args(&["--max-delete", "100%"])
            .run()
            .ok();
        world.assert_same();
        assert_eq!(count(other), 15);
    }
}

/// Some repack a large directory: its files are moved into a new one that takes its name. What was deleted meanwhile was.
#[test]
fn a_directory_that_was_made_anew_from_its_own_files_deletes_what_was_deleted() {
    for at_server in [false, true] {
        let world = synced();
        let (tree, other) = sides(&world, at_server);
        let cur = tree.dir("INBOX").join("cur");
        let anew = cur.with_file_name("cur.anew");
        fs::create_dir(&anew).expect("it is made");
        tree.delete("INBOX", &name(1));
        for file in harness::tree::files(&cur) {
            fs::rename(&file, anew.join(file.file_name().expect("a name"))).expect("it is moved");
        }
        fs::remove_dir(&cur).expect("it is empty");
        fs::rename(&anew, &cur).expect("it takes its name");
        let run = world.client().sync().run().ok();
        assert_eq!(
            run.here("deleted") + run.there("deleted"),
            1,
            "{}",
            run.stdout
        );
        world.assert_same();
        assert!(!other.has("INBOX", &name(1)));
        let _ = world.client().sync().run().ok().idle();
    }
}
