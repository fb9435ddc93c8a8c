//! A first pull: messages come with their bodies as the agent reads them, and are delivered, indexed and agreed batch by batch.
//!
//! Nothing is planned, since nothing is here that could be in the way: what is not delivered at the first try (its bytes did
//! not come, its name is taken) is stored as pending, and the ordinary merge deals with it at the end of the same run.
//!
//! # What holds
//! - How far the stream has come is stored together with what is asked of this side (I4). So a message is streamed once,
//!   however the run ends: after a kill it is looked for here, and fetched if it is not.
//! - Until the stream has ended the cursors stay where it began, so that the next run hears of all that changed since.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use maildir::{Incoming, Partials, Reader};
use protocol::codec::batches;
use protocol::entry::Change;
use protocol::message::{At, Course, Listing, NewBody, STREAM, Source};
use protocol::{Cursor, Entry, Flags, FolderChange, Info, Op, Outcome, Request, Response, Unique};
use serde::{Deserialize, Serialize};

use crate::archive::{Asking, Stored};
use crate::config::filter::Scope;
use crate::endpoint::link::{Answer, LinkError, unexpected};
use crate::endpoint::local::Hand;
use crate::merge::record::{Fid, Place, Record, Seen, Side};
use crate::report::Skipped;
use crate::report::progress::{Phase, Progress};
use crate::run::execute::Done;
use crate::run::failure::Failure;
use crate::run::session::Session;
use crate::run::stop::Stop;

/// How many messages a batch has at most, and how many bytes.
const BATCH_MESSAGES: usize = 1000;
const BATCH_BYTES: u64 = 16 << 20;
/// How long the first one gathers at most, so that a first message is there at once; each one after it twice as long.
const FIRST_AGE: Duration = Duration::from_millis(250);
const LAST_AGE: Duration = Duration::from_secs(64);
/// How long what has come is taken in once somebody wants us to end.
const WINDING_UP: Duration = Duration::from_secs(1);
/// How many messages may be told ahead of their bodies.
const TOLD_MAX: usize = 10_000;
/// How many bytes past a body's end are passed over.
const EXCESS_MAX: u64 = 64 << 20;

/// How far a stream has come; stored as long as it has not ended.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Progressed {
    /// The folders of which everything came.
    ended: BTreeSet<Fid>,
    /// The folder of which messages came last, and the last of them.
    last: Option<(Fid, Unique)>,
}

impl Progressed {
    /// The key under which the archive has it.
    pub const KEY: &str = "stream";

    fn advance(&mut self, folder: Fid, unique: &Unique) {
        match &mut self.last {
            Some((last, at)) if *last == folder => at.clone_from(unique),
            last => {
                self.ended.extend(last.take().map(|(folder, _)| folder));
                *last = Some((folder, unique.clone()));
            }
        }
    }
}

/// A message that has come.
struct Brought {
    theirs: Seen,
    in_new: bool,
    info: Info,
    body: NewBody,
    /// What it becomes here, once it is asked.
    record: Record,
}

struct Stream<'s, 'a> {
    session: &'s mut Session<'a>,
    progress: &'s Progress,
    stop: &'s Stop,
    partials: Partials,
    numbers: HashMap<u32, Fid>,
    progressed: Progressed,
    hand: Hand,
    /// Messages whose bodies are to come, in this order.
    told: VecDeque<Change>,
    incoming: Option<Incoming>,
    batch: Vec<Brought>,
    batch_bytes: u64,
    batch_due: Option<Instant>,
    batch_age: Duration,
    in_hand: VecDeque<(i64, Vec<Brought>)>,
    /// How many messages there are, as far as that is known.
    expected: u64,
    /// Until when it may go on once somebody wants us to end.
    until: Option<Instant>,
    /// What could not be delivered, to be stored with the next batch.
    left: Vec<Seen>,
    /// The places of what is stored as that.
    pending: HashSet<Place>,
    done: Done,
}

