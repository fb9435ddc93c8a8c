//! The story of one account's pull, push or sync: open, stream, merge, ask the guard, carry out, say what happened.
//!
//! [`session`] opens both sides and takes in what they report, [`stream`] is a first pull, [`mod@execute`] carries a plan out. What a
//! message shall be is for [`crate::merge`] to say, and how the other end is reached for [`crate::endpoint`]; it must never know
//! ssh, SQL or a message's bytes.

use std::collections::BTreeSet;
use std::time::Instant;

use protocol::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Account;
use crate::endpoint::Endpoint;
use crate::endpoint::stop::Stop;
use crate::endpoint::transport::ConnectOptions;
use crate::merge::guard::MaxDelete;
use crate::merge::plan::{Direction, Limits, Plan, Why};
use crate::merge::record::Side;
use crate::merge::{self, Joined};
use crate::report::exit_code::ExitCode;
use crate::report::progress::{Phase, Progress};
use crate::report::skipped::Skipped;
use crate::report::waiting::Waiting;
use crate::report::{Detail, Summary};
use crate::run::consent::{GuardInput, ask_guard};
use crate::run::execute::{Executed, Executor};
use crate::run::failure::Failure;
use crate::run::hooks::Hooks;
use crate::run::kept::Kept;
use crate::run::session::{Session, keeps_state_inside};

pub mod attempt;
mod consent;
mod execute;
mod failure;
pub mod hooks;
pub mod kept;
pub mod known;
mod left;
pub mod pause;
mod people;
mod session;
pub mod status;
pub mod stream;
pub mod watching;

use left::Left;
use people::{describe, preview};

/// Syncs one account; whatever happens is in the summary, and remembered for `status`.
#[must_use]
pub fn run(
    account: &Account,
    direction: Direction,
    progress: &Progress,
    detail: Detail,
    stop: &Stop,
) -> Summary {
    // Without a connection that was kept, both sides are always compared.
    round(account, direction, progress, detail, stop, None).unwrap_or_default()
}

/// The same, as a round on a connection that is kept; nothing where there is nothing new on either side.
#[must_use]
pub fn round(
    account: &Account,
    direction: Direction,
    progress: &Progress,
    detail: Detail,
    stop: &Stop,
    kept: Option<&mut Kept>,
) -> Option<Summary> {
    let begun = Instant::now();
    let mut summary = Summary {
        account: account.name.clone(),
        direction: direction.name(),
        dry_run: account.dry_run,
        ..Summary::default()
    };
    if !account.dry_run
        && let Some(paused) = pause::current(&account.state_dir)
    {
        summary.error = Some(paused.sentence());
        summary.exit = ExitCode::Temporary;
        summary.is_not_now = true;
        return Some(summary);
    }
    let options = ConnectOptions::of(account, detail.is_verbose, stop);
    let given = Given {
        account,
        direction,
        progress,
        options: &options,
        detail,
    };
    let mut hooks = Hooks::new(account);
    match sync(&given, &mut summary, &mut hooks, kept) {
        Ok(true) => {}
        Ok(false) => return None,
        Err(failure) => {
            summary.error = Some(failure.to_string());
            summary.is_lasting = failure.is_lasting();
            summary.is_not_now = matches!(failure, Failure::NotNow(_));
            summary.exit = summary.exit.worst(failure.exit_code());
        }
    }
    progress.clear();
    summary.seconds = begun.elapsed().as_secs_f64();
    if summary.is_not_now {
        return Some(summary);
    }
    if !account.dry_run && !keeps_state_inside(account) {
        match attempt::remember(account, &summary) {
            Ok(turn) => turn.into_iter().for_each(|turn| hooks.add_turn(turn)),
            Err(error) => summary.notes.push(format!(
                "What became of this run is not remembered for `status`: {error}"
            )),
        }
    }
    // No other run waits for a hook: every lock is released by now.
    let warnings = hooks.run(&summary, stop);
    summary.notes.extend(warnings);
    Some(summary)
}

/// What a run is given.
#[derive(Clone, Copy)]
struct Given<'r> {
    account: &'r Account,
    direction: Direction,
    progress: &'r Progress,
    options: &'r ConnectOptions,
    detail: Detail,
}

