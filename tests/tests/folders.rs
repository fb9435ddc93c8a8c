//! Folders: odd names, both layouts and encodings, what is not mail, links; `--folder` and `--exclude`.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use harness::snapshot::holds_bytes;
use harness::tree::name_bytes;
use harness::{Layout, Run, Snapshot, Tree, World, body, bulky};

use crate::errors::{U1, U2};

/// C8, C53, C55: folder names of every kind, between equal layouts.
#[test]
fn odd_folder_names_arrive() {
    let odd = [
        "with space",
        "$HOME",
        "$(touch owned)",
        "`touch owned`",
        "a;touch owned",
        "quote'\"",
        "back\\slash",
        "par)en(",
        "glob*?[x]",
        "~tilde",
        "-dash",
        "per%cent",
        "Entw\u{fc}rfe",
        "\u{1f4e7}",
        "&AOk-",
        "A&B",
        "trailing space ",
        "100% *?",
        "new",
        "cur",
        "tmp",
        "[Gmail]/All Mail",
        "INBOX/Sub",
        "a/b/c/d/e/f",
        "tab\there",
        "line\nhere",
    ];
    for from_server in [true, false] {
        let world = World::new();
        world.local().create();
        let from = if from_server {
            world.server()
        } else {
            world.local()
        };
        for (number, folder) in odd.iter().enumerate() {
            from.store(
                folder,
                &format!("{number}.M.mx"),
                "S",
                &body(&format!("in odd folder {number}")),
            );
        }
        let run = world.client().sync().run();
        assert_eq!(run.code, Some(0), "{run:?}");
        let skipped = run.figure(&["skipped"]);
        let missing = odd.len() as u64
            - Snapshot::of(world.server())
                .messages
                .len()
                .min(Snapshot::of(world.local()).messages.len()) as u64;
        assert!(
            missing <= skipped,
            "{missing} folders were left alone, {skipped} said: {}",
            run.stderr
        );
        assert!(
            missing <= 4,
            "only names without a one-to-one place may be left alone: {}",
            run.stderr
        );
        for place in [
            world.client().home().to_owned(),
            world.path(""),
            PathBuf::from("."),
        ] {
            assert!(!place.join("owned").exists(), "a folder name was executed");
        }
        let _ = world.client().sync().run().ok().idle();
    }
}

/// Folders that have no one-to-one place are left alone and reported, and nothing is deleted because of them.
#[test]
fn folders_without_a_place_are_left_alone() {
    let world = World::with_layouts(Layout::Nested, &[Layout::MaildirPlusPlus]);
    world.local().create();
    world.local().make_folder("Here");
    world.server().store("INBOX", U1, "S", &body("one"));
    world.server().store("with.dot", U1, "S", &body("dotted"));
    world.server().store("plain", U1, "S", &body("plain"));
    let run = world.client().sync().run().exits(3).says("with.dot");
    assert_eq!(run.pending(), 0, "{}", run.stdout);
    world.local().assert_holds("plain", U1, &body("plain"));
    world.server().set_flags("plain", U1, "FS");
    let _ = world.client().sync().run().ok();
    assert_eq!(world.local().flags("plain", U1), "FS");
    assert!(
        world.server().has("with.dot", U1),
        "what is left alone is not deleted"
    );
}

/// A conflict that stands because its folder has no place on the other side is told once, and waits for the right reason.
#[test]
fn a_conflict_in_a_folder_without_a_place_is_told_once() {
    let world = World::with_layouts(Layout::MaildirPlusPlus, &[Layout::Nested]);
    world.local().create();
    world.local().make_folder("Here");
    for unique in [U1, U2] {
        world.server().store("A", unique, "S", &body(unique));
    }
    let _ = world.client().sync().run().ok();
    world.local().rename_folder("A", "A.v2");
    world.server().delete("A", U1);
    let first = world.client().sync().run().exits(3);
    assert_eq!(first.conflicts(), 1, "{}", first.stdout);
    let reasons = |run: &Run| {
        let json = run.json.as_ref().expect("JSON was printed");
        json["waiting"].to_string()
    };
    let why = "their folder has no place there";
    assert!(reasons(&first).contains(why) && !reasons(&first).contains("chosen"));
    for _ in 0..2 {
        let run = world.client().sync().run().ok().idle();
        assert_eq!((run.conflicts(), reasons(&run)), (0, reasons(&first)));
        assert!(run.stderr.is_empty(), "{}", run.stderr);
    }
    world.server().deliver("INBOX", "9.M.mx", &body("nine"));
    world.local().rename("A.v2", U2, "A.v2", "8.M.mx");
    world.server().delete("A", U2);
    let run = world.client().sync().run().ok();
    assert_eq!(run.conflicts(), 1, "another one is new: {}", run.stdout);
}

