//! A first pull: messages come with their bodies as the agent reads them, and are delivered, indexed and agreed batch by batch.
//!
//! Nothing is planned, since nothing is here that could be in the way. A message that is not delivered at the first try (its
//! bytes did not come, its name is taken) is stored as pending. The ordinary merge deals with it at the end of the same run.
//!
//! # What holds
//! - How far the stream has come is stored together with what is asked of this side (I4). So a message is streamed once,
//!   however the run ends: after a kill it is looked for here, and fetched if it is not.
//! - Until the stream has ended the cursors stay where it began, so that the next run takes in all that changed since.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use maildir::{BATCHES_AHEAD, BatchAge};
use protocol::codec::batches;
use protocol::entry::Change;
use protocol::message::{Course, Listing, NewBody, STREAM};
use protocol::{Cursor, Info, Request, Response, Unique};
use serde::{Deserialize, Serialize};

use crate::endpoint::link::LinkError;
use crate::endpoint::stop::Stop;
use crate::endpoint::{Answer, Endpoint, unexpected};
use crate::merge::record::{Fid, Place, Record, Seen, Seq, Side};
use crate::report::progress::{Phase, Progress};
use crate::report::skipped::Skipped;
use crate::run::execute::Executed;
use crate::run::failure::Failure;
use crate::run::session::Session;

mod begin;
mod deliver;

/// How many messages a batch has at most, and how many bytes.
const BATCH_MESSAGES: usize = 1000;
const BATCH_BYTES: u64 = 16 << 20;
/// How long what has come is taken in once we are asked to end.
const WINDING_UP: Duration = Duration::from_secs(1);
/// For how long nothing must come until all that had is taken in.
const QUIET: Duration = Duration::from_millis(100);
/// How many messages may be announced ahead of their bodies.
const ANNOUNCED_MAX: usize = 10_000;
/// How long the endpoints are waited for at a time.
const SLICE: Duration = Duration::from_secs(1);

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
    numbers: HashMap<u32, Fid>,
    progressed: Progressed,
    /// Messages whose bodies are to come, in this order; nothing for those that were not asked for.
    announced: VecDeque<(Unique, Option<Brought>)>,
    batch: Vec<Brought>,
    batch_bytes: u64,
    batch_age: BatchAge,
    in_flight: VecDeque<(i64, Vec<Brought>)>,
    /// How many messages there are, as far as that is known.
    expected: u64,
    /// Until when it may go on once we are asked to end.
    until: Option<Instant>,
    /// What could not be delivered, to be stored with the next batch.
    left: Vec<Seen>,
    /// The places of what is stored as that.
    pending: HashSet<Place>,
    done: Executed,
}

impl Session<'_> {
    /// Takes in what the agent streams, if it does. What was delivered is reported even if it breaks off.
    pub fn stream(&mut self, progress: &Progress, stop: &Stop) -> (Executed, Result<(), Failure>) {
        if self.welcome.features & STREAM == 0 {
            return (Executed::default(), Ok(()));
        }
        let begun = self.begin_stream();
        let begun = begun.and_then(|known| {
            let pending = self.archive.pending()?.into_iter();
            let places = pending.filter_map(|(_, record)| Some(record.remote?.place));
            Ok((known, places.collect()))
        });
        let ((progressed, courses), pending) = match begun {
            Ok(begun) => begun,
            Err(failure) => {
                let failure = failure.after(|| "nothing had come".to_owned());
                return (Executed::default(), Err(failure));
            }
        };
        progress.begin(Phase::Transferring, 0, 0);
        // What was not asked for is passed over.
        let mut numbers = self.folders.numbers(Side::Remote);
        numbers.retain(|number, _| courses.iter().any(|course| course.folder == *number));
        let mut stream = Stream {
            session: self,
            progress,
            stop,
            numbers,
            progressed,
            announced: VecDeque::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            batch_age: BatchAge::default(),
            in_flight: VecDeque::new(),
            expected: 0,
            until: None,
            left: Vec::new(),
            pending,
            done: Executed::default(),
        };
        let result = stream.run(courses);
        (stream.done, result)
    }
}

impl Stream<'_, '_> {
    fn run(&mut self, courses: Vec<Course>) -> Result<(), Failure> {
        let kept = self.session.local.lock().partials().list().into_iter();
        let mut kept: Vec<_> = kept.map(|(digest, _)| digest).collect();
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
        let delivered = match &result {
            Err(Failure::Replica(_)) => Ok(()), // Nothing more is done here.
            Ok(()) | Err(_) => self.deliver().and_then(|()| {
                self.session.local.end_gathering();
                self.wait_for_outcomes(0)
            }),
        };
        let so_far = self.done.tallies[Side::Local as usize].new;
        self.done.unreached = self.expected.saturating_sub(so_far);
        result.map_err(|failure| failure.after(|| format!("{so_far} messages are here")))?;
        delivered?;
        self.end()
    }

