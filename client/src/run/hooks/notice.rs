//! What hooks are told: a notice for each thing, as it is stored until a hook has got it, and as it stands on a hook's stdin.
//! Pure.
//!
//! Stored are fields ended by NUL, whose first byte says what they are: a digit for a run's three numbers, a letter for the
//! fields of a notice, of which the operation comes first. A path alone is what an older version kept.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::{BuildHasher, Hash};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use protocol::bytes::escape;
use serde_json::{Value, json};

use crate::config::file::Format;

const OPERATION: u8 = b'o';
const FOLDER: u8 = b'f';
const PATH: u8 = b'p';
const OLD: u8 = b'q';

/// One thing that happened. What does not apply is empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Notice<'r> {
    operation: &'r [u8],
    folder: &'r [u8],
    path: &'r [u8],
    old: &'r [u8],
}

impl<'r> Notice<'r> {
    /// What happened in a folder, and to which path.
    #[must_use]
    pub fn new(operation: &'static str, folder: &'r str, path: &'r Path) -> Notice<'r> {
        Notice {
            operation: operation.as_bytes(),
            folder: folder.as_bytes(),
            path: path.as_os_str().as_bytes(),
            old: &[],
        }
    }

    /// What the path was before, if it was another one.
    #[must_use]
    pub fn before(self, old: Option<&'r Path>) -> Notice<'r> {
        let old = old.map(|old| old.as_os_str().as_bytes());
        Notice {
            old: old.filter(|old| *old != self.path).unwrap_or_default(),
            ..self
        }
    }

    /// The paths that are told without anything else: of a folder that was renamed both.
    fn paths(&self) -> impl Iterator<Item = &'r [u8]> + use<'r> {
        let is_folder = self.operation == b"rename-folder";
        let old = is_folder.then_some(self.old);
        let paths = old.into_iter().chain([self.path]);
        paths.filter(|path| !path.is_empty())
    }

    /// What happened.
    pub(super) fn operation(&self) -> &'r [u8] {
        self.operation
    }

    fn fields(&self) -> [&'r [u8]; 4] {
        [self.operation, self.folder, self.path, self.old]
    }

    fn json(&self) -> Value {
        let [operation, folder, path, old] = self.fields().map(text);
        json!({ "operation": operation, "folder": folder, "path": path, "old_path": old })
    }

    /// As it is stored.
    pub(super) fn store(&self, to: &mut Vec<u8>) {
        let fields = [OPERATION, FOLDER, PATH, OLD]
            .into_iter()
            .zip(self.fields());
        for (key, field) in fields.filter(|(key, field)| *key == OPERATION || !field.is_empty()) {
            to.push(key);
            to.extend_from_slice(field);
            to.push(0);
        }
    }
}

/// JSON has no other bytes than text; a file name may have.
fn text(field: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(field).map_or_else(|_| escape(field), str::to_owned);
    (!text.is_empty()).then_some(text)
}

/// The fields of what is stored, each with the byte that says what it is.
fn fields(stored: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let fields = stored.split(|&byte| byte == 0);
    fields.filter_map(|field| Some((*field.first()?, field)))
}

/// What is stored, each notice once, in the order in which they came. There may be as many as messages: none is remembered in full.
pub(super) fn each(stored: &[u8]) -> impl Iterator<Item = Notice<'_>> {
    let mut fields = fields(stored).peekable();
    let mut seen = Seen::default();
    std::iter::from_fn(move || {
        loop {
            let mut notice = match fields.next()? {
                (b'/', path) => Notice::new("change", "", Path::new(OsStr::from_bytes(path))),
                (OPERATION, field) => Notice {
                    operation: &field[1..],
                    ..Notice::default()
                },
                _ => continue,
            };
            while let Some((key, field)) =
                fields.next_if(|(key, _)| ![b'/', OPERATION].contains(key))
            {
                match key {
                    FOLDER => notice.folder = &field[1..],
                    PATH => notice.path = &field[1..],
                    OLD => notice.old = &field[1..],
                    _ => {}
                }
            }
            if seen.is_new(notice) {
                return Some(notice);
            }
        }
    })
}

/// What was met before, by its hash.
#[derive(Default)]
struct Seen {
    hashes: HashSet<u64>,
    state: RandomState,
}

impl Seen {
    fn is_new(&mut self, thing: impl Hash) -> bool {
        self.hashes.insert(self.state.hash_one(thing))
    }
}

