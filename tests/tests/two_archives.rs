//! One pair with two archives: a second state directory, or each machine runs the client. What one archive brought about,
//! the other finds done (C81).

use std::collections::{BTreeMap, BTreeSet};

use harness::faults::End;
use harness::rng::seed_or;
use harness::snapshot::difference;
use harness::{Client, Kill, Layout, Rng, Snapshot, Tree, World, body, digest_hex};

const OLD: &str = "1700000001.M1P1.old";

/// Who has the second archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Second {
    /// Another state directory here.
    Here,
    /// The other machine, which takes this one for its server.
    There,
}

/// A pair, and the clients of both its archives.
fn pair(second: Second) -> (World, [Client; 2]) {
    let world = World::with_layouts(
        Layout::MaildirPlusPlus,
        &[Layout::MaildirPlusPlus, Layout::MaildirPlusPlus],
    );
    let (one, two) = (world.nth(0).clone(), world.nth(1));
    let two = match second {
        Second::Here => two.with_tree(world.local()),
        Second::There => {
            let agent = harness::world::agent_command(&world.path("c1/agent"));
            two.with_tree(world.server())
                .reaching(world.local().root(), Some(agent))
        }
    };
    (world, [one, two])
}

/// What a user does on one side.
type Deed = fn(&Tree);

/// To one message.
const DEEDS: [(&str, Deed); 7] = [
    ("nothing", |_| {}),
    ("delete", |tree| tree.delete("INBOX", OLD)),
    ("edit", |tree| tree.replace("INBOX", OLD, &edited(tree))),
    ("move", |tree| tree.rename("INBOX", OLD, "Other", OLD)),
    ("rename", |tree| {
        tree.rename("INBOX", OLD, "INBOX", "1700000002.M2P2.new")
    }),
    ("edit and move", |tree| {
        tree.replace("INBOX", OLD, &edited(tree));
        tree.rename("INBOX", OLD, "Other", OLD);
    }),
    ("delete and deliver anew", |tree| {
        tree.delete("INBOX", OLD);
        tree.deliver("INBOX", OLD, &edited(tree));
    }),
];

/// Bytes that only this side has.
fn edited(tree: &Tree) -> Vec<u8> {
    body(&format!("edited in {}", tree.root().display()))
}

#[track_caller]
fn assert_once(world: &World, what: &str) {
    let [there, here] = [world.server(), world.local()].map(Snapshot::of);
    let differ = difference(&there.mail(), &here.mail());
    assert!(differ.is_empty(), "{what}:\n{differ}");
    for (digest, count) in there.counts() {
        assert_eq!(count, 1, "{what}: {digest} is doubled");
    }
}

/// Everything that a user can do on either side, carried out by one archive: the other has nothing to do.
fn what_one_archive_did_the_other_finds_done(second: Second) {
    for (name_here, here) in DEEDS {
        for (name_there, there) in DEEDS {
            for first in [0, 1] {
                let what =
                    format!("{name_here} here, {name_there} there, archive {first}, {second:?}");
                let (world, clients) = pair(second);
                world.server().make_folder("Other");
                world.server().store("INBOX", OLD, "S", &body("old"));
                for client in &clients {
                    let _ = client.sync().run().ok();
                }
                world.server().let_the_clock_tick("INBOX", OLD);
                here(world.local());
                there(world.server());
                let _ = clients[first].sync().run().ok();
                assert_once(&world, &what);
                for client in [&clients[1 - first], &clients[first]] {
                    let run = client.sync().run().ok();
                    assert_eq!(run.done(), 0, "{what}: {}", run.stdout);
                    assert_once(&world, &what);
                }
            }
        }
    }
}

#[test]
fn what_one_archive_did_a_second_state_directory_finds_done() {
    what_one_archive_did_the_other_finds_done(Second::Here);
}

#[test]
fn what_one_archive_did_the_other_machine_finds_done() {
    what_one_archive_did_the_other_finds_done(Second::There);
}

/// A user's random doings, the bodies that must be there afterwards, and what was done.
struct History {
    rng: Rng,
    alive: BTreeMap<String, String>,
    count: usize,
    trail: Vec<String>,
}

