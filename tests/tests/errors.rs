//! Bad input: one sentence that names the thing, the right exit code, nothing changed on either side.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use harness::snapshot::{assert_nothing_written, everything};
use harness::world::{agent_command, agent_program, wrap_program};
use harness::{Invocation, Run, Snapshot, World, body};

const U1: &str = "1700000001.M1P1.mx,S=20";
const U2: &str = "1700000002.M2P1.mx,S=20";
const U3: &str = "1700000003.M3P1.mx,S=20";

/// A synced pair with a change waiting on each side, so that a run that should not start would show.
fn waiting() -> World {
    let world = World::new();
    for (unique, label) in [(U1, "one"), (U2, "two"), (U3, "three")] {
        world.server().store("INBOX", unique, "S", &body(label));
    }
    let _ = world.client().sync().run().ok();
    world.local().set_flags("INBOX", U1, "FS");
    world.server().delete("INBOX", U2);
    world
}

type Everything = BTreeMap<PathBuf, String>;

fn both(world: &World) -> (Everything, Everything) {
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
        let _ = fails(&world, invocation, &[1], &[&name]);
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
    let _ = fails(&world, client.sync().remote(&file), &[1], &[&name]);
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
        &[1, 2],
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
        &[1, 75],
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
            &[1, 2],
            &["Maildir"],
        );
    }
}

#[test]
fn one_maildir_inside_the_other_is_refused() {
    let world = waiting();
    let inner = harness::Tree::at(
        world.local().root().join("Inner"),
        harness::Layout::MaildirPlusPlus,
    );
    inner.create();
    let _ = fails(
        &world,
        world.client().sync().remote(inner.root()),
        &[1, 2],
        &["Inner"],
    );
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

/// C11, I10: one message that cannot be read is reported and left, the rest goes on.
#[test]
fn an_unreadable_message_is_reported_and_the_rest_goes_on() {
    for at_server in [false, true] {
        let world = World::unprivileged();
        world.local().create();
        let from = if at_server {
            world.server()
        } else {
            world.local()
        };
        for number in 0..5 {
            from.store(
                "INBOX",
                &format!("{number}.M.mx"),
                "S",
                &body(&format!("message {number}")),
            );
        }
        world.give_away();
        let closed = from.path("INBOX", "2.M.mx");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("message is closed");
        let run = world.client().sync().run().exits(3).says("2.M.mx");
        assert_eq!(run.figure(&["skipped"]), 1, "{}", run.stdout);
        let to = if at_server {
            world.local()
        } else {
            world.server()
        };
        assert_eq!(
            Snapshot::of(to).messages.len(),
            4,
            "the others came through"
        );
        let _ = world.client().sync().run().ok();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).expect("message is opened");
        let _ = world.client().sync().run().ok();
        world.assert_same();
    }
}

/// C47, C11: a synced message that cannot be read any more is not deleted on the other side, and a flag still travels.
#[test]
fn a_synced_message_that_became_unreadable_is_not_deleted() {
    for at_server in [false, true] {
        let world = World::unprivileged();
        for number in 0..5 {
            world.server().store(
                "INBOX",
                &format!("{number}.M.mx"),
                "S",
                &body(&format!("message {number}")),
            );
        }
        world.give_away();
        let _ = world.client().sync().run().ok();
        let (from, to) = if at_server {
            (world.server(), world.local())
        } else {
            (world.local(), world.server())
        };
        from.edit("INBOX", "2.M.mx", &body("changed, and then closed"));
        fs::set_permissions(from.path("INBOX", "2.M.mx"), fs::Permissions::from_mode(0))
            .expect("message is closed");
        from.delete("INBOX", "3.M.mx");
        let run = world.client().sync().run();
        assert!(matches!(run.code, Some(0 | 3)), "{run:?}");
        assert!(to.has("INBOX", "2.M.mx"), "the good copy was deleted");
        assert!(from.has("INBOX", "2.M.mx"));
    }
}

