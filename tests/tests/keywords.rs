//! Dovecot's keywords: a letter means what the folder's `dovecot-keywords` says, also after a message has come into
//! another folder, whoever moved or copied it.

use std::fs;

use harness::faults::End;
use harness::{Client, Dovecot, Kill, Rng, Run, Tree, World, body};

const U1: &str = "1700000001.M1P1.mx,S=20";
const U2: &str = "1700000002.M2P1.mx,S=20";
/// A name that says nothing of the size, for Dovecot believes it.
const U3: &str = "1700000003.M3P1.mx";

/// The ways in which what happened here gets there and back.
const WAYS: [&[&str]; 3] = [&["sync"], &["pull", "push"], &["push", "pull"]];

/// Writes what Dovecot would.
fn names(tree: &Tree, folder: &str, file: &str) {
    tree.make_folder(folder);
    fs::write(tree.dir(folder).join("dovecot-keywords"), file).expect("names are written");
}

/// INBOX and Archive with other letters for the same keywords, on the server alone.
fn world() -> World {
    let world = World::new();
    names(world.server(), "INBOX", "0 Work\n1 $Forwarded\n2 Rare\n");
    names(world.server(), "Archive", "0 Junk\n1 Work\n25 $forwarded\n");
    world
}

/// Runs what a user would to bring both sides together, and once more: then there is nothing left to do. Returns the runs
/// of the first time.
#[track_caller]
fn meet(client: &Client, way: &[&str]) -> Vec<Run> {
    let runs: Vec<Run> = way
        .iter()
        .map(|word| client.pair(word).run().ok())
        .collect();
    let last = client.sync().run().ok().idle();
    assert_eq!(last.pending(), 0, "{way:?}: {}", last.stdout);
    runs
}

/// The flags of a message on both sides, which are the same.
#[track_caller]
fn flags(world: &World, folder: &str, unique: &str) -> String {
    let [here, there] = [world.local(), world.server()].map(|tree| tree.flags(folder, unique));
    assert_eq!(here, there, "{folder}/{unique}");
    here
}

fn dropped(runs: &[Run]) -> u64 {
    let both = |run: &Run| run.here("keywords_dropped") + run.there("keywords_dropped");
    runs.iter().map(both).sum()
}

#[test]
fn a_message_moved_here_has_the_same_keywords_there() {
    for way in WAYS {
        let world = world();
        world.server().store("INBOX", U1, "FSab", &body("one"));
        meet(world.client(), &["sync"]);
        assert_eq!(flags(&world, "INBOX", U1), "FSab");
        world.local().rename("INBOX", U1, "Archive", U1);
        let runs = meet(world.client(), way);
        assert_eq!(flags(&world, "Archive", U1), "FSbz", "{way:?}");
        assert_eq!(dropped(&runs), 0);
    }
}

#[test]
fn a_keyword_without_a_letter_in_the_other_folder_is_dropped_and_counted() {
    for way in WAYS {
        let world = world();
        world.server().store("INBOX", U1, "Sac", &body("one"));
        world.server().store("INBOX", U2, "Sq", &body("two"));
        meet(world.client(), &["sync"]);
        world.local().rename("INBOX", U1, "Archive", U1);
        world.local().rename("INBOX", U2, "Archive", U2);
        let runs = meet(world.client(), way);
        assert_eq!(flags(&world, "Archive", U1), "Sb", "{way:?}");
        assert_eq!(flags(&world, "Archive", U2), "S", "{way:?}");
        assert_eq!(dropped(&runs), 4, "two on each side");
    }
}

#[test]
fn what_is_dropped_is_said_to_people_and_before_it_is_done() {
    let world = world();
    world.server().store("INBOX", U1, "ac", &body("one"));
    meet(world.client(), &["sync"]);
    world.local().rename("INBOX", U1, "Archive", U1);
    let dry = world.client().sync().args(&["--dry-run"]).run().ok();
    assert_eq!(
        (dry.here("keywords_dropped"), dry.there("keywords_dropped")),
        (1, 1)
    );
    let run = world.client().bare(&["sync", "--server-command"]);
    let run = run.arg(harness::world::agent_command(&world.server_state()));
    let run = run.arg("--state-dir").arg(world.client().state());
    let run = run.arg(world.client().remote()).arg(world.local().root());
    let run = run.run().ok();
    let said = "1 flags, 1 keyword dropped here; 1 moved, 1 keyword dropped there";
    assert!(run.stdout.contains(said), "{}", run.stdout);
}