impl History {
    fn body(&mut self) -> Vec<u8> {
        self.count += 1;
        let label = format!("body {}", self.count);
        self.alive.insert(digest_hex(&body(&label)), label.clone());
        body(&label)
    }

    /// Something happens to a random message of a side.
    fn act(&mut self, tree: &Tree, side: &str) {
        self.count += 1; // No name is given twice: a mail reader's rename would overwrite.
        let unique = format!("17{:08}.M1P1.u{}", self.count, self.count);
        let folder = ["INBOX", "Other"][self.rng.below(2)];
        let messages = Snapshot::of(tree).messages;
        let deed = self.rng.below(7);
        let Some((message, _)) = self.rng.pick(&messages).filter(|_| deed > 0) else {
            let bytes = self.body();
            tree.deliver(folder, &unique, &bytes);
            self.trail
                .push(format!("{side}: {unique} comes into {folder}"));
            return;
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("names of ours");
        let (from, name) = (text(&message.folder), text(&message.unique));
        self.trail.push(format!(
            "{side}: {deed} of {from}/{name} {}",
            &message.digest[..8]
        ));
        match deed {
            1 => {
                self.alive.remove(&message.digest);
                tree.delete(&from, &name);
            }
            2 | 3 => {
                self.alive.remove(&message.digest);
                let bytes = self.body();
                tree.replace(&from, &name, &bytes);
            }
            4 if !tree.has(folder, &name) => tree.rename(&from, &name, folder, &name),
            5 => tree.rename(&from, &name, &from, &unique),
            _ => tree.to_cur(&from, &name, ["", "S", "FS", "R"][self.rng.below(4)]),
        }
    }

    #[track_caller]
    fn check(&self, world: &World) {
        assert_once(world, &self.trail.join("\n"));
        let held: BTreeSet<String> = Snapshot::of(world.server())
            .counts()
            .into_keys()
            .map(str::to_owned)
            .collect();
        for (digest, label) in &self.alive {
            assert!(
                held.contains(digest),
                "{label} is lost:\n{}",
                self.trail.join("\n")
            );
        }
    }
}

/// Random doings on both sides, synced by either archive, sometimes killed in it.
fn random_history(seed: u64, second: Second) {
    let seed = seed_or(seed);
    let (world, clients) = pair(second);
    let mut history = History {
        rng: Rng::new(seed),
        alive: BTreeMap::new(),
        count: 0,
        trail: vec![format!("seed {seed}, {second:?}")],
    };
    world.server().make_folder("Other");
    for client in &clients {
        let _ = client.sync().run().ok();
    }
    for _ in 0..25 {
        for _ in 0..=history.rng.below(3) {
            let (tree, side) = match history.rng.below(2) {
                0 => (world.local(), "here"),
                _ => (world.server(), "there"),
            };
            history.act(tree, side);
        }
        let first = history.rng.below(2);
        if history.rng.chance(40) {
            let kill = Kill {
                end: [End::Client, End::Agent][history.rng.below(2)],
                call: ["renameat2", "fdatasync", "fsync"][history.rng.below(3)],
                nth: 1 + history.rng.below(6),
            };
            history.trail.push(format!("archive {first}, {kill:?}"));
            let _ = kill.run(&world, clients[first].sync());
        }
        for number in [first, 1 - first] {
            history.trail.push(format!("archive {number} syncs"));
            let run = clients[number].sync().run();
            assert_eq!(
                run.code,
                Some(0),
                "{}\n{}",
                history.trail.join("\n"),
                run.stderr
            );
            history.check(&world);
        }
        for client in &clients {
            let run = client.sync().run().ok();
            assert_eq!(
                run.done(),
                0,
                "{}\n{}",
                run.stdout,
                history.trail.join("\n")
            );
        }
    }
}

#[test]
fn random_histories_with_a_second_state_directory_double_nothing() {
    for seed in [811, 812, 813] {
        random_history(seed, Second::Here);
    }
}

#[test]
fn random_histories_with_a_client_on_each_machine_double_nothing() {
    for seed in [821, 822, 823] {
        random_history(seed, Second::There);
    }
}
