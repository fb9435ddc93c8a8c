//! What goes over the wire (SPEC §6): how often, and never twice.

use harness::faults::{End, flights};
use harness::snapshot::everything;
use harness::world::{agent_command, wrap_program};
use harness::{Cut, Rng, Run, Snapshot, World, body, bulky};

use crate::errors::{U1, U2};
use crate::first_sync::{fill, name};
use crate::scenario;

/// The agent's list needs no question; nothing else is waited for.
const NOTHING_TO_DO: u64 = 1;
/// One round trip more.
const ONE_ROUND_TRIP: u64 = 3;
/// Two round trips more, the most that a run may take.
const TWO_ROUND_TRIPS: u64 = 5;

fn synced(messages: usize) -> World {
    let world = World::new();
    fill(world.server(), "INBOX", 0..messages);
    let _ = world.client().sync().run().ok();
    world
}

#[test]
fn a_run_with_nothing_to_do_takes_no_flight_of_its_own() {
    let world = synced(50);
    for command in ["sync", "pull", "push"] {
        let (count, run) = flights(&world, world.client().pair(command));
        let _ = run.ok().idle();
        assert_eq!(count, NOTHING_TO_DO, "{command}");
    }
    let _ = world.client().sync().run().ok().idle();
}

/// Digits, which hard work makes less than half of, and light work not a byte shorter.
fn digits(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Rng::new(seed).bytes(length);
    bytes.iter_mut().for_each(|byte| *byte = b'0' + *byte % 10);
    bytes
}

/// ssh takes the first megabytes as fast as they come, and when little is left of what is asked for ahead, the sender waits
/// for its peer and not for the pipe: neither makes a slow link a fast one.
#[test]
fn on_a_slow_link_bodies_are_compressed_hard_to_the_end() {
    const LENGTH: usize = 800_000;
    const COUNT: usize = 20;
    for (command, rate) in [("pull", "--rate-down"), ("push", "--rate-up")] {
        let world = World::new();
        let from = match command {
            "pull" => world.server(),
            _ => world.local(),
        };
        from.create();
        for number in 0..COUNT {
            from.store("INBOX", &name(number), "S", &digits(number as u64, LENGTH));
        }
        let wrap = format!(
            "{} {rate} 4000000 -- {}",
            wrap_program().display(),
            agent_command(&world.server_state())
        );
        let run = world.client().pair(command).through(&wrap).run().ok();
        let (bytes, all) = (run.bytes(), (COUNT * LENGTH) as u64);
        assert!(bytes < all / 2, "{command}: {bytes} of {all} bytes");
        world.assert_same();
    }
}

