//! Carrying out a plan: bodies flow in while operations flow out, and every batch is remembered before it is asked and
//! agreed only after it is durable (I4).
//!
//! Steps of a side are carried out in the plan's order. Local ones wait for their bodies, which come in the order in
//! which they were asked for; remote ones go out in batches with their bodies behind them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;

use maildir::{Body, Inbox, Incoming, Partials, SMALL_BYTES_MAX};
use protocol::codec::batches;
use protocol::message::{Fetch, NewBody, Problem, Source};
use protocol::{BatchId, Cursor, Entry, Info, Op, Outcome, Request, Response};

use crate::archive::Asked;
use crate::failure::Failure;
use crate::link::{Answer, Sending, unexpected};
use crate::local::Hand;
use crate::plan::{Kind, Plan, Step};
use crate::progress::Progress;
use crate::record::{Fid, Seen, Side};
use crate::report::Tally;
use crate::session::Session;

/// How many operations a batch has at most.
const BATCH_OPS: usize = 1000;
/// How many bytes of bodies a batch for the agent has at most, but for a single larger one: it keeps them in memory.
const REMOTE_BYTES: u64 = 8 << 20;
/// The same for this side, where they lie in `tmp`.
const LOCAL_BYTES: u64 = 16 << 20;
/// How many remote batches are under way at once.
const BATCHES_AHEAD: usize = 2;
/// How many bodies are asked for ahead of what has come.
const FETCHES_AHEAD: usize = 4096;
/// How many are asked for at once, once so many are under way.
const FETCHES_STEP: usize = 256;

/// What was done.
#[derive(Default)]
pub struct Done {
    /// On each side.
    pub tallies: [Tally; 2],
    /// Messages that could not be dealt with.
    pub problems: Vec<Problem>,
    /// Why nothing more could be added on a side.
    pub full: Option<String>,
    /// Files that changed here.
    pub changed: Vec<PathBuf>,
}

/// One plan in progress.
pub struct Executor<'s, 'a> {
    session: &'s mut Session<'a>,
    progress: &'s Progress,
    plan: Plan,
    done: Done,
    partials: Partials,
    /// Local steps that wait for a body, in the order in which it comes.
    awaited: VecDeque<usize>,
    /// The body that is coming in.
    incoming: Option<Incoming>,
    /// Where bodies wait for their batch, from the first one on.
    inbox: Option<Inbox>,
    /// Bodies that are to be asked for.
    unasked: VecDeque<usize>,
    /// The next local step that is not in a batch.
    next_local: usize,
    hand: Hand,
    /// The local batches that it has, oldest first.
    in_hand: VecDeque<(i64, Vec<usize>)>,
    batch: Vec<usize>,
    batch_bodies: Vec<io::Result<Body>>,
    batch_bytes: u64,
    /// What came instead of the bodies of local steps.
    arrived: HashMap<usize, Option<io::Result<Body>>>,
    /// The next remote step that was not sent.
    next_remote: usize,
    in_flight: VecDeque<(InFlight, Vec<Outcome>)>,
    is_finish_sent: bool,
    finished: Option<Cursor>,
    /// Messages whose bytes are under way to each side: the other one must not move them meanwhile.
    under_way: [HashSet<usize>; 2],
}

/// What an answer from the agent will be about.
enum InFlight {
    Steps { asked: i64, steps: Vec<usize> },
    Folders(Vec<(Fid, Op)>),
}

impl InFlight {
    fn len(&self) -> usize {
        match self {
            InFlight::Steps { steps, .. } => steps.len(),
            InFlight::Folders(ops) => ops.len(),
        }
    }
}