#[test]
fn without_a_file_of_its_own_a_folder_has_no_letters_for_keywords() {
    let world = world();
    world.server().make_folder("Bare");
    world.server().make_folder("Barer");
    world.server().store("INBOX", U1, "Fa", &body("one"));
    world.server().store("Bare", U2, "Fa", &body("two"));
    meet(world.client(), &["sync"]);
    world.local().rename("INBOX", U1, "Bare", U1);
    world.local().rename("Bare", U2, "Barer", U2);
    let runs = meet(world.client(), &["sync"]);
    assert_eq!(flags(&world, "Bare", U1), "F");
    assert_eq!(flags(&world, "Barer", U2), "Fa", "neither folder names it");
    assert_eq!(dropped(&runs), 2);
}

#[test]
fn where_nobody_names_letters_they_travel_as_they_are() {
    for way in WAYS {
        let world = World::new();
        world.server().make_folder("Archive");
        world.server().store("INBOX", U1, "Saz", &body("one"));
        meet(world.client(), &["sync"]);
        world.local().rename("INBOX", U1, "Archive", U1);
        let runs = meet(world.client(), way);
        assert_eq!(flags(&world, "Archive", U1), "Saz", "{way:?}");
        assert_eq!(dropped(&runs), 0);
    }
}

#[test]
fn a_copy_made_here_has_the_keywords_of_its_source() {
    for way in WAYS {
        let world = world();
        world.server().store("INBOX", U1, "Sabc", &body("one"));
        meet(world.client(), &["sync"]);
        world.local().copy("INBOX", U1, "Archive", U2);
        let runs = meet(world.client(), way);
        assert_eq!(flags(&world, "Archive", U2), "Sbz", "{way:?}");
        assert_eq!(flags(&world, "INBOX", U1), "Sabc");
        assert_eq!(dropped(&runs), 1);
        let copied: u64 = runs.iter().map(|run| run.there("copied")).sum();
        assert_eq!(copied, 1, "{way:?}");
    }
}

#[test]
fn what_dovecot_itself_moved_or_copied_is_taken_as_it_is() {
    for way in WAYS {
        let world = world();
        world.server().store("INBOX", U1, "Sa", &body("one"));
        meet(world.client(), &["sync"]);
        world.server().rename("INBOX", U1, "Archive", U1);
        world.server().set_flags("Archive", U1, "Sb");
        meet(world.client(), way);
        assert_eq!(flags(&world, "Archive", U1), "Sb", "{way:?}");
        world.server().copy("Archive", U1, "INBOX", U2);
        world.server().set_flags("INBOX", U2, "a");
        meet(world.client(), way);
        assert_eq!(flags(&world, "INBOX", U2), "a", "{way:?}");
        assert_eq!(flags(&world, "Archive", U1), "Sb", "{way:?}");
    }
}

#[test]
fn what_a_reader_on_the_server_moved_without_translating_is_mended() {
    for way in WAYS {
        let world = world();
        world.server().store("INBOX", U1, "Sa", &body("one"));
        world.server().store("INBOX", U2, "Sa", &body("two"));
        meet(world.client(), &["sync"]);
        world.server().rename("INBOX", U1, "Archive", U1);
        world.server().copy("INBOX", U2, "Archive", "copy");
        meet(world.client(), way);
        assert_eq!(flags(&world, "Archive", U1), "Sb", "{way:?}");
        assert_eq!(flags(&world, "Archive", "copy"), "Sb", "{way:?}");
    }
}

#[test]
fn what_changed_beside_a_move_is_merged_by_its_meaning() {
    for way in WAYS {
        let world = world();
        world.server().store("INBOX", U1, "Sa", &body("one"));
        world.server().store("INBOX", U2, "Sa", &body("two"));
        meet(world.client(), &["sync"]);
        // Here it moves; there it is forwarded, or is no work any more.
        for unique in [U1, U2] {
            world.local().rename("INBOX", unique, "Archive", unique);
        }
        world.server().set_flags("INBOX", U1, "RSab");
        world.server().set_flags("INBOX", U2, "FS");
        meet(world.client(), way);
        assert_eq!(flags(&world, "Archive", U1), "RSbz", "{way:?}");
        assert_eq!(flags(&world, "Archive", U2), "FS", "{way:?}");
        // There it moves back; here it becomes junk, or is no work any more.
        world.server().rename("Archive", U1, "INBOX", U1);
        world.server().set_flags("INBOX", U1, "RSab");
        world.local().set_flags("Archive", U1, "RSz");
        meet(world.client(), way);
        assert_eq!(flags(&world, "INBOX", U1), "RSb", "{way:?}");
    }
}

