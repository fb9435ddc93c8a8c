//! Who may read what arrives (C66): messages and folders take after where they lie, and state and trash are private.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use harness::lacks::is_root;
use harness::snapshot::everything;
use harness::tree::files;
use harness::{Tree, World, body};

use crate::errors::{U1, U2};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode is set");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

/// Gives every directory of a tree a mode.
fn set_modes(tree: &Tree, of_dirs: u32) {
    for path in everything(tree.root()).into_keys() {
        if path.is_dir() {
            set_mode(&path, of_dirs);
        }
    }
}

fn under(umask: &str) -> [String; 3] {
    [
        "sh".to_owned(),
        "-c".to_owned(),
        format!("umask {umask}; exec \"$0\" \"$@\""),
    ]
}

/// Everything below a directory that others than its owner may touch.
fn open_to_others(dir: &Path) -> Vec<String> {
    let all = everything(dir).into_keys();
    let open = all.filter(|path| mode(path) & 0o077 != 0);
    open.map(|path| format!("{} {:o}", path.display(), mode(&path)))
        .collect()
}

/// Plays a pull that makes, moves, replaces and deletes, under a umask, into a tree whose directories have a mode.
fn after_a_pull(umask: &str, of_dirs: u32) -> World {
    let world = World::new();
    world.local().create();
    world.local().make_folder("Old");
    set_modes(world.local(), of_dirs);
    for (folder, unique) in [
        ("INBOX", U1),
        ("Old", U1),
        ("Lists/deep", U1),
        ("INBOX", U2),
    ] {
        let label = format!("{folder} {unique}");
        world.server().store(folder, unique, "", &body(&label));
    }
    let words = under(umask);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let _ = world.client().pull().under(&words).run().ok();
    world.server().edit("INBOX", U1, &body("edited"));
    world.server().delete("INBOX", U2);
    let _ = world.client().sync().under(&words).run().ok();
    world.assert_same();
    world
}

#[test]
fn messages_and_folders_take_after_where_they_lie() {
    for (of_dirs, of_files) in [
        (0o700, 0o600),
        (0o750, 0o640),
        (0o2770, 0o660),
        (0o755, 0o644),
    ] {
        for umask in ["000", "022", "077", "277"] {
            let world = after_a_pull(umask, of_dirs);
            for folder in ["INBOX", "Old", "Lists/deep"] {
                let dir = world.local().dir(folder);
                for path in [
                    dir.clone(),
                    dir.join("cur"),
                    dir.join("new"),
                    dir.join("tmp"),
                ] {
                    let seen = mode(&path);
                    assert_eq!(seen, of_dirs, "{} under {umask}: {seen:o}", path.display());
                }
                let messages = files(&dir.join("cur"));
                assert!(!messages.is_empty(), "{folder}");
                for path in messages {
                    let seen = mode(&path);
                    assert_eq!(seen, of_files, "{} under {umask}: {seen:o}", path.display());
                }
            }
        }
    }
}

#[test]
fn a_maildir_that_is_made_is_private() {
    let world = World::new();
    world.server().store("Lists/deep", U1, "", &body("one"));
    let _ = world
        .client()
        .pull()
        .under(&["sh", "-c", "umask 0; exec \"$0\" \"$@\""])
        .run()
        .ok();
    world.assert_same();
    assert_eq!(open_to_others(world.local().root()), Vec::<String>::new());
}

#[test]
fn state_and_trash_are_private() {
    for umask in ["000", "022"] {
        let world = after_a_pull(umask, 0o755);
        assert_eq!(
            open_to_others(&world.client().state()),
            Vec::<String>::new()
        );
        assert!(!files(&world.client().state().join("replicas")).is_empty());
    }
}

/// Root may give a directory any group.
#[test]
fn a_folder_of_a_group_gets_files_of_that_group() {
    if !is_root("give a folder away") {
        return;
    }
    let world = World::new();
    world.local().create();
    world.local().make_folder("Team");
    let dir = world.local().dir("Team");
    for path in [
        dir.clone(),
        dir.join("cur"),
        dir.join("new"),
        dir.join("tmp"),
    ] {
        chown(&path, None, Some(4321)).expect("root may");
        set_mode(&path, 0o2770);
    }
    world.server().store("Team", U1, "S", &body("one"));
    world.server().deliver("Team", U2, &body("two"));
    let _ = world.client().pull().run().ok();
    for unique in [U1, U2] {
        let stat = fs::metadata(world.local().path("Team", unique)).expect("it arrived");
        assert_eq!(
            (stat.gid(), stat.mode() & 0o7777),
            (4321, 0o660),
            "{unique}"
        );
    }
}
