//! Two laptops that watch, a run by a timer beside them, and users of all three Maildirs at full speed: deliveries, flags, moves and
//! deletions as mail readers make them, while rounds go on. The oracle knows what users did, and nothing of how it is merged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use harness::rng::seed_or;
use harness::tree::{name_bytes, split};
use harness::{
    Client, Invocation, Rng, Snapshot, Tree, Watch, World, are_same, assert_same, body, digest_hex,
};

use super::{configured, shown};

const FOLDERS: [&str; 4] = ["INBOX", "Lists", "Old", "Sent"];
/// How much mail a user keeps.
const KEPT: usize = 40;

/// Who reads and delivers mail at one replica. Only who made a message moves or deletes it, so that what becomes of it is certain (SPEC,
/// rows 6 and 9 are of others); flags are everybody's.
struct User {
    number: usize,
    tree: Tree,
    rng: Rng,
    made: usize,
    /// Its messages, by their text: whether it still is to be there.
    own: BTreeMap<String, bool>,
}

impl User {
    fn new(number: usize, tree: &Tree, seed: u64) -> User {
        User {
            number,
            tree: tree.clone(),
            rng: Rng::new(seed ^ (number as u64) << 32),
            made: 0,
            own: BTreeMap::new(),
        }
    }

    /// Does so many things, and some more until what it delivered last is at the other replica: so there are rounds all the time.
    fn burst(&mut self, steps: usize, other: &Tree) {
        for _ in 0..steps {
            self.step();
        }
        let last = self.deliver("INBOX");
        let begun = Instant::now();
        while !other.has("INBOX", &last) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{last} never comes"
            );
            self.flag();
            thread::yield_now();
        }
    }

    fn step(&mut self) {
        let live = self.own.values().filter(|&&stays| stays).count();
        let folder = FOLDERS[self.rng.below(FOLDERS.len())];
        match self.rng.below(10) {
            0..3 if live < KEPT => drop(self.deliver(folder)),
            0..6 => self.flag(),
            6..8 => self.move_own(folder),
            _ => self.delete_own(),
        }
    }

    /// The name is the text, too.
    fn deliver(&mut self, folder: &str) -> String {
        let unique = format!("{}.u{}.mx", self.made, self.number);
        self.made += 1;
        // A delivery agent's own temporary file: others deliver here, too.
        let tmp = self.tree.dir(folder).join("tmp").join(&unique);
        let new = self.tree.dir(folder).join("new").join(&unique);
        harness::tree::write_with_time(&tmp, &body(&unique));
        fs::rename(tmp, new).expect("it is delivered");
        self.own.insert(unique.clone(), true);
        unique
    }

    /// Any message, with its folder's directory.
    fn any(&mut self, is_wanted: impl Fn(&str) -> bool) -> Option<(PathBuf, String)> {
        let folder = FOLDERS[self.rng.below(FOLDERS.len())];
        let dir = self.tree.dir(folder);
        let parts = ["new", "cur"].map(|part| harness::tree::files(&dir.join(part)));
        let unique = |path: &Path| String::from_utf8_lossy(split(name_bytes(path)).0).into_owned();
        let found: Vec<PathBuf> = parts
            .concat()
            .into_iter()
            .filter(|path| is_wanted(&unique(path)))
            .collect();
        let path = self.rng.pick(&found)?.clone();
        let unique = unique(&path);
        Some((path, unique))
    }

    /// As mutt does: from wherever it is to `cur`, if it is still there.
    fn flag(&mut self) {
        let flags = ["S", "FS", "RS", "F"][self.rng.below(4)];
        if let Some((path, unique)) = self.any(|unique| unique.ends_with(".mx")) {
            let cur = path
                .parent()
                .and_then(Path::parent)
                .expect("a folder")
                .join("cur");
            let _ = fs::rename(&path, cur.join(format!("{unique}:2,{flags}")));
        }
    }

    fn move_own(&mut self, folder: &str) {
        let own = format!(".u{}.mx", self.number);
        if let Some((path, _)) = self.any(|unique| unique.ends_with(&own)) {
            let part = path.parent().and_then(Path::file_name).expect("new or cur");
            let to = self.tree.dir(folder).join(part);
            let _ = fs::rename(&path, to.join(path.file_name().expect("a file")));
        }
    }

    fn delete_own(&mut self) {
        let own = format!(".u{}.mx", self.number);
        if let Some((path, unique)) = self.any(|unique| unique.ends_with(&own))
            && fs::remove_file(&path).is_ok()
        {
            self.own.insert(unique, false);
        }
    }
}

fn by_timer(client: &Client) -> Invocation {
    let run = client.bare(&["sync", "home", "--json"]);
    run.arg("--state-dir").arg(client.state())
}

/// A run beside the watch of the same client.
fn beside(client: &Client) {
    let run = by_timer(client).run();
    assert!(
        [Some(0), Some(75)].contains(&run.code),
        "{}: {}",
        run.what,
        run.stderr
    );
}

fn play(seed: u64, bursts: usize, steps: usize) {
    let world = World::with_clients(2);
    for folder in FOLDERS {
        world.server().make_folder(folder);
    }
    let clients = [0, 1].map(|number| world.nth(number));
    // Users delete more than the guard lets pass.
    let watches =
        clients.map(|client| Watch::invoke(configured(&world, client, "max_delete = \"100%\"")));
    let trees = [world.server(), clients[0].tree(), clients[1].tree()];
    watches[1].until("the first rounds", || are_same(&trees));
    let mut users = [0, 1, 2].map(|number| User::new(number, trees[number], seed));
    thread::scope(|scope| {
        for (number, user) in users.iter_mut().enumerate() {
            let other = trees[(number + 1) % 3];
            scope.spawn(move || {
                for _ in 0..bursts {
                    user.burst(steps, other);
                }
            });
        }
        for _ in 0..bursts {
            beside(clients[0]);
        }
    });
    watches[1].until("all are the same", || are_same(&trees));
    for client in clients {
        // Both are quiet: nothing is left to do, and nothing is reported as waiting.
        let _ = by_timer(client).run().ok().idle();
        assert_eq!(
            shown(client)["reconnects"].as_array().map(Vec::len),
            Some(0)
        );
    }
    for (watch, client) in watches.into_iter().zip(clients) {
        assert_eq!(watch.end().0, Some(0));
        assert_same(world.server(), client.tree());
    }
    check(&users, world.server());
}

/// Every message is there once, or, if its user deleted it, gone; its bytes are its own.
fn check(users: &[User], tree: &Tree) {
    let found = Snapshot::of(tree);
    let counts = found.counts();
    let mut expected = 0;
    for user in users {
        for (text, &stays) in &user.own {
            let count = counts.get(&*digest_hex(&body(text))).copied();
            assert_eq!(count.unwrap_or(0), usize::from(stays), "{text}");
            expected += usize::from(stays);
        }
    }
    assert_eq!(found.mail().len(), expected);
}

#[test]
fn two_laptops_a_timer_and_users_at_full_speed_lose_and_double_nothing() {
    play(seed_or(1), 3, 60);
}

/// For nights: as many seeds as the variable `MAILDIR_SYNC_HISTORIES` says.
#[test]
#[ignore = "as long as you like"]
fn two_laptops_and_users_of_many_seeds() {
    let count = std::env::var("MAILDIR_SYNC_HISTORIES")
        .ok()
        .and_then(|text| text.parse().ok());
    let first = seed_or(1000);
    for seed in first..first + count.unwrap_or(20) {
        println!("seed {seed}");
        play(seed, 10, 200);
    }
}