#[test]
fn moved_there_and_back_it_is_what_it_was() {
    for way in WAYS {
        let world = world();
        world.server().store("INBOX", U1, "Sab", &body("one"));
        meet(world.client(), &["sync"]);
        for (from, to, there) in [("INBOX", "Archive", "Sbz"), ("Archive", "INBOX", "Sab")] {
            world.local().rename(from, U1, to, U1);
            meet(world.client(), way);
            assert_eq!(flags(&world, to, U1), there, "{way:?}");
        }
        // Twice between two runs, once of them half way.
        world.local().rename("INBOX", U1, "Archive", U1);
        let _ = world.client().push().run().ok();
        world.local().rename("Archive", U1, "INBOX", U1);
        meet(world.client(), way);
        assert_eq!(flags(&world, "INBOX", U1), "Sab", "{way:?}");
    }
}

#[test]
fn a_folder_in_which_it_only_was_meanwhile_takes_no_keyword_from_it() {
    for way in WAYS {
        let world = world();
        names(world.server(), "Old", "5 Work\n");
        names(world.server(), "Poor", "0 Junk\n");
        for unique in [U1, U2] {
            world.server().store("INBOX", unique, "a", &body(unique));
        }
        meet(world.client(), &["sync"]);
        // Two places at once: the server's counts.
        world.local().rename("INBOX", U1, "Poor", U1);
        world.server().rename("INBOX", U1, "Old", U1);
        world.server().set_flags("Old", U1, "f");
        // There and back while nothing may be changed there.
        world.local().rename("INBOX", U2, "Poor", U2);
        let _ = world.client().sync().arg("--dry-run").run().ok();
        let _ = world.client().pull().run();
        let bears = world.local().flags("Poor", U2);
        assert_eq!(bears, "", "it has no letter there");
        world.local().rename("Poor", U2, "INBOX", U2);
        world.local().set_flags("INBOX", U2, "a");
        meet(world.client(), way);
        assert_eq!(flags(&world, "Old", U1), "f", "{way:?}");
        assert_eq!(flags(&world, "INBOX", U2), "a", "{way:?}");
    }
}

#[test]
fn every_laptop_comes_to_hold_the_servers_letters() {
    let world = World::with_clients(3);
    names(world.server(), "INBOX", "0 Work\n");
    names(world.server(), "Archive", "0 Junk\n1 Work\n");
    for unique in [U1, U2] {
        world.server().store("INBOX", unique, "a", &body(unique));
    }
    for client in world.clients() {
        meet(client, &["sync"]);
    }
    // One moves it here, and another one the same message elsewhere or as well.
    world.nth(0).tree().rename("INBOX", U1, "Archive", U1);
    world.nth(1).tree().rename("INBOX", U1, "Archive", U1);
    world.nth(1).tree().rename("INBOX", U2, "Archive", U2);
    for _ in 0..2 {
        for client in world.clients() {
            let _ = client.sync().run().ok();
        }
    }
    for client in world.clients() {
        meet(client, &["sync"]);
        for unique in [U1, U2] {
            assert_eq!(client.tree().flags("Archive", unique), "b");
        }
    }
    assert_eq!(world.server().flags("Archive", U1), "b");
}

#[test]
fn names_here_alone_serve_both_sides() {
    for way in WAYS {
        let world = World::new();
        names(world.local(), "INBOX", "0 Work\n");
        names(world.local(), "Archive", "0 Junk\n1 Work\n");
        world.local().store("INBOX", U1, "a", &body("one"));
        world.local().store("INBOX", U2, "a", &body("two"));
        meet(world.client(), &["sync"]);
        world.server().rename("INBOX", U1, "Archive", U1);
        world.local().rename("INBOX", U2, "Archive", U2);
        world.local().set_flags("Archive", U2, "b");
        meet(world.client(), way);
        assert_eq!(flags(&world, "Archive", U1), "b", "{way:?}");
        assert_eq!(flags(&world, "Archive", U2), "b", "{way:?}");
    }
}

