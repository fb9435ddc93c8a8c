//! What an operation takes away, and whether that counts for the guard.

use protocol::message::{At, Consent, Reason, Source};
use protocol::{Op, Outcome};

/// What an operation takes away, and why.
pub(crate) fn trashed(op: &Op) -> Option<(&At, Reason)> {
    match op {
        Op::Retire { at, reason, .. } => Some((at, *reason)),
        Op::Update {
            at,
            body: Some(body),
            ..
        } => match body.source {
            Source::Body { .. } | Source::Copy(_) => Some((at, Reason::Replaced)),
            // Nothing of it is lost.
            Source::Remade(_) => None,
        },
        Op::Update { .. }
        | Op::Create { .. }
        | Op::MakeFolder { .. }
        | Op::RenameFolder { .. }
        | Op::RemoveFolder { .. } => None,
    }
}

/// Whether an operation takes away what counts for the guard.
pub(crate) fn counts(op: &Op) -> bool {
    matches!(
        op,
        Op::Retire {
            consent: Consent::Counts,
            ..
        } | Op::Update {
            body: Some(_),
            consent: Consent::Counts,
            ..
        }
    )
}

/// How much of what was carried out counts for the guard.
pub(crate) fn counted(ops: &[Op], outcomes: &[Outcome]) -> u64 {
    let all = ops.iter().zip(outcomes);
    all.filter(|(op, outcome)| counts(op) && matches!(outcome, Outcome::Done { .. }))
        .count() as u64
}

/// Whether an operation takes anything away.
pub(crate) fn is_trashing(op: &Op) -> bool {
    trashed(op).is_some() || matches!(op, Op::RemoveFolder { .. })
}