/// Whether there was anything to compare.
fn sync(
    given: &Given,
    summary: &mut Summary,
    hooks: &mut Hooks,
    mut kept: Option<&mut Kept>,
) -> Result<bool, Failure> {
    let Given {
        account,
        direction,
        progress,
        options,
        detail,
    } = *given;
    progress.begin(Phase::Scanning, 0, 0);
    let mut before = || match hooks.before(&options.stop) {
        Ok(warning) => {
            summary.notes.extend(warning);
            Ok(())
        }
        Err(why) => Err(Failure::NotNow(why)),
    };
    let opened = Session::open(
        account,
        direction,
        options,
        progress,
        kept.as_deref_mut(),
        &mut before,
    );
    let nothing = || "nothing had come".to_owned();
    let Some(mut session) = opened.map_err(|failure| failure.after(nothing))? else {
        return Ok(false);
    };
    let (mut streamed, result) = session.stream(progress, &options.stop);
    account_for(&session, &mut streamed, summary, hooks)?;
    if result.is_err() {
        let unreached = (0..streamed.unreached).map(|_| (Why::Unreached, false));
        summary.waiting = Some(Waiting::count(unreached));
    }
    result?;
    if streamed.full.iter().any(Option::is_some) {
        say_full(&streamed, summary);
        finish(session, streamed.skipped, summary, kept)?;
        return Ok(true);
    }
    let limits = Limits {
        direction,
        rights: session.welcome.rights,
        no_delete: account.no_delete,
        is_unguarded: account.guard == MaxDelete::Percent(100),
        is_first: session.is_first,
        body_max: kept.as_ref().and_then(|kept| kept.body_max),
    };
    let mut done = streamed;
    loop {
        let joined = match options.stop.is_requested() {
            true => Err(Failure::interrupted()),
            false => session.observe(),
        };
        let joined = joined.map_err(|failure| failure.after(|| so_far(&done)))?;
        if !session.is_continued() {
            progress.begin(Phase::Comparing, session.set.all.len() as u64, 0);
        }
        let plan = make_plan(&mut session, joined, limits, detail.is_verbose, summary)?;
        summary.notes.append(&mut session.notes);
        if account.dry_run {
            preview(&session, &plan, limits, detail, summary);
        } else {
            done = carry_out(&mut session, plan, limits, given, done, summary, hooks)?;
        }
        if session.is_through() || done.full.iter().any(Option::is_some) {
            break;
        }
    }
    summary.notes.extend(unmatched(&session)?);
    let mut skipped = std::mem::take(&mut session.skipped);
    add_unseen(&session, &skipped, summary);
    say_full(&done, summary);
    skipped.append(&mut done.skipped);
    finish(session, skipped, summary, kept)?;
    Ok(true)
}

/// How many messages were dealt with, for people.
fn so_far(done: &Executed) -> String {
    let dealt = Side::BOTH.map(|side| (done.tallies[side as usize].messages(), side.word()));
    let dealt = dealt.into_iter().filter(|(count, _)| *count > 0);
    let dealt: Vec<String> = dealt
        .map(|(count, word)| format!("{count} messages are {word}"))
        .collect();
    match dealt.is_empty() {
        true => "nothing had come".to_owned(),
        false => dealt.join(", "),
    }
}

/// Carries a plan out, after what is done already, and says what is left.
fn carry_out(
    session: &mut Session,
    mut plan: Plan,
    limits: Limits,
    given: &Given,
    mut done: Executed,
    summary: &mut Summary,
    hooks: &mut Hooks,
) -> Result<Executed, Failure> {
    session.store_changed()?;
    let mut waits = std::mem::take(&mut plan.waits);
    let conflicts = std::mem::take(&mut plan.conflicts);
    let unreported = people::unreported(session, &conflicts)?;
    done.waits.clear();
    let taken_there = |done: &Executed| {
        let tally = &done.tallies[Side::Remote as usize];
        tally.deleted + tally.replaced
    };
    let before = taken_there(&done);
    let (mut done, result) = execute(session, plan, given.progress, &given.options.stop, done);
    session.end_part(taken_there(&done) - before);
    people::tell(session, &unreported, &mut done.told);
    account_for(session, &mut done, summary, hooks)?;
    waits.extend(&done.waits);
    let is_full = |side: &Side| done.full[*side as usize].is_some();
    let otherwise = match Side::BOTH.into_iter().find(is_full) {
        Some(side) => Why::Full(side),
        None if result.is_err() => Why::Unreached,
        None => Why::Changed,
    };
    let left = Left {
        unlisted: session.unlisted(),
        stale: done.stale.clone(),
        ..Left::after(limits, waits, otherwise)
    };
    summary.waiting = Some(left.waiting(session));
    if result.is_err() {
        add_unseen(session, &session.skipped, summary);
    }
    result.and_then(|()| people::remember(session, &conflicts))?;
    Ok(done)
}

/// Takes in what was done. Also after a run that broke off: the next one does not name these files again.
fn account_for(
    session: &Session,
    done: &mut Executed,
    summary: &mut Summary,
    hooks: &mut Hooks,
) -> Result<(), Failure> {
    (summary.bytes_sent, summary.bytes_received) = session.link.bytes();
    [summary.here, summary.there] = done.tallies;
    let run = session.local.lock().cursor()?.tag;
    let tally = &done.tallies[Side::Local as usize];
    hooks.add(&mut done.told, tally, run);
    Ok(())
}

