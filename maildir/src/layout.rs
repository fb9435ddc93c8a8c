//! How the directory names of one replica map to folder names, and which directories are folders.
//!
//! Owns the two layouts (Maildir++ and nested), the two encodings of names, finding out which of them a tree uses, and
//! the list of its folders. The mapping is one-to-one: a directory or a name that would not come back as it was is a
//! [`Misfit`], left alone and reported. Must never know what the other replica's layout is, and never writes. The
//! encoding itself is in `crate::utf7`; what lies inside a folder is the scan's.

use std::path::{Path, PathBuf};
use std::{io, str};

use protocol::FolderName;
use protocol::bytes::escape;
use protocol::folder::FOLDER_BYTES_MAX;
use protocol::name::NAME_BYTES_MAX;

use crate::utf7;

mod survey;

pub use survey::discover;
use survey::{Survey, check_root, find_encoding, find_inbox, find_style};

/// How many levels of directories a nested tree may have; deeper ones are misfits, so a walk always ends.
pub const DEPTH_MAX: usize = 64;

/// How folders lie on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Style {
    /// `.Lists.debian`: every folder beside the root's own `cur/`, with a leading dot and a dot between parts.
    #[serde(rename = "maildir++")]
    MaildirPlusPlus,
    /// `Lists/debian`: directories in directories, what Dovecot calls `LAYOUT=fs` and mbsync `Verbatim`.
    #[serde(rename = "nested")]
    Nested,
}

/// How the text of a folder's name is written to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Encoding {
    /// As it is.
    #[serde(rename = "utf-8")]
    Utf8,
    /// IMAP's modified UTF-7, RFC 3501 §5.1.3.
    #[serde(rename = "utf-7")]
    Utf7,
}

/// Where INBOX keeps its `cur/`, `new/` and `tmp/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inbox {
    /// In the root itself; always so in Maildir++.
    Root,
    /// In the directory `INBOX`, when the root of a nested tree has no `cur/`.
    Subdirectory,
}

/// What the configuration says of a tree; what it leaves open is found by looking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Setting {
    /// The key `layout`.
    pub style: Option<Style>,
    /// The key `folder_names`.
    pub encoding: Option<Encoding>,
}

/// The mapping between the directories of one replica and its folders' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// How folders lie on disk.
    pub style: Style,
    /// How the text of their names is written.
    pub encoding: Encoding,
    /// Where INBOX is; of no effect in Maildir++.
    pub inbox: Inbox,
}

/// Why a directory has no folder name, or a folder name no directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Misfit {
    /// The reason, for people.
    pub why: String,
}

/// A folder that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name on the wire.
    pub name: FolderName,
    /// Its directory below the root; empty for the root itself.
    pub dir: Vec<u8>,
}

/// What [`discover`] saw; every list is sorted by directory, and no name occurs twice.
#[derive(Debug, Default)]
pub struct Discovery {
    /// The folders, INBOX among them.
    pub folders: Vec<Found>,
    /// Directories with mail, and links to such, that have no name; with the reason, for people.
    pub misfits: Vec<(Vec<u8>, String)>,
    /// What could not be read: it is unknown, not absent.
    pub errors: Vec<(PathBuf, io::Error)>,
}

impl Style {
    /// The word of the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Style::MaildirPlusPlus => "maildir++",
            Style::Nested => "nested",
        }
    }

    /// What stands between the parts of a name on disk.
    fn separator(self) -> u8 {
        match self {
            Style::MaildirPlusPlus => b'.',
            Style::Nested => b'/',
        }
    }
}

impl Encoding {
    /// The word of the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Encoding::Utf8 => "utf-8",
            Encoding::Utf7 => "utf-7",
        }
    }
}

impl Misfit {
    fn new(why: impl Into<String>) -> Misfit {
        Misfit { why: why.into() }
    }

    /// Names the part that is at fault, as people may see it.
    fn of_part(part: &[u8], why: &str) -> Misfit {
        Misfit::new(format!("Its part \"{}\" {why}", escape(part)))
    }
}

