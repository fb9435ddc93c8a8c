//! A body that is being hashed.

use blake3::{Hash, Hasher};

use super::header::Piece;
use super::{Named, key};

/// All of it.
pub(super) struct Body {
    hasher: Hasher,
    is_empty: bool,
}

impl Body {
    pub(super) fn new() -> Body {
        Body {
            hasher: Hasher::new(),
            is_empty: true,
        }
    }

    pub(super) fn take(&mut self, piece: Piece) {
        let text = piece.text();
        self.hasher.update(text);
        self.is_empty &= text.iter().all(u8::is_ascii_whitespace);
    }

    pub(super) fn hash(&self) -> Hash {
        self.hasher.finalize()
    }

    /// Together with a Message-ID; a body that says nothing needs one.
    pub(super) fn named(&self, id: Option<&[u8]>) -> Option<Named> {
        let has_id = id.is_some();
        let kind = if has_id { 2 } else { 3 };
        let key = key(kind, [id.unwrap_or_default(), self.hash().as_bytes()]);
        (has_id || !self.is_empty).then_some(Named { key, has_id })
    }
}

/// The lines of a body, but for empty ones and those that part it: they begin with `--`.
#[derive(Default)]
pub(super) struct Parts {
    hasher: Hasher,
    /// The first bytes of a line, as long as they do not say what it is.
    begin: Vec<u8>,
    line: Kind,
}

/// What is known of a line.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Unknown,
    Counts,
    Parts,
}

impl Parts {
    pub(super) fn take(&mut self, piece: Piece) {
        let is_end = matches!(piece, Piece::End(_));
        if !is_end && self.line == Kind::Unknown {
            self.begin.extend_from_slice(piece.text());
            self.line = match &self.begin[..] {
                [] | [b'-'] => Kind::Unknown,
                [b'-', b'-', ..] => Kind::Parts,
                _ => Kind::Counts,
            };
            if self.line == Kind::Counts {
                self.hasher.update(&std::mem::take(&mut self.begin));
            }
        } else if self.line == Kind::Counts {
            self.hasher.update(piece.text());
        }
        if is_end {
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        let begin = std::mem::take(&mut self.begin);
        if self.line == Kind::Unknown && !begin.is_empty() {
            self.hasher.update(&begin).update(b"\n");
        }
        self.line = Kind::Unknown;
    }

    pub(super) fn finish(mut self) -> Hash {
        // The last line may have lost or got its end.
        if self.line == Kind::Counts {
            self.hasher.update(b"\n");
        }
        self.end_line();
        self.hasher.finalize()
    }
}