/// Both sides rename a folder: the server's name stays, and that is told once, whichever command comes next.
#[test]
fn a_folder_that_both_sides_rename_is_one_conflict() {
    for command in ["sync", "pull", "push"] {
        let world = World::new();
        for unique in [U1, U2] {
            world.server().store("Old", unique, "S", &body(unique));
        }
        let _ = world.client().sync().run().ok();
        world.local().rename_folder("Old", "Mine");
        world.server().rename_folder("Old", "Theirs");
        let run = world.client().pair(command).run().ok();
        assert_eq!(run.conflicts(), 1, "{command}: {}", run.stdout);
        let said = "Theirs: the folder Old was renamed on both sides, to Mine here";
        assert!(run.stderr.contains(said), "{command}: {}", run.stderr);
        for _ in 0..2 {
            let run = world.client().pair(command).run().ok().idle();
            assert_eq!(run.conflicts(), 0, "{command} again: {}", run.stdout);
        }
        let run = world.client().sync().run().ok();
        assert_eq!(run.conflicts(), 0, "{}", run.stdout);
        world.assert_same();
        assert!(world.local().has_folder("Theirs") && !world.local().has_folder("Mine"));
    }
}

/// Both layouts and both encodings against each other: the same folders, changed on either side.
#[test]
fn both_layouts_meet() {
    for (server, client) in [
        (Layout::MaildirPlusPlus, Layout::Nested),
        (Layout::Nested, Layout::MaildirPlusPlus),
        (Layout::Nested, Layout::Nested),
    ] {
        println!("-- server {server:?}, client {client:?}");
        let world = World::with_layouts(server, &[client]);
        world.local().create();
        world.local().make_folder("Here");
        for (number, folder) in ["INBOX", "Lists/debian", "Lists", "Sent", "Deep/er/still"]
            .iter()
            .enumerate()
        {
            world
                .server()
                .store(folder, &format!("{number}.M.mx"), "S", &body(folder));
        }
        world.server().make_folder("Empty/Sub");
        let _ = world.client().sync().run().ok();
        world.assert_same();
        world.local().rename("INBOX", "0.M.mx", "Sent", "0.M.mx");
        world.local().rename_folder("Lists/debian", "Lists/ubuntu");
        world
            .local()
            .store("From/here", "9.M.mx", "F", &body("nine"));
        world.server().delete("Sent", "3.M.mx");
        world.server().remove_folder("Empty/Sub");
        let _ = world.client().sync().run().ok();
        world.assert_same();
        world
            .server()
            .assert_holds("Sent", "0.M.mx", &body("INBOX"));
        world
            .server()
            .assert_holds("Lists/ubuntu", "1.M.mx", &body("Lists/debian"));
        let _ = world.client().sync().run().ok().idle();
    }
}

/// One side in UTF-8, the other in modified UTF-7, as Dovecot writes it.
#[test]
fn both_encodings_meet() {
    let world = World::new();
    world.local().create();
    world
        .server()
        .store("Entw&APw-rfe", U1, "S", &body("draft"));
    world.server().store("&U,BTFw-", U2, "S", &body("taipei"));
    world
        .local()
        .store("Gel\u{f6}scht", "3.M.mx", "S", &body("bin"));
    let _ = world.client().sync().run().ok();
    let local = Snapshot::of(world.local());
    assert_eq!(local.messages.len(), 3, "{local:?}");
    let name = |utf8: &str, utf7: &str| {
        local.folders.contains(utf8.as_bytes()) || local.folders.contains(utf7.as_bytes())
    };
    assert!(
        name("Entw\u{fc}rfe", "Entw&APw-rfe") && name("\u{53f0}\u{5317}", "&U,BTFw-"),
        "{local:?}"
    );
    assert_eq!(Snapshot::of(world.server()).messages.len(), 3);
    world.server().set_flags("Entw&APw-rfe", U1, "FS");
    let _ = world.client().sync().run().ok();
    let flagged = |tree: &Tree| {
        Snapshot::of(tree)
            .mail()
            .iter()
            .any(|message| message.flags == "FS")
    };
    assert!(flagged(world.local()));
    let _ = world.client().sync().run().ok().idle();
}

