//! Steps of a side in batches: remembered, asked for, and what became of them.

use protocol::codec::batches;
use protocol::message::Source;
use protocol::{Op, Outcome, Request, Response};

use super::Executor;
use super::lane::{Batch, Of, size};
use crate::endpoint::unexpected;
use crate::merge::plan::{Kind, Step};
use crate::merge::record::Side;
use crate::run::failure::Failure;

/// How many operations a batch has at most, and how many bytes of bodies, but for a single larger one; they lie in `tmp`.
const BATCH_OPS: usize = 1000;
const BATCH_BYTES: u64 = 16 << 20;
/// How many batches of a side are under way at once, and how many bytes they have, but for the last of them.
const BATCHES_AHEAD: usize = 4;
const BYTES_AHEAD: u64 = 2 * BATCH_BYTES;
/// A further batch is formed when so few bodies are left to be asked for.
const BODIES_LEFT: usize = 256;

impl Executor<'_, '_> {
    /// Puts the next steps of a side into batches, as far as they may be under way.
    pub(super) fn form_batches(&mut self, side: Side) -> Result<(), Failure> {
        loop {
            let lane = &self.lanes[side as usize];
            let unasked = lane.awaited.len() - lane.asked;
            let is_enough = lane.forming.len() + lane.in_flight.len() >= BATCHES_AHEAD
                || lane.bytes_under_way() >= BYTES_AHEAD
                || unasked >= BODIES_LEFT;
            if is_enough || lane.next == lane.steps.len() {
                return Ok(());
            }
            let steps = self.next_steps(side);
            if steps.is_empty() {
                return Ok(()); // The next one waits for its bytes to have been read.
            }
            self.note_paths(side, &steps)?;
            let asked = self.ask(side, &steps)?;
            let ops: Vec<Op> = steps.iter().map(|&at| self.op(side, at)).collect();
            let lane = &mut self.lanes[side as usize];
            let wired = steps.iter().zip(&ops);
            let wired = wired.filter(|(_, op)| op.wired().is_some());
            let wired: Vec<usize> = wired.map(|(&at, _)| at).collect();
            let bytes = steps.iter().map(|&at| size(&lane.steps[at]));
            lane.forming.push_back(Batch {
                asked,
                bodies: wired.len(),
                bytes: bytes.fold(0, u64::saturating_add),
                steps,
                ops,
                outcomes: Vec::new(),
            });
            lane.awaited.extend(wired);
        }
    }

    /// The steps of the next batch.
    fn next_steps(&mut self, side: Side) -> Vec<usize> {
        let under_way = &self.lanes[side.other() as usize].under_way;
        let lane = &self.lanes[side as usize];
        let rest = lane.steps[lane.next..].iter().take(BATCH_OPS);
        // One message must hold the operations.
        let count = batches(rest.map(|step| &step.op))
            .next()
            .map_or(0, |batch| batch.len());
        let (mut bytes, mut end) = (0, lane.next);
        for step in &lane.steps[lane.next..lane.next + count] {
            let before = &lane.steps[lane.next..end];
            bytes = size(step).saturating_add(bytes);
            let is_full = bytes > BATCH_BYTES && !before.is_empty();
            if is_full || under_way.contains(&step.index) || must_follow(step, before) {
                break;
            }
            end += 1;
        }
        let steps = (lane.next..end).collect();
        self.lanes[side as usize].next = end;
        steps
    }

    /// The operation of a step, whose body goes on with what an earlier run left on that side.
    fn op(&mut self, side: Side, at: usize) -> Op {
        let offset = self.kept_bytes(side, at);
        let mut op = self.lanes[side as usize].steps[at].op.clone();
        if let (
            Op::Create { body, .. }
            | Op::Update {
                body: Some(body), ..
            },
            Some(offset),
        ) = (&mut op, offset)
        {
            body.source = Source::Body { offset };
        }
        op
    }

    /// Asks for the first batch that was formed, once the one before it has all its bodies.
    pub(super) fn begin_batches(&mut self, side: Side) -> Result<(), Failure> {
        loop {
            let lane = &mut self.lanes[side as usize];
            let Some(batch) = lane.forming.front_mut() else {
                return Ok(());
            };
            if !lane.is_open {
                lane.is_open = true;
                let ops = std::mem::take(&mut batch.ops);
                self.session.endpoint(side).request(Request::Apply(ops));
            }
            self.give_up_bodies(side)?;
            if !self.lanes[side as usize].close_batch() {
                return Ok(());
            }
        }
    }

    /// Ends what is under way to a side: what was not asked of it is not, and the open batch is carried out with the bodies that
    /// it has, where the endpoint can do that.
    pub(super) fn cut_off(&mut self, side: Side) {
        let is_carried_out = self.session.endpoint(side).cut_off();
        let lane = &mut self.lanes[side as usize];
        (lane.is_cut, lane.asked, lane.asked_bytes) = (true, 0, 0);
        lane.awaited.clear();
        if lane.is_open && is_carried_out {
            if let Some(batch) = lane.forming.front_mut() {
                batch.bodies = 0;
            }
            lane.close_batch();
        }
        lane.forming.clear();
    }

    pub(super) fn take_outcomes(
        &mut self,
        side: Side,
        outcomes: Vec<Outcome>,
    ) -> Result<(), Failure> {
        let whole = self.lanes[side as usize].take(outcomes);
        let whole = whole.ok_or_else(|| unexpected(&Response::Outcomes(Vec::new())))?;
        for (of, outcomes) in whole {
            match of {
                Of::Folders(ops) => self.folders_done(side, &ops, &outcomes)?,
                Of::Steps { asked, steps } => self.steps_done(side, asked, &steps, &outcomes)?,
            }
        }
        Ok(())
    }
}

/// Whether a step must wait for earlier ones to have happened: a batch reads what it copies before it moves anything.
fn must_follow(step: &Step, before: &[Step]) -> bool {
    step.op.copies() && before.iter().any(|step| step.kind == Kind::Moved)
}