impl<'s, 'a> Executor<'s, 'a> {
    /// Prepares to carry out a plan.
    ///
    /// # Errors
    /// When the replica here cannot be opened once more.
    pub fn new(
        session: &'s mut Session<'a>,
        plan: Plan,
        progress: &'s Progress,
    ) -> Result<Executor<'s, 'a>, Failure> {
        let partials = session.local.lock().partials();
        let hand = Hand::start(&session.local)?;
        Ok(Executor {
            session,
            progress,
            plan,
            done: Done::default(),
            partials,
            awaited: VecDeque::new(),
            incoming: None,
            inbox: None,
            unasked: VecDeque::new(),
            next_local: 0,
            hand,
            in_hand: VecDeque::new(),
            batch: Vec::new(),
            batch_bodies: Vec::new(),
            batch_bytes: 0,
            arrived: HashMap::new(),
            next_remote: 0,
            in_flight: VecDeque::new(),
            is_finish_sent: false,
            finished: None,
            under_way: Default::default(),
        })
    }

    /// Carries everything out and ends the conversation.
    ///
    /// # Errors
    /// When the connection is lost or a side's disk or index fails; what was done is stored.
    pub fn run(mut self) -> Result<Done, Failure> {
        self.session
            .link
            .read_from(self.session.local.lock().bodies()?);
        self.begin()?;
        let result = self.converse();
        if result.is_err() {
            // What has arrived is not asked for again.
            self.apply_local()?;
        }
        self.take_from_hand(true)?;
        result?;
        self.end_local_folders()?;
        self.store_end()?;
        Ok(self.done)
    }

    /// Folders first, on both sides; then it is known what to fetch.
    fn begin(&mut self) -> Result<(), Failure> {
        let remote = std::mem::take(&mut self.plan.before[Side::Remote as usize]);
        self.send_folders(remote);
        let local = std::mem::take(&mut self.plan.before[Side::Local as usize]);
        self.apply_local_folders(local)?;
        for side in Side::BOTH {
            let wired = self.plan.steps[side as usize]
                .iter()
                .filter(|step| wired(&step.op).is_some());
            self.under_way[side as usize] = wired.map(|step| step.index).collect();
        }
        let (mut messages, mut bytes) = (self.plan.steps[Side::Remote as usize].len() as u64, 0);
        for at in 0..self.plan.steps[Side::Local as usize].len() {
            messages += 1;
            let step = &self.plan.steps[Side::Local as usize][at];
            let Some(body) = wired(&step.op) else {
                continue;
            };
            bytes += body.size;
            self.unasked.push_back(at);
        }
        self.progress
            .begin(crate::progress::Phase::Transferring, messages, bytes);
        Ok(())
    }

    fn send_folders(&mut self, ops: Vec<(Fid, Op)>) {
        for ops in batches_of(ops) {
            self.session.link.apply(
                None,
                ops.iter().map(|(_, op)| op.clone()).collect(),
                Vec::new(),
            );
            self.in_flight
                .push_back((InFlight::Folders(ops), Vec::new()));
        }
    }

    fn apply_local_folders(&mut self, ops: Vec<(Fid, Op)>) -> Result<(), Failure> {
        if ops.is_empty() {
            return Ok(());
        }
        let plain: Vec<Op> = ops.iter().map(|(_, op)| op.clone()).collect();
        let outcomes = self.session.local.lock().apply(None, &plain, Vec::new())?;
        self.folders_done(Side::Local, &ops, &outcomes)
    }

    fn folders_done(
        &mut self,
        side: Side,
        ops: &[(Fid, Op)],
        outcomes: &[Outcome],
    ) -> Result<(), Failure> {
        for ((id, op), outcome) in ops.iter().zip(outcomes) {
            match outcome {
                Outcome::Done { .. } | Outcome::Made { .. } => {
                    self.session.folders.done(side, *id, op, outcome)
                }
                Outcome::Failed { why } => {
                    self.problem(self.session.folders.name(*id).to_string(), why)
                }
                Outcome::Full { why } => self.stop_adding(why),
                Outcome::Stale | Outcome::Denied => {}
            }
        }
        self.session.archive.begin()?;
        self.session.folders.save(&self.session.archive)?;
        Ok(self.session.archive.commit()?)
    }

