//! Bodies on their way from one side to the other.

use maildir::SMALL_BYTES_MAX;
use protocol::Request;
use protocol::codec::batches;
use protocol::message::Fetch;

use super::Executor;
use super::lane::size;
use crate::endpoint::link::LinkError;
use crate::merge::plan::Why;
use crate::merge::record::Side;
use crate::run::failure::Failure;

/// How many bodies are asked for ahead of what has come.
const FETCHES_AHEAD: usize = 4096;
/// How many are asked for in one message: the other end looks all of them up before it sends the first.
const FETCHES_STEP: usize = 256;
/// How many bytes of bodies are asked for ahead; one body alone may be larger. So much is read ahead here, so that nothing piles
/// up in ssh, which gets slower the fuller its buffers are.
const BYTES_ASKED: u64 = 4 << 20;

impl Executor<'_, '_> {
    /// Asks the other side for the next bodies of a side's batches.
    pub(super) fn ask_for_bodies(&mut self, side: Side) {
        let lane = &self.lanes[side as usize];
        if lane.is_cut || lane.asked > FETCHES_AHEAD / 2 || lane.asked_bytes > BYTES_ASKED / 2 {
            return;
        }
        let mut lines = Vec::new();
        loop {
            let lane = &self.lanes[side as usize];
            let Some(&at) = lane.awaited.get(lane.asked) else {
                break;
            };
            if lane.asked == FETCHES_AHEAD || lane.asked_bytes >= BYTES_ASKED {
                break;
            }
            let Some(line) = self.fetch(side, at) else {
                break;
            };
            lines.push(line);
            let lane = &mut self.lanes[side as usize];
            lane.asked += 1;
            lane.asked_bytes = lane.asked_bytes.saturating_add(size(&lane.steps[at]));
        }
        let from = self.session.endpoint(side.other());
        for lines in lines.chunks(FETCHES_STEP) {
            for lines in batches(lines.to_vec()) {
                from.request(Request::Fetch(lines));
            }
        }
    }

    /// Where the body of a step lies on the other side, and from which byte on it is wanted.
    fn fetch(&mut self, side: Side, at: usize) -> Option<Fetch> {
        let offset = self.kept_bytes(side, at).unwrap_or(0);
        let step = &self.lanes[side as usize].steps[at];
        let body = step.op.wired()?;
        let from = side.other();
        let seen = self.session.set.all[step.index].record.seen(from)?;
        let renaming = &self.renaming[from as usize];
        Some(Fetch {
            at: self.session.folders.at(from, &seen.place, renaming),
            digest: body.digest,
            offset,
        })
    }

    /// How much of a step's body an earlier run left on its side. Of several equal ones the first goes on with it.
    pub(super) fn kept_bytes(&mut self, side: Side, at: usize) -> Option<u64> {
        let lane = &mut self.lanes[side as usize];
        let body = lane.steps[at].op.wired()?;
        let kept = self.session.partials[side as usize].get(&body.digest);
        let kept = kept.filter(|_| body.size > SMALL_BYTES_MAX);
        let first = kept.map(|_| *lane.resumed.entry(body.digest).or_insert(at));
        let is_first = first == Some(at);
        Some(kept.map_or(0, |kept| if is_first { *kept } else { 0 }.min(body.size)))
    }

    /// A piece of the next body for a side has come.
    pub(super) fn take_body(
        &mut self,
        side: Side,
        bytes: Vec<u8>,
        is_last: bool,
    ) -> Result<(), Failure> {
        if self.lanes[side as usize].asked == 0 {
            return Err(unasked("A body came"));
        }
        self.progress.advance(0, bytes.len() as u64);
        self.session.endpoint(side).body(bytes, is_last)?;
        if is_last {
            self.body_has_come(side)?;
        }
        Ok(())
    }

    /// The next body for a side is unavailable.
    pub(super) fn take_no_body(&mut self, side: Side, why: &str) -> Result<(), Failure> {
        let lane = &self.lanes[side as usize];
        let Some(&at) = lane.awaited.front().filter(|_| lane.asked > 0) else {
            return Err(unasked("A body was refused"));
        };
        if !why.is_empty() {
            self.skip_step(side, side.other(), at, why);
        }
        self.session.endpoint(side).body(Vec::new(), true)?;
        self.body_has_come(side)
    }

    fn body_has_come(&mut self, side: Side) -> Result<(), Failure> {
        let lane = &mut self.lanes[side as usize];
        if let Some(&at) = lane.awaited.front() {
            lane.asked -= 1;
            lane.asked_bytes -= size(&lane.steps[at]);
        }
        lane.body_is_over();
        // The next one may be of the next batch.
        self.begin_batches(side)
    }

    /// Bodies of the open batch that will not be asked for are unavailable, in their turn.
    pub(super) fn give_up_bodies(&mut self, side: Side) -> Result<(), Failure> {
        loop {
            let lane = &self.lanes[side as usize];
            let is_due = lane.is_open && lane.asked == 0;
            let open = lane.forming.front().filter(|batch| batch.bodies > 0);
            let (true, Some(_), Some(&at)) = (is_due, open, lane.awaited.front()) else {
                return Ok(());
            };
            if !lane.is_cut && self.fetch(side, at).is_some() {
                return Ok(());
            }
            if self.done.full[side as usize].is_some() {
                self.wait(side, at, Why::Full(side));
            }
            self.session.endpoint(side).body(Vec::new(), true)?;
            self.lanes[side as usize].body_is_over();
        }
    }
}

fn unasked(what: &str) -> Failure {
    LinkError::Protocol(format!("{what} that nobody asked for")).into()
}