impl Session<'_> {
    /// Takes in what the agent streams, if it does. What was delivered is told even if it breaks off.
    pub fn stream(&mut self, progress: &Progress, stop: &Stop) -> (Done, Result<(), Failure>) {
        if self.welcome.features & STREAM == 0 {
            return (Done::default(), Ok(()));
        }
        let begun = self.begin_stream();
        let begun = begun.and_then(|known| {
            let pending = self.archive.pending()?.into_iter();
            let places = pending.filter_map(|(_, record)| Some(record.remote?.place));
            Ok((known, places.collect(), Hand::start(&self.local)?))
        });
        let ((progressed, courses), pending, hand) = match begun {
            Ok(begun) => begun,
            Err(failure) => {
                let failure = failure.after(|| "nothing had come".to_owned());
                return (Done::default(), Err(failure));
            }
        };
        progress.begin(Phase::Transferring, 0, 0);
        let partials = self.local.lock().partials();
        // What nobody asked for is passed over.
        let mut numbers = self.folders.numbers(Side::Remote);
        numbers.retain(|number, _| courses.iter().any(|course| course.folder == *number));
        let mut stream = Stream {
            session: self,
            progress,
            stop,
            partials,
            numbers,
            progressed,
            hand,
            told: VecDeque::new(),
            incoming: None,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_due: None,
            batch_age: FIRST_AGE,
            in_hand: VecDeque::new(),
            expected: 0,
            until: None,
            left: Vec::new(),
            pending,
            done: Done::default(),
        };
        let result = stream.run(courses);
        (stream.done, result)
    }

    /// Makes the folders here, and says which of theirs are wanted.
    fn begin_stream(&mut self) -> Result<(Progressed, Vec<Course>), Failure> {
        let (folders, cursor) = self.streamed_folders()?;
        self.archive.begin()?;
        let begun = self.take_streamed_folders(&folders, cursor);
        self.archive.end(begun)?;
        let filter = &self.account.filter;
        let is_wanted = |id: Fid| self.folders.scope(filter, id) == Scope::Included;
        let ops = self.folders.makings(Side::Local, &is_wanted);
        let plain: Vec<Op> = ops.iter().map(|(_, op)| op.clone()).collect();
        if !plain.is_empty() {
            let outcomes = self.local.lock().apply(&plain, Vec::new())?;
            for ((id, op), outcome) in ops.iter().zip(&outcomes) {
                if matches!(outcome, Outcome::Made { .. }) {
                    self.folders.done(Side::Local, *id, op, outcome);
                }
            }
        }
        self.archive.begin()?;
        let saved = self.folders.save(&self.archive);
        self.archive.end(saved)?;
        let progressed: Progressed = self.archive.get(Progressed::KEY)?.unwrap_or_default();
        let courses = self.courses(&progressed);
        Ok((progressed, courses))
    }

    /// The folders that the agent names before it is told which are wanted.
    fn streamed_folders(&mut self) -> Result<(Vec<FolderChange>, Cursor), Failure> {
        let mut folders = Vec::new();
        loop {
            match self.link.response()? {
                Response::Folders(more) => folders.extend(more),
                Response::Listed(listed) if listed.from == Listing::Folders => {
                    return Ok((folders, listed.cursor));
                }
                other => return Err(unexpected(&other).into()),
            }
        }
    }

    fn take_streamed_folders(
        &mut self,
        folders: &[FolderChange],
        cursor: Cursor,
    ) -> Result<(), Failure> {
        let known = self.archive.get::<Cursor>("remote_cursor")?;
        if known.is_none_or(|known| known.index != cursor.index) {
            self.begin_new_life(Side::Remote)?;
        }
        self.set.letters = self.archive.get("letters")?.unwrap_or_default();
        self.take_folders(Side::Remote, folders);
        let mut reader = Reader::since(0, false);
        loop {
            let page = self.local.lock().next_page(&mut reader)?;
            let Some(page) = page else { break };
            self.take_folders(Side::Local, &page.folders);
        }
        self.folders.part_names(&self.account.filter);
        self.set.letters.place(&self.folders);
        self.archive.set("letters", &self.set.letters.stored())?;
        if known.is_none() {
            self.archive.set("remote_cursor", &cursor)?;
            self.archive.set("local_cursor", &self.told)?;
            self.archive.set(Progressed::KEY, &Progressed::default())?;
        }
        Ok(self.folders.save(&self.archive)?)
    }

    /// What is still to come of each folder that both sides have, INBOX first.
    fn courses(&self, progressed: &Progressed) -> Vec<Course> {
        let filter = &self.account.filter;
        let mut wanted: Vec<(bool, Fid, Course)> = self
            .folders
            .iter()
            .filter(|(id, folder)| {
                folder.local.is_some()
                    && self.folders.scope(filter, *id) == Scope::Included
                    && !progressed.ended.contains(id)
            })
            .filter_map(|(id, folder)| {
                let folder = (folder.remote.as_ref()?.number, folder.name().is_inbox());
                let last = progressed.last.as_ref().filter(|(last, _)| *last == id);
                let after = last.map(|(_, unique)| unique.clone());
                let (number, is_inbox) = folder;
                let course = Course {
                    folder: number,
                    after,
                };
                Some((!is_inbox, id, course))
            })
            .collect();
        wanted.sort_by_key(|(is_other, id, course)| (course.after.is_none(), *is_other, *id));
        wanted.into_iter().map(|(.., course)| course).collect()
    }
}

