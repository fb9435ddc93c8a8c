//! What a run may do, and why it may not do the rest.

use protocol::Op;
use protocol::message::{NewBody, Rights, Source};

use crate::merge::plan::Why;
use crate::merge::record::Side;

/// Which sides a run may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Only the local one.
    Pull,
    /// Only the remote one.
    Push,
    /// Both.
    Sync,
}

impl Direction {
    /// Whether a side may be changed.
    #[must_use]
    pub fn changes(self, side: Side) -> bool {
        match self {
            Direction::Pull => side == Side::Local,
            Direction::Push => side == Side::Remote,
            Direction::Sync => true,
        }
    }

    /// The command's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Direction::Pull => "pull",
            Direction::Push => "push",
            Direction::Sync => "sync",
        }
    }
}

/// What a run may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Which sides.
    pub direction: Direction,
    /// What the agent allows.
    pub rights: Rights,
    /// Whether deletions are held back on both sides.
    pub no_delete: bool,
    /// Whether there is no guard: then nothing that is deleted counts.
    pub is_unguarded: bool,
    /// Whether nothing was agreed before the run: what is agreed by now came in it, and so do copies of that.
    pub is_first: bool,
    /// How large a body may be that goes over the wire, where that is limited.
    pub body_max: Option<u64>,
}

impl Limits {
    /// Why an operation may not be asked of a side, if it may not.
    #[must_use]
    pub fn forbid(&self, side: Side, op: &Op) -> Option<Why> {
        let deletes = matches!(op, Op::Retire { .. } | Op::RemoveFolder { .. });
        let adds = matches!(op, Op::Create { .. } | Op::MakeFolder { .. });
        self.forbid_kind(side, deletes, adds)
            .or_else(|| self.forbid_body(op))
    }

    fn forbid_body(&self, op: &Op) -> Option<Why> {
        let body = match op {
            Op::Create { body, .. } => Some(body),
            Op::Update { body, .. } => body.as_ref(),
            Op::Retire { .. }
            | Op::MakeFolder { .. }
            | Op::RenameFolder { .. }
            | Op::RemoveFolder { .. } => None,
        };
        let is_sent = |body: &&NewBody| matches!(body.source, Source::Body { .. });
        let size = body.filter(is_sent)?.size;
        (size > self.body_max?).then_some(Why::Large)
    }

    /// The same of what takes something away, adds something, or neither.
    #[must_use]
    pub fn forbid_kind(&self, side: Side, deletes: bool, adds: bool) -> Option<Why> {
        match self.rights {
            _ if !self.direction.changes(side) => Some(Why::Unchanged(side)),
            _ if deletes && self.no_delete => Some(Why::NoDelete),
            _ if side == Side::Local => None,
            Rights::All => None,
            Rights::NoDelete => deletes.then_some(Why::RightNoDelete),
            Rights::AppendOnly => (!adds).then_some(Why::RightAppend),
            Rights::ReadOnly => Some(Why::RightRead),
        }
    }
}
