//! Carrying out a plan: bodies flow from each side to the other while operations are carried out there. Every batch is
//! remembered before it is asked for, and agreed only after it is durable (I4).
//!
//! Each side has a [`lane`]: what is to be done there, in the plan's order. A batch of its steps is asked of that side, their
//! bodies are asked of the other one, and go over as they come. Nothing here knows which side is near.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use protocol::{Op, Outcome, Request, Response};

use crate::endpoint::stop::Stop;
use crate::endpoint::{Answer, unexpected};
use crate::merge::plan::{Kind, Plan, Step, Why};
use crate::merge::record::{Fid, Side, Taken};
use crate::report::Tally;
use crate::report::progress::{Phase, Progress};
use crate::report::skipped::Skipped;
use crate::run::failure::Failure;
use crate::run::hooks::{Event, Notice, Told};
use crate::run::session::Session;

mod batches;
mod bodies;
mod full;
mod lane;
mod outcomes;

use lane::{InFlight, Lane, Of};

/// How long the other end may go on with what it was asked once we are asked to end.
const WINDING_UP: Duration = Duration::from_secs(5);
/// How long the endpoints are waited for at a time.
const SLICE: Duration = Duration::from_secs(1);

/// What was done.
#[derive(Default)]
pub struct Executed {
    /// On each side.
    pub tallies: [Tally; 2],
    /// Messages that could not be dealt with.
    pub skipped: Vec<Skipped>,
    /// Why messages wait, by their index, and whether they would be deleted.
    pub waits: HashMap<usize, (Why, bool)>,
    /// Folders that were not found as they were expected.
    pub stale: HashSet<Fid>,
    /// Why nothing more could be added to each side, if so.
    pub full: [Option<String>; 2],
    /// How many messages are known of that did not come, since a stream broke off.
    pub unreached: u64,
    /// What hooks are to hear of it, and have not heard.
    pub told: Told,
}

/// One plan in progress.
pub struct Executor<'s, 'a> {
    session: &'s mut Session<'a>,
    progress: &'s Progress,
    /// What is to be done on each side.
    lanes: [Lane; 2],
    /// The folders of each side that are renamed before the steps.
    renaming: [HashSet<Fid>; 2],
    done: Executed,
    /// How many messages of each side were dealt with before.
    before: [u64; 2],
    /// Where messages were here before their steps, if a hook is to know, by their index.
    old_paths: HashMap<usize, PathBuf>,
    /// Places at which another message was found.
    taken: HashSet<Taken>,
    /// Bodies that still come are not taken any more.
    is_ending: bool,
    stop: Stop,
}

impl<'s, 'a> Executor<'s, 'a> {
    /// Prepares to carry out a plan, after what is done already.
    #[must_use]
    pub fn new(
        session: &'s mut Session<'a>,
        plan: Plan,
        progress: &'s Progress,
        stop: Stop,
        done: Executed,
    ) -> Executor<'s, 'a> {
        let [here, there] = plan.steps;
        let [first_here, first_there] = plan.before;
        let [last_here, last_there] = plan.after;
        Executor {
            session,
            progress,
            lanes: [
                Lane::new(Side::Local, here, [first_here, last_here]),
                Lane::new(Side::Remote, there, [first_there, last_there]),
            ],
            renaming: plan.renaming,
            before: done.tallies.map(|tally| tally.messages()),
            done,
            old_paths: HashMap::new(),
            taken: HashSet::new(),
            is_ending: false,
            stop,
        }
    }

    /// Carries everything out, and ends the conversation. What was done is stored, and reported, even if the connection is lost or
    /// a side's disk or index fails.
    pub fn run(mut self) -> (Executed, Result<(), Failure>) {
        let result = self.carry_out();
        (self.done, result)
    }

    fn carry_out(&mut self) -> Result<(), Failure> {
        let steps = self.lanes.iter().map(|lane| lane.steps.len() as u64);
        let messages = steps.sum::<u64>() + self.session.unlisted();
        let bytes = self
            .lanes
            .iter()
            .map(Lane::bytes)
            .fold(0, u64::saturating_add);
        match self.session.is_continued() {
            true => self.progress.expect(0, bytes), // Its messages were counted with the first part.
            false => self.progress.begin(Phase::Transferring, messages, bytes),
        }
        for side in Side::BOTH {
            let folders = std::mem::take(&mut self.lanes[side as usize].first);
            self.ask_folders(side, folders);
        }
        let result = self.converse();
        if let Err(failure) = result {
            self.end_early(&failure)?;
            return Err(failure.after(|| self.so_far()));
        }
        self.store_end()
    }

