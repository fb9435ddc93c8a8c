//! Hooks: once no lock is held, one at a time, not for ever, and again when they failed; what each of them is told.

use std::collections::BTreeSet;
use std::fs;

use harness::world::agent_command;
use harness::{Invocation, Run, World, body};
use serde_json::{Value, json};

/// A world whose client has a hook.
fn hooked(hook: &str, more: &str) -> World {
    let world = World::new();
    let _ = world.client().sync().run().ok();
    world.server().deliver("INBOX", "1.M.mx", &body("one"));
    set(&world, hook, more);
    world
}

fn set(world: &World, hook: &str, more: &str) {
    configure(world, &format!("hooks.post = '''{hook}'''\n{more}"));
}

fn configure(world: &World, hooks: &str) {
    let agent = agent_command(&world.server_state());
    let (remote, local) = (world.server().root(), world.local().root());
    world.client().configure(&format!(
        "[account.home]\nremote = {remote:?}\nlocal = {local:?}\nserver_command = {agent:?}\n{hooks}\n"
    ));
}

/// What a hook wrote into a file of its home, which is removed; nothing if there is none.
fn taken(world: &World, name: &str) -> String {
    let path = world.client().home().join(name);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    text
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

/// Nothing is connected yet; whatever else it does the run begins, but for 75.
#[test]
fn the_hook_before_a_run_may_say_not_now() {
    let world = World::new();
    let _ = world.client().sync().run().ok();
    world.server().deliver("INBOX", "1.M.mx", &body("one"));
    let program = harness::world::client_program();
    let state = world.client().state();
    let (program, state) = (program.display(), state.display());
    // It may sync itself, and is not run for that.
    let nested = format!("{program} sync home --state-dir {state} >/dev/null || echo failed");
    let pre = |command: &str| {
        let failure = "hooks.failure = 'cat >~/failures'";
        format!("{failure}\nhooks.pre = '''echo pre >>~/told; {command}'''")
    };
    configure(&world, &pre("exit 75"));
    let run = command(&world, "sync").run().exits(75);
    let run = run.says("hooks.pre says not now").says_one_sentence();
    assert_eq!(run.bytes(), 0);
    assert_eq!(taken(&world, "told"), "pre\n");
    // As with a pause nothing failed: nothing is remembered of it, and nobody is told.
    let status = command(&world, "status").run().ok();
    assert_eq!(status.json.expect("an object")["error"], Value::Null);
    assert_eq!(taken(&world, "failures"), "");
    configure(&world, &pre("exit 3"));
    let run = sync(&world).says("hooks.pre failed with status 3");
    assert_eq!(run.here("new"), 1);
    world.server().deliver("INBOX", "2.M.mx", &body("two"));
    configure(&world, &pre(&format!("{nested} >>~/told")));
    assert_eq!(sync(&world).idle().stderr, "", "that one brought it");
    assert_eq!(taken(&world, "told"), "pre\npre\n");
    let _ = command(&world, "sync").arg("-n").run().ok();
    assert_eq!(taken(&world, "told"), "");
    world.assert_same();
}

/// Messages that are new here and unseen, wherever they lie; with the numbers of the run.
#[test]
fn the_hook_for_new_mail_hears_of_what_is_unseen() {
    let world = World::new();
    let server = world.server();
    server.deliver("INBOX", "1.M.mx", &body("one"));
    server.store("Lists", "2.M.mx", "", &body("two"));
    server.store("INBOX", "3.M.mx", "S", &body("three"));
    let tell = "hooks.new = '''cat >~/told; echo $MAILDIR_SYNC_NEW >~/count'''";
    configure(&world, &format!("hooks.format = \"records\"\n{tell}"));
    let _ = sync(&world);
    let record = |folder: &str, unique: &str| {
        let path = world.local().path(folder, unique);
        format!("new\0{folder}\0{}\0\0", path.display())
    };
    let told_of = [record("INBOX", "1.M.mx"), record("Lists", "2.M.mx")];
    let text = taken(&world, "told");
    assert!(told_of.iter().all(|one| text.contains(one)), "{text:?}");
    assert_eq!(text.len(), told_of.concat().len(), "{text:?}");
    assert_eq!(taken(&world, "count"), "3\n");
    server.set_flags("INBOX", "1.M.mx", "S");
    server.store("INBOX", "4.M.mx", "FS", &body("four"));
    let _ = sync(&world);
    assert_eq!(taken(&world, "told"), "", "nothing unseen is new");
    server.store("INBOX", "5.M.mx", "F", &body("five"));
    let _ = sync(&world);
    assert_eq!(taken(&world, "told"), record("INBOX", "5.M.mx"));
}

/// What happened, in which folder, under which path, and what that was before.
#[test]
fn a_hook_gets_records_or_json() {
    let world = World::new();
    let server = world.server();
    for number in 1..=4 {
        let unique = format!("{number}.M.mx");
        server.store("INBOX", &unique, "", &body(&unique));
    }
    server.make_folder("Lists");
    let _ = world.client().sync().run().ok();
    let local = world.local();
    let old = |number: u32| {
        local
            .path("INBOX", &format!("{number}.M.mx"))
            .display()
            .to_string()
    };
    let [flagged, moved, gone] = [1, 2, 3].map(old);
    let change = || {
        server.set_flags("INBOX", "1.M.mx", "S");
        server.rename("INBOX", "2.M.mx", "Lists", "2.M.mx");
        server.delete("INBOX", "3.M.mx");
        server.make_folder("Work");
    };
    configure(
        &world,
        "hooks.format = \"records\"\nhooks.post = \"cat >~/told; false\"",
    );
    change();
    let _ = sync(&world).says("hooks.post failed");
    let now = |folder: &str, unique: &str| local.path(folder, unique).display().to_string();
    let told_of = [
        ["flags", "INBOX", &now("INBOX", "1.M.mx"), &flagged],
        ["move", "Lists", &now("Lists", "2.M.mx"), &moved],
        ["delete", "INBOX", &gone, ""],
        [
            "make-folder",
            "Work",
            &local.dir("Work").display().to_string(),
            "",
        ],
    ];
    let text = taken(&world, "told");
    for fields in &told_of {
        assert!(
            text.contains(&format!("{}\0", fields.join("\0"))),
            "{fields:?}: {text:?}"
        );
    }
    assert_eq!(text.matches('\0').count(), 4 * told_of.len(), "{text:?}");
    // What failed is told again, in whatever form is wanted then.
    configure(
        &world,
        "hooks.format = \"json\"\nhooks.post = \"cat >~/told\"",
    );
    let _ = sync(&world).idle();
    let text = taken(&world, "told");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    assert_eq!(lines.len(), told_of.len(), "{text}");
    for [operation, folder, path, old] in told_of {
        let old = Some(old).filter(|old| !old.is_empty());
        let object =
            json!({ "operation": operation, "folder": folder, "path": path, "old_path": old });
        assert!(lines.contains(&object), "{object}: {text}");
    }
}

/// Each conflict that the summary tells, once, with where the message lies afterwards.
#[test]
fn the_hook_for_conflicts_hears_of_each_once() {
    let world = World::new();
    world.server().store("INBOX", "1.M.mx", "S", &body("one"));
    for folder in ["A", "B"] {
        world.server().make_folder(folder);
    }
    let _ = world.client().sync().run().ok();
    world.server().rename("INBOX", "1.M.mx", "A", "1.M.mx");
    world.local().rename("INBOX", "1.M.mx", "B", "1.M.mx");
    let tell = "hooks.format = \"records\"\nhooks.conflict = \"cat >~/told\"";
    configure(&world, tell);
    let run = sync(&world);
    assert_eq!(run.conflicts(), 1);
    let path = world.local().path("A", "1.M.mx");
    assert_eq!(
        taken(&world, "told"),
        format!("moved\0A\0{}\0\0", path.display())
    );
    let _ = sync(&world).idle();
    assert_eq!(taken(&world, "told"), "");
    world.assert_same();
}

/// One report when a series of failures begins, one when it ends.
#[test]
fn the_hook_for_failures_hears_of_the_first_and_of_the_recovery() {
    let world = World::new();
    let tell = "hooks.format = \"records\"\nhooks.failure = '''cat >~/told; echo $MAILDIR_SYNC_EXIT >~/exit'''";
    configure(&world, tell);
    let _ = sync(&world);
    assert_eq!(taken(&world, "told"), "", "all is well");
    let root = world.server().root();
    let away = root.with_extension("away");
    fs::rename(root, &away).expect("the server's disk is away");
    let local = world.local().root().display().to_string();
    let _ = command(&world, "sync").run().exits(4);
    assert_eq!(taken(&world, "told"), format!("failed\0\0{local}\0\0"));
    assert_eq!(taken(&world, "exit"), "4\n");
    let _ = command(&world, "sync").run().exits(4);
    assert_eq!(taken(&world, "told"), "", "it is known");
    fs::rename(&away, root).expect("it is back");
    let _ = sync(&world);
    assert_eq!(taken(&world, "told"), format!("recovered\0\0{local}\0\0"));
    let _ = sync(&world);
    assert_eq!(taken(&world, "told"), "");
}

/// Much of it is kept while the run goes on, and told once, with the numbers of all.
#[test]
fn a_hook_hears_of_all_that_a_long_run_brought() {
    let world = World::new();
    for number in 0..1200 {
        let unique = format!("{number:04}.M.mx");
        world.server().store("INBOX", &unique, "", &body(&unique));
    }
    configure(
        &world,
        "hooks.new = '''cat >~/told; echo $MAILDIR_SYNC_NEW >~/count'''",
    );
    assert_eq!(sync(&world).here("new"), 1200);
    let told: BTreeSet<String> = told(&world).into_iter().collect();
    let inbox = world.local().dir("INBOX").join("cur");
    let lie_there: BTreeSet<String> = harness::tree::files(&inbox)
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    assert_eq!((told.len(), &told), (1200, &lie_there));
    assert_eq!(taken(&world, "count"), "1200\n");
}

/// What was over before a hook could be told of it is no news: a person interrupts a run, and the next one is fine.
#[test]
fn the_hook_for_failures_hears_nothing_of_a_run_that_was_interrupted() {
    let world = World::new();
    let _ = world.client().sync().run().ok();
    let tell = "hooks.failure = \"cat >~/told\"";
    configure(
        &world,
        &format!("{tell}\nhooks.pre = \"kill -TERM $PPID; sleep 600\""),
    );
    let run = command(&world, "sync").run().exits(75);
    let _ = run.says("hooks.failure is run after the next run");
    configure(&world, tell);
    let _ = sync(&world);
    assert_eq!(taken(&world, "told"), "");
    let status = command(&world, "status").run().ok();
    assert_eq!(status.json.expect("an object")["hook"], Value::Null);
}

/// One that hangs costs the next ones nothing but their time.
#[test]
fn each_hook_is_run_whatever_becomes_of_the_others() {
    let world = hooked(
        "exit 3",
        "hooks.new = \"cat >~/told; sleep 600\"\nhooks.timeout = \"1s\"",
    );
    let run = sync(&world).says("hooks.post failed with status 3");
    let _ = run.says("hooks.new took over 1 s and was killed");
    let status = command(&world, "status").run().ok();
    let hook = status.json.expect("an object")["hook"].to_string();
    assert!(hook.contains("1 changed path; hooks.new"), "{hook}");
    assert!(hook.contains("with 1 new message"), "{hook}");
}
