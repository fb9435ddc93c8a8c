//! Bad input: one sentence that names the thing, the right exit code, nothing changed on either side.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use harness::snapshot::{assert_nothing_written, everything};
use harness::world::{agent_command, agent_program};
use harness::{Invocation, Run, World, body};

pub(crate) const U1: &str = "1700000001.M1P1.mx,S=20";
pub(crate) const U2: &str = "1700000002.M2P1.mx,S=20";
pub(crate) const U3: &str = "1700000003.M3P1.mx,S=20";

/// A synced pair with a change waiting on each side, so that a run that should not start would show.
pub(crate) fn waiting() -> World {
    let world = World::new();
    for (unique, label) in [(U1, "one"), (U2, "two"), (U3, "three")] {
        world.server().store("INBOX", unique, "S", &body(label));
    }
    let _ = world.client().sync().run().ok();
    world.local().set_flags("INBOX", U1, "FS");
    world.server().delete("INBOX", U2);
    world
}

pub(crate) type Everything = BTreeMap<PathBuf, String>;

pub(crate) fn both(world: &World) -> (Everything, Everything) {
    (
        everything(world.server().root()),
        everything(world.local().root()),
    )
}

/// Runs what must fail, and checks all that every failure has in common.
#[track_caller]
fn fails(world: &World, invocation: Invocation, codes: &[i32], naming: &[&str]) -> Run {
    let before = both(world);
    let run = invocation.run();
    assert_nothing_written(&before.0, world.server().root());
    assert_nothing_written(&before.1, world.local().root());
    assert!(
        run.code.is_some_and(|code| codes.contains(&code)),
        "exit should be one of {codes:?}: {run:?}"
    );
    naming
        .iter()
        .fold(run.says_one_sentence(), |run, text| run.says(text))
}

#[test]
fn an_unknown_account_is_met_with_a_suggestion() {
    let world = waiting();
    let remote = world.server().root().display().to_string();
    world.client().configure(&format!(
        "[account.home]\nremote = \"{remote}\"\nlocal = \"~/Maildir\"\n"
    ));
    let _ = fails(
        &world,
        world.client().bare(&["sync", "hmoe"]),
        &[2],
        &["hmoe", "did you mean", "home"],
    );
    let _ = fails(
        &world,
        world.client().bare(&["status", "hmoe"]),
        &[2],
        &["hmoe", "did you mean", "home"],
    );
}

#[test]
fn bad_toml_is_named_with_its_line() {
    let world = waiting();
    world
        .client()
        .configure("[account.home]\nlocal = \"~/Maildir\"\nremote = \"no end\n");
    let _ = fails(
        &world,
        world.client().bare(&["sync"]),
        &[2],
        &["config.toml", "line 3"],
    );
}

