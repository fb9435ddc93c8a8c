//! Where INBOX is, what an empty root becomes, what the configuration says, and which patterns mean which folders.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use harness::snapshot::{assert_nothing_written, everything};
use harness::{Layout, Tree, World, body};

use crate::errors::{U1, U2, U3};

fn nested() -> World {
    let world = World::with_layouts(Layout::Nested, &[Layout::Nested]);
    fs::remove_dir_all(world.server().dir("INBOX")).expect("INBOX goes");
    world
}

/// C58: nothing has to be made for anything to work.
#[test]
fn a_tree_without_inbox_receives_mail_in_all_its_folders() {
    for at_server in [true, false] {
        let world = nested();
        world.server().store("Work", U1, "S", &body("first"));
        let _ = world.client().pull().run().ok();
        let (from, to) = match at_server {
            true => (world.server(), world.local()),
            false => (world.local(), world.server()),
        };
        from.deliver("Work", U2, &body("later"));
        from.store("New", U1, "", &body("in a new folder"));
        let _ = world.client().sync().run().ok();
        world.assert_same();
        to.assert_holds("Work", U2, &body("later"));
        for tree in [from, to] {
            assert!(!tree.root().join("cur").exists() && !tree.has_folder("INBOX"));
        }
        // INBOX has a place where it has none yet.
        from.deliver("INBOX", U1, &body("to INBOX"));
        let _ = world.client().sync().run().ok();
        to.assert_holds("INBOX", U1, &body("to INBOX"));
        let _ = world.client().sync().run().ok().idle();
    }
}

/// C58: INBOX of a Maildir++ gets a place in a nested tree without one.
#[test]
fn inbox_of_another_layout_gets_a_place() {
    let world = World::with_layouts(Layout::Nested, &[Layout::MaildirPlusPlus]);
    fs::remove_dir_all(world.server().dir("INBOX")).expect("INBOX goes");
    world.server().store("Work", U1, "S", &body("work"));
    world.local().create();
    world.local().make_folder("Here");
    world.local().deliver("INBOX", U2, &body("inbox"));
    let _ = world.client().sync().run().ok();
    world.assert_same();
    world.server().assert_holds("INBOX", U2, &body("inbox"));
}

/// C62: a tree that had only INBOX is not taken for Maildir++ for good.
#[test]
fn folders_of_any_style_may_come_after_a_first_sync_of_inbox_alone() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let _ = world.client().sync().run().ok();
    let nested = |tree: &Tree| Tree::at(tree.root().to_owned(), Layout::Nested);
    let (server, local) = (nested(world.server()), nested(world.local()));
    server.store("Lists/debian", U1, "S", &body("two"));
    let _ = world.client().sync().run().ok();
    local.assert_holds("Lists/debian", U1, &body("two"));
    local.store("dev.tools", U1, "S", &body("three"));
    world.local().store("Flat", U1, "S", &body("four"));
    let _ = world.client().sync().run().ok();
    server.assert_holds("dev.tools", U1, &body("three"));
    world.server().assert_holds("Flat", U1, &body("four"));
    let _ = world.client().sync().run().ok().idle();
}

/// C63: an empty root takes layout and encoding from the other side, unless the configuration says otherwise.
#[test]
fn an_empty_root_is_laid_out_like_the_other_side_or_as_configured() {
    let world = World::with_layouts(Layout::Nested, &[Layout::Nested]);
    for folder in ["INBOX", "Entw\u{fc}rfe", "dev.tools"] {
        world.server().store(folder, U1, "S", &body(folder));
    }
    let _ = world.client().pull().run().ok();
    world.assert_same();
    let flat = Tree::at(world.path("flat"), Layout::MaildirPlusPlus);
    let (remote, local) = (world.server().root().display(), flat.root().display());
    world.client().configure(&format!(
        "[account.flat]\nremote = \"{remote}\"\nlocal = \"{local}\"\nlayout = \"maildir++\"\nfolder_names = \"utf-7\"\n"
    ));
    let run = world.client().bare(&["pull", "flat"]).run();
    let _ = run.exits(3).says("dev.tools");
    flat.assert_holds("INBOX", U1, &body("INBOX"));
    flat.assert_holds("Entw&APw-rfe", U1, &body("Entw\u{fc}rfe"));
    let _ = world.client().bare(&["sync", "flat"]).run().ok();
    world
        .server()
        .assert_holds("dev.tools", U1, &body("dev.tools"));
}