/// C9: what is not mail is neither sent nor touched.
#[test]
fn what_is_not_mail_stays_where_it_is() {
    let foreign = [
        "dovecot-uidlist",
        "dovecot.index",
        "dovecot.index.log",
        "dovecot-keywords",
        "subscriptions",
        "maildirfolder",
        ".mbsyncstate",
        ".uidvalidity",
        "courierimapuiddb",
        ".notmuch/xapian/position",
        ".DS_Store",
        ".nfs0000001",
        "dovecot-uidlist.lock",
        "README",
        "cur/.hidden",
        "new/.nfs0002",
        "sieve/script",
    ];
    for at_server in [true, false] {
        let world = World::new();
        world.server().store("INBOX", U1, "S", &body("one"));
        world.server().store("Work", U2, "S", &body("two"));
        world.local().create();
        let (from, to) = if at_server {
            (world.server(), world.local())
        } else {
            (world.local(), world.server())
        };
        from.make_folder("Work");
        for dir in [from.dir("INBOX"), from.dir("Work")] {
            for name in foreign {
                let path = dir.join(name);
                fs::create_dir_all(path.parent().expect("lies in a directory")).expect("is made");
                // Of `dovecot-keywords`, which is read, a name.
                fs::write(path, format!("0 {name}\n")).expect("is written");
            }
        }
        let before = foreign_files(from);
        let _ = world.client().sync().run().ok();
        from.set_flags("INBOX", U1, "FS");
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(foreign_files(from), before, "foreign files changed");
        let sent = foreign_files(to);
        let allowed = |path: &PathBuf| path.ends_with("maildirfolder");
        assert!(
            sent.iter().all(|(path, _)| allowed(path)),
            "foreign files were sent: {sent:?}"
        );
    }
}

/// Every file that is no message, with its bytes.
fn foreign_files(tree: &Tree) -> Vec<(PathBuf, Vec<u8>)> {
    let all = harness::snapshot::everything(tree.root()).into_keys();
    let is_foreign = |path: &PathBuf| {
        let part = path
            .parent()
            .and_then(|parent| parent.file_name())
            .expect("lies in a directory");
        let in_mail = (part == "cur" || part == "new") && !name_bytes(path).starts_with(b".");
        path.is_file() && !in_mail && !path.ends_with(".maildir-sync")
    };
    let relative = |path: PathBuf| {
        let bytes = fs::read(&path).expect("can be read");
        (
            path.strip_prefix(tree.root())
                .expect("lies below")
                .to_owned(),
            bytes,
        )
    };
    all.filter(is_foreign).map(relative).collect()
}

/// C53: links that dangle, loop or lead out stop nothing, are not followed, and are not touched.
#[test]
fn symbolic_links_are_left_alone() {
    for at_server in [true, false] {
        let world = World::new();
        world.local().create();
        let secret = world.path("secret");
        fs::write(&secret, "outside of the root").expect("secret is written");
        let outside = Tree::at(world.path("outside"), Layout::MaildirPlusPlus);
        outside.create();
        outside.store("INBOX", U2, "S", &body("outside"));
        let (from, to) = if at_server {
            (world.server(), world.local())
        } else {
            (world.local(), world.server())
        };
        from.store("INBOX", U1, "S", &body("one"));
        let cur = from.dir("INBOX").join("cur");
        for (name, target) in [
            ("d.dangling:2,S", "nowhere"),
            ("l.loop:2,S", "l.loop:2,S"),
            ("o.out:2,S", "../../../secret"),
        ] {
            symlink(target, cur.join(name)).expect("link is made");
        }
        symlink(&secret, cur.join("s.secret:2,S")).expect("link is made");
        symlink("/nowhere", from.root().join(".Dangling")).expect("link is made");
        symlink(".", from.root().join(".Loop")).expect("link is made");
        fs::create_dir(cur.join("a.directory:2,S")).expect("directory is made");
        let run = world.client().sync().run().exits(3).says("d.dangling");
        assert!(run.figure(&["skipped"]) >= 5, "{}", run.stdout);
        assert!(to.has("INBOX", U1), "the rest goes on");
        assert!(
            !holds_bytes(to.root(), b"outside of the root"),
            "a file outside of the root was sent"
        );
        let _ = world.client().sync().run().ok().idle();
        assert_eq!(
            fs::read_link(cur.join("d.dangling:2,S")).expect("still a link"),
            PathBuf::from("nowhere")
        );
        assert_eq!(
            fs::read(&secret).expect("still there"),
            b"outside of the root"
        );
    }
}

