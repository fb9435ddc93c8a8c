//! Folder names as both ends agree on them, whatever stands on disk.

use crate::bytes::{escape, serde_as_bytes};
use crate::{Error, Result};

/// The longest folder name on the wire, in bytes; a path longer than that could not be opened either (PATH_MAX).
pub const FOLDER_BYTES_MAX: usize = 4096 - 512;

/// A folder: components joined by `/`, `INBOX` for the root, UTF-8 where the disk's name could be read as such.
///
/// Each side maps it to its own layout; see `maildir::layout`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FolderName(std::sync::Arc<[u8]>); // a hundred thousand messages name the same folder
serde_as_bytes!(FolderName);

impl FolderName {
    /// Takes a name as it stands on the wire or was mapped from disk.
    ///
    /// # Errors
    /// When a component is empty, `.` or `..`, or over 255 bytes; when the name holds NUL or is too long as a whole.
    pub fn new(bytes: &[u8]) -> Result<FolderName> {
        let broken = if bytes.len() > FOLDER_BYTES_MAX {
            Some("it is too long")
        } else if bytes.contains(&0) {
            Some("it holds NUL")
        } else if bytes
            .split(|&byte| byte == b'/')
            .any(|part| matches!(part, b"" | b"." | b".."))
        {
            Some("a part of it is empty, \".\" or \"..\"")
        } else if bytes
            .split(|&byte| byte == b'/')
            .any(|part| part.len() > crate::name::NAME_BYTES_MAX)
        {
            Some("a part of it is over 255 bytes long")
        } else {
            None
        };
        match broken {
            None => Ok(FolderName(bytes.into())),
            Some(why) => Err(Error::Name {
                what: "folder name",
                name: escape(bytes),
                why,
            }),
        }
    }

    /// The root's own folder.
    #[must_use]
    pub fn inbox() -> FolderName {
        FolderName((*b"INBOX").into())
    }

    /// Whether this is the root's own folder.
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        *self.0 == *b"INBOX"
    }

    /// The bytes, parts joined by `/`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The parts, outermost first.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_climb_are_refused() {
        for name in [
            &b""[..],
            b"/",
            b"/etc",
            b"a//b",
            b"a/",
            b"..",
            b"a/../b",
            b".",
            b"a\0b",
            &[b'x'; 256],
        ] {
            assert!(FolderName::new(name).is_err(), "{}", escape(name));
        }
        for name in [
            &b"INBOX"[..],
            b"Lists/debian",
            b"a.b",
            b"x..y",
            b"\xff",
            "Entw\u{fc}rfe".as_bytes(),
        ] {
            assert!(FolderName::new(name).is_ok(), "{}", escape(name));
        }
    }
}
