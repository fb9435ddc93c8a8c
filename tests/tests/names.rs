//! Names and what hangs on a file beside its bytes (C1–C6, C32, C53): verbatim, whatever they hold.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

use harness::faults::End;
use harness::tree::{files, flags_of, name_bytes, split};
use harness::{Kill, Snapshot, Tree, World, body};

use crate::errors::{U1, U2};

/// File names of `cur` as they lie there, in byte order.
fn names(tree: &Tree, folder: &str, part: &str) -> Vec<Vec<u8>> {
    files(&tree.dir(folder).join(part))
        .iter()
        .map(|path| name_bytes(path).to_vec())
        .collect()
}

/// C6: names are bytes and arrive verbatim.
#[test]
fn odd_file_names_arrive_byte_for_byte() {
    let long = [&b"1."[..], &[b'x'; 250], b":2,"].concat();
    let full = [b'y'; 255];
    let odd: &[&[u8]] = &[
        b"1.no-info",
        b"2.colon:",
        b"3.colon:2",
        b"4.empty:2,",
        b"5.one:1,S",
        b"6.three:3,S",
        b"7.unsorted:2,TSF",
        b"8.repeated:2,SSF",
        b"9.passed:2,PS",
        b"10.keywords:2,Sabz",
        b"11.unknown:2,SX",
        b"12.after:2,S,keyword=a",
        b"13.two:2,S:2,F",
        b"14.bang!2,S",
        b"15.semicolon;2,S",
        b"16.with space:2,S",
        b"17.tab\there:2,S",
        b"18.new\nline:2,S",
        b"19.cr\rhere:2,S",
        b"20.back\\slash:2,S",
        b"21.quote'\":2,S",
        b"22.$(touch x)`id`:2,S",
        b"23.glob*?[a]:2,S",
        b"-24.dash:2,S",
        b"25.\xff\xfe.latin\xe9:2,S",
        "26.umlaut\u{fc}:2,S".as_bytes(),
        "26.umlautu\u{308}:2,S".as_bytes(),
        b"27.esc\x1b[31m:2,S",
        b"28.del\x7f:2,S",
        b"29.digits:2,S12",
        b":2,S",
        b"30.Case:2,S",
        b"30.case:2,S",
        b"31.comma,S=4,W=5,U=6,FMD5=7:2,S",
        &long,
        &full,
        b"~32:2,S",
        b"33.%41:2,S",
    ];
    for (from_server, command) in [
        (true, "sync"),
        (false, "sync"),
        (true, "pull"),
        (false, "push"),
    ] {
        let world = World::new();
        world.local().create();
        let (from, to) = if from_server {
            (world.server(), world.local())
        } else {
            (world.local(), world.server())
        };
        for (number, name) in odd.iter().enumerate() {
            from.put("INBOX", "cur", name, &body(&format!("odd {number}")));
            from.put("Odd", "new", name, &body(&format!("odd and new {number}")));
        }
        let _ = world.client().pair(command).run().ok();
        for (folder, part) in [("INBOX", "cur"), ("Odd", "new")] {
            assert_eq!(
                names(to, folder, part),
                names(from, folder, part),
                "{folder}/{part}"
            );
        }
        world.assert_same();
        let _ = world.client().sync().run().ok().idle();
        assert!(
            !world.client().home().join("x").exists(),
            "a name was executed"
        );
    }
}

/// C6: only letters change, and only when a flag does; what else stands in an info is kept.
#[test]
fn a_flag_change_keeps_the_rest_of_an_odd_info() {
    let world = World::new();
    world
        .server()
        .put("INBOX", "cur", b"1.after:2,S,keyword=a", &body("one"));
    world
        .server()
        .put("INBOX", "cur", b"2.unsorted:2,TSF", &body("two"));
    let _ = world.client().sync().run().ok();
    let cur = world.local().dir("INBOX").join("cur");
    fs::rename(
        cur.join("1.after:2,S,keyword=a"),
        cur.join("1.after:2,FS,keyword=a"),
    )
    .expect("is flagged");
    let _ = world.client().sync().run().ok();
    let wanted: Vec<Vec<u8>> = vec![
        b"1.after:2,FS,keyword=a".to_vec(),
        b"2.unsorted:2,TSF".to_vec(),
    ];
    assert_eq!(names(world.server(), "INBOX", "cur"), wanted);
    let _ = world.client().sync().run().ok().idle();
}

