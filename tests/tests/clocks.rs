//! Clocks that are wrong for a while (C67): what is kept for some days is kept for days that passed.

use std::path::{Path, PathBuf};

use harness::snapshot::holds_bytes;
use harness::{Run, Tree, World, body};

use crate::first_sync::name;

/// Nothing here needs more.
const MESSAGES: usize = 45;

fn synced() -> World {
    let world = World::new();
    for number in 0..MESSAGES {
        let bytes = body(&format!("message {number}"));
        world.server().store("INBOX", &name(number), "S", &bytes);
    }
    let _ = world.client().sync().run().ok();
    world
}

/// A sync of both ends by a clock that says something else; monotonic clocks go on.
fn sync_at(world: &World, time: &str) -> Run {
    let clock = ["faketime", "--exclude-monotonic", "-f", time];
    let run = world
        .client()
        .sync()
        .under(&clock)
        .args(&["--max-delete", "100%"]);
    run.run().ok()
}

/// The side where the user acts, and where the trash of the other lies.
fn sides(world: &World, at_server: bool) -> (&Tree, PathBuf) {
    if at_server {
        (world.server(), world.client().state())
    } else {
        (world.local(), world.server_state())
    }
}

fn is_kept(state: &Path, number: usize) -> bool {
    holds_bytes(state, &body(&format!("message {number}")))
}

#[test]
fn a_clock_that_is_ahead_or_at_1970_empties_no_trash() {
    for at_server in [false, true] {
        let world = synced();
        let (tree, state) = sides(&world, at_server);
        let times = [
            "+0d",
            "+4000d",
            "+0d",
            "@1970-01-02 00:00:00",
            "+1d",
            "+4000d",
            "+4001d",
            "+2d",
        ];
        for (number, time) in times.into_iter().enumerate() {
            tree.delete("INBOX", &name(number));
            let run = sync_at(&world, time);
            assert_eq!(
                run.here("deleted") + run.there("deleted"),
                1,
                "{}",
                run.stdout
            );
            for earlier in 0..=number {
                assert!(
                    is_kept(&state, earlier),
                    "{earlier} is gone by a run at {time}"
                );
            }
        }
    }
}

#[test]
fn a_trash_is_cleared_when_its_days_have_passed() {
    for at_server in [false, true] {
        let world = synced();
        let (tree, state) = sides(&world, at_server);
        for day in 0..33 {
            tree.delete("INBOX", &name(day));
            let _ = sync_at(&world, &format!("+{day}d"));
            assert!(is_kept(&state, 0) || day >= 30, "it is gone on day {day}");
        }
        assert!(!is_kept(&state, 0), "it is still there after 32 days");
        assert!(is_kept(&state, 5) && is_kept(&state, 32));
    }
}
