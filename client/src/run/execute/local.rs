//! What is carried out on this side: bodies that are asked for, taken in, and given to the hand in batches.

use std::time::{Duration, Instant};

use maildir::{Incoming, SMALL_BYTES_MAX};
use protocol::codec::batches;
use protocol::message::Fetch;
use protocol::{Op, Request};

use super::{BATCH_OPS, Executor, copies, must_follow, wired};
use crate::endpoint::link::LinkError;
use crate::merge::record::Side;
use crate::run::failure::Failure;

/// How many bytes of bodies a batch has at most, but for a single larger one; they lie in `tmp`.
const BATCH_BYTES: u64 = 16 << 20;
/// By how much a batch grows at most while the disk is busy with earlier ones: flushing costs per batch.
const GROWTH: usize = 4;
/// How long the first batch gathers at most, so that a first message is there soon and little is lost by an end; each one
/// after it twice as long as the one before, since flushing costs per batch.
pub(super) const FIRST_AGE: Duration = Duration::from_secs(1);
/// Up to this.
const LAST_AGE: Duration = Duration::from_secs(64);
/// How many bodies are asked for ahead of what has come.
const FETCHES_AHEAD: usize = 4096;
/// How many bytes past a body's end are passed over.
const EXCESS_MAX: u64 = 64 << 20;
/// How many are asked for in one message.
const FETCHES_STEP: usize = 256;
/// How many bytes of bodies are asked for ahead, but for a single larger one. They have room in what is read ahead here,
/// so that they do not wait in ssh, whose buffers cost the more the fuller they are.
const BYTES_ASKED: u64 = 4 << 20;

