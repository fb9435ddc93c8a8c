//! What is remembered of batches: what is asked, before it is; what is agreed, once it is durable (I4).

use std::collections::HashSet;

use protocol::message::{At, Source};
use protocol::{Entry, Info, Op, Outcome};

use super::Executor;
use crate::archive::AskedRef;
use crate::merge::plan::{Kind, Step, Why};
use crate::merge::record::{Seen, Seq, Side, State, Taken};
use crate::run::failure::Failure;
use crate::run::hooks::{self, Event, Notice};

impl Executor<'_, '_> {
    /// Records what is about to be asked of a side.
    pub(super) fn ask(&self, side: Side, steps: &[usize]) -> Result<i64, Failure> {
        let asked: Vec<AskedRef> = steps
            .iter()
            .map(|&at| {
                let step = &self.lanes[side as usize].steps[at];
                let work = &self.session.set.all[step.index];
                AskedRef {
                    side,
                    stored: &work.stored,
                    record: &work.record,
                    target: step.target.as_ref(),
                }
            })
            .collect();
        Ok(self.session.archive.ask(&asked)?)
    }

    /// Takes in what became of a batch, and stores what is agreed now, in one transaction.
    pub(super) fn steps_done(
        &mut self,
        side: Side,
        asked: i64,
        steps: &[usize],
        outcomes: &[Outcome],
    ) -> Result<(), Failure> {
        self.session.archive.begin()?;
        let stored = self.store_outcomes(side, asked, steps, outcomes);
        self.session.archive.end(stored)
    }

    fn store_outcomes(
        &mut self,
        side: Side,
        asked: i64,
        steps: &[usize],
        outcomes: &[Outcome],
    ) -> Result<(), Failure> {
        if side == Side::Local && hooks::are_told(self.session.account) {
            self.tell(steps, outcomes)?;
        }
        let mut full = None;
        for (&at, outcome) in steps.iter().zip(outcomes) {
            self.progress.advance(1, 0);
            let step = &self.lanes[side as usize].steps[at];
            if is_remade(&step.op) && !matches!(outcome, Outcome::Done { .. }) {
                // The next run fetches them.
                self.session.set.not_remade(step.index);
            }
            match outcome {
                Outcome::Done { seq } => self.step_done(side, at, *seq)?,
                Outcome::Failed { why } => {
                    self.skip_step(side, side, at, why);
                }
                Outcome::Full { why } => {
                    self.wait(side, at, Why::Full(side));
                    full = Some(why);
                }
                // It may be the place of one that stays for want of room.
                Outcome::Taken if full.is_some() || self.done.full[side as usize].is_some() => {
                    self.wait(side, at, Why::Full(side));
                }
                Outcome::Taken => {
                    let step = &self.lanes[side as usize].steps[at];
                    let seen = self.session.set.all[step.index].record.seen(side);
                    let target = step.target.as_ref();
                    let taken = target.map(|state| Taken::of(side, &state.place, seen));
                    self.taken.extend(taken);
                }
                Outcome::Stale | Outcome::Denied | Outcome::Made { .. } => {}
            }
        }
        if let Some(why) = full {
            self.stop_adding(side, why);
        }
        Ok(self.session.archive.answered(asked)?)
    }

    /// Remembers under which paths messages are before steps here, the first of each message.
    pub(super) fn note_paths(&mut self, side: Side, steps: &[usize]) -> Result<(), Failure> {
        if side == Side::Remote || !hooks::are_told_before(self.session.account) {
            return Ok(());
        }
        let steps = steps
            .iter()
            .map(|&at| &self.lanes[side as usize].steps[at])
            .filter_map(|step| match &step.op {
                Op::Update { at, .. } => Some((step.index, at)),
                _ => None,
            });
        let (indices, places): (Vec<usize>, Vec<&At>) = steps.unzip();
        let paths = hooks::paths(&self.session.local.lock(), &places)?;
        for (index, path) in indices.into_iter().zip(paths) {
            if let Some(path) = path {
                self.old_paths.entry(index).or_insert(path);
            }
        }
        Ok(())
    }

    /// Tells hooks of what was done here.
    fn tell(&mut self, steps: &[usize], outcomes: &[Outcome]) -> Result<(), Failure> {
        let account = self.session.account;
        let done = steps.iter().zip(outcomes);
        let done = done.filter(|(_, outcome)| matches!(outcome, Outcome::Done { .. }));
        let done = done.map(|(&at, _)| &self.lanes[Side::Local as usize].steps[at]);
        let done = done.filter_map(|step| Some((step, named_after(&step.op)?)));
        let (done, places): (Vec<&Step>, Vec<&At>) =
            done.filter(|(step, _)| !step.is_temporary).unzip();
        let paths = hooks::paths(&self.session.local.lock(), &places)?;
        for (step, path) in done.into_iter().zip(paths) {
            let before = self.session.set.all[step.index].record.seen(Side::Local);
            let place = step.target.as_ref().map(|state| &state.place);
            let place = place.or(before.map(|seen| &seen.place));
            let (Some(path), Some(place)) = (path, place) else {
                continue;
            };
            let folder = self.session.folders.name(place.folder).to_string();
            let old = self.old_paths.remove(&step.index);
            let notice = Notice::new(step.kind.word(), &folder, &path).before(old.as_deref());
            let told = &mut self.done.told;
            told.add(account, Event::Post, &notice);
            let is_seen = step
                .target
                .as_ref()
                .is_some_and(|state| state.flags.contains(b'S'));
            if step.kind == Kind::New && !is_seen {
                told.add(account, Event::New, &notice);
            }
        }
        Ok(())
    }

