//! What a run costs, counted and not timed (SPEC §7): system calls, opened messages, writes, bytes.
//!
//! Flights are counted in `wire`, the bytes that an agent reads in `stream`.

use std::fs;
use std::path::PathBuf;

use harness::lacks::tells_of_changes;
use harness::{Invocation, Run, World, bulky};

use crate::first_sync::name;

/// So many messages of so many bytes, so that starting two programs counts for little.
const MANY: usize = 2000;
const BYTES: usize = 2000;
/// System calls for each message of a first pull, of both ends together, with all that they do once. At 20,000 messages there
/// are 14.4 in a release build.
const SYSCALLS: usize = 18;

/// Every system call of a run, of both ends. Debug builds ask for the flags of each file that they close; that is left out.
fn traced(world: &World, invocation: Invocation) -> (Run, Vec<String>) {
    // A file for each thread, so that no line is cut in two by another's.
    let logs = world.path("strace");
    let _ = fs::remove_dir_all(&logs);
    fs::create_dir(&logs).expect("it is made");
    let log = logs.join("of").display().to_string();
    let run = invocation.under(&["strace", "-ff", "-q", "-y", "-s", "0", "-o", &log]);
    let run = run.run();
    let text = |path: PathBuf| fs::read_to_string(path).expect("it is text");
    let logs = fs::read_dir(&logs).expect("strace keeps logs");
    let mut calls = Vec::new();
    for log in logs {
        let log = text(log.expect("a log").path());
        let lines = log.lines().filter(|line| line.contains('('));
        calls.extend(
            lines
                .filter(|line| !line.contains("F_GETFD"))
                .map(str::to_owned),
        );
    }
    (run, calls)
}

/// The paths of messages that were opened: strace names what a call returns.
fn opened(calls: &[String]) -> Vec<&str> {
    let opens = calls.iter().filter(|call| call.starts_with("open"));
    let paths = opens.filter_map(|call| call.rsplit_once("= ")?.1.split_once('<'));
    let is_message = |path: &&str| path.contains("/cur/") || path.contains("/new/");
    paths.map(|(_, path)| path).filter(is_message).collect()
}

/// The directories of messages that were listed to the end, each as often as that.
fn listed(calls: &[String]) -> Vec<&str> {
    let ends = calls
        .iter()
        .filter(|call| call.starts_with("getdents64(") && call.ends_with("= 0"));
    let paths = ends.filter_map(|call| call.split_once('<')?.1.split_once('>'));
    let is_of_messages = |path: &&str| path.ends_with("/cur") || path.ends_with("/new");
    let mut listed: Vec<_> = paths.map(|(path, _)| path).filter(is_of_messages).collect();
    listed.sort_unstable();
    listed
}

/// Calls that write, cut or make anything of a database.
fn writes_of_databases(calls: &[String]) -> Vec<&String> {
    let is_write = |call: &&String| {
        [
            "write",
            "pwrite64",
            "ftruncate",
            "fsync",
            "fdatasync",
            "unlink",
        ]
        .iter()
        .any(|name| call.starts_with(&format!("{name}(")))
    };
    let writes = calls.iter().filter(is_write);
    writes.filter(|call| call.contains(".db")).collect()
}

/// Names with what they were called how often, the most first.
fn counts(calls: &[String]) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for call in calls {
        let name = call.split_once('(').map_or("", |(name, _)| name);
        *counts.entry(name).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let lines = counts
        .iter()
        .map(|(name, count)| format!("{count} {name}\n"));
    lines.collect()
}

/// A server with many messages, half of them in INBOX.
fn filled() -> World {
    let world = World::new();
    for number in 0..MANY {
        let folder = if number % 2 == 0 { "INBOX" } else { "Lists" };
        let bytes = bulky(&format!("message {number}"), BYTES);
        world.server().store(folder, &name(number), "S", &bytes);
    }
    world
}

#[test]
fn a_first_pull_takes_few_system_calls_for_each_message() {
    let world = filled();
    let (run, calls) = traced(&world, world.client().pull());
    assert_eq!(run.ok().here("new"), MANY as u64);
    let by_name = counts(&calls);
    assert!(calls.len() >= MANY, "does strace work here?\n{by_name}");
    assert!(
        calls.len() <= SYSCALLS * MANY,
        "{} system calls for {MANY} messages:\n{by_name}",
        calls.len()
    );
    let opened = opened(&calls).len();
    assert_eq!(opened, MANY, "each message is opened once");
    world.assert_same();
}

