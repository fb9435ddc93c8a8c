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

/// What a user may do to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Nothing,
    Flag,
    Move,
    Rename,
    Edit,
    Delete,
}

const CHANGES: [Change; 6] = [
    Change::Nothing,
    Change::Flag,
    Change::Move,
    Change::Rename,
    Change::Edit,
    Change::Delete,
];

/// All that happens to one message: here and there before one archive syncs, here and there before the other one does.
type Story = [Change; 4];

fn stories() -> Vec<Story> {
    let of = |number: usize, power: u32| CHANGES[number / CHANGES.len().pow(power) % CHANGES.len()];
    let count = CHANGES.len().pow(4);
    let story = |number| [0, 1, 2, 3].map(|power| of(number, power));
    (0..count).map(story).collect()
}

/// Edited and renamed, then moved on one side and renamed on the other: neither name nor folder tell that it is one message, so
/// both are kept (rows 13 and 13b).
fn is_past_telling(story: &Story) -> bool {
    use Change::{Edit, Move, Rename};
    let (before, after) = story.split_at(2);
    let is = |pair: &[Change], one: Change, other: Change| {
        pair == [one, other].as_slice() || pair == [other, one].as_slice()
    };
    is(before, Edit, Rename) && is(after, Move, Rename)
}

/// Every story, each with a message of its own, and the bodies that users took away.
struct Stories {
    all: Vec<Story>,
    labels: BTreeMap<String, (usize, String)>,
    removed: BTreeSet<String>,
}

impl Stories {
    fn begin(tree: &Tree) -> Stories {
        let mut stories = Stories {
            all: stories(),
            labels: BTreeMap::new(),
            removed: BTreeSet::new(),
        };
        for number in 0..stories.all.len() {
            let bytes = stories.body(number, "as it came");
            tree.store("INBOX", &format!("17{number:08}.M1P1.u"), "", &bytes);
        }
        stories
    }

    fn body(&mut self, number: usize, text: &str) -> Vec<u8> {
        let label = format!("{:?} {text}", self.all[number]);
        let bytes = body(&label);
        self.labels.insert(digest_hex(&bytes), (number, label));
        bytes
    }

    /// What users do on one side at one time.
    fn go_on(&mut self, tree: &Tree, time: usize, side: &str) {
        let mut met = BTreeSet::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("names of ours");
        for (message, _) in Snapshot::of(tree).messages {
            let (folder, unique) = (text(&message.folder), text(&message.unique));
            let number: usize = unique[2..10].parse().expect("the number of the story");
            // Of two that came of one message the first.
            if !met.insert(number) {
                continue;
            }
            let (change, away) = (self.all[number][time], format!("{side}{time}"));
            if change == Change::Edit {
                let bytes = self.body(number, &format!("edited {side}, {time}"));
                tree.replace(&folder, &unique, &bytes);
            }
            match change {
                Change::Nothing | Change::Edit => {}
                Change::Flag => tree.to_cur(&folder, &unique, ["F", "R", "S", "T"][time]),
                Change::Move => tree.rename(&folder, &unique, &away, &unique),
                Change::Rename => {
                    tree.rename(&folder, &unique, &folder, &format!("{unique}{away}"));
                }
                Change::Delete => tree.delete(&folder, &unique),
            }
            if matches!(change, Change::Edit | Change::Delete) {
                self.removed.insert(message.digest);
            }
        }
    }

    /// No body is there twice, and every one that nobody took away is there.
    #[track_caller]
    fn check(&self, world: &World, what: &str) {
        let [there, here] = [world.server(), world.local()].map(Snapshot::of);
        let mut wrong = difference(&there.mail(), &here.mail());
        let counts = there.counts();
        for (digest, (number, label)) in &self.labels {
            let count = counts.get(digest.as_str()).copied().unwrap_or_default();
            let most = 1 + usize::from(is_past_telling(&self.all[*number]));
            if count > most || (count == 0 && !self.removed.contains(digest)) {
                wrong += &format!("{label}: {count} times\n");
            }
        }
        let lines = wrong.lines().count();
        let shown: Vec<&str> = wrong.lines().take(60).collect();
        assert!(lines == 0, "{what}, {lines} lines:\n{}", shown.join("\n"));
    }
}

