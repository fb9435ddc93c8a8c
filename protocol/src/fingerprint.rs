//! What a copy that was made over IMAP has in common with its original, and how the original's bytes are made of it.
//!
//! The one place that reads a header, and only to pair: mbsync adds a field `X-TUID` and drops CRs, OfflineIMAP writes
//! white space in headers and what stands between parts anew, and drops CRs; Dovecot has 0x80 for NUL. Messages are read piece by piece, in bounded memory. One whose header is too
//! long has no fingerprint: it is paired by its bytes alone.

use std::io::{self, BufRead, Write};

use blake3::Hasher;
use serde::{Deserialize, Serialize};

mod body;
mod header;
use body::{Body, Parts};
use header::{Header, Line, Piece, field, is_continued, is_header, read};

/// How often lines may begin to end otherwise.
const RUNS_MAX: usize = 64;
/// The longest field `X-TUID` that is reported, in bytes.
const MARK_BYTES_MAX: usize = 128;

/// A shortened hash. Where two messages are taken for one by it, their digests still differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Key([u8; 8]);

/// What a message has in common with its copies; CRs before LF and fields `X-TUID` are left out of all of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Header and body: the bytes of one are made of the other's by its [`Form`].
    pub plain: Key,
    /// The same without the white space in the header.
    pub squeezed: Key,
    /// Message-ID and body; none where there is neither, or no end of the header.
    pub message: Option<Named>,
    /// The same, if the header ends before the first line that is none: there OfflineIMAP puts an empty one.
    pub broken: Option<Named>,
    /// Message-ID and body, but for empty lines and those that part it, where it has parts: OfflineIMAP writes those anew.
    /// Without a Message-ID the header stands for it.
    pub parts: Option<Key>,
    /// Whether it has a field `X-TUID`.
    pub is_marked: bool,
    /// What was left out; none where that is too much to report.
    pub form: Option<Form>,
}

/// A Message-ID and a body.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Named {
    /// Both of them.
    pub key: Key,
    /// Whether there is a Message-ID.
    pub has_id: bool,
}

/// What makes the very bytes of a message of what it has in common with its copies.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Form {
    /// How lines end. The last run goes on to the end; without any all end with LF.
    runs: Vec<Run>,
    /// The field `X-TUID`, and before which of the other lines it stands.
    mark: Option<(u32, Vec<u8>)>,
}

/// Lines that end alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Run {
    lines: u32,
    /// How many CRs stand before the LF.
    crs: u8,
}

impl Fingerprint {
    /// Reads a message to its end; none where its header cannot be read.
    ///
    /// # Errors
    /// The source's.
    pub fn of(from: impl BufRead) -> io::Result<Option<Fingerprint>> {
        let mut reader = Reader::default();
        let is_read = read(from, |piece| Ok(reader.take(piece)))?;
        Ok(is_read.then(|| reader.finish()))
    }
}

impl Form {
    /// Writes the original's bytes, made of a copy's; whether the copy's header could be read.
    ///
    /// # Errors
    /// The source's and the target's.
    pub fn restore(&self, from: impl BufRead, to: impl Write) -> io::Result<bool> {
        let mut writer = Writer {
            mark: self.mark.as_ref(),
            runs: &self.runs,
            used: 0,
            to,
        };
        let mut header = Header::default();
        let is_read = read(from, |piece| {
            if header.is_ended {
                return writer.write(piece).map(|()| true);
            }
            let is_taken = header.take(piece);
            if header.is_ended {
                writer.write_header(&header)?;
            }
            Ok(is_taken)
        })?;
        if is_read && !header.is_ended {
            writer.write_header(&header)?;
        }
        Ok(is_read)
    }
}

