//! A first pull streams: each file is read once, memory holds no list, and what happens meanwhile is told afterwards.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use harness::faults::{End, Kill};
use harness::world::{agent_command, copy_dir, remove_dir};
use harness::{Client, Snapshot, World, bulky};

use crate::first_sync::{MARKER, count, fill, name};

const COUNT: usize = 300;

/// What the agent of a run does to files, as strace tells it.
fn traced(world: &World, client: &Client, calls: &str) -> String {
    // A file for each thread, so that no line is cut in two by another's.
    let logs = world.path("strace");
    fs::create_dir(&logs).expect("it is made");
    let agent = format!(
        "strace -ff -q -y -s 0 -e trace={calls} -o {} {}",
        logs.join("of").display(),
        agent_command(&world.server_state())
    );
    let _ = client.pull().through(&agent).run().ok();
    let logs = fs::read_dir(&logs).expect("strace keeps logs");
    logs.map(|log| fs::read_to_string(log.expect("a log").path()).expect("it is text"))
        .collect()
}

/// The bytes that were read from messages.
fn read_bytes(trace: &str) -> u64 {
    let of_mail = |line: &&str| line.contains("/cur/") || line.contains("/new/");
    let returned = |line: &str| line.rsplit_once("= ")?.1.trim().parse::<u64>().ok();
    let lines = trace.lines().filter(of_mail);
    lines.filter_map(returned).sum()
}

#[test]
fn a_tree_that_was_never_read_is_read_once() {
    let world = World::new();
    assert_read_once(&world, world.client(), |_, _| {});
}

/// What was emptied here comes back as it came first.
#[test]
fn a_tree_that_is_adopted_by_an_empty_one_is_read_once() {
    let world = World::new();
    world
        .server()
        .store("INBOX", "1.M.mx", "S", b"Subject: one\n\n");
    let _ = world.client().sync().run().ok();
    world.local().delete("INBOX", "1.M.mx");
    fs::remove_file(world.local().root().join(MARKER)).expect("it is removed");
    remove_dir(&world.server_state());
    assert_read_once(&world, &world.client().with(&["--adopt"]), |_, _| {});
}

/// A clock that was wrong, or a copy that keeps times.
#[test]
fn a_tree_with_times_in_the_future_is_read_once() {
    let future = SystemTime::now() + Duration::from_secs(1 << 30);
    let set = |path: &Path| {
        let file = fs::File::open(path).expect("it opens");
        file.set_modified(future).expect("its time is set");
    };
    let world = World::new();
    assert_read_once(&world, world.client(), |folder, name| {
        set(&world.server().path(folder, name))
    });
}

/// Fills the server, lets somebody touch each message, and pulls.
fn assert_read_once(world: &World, client: &Client, touch: impl Fn(&str, &str)) {
    let mut total = 0;
    for number in 0..COUNT {
        let bytes = bulky(&format!("message {number}"), 500 + 40 * number);
        total += bytes.len() as u64;
        let folder = if number % 3 == 0 { "INBOX" } else { "Lists" };
        world.server().store(folder, &name(number), "S", &bytes);
        touch(folder, &name(number));
    }
    // Files that are as old as the clock's grain are proven by one look.
    world.server().let_the_clock_tick("INBOX", &name(0));
    world.server().let_the_clock_tick("Lists", &name(1));
    let trace = traced(world, client, "read,pread64");
    let read = read_bytes(&trace);
    assert!(
        read >= total,
        "{read} of {total} bytes: does strace work here?"
    );
    assert!(
        read * 100 <= total * 102,
        "{read} bytes were read of {total}"
    );
    world.assert_same();
    let _ = world.client().sync().run().ok().idle();
}

/// The order in which people want it: INBOX first, newest first.
#[test]
fn inbox_comes_first_and_in_it_what_is_newest() {
    let world = World::new();
    fill(world.server(), "Archive", 0..50);
    fill(world.server(), "INBOX", 100..150);
    let kill = Kill {
        end: End::Client,
        call: "renameat2",
        nth: 20,
    };
    let (hit, _) = kill.run(&world, world.client().pull());
    assert!(hit, "does strace work here?");
    assert_eq!(
        Snapshot::of(world.local()).messages.len(),
        count_in(&world, "INBOX")
    );
    let has = |number: &usize| world.local().has("INBOX", &name(*number));
    let came: Vec<usize> = (100..150).filter(has).collect();
    let newest: Vec<usize> = (150 - came.len()..150).collect();
    assert!(!came.is_empty() && came.len() < 50, "{came:?}");
    assert_eq!(came, newest);
}