/// C64: `Inbox` here and INBOX there is one folder.
#[test]
fn inbox_in_other_letters_is_not_doubled() {
    let world = World::with_layouts(Layout::Nested, &[Layout::Nested]);
    for (tree, inbox) in [(world.server(), "INBOX"), (world.local(), "Inbox")] {
        for number in 0..60 {
            let text = format!("message {number}");
            tree.store(inbox, &format!("{number}.M.mx"), "S", &body(&text));
        }
        tree.store(&format!("{inbox}/Sub"), U1, "S", &body("below"));
    }
    let run = world.client().sync().run().ok();
    assert_eq!(run.done(), 0, "{}", run.stdout);
    assert!(!world.local().has_folder("INBOX") && !world.server().has_folder("Inbox"));
    world.server().set_flags("INBOX", "7.M.mx", "FS");
    world.local().deliver("Inbox/Sub", U2, &body("new below"));
    let _ = world.client().sync().run().ok();
    assert_eq!(world.local().flags("Inbox", "7.M.mx"), "FS");
    world
        .server()
        .assert_holds("INBOX/Sub", U2, &body("new below"));
    let _ = world.client().sync().run().ok().idle();
}

/// INBOX stays INBOX where somebody writes it in other letters, or lays it out anew, on either side.
#[test]
fn inbox_that_is_renamed_to_inbox_in_other_letters_stays_inbox() {
    for (at_server, old, new) in [
        (true, "INBOX", "Inbox"),
        (true, "Inbox", "INBOX"),
        (false, "INBOX", "Inbox"),
        (false, "Inbox", "INBOX"),
        (true, "INBOX", "."),
        (false, "INBOX", "."),
    ] {
        let world = nested();
        world.server().store(old, U1, "S", &body("inbox"));
        world.server().store("Work", U1, "S", &body("work"));
        let _ = world.client().sync().run().ok();
        let tree = match at_server {
            true => world.server(),
            false => world.local(),
        };
        let root = tree.root();
        if new == "." {
            for part in ["cur", "new", "tmp"] {
                fs::rename(root.join(old).join(part), root.join(part)).expect("it is moved");
            }
            fs::remove_dir(root.join(old)).expect("it is empty");
        } else {
            fs::rename(root.join(old), root.join(new)).expect("it is renamed");
        }
        let _ = world.client().sync().run().ok();
        fs::write(root.join(new).join("new").join(U2), body("new mail")).expect("it is delivered");
        let _ = world.client().sync().run().ok();
        for tree in [world.server(), world.local()] {
            let all = everything(tree.root());
            let in_part = |path: &&PathBuf| {
                let part = path.parent().and_then(Path::file_name);
                part.is_some_and(|part| part == "cur" || part == "new")
            };
            let folders = all.keys().filter(|path| path.ends_with("cur")).count();
            let messages = all.keys().filter(in_part).count();
            assert_eq!((messages, folders), (3, 2), "{old} to {new}: {all:?}");
        }
        let _ = world.client().sync().run().ok().idle();
    }
}

