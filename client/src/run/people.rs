//! What people are told of the messages that a run deals with.

use protocol::Op;
use protocol::message::At;

use super::left::Left;
use crate::heading::named;
use crate::plan::{Kind, Limits, Plan};
use crate::reconcile::Conflict;
use crate::record::Side;
use crate::refusal::Refusal;
use crate::report::{LINES_MAX, PlannedAction, Summary, Tally, Told};
use crate::session::Session;
use crate::waiting::Why;

/// Says where both sides had changed the same thing, one sentence each.
pub(super) fn describe(
    session: &Session,
    conflicts: &[(usize, Conflict)],
    verbose: bool,
) -> Vec<Told> {
    let shown = if verbose { usize::MAX } else { LINES_MAX };
    let sentences = conflicts.iter().enumerate();
    let sentences = sentences.map(|(number, (index, conflict))| {
        let record = &session.set.all[*index].record;
        let seen = record.remote.as_ref().or(record.local.as_ref());
        let (folder, name) = seen.map_or_else(Default::default, |seen| {
            let folder = session.folders.name(seen.place.folder).to_string();
            (folder, seen.place.unique.to_string())
        });
        let heading = (number < shown).then(|| session.heading(*index)).flatten();
        let text = format!(
            "{} {}",
            named(&folder, &name, heading.as_ref()),
            what(*conflict)
        );
        Told { folder, text }
    });
    sentences.collect()
}

fn what(conflict: Conflict) -> &'static str {
    match conflict {
        Conflict::Moved => "was moved to two places; the server's was kept",
        Conflict::Survived => {
            "was deleted on one side and moved or edited on the other; it was kept"
        }
        Conflict::Shortened => {
            "was deleted on one side and became shorter on the other, by an edit or by damage; it was kept"
        }
        Conflict::Edited => "was edited on both sides; both versions were kept",
        Conflict::Damaged => {
            "is damaged on one side; that was not sent, and the good version comes back where there is one"
        }
        Conflict::Named => {
            "had the name of another message; both were kept, one under a fresh name"
        }
    }
}

/// Says what the messages are that the guard holds back, as far as they are shown.
pub(super) fn name_held(session: &Session, refusal: &mut Refusal, verbose: bool) {
    let shown = if verbose { usize::MAX } else { LINES_MAX };
    for held in refusal.holds.iter_mut().take(shown) {
        held.heading = session.heading(held.index);
    }
}

/// Says what a dry run would do.
pub(super) fn preview(
    session: &Session,
    plan: &Plan,
    limits: Limits,
    verbose: bool,
    summary: &mut Summary,
) {
    let mut left = Left::after(limits, plan.waits.clone(), Why::Changed);
    let mut sources = Vec::new();
    for side in Side::BOTH {
        let mut tally = Tally::default();
        let (before, after) = (&plan.before[side as usize], &plan.after[side as usize]);
        for (id, op) in before.iter().chain(after) {
            if let Some(action) = folder_action(session, side, op) {
                tally.folders += 1;
                left.folders.insert(*id);
                sources.push(None);
                summary.actions.push(action);
            }
        }
        let steps = plan.steps[side as usize].iter();
        for step in steps.filter(|step| !step.is_detour) {
            left.messages.insert(step.index);
            let (count, action) = counted(&mut tally, step.kind);
            *count += 1;
            tally.keywords_dropped += step.dropped;
            sources.push(Some(step.index));
            summary
                .actions
                .extend(message_action(session, side, &step.op, action));
        }
        match side {
            Side::Local => summary.here = tally,
            Side::Remote => summary.there = tally,
        }
    }
    if verbose || summary.actions.len() <= LINES_MAX {
        for (action, index) in summary.actions.iter_mut().zip(sources) {
            action.heading = index.and_then(|index| session.heading(index));
        }
    }
    summary.waiting = Some(left.waiting(session));
}

fn counted(tally: &mut Tally, kind: Kind) -> (&mut u64, &'static str) {
    match kind {
        Kind::New => (&mut tally.new, "new"),
        Kind::Copied => (&mut tally.copied, "copy"),
        Kind::Moved => (&mut tally.moved, "move"),
        Kind::Flags => (&mut tally.flags, "flags"),
        Kind::Replaced => (&mut tally.replaced, "replace"),
        Kind::Deleted => (&mut tally.deleted, "delete"),
    }
}

fn folder_action(session: &Session, side: Side, op: &Op) -> Option<PlannedAction> {
    let text = |dir| session.folders.text(side, dir);
    let (action, dir, to) = match op {
        Op::MakeFolder { dir } => ("make-folder", dir, None),
        Op::RemoveFolder { dir, .. } => ("remove-folder", dir, None),
        Op::RenameFolder { from, to, .. } => ("rename-folder", from, Some(text(to))),
        Op::Create { .. } | Op::Update { .. } | Op::Retire { .. } => return None,
    };
    Some(PlannedAction {
        side: side.word(),
        action,
        folder: text(dir),
        name: String::new(),
        to,
        heading: None,
    })
}

fn message_action(
    session: &Session,
    side: Side,
    op: &Op,
    action: &'static str,
) -> Option<PlannedAction> {
    let (at, to): (&At, Option<&At>) = match op {
        Op::Create { at, .. } | Op::Retire { at, .. } => (at, None),
        Op::Update { at, to, .. } => (at, Some(to).filter(|to| *to != at)),
        Op::MakeFolder { .. } | Op::RenameFolder { .. } | Op::RemoveFolder { .. } => return None,
    };
    let text = |at: &At| session.folders.text(side, &at.folder);
    Some(PlannedAction {
        side: side.word(),
        action,
        folder: text(at),
        name: at.unique.to_string(),
        to: to.map(|to| format!("{}/{}", text(to), to.unique)),
        heading: None,
    })
}
