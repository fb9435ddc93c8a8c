//! A message in pieces, and the lines of its header.

use std::io::{self, BufRead};

/// The longest header that is read, in bytes.
pub(super) const HEADER_BYTES_MAX: usize = 256 << 10;
/// What mbsync writes into each message that it copies.
const MARK: &[u8] = b"x-tuid";

/// A piece of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Some bytes of a line.
    Text(&'a [u8]),
    /// A NUL, for which Dovecot has 0x80.
    Nul,
    /// The end of a line, with so many CRs before its LF.
    End(u32),
}

impl Piece<'_> {
    /// What copies of it have in common.
    pub(super) fn text(&self) -> &[u8] {
        match self {
            Piece::Text(text) => text,
            Piece::Nul => b"\x80",
            Piece::End(_) => b"\n",
        }
    }
}

/// Cuts a message into pieces until it ends or `take` wants no more of it; whether that was to its end.
pub(super) fn read(
    mut from: impl BufRead,
    mut take: impl FnMut(Piece) -> io::Result<bool>,
) -> io::Result<bool> {
    let mut crs = 0;
    loop {
        let buffer = match from.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let (mut rest, length) = (buffer, buffer.len());
        while length == 0 && crs > 0 || !rest.is_empty() {
            let line = rest
                .iter()
                .position(|byte| matches!(byte, 0 | b'\r' | b'\n'));
            let (piece, used) = match (rest.first(), line) {
                (Some(b'\n'), _) => (Piece::End(std::mem::take(&mut crs)), 1),
                (Some(b'\r'), _) => {
                    crs += 1;
                    rest = &rest[1..];
                    continue;
                }
                // CRs that stand before anything else belong to the line.
                _ if crs > 0 => {
                    crs -= 1;
                    (Piece::Text(b"\r"), 0)
                }
                (Some(0), _) => (Piece::Nul, 1),
                (_, end) => {
                    let end = end.unwrap_or(rest.len());
                    (Piece::Text(&rest[..end]), end)
                }
            };
            rest = &rest[used..];
            if !take(piece)? {
                return Ok(false);
            }
        }
        if length == 0 {
            return Ok(true);
        }
        from.consume(length);
    }
}

/// The lines up to the first empty one, and that.
#[derive(Default)]
pub(super) struct Header {
    text: Vec<u8>,
    /// Where each line ends in the text, and how many CRs stand there.
    ends: Vec<(usize, u32)>,
    /// Whether there was an empty line.
    pub(super) is_ended: bool,
}

/// A line of a header.
pub(super) struct Line<'a> {
    pub(super) text: &'a [u8],
    /// How many CRs stand before its LF; none where the message ends in it.
    pub(super) crs: Option<u32>,
    /// It belongs to a field `X-TUID`.
    pub(super) is_mark: bool,
}

impl Header {
    /// Takes a piece, unless it is too much.
    pub(super) fn take(&mut self, piece: Piece) -> bool {
        match piece {
            Piece::Text(_) | Piece::Nul => self.text.extend_from_slice(piece.text()),
            Piece::End(crs) => {
                let begin = self.ends.last().map_or(0, |(end, _)| *end);
                self.is_ended = begin == self.text.len();
                self.ends.push((self.text.len(), crs));
            }
        }
        self.text.len() <= HEADER_BYTES_MAX
    }

    pub(super) fn lines(&self) -> Vec<Line<'_>> {
        let mut lines = Vec::with_capacity(self.ends.len() + 1);
        let (mut begin, mut is_mark) = (0, false);
        let ends = self.ends.iter().map(|(end, crs)| (*end, Some(*crs)));
        for (end, crs) in ends.chain([(self.text.len(), None)]) {
            let text = &self.text[begin..end];
            if crs.is_none() && text.is_empty() {
                break;
            }
            is_mark = field(text, MARK).is_some() || is_mark && is_continued(text);
            lines.push(Line { text, crs, is_mark });
            begin = end;
        }
        lines
    }
}

/// What stands after a field's name, if a line begins that field.
pub(super) fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    let value = value.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then_some(value)
}

pub(super) fn is_continued(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// Whether a line may stand in a header, as Python's parser sees it, which OfflineIMAP uses.
pub(super) fn is_header(line: &[u8]) -> bool {
    let colon = line
        .iter()
        .position(|byte| !matches!(byte, 0x21..=0x7e) || *byte == b':');
    is_continued(line)
        || line.starts_with(b"From ")
        || colon.is_some_and(|colon| line[colon] == b':')
}