/// A lost INBOX is refused, however often it is run: no other folder of that name, old or just made, stands for it, but one
/// in which its messages are.
#[test]
fn another_folder_that_is_called_inbox_stands_for_a_lost_one_only_with_its_messages() {
    let parts = ["cur", "new", "tmp"];
    for (at_server, beside, is_moved) in [
        (true, Some("INBOX"), false),
        (false, Some("INBOX"), false),
        (true, None, false),
        (false, None, false),
        (true, Some("INBOX"), true),
        (false, Some("INBOX"), true),
    ] {
        let world = World::with_layouts(Layout::Nested, &[Layout::Nested]);
        fs::remove_dir_all(world.server().dir("INBOX")).expect("INBOX goes");
        world.server().put(".", "cur", b"1.M.mx:2,S", &body("one"));
        world.server().put(".", "cur", b"2.M.mx:2,S", &body("two"));
        world.server().store("Work", U1, "S", &body("work"));
        if let Some(beside) = beside {
            world.server().store(beside, U2, "S", &body("old"));
        }
        let _ = world.client().sync().run().ok();
        let (tree, other) = match at_server {
            true => (world.server(), world.local()),
            false => (world.local(), world.server()),
        };
        tree.make_folder("INBOX");
        for part in parts {
            let lost = tree.root().join(part);
            for file in harness::tree::files(&lost).into_iter().filter(|_| is_moved) {
                let name = harness::tree::name_bytes(&file).to_vec();
                let name = String::from_utf8(name).expect("a plain name");
                let to = tree.dir("INBOX").join(part).join(name);
                fs::rename(&file, to).expect("it is moved");
            }
            fs::remove_dir_all(lost).expect("it goes");
        }
        let before = everything(other.root());
        for _ in 0..2 {
            let run = world.client().sync().run();
            if is_moved {
                let run = run.ok();
                assert_eq!((run.here("deleted"), run.there("deleted")), (0, 0));
            } else {
                let _ = run.exits(4).says("has lost its INBOX");
                assert_nothing_written(&before, other.root());
            }
        }
    }
}

/// What was taken for INBOX laid out anew is taken for it again, while something that it lacks may still be elsewhere.
#[test]
fn inbox_that_was_laid_out_anew_is_no_lost_one_in_the_next_run() {
    for at_server in [true, false] {
        let world = World::with_layouts(Layout::Nested, &[Layout::Nested]);
        for (unique, label) in [(U1, "one"), (U2, "two"), (U3, "three")] {
            world.server().store("INBOX", unique, "S", &body(label));
        }
        world.server().store("Work", "4.M.mx", "S", &body("work"));
        let _ = world.client().sync().run().ok();
        let (tree, other) = match at_server {
            true => (world.server(), world.local()),
            false => (world.local(), world.server()),
        };
        tree.delete("INBOX", U1);
        let unknown = tree.dir("Work").join("cur").join(U1);
        fs::create_dir(&unknown).expect("nobody knows whether it is the message");
        for part in ["cur", "new", "tmp"] {
            let from = tree.dir("INBOX").join(part);
            fs::rename(from, tree.root().join(part)).expect("it is moved");
        }
        fs::remove_dir(tree.dir("INBOX")).expect("it is empty");
        for code in [3, 0, 0] {
            let _ = world.client().sync().run().exits(code);
            assert!(harness::snapshot::holds_bytes(other.root(), &body("one")));
        }
        fs::remove_dir(&unknown).expect("it was not");
        let run = world.client().sync().run().ok();
        assert_eq!(run.here("deleted") + run.there("deleted"), 1);
        let _ = world.client().sync().run().ok().idle();
    }
}

/// The way out that the refusal names is one.
#[test]
fn a_tree_that_lost_its_inbox_is_adopted_on_request() {
    for at_server in [true, false] {
        let world = World::with_layouts(Layout::Nested, &[Layout::Nested]);
        world.server().store("INBOX", U1, "S", &body("inbox"));
        world.server().store("Work", U1, "S", &body("work"));
        let _ = world.client().sync().run().ok();
        let tree = match at_server {
            true => world.server(),
            false => world.local(),
        };
        fs::remove_dir_all(tree.dir("INBOX")).expect("it goes");
        let _ = world.client().sync().run().exits(4).says("--adopt");
        let _ = world.client().sync().arg("--adopt").run().ok();
        world.assert_same();
        world.server().assert_holds("INBOX", U1, &body("inbox"));
        let _ = world.client().sync().run().ok().idle();
    }
}

