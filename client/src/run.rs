//! The story of one account's pull, push or sync: open, merge, ask the guard, carry out, say what happened.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use protocol::message::At;
use protocol::{Op, Request};

use crate::archive::now_secs;
use crate::config::{Account, MaxDelete};
use crate::consent::{Asking, ask_guard};
use crate::execute::{Done, Executor};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::filter::Scope;
use crate::hooks::run_post;
use crate::plan::{Direction, Kind, Limits, Plan, Planner};
use crate::progress::{Phase, Progress};
use crate::reconcile::Conflict;
use crate::record::{Fid, Side};
use crate::report::{PlannedAction, Skipped, Summary, Tally};
use crate::session::Session;

/// Syncs one account; whatever happens is in the summary.
#[must_use]
pub fn run(account: &Account, direction: Direction, progress: &Progress, verbose: bool) -> Summary {
    let begun = Instant::now();
    let mut summary = Summary {
        account: account.name.clone(),
        direction: direction.name(),
        dry_run: account.dry_run,
        ..Summary::default()
    };
    if let Err(failure) = sync(account, direction, progress, verbose, &mut summary) {
        summary.error = Some(failure.to_string());
        summary.exit = summary.exit.worst(failure.exit_code());
    }
    progress.clear();
    summary.seconds = begun.elapsed().as_secs_f64();
    summary
}

fn sync(
    account: &Account,
    direction: Direction,
    progress: &Progress,
    verbose: bool,
    summary: &mut Summary,
) -> Result<(), Failure> {
    progress.begin(Phase::Scanning, 0, 0);
    let mut session = Session::open(account, direction, verbose)?;
    summary.notes.extend(unmatched(account, &session));
    progress.begin(Phase::Comparing, session.set.all.len() as u64, 0);
    let plan = make_plan(&mut session, account, direction, summary)?;
    summary.notes.append(&mut session.notes);
    let skipped = std::mem::take(&mut session.skipped);
    if account.dry_run {
        preview(&session, &plan, summary);
        return finish(session, skipped, summary);
    }
    session.store_changed()?;
    let (done, result) = carry_out(&mut session, plan, progress);
    (summary.bytes_sent, summary.bytes_received) = session.link.bytes();
    [summary.here, summary.there] = done.tallies;
    // Also after a run that broke off: the next one does not name these files again.
    if let Some(command) = &account.post_hook
        && !done.changed.is_empty()
        && let Err(why) = run_post(command, &done.changed)
    {
        summary.notes.push(why);
    }
    summary.pending = pending(&session, &HashSet::new());
    result?;
    if let Some((side, why)) = done.full {
        summary.exit = summary.exit.worst(ExitCode::Error);
        summary.error = Some(format!(
            "The disk {} took no more ({why}); make room and run again, what is done is kept",
            side.word()
        ));
    } else {
        session.archive.set("last_sync", &now_secs())?;
    }
    let skipped = skipped.into_iter().chain(done.skipped).collect();
    finish(session, skipped, summary)
}

/// Says which typed patterns match no folder of either side.
fn unmatched(account: &Account, session: &Session) -> Option<String> {
    let folders = session.folders.iter().map(|(_, folder)| folder);
    let sides = folders.flat_map(|folder| [&folder.local, &folder.remote]);
    let names: Vec<&[u8]> = sides.flatten().map(|(_, name)| name.as_bytes()).collect();
    let patterns = account.filter.unmatched(&names);
    (!patterns.is_empty()).then(|| {
        format!(
            "No folder matches {}; folders are named like INBOX or Lists/debian",
            patterns.join(", ")
        )
    })
}

/// Decides what is to be done, and says what the guard holds back.
fn make_plan(
    session: &mut Session,
    account: &Account,
    direction: Direction,
    summary: &mut Summary,
) -> Result<Plan, Failure> {
    let limits = Limits {
        direction,
        rights: session.welcome.rights,
        no_delete: account.no_delete,
        is_unguarded: account.guard == MaxDelete::Percent(100),
    };
    let Session {
        set,
        folders,
        archive,
        deleted_lately,
        ..
    } = &mut *session;
    let mut planner = Planner::new(set, folders, archive, &account.filter, limits);
    let guarded = ask_guard(
        &mut planner,
        &Asking {
            account,
            archive,
            folders,
            deleted_lately: *deleted_lately,
        },
    )?;
    let plan = guarded.plan;
    summary.conflicts = plan
        .conflicts
        .iter()
        .map(|(index, conflict)| describe(session, *index, *conflict))
        .collect();
    summary.plan = guarded.name;
    summary.notes.extend(guarded.held);
    if summary.plan.is_some() {
        summary.exit = ExitCode::Unsafe;
    }
    Ok(plan)
}

/// Carries a plan out. One without anything in it asks nothing: then the agent's list was its last word, what it covers is
/// stored, and its answer to the end is not waited for, which would take a flight more.
fn carry_out(
    session: &mut Session,
    plan: Plan,
    progress: &Progress,
) -> (Done, Result<(), Failure>) {
    let Plan {
        steps,
        before,
        after,
        ..
    } = &plan;
    let is_nothing =
        steps.iter().all(Vec::is_empty) && before.iter().chain(after).all(Vec::is_empty);
    // A first sync stores how far it came only at its end.
    if is_nothing && !session.is_first {
        session.link.request(Request::Finish);
        return (Done::default(), Ok(()));
    }
    match Executor::new(session, plan, progress) {
        Ok(executor) => executor.run(),
        Err(failure) => (Done::default(), Err(failure)),
    }
}

