//! The replica here, as an endpoint: what is asked is done on threads of its own, so that disks are waited for there while the
//! driver takes in what comes and asks for more.

use std::sync::MutexGuard;
use std::sync::mpsc::{Receiver as Queue, Sender, channel};
use std::time::{Duration, Instant};

use maildir::{Outlet, Received, Receiver, Replica, Report, Shared, send_body};
use protocol::message::Fetch;
use protocol::{Op, Request, Response};

use super::inflow::{Feed, Intake, Next, inflow};
use super::link::LinkError;
use super::stop::{Call, Stop};
use super::{Answer, Bell, Endpoint, EndpointError};

/// For how long an answer is waited for at a time.
const SLICE: Duration = Duration::from_secs(60);

type Reply = maildir::Result<Answer>;

/// The replica here.
pub struct Local {
    replica: Shared,
    bell: Bell,
    stop: Stop,
    /// Rings when we are asked to end.
    _call: Call,
    feed: Feed<Reply>,
    answers: Intake<Reply>,
    /// Carries batches out, from the first one on.
    receiver: Option<Receiver>,
    /// Reads what is asked for, from the first time on.
    reader: Option<Sender<ReadTask>>,
}

/// What the reading thread is asked.
enum ReadTask {
    Report(Report),
    Request(Request),
}

impl Local {
    /// Begins with nothing asked; the driver waits for answers by the bell, until it is asked to end.
    #[must_use]
    pub fn new(replica: Replica, bell: &Bell, stop: &Stop) -> Local {
        let (feed, answers) = inflow(bell);
        let waker = bell.clone();
        let call = stop.on_request(move || waker.ring());
        Local {
            replica: Shared::new(replica),
            bell: bell.clone(),
            stop: stop.clone(),
            _call: call,
            feed,
            answers,
            receiver: None,
            reader: None,
        }
    }

    /// The bell that its driver waits by.
    #[must_use]
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// The replica, for another thread.
    #[must_use]
    pub fn shared(&self) -> Shared {
        self.replica.clone()
    }

    /// The replica, once no batch is being carried out.
    pub fn lock(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock()
    }

    /// Asks for what the replica has to report, which the agent's does without being asked.
    pub fn report(&mut self, report: Report) {
        let _ = self.reader().send(ReadTask::Report(report)); // It lives as long as this does.
    }

    /// Begins operations whose batches end when [`Local::carry_out`] says so, with the bodies that have come by then.
    pub fn gather(&mut self, ops: Vec<Op>) {
        self.receiver().gather(ops);
    }

    /// Carries out as one batch what was gathered and has its bodies.
    pub fn carry_out(&mut self) {
        self.receiver().carry_out();
    }

    /// Ends gathering: what has not come is forgotten, but for what is kept of a large body.
    pub fn end_gathering(&mut self) {
        self.receiver().end_gathering();
    }

    fn receiver(&mut self) -> &mut Receiver {
        let (replica, feed) = (&self.replica, &self.feed);
        self.receiver.get_or_insert_with(|| {
            let feed = feed.clone();
            Receiver::start(replica, true, move |result| {
                let answer = result.map(|received| match received {
                    Received::Outcomes(outcomes) => Response::Outcomes(outcomes),
                    Received::Finished(cursor) => Response::Finished { cursor },
                });
                // While bodies are handed over for it, the driver waits for the batches before theirs.
                feed.put_at_once(answer.map(Answer::Response));
            })
        })
    }

    fn reader(&mut self) -> &Sender<ReadTask> {
        let (replica, feed) = (&self.replica, &self.feed);
        self.reader.get_or_insert_with(|| {
            let (sender, requests) = channel();
            let mut reading = Reading {
                replica: replica.clone(),
                feed: feed.clone(),
            };
            std::thread::spawn(move || reading.answer_all(&requests));
            sender
        })
    }
}

impl Endpoint for Local {
    fn request(&mut self, request: Request) {
        match request {
            Request::Apply(ops) => self.receiver().begin(ops),
            Request::Finish => self.receiver().finish(),
            other => drop(self.reader().send(ReadTask::Request(other))), // It lives as long as this does.
        }
    }

    fn body(&mut self, bytes: Vec<u8>, is_last: bool) -> Result<(), EndpointError> {
        let taken = self.receiver().take(bytes, is_last);
        let why = "Far more of a body came than was announced, or one that nobody asked for";
        Ok(taken.map_err(|_| LinkError::Protocol(why.to_owned()))?)
    }

    fn cut_off(&mut self) -> bool {
        if let Some(receiver) = &mut self.receiver {
            receiver.cut_off();
        }
        true
    }

    fn has_room(&self) -> bool {
        true // The disk is waited for.
    }

    fn poll(&mut self) -> Result<Option<Answer>, EndpointError> {
        match self.answers.next() {
            Next::Item(answer) => Ok(Some(answer?)),
            Next::NotYet | Next::End => Ok(None),
        }
    }

