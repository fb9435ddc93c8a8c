//! The steps that bring one side to what is wanted, and where each gets its bytes; in no order yet.

use std::collections::{BTreeMap, HashMap};

use protocol::fingerprint::Form;
use protocol::message::{At, Consent, Expect, NewBody, Reason, Source};
use protocol::{Digest, Flags, Op};

use super::{Kind, Planner, Step, Want};
use crate::merge::agreed::Agreed;
use crate::merge::filter::Scope;
use crate::merge::plan::Why;
use crate::merge::record::{Place, Seen, Side, State};

/// Where a side has which bytes: among the messages of this run, once those are where they shall be, and among the agreed.
pub(super) struct Sources {
    settled: BTreeMap<Digest, Place>,
    agreed: HashMap<Digest, Place>,
}

impl Sources {
    fn place(&self, digest: &Digest) -> Option<&Place> {
        self.settled.get(digest).or_else(|| self.agreed.get(digest))
    }
}

impl Planner<'_> {
    /// Where a side has bytes that it need not be sent.
    pub(super) fn sources<A: Agreed>(&self, agreed: &A, side: Side) -> Result<Sources, A::Error> {
        let mut sources = Sources {
            settled: self.settled(side),
            agreed: HashMap::new(),
        };
        if agreed.is_none()? {
            return Ok(sources);
        }
        for (work, want) in self.set.all.iter().zip(&self.wants) {
            let Want::Keep(State { digest, .. }) = want else {
                continue;
            };
            let seen = work.record.seen(side);
            if seen.is_some_and(|seen| seen.entry.digest == *digest)
                || sources.place(digest).is_some()
            {
                continue;
            }
            let alike = agreed.with_digest(digest)?.into_iter();
            let mut places = alike.filter_map(|record| Some(record.local?.place));
            if let Some(place) = places.find(|place| !self.set.is_claimed(place)) {
                sources.agreed.insert(*digest, place);
            }
        }
        Ok(sources)
    }

    /// Where a side will hold which bytes once its messages are where they shall be: copies come after moves. What is
    /// about to go, or to get other bytes, is no source.
    fn settled(&self, side: Side) -> BTreeMap<Digest, Place> {
        let mut settled = BTreeMap::new();
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
            settled.insert(seen.entry.digest, place.clone());
        }
        settled
    }

    /// The steps that bring one side to what is wanted, in no order yet; those that may not be made wait.
    pub(super) fn steps(
        &self,
        side: Side,
        sources: &Sources,
        waits: &mut HashMap<usize, (Why, bool)>,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, want) in self.wants.iter().enumerate() {
            let work = &self.set.all[index];
            let seen = work.record.seen(side);
            let step = match (seen, want) {
                (_, Want::Leave) | (None, Want::Gone) => None,
                (Some(seen), Want::Gone) => {
                    Some(Ok(self.retire(side, index, seen, Reason::Deleted)))
                }
                (Some(seen), Want::Keep(state))
                    if self.is_exiled(side, &seen.place, &state.place) =>
                {
                    Some(Ok(self.retire(side, index, seen, Reason::Excluded)))
                }
                (Some(seen), Want::Keep(state)) if !self.is_so(side, seen, state) => {
                    Some(self.update(side, index, seen, state, sources))
                }
                (Some(_), Want::Keep(_)) => None,
                (None, Want::Keep(state)) => Some(self.create(side, index, state, sources)),
            };
            let deletes = matches!(&step, Some(Ok(step)) if step.kind == Kind::Deleted);
            match step.map(|step| step.and_then(|step| self.allow(side, step))) {
                Some(Ok(step)) => steps.push(step),
                Some(Err(why)) => {
                    waits.insert(index, (why, deletes));
                }
                None => {}
            }
        }
        steps
    }

    /// Bytes that will not lie where they shall be when they are to be copied come over the wire.
    pub(super) fn settle_sources(&self, side: Side, sources: &Sources, steps: &mut [Step]) {
        // A first sync copies nothing, and has as many messages as there are.
        if sources.settled.is_empty() {
            return;
        }
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
                Op::MakeFolder { .. } | Op::RenameFolder { .. } | Op::RemoveFolder { .. } => {
                    continue;
                }
            };
            if let Some(body) = body
                && let Source::Copy(at) = &body.source
                && sources.settled.contains_key(&body.digest)
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

    /// Whether a message leaves this side for a folder that is excluded here.
    fn is_exiled(&self, side: Side, from: &Place, to: &Place) -> bool {
        side == Side::Local
            && self.folders.scope(self.filter, to.folder) == Scope::Excluded
            && self.folders.scope(self.filter, from.folder) != Scope::Excluded
    }

    fn allow(&self, side: Side, step: Step) -> Result<Step, Why> {
        match self.limits.forbid(side, &step.op) {
            Some(why) => Err(why),
            None if self.can_come(side, &step) => Ok(step),
            None => Err(Why::NoPlace(side)),
        }
    }

    /// Whether the folder to which a step leads is there or can be made: another one may have its name.
    fn can_come(&self, side: Side, step: &Step) -> bool {
        let to = step.to.as_ref();
        to.is_none_or(|to| self.reachable[side as usize].contains(&to.folder))
    }

    /// A place as a side knows it once its folders have their names.
    pub(super) fn at(&self, side: Side, place: &Place) -> At {
        self.folders.at(side, place, &self.renaming[side as usize])
    }

    /// How it counts later that a message is taken away: what a person confirmed does not, nor what needed no confirmation.
    fn consent(&self, side: Side, index: usize) -> Consent {
        let is_copy = side == Side::Local && self.set.all[index].record.copied().is_some();
        if self.limits.is_unguarded || is_copy || self.confirmed.contains(&(side, index)) {
            Consent::Free
        } else {
            Consent::Counts
        }
    }

    /// Whether a message is what it shall be, and its file says so.
    pub(super) fn is_so(&self, side: Side, seen: &Seen, state: &State) -> bool {
        seen.state() == *state && self.letters(side, seen, state).0 == seen.entry.flags()
    }

    /// The letters that a file shall bear, and how many keywords it loses because its folder has no letter for them.
    fn letters(&self, side: Side, seen: &Seen, state: &State) -> (Flags, u64) {
        let (letters, to) = (&self.set.letters, state.place.folder);
        let kept = letters.carry(side, seen.owed, seen.place.folder, to);
        let bears = letters.own(side, to, state.flags, kept);
        let count = |flags: Flags| flags.keywords().count();
        let lost = count(seen.entry.flags()).saturating_sub(count(seen.owed));
        (bears, lost + count(seen.owed).saturating_sub(count(kept)))
    }

    fn retire(&self, side: Side, index: usize, seen: &Seen, reason: Reason) -> Step {
        Step {
            index,
            op: Op::Retire {
                at: self.at(side, &seen.place),
                expect: expect(seen),
                reason,
                consent: self.consent(side, index),
            },
            kind: Kind::Deleted,
            target: None,
            forget: reason == Reason::Excluded,
            is_temporary: false,
            dropped: 0,
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
        sources: &Sources,
    ) -> Result<Step, Why> {
        let body = if state.digest == seen.entry.digest {
            None
        } else {
            let Some((_, body)) = self.body(side, index, state, sources) else {
                return Err(Why::NoGoodCopy);
            };
            Some(body)
        };
        let moves = state.place != seen.place;
        let (bears, dropped) = self.letters(side, seen, state);
        let kind = if body.is_some() {
            Kind::Replaced
        } else if moves {
            Kind::Moved
        } else {
            Kind::Flags
        };
        Ok(Step {
            index,
            op: Op::Update {
                at: self.at(side, &seen.place),
                expect: expect(seen),
                to: self.at(side, &state.place),
                in_new: state.in_new,
                flags: bears,
                body,
                consent: self.consent(side, index),
            },
            kind,
            target: Some(state.clone()),
            forget: false,
            is_temporary: false,
            dropped,
            from: moves.then(|| seen.place.clone()),
            to: moves.then(|| state.place.clone()),
        })
    }

    fn create(
        &self,
        side: Side,
        index: usize,
        state: &State,
        sources: &Sources,
    ) -> Result<Step, Why> {
        match self.folders.scope(self.filter, state.place.folder) {
            Scope::Included => {}
            Scope::Placeless => return Err(Why::NoPlace(side)),
            Scope::Excluded | Scope::NotSelected => return Err(Why::NotChosen),
        }
        let Some((source, body)) = self.body(side, index, state, sources) else {
            return Err(Why::NoGoodCopy);
        };
        let (letters, folder) = (&self.set.letters, state.place.folder);
        let bears = letters.own(side, folder, state.flags, Flags::EMPTY);
        // What a first sync has brought itself is no copy of what was there; a dry run of it says the same.
        let was_there = !self.limits.is_first || sources.settled.contains_key(&state.digest);
        let kind = match body.source {
            Source::Copy(_) if was_there => Kind::Copied,
            Source::Copy(_) | Source::Remade(_) | Source::Body { .. } => Kind::New,
        };
        Ok(Step {
            index,
            op: Op::Create {
                at: self.at(side, &state.place),
                in_new: state.in_new,
                info: source.entry.info.with_flags(bears),
                body,
            },
            kind,
            target: Some(state.clone()),
            forget: false,
            is_temporary: false,
            dropped: 0,
            from: None,
            to: Some(state.place.clone()),
        })
    }

    /// Where a side gets bytes from: its own copy if it has one, else the other side's message.
    fn body(
        &self,
        side: Side,
        index: usize,
        state: &State,
        sources: &Sources,
    ) -> Option<(&Seen, NewBody)> {
        let of = self.set.all[index].record.seen(side.other())?;
        if of.entry.digest != state.digest {
            return None;
        }
        let source = match (self.form(side, index), sources.place(&state.digest)) {
            (Some(form), _) => Source::Remade(form),
            (None, Some(place)) => Source::Copy(self.at(side, place)),
            (None, None) => Source::Body { offset: 0 },
        };
        let body = NewBody {
            digest: of.entry.digest,
            size: of.entry.size,
            mtime_ns: of.entry.mtime_ns,
            source,
        };
        Some((of, body))
    }

    /// How the bytes that a message is to get are made of those that it has, where it is a copy of them.
    fn form(&self, side: Side, index: usize) -> Option<Form> {
        let copy = self.set.all[index].record.copied()?;
        copy.form.clone().filter(|_| side == Side::Local)
    }
}

pub(super) fn expect(seen: &Seen) -> Expect {
    Expect {
        in_new: seen.entry.in_new,
        flags: seen.entry.flags(),
        digest: seen.entry.digest,
    }
}
