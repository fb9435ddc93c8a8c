//! One round of a conversation: decode, check rights, call the replica, encode.
//!
//! Keeps nothing per client: the client brings its cursor and owns the archive.

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use maildir::{Outlet, Replica, Report, SMALL_BYTES_MAX, Scan, Shared};
use protocol::codec::{decode, encode};
use protocol::frame::Frame;
use protocol::message::{
    Hello, Listing, PathBytes, ROUNDS, Refusal, RefusalKind, Rights, STREAM, Source, Welcome,
};
use protocol::{Op, Request, Response};

use crate::alive::CLIENT_PATIENCE;
use crate::allowance::{Allowance, Total};
use crate::answer::{Output, send_bodies};
use crate::arguments::{Service, resolve};
use crate::arrivals::Arrivals;
use crate::pushed::Pushed;
use crate::work::{Due, Work};

/// How many bodies a client may ask for ahead of what was sent; past that it is not read for a while.
const WANTED_MAX: usize = 10_000;
/// How many times as long as it waits for us a client may be silent in a round that is not the first.
const ROUND_PATIENCE: u32 = 5;
/// How many bytes of small bodies one batch may have: they wait for it in `tmp`.
const BATCH_BYTES_MAX: u64 = 64 << 20;

/// What the agent has of its client: what comes, what goes out, and what is owed.
pub(crate) struct Line {
    pub(crate) output: Output,
    pub(crate) arrivals: Arrivals,
    pub(crate) due: Due,
}

/// Why the agent does not serve, as an error.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.why)]
pub(crate) struct Refused(pub(crate) Refusal);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused(refusal)
    }
}

pub(crate) fn usage(error: anyhow::Error) -> Refused {
    Refused(Refusal {
        kind: RefusalKind::Usage,
        why: error.to_string(),
    })
}

pub(crate) struct Agent {
    pub(crate) replica: Shared,
    rights: Rights,
    dry_run: bool,
    pub(crate) output: Output,
    arrivals: Arrivals,
    allowance: Allowance,
    /// For how long its client may be silent while something is due from it.
    patience: Duration,
    due: Due,
    /// What the worker owes.
    work: Work,
}

pub(crate) fn broken(error: protocol::Error) -> Refusal {
    Refusal {
        kind: RefusalKind::Error,
        why: error.to_string(),
    }
}

/// What the client hears of what broke a list off.
pub(crate) fn refused(error: anyhow::Error) -> Refusal {
    match error.downcast::<maildir::Error>() {
        Ok(error) => refusal(error),
        Err(error) => Refusal {
            kind: RefusalKind::Error,
            why: error.to_string(),
        },
    }
}

pub(crate) fn refusal(error: maildir::Error) -> Refusal {
    Refusal {
        kind: error.kind(),
        why: error.to_string(),
    }
}

impl Agent {
    pub(crate) fn open(service: &Service, hello: &Hello, line: Line) -> Result<Agent, Refused> {
        let Line {
            output,
            arrivals,
            due,
        } = line;
        let work = due.begin();
        let root = choose_root(service.root.clone(), hello.path.as_bytes()).map_err(usage)?;
        let options = maildir::Options {
            root,
            state_dir: service.state_dir.clone(),
            trash_dir: service.trash_dir.clone(),
            trash_days: service.trash_days,
            client: hello.client.clone(),
            dry_run: hello.dry_run,
            checksum: hello.checksum,
            expect: hello.expect,
            adopt: hello.adopt,
            create: false,
            follow_links: service.follow_links,
        };
        let replica = Replica::open(options).map_err(refusal)?;
        Ok(Agent {
            replica: Shared::new(replica),
            rights: service.rights,
            dry_run: hello.dry_run,
            output,
            arrivals,
            allowance: Allowance::default(),
            patience: CLIENT_PATIENCE,
            due,
            work,
        })
    }

    /// Introduces the replica. Returns whether the tree continues the hello's cursor, and whether a stream follows.
    fn introduce(&self, hello: &Hello, version: u16) -> Result<(Option<bool>, bool), Refusal> {
        let replica = self.replica.lock();
        let continues = hello
            .cursor
            .map(|cursor| replica.continues(cursor.tag))
            .transpose()
            .map_err(refusal)?;
        // A client that has something of another tree gets all of this one reported first.
        let streams = hello.features & STREAM != 0 && !hello.dry_run && continues != Some(false);
        let rounds = match hello.dry_run {
            true => 0,
            false => hello.features & ROUNDS,
        };
        let features = if streams { STREAM } else { 0 } | rounds;
        let root = std::os::unix::ffi::OsStrExt::as_bytes(replica.path().as_os_str());
        let welcome = Welcome {
            version,
            features,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            rights: self.rights,
            replica: replica.id(),
            fresh: replica.is_fresh(),
            continues,
            root: PathBytes::new(root).map_err(broken)?,
        };
        let said = self.output.say(&Response::Welcome(welcome));
        said.map(|()| (continues, streams)).map_err(broken)
    }