    // The conversation.

    fn converse(&mut self) -> Result<(), Failure> {
        let bell = self.session.local.bell().clone();
        loop {
            let (count, begun) = (bell.count(), Instant::now());
            self.ask_for_more()?;
            let mut is_idle = true;
            for side in Side::BOTH {
                while let Some(answer) = self.next_answer(side)? {
                    self.take(side, answer)?;
                    is_idle = false;
                }
            }
            let is_last = self.session.is_through();
            let is_through = |lane: &Lane| lane.is_through(is_last) && !lane.is_body_due();
            if self.lanes.iter().all(is_through) {
                return Ok(());
            }
            if self.stop.is_requested() {
                return Err(Failure::interrupted());
            }
            if is_idle && !self.go_on_if_stuck() {
                self.session.endpoint(Side::Local).rest();
                self.session.endpoint(Side::Remote).rest();
                bell.wait(count, begun + SLICE);
                for side in Side::BOTH {
                    if self.is_due_from(side) {
                        self.session.endpoint(side).waited(begun.elapsed())?;
                    }
                }
            }
        }
    }

    /// Asks both sides for all that they can be asked for now.
    fn ask_for_more(&mut self) -> Result<(), Failure> {
        for side in Side::BOTH {
            self.form_batches(side)?;
            self.ask_for_bodies(side);
            self.begin_batches(side)?;
        }
        for side in Side::BOTH {
            self.ask_to_finish(side);
        }
        Ok(())
    }

    /// The next answer of a side. It is left where it is while the other side has no room for the body that it may be.
    fn next_answer(&mut self, side: Side) -> Result<Option<Answer>, Failure> {
        let has_room = self.session.endpoint(side.other()).has_room();
        match has_room || self.is_ending {
            true => Ok(self.session.endpoint(side).poll()?),
            false => Ok(None),
        }
    }

    fn take(&mut self, side: Side, answer: Answer) -> Result<(), Failure> {
        match answer {
            Answer::Body(..) | Answer::Response(Response::NoBody { .. }) if self.is_ending => {
                Ok(())
            }
            Answer::Body(bytes, is_last) => self.take_body(side.other(), bytes, is_last),
            Answer::Response(Response::NoBody { why }) => self.take_no_body(side.other(), &why),
            Answer::Response(Response::Outcomes(outcomes)) => self.take_outcomes(side, outcomes),
            Answer::Response(Response::Finished { cursor }) if self.is_answered(side) => {
                self.lanes[side as usize].finished = Some(cursor);
                Ok(())
            }
            Answer::Response(other) => Err(unexpected(&other).into()),
        }
    }

    /// Whether a side owes anything: an outcome, a body, or the end.
    fn is_due_from(&self, side: Side) -> bool {
        let lane = &self.lanes[side as usize];
        let is_ending = lane.is_finish_sent && lane.finished.is_none();
        is_ending || !lane.in_flight.is_empty() || self.lanes[side.other() as usize].is_body_due()
    }

    /// Whether a side has answered all that it was asked to do, and knows that this was all.
    fn is_answered(&self, side: Side) -> bool {
        let lane = &self.lanes[side as usize];
        lane.is_finish_sent && lane.in_flight.is_empty()
    }

    /// The last request follows the one before it at once, so that a run takes one flight each way.
    fn ask_to_finish(&mut self, side: Side) {
        let is_read = self.lanes[side.other() as usize].is_all_asked();
        let lane = &mut self.lanes[side as usize];
        let is_last = self.session.is_through();
        if !is_last || lane.is_finish_sent || !is_read || !lane.is_all_begun() {
            return;
        }
        let folders = std::mem::take(&mut lane.last);
        self.ask_folders(side, folders);
        self.lanes[side as usize].is_finish_sent = true;
        self.session.endpoint(side).request(Request::Finish);
    }

    /// A step that moves a message waits until the other side has got its bytes. If the step there that fetches them stands behind
    /// one that waits in the same way, both sides are stuck. Then a later step that need not wait goes first. If there is none, one
    /// step is left for the next run. Returns whether both were stuck.
    fn go_on_if_stuck(&mut self) -> bool {
        let is_due = Side::BOTH.into_iter().any(|side| self.is_due_from(side));
        let is_stuck = |lane: &Lane| lane.next < lane.steps.len();
        if is_due || !self.lanes.iter().any(is_stuck) {
            return false;
        }
        let [here, there] = &mut self.lanes;
        if here.bring_forward(&there.under_way) || there.bring_forward(&here.under_way) {
            return true;
        }
        for side in Side::BOTH {
            let lane = &mut self.lanes[side as usize];
            if is_stuck(lane) {
                let at = lane.next;
                lane.next += 1;
                self.wait(side, at, Why::Changed);
                return true;
            }
        }
        false
    }

