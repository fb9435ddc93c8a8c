//! The replica on this side, and the threads that carry batches out on it: disks are waited for there, while the driver
//! takes in what comes and asks for more.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use maildir::{Body, Inbox, Incoming, Places, QUICK_BYTES_MAX, Replica, flush_bodies};
use protocol::message::{At, NewBody};
use protocol::{Op, Outcome};

/// How many batches are under way at once: one is flushed, one is carried out, and one waits. Their bodies lie in `tmp`.
const BATCHES_AHEAD: usize = 3;
/// From how many bytes on bodies are handed over to be written into `tmp`: most are small, and waking a thread costs as
/// much as writing some of them.
const GROUP_BYTES: u64 = 256 << 10;
/// How many such groups may wait, in memory.
const GROUPS_AHEAD: usize = 4;

/// A replica that two threads use in turns.
#[derive(Clone)]
pub struct Local(Arc<Mutex<Replica>>);

impl Local {
    /// Shares a replica.
    #[must_use]
    pub fn new(replica: Replica) -> Local {
        Local(Arc::new(Mutex::new(replica)))
    }

    /// The replica, once no batch is being carried out.
    pub fn lock(&self) -> MutexGuard<'_, Replica> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the writing thread gets.
enum Work {
    /// Bytes that have come, to be checked and written.
    Body(Box<(At, NewBody, Incoming)>),
    /// A batch, to which so many of the oldest bodies belong.
    Batch(Job, usize),
}

/// One batch, with its bodies in order.
struct Job {
    ops: Vec<Op>,
    bodies: Vec<io::Result<Body>>,
}

/// Carries batches out, in the order in which it gets them: one thread writes bodies into `tmp` as they come, one makes
/// those of a batch durable, and one does the rest, so that three batches are in work at once.
pub struct Hand {
    work: Option<SyncSender<Vec<Work>>>,
    /// Bodies that were not handed over yet.
    group: Vec<Work>,
    group_bytes: u64,
    results: Receiver<maildir::Result<Vec<Outcome>>>,
    under_way: usize,
    has_failed: bool,
    threads: Vec<JoinHandle<()>>,
}

impl Hand {
    /// Starts it; it ends with this value, after what it was given.
    ///
    /// # Errors
    /// When no further descriptor is to be had.
    pub fn start(local: &Local) -> maildir::Result<Hand> {
        let (work, to_do) = sync_channel(GROUPS_AHEAD);
        let (written, to_flush) = sync_channel::<Job>(BATCHES_AHEAD);
        let (flushed, to_apply) = sync_channel::<Job>(BATCHES_AHEAD);
        let (done, results) = sync_channel(BATCHES_AHEAD);
        let flushing = std::thread::spawn(move || {
            for mut job in to_flush {
                flush_bodies(&mut job.bodies);
                if flushed.send(job).is_err() {
                    return;
                }
            }
        });
        let replica = local.clone();
        let writing = std::thread::spawn(move || write_bodies(&replica, to_do, &written));
        let replica = local.clone();
        let applying = std::thread::spawn(move || {
            for job in to_apply {
                let result = replica.lock().apply(&job.ops, job.bodies);
                // After a failure nothing more is begun: the driver hears of it and ends the run.
                let is_failed = result.is_err();
                if done.send(result).is_err() || is_failed {
                    return;
                }
            }
        });
        Ok(Hand {
            work: Some(work),
            group: Vec::new(),
            group_bytes: 0,
            results,
            under_way: 0,
            has_failed: false,
            threads: vec![writing, flushing, applying],
        })
    }

    /// Whether a further batch would only wait for the disk.
    #[must_use]
    pub fn is_working(&self) -> bool {
        self.under_way + 1 >= BATCHES_AHEAD
    }

    /// Whether another batch has to wait for the outcome of an earlier one.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.under_way == BATCHES_AHEAD
    }

    /// Hands over a body that has come, at the latest with its batch, or when [`Hand::pass_on`] says so; its batch
    /// follows, after those of earlier bodies.
    pub fn bring(&mut self, to: At, new: NewBody, incoming: Incoming) {
        self.group_bytes += new.size.min(QUICK_BYTES_MAX);
        self.group.push(Work::Body(Box::new((to, new, incoming))));
        if self.group_bytes >= GROUP_BYTES {
            self.pass_on();
        }
    }

