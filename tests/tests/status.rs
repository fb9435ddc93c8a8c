//! `status`: offline, it tells how the last attempt ended, also where no connection came about, and what waits and why.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::world::agent_command;
use harness::{Mount, Run, World, body};
use serde_json::Value;

use crate::errors::{U1, waiting};

#[track_caller]
fn status(world: &World) -> Run {
    world.client().pair("status").found_beside().run()
}

/// The same for people.
fn status_text(world: &World) -> Run {
    let state = world.client().state().display().to_string();
    let remote = world.server().root().display().to_string();
    let local = world.local().root().display().to_string();
    let words = ["status", "--state-dir", &state, &remote, &local];
    world.client().bare(&words).run()
}

fn value<'r>(run: &'r Run, pointer: &str) -> &'r Value {
    let json = run.json.as_ref().expect("JSON was printed");
    json.pointer(pointer).unwrap_or(&Value::Null)
}

/// C78: whatever ends with another code than 0 and 3 makes the account unhealthy, with its sentence, until it is mended.
#[track_caller]
fn assert_failed(world: &World, exit: u64, sentence: &str) {
    let run = status(world).exits(1);
    assert_eq!(
        value(&run, "/last_attempt/exit").as_u64(),
        Some(exit),
        "{}",
        run.stdout
    );
    assert_eq!(value(&run, "/healthy"), false);
    assert!(
        value(&run, "/failing_since").as_u64().is_some(),
        "{}",
        run.stdout
    );
    let said = value(&run, "/error")
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(said.contains(sentence), "{said}");
    let text = status_text(world).exits(1).stdout;
    let how = match (exit, value(&run, "/plan").is_null()) {
        (4, false) => "was refused by the guard",
        (4, true) => "was refused for the mail's safety",
        (2, _) => "could not begin",
        _ => "failed",
    };
    let count = text.matches(sentence).count();
    assert_eq!(count, 1, "said once: {text}");
    assert!(
        text.contains("not healthy") && text.contains(sentence),
        "{text}"
    );
    assert!(
        text.contains(&format!(" ago, {how} (exit {exit}): ")),
        "{text}"
    );
}

/// What cannot be read is not taken for an account that never ran.
#[test]
fn a_state_directory_that_cannot_be_read_is_said() {
    let world = World::unprivileged();
    world.server().store("INBOX", U1, "S", &body("one"));
    world.give_away();
    let _ = world.client().sync().run().ok();
    let state = world.client().state();
    for closed in [state.clone(), state.join("addresses")] {
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("it is closed");
        let run = status(&world).exits(1);
        let said = value(&run, "/error")
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            said.contains("Cannot read") && said.contains("addresses"),
            "{said}"
        );
        assert!(said.contains("Permission denied"), "{said}");
        let text = status_text(&world).exits(1).stdout;
        assert!(
            text.contains(&said) && !text.contains("never synced"),
            "{text}"
        );
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("it is opened");
    }
    let _ = status(&world).exits(0);
}

#[test]
fn an_account_that_never_ran_is_said_so() {
    let world = World::new();
    let run = status(&world).exits(1);
    assert!(run.stdout.contains("never synced"), "{}", run.stdout);
    assert_eq!(value(&run, "/last_attempt"), &Value::Null);
    let _ = world.client().pull().arg("-n").run().ok();
    let run = status(&world).exits(1);
    assert_eq!(
        value(&run, "/last_attempt"),
        &Value::Null,
        "a dry run is no attempt"
    );
}

#[test]
fn a_refused_guard_is_not_healthy_until_it_is_answered() {
    let world = World::new();
    for number in 0..60 {
        let name = format!("{number}.M.mx");
        world.server().store("INBOX", &name, "S", &body(&name));
    }
    let _ = world.client().sync().run().ok();
    let _ = status(&world).ok();
    for number in 0..55 {
        world.local().delete("INBOX", &format!("{number}.M.mx"));
    }
    let plan = world.client().sync().run().exits(4).plan();
    assert_failed(&world, 4, &format!("--confirm {plan}"));
    let run = status(&world);
    assert_eq!(value(&run, "/plan"), &plan.as_str());
    assert_eq!(run.pending(), 55, "{}", run.stdout);
    let text = status_text(&world).stdout;
    assert!(
        text.contains("55 deletions wait: the guard asks first"),
        "{text}"
    );
    let wrong = ["--confirm", "0123456789ab"];
    let _ = world.client().sync().args(&wrong).run().exits(2);
    let run = status(&world).exits(1);
    assert_eq!(value(&run, "/plan"), &plan.as_str(), "it still stands");
    let text = status_text(&world).exits(1).stdout;
    assert!(
        text.contains("could not begin (exit 2)") && text.contains(&format!("--confirm {plan}")),
        "{text}"
    );
    let _ = world.client().sync().args(&["--confirm", &plan]).run().ok();
    let run = status(&world).ok();
    assert_eq!(
        (run.pending(), value(&run, "/failing_since")),
        (0, &Value::Null)
    );
}