/// The letters of a message here and there.
fn letters(world: &World, folder: &str, unique: &str) -> (String, String) {
    let flags = |tree: &Tree| tree.flags(folder, unique);
    (flags(world.local()), flags(world.server()))
}

fn both(here: &str, there: &str) -> (String, String) {
    (here.to_owned(), there.to_owned())
}

#[test]
fn between_two_replicas_that_name_letters_they_are_compared_by_name() {
    for way in WAYS {
        let world = world();
        names(world.local(), "INBOX", "0 $Forwarded\n1 Mine\n2 Work\n");
        names(world.local(), "Archive", "0 Mine\n1 $Forwarded\n");
        world.server().store("INBOX", U1, "Sabc", &body("one"));
        world.local().store("INBOX", U2, "abc", &body("two"));
        meet(world.client(), &["sync"]);
        assert_eq!(
            letters(&world, "INBOX", U1),
            both("Sac", "Sabc"),
            "Rare is theirs"
        );
        assert_eq!(
            letters(&world, "INBOX", U2),
            both("abc", "ab"),
            "Mine is ours"
        );
        // A change on either side is the same change on the other; what is one's own stays.
        world.local().set_flags("INBOX", U1, "Fa");
        world.server().set_flags("INBOX", U2, "Rac");
        meet(world.client(), way);
        assert_eq!(letters(&world, "INBOX", U1), both("Fa", "Fbc"), "{way:?}");
        assert_eq!(letters(&world, "INBOX", U2), both("Rbc", "Rac"), "{way:?}");
        // Moved by somebody who does not translate, here and there.
        world.local().rename("INBOX", U1, "Archive", U1);
        world.server().rename("INBOX", U2, "Archive", U2);
        meet(world.client(), way);
        assert_eq!(letters(&world, "Archive", U1), both("Fb", "Fz"), "{way:?}");
        assert_eq!(letters(&world, "Archive", U2), both("Ra", "Rb"), "{way:?}");
    }
}

#[test]
fn equal_letters_of_an_equal_copy_are_compared_by_name_too() {
    let world = world();
    names(world.local(), "INBOX", "0 $Forwarded\n1 Work\n");
    for (tree, flags) in [(world.server(), "ab"), (world.local(), "ab")] {
        tree.store("INBOX", U1, flags, &body("one"));
    }
    world.server().store("INBOX", U2, "a", &body("two"));
    world.local().store("INBOX", U2, "a", &body("two"));
    meet(world.client(), &["sync"]);
    assert_eq!(letters(&world, "INBOX", U1), both("ab", "ab"));
    assert_eq!(
        letters(&world, "INBOX", U2),
        both("ab", "ab"),
        "joined: both keywords"
    );
}

#[test]
fn a_letter_that_gets_its_name_later_is_understood_from_then_on() {
    for way in WAYS {
        let world = world();
        names(world.local(), "INBOX", "0 $Forwarded\n");
        world.server().store("INBOX", U1, "ab", &body("one"));
        meet(world.client(), &["sync"]);
        assert_eq!(letters(&world, "INBOX", U1), both("a", "ab"));
        // Somebody uses Work here, on another message.
        names(world.local(), "INBOX", "0 $Forwarded\n1 Mine\n2 Work\n");
        world.local().store("INBOX", U2, "c", &body("two"));
        meet(world.client(), way);
        assert_eq!(letters(&world, "INBOX", U2), both("c", "a"), "{way:?}");
        assert_eq!(letters(&world, "INBOX", U1), both("ac", "ab"), "{way:?}");
        // The names here go: then letters are the server's.
        fs::remove_file(world.local().dir("INBOX").join("dovecot-keywords")).expect("it goes");
        world.local().to_new("INBOX", U2);
        meet(world.client(), way);
        assert_eq!(letters(&world, "INBOX", U1), both("ab", "ab"), "{way:?}");
    }
}

