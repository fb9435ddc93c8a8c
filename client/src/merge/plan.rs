//! From what messages shall be to what has to be done, in an order in which it can be done.
//!
//! Pure. A step that may not be carried out in this run (direction, rights, the guard) is left out, and its message stays
//! pending.

use std::collections::{HashMap, HashSet};

use protocol::Op;

use crate::merge::agreed::Agreed;
use crate::merge::filter::{Filter, Scope};
use crate::merge::fold::{Work, WorkSet};
use crate::merge::folders::Folders;
use crate::merge::reconcile::{Conflict, Merged, reconcile};
use crate::merge::record::{Fid, Place, Side, State};

mod limits;
mod names;
mod order;
mod steps;
mod why;
pub use limits::{Direction, Limits};
pub use order::held_up;
use order::order;
pub use why::Why;

/// What a step counts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A new message.
    New,
    /// A copy of one that was there.
    Copied,
    /// Another place.
    Moved,
    /// Other flags, or new-or-cur.
    Flags,
    /// Other bytes.
    Replaced,
    /// Gone.
    Deleted,
}

impl Kind {
    /// For scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::New => "new",
            Kind::Copied => "copy",
            Kind::Moved => "move",
            Kind::Flags => "flags",
            Kind::Replaced => "replace",
            Kind::Deleted => "delete",
        }
    }
}

/// One thing to do for one message on one side.
#[derive(Clone, Debug)]
pub struct Step {
    /// The message's index in the working set.
    pub index: usize,
    /// What to do.
    pub op: Op,
    /// What it counts as.
    pub kind: Kind,
    /// What the message is then on that side; `None` for gone.
    pub target: Option<State>,
    /// Whether it goes because its new place is excluded here: then it is forgotten.
    pub forget: bool,
    /// Whether it is a temporary rename: another step of the same message follows.
    pub is_temporary: bool,
    /// How many of its keywords have no letter in its folder, and go.
    pub dropped: u64,
    from: Option<Place>,
    to: Option<Place>,
}

/// All that is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// What each side gets, in order.
    pub steps: [Vec<Step>; 2],
    /// Folder operations before the steps.
    pub before: [Vec<(Fid, Op)>; 2],
    /// Folder operations after them.
    pub after: [Vec<(Fid, Op)>; 2],
    /// Where both sides had changed the same thing.
    pub conflicts: Vec<(usize, Conflict)>,
    /// The folders of each side that are renamed before the steps.
    pub renaming: [HashSet<Fid>; 2],
    /// The messages that are left out, by their index, why, and whether they would be deleted.
    pub waits: HashMap<usize, (Why, bool)>,
}

/// What a message shall be, as far as this run is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Want {
    /// Nothing is decided: it is out of scope.
    Leave,
    Gone,
    Keep(State),
}

/// Makes plans.
pub struct Planner<'a> {
    /// The messages.
    pub set: &'a mut WorkSet,
    folders: &'a Folders,
    filter: &'a Filter,
    limits: Limits,
    renaming: [HashSet<Fid>; 2],
    /// The folders in which each side can hold messages after that.
    reachable: [HashSet<Fid>; 2],
    wants: Vec<Want>,
    conflicts: Vec<(usize, Conflict)>,
    /// What a person confirmed to be deleted or replaced, on which side.
    confirmed: HashSet<(Side, usize)>,
}

impl<'a> Planner<'a> {
    /// Decides what every message of the working set shall be.
    pub fn new(
        set: &'a mut WorkSet,
        folders: &'a Folders,
        filter: &'a Filter,
        limits: Limits,
    ) -> Planner<'a> {
        let mut planner = Planner {
            set,
            folders,
            filter,
            limits,
            renaming: Default::default(),
            reachable: Default::default(),
            wants: Vec::new(),
            conflicts: Vec::new(),
            confirmed: HashSet::new(),
        };
        planner.decide();
        planner.separate();
        planner
    }
}

