//! Random histories with the real binaries: one server, three clients, and everything that users, mail readers, delivery
//! agents, crashes, clocks and backups do to them. Each client has two archives of its pair. The oracle ([`oracle`]) knows nothing of how the programs merge.
//!
//! A history is a few epochs; after each, every client runs twice, all must be equal, every body is accounted for, and
//! nothing moves any more.

mod oracle;
mod runs;
mod user;

use std::collections::{BTreeMap, BTreeSet};

use harness::rng::seed_or;
use harness::snapshot::DigestCache;
use harness::world::remove_dir;
use harness::{Rng, Snapshot, Tree, World, body, digest_hex};

use oracle::{Oracle, Place};

/// The server is replica 0, the clients are 1 to 3.
pub(crate) const REPLICAS: usize = 4;

/// The clients, and from 4 to 6 again, each with its second state directory.
const ARCHIVES: usize = 2 * (REPLICAS - 1);

/// Folders that come and go.
const FOLDERS: &[&str] = &[
    "INBOX",
    "A",
    "B",
    "Lists/one",
    "Lists/two",
    "Old",
    "Sent",
    "Deep/er",
];

/// One history on its way.
pub(crate) struct History {
    world: World,
    rng: Rng,
    oracle: Oracle,
    cache: DigestCache,
    /// Second archives that go on from what they knew.
    seconds: BTreeSet<usize>,
    /// Whether this epoch began with second archives.
    has_seconds: bool,
    /// Clients that may treat their next run as a first sync, or a folder of it.
    adopting: BTreeSet<usize>,
    /// What was taken away lately, to be put back.
    taken: Vec<(Place, Vec<u8>)>,
    /// Runs that were killed, until the next one of the same archive.
    killed: Vec<Killed>,
    /// Replicas of which there is an earlier copy, with what users were removing then.
    saved: BTreeMap<usize, BTreeSet<String>>,
    trail: Trail,
    number: usize,
    salt: u64,
}

/// What a run that was killed did to one of its replicas: where a user takes that back before the next run, it may be made once
/// more, and nothing else may (I4).
struct Killed {
    archive: usize,
    replica: usize,
    /// Bodies that it brought, and where.
    brought: BTreeSet<(String, Place)>,
    /// Bodies that it replaced by others, and where.
    replaced: BTreeSet<(String, Place)>,
}

/// The second archive of a client.
fn second(client: usize) -> usize {
    client + REPLICAS - 1
}

/// What happened in this epoch; printed if a check fails.
struct Trail(Vec<String>);

impl Drop for Trail {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the epoch that failed:\n{}", self.0.join("\n"));
        }
    }
}

impl History {
    fn new(seed: u64) -> History {
        let mut history = History {
            world: World::with_clients(ARCHIVES),
            rng: Rng::new(seed),
            oracle: Oracle::default(),
            cache: DigestCache::default(),
            seconds: BTreeSet::new(),
            has_seconds: false,
            adopting: BTreeSet::new(),
            taken: Vec::new(),
            killed: Vec::new(),
            saved: BTreeMap::new(),
            trail: Trail(Vec::new()),
            number: 0,
            salt: seed,
        };
        for _ in 0..20 {
            history.deliver(0);
        }
        history.settle();
        history
    }

    fn play(&mut self, epochs: usize, steps: usize) {
        for epoch in 0..epochs {
            self.trail.0.clear();
            self.note(format!("epoch {epoch}"));
            for _ in 0..steps {
                self.step();
            }
            self.settle();
        }
    }

    /// One step of somebody. Runs are rarer than changes, so that changes meet.
    fn step(&mut self) {
        match self.rng.below(1000) {
            0..=729 => self.user_step(),
            730..=967 => self.run_step(),
            968..=989 => self.kill_step(),
            990..=994 => self.save_step(),
            _ => self.disaster_step(),
        }
    }