/// A symbolic link put in place of a synced message or folder is not followed for writing.
#[test]
fn a_link_in_place_of_a_folder_leads_nowhere() {
    let world = World::new();
    world.server().store("Work", U1, "S", &body("one"));
    let _ = world.client().sync().run().ok();
    let outside = Tree::at(world.path("outside"), Layout::MaildirPlusPlus);
    outside.create();
    world.local().remove_folder("Work");
    symlink(outside.root(), world.local().dir("Work")).expect("link is made");
    world.server().store("Work", U2, "S", &body("two"));
    let run = world.client().sync().run();
    assert!(
        run.code.is_some() && !run.stderr.contains("panicked"),
        "{run:?}"
    );
    assert!(
        world.server().has("Work", U2),
        "the new message is still on the server"
    );
    assert_eq!(
        Snapshot::of(&outside).messages.len(),
        0,
        "mail was written outside of the root"
    );
}

/// C48, C18: excluding is forgetting, never deleting.
#[test]
fn an_excluded_folder_is_forgotten_and_not_deleted() {
    let world = World::new();
    for (unique, label) in [(U1, "one"), (U2, "two")] {
        world.server().store("Junk", unique, "S", &body(label));
    }
    world.server().store("INBOX", "3.M.mx", "S", &body("three"));
    let _ = world.client().sync().run().ok();
    let exclude = ["--exclude", "Junk"];
    world.local().delete("Junk", U1);
    world.server().delete("Junk", U2);
    world.local().set_flags("INBOX", "3.M.mx", "FS");
    for command in ["sync", "pull", "push"] {
        let _ = world.client().pair(command).args(&exclude).run().ok();
        assert!(
            world.server().has("Junk", U1) && world.local().has("Junk", U2),
            "{command} deleted what is excluded"
        );
    }
    assert_eq!(world.server().flags("INBOX", "3.M.mx"), "FS");
    let _ = world.client().sync().run().ok();
    world.assert_same();
    assert_eq!(
        Snapshot::of(world.server()).messages.len(),
        3,
        "included again: compared in full, the union"
    );
    let _ = world.client().sync().run().ok().idle();
}

/// Moved into an excluded folder here: moved likewise there without a body, then forgotten.
#[test]
fn a_move_into_an_excluded_folder_is_made_there_too() {
    let world = World::new();
    world
        .server()
        .store("INBOX", U1, "S", &bulky("spam", 20_000));
    world.server().make_folder("Junk");
    let exclude = ["--exclude", "Junk"];
    let _ = world.client().sync().args(&exclude).run().ok();
    world.local().make_folder("Junk");
    world.local().rename("INBOX", U1, "Junk", U1);
    let run = world.client().sync().args(&exclude).run().ok();
    assert!(
        world.server().has("Junk", U1) && !world.server().has("INBOX", U1),
        "{}",
        run.stdout
    );
    assert!(
        world.local().has("Junk", U1) && run.bytes() < 8_000,
        "{}",
        run.stdout
    );
    let _ = world.client().sync().args(&exclude).run().ok().idle();
}

/// Moved there into a folder that is excluded here: retired here.
#[test]
fn a_move_there_into_an_excluded_folder_retires_it_here() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("spam"));
    world.server().make_folder("Junk");
    let exclude = ["--exclude", "Junk"];
    let _ = world.client().sync().args(&exclude).run().ok();
    world.server().rename("INBOX", U1, "Junk", U1);
    let _ = world.client().sync().args(&exclude).run().ok();
    assert!(!world.local().has("INBOX", U1) && !world.local().has("Junk", U1));
    assert!(world.server().has("Junk", U1));
    assert!(
        holds_bytes(&world.client().state(), &body("spam")),
        "it lies in the trash here"
    );
}

/// `--folder` chooses what this run deals with; the rest simply waits.
#[test]
fn folders_that_are_not_chosen_wait() {
    let world = World::new();
    for folder in ["INBOX", "Work", "Lists/a", "Lists/b"] {
        world.server().store(folder, U1, "S", &body(folder));
    }
    let _ = world
        .client()
        .sync()
        .args(&["--folder", "Lists/*"])
        .run()
        .ok();
    assert!(world.local().has("Lists/a", U1) && world.local().has("Lists/b", U1));
    assert!(!world.local().has("INBOX", U1) && !world.local().has("Work", U1));
    let _ = world.client().sync().run().ok();
    world.assert_same();
    world.local().delete("Work", U1);
    world.local().delete("Lists/a", U1);
    let _ = world
        .client()
        .sync()
        .args(&["--folder", "Lists/*"])
        .run()
        .ok();
    assert!(world.server().has("Work", U1) && !world.server().has("Lists/a", U1));
    let run = world.client().sync().run().ok();
    assert_eq!(
        run.there("deleted"),
        1,
        "what waited is done by the next run: {}",
        run.stdout
    );
    world.assert_same();
}

