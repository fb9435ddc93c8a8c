//! Wrong things typed at every option and command: one clear sentence with the thing and the remedy, exit code 2 (1 where
//! it is the disk's or the server's answer), and nothing written anywhere.

use harness::snapshot::{assert_nothing_written, everything};
use harness::world::agent_program;
use harness::{Invocation, Run, World, body};

use crate::errors::{U1, waiting};

/// Runs what cannot be right, in a home where nobody ever synced, and checks that nothing comes of it.
#[track_caller]
fn wrong(world: &World, invocation: Invocation, code: i32, naming: &[&str]) -> Run {
    let before = everything(&world.path(""));
    let run = invocation.run().exits(code);
    assert_nothing_written(&before, &world.path(""));
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    naming.iter().fold(run, |run, text| run.says(text))
}

fn fresh() -> World {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    world
}

/// What clap finds out names the word, and what may have been meant.
#[test]
fn unknown_words_are_met_with_what_may_have_been_meant() {
    let world = fresh();
    let table: [(&[&str], &[&str]); 12] = [
        (&["syn"], &["'syn'", "'sync'"]),
        (&["pul", "a:b", "c"], &["'pul'", "'pull'"]),
        (&["sync", "--folde", "x"], &["'--folde'", "'--folder'"]),
        (&["sync", "--dryrun"], &["'--dryrun'", "'--dry-run'"]),
        (&["sync", "--max-delete"], &["--max-delete", "value"]),
        (
            &["sync", "--progress", "often"],
            &["'often'", "auto", "always", "never"],
        ),
        (
            &["sync", "--color", "blue"],
            &["'blue'", "auto", "always", "never"],
        ),
        (&["sync", "-q", "-v"], &["--quiet", "--verbose"]),
        (&["sync", "h:M", "l", "third"], &["'third'"]),
        (&["completions", "tcsh"], &["'tcsh'", "bash", "fish"]),
        (&["completions"], &["<SHELL>"]),
        (&["man", "page"], &["'page'"]),
    ];
    for (words, naming) in table {
        let _ = wrong(&world, world.client().bare(words), 2, naming);
    }
}

/// An option is known only to the commands that it does something for.
#[test]
fn options_of_other_commands_are_refused() {
    let world = fresh();
    for words in [
        &["status", "--adopt"][..],
        &["status", "--checksum"],
        &["completions", "bash", "-n"],
        &["man", "--json"],
    ] {
        let last = words[words.len() - 1];
        let _ = wrong(&world, world.client().bare(words), 2, &[last]);
    }
    for absent in ["undo", "verify", "setup", "doctor"] {
        let _ = wrong(&world, world.client().bare(&[absent]), 2, &[absent]);
    }
}

#[test]
fn wrong_values_are_named_in_one_sentence() {
    let world = fresh();
    let server = world.server().root().display().to_string();
    let local = world.local().root().display().to_string();
    let pair = [server.as_str(), local.as_str()];
    let with =
        |options: &[&str], pair: &[&str]| world.client().bare(&["sync"]).args(options).args(pair);
    let table: [(&[&str], &[&str], &[&str]); 17] = [
        (&["--max-delete", "5x"], &pair, &["\"5x\"", "0% to 100%"]),
        (
            &["--max-delete", "101%"],
            &pair,
            &["\"101%\"", "0% to 100%"],
        ),
        (&["--folder", "["], &pair, &["\"[\"", "missing ']'"]),
        (&["--exclude", ""], &pair, &["\"\"", "empty"]),
        (&["-i", "/nokey"], &pair, &["-i and -F are for ssh"]),
        (&["-F", "/nocfg"], &pair, &["-i and -F are for ssh"]),
        (&["--config", "/nocfg"], &pair, &["leave out"]),
        (&[], &["host:M"], &["Name the Maildir on this machine too"]),
        (
            &[],
            &["home", &local],
            &["\"home\" is no remote", "host:path"],
        ),
        (
            &[],
            &[&server, "host:M"],
            &["local side comes second", "./host:M"],
        ),
        (&[], &[&server, &server], &["same directory"]),
        (
            &[],
            &["ssh://h:99999/x", &local],
            &["a port is a number from 1 to 65535"],
        ),
        (&[], &["ssh://h:p/x", &local], &["a port is a number"]),
        (&[], &["h h:x", &local], &["\"h h:x\"", "host"]),
        (
            &["--"],
            &["-oProxyCommand=x:y", &local],
            &["cannot start with \"-\""],
        ),
        (
            &[],
            &["ssh://-oProxyCommand=x/y", &local],
            &["cannot start with \"-\""],
        ),
        (&[], &["ssh:///x", &local], &["host"]),
    ];
    for (options, words, naming) in table {
        let _ = wrong(&world, with(options, words), 2, naming);
    }
}