    /// A disk takes no more: what was begun is ended, and nothing else is sent or asked for.
    fn stop_adding(&mut self, why: &str) {
        self.done.full = Some(why.to_owned());
        self.unasked.clear();
        for side in Side::BOTH {
            let steps = &mut self.plan.steps[side as usize];
            let (sent, next) = (
                steps.len(),
                &mut [&mut self.next_local, &mut self.next_remote][side as usize],
            );
            **next = sent;
            self.plan.after[side as usize].clear();
        }
    }

    fn problem(&mut self, path: String, why: &str) {
        self.done.problems.push(Problem {
            path,
            why: why.to_owned(),
        });
    }

    // The conversation.

    fn converse(&mut self) -> Result<(), Failure> {
        loop {
            self.take_from_hand(false)?;
            self.ask_for_bodies();
            self.send_batches()?;
            self.gather_local()?;
            self.send_finish();
            if self.finished.is_some() {
                return Ok(());
            }
            match self.session.link.answer()? {
                Answer::Body(bytes, last) => self.take_body(bytes, last)?,
                Answer::Response(Response::NoBody { why }) => self.take_no_body(&why)?,
                Answer::Response(Response::Outcomes(outcomes)) => self.take_outcomes(outcomes)?,
                Answer::Response(Response::Finished { cursor }) if self.is_through() => {
                    self.finished = Some(cursor)
                }
                Answer::Response(other) => return Err(unexpected(&other).into()),
            }
        }
    }

    fn is_through(&self) -> bool {
        self.is_finish_sent && self.awaited.is_empty() && self.in_flight.is_empty()
    }

    fn ask_for_bodies(&mut self) {
        let count = self.unasked.len().min(FETCHES_AHEAD - self.awaited.len());
        if count < self.unasked.len().min(FETCHES_STEP) {
            return;
        }
        let mut lines = Vec::with_capacity(count);
        for at in self.unasked.drain(..count).collect::<Vec<_>>() {
            match self.fetch(at) {
                Some(line) => {
                    self.awaited.push_back(at);
                    lines.push(line);
                }
                None => {
                    self.arrived.insert(at, None);
                }
            }
        }
        // The agent looks all of them up before it sends the first.
        for lines in lines.chunks(FETCHES_STEP) {
            for lines in batches(lines.to_vec()) {
                self.session.link.request(Request::Fetch(lines));
            }
        }
    }

    /// Where the body of a local step lies at the other end, and from which byte on it is wanted.
    fn fetch(&self, at: usize) -> Option<Fetch> {
        let step = &self.plan.steps[Side::Local as usize][at];
        let body = wired(&step.op)?;
        let place = &self.session.set.all[step.index]
            .record
            .remote
            .as_ref()?
            .place;
        let renaming = &self.plan.renaming[Side::Remote as usize];
        let folders = &self.session.folders;
        Some(Fetch {
            at: protocol::message::At {
                folder: folders.name_then(Side::Remote, place.folder, renaming),
                unique: place.unique.clone(),
                copy: place.copy,
            },
            digest: body.digest,
            offset: self.kept_bytes(body),
        })
    }

    /// How much of a body an earlier run left here.
    fn kept_bytes(&self, body: &NewBody) -> u64 {
        if body.size > SMALL_BYTES_MAX {
            self.partials.length(&body.digest).min(body.size)
        } else {
            0
        }
    }

    /// Finish follows the last request at once, so that a run takes one flight each way.
    fn send_finish(&mut self) {
        let is_all_sent = self.unasked.is_empty()
            && self.next_remote == self.plan.steps[Side::Remote as usize].len();
        if is_all_sent && !self.is_finish_sent {
            let after = std::mem::take(&mut self.plan.after[Side::Remote as usize]);
            self.send_folders(after);
            self.session.link.request(Request::Finish);
            self.is_finish_sent = true;
        }
    }

    // Remote steps.

