//! What other programs do between a look and a step of either end: it stands still before each step that takes a name
//! away, mail comes and files are renamed over others, and it goes on (C73).

use harness::faults::{End, Hold};
use harness::{Mount, Run, Snapshot, Tree, World, body, digest_hex};

const DELETED: &str = "1.D.mx";
const FLAGGED: &str = "2.F.mx";
const MOVED: &str = "3.M.mx";
const EDITED: &str = "4.E.mx";
const FLAGGED_FAR: &str = "1.stays.mx";
const FLAGGED_NEAR: &str = "2.stays.mx";

/// Both sides agree; then one deletes, flags, moves and edits, removes a folder and renames one.
fn prepare(world: &World, far: &Tree) {
    for name in [DELETED, FLAGGED, MOVED, EDITED] {
        world.server().store("INBOX", name, "S", &body(name));
    }
    for folder in ["Lists", "Old", "Renamed"] {
        world.server().store(folder, "5.O.mx", "S", &body(folder));
    }
    let _ = world.client().sync().run().ok();
    far.delete("INBOX", DELETED);
    far.set_flags("INBOX", FLAGGED, "FS");
    far.rename("INBOX", MOVED, "Lists", MOVED);
    far.replace("INBOX", EDITED, &body("edited"));
    far.remove_folder("Old");
    far.rename_folder("Renamed", "Other");
}

/// Renames a newer version over every message that is where it was or where it goes, and delivers mail. Returns the
/// texts that must be there in the end.
fn interfere(near: &Tree) -> Vec<Vec<u8>> {
    let mut came = Vec::new();
    if near.read("INBOX", EDITED) != body("edited") {
        came.push(body("edited")); // Else it is what the newer one is a version of.
    }
    for name in [DELETED, FLAGGED, MOVED, EDITED] {
        let folder = ["INBOX", "Lists"]
            .into_iter()
            .find(|folder| near.has(folder, name));
        if let Some(folder) = folder {
            let newer = body(&format!("newer {name}"));
            near.replace(folder, name, &newer);
            came.push(newer);
        }
    }
    for (number, folder) in ["INBOX", "Old", "Renamed", "Other"].into_iter().enumerate() {
        if near.has_folder(folder) {
            let mail = body(&format!("delivered into {folder}"));
            near.deliver(folder, &format!("{number}.came.mx"), &mail);
            came.push(mail);
        }
    }
    came
}

/// Plays it once; false when there were fewer calls.
fn play(world: &World, hold: Hold) -> bool {
    let (near, far) = match hold.end {
        End::Client => (world.local(), world.server()),
        End::Agent => (world.server(), world.local()),
    };
    prepare(world, far);
    let mut came = Vec::new();
    let (hit, run) = hold.run(world, world.client().sync(), || came = interfere(near));
    assert!(!run.stderr.contains("panicked"), "{hold:?}: {}", run.stderr);
    let is_quiet = |run: Run| run.done() + run.pending() == 0;
    let is_done = (0..4).any(|_| is_quiet(world.client().sync().run().ok()));
    assert!(is_done, "{hold:?}: it never ends");
    if near.dir("Old").join("new").is_dir() {
        near.make_folder("Old"); // As readers do where `cur` went before the mail came.
    }
    world.assert_same();
    let all = Snapshot::of(far);
    let counts = all.counts();
    for text in came {
        let count = counts.get(digest_hex(&text).as_str()).copied();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(count, Some(1), "{hold:?}: {text}");
    }
    hit
}

/// Holds one end before each of its calls; `prepare` makes what stays until that run has ended.
fn sweep<T>(end: End, call: &'static str, at_least: usize, prepare: impl Fn(&World) -> T) {
    for nth in 1.. {
        let world = World::new();
        let _held = prepare(&world);
        if !play(&world, Hold { end, call, nth }) {
            assert!(
                nth > at_least,
                "only {} of {call}: does strace work here?",
                nth - 1
            );
            return;
        }
    }
}

#[test]
fn what_comes_before_any_rename_of_the_client_stays() {
    sweep(End::Client, "renameat2", 5, |_| ());
}

#[test]
fn what_comes_before_any_rename_of_the_agent_stays() {
    sweep(End::Agent, "renameat2", 5, |_| ());
}

/// Where the trash lies on another disk, a copy goes there, and then a name is removed.
#[test]
fn what_comes_before_any_removal_stays() {
    for end in [End::Client, End::Agent] {
        for call in ["renameat2", "unlinkat"] {
            let world = World::new();
            let disk = |world: &World| {
                let state = match end {
                    End::Client => world.client().state(),
                    End::Agent => world.server_state(),
                };
                Mount::in_memory(&state, 16 << 10)
            };
            if disk(&world).is_none() {
                return;
            }
            sweep(end, call, 3, disk);
        }
    }
}

/// A run ends without reading again what it has changed itself. What others do in the same directories before one of its
/// batches, or after the last, the very next run sees.
#[test]
fn what_comes_while_the_lock_is_free_is_seen_by_the_next_run() {
    let unique = |nth: usize| format!("{nth}.stays.mx");
    for end in [End::Client, End::Agent] {
        let world = World::new();
        let (near, far) = match end {
            End::Client => (world.local(), world.server()),
            End::Agent => (world.server(), world.local()),
        };
        for nth in 1..30 {
            far.store("INBOX", &unique(nth), "S", &body(&unique(nth)));
        }
        let _ = world.client().sync().run().ok();
        let _ = world.client().sync().run().ok().idle();
        let held = (1..).take_while(|&nth| {
            far.deliver(
                "INBOX",
                &format!("{nth}.new.mx"),
                &body(&format!("new {nth}")),
            );
            far.set_flags("INBOX", FLAGGED_FAR, if nth % 2 == 0 { "S" } else { "FS" });
            let hold = Hold {
                end,
                call: "flock",
                nth,
            };
            let (hit, run) = hold.run(&world, world.client().sync(), || {
                near.deliver(
                    "INBOX",
                    &format!("{nth}.came.mx"),
                    &body(&format!("came {nth}")),
                );
                near.set_flags("INBOX", FLAGGED_NEAR, if nth % 2 == 0 { "S" } else { "FS" });
                near.delete("INBOX", &unique(nth + 2));
            });
            let _ = run.ok();
            let _ = world.client().sync().run().ok();
            world.assert_same();
            assert_eq!(far.has("INBOX", &format!("{nth}.came.mx")), hit);
            assert_eq!(far.has("INBOX", &unique(nth + 2)), !hit);
            let _ = world.client().sync().run().ok().idle();
            hit
        });
        let held = held.count();
        assert!(
            held >= 4,
            "only {held} locks of {end:?}: does strace work here?"
        );
    }
}
