//! Every row of the table on disks that lack what renames need (C59, C60), and with folders on disks of their own.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::faults::{End, Kill};
use harness::process::{LIMIT, run};
use harness::{Mount, Run, Snapshot, Tree, World, body};

use crate::errors::{U1, U2};
use crate::scenario::{assert_recovers, base, here, name, outcome, ready, survivors, there};

/// Which side lies on the disk.
const SIDES: [End; 2] = [End::Client, End::Agent];

fn tree(world: &World, side: End) -> &Tree {
    match side {
        End::Client => world.local(),
        End::Agent => world.server(),
    }
}

fn other(side: End) -> End {
    match side {
        End::Client => End::Agent,
        End::Agent => End::Client,
    }
}

/// Both sides are the same, nobody is missing, and there is nothing left to do.
fn settled(world: &World, what: &str) {
    println!("{what}");
    let _ = world.client().sync().run().ok();
    world.assert_same();
    let _ = world.client().sync().run().ok().idle();
    let outcome = Snapshot::of(world.server());
    let counts = outcome.counts();
    for bytes in survivors() {
        let digest = harness::digest_hex(&bytes);
        assert!(counts.contains_key(digest.as_str()), "{what}");
    }
}

/// Plays every row: first pull or push, changes on both sides, folders renamed and removed on the other side.
fn play(world: &World, side: End) {
    let (disk, far) = (tree(world, side), tree(world, other(side)));
    for tree in [disk, far] {
        tree.create();
    }
    base(far);
    let first = if side == End::Client { "pull" } else { "push" };
    let _ = world.client().pair(first).run().ok();
    world.assert_same();
    let _ = world.client().pair(first).run().ok().idle();
    play_changes(world, side);
}

fn play_changes(world: &World, side: End) {
    let far = tree(world, other(side));
    here(world.local());
    there(world.server());
    for command in ["push", "pull"] {
        let _: Run = world.client().pair(command).run().ok();
    }
    settled(world, "changed on both sides");
    far.rename_folder("A", "Renamed/deep");
    far.store(
        "Renamed/deep",
        "9.M.mx",
        "S",
        &body("into a renamed folder"),
    );
    settled(world, "renamed there");
    assert!(!tree(world, side).has_folder("A"), "the old folder is gone");
    far.rename("Renamed/deep", &name(3), "INBOX", &name(3));
    far.remove_folder("Empty");
    settled(world, "removed there");
    assert!(!tree(world, side).has_folder("Empty"), "the folder is gone");
}

#[test]
fn a_disk_without_flags_for_renames_takes_everything() {
    for side in SIDES {
        let world = World::new();
        let (dir, source) = (tree(&world, side).root(), world.path("source"));
        let mount = Mount::without_flags(dir, &source);
        let Some(_disk) = mount else {
            return;
        };
        play(&world, side);
    }
}

#[test]
fn a_tree_in_memory_takes_everything() {
    for side in SIDES {
        let world = World::new();
        let mount = Mount::in_memory(tree(&world, side).root(), 64 << 10);
        let Some(_disk) = mount else {
            return;
        };
        play(&world, side);
    }
}

/// Messages go into it, out of it, and are edited as they go; then the folder itself is renamed, which a mount cannot be.
#[test]
fn a_folder_on_a_disk_of_its_own_takes_everything() {
    for side in SIDES {
        let world = World::new();
        let mount = Mount::in_memory(&tree(&world, side).dir("A"), 16 << 10);
        let Some(_disk) = mount else {
            return;
        };
        play(&world, side);
    }
}

#[test]
fn a_folder_that_is_a_subvolume_takes_everything() {
    for side in SIDES {
        let world = World::new();
        let root = tree(&world, side).root().to_owned();
        let mount = Mount::btrfs(&root, &world.path("image"));
        let Some(_disk) = mount else {
            return;
        };
        let mut command = Command::new("btrfs");
        command
            .args(["subvolume", "create"])
            .arg(tree(&world, side).dir("A"));
        assert_eq!(run(command, LIMIT).code, Some(0), "the subvolume is made");
        play(&world, side);
    }
}

/// What was there before lies in another layer, whose directories cannot be renamed.
#[test]
fn an_overlay_takes_everything() {
    for side in SIDES {
        let world = World::new();
        base(world.server());
        let _ = world.client().sync().run().ok();
        let root = tree(&world, side).root();
        let lower = world.path("lower");
        fs::rename(root, &lower).expect("it is moved");
        let mount = Mount::overlay(root, &lower, &world.path("layers"));
        let Some(_disk) = mount else {
            return;
        };
        let _ = world.client().sync().run().ok();
        play_changes(&world, side);
    }
}

