//! Runs at the same time: on one client, from several clients, beside a busy user (I8, C22, C26, C27, C45, C54).

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use harness::faults::{End, Held, Hold};
use harness::rng::seed_or;
use harness::world::agent_command;
use harness::{Client, Rng, Snapshot, World, body, bulky, digest_hex};
use rustix::process::Pid;

use crate::interrupted::until;

fn name(number: usize) -> String {
    format!("17000{number:05}.M{number}P1.mx,S=100")
}

fn fill(world: &World, count: usize) {
    for number in 0..count {
        world.server().store(
            "INBOX",
            &name(number),
            "S",
            &bulky(&format!("bulky {number}"), 20_000),
        );
    }
}

/// A pull that stands still in the middle of its bodies.
fn held_pull(world: &World, client: &Client) -> (Held, harness::process::Running) {
    let held = Held::new(world, "held");
    let command = held.command(300_000, &agent_command(&world.server_state()));
    let running = client.pull().through(&command).start();
    held.wait_until_held();
    (held, running)
}

/// C26: the lock is held by the first; the second gives up as temporary and changes nothing.
#[test]
fn a_second_run_of_one_client_gives_up_as_temporary() {
    let world = World::new();
    fill(&world, 100);
    let (held, first) = held_pull(&world, world.client());
    let server = Snapshot::of(world.server());
    for command in ["sync", "pull", "push"] {
        let run = world
            .client()
            .pair(command)
            .run()
            .exits(75)
            .says_one_sentence();
        assert!(
            run.stderr.to_lowercase().contains("another run"),
            "{}",
            run.stderr
        );
    }
    harness::assert_untouched(&server, world.server(), "a run that found the lock taken");
    held.release();
    assert_eq!(first.wait().code, Some(0));
    world.assert_same();
    let _ = world.client().sync().run().ok().idle();
}

/// C26: it waits a little for one that is nearly through; C45: neither deletes what the other is about to write.
#[test]
fn a_second_run_waits_for_one_that_is_nearly_through() {
    let world = World::new();
    fill(&world, 100);
    let (held, first) = held_pull(&world, world.client());
    let second = world.client().sync().start();
    until(|| has_a_lock_open(second.pid()));
    held.release();
    assert_eq!(first.wait().code, Some(0));
    let second = second.wait();
    assert_eq!(second.code, Some(0), "it waited: {second:?}");
    world.assert_same();
    assert_eq!(Snapshot::of(world.server()).messages.len(), 100);
    let _ = world.client().sync().run().ok().idle();
}

/// It has, or waits for it: whoever opens one does nothing else before it is his.
fn has_a_lock_open(pid: Pid) -> bool {
    let open = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()));
    let links = open.into_iter().flatten().flatten();
    let files = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    let mut ends = files.map(|file| file.extension().map(ToOwned::to_owned));
    ends.any(|end| end.is_some_and(|end| end == "lock"))
}

/// A lock is no file that a crash leaves behind.
#[test]
fn a_killed_run_leaves_no_lock() {
    let world = World::new();
    fill(&world, 100);
    let (held, first) = held_pull(&world, world.client());
    first.kill();
    held.release();
    let _ = first.wait();
    let _ = world.client().sync().run().ok();
    world.assert_same();
}

/// I8: a root is never locked while waiting for the wire, so a long first pull keeps nobody out.
#[test]
fn a_long_pull_of_one_client_keeps_the_others_going() {
    let world = World::with_clients(2);
    fill(&world, 100);
    let (held, first) = held_pull(&world, world.nth(0));
    let _ = world.nth(1).sync().run().ok();
    harness::assert_same(world.server(), world.nth(1).tree());
    world.nth(1).tree().delete("INBOX", &name(99));
    world.nth(1).tree().set_flags("INBOX", &name(98), "FS");
    let _ = world.nth(1).sync().run().ok();
    assert!(!world.server().has("INBOX", &name(99)));
    held.release();
    let done = first.wait();
    assert_eq!(done.code, Some(0), "{done:?}");
    for client in world.clients() {
        let _ = client.sync().run().ok();
        harness::assert_same(world.server(), client.tree());
    }
    assert!(
        !world.server().has("INBOX", &name(99)),
        "a deletion made meanwhile came back"
    );
}

/// C54, C22: what is flagged, moved or deleted between the scan and its fetch is done by the next run; no run fails.
#[test]
fn changes_in_the_middle_of_a_pull_wait_for_the_next_run() {
    let world = World::new();
    fill(&world, 100);
    world.server().make_folder("Work");
    let (held, first) = held_pull(&world, world.client());
    for number in 0..100 {
        match number % 4 {
            0 => world.server().set_flags("INBOX", &name(number), "FS"),
            1 => world
                .server()
                .rename("INBOX", &name(number), "Work", &name(number)),
            2 => world.server().delete("INBOX", &name(number)),
            _ => {}
        }
    }
    held.release();
    let done = first.wait();
    assert_eq!(
        done.code,
        Some(0),
        "vanished is not even reported: {done:?}"
    );
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(Snapshot::of(world.server()).messages.len(), 75);
    let _ = world.client().sync().run().ok().idle();
}

