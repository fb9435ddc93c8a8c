//! Over a real sshd on loopback: a key of its own with a forced command and `restrict`, and what goes wrong there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use harness::faults::Held;
use harness::snapshot::everything;
use harness::sshd::Login;
use harness::tree::files;
use harness::world::agent_program;
use harness::{Client, Run, Snapshot, Sshd, Watch, World, body, bulky};
use serde_json::Value;

const U1: &str = "1700000001.M1P1.mx,S=20";
const U2: &str = "1700000002.M2P1.mx,S=20";
const U3: &str = "1700000003.M3P1.mx,S=20";

fn world() -> World {
    let world = World::new();
    for (unique, label) in [(U1, "one"), (U2, "two"), (U3, "three")] {
        world.server().store("INBOX", unique, "S", &body(label));
    }
    world
}

/// A world with an sshd that forces the agent, and the client that goes through it.
fn over_ssh(options: &str) -> (World, Sshd, Client) {
    let world = world();
    let sshd = Sshd::start(&world, &Login::agent(&world, options));
    let client = sshd.client(world.client(), "");
    (world, sshd, client)
}

#[test]
fn pull_push_and_sync_go_through_a_forced_command() {
    let (world, _sshd, client) = over_ssh("");
    let run = client.pull().run().ok();
    assert_eq!(run.here("new"), 3, "{}", run.stdout);
    world.assert_same();
    world.local().set_flags("INBOX", U1, "FS");
    let run = client.push().run().ok();
    assert_eq!(run.there("flags"), 1, "{}", run.stdout);
    world.assert_same();
    world.local().delete("INBOX", U2);
    world.server().deliver("Work", "4.M.mx", &body("four"));
    let run = client.sync().run().ok();
    assert_eq!(
        (run.here("new"), run.there("deleted")),
        (1, 1),
        "{}",
        run.stdout
    );
    world.assert_same();
    let _ = client.sync().run().ok().idle();
}

#[test]
fn a_run_with_nothing_to_do_costs_under_a_kilobyte_each_way() {
    let (world, _sshd, client) = over_ssh("");
    for number in 0..500 {
        world.server().store(
            &format!("Lists/l{}", number % 40),
            &format!("{number}.M.mx"),
            "S",
            &body(&number.to_string()),
        );
    }
    let _ = client.sync().run().ok();
    let run = client.sync().run().ok().idle();
    assert!(
        run.figure(&["bytes_sent"]) < 1024 && run.figure(&["bytes_received"]) < 1024,
        "{}",
        run.stdout
    );
}

/// SPEC §8: a machine that wakes up has no network yet. What says so is that it has slept for longer than it had at the last attempt.
#[test]
fn a_run_after_a_sleep_of_this_machine_waits_for_the_network() {
    let (world, sshd, client) = over_ssh("");
    let _ = client.sync().run().ok();
    let sshd = sshd.refuse();
    let _ = client.sync().run().exits(75).says("Connection refused");
    wake_up(&client);
    world.local().set_flags("INBOX", U1, "FS");
    let mut run = Watch::invoke(client.sync().arg("-v"));
    let _ = run.says("This machine has slept: its network is waited for");
    let _sshd = sshd.start();
    assert_eq!(run.wait(), Some(0));
    assert_eq!(world.server().flags("INBOX", U1), "FS");
}

/// Lets what is remembered of the last attempt be of before a sleep.
fn wake_up(client: &Client) {
    let mut changed = 0;
    for path in files(&client.state().join("addresses")) {
        if path.as_os_str().as_encoded_bytes().ends_with(b"-last") {
            let text = fs::read(&path).expect("it is there");
            let mut last: Value = serde_json::from_slice(&text).expect("JSON");
            let slept = last["suspended"].as_i64().expect("seconds");
            last["suspended"] = (slept - 60).into();
            fs::write(&path, last.to_string()).expect("it is changed");
            changed += 1;
        }
    }
    assert_eq!(changed, 1, "one attempt");
}