/// A directory that took the name of another one is what users rename later.
#[test]
fn a_directory_that_took_a_folders_name_is_renamed_as_that_folder() {
    for at_server in [false, true] {
        let world = World::new();
        for (folder, unique) in [("Old", U1), ("Cur", U2)] {
            world.server().store(folder, unique, "S", &body(folder));
        }
        let _ = world.client().sync().run().ok();
        let (here, there) = match at_server {
            true => (world.server(), world.local()),
            false => (world.local(), world.server()),
        };
        let foreign = there.dir("Cur").join("dovecot-uidlist");
        fs::write(&foreign, "3 V1").expect("a foreign file is written");
        here.remove_folder("Old");
        here.rename_folder("Cur", "Old");
        here.make_folder("Cur");
        let _ = world.client().sync().run().ok();
        world.assert_same();
        here.rename_folder("Old", "Older");
        let run = world.client().sync().run().ok();
        let side = if at_server { "here" } else { "there" };
        assert_eq!(run.figure(&[side, "folders"]), 1, "{}", run.stdout);
        world.assert_same();
        there.assert_holds("Older", U2, &body("Cur"));
        assert!(foreign.exists(), "Cur is the folder that it was");
        assert!(!there.has_folder("Old"));
    }
}

/// A slip in a pattern would else look like a folder without news.
#[test]
fn a_pattern_that_matches_no_folder_is_named() {
    let world = World::new();
    for folder in ["INBOX", "Lists/a"] {
        world.server().store(folder, U1, "S", &body(folder));
    }
    let slip = [
        "--folder",
        ".Lists",
        "--folder",
        "INBOX",
        "--exclude",
        "Lst",
    ];
    for options in [&["--dry-run"][..], &[]] {
        let run = world.client().sync().args(&slip).args(options).run().ok();
        let _ = run.says("No folder matches --folder .Lists, --exclude Lst");
    }
    assert!(world.local().has("INBOX", U1) && !world.local().has("Lists/a", U1));
    let right = ["--folder", "Lists", "--exclude", "INBOX"];
    let run = world.client().sync().args(&right).run().ok();
    assert_eq!(run.stderr, "");
}

/// What stands in the config would else be said every five minutes.
#[test]
fn a_configured_pattern_that_matches_no_folder_is_said_while_it_is_news_and_stands_in_status() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let agent = harness::world::agent_command(&world.server_state());
    let configure = |patterns: &str| {
        world.client().configure(&format!(
            "[account.home]\nremote = {:?}\nlocal = {:?}\nserver_command = {agent:?}\n{patterns}\n",
            world.server().root(),
            world.local().root(),
        ));
    };
    let run = |words: &[&str]| world.client().bare(words).run().ok();
    configure("exclude = ['Lst', 'Junk']");
    let _ = run(&["sync"]).says("No folder matches exclude = \"Lst\", exclude = \"Junk\"");
    assert_eq!(run(&["sync"]).stderr, "");
    let typed = run(&["sync", "--exclude", "Tyop"]);
    let _ = typed.says("No folder matches --exclude Tyop;");
    let status = run(&["status"]);
    assert!(
        status
            .stdout
            .contains("no folder matches exclude = \"Lst\""),
        "{}",
        status.stdout
    );
    configure("exclude = ['Lst', 'Junk', 'Spam']");
    let _ = run(&["sync"]).says("No folder matches exclude = \"Spam\";");
    world.server().store("Junk", U1, "S", &body("junk"));
    assert_eq!(run(&["sync"]).stderr, "");
    world.server().remove_folder("Junk");
    let _ = run(&["sync"]).says("No folder matches exclude = \"Junk\";");
}

