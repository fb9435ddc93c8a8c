//! Batches of a stream: asked of this side, delivered, agreed.

use std::time::Instant;

use protocol::message::{At, NewBody, Source};
use protocol::{Entry, Flags, Op, Outcome, Response};

use super::{BATCHES_AHEAD, Brought, Progressed, SLICE, Stream};
use crate::archive::AskedRef;
use crate::endpoint::{Answer, Endpoint};
use crate::merge::agreed::{Agreed, Stored};
use crate::merge::plan::Kind;
use crate::merge::record::{Record, Seen, Seq, Side};
use crate::run::failure::Failure;
use crate::run::hooks::{self, Event, Notice};

impl Stream<'_, '_> {
    /// A message that is to come, as it is to be here.
    pub(super) fn brought(&self, theirs: Seen) -> Brought {
        let letters = &self.session.set.letters;
        let folder = theirs.place.folder;
        let bears = letters.own(Side::Local, folder, theirs.flags, Flags::EMPTY);
        let entry = &theirs.entry;
        Brought {
            in_new: entry.in_new,
            info: entry.info.with_flags(bears),
            body: NewBody {
                digest: entry.digest,
                size: entry.size,
                mtime_ns: entry.mtime_ns,
                source: Source::Body { offset: 0 },
            },
            record: Record {
                remote: Some(theirs.clone()),
                ..Record::default()
            },
            theirs,
        }
    }

    /// Hands the batch over, once it is stored what is asked and how far the stream has come.
    pub(super) fn deliver(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        self.batch_age.end();
        if batch.is_empty() && self.left.is_empty() {
            return Ok(());
        }
        self.wait_for_outcomes(BATCHES_AHEAD - 1)?;
        for brought in &batch {
            let place = &brought.theirs.place;
            self.progressed.advance(place.folder, &place.unique);
        }
        self.session.archive.begin()?;
        let asked = self.ask(&batch);
        let asked = self.session.archive.end(asked)?;
        if batch.is_empty() {
            return Ok(());
        }
        self.session.local.carry_out();
        self.in_flight.push_back((asked, batch));
        Ok(())
    }

    fn ask(&mut self, batch: &[Brought]) -> Result<i64, Failure> {
        self.leave()?;
        let archive = &self.session.archive;
        archive.set(Progressed::KEY, &self.progressed)?;
        if batch.is_empty() {
            return Ok(0);
        }
        let targets: Vec<_> = batch.iter().map(|brought| brought.theirs.state()).collect();
        let lines = batch.iter().zip(&targets);
        let lines = lines.map(|(brought, target)| AskedRef {
            side: Side::Local,
            stored: &Stored::Nowhere,
            record: &brought.record,
            target: Some(target),
        });
        Ok(archive.ask(&lines.collect::<Vec<_>>())?)
    }

    /// Stores what could not be delivered, for the merge that follows.
    fn leave(&mut self) -> Result<(), Failure> {
        for theirs in std::mem::take(&mut self.left) {
            // What shares its name is reported once more by each stream.
            let is_known = self.session.archive.at(&theirs.place)?.is_some();
            if is_known || !self.pending.insert(theirs.place.clone()) {
                continue;
            }
            let record = Record {
                remote: Some(theirs),
                ..Record::default()
            };
            self.session.archive.put(&Stored::Nowhere, &record)?;
        }
        Ok(())
    }

    pub(super) fn op(&self, brought: &Brought) -> Op {
        Op::Create {
            at: self.session.at(Side::Local, &brought.theirs.place),
            in_new: brought.in_new,
            info: brought.info.clone(),
            body: brought.body.clone(),
        }
    }

    /// Waits until so many batches are under way at most.
    pub(super) fn wait_for_outcomes(&mut self, most: usize) -> Result<(), Failure> {
        let bell = self.session.local.bell().clone();
        loop {
            let count = bell.count();
            self.take_outcomes()?;
            if self.in_flight.len() <= most {
                return Ok(());
            }
            bell.wait(count, Instant::now() + SLICE); // Also when we are asked to end: the disk may take its time.
        }
    }