    fn response(&mut self) -> Result<Response, EndpointError> {
        loop {
            match self.answers.wait(Instant::now() + SLICE) {
                Next::Item(answer) => match answer? {
                    Answer::Response(response) => return Ok(response),
                    Answer::Body(..) => {
                        let why = "A body was read that nobody asked for".to_owned();
                        return Err(LinkError::Protocol(why).into());
                    }
                },
                Next::NotYet | Next::End if self.stop.is_requested() => {
                    return Err(LinkError::Interrupted.into());
                }
                Next::NotYet | Next::End => {}
            }
        }
    }

    fn waited(&mut self, _: Duration) -> Result<(), EndpointError> {
        Ok(()) // A disk may take its time.
    }

    fn rest(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.rest();
        }
    }
}

/// Answers what is asked of the replica here, in order.
struct Reading {
    replica: Shared,
    feed: Feed<Reply>,
}

/// The driver is gone, or was given an error.
enum Ended {
    Gone,
    Failed(maildir::Error),
}

impl From<maildir::Error> for Ended {
    fn from(error: maildir::Error) -> Ended {
        Ended::Failed(error)
    }
}

impl Reading {
    fn answer_all(&mut self, asked: &Queue<ReadTask>) {
        let replica = self.replica.clone();
        for asked in asked {
            let answered = match asked {
                ReadTask::Report(report) => maildir::report(self, &replica, report),
                ReadTask::Request(request) => self.answer(request),
            };
            match answered {
                Ok(()) => {}
                Err(Ended::Gone) => return,
                Err(Ended::Failed(error)) => {
                    self.feed.put(Err(error), 0, false);
                }
            }
        }
    }

    fn answer(&mut self, request: Request) -> Result<(), Ended> {
        let replica = self.replica.clone();
        match request {
            Request::Manifests { folders } => maildir::list_folders(self, &replica, &folders),
            Request::Prefixes(lines) => maildir::report_prefixes(self, &replica, &lines),
            Request::Fingerprints(lines) => maildir::report_fingerprints(self, &replica, &lines),
            Request::Fetch(lines) => self.send_bodies(&lines),
            // Carried out elsewhere, or by an agent only.
            Request::Apply(_)
            | Request::Finish
            | Request::Stream { .. }
            | Request::Round(_)
            | Request::Begin { .. }
            | Request::Ping => Ok(()),
        }
    }

    fn send_bodies(&mut self, lines: &[Fetch]) -> Result<(), Ended> {
        let replica = self.replica.clone();
        let located = maildir::locate(self, &replica, lines)?;
        let bodies = replica.lock().bodies()?;
        for (line, located) in lines.iter().zip(&located) {
            send_body(self, &bodies, located.as_ref(), line.offset)?;
        }
        match self.feed.hand_over() {
            true => Ok(()),
            false => Err(Ended::Gone),
        }
    }

    fn put(&mut self, answer: Answer, bytes: usize, more_follows: bool) -> Result<(), Ended> {
        match self.feed.put(Ok(answer), bytes, more_follows) {
            true => Ok(()),
            false => Err(Ended::Gone),
        }
    }
}

/// How much memory is counted for an answer. A list of everything must not wait in memory while the other side's is taken in.
fn bytes_of(response: &Response) -> usize {
    let Response::Changes(changes) = response else {
        return 0;
    };
    let unique = changes.iter().map(|change| change.unique.as_bytes().len());
    size_of_val(&changes[..]) + unique.sum::<usize>()
}

impl Outlet for Reading {
    type Error = Ended;

    fn say(&mut self, response: Response) -> Result<(), Ended> {
        let bytes = bytes_of(&response);
        self.put(Answer::Response(response), bytes, false)
    }