impl Layout {
    /// Finds the layout of a tree.
    ///
    /// The same tree always gives the same answer, in whatever order its directories are listed. But a tree that
    /// changes may come to look otherwise, so who remembers an answer passes it as the setting, which also saves the
    /// walk.
    ///
    /// - Maildir++ if the root holds any `.X` with mail in it. Else nested if any plain directory, however deep, holds
    ///   mail. Else Maildir++, what mail servers make.
    /// - UTF-8 if any folder's name has a part in it that is UTF-8 and not ASCII: there every name has its place, while
    ///   a tree of modified UTF-7 has none for that one. Else modified UTF-7 if any part is written in it. Else a stray
    ///   `&`, which modified UTF-7 never leaves, means UTF-8. Else no name depends on it yet: what Dovecot and Courier
    ///   write to Maildir++, and what programs that know nothing of IMAP make in a nested tree.
    ///
    /// # Errors
    /// When the root cannot be listed, or when no folder was found and a directory could not be read: a nested tree
    /// that cannot be seen is not taken for an empty one of Maildir++.
    pub fn detect(root: &Path, setting: Setting) -> io::Result<Layout> {
        check_root(root)?;
        let (style, survey) = match setting {
            Setting {
                style: Some(style),
                encoding: Some(_),
            } => (style, Survey::default()),
            Setting {
                style: Some(style),
                encoding: None,
            } => (style, Survey::of(root, style)?),
            Setting { style: None, .. } => find_style(root)?,
        };
        let encoding = setting
            .encoding
            .unwrap_or_else(|| find_encoding(style, &survey.dirs(root)));
        let inbox = match style {
            Style::MaildirPlusPlus => Inbox::Root,
            Style::Nested => find_inbox(root)?,
        };
        Ok(Layout {
            style,
            encoding,
            inbox,
        })
    }

    /// The folder name of a directory, given by its path below the root.
    ///
    /// # Errors
    /// When the directory has no name from which [`Layout::dir`] would find it again.
    pub fn name(&self, dir: &[u8]) -> Result<FolderName, Misfit> {
        let name = self.read(dir)?;
        // The rules for parts stand in `write` alone; comparing makes the mapping one-to-one whatever they are.
        if self.write(&name)? == dir {
            Ok(name)
        } else {
            Err(Misfit::new("Another directory has the same name"))
        }
    }

    /// The directory of a folder, as its path below the root; empty for the root itself.
    ///
    /// # Errors
    /// When this layout has no directory from which [`Layout::name`] would read that name again.
    pub fn dir(&self, name: &FolderName) -> Result<Vec<u8>, Misfit> {
        let dir = self.write(name)?;
        if self.read(&dir)? == *name {
            Ok(dir)
        } else {
            Err(Misfit::new("Another folder has the same directory"))
        }
    }