/// A name of 255 bytes has no room for a flag: that message is reported, the others go on.
#[test]
fn a_name_without_room_for_a_flag_is_reported() {
    let world = World::new();
    let full = [&[b'y'; 252][..], b":2,"].concat();
    world.server().put("INBOX", "cur", &full, &body("one"));
    world.server().store("INBOX", U1, "", &body("two"));
    world.local().create();
    let _ = world.client().sync().run().ok();
    // The client's reader writes flags in its own way: it shortened the name, which is a rename of the message.
    let cur = world.local().dir("INBOX").join("cur");
    let shorter = [&[b'y'; 251][..], b":2,S"].concat();
    fs::rename(
        cur.join(std::ffi::OsStr::from_bytes(&full)),
        cur.join(std::ffi::OsStr::from_bytes(&shorter)),
    )
    .expect("renamed");
    world.local().set_flags("INBOX", U1, "S");
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(world.server().flags("INBOX", U1), "S");
}

/// C1: a unique name twice in one folder, equal bytes and other bytes: both are kept, never merged.
#[test]
fn one_unique_name_twice_stays_two_messages() {
    for same_bytes in [true, false] {
        for from_server in [true, false] {
            let world = World::new();
            world.local().create();
            let from = if from_server {
                world.server()
            } else {
                world.local()
            };
            from.put("INBOX", "cur", b"1.M1.mx:2,S", &body("first"));
            from.put(
                "INBOX",
                "cur",
                b"1.M1.mx:2,F",
                &body(if same_bytes { "first" } else { "second" }),
            );
            from.put("INBOX", "new", b"1.M1.mx", &body("third"));
            let run = world.client().sync().run();
            assert_eq!(run.code, Some(0), "{run:?}");
            for tree in [world.server(), world.local()] {
                let snapshot = Snapshot::of(tree);
                assert_eq!(snapshot.messages.len(), 3, "{snapshot:?}");
                assert_eq!(snapshot.counts().len(), if same_bytes { 2 } else { 3 });
            }
            let _ = world.client().sync().run().ok();
            world.assert_same();
            let _ = world.client().sync().run().ok().idle();
        }
    }
}

/// C1: a rename by link and unlink that was cut off leaves two names of one file: that is one message, whatever becomes of
/// it on the other side.
#[test]
fn two_links_of_one_unique_name_are_one_message() {
    type Deed = (&'static str, fn(&Tree));
    let deeds: [Deed; 4] = [
        ("deleted", |tree| tree.delete("INBOX", U1)),
        ("FS", |tree| tree.set_flags("INBOX", U1, "FS")),
        ("S", |tree| tree.set_flags("INBOX", U1, "S")),
        ("", |tree| tree.set_flags("INBOX", U1, "")),
    ];
    for at_server in [true, false] {
        for (what, deed) in deeds {
            println!("-- {what:?} by the other side; linked at the server: {at_server}");
            let world = World::new();
            world.server().store("INBOX", U1, "F", &body("linked"));
            world.server().store("INBOX", U2, "F", &body("other"));
            let _ = world.client().sync().run().ok();
            let (linked, other) = if at_server {
                (world.server(), world.local())
            } else {
                (world.local(), world.server())
            };
            let file = linked.path("INBOX", U1);
            let link = file.with_file_name(format!("{U1}:2,S"));
            fs::hard_link(&file, link).expect("it is linked");
            let _ = world.client().sync().run().ok();
            assert_eq!(Snapshot::of(other).messages.len(), 2);
            deed(other);
            for _ in 0..2 {
                let _ = world.client().sync().run().ok();
            }
            let _ = world.client().sync().run().ok().idle();
            assert_eq!(other.has("INBOX", U1), what != "deleted");
            if what != "deleted" {
                assert_eq!(other.flags("INBOX", U1), what, "the flag came to stay");
                assert_eq!(linked.flags("INBOX", U1), what);
            }
            let count = Snapshot::of(linked).messages.len();
            assert_eq!(count, Snapshot::of(other).messages.len());
        }
    }
}

/// C2, C7: names that differ in case or in `,S=` only are different names.
#[test]
fn names_that_differ_a_little_are_different() {
    let world = World::new();
    for name in ["1.M1.mx", "1.m1.mx", "1.M1.mx,S=4", "1.M1.mx,S=5"] {
        world.server().store("INBOX", name, "S", &body(name));
    }
    world.server().store("Foo", U1, "S", &body("upper"));
    world.server().store("foo", U1, "S", &body("lower"));
    let _ = world.client().sync().run().ok();
    world.assert_same();
    world.local().delete("INBOX", "1.m1.mx");
    let _ = world.client().sync().run().ok();
    assert!(world.server().has("INBOX", "1.M1.mx") && !world.server().has("INBOX", "1.m1.mx"));
    world.assert_same();
}

/// Hard links are several messages; on the other side each is a file of its own.
#[test]
fn hard_links_become_files_of_their_own() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("linked"));
    world.server().make_folder("Work");
    world.server().link("INBOX", U1, "INBOX", U2);
    world.server().link("INBOX", U1, "Work", U1);
    let _ = world.client().sync().run().ok();
    world.assert_same();
    let snapshot = Snapshot::of(world.local());
    assert!(
        snapshot.messages.iter().all(|(_, stamp)| stamp.links == 1),
        "{snapshot:?}"
    );
    world.server().delete("INBOX", U2);
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(
        Snapshot::of(world.local()).messages.len(),
        2,
        "one instance went, not all"
    );
}

