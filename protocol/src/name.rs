//! Names of message files: what stands before `:2,`, and the rest.
//!
//! The only place that knows `:2,`. Names are bytes and are kept verbatim; of an info only the letters change, and only
//! when a flag does.

use crate::bytes::{escape, serde_as_bytes};
use crate::{Digest, Error, Flags, Result};

/// The longest file name that Linux file systems hold, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
const MARK: &[u8] = b":2,";

/// The unique name of a message: its file name up to the first `:2,`, or all of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unique(std::sync::Arc<[u8]>); // many plans and maps name the same message
serde_as_bytes!(Unique);

impl Unique {
    /// Takes a unique name as it stands on disk or on the wire.
    ///
    /// # Errors
    /// When a file of that name could not lie in a Maildir: `/`, NUL, a leading dot, over 255 bytes, or `:2,` inside.
    pub fn new(bytes: &[u8]) -> Result<Unique> {
        let broken = if bytes.contains(&b'/') || bytes.contains(&0) {
            Some("it holds a slash or NUL")
        } else if bytes.first() == Some(&b'.') {
            Some("it begins with a dot")
        } else if bytes.len() > NAME_BYTES_MAX {
            Some("it is over 255 bytes long")
        } else if find(bytes, MARK).is_some() {
            Some("it holds \":2,\"")
        } else {
            None
        };
        match broken {
            None => Ok(Unique(bytes.into())),
            Some(why) => Err(Error::Name {
                what: "unique name",
                name: escape(bytes),
                why,
            }),
        }
    }

    /// The bytes as they are in the file name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether mbsync or OfflineIMAP gave it: they write the number that the message has on the server into it.
    #[must_use]
    pub fn is_of_a_copy(&self) -> bool {
        let number = find(&self.0, b",U=").and_then(|at| self.0.get(at + 3));
        number.is_some_and(u8::is_ascii_digit)
    }

    /// The name that a message gets when its own is taken by other bytes: 16 hex digits of the digest go before the
    /// first comma. The same on every client and at every retry; shortened to leave room for `info_bytes` of info.
    #[must_use]
    pub fn fresh(&self, digest: &Digest, info_bytes: usize) -> Unique {
        let hex = crate::bytes::hex(&digest.as_bytes()[..8]);
        let comma = self
            .0
            .iter()
            .position(|&byte| byte == b',')
            .unwrap_or(self.0.len());
        let (head, tail) = self.0.split_at(comma);
        let room = NAME_BYTES_MAX.saturating_sub(hex.len() + info_bytes);
        let tail = &tail[..tail.len().min(room)];
        let head = &head[..head.len().min(room - tail.len())];
        Unique([head, hex.as_bytes(), tail].concat().into())
    }
}

/// What follows the unique name, verbatim: empty, or `:2,` with flags and whatever else somebody wrote there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Info(Box<[u8]>);
serde_as_bytes!(Info);

impl Info {
    /// Takes an info as it stands on disk or on the wire.
    ///
    /// # Errors
    /// When it neither is empty nor begins with `:2,`, or holds what no file name may.
    pub fn new(bytes: &[u8]) -> Result<Info> {
        let broken = if bytes.contains(&b'/') || bytes.contains(&0) {
            Some("it holds a slash or NUL")
        } else if bytes.len() > NAME_BYTES_MAX {
            Some("it is over 255 bytes long")
        } else if !bytes.is_empty() && !bytes.starts_with(MARK) {
            Some("it does not begin with \":2,\"")
        } else {
            None
        };
        match broken {
            None => Ok(Info(bytes.into())),
            Some(why) => Err(Error::Name {
                what: "info",
                name: escape(bytes),
                why,
            }),
        }
    }

    /// The info of a message in `cur` with these flags.
    #[must_use]
    pub fn of(flags: Flags) -> Info {
        Info([MARK, &flags.letters()].concat().into())
    }

    /// The bytes as they are in the file name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The flag letters; unsorted and repeated ones count once, fields after a comma are not flags.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags::from_letters(self.field())
    }

    /// This info with exactly these flags: itself where they are what it says already, else the letters are written
    /// anew in ASCII order and every other byte is kept.
    #[must_use]
    pub fn with_flags(&self, flags: Flags) -> Info {
        if self.flags() == flags {
            return self.clone();
        }
        let field = self.field();
        let rest = self.0.get(MARK.len() + field.len()..).unwrap_or_default();
        let others: Vec<u8> = field
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_alphabetic())
            .collect();
        Info([MARK, &flags.letters(), &others, rest].concat().into())
    }

    /// What stands between `:2,` and the next comma or the end.
    fn field(&self) -> &[u8] {
        let field = self.0.get(MARK.len()..).unwrap_or_default();
        &field[..field
            .iter()
            .position(|&byte| byte == b',')
            .unwrap_or(field.len())]
    }
}

/// Splits a file name of `new` or `cur` at its first `:2,`.
///
/// # Errors
/// When it is not the name of a message: it begins with a dot.
pub fn split(file_name: &[u8]) -> Result<(Unique, Info)> {
    let at = unique_length(file_name);
    Ok((Unique::new(&file_name[..at])?, Info::new(&file_name[at..])?))
}

/// How many bytes of a file name are its unique name.
#[must_use]
pub fn unique_length(file_name: &[u8]) -> usize {
    find(file_name, MARK).unwrap_or(file_name.len())
}