/// The last matching option wins, on names in UTF-8 with `/`.
#[test]
fn the_last_match_of_folder_and_exclude_wins() {
    let world = World::new();
    for folder in ["INBOX", "Archive/2001", "Archive/2002", "Entw&APw-rfe"] {
        world.server().store(folder, U1, "S", &body(folder));
    }
    let options = [
        "--exclude",
        "Archive/20*",
        "--folder",
        "Archive/2002",
        "--exclude",
        "Entw\u{fc}rfe",
    ];
    let _ = world.client().sync().args(&options).run().ok();
    let found: Vec<bool> = ["Archive/2001", "Archive/2002", "Entw&APw-rfe"]
        .iter()
        .map(|folder| world.local().has(folder, U1))
        .collect();
    assert_eq!(found, [false, true, false]);
}

/// Row 17, where the new name is taken on the other side although no folder has it: by what was left over of one that
/// was removed there, by a directory that only holds other folders, by the folder's own one.
#[test]
fn a_folder_is_renamed_to_the_name_of_a_directory_that_is_no_folder() {
    use Layout::{MaildirPlusPlus, Nested};
    for (what, layout, folders, [from, to]) in [
        ("leftovers", MaildirPlusPlus, &["A", "B"][..], ["B", "A"]),
        ("a container", Nested, &["Old", "Work/x"], ["Old", "Work"]),
        ("into itself", Nested, &["A"], ["A", "A/y"]),
        ("beside a child", Nested, &["A", "A/x"], ["A", "A/y"]),
        ("out of a container", Nested, &["B/x"], ["B/x", "B"]),
    ] {
        for at_server in [false, true] {
            println!("-- {what}, renamed at the server: {at_server}");
            let layouts = if at_server {
                [MaildirPlusPlus, layout]
            } else {
                [layout, MaildirPlusPlus]
            };
            let world = World::with_layouts(layouts[0], &[layouts[1]]);
            let (renaming, following) = if at_server {
                (world.server(), world.local())
            } else {
                (world.local(), world.server())
            };
            world.local().create();
            following.make_folder("Other");
            for folder in folders {
                renaming.store(folder, U1, "S", &body(folder));
                renaming.deliver(folder, U2, &body(&format!("new in {folder}")));
            }
            let _ = world.client().sync().run().ok();
            if what == "leftovers" {
                let crashed = following.dir(to).join("tmp/1.crashed");
                fs::write(&crashed, "half a message").expect("file is written");
                renaming.remove_folder(to);
                let run = world.client().sync().arg("--max-delete=100%").run();
                let _ = run.ok();
                assert!(crashed.exists() && !following.has_folder(to));
            }
            let inode = |folder: &str| {
                let stat = fs::metadata(following.path(folder, U1));
                stat.expect("message is there").ino()
            };
            let before = inode(from);
            renaming.rename_folder(from, to);
            renaming.store(to, "3.M.mx", "", &body("came later"));
            let run = world.client().sync().run().ok();
            assert_eq!(run.pending(), 0, "{}", run.stdout);
            if what == "leftovers" {
                fs::remove_file(following.dir(to).join("tmp/1.crashed"))
                    .expect("it is still there");
            }
            world.assert_same();
            assert_eq!(inode(to), before, "the message was written anew");
            assert!(!following.has_folder(from));
            let _ = world.client().sync().run().ok().idle();
        }
    }
}

/// A client that was away hears of every folder that went, whatever got its name since.
#[test]
fn a_removed_folder_whose_name_was_used_again_is_removed_at_a_client_that_was_away() {
    let world = World::with_clients(2);
    for folder in ["A", "D"] {
        world.server().store(folder, U1, "S", &body(folder));
    }
    for client in world.clients() {
        let _ = client.sync().run().ok();
    }
    let sync = |number: usize| {
        let run = world.nth(number).sync().arg("--max-delete=100%");
        run.run().ok()
    };
    world.server().rename_folder("A", "C");
    let _ = sync(0);
    world.server().remove_folder("C");
    let _ = sync(0);
    world.server().rename_folder("D", "C");
    for _ in 0..2 {
        let _ = sync(0);
        let _ = sync(1);
    }
    for (number, client) in world.clients().iter().enumerate() {
        harness::assert_same(world.server(), client.tree());
        assert!(!client.tree().has_folder("A"), "client {number}");
        client.tree().assert_holds("C", U1, &body("D"));
        let _ = sync(number).idle();
    }
    // And again, with the name of one that is gone twice.
    world.server().remove_folder("C");
    world.server().store("C", U2, "S", &body("new"));
    for number in [0, 1, 0, 1] {
        let _ = sync(number);
    }
    for client in world.clients() {
        harness::assert_same(world.server(), client.tree());
        client.tree().assert_holds("C", U2, &body("new"));
    }
}
