//! What other programs do between a look and a step of either end: it stands still before each step that takes a name
//! away, mail comes and files are renamed over others, and it goes on (C73).

use harness::faults::{End, Hold};
use harness::{Mount, Run, Snapshot, Tree, World, body, digest_hex};

const DELETED: &str = "1.D.mx";
const FLAGGED: &str = "2.F.mx";
const MOVED: &str = "3.M.mx";
const EDITED: &str = "4.E.mx";

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

/// A run ends without reading again what it has changed itself. What others do in the same directories before its first batch,
/// between two of them or after the last, the very next run sees. Threads count their calls each for itself, so several calls
/// are needed to come everywhere.
#[test]
fn what_comes_beside_the_batches_is_seen_by_the_next_run() {
    for end in [End::Client, End::Agent] {
        let world = World::new();
        let (near, far) = match end {
            End::Client => (world.local(), world.server()),
            End::Agent => (world.server(), world.local()),
        };
        for number in 1..60 {
            far.store("INBOX", &stays(number), "S", &body(&stays(number)));
        }
        let _ = world.client().sync().run().ok();
        let _ = world.client().sync().run().ok().idle();
        let mut play = 0;
        for (call, step, at_least) in [
            ("flock", 1, 3),
            ("inotify_add_watch", 1, 0),
            ("fsync", 3, 4),
        ] {
            let held = (1..).step_by(step).take_while(|&nth| {
                play += 1;
                play_beside(&world, (near, far), Hold { end, call, nth }, play)
            });
            let held = held.count();
            assert!(
                held >= at_least,
                "only {held} of {call} of {end:?}: does strace work here?"
            );
        }
    }
}

fn stays(number: usize) -> String {
    format!("{number}.stays.mx")
}

/// Both sides have something to do in INBOX, and more comes while one is held. False when there were fewer calls.
fn play_beside(world: &World, (near, far): (&Tree, &Tree), hold: Hold, play: usize) -> bool {
    let flags = if play.is_multiple_of(2) { "S" } else { "FS" };
    let (new, came, goes) = (
        format!("{play}.new.mx"),
        format!("{play}.came.mx"),
        stays(play + 2),
    );
    far.deliver("INBOX", &new, &body(&new));
    far.set_flags("INBOX", &stays(1), flags);
    let (hit, run) = hold.run(world, world.client().sync(), || {
        near.deliver("INBOX", &came, &body(&came));
        near.set_flags("INBOX", &stays(2), flags);
        near.delete("INBOX", &goes);
    });
    let _ = run.ok();
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(far.has("INBOX", &came), hit, "{hold:?}");
    assert_eq!(far.has("INBOX", &goes), !hit, "{hold:?}");
    let _ = world.client().sync().run().ok().idle();
    hit
}
