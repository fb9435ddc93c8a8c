//! What is asked of the agent: batches of operations with their bodies behind them, and what became of them.

use maildir::SMALL_BYTES_MAX;
use protocol::codec::batches;
use protocol::message::Source;
use protocol::{Op, Outcome, Response};

use super::{BATCH_OPS, Executor, InFlight, must_follow, wired};
use crate::endpoint::link::{Sending, unexpected};
use crate::merge::record::Side;
use crate::run::failure::Failure;

/// How many bytes of bodies a batch has at most, but for a single larger one: the agent keeps them in memory.
const BATCH_BYTES: u64 = 8 << 20;
/// How many the first one has; each one after it twice as many as the one before. So a first message is there soon, also
/// over a slow link, and little is lost by an end, while flushing costs per batch.
pub(super) const FIRST_BATCH_BYTES: u64 = 256 << 10;
/// How many batches are under way at once, and how many bytes they have, but for the last of them.
const BATCHES_AHEAD: usize = 8;
const BYTES_AHEAD: u64 = 2 * BATCH_BYTES;

impl Executor<'_, '_> {
    pub(super) fn send_batches(&mut self) -> Result<(), Failure> {
        let total = self.plan.steps[Side::Remote as usize].len();
        while self.next_remote < total
            && self.in_flight.len() < BATCHES_AHEAD
            && self.bytes_in_flight() < BYTES_AHEAD
        {
            let steps = self.next_remote_batch();
            if steps.is_empty() {
                break; // The next one waits for its bytes to have been read.
            }
            let asked = self.ask(Side::Remote, &steps)?;
            let mut ops = Vec::with_capacity(steps.len());
            let mut bodies = Vec::new();
            for &at in &steps {
                let (op, body) = self.with_body(at)?;
                ops.push(op);
                bodies.extend(body);
            }
            self.session.link.apply(ops, bodies);
            self.in_flight
                .push_back((InFlight::Steps { asked, steps }, Vec::new()));
        }
        Ok(())
    }

    fn bytes_in_flight(&self) -> u64 {
        let steps = self.in_flight.iter().filter_map(|(batch, _)| match batch {
            InFlight::Steps { steps, .. } => Some(steps),
            InFlight::Folders(_) => None,
        });
        let plan = &self.plan.steps[Side::Remote as usize];
        let bodies = steps.flatten().filter_map(|&at| wired(&plan[at].op));
        bodies.fold(0, |sum, body| body.size.saturating_add(sum))
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
            let is_moving = self.under_way[Side::Local as usize][step.index];
            if is_moving
                || (end > self.next_remote && must_follow(step, &steps[self.next_remote..end]))
            {
                break;
            }
            bytes = wired(&step.op)
                .map_or(0, |body| body.size)
                .saturating_add(bytes);
            if bytes > self.remote_batch_bytes && end > self.next_remote {
                break;
            }
            end += 1;
        }
        let batch = (self.next_remote..end).collect();
        self.next_remote = end;
        self.remote_batch_bytes = (2 * self.remote_batch_bytes).min(BATCH_BYTES);
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

    pub(super) fn take_outcomes(&mut self, outcomes: Vec<Outcome>) -> Result<(), Failure> {
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
}