/// The value of the first Message-ID, without white space.
fn message_id(lines: &[Line]) -> Option<Vec<u8>> {
    let is_it = |line: &Line| field(line.text, b"message-id").is_some();
    let at = lines.iter().position(is_it)?;
    let mut id = squeezed(field(lines[at].text, b"message-id")?);
    for line in lines[at + 1..]
        .iter()
        .take_while(|line| is_continued(line.text))
    {
        id.extend(squeezed(line.text));
    }
    (!id.is_empty()).then_some(id)
}

fn squeezed(text: &[u8]) -> Vec<u8> {
    let bytes = text.iter().copied();
    bytes.filter(|byte| !byte.is_ascii_whitespace()).collect()
}

fn key(kind: u8, parts: [&[u8]; 2]) -> Key {
    let mut hasher = Hasher::new();
    hasher.update(&[kind]);
    for part in parts {
        hasher
            .update(&(part.len() as u64).to_le_bytes())
            .update(part);
    }
    let mut short = [0; 8];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Key(short)
}

/// Reads a message for its fingerprint.
#[derive(Default)]
struct Reader {
    header: Header,
    runs: Vec<Run>,
    has_nul: bool,
    /// What comes after the first empty line.
    body: Option<Body>,
    /// What comes from the first line on that belongs to no header, where there is one.
    broken: Option<Body>,
    /// The body without what stands between its parts, where it has parts.
    parts: Option<Parts>,
}

impl Reader {
    /// Takes a piece, unless the header is too long.
    fn take(&mut self, piece: Piece) -> bool {
        self.has_nul |= piece == Piece::Nul;
        if let Some(body) = &mut self.body {
            body.take(piece);
            if let Some(broken) = &mut self.broken {
                broken.take(piece);
            }
            if let Some(parts) = &mut self.parts {
                parts.take(piece);
            }
            if let Piece::End(crs) = piece {
                count(&mut self.runs, crs);
            }
            return true;
        }
        let is_taken = self.header.take(piece);
        if self.header.is_ended {
            self.begin_body();
        }
        is_taken
    }

    fn begin_body(&mut self) {
        let lines = self.header.lines();
        for line in lines.iter().filter(|line| !line.is_mark) {
            if let Some(crs) = line.crs {
                count(&mut self.runs, crs);
            }
        }
        self.broken = broken_at(&lines).map(|at| {
            let mut broken = Body::new();
            for line in &lines[at..] {
                broken.take(Piece::Text(line.text));
                if let Some(crs) = line.crs {
                    broken.take(Piece::End(crs));
                }
            }
            broken
        });
        self.parts = lines.iter().any(is_multipart).then(Parts::default);
        self.body = Some(Body::new());
    }

    fn finish(mut self) -> Fingerprint {
        if self.body.is_none() {
            self.begin_body();
        }
        let lines = self.header.lines();
        let body = self.body.unwrap_or_else(Body::new);
        let hash = body.hash();
        let others = lines.iter().filter(|line| !line.is_mark);
        let mut text: Vec<u8> = others
            .flat_map(|line| [line.text, if line.crs.is_some() { b"\n" } else { b"" }].concat())
            .collect();
        let plain = key(0, [&text, hash.as_bytes()]);
        text.retain(|byte| !byte.is_ascii_whitespace());
        let id = message_id(&lines);
        let parts = self.parts.map(|parts| parts.finish());
        Fingerprint {
            plain,
            squeezed: key(1, [&text, hash.as_bytes()]),
            broken: match (&self.broken, broken_at(&lines)) {
                (Some(broken), Some(at)) => broken.named(message_id(&lines[..at]).as_deref()),
                _ if self.header.is_ended => None,
                _ => body.named(id.as_deref()),
            },
            message: self
                .header
                .is_ended
                .then(|| body.named(id.as_deref()))
                .flatten(),
            parts: parts.map(|hash| key(4, [id.as_ref().unwrap_or(&text), hash.as_bytes()])),
            is_marked: lines.iter().any(|line| line.is_mark),
            form: form(&lines, self.runs).filter(|_| !self.has_nul),
        }
    }
}

