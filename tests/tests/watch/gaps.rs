//! What comes while a watch stands anywhere between two looks: nothing falls between.

use std::fs;

use harness::faults::{End, Hold};
use harness::rng::seed_or;
use harness::{Rng, Snapshot, Tree, Watch, World, are_same, assert_same, body, digest_hex};
use rustix::process::{Pid, Signal, kill_process};

use super::agents;

/// What an end calls in a round and around it.
const CALLS: [&str; 6] = [
    "flock",
    "getdents64",
    "renameat2",
    "rename",
    "fsync",
    "write",
];

fn stays(number: usize) -> String {
    format!("{number}.stays.mx")
}

/// Mail for the first round, and folders that are renamed and moved into later.
fn prepare(world: &World) {
    for number in 0..8 {
        world
            .server()
            .store("INBOX", &stays(number), "S", &body(&stays(number)));
    }
    for folder in ["Lists", "Renamed"] {
        world.server().store(folder, "5.O.mx", "S", &body(folder));
    }
    let _ = world.client().sync().run().ok();
    world.server().deliver("INBOX", "1.new.mx", &body("there"));
    world.local().deliver("INBOX", "2.new.mx", &body("here"));
}

/// Everything that users and deliveries do, at both sides.
fn interfere(near: &Tree, far: &Tree) {
    near.deliver("INBOX", "1.came.mx", &body("came near"));
    near.set_flags("INBOX", &stays(1), "FS");
    near.delete("INBOX", &stays(2));
    near.rename("INBOX", &stays(3), "Lists", &stays(3));
    near.rename_folder("Renamed", "Other");
    near.deliver("Other", "6.came.mx", &body("came into a renamed folder"));
    near.deliver("Made/below", "7.came.mx", &body("came into a new folder"));
    far.deliver("Lists", "2.came.mx", &body("came far"));
    far.set_flags("INBOX", &stays(4), "RS");
    far.rename("INBOX", &stays(5), "Lists", &stays(5));
    far.edit("INBOX", &stays(6), &body("edited"));
}

/// One end stands still there, in its first rounds or between them, and all of that happens meanwhile. False when it
/// came through some rounds without getting there.
fn play(hold: Hold) -> bool {
    let world = World::new();
    let (near, far) = match hold.end {
        End::Client => (world.local(), world.server()),
        End::Agent => (world.server(), world.local()),
    };
    prepare(&world);
    let (watch, still) = hold.watch(&world, world.client().pair("watch"));
    for number in 0..2 {
        let unique = format!("{number}.flows.mx");
        let is_through = || near.has("INBOX", &unique) && near.has("INBOX", "1.new.mx");
        far.deliver("INBOX", &unique, &body(&unique));
        watch.until("a round", || still.is_reached() || is_through());
    }
    interfere(near, far);
    let is_hit = still.is_reached();
    drop(still);
    watch.until("both trees are the same", || are_same(&[near, far]));
    end_well(watch, &world);
    for text in ["there", "here", "came near", "came far", "edited"] {
        let count = Snapshot::of(near)
            .counts()
            .get(&*digest_hex(&body(text)))
            .copied();
        assert_eq!(count, Some(1), "{hold:?}: {text}");
    }
    assert!(!near.has("INBOX", &stays(2)), "{hold:?}");
    assert_eq!(near.flags("INBOX", &stays(4)), "RS", "{hold:?}");
    assert_eq!(
        Snapshot::of(near).mail().len(),
        8 - 1 + 2 + 2 + 2 + 4,
        "{hold:?}"
    );
    is_hit
}

/// It ends as asked, both trees are the same, and nothing was left to do.
fn end_well(watch: Watch, world: &World) {
    assert_eq!(watch.end().0, Some(0));
    assert_same(world.server(), world.local());
    let _ = world.client().sync().run().ok().idle();
}

/// Some of the calls of an end, the first and one that the seed chooses.
fn play_some(end: End, calls: &[&'static str], seed: u64) {
    let mut rng = Rng::new(seed_or(seed));
    let mut is_hit = false;
    for &call in calls {
        // Few threads rename much.
        let few = if call.starts_with("rename") { 2 } else { 9 };
        let early = Hold { end, call, nth: 1 };
        let later = Hold {
            end,
            call,
            nth: 2 + rng.below(few),
        };
        let hits = [early, later].map(play);
        println!("{early:?} {later:?}: {hits:?}");
        is_hit |= hits.contains(&true);
    }
    assert!(is_hit, "it never stands still: does strace work here?");
}

#[test]
fn what_comes_while_the_client_looks_is_not_missed() {
    play_some(End::Client, &["flock", "getdents64"], 1);
}

#[test]
fn what_comes_while_the_client_changes_its_tree_is_not_missed() {
    play_some(End::Client, &["renameat2", "fsync"], 2);
}

#[test]
fn what_comes_while_the_client_goes_to_sleep_is_not_missed() {
    play_some(End::Client, &["rename", "write"], 3);
}

#[test]
fn what_comes_while_the_agent_looks_is_not_missed() {
    play_some(End::Agent, &["flock", "getdents64"], 4);
}

#[test]
fn what_comes_while_the_agent_changes_its_tree_is_not_missed() {
    play_some(End::Agent, &["renameat2", "fsync"], 5);
}

#[test]
fn what_comes_while_the_agent_goes_to_sleep_is_not_missed() {
    play_some(End::Agent, &["write", "inotify_add_watch"], 6);
}

#[test]
#[ignore = "five minutes"]
fn what_comes_before_any_call_of_either_end_is_not_missed() {
    for end in [End::Client, End::Agent] {
        for call in CALLS {
            let hits = (1..)
                .take_while(|&nth| play(Hold { end, call, nth }))
                .count();
            println!("{hits} of {call} of {end:?}");
        }
    }
}

/// More events than the system keeps, while nobody reads them: whatever was among those that it threw away is found.
#[test]
fn a_queue_that_overflows_loses_nothing() {
    for end in [End::Client, End::Agent] {
        let world = World::new();
        prepare(&world);
        let watch = Watch::start(world.client());
        watch.until("the first round", || {
            are_same(&[world.server(), world.local()])
        });
        let (near, far, pid) = match end {
            End::Client => (world.local(), world.server(), watch.pid()),
            End::Agent => (world.server(), world.local(), agent_of(&world)),
        };
        kill_process(pid, Signal::STOP).expect("it is ours");
        let path = near.path("INBOX", &stays(1));
        let other = path.with_file_name(format!("{}:2,FS", stays(1)));
        for _ in 0..10_000 {
            fs::rename(&path, &other).expect("it is there");
            fs::rename(&other, &path).expect("it is there");
        }
        near.deliver("Lists", "1.came.mx", &body("after the last event"));
        near.deliver("Made", "2.came.mx", &body("in a new folder"));
        kill_process(pid, Signal::CONT).expect("it is ours");
        watch.until("both trees are the same", || are_same(&[near, far]));
        // What is new is watched.
        near.deliver("Made", "3.came.mx", &body("later"));
        watch.until("delivered", || far.has("Made", "3.came.mx"));
        watch.until("both trees are the same", || are_same(&[near, far]));
        end_well(watch, &world);
    }
}

fn agent_of(world: &World) -> Pid {
    let [pid] = agents(world)[..] else {
        panic!("one agent serves");
    };
    pid
}