    /// Takes in what became of batches so far.
    pub(super) fn take_outcomes(&mut self) -> Result<(), Failure> {
        while let Some(answer) = self.session.local.poll()? {
            if let Answer::Response(Response::Outcomes(outcomes)) = answer {
                self.take_one(&outcomes)?;
            }
        }
        Ok(())
    }

    fn take_one(&mut self, outcomes: &[Outcome]) -> Result<(), Failure> {
        let Some((asked, batch)) = self.in_flight.pop_front() else {
            return Ok(());
        };
        self.session.archive.begin()?;
        let stored = self.store(asked, batch, outcomes);
        self.session.archive.end(stored)
    }

    /// Takes in what became of a batch: what was delivered is agreed.
    fn store(
        &mut self,
        asked: i64,
        batch: Vec<Brought>,
        outcomes: &[Outcome],
    ) -> Result<(), Failure> {
        if hooks::are_told(self.session.account) {
            self.tell(&batch, outcomes)?;
        }
        for (brought, outcome) in batch.into_iter().zip(outcomes) {
            self.progress.advance(1, 0);
            match outcome {
                Outcome::Done { seq } => self.agree(brought, *seq)?,
                Outcome::Full { why } => {
                    self.done.full[Side::Local as usize] = Some(why.clone());
                    self.left.push(brought.theirs);
                }
                // The merge tries again, and says what is the matter.
                Outcome::Failed { .. }
                | Outcome::Taken
                | Outcome::Stale
                | Outcome::Denied
                | Outcome::Made { .. } => self.left.push(brought.theirs),
            }
        }
        self.leave()?;
        // Our own changes are no news of this side, as long as no other program made some between them.
        let local = self.session.local.lock().cursor()?;
        self.session.archive.set("local_cursor", &local)?;
        Ok(self.session.archive.answered(asked)?)
    }

    /// Tells hooks of what was delivered.
    fn tell(&mut self, batch: &[Brought], outcomes: &[Outcome]) -> Result<(), Failure> {
        let done = batch.iter().zip(outcomes);
        let done = done.filter(|(_, outcome)| matches!(outcome, Outcome::Done { .. }));
        let done: Vec<&Brought> = done.map(|(brought, _)| brought).collect();
        let places = done.iter();
        let places = places.map(|brought| self.session.at(Side::Local, &brought.theirs.place));
        let places: Vec<At> = places.collect();
        let places: Vec<&At> = places.iter().collect();
        let paths = hooks::paths(&self.session.local.lock(), &places)?;
        for (brought, path) in done.into_iter().zip(paths) {
            let folder = self.session.folders.name(brought.theirs.place.folder);
            let (folder, path) = (folder.to_string(), path.unwrap_or_default());
            let notice = Notice::new(Kind::New.word(), &folder, &path);
            let told = &mut self.done.told;
            told.add(self.session.account, Event::Post, &notice);
            if !brought.info.flags().contains(b'S') {
                told.add(self.session.account, Event::New, &notice);
            }
        }
        Ok(())
    }

    fn agree(&mut self, brought: Brought, seq: u64) -> Result<(), Failure> {
        let Brought {
            theirs,
            info,
            mut record,
            ..
        } = brought;
        let entry = Entry {
            info,
            ..theirs.entry.clone()
        };
        let mut ours = Seen::new(theirs.place.clone(), entry, Seq::Known(seq));
        ours.flags = theirs.flags;
        tracing::info!("here: New {:?}", ours.place.unique);
        record.local = Some(ours);
        record.agree(&self.session.set.letters);
        self.session.archive.put(&Stored::Nowhere, &record)?;
        self.done.tallies[Side::Local as usize].new += 1;
        Ok(())
    }

    /// The stream has ended: from here on the list goes on, and this side's journal is known up to what was delivered.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        let session = &mut *self.session;
        session.promised = session.local.lock().cursor()?;
        session.is_first = false;
        session.archive.begin()?;
        let removed = session.archive.remove(Progressed::KEY);
        Ok(session.archive.end(removed)?)
    }
}