impl Executor<'_, '_> {
    pub(super) fn ask_for_bodies(&mut self) {
        if self.awaited.len() > FETCHES_AHEAD / 2 || self.awaited_bytes > BYTES_ASKED / 2 {
            return;
        }
        let mut lines = Vec::new();
        while self.awaited.len() < FETCHES_AHEAD && self.awaited_bytes < BYTES_ASKED {
            let Some(at) = self.unasked.pop_front() else {
                break;
            };
            match self.fetch(at) {
                Some(line) => {
                    self.awaited_bytes += self.coming(at);
                    self.awaited.push_back(at);
                    lines.push(line);
                }
                None => {
                    self.arrived[at] = Some(false);
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
    fn fetch(&mut self, at: usize) -> Option<Fetch> {
        let offset = self.kept_bytes(at);
        let step = &self.plan.steps[Side::Local as usize][at];
        let body = wired(&step.op)?;
        let place = &self.session.set.all[step.index]
            .record
            .remote
            .as_ref()?
            .place;
        let renaming = &self.plan.renaming[Side::Remote as usize];
        Some(Fetch {
            at: self.session.folders.at(Side::Remote, place, renaming),
            digest: body.digest,
            offset,
        })
    }

    /// How many bytes the body of a local step has.
    fn coming(&self, at: usize) -> u64 {
        wired(&self.plan.steps[Side::Local as usize][at].op).map_or(0, |body| body.size)
    }

    /// How much of a step's body an earlier run left here. Of several equal ones the first goes on with it.
    fn kept_bytes(&mut self, at: usize) -> u64 {
        let body = wired(&self.plan.steps[Side::Local as usize][at].op);
        let Some(body) = body.filter(|body| body.size > SMALL_BYTES_MAX) else {
            return 0;
        };
        let length = self.partials.length(&body.digest).min(body.size);
        let first = self.resumed.entry(body.digest).or_insert(at);
        if *first == at { length } else { 0 }
    }

    /// Puts local steps into the batch as far as their bodies have come, and applies it when it is full or the last.
    pub(super) fn gather_local(&mut self) -> Result<(), Failure> {
        let total = self.plan.steps[Side::Local as usize].len();
        while self.next_local < total {
            let at = self.next_local;
            let index = self.plan.steps[Side::Local as usize][at].index;
            if self.under_way[Side::Remote as usize][index] {
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
            let new = wired(&self.plan.steps[Side::Local as usize][at].op);
            match (new, self.arrived[at].take()) {
                (Some(_), None) => break,
                (_, Some(false)) => {}
                (Some(new), Some(true)) => {
                    self.batch_bytes = self.batch_bytes.saturating_add(new.size);
                    self.batch_bodies += 1;
                    self.batch.push(at);
                }
                (None, _) => self.batch.push(at),
            }
            self.next_local += 1;
            if !self.batch.is_empty() {
                self.batch_due
                    .get_or_insert_with(|| Instant::now() + self.batch_age);
            }
            if self.is_batch_full() {
                self.apply_local()?;
            }
        }
        let is_due = self.batch_due.is_some_and(|due| due <= Instant::now());
        if self.next_local == total || is_due {
            self.apply_local()
        } else {
            Ok(())
        }
    }

    /// While earlier batches keep the disk busy, a batch may as well grow.
    fn is_batch_full(&self) -> bool {
        let growth = if self.hand.is_working() { GROWTH } else { 1 };
        self.batch.len() >= BATCH_OPS * growth || self.batch_bytes >= BATCH_BYTES * growth as u64
    }

    pub(super) fn apply_local(&mut self) -> Result<(), Failure> {
        let steps = std::mem::take(&mut self.batch);
        let bodies = std::mem::take(&mut self.batch_bodies);
        self.batch_bytes = 0;
        if self.batch_due.take().is_some() {
            self.batch_age = (self.batch_age * 2).min(LAST_AGE);
        }
        if steps.is_empty() {
            return Ok(());
        }
        while self.hand.is_busy() {
            self.take_one_from_hand(true)?;
        }
        let asked = self.ask(Side::Local, &steps)?;
        let ops: Vec<Op> = steps
            .iter()
            .map(|&at| self.plan.steps[Side::Local as usize][at].op.clone())
            .collect();
        self.hand.give(ops, bodies);
        self.in_hand.push_back((asked, steps));
        Ok(())
    }

    /// Takes in what became of local batches, so far or of all.
    pub(super) fn take_from_hand(&mut self, wait: bool) -> Result<(), Failure> {
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

    pub(super) fn take_body(&mut self, bytes: Vec<u8>, last: bool) -> Result<(), Failure> {
        let Some(&at) = self.awaited.front() else {
            return Err(unasked("A body came"));
        };
        if self.incoming.is_none() {
            let offset = self.kept_bytes(at);
            let Some(body) = wired(&self.plan.steps[Side::Local as usize][at].op) else {
                return Err(unasked("A body came"));
            };
            self.incoming = Some(Incoming::begin_quick(
                &self.partials,
                body.digest,
                body.size,
                offset,
            ));
        }
        self.progress.advance(0, bytes.len() as u64);
        if let Some(incoming) = &mut self.incoming {
            incoming.take(bytes);
            if incoming.excess() > EXCESS_MAX {
                let why = "Far more of a body came than was announced";
                return Err(LinkError::Protocol(why.to_owned()).into());
            }
        }
        if last && let Some(incoming) = self.incoming.take() {
            self.awaited.pop_front();
            let op = &self.plan.steps[Side::Local as usize][at].op;
            if let (Some(to), Some(new)) = (op.target(), wired(op)) {
                self.hand.bring(to.clone(), new.clone(), incoming);
            }
            self.arrived[at] = Some(true);
            self.has_come(at);
        }
        Ok(())
    }

    pub(super) fn take_no_body(&mut self, why: &str) -> Result<(), Failure> {
        let Some(at) = self.awaited.pop_front() else {
            return Err(unasked("A body was refused"));
        };
        if !why.is_empty() {
            self.skip_step(Side::Local, Side::Remote, at, why);
        }
        self.arrived[at] = Some(false);
        self.has_come(at);
        Ok(())
    }

    fn has_come(&mut self, at: usize) {
        self.awaited_bytes -= self.coming(at);
        let index = self.plan.steps[Side::Local as usize][at].index;
        self.under_way[Side::Local as usize][index] = false;
    }
}

fn unasked(what: &str) -> Failure {
    LinkError::Protocol(format!("{what} that nobody asked for")).into()
}
