//! Bodies in `tmp`: whose they are, and when they go.

use std::path::Path;

use protocol::message::{At, Source};
use protocol::{Digest, FolderDir, Info, Op, Outcome, Unique};

use super::*;
use crate::replica::open_for_test as open;

const BYTES: &[u8] = b"Subject: on its way\n\n";

fn new_body() -> NewBody {
    NewBody {
        digest: Digest::of(BYTES),
        size: BYTES.len() as u64,
        mtime_ns: 1_000_000_000,
        source: Source::Body { offset: 0 },
    }
}

fn in_tmp(root: &Path) -> usize {
    let names = std::fs::read_dir(root.join("mail/tmp")).expect("tmp is there");
    names.count()
}

#[test]
fn what_one_run_writes_another_takes_for_no_leftover() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut one = open(dir.path(), "one");
    one.scan().expect("it scans");
    let mut inbox = one.inbox().expect("tmp opens");
    let written = inbox.write(b"", &new_body(), Body::Small(BYTES.to_vec()));
    let mut bodies = vec![written];
    flush_bodies(&mut bodies);
    assert!(matches!(&bodies[..], [Ok(written)] if written.is_durable));
    assert_eq!(in_tmp(dir.path()), 1);
    for state in ["one", "two"] {
        open(dir.path(), state).scan().expect("it scans");
        assert_eq!(in_tmp(dir.path()), 1, "it is still there");
    }
    let op = Op::Create {
        at: At {
            number: None,
            folder: FolderDir::root(),
            unique: Unique::new(b"1.a.b").expect("a name"),
            copy: 0,
        },
        in_new: true,
        info: Info::default(),
        body: new_body(),
    };
    let made = Op::MakeFolder {
        dir: FolderDir::root(),
    };
    one.apply(&[made], Vec::new()).expect("it is made");
    let outcomes = one.apply(&[op], bodies).expect("it is applied");
    assert!(
        matches!(outcomes[..], [Outcome::Done { .. }]),
        "{outcomes:?}"
    );
    let bytes = std::fs::read(dir.path().join("mail/new/1.a.b"));
    assert_eq!(bytes.expect("it arrived"), BYTES);
    assert_eq!(in_tmp(dir.path()), 0);
}

#[test]
fn what_a_dead_run_left_goes_and_what_nobody_uses_goes_at_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut one = open(dir.path(), "one");
    let mut inbox = one.inbox().expect("tmp opens");
    let written = inbox.write(b"", &new_body(), Body::Small(BYTES.to_vec()));
    drop(written.expect("it is written"));
    assert_eq!(in_tmp(dir.path()), 0, "nobody used it");
    let left = inbox.write(b"", &new_body(), Body::Small(BYTES.to_vec()));
    std::mem::forget(left.expect("it is written").into_file());
    // A dead run takes nothing away, and its lock is gone.
    let record = inbox.record.take().expect("it wrote");
    record.let_go();
    std::mem::forget(record);
    drop((inbox, one));
    assert_eq!(in_tmp(dir.path()), 1);
    open(dir.path(), "one").scan().expect("it scans");
    assert_eq!(in_tmp(dir.path()), 0, "it was swept away");
}

#[test]
fn a_large_body_stays_where_it_was_collected_until_its_batch_begins() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut one = open(dir.path(), "one");
    let mut inbox = one.inbox().expect("tmp opens");
    let (partials, digest) = (one.partials(), Digest::of(BYTES));
    let partial = || {
        let length = partials.length(&digest);
        let partial = partials.begin(&digest, length, &mut blake3::Hasher::new());
        partial.expect("it is ours")
    };
    let first = partial();
    (&first.file).write_all(BYTES).expect("it is collected");
    let written = inbox.write(b"", &new_body(), Body::Large(first));
    drop(written.expect("it is written"));
    let length = BYTES.len() as u64;
    assert_eq!(
        partials.length(&digest),
        length,
        "nobody used it, so the next run does"
    );
    let written = inbox.write(b"", &new_body(), Body::Large(partial()));
    let (tmp, _, _record) = written.expect("it is written").into_file();
    assert_eq!(partials.length(&digest), 0);
    let bytes = std::fs::read(one.path().join(std::str::from_utf8(&tmp).expect("a name")));
    assert_eq!(bytes.expect("it lies in tmp"), BYTES);
}

#[test]
fn few_files_stay_open_for_flushing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut one = open(dir.path(), "one");
    let mut inbox = one.inbox().expect("tmp opens");
    let mut write = || {
        let written = inbox.write(b"", &new_body(), Body::Small(BYTES.to_vec()));
        written.expect("it is written")
    };
    let many: Vec<Written> = (0..20).map(|_| write()).collect();
    let open = |written: &&Written| written.open.is_some();
    assert_eq!(many.iter().filter(open).count(), SYNCFS_FROM);
    assert!(write().open.is_none());
    drop(many);
    assert!(write().open.is_some(), "those are closed");
}

/// A run that wrote a body into a folder that was renamed then.
fn renamed_meanwhile(root: &Path) -> (crate::Replica, Inbox, Written) {
    let mut one = open(root, "one");
    let mail = root.join("mail");
    std::fs::create_dir_all(mail.join(".A/cur")).expect("it is made");
    let mut inbox = one.inbox().expect("tmp opens");
    let written = inbox.write(b".A", &new_body(), Body::Small(BYTES.to_vec()));
    std::fs::rename(mail.join(".A"), mail.join(".B")).expect("it is renamed");
    (one, inbox, written.expect("it is written"))
}

fn is_empty(dir: &Path) -> bool {
    let mut names = std::fs::read_dir(dir).expect("it is there");
    names.next().is_none()
}

#[test]
fn what_nobody_uses_goes_from_the_tmp_of_a_folder_that_was_renamed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut one, inbox, written) = renamed_meanwhile(dir.path());
    drop((written, inbox));
    one.scan().expect("it scans");
    assert!(is_empty(&dir.path().join("mail/.B/tmp")));
    assert!(is_empty(&one.state().join("incoming")), "nor its record");
}

#[test]
fn what_a_dead_run_left_goes_from_the_tmp_of_a_folder_that_was_renamed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (one, inbox, written) = renamed_meanwhile(dir.path());
    // Another folder has its name now.
    std::fs::create_dir_all(dir.path().join("mail/.A/tmp")).expect("it is made");
    inbox.record.as_ref().expect("it wrote").let_go();
    std::mem::forget((written, inbox));
    drop(one);
    open(dir.path(), "one").scan().expect("it scans");
    assert!(is_empty(&dir.path().join("mail/.B/tmp")));
}

#[test]
fn a_link_in_the_place_of_a_folder_into_which_a_dead_run_wrote_stops_no_run() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (one, inbox, written) = renamed_meanwhile(dir.path());
    std::os::unix::fs::symlink(".B", dir.path().join("mail/.A")).expect("it is made");
    inbox.record.as_ref().expect("it wrote").let_go();
    std::mem::forget((written, inbox));
    drop(one);
    open(dir.path(), "one").scan().expect("it scans");
    assert!(is_empty(&dir.path().join("mail/.B/tmp")));
}