    /// Every client runs, and once more; then all are equal, every body is accounted for, and nothing moves any more, nor by a
    /// second archive.
    fn settle(&mut self) {
        self.note("everybody runs".to_owned());
        for _ in 0..2 {
            for client in 1..REPLICAS {
                self.full_sync(client);
            }
        }
        // What one archive did the other finds done; but it is for each to clean up after its own dead runs.
        for archive in second(1)..second(REPLICAS) {
            if !self.seconds.contains(&archive) {
                remove_dir(&self.world.nth(archive - 1).state());
            }
            let invocation = self.sync(archive);
            let run = self.run(archive, invocation).ok();
            assert_eq!(run.done(), 0, "{}: {}", run.what, run.stdout);
        }
        // What one archive saw go, and is put back before the other looks, the other takes for never gone: so an epoch has second
        // archives in it, or messages that are put back.
        self.has_seconds = self.rng.chance(60);
        self.seconds.clear();
        if self.has_seconds {
            self.seconds.extend(second(1)..second(REPLICAS));
        }
        for client in 1..REPLICAS {
            self.full_sync(client);
        }
        let views = self.views();
        for view in &views[1..] {
            let difference = harness::snapshot::difference(&views[0].mail(), &view.mail());
            assert!(
                difference.is_empty(),
                "after one more run per client (< server, > client):\n{difference}"
            );
            assert_eq!(
                view.folders, views[0].folders,
                "folders after one more run per client"
            );
            assert!(
                view.rubbish.is_empty() && views[0].rubbish.is_empty(),
                "tmp: {:?}",
                view.rubbish
            );
        }
        self.oracle.check(&views[0]);
        self.adopting.clear();
        self.oracle.observe(&views, true);
        for (client, view) in views.iter().enumerate().skip(1) {
            let _ = self.sync(client).run().ok().idle();
            harness::assert_untouched(view, self.tree(client), "a run with nothing to do");
        }
        harness::assert_untouched(&views[0], self.tree(0), "a run with nothing to do");
    }

    fn tree(&self, replica: usize) -> &Tree {
        match replica {
            0 => self.world.server(),
            client => self.world.nth((client - 1) % (REPLICAS - 1)).tree(),
        }
    }

    fn view(&mut self, replica: usize) -> Snapshot {
        let tree = self.tree(replica).clone();
        Snapshot::again(&tree, &mut self.cache)
    }

    fn views(&mut self) -> Vec<Snapshot> {
        (0..REPLICAS).map(|replica| self.view(replica)).collect()
    }

    /// Clients act more often than the server, and each as often as the others.
    fn any_replica(&mut self) -> usize {
        self.rng.below(REPLICAS)
    }

    fn any_client(&mut self) -> usize {
        1 + self.rng.below(REPLICAS - 1)
    }

    /// A client, sometimes with its second archive.
    fn any_archive(&mut self) -> usize {
        let client = self.any_client();
        if self.rng.chance(20) && self.seconds.contains(&second(client)) {
            return second(client);
        }
        client
    }

    /// A unique name that was never used.
    fn fresh_unique(&mut self) -> String {
        self.number += 1;
        format!(
            "18000{:05}.M{}P1.h{}",
            self.number,
            self.number,
            self.rng.below(3)
        )
    }

    /// Bytes that nobody wrote before.
    fn fresh_bytes(&mut self) -> Vec<u8> {
        self.number += 1;
        let mut bytes = body(&format!("history {} body {}", self.salt, self.number));
        for _ in 0..self.rng.below(20) {
            bytes.extend_from_slice(digest_hex(&self.rng.bytes(8)).as_bytes());
            bytes.push(b'\n');
        }
        bytes
    }

    fn note(&mut self, what: String) {
        self.trail.0.push(what);
    }
}

macro_rules! histories {
    ($($name:ident: $seed:expr, $epochs:expr, $steps:expr;)*) => {
        $(#[test]
        fn $name() {
            History::new(seed_or($seed)).play($epochs, $steps);
        })*
    };
}

// 10,400 steps, in parts so that cores share them. Short epochs find simple faults with short trails, long ones let
// strange states pile up.
histories! {
    history_of_short_epochs_1: 101, 26, 50;
    history_of_short_epochs_2: 102, 26, 50;
    history_of_short_epochs_3: 103, 26, 50;
    history_of_middle_epochs_1: 201, 9, 150;
    history_of_middle_epochs_2: 202, 9, 150;
    history_of_middle_epochs_3: 203, 9, 150;
    history_of_long_epochs_1: 301, 3, 430;
    history_of_long_epochs_2: 302, 3, 430;
}

/// For nights: as many seeds as the variable `MAILDIR_SYNC_HISTORIES` says.
#[test]
#[ignore = "as long as you like"]
fn histories_of_many_seeds() {
    let count = std::env::var("MAILDIR_SYNC_HISTORIES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(50);
    let first = seed_or(1000);
    for seed in first..first + count {
        println!("seed {seed}");
        History::new(seed).play(6, 60);
    }
}