/// Closes the connection and says what was left alone, but only when that list is another one than last time.
fn finish(session: Session, skipped: Vec<Skipped>, summary: &mut Summary) -> Result<(), Failure> {
    let skipped: BTreeSet<Skipped> = skipped.into_iter().collect();
    let known: BTreeSet<Skipped> = session.archive.get("skipped")?.unwrap_or_default();
    if skipped != known {
        session.archive.set("skipped", &skipped)?;
        if !skipped.is_empty() {
            summary.exit = summary.exit.worst(ExitCode::Skipped);
            summary.skipped = skipped.into_iter().collect();
        }
    }
    let (sent, received) = session.link.close();
    (summary.bytes_sent, summary.bytes_received) = (sent, received);
    Ok(())
}

// What people see.

fn describe(session: &Session, index: usize, conflict: Conflict) -> String {
    let record = &session.set.all[index].record;
    let seen = record.remote.as_ref().or(record.local.as_ref());
    let name = seen.map_or_else(String::new, |seen| {
        format!(
            "{}/{}",
            session.folders.name(seen.place.folder),
            seen.place.unique
        )
    });
    let what = match conflict {
        Conflict::Moved => "was moved to two places; the server's was kept",
        Conflict::Survived => {
            "was deleted on one side and moved or edited on the other; it was kept"
        }
        Conflict::Edited => "was edited on both sides; both versions were kept",
        Conflict::Damaged => {
            "is damaged on one side; that was not sent, and the good version comes back where there is one"
        }
        Conflict::Named => {
            "had the name of another message; both were kept, one under a fresh name"
        }
    };
    format!("{name} {what}")
}

/// How many messages and folders are not as they shall be on both sides, but for those that a plan takes care of.
fn pending(session: &Session, planned: &HashSet<usize>) -> u64 {
    let filter = &session.account.filter;
    let is_known = |id: Fid| session.folders.scope(filter, id) != Scope::Excluded;
    let messages = session.set.all.iter().enumerate().filter(|(index, work)| {
        !work.record.is_empty()
            && !work.record.is_agreed()
            && !planned.contains(index)
            && work.record.folders().any(is_known)
    });
    let folders = session.folders.iter().filter(|(id, folder)| {
        let names =
            [folder.on(Side::Local), folder.on(Side::Remote)].map(|on| on.map(|(_, name)| name));
        names[0] != names[1] && is_known(*id)
    });
    let folders = if planned.is_empty() {
        folders.count()
    } else {
        0
    };
    (messages.count() + folders) as u64
}

/// Says what a dry run would do.
fn preview(session: &Session, plan: &Plan, summary: &mut Summary) {
    let mut planned = HashSet::new();
    for side in Side::BOTH {
        let name = side.word();
        let mut tally = Tally::default();
        for (_, op) in plan.before[side as usize]
            .iter()
            .chain(&plan.after[side as usize])
        {
            summary.actions.extend(action(name, op, None));
        }
        for step in plan.steps[side as usize]
            .iter()
            .filter(|step| !step.is_detour)
        {
            planned.insert(step.index);
            let (count, text) = match step.kind {
                Kind::New => (&mut tally.new, "new"),
                Kind::Copied => (&mut tally.copied, "copy"),
                Kind::Moved => (&mut tally.moved, "move"),
                Kind::Flags => (&mut tally.flags, "flags"),
                Kind::Replaced => (&mut tally.replaced, "replace"),
                Kind::Deleted => (&mut tally.deleted, "delete"),
            };
            *count += 1;
            summary.actions.extend(action(name, &step.op, Some(text)));
        }
        match side {
            Side::Local => summary.here = tally,
            Side::Remote => summary.there = tally,
        }
    }
    summary.pending = pending(session, &planned);
}

fn action(side: &'static str, op: &Op, kind: Option<&'static str>) -> Option<PlannedAction> {
    let folder = |action, name: &protocol::FolderName, to: Option<String>| PlannedAction {
        side,
        action,
        folder: name.to_string(),
        name: String::new(),
        to,
    };
    let message = |at: &At, to: Option<String>| PlannedAction {
        side,
        action: kind.unwrap_or("change"),
        folder: at.folder.to_string(),
        name: at.unique.to_string(),
        to,
    };
    match op {
        Op::MakeFolder { name } => Some(folder("make-folder", name, None)),
        Op::RemoveFolder { name, .. } => Some(folder("remove-folder", name, None)),
        Op::RenameFolder { from, to, .. } => {
            Some(folder("rename-folder", from, Some(to.to_string())))
        }
        Op::Create { at, .. } | Op::Retire { at, .. } => Some(message(at, None)),
        Op::Update { at, to, .. } => {
            let target = (at != to).then(|| format!("{}/{}", to.folder, to.unique));
            Some(message(at, target))
        }
    }
}