#[test]
fn a_file_of_names_that_nobody_can_read_counts_as_it_last_was_and_is_said_once() {
    let world = world();
    let file = world.server().dir("INBOX").join("dovecot-keywords");
    fs::write(&file, "\0\0\0 nonsense\n").expect("names are broken");
    world.server().store("INBOX", U1, "Fa", &body("one"));
    let run = world.client().sync().run().exits(3);
    assert!(run.stderr.contains("dovecot-keywords"), "{}", run.stderr);
    meet(world.client(), &["sync"]);
    world.local().rename("INBOX", U1, "Archive", U1);
    meet(world.client(), &["sync"]);
    assert_eq!(flags(&world, "Archive", U1), "F", "its letter had no name");
    fs::write(&file, "0 Work\n").expect("names are mended");
    world.server().store("INBOX", U2, "Fa", &body("two"));
    world.server().store("INBOX", U3, "Fa", &body("three"));
    meet(world.client(), &["sync"]);
    world.local().rename("INBOX", U2, "Archive", U2);
    meet(world.client(), &["sync"]);
    assert_eq!(flags(&world, "Archive", U2), "Fb");
    // Broken again, it counts as it last was.
    fs::write(&file, "nonsense\n").expect("names are broken");
    world.server().set_flags("INBOX", U3, "FSa");
    let _ = world.client().sync().run().exits(3);
    world.local().rename("INBOX", U3, "Archive", U3);
    meet(world.client(), &["sync"]);
    assert_eq!(flags(&world, "Archive", U3), "FSb");
}

#[test]
fn the_file_of_names_is_never_written_nor_followed_nor_sent() {
    let world = world();
    let link = world.server().dir("INBOX").join("dovecot-keywords");
    let file = world.path("outside");
    fs::rename(&link, &file).expect("it goes outside");
    std::os::unix::fs::symlink(&file, &link).expect("it is linked");
    let archive = world.server().dir("Archive").join("dovecot-keywords");
    let before = fs::read(&archive).expect("it is there");
    world.server().store("INBOX", U1, "Fa", &body("one"));
    let _ = world.client().sync().run().exits(3);
    world.local().rename("INBOX", U1, "Archive", U1);
    meet(world.client(), &["sync"]);
    assert_eq!(flags(&world, "Archive", U1), "F", "a link is as no file");
    assert_eq!(fs::read(&archive).expect("it is there"), before);
    for folder in ["INBOX", "Archive"] {
        let file = world.local().dir(folder).join("dovecot-keywords");
        assert!(!file.exists(), "{}", file.display());
    }
}

/// A Dovecot over the server's tree, and the keywords of its folders: in INBOX Work is the first, in Archive the second.
fn with_dovecot() -> Option<(World, Dovecot)> {
    let world = World::new();
    let dovecot = Dovecot::serving(world.server(), &world.path("dovecot"))?;
    world.server().make_folder("Archive");
    for (folder, label) in [("INBOX", "one"), ("INBOX", "two"), ("Archive", "other")] {
        world
            .server()
            .store(folder, &format!("{label}.M1P1.mx"), "S", &body(label));
    }
    let _ = dovecot.speak(&[
        "SELECT INBOX",
        "STORE 1:2 +FLAGS (Work $Forwarded)",
        "STORE 1 +FLAGS (Rare)",
        "SELECT Archive",
        "STORE 1 +FLAGS (Junk)",
        "STORE 1 +FLAGS (Work $forwarded)",
    ]);
    Some((world, dovecot))
}

/// What Dovecot says of the keywords of a message, sorted.
fn keywords(dovecot: &Dovecot, folder: &str, label: &str) -> Vec<String> {
    let fetch = "FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])";
    let said = dovecot.speak(&[&format!("SELECT {folder}"), fetch]);
    let about = said
        .split("\n* ")
        .find(|part| part.contains(&format!("Subject: {label}")));
    let about = about.unwrap_or_else(|| panic!("{label} is not in {folder}: {said}"));
    let flags = about
        .split("FLAGS (")
        .nth(1)
        .and_then(|text| text.split(')').next());
    let flags = flags.expect("it has flags").split(' ');
    let mut keywords: Vec<String> = flags
        .filter(|flag| !flag.starts_with('\\'))
        .map(str::to_ascii_lowercase)
        .collect();
    keywords.sort();
    keywords
}