    fn send_batches(&mut self) -> Result<(), Failure> {
        let total = self.plan.steps[Side::Remote as usize].len();
        while self.next_remote < total && self.in_flight.len() < BATCHES_AHEAD {
            let steps = self.next_remote_batch();
            if steps.is_empty() {
                break; // The next one waits for its bytes to have been read.
            }
            let (asked, batch) = self.ask(Side::Remote, &steps)?;
            let mut ops = Vec::with_capacity(steps.len());
            let mut bodies = Vec::new();
            for &at in &steps {
                let (op, body) = self.with_body(at)?;
                ops.push(op);
                bodies.extend(body);
            }
            self.session.link.apply(Some(batch), ops, bodies);
            self.in_flight
                .push_back((InFlight::Steps { asked, steps }, Vec::new()));
        }
        Ok(())
    }

    fn next_remote_batch(&mut self) -> Vec<usize> {
        let steps = &self.plan.steps[Side::Remote as usize];
        let rest = steps[self.next_remote..].iter().take(BATCH_OPS);
        // One message must hold the operations.
        let count = batches(rest.map(|step| &step.op))
            .next()
            .map_or(0, |batch| batch.len());
        let (mut bytes, mut end) = (0, self.next_remote);
        for step in &steps[self.next_remote..self.next_remote + count] {
            let is_moving = self.under_way[Side::Local as usize].contains(&step.index);
            if is_moving
                || (end > self.next_remote && must_follow(step, &steps[self.next_remote..end]))
            {
                break;
            }
            bytes += wired(&step.op).map_or(0, |body| body.size);
            if bytes > REMOTE_BYTES && end > self.next_remote {
                break;
            }
            end += 1;
        }
        let batch = (self.next_remote..end).collect();
        self.next_remote = end;
        batch
    }

    /// A remote operation, and where its body is read from here.
    fn with_body(&self, at: usize) -> Result<(Op, Option<Sending>), Failure> {
        let step = &self.plan.steps[Side::Remote as usize][at];
        let Some(body) = wired(&step.op) else {
            return Ok((step.op.clone(), None));
        };
        let offset = self
            .session
            .partials
            .get(&body.digest)
            .copied()
            .filter(|_| body.size > SMALL_BYTES_MAX);
        let offset = offset.unwrap_or(0).min(body.size);
        let mut op = step.op.clone();
        if let Op::Create { body, .. }
        | Op::Update {
            body: Some(body), ..
        } = &mut op
        {
            body.source = Source::Body { offset };
        }
        let seen = self.session.set.all[step.index].record.local.as_ref();
        let located = match seen {
            Some(seen) => self
                .session
                .local
                .lock()
                .locate(&[(&self.session.at(Side::Local, &seen.place), &body.digest)])?
                .pop()
                .flatten(),
            None => None,
        };
        Ok((op, Some((located, offset))))
    }

    fn take_outcomes(&mut self, outcomes: Vec<Outcome>) -> Result<(), Failure> {
        let Some((in_flight, got)) = self.in_flight.front_mut() else {
            return Err(unexpected(&Response::Outcomes(outcomes)).into());
        };
        got.extend(outcomes);
        if got.len() < in_flight.len() {
            return Ok(());
        }
        let Some((in_flight, outcomes)) = self.in_flight.pop_front() else {
            return Ok(());
        };
        match in_flight {
            InFlight::Folders(ops) => self.folders_done(Side::Remote, &ops, &outcomes),
            InFlight::Steps { asked, steps } => {
                self.steps_done(Side::Remote, asked, &steps, &outcomes)
            }
        }
    }

    // Local steps.

