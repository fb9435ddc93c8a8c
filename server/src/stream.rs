//! A first list with the bodies in it, for a client that has nothing of the tree yet: what [`maildir::Replica::stream`] reads
//! goes out as it is read.
//!
//! The root is not locked while the wire is waited for. Knows nothing of what the client has, but what it says of that.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use maildir::Streamed;
use protocol::codec::{batches, decode};
use protocol::message::{Course, Listed, Listing, Refusal, RefusalKind};
use protocol::pace::Pace;
use protocol::{Cursor, Digest, Request, Response};

use crate::agent::{Agent, broken, refusal};
use crate::answer::Output;

/// How many bodies a client may have part of.
const KEPT_MAX: usize = 100_000;

/// Why a stream ends before its end.
struct Broken(String);

impl From<maildir::Error> for Broken {
    fn from(error: maildir::Error) -> Broken {
        Broken(error.to_string())
    }
}

impl From<protocol::Error> for Broken {
    fn from(error: protocol::Error) -> Broken {
        Broken(error.to_string())
    }
}

/// What goes out.
struct Sender<'o> {
    output: &'o Output,
    pace: Pace,
    begun: Instant,
    /// Bodies of which the client asks for the rest.
    kept: HashSet<Digest>,
}

impl Agent {
    /// Tells the folders, and then the messages of those that the client wants. Returns the number after which the list goes
    /// on.
    pub(crate) fn stream(&mut self) -> Result<u64, Refusal> {
        let folders = self.replica.lock().find_folders().map_err(refusal)?;
        let mut told_ns = now_ns();
        let mut cursor = self.replica.lock().promise().map_err(refusal)?;
        for folders in batches(folders) {
            let said = self.output.lock().message(&Response::Folders(folders));
            said.map_err(broken)?;
        }
        let (known, mut listed) = (self.replica.lock().messages().map_err(refusal)?, 0);
        self.list_end(Listing::Folders, cursor, known)?;
        let output = self.output.clone();
        let begun = Instant::now();
        let mut sender = Sender {
            pace: Pace::new(output.read(begun, Duration::ZERO)),
            output: &output,
            begun,
            kept: HashSet::new(),
        };
        let mut named = HashSet::new();
        loop {
            let (courses, kept) = self.next_courses()?;
            let room = KEPT_MAX.saturating_sub(sender.kept.len());
            sender.kept.extend(kept.into_iter().take(room));
            if courses.is_empty() {
                break;
            }
            for Course { folder, after } in courses {
                // So nothing is read twice, whatever is asked.
                if !named.insert(folder) {
                    return Err(wrong("A folder is named twice in a stream"));
                }
                let course = self.replica.lock().course(folder, after.as_ref());
                let Some(course) = course.map_err(refusal)? else {
                    continue;
                };
                // What came since the tag is in no tree that bears only that.
                if course.is_younger_than(told_ns) {
                    told_ns = now_ns();
                    cursor.tag = self.replica.lock().renew_tag().map_err(refusal)?;
                }
                listed += course.messages();
                self.list_end(Listing::Folders, cursor, known.max(listed))?;
                let streamed = self
                    .replica
                    .lock()
                    .stream(course, |group| sender.send(group));
                streamed.map_err(|Broken(why)| wrong(&why))?;
            }
        }
        let since = self.replica.lock().end_stream().map_err(refusal)?;
        let reported = self.replica.lock().promise().map_err(refusal)?;
        self.list_end(Listing::Stream, reported, known.max(listed))?;
        Ok(since)
    }

    fn list_end(&self, from: Listing, cursor: Cursor, messages: u64) -> Result<(), Refusal> {
        let listed = Listed {
            from,
            cursor,
            complete: true,
            held: 0,
            messages,
            deleted_lately: 0,
        };
        self.output.say(&Response::Listed(listed)).map_err(broken)
    }

    fn next_courses(&self) -> Result<(Vec<Course>, Vec<Digest>), Refusal> {
        let bytes = self.message().map_err(|error| wrong(&error.to_string()))?;
        match decode(&bytes).map_err(broken)? {
            Request::Stream { folders, kept } => Ok((folders, kept)),
            _ => Err(wrong("Something else was asked for where a stream was due")),
        }
    }
}

fn wrong(why: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Error,
        why: why.to_owned(),
    }
}

impl Sender<'_> {
    /// Sends a group of messages, and makes it readable for the client at once.
    fn send(&mut self, group: Vec<Streamed>) -> Result<(), Broken> {
        let (mut changes, mut bodies) = (Vec::new(), Vec::new());
        for Streamed { change, body } in group {
            let is_kept = self.kept.contains(&change.entry.digest);
            bodies.push(body.filter(|_| !is_kept));
            changes.push(change);
        }
        let mut bodies = bodies.into_iter();
        for changes in batches(changes) {
            let count = changes.len();
            self.output.lock().message(&Response::Changes(changes))?;
            for body in bodies.by_ref().take(count) {
                let Some(bytes) = body else {
                    let why = String::new();
                    self.output.lock().message(&Response::NoBody { why })?;
                    continue;
                };
                for (at, chunk) in pieces(&bytes) {
                    self.output.lock().body_chunk(chunk, at == bytes.len())?;
                }
                let read = || self.output.read(self.begun, Duration::ZERO);
                if let Some(effort) = self.pace.sent(bytes.len() as u64, read) {
                    self.output.lock().set_effort(effort);
                }
            }
        }
        Ok(self.output.lock().flush()?)
    }
}

/// Cuts a body into pieces, each with the position of its end; an empty one is one piece.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut end = 0;
    let empty = bytes.is_empty().then_some((0, bytes));
    let chunks = bytes.chunks(maildir::CHUNK_BYTES).map(move |chunk| {
        end += chunk.len();
        (end, chunk)
    });
    empty.into_iter().chain(chunks)
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}