    /// Introduces the replica, looks at the tree if nobody has just done so, and reports what changed.
    pub(crate) fn welcome(
        &mut self,
        hello: &Hello,
        version: u16,
        scan: Option<Scan>,
    ) -> Result<(), Refused> {
        let (continues, streams) = self.introduce(hello, version)?;
        let streamed = match streams {
            true => Some(self.stream()?),
            false => None,
        };
        let scan = match scan {
            Some(scan) => scan,
            None => self.replica.lock().scan().map_err(refusal)?,
        };
        let cursor = hello.cursor.filter(|_| continues == Some(true));
        let knows = cursor
            .map(|cursor| self.replica.lock().knows(&cursor))
            .transpose()
            .map_err(refusal)?;
        let reported = self.replica.lock().promise().map_err(refusal)?;
        let (from, since) = match (cursor, knows) {
            (Some(cursor), Some(true)) => (Listing::Cursor, cursor.number),
            (Some(_), Some(false) | None) => (Listing::Digests, 0),
            (None, _) => match streamed {
                Some(number) => (Listing::Cursor, number),
                None => (Listing::Everything, 0),
            },
        };
        let report = Report {
            from,
            since,
            told: reported,
            scan,
            part: None,
        };
        let replica = self.replica.clone();
        maildir::report(self, &replica, report).map_err(refused)?;
        Ok(self.output.lock().flush().map_err(broken)?)
    }

    /// Does what the client asks, until it is through.
    pub(crate) fn converse(mut self) -> anyhow::Result<Line> {
        let (wanted, queue) = sync_channel(WANTED_MAX);
        let (output, bodies) = (self.output.clone(), self.replica.lock().bodies()?);
        let work = self.due.begin();
        let sender = std::thread::spawn(move || send_bodies(&output, &bodies, &queue, &work));
        let mut pushed = Pushed::begin(&self.replica, self.output.clone());
        let replica = self.replica.clone();
        loop {
            match decode(&self.message()?)? {
                Request::Fetch(lines) => {
                    let located = maildir::locate(&mut self, &replica, &lines)?;
                    for (line, located) in lines.iter().zip(located) {
                        wanted.send((located, line.offset))?;
                    }
                }
                Request::Apply(ops) => self.apply(ops, &mut pushed)?,
                Request::Finish => break,
                question => {
                    self.answer(question)?;
                    self.output.lock().flush()?;
                }
            }
        }
        drop(wanted);
        sender
            .join()
            .map_err(|_| anyhow::anyhow!("The sender of bodies panicked"))??;
        let cursor = pushed.finish()?;
        let line = self.into_line(); // Nothing is owed after the end.
        line.output.lock().message(&Response::Finished { cursor })?;
        Ok(line)
    }

    /// A client that has just been heard between two rounds may be at work for a while, but not for hours.
    pub(crate) fn in_later_round(mut self, timeout: Duration) -> Agent {
        self.patience = timeout * ROUND_PATIENCE;
        self
    }

    /// Lets go of the replica.
    pub(crate) fn into_line(self) -> Line {
        Line {
            output: self.output,
            arrivals: self.arrivals,
            due: self.due,
        }
    }

    pub(crate) fn message(&self) -> anyhow::Result<Vec<u8>> {
        loop {
            match self.work.rest(|| self.arrivals.frame(self.patience))? {
                // The round began before it came, which answers it.
                Frame::Message(bytes) if is_of_the_rest(&bytes) => {}
                Frame::Message(bytes) => return Ok(bytes),
                Frame::Body { .. } => anyhow::bail!("A body came that nobody asked for"),
            }
        }
    }

    fn answer(&mut self, question: Request) -> anyhow::Result<()> {
        let replica = self.replica.clone();
        match question {
            Request::Manifests { folders } => maildir::list_folders(self, &replica, &folders),
            Request::Prefixes(lines) => maildir::report_prefixes(self, &replica, &lines),
            Request::Fingerprints(lines) => maildir::report_fingerprints(self, &replica, &lines),
            Request::Fetch(_) | Request::Apply(_) | Request::Finish => Ok(()), // The caller's.
            Request::Stream { .. } => anyhow::bail!("A stream is asked for where none is served"),
            Request::Round(_) | Request::Begin { .. } | Request::Ping => {
                anyhow::bail!("Another round is asked for before the end of this one")
            }
        }
    }

