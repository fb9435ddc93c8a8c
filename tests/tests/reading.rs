//! What people read: nothing of it moves their terminal, and every line that looks like ours is ours.

use std::os::unix::fs::PermissionsExt;

use harness::world::{agent_command, twisting};
use harness::{Run, World, body};

use crate::errors::{U1, U2, waiting};

/// What a terminal or a reader of lines takes for more than text: a new line, C0, DEL, C1, bidi controls, separators.
fn is_text(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const FORGED: &str = "maildir-sync: home: nothing to do";

fn hostile(start: &str) -> String {
    format!(
        "{start}\n{FORGED}\r\u{1b}[2J\u{7f}\u{9b}31m\u{202e}txt\u{2066}\u{61c}\u{200f}\u{2028}end"
    )
}

#[track_caller]
fn assert_harmless(text: &str) {
    for line in text.lines() {
        assert!(line.chars().all(is_text), "{line:?}");
        assert!(!line.starts_with(FORGED), "a forged line: {text}");
    }
}

/// C86: what the other end says is one line, escaped, on stderr, in JSON and in the log, and in what `status` remembers.
#[test]
fn the_words_of_a_hostile_agent_print_no_line_of_ours() {
    let text: String = hostile("No")
        .bytes()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    for (lie, code) in [
        ("refused", 1),
        ("problem", 3),
        ("failed", 3),
        ("no-body", 3),
    ] {
        let world = waiting();
        world.server().deliver("INBOX", "9.M.mx", &body("nine"));
        let agent = agent_command(&world.server_state());
        let liar = twisting(&format!("{lie}={text}"), &agent);
        let run = world
            .client()
            .sync()
            .through(&liar)
            .arg("-v")
            .arg("-v")
            .run();
        let run = run.exits(code).says("No\\x0a");
        let status = world.client().pair("status").found_beside();
        let told = [
            status.run().exits(i32::from(code != 3)),
            typed(&world, "status", &[]),
        ];
        for run in [&run, &told[0], &told[1]] {
            assert!(
                run.stdout.contains("x0amaildir-sync"),
                "{lie}: {}",
                run.stdout
            );
            assert_harmless(&run.stdout);
            assert_harmless(&run.stderr);
        }
    }
}

/// A command line as a person types it, without `--json`.
pub(crate) fn typed(world: &World, command: &str, options: &[&str]) -> Run {
    let state = world.client().state().display().to_string();
    let agent = agent_command(&world.server_state());
    let remote = world.server().root().display().to_string();
    let local = world.local().root().display().to_string();
    let mut words = vec![command, "--state-dir", &state];
    if command != "status" {
        words.extend(["--server-command", &agent]);
    }
    words.extend(options);
    words.extend([&*remote, &*local]);
    world.client().bare(&words).run()
}

fn letter(subject: &str) -> Vec<u8> {
    let head =
        "From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nDate: Wed, 1 Oct 2025 08:00:00 +0200\r\n";
    format!("{head}Subject: =?utf-8?q?{subject}?=\r\n\r\ntext of {subject}\r\n").into_bytes()
}

#[test]
fn without_a_terminal_a_run_with_nothing_to_do_says_nothing() {
    let world = waiting();
    let run = typed(&world, "sync", &[]).ok();
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    let run = typed(&world, "sync", &[]).ok();
    assert_eq!((&*run.stdout, &*run.stderr), ("", ""));
    let run = typed(&world, "sync", &["-v"]).ok();
    assert!(run.stdout.contains("nothing to do"), "{}", run.stdout);
}

/// I7: what is over which limit, in which folders, and both ways out, in ten lines; the same again, in one.
#[test]
fn a_refusal_of_the_guard_takes_ten_lines_and_the_same_one_takes_one() {
    let world = World::new();
    let name = |folder: usize, number: usize| format!("{folder}.{number}.mx");
    for folder in 0..15 {
        for number in 0..6 {
            let bytes = letter(&format!("Gr=C3=BC=C3=9Fe_{folder}_{number}"));
            world.server().store(
                &format!("Lists/{folder}"),
                &name(folder, number),
                "S",
                &bytes,
            );
        }
    }
    let _ = world.client().sync().run().ok();
    for folder in 0..15 {
        for number in 0..5 {
            world
                .server()
                .delete(&format!("Lists/{folder}"), &name(folder, number));
        }
    }
    let run = world.client().sync().run().exits(4);
    let plan = run.plan();
    let holds = run.figure(&["plan", "holds"]);
    assert_eq!(holds, 75, "the plan tells what it holds");
    let first = run
        .json
        .as_ref()
        .and_then(|json| json.pointer("/plan/holds/0"))
        .expect("one");
    for key in ["side", "folder", "name", "action"] {
        assert!(
            first.get(key).is_some_and(|value| value.is_string()),
            "{key}: {first}"
        );
    }
    let said = run.stderr;
    assert!(said.lines().count() <= 10, "{said}");
    for part in [
        "75 to be deleted here",
        "over 50 and over 5 %",
        "5 in Lists/0",
        "--adopt",
        &*format!("--confirm {plan}"),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let run = typed(&world, "sync", &[]).exits(4).says_one_sentence();
    assert!(
        run.stderr.contains(&plan) && run.stderr.contains("--adopt"),
        "{}",
        run.stderr
    );
    assert_eq!(run.stdout, "", "it moved nothing");
    let run = typed(&world, "sync", &["-v"]).exits(4);
    let line = "delete here Lists/3, 2025-10-01 08:00, Jürgen, \"Grüße 3 4\" (3.4.mx)";
    assert!(run.stderr.contains(line), "{}", run.stderr);
    let _ = world.client().sync().arg("--adopt").run().ok();
    assert!(
        world.server().has("Lists/3", &name(3, 4)),
        "both ways out work"
    );
    world.assert_same();
}

/// A conflict is told by folder, date, sender and subject, then the name; over 20 by folder.
#[test]
fn a_conflict_is_told_by_what_people_know_a_message_by() {
    let world = World::new();
    let name = |number: usize| format!("{number}.M.mx");
    for number in 0..30 {
        world.server().store(
            "Drafts",
            &name(number),
            "DS",
            &letter(&format!("d{number}")),
        );
    }
    let _ = world.client().sync().run().ok();
    let edit = |number: usize| {
        world
            .server()
            .edit("Drafts", &name(number), &letter(&format!("there{number}")));
        world
            .local()
            .edit("Drafts", &name(number), &letter(&format!("here{number}")));
    };
    edit(0);
    let run = typed(&world, "sync", &[]).ok();
    let line = "Drafts, 2025-10-01 08:00, Jürgen, \"here0\" (0.M.mx) was edited on both sides";
    assert!(run.stderr.contains(line), "{}", run.stderr);
    (1..25).for_each(edit);
    let run = typed(&world, "sync", &[]).ok();
    assert!(
        run.stderr.contains("Drafts: 24 conflicts, -v lists them"),
        "{}",
        run.stderr
    );
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
}

#[test]
fn a_dry_run_is_told_by_message_or_by_folder_and_counts_folders() {
    let world = World::new();
    world.local().create();
    world.local().store("Work", U1, "S", &letter("plan"));
    world.server().store("INBOX", U2, "S", &body("two"));
    let run = typed(&world, "sync", &["-n"]).ok();
    let line = format!("there new Work, 2025-10-01 08:00, Jürgen, \"plan\" ({U1})");
    for line in [
        &*line,
        &format!("here new INBOX/{U2}"),
        "there make-folder Work",
    ] {
        assert!(
            run.stdout.lines().any(|said| said == line),
            "{line}: {}",
            run.stdout
        );
    }
    let run = world.client().sync().arg("-n").run().ok();
    assert_eq!(run.there("folders"), 1, "{}", run.stdout);
    for number in 0..25 {
        world
            .local()
            .store("Work", &format!("{number}.mx"), "S", &letter("more"));
    }
    let run = typed(&world, "sync", &["-n"]).ok();
    assert!(
        run.stdout.lines().any(|line| line == "there new Work: 26"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.lines().count() < 10, "{}", run.stdout);
    let run = typed(&world, "sync", &["-n", "-v"]).ok();
    assert!(run.stdout.lines().count() > 26, "{}", run.stdout);
}

/// `sync` without a config: the pair used last is offered, in words that a shell takes.
#[test]
fn without_a_config_the_pair_used_last_is_offered() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let none = world.client().bare(&["sync"]).run().exits(2);
    assert!(
        none.stderr.contains("me@mail.example.org:Maildir"),
        "{}",
        none.stderr
    );
    let local = world
        .client()
        .home()
        .join("it's mine $x")
        .display()
        .to_string();
    let remote = world.server().root().display().to_string();
    let agent = agent_command(&world.server_state());
    let words = ["pull", "--server-command", &agent, &remote, &local];
    let _ = world.client().bare(&words).run().ok();
    let _ = world
        .client()
        .bare(&["pull", "/nowhere/at/all", "x"])
        .run()
        .exits(1);
    for command in ["sync", "status"] {
        let run = world
            .client()
            .bare(&[command])
            .run()
            .exits(2)
            .says_one_sentence();
        let (_, line) = run.stderr.trim().split_once("run: ").expect("a command");
        let script = format!("maildir-sync() {{ \"$0\" \"$@\"; }}; {line}");
        let _ = world
            .client()
            .bare(&[])
            .under(&["bash", "-c", &script])
            .run()
            .ok();
    }
}

/// What only a shell expands is understood or refused, and never made.
#[test]
fn no_directory_is_named_after_a_variable_or_a_user() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let remote = world.server().root().display().to_string();
    let agent = agent_command(&world.server_state());
    world.client().configure(&format!(
        "[account.bad]\nremote = {remote:?}\nlocal = \"~nobody/Maildir\"\n\n\
         [account.good]\nremote = {remote:?}\nlocal = \"$HOME/Maildir\"\nserver_command = {agent:?}\n"
    ));
    let run = world
        .client()
        .bare(&["pull"])
        .run()
        .exits(2)
        .says_one_sentence();
    assert!(run.stderr.contains("~nobody/Maildir"), "{}", run.stderr);
    world.assert_same();
    for local in ["$MAILDIR/x", "~nobody/Maildir", "/tmp/$USER/Maildir"] {
        let words = ["pull", &remote, local];
        let _ = world
            .client()
            .bare(&words)
            .run()
            .exits(2)
            .says_one_sentence();
    }
    for entry in std::fs::read_dir(world.client().home()).expect("a home") {
        let name = entry.expect("an entry").file_name();
        let first = name.as_encoded_bytes()[0];
        assert!(first != b'$' && first != b'~', "{name:?}");
    }
}

/// What is left alone is listed with its reason; over 20 by folder.
#[test]
fn what_is_skipped_is_listed_or_counted_by_folder() {
    let world = World::new();
    world.local().create();
    world.server().make_folder("Work");
    for number in 0..25 {
        let link = world
            .server()
            .dir("Work")
            .join(format!("cur/{number}.link:2,S"));
        std::os::unix::fs::symlink("/etc/passwd", link).expect("a link is made");
    }
    let run = typed(&world, "sync", &[]).exits(3).says_one_sentence();
    assert!(
        run.stderr.contains("Work/cur\" there: 25 skipped"),
        "{}",
        run.stderr
    );
    let run = typed(&world, "sync", &[]).ok();
    assert_eq!(run.stderr, "", "standing ones are status's");
}

/// A message that could not be dealt with is named as people know it.
#[test]
fn a_skipped_message_is_told_by_what_people_know_it_by() {
    let world = World::unprivileged();
    world.server().store("Work", U1, "S", &letter("minutes"));
    world.give_away();
    let _ = world.client().sync().run().ok();
    world.local().set_flags("Work", U1, "FS");
    let cur = world.server().dir("Work").join("cur");
    let mode = |mode: u32| std::fs::set_permissions(&cur, std::fs::Permissions::from_mode(mode));
    mode(0o555).expect("it is closed");
    let run = world.client().sync().run().exits(3);
    let _ = world.client().sync().run().ok();
    let status = world.client().pair("status").found_beside().run().ok();
    assert!(status.stdout.contains(U1), "{}", status.stdout);
    mode(0o755).expect("it is opened");
    let line = format!("Skipped Work, 2025-10-01 08:00, Jürgen, \"minutes\" ({U1}) there: ");
    assert!(run.stderr.contains(&line), "{}", run.stderr);
}

/// C61: deletions that wait for what cannot be looked at are said in every summary and in `status`, with the count.
#[test]
fn deletions_that_wait_for_what_cannot_be_read_are_said_in_every_summary() {
    let world = World::unprivileged();
    for number in 0..3 {
        world
            .server()
            .store("INBOX", &format!("{number}.mx"), "S", &letter("gone"));
    }
    world.server().store("Closed", U1, "S", &letter("closed"));
    world.give_away();
    let _ = world.client().sync().run().ok();
    let closed = world.server().dir("Closed").join("cur");
    world.server().let_the_clock_tick("Closed", U1);
    let mode = |mode: u32| std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(mode));
    mode(0o000).expect("it is closed");
    for number in 0..3 {
        world.server().delete("INBOX", &format!("{number}.mx"));
    }
    let agent = world.client().sync();
    let first = agent.run().exits(3);
    let waits = |json: Option<&serde_json::Value>| {
        let list = json
            .and_then(|json| json.get("waiting"))
            .expect("what waits")
            .to_string();
        assert!(
            list.contains("\"count\":3") && list.contains("Closed"),
            "{list}"
        );
    };
    waits(first.json.as_ref());
    let second = world.client().sync().run().ok();
    waits(second.json.as_ref());
    assert_eq!(second.pending(), 3, "{}", second.stdout);
    let status = world.client().pair("status").found_beside().run().ok();
    waits(status.json.as_ref());
    mode(0o700).expect("it is opened");
    let run = world.client().sync().run().ok();
    assert_eq!(run.here("deleted"), 3, "{}", run.stdout);
}