/// C4: two laptops' other programs give names of their own; the server's stand.
#[test]
fn names_of_other_programs_converge() {
    let world = World::new();
    world.local().create();
    world
        .server()
        .store("INBOX", "1.M1.mx,U=7", "S", &body("one"));
    world
        .local()
        .store("INBOX", "1.M1.laptop,U=9,FMD5=0123", "S", &body("one"));
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert!(world.local().has("INBOX", "1.M1.mx,U=7"));
    world
        .local()
        .rename("INBOX", "1.M1.mx,U=7", "INBOX", "1.M1.mx,U=11");
    let _ = world.client().sync().run().ok();
    assert!(
        world.server().has("INBOX", "1.M1.mx,U=11"),
        "a rename is a rename"
    );
    world.assert_same();
}

/// C5: no unique name needs to be unique across folders.
#[test]
fn one_unique_name_in_many_folders_is_many_messages() {
    let world = World::new();
    for folder in ["INBOX", "A", "B", "C"] {
        world
            .server()
            .store(folder, U1, "S", &body(&format!("in {folder}")));
    }
    let _ = world.client().sync().run().ok();
    world.local().make_folder("D");
    world.local().rename("A", U1, "D", U1);
    let _ = world.client().sync().run().ok();
    world.assert_same();
    world.server().assert_holds("D", U1, &body("in A"));
}

/// C32: the time travels, odd ones too; the mode is the reader's own.
#[test]
fn modification_times_travel() {
    let world = World::new();
    let times = [0_i64, 1, 1_000_000_000, 2_208_988_800, 4_102_444_800];
    for (number, time) in times.iter().enumerate() {
        let unique = format!("{number}.M.mx");
        world
            .server()
            .store("INBOX", &unique, "S", &body(&format!("time {number}")));
        let path = world.server().path("INBOX", &unique);
        let when =
            std::time::UNIX_EPOCH + std::time::Duration::new(time.unsigned_abs(), 123_456_789);
        fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(when))
            .expect("time is set");
        fs::set_permissions(
            &path,
            fs::Permissions::from_mode([0o400, 0o777, 0o660, 0o644, 0o600][number]),
        )
        .expect("mode");
    }
    let _ = world.client().sync().run().ok();
    world.assert_same();
    for path in files(&world.local().dir("INBOX").join("cur")) {
        let mode = fs::metadata(&path).expect("is there").mode();
        assert_eq!(
            mode & 0o600,
            0o600,
            "{} must be the owner's to read and write",
            path.display()
        );
        assert_eq!(mode & 0o111, 0, "{} must not be a program", path.display());
    }
}