/// A first run that comes to nothing leaves no trace: no Maildir that was not there, no state.
#[test]
fn a_first_run_that_reaches_nobody_makes_no_maildir() {
    let world = fresh();
    let (client, nowhere) = (world.client(), world.path("nowhere").display().to_string());
    let ssh = |remote: &str, options: &[&str]| client.reaching(remote, None).with(options);
    let through = |command: &str| client.reaching(client.remote(), Some(command.to_owned()));
    let table = [
        (ssh("h:M", &["-F", "/nocfg"]), 2, vec!["/nocfg"]),
        (
            ssh("h:M", &["-i", "/nokey"]),
            2,
            vec!["There is no key", "/nokey"],
        ),
        (
            ssh("maildir-sync.invalid:M", &[]),
            75,
            vec!["maildir-sync.invalid", "check the name"],
        ),
        (
            client.reaching(nowhere.clone(), None),
            1,
            vec![nowhere.as_str(), "does not exist", "mkdir"],
        ),
        (
            through("/nowhere/agent"),
            1,
            vec!["/nowhere/agent", "not installed", "server_command"],
        ),
        (
            through("/etc/passwd"),
            1,
            vec!["Cannot start \"/etc/passwd\""],
        ),
        (through(" "), 2, vec!["server_command is empty"]),
        (through("true"), 1, vec!["maildir-sync-server"]),
    ];
    for (client, code, naming) in &table {
        for command in ["sync", "pull"] {
            let run = client.pair(command).run().exits(*code).says_one_sentence();
            let _ = naming.iter().fold(run, |run, text| run.says(text));
            assert!(!world.local().root().exists(), "{naming:?} made a Maildir");
        }
    }
    let _ = client.pull().run().ok();
    world.assert_same();
}

/// What is there before the first run stays as it is, whatever comes of it.
#[test]
fn a_directory_that_is_no_maildir_is_not_taken_for_one() {
    let world = fresh();
    let home = world.path("c0/letters");
    std::fs::create_dir_all(home.join("2024")).expect("directory is made");
    std::fs::write(home.join("2024/letter.txt"), "no mail").expect("file is written");
    let before = everything(&home);
    let tree = harness::Tree::at(home.clone(), harness::Layout::MaildirPlusPlus);
    let name = home.display().to_string();
    for client in [
        world.client().with_tree(&tree),
        world.client().reaching(&home, None),
    ] {
        let run = client
            .sync()
            .run()
            .exits(1)
            .says(&name)
            .says("is not a Maildir");
        let _ = run.says_one_sentence();
        assert_nothing_written(&before, &home);
    }
}

#[test]
fn accounts_are_named_and_met_with_suggestions() {
    let world = waiting();
    let root = world.server().root().display();
    let config = format!(
        "[account.home]\nremote = \"{root}\"\nlocal = \"~/Maildir\"\n[account.work]\nremote = \"h:\"\nlocal = \"~/W\"\n"
    );
    world.client().configure(&config);
    let both = ["sync", "home", "--adopt", "--confirm", "abc"];
    let _ = wrong(
        &world,
        world.client().bare(&both),
        2,
        &["--adopt", "--confirm"],
    );
    let table: [(&[&str], &[&str]); 5] = [
        // What answers for one account must not be taken for an answer for all.
        (
            &["sync", "--adopt"],
            &["--adopt", "one account", "home, work"],
        ),
        (
            &["sync", "--confirm", "abc"],
            &["--confirm", "one account", "home, work"],
        ),
        (&["sync", "wrk"], &["\"wrk\"", "did you mean \"work\""]),
        (&["push", "zebra"], &["\"zebra\"", "home, work"]),
        (&["status", "hom"], &["\"hom\"", "did you mean \"home\""]),
    ];
    for (words, naming) in table {
        let _ = wrong(&world, world.client().bare(words), 2, naming).says_one_sentence();
    }
}