#[test]
fn a_missing_root_a_refused_connection_and_a_wrong_account_are_not_healthy() {
    let world = waiting();
    let synced = status(&world).ok();
    let _ = world
        .client()
        .sync()
        .through("/no/such/agent")
        .run()
        .exits(1);
    assert_failed(&world, 1, "is not installed");
    let since = status(&world);
    let last = value(&since, "/last_sync").as_u64();
    assert_eq!(
        last,
        value(&synced, "/last_sync").as_u64(),
        "the last success stays"
    );
    let moved = world.path("elsewhere");
    std::fs::rename(world.server().root(), &moved).expect("is moved");
    let _ = world.client().sync().run().exits(4);
    assert_failed(&world, 4, "is missing although it was synced before");
    let again = status(&world);
    assert_eq!(
        value(&again, "/failing_since"),
        value(&since, "/failing_since"),
        "it has been failing since the first of them"
    );
    std::fs::rename(&moved, world.server().root()).expect("is moved back");
    let moved = world.path("elsewhere, too");
    std::fs::rename(world.local().root(), &moved).expect("is moved");
    let _ = world.client().sync().run().exits(4);
    assert_failed(&world, 4, "is missing although it was synced before");
    std::fs::rename(&moved, world.local().root()).expect("is moved back");
    let _ = world.client().sync().run().ok();
    let _ = status(&world).ok();
    let inside = world.server().root().join("inside");
    let other = world.client().reaching(inside, None);
    let tree = harness::Tree::at(
        world.server().root().to_owned(),
        harness::tree::Layout::MaildirPlusPlus,
    );
    let other = other.with_tree(&tree);
    let _ = other.sync().run().exits(2);
    let run = other.pair("status").run().exits(1);
    assert_eq!(value(&run, "/last_attempt/exit"), 2, "{}", run.stdout);
    assert!(
        run.stdout.contains("one inside the other"),
        "{}",
        run.stdout
    );
}

#[test]
fn a_first_connection_that_was_refused_is_remembered_too() {
    let world = World::new();
    let _ = world
        .client()
        .pull()
        .through("/no/such/agent")
        .run()
        .exits(1);
    assert_failed(&world, 1, "is not installed");
    let text = status_text(&world).stdout;
    assert!(text.contains("never synced to the end"), "{text}");
}

/// Where the attempt itself cannot be remembered, an older one does not say that all is well.
#[test]
fn a_state_that_cannot_be_written_is_not_healthy() {
    let world = World::new();
    let Some(disk) = Mount::in_memory(&world.client().state(), 3_000) else {
        return;
    };
    world.server().store("INBOX", U1, "S", &body("one"));
    let _ = world.client().sync().run().ok();
    let _ = status(&world).ok();
    let filler = world.client().state().join("filler");
    let _ = std::fs::write(&filler, vec![7; 4 << 20]);
    world.server().store("INBOX", "8.M.mx", "S", &body("eight"));
    let _ = world.client().sync().run().exits(1);
    let _ = status(&world).exits(1);
    std::fs::remove_file(&filler).expect("room is made");
    let _ = world.client().sync().run().ok();
    let _ = status(&world).ok();
    disk.remount("ro");
    let _ = world.client().sync().run().exits(1);
    let run = status(&world).exits(1);
    assert!(run.stdout.contains("can only be read"), "{}", run.stdout);
}

/// What waits has its reason in words, in the summary and in `status`.
#[test]
fn what_waits_has_its_reason() {
    let world = waiting();
    let agent = agent_command(&world.server_state());
    let table = [
        (
            "sync",
            format!("{agent} --read-only"),
            None,
            "the key is read-only",
        ),
        (
            "sync",
            format!("{agent} --append-only"),
            None,
            "the key is append-only",
        ),
        ("pull", agent.clone(), None, "pull changes nothing there"),
        (
            "sync",
            format!("{agent} --no-delete"),
            Some(U1),
            "1 deletion waits: the key may not delete",
        ),
        (
            "sync",
            agent.clone(),
            Some("--no-delete"),
            "1 deletion waits: nothing is to be deleted (--no-delete)",
        ),
    ];
    for (command, agent, extra, why) in table {
        if extra == Some(U1) {
            world.local().delete("INBOX", U1);
        }
        let option = extra.filter(|extra| extra.starts_with('-'));
        let mut invocation = world.client().pair(command).through(&agent);
        if let Some(option) = option {
            invocation = invocation.arg(option);
        }
        let run = invocation.arg("-v").run().ok();
        let waiting = value(&run, "/waiting").to_string();
        let short = why.split(": ").last().unwrap_or(why);
        assert!(waiting.contains(short), "{command} {agent}: {waiting}");
        let told = status(&world).ok();
        assert_eq!(value(&told, "/waiting"), value(&run, "/waiting"));
        assert_eq!(told.pending(), run.pending());
        let text = status_text(&world).ok().stdout;
        assert!(text.contains(why), "{why}: {text}");
    }
}

#[test]
fn what_was_skipped_stands_in_status_with_its_reason() {
    let world = waiting();
    std::os::unix::fs::symlink("/etc/passwd", world.server().root().join("cur/9.link:2,S"))
        .expect("a link is made");
    let run = world.client().sync().run().exits(3);
    let why = value(&run, "/skipped/0/why")
        .as_str()
        .expect("a reason")
        .to_owned();
    let _ = world.client().sync().run().ok();
    let run = status(&world).ok();
    assert_eq!(value(&run, "/healthy"), true, "{}", run.stdout);
    assert_eq!(value(&run, "/skipped/0/why"), &why.as_str());
    let text = status_text(&world).ok().stdout;
    assert!(text.contains(&why) && text.contains("9.link"), "{text}");
    assert!(!text.contains("attempt"), "3 is no failure: {text}");
}
