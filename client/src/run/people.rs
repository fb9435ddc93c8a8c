//! What is reported to people of the messages that a run deals with.

use std::collections::BTreeSet;
use std::path::Path;

use protocol::Op;
use protocol::message::At;

use rustix::io::Errno;

use super::left::Left;
use crate::merge::mapping::FolderName;
use crate::merge::plan::{Limits, Plan, Why};
use crate::merge::reconcile::Conflict;
use crate::merge::record::Side;
use crate::report::heading::named;
use crate::report::refusal::Refusal;
use crate::report::waiting::Waiting;
use crate::report::{ConflictText, Detail, LINES_MAX, PlannedAction, Summary};
use crate::run::failure::Failure;
use crate::run::hooks::{Event, Notice, Told};
use crate::run::session::Session;

/// What of the archive holds the conflicts that stand and were reported.
const REPORTED: &str = "told";

/// Says where both sides had changed the same thing, one sentence each. What stands since an earlier run is reported again by a
/// dry run only.
pub(super) fn describe(
    session: &Session,
    unreported: &Unreported,
    verbose: bool,
) -> Vec<ConflictText> {
    let shown = if verbose { usize::MAX } else { LINES_MAX };
    let messages = unreported.messages.iter().enumerate();
    let messages = messages.map(|(number, (index, conflict))| {
        conflict_text(session, *index, *conflict, number < shown)
    });
    renamed(&unreported.folders).chain(messages).collect()
}

/// Conflicts that no earlier run has reported.
pub(super) struct Unreported {
    folders: Vec<[FolderName; 3]>,
    messages: Vec<(usize, Conflict)>,
}

/// Which conflicts no earlier run has reported; for a dry run none has.
pub(super) fn unreported(
    session: &Session,
    conflicts: &[(usize, Conflict)],
) -> Result<Unreported, Failure> {
    let mut known: BTreeSet<String> = session.archive.get(REPORTED)?.unwrap_or_default();
    if session.account.dry_run {
        known.clear();
    }
    let is_new = |(index, conflict): &&(usize, Conflict)| {
        known.is_empty() || !known.contains(&conflict_text(session, *index, *conflict, false).text)
    };
    let folders = &session.folders.twice;
    let texts = renamed(folders).map(|folder| folder.text);
    let folders = folders.iter().zip(texts);
    let folders = folders.filter(|(_, text)| !known.contains(text));
    Ok(Unreported {
        folders: folders.map(|(names, _)| names.clone()).collect(),
        messages: conflicts.iter().filter(is_new).copied().collect(),
    })
}

/// Tells a hook of conflicts, with where a message is afterwards; nothing of it stops a run.
pub(super) fn tell(session: &Session, unreported: &Unreported, told: &mut Told) {
    let account = session.account;
    if Event::Conflict.command(account).is_none() {
        return;
    }
    for [_, _, there] in &unreported.folders {
        let folder = there.to_string();
        let notice = Notice::new("renamed", &folder, Path::new(""));
        told.add(account, Event::Conflict, &notice);
    }
    for (index, conflict) in &unreported.messages {
        let record = &session.set.all[*index].record;
        let Some(seen) = record.local.as_ref().or(record.remote.as_ref()) else {
            continue;
        };
        let at = session.at(Side::Local, &seen.place);
        let here = record.local.as_ref();
        let path = here.and_then(|_| session.local.lock().file_path(&at).ok()?);
        let (folder, path) = (
            session.folders.name(seen.place.folder),
            path.unwrap_or_default(),
        );
        let folder = folder.to_string();
        let notice = Notice::new(word(*conflict), &folder, &path);
        told.add(account, Event::Conflict, &notice);
    }
}

fn word(conflict: Conflict) -> &'static str {
    match conflict {
        Conflict::Moved => "moved",
        Conflict::Survived => "survived",
        Conflict::Shortened => "shortened",
        Conflict::Edited => "edited",
        Conflict::Damaged => "damaged",
        Conflict::Named => "named",
    }
}

