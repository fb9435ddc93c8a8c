//! Carrying out a plan: bodies flow in while operations flow out, and every batch is remembered before it is asked and
//! agreed only after it is durable (I4).
//!
//! Steps of a side are carried out in the plan's order. Local ones wait for their bodies, which come in the order in
//! which they were asked for; remote ones go out in batches with their bodies behind them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use maildir::{Incoming, Partials};
use protocol::message::{NewBody, Source};
use protocol::{Cursor, Digest, Op, Outcome, Request, Response};

use crate::endpoint::link::{Answer, unexpected};
use crate::endpoint::local::Hand;
use crate::merge::plan::{Kind, Plan, Step};
use crate::merge::record::{Fid, Side, Taken};
use crate::report::progress::Progress;
use crate::report::waiting::Why;
use crate::report::{Skipped, Tally};
use crate::run::failure::Failure;
use crate::run::session::Session;
use crate::run::stop::Stop;

mod full;
mod local;
mod outcomes;
mod remote;

/// How many operations a batch has at most.
const BATCH_OPS: usize = 1000;

/// How long the agent may go on with what it was asked once somebody wants us to end.
const WINDING_UP: Duration = Duration::from_secs(5);

/// What was done.
#[derive(Default)]
pub struct Done {
    /// On each side.
    pub tallies: [Tally; 2],
    /// Messages that could not be dealt with.
    pub skipped: Vec<Skipped>,
    /// Why messages wait, by their index, and whether they would be deleted.
    pub waits: HashMap<usize, (Why, bool)>,
    /// Why nothing more could be added to each side, if so.
    pub full: [Option<String>; 2],
    /// How many messages are known of that did not come, since a stream broke off.
    pub unreached: u64,
    /// Files that changed here.
    pub changed: Vec<PathBuf>,
}