/// C27: all clients at once, again and again, with changes on every side.
#[test]
fn clients_at_once_lose_nothing() {
    let mut rng = Rng::new(seed_or(27));
    let world = World::with_clients(3);
    fill(&world, 10);
    for client in world.clients() {
        let _ = client.sync().run().ok();
    }
    let mut wanted: BTreeSet<String> = Snapshot::of(world.server())
        .counts()
        .keys()
        .map(|&key| key.to_owned())
        .collect();
    for round in 0..12 {
        for (number, client) in world.clients().iter().enumerate() {
            let unique = format!("{round}.C{number}.mx");
            let bytes = body(&unique);
            client.tree().store("INBOX", &unique, "S", &bytes);
            wanted.insert(digest_hex(&bytes));
            let flags = ["S", "FS", "RS", ""][rng.below(4)];
            client
                .tree()
                .set_flags("INBOX", &name(rng.below(10)), flags);
        }
        let running: Vec<_> = world
            .clients()
            .iter()
            .map(|client| client.sync().start())
            .collect();
        let done: Vec<_> = running
            .into_iter()
            .map(harness::process::Running::wait)
            .collect();
        assert!(
            done.iter().all(|done| matches!(done.code, Some(0 | 75))),
            "{done:#?}"
        );
        assert!(done.iter().any(|done| done.code == Some(0)), "{done:#?}");
    }
    for _ in 0..2 {
        for client in world.clients() {
            let _ = client.sync().run().ok();
        }
    }
    for client in world.clients() {
        harness::assert_same(world.server(), client.tree());
        let _ = client.sync().run().ok().idle();
    }
    let snapshot = Snapshot::of(world.server());
    let found: BTreeSet<String> = snapshot
        .counts()
        .keys()
        .map(|&key| key.to_owned())
        .collect();
    assert_eq!(found, wanted, "lost or brought back");
    assert_eq!(snapshot.messages.len(), wanted.len(), "doubled");
}

/// Many runs of one client at once: whoever gets the lock works, the others wait or give up, and nothing is doubled.
#[test]
fn many_runs_of_one_client_at_once_are_one_after_the_other() {
    let world = World::new();
    fill(&world, 40);
    let running: Vec<_> = (0..6).map(|_| world.client().sync().start()).collect();
    let done: Vec<_> = running
        .into_iter()
        .map(harness::process::Running::wait)
        .collect();
    assert!(
        done.iter().all(|done| matches!(done.code, Some(0 | 75))),
        "{done:#?}"
    );
    assert!(done.iter().any(|done| done.code == Some(0)), "{done:#?}");
    world.assert_same();
    assert_eq!(Snapshot::of(world.server()).messages.len(), 40);
}

/// C21, C54: a mail reader works while run follows run: every rename hits a scan sooner or later.
#[test]
fn a_busy_reader_never_loses_a_message() {
    let mut rng = Rng::new(seed_or(54));
    let world = World::new();
    for number in 0..30 {
        world
            .server()
            .store("INBOX", &name(number), "", &body(&format!("busy {number}")));
    }
    world.server().make_folder("Work");
    let _ = world.client().sync().run().ok();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                disturb(&world, &mut rng);
            }
        });
        for _ in 0..25 {
            let run = world.client().sync().run().ok();
            // A message may be seen twice for a moment; that one is seen nowhere must not be taken for a deletion.
            let here = Snapshot::of(world.local()).counts().len();
            assert_eq!(
                here, 30,
                "messages that were only moved were deleted: {}",
                run.stdout
            );
        }
    });
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(Snapshot::of(world.server()).messages.len(), 30);
}

/// Stops the reader also when a check fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Renames one message on the server: a flag, or a move to the other folder. It may be away at that moment, because the
/// run renames, too.
fn disturb(world: &World, rng: &mut Rng) {
    let unique = name(rng.below(30));
    let tree = world.server();
    let Some(from) = ["INBOX", "Work"]
        .into_iter()
        .find_map(|folder| tree.find(folder, &unique))
    else {
        return;
    };
    let flags = ["", "S", "F", "FS"][rng.below(4)];
    let folder = if rng.chance(70) {
        from.parent()
            .and_then(|cur| cur.parent())
            .expect("in a folder")
            .to_owned()
    } else {
        tree.dir("Work")
    };
    let _ = std::fs::rename(
        &from,
        folder.join("cur").join(format!("{unique}:2,{flags}")),
    );
}

