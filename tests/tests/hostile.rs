//! Another end that means no good, or is broken: what it says is checked, told and bounded (I9, C87).

use harness::world::{agent_command, twisting};
use harness::{Snapshot, World, body};

use crate::first_sync::{fill, name};

/// The agent of a world, whose words are changed on the way.
fn lying(world: &World, lies: &str) -> String {
    twisting(lies, &agent_command(&world.server_state()))
}

#[test]
fn bodies_of_other_bytes_are_told_by_name_and_nothing_of_them_is_delivered() {
    const COUNT: usize = 30;
    for (command, lie) in [
        ("pull", "other-bodies"),
        ("pull", "long-bodies"),
        ("pull", "short-bodies"),
        ("push", "other-uploads"),
        ("push", "long-uploads"),
        ("push", "short-uploads"),
    ] {
        let world = World::new();
        world.local().create();
        let (from, to) = match command {
            "pull" => (world.server(), world.local()),
            _ => (world.local(), world.server()),
        };
        fill(from, "INBOX", 0..COUNT);
        // A large one is collected elsewhere.
        from.store(
            "INBOX",
            &name(COUNT),
            "S",
            &harness::bulky("large", 3_000_000),
        );
        let run = world.client().pair(command).through(&lying(&world, lie));
        let run = run.run().exits(3);
        assert_eq!(run.figure(&["skipped"]), COUNT as u64 + 1, "{lie}");
        for number in 0..=COUNT {
            let told = run.stdout.contains(&name(number));
            assert!(told, "{lie}: {} is not named", name(number));
        }
        assert_eq!(Snapshot::of(to).messages.len(), 0, "{lie}");
        let run = world.client().pair(command).run().ok();
        assert_eq!(
            run.done(),
            COUNT as u64 + 1,
            "{lie}: the next run asks again"
        );
        world.assert_same();
    }
}

/// C87: at the size at which it was seen: counted by folder, and nothing of them is delivered.
#[test]
fn hundreds_of_bodies_of_other_bytes_are_counted_by_folder() {
    for (command, lie) in [("pull", "other-bodies"), ("push", "other-uploads")] {
        let world = World::new();
        world.local().create();
        let (from, to) = match command {
            "pull" => (world.server(), world.local()),
            _ => (world.local(), world.server()),
        };
        fill(from, "INBOX", 0..600);
        fill(from, "Lists", 600..800);
        let run = world.client().pair(command).through(&lying(&world, lie));
        let run = run.run().exits(3);
        let side = if command == "pull" { "here" } else { "there" };
        let counts = [("INBOX", 600), ("Lists", 200)];
        let counts = counts.map(|(folder, count)| {
            format!("warning: \"{folder}\" {side}: {count} skipped, -v lists them")
        });
        let lines: Vec<&str> = run.stderr.lines().filter(|line| !line.is_empty()).collect();
        let are_counts = lines
            .iter()
            .zip(&counts)
            .all(|(line, count)| line.ends_with(count));
        assert!(are_counts && lines.len() == 2, "{lie}: {}", run.stderr);
        assert_eq!(run.figure(&["skipped"]), 800, "{lie}");
        assert_eq!(Snapshot::of(to).messages.len(), 0, "{lie}");
    }
}

/// A first sync and a later one with an agent that tells what cannot be; whatever is made of it, nothing is lost.
#[test]
fn nonsense_in_a_list_stops_a_run_at_most_and_loses_nothing() {
    for lie in [
        "huge",
        "twice",
        "ghost",
        "namesakes",
        "huge twice ghost namesakes",
    ] {
        for is_first in [true, false] {
            let world = World::new();
            fill(world.server(), "INBOX", 0..20);
            fill(world.server(), "Lists", 20..40);
            if !is_first {
                let _ = world.client().sync().run().ok();
            }
            world.server().make_folder("Later");
            world
                .server()
                .store("Later", &name(50), "", &body("new there"));
            world.server().set_flags("INBOX", &name(3), "FS");
            world.local().create();
            world
                .local()
                .store("INBOX", &name(60), "", &body("new here"));
            let mark = world.path("told");
            let agent = lying(&world, &format!("{lie} mark={}", mark.display()));
            let run = world.client().sync().through(&agent).run();
            let told = std::fs::read_to_string(&mark).unwrap_or_default();
            // The first of several may end it.
            assert!(
                told.lines().any(|told| lie.contains(told)),
                "{lie} was not told: {run:?}"
            );
            assert!(!run.stderr.contains("panicked"), "{lie}: {}", run.stderr);
            let code = run.code.expect("it ends by itself");
            assert!([0, 1, 3].contains(&code), "{lie}: {run:?}");
            // Who has lied once may leave something behind that only a comparison of everything finds out.
            let _ = world.client().sync().run();
            let _ = world.client().sync().arg("--adopt").run().ok();
            world.assert_same();
            assert_eq!(Snapshot::of(world.server()).messages.len(), 42, "{lie}");
        }
    }
}

#[test]
fn a_body_without_an_end_ends_the_run_and_not_the_memory() {
    let world = World::new();
    fill(world.server(), "INBOX", 0..5);
    let run = world.client().pull();
    let run = run.through(&lying(&world, "endless-bodies")).run().exits(1);
    let run = run.says("than was announced");
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    let _ = world.client().pull().run().ok();
    world.assert_same();
}