/// One plan in progress.
pub struct Executor<'s, 'a> {
    session: &'s mut Session<'a>,
    progress: &'s Progress,
    plan: Plan,
    /// How many steps it has on each side.
    planned: [usize; 2],
    done: Done,
    partials: Partials,
    /// Local steps that wait for a body, in the order in which it comes.
    awaited: VecDeque<usize>,
    /// The step that goes on with what is left of a large body.
    resumed: HashMap<Digest, usize>,
    /// How many bytes their bodies have.
    awaited_bytes: u64,
    /// The body that is coming in.
    incoming: Option<Incoming>,
    /// Bodies that are to be asked for.
    unasked: VecDeque<usize>,
    /// The next local step that is not in a batch.
    next_local: usize,
    hand: Hand,
    /// The local batches that it has, oldest first.
    in_hand: VecDeque<(i64, Vec<usize>)>,
    batch: Vec<usize>,
    /// Until when it may grow at most, from its first step on, and how long the next one may.
    batch_due: Option<Instant>,
    batch_age: Duration,
    batch_bodies: usize,
    batch_bytes: u64,
    /// Of each local step: whether the hand has its body, or will never get it, or the step is left out.
    arrived: Vec<Option<bool>>,
    /// The next remote step that was not sent.
    next_remote: usize,
    /// How many bytes of bodies the next batch for it has at most.
    remote_batch_bytes: u64,
    in_flight: VecDeque<(InFlight, Vec<Outcome>)>,
    is_finish_sent: bool,
    finished: Option<Cursor>,
    /// Places at which another message was found.
    taken: HashSet<Taken>,
    /// Messages whose bytes are under way to each side: the other one must not move them meanwhile.
    under_way: [Vec<bool>; 2],
    stop: Stop,
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
        stop: Stop,
    ) -> Result<Executor<'s, 'a>, Failure> {
        let partials = session.local.lock().partials();
        let hand = Hand::start(&session.local)?;
        Ok(Executor {
            session,
            progress,
            planned: Side::BOTH.map(|side| counted(&plan.steps[side as usize]).count()),
            plan,
            done: Done::default(),
            partials,
            awaited: VecDeque::new(),
            resumed: HashMap::new(),
            awaited_bytes: 0,
            incoming: None,
            unasked: VecDeque::new(),
            next_local: 0,
            hand,
            in_hand: VecDeque::new(),
            batch: Vec::new(),
            batch_due: None,
            batch_age: local::FIRST_AGE,
            batch_bodies: 0,
            batch_bytes: 0,
            arrived: Vec::new(),
            next_remote: 0,
            remote_batch_bytes: remote::FIRST_BATCH_BYTES,
            in_flight: VecDeque::new(),
            is_finish_sent: false,
            finished: None,
            taken: HashSet::new(),
            under_way: Default::default(),
            stop,
        })
    }

    /// Carries everything out, after what is done already, and ends the conversation. What was done is stored, and told, even if the connection is
    /// lost or a side's disk or index fails.
    pub fn run(mut self, done: Done) -> (Done, Result<(), Failure>) {
        self.done = done;
        let result = self.carry_out();
        (self.done, result)
    }

    fn carry_out(&mut self) -> Result<(), Failure> {
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
        result.map_err(|failure| failure.after(|| self.so_far()))?;
        self.end_local_folders()?;
        self.store_end()
    }

    /// Folders first, on both sides; then it is known what to fetch.
    fn begin(&mut self) -> Result<(), Failure> {
        let remote = std::mem::take(&mut self.plan.before[Side::Remote as usize]);
        self.send_folders(remote);
        let local = std::mem::take(&mut self.plan.before[Side::Local as usize]);
        self.apply_local_folders(local)?;
        for side in Side::BOTH {
            let under_way = &mut self.under_way[side as usize];
            under_way.resize(self.session.set.all.len(), false);
            for step in &self.plan.steps[side as usize] {
                under_way[step.index] |= wired(&step.op).is_some();
            }
        }
        self.arrived
            .resize(self.plan.steps[Side::Local as usize].len(), None);
        let (mut messages, mut bytes) = (self.plan.steps[Side::Remote as usize].len() as u64, 0);
        for at in 0..self.plan.steps[Side::Local as usize].len() {
            messages += 1;
            let step = &self.plan.steps[Side::Local as usize][at];
            let Some(body) = wired(&step.op) else {
                continue;
            };
            bytes = body.size.saturating_add(bytes);
            self.unasked.push_back(at);
        }
        self.progress.begin(
            crate::report::progress::Phase::Transferring,
            messages,
            bytes,
        );
        Ok(())
    }

    fn send_folders(&mut self, ops: Vec<(Fid, Op)>) {
        for ops in batches_of(ops) {
            let plain = ops.iter().map(|(_, op)| op.clone()).collect();
            self.session.link.apply(plain, Vec::new());
            self.in_flight
                .push_back((InFlight::Folders(ops), Vec::new()));
        }
    }

    fn apply_local_folders(&mut self, ops: Vec<(Fid, Op)>) -> Result<(), Failure> {
        if ops.is_empty() {
            return Ok(());
        }
        let plain: Vec<Op> = ops.iter().map(|(_, op)| op.clone()).collect();
        let outcomes = self.session.local.lock().apply(&plain, Vec::new())?;
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
                    self.done.tallies[side as usize].folders += 1;
                    self.session.folders.done(side, *id, op, outcome);
                    if side == Side::Local && self.session.account.post_hook.is_some() {
                        let local = self.session.local.lock();
                        let paths = op.folders().map(|dir| local.folder_path(dir));
                        self.done.changed.extend(paths);
                    }
                }
                Outcome::Failed { why } => {
                    self.skip(side, self.session.folders.name(*id).to_string(), why)
                }
                Outcome::Full { why } => self.stop_adding(side, why),
                Outcome::Stale | Outcome::Taken | Outcome::Denied => {}
            }
        }
        self.session.archive.begin()?;
        let saved = self.session.folders.save(&self.session.archive);
        Ok(self.session.archive.end(saved)?)
    }

    /// Remembers why a step was not made.
    fn wait(&mut self, side: Side, at: usize, why: Why) {
        let step = &self.plan.steps[side as usize][at];
        let deletes = step.kind == Kind::Deleted;
        self.done.waits.insert(step.index, (why, deletes));
    }

    /// Leaves a step of a side alone for something that is the matter on the same side or on the other one.
    fn skip_step(&mut self, of: Side, on: Side, at: usize, why: &str) {
        let step = &self.plan.steps[of as usize][at];
        let (path, index) = (self.describe(step), step.index);
        self.skip(on, path, why);
        if let Some(skipped) = self.done.skipped.last_mut() {
            skipped.heading = self.session.heading(index);
        }
        self.wait(of, at, Why::Failed);
    }

    fn skip(&mut self, side: Side, path: String, why: &str) {
        let why = why.to_owned();
        self.done.skipped.push(Skipped {
            side,
            path,
            why,
            heading: None,
            holds: false,
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
            if self.stop.is_requested() {
                return self.wind_up();
            }
            if !self.session.link.has_answer() {
                self.hand.pass_on();
            }
            if let Some(answer) = self.session.link.answer(self.batch_due)? {
                self.take(answer)?;
            }
        }
    }

    fn take(&mut self, answer: Answer) -> Result<(), Failure> {
        match answer {
            Answer::Body(bytes, last) => self.take_body(bytes, last),
            Answer::Response(Response::NoBody { why }) => self.take_no_body(&why),
            Answer::Response(Response::Outcomes(outcomes)) => self.take_outcomes(outcomes),
            Answer::Response(Response::Finished { cursor }) if self.is_through() => {
                self.finished = Some(cursor);
                Ok(())
            }
            Answer::Response(other) => Err(unexpected(&other).into()),
        }
    }

    /// Somebody wants us to end: no more is asked for, what the agent has been asked to do is waited for a little, and what
    /// has come in full is delivered.
    fn wind_up(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + WINDING_UP;
        while !self.in_flight.is_empty() && Instant::now() < until {
            if let Some(answer) = self.session.link.answer(Some(until))? {
                self.take(answer)?;
            }
        }
        self.gather_local()?;
        Err(Failure::interrupted())
    }

    /// How much of the plan is done, for people.
    fn so_far(&self) -> String {
        let part = |side: Side| {
            let (index, word) = (side as usize, side.word());
            let tally = &self.done.tallies[index];
            let done = tally.new + tally.flags + tally.moved + tally.copied;
            let done = done + tally.deleted + tally.replaced;
            let all = self.planned[index];
            let what = if counted(&self.plan.steps[index]).all(|step| step.kind == Kind::New) {
                "messages are"
            } else {
                "changes are made"
            };
            (all > 0).then(|| format!("{done} of {all} {what} {word}"))
        };
        let parts: Vec<String> = Side::BOTH.into_iter().filter_map(part).collect();
        parts.join(", ")
    }

    fn is_through(&self) -> bool {
        self.is_finish_sent && self.awaited.is_empty() && self.in_flight.is_empty()
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

    fn end_local_folders(&mut self) -> Result<(), Failure> {
        let after = std::mem::take(&mut self.plan.after[Side::Local as usize]);
        self.apply_local_folders(after)
    }
}

/// Whether a step must wait for earlier ones to have happened: a batch reads what it copies before it moves anything.
fn must_follow(step: &Step, before: &[Step]) -> bool {
    copies(&step.op) && before.iter().any(|step| step.kind == Kind::Moved)
}

/// The steps that people hear of.
fn counted(steps: &[Step]) -> impl Iterator<Item = &Step> {
    steps.iter().filter(|step| !step.is_detour)
}

/// Whether the new bytes of an operation come of what lies there already.
fn copies(op: &Op) -> bool {
    op.new_body()
        .is_some_and(|body| matches!(body.source, Source::Copy(_) | Source::Remade(_)))
}

/// The new bytes of an operation that come over the wire.
fn wired(op: &Op) -> Option<&NewBody> {
    op.new_body()
        .filter(|body| matches!(body.source, Source::Body { .. }))
}

fn batches_of(ops: Vec<(Fid, Op)>) -> Vec<Vec<(Fid, Op)>> {
    ops.chunks(100).map(<[(Fid, Op)]>::to_vec).collect()
}
