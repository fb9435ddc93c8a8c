//! `pause` and `resume`: runs that do not begin, and what is said meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::{Invocation, World, body};
use serde_json::Value;

use crate::errors::U1;

fn command(world: &World, words: &[&str]) -> Invocation {
    let state = world.client().state();
    let command = world.client().bare(words);
    command.arg("--state-dir").arg(state)
}

fn paused(world: &World) -> Value {
    let status = world.client().pair("status").found_beside().run().ok();
    status.json.expect("JSON was printed")["paused"].clone()
}

/// Nothing is connected, nothing is remembered as failed; a look is no run.
#[test]
fn a_run_that_is_paused_connects_nothing_and_says_how_to_go_on() {
    let world = World::new();
    let _ = world.client().sync().run().ok();
    world.server().store("INBOX", U1, "S", &body("one"));
    let said = command(&world, &["pause"]).run().ok();
    assert!(said.stdout.contains("until `maildir-sync resume`"));
    for run in [
        world.client().sync(),
        world.client().pull(),
        world.client().push(),
    ] {
        let run = run.through("echo never >&2; false").run().exits(75);
        let run = run.says("ago, until `maildir-sync resume`");
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
    let looked = world.client().sync().arg("-n").run().ok();
    assert_eq!(looked.here("new"), 1);
    assert!(paused(&world)["since"].as_u64().is_some());
    let remote = world.server().root().display().to_string();
    let local = world.local().root().display().to_string();
    let text = command(&world, &["status", &remote, &local]).run().ok();
    assert!(text.stdout.contains("healthy") && text.stdout.contains("Paused"));
    let said = command(&world, &["resume"]).run().ok();
    assert_eq!(said.stdout, "Not paused any more; the next run goes on\n");
    assert_eq!(paused(&world), Value::Null);
    assert_eq!(world.client().sync().run().ok().here("new"), 1);
    let said = command(&world, &["resume"]).run().ok();
    assert_eq!(said.stdout, "Nothing is paused\n");
}

#[test]
fn the_newer_of_two_pauses_counts_and_one_that_is_over_is_none() {
    let world = World::new();
    let _ = world.client().sync().run().ok();
    let _ = command(&world, &["pause"]).run().ok();
    let said = command(&world, &["pause", "2h", "--json"]).run().ok();
    let json = said.json.expect("JSON was printed");
    let times = ["since", "until"].map(|key| json["paused"][key].as_u64().expect("a time"));
    assert_eq!(times[1] - times[0], 7200);
    let _ = world.client().sync().run().exits(75).says("for another ");
    let file = world.client().state().join("paused");
    let mode = fs::metadata(&file).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    fs::write(&file, r#"{"since":1000,"until":8200}"#).expect("of long ago");
    let _ = world.client().sync().run().ok();
    assert_eq!(paused(&world), Value::Null);
}

#[test]
fn a_pause_is_no_span_without_a_unit() {
    let world = World::new();
    let run = command(&world, &["pause", "2"]).run().exits(2);
    let _ = run.says("write 30s, 10m, 1h or 1d");
    assert!(!world.client().state().exists());
}