/// Joins what [`split`] took apart.
///
/// # Errors
/// When the result is empty or over 255 bytes.
pub fn join(unique: &Unique, info: &Info) -> Result<Vec<u8>> {
    let name = [unique.as_bytes(), info.as_bytes()].concat();
    let why = match name.len() {
        0 => "it is empty",
        1..=NAME_BYTES_MAX => return Ok(name),
        _ => "it is over 255 bytes long",
    };
    Err(Error::Name {
        what: "file name",
        name: escape(&name),
        why,
    })
}

/// The message that an editor's file in `new` or `cur` belongs to, by its name: `NAME~`, `NAME.~1~` or `#NAME#`.
#[must_use]
pub fn edited(file_name: &[u8]) -> Option<(Unique, Info)> {
    let name = match file_name {
        [b'#', name @ .., b'#'] => name,
        [name @ .., b'~'] => {
            let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit());
            let (head, version) = name.split_at(name.len() - digits.count());
            head.strip_suffix(b".~")
                .filter(|_| !version.is_empty())
                .unwrap_or(name)
        }
        _ => return None,
    };
    split(name).ok().filter(|_| !name.is_empty())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_editors_leave_is_told_by_its_name() {
        for name in ["1.a:2,DS~", "1.a:2,DS.~1~", "1.a:2,DS.~20~", "#1.a:2,DS#"] {
            let (unique, info) = edited(name.as_bytes()).expect(name);
            assert_eq!(
                (unique.as_bytes(), info.as_bytes()),
                (&b"1.a"[..], &b":2,DS"[..])
            );
        }
        for (name, of) in [("1.a~", "1.a"), ("#1.a#", "1.a"), ("1.a.~~", "1.a.~")] {
            let (unique, _) = edited(name.as_bytes()).expect(name);
            assert_eq!(unique.as_bytes(), of.as_bytes());
        }
        for name in ["1.a:2,DS", "1.a", "~", "##", "#", "#1.a", "1.a#"] {
            assert_eq!(edited(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn odd_names_split_and_join_verbatim() {
        let long = vec![b'x'; 255];
        let valid: &[(&[u8], &[u8], &[u8])] = &[
            (b"123.M1P2.host,S=5:2,FS", b"123.M1P2.host,S=5", b"FS"),
            (b"123.host", b"123.host", b""),
            (b"123.host:1,abc", b"123.host:1,abc", b""),
            (b":2,S", b"", b"S"),
            (b"a:2,SFSF", b"a", b"FS"),
            (b"a:2,S:2,F", b"a", b"S"),
            (b"a:2,Sq1,keyword=x", b"a", b"Sq"),
            (b"a:", b"a:", b""),
            (b"a:2", b"a:2", b""),
            (b"tab\there\n\x1b\xff\\:2,", b"tab\there\n\x1b\xff\\", b""),
            (&long, &long, b""),
        ];
        for (name, unique, flags) in valid {
            let (got, info) = split(name).expect("valid name");
            assert_eq!(got.as_bytes(), *unique);
            assert_eq!(info.flags(), Flags::from_letters(flags), "{}", escape(name));
            assert_eq!(join(&got, &info).expect("joins"), *name);
            assert_eq!(info.with_flags(info.flags()), info);
        }
    }

    #[test]
    fn names_that_leave_their_directory_are_refused() {
        for name in [
            &b"../x"[..],
            b"a/b",
            b"a\0b",
            b".",
            b"..",
            b".hidden",
            &[b'x'; 256],
        ] {
            assert!(split(name).is_err(), "{}", escape(name));
        }
        assert!(Unique::new(b"a:2,S").is_err());
        assert!(Info::new(b"S").is_err());
        assert!(join(&Unique::new(b"").expect("empty unique"), &Info::default()).is_err());
    }

    #[test]
    fn only_the_letters_of_an_info_change() {
        let table: &[(&[u8], &[u8], &[u8])] = &[
            (b"", b"S", b":2,S"),
            (b":2,", b"SF", b":2,FS"),
            (b":2,S1", b"RS", b":2,RS1"),
            (b":2,SF,x=S", b"S", b":2,S,x=S"),
            (b":2,SF", b"FS", b":2,SF"),
            (b":2,S", b"", b":2,"),
        ];
        for (before, flags, after) in table {
            let info = Info::new(before)
                .expect("valid info")
                .with_flags(Flags::from_letters(flags));
            assert_eq!(info.as_bytes(), *after);
        }
    }

    #[test]
    fn a_fresh_name_stands_before_the_first_comma_and_fits() {
        let digest = Digest::of(b"x");
        let hex = crate::bytes::hex(&digest.as_bytes()[..8]);
        let fresh = |name: &[u8]| {
            Unique::new(name)
                .expect("valid")
                .fresh(&digest, 3)
                .as_bytes()
                .to_vec()
        };
        assert_eq!(
            fresh(b"1.M2.h,S=3,W=4"),
            format!("1.M2.h{hex},S=3,W=4").into_bytes()
        );
        assert_eq!(fresh(b"1.M2.h"), format!("1.M2.h{hex}").into_bytes());
        assert_eq!(fresh(&[b'x'; 255]).len(), 252);
        assert_eq!(fresh(&[&b"x,"[..], &[b'y'; 253]].concat()).len(), 252);
    }
}