impl Stream<'_, '_> {
    fn run(&mut self, courses: Vec<Course>) -> Result<(), Failure> {
        let mut kept: Vec<_> = self
            .partials
            .list()
            .into_iter()
            .map(|(digest, _)| digest)
            .collect();
        for folders in batches(courses) {
            let kept = std::mem::take(&mut kept);
            self.session.link.request(Request::Stream { folders, kept });
        }
        self.session.link.request(Request::Stream {
            folders: Vec::new(),
            kept: Vec::new(),
        });
        let result = self.converse();
        // What has come in full is delivered, whatever ended it.
        let delivered = self.deliver().and_then(|()| self.take_from_hand(true));
        let so_far = self.done.tallies[Side::Local as usize].new;
        self.done.unreached = self.expected.saturating_sub(so_far);
        result.map_err(|failure| failure.after(|| format!("{so_far} messages are here")))?;
        delivered?;
        self.end()
    }

    fn converse(&mut self) -> Result<(), Failure> {
        loop {
            self.take_from_hand(false)?;
            if self.stop.is_requested() && !self.may_go_on() {
                return Err(Failure::interrupted());
            }
            if self.done.full[Side::Local as usize].is_some() {
                return Ok(());
            }
            let is_due = self.batch_due.is_some_and(|due| due <= Instant::now());
            if is_due {
                self.deliver()?;
            }
            if !self.session.link.has_answer() {
                self.hand.pass_on();
            }
            match self.session.link.answer(self.batch_due)? {
                Some(Answer::Response(Response::Listed(listed))) => {
                    self.remember_tag(listed.cursor)?;
                    self.expect(listed.messages);
                    if listed.from == Listing::Stream {
                        return Ok(());
                    }
                }
                Some(Answer::Response(Response::Changes(changes))) => self.take_changes(changes)?,
                Some(Answer::Response(Response::NoBody { why })) => self.take_no_body(&why)?,
                Some(Answer::Body(bytes, last)) => self.take_body(bytes, last)?,
                Some(Answer::Response(other)) => return Err(unexpected(&other).into()),
                None => {}
            }
        }
    }

