//! Real mail: 20,000 generated messages, and the corpus where there is one, pulled, changed on both sides, synced and
//! compared byte for byte, times too.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::lacks::unshown;
use harness::rng::seed_or;
use harness::world::{copy_dir, remove_dir};
use harness::{Layout, Rng, Snapshot, Tree, World, mail};

use crate::trees;

/// Changes a tree as a busy user would: `count` changes, names and bodies marked so that two sides do not coincide.
fn mutate(tree: &Tree, rng: &mut Rng, count: usize, mark: &str) {
    let messages = Snapshot::of(tree).messages;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    for number in 0..count {
        let Some((message, _)) = rng.pick(&messages) else {
            return;
        };
        let (Some(folder), Some(unique)) = (text(&message.folder), text(&message.unique)) else {
            continue;
        };
        if !tree.has(&folder, &unique) {
            continue;
        }
        let fresh = format!("{}.M{number}P9.{mark}", 1_900_000_000 + number);
        match rng.below(10) {
            0..=2 => tree.deliver(&folder, &fresh, &mail::realistic(rng, 1_000_000 + number)),
            3..=5 => tree.set_flags(&folder, &unique, ["", "S", "FS", "RS"][rng.below(4)]),
            6 => tree.rename(&folder, &unique, "INBOX", &fresh),
            7 => tree.copy(&folder, &unique, &folder, &fresh),
            8 => tree.delete(&folder, &unique),
            _ => tree.replace(&folder, &unique, &mail::realistic(rng, 2_000_000 + number)),
        }
    }
}

#[test]
fn twenty_thousand_messages_come_through() {
    let mut rng = Rng::new(seed_or(20_000));
    let world = World::new();
    mail::fill(world.server(), 20_000, 60, 7);
    let run = world.client().pull().run().ok();
    assert_eq!(run.here("new"), 20_000, "{}", run.stdout);
    world.assert_same();
    let idle = world.client().sync().run().ok().idle();
    assert!(idle.bytes() < 2_048, "{}", idle.stdout);
    mutate(world.server(), &mut rng, 600, "server");
    mutate(world.local(), &mut rng, 600, "laptop");
    let _ = world.client().sync().run().ok();
    world.assert_same();
    let _ = world.client().sync().run().ok().idle();
    remove_dir(&world.server_state());
    remove_dir(&world.client().state());
    let adopted = world.client().sync().run().ok();
    assert_eq!(adopted.done(), 0, "{}", adopted.stdout);
    world.assert_same();
}

/// The corpus, unpacked into a world, or nothing where there is none.
pub(crate) fn corpus(world: &World) -> Option<PathBuf> {
    let Some(dir) = std::env::var_os("MAILDIR_SYNC_CORPUS") else {
        unshown("MAILDIR_SYNC_CORPUS is not set");
        return None;
    };
    let tar = Path::new(&dir).join("real-maildir.tar");
    assert!(
        tar.is_file(),
        "MAILDIR_SYNC_CORPUS is set, but {} is not there",
        tar.display()
    );
    let target = world.path("corpus");
    std::fs::create_dir(&target).expect("directory is made");
    let mut command = Command::new("tar");
    command.arg("-xpf").arg(&tar).arg("-C").arg(&target);
    let done = harness::process::run(command, harness::process::LIMIT);
    assert!(matches!(done.code, Some(0 | 1)), "{done:?}");
    Some(target)
}

/// Pulls an account of the corpus, changes both sides, syncs, compares.
fn account(name: &str, layout: Layout, odd: bool) {
    let world = World::with_layouts(layout, &[layout]);
    let Some(dir) = corpus(&world) else {
        return;
    };
    remove_dir(world.server().root());
    copy_dir(&dir.join(name), world.server().root());
    let before = Snapshot::of(world.server());
    let run = world.client().pull().run();
    assert_eq!(run.code, Some(if odd { 3 } else { 0 }), "{run:?}");
    harness::assert_untouched(&before, world.server(), "a pull");
    assert_arrived(&world, &before, run.figure(&["skipped"]));
    let [there, here] = [world.server(), world.local()].map(|tree| trees::folders(tree.root()));
    assert_eq!(there, here, "folders are the same directories");
    let mut rng = Rng::new(seed_or(873));
    if !odd {
        mutate(world.server(), &mut rng, 60, "server");
        mutate(world.local(), &mut rng, 60, "laptop");
        let _ = world.client().sync().run().ok();
        assert_same_messages(&world);
    }
    let again = world.client().sync().run().ok().idle();
    assert!(again.bytes() < 4_096, "{}", again.stdout);
}

/// Every message arrived byte for byte, but for those in places that were reported.
fn assert_arrived(world: &World, before: &Snapshot, skipped: u64) {
    let after = Snapshot::of(world.local());
    let missing = harness::snapshot::difference(&before.mail(), &after.mail());
    let lines = missing.lines().count() as u64;
    assert!(
        skipped > 0 || lines == 0,
        "nothing was reported, yet:\n{missing}"
    );
    println!("{skipped} reported; not as on the server:\n{missing}");
    let found = after.counts();
    let lost = before
        .counts()
        .keys()
        .filter(|digest| !found.contains_key(*digest))
        .count() as u64;
    assert!(
        lost <= skipped * 4,
        "{lost} contents did not arrive, {skipped} were reported"
    );
}

/// The `tmp` of the corpus holds files of other programs, which stay.
fn assert_same_messages(world: &World) {
    let (server, local) = (Snapshot::of(world.server()), Snapshot::of(world.local()));
    let difference = harness::snapshot::difference(&server.mail(), &local.mail());
    assert!(
        difference.is_empty(),
        "server (<) and client (>) differ:\n{difference}"
    );
}

#[test]
fn the_corpus_ordinary_account() {
    account("plain", Layout::MaildirPlusPlus, false);
}

#[test]
fn the_corpus_account_of_oddities() {
    account("weird", Layout::MaildirPlusPlus, true);
}

#[test]
fn the_corpus_nested_account() {
    account("fs", Layout::Nested, false);
}
