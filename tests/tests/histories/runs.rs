//! Runs of every kind, kills, backups that are put back, state that is lost.

use std::collections::{BTreeMap, BTreeSet};

use harness::faults::End;
use harness::world::{copy_dir, link_dir, remove_dir};
use harness::{Invocation, Kill, Run, Snapshot};

use super::oracle::Place;
use super::{FOLDERS, History, Killed, REPLICAS, second};

/// What lies where.
type Bodies = BTreeMap<Place, String>;

fn by_place(view: &Snapshot) -> Bodies {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let mail = view.mail().into_iter();
    mail.map(|message| {
        (
            (text(&message.folder), text(&message.unique)),
            message.digest.clone(),
        )
    })
    .collect()
}

impl History {
    pub(super) fn run_step(&mut self) {
        let client = self.any_archive();
        match self.rng.below(100) {
            0..=44 => self.full_sync(client),
            45..=62 => self.one_way(client, "pull"),
            63..=80 => self.one_way(client, "push"),
            81..=86 => self.only_one_folder(client),
            87..=91 => self.without_one_folder((client - 1) % (REPLICAS - 1) + 1),
            92..=93 => self.without_deletions(client),
            94..=96 => self.with_a_clock_that_jumps(client),
            _ => self.guarded(client),
        }
    }

    /// A sync without a guard: trees this small are all exceptions to its numbers.
    pub(super) fn sync(&self, client: usize) -> Invocation {
        self.pair(client, "sync").args(&["--max-delete", "100%"])
    }

    fn pair(&self, client: usize, command: &str) -> Invocation {
        let archive = self.world.nth(client - 1);
        archive.with_tree(self.tree(client)).pair(command)
    }

    /// Runs, and checks what holds for every run.
    pub(super) fn run(&mut self, client: usize, invocation: Invocation) -> Run {
        self.note(format!("{client}: {invocation}"));
        let before = [self.view(0), self.view(client)];
        let run = invocation.clone().run();
        self.note_outcome(&run);
        self.after(&before);
        // Backups that were put back make trees grow over the number from which two of them are not joined unasked.
        let is_asked = run.code == Some(4) && run.stderr.contains("Run again with --adopt");
        if is_asked && self.adopting.contains(&client) {
            assert_eq!(
                [self.view(0), self.view(client)],
                before,
                "it did something"
            );
            return self.run(client, invocation.args(&["--adopt"]));
        }
        self.killed.retain(|killed| killed.archive != client);
        run
    }

    /// What a run says that it did, without the figures that are 0.
    fn note_outcome(&mut self, run: &Run) {
        let said: Vec<&str> = run
            .stdout
            .split(['{', ',', '}'])
            .filter(|part| {
                !part.ends_with(":0") && !part.contains("bytes_") && !part.contains("account")
            })
            .filter(|part| !part.is_empty())
            .collect();
        self.note(format!(
            "   exit {:?} {} {}",
            run.code,
            said.join(" ").trim(),
            run.stderr.trim()
        ));
    }

    fn after(&mut self, before: &[Snapshot; 2]) {
        let views = self.views();
        self.oracle.check_run([&before[0], &before[1]], &views);
        let nobody_adopts = self.adopting.is_empty();
        self.oracle.observe(&views, nobody_adopts);
    }

    /// A whole sync, whatever lies beside the mail.
    pub(super) fn one_sync(&mut self, client: usize) {
        let invocation = self.sync(client);
        let _ = self.run(client, invocation).ok();
    }

    /// A whole sync leaves both sides equal.
    pub(super) fn full_sync(&mut self, client: usize) {
        let invocation = self.sync(client);
        let run = self.run(client, invocation).ok();
        self.assert_equal(client);
        assert_eq!(
            run.pending(),
            0,
            "equal, yet something pending: {}",
            run.stdout
        );
        self.adopting.remove(&client);
    }

    fn assert_equal(&mut self, client: usize) {
        let difference = self.difference(client);
        if !difference.is_empty() {
            let again = self.sync(client).run();
            self.note_outcome(&again);
            let still = self.difference(client);
            panic!(
                "after a sync of client {client} (< server, > client):\n{difference}after one more:\n{still}"
            );
        }
    }

    fn difference(&mut self, client: usize) -> String {
        let (server, local) = (self.view(0), self.view(client));
        let mut difference = harness::snapshot::difference(&server.mail(), &local.mail());
        for folder in server.folders.symmetric_difference(&local.folders) {
            difference += &format!("  folder {} is on one side only\n", folder.escape_ascii());
        }
        difference
    }