#[test]
fn a_path_that_is_the_forced_root_is_fine_and_another_is_refused() {
    let (world, sshd, client) = over_ssh("");
    let root = world.server().root().display().to_string();
    let _ = sshd.client(world.client(), &root).sync().run().ok();
    let before = (Snapshot::of(world.server()), Snapshot::of(world.local()));
    for other in ["/etc", "Other", "../../etc"] {
        let run = sshd.client(world.client(), other).sync().run().exits(2);
        let _ = run.says(&root).says(other).says_one_sentence();
    }
    harness::assert_untouched(&before.0, world.server(), "a refused path");
    harness::assert_untouched(&before.1, world.local(), "a refused path");
    let _ = client.sync().run().ok();
}

#[test]
fn an_ordinary_login_names_the_path_and_the_agent() {
    let world = world();
    let sshd = Sshd::start(&world, &Login::Shell);
    let agent = harness::world::agent_command(&world.server_state());
    let root = world.server().root().display().to_string();
    let client = sshd
        .client(world.client(), &root)
        .reaching(format!("mailhost:{root}"), Some(agent));
    let _ = client.sync().run().ok();
    world.assert_same();
    let _ = client
        .sync()
        .remote(format!("ssh://mailhost{root}"))
        .run()
        .ok()
        .idle();
}

/// Names of folders and paths never reach the login shell as code.
#[test]
fn a_path_with_shell_characters_is_only_a_path() {
    let world = world();
    let sshd = Sshd::start(&world, &Login::Shell);
    let agent = harness::world::agent_command(&world.server_state());
    let strange = world.path("server/$(touch owned); `touch owned` 'x\" *");
    fs::rename(world.server().root(), &strange).expect("root is renamed");
    let remote = format!("mailhost:{}", strange.display());
    let client = sshd
        .client(world.client(), "")
        .reaching(remote, Some(agent));
    let _ = client.sync().run().ok();
    assert_eq!(Snapshot::of(world.local()).messages.len(), 3);
    let home = std::env::var("HOME").unwrap_or_else(|_| "/".into());
    for place in [world.client().home(), Path::new(&home)] {
        assert!(!place.join("owned").exists(), "a path was executed");
    }
}

#[test]
fn a_missing_agent_is_named_with_the_remedy() {
    let world = world();
    let sshd = Sshd::start(&world, &Login::Shell);
    let root = world.server().root().display().to_string();
    let before = Snapshot::of(world.server());
    let client = sshd
        .client(world.client(), &root)
        .reaching(format!("mailhost:{root}"), Some("/nowhere/agent".into()));
    let _ = client
        .sync()
        .run()
        .exits(1)
        .says("/nowhere/agent")
        .says("install")
        .says_one_sentence();
    harness::assert_untouched(&before, world.server(), "a run without an agent");
}

#[test]
fn a_forced_command_that_is_not_there_is_named() {
    let world = world();
    let sshd = Sshd::start(
        &world,
        &Login::Forced("/nowhere/maildir-sync-server --root /x".into()),
    );
    let _ = sshd
        .client(world.client(), "")
        .sync()
        .run()
        .exits(1)
        .says("maildir-sync-server")
        .says_one_sentence();
}

/// C38: the key leads to something else.
#[test]
fn a_forced_command_that_is_another_program_is_quoted() {
    let world = world();
    let sshd = Sshd::start(
        &world,
        &Login::Forced("echo You have 3 new voice messages".into()),
    );
    let _ = sshd
        .client(world.client(), "")
        .sync()
        .run()
        .exits(1)
        .says("3 new voice messages")
        .says_one_sentence();
}

/// C37.
#[test]
fn a_banner_before_the_agent_is_passed_over() {
    let (world, sshd, client) = over_ssh("");
    let Login::Forced(agent) = Login::agent(&world, "") else {
        unreachable!("it forces the agent")
    };
    sshd.allow(&Login::Forced(format!(
        "echo Welcome to mailhost; echo Have fun; {agent}"
    )));
    let _ = client.sync().run().ok();
    world.assert_same();
}

