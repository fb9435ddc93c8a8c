//! The receiving side of a conversation: batches of operations, each followed by its bodies.
//!
//! Three threads share the work, so that three batches are under way at once: one checks bodies and writes them into `tmp` as
//! they come, one makes those of a batch durable, and one carries the batch out. Batches keep their order, and each is
//! answered. The client receives what it pulls by this, and the agent what is pushed to it.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver as Queue, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use protocol::message::{At, NewBody, Source};
use protocol::{Cursor, Op, Outcome};

use crate::batch_age::BatchAge;
use crate::body::{Body, Incoming, QUICK_BYTES_MAX};
use crate::error::{Error, Result};
use crate::inbox::{Inbox, flush_bodies};
use crate::partial::Partials;
use crate::places::Places;
use crate::shared::Shared;
use crate::written::Written;

/// How many batches are under way at once: one is made durable, one is carried out, and one waits. Their bodies lie in `tmp`.
pub const BATCHES_AHEAD: usize = 3;
/// From how many bytes on bodies are handed over to be written into `tmp`: most are small, and waking a thread costs as
/// much as writing some of them.
const GROUP_BYTES: u64 = 256 << 10;
/// How many such groups may wait, in memory.
const GROUPS_AHEAD: usize = 4;
/// How many bytes past a body's end are passed over in all.
const EXCESS_BYTES_MAX: u64 = 64 << 20;

/// What became of something that was received.
pub enum Received {
    /// Of a batch, in its order.
    Outcomes(Vec<Outcome>),
    /// Of everything: how far the peer knows the replica now, its own changes included.
    Finished(Cursor),
}

/// Far more of a body came than was announced.
#[derive(Debug)]
pub struct Excess;

/// What the writing thread gets.
enum Work {
    /// Bytes that have come, to be checked and written.
    Body(Box<(At, NewBody, Incoming)>),
    /// A body that will not come.
    Missing,
    /// A batch, to which so many of the oldest bodies belong.
    Batch(Vec<Op>, usize),
    /// The end of everything.
    Finish,
}

/// What the other two threads get.
enum Job {
    Batch {
        ops: Vec<Op>,
        bodies: Vec<io::Result<Written>>,
        /// Hears when it is carried out.
        done: Option<SyncSender<()>>,
    },
    Finish,
}

/// Takes batches in; it ends with this value, after what it was given.
pub struct Receiver {
    partials: Partials,
    /// Whether this process outlives the link, and stores what has come when it breaks.
    is_lasting: bool,
    /// What was not handed over of the batch whose bodies come, and which of these operations gets the next one.
    open: Option<(Vec<Op>, usize)>,
    /// Batches that were begun before that one had all its bodies.
    later: VecDeque<Vec<Op>>,
    /// For how long that waits for the rest.
    age: BatchAge,
    /// Whether that is carried out when somebody says so.
    is_gathering: bool,
    /// The body that comes.
    coming: Option<(At, NewBody, Incoming)>,
    excess: u64,
    work: Option<SyncSender<Vec<Work>>>,
    /// What was not handed over yet.
    group: Vec<Work>,
    group_bytes: u64,
    threads: Vec<JoinHandle<()>>,
}

impl Receiver {
    /// Starts it. `done` hears what became of each batch, on a thread of its own; after an error nothing more is done.
    #[must_use]
    pub fn start(
        replica: &Shared,
        is_lasting: bool,
        mut done: impl FnMut(Result<Received>) + Send + 'static,
    ) -> Receiver {
        let partials = replica.lock().partials();
        let (work, to_do) = sync_channel(GROUPS_AHEAD);
        let (written, to_flush) = sync_channel(BATCHES_AHEAD);
        let (flushed, to_apply) = sync_channel(BATCHES_AHEAD);
        let flushing = std::thread::spawn(move || {
            for mut job in to_flush {
                if let Job::Batch { bodies, .. } = &mut job {
                    flush_bodies(bodies);
                }
                if flushed.send(job).is_err() {
                    return;
                }
            }
        });
        let shared = replica.clone();
        let writing = std::thread::spawn(move || write_bodies(&shared, to_do, &written));
        let shared = replica.clone();
        let applying = std::thread::spawn(move || {
            for job in to_apply {
                let (result, hearer) = match job {
                    Job::Batch { ops, bodies, done } => {
                        let outcomes = shared.lock().apply(&ops, bodies);
                        (outcomes.map(Received::Outcomes), done)
                    }
                    Job::Finish => (shared.lock().settle().map(Received::Finished), None),
                };
                let is_failed = result.is_err();
                done(result);
                if is_failed {
                    return;
                }
                if let Some(hearer) = hearer {
                    let _ = hearer.send(()); // Who does not wait any more has ended.
                }
            }
        });
        Receiver {
            partials,
            is_lasting,
            open: None,
            later: VecDeque::new(),
            age: BatchAge::default(),
            is_gathering: false,
            coming: None,
            excess: 0,
            work: Some(work),
            group: Vec::new(),
            group_bytes: 0,
            threads: vec![writing, flushing, applying],
        }
    }