/// Says on which side a disk took no more.
fn say_full(done: &Executed, summary: &mut Summary) {
    if let Some(said) = people::say_full(&done.full) {
        summary.exit = summary.exit.worst(ExitCode::Error);
        summary.error = Some(said);
    }
}

/// Adds the deletions that a side could not report, since it cannot look everywhere.
fn add_unseen(session: &Session, skipped: &[Skipped], summary: &mut Summary) {
    let sides = Side::BOTH.into_iter();
    let unseen =
        sides.filter_map(|side| Waiting::unseen(side, session.held[side as usize], skipped));
    summary.waiting.get_or_insert_default().extend(unseen);
}

/// Says which patterns match no folder of either side: those that were typed, and what is new among the configured ones.
fn unmatched(session: &Session) -> Result<Option<String>, Failure> {
    let [configured, typed] = session.folders.unmatched(&session.account.filter);
    let known = reported_before(session, "unmatched", &configured.iter().cloned().collect())?;
    let news = configured
        .iter()
        .filter(|pattern| !known.contains(*pattern));
    let news = news.chain(&typed);
    let patterns: Vec<&str> = news.map(String::as_str).collect();
    Ok((!patterns.is_empty()).then(|| {
        format!(
            "No folder matches {}; folders are named like INBOX or Lists/debian",
            patterns.join(", ")
        )
    }))
}

/// Remembers a list that is reported only while it changes, and says what it was before.
fn reported_before<T>(
    session: &Session,
    key: &str,
    now: &BTreeSet<T>,
) -> Result<BTreeSet<T>, Failure>
where
    T: Ord + Serialize + DeserializeOwned,
{
    let before = session.archive.get(key)?.unwrap_or_default();
    if before != *now {
        session.archive.set(key, now)?;
    }
    Ok(before)
}

/// Decides what is to be done, and says what the guard holds back.
fn make_plan(
    session: &mut Session,
    joined: Joined,
    limits: Limits,
    verbose: bool,
    summary: &mut Summary,
) -> Result<Plan, Failure> {
    let Session {
        account,
        set,
        folders,
        archive,
        deleted_lately,
        ..
    } = &mut *session;
    let mut planner = merge::plan(set, folders, &account.filter, joined, limits);
    // It looks up what is agreed for each new message: in one transaction, or SQLite would take and check its lock for each.
    archive.begin()?;
    let guarded = ask_guard(
        &mut planner,
        &GuardInput {
            account,
            archive,
            folders,
            deleted_lately: *deleted_lately,
        },
    );
    let guarded = archive.end(guarded)?;
    let plan = guarded.plan;
    let unreported = people::unreported(session, &plan.conflicts)?;
    let conflicts = describe(session, &unreported, verbose);
    summary.conflicts.extend(conflicts);
    if let Some(mut refusal) = guarded.refusal {
        people::name_held(session, &mut refusal, verbose);
        summary.refusal = Some(refusal);
        summary.exit = ExitCode::Unsafe;
    }
    Ok(plan)
}

/// Carries a plan out. One without anything in it asks nothing: then the agent's list was its last word, what it covers is
/// stored, and its answer to the end is not waited for, which would take a flight more.
fn execute(
    session: &mut Session,
    plan: Plan,
    progress: &Progress,
    stop: &Stop,
    done: Executed,
) -> (Executed, Result<(), Failure>) {
    let Plan {
        steps,
        before,
        after,
        ..
    } = &plan;
    let is_nothing =
        steps.iter().all(Vec::is_empty) && before.iter().chain(after).all(Vec::is_empty);
    // A first sync stores how far it came only at its end, and looks once more at what it has brought.
    if is_nothing && !session.is_first && done.tallies[Side::Local as usize].new == 0 {
        if session.is_through() {
            session.link.request(Request::Finish);
        }
        return (done, Ok(()));
    }
    Executor::new(session, plan, progress, stop.clone(), done).run()
}

/// Closes the connection and says what was left alone, but only when that list is another one than last time.
fn finish(
    session: Session,
    skipped: Vec<Skipped>,
    summary: &mut Summary,
    kept: Option<&mut Kept>,
) -> Result<(), Failure> {
    let skipped: BTreeSet<Skipped> = skipped.into_iter().collect();
    let known = reported_before(&session, "skipped", &skipped)?;
    // Whether deletions wait for it changes from run to run, and is no news of the thing itself.
    let is_news = !skipped
        .iter()
        .map(Skipped::reported)
        .eq(known.iter().map(Skipped::reported));
    if !skipped.is_empty() && is_news {
        summary.exit = summary.exit.worst(ExitCode::Skipped);
        summary.skipped = skipped.into_iter().collect();
    }
    (summary.bytes_sent, summary.bytes_received) = session.end(kept)?;
    Ok(())
}