    fn converse(&mut self) -> Result<(), Failure> {
        let bell = self.session.local.bell().clone();
        loop {
            let (count, begun) = (bell.count(), Instant::now());
            self.take_outcomes()?;
            if self.done.full[Side::Local as usize].is_some() {
                return Ok(());
            }
            if self.batch_age.is_due(begun) {
                self.deliver()?;
            }
            let answer = self.session.link.poll()?;
            let is_ending = self.stop.is_requested();
            if is_ending && !self.may_go_on() {
                return Err(Failure::interrupted());
            }
            match answer {
                Some(Answer::Response(Response::Listed(listed))) => {
                    self.remember_tag(listed.cursor)?;
                    self.expect(listed.messages);
                    if listed.from == Listing::Stream {
                        return Ok(());
                    }
                }
                Some(Answer::Response(Response::Changes(changes))) => self.take_changes(changes)?,
                Some(Answer::Response(Response::NoBody { why })) => self.take_no_body(&why)?,
                Some(Answer::Body(bytes, is_last)) => self.take_body(bytes, is_last)?,
                Some(Answer::Response(other)) => return Err(unexpected(&other).into()),
                None if is_ending => {
                    bell.wait(count, begun + QUIET);
                    if bell.count() == count {
                        return Err(Failure::interrupted());
                    }
                }
                None => {
                    self.session.local.rest();
                    let end = begun + SLICE;
                    bell.wait(
                        count,
                        self.batch_age.until().map_or(end, |due| due.min(end)),
                    );
                    self.session.link.waited(begun.elapsed())?;
                }
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

    /// We are asked to end: what has come already is taken in, for so long.
    fn may_go_on(&mut self) -> bool {
        let until = *self
            .until
            .get_or_insert_with(|| Instant::now() + WINDING_UP);
        Instant::now() < until
    }

    /// The server's tree vouches for what comes from here on by another tag.
    fn remember_tag(&self, reported: Cursor) -> Result<(), Failure> {
        let known = self.session.archive.get::<Cursor>("remote_cursor")?;
        if let Some(known) = known.filter(|known| known.tag != reported.tag) {
            let tag = reported.tag;
            let cursor = Cursor { tag, ..known };
            self.session.archive.set("remote_cursor", &cursor)?;
        }
        Ok(())
    }

    fn take_changes(&mut self, changes: Vec<Change>) -> Result<(), Failure> {
        if self.announced.len() + changes.len() > ANNOUNCED_MAX {
            return Err(wrong("More messages were announced than bodies came"));
        }
        let brought: Vec<_> = changes
            .into_iter()
            .map(|change| {
                let brought = self.seen(&change).map(|theirs| self.brought(theirs));
                (change.unique, brought)
            })
            .collect();
        let wanted = brought.iter().filter_map(|(_, brought)| brought.as_ref());
        let ops = wanted.map(|brought| self.op(brought)).collect();
        self.session.local.gather(ops);
        self.announced.extend(brought);
        Ok(())
    }

    /// The message as the other side has it, if its folder is known.
    fn seen(&self, change: &Change) -> Option<Seen> {
        let place = Place {
            folder: *self.numbers.get(&change.folder)?,
            unique: change.unique.clone(),
            copy: change.copy,
        };
        let seen = Seen::new(place, change.entry.clone(), Seq::Known(change.seq));
        Some(self.session.set.letters.first(Side::Remote, seen))
    }

    fn take_no_body(&mut self, why: &str) -> Result<(), Failure> {
        let first = self.announced.front();
        let (unique, _) = first.ok_or_else(|| wrong("A body was refused that nobody asked for"))?;
        if !why.is_empty() {
            self.done.skipped.push(Skipped {
                side: Side::Remote,
                path: protocol::bytes::escape(unique.as_bytes()),
                why: why.to_owned(),
                heading: None,
                holds: false,
            });
        }
        self.take_body(Vec::new(), true)
    }

    fn take_body(&mut self, bytes: Vec<u8>, is_last: bool) -> Result<(), Failure> {
        let first = self.announced.front();
        let (_, brought) = first.ok_or_else(|| wrong("A body came that nobody asked for"))?;
        self.progress.advance(0, bytes.len() as u64);
        if brought.is_some() {
            self.session.local.body(bytes, is_last)?;
        }
        if !is_last {
            return Ok(());
        }
        if let Some((_, Some(brought))) = self.announced.pop_front() {
            self.batch_bytes = self.batch_bytes.saturating_add(brought.body.size);
            self.batch_age.begin();
            self.batch.push(brought);
        }
        if self.batch.len() >= BATCH_MESSAGES || self.batch_bytes >= BATCH_BYTES {
            self.deliver()?;
        }
        Ok(())
    }
}

fn wrong(what: &str) -> Failure {
    LinkError::Protocol(format!("{what}; install the same release on both sides")).into()
}
