//! The rows of the merge table (SPEC §4) × (`sync`, `pull`, `push`) × both directions, on disk.
//!
//! Each row is data: what both sides agreed on, what happened here, what happened there, what must come out. It is
//! played six times: as `sync`, as `pull` then `push`, as `push` then `pull`, and each with the sides exchanged.

use std::collections::BTreeSet;

use harness::faults::End;
use harness::{Client, Kill, Run, Snapshot, Tree, World, bulky, digest_hex, fresh_name};

use Step::*;

const U1: &str = "1700000001.M1P1.mx,S=20";
const U2: &str = "1700000002.M2P1.mx,S=20";
const U3: &str = "1700000003.M3P1.mx,S=20";
const U4: &str = "1700000004.M4P1.mx,S=20";
const U5: &str = "1700000005.M5P1.mx,S=20";

/// Bodies are long and do not compress, so that one on the wire shows in the bytes sent.
const BODY_BYTES: usize = 20_000;
const NO_BODY_BYTES_MAX: u64 = 8_000;

/// What a user or a mail reader does. Bodies are named by labels.
#[derive(Clone, Copy, Debug)]
enum Step {
    Deliver(&'static str, &'static str, &'static str),
    Store(&'static str, &'static str, &'static str, &'static str),
    StoreNew(&'static str, &'static str, &'static str, &'static str),
    Flag(&'static str, &'static str, &'static str),
    ToCur(&'static str, &'static str, &'static str),
    ToNew(&'static str, &'static str),
    Move(&'static str, &'static str, &'static str, &'static str),
    Copy(&'static str, &'static str, &'static str, &'static str),
    Link(&'static str, &'static str, &'static str, &'static str),
    Delete(&'static str, &'static str),
    Edit(&'static str, &'static str, &'static str),
    Replace(&'static str, &'static str, &'static str),
    EditKeepingTime(&'static str, &'static str, &'static str),
    Folder(&'static str),
    RemoveFolder(&'static str),
    RenameFolder(&'static str, &'static str),
    Foreign(&'static str, &'static str),
}

/// A message that must come out: folder, unique name (`U~label` for a fresh one), part, flags, label of its body.
type Expected = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

/// One row of the table.
#[derive(Clone, Copy)]
struct Row {
    base: &'static [Step],
    here: &'static [Step],
    there: &'static [Step],
    /// What comes out where `here` is the client and `there` the server.
    after: &'static [Expected],
    /// What comes out with the sides exchanged, where the server breaks a tie.
    mirrored: Option<&'static [Expected]>,
    /// Folders that come out beside INBOX, Work and those that hold messages.
    folders: &'static [&'static str],
    /// Whether a body may travel.
    body_travels: bool,
    /// Whether it must be reported as a conflict.
    reported: bool,
}

const PLAIN: Row = Row {
    base: &[],
    here: &[],
    there: &[],
    after: &[],
    mirrored: None,
    folders: &[],
    body_travels: false,
    reported: false,
};

fn bytes(label: &str) -> Vec<u8> {
    bulky(label, BODY_BYTES)
}

fn play(tree: &Tree, steps: &[Step]) {
    for step in steps {
        match *step {
            Deliver(folder, unique, label) => tree.deliver(folder, unique, &bytes(label)),
            Store(folder, unique, flags, label) => tree.store(folder, unique, flags, &bytes(label)),
            StoreNew(folder, unique, flags, label) => {
                tree.put(
                    folder,
                    "new",
                    format!("{unique}:2,{flags}").as_bytes(),
                    &bytes(label),
                );
            }
            Flag(folder, unique, flags) => tree.set_flags(folder, unique, flags),
            ToCur(folder, unique, flags) => tree.to_cur(folder, unique, flags),
            ToNew(folder, unique) => tree.to_new(folder, unique),
            Move(folder, unique, to_folder, to_unique) => {
                tree.rename(folder, unique, to_folder, to_unique)
            }
            Copy(folder, unique, to_folder, to_unique) => {
                tree.copy(folder, unique, to_folder, to_unique)
            }
            Link(folder, unique, to_folder, to_unique) => {
                tree.link(folder, unique, to_folder, to_unique)
            }
            Delete(folder, unique) => tree.delete(folder, unique),
            Edit(folder, unique, label) => tree.edit(folder, unique, &bytes(label)),
            Replace(folder, unique, label) => tree.replace(folder, unique, &bytes(label)),
            EditKeepingTime(folder, unique, label) => {
                edit_keeping_time(tree, folder, unique, label)
            }
            Folder(folder) => tree.make_folder(folder),
            RemoveFolder(folder) => tree.remove_folder(folder),
            RenameFolder(from, to) => tree.rename_folder(from, to),
            Foreign(folder, name) => {
                std::fs::write(tree.dir(folder).join(name), name).expect("file is written")
            }
        }
    }
}

/// Edits as `touch -r` hides it: same size, same modification time (C51).
fn edit_keeping_time(tree: &Tree, folder: &str, unique: &str, label: &str) {
    let path = tree.path(folder, unique);
    let stat = std::fs::metadata(&path).expect("message is there");
    tree.edit(folder, unique, &bytes(label));
    let file = std::fs::File::options()
        .write(true)
        .open(&path)
        .expect("message opens");
    file.set_modified(stat.modified().expect("there are times"))
        .expect("time is set");
    assert_eq!(
        file.metadata().expect("there is a size").len(),
        stat.len(),
        "labels are equally long"
    );
}

/// The orders in which a change can travel.
const MODES: [&[&str]; 3] = [&["sync"], &["pull", "push"], &["push", "pull"]];

fn check(row: &Row) {
    for mode in MODES {
        for mirrored in [false, true] {
            println!(
                "-- {mode:?}, {}",
                if mirrored {
                    "sides exchanged"
                } else {
                    "as written"
                }
            );
            Play::new(row, mirrored).run(mode);
        }
    }
}

/// A row being played.
struct Play<'a> {
    row: &'a Row,
    mirrored: bool,
    world: World,
    wanted: BTreeSet<String>,
}

impl Play<'_> {
    fn new(row: &Row, mirrored: bool) -> Play<'_> {
        let world = World::new();
        play(
            world.server(),
            &[
                Store("INBOX", "8.keep.mx", "S", "keep"),
                Store("Work", "9.work.mx", "S", "work"),
            ],
        );
        play(world.server(), row.base);
        let _ = world.client().sync().run().ok();
        world.assert_same();
        let (at_server, at_client) = if mirrored {
            (row.here, row.there)
        } else {
            (row.there, row.here)
        };
        play(world.server(), at_server);
        play(world.local(), at_client);
        Play {
            row,
            mirrored,
            world,
            wanted: wanted(row, mirrored),
        }
    }

    fn run(&self, mode: &[&str]) {
        let before = (
            Snapshot::of(self.world.server()),
            Snapshot::of(self.world.local()),
        );
        let runs: Vec<Run> = mode.iter().map(|command| self.step(command)).collect();
        self.assert_outcome();
        assert_inodes_kept(&before.0, self.world.server());
        assert_inodes_kept(&before.1, self.world.local());
        self.assert_reported(&runs);
        // Once is enough for the commands that have nothing to do after any of the modes.
        self.assert_settled(if mode.len() == 1 {
            &["sync", "pull", "push"]
        } else {
            &["sync"]
        });
    }

    /// Runs one command, which may touch only its own side, and must do all of it where only one side had changed.
    fn step(&self, command: &str) -> Run {
        let server = Snapshot::of(self.world.server());
        let local = Snapshot::of(self.world.local());
        let run = self.world.client().pair(command).run().ok();
        match command {
            "pull" => harness::assert_untouched(&server, self.world.server(), "pull"),
            "push" => harness::assert_untouched(&local, self.world.local(), "push"),
            _ => {}
        }
        if command == self.carrier() {
            self.assert_outcome();
        }
        run
    }

    /// The command that alone carries a change of one side.
    fn carrier(&self) -> &'static str {
        match (
            self.row.here.is_empty(),
            self.row.there.is_empty(),
            self.mirrored,
        ) {
            (false, true, false) | (true, false, true) => "push",
            (false, true, true) | (true, false, false) => "pull",
            _ => "none",
        }
    }

    fn assert_outcome(&self) {
        self.world.assert_same();
        let snapshot = Snapshot::of(self.world.server());
        let found: BTreeSet<String> = snapshot.mail().into_iter().map(line_of).collect();
        assert_eq!(
            found, self.wanted,
            "what came out (left) is not what should (right)"
        );
        assert_eq!(found.len(), snapshot.messages.len(), "nothing is doubled");
        let holding = after(self.row, self.mirrored);
        let holding = holding.iter().map(|(folder, ..)| folder);
        let folders: BTreeSet<Vec<u8>> = ["INBOX", "Work"]
            .iter()
            .chain(self.row.folders)
            .chain(holding)
            .map(|name| name.as_bytes().to_vec())
            .collect();
        assert_eq!(
            harness::snapshot::escaped(&snapshot.folders),
            harness::snapshot::escaped(&folders),
            "folders"
        );
    }

    fn assert_reported(&self, runs: &[Run]) {
        let conflicts: u64 = runs.iter().map(Run::conflicts).sum();
        assert_eq!(
            conflicts > 0,
            self.row.reported,
            "{conflicts} conflicts were reported: {:?}",
            runs[0].stdout
        );
        let bytes = runs.iter().map(Run::bytes).max().expect("a mode has runs");
        assert!(
            self.row.body_travels || bytes < NO_BODY_BYTES_MAX,
            "{bytes} bytes travelled, so a body did"
        );
    }

    /// Nothing moves any more, whichever command comes next.
    fn assert_settled(&self, commands: &[&str]) {
        let before = (
            Snapshot::of(self.world.server()),
            Snapshot::of(self.world.local()),
        );
        for command in commands {
            let run = self.world.client().pair(command).run().ok().idle();
            assert_eq!((run.conflicts(), run.pending()), (0, 0), "{}", run.stdout);
        }
        harness::assert_untouched(&before.0, self.world.server(), "a run with nothing to do");
        harness::assert_untouched(&before.1, self.world.local(), "a run with nothing to do");
    }
}

fn after(row: &Row, mirrored: bool) -> &'static [Expected] {
    row.mirrored.filter(|_| mirrored).unwrap_or(row.after)
}

fn wanted(row: &Row, mirrored: bool) -> BTreeSet<String> {
    let after = after(row, mirrored);
    let keep: [Expected; 2] = [
        ("INBOX", "8.keep.mx", "cur", "S", "keep"),
        ("Work", "9.work.mx", "cur", "S", "work"),
    ];
    let line = |&(folder, unique, part, flags, label): &Expected| {
        let unique = match unique.split_once('~') {
            Some((unique, label)) => fresh_name(unique, &bytes(label)),
            None => unique.to_owned(),
        };
        format!(
            "{folder}/{part}/{unique} {flags} {}",
            &digest_hex(&bytes(label))[..12]
        )
    };
    after.iter().chain(&keep).map(line).collect()
}

fn line_of(message: &harness::Message) -> String {
    let part = if message.in_new { "new" } else { "cur" };
    let (folder, unique) = (message.folder.escape_ascii(), message.unique.escape_ascii());
    format!(
        "{folder}/{part}/{unique} {} {}",
        message.flags,
        &message.digest[..12]
    )
}

/// Files that were there are the ones that are there: a rename or a move rewrites nothing, a copy is a file of its own.
fn assert_inodes_kept(before: &Snapshot, tree: &Tree) {
    let after = Snapshot::of(tree);
    let (old, new) = (before.inodes(), after.inodes());
    for (digest, now) in &new {
        let Some(then) = old.get(digest) else {
            continue;
        };
        let kept = if now.len() >= then.len() {
            then.is_subset(now)
        } else {
            now.is_subset(then)
        };
        assert!(
            kept,
            "{} rewrote a message that was there: inodes {then:?} became {now:?}",
            tree.root().display()
        );
    }
}

macro_rules! rows {
    ($($name:ident { $($field:ident: $value:expr),* $(,)? })*) => {
        $(#[test]
        fn $name() {
            check(&Row { $($field: $value,)* ..PLAIN });
        })*

        /// Every row of the table, by the name of its test.
        const ALL: &[(&str, Row)] = &[$((stringify!($name), Row { $($field: $value,)* ..PLAIN }),)*];
    };
}

const ONE: &[Step] = &[Store("INBOX", U1, "S", "a")];
const UNSEEN: &[Step] = &[Deliver("INBOX", U1, "a")];
const OLD_FOLDER: &[Step] = &[
    Store("Old", U1, "S", "a"),
    Store("Old", U2, "", "b"),
    Deliver("Old", U3, "c"),
    Foreign("Old", "dovecot-uidlist"),
];

rows! {
    row_01_a_delivered_message_is_copied {
        here: &[Deliver("INBOX", U1, "a")], after: &[("INBOX", U1, "new", "", "a")], body_travels: true,
    }
    row_01_a_stored_message_is_copied_with_its_flags {
        here: &[Store("Work", U1, "FS", "a")], after: &[("Work", U1, "cur", "FS", "a")], body_travels: true,
    }
    row_01_a_message_in_new_may_carry_flags {
        here: &[StoreNew("INBOX", U1, "F", "a")], after: &[("INBOX", U1, "new", "F", "a")], body_travels: true,
    }
    row_01_several_on_both_sides {
        here: &[Deliver("INBOX", U1, "a"), Deliver("Work", U2, "b")], there: &[Deliver("INBOX", U3, "c")],
        after: &[("INBOX", U1, "new", "", "a"), ("Work", U2, "new", "", "b"), ("INBOX", U3, "new", "", "c")],
        body_travels: true,
    }
    row_02_a_flag_is_set {
        base: &[Store("INBOX", U1, "", "a")], here: &[Flag("INBOX", U1, "S")],
        after: &[("INBOX", U1, "cur", "S", "a")],
    }
    row_02_a_flag_is_cleared {
        base: &[Store("INBOX", U1, "FS", "a")], here: &[Flag("INBOX", U1, "S")],
        after: &[("INBOX", U1, "cur", "S", "a")],
    }
    row_02_keyword_letters_travel {
        base: ONE, here: &[Flag("INBOX", U1, "PSaz")], after: &[("INBOX", U1, "cur", "PSaz", "a")],
    }
    row_02_a_flag_change_in_new_moves_no_file {
        base: UNSEEN, here: &[Move("INBOX", U1, "INBOX", U2), Move("INBOX", U2, "INBOX", U1), Flag("INBOX", U1, "F")],
        after: &[("INBOX", U1, "new", "F", "a")],
    }
    row_03_flags_are_merged_letter_by_letter {
        base: ONE, here: &[Flag("INBOX", U1, "FS")], there: &[Flag("INBOX", U1, "R")],
        after: &[("INBOX", U1, "cur", "FR", "a")],
    }
    row_03_one_sets_what_the_other_clears_beside_it {
        base: &[Store("INBOX", U1, "FRS", "a")], here: &[Flag("INBOX", U1, "RS")], there: &[Flag("INBOX", U1, "FRST")],
        after: &[("INBOX", U1, "cur", "RST", "a")],
    }
    row_04_new_becomes_cur {
        base: UNSEEN, here: &[ToCur("INBOX", U1, "")], after: &[("INBOX", U1, "cur", "", "a")],
    }
    row_04_new_becomes_cur_and_seen {
        base: UNSEEN, here: &[ToCur("INBOX", U1, "S")], after: &[("INBOX", U1, "cur", "S", "a")],
    }
    row_04_new_becomes_cur_while_flagged_in_new {
        base: UNSEEN, here: &[ToCur("INBOX", U1, "S")], there: &[Flag("INBOX", U1, "F")],
        after: &[("INBOX", U1, "cur", "FS", "a")],
    }
    row_04_cur_becomes_new_again {
        base: ONE, here: &[ToNew("INBOX", U1)], after: &[("INBOX", U1, "new", "S", "a")],
    }
    row_04_cur_becomes_new_while_flagged {
        base: ONE, here: &[ToNew("INBOX", U1)], there: &[Flag("INBOX", U1, "FS")],
        after: &[("INBOX", U1, "new", "FS", "a")],
    }
    row_05_a_message_is_moved {
        base: ONE, here: &[Move("INBOX", U1, "Work", U1)], after: &[("Work", U1, "cur", "S", "a")],
    }
    row_05_a_message_is_moved_out_of_new {
        base: UNSEEN, here: &[ToCur("INBOX", U1, "S"), Move("INBOX", U1, "Work", U1)],
        after: &[("Work", U1, "cur", "S", "a")],
    }
    row_05_a_message_is_moved_into_a_new_folder {
        base: ONE, here: &[Folder("Fresh/Sub"), Move("INBOX", U1, "Fresh/Sub", U1)], folders: &["Fresh/Sub"],
        after: &[("Fresh/Sub", U1, "cur", "S", "a")],
    }
    row_05_a_message_is_renamed {
        base: ONE, here: &[Move("INBOX", U1, "INBOX", U2)], after: &[("INBOX", U2, "cur", "S", "a")],
    }
    row_05_dovecot_corrects_the_size_in_a_name {
        base: &[Store("INBOX", "1.M1.mx,S=99,W=100", "S", "a")],
        here: &[Move("INBOX", "1.M1.mx,S=99,W=100", "INBOX", "1.M1.mx,S=20000")],
        after: &[("INBOX", "1.M1.mx,S=20000", "cur", "S", "a")],
    }
    row_05_a_message_is_moved_and_renamed {
        base: ONE, here: &[Move("INBOX", U1, "Work", U2)], after: &[("Work", U2, "cur", "S", "a")],
    }
    row_05_moved_and_flagged_at_once {
        base: ONE, here: &[Move("INBOX", U1, "Work", U1), Flag("Work", U1, "FS")],
        after: &[("Work", U1, "cur", "FS", "a")],
    }
    row_05_moved_here_and_flagged_there {
        base: ONE, here: &[Move("INBOX", U1, "Work", U1)], there: &[Flag("INBOX", U1, "RS")],
        after: &[("Work", U1, "cur", "RS", "a")],
    }
    row_05_moved_and_renamed_here_and_flagged_there {
        base: ONE, here: &[Move("INBOX", U1, "Work", U2), Flag("Work", U2, "FS")], there: &[Flag("INBOX", U1, "")],
        after: &[("Work", U2, "cur", "F", "a")],
    }
    row_05_moved_here_and_edited_there {
        base: ONE, here: &[Move("INBOX", U1, "Work", U1)], there: &[Edit("INBOX", U1, "b")],
        after: &[("Work", U1, "cur", "S", "b")], body_travels: true,
    }
    row_05_moved_and_edited_at_once {
        base: ONE, here: &[Move("INBOX", U1, "Work", U1), Edit("Work", U1, "b")],
        after: &[("Work", U1, "cur", "S", "b")], body_travels: true,
    }
    row_05_moved_there_and_back_is_nothing {
        base: ONE, here: &[Move("INBOX", U1, "Work", U1), Move("Work", U1, "INBOX", U1)],
        after: &[("INBOX", U1, "cur", "S", "a")],
    }
    row_05_one_takes_the_name_that_another_left {
        base: &[Store("INBOX", U1, "S", "a"), Store("INBOX", U2, "F", "b")],
        here: &[Move("INBOX", U2, "INBOX", U3), Move("INBOX", U1, "INBOX", U2)],
        after: &[("INBOX", U2, "cur", "S", "a"), ("INBOX", U3, "cur", "F", "b")],
    }
    row_05_two_exchange_their_names {
        base: &[Store("INBOX", U1, "S", "a"), Store("INBOX", U2, "S", "b")],
        here: &[Move("INBOX", U1, "INBOX", U3), Move("INBOX", U2, "INBOX", U1), Move("INBOX", U3, "INBOX", U2)],
        after: &[("INBOX", U2, "cur", "S", "a"), ("INBOX", U1, "cur", "S", "b")],
    }
    row_05_two_exchange_their_folders {
        base: &[Store("INBOX", U1, "S", "a"), Store("Work", U2, "S", "b")],
        here: &[Move("INBOX", U1, "Work", U1), Move("Work", U2, "INBOX", U2)],
        after: &[("Work", U1, "cur", "S", "a"), ("INBOX", U2, "cur", "S", "b")],
    }
    row_06_moved_to_two_places {
        base: &[Store("INBOX", U1, "S", "a"), Folder("A"), Folder("B")], folders: &["A", "B"],
        here: &[Move("INBOX", U1, "A", U1)], there: &[Move("INBOX", U1, "B", U1)], reported: true,
        after: &[("B", U1, "cur", "S", "a")], mirrored: Some(&[("A", U1, "cur", "S", "a")]),
    }
    row_06_renamed_in_two_ways {
        base: ONE, here: &[Move("INBOX", U1, "INBOX", U2)], there: &[Move("INBOX", U1, "INBOX", U3)], reported: true,
        after: &[("INBOX", U3, "cur", "S", "a")], mirrored: Some(&[("INBOX", U2, "cur", "S", "a")]),
    }
    row_06_moved_to_two_places_and_flagged {
        base: &[Store("INBOX", U1, "S", "a"), Folder("A"), Folder("B")], folders: &["A", "B"],
        here: &[Move("INBOX", U1, "A", U1), Flag("A", U1, "FS")],
        there: &[Move("INBOX", U1, "B", U1), Flag("B", U1, "R")], reported: true,
        after: &[("B", U1, "cur", "FR", "a")], mirrored: Some(&[("A", U1, "cur", "FR", "a")]),
    }
    row_07_copied_within_a_folder {
        base: ONE, here: &[Copy("INBOX", U1, "INBOX", U2)],
        after: &[("INBOX", U1, "cur", "S", "a"), ("INBOX", U2, "cur", "S", "a")],
    }
    row_07_copied_to_another_folder_under_the_same_name {
        base: ONE, here: &[Copy("INBOX", U1, "Work", U1)],
        after: &[("INBOX", U1, "cur", "S", "a"), ("Work", U1, "cur", "S", "a")],
    }
    row_07_copied_by_a_hard_link {
        base: ONE, here: &[Link("INBOX", U1, "Work", U2)],
        after: &[("INBOX", U1, "cur", "S", "a"), ("Work", U2, "cur", "S", "a")],
    }
    row_07_copied_and_then_moved {
        base: ONE, here: &[Copy("INBOX", U1, "Work", U2), Move("INBOX", U1, "Work", U1)],
        after: &[("Work", U1, "cur", "S", "a"), ("Work", U2, "cur", "S", "a")],
    }
    row_07_one_of_three_copies_is_deleted {
        base: &[Store("INBOX", U1, "S", "a"), Store("INBOX", U2, "S", "a"), Store("Work", U3, "S", "a")],
        here: &[Delete("INBOX", U1)], after: &[("INBOX", U2, "cur", "S", "a"), ("Work", U3, "cur", "S", "a")],
    }
    row_07_copied_here_and_the_original_deleted_there {
        base: ONE, here: &[Copy("INBOX", U1, "Work", U2)], there: &[Delete("INBOX", U1)],
        after: &[("Work", U2, "cur", "S", "a")], body_travels: true,
    }
    row_08_deleted {
        base: ONE, here: &[Delete("INBOX", U1)],
    }
    row_08_deleted_here_and_flagged_there {
        base: ONE, here: &[Delete("INBOX", U1)], there: &[Flag("INBOX", U1, "FRS")],
    }
    row_08_deleted_here_and_seen_there {
        base: UNSEEN, here: &[Delete("INBOX", U1)], there: &[ToCur("INBOX", U1, "S")],
    }
    row_08_a_deleted_name_is_used_again {
        base: ONE, here: &[Delete("INBOX", U1), Store("INBOX", U1, "F", "b")],
        after: &[("INBOX", U1, "cur", "F", "b")], body_travels: true,
    }
    row_08_deleted_and_the_same_bytes_put_back_is_nothing {
        base: ONE, here: &[Delete("INBOX", U1), Store("INBOX", U1, "S", "a")],
        after: &[("INBOX", U1, "cur", "S", "a")],
    }
    row_09_deleted_here_and_edited_there {
        base: ONE, here: &[Delete("INBOX", U1)], there: &[Edit("INBOX", U1, "b")],
        after: &[("INBOX", U1, "cur", "S", "b")], body_travels: true, reported: true,
    }
    row_09_deleted_here_and_moved_there {
        base: ONE, here: &[Delete("INBOX", U1)], there: &[Move("INBOX", U1, "Work", U1)],
        after: &[("Work", U1, "cur", "S", "a")], body_travels: true, reported: true,
    }
    row_10_edited_in_place {
        base: ONE, here: &[Edit("INBOX", U1, "b")], after: &[("INBOX", U1, "cur", "S", "b")], body_travels: true,
    }
    row_10_edited_by_putting_another_file_in_place {
        base: ONE, here: &[Replace("INBOX", U1, "b")], after: &[("INBOX", U1, "cur", "S", "b")], body_travels: true,
    }
    row_10_edited_and_given_its_old_time_again {
        base: ONE, here: &[EditKeepingTime("INBOX", U1, "b")], after: &[("INBOX", U1, "cur", "S", "b")],
        body_travels: true,
    }
    row_10_edited_and_flagged {
        base: ONE, here: &[Edit("INBOX", U1, "b"), Flag("INBOX", U1, "DS")],
        after: &[("INBOX", U1, "cur", "DS", "b")], body_travels: true,
    }
    row_10_edited_here_and_flagged_there {
        base: ONE, here: &[Edit("INBOX", U1, "b")], there: &[Flag("INBOX", U1, "FS")],
        after: &[("INBOX", U1, "cur", "FS", "b")], body_travels: true,
    }
    row_11_edited_otherwise_on_both_sides {
        base: ONE, here: &[Edit("INBOX", U1, "b")], there: &[Edit("INBOX", U1, "c")], body_travels: true, reported: true,
        after: &[("INBOX", U1, "cur", "S", "c"), ("INBOX", "1700000001.M1P1.mx,S=20~b", "cur", "S", "b")],
        mirrored: Some(&[("INBOX", U1, "cur", "S", "b"), ("INBOX", "1700000001.M1P1.mx,S=20~c", "cur", "S", "c")]),
    }
    row_11_edited_otherwise_while_a_copy_of_the_old_bytes_is_moved {
        base: &[Store("INBOX", U1, "S", "a"), Store("INBOX", U2, "S", "a")],
        here: &[Edit("INBOX", U1, "b")], there: &[Edit("INBOX", U1, "c"), Move("INBOX", U2, "Work", U3)],
        body_travels: true, reported: true,
        after: &[
            ("INBOX", U1, "cur", "S", "c"), ("INBOX", "1700000001.M1P1.mx,S=20~b", "cur", "S", "b"),
            ("Work", U3, "cur", "S", "a"),
        ],
        mirrored: Some(&[
            ("INBOX", U1, "cur", "S", "b"), ("INBOX", "1700000001.M1P1.mx,S=20~c", "cur", "S", "c"),
            ("Work", U3, "cur", "S", "a"),
        ]),
    }
    row_12_other_bytes_under_the_same_name {
        here: &[Store("INBOX", U1, "S", "b")], there: &[Store("INBOX", U1, "F", "c")], body_travels: true, reported: true,
        after: &[("INBOX", U1, "cur", "F", "c"), ("INBOX", "1700000001.M1P1.mx,S=20~b", "cur", "S", "b")],
        mirrored: Some(&[("INBOX", U1, "cur", "S", "b"), ("INBOX", "1700000001.M1P1.mx,S=20~c", "cur", "F", "c")]),
    }
    row_13_same_bytes_under_another_name {
        here: &[Store("INBOX", U1, "S", "a")], there: &[Store("INBOX", U2, "F", "a")],
        after: &[("INBOX", U2, "cur", "FS", "a")], mirrored: Some(&[("INBOX", U1, "cur", "FS", "a")]),
    }
    row_13_same_bytes_and_name_with_other_flags {
        here: &[Store("INBOX", U1, "RS", "a")], there: &[Store("INBOX", U1, "F", "a")],
        after: &[("INBOX", U1, "cur", "FRS", "a")],
    }
    row_13_three_copies_meet_two {
        here: &[Store("INBOX", U1, "S", "a"), Store("INBOX", U2, "S", "a"), Store("INBOX", U3, "S", "a")],
        there: &[Store("INBOX", U4, "S", "a"), Store("INBOX", U5, "S", "a")],
        after: &[("INBOX", U4, "cur", "S", "a"), ("INBOX", U5, "cur", "S", "a"), ("INBOX", U3, "cur", "S", "a")],
        mirrored: Some(&[
            ("INBOX", U1, "cur", "S", "a"), ("INBOX", U2, "cur", "S", "a"), ("INBOX", U3, "cur", "S", "a"),
        ]),
    }
    row_13b_same_bytes_and_name_in_another_folder {
        here: &[Store("INBOX", U1, "S", "a")], there: &[Store("Work", U1, "S", "a")],
        after: &[("Work", U1, "cur", "S", "a")], mirrored: Some(&[("INBOX", U1, "cur", "S", "a")]),
    }
    row_14_the_same_flag_on_both_sides {
        base: ONE, here: &[Flag("INBOX", U1, "FS")], there: &[Flag("INBOX", U1, "FS")],
        after: &[("INBOX", U1, "cur", "FS", "a")],
    }
    row_14_deleted_on_both_sides {
        base: ONE, here: &[Delete("INBOX", U1)], there: &[Delete("INBOX", U1)],
    }
    row_14_moved_alike_on_both_sides {
        base: ONE, here: &[Move("INBOX", U1, "Work", U2)], there: &[Move("INBOX", U1, "Work", U2)],
        after: &[("Work", U2, "cur", "S", "a")],
    }
    row_14_edited_alike_on_both_sides {
        base: ONE, here: &[Edit("INBOX", U1, "b")], there: &[Edit("INBOX", U1, "b")],
        after: &[("INBOX", U1, "cur", "S", "b")],
    }
    row_14_delivered_alike_on_both_sides {
        here: &[Store("INBOX", U1, "S", "a")], there: &[Store("INBOX", U1, "S", "a")],
        after: &[("INBOX", U1, "cur", "S", "a")],
    }
    row_15_an_empty_folder_is_made {
        here: &[Folder("Empty")], folders: &["Empty"],
    }
    row_15_a_folder_is_made_below_one_that_is_not_there {
        here: &[Folder("A/B/C")], folders: &["A/B/C"],
    }
    row_15_the_same_folder_is_made_on_both_sides {
        here: &[Folder("Both"), Deliver("Both", U1, "a")], there: &[Folder("Both"), Deliver("Both", U2, "b")],
        folders: &["Both"], body_travels: true,
        after: &[("Both", U1, "new", "", "a"), ("Both", U2, "new", "", "b")],
    }
    row_16_a_folder_is_removed {
        base: OLD_FOLDER, here: &[RemoveFolder("Old")],
    }
    row_16_an_empty_folder_is_removed {
        base: &[Folder("Old")], here: &[RemoveFolder("Old")],
    }
    row_16_a_folder_is_removed_while_its_messages_are_flagged {
        base: OLD_FOLDER, here: &[RemoveFolder("Old")], there: &[Flag("Old", U1, "FS"), ToCur("Old", U3, "S")],
    }
    row_16_a_new_message_keeps_a_removed_folder_alive {
        base: OLD_FOLDER, here: &[RemoveFolder("Old")], there: &[Deliver("Old", U4, "d")], folders: &["Old"],
        after: &[("Old", U4, "new", "", "d")], body_travels: true,
    }
    row_16_an_edited_message_keeps_a_removed_folder_alive {
        base: OLD_FOLDER, here: &[RemoveFolder("Old")], there: &[Edit("Old", U1, "d")], folders: &["Old"],
        after: &[("Old", U1, "cur", "S", "d")], body_travels: true, reported: true,
    }
    row_17_a_folder_is_renamed {
        base: OLD_FOLDER, here: &[RenameFolder("Old", "Neu")], folders: &["Neu"],
        after: &[("Neu", U1, "cur", "S", "a"), ("Neu", U2, "cur", "", "b"), ("Neu", U3, "new", "", "c")],
    }
    row_17_a_folder_is_renamed_while_its_messages_are_flagged {
        base: OLD_FOLDER, here: &[RenameFolder("Old", "Neu")], there: &[Flag("Old", U1, "FS"), ToCur("Old", U3, "S")],
        folders: &["Neu"],
        after: &[("Neu", U1, "cur", "FS", "a"), ("Neu", U2, "cur", "", "b"), ("Neu", U3, "cur", "S", "c")],
    }
    row_17_a_folder_takes_the_name_of_a_removed_one {
        base: &[Store("Old", U1, "S", "a"), Store("Neu", U2, "S", "b")],
        here: &[RemoveFolder("Neu"), RenameFolder("Old", "Neu")], folders: &["Neu"],
        after: &[("Neu", U1, "cur", "S", "a")],
    }
    row_17_a_folder_takes_the_name_of_a_removed_one_that_a_new_message_keeps_alive {
        base: &[Store("Old", U1, "S", "a"), Store("Neu", U2, "S", "b")],
        here: &[RemoveFolder("Neu"), RenameFolder("Old", "Neu")], there: &[Deliver("Neu", U4, "d")],
        folders: &["Neu"], after: &[("Neu", U1, "cur", "S", "a"), ("Neu", U4, "new", "", "d")], body_travels: true,
    }
    row_17_two_folders_are_renamed_to_the_same_name {
        base: &[Store("A", U1, "S", "a"), Store("B", U2, "F", "b")],
        here: &[RenameFolder("A", "Neu")], there: &[RenameFolder("B", "Neu")], folders: &["Neu"],
        after: &[("Neu", U1, "cur", "S", "a"), ("Neu", U2, "cur", "F", "b")],
    }
    row_17_a_folder_is_renamed_to_two_names {
        base: OLD_FOLDER, here: &[RenameFolder("Old", "Neu")], there: &[RenameFolder("Old", "Else")],
        after: &[("Else", U1, "cur", "S", "a"), ("Else", U2, "cur", "", "b"), ("Else", U3, "new", "", "c")],
        mirrored: Some(&[("Neu", U1, "cur", "S", "a"), ("Neu", U2, "cur", "", "b"), ("Neu", U3, "new", "", "c")]),
        reported: true,
    }
    row_17_a_folder_is_renamed_while_some_of_its_messages_are_deleted {
        base: OLD_FOLDER, here: &[RenameFolder("Old", "Neu")], there: &[Delete("Old", U1), Flag("Old", U2, "F")],
        folders: &["Neu"], after: &[("Neu", U2, "cur", "F", "b"), ("Neu", U3, "new", "", "c")],
    }
    row_17_a_folder_is_renamed_while_all_of_its_messages_are_deleted {
        base: OLD_FOLDER, here: &[RenameFolder("Old", "Neu")],
        there: &[Delete("Old", U1), Delete("Old", U2), Delete("Old", U3)], folders: &["Neu"],
    }
    row_17_a_renamed_folder_whose_name_is_made_again_empty {
        base: OLD_FOLDER, here: &[RenameFolder("Old", "Neu"), Folder("Old")], folders: &["Neu", "Old"],
        after: &[("Neu", U1, "cur", "S", "a"), ("Neu", U2, "cur", "", "b"), ("Neu", U3, "new", "", "c")],
    }
    row_17_a_renamed_folder_whose_name_is_used_again {
        base: OLD_FOLDER, here: &[RenameFolder("Old", "Neu"), Deliver("Old", U4, "d")], there: &[Flag("Old", U1, "FS")],
        folders: &["Neu", "Old"], body_travels: true,
        after: &[
            ("Neu", U1, "cur", "FS", "a"), ("Neu", U2, "cur", "", "b"), ("Neu", U3, "new", "", "c"),
            ("Old", U4, "new", "", "d"),
        ],
    }
    row_17_a_folder_takes_the_name_of_one_that_takes_another {
        base: &[Store("A", U1, "S", "a"), Store("B", U2, "F", "b")],
        here: &[RenameFolder("B", "C"), RenameFolder("A", "B")], folders: &["B", "C"],
        after: &[("B", U1, "cur", "S", "a"), ("C", U2, "cur", "F", "b")],
    }
    row_17_a_folder_is_renamed_here_and_removed_there {
        base: &[Store("Old", U1, "S", "a")], here: &[RenameFolder("Old", "Neu")], there: &[RemoveFolder("Old")],
        folders: &["Neu"], after: &[("Neu", U1, "cur", "S", "a")], body_travels: true, reported: true,
    }
    row_17_an_empty_folder_is_renamed_here_and_removed_there {
        base: &[Folder("Old")], here: &[RenameFolder("Old", "Neu")], there: &[RemoveFolder("Old")], folders: &["Neu"],
    }
    row_17_two_folders_exchange_their_names {
        base: &[Store("A", U1, "S", "a"), Store("B", U2, "F", "b")],
        here: &[RenameFolder("A", "C"), RenameFolder("B", "A"), RenameFolder("C", "B")], folders: &["A", "B"],
        after: &[("B", U1, "cur", "S", "a"), ("A", U2, "cur", "F", "b")],
    }
    row_17_an_empty_folder_is_renamed {
        base: &[Folder("Old")], here: &[RenameFolder("Old", "Neu")], folders: &["Neu"],
    }
    row_17_a_folder_renamed_to_a_name_that_is_taken_there_moves_its_messages {
        base: &[Store("Old", U1, "S", "a"), Store("Old", U2, "", "b")], here: &[RenameFolder("Old", "Neu")],
        there: &[Folder("Neu"), Deliver("Neu", U4, "d")], folders: &["Neu"], body_travels: true,
        after: &[("Neu", U1, "cur", "S", "a"), ("Neu", U2, "cur", "", "b"), ("Neu", U4, "new", "", "d")],
    }
}

/// Kills one end in each of its renames, which are what others can see; then users go on as if nothing had been: the
/// next run ends where an undisturbed one does.
fn check_killed(end: End, mirrored: bool) {
    let mut wrong = String::new();
    for (name, row) in ALL {
        for nth in 1.. {
            let play = Play::new(row, mirrored);
            let kill = Kill {
                end,
                call: "renameat2",
                nth,
            };
            let (hit, _) = kill.run(&play.world, play.world.client().sync());
            if !hit {
                break;
            }
            let recovered = std::panic::catch_unwind(|| {
                let _ = play.world.client().sync().run().ok();
                play.assert_outcome();
                play.assert_settled(&["sync"]);
            });
            if recovered.is_err() {
                wrong += &format!("{name} with {kill:?}, sides exchanged: {mirrored}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "not as an undisturbed run:\n{wrong}");
}

#[test]
fn every_row_survives_a_killed_client() {
    check_killed(End::Client, false);
}

#[test]
fn every_row_survives_a_killed_client_with_sides_exchanged() {
    check_killed(End::Client, true);
}

#[test]
fn every_row_survives_a_killed_agent() {
    check_killed(End::Agent, false);
}

#[test]
fn every_row_survives_a_killed_agent_with_sides_exchanged() {
    check_killed(End::Agent, true);
}

/// The directory itself is renamed, so that what the server keeps beside the mail goes along.
#[test]
fn row_17_the_directory_goes_along_with_its_foreign_files() {
    use std::os::unix::fs::MetadataExt;
    for command in ["sync", "push", "pull"] {
        let world = World::new();
        play(world.server(), OLD_FOLDER);
        let _ = world.client().sync().run().ok();
        play(world.local(), &[Foreign("Old", "dovecot-uidlist")]);
        let (from, to) = if command == "pull" {
            (world.server(), world.local())
        } else {
            (world.local(), world.server())
        };
        let inode = |tree: &Tree, folder| {
            std::fs::metadata(tree.dir(folder))
                .expect("folder is there")
                .ino()
        };
        let before = inode(to, "Old");
        from.rename_folder("Old", "Neu");
        let run = world.client().pair(command).run().ok();
        assert_eq!(
            inode(to, "Neu"),
            before,
            "the directory was not renamed: {}",
            run.stdout
        );
        assert!(
            to.dir("Neu").join("dovecot-uidlist").exists(),
            "the foreign file stayed behind"
        );
        assert!(!to.dir("Old").exists(), "the old directory stays");
        assert!(
            run.bytes() < NO_BODY_BYTES_MAX,
            "{} bytes for a rename",
            run.bytes()
        );
    }
}

/// A pair of changes in two accounts of the same client must not mix; and a conflict stops nothing else.
#[test]
fn a_conflict_stops_nothing_else() {
    let world = World::new();
    play(
        world.server(),
        &[
            Store("INBOX", U1, "S", "a"),
            Store("INBOX", U2, "S", "b"),
            Store("INBOX", U3, "S", "c"),
        ],
    );
    play(world.server(), &[Folder("Work")]);
    let _ = world.client().sync().run().ok();
    play(
        world.local(),
        &[
            Edit("INBOX", U1, "x"),
            Flag("INBOX", U2, "F"),
            Move("INBOX", U3, "Work", U3),
        ],
    );
    play(
        world.server(),
        &[
            Edit("INBOX", U1, "y"),
            Move("INBOX", U2, "Work", U2),
            Deliver("INBOX", U4, "d"),
        ],
    );
    let client: &Client = world.client();
    let run = client.sync().run().ok();
    world.assert_same();
    assert!(run.conflicts() >= 1, "{}", run.stdout);
    let snapshot = Snapshot::of(world.server());
    assert_eq!(snapshot.messages.len(), 5, "x, y, b, c and d: {snapshot:?}");
}