    /// Takes in how many messages the folders hold that were listed so far.
    fn expect(&mut self, total: u64) {
        let more = total.saturating_sub(self.expected);
        match self.expected {
            0 => self.progress.begin(Phase::Transferring, more, 0),
            _ => self.progress.expect(more, 0),
        }
        self.expected += more;
    }

    /// Somebody wants us to end: what is here already is taken in, for so long.
    fn may_go_on(&mut self) -> bool {
        let until = *self
            .until
            .get_or_insert_with(|| Instant::now() + WINDING_UP);
        self.session.link.has_answer() && Instant::now() < until
    }

    /// The server's tree vouches for what comes from here on by another tag.
    fn remember_tag(&self, told: Cursor) -> Result<(), Failure> {
        let known = self.session.archive.get::<Cursor>("remote_cursor")?;
        if let Some(known) = known.filter(|known| known.tag != told.tag) {
            let tag = told.tag;
            let cursor = Cursor { tag, ..known };
            self.session.archive.set("remote_cursor", &cursor)?;
        }
        Ok(())
    }

    fn take_changes(&mut self, changes: Vec<Change>) -> Result<(), Failure> {
        if self.told.len() + changes.len() > TOLD_MAX {
            return Err(wrong("More messages were told than bodies came"));
        }
        self.told.extend(changes);
        Ok(())
    }

    /// The message as the other side has it, if its folder is known.
    fn seen(&self, change: &Change) -> Option<Seen> {
        let place = Place {
            folder: *self.numbers.get(&change.folder)?,
            unique: change.unique.clone(),
            copy: change.copy,
        };
        let seen = Seen::new(place, change.entry.clone(), change.seq);
        Some(self.session.set.letters.first(Side::Remote, seen))
    }

    fn take_no_body(&mut self, why: &str) -> Result<(), Failure> {
        let change = self.told.pop_front();
        let change = change.ok_or_else(|| wrong("A body was refused that nobody asked for"))?;
        if !why.is_empty() {
            self.done.skipped.push(Skipped {
                side: Side::Remote,
                path: protocol::bytes::escape(change.unique.as_bytes()),
                why: why.to_owned(),
                heading: None,
                holds: false,
            });
        }
        self.left.extend(self.seen(&change));
        Ok(())
    }

    fn take_body(&mut self, bytes: Vec<u8>, last: bool) -> Result<(), Failure> {
        let change = self.told.front();
        let change = change.ok_or_else(|| wrong("A body came that nobody asked for"))?;
        self.progress.advance(0, bytes.len() as u64);
        let (digest, size) = (change.entry.digest, change.entry.size);
        let partials = &self.partials;
        let incoming = self
            .incoming
            .get_or_insert_with(|| Incoming::begin_quick(partials, digest, size, 0));
        incoming.take(bytes);
        if incoming.excess() > EXCESS_MAX {
            return Err(wrong("Far more of a body came than was announced"));
        }
        if !last {
            return Ok(());
        }
        let (Some(change), Some(incoming)) = (self.told.pop_front(), self.incoming.take()) else {
            return Ok(());
        };
        if let Some(theirs) = self.seen(&change) {
            self.bring(theirs, incoming);
        }
        if self.batch.len() >= BATCH_MESSAGES || self.batch_bytes >= BATCH_BYTES {
            self.deliver()?;
        }
        Ok(())
    }

    /// Puts a message into the batch.
    fn bring(&mut self, theirs: Seen, incoming: Incoming) {
        let place = &theirs.place;
        let letters = &self.session.set.letters;
        let bears = letters.own(Side::Local, place.folder, theirs.flags, Flags::EMPTY);
        let entry = &theirs.entry;
        let body = NewBody {
            digest: entry.digest,
            size: entry.size,
            mtime_ns: entry.mtime_ns,
            source: Source::Body { offset: 0 },
        };
        let at = self.session.at(Side::Local, place);
        self.hand.bring(at, body.clone(), incoming);
        self.batch_bytes = self.batch_bytes.saturating_add(body.size);
        self.batch_due
            .get_or_insert_with(|| Instant::now() + self.batch_age);
        self.batch.push(Brought {
            in_new: entry.in_new,
            info: entry.info.with_flags(bears),
            body,
            record: Record {
                remote: Some(theirs.clone()),
                ..Record::default()
            },
            theirs,
        });
    }