    /// Begins a batch; its bodies follow in its order, after those of the batches before it.
    pub fn begin(&mut self, ops: Vec<Op>) {
        self.later.push_back(ops);
        self.go_on();
    }

    /// Begins operations that come one by one, without an end of a batch: those whose bodies have come are carried out when
    /// [`Receiver::carry_out`] says so, and not before.
    pub fn gather(&mut self, ops: Vec<Op>) {
        self.is_gathering = true;
        self.open.get_or_insert_default().0.extend(ops);
        self.go_on();
    }

    /// Carries out as one batch what was gathered and has its bodies.
    pub fn carry_out(&mut self) {
        if let Some((ops, next)) = &mut self.open {
            let rest = ops.split_off(*next);
            let ops = std::mem::replace(ops, rest);
            *next = 0;
            self.hand_over(ops);
        }
    }

    /// Ends gathering: what has not come is forgotten, but for what is kept of a large body.
    pub fn end_gathering(&mut self) {
        self.is_gathering = false;
        (self.open, self.coming) = (None, None);
    }

    /// Takes a piece of the body that is due; a last one without any bytes says that it is unavailable. Waits for the disk.
    ///
    /// # Errors
    /// When far more came than was announced, or nothing is due.
    pub fn take(&mut self, bytes: Vec<u8>, is_last: bool) -> std::result::Result<(), Excess> {
        if self.coming.is_none() {
            let (at, body, offset) = self.due_body().ok_or(Excess)?;
            if is_last && bytes.is_empty() && offset < body.size {
                self.group.push(Work::Missing);
                self.next_body();
                return Ok(());
            }
            let begin = match self.is_lasting {
                true => Incoming::begin_quick,
                false => Incoming::begin,
            };
            let incoming = begin(&self.partials, body.digest, body.size, offset);
            self.coming = Some((at.clone(), body.clone(), incoming));
        }
        let Some((_, body, incoming)) = &mut self.coming else {
            return Err(Excess);
        };
        let (size, before) = (body.size, incoming.excess());
        incoming.take(bytes);
        self.excess += incoming.excess() - before;
        if self.excess > EXCESS_BYTES_MAX {
            return Err(Excess);
        }
        if is_last {
            self.group_bytes += size.min(QUICK_BYTES_MAX);
            let body = self.coming.take().map(Box::new).map(Work::Body);
            self.group.extend(body);
            self.next_body();
            if self.group_bytes >= GROUP_BYTES {
                self.pass_on();
            }
        }
        Ok(())
    }

    /// What has not come of the open batch will not come; the rest of it is carried out. What has come of a large body stays
    /// for the next run.
    pub fn cut_off(&mut self) {
        self.coming = None;
        while self.open.is_some() {
            self.group.push(Work::Missing);
            self.next_body();
        }
    }

    /// The body that was due has come, or will not.
    fn next_body(&mut self) {
        if let Some((_, next)) = &mut self.open {
            *next += 1;
        }
        if !self.is_gathering {
            self.age.begin();
        }
        self.go_on();
    }

    /// Hands over what has come, though little has: nothing more comes for a while.
    pub fn rest(&mut self) {
        self.go_on();
        self.pass_on();
    }

    fn pass_on(&mut self) {
        self.group_bytes = 0;
        let group = std::mem::take(&mut self.group);
        if let Some(work) = self.work.as_ref().filter(|_| !group.is_empty()) {
            let _ = work.send(group); // After a failure nobody takes it, and its result says why.
        }
    }

    /// Ends the round, after all that was given: see [`crate::Replica::settle`].
    pub fn finish(&mut self) {
        self.group.push(Work::Finish);
        self.pass_on();
    }

    /// The body that is due: where it goes, what it is, and from which byte on it comes.
    fn due_body(&self) -> Option<(&At, &NewBody, u64)> {
        let (ops, next) = self.open.as_ref()?;
        let op = ops.get(*next)?;
        let (at, body) = (op.target()?, op.new_body()?);
        match body.source {
            Source::Body { offset } => Some((at, body, offset)),
            Source::Copy(_) | Source::Remade(_) => None,
        }
    }

    /// Goes on to the next operation that waits for a body, and hands over the batches of which none does.
    fn go_on(&mut self) {
        while self.go_on_in_batch() {}
    }

