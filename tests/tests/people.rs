//! What people see and type: dry runs, accounts, status, summaries, hooks, completions, the default without options.

use std::fs;

use harness::snapshot::{assert_nothing_written, everything};
use harness::world::{agent_command, wrap_program};
use harness::{Snapshot, World, body, bulky};

use crate::errors::{U1, U2, U3, waiting};

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
fn on_a_terminal_the_progress_is_drawn_and_taken_away_again() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let run = world.client().pull().env("TERM", "xterm").run_on_terminal();
    let run = run.ok();
    assert_eq!(run.here("new"), 1);
    for phase in ["scanning", "comparing", "transferring 0 of 1 messages"] {
        assert!(run.stderr.contains(phase), "{phase}: {:?}", run.stderr);
    }
    let left = run.stderr.rsplit("\x1b[2K").next();
    assert_eq!(left, Some(""), "the line is erased: {:?}", run.stderr);
    for words in [&["--progress", "never"][..], &["-q"]] {
        let quiet = world.client().pull().env("TERM", "xterm").args(words);
        assert_eq!(quiet.run_on_terminal().ok().stderr, "", "{words:?}");
    }
}

#[test]
fn where_nothing_can_be_drawn_the_progress_is_lines_if_it_is_asked_for() {
    let world = World::new();
    let pull = || world.client().pull().env("TERM", "dumb");
    assert_eq!(pull().run().ok().stderr, "", "no terminal");
    assert_eq!(pull().run_on_terminal().ok().stderr, "", "a dumb one");
    let always = || pull().args(&["--progress", "always"]);
    for run in [always().run().ok(), always().run_on_terminal().ok()] {
        assert!(run.stderr.contains(": scanning"), "{:?}", run.stderr);
        assert!(!run.stderr.contains('\x1b'), "{:?}", run.stderr);
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
    assert_eq!(run.code, Some(1), "the worst of both: {run:?}");
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

/// What is wrong with one account is told like any other failure of it.
#[test]
fn a_wrong_account_is_named_with_file_and_key_and_the_others_run() {
    let world = waiting();
    let agent = agent_command(&world.server_state());
    for (wrong, key) in [
        ("local = \"~me/x\"", "line 3: local: "),
        ("local = \"\"", "line 3: local: "),
        (
            "local = \"x\"\nmax_delete = \"lots\"",
            "line 4: max_delete: ",
        ),
        ("local = \"x\"\nlayout = \"mbox\"", "line 4: layout: "),
        ("local = \"x\"\nfolder = [\"[\"]", "line 4: folder: "),
    ] {
        world.client().configure(&format!(
            "[account.broken]\nremote = \"h:\"\n{wrong}\n\n\
             [account.home]\nremote = {:?}\nlocal = {:?}\nserver_command = {agent:?}\n",
            world.server().root(),
            world.local().root(),
        ));
        let state = world.client().state().display().to_string();
        for command in ["sync", "status"] {
            let words = [command, "--json", "--state-dir", &state];
            let run = world.client().bare(&words).run();
            assert_eq!(run.code, Some(2), "{run:?}");
            let objects = run.stdout.lines().map(serde_json::from_str);
            let objects: Vec<serde_json::Value> = objects.map(|one| one.expect("JSON")).collect();
            let names: Vec<_> = objects.iter().map(|one| one["account"].as_str()).collect();
            assert_eq!(names, [Some("broken"), Some("home")]);
            assert_eq!(objects[0]["exit"], 2);
            let error = objects[0]["error"].as_str().unwrap_or_default();
            assert!(
                error.contains("config.toml") && error.contains(key),
                "{error}"
            );
            let _ = run.says("broken: ").says(key).says_one_sentence();
        }
        world.assert_same();
    }
}

#[test]
fn status_is_offline_and_says_whether_all_is_well() {
    let world = waiting();
    let before = everything(&world.path(""));
    let run = world
        .client()
        .pair("status")
        .found_beside()
        .remote("/nowhere/at/all")
        .run();
    assert_nothing_written(&before, &world.path(""));
    let run = run.exits(1);
    assert!(run.stdout.contains("never synced"), "{}", run.stdout);
    let run = world.client().pair("status").found_beside().run().ok();
    assert_eq!(run.figure(&["changed_here"]), 1, "{}", run.stdout);
    let _ = world.client().sync().run().ok();
    let _ = world.client().pair("status").found_beside().run().ok();
    harness::world::remove_dir(world.local().root());
    let _ = world.client().pair("status").found_beside().run().exits(1);
}

/// What a run left pending, `status` calls pending: messages and folders.
#[test]
fn status_counts_as_the_run_before_it() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    world.server().make_folder("Empty");
    let _ = world.client().sync().run().ok();
    world.local().remove_folder("Empty");
    world.local().delete("INBOX", U1);
    let run = world.client().sync().arg("--no-delete").run().ok();
    let status = world.client().pair("status").found_beside().run().ok();
    assert_eq!(run.figure(&["pending"]), 2, "{}", run.stdout);
    assert_eq!(status.figure(&["pending"]), 2, "{}", status.stdout);
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
    for absent in ["undo", "verify", "setup", "doctor"] {
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
    world.server().set_flags("INBOX", U1, "FRS");
    let verbose: Vec<&str> = words.iter().copied().chain(["-v"]).collect();
    let run = world.client().bare(&verbose).run().ok();
    assert!(
        run.stderr.contains(U1) && !run.stderr.contains('\u{1b}'),
        "one line for each message, without colours: {:?}",
        run.stderr
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
    assert!(hooked.ends_with(b"\0"), "each path is ended by NUL");
    let root = world.local().root().as_os_str().as_encoded_bytes();
    assert!(
        paths.iter().all(|path| path.starts_with(root)),
        "paths are whole"
    );
    assert!(
        paths.len() == 2 && holds("9.M.mx") && holds(U2) && !holds(U3),
        "{}",
        String::from_utf8_lossy(&hooked)
    );
    fs::remove_file(world.client().home().join("hooked")).expect("is removed");
    let _ = sync().idle();
    assert!(
        !world.client().home().join("hooked").exists(),
        "nothing changed here, so no hook"
    );
    world.server().make_folder("Lists");
    let _ = sync();
    world.server().rename_folder("Lists", "Threads");
    let run = sync();
    assert_eq!(run.figure(&["here", "folders"]), 1, "{}", run.stdout);
    let hooked = fs::read(world.client().home().join("hooked")).expect("the hook ran");
    let hooked = String::from_utf8_lossy(&hooked);
    for folder in ["Lists", "Threads"] {
        let dir = world.local().dir(folder).display().to_string();
        assert!(
            hooked.split('\0').any(|path| path == dir),
            "{dir}: {hooked}"
        );
    }
}

/// A connection that is lost half way: what was done is told all the same, since no later run tells it.
#[test]
fn a_run_that_broke_off_tells_what_it_did() {
    let world = World::new();
    world.local().create();
    for number in 0..200 {
        let bytes = bulky(&format!("bulky {number}"), 20_000);
        let unique = format!("{number:03}.M.mx");
        world.server().store("INBOX", &unique, "S", &bytes);
    }
    let (server, local) = (world.server().root(), world.local().root());
    let command = format!(
        "{} --down 1000000 -- {}",
        wrap_program().display(),
        agent_command(&world.server_state())
    );
    world.client().configure(&format!(
        "[account.home]\nremote = {server:?}\nlocal = {local:?}\nserver_command = {command:?}\n\
         hooks.post = \"cat > ~/hooked\"\n"
    ));
    let run = world.client().bare(&["pull", "home", "--json"]).run();
    let run = run.exits(75).says_one_sentence();
    let here = Snapshot::of(world.local()).messages.len() as u64;
    assert!((1..200).contains(&here), "{here} messages came");
    assert_eq!(run.here("new"), here, "{}", run.stdout);
    assert_eq!(run.pending(), 200 - here, "{}", run.stdout);
    let hooked = fs::read(world.client().home().join("hooked")).expect("the hook ran");
    let paths = hooked.iter().filter(|&&byte| byte == 0).count() as u64;
    assert_eq!(paths, here, "the hook hears of what came");
    let text = world.client().bare(&["pull", "home"]).run().exits(75);
    let more = Snapshot::of(world.local()).messages.len() as u64 - here;
    let line = format!("home: pull: not finished, {more} new here; ");
    assert!(text.stdout.starts_with(&line), "{}", text.stdout);
}

/// The script of bash knows the options of the commands, too.
#[test]
fn bash_completes_the_options_of_a_command() {
    let world = World::new();
    let script = world
        .client()
        .bare(&["completions", "bash"])
        .run()
        .ok()
        .stdout;
    let ask = "eval \"$1\"; COMP_WORDS=(maildir-sync sync --max); COMP_CWORD=2; \
               _maildir__sync maildir-sync --max sync; echo \"${COMPREPLY[*]}\"";
    let bash = std::process::Command::new("bash")
        .args(["-c", ask, "bash", &script])
        .output()
        .expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&bash.stdout), "--max-delete\n");
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