fn count_in(world: &World, folder: &str) -> usize {
    let messages = Snapshot::of(world.local()).messages;
    messages
        .iter()
        .filter(|(message, _)| message.folder == folder.as_bytes())
        .count()
}

/// A kill of either end at any of some steps: nothing is lost or doubled, and nothing comes twice but what was under way.
#[test]
fn a_stream_that_was_cut_off_goes_on_where_it_was() {
    for end in [End::Client, End::Agent] {
        for call in ["renameat2", "pwrite64", "write"] {
            for nth in [1, 7, 40] {
                let world = World::new();
                fill(world.server(), "INBOX", 0..60);
                fill(world.server(), "Lists", 60..120);
                let _ = Kill { end, call, nth }.run(&world, world.client().pull());
                let here = count(world.local());
                let run = world.client().sync().run().ok();
                assert!(
                    run.here("new") as usize + here >= 120,
                    "{end:?} {call} {nth}: {}",
                    run.stdout
                );
                world.assert_same();
                let _ = world.client().sync().run().ok().idle();
            }
        }
    }
}

/// Mail that a user deletes or moves here after it came and before the stream goes on stays deleted and moved.
#[test]
fn what_a_user_does_between_two_parts_of_a_stream_counts() {
    for call in ["renameat2", "pwrite64"] {
        for nth in [20, 60] {
            let world = World::new();
            fill(world.server(), "INBOX", 0..60);
            let kill = Kill {
                end: End::Client,
                call,
                nth,
            };
            let _ = kill.run(&world, world.client().pull());
            let names: Vec<String> = (0..60)
                .map(name)
                .filter(|name| world.local().has("INBOX", name))
                .collect();
            // The newest came first; what came last may have been under way.
            let [first, second, ..] = &names[names.len().saturating_sub(2)..] else {
                continue;
            };
            world.local().delete("INBOX", first);
            world.local().set_flags("INBOX", second, "FS");
            for _ in 0..2 {
                let _ = world.client().sync().run().ok();
            }
            world.assert_same();
            assert_eq!(world.server().flags("INBOX", second), "FS");
            let _ = world.client().sync().run().ok().idle();
        }
    }
}

/// A tree that was put back while a stream was cut off does not delete what came since (I2).
#[test]
fn a_tree_that_is_put_back_between_two_parts_deletes_nothing() {
    let world = World::new();
    fill(world.server(), "INBOX", 0..60);
    // The agent has been there before, so that the marker is in the backup.
    let backup = world.path("backup");
    let kill = |nth| Kill {
        end: End::Client,
        call: "renameat2",
        nth,
    };
    let _ = kill(3).run(&world, world.client().pull());
    copy_dir(world.server().root(), &backup);
    fill(world.server(), "INBOX", 60..90);
    let _ = kill(50).run(&world, world.client().pull());
    let came: Vec<String> = (60..90)
        .map(name)
        .filter(|name| world.local().has("INBOX", name))
        .collect();
    fs::remove_dir_all(world.server().root()).expect("it is removed");
    copy_dir(&backup, world.server().root());
    let _ = world.client().sync().run();
    let _ = world.client().sync().run();
    for name in came {
        assert!(world.local().has("INBOX", &name), "{name} was deleted");
    }
}

/// An index that was written without being flushed when the system went down is not believed.
#[test]
fn an_index_that_may_be_torn_is_made_anew() {
    let world = World::new();
    fill(world.server(), "INBOX", 0..30);
    let _ = world.client().sync().run().ok();
    let state = replica_state(&world.server_state());
    fs::write(state.join("index.db"), b"torn").expect("it is written");
    fs::write(state.join("relaxed"), b"another boot").expect("it is written");
    fill(world.server(), "INBOX", 30..31);
    let run = world.client().sync().run().ok();
    assert_eq!(run.here("new"), 1, "{}", run.stdout);
    world.assert_same();
    assert!(!state.join("relaxed").exists());
    let _ = world.client().sync().run().ok().idle();
}

/// Where the only replica of a state directory keeps its state.
fn replica_state(state: &Path) -> std::path::PathBuf {
    let mut replicas = fs::read_dir(state.join("replicas")).expect("there are some");
    let one = replicas.next().expect("there is one");
    one.expect("it can be read").path()
}
