//! I2: what went where no scan looks, or cannot be read, is unknown. It is reported, and deleted nowhere.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use harness::{Layout, Tree, World, body};

use crate::errors::{U1, U2};

/// A synced pair, in both layouts, and each side in turn as the one where something happens.
fn each(act: impl Fn(&Tree), code: i32, says: &str) {
    for layout in [Layout::MaildirPlusPlus, Layout::Nested] {
        for at_server in [false, true] {
            let world = World::with_layouts(layout, &[layout]);
            if layout == Layout::Nested {
                world.local().create();
            }
            for folder in ["INBOX", "A", "B"] {
                world.server().store(folder, U1, "S", &body(folder));
                world
                    .server()
                    .store(folder, U2, "", &body(&format!("{folder} 2")));
            }
            let _ = world.client().sync().run().ok();
            let (here, there) = match at_server {
                true => (world.server(), world.local()),
                false => (world.local(), world.server()),
            };
            act(here);
            for code in [code, 0, 0] {
                let run = world.client().sync().run().exits(code);
                if code != 0 {
                    let _ = run.says(says); // Once: the next run has nothing new to say.
                }
                for folder in ["INBOX", "A", "B"] {
                    there.assert_holds(folder, U1, &body(folder));
                    there.assert_holds(folder, U2, &body(&format!("{folder} 2")));
                }
            }
        }
    }
}

fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("it can be renamed");
}

#[test]
fn a_message_behind_a_link_or_a_pipe_is_not_deleted() {
    let link = |tree: &Tree| {
        let path = tree.path("A", U1);
        let elsewhere = tree.root().with_extension("elsewhere");
        rename(&path, &elsewhere);
        symlink(&elsewhere, &path).expect("a link is made");
    };
    each(link, 3, "not a regular file");
    let dir = |tree: &Tree| {
        let path = tree.path("A", U1);
        fs::remove_file(&path).expect("it is removed");
        fs::create_dir(&path).expect("a directory is made");
    };
    each(dir, 3, "not a regular file");
}

/// What may be behind something in another folder waits in every run, also when nothing changes there any more.
#[test]
fn a_message_that_may_be_in_another_folder_is_not_deleted() {
    let moved = |tree: &Tree| {
        tree.delete("A", U1);
        let other = tree.dir("B").join("cur").join(format!("{U1}:2,T"));
        fs::create_dir(other).expect("a directory is made");
    };
    each(moved, 3, "not a regular file");
}

#[test]
fn a_folder_renamed_to_a_name_of_ours_is_not_deleted() {
    let ours = |tree: &Tree| {
        let dir = tree.dir("A");
        rename(&dir, &dir.with_file_name(".maildir-sync.A"));
    };
    each(ours, 3, "begin with .maildir-sync");
}

#[test]
fn a_folder_renamed_to_where_no_folders_are_is_not_deleted() {
    let hidden = |tree: &Tree| rename(&tree.dir("A"), &tree.root().join(".notmuch"));
    each(hidden, 3, "no folder's place");
}

#[test]
fn messages_whose_cur_is_away_or_something_else_are_not_deleted() {
    for folder in ["INBOX", "A"] {
        let away = |tree: &Tree| {
            // Without anything in `new` it were no folder at all.
            tree.deliver(folder, "1700000003.M3P3.new", &body("new"));
            let cur = tree.dir(folder).join("cur");
            rename(&cur, &cur.with_file_name("cur.old"));
        };
        each(away, 3, "its cur is missing");
    }
    let file = |tree: &Tree| {
        let cur = tree.dir("A").join("cur");
        rename(&cur, &cur.with_file_name("cur.old"));
        fs::write(&cur, "").expect("a file is made");
    };
    each(file, 3, "cur");
}

/// The keys `layout` and `folder_names` may change: folders that were agreed on stay where they are, and nothing is deleted.
#[test]
fn another_layout_than_that_of_the_last_sync_deletes_nothing() {
    let world = World::new();
    for folder in ["INBOX", "A"] {
        world.server().store(folder, U1, "S", &body(folder));
    }
    let account = format!(
        "[account.home]\nremote = \"{}\"\nlocal = \"{}\"\n",
        world.server().root().display(),
        world.local().root().display()
    );
    let client = world.client();
    client.configure(&account);
    let _ = client.bare(&["sync", "home"]).run().ok();
    for setting in ["layout = \"nested\"\n", "folder_names = \"utf-8\"\n"] {
        client.configure(&format!("{account}{setting}"));
        let _ = client.bare(&["sync", "home", "--json"]).run().ok().idle();
        world.server().set_flags("A", U1, setting_flags(setting));
        let _ = client.bare(&["sync", "home"]).run().ok();
        world.assert_same();
    }
    client.configure(&format!("{account}layout = \"maildir++\"\n"));
    let _ = client.bare(&["sync", "home", "--json"]).run().ok().idle();
}

fn setting_flags(setting: &str) -> &'static str {
    match setting.starts_with("layout") {
        true => "FS",
        false => "RS",
    }
}
