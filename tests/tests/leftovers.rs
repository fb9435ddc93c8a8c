//! What a run that was killed in the middle of a replacement left in `tmp`: the only copy of an old version, which is put
//! into the trash, and never swept away unseen.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::snapshot::holds_bytes;
use harness::{Snapshot, World, bulky};

use crate::errors::U1;

pub(crate) fn old() -> Vec<u8> {
    bulky("the old version", 30_000)
}

/// A client that was killed after the new version had come into place, and before the old one was in the trash.
pub(crate) fn killed_in_a_replacement() -> (World, PathBuf) {
    let world = World::unprivileged();
    world.server().store("INBOX", U1, "S", &old());
    world.give_away();
    let _ = world.client().sync().run().ok();
    world
        .server()
        .edit("INBOX", U1, &bulky("the new version", 30_000));
    world.give_away();
    world.save("before");
    for nth in 1..20 {
        let inject = format!("inject=renameat2:signal=SIGKILL:when={nth}");
        let log = world.path("c0/strace.log").display().to_string();
        let strace = [
            "strace",
            "-f",
            "-b",
            "execve",
            "-q",
            "-o",
            &log,
            "-e",
            "trace=renameat2",
            "-e",
            &inject,
        ];
        let run = world.client().pull().under(&strace).run();
        let left = Snapshot::of(world.local())
            .rubbish
            .into_iter()
            .find(|path| fs::read(path).is_ok_and(|bytes| bytes == old()));
        if let Some(left) = left {
            assert_ne!(run.code, Some(0), "{run:?}");
            return (world, left);
        }
        world.load("before");
    }
    panic!("no kill left the old version in tmp: does strace work here?");
}

fn assert_put_in_order(world: &World) {
    let _ = world.client().pull().run().ok();
    world.assert_same();
    assert!(
        holds_bytes(&world.client().state(), &old()),
        "the old version is in no trash"
    );
}

#[test]
fn an_old_version_left_in_tmp_goes_to_the_trash() {
    let (world, left) = killed_in_a_replacement();
    assert_put_in_order(&world);
    assert!(!left.exists());
}

/// What cannot be read may be the only copy: the run stops, and nothing is swept away.
#[test]
fn an_old_version_that_cannot_be_read_stops_the_run() {
    let (world, left) = killed_in_a_replacement();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o000)).expect("file is closed");
    for _ in 0..2 {
        let name = left
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        let _ = world
            .client()
            .pull()
            .run()
            .exits(1)
            .says(name)
            .says_one_sentence();
        assert!(left.exists(), "swept away unread");
    }
    fs::set_permissions(&left, fs::Permissions::from_mode(0o600)).expect("file is opened");
    assert_eq!(fs::read(&left).expect("it can be read"), old());
    assert_put_in_order(&world);
}

/// A trash that takes nothing stops the run likewise.
#[test]
fn an_old_version_without_a_trash_stops_the_run() {
    let (world, left) = killed_in_a_replacement();
    let replicas = fs::read_dir(world.client().state().join("replicas")).expect("there is state");
    let replica = replicas
        .map(|replica| replica.expect("can be listed").path())
        .next()
        .expect("one replica");
    let trash = replica.join("trash");
    fs::rename(&trash, replica.join("elsewhere")).expect("trash is moved away");
    fs::write(&trash, "a file where the trash should be").expect("file is written");
    world.give_away();
    let _ = world
        .client()
        .pull()
        .run()
        .exits(1)
        .says("trash")
        .says_one_sentence();
    assert_eq!(fs::read(&left).expect("still there"), old());
    fs::remove_file(&trash).expect("file is removed");
    assert_put_in_order(&world);
}

/// Somebody writes into it all the time: whether the run hits upon that or not, not a byte of it is lost.
#[test]
fn an_old_version_that_changes_while_it_is_moved_is_not_swept_away() {
    let (world, left) = killed_in_a_replacement();
    let mut file = fs::File::options()
        .append(true)
        .open(&left)
        .expect("file opens");
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"x").expect("byte is written");
                count += 1;
            }
            count
        });
        let run = world.client().pull().run();
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(run.code, Some(0 | 1 | 75)), "{run:?}");
        assert!(run.code == Some(0) || left.exists(), "swept away: {run:?}");
        writer.join().expect("the writer ends")
    });
    let _ = world.client().pull().run().ok();
    let whole = [old(), vec![b'x'; written]].concat();
    assert!(
        holds_bytes(&world.client().state(), &whole),
        "{written} bytes more, not in the trash"
    );
}