#[test]
fn dovecot_shows_the_same_keywords_after_a_move_here() {
    for way in WAYS {
        let Some((world, dovecot)) = with_dovecot() else {
            return;
        };
        assert_eq!(keywords(&dovecot, "INBOX", "two"), ["$forwarded", "work"]);
        meet(world.client(), &["sync"]);
        let (inbox, archive) = (world.server().dir("INBOX"), world.server().dir("Archive"));
        let file = |dir: &std::path::Path| fs::read_to_string(dir.join("dovecot-keywords"));
        let files = [file(&inbox), file(&archive)].map(|file| file.expect("Dovecot wrote it"));
        assert_ne!(files[0], files[1]);
        for label in ["one", "two"] {
            let unique = format!("{label}.M1P1.mx");
            world.local().rename("INBOX", &unique, "Archive", &unique);
        }
        let runs = meet(world.client(), way);
        assert_eq!(dropped(&runs), 2, "Rare, on each side: {files:?}");
        for label in ["one", "two"] {
            let shown = keywords(&dovecot, "Archive", label);
            assert_eq!(shown, ["$forwarded", "work"], "{way:?} {files:?}");
        }
        assert_eq!(
            keywords(&dovecot, "Archive", "other"),
            ["$forwarded", "junk", "work"]
        );
        let after = [file(&inbox), file(&archive)].map(|file| file.expect("it is there"));
        assert_eq!(files, after);
        meet(world.client(), &["sync"]);
    }
}

#[test]
fn dovecot_shows_the_same_keywords_after_a_copy_here_and_its_own_moves_arrive() {
    let Some((world, dovecot)) = with_dovecot() else {
        return;
    };
    meet(world.client(), &["sync"]);
    world.local().copy("INBOX", "two.M1P1.mx", "Archive", U3);
    meet(world.client(), &["push", "pull"]);
    assert_eq!(keywords(&dovecot, "Archive", "two"), ["$forwarded", "work"]);
    assert_eq!(keywords(&dovecot, "INBOX", "two"), ["$forwarded", "work"]);
    // Dovecot gives a keyword a letter of the other folder when it moves a message there.
    let _ = dovecot.speak(&["SELECT INBOX", "MOVE 1 Archive"]);
    assert_eq!(
        keywords(&dovecot, "Archive", "one"),
        ["$forwarded", "rare", "work"]
    );
    meet(world.client(), &["sync"]);
    assert_eq!(
        keywords(&dovecot, "Archive", "one"),
        ["$forwarded", "rare", "work"]
    );
    // And what is moved there now has all of its keywords.
    let _ = dovecot.speak(&["SELECT INBOX", "STORE 1 +FLAGS (Rare)"]);
    meet(world.client(), &["sync"]);
    world
        .local()
        .rename("INBOX", "two.M1P1.mx", "Archive", "two.M1P1.mx");
    let runs = meet(world.client(), &["sync"]);
    assert_eq!(dropped(&runs), 0);
    let unique = world.server().path("Archive", "two.M1P1.mx");
    let other = world.server().path("Archive", U3);
    fs::remove_file(other).expect("the copy goes");
    assert!(unique.exists());
    assert_eq!(
        keywords(&dovecot, "Archive", "two"),
        ["$forwarded", "rare", "work"]
    );
}

#[test]
fn dovecots_on_both_sides_show_the_same_keywords() {
    for way in WAYS {
        let Some((world, dovecot)) = with_dovecot() else {
            return;
        };
        let Some(near) = Dovecot::serving(world.local(), &world.path("near")) else {
            return;
        };
        world.local().make_folder("Archive");
        world
            .local()
            .store("INBOX", "near.M1P1.mx", "S", &body("near"));
        world
            .local()
            .store("Archive", "near.M2P1.mx", "S", &body("near too"));
        let _ = near.speak(&[
            "SELECT INBOX",
            "STORE 1 +FLAGS (Later Work)",
            "SELECT Archive",
            "STORE 1 +FLAGS (Work Later Junk)",
        ]);
        meet(world.client(), &["sync"]);
        assert_eq!(keywords(&near, "INBOX", "two"), ["work"]);
        assert_eq!(keywords(&dovecot, "INBOX", "near"), ["work"]);
        assert_eq!(keywords(&near, "Archive", "other"), ["junk", "work"]);
        assert_eq!(keywords(&dovecot, "Archive", "near too"), ["junk", "work"]);
        // By IMAP here, by hand there.
        let _ = near.speak(&["SELECT INBOX", "SEARCH SUBJECT near", "MOVE 1 Archive"]);
        world
            .server()
            .rename("INBOX", "two.M1P1.mx", "Archive", "two.M1P1.mx");
        meet(world.client(), way);
        assert_eq!(keywords(&near, "Archive", "two"), ["work"], "{way:?}");
        assert_eq!(
            keywords(&dovecot, "Archive", "two"),
            ["$forwarded", "work"],
            "{way:?}"
        );
        let _ = near.speak(&["SELECT Archive", "STORE 1:* +FLAGS ($Forwarded)"]);
        meet(world.client(), way);
        assert_eq!(
            keywords(&dovecot, "Archive", "near too"),
            ["$forwarded", "junk", "work"]
        );
        assert_eq!(
            keywords(&near, "Archive", "near too"),
            ["$forwarded", "junk", "later", "work"]
        );
    }
}

