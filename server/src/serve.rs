//! One conversation: decode, check rights, call the replica, encode.
//!
//! Three threads: one reads stdin and sees its end at any time, one sends bodies, and the caller's works on the replica.
//! None of them waits for the client to read before it reads itself, so that neither end can block the other.
//! Keeps nothing per client: the client brings its cursor and owns the archive.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use maildir::{Body, Heard, Incoming, Located, Pulse, Reader, Replica, SMALL_BYTES_MAX};
use protocol::codec::{batches, decode, encode};
use protocol::entry::{Change, FolderChange};
use protocol::frame::{Frame, FrameReader};
use protocol::handshake::{VERSIONS, choose_version, write_greeting};
use protocol::message::{
    At, Fetch, Hello, Listed, Listing, NewBody, PathBytes, Prefix, Refusal, RefusalKind, Rights,
    STREAM, Source, Welcome,
};
use protocol::{Digest, Op, Outcome, Request, Response};

use crate::alive::{Due, Work, heartbeat, keep_alive, wait_for_end};
use crate::allowance::{Allowance, Total};
use crate::answer::{Output, Wanted, send_bodies};
use crate::arguments::{Service, resolve};

/// How many frames are read ahead of the work.
const FRAMES_AHEAD: usize = 16;
/// How many bodies a client may ask for ahead of what was sent; past that it is not read for a while.
const WANTED_MAX: usize = 10_000;
/// How many bytes of small bodies one batch may hold in memory.
const BATCH_BYTES_MAX: u64 = 64 << 20;

/// Serves one client until it finishes or goes away.
///
/// # Errors
/// When the connection breaks or the client does not keep to the protocol; the tree is right all the same.
pub(crate) fn serve(
    service: Service,
    hello: Hello,
    input: File,
    mut output: File,
) -> anyhow::Result<()> {
    write_greeting(&mut output)?;
    let Some(version) = choose_version(VERSIONS, hello.versions) else {
        wait_for_end(input);
        return Ok(()); // The greeting names our versions; the client explains.
    };
    let (pulse, due) = (Pulse::default(), Due::default());
    let (frames, reader) = read_frames(input, pulse.clone());
    let output = Output::new(output, pulse.clone());
    let work = due.begin();
    keep_alive(output.clone(), due.clone(), pulse, heartbeat(&hello));
    let refused = match Agent::open(service, &hello, output.clone(), (frames, due, work)) {
        Ok(mut agent) => match agent.welcome(&hello, version) {
            Ok(()) => {
                agent.converse()?;
                return linger(reader);
            }
            Err(refusal) => refusal,
        },
        Err(refusal) => refusal,
    };
    output.say(&Response::Refused(refused))?;
    output.lock().finish()?;
    linger(reader)
}

/// Waits until the client hangs up. An exit status may overtake the last bytes on a slow link, and ssh's multiplexing
/// closes the session when it comes.
fn linger(reader: JoinHandle<()>) -> anyhow::Result<()> {
    reader
        .join()
        .map_err(|_| anyhow::anyhow!("The reading thread panicked"))
}

/// Reads stdin on a thread of its own. When the client goes away before it finished, the process ends there and then:
/// everything is made to be killed at any moment, and nobody is left to hear.
fn read_frames(input: File, pulse: Pulse) -> (Receiver<Frame>, JoinHandle<()>) {
    let (sender, receiver) = sync_channel(FRAMES_AHEAD);
    let reader = std::thread::spawn(move || {
        let rest = input.try_clone();
        let mut reader = FrameReader::new(BufReader::new(Heard::new(input, pulse)));
        loop {
            match reader.next() {
                Ok(Some(frame)) => {
                    let is_end = matches!(&frame, Frame::Message(bytes) if *bytes == encode(&Request::Finish));
                    if sender.send(frame).is_err() {
                        return;
                    }
                    if is_end {
                        // Nothing more is expected but the end.
                        let _ = rest.and_then(|mut rest| io::copy(&mut rest, &mut io::sink()));
                        return;
                    }
                }
                Ok(None) => std::process::exit(0),
                Err(error) => {
                    eprintln!("maildir-sync-server: {error}");
                    std::process::exit(1);
                }
            }
        }
    });
    (receiver, reader)
}

