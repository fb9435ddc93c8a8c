//! A wire that stands still in the middle of the list, while other clients go on (C70).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::process::{Running, must};
use harness::world::{agent_command, wrap_program};
use harness::{Run, Tree, World, body};

/// So many, under long names, that the list has no room in the agent's pipe, which is made small.
const MANY: usize = 1200;
/// After so many bytes from the agent everything waits.
const STOP_AFTER: usize = 3000;
/// The others have work meanwhile, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A name that no compressor makes much smaller than half.
fn name(number: usize) -> String {
    let noise = blake3::hash(&number.to_le_bytes()).to_hex();
    let more = blake3::hash(noise.as_bytes()).to_hex();
    format!("17000{number:05}.{noise}{more}.mx")
}

fn fill(tree: &Tree, folder: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        tree.store(folder, &name(number), "S", &body(&number.to_string()));
    }
}

/// A run that stands still in the middle of the agent's list; one whose agent has nothing more to say fails when it goes on.
struct Stopped {
    running: Running,
    go: PathBuf,
}

fn start(world: &World) -> Stopped {
    let [reached, go] = ["reached", "go"].map(|name| world.path(name));
    for fifo in [&reached, &go] {
        let _ = std::fs::remove_file(fifo);
        must("mkfifo", &[fifo.as_os_str()]);
    }
    let command = format!(
        "{} --in-midst --stop-after {STOP_AFTER} {} {} -- {}",
        wrap_program().display(),
        reached.display(),
        go.display(),
        agent_command(&world.server_state())
    );
    let run = world.client().sync().through(&command);
    let running = run.limit(PATIENCE).start();
    wait_for(&reached);
    Stopped { running, go }
}

/// Waits until the other end has opened the fifo.
fn wait_for(fifo: &Path) {
    let mut file = std::fs::File::open(fifo).expect("the fifo opens");
    let _ = file.read(&mut [0]);
}

impl Stopped {
    fn go_on(self) -> Run {
        // Opening is enough; the other end may have closed it already by the time of a write.
        let go = std::fs::File::options().write(true).open(&self.go);
        drop(go.expect("it goes on"));
        Run::of("the slow run".to_owned(), self.running.wait())
    }
}

/// What the other client does meanwhile: new, changed, moved within what was told and what was not, and gone.
fn change_much(world: &World) {
    let tree = world.nth(1).tree();
    for number in [0, 1, MANY - 2, MANY - 1] {
        tree.set_flags("INBOX", &name(number), "FS");
    }
    tree.make_folder("Later");
    for number in [10, 11, 600, MANY - 10] {
        tree.rename("INBOX", &name(number), "Later", &name(number));
    }
    for number in [20, 620, MANY - 20] {
        tree.rename("INBOX", &name(number), "Lists", &name(number));
    }
    for number in [30, 31, 640, MANY - 30] {
        tree.delete("INBOX", &name(number));
    }
    tree.store("INBOX", &name(MANY), "", &body("new meanwhile"));
    let run = world.nth(1).sync().run().ok();
    assert_eq!(
        (run.there("moved"), run.there("deleted")),
        (7, 4),
        "{}",
        run.stdout
    );
}

fn world() -> World {
    let world = World::with_clients(2);
    fill(world.server(), "INBOX", 0..MANY);
    fill(world.server(), "Lists", MANY + 1..MANY + 10);
    let _ = world.nth(1).sync().run().ok();
    world
}

fn assert_all_agree(world: &World) {
    for client in [0, 1, 0] {
        let _ = world.nth(client).sync().run().ok();
    }
    for client in world.clients() {
        harness::assert_same(world.server(), client.tree());
    }
}

#[test]
fn a_first_sync_over_a_wire_that_stands_still_holds_nobody_up() {
    let world = world();
    let slow = start(&world);
    change_much(&world);
    let run = slow.go_on().ok();
    // Of what had come before the other client deleted it, that is deleted here, too, and nothing else.
    let lately = [30, 31, 640, MANY - 30].map(name);
    assert!(
        run.there("deleted") == 0 && run.here("deleted") <= lately.len() as u64,
        "{}",
        run.stdout
    );
    for name in lately {
        assert!(!world.local().has("INBOX", &name), "{name}");
    }
    assert_all_agree(&world);
}

#[test]
fn what_another_client_moves_while_the_list_is_told_is_no_deletion() {
    let world = world();
    let _ = world.nth(0).sync().run().ok();
    for number in 0..MANY {
        world.server().set_flags("INBOX", &name(number), "R");
    }
    let _ = world.nth(1).sync().run().ok();
    let slow = start(&world);
    change_much(&world);
    let run = slow.go_on().ok();
    // What was deleted meanwhile may be heard of now or next time; what was moved was never deleted.
    assert!(run.here("deleted") <= 4, "{}", run.stdout);
    assert_eq!(
        (run.there("deleted"), run.conflicts()),
        (0, 0),
        "{}",
        run.stdout
    );
    for number in [10, 11, 600, MANY - 10] {
        assert!(
            world.local().has("INBOX", &name(number)) || world.local().has("Later", &name(number))
        );
    }
    assert_all_agree(&world);
}

/// The agent has lost its state: it tells digests first, and then folders.
#[test]
fn the_same_holds_where_folders_are_compared_by_their_digests() {
    let world = world();
    let _ = world.nth(0).sync().run().ok();
    std::fs::remove_dir_all(world.server_state().join("replicas")).expect("the state goes");
    for number in 0..MANY {
        world.server().set_flags("INBOX", &name(number), "R");
    }
    let _ = world.nth(1).sync().run().ok();
    let slow = start(&world);
    change_much(&world);
    let run = slow.go_on().ok();
    assert!(run.here("deleted") <= 4, "{}", run.stdout);
    assert_eq!(
        (run.there("deleted"), run.conflicts()),
        (0, 0),
        "{}",
        run.stdout
    );
    assert_all_agree(&world);
}