/// C11: a folder that cannot be listed is unknown, not empty.
#[test]
fn an_unreadable_folder_deletes_nothing() {
    for at_server in [false, true] {
        let world = World::unprivileged();
        for number in 0..5 {
            world.server().store(
                "Work",
                &format!("{number}.M.mx"),
                "S",
                &body(&format!("message {number}")),
            );
        }
        world.server().store("INBOX", U1, "S", &body("one"));
        world.give_away();
        let _ = world.client().sync().run().ok();
        let (from, to) = if at_server {
            (world.server(), world.local())
        } else {
            (world.local(), world.server())
        };
        let cur = from.dir("Work").join("cur");
        fs::set_permissions(&cur, fs::Permissions::from_mode(0)).expect("folder is closed");
        from.delete("INBOX", U1);
        from.store("INBOX", U2, "S", &body("two"));
        world.give_away();
        let _ = world.client().sync().run().exits(3).says("Work");
        assert_eq!(
            Snapshot::of(to).messages.len(),
            7,
            "nothing was deleted while a folder was unknown; two came"
        );
        fs::set_permissions(&cur, fs::Permissions::from_mode(0o700)).expect("folder is opened");
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(
            Snapshot::of(to).messages.len(),
            6,
            "the deletion was carried out when all was known again"
        );
    }
}

/// I11: a folder that cannot be written stops nothing else and leaves the state true.
#[test]
fn a_folder_that_cannot_be_written_is_reported() {
    let world = World::unprivileged();
    world.server().store("Work", U1, "S", &body("one"));
    world.server().store("INBOX", U2, "S", &body("two"));
    world.give_away();
    let _ = world.client().sync().run().ok();
    for part in ["cur", "new", "tmp"] {
        let dir = world.local().dir("Work").join(part);
        fs::set_permissions(dir, fs::Permissions::from_mode(0o500)).expect("folder is closed");
    }
    world.server().store("Work", U3, "S", &body("three"));
    world.server().store("INBOX", "4.M.mx", "S", &body("four"));
    world.server().set_flags("INBOX", U2, "FS");
    world.give_away();
    let run = world.client().sync().run();
    assert!(
        matches!(run.code, Some(1 | 3)) && !run.stderr.is_empty(),
        "{run:?}"
    );
    assert!(
        world.local().has("INBOX", "4.M.mx") && world.local().flags("INBOX", U2) == "FS",
        "the rest went on"
    );
    for part in ["cur", "new", "tmp"] {
        let dir = world.local().dir("Work").join(part);
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).expect("folder is opened");
    }
    let _ = world.client().sync().run().ok();
    world.assert_same();
}

/// I11: a full disk stops what is added, keeps what is done, and says so.
#[test]
fn a_full_disk_is_said_and_what_was_done_stays() {
    let world = World::new();
    for number in 0..40 {
        world.server().store(
            "INBOX",
            &format!("{number}.M.mx"),
            "S",
            &harness::bulky(&format!("{number}"), 20_000),
        );
    }
    // No file over 4 blocks of 1,024 bytes may be written: what the kernel says then is taken like a full disk.
    let run = world
        .client()
        .pull()
        .under(&["sh", "-c", "ulimit -f 4096; exec \"$0\" \"$@\""])
        .run()
        .ok();
    assert_eq!(run.here("new"), 40);
    for number in 40..60 {
        world.server().store(
            "INBOX",
            &format!("{number}.M.mx"),
            "S",
            &harness::bulky(&format!("{number}"), 20_000),
        );
    }
    world
        .server()
        .store("INBOX", "60.M.mx", "S", &harness::bulky("60", 6_000_000));
    let run = world
        .client()
        .pull()
        .under(&[
            "sh",
            "-c",
            "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\"",
        ])
        .run();
    assert!(
        matches!(run.code, Some(1 | 3)) && !run.stderr.is_empty(),
        "{run:?}"
    );
    let _ = world.client().pull().run().ok();
    world.assert_same();
}

#[test]
fn a_dry_run_writes_nothing_at_all() {
    let first = World::new();
    first.server().store("INBOX", U1, "S", &body("one"));
    first.local().create();
    first.local().store("INBOX", U2, "S", &body("two"));
    let known = waiting();
    let lost = waiting();
    harness::world::remove_dir(&lost.server_state());
    let half = waiting();
    harness::world::remove_dir(&half.client().state());
    for (what, world) in [
        ("a first sync", first),
        ("a known pair", known),
        ("no index", lost),
        ("no archive", half),
    ] {
        for command in ["sync", "pull", "push"] {
            for option in ["-n", "--dry-run"] {
                println!("-- {what}, {command} {option}");
                let before = everything(&world.path(""));
                let run = world.client().pair(command).arg(option).run().ok();
                assert_nothing_written(&before, &world.path(""));
                assert!(
                    run.json.is_some_and(|json| json.get("actions").is_some()),
                    "the plan is shown"
                );
            }
        }
    }
}