/// All that users can do to a message on either side, before one archive syncs and again before the other one does.
fn no_story_doubles_or_loses_a_message(second: Second, first: usize) {
    let (world, clients) = pair(second);
    let sync = |number: usize| clients[number].sync().args(&["--max-delete", "100%"]).run();
    for number in 0..4 {
        let side = ["here", "there"][number % 2];
        world.server().make_folder(&format!("{side}{number}"));
    }
    let mut stories = Stories::begin(world.server());
    for number in [0, 1] {
        let _ = sync(number).ok();
    }
    for (time, number) in [first, 1 - first].into_iter().enumerate() {
        stories.go_on(world.local(), 2 * time, "here");
        stories.go_on(world.server(), 2 * time + 1, "there");
        let _ = sync(number).ok();
        stories.check(&world, &format!("{second:?}, archive {number} of {first}"));
    }
    let _ = sync(first).ok();
    stories.check(&world, &format!("{second:?}, archive {first} once more"));
    for number in [1 - first, first] {
        let run = sync(number).ok();
        assert_eq!(run.done(), 0, "{}", run.stdout);
    }
}

#[test]
fn no_story_that_a_second_state_directory_meets_doubles_or_loses_a_message() {
    no_story_doubles_or_loses_a_message(Second::Here, 0);
}

#[test]
fn no_story_that_the_other_machine_meets_doubles_or_loses_a_message() {
    no_story_doubles_or_loses_a_message(Second::There, 0);
}

#[test]
fn no_story_that_the_other_machine_met_doubles_or_loses_a_message_here() {
    no_story_doubles_or_loses_a_message(Second::There, 1);
}

/// An edit that one archive knows of and could not carry over is to the other a new message under a name that is taken.
#[test]
fn an_edit_that_another_archive_met_as_a_new_message_stays_one_message() {
    for command in ["pull", "push"] {
        for second in [Second::Here, Second::There] {
            let (world, clients) = pair(second);
            for client in &clients {
                let _ = client.sync().run().ok();
            }
            world.server().store("INBOX", OLD, "S", &body("old"));
            let _ = clients[0].sync().run().ok();
            let tree = [world.local(), world.server()][usize::from(command == "push")];
            tree.replace("INBOX", OLD, &edited(tree));
            let _ = clients[0].pair(command).run().ok();
            for number in [1, 0, 1] {
                let _ = clients[number].sync().run().ok();
                assert_once(&world, &format!("{command}, {second:?}, archive {number}"));
            }
        }
    }
}

/// One archive sees a copy renamed and may not carry it over, another carries it over together with the other copy's rename: which
/// of the two went where is to the first the reverse of what it saw on the other side.
#[test]
fn equal_bytes_that_another_archive_moved_lie_in_no_record_crosswise() {
    const COPY: &str = "1700000001.M1P2.copy";
    for command in ["pull", "push"] {
        for second in [Second::Here, Second::There] {
            for text in ["equal", "edited"] {
                let (world, clients) = pair(second);
                world.server().make_folder("Other");
                for unique in [OLD, COPY] {
                    world.server().store("INBOX", unique, "S", &body("equal"));
                }
                for client in &clients {
                    let _ = client.sync().run().ok();
                }
                let tree = [world.server(), world.local()]
                    [usize::from((command == "pull") == (second == Second::Here))];
                tree.rename("INBOX", OLD, "Other", "1700000002.M2P2.moved");
                let _ = clients[1].pair(command).run().ok();
                tree.rename("INBOX", COPY, "INBOX", "1700000003.M3P3.renamed");
                let _ = clients[0].sync().run().ok();
                if text == "edited" {
                    tree.replace("Other", "1700000002.M2P2.moved", &body(text));
                    let _ = clients[0].sync().run().ok();
                }
                for number in [1, 0, 1] {
                    let what = format!("{command}, {second:?}, {text}, archive {number}");
                    let run = clients[number].sync().run().ok();
                    assert_eq!(
                        (run.done(), run.conflicts()),
                        (0, 0),
                        "{what}: {}",
                        run.stdout
                    );
                }
            }
        }
    }
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