    /// Puts local steps into the batch as far as their bodies have come, and applies it when it is full or the last.
    fn gather_local(&mut self) -> Result<(), Failure> {
        let total = self.plan.steps[Side::Local as usize].len();
        while self.next_local < total {
            let at = self.next_local;
            let index = self.plan.steps[Side::Local as usize][at].index;
            if self.under_way[Side::Remote as usize].contains(&index) {
                // Its outcome must come first, and may wait for what is in the batch.
                return self.apply_local();
            }
            let steps = &self.plan.steps[Side::Local as usize];
            if copies(&steps[at].op)
                && self
                    .batch
                    .iter()
                    .any(|&before| must_follow(&steps[at], std::slice::from_ref(&steps[before])))
            {
                self.apply_local()?;
            }
            if wired(&self.plan.steps[Side::Local as usize][at].op).is_some() {
                match self.arrived.remove(&at) {
                    None => break,
                    Some(None) => {}
                    Some(Some(body)) => {
                        let new = wired(&self.plan.steps[Side::Local as usize][at].op);
                        self.batch_bytes += new.map_or(0, |new| new.size);
                        self.batch.push(at);
                        self.batch_bodies.push(body);
                    }
                }
            } else {
                self.batch.push(at);
            }
            self.next_local += 1;
            if self.batch.len() >= BATCH_OPS || self.batch_bytes >= LOCAL_BYTES {
                self.apply_local()?;
            }
        }
        if self.next_local == total {
            self.apply_local()
        } else {
            Ok(())
        }
    }

    fn apply_local(&mut self) -> Result<(), Failure> {
        let steps = std::mem::take(&mut self.batch);
        let bodies = std::mem::take(&mut self.batch_bodies);
        self.batch_bytes = 0;
        if steps.is_empty() {
            return Ok(());
        }
        while self.hand.is_busy() {
            self.take_one_from_hand(true)?;
        }
        let (asked, batch) = self.ask(Side::Local, &steps)?;
        let ops: Vec<Op> = steps
            .iter()
            .map(|&at| self.plan.steps[Side::Local as usize][at].op.clone())
            .collect();
        self.hand.give(batch, ops, bodies);
        self.in_hand.push_back((asked, steps));
        Ok(())
    }

    /// Takes in what became of local batches, so far or of all.
    fn take_from_hand(&mut self, wait: bool) -> Result<(), Failure> {
        while self.take_one_from_hand(wait)? {}
        Ok(())
    }

    fn take_one_from_hand(&mut self, wait: bool) -> Result<bool, Failure> {
        let Some(outcomes) = self.hand.take(wait)? else {
            return Ok(false);
        };
        let Some((asked, steps)) = self.in_hand.pop_front() else {
            return Ok(false);
        };
        self.steps_done(Side::Local, asked, &steps, &outcomes)?;
        Ok(true)
    }

    fn take_body(&mut self, bytes: Vec<u8>, last: bool) -> Result<(), Failure> {
        let Some(&at) = self.awaited.front() else {
            return Err(Failure::internal("A body came that nobody asked for"));
        };
        if self.incoming.is_none() {
            let Some(body) = wired(&self.plan.steps[Side::Local as usize][at].op) else {
                return Err(Failure::internal("A body came for a step that needs none"));
            };
            let offset = self.kept_bytes(body);
            self.incoming = Some(Incoming::begin(
                &self.partials,
                body.digest,
                body.size,
                offset,
            ));
        }
        self.progress.advance(0, bytes.len() as u64);
        if let Some(incoming) = &mut self.incoming {
            incoming.take(bytes);
        }
        if last && let Some(incoming) = self.incoming.take() {
            self.awaited.pop_front();
            let body = incoming.finish().and_then(|body| self.keep(at, body));
            self.arrived.insert(at, Some(body));
            self.has_come(at);
        }
        Ok(())
    }

    /// Brings the body of a local step into `tmp`, where it waits for its batch.
    fn keep(&mut self, at: usize, body: Body) -> io::Result<Body> {
        let inbox = match &mut self.inbox {
            Some(inbox) => inbox,
            none => {
                let inbox = self.session.local.lock().inbox();
                none.insert(inbox.map_err(|error| match error {
                    maildir::Error::Io { source, .. } => source,
                    other => io::Error::other(other),
                })?)
            }
        };
        match wired(&self.plan.steps[Side::Local as usize][at].op) {
            Some(new) => inbox.write(new, body).map(Body::Written),
            None => Ok(body),
        }
    }