/// Says which disks took no more, and what helps.
pub(super) fn say_full(full: &[Option<String>; 2]) -> Option<String> {
    let say = |side: Side| {
        let (why, word) = (full[side as usize].as_ref()?, side.word());
        let read_only = std::io::Error::from_raw_os_error(Errno::ROFS.raw_os_error()).to_string();
        Some(if *why == read_only {
            format!("The file system {word} is read-only ({why}); make it writable and run again")
        } else {
            format!(
                "The disk {word} took no more ({why}); make room and run again, what is done is kept"
            )
        })
    };
    let said: Vec<String> = Side::BOTH.into_iter().filter_map(say).collect();
    (!said.is_empty()).then(|| said.join(". "))
}

/// Remembers the conflicts that stand after a run, so that they are reported once.
pub(super) fn remember(session: &Session, conflicts: &[(usize, Conflict)]) -> Result<(), Failure> {
    let standing = conflicts.iter().filter(|(index, _)| {
        let record = &session.set.all[*index].record;
        !record.is_empty() && !record.is_agreed()
    });
    let twice = session.folders.renamed_twice(&session.account.filter);
    let standing =
        standing.map(|(index, conflict)| conflict_text(session, *index, *conflict, false));
    let standing = standing.chain(renamed(&twice));
    let standing: BTreeSet<String> = standing.map(|conflict| conflict.text).collect();
    let known: Option<BTreeSet<String>> = session.archive.get(REPORTED)?;
    if known.unwrap_or_default() != standing {
        session.archive.set(REPORTED, &standing)?;
    }
    Ok(())
}

fn renamed(twice: &[[FolderName; 3]]) -> impl Iterator<Item = ConflictText> {
    twice.iter().map(|[base, here, there]| ConflictText {
        folder: there.to_string(),
        text: format!(
            "{there}: the folder {base} was renamed on both sides, to {here} here; the server's name was kept"
        ),
    })
}

fn conflict_text(
    session: &Session,
    index: usize,
    conflict: Conflict,
    is_shown: bool,
) -> ConflictText {
    let record = &session.set.all[index].record;
    let seen = record.remote.as_ref().or(record.local.as_ref());
    let (folder, name) = seen.map_or_else(Default::default, |seen| {
        let folder = session.folders.name(seen.place.folder).to_string();
        (folder, seen.place.unique.to_string())
    });
    let heading = is_shown.then(|| session.heading(index)).flatten();
    let named = named(&folder, &name, heading.as_ref());
    let text = format!("{named} {}", what(conflict));
    ConflictText { folder, text }
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

/// Says what a dry run would do: all of it, or of one part of a long list after the other.
pub(super) fn preview(
    session: &Session,
    plan: &Plan,
    limits: Limits,
    detail: Detail,
    summary: &mut Summary,
) {
    let mut left = Left::after(limits, plan.waits.clone(), Why::Changed);
    let is_first_part = summary.waiting.is_none();
    let first = summary.actions.each.len();
    let mut sources = Vec::new();
    for side in Side::BOTH {
        let tally = match side {
            Side::Local => &mut summary.here,
            Side::Remote => &mut summary.there,
        };
        let (before, after) = (&plan.before[side as usize], &plan.after[side as usize]);
        for (id, op) in before.iter().chain(after) {
            left.folders.insert(*id);
            if is_first_part && let Some(action) = folder_action(session, side, op) {
                tally.folders += 1;
                sources.push(None);
                summary.actions.add(action, detail);
            }
        }
        let steps = plan.steps[side as usize].iter();
        for step in steps.filter(|step| !step.is_temporary) {
            left.messages.insert(step.index);
            tally.add(step.kind);
            tally.keywords_dropped += step.dropped;
            if let Some(action) = message_action(session, side, &step.op, step.kind.word()) {
                sources.push(Some(step.index));
                summary.actions.add(action, detail);
            }
        }
    }
    if detail.is_verbose || summary.actions.each.len() <= LINES_MAX {
        let actions = summary.actions.each.iter_mut().skip(first);
        for (action, index) in actions.zip(sources) {
            action.heading = index.and_then(|index| session.heading(index));
        }
    }
    if !session.is_through() {
        // They are counted once, with the last part.
        left.folders
            .extend(session.folders.iter().map(|(id, _)| id));
    }
    Waiting::add(
        summary.waiting.get_or_insert_default(),
        left.waiting(session),
    );
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