    /// Hands the batch over, once it is stored what is asked and how far the stream has come.
    fn deliver(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if self.batch_due.take().is_some() {
            self.batch_age = (self.batch_age * 2).min(LAST_AGE);
        }
        if batch.is_empty() && self.left.is_empty() {
            return Ok(());
        }
        while self.hand.is_busy() {
            self.take_one(true)?;
        }
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
        let ops: Vec<Op> = batch.iter().map(|brought| self.op(brought)).collect();
        self.hand.give(ops, batch.len());
        self.in_hand.push_back((asked, batch));
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
        let lines = lines.map(|(brought, target)| Asking {
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
            // What shares its name is told once more by each stream.
            let is_known = self.session.archive.agreed_at(&theirs.place)?.is_some();
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

    fn op(&self, brought: &Brought) -> Op {
        Op::Create {
            at: self.session.at(Side::Local, &brought.theirs.place),
            in_new: brought.in_new,
            info: brought.info.clone(),
            body: brought.body.clone(),
        }
    }

    fn take_from_hand(&mut self, wait: bool) -> Result<(), Failure> {
        while self.take_one(wait)? {}
        Ok(())
    }

    fn take_one(&mut self, wait: bool) -> Result<bool, Failure> {
        let Some(outcomes) = self.hand.take(wait)? else {
            return Ok(false);
        };
        let Some((asked, batch)) = self.in_hand.pop_front() else {
            return Ok(false);
        };
        self.session.archive.begin()?;
        let stored = self.store(asked, batch, &outcomes);
        self.session.archive.end(stored)?;
        Ok(true)
    }

    /// Takes in what became of a batch: what was delivered is agreed.
    fn store(
        &mut self,
        asked: i64,
        batch: Vec<Brought>,
        outcomes: &[Outcome],
    ) -> Result<(), Failure> {
        if self.session.account.post_hook.is_some() {
            let done = batch.iter().zip(outcomes);
            let done = done.filter(|(_, outcome)| matches!(outcome, Outcome::Done { .. }));
            let places = done.map(|(one, _)| self.session.at(Side::Local, &one.theirs.place));
            let places: Vec<At> = places.collect();
            let paths = self.session.local.lock();
            let paths = paths.file_paths(&places.iter().collect::<Vec<_>>())?;
            self.done.changed.extend(paths);
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
        // Our own changes are no news of this side, as long as nobody else made some between them.
        let local = self.session.local.lock().cursor()?;
        self.session.archive.set("local_cursor", &local)?;
        Ok(self.session.archive.answered(asked)?)
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
        let mut ours = Seen::new(theirs.place.clone(), entry, seq);
        ours.flags = theirs.flags;
        tracing::info!("here: New {:?}", ours.place.unique);
        record.local = Some(ours);
        record.agree(&self.session.set.letters);
        self.session.archive.put(&Stored::Nowhere, &record)?;
        self.done.tallies[Side::Local as usize].new += 1;
        Ok(())
    }

    /// The stream has ended: from here on the list goes on, and this side's journal is known up to what was delivered.
    fn end(&mut self) -> Result<(), Failure> {
        let session = &mut *self.session;
        session.told = session.local.lock().cursor()?;
        session.is_first = false;
        session.archive.begin()?;
        let removed = session.archive.remove(Progressed::KEY);
        Ok(session.archive.end(removed)?)
    }
}

fn wrong(what: &str) -> Failure {
    LinkError::Protocol(format!("{what}; install the same release on both sides")).into()
}
