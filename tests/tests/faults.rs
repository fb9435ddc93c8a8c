//! kill -9 of either end at every mutating system call, and the link cut after every k bytes, in a run that uses every
//! row. The suite takes samples; `-- --ignored` sweeps them all.

use harness::faults::{End, Flip, MUTATING};
use harness::{Cut, Kill, Snapshot, World, body};

use crate::errors::U1;
use crate::scenario::{assert_recovers, outcome, ready};

/// The scenario with what must come out of it.
fn prepared() -> (World, Snapshot) {
    let world = ready();
    let wanted = outcome(&world);
    world.load("ready");
    (world, wanted)
}

/// Kills one end at every `step`-th of each system call, from `first`, until the run comes through unharmed.
fn sweep(end: End, first: usize, step: usize) {
    let (world, wanted) = prepared();
    let mut hits = 0;
    for &call in MUTATING {
        for nth in (first..).step_by(step) {
            let kill = Kill { end, call, nth };
            let (hit, run) = kill.run(&world, world.client().sync());
            assert!(!run.stderr.contains("panicked"), "{kill:?}: {}", run.stderr);
            if !hit {
                break;
            }
            hits += 1;
            let told = end == End::Client || matches!(run.code, Some(0 | 75));
            assert!(
                told,
                "an agent that dies is a lost connection: {kill:?} {run:?}"
            );
            assert_recovers(&world, &wanted, &format!("{kill:?}"));
            world.load("ready");
        }
        world.load("ready");
    }
    println!("{hits} kills of the {end:?}");
    assert!(
        hits >= 10,
        "only {hits} calls were hit: does strace work here?"
    );
}

#[test]
fn a_client_killed_at_any_system_call_recovers() {
    sweep(End::Client, 1, 11);
}

#[test]
fn an_agent_killed_at_any_system_call_recovers() {
    sweep(End::Agent, 1, 11);
}

#[test]
#[ignore = "the full sweep takes long"]
fn a_client_killed_at_every_system_call_recovers() {
    sweep(End::Client, 1, 1);
}

#[test]
#[ignore = "the full sweep takes long"]
fn an_agent_killed_at_every_system_call_recovers() {
    sweep(End::Agent, 1, 1);
}

/// Kills one end at each directory that it makes, syncs, and looks whether every folder is whole on both sides.
fn kill_while_folders_are_made(world: &World, end: End) {
    world.save("before");
    let mut hits = 0;
    for nth in 1.. {
        let call = "mkdirat";
        let kill = Kill { end, call, nth };
        let (hit, _) = kill.run(world, world.client().sync());
        if !hit {
            break;
        }
        hits += 1;
        let _ = world.client().sync().run().ok();
        world.assert_same();
        for tree in [world.server(), world.local()] {
            for (name, dir) in harness::snapshot::folders(tree) {
                let name = String::from_utf8_lossy(&name).into_owned();
                for part in ["cur", "new", "tmp"] {
                    assert!(dir.join(part).is_dir(), "{kill:?}: {name} lacks {part}");
                }
            }
        }
        let _ = world.client().sync().run().ok().idle();
        world.load("before");
    }
    assert!(hits >= 4, "only {hits} directories were made");
}

/// A folder without `new` or `cur` would be taken for whole by the next run, and not be one for mail readers.
#[test]
fn a_folder_whose_maker_dies_comes_whole() {
    for end in [End::Client, End::Agent] {
        let world = World::new();
        world.server().deliver("INBOX", U1, &body("one"));
        let _ = world.client().sync().run().ok();
        let other = match end {
            End::Client => world.server(),
            End::Agent => world.local(),
        };
        other.make_folder("Made");
        other.make_folder("Made/deep");
        kill_while_folders_are_made(&world, end);
    }
}

#[test]
fn a_first_sync_whose_maker_of_folders_dies_makes_them_whole() {
    let world = World::new();
    world.server().deliver("INBOX", U1, &body("one"));
    world.server().make_folder("Made");
    kill_while_folders_are_made(&world, End::Client);
}