pub(crate) struct Agent {
    pub(crate) replica: Replica,
    rights: Rights,
    dry_run: bool,
    pub(crate) output: Output,
    frames: Receiver<Frame>,
    allowance: Allowance,
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

pub(crate) fn refusal(error: maildir::Error) -> Refusal {
    Refusal {
        kind: error.kind(),
        why: error.to_string(),
    }
}

impl Agent {
    fn open(
        service: Service,
        hello: &Hello,
        output: Output,
        (frames, due, work): (Receiver<Frame>, Due, Work),
    ) -> Result<Agent, Refusal> {
        let root = choose_root(service.root, hello.path.as_bytes()).map_err(|error| Refusal {
            kind: RefusalKind::Usage,
            why: error.to_string(),
        })?;
        let options = maildir::Options {
            root,
            state_dir: service.state_dir,
            trash_dir: service.trash_dir,
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
            replica,
            rights: service.rights,
            dry_run: hello.dry_run,
            output,
            frames,
            allowance: Allowance::default(),
            due,
            work,
        })
    }

    /// Introduces the replica. Returns whether the tree continues the hello's cursor, and whether a stream follows.
    fn introduce(&self, hello: &Hello, version: u16) -> Result<(Option<bool>, bool), Refusal> {
        let continues = hello
            .cursor
            .map(|cursor| self.replica.continues(cursor.tag))
            .transpose()
            .map_err(refusal)?;
        // A client that has something of another tree has all of this one told first.
        let streams = hello.features & STREAM != 0 && !hello.dry_run && continues != Some(false);
        let features = if streams { STREAM } else { 0 };
        let root = std::os::unix::ffi::OsStrExt::as_bytes(self.replica.path().as_os_str());
        let welcome = Welcome {
            version,
            features,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            rights: self.rights,
            replica: self.replica.id(),
            fresh: self.replica.is_fresh(),
            continues,
            root: PathBytes::new(root).map_err(broken)?,
        };
        let said = self.output.say(&Response::Welcome(welcome));
        said.map(|()| (continues, streams)).map_err(broken)
    }

    /// Introduces the replica, looks at the tree and tells what changed.
    fn welcome(&mut self, hello: &Hello, version: u16) -> Result<(), Refusal> {
        let (continues, streams) = self.introduce(hello, version)?;
        let streamed = match streams {
            true => Some(self.stream()?),
            false => None,
        };
        let scan = self.replica.scan().map_err(refusal)?;
        let cursor = hello.cursor.filter(|_| continues == Some(true));
        let knows = cursor
            .map(|cursor| self.replica.knows(&cursor))
            .transpose()
            .map_err(refusal)?;
        let told = self.replica.tell().map_err(refusal)?;
        let (from, since) = match (cursor, knows) {
            (Some(cursor), Some(true)) => (Listing::Cursor, cursor.number),
            (Some(_), Some(false) | None) => (Listing::Digests, 0),
            (None, _) => match streamed {
                Some(number) => (Listing::Cursor, number),
                None => (Listing::Everything, 0),
            },
        };
        self.list(from, since).map_err(refusal)?;
        if !self.replica.remembers(told.index, since).map_err(refusal)? {
            let why = "The index was made anew while it was read; try again".to_owned();
            let kind = RefusalKind::Temporary;
            return Err(Refusal { kind, why });
        }
        for problems in batches(scan.problems) {
            self.output
                .lock()
                .message(&Response::Problems(problems))
                .map_err(broken)?;
        }
        for partials in batches(self.replica.partials().list()) {
            self.output
                .lock()
                .message(&Response::Partials(partials))
                .map_err(broken)?;
        }
        let listed = Listed {
            from,
            cursor: told,
            complete: scan.complete,
            held: scan.held,
            messages: self.replica.messages().map_err(refusal)?,
            deleted_lately: self.replica.deleted_lately().map_err(refusal)?,
        };
        self.output.say(&Response::Listed(listed)).map_err(broken)
    }

    /// Tells folders and messages, without the end of the list.
    fn list(&self, from: Listing, since: u64) -> maildir::Result<()> {
        let mut reader = Reader::since(since, from == Listing::Cursor);
        if from != Listing::Digests {
            return self.tell(reader);
        }
        let page = self.replica.next_page(&mut reader)?.unwrap_or_default();
        self.put_folders(page.folders)?;
        batches(self.replica.folder_digests()?)
            .try_for_each(|digests| self.put(&Response::Digests(digests)))
    }

    /// Tells what a reader has before it, page by page: no read of the index is open while the wire is waited for.
    fn tell(&self, mut reader: Reader) -> maildir::Result<()> {
        while let Some(page) = self.replica.next_page(&mut reader)? {
            self.put_folders(page.folders)?;
            self.put_changes(page.changes)?;
        }
        Ok(())
    }

    pub(crate) fn put_folders(&self, folders: Vec<FolderChange>) -> maildir::Result<()> {
        batches(folders).try_for_each(|folders| self.put(&Response::Folders(folders)))
    }