#[test]
fn an_unknown_key_is_met_with_a_suggestion() {
    let world = waiting();
    world.client().configure(
        "[account.home]\nremote = \"h:M\"\nlocal = \"~/Maildir\"\nexlude = [\"Junk\"]\n",
    );
    let _ = fails(
        &world,
        world.client().bare(&["sync"]),
        &[2],
        &["exlude", "line 4", "exclude"],
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_named_with_its_line() {
    let world = waiting();
    world.client().configure(
        "[account.home]\nremote = \"h:M\"\nlocal = \"~/Maildir\"\nmax_delete = \"lots\"\n",
    );
    let _ = fails(
        &world,
        world.client().bare(&["sync"]),
        &[2],
        &["max_delete", "line 4"],
    );
}

#[test]
fn a_config_file_that_was_named_must_be_there() {
    let world = waiting();
    let invocation = world
        .client()
        .bare(&["sync", "--config", "/nowhere/config.toml"]);
    let _ = fails(&world, invocation, &[2], &["/nowhere/config.toml"]);
}

#[test]
fn an_unknown_option_is_a_usage_error() {
    let world = waiting();
    let run = world.client().sync().arg("--delete-everything").run();
    let _ = run.exits(2).says("--delete-everything");
}

#[test]
fn a_missing_remote_root_is_named() {
    let world = waiting();
    let nowhere = world.path("server/Nowhere");
    let name = nowhere.display().to_string();
    for command in ["sync", "pull", "push"] {
        let invocation = World::client(&world)
            .with_tree(&fresh_tree(&world))
            .pair(command)
            .remote(&nowhere);
        let _ = fails(
            &world,
            invocation,
            &[1],
            &[&name, "does not exist", "mkdir"],
        );
        assert!(!nowhere.exists(), "it must not be made");
    }
}

/// A local tree that has met no server yet.
fn fresh_tree(world: &World) -> harness::Tree {
    let tree = harness::Tree::at(world.path("c0/Fresh"), harness::Layout::MaildirPlusPlus);
    if !tree.root().exists() {
        tree.create();
    }
    tree
}

#[test]
fn a_file_instead_of_a_root_is_named() {
    let world = waiting();
    let file = world.path("server/file");
    fs::write(&file, "no directory").expect("file is written");
    let name = file.display().to_string();
    let client = world.client().with_tree(&fresh_tree(&world));
    let _ = fails(
        &world,
        client.sync().remote(&file),
        &[1],
        &[&name, "not a directory"],
    );
}

#[test]
fn another_path_than_the_forced_root_is_named_with_it() {
    let world = waiting();
    let root = world.server().root().display().to_string();
    let agent = format!("{} --root {root}", agent_command(&world.server_state()));
    let other = world.path("server/Other");
    let name = other.display().to_string();
    let _ = fails(
        &world,
        world.client().sync().through(&agent).remote(&other),
        &[2],
        &[&name, &root],
    );
    let _ = world.client().sync().through(&agent).run().ok();
}

#[test]
fn a_missing_agent_is_named() {
    let world = waiting();
    let invocation = world
        .client()
        .sync()
        .through("/nowhere/maildir-sync-server");
    let _ = fails(&world, invocation, &[1], &["/nowhere/maildir-sync-server"]);
}

#[test]
fn an_agent_that_is_another_program_is_quoted() {
    let world = waiting();
    let _ = fails(
        &world,
        world.client().sync().through("echo no-such-service-here"),
        &[1],
        &["no-such-service-here"],
    );
    let _ = fails(
        &world,
        world.client().sync().through("true"),
        &[1],
        &["maildir-sync-server"],
    );
}

/// C37.
#[test]
fn noise_before_the_agent_is_passed_over() {
    let world = waiting();
    for noise in [
        "Welcome.to.host\n",
        "\u{1b}[2J\u{1b}[31mcolours\r\n",
        &"x".repeat(60_000),
    ] {
        let script = script(
            &world,
            noise,
            &format!("exec {} \"$@\"", agent_command(&world.server_state())),
        );
        let _ = world.client().sync().through(&script).run().ok();
        world.assert_same();
        world.local().set_flags(
            "INBOX",
            U1,
            if world.local().flags("INBOX", U1) == "S" {
                "FS"
            } else {
                "S"
            },
        );
    }
}

/// C38: a shell instead of the agent.
#[test]
fn noise_without_an_agent_is_quoted_and_escaped() {
    let world = waiting();
    let script = script(&world, "This account is closed\u{1b}[31m", "exit 0");
    let run = fails(
        &world,
        world.client().sync().through(&script),
        &[1],
        &["This account is closed"],
    );
    assert!(
        !run.stderr.contains('\u{1b}'),
        "control characters are escaped: {:?}",
        run.stderr
    );
}

#[test]
fn endless_noise_is_given_up_on() {
    let world = waiting();
    let run = fails(&world, world.client().sync().through("yes"), &[1], &[]);
    assert!(
        run.stderr.len() < 4_000,
        "it quotes a little: {} bytes",
        run.stderr.len()
    );
}

fn script(world: &World, noise: &str, then: &str) -> String {
    let path = world.path("agent.sh");
    let noise_file = world.path("noise");
    fs::write(&noise_file, noise).expect("noise is written");
    fs::write(
        &path,
        format!("#!/bin/sh\ncat {}\n{then}\n", noise_file.display()),
    )
    .expect("script is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("script may be run");
    path.display().to_string()
}

/// The greeting of another version is made from the agent's own: the last four bytes are its version range.
#[test]
fn another_protocol_version_is_named() {
    let world = waiting();
    let greeting = greeting(&world);
    let mut future = greeting.clone();
    let at = future.len() - 4;
    future[at..].copy_from_slice(&[0xe7, 3, 0xe8, 3]);
    fs::write(world.path("future"), future).expect("greeting is written");
    let path = world.path("agent.sh");
    fs::write(
        &path,
        format!(
            "#!/bin/sh\ncat {}\ncat >/dev/null\n",
            world.path("future").display()
        ),
    )
    .expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("script may be run");
    let invocation = world.client().sync().through(&path.display().to_string());
    let _ = fails(&world, invocation, &[1], &["version", "999", "1000"]);
}

/// What the agent says first, recorded from it: magic and version range, up to where the compressed stream begins.
fn greeting(world: &World) -> Vec<u8> {
    let record = world.path("recorded");
    let script = format!(
        "{} --state-dir {} \"$@\" | tee {}",
        agent_program().display(),
        world.server_state().display(),
        record.display()
    );
    let path = world.path("record.sh");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("script is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("script may be run");
    let _ = world
        .client()
        .sync()
        .arg("--dry-run")
        .through(&path.display().to_string())
        .run();
    let bytes = fs::read(record).expect("the agent spoke");
    let magic = b"\0maildir-sync\0\r\n\n";
    assert!(
        bytes.starts_with(magic),
        "the magic of docs/protocol.md comes first: {:?}",
        &bytes[..bytes.len().min(40)]
    );
    bytes[..magic.len() + 4].to_vec()
}

#[test]
fn the_agent_started_by_hand_says_what_it_is() {
    let world = waiting();
    let mut command = std::process::Command::new(agent_program());
    command
        .arg("--state-dir")
        .arg(world.server_state())
        .env_remove("SSH_ORIGINAL_COMMAND");
    let done = harness::process::run(command, harness::process::LIMIT);
    assert!(
        done.code.is_some_and(|code| code != 0) && done.stderr.contains("maildir-sync"),
        "{done:?}"
    );
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
}

/// A word that is no hello, as somebody types who tries the key with `ssh host ls`.
#[test]
fn the_agent_refuses_what_is_no_hello() {
    let world = waiting();
    let before = both(&world);
    for words in [
        "ls",
        "rm -rf /",
        "$(touch /tmp/x)",
        "AAAA",
        &"A".repeat(5_000),
    ] {
        let mut command = std::process::Command::new(agent_program());
        command
            .arg("--state-dir")
            .arg(world.server_state())
            .arg("--root")
            .arg(world.server().root());
        command.env("SSH_ORIGINAL_COMMAND", words);
        let done = harness::process::run(command, harness::process::LIMIT);
        assert!(
            done.code.is_some_and(|code| code != 0),
            "{words:.20}: {done:?}"
        );
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    }
    assert_nothing_written(&before.0, world.server().root());
}

#[test]
fn a_remote_that_is_the_local_maildir_is_refused() {
    let world = waiting();
    let local = world.local().root().to_owned();
    let link = world.path("link");
    std::os::unix::fs::symlink(&local, &link).expect("link is made");
    for remote in [
        local.clone(),
        link,
        local.join("../Maildir"),
        local.join("."),
    ] {
        let _ = fails(
            &world,
            world.client().sync().remote(&remote),
            &[2],
            &["Maildir"],
        );
    }
}

#[test]
fn an_unreachable_server_is_temporary() {
    let world = waiting();
    let config = world.path("ssh_config");
    // Port 1 of loopback: nothing listens there.
    fs::write(
        &config,
        "Host *\n  HostName 127.0.0.1\n  Port 1\n  BatchMode yes\n",
    )
    .expect("config is written");
    let client = world
        .client()
        .reaching("mailhost:Maildir", None)
        .with(&["-F", &config.display().to_string()]);
    let _ = fails(&world, client.sync(), &[75], &["mailhost"]);
}