/// Whether a line says that the message has parts.
fn is_multipart(line: &Line) -> bool {
    let value = field(line.text, b"content-type").map(squeezed);
    value.is_some_and(|value| {
        let kind = value.get(..b"multipart/".len());
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/"))
    })
}

/// The first line that belongs to no header.
fn broken_at(lines: &[Line]) -> Option<usize> {
    let is_broken = |line: &Line| !line.text.is_empty() && !is_header(line.text);
    lines.iter().position(is_broken)
}

/// Counts a line's end; more runs than are reported are not kept.
fn count(runs: &mut Vec<Run>, crs: u32) {
    let crs = u8::try_from(crs).unwrap_or(u8::MAX);
    let is_full = runs.len() > RUNS_MAX;
    match runs.last_mut() {
        Some(last) if last.crs == crs => last.lines = last.lines.saturating_add(1),
        _ if is_full => {}
        _ => runs.push(Run { lines: 1, crs }),
    }
}

fn form(lines: &[Line], mut runs: Vec<Run>) -> Option<Form> {
    let is_odd = |run: &Run| run.crs == u8::MAX || run.lines == u32::MAX;
    if runs.len() > RUNS_MAX || runs.iter().any(is_odd) {
        return None;
    }
    match &mut runs[..] {
        [Run { crs: 0, .. }] => runs.clear(),
        [.., last] => last.lines = 0,
        [] => {}
    }
    let Some(first) = lines.iter().position(|line| line.is_mark) else {
        return Some(Form { runs, mark: None });
    };
    let mut bytes = Vec::new();
    for line in lines[first..].iter().take_while(|line| line.is_mark) {
        bytes.extend_from_slice(line.text);
        let crs = line.crs.unwrap_or(0) as usize;
        bytes.resize(bytes.len() + crs.min(MARK_BYTES_MAX), b'\r');
        bytes.extend(line.crs.map(|_| b'\n'));
    }
    let marks = lines.iter().filter(|line| line.is_mark).count();
    let is_told = bytes.len() <= MARK_BYTES_MAX
        && lines[first..]
            .iter()
            .take_while(|line| line.is_mark)
            .count()
            == marks;
    let mark = Some((u32::try_from(first).ok()?, bytes));
    is_told.then_some(Form { runs, mark })
}

/// Writes a message in the form of another.
struct Writer<'a, W> {
    mark: Option<&'a (u32, Vec<u8>)>,
    runs: &'a [Run],
    /// How many lines of the first run are written.
    used: u32,
    to: W,
}

impl<W: Write> Writer<'_, W> {
    fn write(&mut self, piece: Piece) -> io::Result<()> {
        match piece {
            Piece::Text(text) => self.to.write_all(text),
            Piece::Nul => self.to.write_all(b"\0"),
            Piece::End(_) => {
                let crs = self.crs();
                (0..crs).try_for_each(|_| self.to.write_all(b"\r"))?;
                self.to.write_all(b"\n")
            }
        }
    }

    /// How many CRs the next line's end has.
    fn crs(&mut self) -> u8 {
        let Some(run) = self.runs.first() else {
            return 0;
        };
        self.used += 1;
        if self.runs.len() > 1 && self.used >= run.lines {
            (self.runs, self.used) = (&self.runs[1..], 0);
        }
        run.crs
    }

    fn write_header(&mut self, header: &Header) -> io::Result<()> {
        let lines = header.lines();
        let mut number = 0;
        for line in lines.iter().filter(|line| !line.is_mark) {
            self.write_mark(number)?;
            number += 1;
            self.write(Piece::Text(line.text))?;
            if let Some(crs) = line.crs {
                self.write(Piece::End(crs))?;
            }
        }
        self.write_mark(number)
    }

    /// Writes the field `X-TUID` where it stands before this line.
    fn write_mark(&mut self, number: u32) -> io::Result<()> {
        match self.mark {
            Some((at, bytes)) if *at == number => self.to.write_all(bytes),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "fingerprint_tests.rs"]
mod tests;