#[test]
fn over_26_keywords_of_a_folder_do_no_harm() {
    let Some((world, dovecot)) = with_dovecot() else {
        return;
    };
    let many: Vec<String> = (0..40).map(|number| format!("Key{number}")).collect();
    let commands: Vec<String> = many
        .iter()
        .map(|name| format!("STORE 1 +FLAGS ({name})"))
        .collect();
    let mut lines = vec!["SELECT Archive"];
    lines.extend(commands.iter().map(String::as_str));
    let _ = dovecot.speak(&lines);
    meet(world.client(), &["sync"]);
    world
        .local()
        .rename("INBOX", "one.M1P1.mx", "Archive", "one.M1P1.mx");
    world
        .local()
        .rename("Archive", "other.M1P1.mx", "INBOX", "other.M1P1.mx");
    meet(world.client(), &["sync"]);
    assert_eq!(keywords(&dovecot, "Archive", "one"), ["$forwarded", "work"]);
    assert_eq!(keywords(&dovecot, "INBOX", "other"), ["$forwarded", "work"]);
}

/// Names on both sides or on the server alone, and what users did since both agreed.
fn scene(is_named_here: bool) -> World {
    let world = world();
    if is_named_here {
        names(world.local(), "INBOX", "0 $Forwarded\n1 Mine\n2 Work\n");
        names(world.local(), "Archive", "0 Mine\n1 $Forwarded\n2 Junk\n");
    }
    for (folder, unique, flags) in [
        ("INBOX", "moved", "Sabc"),
        ("INBOX", "copied", "ab"),
        ("INBOX", "moved.there", "ac"),
        ("INBOX", "both", "ab"),
        ("INBOX", "flagged", "b"),
        ("Archive", "back", "ab"),
    ] {
        world.server().store(folder, unique, flags, &body(unique));
    }
    world.local().make_folder("INBOX");
    world.local().store("INBOX", "ours", "abc", &body("ours"));
    meet(world.client(), &["sync"]);
    world.local().rename("INBOX", "moved", "Archive", "moved");
    world.local().copy("INBOX", "copied", "Archive", "copy");
    world
        .server()
        .rename("INBOX", "moved.there", "Archive", "moved.there");
    world.local().rename("INBOX", "both", "Archive", "both");
    world.server().set_flags("INBOX", "both", "Fbc");
    world.server().set_flags("INBOX", "flagged", "Sac");
    world.local().rename("Archive", "back", "INBOX", "back");
    world.local().rename("INBOX", "ours", "Archive", "ours");
    world
}

/// Everything that both sides hold, with the letters that its file bears.
fn outcome(world: &World) -> String {
    let mut lines = String::new();
    for (side, tree) in [("here", world.local()), ("there", world.server())] {
        for folder in ["INBOX", "Archive"] {
            for path in harness::tree::files(&tree.dir(folder).join("cur")) {
                let name = harness::tree::name_bytes(&path).escape_ascii().to_string();
                lines += &format!("{side} {folder} {name}\n");
            }
        }
    }
    lines
}