#[test]
fn a_key_that_is_not_accepted_is_said() {
    let (world, sshd, client) = over_ssh("");
    fs::write(world.path("sshd/authorized_keys"), "").expect("key is withdrawn");
    let run = client.sync().run().exits(1).says_one_sentence();
    let _ = run.says("mailhost").says("denied").says("check the key");
    sshd.allow(&Login::agent(&world, ""));
    let _ = client.sync().run().ok();
}

#[test]
fn a_key_file_that_others_may_read_is_named_with_the_remedy() {
    let (world, sshd, client) = over_ssh("");
    let key = sshd.key();
    let mode = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("mode");
    mode(0o644);
    let run = client.sync().run().exits(1).says_one_sentence();
    let _ = run.says(&format!("chmod 600 {}", key.display()));
    mode(0o600);
    let _ = client.sync().run().ok();
    world.assert_same();
}

#[test]
fn an_unknown_host_key_is_said() {
    let (world, _sshd, client) = over_ssh("");
    fs::write(world.path("sshd/known_hosts"), "").expect("host is forgotten");
    let run = client.sync().run().exits(1).says_one_sentence();
    let _ = run.says("host key").says("not known yet");
}

#[test]
fn a_key_given_with_i_is_used() {
    let (world, sshd, client) = over_ssh("");
    let config = sshd.config();
    let text = fs::read_to_string(&config).expect("config is there");
    let without: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("IdentityFile"))
        .collect();
    fs::write(&config, without.join("\n")).expect("config is written");
    let run = client.sync().env("SSH_AUTH_SOCK", "").run();
    assert_ne!(run.code, Some(0), "there is no key to log in with: {run:?}");
    let _ = client.sync().arg("-i").arg(sshd.key()).run().ok();
    world.assert_same();
}

fn account(world: &World, sshd: &Sshd, more: &str) {
    world.client().configure(&format!(
        "[account.home]\nremote = \"mailhost:\"\nlocal = \"{}\"\nssh_config = \"{}\"\n{more}\n",
        world.local().root().display(),
        sshd.config().display()
    ));
}

fn by_account(world: &World, command: &str) -> Run {
    let state = world.client().state().display().to_string();
    world
        .client()
        .bare(&[command, "home", "--json", "--state-dir", &state])
        .run()
}

#[test]
fn persist_keeps_one_connection_for_several_runs() {
    let (world, sshd, _) = over_ssh("");
    account(&world, &sshd, "persist = \"10m\"");
    for round in 0..4 {
        world.server().deliver(
            "INBOX",
            &format!("{round}.P.mx"),
            &body(&format!("persist {round}")),
        );
        let run = by_account(&world, "sync").ok();
        assert!(run.here("new") >= 1, "{}", run.stdout);
        world.assert_same();
    }
    assert_eq!(sshd.logins(), 1, "four runs, one login");
}

/// A dry run writes nothing, and a control socket is something.
#[test]
fn a_dry_run_keeps_no_connection() {
    let (world, sshd, _) = over_ssh("");
    account(&world, &sshd, "persist = \"10m\"");
    let dry = world.client().bare(&["sync", "-n", "home", "--json"]);
    let run = dry.run().ok();
    assert!(run.here("new") >= 1, "{}", run.stdout);
    let left = everything(&world.client().home().join("run"));
    let files = left.keys().filter(|path| !path.is_dir());
    assert_eq!(files.count(), 0, "a control socket stays: {left:?}");
    let _ = by_account(&world, "sync").ok();
    assert_eq!(sshd.logins(), 2, "there was none to be used");
}

#[test]
fn without_persist_every_run_logs_in_and_leaves_nothing_behind() {
    let (world, sshd, client) = over_ssh("");
    for _ in 0..2 {
        let _ = client.sync().run().ok();
    }
    assert_eq!(sshd.logins(), 2);
    let left: Vec<_> = harness::tree::files(&world.client().home().join("run"));
    let sockets = left.iter().filter(|path| !path.is_dir()).count();
    assert_eq!(sockets, 0, "a control socket stays: {left:?}");
}