    fn one_way(&mut self, client: usize, command: &str) {
        let still = if command == "pull" { 0 } else { client };
        let before = self.view(still);
        let invocation = self.pair(client, command).args(&["--max-delete", "100%"]);
        let _ = self.run(client, invocation).ok();
        harness::assert_untouched(&before, self.tree(still), command);
    }

    fn only_one_folder(&mut self, client: usize) {
        let folder = FOLDERS[self.rng.below(FOLDERS.len())];
        let invocation = self.sync(client).args(&["--folder", folder]);
        let _ = self.run(client, invocation).ok();
    }

    /// What is excluded is forgotten: when it is included again, the union is made of both sides.
    fn without_one_folder(&mut self, client: usize) {
        let folder = FOLDERS[1 + self.rng.below(FOLDERS.len() - 1)];
        self.adopting.insert(client);
        let views = self.views();
        self.oracle.forgotten(&views);
        let invocation = self.sync(client).args(&["--exclude", folder]);
        let _ = self.run(client, invocation).ok();
        let views = self.views();
        self.oracle.forgotten(&views);
    }

    /// Deletions that are held back are neither done nor undone.
    fn without_deletions(&mut self, client: usize) {
        let invocation = self.pair(client, "sync").arg("--no-delete");
        let run = self.run(client, invocation).ok();
        assert_eq!(
            run.here("deleted") + run.there("deleted"),
            0,
            "{}",
            run.stdout
        );
    }

    /// A machine without a battery, until it has asked for the time, or one that asked the wrong one.
    fn with_a_clock_that_jumps(&mut self, client: usize) {
        let times = ["@1970-01-02 00:00:00", "-400d", "+3d", "+40d", "+4000d"];
        let time = times[self.rng.below(times.len())];
        let clock = ["faketime", "--exclude-monotonic", "-f", time];
        let invocation = self.sync(client).under(&clock);
        let _ = self.run(client, invocation).ok();
        self.assert_equal(client);
    }

    /// A guard that lets one deletion pass; what it refuses is confirmed at once, later or never.
    fn guarded(&mut self, client: usize) {
        let limit = ["--max-delete", "1"];
        let invocation = self.pair(client, "sync").args(&limit);
        let run = self.run(client, invocation);
        if run.code == Some(0) {
            return self.assert_equal(client);
        }
        let run = run.exits(4);
        assert_eq!(
            run.here("deleted") + run.there("deleted"),
            0,
            "{}",
            run.stdout
        );
        if self.rng.chance(60) {
            let plan = run.plan();
            let invocation = self
                .pair(client, "sync")
                .args(&limit)
                .args(&["--confirm", &plan]);
            let _ = self.run(client, invocation).ok();
            self.assert_equal(client);
        }
    }

    /// One end dies somewhere, mostly between applying and committing; users go on before the next run.
    pub(super) fn kill_step(&mut self) {
        let client = self.any_archive();
        let end = if self.rng.chance(60) {
            End::Client
        } else {
            End::Agent
        };
        let call = [
            "fdatasync",
            "pwrite64",
            "renameat2",
            "fsync",
            "unlinkat",
            "syncfs",
            "write",
        ][self.rng.below(7)];
        let kill = Kill {
            end,
            call,
            nth: 1 + self.rng.below(14),
        };
        self.note(format!("{client}: sync with {kill:?}"));
        let before = [self.view(0), self.view(client)];
        let (hit, run) = kill.run(&self.world, self.sync(client));
        assert!(hit || run.code == Some(0), "{run:?}");
        assert!(!run.stderr.contains("panicked"), "{run:?}");
        self.note_outcome(&run);
        self.after(&before);
        if !hit {
            return;
        }
        for (replica, before) in [0, (client - 1) % (REPLICAS - 1) + 1]
            .into_iter()
            .zip(before)
        {
            let after = self.view(replica);
            let (was, is) = (by_place(&before), by_place(&after));
            let differing = |one: &Bodies, other: &Bodies| -> BTreeSet<(String, Place)> {
                let all = one
                    .iter()
                    .filter(|(place, digest)| other.get(*place) != Some(*digest));
                all.map(|(place, digest)| (digest.clone(), place.clone()))
                    .collect()
            };
            let mut replaced = differing(&was, &is);
            replaced.retain(|(_, place)| is.contains_key(place));
            self.killed.push(Killed {
                archive: client,
                replica,
                brought: differing(&is, &was),
                replaced,
            });
        }
    }