    /// Where INBOX is.
    fn inbox_dir(&self) -> &'static [u8] {
        match (self.style, self.inbox) {
            (Style::MaildirPlusPlus, _) | (Style::Nested, Inbox::Root) => b"",
            (Style::Nested, Inbox::Subdirectory) => b"INBOX",
        }
    }

    /// Takes a path apart and decodes it, without asking whether its parts may be.
    fn read(&self, dir: &[u8]) -> Result<FolderName, Misfit> {
        if dir == self.inbox_dir() {
            return Ok(FolderName::inbox());
        }
        if dir.is_empty() {
            return Err(Misfit::new(
                "INBOX is the directory \"INBOX\" here, not the root",
            ));
        }
        let path = match self.style {
            Style::MaildirPlusPlus => dir
                .strip_prefix(b".")
                .ok_or_else(|| Misfit::new("A folder begins with a dot in Maildir++"))?,
            Style::Nested => dir,
        };
        let raw_parts: Vec<&[u8]> = path.split(|&byte| byte == self.style.separator()).collect();
        if raw_parts.contains(&&b""[..]) {
            return Err(Misfit::new(format!(
                "A part of it is empty, beside a \"{}\"",
                self.style.separator() as char
            )));
        }
        let parts: Result<Vec<_>, _> = raw_parts
            .into_iter()
            .map(|part| self.decode(part))
            .collect();
        let name =
            FolderName::new(&parts?.join(&b'/')).map_err(|error| Misfit::new(error.to_string()))?;
        if name.is_inbox() {
            return Err(Misfit::new(
                "Its name would be INBOX, which is the root itself",
            ));
        }
        Ok(name)
    }

    /// Encodes a name and puts its path together, if every part may stand there.
    fn write(&self, name: &FolderName) -> Result<Vec<u8>, Misfit> {
        if name.is_inbox() {
            return Ok(self.inbox_dir().to_vec());
        }
        let parts: Vec<Vec<u8>> = name.parts().map(|part| self.encode(part)).collect();
        let mut dir = parts.join(&self.style.separator());
        match self.style {
            Style::MaildirPlusPlus => {
                dir.insert(0, b'.');
                check_maildir_plus_plus(&parts, &dir)?;
            }
            Style::Nested => check_nested(&parts, &dir)?,
        }
        Ok(dir)
    }

    /// One part, from disk. What is no text in any encoding (raw Latin-1) is kept as the bytes it is.
    fn decode(&self, part: &[u8]) -> Result<Vec<u8>, Misfit> {
        if self.encoding == Encoding::Utf8 || str::from_utf8(part).is_err() {
            return Ok(part.to_vec());
        }
        // Kept verbatim, a part that is text but not canonical would be encoded on its way back: another directory.
        let why = if part.is_ascii() {
            "is not in canonical modified UTF-7 (RFC 3501), as the other folders here are"
        } else {
            "is in UTF-8, while folders here are named in modified UTF-7 (see folder_names)"
        };
        Ok(utf7::decode(part)
            .ok_or_else(|| Misfit::of_part(part, why))?
            .into_bytes())
    }

    /// One part, to disk.
    fn encode(&self, part: &[u8]) -> Vec<u8> {
        match (self.encoding, str::from_utf8(part)) {
            (Encoding::Utf7, Ok(text)) => utf7::encode(text),
            (Encoding::Utf7, Err(_)) | (Encoding::Utf8, _) => part.to_vec(),
        }
    }
}

/// Whether encoded parts can be a directory of Maildir++, whose name they make up together.
fn check_maildir_plus_plus(parts: &[Vec<u8>], dir: &[u8]) -> Result<(), Misfit> {
    if let Some(part) = parts.iter().find(|part| part.contains(&b'.')) {
        return Err(Misfit::of_part(
            part,
            "holds a dot, which separates parts in Maildir++",
        ));
    }
    if dir.len() > NAME_BYTES_MAX {
        return Err(Misfit::new(format!(
            "Its directory's name would be over {NAME_BYTES_MAX} bytes long"
        )));
    }
    if dir == b".notmuch" {
        return Err(Misfit::new(
            "The directory \".notmuch\" is where notmuch keeps its database",
        ));
    }
    Ok(())
}

/// Whether encoded parts can be directories in each other, beside `cur`, `new` and `tmp` and dot-files.
fn check_nested(parts: &[Vec<u8>], dir: &[u8]) -> Result<(), Misfit> {
    for part in parts {
        if is_reserved(part) {
            return Err(Misfit::of_part(
                part,
                "is where a folder keeps its messages",
            ));
        }
        if part.starts_with(b".") {
            return Err(Misfit::of_part(
                part,
                "begins with a dot, and dot-files are no folders in a nested tree",
            ));
        }
        if part.len() > NAME_BYTES_MAX {
            return Err(Misfit::of_part(
                part,
                &format!("would be over {NAME_BYTES_MAX} bytes long"),
            ));
        }
    }
    if parts.len() > DEPTH_MAX {
        return Err(Misfit::new(format!("It is over {DEPTH_MAX} levels deep")));
    }
    if dir.len() > FOLDER_BYTES_MAX {
        return Err(Misfit::new(format!(
            "Its path would be over {FOLDER_BYTES_MAX} bytes long"
        )));
    }
    Ok(())
}

/// Whether a directory of this name is part of a folder instead of one.
fn is_reserved(name: &[u8]) -> bool {
    matches!(name, b"cur" | b"new" | b"tmp")
}

#[cfg(test)]
mod tests;