#[test]
fn a_dry_run_of_a_pair_without_a_local_root_makes_none() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let before = everything(&world.path(""));
    let _ = world.client().pull().arg("-n").run().ok();
    assert_nothing_written(&before, &world.path(""));
}

#[test]
fn a_dry_run_tells_what_a_run_then_does() {
    let world = waiting();
    let dry = world.client().sync().arg("--dry-run").run().ok();
    let actions = dry
        .json
        .as_ref()
        .and_then(|json| json.get("actions"))
        .expect("actions")
        .to_string();
    assert!(
        actions.contains(U1) && actions.contains(U2) && !actions.contains(U3),
        "{actions}"
    );
    let real = world.client().sync().run().ok();
    assert_eq!(
        (dry.here("deleted"), dry.there("flags")),
        (real.here("deleted"), real.there("flags"))
    );
}

#[test]
fn state_that_is_damaged_costs_no_mail() {
    for at_server in [false, true] {
        let world = waiting();
        let state = if at_server {
            world.server_state()
        } else {
            world.client().state()
        };
        let mut spoilt = 0;
        for path in everything(&state).into_keys().filter(|path| path.is_file()) {
            if fs::metadata(&path).expect("is there").len() > 0 {
                fs::write(&path, "this is no database at all, and no log either")
                    .expect("file is spoilt");
                spoilt += 1;
            }
        }
        assert!(spoilt > 0, "there is state to spoil");
        let run = world.client().sync().run();
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        assert!(run.code == Some(0) || !run.stderr.is_empty(), "{run:?}");
        if run.code != Some(0) {
            harness::world::remove_dir(&state);
            let _ = world.client().sync().run().ok();
        }
        world.assert_same();
        assert!(world.server().has("INBOX", U3) && world.local().has("INBOX", U1));
    }
}

#[test]
fn a_marker_that_is_damaged_is_no_continuation() {
    for at_server in [false, true] {
        let world = waiting();
        let tree = if at_server {
            world.server()
        } else {
            world.local()
        };
        fs::write(tree.root().join(".maildir-sync"), b"\xff\0garbage").expect("marker is spoilt");
        let before = both(&world);
        let run = world.client().sync().run();
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        if run.code == Some(0) {
            assert_eq!(
                run.here("deleted") + run.there("deleted"),
                0,
                "{}",
                run.stdout
            );
        } else {
            assert!(matches!(run.code, Some(1 | 4)), "{run:?}");
            assert_nothing_written(&before.0, world.server().root());
            assert_nothing_written(&before.1, world.local().root());
        }
    }
}

#[test]
fn several_accounts_run_one_after_the_other_whatever_becomes_of_each() {
    let world = waiting();
    let agent = agent_command(&world.server_state());
    let (server, local) = (
        world.server().root().display(),
        world.local().root().display(),
    );
    world.client().configure(&format!(
        "[account.broken]\nremote = \"/nowhere/at/all\"\nlocal = \"~/Broken\"\n\n\
         [account.home]\nremote = \"{server}\"\nlocal = \"{local}\"\nserver_command = \"{agent}\"\n"
    ));
    let state = world.client().state().display().to_string();
    let run = world
        .client()
        .bare(&["sync", "--json", "--state-dir", &state])
        .run();
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(
        run.stdout.lines().count(),
        2,
        "one object per account: {}",
        run.stdout
    );
    world.assert_same();
    let run = world
        .client()
        .bare(&["sync", "home", "--json", "--state-dir", &state])
        .run()
        .ok()
        .idle();
    assert_eq!(
        run.json
            .as_ref()
            .and_then(|json| json.get("account"))
            .and_then(|name| name.as_str()),
        Some("home")
    );
}

#[test]
fn status_is_offline_and_says_whether_all_is_well() {
    let world = waiting();
    let before = everything(&world.path(""));
    let run = world
        .client()
        .pair("status")
        .through("/nowhere/agent")
        .run();
    assert_nothing_written(&before, &world.path(""));
    assert!(matches!(run.code, Some(0 | 1)), "{run:?}");
    let _ = world.client().sync().run().ok();
    let _ = world.client().pair("status").run().ok();
    harness::world::remove_dir(world.local().root());
    let _ = world.client().pair("status").run().exits(1);
}

