//! What is to be done on one side, and how far that has come. Values only.

use std::collections::{HashMap, HashSet, VecDeque};

use protocol::message::At;
use protocol::{Cursor, Digest, FolderDir, Op, Outcome, Unique};

use crate::merge::plan::Step;
use crate::merge::record::{Fid, Side};

/// One side's part of a plan.
pub(super) struct Lane {
    /// Where it is done. Its bodies come from the other side.
    pub(super) side: Side,
    /// Folder operations before the steps, and after them.
    pub(super) first: Vec<(Fid, Op)>,
    pub(super) last: Vec<(Fid, Op)>,
    /// In the order in which they are carried out.
    pub(super) steps: Vec<Step>,
    /// The next step that is in no batch.
    pub(super) next: usize,
    /// Batches that the archive has as asked for, and whose bodies have not all come. They come for the first one only.
    pub(super) forming: VecDeque<Batch>,
    /// Whether the first of those batches has been sent to the side.
    pub(super) is_open: bool,
    /// The steps of those batches whose bodies have not come, in the order in which they will.
    pub(super) awaited: VecDeque<usize>,
    /// How many of them, counted from the first, the other side was asked for; and how many bytes those have.
    pub(super) asked: usize,
    pub(super) asked_bytes: u64,
    /// No more bodies are asked for. Those that were not count as unavailable.
    pub(super) is_cut: bool,
    /// Batches and folder operations whose outcomes are due, oldest first.
    pub(super) in_flight: VecDeque<InFlight>,
    /// The messages, by their index, whose bytes come from the other side. Until they have come it must not move them.
    pub(super) under_way: HashSet<usize>,
    /// Which step goes on with the part of a large body that an earlier run left.
    pub(super) resumed: HashMap<Digest, usize>,
    pub(super) is_finish_sent: bool,
    pub(super) finished: Option<Cursor>,
}

/// Steps that are asked for together.
pub(super) struct Batch {
    /// Under which number the archive has them.
    pub(super) asked: i64,
    pub(super) steps: Vec<usize>,
    pub(super) ops: Vec<Op>,
    /// How many of their bodies have not come.
    pub(super) bodies: usize,
    /// How many bytes their bodies have.
    pub(super) bytes: u64,
    pub(super) outcomes: Vec<Outcome>,
}

/// Something whose outcomes are due.
pub(super) struct InFlight {
    pub(super) of: Of,
    /// How many bytes its bodies have.
    pub(super) bytes: u64,
    pub(super) outcomes: Vec<Outcome>,
}

/// What outcomes are about.
pub(super) enum Of {
    Steps { asked: i64, steps: Vec<usize> },
    Folders(Vec<(Fid, Op)>),
}

impl Of {
    fn len(&self) -> usize {
        match self {
            Of::Steps { steps, .. } => steps.len(),
            Of::Folders(ops) => ops.len(),
        }
    }
}

impl Lane {
    pub(super) fn new(side: Side, steps: Vec<Step>, [first, last]: [Vec<(Fid, Op)>; 2]) -> Lane {
        let wired = steps.iter().filter(|step| step.op.wired().is_some());
        Lane {
            side,
            first,
            last,
            under_way: wired.map(|step| step.index).collect(),
            steps,
            next: 0,
            forming: VecDeque::new(),
            is_open: false,
            awaited: VecDeque::new(),
            asked: 0,
            asked_bytes: 0,
            is_cut: false,
            in_flight: VecDeque::new(),
            resumed: HashMap::new(),
            is_finish_sent: false,
            finished: None,
        }
    }

    /// How many bytes come for it in all.
    pub(super) fn bytes(&self) -> u64 {
        let sizes = self.steps.iter().map(size);
        sizes.fold(0, u64::saturating_add)
    }

    /// How many bytes the bodies of its batches under way have.
    pub(super) fn bytes_under_way(&self) -> u64 {
        let forming = self.forming.iter().map(|batch| batch.bytes);
        let in_flight = self.in_flight.iter().map(|batch| batch.bytes);
        forming.chain(in_flight).fold(0, u64::saturating_add)
    }