    /// Hands over a batch, to which the `count` oldest bodies belong that no earlier one had.
    pub fn give(&mut self, ops: Vec<Op>, count: usize) {
        let job = Job {
            ops,
            bodies: Vec::new(),
        };
        self.group.push(Work::Batch(job, count));
        self.under_way += usize::from(self.pass_on());
    }

    /// Hands over what has not been yet. Returns whether somebody took it: after a failure nobody does, and its result
    /// has told why.
    pub fn pass_on(&mut self) -> bool {
        self.group_bytes = 0;
        let group = std::mem::take(&mut self.group);
        let to = self.work.as_ref().filter(|_| !self.has_failed);
        to.is_some_and(|to| group.is_empty() || to.send(group).is_ok())
    }

    /// The outcome of the oldest batch under way, if it is there; it is waited for if `wait` says so.
    ///
    /// # Errors
    /// What the replica said; after that nothing more is done.
    pub fn take(&mut self, wait: bool) -> maildir::Result<Option<Vec<Outcome>>> {
        let result = match wait {
            _ if self.under_way == 0 => None,
            true => Some(self.results.recv().expect("every batch is answered")),
            false => self.results.try_recv().ok(),
        };
        match &result {
            Some(Ok(_)) => self.under_way -= 1,
            Some(Err(_)) => (self.under_way, self.has_failed) = (0, true),
            None => {}
        }
        result.transpose()
    }
}

