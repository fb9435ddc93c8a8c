//! `hooks.post`: once no lock is held, one at a time, not for ever, and again when it failed.

use std::fs;

use harness::world::agent_command;
use harness::{Invocation, Run, World, body};

/// A world whose client has a hook.
fn hooked(hook: &str, more: &str) -> World {
    let world = World::new();
    let _ = world.client().sync().run().ok();
    world.server().deliver("INBOX", "1.M.mx", &body("one"));
    set(&world, hook, more);
    world
}

fn set(world: &World, hook: &str, more: &str) {
    world.client().configure(&format!(
        "[account.home]\nremote = {:?}\nlocal = {:?}\nserver_command = {:?}\nhooks.post = '''{hook}'''\n{more}\n",
        world.server().root(),
        world.local().root(),
        agent_command(&world.server_state()),
    ));
}

fn command(world: &World, command: &str) -> Invocation {
    let state = world.client().state().display().to_string();
    let words = [command, "home", "--json", "--state-dir", &state];
    world.client().bare(&words)
}

fn sync(world: &World) -> Run {
    command(world, "sync").run().ok()
}

fn told(world: &World) -> Vec<String> {
    let told = fs::read(world.client().home().join("told")).expect("the hook ran");
    let told = String::from_utf8(told).expect("UTF-8");
    told.split_terminator('\0').map(str::to_owned).collect()
}

/// C75: a hook that hangs is killed with what it started; the run is none the worse, and nobody's lock was held.
#[test]
fn a_hook_that_hangs_is_killed_and_the_run_is_none_the_worse() {
    let world = hooked("sleep 600 & sleep 600", "hooks.timeout = \"2s\"");
    let run = sync(&world);
    assert_eq!(run.here("new"), 1);
    let _ = run.says("hooks.post took over 2 s and was killed");
    world.assert_same();
}

/// A hook may sync itself: no lock is held while it runs.
#[test]
fn no_lock_is_held_while_a_hook_runs() {
    let world = hooked("", "");
    let program = harness::world::client_program();
    let state = world.client().state();
    let hook = format!(
        "{} status home --state-dir {1} > ~/status; {0} sync home --state-dir {1} 2> ~/said || echo failed >> ~/said",
        program.display(),
        state.display()
    );
    set(&world, &hook, "");
    let run = sync(&world);
    assert_eq!(run.here("new"), 1);
    let said = fs::read_to_string(world.client().home().join("said")).expect("the hook ran");
    assert_eq!(said, "", "the run within the hook got every lock");
    assert_eq!(run.stderr, "");
}

/// A failure is a warning, `status` tells of it, and the next run's hook is told the same and what came since, once.
#[test]
fn a_failed_hook_is_told_by_status_and_told_again() {
    let world = hooked("cat >> ~/told; exit 3", "");
    let run = sync(&world);
    let _ = run.says("hooks.post failed with status 3");
    let status = command(&world, "status").run().ok();
    let hook = status.json.as_ref().and_then(|json| json.get("hook"));
    let hook = hook
        .and_then(|hook| hook.as_str())
        .unwrap_or_default()
        .to_owned();
    assert!(
        hook.contains("failed with status 3") && hook.contains("1 changed path"),
        "{hook}"
    );
    let text = world.client().bare(&["status", "home", "--state-dir"]);
    let text = text.arg(world.client().state()).run().ok();
    assert!(
        text.stdout.contains("failed with status 3"),
        "{}",
        text.stdout
    );
    // Nothing changes, and yet it is told.
    set(&world, "cat > ~/told; exit 4", "");
    let _ = sync(&world).says("hooks.post failed with status 4");
    let first = told(&world);
    assert!(
        matches!(&first[..], [path] if path.contains("1.M.mx")),
        "{first:?}"
    );
    world.server().deliver("INBOX", "2.M.mx", &body("two"));
    set(&world, "cat > ~/told; env > ~/env", "");
    assert_eq!(sync(&world).stderr, "");
    let both = told(&world);
    assert!(
        matches!(&both[..], [one, two] if one.contains("1.M.mx") && two.contains("2.M.mx")),
        "{both:?}"
    );
    let env = fs::read_to_string(world.client().home().join("env")).expect("the hook ran");
    for line in [
        "MAILDIR_SYNC_ACCOUNT=home",
        "MAILDIR_SYNC_NEW=2",
        "MAILDIR_SYNC_CHANGED=0",
        "MAILDIR_SYNC_DELETED=0",
        "MAILDIR_SYNC_EXIT=0",
    ] {
        assert!(env.lines().any(|other| other == line), "{line}: {env}");
    }
    let run = env
        .lines()
        .find_map(|line| line.strip_prefix("MAILDIR_SYNC_RUN="));
    assert!(run.is_some_and(|run| run.len() == 16), "{env}");
    fs::remove_file(world.client().home().join("told")).expect("it is there");
    let _ = sync(&world).idle();
    assert!(
        !world.client().home().join("told").exists(),
        "it is told once"
    );
    let status = command(&world, "status").run().ok();
    assert_eq!(
        status.json.expect("an object")["hook"],
        serde_json::Value::Null
    );
}

/// A dry run runs no hook, not even one that failed before.
#[test]
fn a_dry_run_runs_no_hook() {
    let world = hooked("cat > ~/told; exit 1", "");
    let _ = sync(&world).says("hooks.post failed");
    fs::remove_file(world.client().home().join("told")).expect("the hook ran");
    let _ = command(&world, "sync").arg("-n").run().ok();
    assert!(!world.client().home().join("told").exists());
}