/// Cuts the link after `first`, `first + step` … bytes, until the run comes through unharmed.
fn cuts(from: End, first: u64, step: usize) {
    let (world, wanted) = prepared();
    let mut hits = 0;
    for bytes in (first..).step_by(step) {
        let cut = Cut { from, bytes };
        let run = cut.run(&world, world.client().sync());
        assert!(!run.stderr.contains("panicked"), "{cut:?}: {}", run.stderr);
        if run.code == Some(0) {
            break;
        }
        hits += 1;
        let code = if from == End::Agent && bytes < 25 {
            run.code
        } else {
            Some(75)
        };
        assert_eq!(run.code, code, "a lost link is temporary: {cut:?} {run:?}");
        assert_recovers(&world, &wanted, &format!("{cut:?}"));
        world.load("ready");
    }
    println!("{hits} cuts");
    assert!(hits >= 5, "only {hits} cuts hit");
}

#[test]
fn the_link_cut_after_any_byte_from_the_agent_recovers() {
    cuts(End::Agent, 0, 701);
}

#[test]
fn the_link_cut_after_any_byte_from_the_client_recovers() {
    cuts(End::Client, 0, 701);
}

#[test]
#[ignore = "the full sweep takes long"]
fn the_link_cut_after_every_byte_from_the_agent_recovers() {
    cuts(End::Agent, 0, 1);
}

#[test]
#[ignore = "the full sweep takes long"]
fn the_link_cut_after_every_byte_from_the_client_recovers() {
    cuts(End::Client, 0, 1);
}

/// Spoils every `step`-th byte of one direction in a run of its own.
fn flips(from: End, step: usize) {
    let world = ready();
    let whole = world.client().sync().run().ok();
    let bytes = whole.figure(&[if from == End::Agent {
        "bytes_received"
    } else {
        "bytes_sent"
    }]);
    let wanted = Snapshot::of(world.server());
    world.load("ready");
    let mut unnoticed = String::new();
    for at in (0..bytes).step_by(step) {
        let flip = Flip { from, at };
        let run = flip.run(&world, world.client().sync());
        assert!(!run.stderr.contains("panicked"), "{flip:?}: {}", run.stderr);
        let noticed = matches!(run.code, Some(1 | 75)) && !run.stderr.is_empty();
        if !noticed {
            unnoticed += &format!("{flip:?}: exit {:?} {}\n", run.code, run.stderr);
        }
        assert_recovers(&world, &wanted, &format!("{flip:?}"));
        world.load("ready");
    }
    assert!(
        unnoticed.is_empty(),
        "spoilt bytes of {bytes} that were no error:\n{unnoticed}"
    );
}

/// I9: what is spoilt on the way is an error, never a change of mail.
#[test]
fn a_spoilt_byte_from_the_agent_is_an_error() {
    flips(End::Agent, 907);
}

#[test]
fn a_spoilt_byte_from_the_client_is_an_error() {
    flips(End::Client, 907);
}

#[test]
#[ignore = "the full sweep takes long"]
fn every_spoilt_byte_is_an_error() {
    flips(End::Agent, 1);
    flips(End::Client, 1);
}

/// A kill, then a kill in the recovery from it, and so on: no fault is the last one.
#[test]
fn faults_in_the_recovery_from_faults_recover() {
    let (world, wanted) = prepared();
    for round in 1..12 {
        for (end, call) in [
            (End::Client, "renameat2"),
            (End::Agent, "fdatasync"),
            (End::Client, "pwrite64"),
            (End::Agent, "renameat2"),
        ] {
            let _ = Kill {
                end,
                call,
                nth: round,
            }
            .run(&world, world.client().sync());
        }
        assert_recovers(
            &world,
            &wanted,
            &format!("four kills, each at call {round}"),
        );
        world.load("ready");
    }
}

/// Pull and push are as safe as sync.
#[test]
fn pull_and_push_killed_in_the_middle_recover() {
    let (world, wanted) = prepared();
    for command in ["pull", "push"] {
        for nth in (1..40).step_by(4) {
            for (end, call) in [
                (End::Client, "renameat2"),
                (End::Agent, "renameat2"),
                (End::Client, "fdatasync"),
            ] {
                let kill = Kill { end, call, nth };
                let _ = kill.run(&world, world.client().pair(command));
                assert_recovers(&world, &wanted, &format!("{command} with {kill:?}"));
                world.load("ready");
            }
        }
    }
}