/// C68: a pattern that is the very name of a folder means that folder, and no other.
#[test]
fn the_name_of_a_folder_is_a_pattern_for_it() {
    let world = World::new();
    for folder in ["INBOX", "[Gmail]/All Mail", "G/All Mail"] {
        world.server().store(folder, U1, "S", &body(folder));
    }
    let (remote, local) = (
        world.server().root().display(),
        world.local().root().display(),
    );
    world.client().configure(&format!(
        "[account.home]\nremote = \"{remote}\"\nlocal = \"{local}\"\nexclude = [\"[Gmail]/All Mail\", \"Slip\"]\n"
    ));
    let run = world.client().bare(&["pull", "home"]).run().ok();
    let _ = run.says("Slip");
    let found =
        ["INBOX", "[Gmail]/All Mail", "G/All Mail"].map(|folder| world.local().has(folder, U1));
    assert_eq!(found, [true, false, true]);
}

/// C84: a folder whose directory would be our marker's is none, and locks nobody out.
#[test]
fn a_directory_of_our_name_is_no_folder() {
    for name in [".maildir-sync.new", ".maildir-sync-odd"] {
        let world = World::new();
        world.server().store("INBOX", U1, "S", &body("one"));
        let dir = world.server().root().join(name);
        for sub in ["cur", "new", "tmp"] {
            fs::create_dir_all(dir.join(sub)).expect("it is made");
        }
        let _ = world.client().sync().run().exits(3).says(name);
        world.server().store("INBOX", U2, "S", &body("two"));
        let _ = world.client().sync().run().ok();
        world.local().assert_holds("INBOX", U2, &body("two"));
        assert!(!world.local().root().join(name).exists());
    }
}

/// A folder behind a link is followed where that is asked for, on either side; loops and links into the tree are not.
#[test]
fn a_folder_behind_a_link_is_followed_on_request() {
    for at_server in [true, false] {
        let world = World::new();
        world.server().store("INBOX", U1, "S", &body("one"));
        let _ = world.client().sync().run().ok();
        let outside = Tree::at(world.path("outside"), Layout::MaildirPlusPlus);
        outside.store("INBOX", U1, "S", &body("outside"));
        outside.store("Below", U2, "", &body("below"));
        let (from, to) = match at_server {
            true => (world.server(), world.local()),
            false => (world.local(), world.server()),
        };
        for (link, target) in [
            (".Linked", outside.root()),
            (".Loop", from.root()),
            (".Again", outside.root()),
        ] {
            symlink(target, from.root().join(link)).expect("a link is made");
        }
        let agent = harness::world::agent_command(&world.server_state());
        let agent = if at_server {
            format!("{agent} --follow-links")
        } else {
            agent
        };
        let (remote, local) = (
            world.server().root().display(),
            world.local().root().display(),
        );
        world.client().configure(&format!(
            "[account.home]\nremote = \"{remote}\"\nlocal = \"{local}\"\nserver_command = \"{agent}\"\nfollow_links = {}\n",
            !at_server
        ));
        let client = world.client().reaching(world.client().remote(), None);
        let sync = || client.bare(&["sync", "home", "--json"]).run();
        let _ = sync().exits(3).says(".Loop").says("into this Maildir");
        to.assert_holds("Again", U1, &body("outside"));
        let nested = Tree::at(to.root().join(".Again"), Layout::MaildirPlusPlus);
        nested.assert_holds("Below", U2, &body("below"));
        assert!(!to.has_folder("Linked") && !to.has_folder("Loop"));
        to.set_flags("Again", U1, "FS");
        to.deliver("Again", "3.M.mx", &body("back"));
        nested.delete("Below", U2);
        let _ = sync().ok();
        assert_eq!(outside.flags("INBOX", U1), "FS");
        outside.assert_holds("INBOX", "3.M.mx", &body("back"));
        assert!(!outside.has("Below", U2));
        let _ = sync().ok().idle();
    }
}