/// Two agents on one root answer both.
#[test]
fn a_held_agent_does_not_block_another_on_the_same_root() {
    let world = World::with_clients(2);
    fill(&world, 100);
    let (held, first) = held_pull(&world, world.nth(0));
    for round in 0..3 {
        world.server().deliver(
            "INBOX",
            &format!("{round}.N.mx"),
            &body(&format!("round {round}")),
        );
        let _ = world.nth(1).sync().run().ok();
        harness::assert_same(world.server(), world.nth(1).tree());
    }
    held.release();
    assert_eq!(first.wait().code, Some(0));
}

/// Starts an agent with a hello, hears its greeting, sees that it waits, hangs up, and waits for its end.
fn greeted_until_hung_up(hello: &str) -> Option<i32> {
    let world = World::new();
    fill(&world, 3);
    let mut agent = Command::new(harness::world::agent_program());
    agent.arg("--state-dir").arg(world.server_state());
    agent.arg("--root").arg(world.server().root()).arg(hello);
    let mut agent = agent
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("agent starts");
    let stdin = agent.stdin.take();
    let mut stdout = agent.stdout.take().expect("is piped");
    let mut greeting = [0; 21];
    stdout
        .read_exact(&mut greeting)
        .expect("the agent speaks first");
    assert!(greeting.starts_with(b"\0maildir-sync\0"), "{greeting:?}");
    let waiting = agent.try_wait().expect("it can be asked");
    assert_eq!(waiting, None, "it waits for its client");
    let (ended, end) = channel();
    std::thread::spawn(move || {
        let read = stdout.read_to_end(&mut Vec::new());
        ended.send(read.map(|_| agent.wait()))
    });
    drop(stdin);
    let status = end.recv_timeout(harness::process::LIMIT);
    let status = status
        .expect("it outlives its client")
        .expect("stdout ends");
    status.expect("it can be waited for").code()
}

/// The agent ends when its client is gone, also while nobody speaks, and not before.
#[test]
fn an_agent_ends_with_its_stdin() {
    // The hello is the example of docs/protocol.md.
    let code = greeted_until_hung_up("hello-AQEAAAltZUBsYXB0b3AAAAABADw");
    assert_eq!(
        code,
        Some(0),
        "a client that goes away is nothing to complain of"
    );
}

/// An exit status may overtake the last bytes on ssh's way. So an agent of another version stays, too, until the client has
/// read which one it is.
#[test]
fn an_agent_of_another_version_stays_until_the_client_hangs_up() {
    // The same hello in version 200, as it is, and with more fields.
    for hello in [
        "hello-yMgAAAltZUBsYXB0b3AAAAABADw",
        "hello-yMgAAAltZUBsYXB0b3AAAAABADwHBw",
    ] {
        let _ = greeted_until_hung_up(hello);
    }
}

/// A run that was told everything and has asked for nothing yet.
fn held_asking(world: &World, client: &Client, command: &str) -> (Held, harness::process::Running) {
    let held = Held::new(world, "told");
    let agent = held.asking(&agent_command(&world.server_state()));
    let running = client.pair(command).through(&agent).start();
    held.wait_until_held();
    (held, running)
}

fn assert_all_settle(world: &World) {
    for _ in 0..2 {
        for client in world.clients() {
            let _ = client.sync().run().ok();
        }
    }
    for client in world.clients() {
        let run = client.sync().run().ok().idle();
        assert_eq!(run.pending(), 0, "{}", run.stdout);
        harness::assert_same(world.server(), client.tree());
    }
}

/// I8, I4: a folder is known by its number. What is asked of one is not done to another that got its name meanwhile, by
/// another client or by somebody at the server.
#[test]
fn a_folder_that_took_the_name_of_another_meanwhile_is_not_taken_for_it() {
    const BOTH: &str = "1.M.mx";
    const NEW: &str = "2.M.mx";
    let exchange = |tree: &harness::Tree| {
        tree.rename_folder("X", "C");
        tree.rename_folder("Y", "X");
    };
    for deletes in [false, true] {
        for by_client in [false, true] {
            println!("-- deletion: {deletes}, renamed by a client: {by_client}");
            let world = World::with_clients(2);
            for folder in ["X", "Y"] {
                world.server().store(folder, BOTH, "S", &body("alike"));
                let own = format!("{folder}.M.mx");
                world.server().store(folder, &own, "S", &body(folder));
            }
            for client in world.clients() {
                let _ = client.sync().run().ok();
            }
            if deletes {
                world.local().delete("X", BOTH);
            } else {
                world.local().store("X", NEW, "S", &body("new"));
            }
            if by_client {
                exchange(world.nth(1).tree());
            }
            let (held, running) = held_asking(&world, world.client(), "sync");
            if by_client {
                let _ = world.nth(1).sync().run().ok();
            } else {
                exchange(world.server());
            }
            held.release();
            assert_eq!(running.wait().code, Some(0));
            assert_all_settle(&world);
            let server = world.server();
            assert!(server.has("C", "X.M.mx") && server.has("X", "Y.M.mx"));
            assert!(server.has("X", BOTH), "the other folder's copy is gone");
            // A renamed folder moves none of its messages, so the deletion holds.
            assert_eq!(server.has("C", BOTH), !deletes);
            assert_eq!(server.has("C", NEW), !deletes);
            assert!(!server.has("X", NEW));
        }
    }
}