    fn piece(&mut self, bytes: Vec<u8>, is_last: bool) -> Result<(), Ended> {
        let count = bytes.len();
        self.put(Answer::Body(bytes, is_last), count, true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use maildir::MARKER_NAME;
    use protocol::entry::Change;
    use protocol::message::{At, NewBody, Source};
    use protocol::{Digest, Entry, FolderDir, Info, Outcome, Unique};

    use super::*;
    use crate::endpoint::conformance_tests::open;

    fn make_inbox(replica: &mut Replica) {
        let inbox = Op::MakeFolder {
            dir: FolderDir::root(),
        };
        let made = replica.apply(&[inbox], Vec::new());
        made.expect("INBOX is made");
    }

    /// A batch of new messages, whose bytes are their names.
    fn begin(local: &mut Local, names: &[&str]) {
        let mut ops = Vec::new();
        for name in names {
            let body = NewBody {
                digest: Digest::of(name.as_bytes()),
                size: name.len() as u64,
                mtime_ns: 1_000_000_000,
                source: Source::Body { offset: 0 },
            };
            let at = At {
                number: Some(1), // INBOX is the only folder.
                folder: FolderDir::root(),
                unique: Unique::new(name.as_bytes()).expect("a name"),
                copy: 0,
            };
            ops.push(Op::Create {
                at,
                in_new: true,
                info: Info::default(),
                body,
            });
        }
        local.request(Request::Apply(ops));
    }

    /// The same with its bodies; those of some are others.
    fn give(local: &mut Local, names: &[&str]) {
        begin(local, names);
        for name in names {
            let bytes = if name.starts_with("bad") { "???" } else { name };
            let taken = local.body(bytes.as_bytes().to_vec(), true);
            taken.expect("it is due");
        }
    }

    #[test]
    fn a_list_that_nobody_takes_in_counts_as_what_it_is() {
        let name = "1.a.message.with.a.name.of.its.own";
        let change = Change {
            seq: 1,
            born: 1,
            folder: 1,
            unique: Unique::new(name.as_bytes()).expect("a name"),
            copy: 0,
            gone: false,
            lost: false,
            entry: Entry {
                in_new: false,
                info: Info::default(),
                digest: Digest::of(b""),
                size: 0,
                mtime_ns: 0,
                damaged: false,
            },
        };
        let bytes = bytes_of(&Response::Changes(vec![change; 100]));
        assert!(bytes >= 100 * (size_of::<Change>() + name.len()), "{bytes}");
    }

    /// In a sync of much mail in both directions the driver is busy with bodies for this side, while those that go to the other
    /// one wait for it.
    #[test]
    fn outcomes_do_not_wait_behind_bodies_that_nobody_takes() {
        let dir = tempfile::tempdir().expect("temp dir");
        make_inbox(&mut open(dir.path()).0);
        let mut local = Local::new(open(dir.path()).0, &Bell::default(), &Stop::default());
        const BATCHES: usize = 40;
        let size = 8 << 20;
        let body = Answer::Body(vec![0; size], true);
        assert!(local.feed.put(Ok(body), size, false));
        for number in 0..BATCHES {
            let name = format!("{number}.a");
            begin(&mut local, &[&name]);
            let taken = local.body(name.into_bytes(), true);
            taken.expect("it is due");
        }
        let body = local.poll().expect("it goes on");
        assert!(matches!(body, Some(Answer::Body(..))), "{body:?}");
        for _ in 0..BATCHES {
            let outcomes = local.response().expect("it goes on");
            assert!(matches!(outcomes, Response::Outcomes(_)), "{outcomes:?}");
        }
    }

    #[test]
    fn a_request_to_end_is_heard_while_an_answer_is_waited_for() {
        let dir = tempfile::tempdir().expect("temp dir");
        let stop = Stop::default();
        let mut local = Local::new(open(dir.path()).0, &Bell::default(), &stop);
        let replica = local.shared();
        let _busy = replica.lock(); // As with reading large files.
        local.request(Request::Prefixes(Vec::new()));
        let person = std::thread::spawn(move || stop.request());
        let ended = local.response();
        person.join().expect("it asks");
        let is_heard = matches!(ended, Err(EndpointError::Link(LinkError::Interrupted)));
        assert!(is_heard, "{ended:?}");
    }

    fn in_tmp(dir: &Path) -> usize {
        fs::read_dir(dir.join("mail/tmp")).map_or(0, Iterator::count)
    }

    #[test]
    fn a_batch_that_is_begun_early_comes_after_the_bodies_of_the_one_before() {
        let dir = tempfile::tempdir().expect("temp dir");
        make_inbox(&mut open(dir.path()).0);
        let mut local = Local::new(open(dir.path()).0, &Bell::default(), &Stop::default());
        begin(&mut local, &["1.a", "2.b"]);
        begin(&mut local, &["3.c"]);
        let names = ["1.a", "2.b", "3.c"];
        for name in names {
            let taken = local.body(name.as_bytes().to_vec(), true);
            taken.expect("it is due");
        }
        let mut outcomes = Vec::new();
        while outcomes.len() < names.len() {
            match local.response().expect("they are carried out") {
                Response::Outcomes(more) => outcomes.extend(more),
                other => panic!("{other:?}"),
            }
        }
        let all = outcomes.iter();
        assert!(
            all.clone().all(|one| matches!(one, Outcome::Done { .. })),
            "{outcomes:?}"
        );
        for name in names {
            assert!(dir.path().join("mail/new").join(name).exists(), "{name}");
        }
    }

    #[test]
    fn after_a_failure_nothing_is_done_and_nobody_waits_for_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        make_inbox(&mut open(dir.path()).0);
        let mut local = Local::new(open(dir.path()).0, &Bell::default(), &Stop::default());
        // A run's first batch appends its tag to the marker.
        let marker = dir.path().join("mail").join(MARKER_NAME);
        fs::remove_file(&marker).expect("it was there");
        fs::create_dir(&marker).expect("it can be made");
        give(&mut local, &["1.a"]);
        give(&mut local, &["2.b"]);
        assert!(local.response().is_err());
        give(&mut local, &["3.c"]);
        drop(local);
        assert_eq!(in_tmp(dir.path()), 0);
        assert!(!dir.path().join("mail/new/1.a").exists());
    }
}