/// C36: a kept connection that died is noticed, and the run connects anew.
#[test]
fn a_kept_connection_that_died_is_replaced() {
    let (world, sshd, _) = over_ssh("");
    account(&world, &sshd, "persist = \"10m\"");
    let _ = by_account(&world, "sync").ok();
    drop(sshd);
    let run = by_account(&world, "sync");
    assert_eq!(run.code, Some(75), "the server is gone: {run:?}");
    let sshd = Sshd::start(&world, &Login::agent(&world, ""));
    world.server().deliver("INBOX", "9.M.mx", &body("nine"));
    let _ = by_account(&world, "sync").ok();
    world.assert_same();
    assert_eq!(sshd.logins(), 1);
}

/// The agent ends with the connection; the next run goes on.
#[test]
fn a_client_killed_in_the_middle_leaves_no_agent_behind() {
    let world = world();
    for number in 0..100 {
        world.server().store(
            "INBOX",
            &format!("{number}.M.mx"),
            "S",
            &bulky(&format!("bulky {number}"), 20_000),
        );
    }
    let alive = harness::faults::Alive::new(&world);
    let held = Held::new(&world, "ssh");
    let Login::Forced(agent) = Login::agent(&world, "") else {
        unreachable!("it forces the agent")
    };
    let forced = held.command(400_000, &alive.wrap("", &agent));
    let sshd = Sshd::start(&world, &Login::Forced(forced));
    let client = sshd.client(world.client(), "");
    let running = client.sync().start();
    held.wait_until_held();
    running.kill();
    held.release();
    let _ = running.wait();
    alive.wait_for_end();
    sshd.allow(&Login::agent(&world, ""));
    let _ = client.sync().run().ok();
    world.assert_same();
    let _ = client.sync().run().ok().idle();
}

/// The server goes away in the middle: temporary, and nothing is broken.
#[test]
fn a_server_that_dies_in_the_middle_is_temporary() {
    let world = world();
    for number in 0..100 {
        world.server().store(
            "INBOX",
            &format!("{number}.M.mx"),
            "S",
            &bulky(&format!("bulky {number}"), 20_000),
        );
    }
    let held = Held::new(&world, "ssh");
    let Login::Forced(agent) = Login::agent(&world, "") else {
        unreachable!("it forces the agent")
    };
    let sshd = Sshd::start(&world, &Login::Forced(held.command(400_000, &agent)));
    let running = sshd.client(world.client(), "").sync().start();
    held.wait_until_held();
    drop(sshd);
    let done = running.wait();
    assert_eq!(done.code, Some(75), "{done:?}");
    let sshd = Sshd::start(&world, &Login::agent(&world, ""));
    let _ = sshd.client(world.client(), "").sync().run().ok();
    world.assert_same();
}

/// Changes of every kind on the client, of which the agent's rights let some through.
fn change(world: &World) {
    world.local().deliver("INBOX", "4.M.mx", &body("four"));
    world.local().make_folder("Fresh");
    world.local().set_flags("INBOX", U1, "FS");
    world.local().delete("INBOX", U2);
    world.local().edit("INBOX", U3, &body("three, edited"));
}

/// What rights hold back is pending, is counted, is neither undone nor an error, and goes through when allowed again.
fn rights(option: &str) -> (World, Sshd, Client, Run) {
    let (world, sshd, client) = over_ssh("");
    let _ = client.sync().run().ok();
    change(&world);
    let before = Snapshot::of(world.local());
    sshd.allow(&Login::agent(&world, option));
    world.server().deliver("INBOX", "5.M.mx", &body("five"));
    let run = client.sync().run().ok();
    assert!(
        world.local().has("INBOX", "5.M.mx"),
        "pulling is always allowed"
    );
    let after = Snapshot::of(world.local());
    assert_eq!(
        after.messages.len(),
        before.messages.len() + 1,
        "nothing is undone here"
    );
    let again = client.sync().run().ok().idle();
    assert_eq!(
        again.pending(),
        run.pending(),
        "it stays pending: {}",
        again.stdout
    );
    (world, sshd, client, run)
}

