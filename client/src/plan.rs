//! From what messages shall be to what has to be done, in an order in which it can be done.
//!
//! Pure but for asking the archive where bytes lie already. A step that may not be carried out in this run (direction,
//! rights, the guard) is left out, and its message stays pending.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::message::{At, Consent, Expect, NewBody, Reason, Rights, Source};
use protocol::{Digest, Op};

use crate::archive::{Archive, ArchiveError};
use crate::filter::{Filter, Scope};
use crate::fold::{Work, WorkSet};
use crate::folders::Folders;
use crate::reconcile::{Conflict, Merged, reconcile};
use crate::record::{Fid, Place, Seen, Side, State};

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
}

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
    /// Whether another step of the same message follows.
    pub is_detour: bool,
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
    archive: &'a Archive,
    filter: &'a Filter,
    limits: Limits,
    renaming: [HashSet<Fid>; 2],
    /// The folders in which each side can hold messages after that.
    reachable: [HashSet<Fid>; 2],
    wants: Vec<Want>,
    conflicts: Vec<(usize, Conflict)>,
}

impl<'a> Planner<'a> {
    /// Decides what every message of the working set shall be.
    pub fn new(
        set: &'a mut WorkSet,
        folders: &'a Folders,
        archive: &'a Archive,
        filter: &'a Filter,
        limits: Limits,
    ) -> Planner<'a> {
        let mut planner = Planner {
            set,
            folders,
            archive,
            filter,
            limits,
            renaming: Default::default(),
            reachable: Default::default(),
            wants: Vec::new(),
            conflicts: Vec::new(),
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
    /// When the archive fails.
    pub fn lay_out(&mut self, held: &HashSet<(Side, usize)>) -> Result<Plan, ArchiveError> {
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
            let copies = self.copies(side);
            // A ring of messages that wait for each other's names is broken by a detour of one of them.
            let (mut detours, mut stuck) = (HashSet::new(), held.clone());
            loop {
                let mut steps = self.steps(side, &copies)?;
                steps.retain(|step| !stuck.contains(&(side, step.index)));
                self.take_detours(side, &mut steps, &detours);
                match order(steps, &self.occupied(side)) {
                    Ok(mut steps) => {
                        self.settle_sources(side, &copies, &mut steps);
                        plan.steps[side as usize] = steps;
                        break;
                    }
                    Err(index) if detours.insert(index) => {}
                    // Never seen, but a run must end: the message waits.
                    Err(index) => {
                        stuck.insert((side, index));
                    }
                }
            }
        }
        self.plan_folders(&mut plan);
        plan.renaming = self.renaming.clone();
        plan.conflicts = self.conflicts.clone();
        Ok(plan)
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
                want = match reconcile(&self.set.all[index].record) {
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
        self.conflicts.push((index, Conflict::Edited));
        self.set.all[index].record.base = None;
        if let Some(local) = self.set.unlink(index, Side::Local) {
            let mut work = Work {
                is_dirty: true,
                ..Work::default()
            };
            work.record.local = Some(local);
            self.set.add(work);
        }
        let remote = self.set.all[index].record.remote.as_ref();
        remote.map_or(Want::Gone, |seen| Want::Keep(seen.state()))
    }

    /// Whether this run deals with a message: any of its folders is included.
    fn in_scope(&self, work: &Work) -> bool {
        work.record
            .folders()
            .any(|folder| self.folders.scope(self.filter, folder) == Scope::Included)
    }

    /// Gives a fresh name to all but one of the messages that want the same place (row 12). The server's occupant
    /// keeps it, so that several clients decide alike.
    fn separate(&mut self) {
        let mut claims: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
        for (index, want) in self.wants.iter().enumerate() {
            let place = match want {
                Want::Keep(state) => Some(&state.place),
                // What is out of scope stays where it is.
                Want::Leave => self.set.all[index]
                    .record
                    .remote
                    .as_ref()
                    .map(|seen| &seen.place),
                Want::Gone => None,
            };
            if let Some(place) = place {
                claims.entry(place.clone()).or_default().push(index);
            }
        }
        let taken: HashSet<Place> = claims.keys().cloned().collect();
        for (place, mut claimants) in claims
            .into_iter()
            .filter(|(_, claimants)| claimants.len() > 1)
        {
            claimants.sort_by_key(|&index| {
                let work = &self.set.all[index];
                let is_theirs = work
                    .record
                    .remote
                    .as_ref()
                    .is_some_and(|seen| seen.place == place);
                (!is_theirs, work.record.base.is_none(), index)
            });
            for &index in &claimants[1..] {
                rename(&mut self.wants[index], &taken);
                self.conflicts.push((index, Conflict::Named));
            }
        }
    }

    /// Where a side will hold which bytes once its messages are where they shall be: copies come after moves. What is
    /// about to go, or to get other bytes, is no source.
    fn copies(&self, side: Side) -> BTreeMap<Digest, Place> {
        let mut copies = BTreeMap::new();
        for (work, want) in self.set.all.iter().zip(&self.wants) {
            let Some(seen) = work.record.seen(side) else {
                continue;
            };
            let place = match want {
                Want::Leave => &seen.place,
                Want::Keep(state) if state.digest == seen.entry.digest => {
                    if self.is_exiled(side, &seen.place, &state.place) {
                        continue;
                    }
                    &state.place
                }
                Want::Keep(_) | Want::Gone => continue,
            };
            copies.insert(seen.entry.digest, place.clone());
        }
        copies
    }

    /// The steps that bring one side to what is wanted, in no order yet.
    fn steps(
        &self,
        side: Side,
        copies: &BTreeMap<Digest, Place>,
    ) -> Result<Vec<Step>, ArchiveError> {
        let is_first = self.archive.is_empty()?;
        let mut steps = Vec::new();
        for (index, want) in self.wants.iter().enumerate() {
            let work = &self.set.all[index];
            let seen = work.record.seen(side);
            let step = match (seen, want) {
                (_, Want::Leave) | (None, Want::Gone) => None,
                (Some(seen), Want::Gone) => Some(self.retire(side, index, seen, Reason::Deleted)),
                (Some(seen), Want::Keep(state))
                    if self.is_exiled(side, &seen.place, &state.place) =>
                {
                    Some(self.retire(side, index, seen, Reason::Excluded))
                }
                (Some(seen), Want::Keep(state)) if seen.state() != *state => {
                    self.update(side, index, seen, state, copies, is_first)?
                }
                (Some(_), Want::Keep(_)) => None,
                (None, Want::Keep(state)) => self.create(side, index, state, copies, is_first)?,
            };
            steps.extend(
                step.filter(|step| self.is_allowed(side, &step.op) && self.can_come(side, step)),
            );
        }
        Ok(steps)
    }

    /// Bytes that will not lie where they shall be when they are to be copied come over the wire.
    fn settle_sources(&self, side: Side, copies: &BTreeMap<Digest, Place>, steps: &mut [Step]) {
        let mut held: HashMap<At, Digest> = self
            .set
            .all
            .iter()
            .filter_map(|work| work.record.seen(side))
            .map(|seen| (self.at(side, &seen.place), seen.entry.digest))
            .collect();
        for step in steps {
            let (from, to, body) = match &mut step.op {
                Op::Create { at, body, .. } => (None, Some(at), Some(body)),
                Op::Update { at, to, body, .. } => (Some(at), Some(to), body.as_mut()),
                Op::Retire { at, .. } => (Some(at), None, None),
                _ => continue,
            };
            if let Some(body) = body
                && let Source::Copy(at) = &body.source
                && copies.contains_key(&body.digest)
                && held.get(at) != Some(&body.digest)
            {
                body.source = Source::Body { offset: 0 };
                if step.kind == Kind::Copied {
                    step.kind = Kind::New;
                }
            }
            if let Some(at) = from {
                held.remove(at);
            }
            if let (Some(at), Some(target)) = (to, &step.target) {
                held.insert(at.clone(), target.digest);
            }
        }
    }

    /// Lets a message go to a fresh name first, and from there to its own.
    fn take_detours(&self, side: Side, steps: &mut Vec<Step>, detours: &HashSet<usize>) {
        let mut firsts = Vec::new();
        let mut taken: HashSet<Place> = self.occupied(side).into_keys().collect();
        taken.extend(steps.iter().filter_map(|step| step.to.clone()));
        for step in steps
            .iter_mut()
            .filter(|step| detours.contains(&step.index))
        {
            let Some(seen) = self.set.all[step.index].record.seen(side) else {
                continue;
            };
            let mut state = seen.state();
            while taken.contains(&state.place) {
                let info_bytes = seen.entry.info.as_bytes().len();
                let unique = state.place.unique.fresh(&state.digest, info_bytes);
                let is_stuck = unique == state.place.unique;
                (state.place.unique, state.place.copy) = (unique, 0);
                if is_stuck {
                    break;
                }
            }
            taken.insert(state.place.clone());
            let halfway = self.at(side, &state.place);
            let mut first = step.clone();
            (first.kind, first.is_detour) = (Kind::Moved, true);
            first.to = Some(state.place.clone());
            first.op = Op::Update {
                at: self.at(side, &seen.place),
                expect: expect(seen),
                to: halfway.clone(),
                in_new: state.in_new,
                flags: state.flags,
                body: None,
                consent: Consent::Free,
            };
            step.from = Some(state.place.clone());
            first.target = Some(state);
            if let Op::Update { at, .. } = &mut step.op {
                *at = halfway;
            }
            firsts.push(first);
        }
        steps.splice(0..0, firsts);
    }

    /// Whether a message leaves this side for a folder that is excluded here.
    fn is_exiled(&self, side: Side, from: &Place, to: &Place) -> bool {
        side == Side::Local
            && self.folders.scope(self.filter, to.folder) == Scope::Excluded
            && self.folders.scope(self.filter, from.folder) != Scope::Excluded
    }

    fn is_allowed(&self, side: Side, op: &Op) -> bool {
        let deletes = matches!(op, Op::Retire { .. } | Op::RemoveFolder { .. });
        let adds = matches!(op, Op::Create { .. } | Op::MakeFolder { .. });
        let rights = if side == Side::Remote {
            self.limits.rights
        } else {
            Rights::All
        };
        let by_right = match rights {
            Rights::All => true,
            Rights::NoDelete => !deletes,
            Rights::AppendOnly => adds,
            Rights::ReadOnly => false,
        };
        by_right && !(deletes && self.limits.no_delete)
    }

    /// Whether the folder to which a step leads is there or can be made: another one may have its name.
    fn can_come(&self, side: Side, step: &Step) -> bool {
        let to = step.to.as_ref();
        to.is_none_or(|to| self.reachable[side as usize].contains(&to.folder))
    }

    /// A place as a side knows it once its folders have their names.
    fn at(&self, side: Side, place: &Place) -> At {
        let folder = self
            .folders
            .name_then(side, place.folder, &self.renaming[side as usize]);
        At {
            folder,
            unique: place.unique.clone(),
            copy: place.copy,
        }
    }

    /// Who agreed that a message is taken away; what the guard does not ask about (`consent`) does not count later.
    fn consent(&self, index: usize, reason: Reason) -> Consent {
        if self.set.all[index].record.confirmed {
            Consent::Confirmed
        } else if self.limits.is_unguarded || reason == Reason::Excluded {
            Consent::Free
        } else {
            Consent::Counts
        }
    }

    fn retire(&self, side: Side, index: usize, seen: &Seen, reason: Reason) -> Step {
        Step {
            index,
            op: Op::Retire {
                at: self.at(side, &seen.place),
                expect: expect(seen),
                reason,
                consent: self.consent(index, reason),
            },
            kind: Kind::Deleted,
            target: None,
            forget: reason == Reason::Excluded,
            is_detour: false,
            from: Some(seen.place.clone()),
            to: None,
        }
    }

    fn update(
        &self,
        side: Side,
        index: usize,
        seen: &Seen,
        state: &State,
        copies: &BTreeMap<Digest, Place>,
        is_first: bool,
    ) -> Result<Option<Step>, ArchiveError> {
        let body = if state.digest == seen.entry.digest {
            None
        } else {
            let Some((_, body)) = self.body(side, index, state, copies, is_first)? else {
                return Ok(None);
            };
            Some(body)
        };
        let moves = state.place != seen.place;
        let kind = if body.is_some() {
            Kind::Replaced
        } else if moves {
            Kind::Moved
        } else {
            Kind::Flags
        };
        Ok(Some(Step {
            index,
            op: Op::Update {
                at: self.at(side, &seen.place),
                expect: expect(seen),
                to: self.at(side, &state.place),
                in_new: state.in_new,
                flags: state.flags,
                body,
                consent: self.consent(index, Reason::Replaced),
            },
            kind,
            target: Some(state.clone()),
            forget: false,
            is_detour: false,
            from: moves.then(|| seen.place.clone()),
            to: moves.then(|| state.place.clone()),
        }))
    }

    fn create(
        &self,
        side: Side,
        index: usize,
        state: &State,
        copies: &BTreeMap<Digest, Place>,
        is_first: bool,
    ) -> Result<Option<Step>, ArchiveError> {
        if self.folders.scope(self.filter, state.place.folder) != Scope::Included {
            return Ok(None);
        }
        let Some((source, body)) = self.body(side, index, state, copies, is_first)? else {
            return Ok(None);
        };
        let kind = if matches!(body.source, Source::Copy(_)) {
            Kind::Copied
        } else {
            Kind::New
        };
        Ok(Some(Step {
            index,
            op: Op::Create {
                at: self.at(side, &state.place),
                in_new: state.in_new,
                info: source.entry.info.with_flags(state.flags),
                body,
            },
            kind,
            target: Some(state.clone()),
            forget: false,
            is_detour: false,
            from: None,
            to: Some(state.place.clone()),
        }))
    }

    /// Where a side gets bytes from: its own copy if it has one, else the other side's message.
    fn body(
        &self,
        side: Side,
        index: usize,
        state: &State,
        copies: &BTreeMap<Digest, Place>,
        is_first: bool,
    ) -> Result<Option<(Seen, NewBody)>, ArchiveError> {
        let Some(source) = self.set.all[index].record.seen(side.other()) else {
            return Ok(None);
        };
        if source.entry.digest != state.digest {
            return Ok(None);
        }
        let copy = match copies.get(&state.digest) {
            Some(place) => Some(place.clone()),
            None if is_first => None,
            None => self
                .archive
                .agreed_with(&state.digest)?
                .filter(|place| !self.set.is_claimed(place)),
        };
        let source_of_bytes = copy.map_or(Source::Body { offset: 0 }, |place| {
            Source::Copy(self.at(side, &place))
        });
        let body = NewBody {
            digest: state.digest,
            size: source.entry.size,
            mtime_ns: source.entry.mtime_ns,
            source: source_of_bytes,
        };
        Ok(Some((source.clone(), body)))
    }

    /// Who is where on a side now.
    fn occupied(&self, side: Side) -> HashMap<Place, usize> {
        let seen = self.set.all.iter().enumerate();
        seen.filter_map(|(index, work)| {
            work.record
                .seen(side)
                .map(|seen| (seen.place.clone(), index))
        })
        .collect()
    }

    /// Folders are renamed and made before the messages are touched, and removed after.
    fn plan_folders(&self, plan: &mut Plan) {
        let mut needed: HashSet<Fid> = HashSet::new();
        for (index, want) in self.wants.iter().enumerate() {
            match want {
                Want::Keep(state) => {
                    needed.insert(state.place.folder);
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
                    let is_unknown = folder.base.is_none() || folder.is_renamed(side.other());
                    is_unknown && folder.on(side.other()).is_some()
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

/// Gives a message a fresh name that nobody else wants.
fn rename(want: &mut Want, taken: &HashSet<Place>) {
    let Want::Keep(state) = want else { return };
    let info_bytes = 3 + state.flags.letters().len();
    loop {
        let unique = state.place.unique.fresh(&state.digest, info_bytes);
        let is_stuck = unique == state.place.unique;
        state.place = Place {
            unique,
            copy: 0,
            ..state.place.clone()
        };
        if is_stuck || !taken.contains(&state.place) {
            return;
        }
    }
}

fn expect(seen: &Seen) -> Expect {
    Expect {
        in_new: seen.entry.in_new,
        flags: seen.entry.flags(),
        digest: seen.entry.digest,
    }
}

/// Puts steps in an order in which every place is free when somebody comes to it; steps whose place will not become
/// free in this run are left out.
///
/// # Errors
/// The index of a message in a ring of such places.
fn order(steps: Vec<Step>, occupied: &HashMap<Place, usize>) -> Result<Vec<Step>, usize> {
    let leaving: HashMap<Place, usize> = steps
        .iter()
        .enumerate()
        .filter_map(|(at, step)| Some((step.from.clone()?, at)))
        .collect();
    let mut state = vec![Visit::New; steps.len()];
    let mut ordered = Vec::with_capacity(steps.len());
    let mut first: Vec<usize> = (0..steps.len()).collect();
    // Deletions come last but for those that make room; large new bodies do not hold up what needs none.
    first.sort_by_key(|&at| rank(&steps[at]));
    for at in first {
        visit(at, &steps, occupied, &leaving, &mut state, &mut ordered)?;
    }
    Ok(arrange(steps, &ordered))
}

/// The chosen steps in that order, in the memory that they have: a first sync has as many as there are messages.
fn arrange(mut steps: Vec<Step>, ordered: &[usize]) -> Vec<Step> {
    let mut goal = vec![usize::MAX; steps.len()];
    for (position, &at) in ordered.iter().enumerate() {
        goal[at] = position;
    }
    let mut left = ordered.len();
    for slot in goal.iter_mut().filter(|slot| **slot == usize::MAX) {
        (*slot, left) = (left, left + 1);
    }
    for at in 0..steps.len() {
        while goal[at] != at {
            let to = goal[at];
            steps.swap(at, to);
            goal.swap(at, to);
        }
    }
    steps.truncate(ordered.len());
    steps
}

/// Flags and moves first, then copies, then bodies (INBOX and newest first), then deletions.
fn rank(step: &Step) -> (u8, bool, i64) {
    match &step.op {
        Op::Create { at, body, .. } if matches!(body.source, Source::Body { .. }) => {
            (2, !at.folder.is_inbox(), body.mtime_ns.saturating_neg())
        }
        Op::Update {
            body: Some(body), ..
        } if matches!(body.source, Source::Body { .. }) => (2, false, i64::MIN),
        Op::Create { .. } | Op::Update { body: Some(_), .. } => (1, false, 0),
        Op::Retire { .. } => (3, false, 0),
        Op::Update { .. }
        | Op::MakeFolder { .. }
        | Op::RenameFolder { .. }
        | Op::RemoveFolder { .. }
        | Op::Confirm { .. } => (0, false, 0),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    New,
    Open,
    Ready,
    Blocked,
}

/// Puts a step behind the one that makes room for it. Iterative, because a chain may be as long as a folder.
fn visit(
    start: usize,
    steps: &[Step],
    occupied: &HashMap<Place, usize>,
    leaving: &HashMap<Place, usize>,
    state: &mut [Visit],
    ordered: &mut Vec<usize>,
) -> Result<(), usize> {
    let mut chain = vec![start];
    while let Some(&at) = chain.last() {
        if matches!(state[at], Visit::Ready | Visit::Blocked) {
            chain.pop();
            continue;
        }
        let occupant = steps[at]
            .to
            .as_ref()
            .and_then(|to| Some((to, *occupied.get(to)?)));
        let before = occupant
            .filter(|(_, index)| *index != steps[at].index)
            .map(|(to, _)| leaving.get(to).copied());
        state[at] = match before {
            None | Some(Some(_))
                if before
                    .flatten()
                    .is_none_or(|before| state[before] == Visit::Ready) =>
            {
                ordered.push(at);
                Visit::Ready
            }
            Some(Some(before)) => match state[before] {
                Visit::Blocked => Visit::Blocked,
                Visit::Open => return Err(steps[at].index),
                Visit::New | Visit::Ready => {
                    chain.push(before);
                    Visit::Open
                }
            },
            Some(None) | None => Visit::Blocked,
        };
    }
    Ok(())
}