#[test]
fn a_run_with_nothing_to_do_opens_no_message_and_writes_no_row() {
    let world = filled();
    let _ = world.client().pull().run().ok();
    for command in ["sync", "pull", "push", "sync"] {
        let (run, calls) = traced(&world, world.client().pair(command));
        let run = run.ok().idle();
        assert!(!calls.is_empty(), "does strace work here?");
        assert_eq!(opened(&calls), Vec::<&str>::new(), "{command}");
        let writes = writes_of_databases(&calls);
        assert_eq!(writes, Vec::<&String>::new(), "{command}");
        assert!(run.bytes() < 1024, "{command}: {}", run.stdout);
    }
}

/// Of many messages some are new: only these are opened, each once, and once more where they are flushed.
#[test]
fn a_run_opens_only_what_is_new() {
    let world = filled();
    let _ = world.client().pull().run().ok();
    let new: Vec<String> = (MANY..MANY + 20).map(name).collect();
    for unique in &new {
        world
            .server()
            .store("INBOX", unique, "", &bulky(unique, BYTES));
    }
    let (run, calls) = traced(&world, world.client().sync());
    assert_eq!(run.ok().here("new"), new.len() as u64);
    let opened = opened(&calls);
    let is_new = |path: &&str| new.iter().any(|unique| path.contains(unique.as_str()));
    let others: Vec<_> = opened.iter().filter(|path| !is_new(path)).collect();
    assert_eq!(others, Vec::<&&str>::new());
    // Hashed, and read to be sent.
    assert!(opened.len() <= 2 * new.len(), "{opened:?}");
    world.assert_same();
}

/// The side that changed lists what changed, once; the other lists nothing, neither before it is changed nor after. And what
/// a run has done, the next one does not read.
#[test]
fn a_run_lists_only_directories_that_others_changed() {
    let world = filled();
    if !tells_of_changes(world.server().root()) {
        return;
    }
    let _ = world.client().pull().run().ok();
    let _ = world.client().sync().run().ok();
    let (here, there) = (world.local(), world.server());
    let rounds = [
        ("pull", there, here),
        ("push", here, there),
        ("sync", there, here),
    ];
    for (round, (command, from, to)) in rounds.into_iter().enumerate() {
        println!("-- {command}");
        let old = |number: usize| name(100 * round + 2 * number);
        for number in 0..10 {
            let new = format!("{command}{number}.mx");
            from.store("INBOX", &new, "", &bulky(&new, BYTES));
            from.set_flags("INBOX", &old(number), "FS");
        }
        from.delete("INBOX", &old(10));
        from.rename("INBOX", &old(11), "Lists", &old(11));
        // What is younger than the grain of the clock is listed once more before anything counts as gone.
        from.let_the_clock_tick("Lists", &old(11));
        let (run, calls) = traced(&world, world.client().pair(command));
        assert_eq!(run.ok().done(), 22);
        let mut changed = Vec::new();
        for folder in ["INBOX", "Lists"] {
            let subs = ["cur", "new"].map(|sub| from.dir(folder).join(sub));
            changed.extend(subs.map(|path| path.display().to_string()));
        }
        changed.sort_unstable();
        assert_eq!(listed(&calls), changed);
        assert!(to.has("Lists", &old(11)) && !to.has("INBOX", &old(10)));
        let (run, calls) = traced(&world, world.client().sync());
        let _ = run.ok().idle();
        assert_eq!(listed(&calls), Vec::<&str>::new());
        world.assert_same();
    }
}

/// The slice of files comes to a row whose file has just been found missing, and tells nothing new of it.
#[test]
fn a_folder_from_which_a_message_went_is_listed_once() {
    let world = World::new();
    let there = world.server();
    for number in 0..20 {
        let bytes = bulky(&format!("message {number}"), BYTES);
        there.store("INBOX", &name(number), "S", &bytes);
    }
    for _ in 0..2 {
        let _ = world.client().sync().run().ok();
        there.let_the_clock_tick("INBOX", &name(0));
    }
    there.delete("INBOX", &name(7));
    there.store("INBOX", &name(20), "S", &bulky("new", BYTES));
    there.let_the_clock_tick("INBOX", &name(20));
    let (run, calls) = traced(&world, world.client().pull());
    assert_eq!(run.ok().here("deleted"), 1);
    let subs = ["cur", "new"].map(|sub| there.dir("INBOX").join(sub));
    let subs = subs.map(|path| path.display().to_string());
    assert_eq!(listed(&calls), subs);
}