fn allowed_again(world: &World, sshd: &Sshd, client: &Client) {
    sshd.allow(&Login::agent(world, ""));
    let _ = client.sync().run().ok();
    world.assert_same();
    world
        .server()
        .assert_holds("INBOX", U3, &body("three, edited"));
    assert!(!world.server().has("INBOX", U2));
    assert_eq!(client.sync().run().ok().idle().pending(), 0);
}

#[test]
fn read_only_lets_nothing_through() {
    let (world, sshd, client, run) = rights("--read-only");
    assert!(run.pending() >= 4, "{}", run.stdout);
    assert!(!world.server().has("INBOX", "4.M.mx") && !world.server().has_folder("Fresh"));
    assert_eq!(world.server().flags("INBOX", U1), "S");
    assert!(world.server().has("INBOX", U2));
    world.server().assert_holds("INBOX", U3, &body("three"));
    allowed_again(&world, &sshd, &client);
}

#[test]
fn append_only_lets_new_messages_and_folders_through() {
    let (world, sshd, client, run) = rights("--append-only");
    assert!(run.pending() >= 3, "{}", run.stdout);
    assert!(world.server().has("INBOX", "4.M.mx") && world.server().has_folder("Fresh"));
    assert_eq!(world.server().flags("INBOX", U1), "S");
    assert!(world.server().has("INBOX", U2));
    world.server().assert_holds("INBOX", U3, &body("three"));
    allowed_again(&world, &sshd, &client);
}

#[test]
fn no_delete_lets_all_but_deletions_through() {
    let (world, sshd, client, run) = rights("--no-delete");
    assert_eq!(run.pending(), 1, "{}", run.stdout);
    assert!(world.server().has("INBOX", "4.M.mx") && world.server().has_folder("Fresh"));
    assert_eq!(world.server().flags("INBOX", U1), "FS");
    assert!(world.server().has("INBOX", U2));
    world
        .server()
        .assert_holds("INBOX", U3, &body("three, edited"));
    allowed_again(&world, &sshd, &client);
}

/// `restrict` and the forced command leave nothing else to do with the key.
#[test]
fn the_key_gives_no_shell() {
    let (world, sshd, _) = over_ssh("");
    let secret = world.path("stolen");
    let mut command = std::process::Command::new("ssh");
    command
        .arg("-F")
        .arg(sshd.config())
        .args(["mailhost", "touch"])
        .arg(&secret);
    let done = harness::process::run(command, harness::process::LIMIT);
    assert_ne!(done.code, Some(0));
    assert!(
        !secret.exists() && !done.stderr.contains("panicked"),
        "{done:?}"
    );
}

/// The agent is the one that the suite built, not one that happens to be installed.
#[test]
fn the_agent_of_the_suite_is_used() {
    let (world, _sshd, client) = over_ssh("");
    assert!(agent_program().is_absolute() && !world.server_state().exists());
    let _ = client.sync().run().ok();
    world.assert_same();
    assert!(
        world.server_state().join("replicas").is_dir(),
        "the agent keeps its state where its command line says"
    );
}

/// The sshd of the suite itself: a login runs the forced command and is counted.
#[test]
fn the_private_sshd_runs_what_is_forced() {
    let world = World::new();
    let sshd = Sshd::start(
        &world,
        &Login::Forced("echo hello \\\"$SSH_ORIGINAL_COMMAND\\\"".into()),
    );
    let mut command = std::process::Command::new("ssh");
    command
        .arg("-F")
        .arg(sshd.config())
        .args(["mailhost", "word"]);
    let done = harness::process::run(command, harness::process::LIMIT);
    assert_eq!(
        (done.code, &*done.stdout),
        (Some(0), &b"hello word\n"[..]),
        "{done:?}"
    );
    assert_eq!(sshd.logins(), 1);
}
