//! The trash (I6): nothing that is deleted or replaced is destroyed; it lies in that replica's state directory.

use std::path::{Path, PathBuf};

use harness::lacks::lacks;
use harness::snapshot::{everything, holds_bytes};
use harness::{Tree, World, body};

const U1: &str = "1700000001.M1P1.mx,S=20";
const U2: &str = "1700000002.M2P1.mx,S=20";
const U3: &str = "1700000003.M3P1.mx,S=20";

fn synced() -> World {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    world.server().store("INBOX", U2, "S", &body("two"));
    world.server().store("Work", U3, "FS", &body("three"));
    let _ = world.client().sync().run().ok();
    world.assert_same();
    world
}

/// The side where the user acts, the side that follows, and the state directory of the follower.
fn sides(world: &World, at_server: bool) -> (&Tree, &Tree, std::path::PathBuf) {
    if at_server {
        (world.server(), world.local(), world.client().state())
    } else {
        (world.local(), world.server(), world.server_state())
    }
}

fn assert_only_in_trash(tree: &Tree, state: &Path, bytes: &[u8]) {
    assert!(!holds_bytes(tree.root(), bytes), "it is still in the tree");
    assert!(
        holds_bytes(state, bytes),
        "it is not in the trash below {}",
        state.display()
    );
}

#[test]
fn a_deleted_message_lies_in_the_trash_of_the_side_that_deleted_it() {
    for (at_server, command) in [
        (false, "sync"),
        (false, "push"),
        (true, "sync"),
        (true, "pull"),
    ] {
        let world = synced();
        let (from, to, state) = sides(&world, at_server);
        from.delete("INBOX", U1);
        let _ = world.client().pair(command).run().ok();
        assert_only_in_trash(to, &state, &body("one"));
        assert!(
            !holds_bytes(&state, &body("two")),
            "what was not deleted is not in the trash"
        );
    }
}

#[test]
fn a_replaced_version_lies_in_the_trash() {
    for (at_server, command) in [
        (false, "sync"),
        (false, "push"),
        (true, "sync"),
        (true, "pull"),
    ] {
        let world = synced();
        let (from, to, state) = sides(&world, at_server);
        from.edit("INBOX", U1, &body("one, edited"));
        let _ = world.client().pair(command).run().ok();
        to.assert_holds("INBOX", U1, &body("one, edited"));
        assert_only_in_trash(to, &state, &body("one"));
    }
}

#[test]
fn the_messages_of_a_removed_folder_lie_in_the_trash() {
    for at_server in [false, true] {
        let world = synced();
        let (from, to, state) = sides(&world, at_server);
        from.remove_folder("Work");
        let _ = world.client().sync().run().ok();
        assert!(!to.has_folder("Work"));
        assert_only_in_trash(to, &state, &body("three"));
    }
}

#[test]
fn a_damaged_file_lies_in_the_trash_once_the_good_one_is_back() {
    for at_server in [false, true] {
        let world = synced();
        let (from, _, _) = sides(&world, at_server);
        let state = if at_server {
            world.server_state()
        } else {
            world.client().state()
        };
        let nothing_but_nul = vec![0; body("one").len()];
        from.edit("INBOX", U1, &nothing_but_nul);
        let _ = world.client().sync().run();
        from.assert_holds("INBOX", U1, &body("one"));
        assert_only_in_trash(from, &state, &nothing_but_nul);
    }
}

/// The agent's operator may say where it lies.
#[test]
fn the_agents_trash_may_lie_elsewhere() {
    let world = synced();
    world.local().delete("INBOX", U1);
    let agent = harness::world::agent_command(&world.server_state());
    let trash = world.path("elsewhere");
    let _ = world
        .client()
        .sync()
        .through(&format!("{agent} --trash {}", trash.display()))
        .run()
        .ok();
    assert_only_in_trash(world.server(), &trash, &body("one"));
}

/// On another file system the message is copied and synced first; where there is none to test on, nothing is shown.
#[test]
fn a_trash_on_another_file_system_gets_a_copy() {
    use std::os::unix::fs::MetadataExt;
    let world = synced();
    let device = |path: &Path| std::fs::metadata(path).map(|stat| stat.dev());
    let elsewhere = Path::new("/dev/shm");
    let (Ok(there), Ok(here)) = (device(elsewhere), device(world.server().root())) else {
        lacks("there is no /dev/shm");
        return;
    };
    if there == here {
        lacks("/dev/shm is no file system of its own");
        return;
    }
    let trash = tempfile::Builder::new()
        .prefix("ms-trash")
        .tempdir_in(elsewhere)
        .expect("a directory");
    world.local().delete("INBOX", U1);
    let agent = harness::world::agent_command(&world.server_state());
    let run = world
        .client()
        .sync()
        .through(&format!("{agent} --trash {}", trash.path().display()))
        .run()
        .ok();
    assert_eq!(run.there("deleted"), 1);
    assert_only_in_trash(world.server(), trash.path(), &body("one"));
}

/// A trash that cannot be written means that nothing is deleted, and all else goes on.
#[test]
fn without_a_trash_nothing_is_deleted() {
    let world = synced();
    world.local().delete("INBOX", U1);
    world.local().store("INBOX", "9.M.new", "S", &body("new"));
    let agent = harness::world::agent_command(&world.server_state());
    let file = world.path("a-file");
    std::fs::write(&file, "no directory").expect("file is written");
    let run = world
        .client()
        .sync()
        .through(&format!("{agent} --trash {}/trash", file.display()))
        .run();
    let _ = run.exits(3).says("a-file");
    world
        .server()
        .assert_holds("INBOX", "9.M.new", &body("new"));
    world.server().assert_holds("INBOX", U1, &body("one"));
    let _ = world.client().sync().run().ok();
    assert!(
        !world.server().has("INBOX", U1),
        "and goes when there is a trash again"
    );
}

