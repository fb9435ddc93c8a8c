//! Bodies on their way: each is its writer's own (C71), arrives in its folder, and what another program put under a name in
//! the meantime keeps it (C74).

use std::fs;

use harness::faults::Held;
use harness::snapshot::holds_bytes;
use harness::world::agent_command;
use harness::{World, body, bulky};

use crate::errors::U1;
use crate::leftovers::{killed_in_a_replacement, old};

/// Each is held in the middle of its body while the other one is in the middle of its own; then they end one after the other.
#[test]
fn two_clients_that_send_one_large_message_do_not_touch_each_others() {
    const BYTES: usize = 3 << 20;
    // The second is far behind the first: it would cut what that one has, which then left a hole.
    const HELD_AT: [u64; 2] = [2 << 20, 512 << 10];
    for first in [0, 1] {
        let world = World::with_clients(2);
        let bytes = bulky("large", BYTES);
        for client in world.clients() {
            client.tree().create();
            let _ = client.sync().run().ok();
            client.tree().store("INBOX", U1, "S", &bytes);
        }
        let agent = agent_command(&world.server_state());
        let start = |client: usize| {
            let held = Held::new(&world, &format!("{first}-{client}"));
            let command = held.sending(HELD_AT[client], &agent);
            let run = world.nth(client).push().through(&command).start();
            held.wait_until_held();
            (held, run)
        };
        let mut runs: Vec<_> = (0..2).map(|client| Some(start(client))).collect();
        for client in [first, 1 - first] {
            let (held, run) = runs[client].take().expect("it was started");
            held.release();
            let done = run.wait();
            assert!(matches!(done.code, Some(0 | 3)), "{done:?}");
        }
        world.server().assert_holds("INBOX", U1, &bytes);
        for client in world.clients() {
            let _ = client.sync().run().ok();
            client.tree().assert_holds("INBOX", U1, &bytes);
        }
        let cur = world.server().dir("INBOX").join("cur");
        assert_eq!(harness::tree::files(&cur).len(), 1);
    }
}

/// A run was killed when another program's file had come out of an exchange: that one is no old version.
#[test]
fn another_programs_file_in_tmp_gets_its_place_back() {
    let (world, left) = killed_in_a_replacement();
    let foreign = body("another program's");
    fs::write(left.with_extension("other"), &foreign).expect("it is written");
    fs::rename(left.with_extension("other"), &left).expect("it is renamed");
    world.give_away();
    let _ = world.client().pull().run();
    assert!(!left.exists(), "it lies in tmp");
    assert!(holds_bytes(world.local().root(), &foreign), "it is no mail");
    let _ = world.client().sync().run();
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert!(
        holds_bytes(world.server().root(), &foreign),
        "it is not lost"
    );
    assert!(
        !holds_bytes(&world.client().state(), &old()),
        "that one was not here"
    );
}

/// A first pull writes each body on its folder's disk; a killed run's are found again there.
#[test]
fn what_a_killed_pull_left_in_any_folder_goes() {
    use harness::faults::{End, Kill};
    let world = World::new();
    for number in 0..6 {
        let folder = format!("Folder{number}");
        world.server().store(&folder, U1, "S", &body(&folder));
    }
    let mut left = 0;
    for nth in 1..=12 {
        let kill = Kill {
            end: End::Client,
            call: "renameat2",
            nth,
        };
        let _ = kill.run(&world, world.client().pull());
        let found = harness::snapshot::everything(world.local().root());
        let in_tmp =
            |path: &&std::path::PathBuf| path.parent().is_some_and(|dir| dir.ends_with("tmp"));
        left += found.keys().filter(in_tmp).count();
    }
    assert!(left > 0, "nothing was left in any tmp");
    let _ = world.client().pull().run().ok();
    world.assert_same();
}