    /// Puts a later step first that brings bytes over, where the first one has to wait: one that is about other places than all
    /// before it. Returns whether there is one.
    pub(super) fn bring_forward(&mut self, blocked: &HashSet<usize>) -> bool {
        let rest = &self.steps[self.next..];
        let mut named: HashSet<(FolderDir, Unique, u16)> = HashSet::new();
        let place = |at: &At| (at.folder.clone(), at.unique.clone(), at.copy);
        let free = rest.iter().position(|step| {
            let is_free = step.op.wired().is_some()
                && !blocked.contains(&step.index)
                && step.op.places().all(|at| !named.contains(&place(at)));
            named.extend(step.op.places().map(place));
            is_free
        });
        if let Some(at) = free {
            self.steps[self.next..=self.next + at].rotate_right(1);
        }
        free.is_some()
    }

    /// The next body has come, or will not.
    pub(super) fn body_is_over(&mut self) {
        if let Some(at) = self.awaited.pop_front() {
            self.under_way.remove(&self.steps[at].index);
        }
        if let Some(batch) = self.forming.front_mut() {
            batch.bodies = batch.bodies.saturating_sub(1);
        }
    }

    /// The open batch has all its bodies: its outcomes are due. Returns whether it has.
    pub(super) fn close_batch(&mut self) -> bool {
        let is_whole = |batch: &&Batch| batch.bodies == 0;
        if !self.is_open || self.forming.front().filter(is_whole).is_none() {
            return false;
        }
        self.is_open = false;
        self.in_flight
            .extend(self.forming.pop_front().map(|batch| InFlight {
                of: Of::Steps {
                    asked: batch.asked,
                    steps: batch.steps,
                },
                bytes: batch.bytes,
                outcomes: batch.outcomes,
            }));
        true
    }

    /// Takes outcomes in, each for the oldest that has none; also those of the open batch. Returns what has all of them now, or
    /// nothing where more came than are due.
    pub(super) fn take(&mut self, outcomes: Vec<Outcome>) -> Option<Vec<(Of, Vec<Outcome>)>> {
        let mut rest = outcomes.into_iter().peekable();
        let mut whole = Vec::new();
        while let Some(first) = self.in_flight.front_mut() {
            let missing = first.of.len() - first.outcomes.len();
            first.outcomes.extend(rest.by_ref().take(missing));
            if first.outcomes.len() < first.of.len() {
                return Some(whole);
            }
            let first = self.in_flight.pop_front();
            whole.extend(first.map(|first| (first.of, first.outcomes)));
        }
        if rest.peek().is_none() {
            return Some(whole);
        }
        let open = self.forming.front_mut().filter(|_| self.is_open)?;
        open.outcomes.extend(rest);
        (open.outcomes.len() <= open.steps.len()).then_some(whole)
    }

    /// Whether a body that was asked for has not come.
    pub(super) fn is_body_due(&self) -> bool {
        self.asked > 0
    }

    /// Whether no further body will be asked for.
    pub(super) fn is_all_asked(&self) -> bool {
        let is_asked = self.is_cut || self.asked == self.awaited.len();
        self.next == self.steps.len() && is_asked
    }

    /// Whether nothing is due of it any more; of the last part of a run also the end.
    pub(super) fn is_through(&self, is_last: bool) -> bool {
        match is_last {
            true => self.finished.is_some(),
            false => self.is_all_begun() && self.in_flight.is_empty(),
        }
    }

    /// Whether all its batches were asked for, and have their bodies.
    pub(super) fn is_all_begun(&self) -> bool {
        self.next == self.steps.len() && self.forming.is_empty()
    }
}

/// How many bytes come for a step.
pub(super) fn size(step: &Step) -> u64 {
    step.op.wired().map_or(0, |body| body.size)
}