/// What a mail reader does to a tree, and how many flights the next run may take.
type Change = (&'static str, fn(&World), u64);

#[test]
fn a_change_of_any_kind_takes_one_round_trip() {
    let changes: [Change; 7] = [
        (
            "a new message here",
            |world| world.local().deliver("INBOX", U1, &body("new here")),
            ONE_ROUND_TRIP,
        ),
        (
            "a new message there",
            |world| world.server().deliver("INBOX", U2, &body("new there")),
            ONE_ROUND_TRIP,
        ),
        (
            "a flag here",
            |world| world.local().set_flags("INBOX", &name(1), "FS"),
            ONE_ROUND_TRIP,
        ),
        (
            "a flag there",
            |world| world.server().set_flags("INBOX", &name(11), "FS"),
            ONE_ROUND_TRIP,
        ),
        (
            "a deletion here",
            |world| world.local().delete("INBOX", &name(2)),
            ONE_ROUND_TRIP,
        ),
        (
            "an edit there",
            |world| world.server().edit("INBOX", &name(3), &body("edited")),
            ONE_ROUND_TRIP,
        ),
        (
            "a message in a new folder here",
            |world| world.local().store("Fresh", U2, "S", &body("fresh")),
            ONE_ROUND_TRIP,
        ),
    ];
    let world = synced(50);
    for (what, change, wanted) in changes {
        change(&world);
        let (count, run) = flights(&world, world.client().sync());
        let run = run.ok();
        assert!(run.done() > 0, "{what}: {}", run.stdout);
        assert!(count <= wanted, "{what} took {count} flights");
        world.assert_same();
    }
}

/// Rows of every kind at once; a first pull; an index that was lost; a message that was cut short.
#[test]
fn no_run_takes_more_than_two_round_trips() {
    let scenario = scenario::ready();
    let first = World::new();
    fill(first.server(), "INBOX", 0..1_500);
    let lost = synced(100);
    lost.local().set_flags("INBOX", &name(4), "FS");
    lost.server().delete("INBOX", &name(5));
    harness::world::remove_dir(&lost.server_state());
    let cut_short = World::new();
    cut_short
        .server()
        .store("INBOX", U1, "S", &bulky("whole", 4_000));
    let _ = cut_short.client().sync().run().ok();
    cut_short
        .local()
        .edit("INBOX", U1, &bulky("whole", 4_000)[..1_000]);
    let flags = synced(1_900);
    for number in 0..1_900 {
        flags.local().set_flags("INBOX", &name(number), "FS");
    }
    for (what, world) in [
        ("every row", scenario),
        ("a first pull", first),
        ("a lost index", lost),
        ("damage", cut_short),
        ("many flags", flags),
    ] {
        let (count, run) = flights(&world, world.client().sync());
        assert!(run.code == Some(0) && run.done() > 0, "{what}: {run:?}");
        assert!(count <= TWO_ROUND_TRIPS, "{what} took {count} flights");
        world.assert_same();
    }
}

/// A message over 1 MiB, of which about three quarters go over the wire compressed.
const LARGE_BYTES: usize = 16 << 20;
const LARGE_WIRE: u64 = (LARGE_BYTES as u64) * 3 / 4;
/// What may be sent once more: what was on its way in buffers, pipes and frames when the link broke.
const LOST_MAX: u64 = 3 << 20;

fn bytes_of(run: &Run, from: End) -> u64 {
    run.figure(&[if from == End::Agent {
        "bytes_received"
    } else {
        "bytes_sent"
    }])
}

/// A run that carries a large message breaks off after two thirds of it.
fn broken_off(from: End) -> World {
    let world = World::new();
    world.local().create();
    let tree = if from == End::Agent {
        world.server()
    } else {
        world.local()
    };
    tree.store("INBOX", U1, "S", &bulky("large", LARGE_BYTES));
    let cut = Cut {
        from,
        bytes: LARGE_WIRE * 2 / 3,
    };
    let _ = cut.run(&world, world.client().sync()).exits(75);
    world
}

/// C31: a large message that breaks off goes on where it was, in either direction.
#[test]
fn a_large_message_goes_on_where_it_broke_off() {
    for from in [End::Agent, End::Client] {
        let world = broken_off(from);
        for side in [world.server(), world.local()] {
            assert!(
                Snapshot::of(side).rubbish.is_empty(),
                "part of a message lies in tmp"
            );
        }
        let run = world.client().sync().run().ok();
        let sent = bytes_of(&run, from);
        assert!(
            sent < LARGE_WIRE / 3 + LOST_MAX,
            "{from:?} sent {sent} bytes although two thirds of {LARGE_WIRE} had gone over"
        );
        world.assert_same();
        assert_eq!(
            partials(&world),
            0,
            "what was kept for later stays for ever"
        );
        let _ = world.client().sync().run().ok().idle();
    }
}

/// A large message that comes fast is written once only; what has come of it when the link breaks is kept all the same.
#[test]
fn a_large_message_that_came_fast_goes_on_where_it_broke_off() {
    const BYTES: usize = 4 << 20;
    let world = World::new();
    world.local().create();
    world
        .server()
        .store("INBOX", U1, "S", &bulky("large", BYTES));
    let cut = Cut {
        from: End::Agent,
        bytes: BYTES as u64 / 2,
    };
    let _ = cut.run(&world, world.client().sync()).exits(75);
    assert_eq!(partials(&world), 1, "nothing was kept");
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(partials(&world), 0);
}

/// What is left of it may be spoilt: then it is sent anew, and never taken for the message.
#[test]
fn a_spoilt_part_of_a_large_message_is_sent_again() {
    for from in [End::Agent, End::Client] {
        let world = broken_off(from);
        let mut spoilt = 0;
        for path in everything(&world.path(""))
            .into_keys()
            .filter(|path| is_partial(path))
        {
            let mut bytes = std::fs::read(&path).expect("part can be read");
            bytes[1_000] ^= 1;
            std::fs::write(&path, bytes).expect("part is spoilt");
            spoilt += 1;
        }
        assert_eq!(spoilt, 1, "a part was kept");
        let _ = world.client().sync().run().exits(3);
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(Snapshot::of(world.server()).messages.len(), 1);
        assert_eq!(partials(&world), 0);
    }
}

/// The message changed before the run went on: what had come of its old bytes is of no use, and does no harm.
#[test]
fn a_large_message_that_changed_meanwhile_comes_whole() {
    for from in [End::Agent, End::Client] {
        let world = broken_off(from);
        let tree = if from == End::Agent {
            world.server()
        } else {
            world.local()
        };
        let edited = bulky("large, edited", LARGE_BYTES / 8);
        tree.edit("INBOX", U1, &edited);
        let _ = world.client().sync().run().ok();
        world.assert_same();
        world.server().assert_holds("INBOX", U1, &edited);
    }
}

fn is_partial(path: &std::path::Path) -> bool {
    let dir = path.parent().and_then(|dir| dir.file_name());
    dir.is_some_and(|dir| dir == "partial")
}

fn partials(world: &World) -> usize {
    everything(&world.path(""))
        .keys()
        .filter(|path| is_partial(path))
        .count()
}

/// A run that has only flags to tell costs a few bytes for each.
#[test]
fn a_flag_costs_few_bytes() {
    let world = synced(500);
    for number in 0..100 {
        world.local().set_flags("INBOX", &name(number), "FS");
    }
    let run = world.client().sync().run().ok();
    assert_eq!(run.there("flags"), 100);
    assert!(
        run.bytes() < 100 * 50,
        "{} bytes for 100 flags",
        run.bytes()
    );
}
