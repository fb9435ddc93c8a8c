//! What people know a message by: its date, sender and subject. Read for display alone, and nothing is decided by it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use mail_parser::{Address, MessageParser};
use protocol::bytes::escape;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

/// How much of a message is read.
const BYTES_MAX: u64 = 64 << 10;
/// How many characters of a sender or a subject are shown.
const CHARS_MAX: usize = 80;

/// What a message says of itself; each is decoded, escaped and short, and may be missing. The order of the fields is the
/// stored format.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Heading {
    /// The day and the minute.
    pub date: Option<String>,
    /// The sender's name, or the address where there is none.
    pub from: Option<String>,
    /// The subject.
    pub subject: Option<String>,
}

impl Heading {
    /// Reads the first bytes of a message's file; none where it cannot be read or says nothing.
    #[must_use]
    pub fn read(path: &Path) -> Option<Heading> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Heading::of(&bytes)
    }

    fn of(bytes: &[u8]) -> Option<Heading> {
        let parser = MessageParser::new()
            .header_text(mail_parser::HeaderName::Subject)
            .header_address(mail_parser::HeaderName::From)
            .header_date(mail_parser::HeaderName::Date)
            .default_header_ignore();
        let message = parser.parse_headers(bytes)?;
        let date = message.date().map(|date| {
            let (hour, minute) = (date.hour, date.minute);
            format!(
                "{:04}-{:02}-{:02} {hour:02}:{minute:02}",
                date.year, date.month, date.day
            )
        });
        let heading = Heading {
            date,
            from: message.from().and_then(sender).and_then(shown),
            subject: message.subject().and_then(shown),
        };
        (heading != Heading::default()).then_some(heading)
    }

    /// "2025-10-01 08:00, Alice, "Letter"", as far as it is known.
    #[must_use]
    pub fn text(&self) -> String {
        let subject = self
            .subject
            .as_ref()
            .map(|subject| format!("\"{subject}\""));
        let parts = [self.date.clone(), self.from.clone(), subject];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

fn sender<'m>(from: &'m Address) -> Option<&'m str> {
    let first = from.first()?;
    first.name().or_else(|| first.address())
}

fn shown(text: &str) -> Option<String> {
    let mut short: String = text.trim().chars().take(CHARS_MAX).collect();
    if text.trim().chars().count() > CHARS_MAX {
        short.push('…');
    }
    Some(escape(short.as_bytes())).filter(|text| !text.is_empty())
}

/// A message before people: folder, date, sender and subject, then its name; all of it escaped.
#[must_use]
pub fn named(folder: &str, name: &str, heading: Option<&Heading>) -> String {
    match heading {
        Some(heading) => format!("{folder}, {} ({name})", heading.text()),
        None => format!("{folder}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heading_is_decoded_escaped_and_short() {
        let table: [(&[u8], &str); 5] = [
            (
                b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nSubject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\n =?utf-8?B?IQ==?=\r\nDate: Wed, 1 Oct 2025 08:00:01 +0200\r\n\r\nSubject: no",
                "2025-10-01 08:00, Jürgen, \"Grüße!\"",
            ),
            (b"From: a@example.org\nSubject: \x1b[2J=?utf-8?q?=1b=5b=0amaildir-sync:?=\n\n", "a@example.org, \"\\x1b[2J \\x1b[\\x0amaildir-sync:\""),
            (b"subject: bare\xe9\n", "\"bare\u{fffd}\""),
            (b"Date: never\nSubject:\n\nbody", ""),
            (b"", ""),
        ];
        for (bytes, text) in table {
            let heading = Heading::of(bytes).map_or_else(String::new, |heading| heading.text());
            assert_eq!(heading, text, "{}", bytes.escape_ascii());
        }
        let long = format!("Subject: {}\n\n", "ä".repeat(3000));
        let subject = Heading::of(long.as_bytes()).and_then(|heading| heading.subject);
        assert_eq!(subject, Some(format!("{}…", "ä".repeat(CHARS_MAX))));
    }
}
