//! I1, I4: after a kill something else happens before the next run can put things in order: another kill, a cleaner of
//! `tmp`, a user. No mail may be taken for deleted because of it.

use std::fs;

use harness::faults::End;
use harness::{Kill, Mount, Snapshot, Tree, World, body};

const NEW: &str = "1700000009.M9P9.new";
const OLD: &str = "1700000001.M1P1.old";

/// A world in which both sides hold one message, and what happens next concerns `side`.
fn world() -> World {
    let world = World::new();
    world.server().make_folder("INBOX");
    world.server().store("INBOX", OLD, "S", &body("old"));
    let _ = world.client().sync().run().ok();
    world.assert_same();
    world
}

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

/// Kills whoever holds `side` at its first rename.
fn kill_at_rename(world: &World, side: End) {
    let kill = Kill {
        end: side,
        call: "renameat2",
        nth: 1,
    };
    let (hit, _) = kill.run(world, world.client().sync());
    assert!(hit, "nobody was killed: does strace work here?");
}

/// Syncs a saved world with a kill at each of the first so many calls of each kind, and says after each what it was;
/// returns how many runs were hit.
fn kill_everywhere(
    world: &World,
    saved: &str,
    end: End,
    calls: &[&'static str],
    most: usize,
    after: impl Fn(&str),
) -> usize {
    let mut hits = 0;
    for &call in calls {
        for nth in 1..=most {
            world.load(saved);
            let kill = Kill { end, call, nth };
            let (hit, _) = kill.run(world, world.client().sync());
            hits += usize::from(hit);
            after(&format!("{kill:?}"));
        }
    }
    hits
}

fn settle(world: &World, what: &str) {
    for _ in 0..2 {
        let _ = world.client().sync().run().ok();
    }
    let _ = world.client().sync().run().ok().idle();
    world.assert_same();
    assert!(world.server().has("INBOX", OLD), "{what}");
}

/// A run that puts a dead one's leftovers in order may die, too, wherever it is.
#[test]
fn new_mail_survives_a_second_kill() {
    for side in [End::Client, End::Agent] {
        let world = world();
        tree(&world, other(side)).store("INBOX", NEW, "", &body("new"));
        kill_at_rename(&world, side);
        world.save("killed");
        let calls = [
            "fdatasync",
            "fsync",
            "unlinkat",
            "unlink",
            "pwrite64",
            "ftruncate",
        ];
        let hits = kill_everywhere(&world, "killed", side, &calls, 8, |what| {
            settle(&world, what);
            assert!(
                world.server().has("INBOX", NEW),
                "{what}: the new message is gone"
            );
        });
        assert!(hits > 8, "{hits} second kills of {side:?}");
    }
}

/// maildir(5) lets anybody remove what lies in `tmp` for 36 hours.
#[test]
fn cleaning_tmp_after_a_kill_deletes_nothing() {
    for side in [End::Client, End::Agent] {
        for edited in [false, true] {
            let world = world();
            let (from, unique) = (tree(&world, other(side)), if edited { OLD } else { NEW });
            if edited {
                from.replace("INBOX", OLD, &body("changed"));
            } else {
                from.store("INBOX", NEW, "S", &body("changed"));
            }
            kill_at_rename(&world, side);
            let tmp = tree(&world, side).root().join("tmp");
            let mut cleaned = 0;
            for file in fs::read_dir(&tmp).expect("tmp is there").flatten() {
                fs::remove_file(file.path()).expect("it can be removed");
                cleaned += 1;
            }
            assert_eq!(cleaned, 1, "the body waited in tmp");
            let what = format!("{side:?}, edited: {edited}");
            settle(&world, &what);
            for tree in [world.local(), world.server()] {
                assert_eq!(tree.read("INBOX", unique), body("changed"), "{what}");
            }
        }
    }
}

/// What users do to a message that was about to be deleted there.
type Deed = fn(&Tree);

const DEEDS: [(&str, Deed); 4] = [
    ("flagged", |tree| tree.set_flags("INBOX", NEW, "FS")),
    ("made new", |tree| tree.to_new("INBOX", NEW)),
    ("edited", |tree| tree.edit("INBOX", NEW, &body("edited"))),
    ("given to a group", |tree| {
        use std::os::unix::fs::PermissionsExt;
        let group = fs::Permissions::from_mode(0o640);
        fs::set_permissions(tree.path("INBOX", NEW), group).expect("it is mine");
    }),
];

/// A deletion that a kill kept from happening is still one to be made, or not, by what users did meanwhile.
#[test]
fn a_deletion_cut_off_ends_as_if_there_had_been_no_kill() {
    for side in [End::Client, End::Agent] {
        for (what, deed) in DEEDS {
            let ends = [false, true].map(|is_killed| {
                let world = world();
                world.server().store("INBOX", NEW, "S", &body("doomed"));
                let _ = world.client().sync().run().ok();
                tree(&world, side).let_the_clock_tick("INBOX", NEW);
                tree(&world, other(side)).delete("INBOX", NEW);
                if is_killed {
                    kill_at_rename(&world, side);
                }
                deed(tree(&world, side));
                settle(&world, what);
                let there = world.server().has("INBOX", NEW);
                there.then(|| world.server().read("INBOX", NEW))
            });
            assert_eq!(
                ends[0], ends[1],
                "{side:?}, {what}: without a kill, and with one"
            );
        }
    }
}

/// Messages that come, and what users do to each before the next run.
const ONWARD: [(&str, Deed); 4] = [
    ("1.read", |tree| tree.to_cur("INBOX", "1.read", "S")),
    ("2.moved", |tree| {
        tree.rename("INBOX", "2.moved", "A", "2.moved")
    }),
    ("3.renamed", |tree| {
        tree.rename("INBOX", "3.renamed", "A", "3.other")
    }),
    (DELETED, |tree| tree.delete("INBOX", DELETED)),
];

const DELETED: &str = "4.deleted";

/// What came before the kill, and was moved on since, is there once. I4: what was deleted since may come once more.
#[test]
fn what_a_killed_run_brought_and_users_moved_on_is_not_doubled() {
    for side in [End::Client, End::Agent] {
        let world = world();
        world.server().make_folder("A");
        let _ = world.client().sync().run().ok();
        for (name, _) in ONWARD {
            tree(&world, other(side)).deliver("INBOX", name, &body(name));
        }
        world.save("delivered");
        let calls = ["renameat2", "pwrite64", "fdatasync", "fsync"];
        let met = std::cell::Cell::new(0);
        let _ = kill_everywhere(&world, "delivered", side, &calls, 8, |kill| {
            let came = ONWARD.map(|(name, _)| tree(&world, side).has("INBOX", name));
            for ((_, deed), _) in ONWARD.iter().zip(came).filter(|(_, has_come)| *has_come) {
                met.set(met.get() + 1);
                deed(tree(&world, side));
            }
            settle(&world, kill);
            let all = Snapshot::of(world.server());
            for ((name, _), has_come) in ONWARD.iter().zip(came) {
                let digest = harness::digest_hex(&body(name));
                let count = all.counts().get(digest.as_str()).copied().unwrap_or(0);
                let least = usize::from(!has_come || *name != DELETED);
                assert!((least..=1).contains(&count), "{kill}: {count} of {name}");
            }
        });
        assert!(met.get() > 10, "{side:?}: {} had come", met.get());
    }
}

/// Where the trash lies on another disk, a copy goes there; one that broke off is no mail.
#[test]
fn half_a_copy_in_the_trash_is_in_nobodys_way() {
    let world = world();
    let state = world.client().state();
    let Some(_mounted) = Mount::in_memory(&state, 16 << 10) else {
        return;
    };
    world.server().store("INBOX", NEW, "S", &body("doomed"));
    let _ = world.client().sync().args(&["--adopt"]).run().ok();
    world.server().delete("INBOX", NEW);
    kill_at_rename(&world, End::Client);
    let replicas = fs::read_dir(state.join("replicas")).expect("it has one");
    let trash = replicas.flatten().map(|dir| dir.path().join("trash"));
    let runs = trash.flat_map(|trash| fs::read_dir(trash).expect("it is there").flatten());
    let mut count = 0;
    for run in runs {
        fs::write(run.path().join("000001"), "From").expect("it is written");
        count += 1;
    }
    assert_eq!(count, 1, "it was announced");
    world.local().set_flags("INBOX", NEW, "FS");
    settle(&world, "half a copy");
    assert!(!world.local().has("INBOX", NEW), "the deletion came back");
}

/// A folder that is renamed into a directory goes entry by entry; a kill in between leaves none of its mail behind.
#[test]
fn a_folder_renamed_in_pieces_survives_kills_between_them() {
    for side in [End::Client, End::Agent] {
        let world = world();
        world.server().store("B", NEW, "S", &body("moved"));
        world.server().deliver("B", "3.M.mx", &body("moved, too"));
        let _ = world.client().sync().run().ok();
        fs::create_dir_all(tree(&world, side).dir("A").join("tmp")).expect("it is made");
        tree(&world, other(side)).rename_folder("B", "A");
        world.save("renamed");
        let calls = ["renameat2", "unlinkat", "fsync", "fdatasync", "pwrite64"];
        let hits = kill_everywhere(&world, "renamed", side, &calls, 6, |what| {
            for _ in 0..2 {
                let run = world.client().sync().run();
                assert!(matches!(run.code, Some(0 | 3)), "{what}: {run:?}");
            }
            settle(&world, what);
            for tree in [world.local(), world.server()] {
                tree.assert_holds("A", NEW, &body("moved"));
                tree.assert_holds("A", "3.M.mx", &body("moved, too"));
                assert!(!tree.has_folder("B"), "{what}");
            }
        });
        assert!(hits > 12, "{hits} kills of {side:?}");
    }
}
