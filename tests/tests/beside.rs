//! What lies beside the messages in a folder's directory, and belongs to Dovecot or to somebody else.

use std::fs;

use harness::tree::files;
use harness::{Layout, Tree, World, body};

const U1: &str = "1700000001.M1P1.mx,S=20";

fn put(tree: &Tree, folder: &str, name: &str, text: &str) {
    fs::create_dir_all(tree.dir(folder)).expect("directory is made");
    fs::write(tree.dir(folder).join(name), text).expect("file is written");
}

fn get(tree: &Tree, folder: &str, name: &str) -> String {
    fs::read_to_string(tree.dir(folder).join(name)).unwrap_or_default()
}

/// Row 17. Dovecot would read the UIDs and keywords of the folder that was there before.
#[test]
fn a_renamed_folder_takes_its_files_along_also_where_some_were_left_over() {
    for layout in [Layout::MaildirPlusPlus, Layout::Nested] {
        let world = World::with_layouts(layout, &[layout]);
        let server = world.server();
        server.create();
        server.store("Old", U1, "a", &body("one"));
        for (name, text) in [
            ("dovecot-keywords", "0 Work\n"),
            ("dovecot-uidlist", "3 V1"),
            ("notes", "mine"),
            ("other", "only here"),
        ] {
            put(server, "Old", name, text);
        }
        let _ = world.client().sync().run().ok();
        for (name, text) in [
            ("dovecot-keywords", "0 Junk\n"),
            ("dovecot-uidlist", "3 V2"),
            ("notes", "left over"),
        ] {
            put(server, "Neu", name, text);
        }
        world.local().rename_folder("Old", "Neu");
        let _ = world.client().sync().run().ok();
        world.assert_same();
        assert_eq!(server.flags("Neu", U1), "a");
        let of = |folder: &str| {
            ["dovecot-keywords", "dovecot-uidlist", "notes", "other"]
                .map(|name| get(server, folder, name))
        };
        assert_eq!(of("Neu"), ["0 Work\n", "3 V1", "mine", "only here"]);
        assert_eq!(of("Old"), ["0 Junk\n", "3 V2", "left over", ""]);
        let run = world.client().sync().run().ok().idle();
        assert_eq!(run.pending(), 0, "{}", run.stdout);
    }
}

/// Row 16. What Dovecot makes anew goes into the trash with its folder; what is somebody else's stays where it is.
#[test]
fn a_removed_folder_goes_whole_if_only_the_servers_own_files_are_left_in_it() {
    for foreign in [None, Some("notes")] {
        let world = World::new();
        let server = world.server();
        server.store("Old", U1, "a", &body("one"));
        for name in [
            "dovecot-keywords",
            "dovecot-uidlist",
            "dovecot.index.log",
            "maildirfolder",
        ]
        .into_iter()
        .chain(foreign)
        {
            put(server, "Old", name, &format!("0 {name}\n"));
        }
        let _ = world.client().sync().run().ok();
        world.local().remove_folder("Old");
        let run = world.client().sync().run().ok();
        assert_eq!(
            (run.there("deleted"), run.there("folders")),
            (1, 1),
            "{}",
            run.stdout
        );
        assert!(!server.has_folder("Old"));
        assert_eq!(server.dir("Old").exists(), foreign.is_some());
        if let Some(name) = foreign {
            assert_eq!(get(server, "Old", name), "0 notes\n");
            assert_eq!(
                get(server, "Old", "dovecot-keywords"),
                "0 dovecot-keywords\n"
            );
        } else {
            assert!(
                is_below(&world.server_state(), "dovecot-keywords"),
                "it is in the trash"
            );
        }
        let run = world.client().sync().run().ok().idle();
        assert_eq!((run.pending(), run.stderr.as_str()), (0, ""));
        // Made again, it is a new folder beside what was left.
        world.local().store("Old", U1, "S", &body("again"));
        let _ = world.client().sync().run().ok();
        world.assert_same();
        if let Some(name) = foreign {
            assert_eq!(get(server, "Old", name), "0 notes\n");
        }
        let _ = world.client().sync().run().ok().idle();
    }
}

fn is_below(dir: &std::path::Path, name: &str) -> bool {
    files(dir).iter().any(|path| {
        path.file_name().is_some_and(|found| found == name)
            || (path.is_dir() && is_below(path, name))
    })
}