    /// The same in one batch, of which what waits for no body is also handed over when it has waited for long. Says whether the
    /// next batch is begun.
    fn go_on_in_batch(&mut self) -> bool {
        if self.open.is_none() {
            self.open = self.later.pop_front().map(|ops| (ops, 0));
        }
        let Some((ops, next)) = &mut self.open else {
            return false;
        };
        let rest = ops[*next..].iter().position(|op| op.wired().is_some());
        *next = rest.map_or(ops.len(), |more| *next + more);
        let is_due = self.age.is_due(Instant::now());
        if self.is_gathering || (rest.is_some() && !is_due) {
            return false;
        }
        let rest = ops.split_off(*next);
        let ops = std::mem::replace(ops, rest);
        *next = 0;
        let is_whole = self.open.as_ref().is_some_and(|(ops, _)| ops.is_empty());
        if is_whole {
            self.open = None;
        }
        self.age.end();
        self.hand_over(ops);
        is_whole
    }

    fn hand_over(&mut self, ops: Vec<Op>) {
        if !ops.is_empty() {
            let count = ops.iter().filter(|op| op.wired().is_some()).count();
            self.group.push(Work::Batch(ops, count));
        }
        self.pass_on();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.pass_on();
        self.work = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // Had it panicked, its results would have ended, and the run with them.
        }
    }
}

/// Writes bodies as they come, and passes batches on with those that are theirs.
fn write_bodies(replica: &Shared, work: Queue<Vec<Work>>, written: &SyncSender<Job>) {
    let (mut writer, mut waiting) = (Writer::new(replica), VecDeque::new());
    for group in work {
        writer.seen = None;
        for work in group {
            let job = match work {
                Work::Body(body) => {
                    let (at, new, incoming) = *body;
                    let body = incoming.finish();
                    waiting.push_back(body.and_then(|body| writer.write(&at, &new, body)));
                    continue;
                }
                Work::Missing => {
                    waiting.push_back(Err(io::ErrorKind::Interrupted.into()));
                    continue;
                }
                Work::Batch(ops, count) => {
                    let bodies = waiting.drain(..count).collect();
                    // What comes after folders were made or renamed goes where they are then.
                    let (done, carried_out) = sync_channel(1);
                    let is_barrier = ops.iter().any(Op::is_of_folder);
                    let done = is_barrier.then_some(done);
                    if written.send(Job::Batch { ops, bodies, done }).is_err() {
                        return;
                    }
                    if is_barrier {
                        if carried_out.recv().is_err() {
                            return;
                        }
                        writer.places = None;
                    }
                    continue;
                }
                Work::Finish => Job::Finish,
            };
            if written.send(job).is_err() {
                return;
            }
        }
    }
}

/// Brings bodies into the `tmp` of their folders, where they wait for their batch.
struct Writer<'r> {
    replica: &'r Shared,
    inbox: Option<Inbox>,
    /// Where folders lay when that was last asked: the replica is busy most of the time.
    places: Option<Places>,
    /// The directory that was there when the last body of this group was written.
    seen: Option<Vec<u8>>,
}

impl Writer<'_> {
    fn new(replica: &Shared) -> Writer<'_> {
        Writer {
            replica,
            inbox: None,
            places: None,
            seen: None,
        }
    }

    fn write(&mut self, at: &At, new: &NewBody, body: Body) -> io::Result<Written> {
        if self.inbox.is_none() {
            self.inbox = Some(self.replica.lock().inbox().map_err(as_io)?);
        }
        let known = self.dir(at)?;
        let seen = self.seen.take();
        let inbox = self.inbox.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let is_there = |dir: &Vec<u8>| seen.as_ref() == Some(dir) || inbox.has_dir(dir);
        let dir = match known.filter(|dir| at.number.is_none() || is_there(dir)) {
            Some(dir) => dir,
            None => {
                self.places = None;
                self.dir(at)?.ok_or(io::ErrorKind::NotFound)?
            }
        };
        let inbox = self.inbox.as_mut().ok_or(io::ErrorKind::NotFound)?;
        if at.number.is_none() {
            inbox.make_dir(&dir)?;
        }
        let written = inbox.write(&dir, new, body);
        self.seen = written.is_ok().then_some(dir);
        written
    }

    /// Where a message's folder lies, as far as that is known.
    fn dir(&mut self, at: &At) -> io::Result<Option<Vec<u8>>> {
        let places = match self.places.take() {
            Some(places) => places,
            None => self.replica.lock().places().map_err(as_io)?,
        };
        Ok(self.places.insert(places).dir(at))
    }
}

fn as_io(error: Error) -> io::Error {
    match error {
        Error::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}