    fn put_changes(&self, changes: Vec<Change>) -> maildir::Result<()> {
        batches(changes).try_for_each(|changes| self.put(&Response::Changes(changes)))
    }

    pub(crate) fn put(&self, response: &Response) -> maildir::Result<()> {
        let written = self.output.lock().message(response);
        written.map_err(|error| maildir::Error::Busy(error.to_string()))
    }

    fn converse(mut self) -> anyhow::Result<()> {
        let (wanted, queue) = sync_channel(WANTED_MAX);
        let (output, bodies) = (self.output.clone(), self.replica.bodies()?);
        let work = self.due.begin();
        let sender = std::thread::spawn(move || send_bodies(&output, &bodies, &queue, &work));
        loop {
            match decode(&self.message()?)? {
                Request::Manifests { folders } => self.manifests(&folders)?,
                Request::Fetch(lines) => self.fetch(&lines, &wanted)?,
                Request::Prefixes(lines) => self.prefixes(&lines)?,
                Request::Apply(ops) => self.apply(&ops)?,
                Request::Finish => break,
                Request::Stream { .. } => {
                    anyhow::bail!("A stream is asked for where none is served")
                }
                Request::Fingerprints(lines) => self.fingerprints(&lines)?,
            }
        }
        drop(wanted);
        sender
            .join()
            .map_err(|_| anyhow::anyhow!("The sender of bodies panicked"))??;
        let cursor = if self.dry_run {
            self.replica.cursor()?
        } else {
            self.replica.settle()?
        };
        drop(self.work); // Nothing follows the end.
        self.output.say(&Response::Finished { cursor })?;
        self.output.lock().finish()?;
        Ok(())
    }

    pub(crate) fn message(&self) -> anyhow::Result<Vec<u8>> {
        match self.work.rest(|| self.frames.recv())? {
            Frame::Message(bytes) => Ok(bytes),
            Frame::Body { .. } => anyhow::bail!("A body came that nobody asked for"),
        }
    }

    fn manifests(&mut self, folders: &[u32]) -> anyhow::Result<()> {
        let cursor = self.replica.cursor()?;
        self.count_listed(1 + folders.len())?;
        for &folder in folders {
            let mut last = None;
            loop {
                let changes = self.replica.manifest(folder, last.as_ref())?;
                let Some(change) = changes.last() else { break };
                last = Some(change.clone());
                self.count_listed(changes.len())?;
                self.put_changes(changes)?;
            }
        }
        // What has left a folder since the list may be in another one.
        self.tell(Reader::since(cursor.number, true))?;
        let listed = Listed {
            from: Listing::Manifests,
            cursor,
            complete: true,
            held: 0,
            messages: self.replica.messages()?,
            deleted_lately: self.replica.deleted_lately()?,
        };
        Ok(self.output.say(&Response::Listed(listed))?)
    }

    fn count_listed(&mut self, count: usize) -> anyhow::Result<()> {
        let replica = &self.replica;
        self.allowance.list(count as u64, || replica.messages())
    }

    fn count_read(&mut self, bytes: u64) -> anyhow::Result<()> {
        let replica = &self.replica;
        self.allowance.read(bytes, || {
            Ok(Total {
                messages: replica.messages()?,
                bytes: replica.bytes()?,
            })
        })
    }

    fn fetch(&mut self, lines: &[Fetch], wanted: &SyncSender<Wanted>) -> anyhow::Result<()> {
        let places: Vec<_> = lines.iter().map(|line| (&line.at, &line.digest)).collect();
        for (line, located) in lines.iter().zip(self.replica.locate(&places)?) {
            let size = located.as_ref().map_or(0, Located::size);
            self.count_read(size.saturating_sub(line.offset))?;
            wanted
                .send(located.map_or(Wanted::Gone, |located| Wanted::Body(located, line.offset)))?;
        }
        Ok(())
    }

    fn prefixes(&mut self, lines: &[Prefix]) -> anyhow::Result<()> {
        let bodies = self.replica.bodies()?;
        let mut digests = Vec::with_capacity(lines.len());
        let places: Vec<_> = lines.iter().map(|line| (&line.at, &line.digest)).collect();
        let located = self.replica.locate(&places)?;
        let lost = lines.iter().zip(&located);
        let lost = lost.filter(|(_, located)| located.is_none());
        let trashed = self
            .replica
            .trashed(&lost.map(|(line, _)| line.digest).collect());
        self.count_read(trashed.read)?;
        for (line, located) in lines.iter().zip(located) {
            let Prefix { digest, length, .. } = line;
            let Some(located) = located else {
                self.count_read(trashed.size(digest).map_or(0, |size| size * 2))?;
                digests.push(trashed.prefix(digest, *length));
                continue;
            };
            // No message begins with more than it has.
            let is_long = *length <= located.size();
            self.count_read(if is_long { *length } else { 0 })?;
            let prefix = is_long.then(|| bodies.prefix(&located, *length).ok().flatten());
            digests.push(prefix.flatten());
        }
        Ok(self.output.say(&Response::Prefixes(digests))?)
    }