#[test]
fn completions_and_man_pages_are_printed() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let run = world.client().bare(&["completions", shell]).run().ok();
        assert!(run.stdout.contains("maildir-sync"), "{shell}");
    }
    let man = world.client().bare(&["man"]).run().ok();
    assert!(
        man.stdout.contains(".TH") && man.stdout.contains("dry"),
        "{:.200}",
        man.stdout
    );
    let help = world.client().bare(&["--help"]).run().ok().stdout;
    for absent in ["watch", "undo", "verify", "setup", "doctor"] {
        let listed = help
            .lines()
            .any(|line| line.split_whitespace().next() == Some(absent));
        assert!(
            !listed,
            "{absent} does not exist yet and must not be listed:\n{help}"
        );
    }
}

/// The summary for people: one line per account where there is no terminal, and nothing per message.
#[test]
fn without_a_terminal_there_is_one_line() {
    let world = waiting();
    let agent = agent_command(&world.server_state());
    let state = world.client().state().display().to_string();
    let (remote, local) = (
        world.server().root().display().to_string(),
        world.local().root().display().to_string(),
    );
    let words = [
        "sync",
        "--state-dir",
        &state,
        "--server-command",
        &agent,
        &remote,
        &local,
    ];
    let run = world.client().bare(&words).run().ok();
    let lines: Vec<&str> = run.stdout.lines().chain(run.stderr.lines()).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        !lines[0].contains('\u{1b}') && !lines[0].contains(U1),
        "{lines:?}"
    );
    let quiet: Vec<&str> = words.iter().copied().chain(["-q"]).collect();
    let run = world.client().bare(&quiet).run().ok();
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str()),
        ("", ""),
        "-q says nothing when all is well"
    );
}

#[test]
fn the_post_hook_gets_the_changed_paths() {
    let world = waiting();
    let agent = agent_command(&world.server_state());
    let (server, local) = (
        world.server().root().display(),
        world.local().root().display(),
    );
    world.client().configure(&format!(
        "[account.home]\nremote = \"{server}\"\nlocal = \"{local}\"\nserver_command = \"{agent}\"\n\
         hooks.post = \"cat > ~/hooked\"\n"
    ));
    world.server().deliver("INBOX", "9.M.mx", &body("nine"));
    let state = world.client().state().display().to_string();
    let sync = || {
        world
            .client()
            .bare(&["sync", "home", "--json", "--state-dir", &state])
            .run()
            .ok()
    };
    let _ = sync();
    let hooked = fs::read(world.client().home().join("hooked")).expect("the hook ran");
    let paths: Vec<&[u8]> = hooked
        .split(|&byte| byte == 0)
        .filter(|path| !path.is_empty())
        .collect();
    let holds = |name: &str| {
        paths
            .iter()
            .any(|path| path.windows(name.len()).any(|part| part == name.as_bytes()))
    };
    assert!(
        holds("9.M.mx") && holds(U2) && !holds(U3),
        "{}",
        String::from_utf8_lossy(&hooked)
    );
    fs::remove_file(world.client().home().join("hooked")).expect("is removed");
    let _ = sync().idle();
    assert!(
        !world.client().home().join("hooked").exists(),
        "nothing changed here, so no hook"
    );
}

/// The wrapper of the suite is itself no fault.
#[test]
fn an_agent_behind_the_wrapper_is_the_agent() {
    let world = waiting();
    let wrap = wrap_program();
    let command = format!(
        "{} -- {}",
        wrap.display(),
        agent_command(&world.server_state())
    );
    let _ = world.client().sync().through(&command).run().ok();
    world.assert_same();
}

/// Without any option the agent is found beside the client, and all state lies below the home.
#[test]
fn the_embedded_default_needs_no_option() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let (remote, local) = (
        world.server().root().display().to_string(),
        world.local().root().display().to_string(),
    );
    let _ = world.client().bare(&["pull", &remote, &local]).run().ok();
    world.assert_same();
    let state = world.client().home().join(".local/state/maildir-sync");
    assert!(state.is_dir(), "{} should hold the state", state.display());
    let _ = world
        .client()
        .bare(&["sync", "--json", &remote, &local])
        .run()
        .ok()
        .idle();
}