impl Planner<'_> {
    /// Lays out how to get there, without the steps of the messages that are held back on a side.
    ///
    /// # Errors
    /// When what is agreed cannot be read.
    pub fn lay_out<A: Agreed>(
        &mut self,
        agreed: &A,
        held: &HashSet<(Side, usize)>,
    ) -> Result<Plan, A::Error> {
        let mut plan = Plan::default();
        for side in Side::BOTH
            .into_iter()
            .filter(|side| self.limits.direction.changes(*side))
        {
            let mut renames = self.folders.renames(side, self.filter);
            renames.retain(|(_, op)| self.is_allowed(side, op));
            let renaming = renames.iter().map(|(id, _)| *id).collect();
            self.reachable[side as usize] = self.folders.reachable(side, &renaming);
            self.renaming[side as usize] = renaming;
            plan.before[side as usize] = renames;
            let sources = self.sources(agreed, side)?;
            // A ring of messages that wait for each other's names is broken by a temporary rename of one of them.
            let (mut renamed, mut stuck) = (HashSet::new(), HashMap::new());
            loop {
                let mut steps = self.steps(side, &sources, &mut plan.waits);
                steps.retain(|step| {
                    let why = if held.contains(&(side, step.index)) {
                        Why::Guard
                    } else if let Some(why) = stuck.get(&step.index) {
                        *why
                    } else {
                        return true;
                    };
                    let deletes = step.kind == Kind::Deleted;
                    plan.waits.insert(step.index, (why, deletes));
                    false
                });
                self.rename_temporarily(side, &mut steps, &renamed);
                match order(steps, &self.occupied(side)) {
                    Ok(mut steps) => {
                        self.settle_sources(side, &sources, &mut steps);
                        // What was to be copied may have to be sent by now.
                        let forbid =
                            |step: &Step| Some((step.index, self.limits.forbid(side, &step.op)?));
                        let known = stuck.len();
                        stuck.extend(steps.iter().filter_map(forbid));
                        if stuck.len() == known {
                            plan.steps[side as usize] = steps;
                            break;
                        }
                    }
                    Err(index) if renamed.insert(index) => {}
                    // Never seen, but a run must end: the message waits.
                    Err(index) => {
                        stuck.insert(index, Why::Changed);
                    }
                }
            }
        }
        self.leave_out(&mut plan);
        self.plan_folders(&mut plan);
        plan.renaming = self.renaming.clone();
        plan.conflicts = self.conflicts.clone();
        Ok(plan)
    }

    /// Takes in that a person confirmed what this run takes away of a message on a side.
    pub fn confirm(&mut self, side: Side, index: usize) {
        self.confirmed.insert((side, index));
    }

    /// Says why messages wait that this run does not deal with, or only on the other side.
    fn leave_out(&self, plan: &mut Plan) {
        for (index, want) in self.wants.iter().enumerate() {
            let record = &self.set.all[index].record;
            let is_due = |side: Side| match (want, record.seen(side)) {
                (Want::Keep(state), Some(seen)) => !self.is_so(side, seen, state),
                (Want::Keep(_), None) | (Want::Gone, Some(_)) => true,
                (Want::Gone, None) | (Want::Leave, _) => false,
            };
            let why = match self.limits.direction {
                _ if *want == Want::Leave => Some(Why::NotChosen),
                Direction::Pull if is_due(Side::Remote) => Some(Why::Unchanged(Side::Remote)),
                Direction::Push if is_due(Side::Local) => Some(Why::Unchanged(Side::Local)),
                Direction::Pull | Direction::Push | Direction::Sync => None,
            };
            if let Some(why) = why {
                let wait = (why, *want == Want::Gone);
                plan.waits.entry(index).or_insert(wait);
            }
        }
    }

    /// Merges every message; an edit on both sides becomes two messages first.
    fn decide(&mut self) {
        let mut index = 0;
        while index < self.set.all.len() {
            let mut want = Want::Leave;
            if self.in_scope(&self.set.all[index]) {
                if self.set.all[index].record.is_damaged() {
                    self.conflicts.push((index, Conflict::Damaged));
                }
                want = match reconcile(&self.set.all[index].record, &self.set.letters) {
                    Merged::Keep(state, conflict) => {
                        self.conflicts
                            .extend(conflict.map(|conflict| (index, conflict)));
                        Want::Keep(state)
                    }
                    Merged::Gone => Want::Gone,
                    Merged::Split => self.split(index),
                };
            }
            self.wants.push(want);
            index += 1;
        }
    }

    /// Makes the local version of a message that both sides edited a message of its own (row 11).
    fn split(&mut self, index: usize) -> Want {
        self.set.all[index].record.base = None;
        let mut edited = index;
        if let Some(local) = self.set.unlink(index, Side::Local) {
            edited = self.set.add(Work::of(Side::Local, local));
        }
        self.conflicts.push((edited, Conflict::Edited));
        let remote = self.set.all[index].record.remote.as_ref();
        remote.map_or(Want::Gone, |seen| Want::Keep(seen.state()))
    }

    /// Whether this run deals with a message: any of its folders is included.
    fn in_scope(&self, work: &Work) -> bool {
        work.record
            .folders()
            .any(|folder| self.folders.scope(self.filter, folder) == Scope::Included)
    }

    fn is_allowed(&self, side: Side, op: &Op) -> bool {
        self.limits.forbid(side, op).is_none()
    }

    /// Folders are renamed and made before the messages are touched, and removed after.
    fn plan_folders(&self, plan: &mut Plan) {
        let mut needed: HashSet<Fid> = HashSet::new();
        for (index, want) in self.wants.iter().enumerate() {
            match want {
                Want::Keep(state) => {
                    needed.insert(state.place.folder);
                    if self.folders.is_placeless(state.place.folder) {
                        // It stays where it is on the other side.
                        needed.extend(self.set.all[index].record.folders());
                    }
                }
                Want::Leave => needed.extend(self.set.all[index].record.folders()),
                Want::Gone => {}
            }
        }
        for side in Side::BOTH
            .into_iter()
            .filter(|side| self.limits.direction.changes(*side))
        {
            let targets: HashSet<Fid> = plan.steps[side as usize]
                .iter()
                .filter_map(|step| Some(step.to.as_ref()?.folder))
                .collect();
            let wanted = |id: Fid| {
                let folder = self.folders.get(id);
                let is_new = folder.is_some_and(|folder| {
                    folder.base.is_none() && folder.on(side.other()).is_some()
                });
                let is_new = is_new && self.folders.scope(self.filter, id) == Scope::Included;
                self.reachable[side as usize].contains(&id) && (targets.contains(&id) || is_new)
            };
            let is_included = |id: Fid| self.folders.scope(self.filter, id) == Scope::Included;
            let mut makings = self.folders.makings(side, &wanted);
            makings.retain(|(_, op)| self.is_allowed(side, op));
            plan.before[side as usize].append(&mut makings);
            plan.after[side as usize] = self
                .folders
                .removals(side, &|id| needed.contains(&id) || !is_included(id));
            plan.after[side as usize].retain(|(_, op)| self.is_allowed(side, op));
        }
    }
}