/// C1: two hard links that are two messages do not become one by getting one unique name.
#[test]
fn hard_links_that_are_two_messages_stay_two() {
    println!("-- a link is paired with a message of the other's name");
    let world = World::with_clients(2);
    let put = |flags: &str| {
        let name = format!("{U1}:2,{flags}");
        world
            .server()
            .put("INBOX", "cur", name.as_bytes(), &body("alike"));
    };
    let sync = |number: usize| world.nth(number).sync().run().ok();
    world.server().make_folder("A");
    put("S");
    for number in [0, 1] {
        let _ = sync(number);
    }
    put("F");
    world.local().link("INBOX", U1, "INBOX", "copy");
    for number in [0, 0, 1, 1, 0, 1] {
        let _ = sync(number);
    }
    for (number, client) in world.clients().iter().enumerate() {
        let _ = sync(number).idle();
        harness::assert_same(world.server(), client.tree());
        assert_eq!(Snapshot::of(client.tree()).messages.len(), 2);
    }
    println!("-- a link is moved beside the other");
    let world = World::with_clients(2);
    let sync = |number: usize| world.nth(number).sync().run().ok();
    world.server().make_folder("A");
    world.server().store("INBOX", U1, "S", &body("linked"));
    let _ = sync(0);
    world.local().link("INBOX", U1, "A", U1);
    world.local().set_flags("A", U1, "F");
    for number in [0, 1, 0] {
        let _ = sync(number);
    }
    let other = world.nth(1).tree();
    let moved = other.dir("INBOX").join(format!("cur/{U1}:2,F"));
    fs::rename(other.path("A", U1), moved).expect("it is there");
    for number in [1, 0, 0, 1, 1, 0] {
        let _ = sync(number);
    }
    for (number, client) in world.clients().iter().enumerate() {
        let _ = sync(number).idle();
        harness::assert_same(world.server(), client.tree());
        assert_eq!(Snapshot::of(client.tree()).messages.len(), 2);
    }
}

/// A name that has no room for `:2,` is read without it.
#[test]
fn a_name_without_room_for_an_info_is_read_all_the_same() {
    for length in [252, 253, 255] {
        let world = World::new();
        let unique = "z".repeat(length);
        world.server().deliver("INBOX", &unique, &body("long"));
        let _ = world.client().sync().run().ok();
        let read = world.local().path("INBOX", &unique);
        let cur = world.local().dir("INBOX").join("cur").join(&unique);
        fs::rename(read, cur).expect("it is there");
        let _ = world.client().sync().run().ok();
        let run = world.client().sync().run().ok().idle();
        assert_eq!(run.pending(), 0, "{length}");
        for tree in [world.local(), world.server()] {
            let path = tree.path("INBOX", &unique);
            assert!(path.parent().is_some_and(|dir| dir.ends_with("cur")));
        }
        world.server().store("INBOX", U1, "", &body("short"));
        let _ = world.client().sync().run().ok();
        world.server().rename("INBOX", U1, "INBOX", "between");
        let long = world.server().path("INBOX", &unique);
        fs::rename(&long, long.with_file_name(U1)).expect("it is there");
        let short = world.server().path("INBOX", "between");
        fs::rename(&short, &long).expect("it is there");
        let _ = world.client().sync().run().ok();
        let run = world.client().sync().run().ok().idle();
        assert_eq!(run.pending(), 0, "{length}");
        for tree in [world.local(), world.server()] {
            tree.assert_holds("INBOX", U1, &body("long"));
            tree.assert_holds("INBOX", &unique, &body("short"));
        }
    }
}

/// C1: the same bytes twice under one unique name, and nothing is remembered of them: those with the same flags are one.
#[test]
fn copies_of_one_unique_name_keep_their_own_flags_when_state_is_lost() {
    for flags in [["T", "S"], ["S", "F"]] {
        let world = World::new();
        for flags in flags {
            let name = format!("{U1}:2,{flags}");
            let server = world.server();
            server.put("INBOX", "cur", name.as_bytes(), &body("alike"));
            let _ = world.client().sync().run().ok();
        }
        harness::world::remove_dir(&world.client().state());
        let run = world.client().sync().run().ok();
        assert_eq!(run.conflicts(), 0, "{}", run.stdout);
        world.assert_same();
        for flags in flags {
            let name = format!("cur/{U1}:2,{flags}");
            assert!(world.server().dir("INBOX").join(&name).exists(), "{name}");
        }
        let _ = world.client().sync().run().ok().idle();
    }
}