/// A message that is moved to another disk and edited at once, and one whose new place is taken.
#[test]
fn what_crosses_disks_keeps_its_time_and_leaves_the_old_file_in_the_trash() {
    for side in SIDES {
        let world = World::new();
        let mount = Mount::in_memory(&tree(&world, side).dir("Far"), 16 << 10);
        let Some(_disk) = mount else {
            return;
        };
        let near = tree(&world, other(side));
        tree(&world, side).create();
        near.make_folder("Far");
        for unique in [U1, U2] {
            near.store("INBOX", unique, "S", &body(unique));
        }
        let _ = world.client().sync().run().ok();
        near.rename("INBOX", U1, "Far", U1);
        near.rename("INBOX", U2, "Far", U2);
        near.edit("Far", U2, &body("edited"));
        let _ = world.client().sync().run().ok();
        world.assert_same();
        let state = match side {
            End::Client => world.client().state(),
            End::Agent => world.server_state(),
        };
        assert!(
            harness::snapshot::holds_bytes(&state, &body(U1)),
            "{side:?}"
        );
        let _ = world.client().sync().run().ok().idle();
    }
}

/// Words that let every rename fail as on a disk without flags, and perhaps links, too.
fn without(what: &[&str], log: &Path) -> Vec<String> {
    let mut words: Vec<String> = ["strace", "-f", "-q", "-b", "execve", "-o"]
        .map(str::to_owned)
        .into();
    words.push(log.display().to_string());
    for inject in what {
        words.extend(["-e".to_owned(), format!("inject={inject}")]);
    }
    words
}

const NO_FLAGS: &str = "renameat2:error=EINVAL";
const NO_LINKS: &str = "linkat:error=EPERM";

/// Runs a sync in which one end, or both, finds less.
fn sync_without(world: &World, side: End, what: &[&str]) -> Run {
    let log = world.path("strace.log");
    let words = without(what, &log);
    let agent = harness::world::agent_command(&world.server_state());
    match side {
        End::Client => {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            world.client().sync().under(&words).run()
        }
        End::Agent => {
            let command = format!("{} {agent}", words.join(" "));
            world.client().sync().through(&command).run()
        }
    }
}

#[test]
fn without_flags_and_without_links_all_comes_out_the_same() {
    let world = ready();
    world.load("ready"); // As what follows has it.
    let wanted = outcome(&world);
    for side in SIDES {
        for what in [&[NO_FLAGS][..], &[NO_FLAGS, NO_LINKS]] {
            world.load("ready");
            let _ = sync_without(&world, side, what).ok();
            assert_recovers(&world, &wanted, &format!("{side:?} without {what:?}"));
        }
    }
}

/// The sweep of `faults`, for what is only called where there are no flags.
#[test]
fn kills_among_links_and_plain_renames_recover() {
    let world = ready();
    world.load("ready"); // As what follows has it.
    let wanted = outcome(&world);
    let mut hits = 0;
    for side in SIDES {
        for (call, also) in [
            ("linkat", None),
            ("renameat", None),
            ("unlinkat", None),
            ("renameat", Some(NO_LINKS)),
        ] {
            for nth in (1..60).step_by(5) {
                world.load("ready");
                let kill = format!("{call}:signal=SIGKILL:when={nth}");
                let what: Vec<&str> = [Some(NO_FLAGS), also, Some(&kill)]
                    .into_iter()
                    .flatten()
                    .collect();
                let run = sync_without(&world, side, &what);
                if run.code == Some(0) {
                    break;
                }
                hits += 1;
                assert_recovers(&world, &wanted, &format!("{side:?} killed at {kill}"));
            }
        }
    }
    println!("{hits} kills");
    assert!(hits >= 16, "only {hits} kills hit: does strace work here?");
}

/// Kills where messages go from disk to disk.
#[test]
fn kills_while_messages_cross_disks_recover() {
    for side in SIDES {
        let world = World::new();
        let mount = Mount::in_memory(&tree(&world, side).dir("Far"), 16 << 10);
        let Some(_disk) = mount else {
            return;
        };
        let near = tree(&world, other(side));
        tree(&world, side).create();
        near.make_folder("Far");
        let mut hits = 0;
        for (call, most) in [
            ("renameat2", 6),
            ("fsync", 12),
            ("fdatasync", 12),
            ("unlinkat", 4),
        ] {
            for nth in 1..=most {
                let unique = format!("{nth}.{call}");
                near.store("INBOX", &unique, "S", &body(&unique));
                let _ = world.client().sync().run().ok();
                near.rename("INBOX", &unique, "Far", &unique);
                let kill = Kill {
                    end: side,
                    call,
                    nth,
                };
                let (hit, _) = kill.run(&world, world.client().sync());
                hits += usize::from(hit);
                println!("{kill:?}, hit: {hit}");
                let _ = world.client().sync().run().ok();
                world.assert_same();
                let _ = world.client().sync().run().ok().idle();
                for tree in [world.local(), world.server()] {
                    assert!(!tree.has("INBOX", &unique), "{kill:?}");
                    tree.assert_holds("Far", &unique, &body(&unique));
                }
            }
        }
        assert!(hits > 12, "only {hits} kills hit");
    }
}