/// Writes bodies as they come, and passes batches on with those that are theirs.
fn write_bodies(local: &Local, work: Receiver<Vec<Work>>, written: &SyncSender<Job>) {
    let (mut writer, mut waiting) = (None, VecDeque::new());
    for group in work {
        if let Some(Writer { seen, .. }) = &mut writer {
            *seen = None;
        }
        for work in group {
            match work {
                Work::Body(body) => {
                    let (to, new, incoming) = *body;
                    let body = incoming.finish();
                    let write =
                        |body| Writer::of(&mut writer, local)?.write(local, &to, &new, body);
                    waiting.push_back(body.and_then(write));
                }
                Work::Batch(mut job, count) => {
                    job.bodies = waiting.drain(..count).collect();
                    if written.send(job).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Brings bodies into the `tmp` of their folders, where they wait for their batch.
struct Writer {
    inbox: Inbox,
    /// Where folders lay when that was last asked: the replica is busy most of the time.
    places: Places,
    /// The directory that was there when the last body of this group was written.
    seen: Option<Vec<u8>>,
}

impl Writer {
    fn of<'w>(writer: &'w mut Option<Writer>, local: &Local) -> io::Result<&'w mut Writer> {
        Ok(match writer {
            Some(writer) => writer,
            none => {
                let mut replica = local.lock();
                let inbox = replica.inbox().map_err(as_io)?;
                let places = replica.places().map_err(as_io)?;
                let seen = None;
                none.insert(Writer {
                    inbox,
                    places,
                    seen,
                })
            }
        })
    }

    fn write(&mut self, local: &Local, to: &At, new: &NewBody, body: Body) -> io::Result<Body> {
        if to.number.is_none() {
            let dir = self.places.dir(to).ok_or(io::ErrorKind::NotFound)?;
            self.inbox.make_dir(&dir)?;
            return self.inbox.write(&dir, new, body).map(Body::Written);
        }
        let is_there = |dir: &Vec<u8>| self.seen.as_ref() == Some(dir) || self.inbox.has_dir(dir);
        let dir = match self.places.dir(to).filter(is_there) {
            Some(dir) => dir,
            None => {
                self.places = local.lock().places().map_err(as_io)?;
                self.places.dir(to).ok_or(io::ErrorKind::NotFound)?
            }
        };
        let written = self.inbox.write(&dir, new, body).map(Body::Written);
        self.seen = written.is_ok().then_some(dir);
        written
    }
}

fn as_io(error: maildir::Error) -> io::Error {
    match error {
        maildir::Error::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.work = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // Had it panicked, its results would have ended, and the run with them.
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::path::Path;

    use maildir::{MARKER_NAME, Options};
    use protocol::message::Source;
    use protocol::{Digest, FolderDir, Info, Unique};

    use super::*;

    pub(crate) fn open(dir: &Path) -> Replica {
        let replica = Replica::open(Options {
            root: dir.join("mail"),
            state_dir: dir.join("state"),
            trash_dir: None,
            trash_days: 30,
            client: "test".to_owned(),
            dry_run: false,
            checksum: false,
            expect: None,
            adopt: false,
            create: true,
            follow_links: false,
        });
        let mut replica = replica.expect("it opens");
        replica.scan().expect("it scans");
        replica
    }

    fn make_inbox(replica: &mut Replica) {
        let inbox = Op::MakeFolder {
            dir: FolderDir::root(),
        };
        let made = replica.apply(&[inbox], Vec::new());
        made.expect("INBOX is made");
    }

    /// A batch of new messages, whose bytes are their names.
    fn give(hand: &mut Hand, local: &Local, names: &[&str]) {
        let mut ops = Vec::new();
        for name in names {
            let body = NewBody {
                digest: Digest::of(name.as_bytes()),
                size: name.len() as u64,
                mtime_ns: 1_000_000_000,
                source: Source::Body { offset: 0 },
            };
            let partials = local.lock().partials();
            let mut incoming = Incoming::begin(&partials, body.digest, body.size, 0);
            let bytes = if name.starts_with("bad") { "???" } else { name };
            incoming.take(bytes.as_bytes().to_vec());
            let at = At {
                number: None,
                folder: FolderDir::root(),
                unique: Unique::new(name.as_bytes()).expect("a name"),
                copy: 0,
            };
            hand.bring(at.clone(), body.clone(), incoming);
            ops.push(Op::Create {
                at,
                in_new: true,
                info: Info::default(),
                body,
            });
        }
        hand.give(ops, names.len());
    }

    fn in_tmp(dir: &Path) -> usize {
        fs::read_dir(dir.join("mail/tmp")).map_or(0, Iterator::count)
    }

    #[test]
    fn each_batch_gets_its_own_bodies() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut replica = open(dir.path());
        make_inbox(&mut replica);
        let local = Local::new(replica);
        let mut hand = Hand::start(&local).expect("it starts");
        give(&mut hand, &local, &["1.a", "bad", "2.b"]);
        give(&mut hand, &local, &["3.c"]);
        let mut outcomes: Vec<Vec<bool>> = Vec::new();
        while let Some(some) = hand.take(true).expect("it is applied") {
            outcomes.push(
                some.iter()
                    .map(|one| matches!(one, Outcome::Done { .. }))
                    .collect(),
            );
        }
        assert_eq!(outcomes, [vec![true, false, true], vec![true]]);
        for name in ["1.a", "2.b", "3.c"] {
            let bytes = fs::read(dir.path().join("mail/new").join(name));
            assert_eq!(bytes.expect("it is there"), name.as_bytes());
        }
        assert_eq!(in_tmp(dir.path()), 0);
    }

    #[test]
    fn after_a_failure_nothing_is_done_and_nobody_waits_for_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        make_inbox(&mut open(dir.path()));
        let local = Local::new(open(dir.path()));
        // A run's first batch appends its tag to the marker.
        let marker = dir.path().join("mail").join(MARKER_NAME);
        fs::remove_file(&marker).expect("it was there");
        fs::create_dir(&marker).expect("it can be made");
        let mut hand = Hand::start(&local).expect("it starts");
        give(&mut hand, &local, &["1.a"]);
        give(&mut hand, &local, &["2.b"]);
        assert!(hand.take(true).is_err());
        give(&mut hand, &local, &["3.c"]);
        assert!(matches!(hand.take(true), Ok(None)));
        drop(hand);
        assert_eq!(in_tmp(dir.path()), 0);
        assert!(!dir.path().join("mail/new/1.a").exists());
    }
}
