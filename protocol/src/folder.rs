//! Folders as both ends speak of them: by their directory below the root.

use crate::bytes::{escape, serde_as_bytes};
use crate::{Error, Result};

/// The longest path of a folder, in bytes; a longer one could not be opened either (PATH_MAX).
pub(crate) const FOLDER_BYTES_MAX: usize = 4096 - 512;

/// A folder's directory below the root of its replica, verbatim, `/` between the levels; empty for the root itself.
///
/// Bytes and no text, so whatever a directory is called, it has exactly one name here. What that is to people, and which
/// directory stands for it on the other side, is the client's to say.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FolderDir(std::sync::Arc<[u8]>); // a hundred thousand messages name the same folder
serde_as_bytes!(FolderDir);

impl FolderDir {
    /// Takes a path below the root.
    ///
    /// # Errors
    /// When a level is empty, `.` or `..`, or over 255 bytes; when the path holds NUL or is too long as a whole.
    pub fn new(bytes: &[u8]) -> Result<FolderDir> {
        let levels = || bytes.split(|&byte| byte == b'/');
        let broken = if bytes.is_empty() {
            None
        } else if bytes.len() > FOLDER_BYTES_MAX {
            Some("it is too long")
        } else if bytes.contains(&0) {
            Some("it holds NUL")
        } else if levels().any(|level| matches!(level, b"" | b"." | b"..")) {
            Some("a level of it is empty, \".\" or \"..\"")
        } else if levels().any(|level| level.len() > crate::name::NAME_BYTES_MAX) {
            Some("a level of it is over 255 bytes long")
        } else {
            None
        };
        match broken {
            None => Ok(FolderDir(bytes.into())),
            Some(why) => Err(Error::Name {
                what: "folder",
                name: escape(bytes),
                why,
            }),
        }
    }

    /// The root itself.
    #[must_use]
    pub fn root() -> FolderDir {
        FolderDir((*b"").into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many levels it lies below the root.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self.0.is_empty() {
            true => 0,
            false => 1 + self.0.iter().filter(|&&byte| byte == b'/').count(),
        }
    }
}

/// Which of the folders of a replica is INBOX: the root, else `INBOX`, else what is `Inbox` in any other letters.
pub fn find_inbox<'a>(dirs: impl IntoIterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let rank = |dir: &[u8]| (!dir.is_empty(), dir != b"INBOX");
    dirs.into_iter()
        .filter(|dir| dir.is_empty() || dir.eq_ignore_ascii_case(b"INBOX"))
        .min_by_key(|dir| (rank(dir), *dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_climb_are_refused() {
        for path in [
            &b"/"[..],
            b"/etc",
            b"a//b",
            b"a/",
            b"..",
            b"a/../b",
            b".",
            b"a\0b",
            &[b'x'; 256],
        ] {
            assert!(FolderDir::new(path).is_err(), "{}", escape(path));
        }
        for path in [
            &b""[..],
            b"INBOX",
            b"Lists/debian",
            b".Lists.debian",
            b".a..b",
            b".trailing.",
            b"x..y",
            b"new\nline",
            b"\xff",
        ] {
            assert!(FolderDir::new(path).is_ok(), "{}", escape(path));
        }
        let depth = |path: &[u8]| FolderDir::new(path).expect("valid").depth();
        assert_eq!([depth(b""), depth(b"a"), depth(b"a/b")], [0, 1, 2]);
    }

    #[test]
    fn the_root_is_inbox_before_a_directory_of_that_name() {
        for (dirs, inbox) in [
            (&["", "INBOX", "Inbox"][..], Some("")),
            (&["inbox", "Inbox", "INBOX"], Some("INBOX")),
            (&["inbox", "Work", "Inbox"], Some("Inbox")),
            (&[".INBOX", "INBOX/Sub", "Work"], None),
        ] {
            let found = find_inbox(dirs.iter().map(|dir| dir.as_bytes()));
            assert_eq!(found, inbox.map(str::as_bytes), "{dirs:?}");
        }
    }
}