    fn take_no_body(&mut self, why: &str) -> Result<(), Failure> {
        let Some(at) = self.awaited.pop_front() else {
            return Err(Failure::internal(
                "A body was refused that nobody asked for",
            ));
        };
        if !why.is_empty() {
            let name = self.describe(&self.plan.steps[Side::Local as usize][at]);
            self.problem(name, why);
        }
        self.arrived.insert(at, None);
        self.has_come(at);
        Ok(())
    }

    fn has_come(&mut self, at: usize) {
        let index = self.plan.steps[Side::Local as usize][at].index;
        self.under_way[Side::Local as usize].remove(&index);
    }

    fn describe(&self, step: &Step) -> String {
        let record = &self.session.set.all[step.index].record;
        let place = step.target.as_ref().map(|state| &state.place);
        let seen = record
            .local
            .as_ref()
            .or(record.remote.as_ref())
            .map(|seen| &seen.place);
        place.or(seen).map_or_else(String::new, |place| {
            format!(
                "{}/{}",
                self.session.folders.name(place.folder),
                place.unique
            )
        })
    }

    fn end_local_folders(&mut self) -> Result<(), Failure> {
        let after = std::mem::take(&mut self.plan.after[Side::Local as usize]);
        self.apply_local_folders(after)
    }

    // The archive.

    /// Records what is about to be asked of a side.
    fn ask(&self, side: Side, steps: &[usize]) -> Result<(i64, BatchId), Failure> {
        let asked: Vec<Asked> = steps
            .iter()
            .map(|&at| {
                let step = &self.plan.steps[side as usize][at];
                let work = &self.session.set.all[step.index];
                let (stored, record) = (work.stored.clone(), work.record.clone());
                Asked {
                    side,
                    stored,
                    record,
                    target: step.target.clone(),
                }
            })
            .collect();
        let batch = BatchId(maildir::random()?);
        Ok((self.session.archive.ask(side, batch, &asked)?, batch))
    }

    /// Takes in what became of a batch, and stores what is agreed now, in one transaction.
    fn steps_done(
        &mut self,
        side: Side,
        asked: i64,
        steps: &[usize],
        outcomes: &[Outcome],
    ) -> Result<(), Failure> {
        self.session.archive.begin()?;
        if side == Side::Remote {
            for &at in steps {
                let index = self.plan.steps[Side::Remote as usize][at].index;
                self.under_way[Side::Remote as usize].remove(&index);
            }
        }
        for (&at, outcome) in steps.iter().zip(outcomes) {
            self.progress.advance(1, 0);
            let step = self.plan.steps[side as usize][at].clone();
            match outcome {
                Outcome::Done { seq } => self.step_done(side, &step, *seq)?,
                Outcome::Failed { why } => {
                    let name = self.describe(&step);
                    self.problem(name, why);
                }
                Outcome::Full { why } => self.stop_adding(why),
                Outcome::Stale | Outcome::Denied | Outcome::Made { .. } => {}
            }
        }
        self.session.archive.answered(asked)?;
        Ok(self.session.archive.commit()?)
    }

    fn step_done(&mut self, side: Side, step: &Step, seq: u64) -> Result<(), Failure> {
        if !step.is_detour {
            self.count(side, step);
            let name = self.describe(step);
            let place = if side == Side::Local { "here" } else { "there" };
            tracing::info!("{place}: {:?} {name}", step.kind);
        }
        if side == Side::Local && self.session.account.post_hook.is_some() {
            self.note_changed(step)?;
        }
        let set = &mut self.session.set;
        let before = set.unlink(step.index, side);
        if let Some(state) = &step.target {
            let source = set.all[step.index]
                .record
                .seen(side.other())
                .map(|seen| seen.entry.clone());
            let entry = entry_after(&step.op, before.map(|seen| seen.entry), source, state);
            set.link(
                step.index,
                side,
                Seen {
                    place: state.place.clone(),
                    entry,
                    seq,
                    touched: false,
                },
            );
        }
        if step.forget {
            set.forget(step.index);
        }
        Ok(set.store(&self.session.archive, step.index)?)
    }