#[test]
fn every_mistake_in_the_config_has_its_line() {
    let world = waiting();
    let good = "[account.home]\nremote = \"h:M\"\nlocal = \"~/M\"\n";
    let table: [(String, &[&str]); 12] = [
        (
            format!("{good}remot = 1\n"),
            &["line 4", "\"remot\"", "did you mean \"remote\""],
        ),
        (
            format!("{good}hooks.pots = \"x\"\n"),
            &["line 4", "\"pots\"", "did you mean \"post\""],
        ),
        (
            format!("{good}trash_days = \"x\"\n"),
            &["line 4", "trash_days"],
        ),
        (
            format!("{good}trash_days = -1\n"),
            &["line 4", "trash_days"],
        ),
        (
            format!("{good}persist = \"10\"\n"),
            &["line 4", "persist", "10m"],
        ),
        (
            format!("{good}layout = \"mbox\"\n"),
            &["line 4", "\"mbox\"", "maildir++, nested"],
        ),
        (
            format!("{good}no_delete = \"yes\"\n"),
            &["line 4", "no_delete"],
        ),
        (format!("{good}remote = \"h:N\"\n"), &["line 4", "remote"]),
        (
            format!("\n{good}[acount.work]\n"),
            &["line 5", "did you mean \"account\""],
        ),
        (
            "[account.home]\nlocal = \"~/M\"\n".to_owned(),
            &["line 1", "\"home\" has no remote"],
        ),
        (
            "[account.home]\nremote = \"h:M\"\n".to_owned(),
            &["line 1", "\"home\" has no local"],
        ),
        (
            "[account.home]\nremote = \"h h:\"\nlocal = \"~/M\"\n".to_owned(),
            &["line 2", "host"],
        ),
    ];
    for (text, naming) in table {
        world.client().configure(&text);
        let run = wrong(&world, world.client().bare(&["sync"]), 2, naming);
        let _ = run.says("config.toml").says_one_sentence();
    }
    world.client().configure(good);
    std::fs::write(world.client().config(), b"\n\n\xff").expect("config is written");
    let _ = wrong(
        &world,
        world.client().bare(&["sync"]),
        2,
        &["line 3", "UTF-8"],
    );
}

/// What is kept for a pair does not lie among its mail.
#[test]
fn a_state_directory_in_a_maildir_is_refused() {
    let world = fresh();
    for (remote, tree) in [
        (world.server().root(), world.server().root()),
        (world.server().root(), world.local().root()),
    ] {
        let words = ["sync", "--state-dir"];
        let sync = world.client().bare(&words).arg(tree.join("state"));
        let sync = sync.arg(remote).arg(world.local().root());
        let _ = wrong(&world, sync, 2, &["state directory", "outside of it"]).says_one_sentence();
    }
}

/// An answer that nobody can read is no success.
#[test]
fn a_full_stdout_is_an_error() {
    let world = fresh();
    for words in [&["sync"][..], &["sync", "--json"], &["sync", "-n"]] {
        let places = [world.server().root(), world.local().root()];
        let sync = world.client().bare(words).args(&["--state-dir", "state"]);
        let sync = sync.arg(places[0]).arg(places[1]);
        let full = ["sh", "-c", "exec \"$@\" > /dev/full", "sh"];
        let run = sync.under(&full).run().exits(1);
        let _ = run.says("Cannot write to stdout").says_one_sentence();
    }
    assert!(world.local().has("INBOX", U1), "what was done is kept");
}

/// Without a config there is something to copy, not only a complaint.
#[test]
fn without_an_account_an_example_is_shown() {
    let world = fresh();
    for words in [&["sync"][..], &["pull"], &["status"]] {
        let naming = ["No account is configured", "config.toml", "[account.home]"];
        let _ = wrong(&world, world.client().bare(words), 2, &naming);
    }
    for (name, example) in [("work", "[account.work]"), ("a b", "[account.home]")] {
        let unknown = format!("Unknown account \"{name}\": no account is configured");
        let naming = [&*unknown, "config.toml", example];
        let _ = wrong(&world, world.client().bare(&["sync", name]), 2, &naming);
    }
}

/// The agent's own command line.
#[test]
fn the_agents_wrong_options_are_named() {
    let world = fresh();
    let table: [(&[&str], &[&str]); 6] = [
        (&["--rot", "x"], &["'--rot'", "'--root'"]),
        (&["--root", "~me/Maildir"], &["--root", "~me/Maildir", "~/"]),
        (&["--trash", "$X/y"], &["--trash", "$X/y", "write the path"]),
        (&["--trash-days", "x"], &["'x'", "--trash-days"]),
        (
            &["--read-only", "--append-only"],
            &["--read-only", "--append-only"],
        ),
        (
            &["--no-delete", "--read-only"],
            &["--no-delete", "--read-only"],
        ),
    ];
    for (words, naming) in table {
        let mut command = std::process::Command::new(agent_program());
        command.args(words).env("HOME", world.path(""));
        let done = harness::process::run(command, harness::process::LIMIT);
        assert_eq!(done.code, Some(2), "{words:?}: {done:?}");
        for text in naming {
            assert!(
                done.stderr.contains(text),
                "{words:?} should name {text}: {}",
                done.stderr
            );
        }
    }
    // What is wrong in authorized_keys is seen by the client.
    let agent = format!("{} --rot x", agent_program().display());
    let run = world.client().sync().through(&agent).run();
    let _ = run.exits(1).says("--rot");
}