/// The sums of the numbers of what is stored.
pub(super) fn numbers(stored: &[u8]) -> [u64; 3] {
    let mut sums = [0; 3];
    for (_, field) in fields(stored).filter(|(key, _)| key.is_ascii_digit()) {
        let words = std::str::from_utf8(field).unwrap_or_default();
        let numbers = words.split(' ').filter_map(|word| word.parse::<u64>().ok());
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += number;
        }
    }
    sums
}

/// The numbers of a run, as they are stored.
pub(super) fn store_numbers([new, changed, deleted]: [u64; 3]) -> Vec<u8> {
    format!("{new} {changed} {deleted}\0").into_bytes()
}

/// Records as a hook reads them.
pub(super) fn written<'r>(notices: impl Iterator<Item = Notice<'r>>, format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut seen = Seen::default();
    for notice in notices {
        match format {
            Format::Paths => {
                for path in notice.paths().filter(|path| seen.is_new(path)) {
                    bytes.extend_from_slice(path);
                    bytes.push(0);
                }
            }
            Format::Records => {
                for field in notice.fields() {
                    bytes.extend_from_slice(field);
                    bytes.push(0);
                }
            }
            Format::Json => {
                bytes.extend_from_slice(notice.json().to_string().as_bytes());
                bytes.push(b'\n');
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an older version kept, and what this one does.
    const PATHS: &[u8] = include_bytes!("../../../fixtures/address-hook");
    const RECORDS: &[u8] = include_bytes!("../../../fixtures/address-hook-2");

    fn read(stored: &[u8]) -> (Vec<Notice<'_>>, [u64; 3]) {
        (each(stored).collect(), numbers(stored))
    }

    fn written(notices: &[Notice], format: Format) -> Vec<u8> {
        super::written(notices.iter().copied(), format)
    }

    fn notices<'r>() -> [Notice<'r>; 3] {
        [
            Notice::new("new", "INBOX", Path::new("/mail/new/1.a")),
            Notice::new(
                "flags",
                "Lists/a",
                Path::new("/mail/.Lists.a/cur/2 b\n:2,S"),
            )
            .before(Some(Path::new("/mail/.Lists.a/cur/2 b\n:2,"))),
            Notice::new("rename-folder", "Threads", Path::new("/mail/.Threads"))
                .before(Some(Path::new("/mail/.Lists"))),
        ]
    }

    #[test]
    fn what_is_stored_is_read_and_written_as_the_fixtures_have_it() {
        let mut stored = store_numbers([2, 1, 3]);
        for notice in notices() {
            notice.store(&mut stored);
        }
        assert_eq!(stored, RECORDS);
        assert_eq!(read(RECORDS), (notices().to_vec(), [2, 1, 3]));
        let older = ["/mail/cur/1.a:2,S", "/mail/new/2 b\n"];
        let older = older.map(|path| Notice::new("change", "", Path::new(path)));
        assert_eq!(read(PATHS), (older.to_vec(), [2, 1, 3]));
    }

    #[test]
    fn each_format_tells_the_same_and_each_thing_once() {
        let notices = [&notices()[..], &notices()[..1]].concat();
        let paths = "/mail/new/1.a\0/mail/.Lists.a/cur/2 b\n:2,S\0/mail/.Lists\0/mail/.Threads\0";
        assert_eq!(written(&notices, Format::Paths), paths.as_bytes());
        let fields = "flags\0Lists/a\0/mail/.Lists.a/cur/2 b\n:2,S\0/mail/.Lists.a/cur/2 b\n:2,\0";
        assert_eq!(written(&notices[1..2], Format::Records), fields.as_bytes());
        let first = "new\0INBOX\0/mail/new/1.a\0\0";
        assert_eq!(written(&notices[..1], Format::Records), first.as_bytes());
        let line = r#"{"folder":"INBOX","old_path":null,"operation":"new","path":"/mail/new/1.a"}"#;
        assert_eq!(
            written(&notices[..1], Format::Json),
            format!("{line}\n").as_bytes()
        );
        let odd = Notice::new("new", "INBOX", Path::new(OsStr::from_bytes(b"/m/\xfc\n")));
        let odd = String::from_utf8(written(&[odd], Format::Json)).expect("JSON is text");
        assert!(odd.contains(r#""path":"/m/\\xfc\\x0a""#), "{odd}");
    }

    #[test]
    fn what_is_torn_spoils_nothing_that_follows() {
        let mut stored = b"1 0 0\0onew\0fINB".to_vec();
        stored.push(0);
        stored.extend_from_slice(RECORDS);
        let (found, sums) = read(&stored);
        assert_eq!((&found[1..], sums), (&notices()[..], [3, 1, 3]));
    }
}