    fn step_done(&mut self, side: Side, at: usize, seq: u64) -> Result<(), Failure> {
        let step = &self.lanes[side as usize].steps[at];
        if !step.is_temporary {
            let tally = &mut self.done.tallies[side as usize];
            tally.add(step.kind);
            tally.keywords_dropped += step.dropped;
            if tracing::enabled!(tracing::Level::INFO) {
                let name = self.describe(step);
                tracing::info!("{}: {:?} {name}", side.word(), step.kind);
            }
        }
        let set = &mut self.session.set;
        let before = set.unlink(step.index, side);
        if let Some(state) = &step.target {
            let source = set.all[step.index]
                .record
                .seen(side.other())
                .map(|seen| seen.entry.clone());
            let owed = before.as_ref().map(|seen| seen.owed);
            let entry = entry_after(&step.op, before.map(|seen| seen.entry), source, state);
            let seen = Seen::new(state.place.clone(), entry, Seq::Known(seq));
            let seen = Seen {
                flags: state.flags,
                owed: owed.filter(|_| step.is_temporary).unwrap_or(seen.owed),
                ..seen
            };
            let displaced = set.link(step.index, side, seen);
            if let Some(displaced) = displaced {
                set.store(&self.session.archive, displaced)?;
            }
        }
        if step.forget {
            set.forget(step.index);
        }
        Ok(set.store(&self.session.archive, step.index)?)
    }

    pub(super) fn describe(&self, step: &Step) -> String {
        let record = &self.session.set.all[step.index].record;
        let place = step.target.as_ref().map(|state| &state.place);
        let seen = record
            .local
            .as_ref()
            .or(record.remote.as_ref())
            .map(|seen| &seen.place);
        place.or(seen).map_or_else(String::new, |place| {
            format!(
                "{}/{}",
                self.session.folders.name(place.folder),
                place.unique
            )
        })
    }

    /// Stores the rest: messages that only one side has yet, the folders, and how far both journals are known.
    pub(super) fn store_end(&mut self) -> Result<(), Failure> {
        let archive = &self.session.archive;
        archive.begin()?;
        for index in 0..self.session.set.all.len() {
            if self.session.set.all[index].is_dirty {
                self.session.set.store(archive, index)?;
            }
        }
        self.session.folders.save(archive)?;
        if !self.taken.is_empty() {
            if self.session.is_continued() {
                let earlier = archive.get::<HashSet<Taken>>("taken")?;
                self.taken.extend(earlier.unwrap_or_default());
            }
            archive.set("taken", &self.taken)?;
        }
        archive.set("local_cursor", &self.session.listed())?;
        for (lane, key) in self.lanes.iter().zip(["local_cursor", "remote_cursor"]) {
            if let Some(cursor) = lane.finished {
                archive.set(key, &cursor)?;
            }
        }
        Ok(archive.commit()?)
    }
}

/// Whether the new bytes were to be made of the old ones.
fn is_remade(op: &Op) -> bool {
    op.new_body()
        .is_some_and(|body| matches!(body.source, Source::Remade(_)))
}

/// Which message an operation is about, as it is named afterwards.
fn named_after(op: &Op) -> Option<&At> {
    match op {
        Op::Create { at, .. } | Op::Retire { at, .. } => Some(at),
        Op::Update { to, .. } => Some(to),
        Op::MakeFolder { .. } | Op::RenameFolder { .. } | Op::RemoveFolder { .. } => None,
    }
}

/// What a side holds after an operation, as far as this side needs to know it.
fn entry_after(op: &Op, before: Option<Entry>, source: Option<Entry>, state: &State) -> Entry {
    let bears = match op {
        Op::Update { flags, .. } => *flags,
        Op::Create { info, .. } => info.flags(),
        _ => state.flags,
    };
    let info = before
        .as_ref()
        .or(source.as_ref())
        .map_or_else(Info::default, |entry| entry.info.with_flags(bears));
    let body = op.new_body();
    let (size, mtime_ns) = match (body, &before) {
        (Some(body), _) => (body.size, body.mtime_ns),
        (None, Some(entry)) => (entry.size, entry.mtime_ns),
        (None, None) => (0, 0),
    };
    let damaged = match (body, &before) {
        (None, Some(entry)) => entry.damaged,
        (Some(_), _) | (None, None) => source.is_some_and(|source| source.damaged),
    };
    Entry {
        in_new: state.in_new,
        info,
        digest: state.digest,
        size,
        mtime_ns,
        damaged,
    }
}