    fn count(&mut self, side: Side, step: &Step) {
        let tally = &mut self.done.tallies[side as usize];
        *match step.kind {
            Kind::New => &mut tally.new,
            Kind::Copied => &mut tally.copied,
            Kind::Moved => &mut tally.moved,
            Kind::Flags => &mut tally.flags,
            Kind::Replaced => &mut tally.replaced,
            Kind::Deleted => &mut tally.deleted,
        } += 1;
    }

    fn note_changed(&mut self, step: &Step) -> Result<(), Failure> {
        let at = match &step.op {
            Op::Create { at, .. } | Op::Retire { at, .. } => at,
            Op::Update { to, .. } => to,
            Op::MakeFolder { .. }
            | Op::RenameFolder { .. }
            | Op::RemoveFolder { .. }
            | Op::Confirm { .. } => {
                return Ok(());
            }
        };
        self.done
            .changed
            .extend(self.session.local.lock().file_path(at)?);
        Ok(())
    }

    /// Stores the rest: messages that only one side has yet, the folders, and how far both journals are known.
    fn store_end(&mut self) -> Result<(), Failure> {
        let local = self.session.local.lock().settle()?;
        let archive = &self.session.archive;
        archive.begin()?;
        for index in 0..self.session.set.all.len() {
            if self.session.set.all[index].is_dirty {
                self.session.set.store(archive, index)?;
            }
        }
        self.session.folders.save(archive)?;
        archive.set("local_cursor", &local)?;
        if let Some(remote) = self.finished {
            archive.set("remote_cursor", &remote)?;
        }
        Ok(archive.commit()?)
    }
}

/// Whether a step must wait for earlier ones to have happened: a batch reads what it copies before it moves anything.
fn must_follow(step: &Step, before: &[Step]) -> bool {
    copies(&step.op) && before.iter().any(|step| step.kind == Kind::Moved)
}

fn copies(op: &Op) -> bool {
    new_body(op).is_some_and(|body| matches!(body.source, Source::Copy(_)))
}

/// The new bytes of an operation that come over the wire.
fn wired(op: &Op) -> Option<&NewBody> {
    new_body(op).filter(|body| matches!(body.source, Source::Body { .. }))
}

fn new_body(op: &Op) -> Option<&NewBody> {
    match op {
        Op::Create { body, .. } => Some(body),
        Op::Update { body, .. } => body.as_ref(),
        Op::MakeFolder { .. }
        | Op::RenameFolder { .. }
        | Op::RemoveFolder { .. }
        | Op::Retire { .. }
        | Op::Confirm { .. } => None,
    }
}

fn batches_of(ops: Vec<(Fid, Op)>) -> Vec<Vec<(Fid, Op)>> {
    ops.chunks(100).map(<[(Fid, Op)]>::to_vec).collect()
}

/// What a side holds after an operation, as far as this side needs to know it.
fn entry_after(
    op: &Op,
    before: Option<Entry>,
    source: Option<Entry>,
    state: &crate::record::State,
) -> Entry {
    let info = before
        .as_ref()
        .or(source.as_ref())
        .map_or_else(Info::default, |entry| entry.info.with_flags(state.flags));
    let body = new_body(op);
    let (size, mtime_ns) = match (body, &before) {
        (Some(body), _) => (body.size, body.mtime_ns),
        (None, Some(entry)) => (entry.size, entry.mtime_ns),
        (None, None) => (0, 0),
    };
    let damaged = match (body, &before) {
        (None, Some(entry)) => entry.damaged,
        (Some(_), _) | (None, None) => source.is_some_and(|source| source.damaged),
    };
    Entry {
        in_new: state.in_new,
        info,
        digest: state.digest,
        size,
        mtime_ns,
        damaged,
    }
}