    /// Takes a batch in as far as the rights allow, and its bodies from the stream. Nothing of the others is stored.
    fn apply(&mut self, ops: Vec<Op>, to: &mut Pushed) -> anyhow::Result<()> {
        check_bodies(&ops)?;
        let ops = ops.into_iter().map(|op| (self.allows(&op), op));
        let ops: Vec<(Op, bool)> = ops.map(|(allowed, op)| (op, allowed)).collect();
        let bodies = ops.iter().filter(|(op, _)| op.wired().is_some());
        let bodies: Vec<bool> = bodies.map(|(_, allowed)| *allowed).collect();
        to.take(ops, self.due.begin())?;
        for is_allowed in bodies {
            match is_allowed {
                true => self.receive_body(&mut to.receiver)?,
                false => self.pass_over()?,
            }
        }
        Ok(())
    }

    fn receive_body(&mut self, to: &mut maildir::Receiver) -> anyhow::Result<()> {
        loop {
            let (bytes, is_last) = self.next_piece()?;
            let taken = to.take(bytes, is_last);
            taken.map_err(|_| anyhow::anyhow!("The client goes on sending what is not taken"))?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Takes a body from the stream that is not kept.
    fn pass_over(&mut self) -> anyhow::Result<()> {
        loop {
            let (bytes, is_last) = self.next_piece()?;
            self.allowance.drop_bytes(bytes.len() as u64)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// The next piece of a body, and whether it is the last.
    fn next_piece(&self) -> anyhow::Result<(Vec<u8>, bool)> {
        match self.arrivals.frame(self.patience)? {
            Frame::Body { bytes, last } => Ok((bytes, last)),
            Frame::Message(_) => anyhow::bail!("A message came where a body was due"),
        }
    }

    fn allows(&self, op: &Op) -> bool {
        if self.dry_run {
            return false;
        }
        match (self.rights, op) {
            (Rights::All, _) => true,
            (Rights::NoDelete, op) => !matches!(op, Op::Retire { .. } | Op::RemoveFolder { .. }),
            (Rights::AppendOnly, op) => matches!(op, Op::Create { .. } | Op::MakeFolder { .. }),
            (Rights::ReadOnly, _) => false,
        }
    }
}

/// Whether a message is for an agent that rests, and may cross the beginning of a round.
fn is_of_the_rest(bytes: &[u8]) -> bool {
    let [whole, part] = [true, false].map(|whole| Request::Begin { whole });
    [whole, part, Request::Ping]
        .iter()
        .any(|request| bytes == encode(request))
}

/// Refuses a batch of which too much would lie in `tmp`, or whose bodies begin behind their end.
fn check_bodies(ops: &[Op]) -> anyhow::Result<()> {
    let mut small_bytes = 0;
    for body in ops.iter().filter_map(Op::wired) {
        if let Source::Body { offset } = body.source {
            anyhow::ensure!(
                offset <= body.size,
                "A body of {} bytes is to begin at byte {offset}",
                body.size
            );
        }
        if body.size <= SMALL_BYTES_MAX {
            small_bytes += body.size;
        }
        anyhow::ensure!(
            small_bytes <= BATCH_BYTES_MAX,
            "A batch is over its limit of {BATCH_BYTES_MAX} bytes"
        );
    }
    Ok(())
}

impl Outlet for Agent {
    type Error = anyhow::Error;

    fn say(&mut self, response: Response) -> anyhow::Result<()> {
        Ok(self.output.lock().message(&response)?)
    }

    fn piece(&mut self, _: Vec<u8>, _: bool) -> anyhow::Result<()> {
        anyhow::bail!("Bodies are sent by a thread of their own")
    }

    fn count_listed(&mut self, replica: &Replica, count: usize) -> anyhow::Result<()> {
        self.allowance.list(count as u64, || replica.messages())
    }

    fn count_read(&mut self, replica: &Replica, bytes: u64) -> anyhow::Result<()> {
        self.allowance.read(bytes, || {
            Ok(Total {
                messages: replica.messages()?,
                bytes: replica.bytes()?,
            })
        })
    }
}

/// The root to serve: the server's choice where it made one, and then nothing else.
pub(crate) fn choose_root(forced: Option<PathBuf>, asked: &[u8]) -> anyhow::Result<PathBuf> {
    let Some(forced) = forced else {
        anyhow::ensure!(
            !asked.is_empty(),
            "No Maildir was named; write it after the colon, as in host:Maildir"
        );
        return resolve(asked);
    };
    if asked.is_empty() {
        return Ok(forced);
    }
    let asked = resolve(asked)?;
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    anyhow::ensure!(
        real(&asked) == real(&forced),
        "This key serves {forced:?} only, and {asked:?} was asked for; name {forced:?} in the address, or change the server's authorized_keys"
    );
    Ok(forced)
}