    /// Keeps an earlier copy of a replica, tree and state.
    pub(super) fn save_step(&mut self) {
        let replica = self.any_replica();
        self.note(format!("{replica}: backup"));
        copy_dir(self.tree(replica).root(), &self.backup(replica, "tree"));
        link_dir(self.tree(replica).root(), &self.backup(replica, "links"));
        copy_dir(&self.state(replica), &self.backup(replica, "state"));
        let being_removed = self.oracle.being_removed();
        self.saved.insert(replica, being_removed);
    }

    fn backup(&self, replica: usize, what: &str) -> std::path::PathBuf {
        self.world.path(&format!("backup-{what}-{replica}"))
    }

    fn state(&self, replica: usize) -> std::path::PathBuf {
        match replica {
            0 => self.world.server_state(),
            client => self.world.nth(client - 1).state(),
        }
    }

    /// A backup is put back, wholly or in part, or state is lost.
    pub(super) fn disaster_step(&mut self) {
        let replica = self.any_replica();
        match self.rng.below(9) {
            0 => self.lose_state(replica),
            kind @ 5.. if self.saved.contains_key(&replica) => {
                self.put_back_under_the_marker(replica, kind)
            }
            kind if self.saved.contains_key(&replica) => self.restore(replica, kind),
            _ => {}
        }
    }

    /// I12: the server's index costs time only; a client without its archive makes the union.
    fn lose_state(&mut self, replica: usize) {
        self.note(format!("{replica}: state lost"));
        remove_dir(&self.state(replica));
        if replica != 0 {
            self.adopting.insert(replica);
            let views = self.views();
            self.oracle.forgotten(&views);
        }
    }

    /// A snapshot of hard links in the place of the tree; a backup copied back after `rm -rf *`, under the marker; one folder of
    /// it. What is missing then was deleted by nobody.
    fn put_back_under_the_marker(&mut self, replica: usize, kind: usize) {
        let (before, how) = (self.view(replica), ["cp -a", "cp -al"][self.rng.below(2)]);
        let from = self.backup(replica, if how == "cp -a" { "tree" } else { "links" });
        let copy = if how == "cp -a" { copy_dir } else { link_dir };
        let root = self.tree(replica).root().to_owned();
        match kind {
            5 => {
                self.note(format!("{replica}: snapshot of links put back"));
                let removed = self.saved.get(&replica).cloned().unwrap_or_default();
                self.oracle.removed_again(&removed);
                link_dir(&self.backup(replica, "links"), &root);
            }
            6 => {
                self.note(format!("{replica}: {how} of the backup under the marker"));
                for path in harness::tree::files(&root) {
                    if !path.ends_with(".maildir-sync") {
                        std::fs::remove_dir_all(&path).expect("a folder is removed");
                    }
                }
                for path in harness::tree::files(&from) {
                    if !path.ends_with(".maildir-sync") {
                        copy(&path, &root.join(path.file_name().expect("a name")));
                    }
                }
            }
            _ => {
                let folder = FOLDERS[self.rng.below(FOLDERS.len())];
                let dir = self.tree(replica).dir(folder);
                let saved = from.join(dir.strip_prefix(&root).expect("it lies in it"));
                if !dir.join("cur").is_dir() || !saved.join("cur").is_dir() {
                    return;
                }
                self.note(format!("{replica}: {how} of {folder}"));
                for part in ["cur", "new"] {
                    copy(&saved.join(part), &dir.join(part));
                }
            }
        }
        self.was_set_back(replica, &before);
    }

    /// What differs from the others since may come back, until all have met it.
    fn was_set_back(&mut self, replica: usize, before: &Snapshot) {
        let after = self.view(replica);
        let mut others = self.views();
        others.remove(replica);
        self.oracle.set_back(before, &after, &others);
        let met = if replica == 0 {
            1..REPLICAS
        } else {
            replica..replica + 1
        };
        // What a second archive would do that meets this much later nobody could tell: it begins anew.
        for client in met.clone() {
            self.seconds.remove(&second(client));
            remove_dir(&self.world.nth(second(client) - 1).state());
        }
        self.adopting.extend(met);
    }

    fn restore(&mut self, replica: usize, kind: usize) {
        let (tree, state) = [(true, true), (true, false), (false, true), (true, true)][kind - 1];
        self.note(format!(
            "{replica}: backup put back (tree {tree}, state {state})"
        ));
        let before = self.view(replica);
        if tree {
            let removed = self.saved.get(&replica).cloned().unwrap_or_default();
            self.oracle.removed_again(&removed);
            copy_dir(&self.backup(replica, "tree"), self.tree(replica).root());
        }
        if state {
            copy_dir(&self.backup(replica, "state"), &self.state(replica));
        }
        self.was_set_back(replica, &before);
    }
}
