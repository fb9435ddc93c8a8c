//! Asking the guard about a plan, and what a person confirmed: what the plan deletes, what that is compared with, and the
//! plan that is left. What is too much is decided in [`crate::merge::guard`]; what counts later, in [`mod@crate::merge::plan`].

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use protocol::Digest;

use crate::archive::{Archive, now_secs};
use crate::config::Account;
use crate::merge::agreed::Stored;
use crate::merge::folders::Folders;
use crate::merge::guard::{COUNT_FREE, Deletion, Holdings, MaxDelete, limit_over, line, plan_name};
use crate::merge::plan::{Kind, Plan, Planner};
use crate::merge::record::{Fid, Side};
use crate::report::refusal::{HeldMessage, Over, Refusal};
use crate::run::failure::Failure;

/// What is known when the guard is asked.
pub struct GuardInput<'a> {
    /// What is synced, and under which guard.
    pub account: &'a Account,
    /// Where refused plans are kept.
    pub archive: &'a Archive,
    /// The folders.
    pub folders: &'a Folders,
    /// What was deleted on each side in the last 24 hours that counts.
    pub deleted_lately: [u64; 2],
}

/// What may be carried out.
pub struct Guarded {
    /// The plan, without what was held back.
    pub plan: Plan,
    /// What was held back, and how it can be confirmed.
    pub refusal: Option<Refusal>,
}

/// The deletions of each side, with the messages' indexes in the working set.
type Deletions = [Vec<(usize, Deletion)>; 2];

/// Holds back deletions that are too many, or that are not those that a person confirmed.
///
/// # Errors
/// When the archive fails, or there is no plan of the name that is confirmed.
pub fn ask_guard(planner: &mut Planner, input: &GuardInput) -> Result<Guarded, Failure> {
    let plan = planner.lay_out(input.archive, &HashSet::new())?;
    let deletions = deletions(planner, &plan);
    if let Some(name) = &input.account.confirm {
        let Some(lines) = input.archive.plan(name)? else {
            return Err(Failure::Usage(format!(
                "There is no plan {name:?} to confirm; run without --confirm to see what is held back"
            )));
        };
        return confirm(planner, input, &deletions, &lines.into_iter().collect());
    }
    let mut over = Vec::new();
    for side in Side::BOTH {
        let deletions = deletions[side as usize].iter();
        let all: Vec<&Deletion> = deletions.map(|(_, deletion)| deletion).collect();
        let holdings = holdings(planner, input, side, &all)?;
        let limit = limit_over(&all, &holdings, input.account.guard);
        over.extend(limit.map(|limit| Over {
            side,
            lately: holdings.deleted_lately,
            limit,
        }));
    }
    if !over.is_empty() {
        return refuse(planner, input, &deletions, over);
    }
    Ok(Guarded {
        plan,
        refusal: None,
    })
}

/// What a plan deletes and replaces on each side, also what leaves it for a folder that is excluded.
fn deletions(planner: &Planner, plan: &Plan) -> Deletions {
    Side::BOTH.map(|side| {
        let steps = plan.steps[side as usize].iter();
        let deleting = steps.filter(|step| matches!(step.kind, Kind::Deleted | Kind::Replaced));
        deleting
            .filter_map(|step| {
                let record = &planner.set.all[step.index].record;
                // A copy that gets its original's bytes stays the message that it is.
                let is_copy = side == Side::Local && record.copied().is_some();
                let seen = record.seen(side).filter(|_| !is_copy)?;
                let deletion = Deletion {
                    side,
                    place: seen.place.clone(),
                    digest: seen.entry.digest,
                    becomes: step.op.new_body().map(|body| body.digest),
                };
                Some((step.index, deletion))
            })
            .collect()
    })
}

fn line_of(input: &GuardInput, deletion: &Deletion) -> Digest {
    let folder = input.folders.name(deletion.place.folder);
    line(deletion, folder.as_bytes())
}

/// Refused is refused: then nothing is deleted on either side, and a plan is named that can be confirmed.
fn refuse(
    planner: &mut Planner,
    input: &GuardInput,
    deletions: &Deletions,
    over: Vec<Over>,
) -> Result<Guarded, Failure> {
    let (mut held, mut lines, mut holds) = (HashSet::new(), BTreeSet::new(), Vec::new());
    for (index, deletion) in deletions.iter().flatten() {
        held.insert((deletion.side, *index));
        lines.insert(line_of(input, deletion));
        holds.push(HeldMessage {
            index: *index,
            side: deletion.side,
            folder: input.folders.name(deletion.place.folder).to_string(),
            name: deletion.place.unique.to_string(),
            replaces: deletion.becomes.is_some(),
            heading: None,
        });
    }
    let plan = plan_name(&lines);
    let is_known = input.archive.plan(&plan)?.is_some();
    let lines: Vec<Digest> = lines.into_iter().collect();
    input.archive.put_plan(&plan, &lines, now_secs())?;
    let refusal = Refusal {
        plan,
        is_known,
        over,
        holds,
    };
    Ok(Guarded {
        plan: planner.lay_out(input.archive, &held)?,
        refusal: Some(refusal),
    })
}

/// Does exactly the deletions that the confirmed plan names and that are still planned; others wait.
fn confirm(
    planner: &mut Planner,
    input: &GuardInput,
    deletions: &Deletions,
    lines: &HashSet<Digest>,
) -> Result<Guarded, Failure> {
    let mut held = HashSet::new();
    for (index, deletion) in deletions.iter().flatten() {
        if lines.contains(&line_of(input, deletion)) {
            planner.confirm(deletion.side, *index);
        } else {
            held.insert((deletion.side, *index));
        }
    }
    Ok(Guarded {
        plan: planner.lay_out(input.archive, &held)?,
        refusal: None,
    })
}

/// What the guard compares with; counted only where there is something to compare.
fn holdings(
    planner: &Planner,
    input: &GuardInput,
    side: Side,
    deletions: &[&Deletion],
) -> Result<Holdings, Failure> {
    if deletions.is_empty() || input.account.guard == MaxDelete::Percent(100) {
        return Ok(Holdings::default());
    }
    let deleted_lately = input.deleted_lately[side as usize];
    let is_few = (deletions.len() as u64).saturating_add(deleted_lately) <= COUNT_FREE;
    if is_few && input.account.guard == MaxDelete::Default {
        // So few are within the limit, however many messages there are.
        return Ok(Holdings {
            deleted_lately,
            ..Holdings::default()
        });
    }
    let unstored = |folder: Option<Fid>| {
        let works = planner.set.all.iter();
        let works = works.filter(|work| !matches!(work.stored, Stored::Agreed(_)));
        let seen = works.filter_map(|work| work.record.seen(side));
        seen.filter(|seen| folder.is_none_or(|folder| seen.place.folder == folder))
            .count() as u64
    };
    let mut folders = BTreeMap::new();
    for deletion in deletions {
        let folder = deletion.place.folder;
        if let Entry::Vacant(entry) = folders.entry(folder) {
            let agreed = input.archive.agreed_count(Some(folder))?;
            entry.insert(agreed + unstored(Some(folder)));
        }
    }
    Ok(Holdings {
        messages: input.archive.agreed_count(None)? + unstored(None),
        folders,
        deleted_lately,
    })
}