/// A folder that is to be made, and that another one became meanwhile.
#[test]
fn a_folder_that_got_the_name_of_one_to_be_made_is_not_taken_for_it() {
    for by_client in [false, true] {
        let world = World::with_clients(2);
        world.server().store("INBOX", "1.M.mx", "S", &body("one"));
        for client in world.clients() {
            let _ = client.sync().run().ok();
        }
        world.server().store("B", "2.M.mx", "S", &body("two"));
        let _ = world.nth(1).sync().run().ok();
        world.local().make_folder("A");
        world.local().store("A", "3.M.mx", "S", &body("three"));
        let (held, running) = held_asking(&world, world.client(), "sync");
        if by_client {
            world.nth(1).tree().rename_folder("B", "A");
        } else {
            world.server().rename_folder("B", "A");
        }
        let _ = world.nth(1).sync().run().ok();
        held.release();
        assert_eq!(running.wait().code, Some(0));
        assert_all_settle(&world);
        world.server().store("A", "4.M.mx", "S", &body("later"));
        assert_all_settle(&world);
        for unique in ["2.M.mx", "3.M.mx", "4.M.mx"] {
            assert!(world.local().has("A", unique), "{unique}");
        }
    }
}

/// A message takes the name of another that went away on this side; meanwhile that one went away there as well, elsewhere.
#[test]
fn a_message_that_took_the_name_of_one_that_went_meanwhile_stays_one() {
    for command in ["push", "sync"] {
        for exchanged in [false, true] {
            println!("-- {command}, names exchanged: {exchanged}");
            let world = World::with_clients(2);
            for unique in ["p", "q"] {
                world.server().store("INBOX", unique, "S", &body(unique));
            }
            for folder in ["A", "B"] {
                world.server().make_folder(folder);
            }
            for client in world.clients() {
                let _ = client.sync().run().ok();
            }
            let own = world.local();
            if exchanged {
                own.rename("INBOX", "p", "INBOX", "between");
                own.rename("INBOX", "q", "INBOX", "p");
                own.rename("INBOX", "between", "INBOX", "q");
            } else {
                own.rename("INBOX", "p", "A", "p");
                own.rename("INBOX", "q", "INBOX", "p");
            }
            let (held, running) = held_asking(&world, world.client(), command);
            world.server().rename("INBOX", "p", "B", "p");
            let _ = world.nth(1).sync().run().ok();
            held.release();
            assert_eq!(running.wait().code, Some(0));
            assert_all_settle(&world);
            let all = Snapshot::of(world.server());
            assert_eq!(all.messages.len(), 2, "{all:?}");
            let counts: Vec<usize> = all.counts().into_values().collect();
            assert_eq!(counts, [1, 1]);
        }
    }
}

/// Both have listed an empty server; the other one makes the folder first.
#[test]
fn of_two_first_pushes_at_once_the_later_one_says_that_its_folder_changed_meanwhile() {
    let world = World::with_clients(2);
    for (client, unique) in world.clients().iter().zip([name(1), name(2)]) {
        client.tree().create();
        client.tree().store("Work", &unique, "S", &body(&unique));
    }
    let hold = Hold {
        end: End::Client,
        call: "fsync",
        nth: 10, // It has the list, and has asked for nothing yet.
    };
    let (hit, run) = hold.run(&world, world.nth(0).push(), || {
        let _ = world.nth(1).push().run().ok();
    });
    assert!(hit, "does strace work here?");
    let json = run.json.as_ref().expect("JSON was printed");
    let waiting = json["waiting"].as_array().expect("reasons");
    assert_eq!(waiting.len(), 1, "{json}");
    let why = "they changed meanwhile; the next run takes them";
    assert_eq!(
        (&waiting[0]["count"], &waiting[0]["why"]),
        (&2.into(), &why.into())
    );
    let run = world.nth(0).push().run().ok();
    assert_eq!(run.there("new"), 1, "{}", run.stdout);
}