/// The runs in a trash, oldest first.
fn runs(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = everything(dir)
        .into_keys()
        .filter(|path| path.join("log.jsonl").is_file())
        .collect();
    found.sort();
    found
}

/// Makes a run older by so many seconds: its name says when it was.
fn age(run: &Path, seconds: u64) -> PathBuf {
    let name = run
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a run has a name");
    let (at, tag) = name.split_once('-').expect("seconds and a tag");
    let at: u64 = at.parse().expect("seconds since 1970");
    let older = run.with_file_name(format!("{}-{tag}", at - seconds));
    std::fs::rename(run, &older).expect("run is made older");
    older
}

const DAY: u64 = 86_400;
const HOUR: u64 = 3_600;

/// I6: it is kept for `trash_days` and no longer, each side by its own setting.
#[test]
fn the_trash_keeps_for_its_days_and_no_longer() {
    for (at_server, days) in [(true, 30), (true, 7), (false, 30), (false, 3)] {
        let world = synced();
        let agent = harness::world::agent_command(&world.server_state());
        let keys = format!(
            "[account.home]\nremote = \"{}\"\nlocal = \"{}\"\nserver_command = \"{agent}{}\"\n{}\n",
            world.server().root().display(),
            world.local().root().display(),
            if at_server && days != 30 {
                format!(" --trash-days {days}")
            } else {
                String::new()
            },
            if !at_server && days != 30 {
                format!("trash_days = {days}")
            } else {
                String::new()
            },
        );
        world.client().configure(&keys);
        let state = world.client().state().display().to_string();
        let sync = || {
            let words = ["sync", "home", "--json", "--state-dir", &state];
            world.client().bare(&words).run().ok()
        };
        let (from, _, trash) = sides(&world, !at_server);
        let mut kept = Vec::new();
        for (unique, seconds) in [(U1, days * DAY + HOUR), (U2, days * DAY - HOUR)] {
            from.delete("INBOX", unique);
            let _ = sync();
            let run = runs(&trash).into_iter().find(|run| !kept.contains(run));
            kept.push(age(&run.expect("the deletion made a run"), seconds));
        }
        assert_eq!(kept.len(), 2);
        from.delete("Work", U3);
        let _ = sync();
        assert!(!kept[0].exists(), "over its {days} days, and still there");
        assert!(kept[1].exists(), "an hour short of {days} days, and gone");
        assert!(holds_bytes(&kept[1], &body("two")) && holds_bytes(&trash, &body("three")));
    }
}

/// What lies beside it in a directory that was named for the trash is somebody else's.
#[test]
fn only_runs_of_ours_are_cleared_from_a_trash() {
    let world = synced();
    let trash = world.path("shared");
    for name in [
        "2019-archive",
        "1500000000-photos",
        "1500000000",
        "notes",
        "1-0123456789abcdef.old",
    ] {
        std::fs::create_dir_all(trash.join(name)).expect("directory is made");
        std::fs::write(trash.join(name).join("file"), name).expect("file is written");
    }
    std::fs::write(trash.join("1-0123456789abcdef"), "a file").expect("file is written");
    world.local().delete("INBOX", U1);
    let agent = harness::world::agent_command(&world.server_state());
    let command = format!("{agent} --trash {}", trash.display());
    let _ = world.client().sync().through(&command).run().ok();
    assert_eq!(
        everything(&trash)
            .keys()
            .filter(|path| path.ends_with("file"))
            .count(),
        5
    );
    assert!(trash.join("1-0123456789abcdef").is_file());
}

/// A trash in the tree that it was emptied from would be found there as mail again.
#[test]
fn a_trash_inside_of_the_maildir_is_refused() {
    let world = synced();
    world.local().delete("INBOX", U1);
    let agent = harness::world::agent_command(&world.server_state());
    let inside = world.server().root().join(".Trash/deep");
    let before = everything(world.server().root());
    let command = format!("{agent} --trash {}", inside.display());
    let _ = world
        .client()
        .sync()
        .through(&command)
        .run()
        .exits(2)
        .says(&inside.display().to_string())
        .says_one_sentence();
    harness::snapshot::assert_nothing_written(&before, world.server().root());
}

/// The log beside the files says what each was: enough to put it back by hand.
#[test]
fn the_log_says_what_each_file_was() {
    for at_server in [false, true] {
        let world = synced();
        let (from, _, state) = sides(&world, at_server);
        from.delete("INBOX", U1);
        from.edit("Work", U3, &body("three, edited"));
        let _ = world.client().sync().run().ok();
        let run = runs(&state).pop().expect("a run in the trash");
        let log = std::fs::read_to_string(run.join("log.jsonl")).expect("there is a log");
        let mut told: Vec<(String, String, String)> = Vec::new();
        for line in log.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("a JSON object a line");
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            let bytes = std::fs::read(run.join(text("file"))).expect("the file is there");
            assert_eq!(text("digest"), harness::digest_hex(&bytes));
            assert!(
                line["time"].as_u64().is_some() && !text("client").is_empty(),
                "{line}"
            );
            told.push((text("reason"), text("folder"), text("name")));
        }
        told.sort();
        let deleted = (
            "deleted".to_owned(),
            "INBOX".to_owned(),
            format!("{U1}:2,S"),
        );
        let replaced = (
            "replaced".to_owned(),
            ".Work".to_owned(),
            format!("{U3}:2,FS"),
        );
        assert_eq!(told, [deleted, replaced]);
    }
}