/// C1: two messages of one unique name in one folder that come to want each other's file names, or one and the same.
#[test]
fn messages_of_one_unique_name_may_come_to_the_same_flags() {
    let path = |tree: &Tree, flags: &str| tree.dir("A").join(format!("cur/{U1}:2,{flags}"));
    let rename = |tree: &Tree, from: &str, to: &str| {
        fs::rename(path(tree, from), path(tree, to)).expect("it is there");
    };
    for (what, flags) in [("exchanged", ["S", ""]), ("alike", ["F", "F"])] {
        println!("-- {what}");
        let world = World::new();
        for (flags, text) in [("", "one"), ("S", "other")] {
            let name = format!("{U1}:2,{flags}");
            world.server().put("A", "cur", name.as_bytes(), &body(text));
        }
        let _ = world.client().sync().run().ok();
        if what == "exchanged" {
            rename(world.local(), "", "tmp");
            rename(world.local(), "S", "");
            rename(world.local(), "tmp", "S");
        } else {
            rename(world.local(), "", "F");
            rename(world.server(), "S", "F");
        }
        for _ in 0..2 {
            let _ = world.client().sync().run().ok();
        }
        let run = world.client().sync().run().ok().idle();
        assert_eq!(run.pending(), 0, "{}", run.stdout);
        world.assert_same();
        let files = files(&world.server().dir("A").join("cur"));
        let found = |text: &str| {
            let is_it =
                |path: &&std::path::PathBuf| fs::read(path).expect("it can be read") == body(text);
            let path = files.iter().find(is_it).expect("it is there");
            flags_of(split(name_bytes(path)).1)
        };
        assert_eq!([found("one"), found("other")], flags);
    }
}

/// Row 12, where the other message lies in a folder that is excluded here, so that nobody tells of it.
#[test]
fn a_message_moves_to_an_excluded_folder_where_its_name_is_taken() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("moved"));
    world.server().store("X", U1, "S", &body("was there"));
    world.local().create();
    world.local().make_folder("X");
    let sync = || world.client().sync().args(&["--exclude", "X"]);
    let _ = sync().run().ok();
    world.local().rename("INBOX", U1, "X", U1);
    for _ in 0..2 {
        let _ = sync().run().ok();
    }
    let run = sync().run().ok().idle();
    assert_eq!(run.pending(), 0, "{}", run.stdout);
    assert!(!world.server().has("INBOX", U1));
    world.server().assert_holds("X", U1, &body("was there"));
    let there = Snapshot::of(world.server());
    assert_eq!(there.messages.len(), 2, "{there:?}");
    let here = Snapshot::of(world.local());
    assert_eq!(here.messages.len(), 1, "{here:?}");
}

/// C1: equal bytes twice under one unique name, numbered in the order in which they came, which is not that of their names.
fn numbered_as_they_came(world: &World, giver: &Tree, watch: &str) {
    world.server().store("INBOX", U2, "S", &body("other"));
    let _ = world.client().sync().run().ok();
    for (flags, secs) in [("S", 1_600_000_000), ("R", 1_500_000_000)] {
        let name = format!("{U1}:2,{flags}");
        giver.put("INBOX", "cur", name.as_bytes(), &body("alike"));
        let file = fs::File::open(giver.dir("INBOX").join("cur").join(name)).expect("it is there");
        let time = UNIX_EPOCH + Duration::from_secs(secs);
        file.set_modified(time).expect("it gets a time");
        let _ = world.client().pair(watch).run().ok();
    }
}

/// Each has the name and the time that it had, and nothing is left to do.
#[track_caller]
fn assert_as_they_came(world: &World, what: &str) {
    println!("{what}");
    let run = world.client().sync().run().ok();
    assert_eq!(run.conflicts(), 0, "{}", run.stdout);
    let _ = world.client().sync().run().ok().idle();
    world.assert_same();
    for flags in ["S", "R"] {
        let name = format!("cur/{U1}:2,{flags}");
        assert!(world.server().dir("INBOX").join(&name).exists(), "{name}");
    }
}

/// A run that brings them is killed.
#[test]
fn copies_of_one_unique_name_keep_their_own_flags_after_a_kill() {
    for end in [End::Client, End::Agent] {
        let world = World::new();
        let (giver, watch) = match end {
            End::Client => (world.server(), "push"),
            End::Agent => (world.local(), "pull"),
        };
        numbered_as_they_came(&world, giver, watch);
        world.save("ready");
        for call in ["renameat2", "fsync"] {
            for nth in 1.. {
                world.load("ready");
                let kill = Kill { end, call, nth };
                if !kill.run(&world, world.client().sync()).0 {
                    break;
                }
                assert_as_they_came(&world, &format!("{kill:?}"));
            }
        }
    }
}