    /// The run ends before its end: what has come in full is carried out, and what became of that is stored. What the other end
    /// has been asked to do is waited for a little, unless it is gone.
    fn end_early(&mut self, failure: &Failure) -> Result<(), Failure> {
        self.is_ending = true;
        let is_gone = |side: Side| match side {
            Side::Local => matches!(failure, Failure::Replica(_)),
            Side::Remote => !failure.is_interrupted(),
        };
        for side in Side::BOTH {
            self.cut_off(side);
        }
        let bell = self.session.local.bell().clone();
        let until = Instant::now() + WINDING_UP;
        loop {
            let count = bell.count();
            for side in Side::BOTH.into_iter().filter(|side| !is_gone(*side)) {
                while let Some(answer) = self.next_answer(side)? {
                    self.take(side, answer)?;
                }
            }
            let is_waiting = |side: Side| {
                let is_in_time = side == Side::Local || Instant::now() < until;
                !is_gone(side) && is_in_time && !self.lanes[side as usize].in_flight.is_empty()
            };
            if !Side::BOTH.into_iter().any(is_waiting) {
                return Ok(());
            }
            bell.wait(count, Instant::now() + SLICE);
        }
    }

    // Folders.

    fn ask_folders(&mut self, side: Side, ops: Vec<(Fid, Op)>) {
        for ops in ops.chunks(100) {
            let plain = ops.iter().map(|(_, op)| op.clone()).collect();
            self.session.endpoint(side).request(Request::Apply(plain));
            self.lanes[side as usize].in_flight.push_back(InFlight {
                of: Of::Folders(ops.to_vec()),
                bytes: 0,
                outcomes: Vec::new(),
            });
        }
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
                    if side == Side::Local {
                        self.tell_folder(*id, op);
                    }
                }
                Outcome::Failed { why } => {
                    self.skip(side, self.session.folders.name(*id).to_string(), why)
                }
                Outcome::Full { why } => self.stop_adding(side, why),
                Outcome::Stale | Outcome::Taken | Outcome::Denied => {
                    self.done.stale.insert(*id);
                }
            }
        }
        self.session.archive.begin()?;
        let saved = self.session.folders.save(&self.session.archive);
        Ok(self.session.archive.end(saved)?)
    }

    fn tell_folder(&mut self, id: Fid, op: &Op) {
        let path = |dir| self.session.local.lock().folder_path(dir);
        let (word, path, old) = match op {
            Op::MakeFolder { dir } => ("make-folder", path(dir), None),
            Op::RemoveFolder { dir, .. } => ("remove-folder", path(dir), None),
            Op::RenameFolder { from, to, .. } => ("rename-folder", path(to), Some(path(from))),
            Op::Create { .. } | Op::Update { .. } | Op::Retire { .. } => return,
        };
        let folder = self.session.folders.name(id).to_string();
        let notice = Notice::new(word, &folder, &path).before(old.as_deref());
        self.done
            .told
            .add(self.session.account, Event::Post, &notice);
    }

    // What is left, and what is reported to people.

    /// Remembers why a step was not made.
    fn wait(&mut self, side: Side, at: usize, why: Why) {
        let step = &self.lanes[side as usize].steps[at];
        let deletes = step.kind == Kind::Deleted;
        self.done.waits.insert(step.index, (why, deletes));
    }

    /// Leaves a step of a side alone for something that is the matter on the same side or on the other one.
    fn skip_step(&mut self, of: Side, on: Side, at: usize, why: &str) {
        let step = &self.lanes[of as usize].steps[at];
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

    /// How much of the plan is done, for people.
    fn so_far(&self) -> String {
        let part = |lane: &Lane| {
            let done = self.done.tallies[lane.side as usize].messages();
            let before = self.before[lane.side as usize];
            let mut all = before + counted(&lane.steps).count() as u64;
            if lane.side == Side::Remote {
                all += self.session.unlisted();
            }
            let what = if counted(&lane.steps).all(|step| step.kind == Kind::New) {
                "messages are"
            } else {
                "changes are made"
            };
            (all > 0).then(|| format!("{done} of {all} {what} {}", lane.side.word()))
        };
        let parts: Vec<String> = self.lanes.iter().filter_map(part).collect();
        parts.join(", ")
    }
}

/// The steps that are reported to people.
fn counted(steps: &[Step]) -> impl Iterator<Item = &Step> {
    steps.iter().filter(|step| !step.is_temporary)
}