    fn fingerprints(&mut self, lines: &[(At, Digest)]) -> anyhow::Result<()> {
        let bodies = self.replica.bodies()?;
        let places: Vec<_> = lines.iter().map(|(at, digest)| (at, digest)).collect();
        let located = self.replica.locate(&places)?;
        for located in &located {
            self.count_read(located.as_ref().map_or(0, Located::size))?;
        }
        // A message that cannot be read has none; the scan has told of it.
        let told = located
            .into_iter()
            .map(|located| bodies.fingerprint(&located?).ok().flatten());
        for fingerprints in batches(told) {
            let response = Response::Fingerprints(fingerprints);
            self.output.lock().message(&response)?;
        }
        Ok(self.output.lock().flush()?)
    }

    /// Takes the batch's bodies from the stream, then carries out what the rights allow. Nothing of the others is stored.
    fn apply(&mut self, ops: &[Op]) -> anyhow::Result<()> {
        let allowed: Vec<bool> = ops.iter().map(|op| self.allows(op)).collect();
        check_bodies(ops)?;
        let mut bodies = Vec::new();
        for (op, &allowed) in ops.iter().zip(&allowed) {
            match incoming(op) {
                Some((body, offset)) if allowed => bodies.push(self.receive(body, offset)?),
                Some(_) => self.pass_over()?,
                None => {}
            }
        }
        let chosen = ops.iter().zip(&allowed).filter(|(_, allowed)| **allowed);
        let chosen: Vec<Op> = chosen.map(|(op, _)| op.clone()).collect();
        let mut done = if chosen.is_empty() {
            Vec::new()
        } else {
            self.replica.apply(&chosen, bodies)?
        }
        .into_iter();
        let outcomes: Vec<Outcome> = allowed
            .into_iter()
            .map(|allowed| match allowed {
                true => done.next().unwrap_or(Outcome::Stale),
                false => Outcome::Denied,
            })
            .collect();
        for outcomes in batches(outcomes) {
            self.output.lock().message(&Response::Outcomes(outcomes))?;
        }
        Ok(self.output.lock().flush()?)
    }

    fn receive(&mut self, body: &NewBody, offset: u64) -> anyhow::Result<io::Result<Body>> {
        let partials = self.replica.partials();
        // It goes on with what is not here.
        if offset > partials.length(&body.digest) {
            self.pass_over()?;
            return Ok(Err(io::ErrorKind::Interrupted.into()));
        }
        let mut incoming = Incoming::begin(&partials, body.digest, body.size, offset);
        let mut room = body.size - offset;
        loop {
            let (bytes, last) = self.piece()?;
            let count = bytes.len() as u64;
            self.allowance.drop_bytes(count.saturating_sub(room))?;
            room = room.saturating_sub(count);
            incoming.take(bytes);
            if last {
                return Ok(incoming.finish());
            }
        }
    }

    /// Takes a body from the stream that is not kept.
    fn pass_over(&mut self) -> anyhow::Result<()> {
        loop {
            let (bytes, last) = self.piece()?;
            self.allowance.drop_bytes(bytes.len() as u64)?;
            if last {
                return Ok(());
            }
        }
    }

    /// The next piece of a body, and whether it is the last.
    fn piece(&self) -> anyhow::Result<(Vec<u8>, bool)> {
        match self.frames.recv()? {
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

/// Refuses a batch whose bodies have no room in memory, or begin behind their end.
fn check_bodies(ops: &[Op]) -> anyhow::Result<()> {
    let mut small_bytes = 0;
    for (body, offset) in ops.iter().filter_map(incoming) {
        anyhow::ensure!(
            offset <= body.size,
            "A body of {} bytes is to begin at byte {offset}",
            body.size
        );
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

/// The body that an operation brings along, and the offset from which it is sent.
fn incoming(op: &Op) -> Option<(&NewBody, u64)> {
    let body = op.new_body()?;
    match body.source {
        Source::Body { offset } => Some((body, offset)),
        Source::Copy(_) | Source::Remade(_) => None,
    }
}

/// The root to serve: the server's choice where it made one, and then nothing else.
fn choose_root(forced: Option<PathBuf>, asked: &[u8]) -> anyhow::Result<PathBuf> {
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