fn check_killed(end: End, is_named_here: bool) {
    let expected = {
        let world = scene(is_named_here);
        meet(world.client(), &["sync"]);
        outcome(&world)
    };
    let mut wrong = String::new();
    for (call, step) in [
        ("renameat2", 1),
        ("pwrite64", 7),
        ("fsync", 3),
        ("fdatasync", 5),
    ] {
        for nth in (1..).step_by(step) {
            let world = scene(is_named_here);
            let kill = Kill { end, call, nth };
            let (hit, _) = kill.run(&world, world.client().sync());
            if !hit {
                break;
            }
            meet(world.client(), &["sync"]);
            let came_out = outcome(&world);
            if came_out != expected {
                wrong += &format!("{kill:?}, names here: {is_named_here}:\n{came_out}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "not as\n{expected}\n{wrong}");
}

#[test]
fn keywords_survive_a_killed_client() {
    check_killed(End::Client, false);
}

#[test]
fn keywords_survive_a_killed_agent() {
    check_killed(End::Agent, false);
}

#[test]
fn keywords_compared_by_name_survive_a_killed_client() {
    check_killed(End::Client, true);
}

#[test]
fn keywords_compared_by_name_survive_a_killed_agent() {
    check_killed(End::Agent, true);
}

#[test]
fn every_way_to_bring_both_sides_together_ends_in_the_same_letters() {
    for is_named_here in [false, true] {
        let came_out = WAYS.map(|way| {
            let world = scene(is_named_here);
            meet(world.client(), way);
            outcome(&world)
        });
        println!("{}", came_out[0]);
        assert_eq!(came_out[0], came_out[1]);
        assert_eq!(came_out[0], came_out[2]);
    }
}

/// One random step of a user, a mail reader or Dovecot on either side.
fn random_step(rng: &mut Rng, tree: &Tree, number: usize) {
    const FOLDERS: [&str; 4] = ["INBOX", "Archive", "Poor", "Bare"];
    let held: Vec<(&str, String)> = (FOLDERS.iter())
        .flat_map(|folder| {
            let files = harness::tree::files(&tree.dir(folder).join("cur"));
            files.into_iter().map(|path| {
                let unique = harness::tree::split(harness::tree::name_bytes(&path)).0;
                (*folder, String::from_utf8_lossy(unique).into_owned())
            })
        })
        .collect();
    let to = FOLDERS[rng.below(4)];
    let letters = ["", "a", "b", "ab", "abc", "S", "Sac", "z"][rng.below(8)];
    let unique = format!("new{number}.M1P1.mx");
    if held.is_empty() || rng.below(6) == 0 {
        return tree.store(to, &unique, letters, &body(&unique));
    }
    let (from, known) = held[rng.below(held.len())].clone();
    match rng.below(6) {
        0 | 1 if !tree.has(to, &known) => tree.rename(from, &known, to, &known),
        2 if !tree.has(to, &known) => {
            tree.rename(from, &known, to, &known);
            tree.set_flags(to, &known, letters);
        }
        3 => tree.copy(from, &known, to, &unique),
        4 => tree.set_flags(from, &known, letters),
        _ if rng.below(3) == 0 => tree.delete(from, &known),
        _ => tree.set_flags(from, &known, letters),
    }
}

/// Whatever happened, two laptops and the server come to the same letters, and then nothing moves any more.
fn check_random(seed: u64, named: [bool; 3]) {
    println!("seed {seed}, names at the server and at the laptops: {named:?}");
    let (mut rng, world) = (Rng::new(seed), World::with_clients(2));
    let trees = [world.server(), world.nth(0).tree(), world.nth(1).tree()];
    for (tree, is_named) in trees.into_iter().zip(named) {
        tree.create();
        for folder in ["Archive", "Poor", "Bare"] {
            tree.make_folder(folder);
        }
        if is_named {
            names(tree, "INBOX", "0 Work\n1 $Forwarded\n2 Rare\n");
            names(tree, "Archive", "0 Junk\n1 Work\n25 $forwarded\n");
            names(tree, "Poor", "2 Work\n");
        }
    }
    for epoch in 0..6 {
        for step in 0..6 {
            let tree = trees[rng.below(3)];
            random_step(&mut rng, tree, epoch * 10 + step);
        }
        let client = world.nth(rng.below(2));
        let command = ["sync", "pull", "push"][rng.below(3)];
        let _ = client.pair(command).run().ok();
    }
    for client in [0, 1, 0] {
        let _ = world.nth(client).sync().run().ok();
        let _ = world.nth(client).sync().run().ok();
    }
    for client in world.clients() {
        let run = client.sync().run().ok().idle();
        assert_eq!(run.pending(), 0, "{}", run.stdout);
        harness::assert_same(world.server(), client.tree());
    }
}

#[test]
fn random_steps_on_three_machines_end_in_the_same_letters() {
    let seed = harness::rng::seed_or(1);
    for (number, named) in [
        [true, false, false],
        [true, false, false],
        [false, true, false],
        [true, true, false],
        [true, true, true],
        [false, false, false],
    ]
    .into_iter()
    .enumerate()
    {
        check_random(seed * 100 + number as u64, named);
    }
}
