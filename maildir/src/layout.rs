//! How the directory names of one replica map to folder names, and which directories are folders.
//!
//! Owns the two layouts (Maildir++ and nested), the two encodings of names, finding out which of them a tree uses, and
//! the list of its folders. The mapping is one-to-one: a directory or a name that would not come back as it was is a
//! [`Misfit`], left alone and reported. Must never know what the other replica's layout is, and never writes. The
//! encoding itself is in `crate::utf7`; what lies inside a folder is the scan's.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fs, io, str};

use protocol::FolderName;
use protocol::bytes::escape;
use protocol::folder::FOLDER_BYTES_MAX;
use protocol::name::NAME_BYTES_MAX;
use walkdir::WalkDir;

use crate::utf7;

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

/// Lists the folders of a tree. Symbolic links are never followed; the root itself may be one.
///
/// A directory is a folder if it holds `cur` or `new` as a real directory. That alone tells mail from the directories
/// that indexers and servers keep beside it: a list of names would hide the folder of the mailing list `dovecot`.
#[must_use]
pub fn discover(root: &Path, layout: &Layout) -> Discovery {
    let survey = match Survey::of(root, layout.style) {
        Ok(survey) => survey,
        Err(error) => {
            return Discovery {
                errors: vec![(root.to_path_buf(), error)],
                ..Discovery::default()
            };
        }
    };
    let Survey {
        folders,
        misfits,
        mut errors,
    } = survey;
    let mut discovery = Discovery {
        misfits,
        ..Discovery::default()
    };
    for dir in folders {
        match layout.name(&dir) {
            Ok(name) => discovery.folders.push(Found { name, dir }),
            Err(misfit) => discovery.misfits.push((dir, misfit.why)),
        }
    }
    discovery.misfits.sort();
    errors.sort_by(|(left, _), (right, _)| left.cmp(right));
    discovery.errors = errors;
    discovery
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

/// Refuses a root that is missing or no directory; it may be a link to one.
fn check_root(root: &Path) -> io::Result<()> {
    if fs::metadata(root)?.is_dir() {
        Ok(())
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

/// The style under which the tree has folders beside INBOX, and what was seen of them.
fn find_style(root: &Path) -> io::Result<(Style, Survey)> {
    let flat = Survey::of(root, Style::MaildirPlusPlus)?;
    if flat.has_folders() {
        return Ok((Style::MaildirPlusPlus, flat));
    }
    let nested = Survey::of(root, Style::Nested)?;
    if nested.has_folders() {
        return Ok((Style::Nested, nested));
    }
    match nested.errors.into_iter().next() {
        Some((path, error)) => {
            let path = escape(bytes_of(&path));
            Err(io::Error::new(
                error.kind(),
                format!("{path}: {error}; the key layout would tell without looking"),
            ))
        }
        None => Ok((Style::MaildirPlusPlus, flat)),
    }
}

/// The encoding that the folders' names speak for; [`Layout::detect`] has the rules.
fn find_encoding(style: Style, dirs: &[Vec<u8>]) -> Encoding {
    let (mut is_utf7, mut is_stray) = (false, false);
    for part in dirs
        .iter()
        .flat_map(|dir| dir.split(|&byte| byte == style.separator()))
    {
        if !part.is_ascii() && str::from_utf8(part).is_ok() {
            return Encoding::Utf8;
        }
        if part.is_ascii() && part.contains(&b'&') {
            match utf7::decode(part) {
                Some(_) => is_utf7 = true,
                None => is_stray = true,
            }
        }
    }
    match style {
        _ if is_utf7 => Encoding::Utf7,
        Style::MaildirPlusPlus if !is_stray => Encoding::Utf7,
        Style::MaildirPlusPlus | Style::Nested => Encoding::Utf8,
    }
}

/// A linked `cur` counts: INBOX is meant to be there, and is then reported instead of looked for elsewhere.
fn find_inbox(root: &Path) -> io::Result<Inbox> {
    match fs::symlink_metadata(root.join("cur")) {
        Ok(metadata) if !metadata.is_file() => Ok(Inbox::Root),
        Ok(_) => Ok(Inbox::Subdirectory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Inbox::Subdirectory),
        Err(error) => Err(error),
    }
}

/// What a tree holds under one style, before anything is named.
#[derive(Default)]
struct Survey {
    folders: BTreeSet<Vec<u8>>,
    misfits: Vec<(Vec<u8>, String)>,
    errors: Vec<(PathBuf, io::Error)>,
}

/// What a directory is, judged by what it holds.
enum Kind {
    Folder,
    /// Its messages are behind a symbolic link.
    Linked,
    Other,
}

const LINK: &str = "Symbolic links are not followed";
const LINKED: &str = "Its cur or new is a symbolic link, and those are not followed";

impl Survey {
    /// Looks at everything below the root that may be a folder; an error only if the root itself cannot be listed.
    fn of(root: &Path, style: Style) -> io::Result<Survey> {
        let mut survey = Survey::default();
        match style {
            Style::MaildirPlusPlus => survey.look_beside(root)?,
            Style::Nested => survey.walk(root)?,
        }
        Ok(survey)
    }

    /// Whether there is any folder beside the root's own.
    fn has_folders(&self) -> bool {
        self.folders.iter().any(|dir| !dir.is_empty())
    }

    /// The directories whose names count; also of folders that cannot be read today.
    fn dirs(&self, root: &Path) -> Vec<Vec<u8>> {
        let unread = self.errors.iter().map(|(path, _)| below(root, path));
        self.folders.iter().cloned().chain(unread).collect()
    }

    /// Maildir++: every folder lies in the root. walkdir opens each directory that it meets, also those it is told to
    /// leave, which made this three times as slow (205 folders: 1.7 ms against 0.5 ms).
    fn look_beside(&mut self, root: &Path) -> io::Result<()> {
        self.look(root, Vec::new());
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let dir = entry.file_name().as_bytes().to_vec();
            if !dir.starts_with(b".") {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.look(&entry.path(), dir),
                Ok(kind) if kind.is_symlink() && may_hide_folder(&entry.path()) => {
                    self.misfits.push((dir, LINK.into()))
                }
                Ok(_) => {}
                Err(error) => self.errors.push((entry.path(), error)),
            }
        }
        Ok(())
    }

    /// Judges one directory by itself.
    fn look(&mut self, path: &Path, dir: Vec<u8>) {
        match kind_of(path) {
            Ok(Kind::Folder) => {
                self.folders.insert(dir);
            }
            Ok(Kind::Linked) => self.misfits.push((dir, LINKED.into())),
            Ok(Kind::Other) => {}
            Err(error) => self.errors.push((path.to_path_buf(), error)),
        }
    }

    /// Nested: directories are read down to their folders, which are known by their `cur` without a stat.
    fn walk(&mut self, root: &Path) -> io::Result<()> {
        // walkdir would show a root that is a file as a tree without entries.
        check_root(root)?;
        let mut linked = BTreeSet::new();
        let mut walk = WalkDir::new(root)
            .min_depth(1)
            .max_depth(DEPTH_MAX + 1)
            .into_iter();
        while let Some(entry) = walk.next() {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => {
                    if !self.enter(root, &entry) {
                        walk.skip_current_dir();
                    }
                }
                Ok(entry) if entry.file_type().is_symlink() => {
                    self.meet_link(root, &entry, &mut linked)
                }
                Ok(_) => {}
                // walkdir does not say in which directory a listing broke off, so it may have been anywhere.
                Err(error) => {
                    let path = error.path().unwrap_or(root).to_path_buf();
                    self.errors.push((
                        path,
                        error
                            .into_io_error()
                            .unwrap_or_else(|| io::ErrorKind::Other.into()),
                    ));
                }
            }
        }
        linked.retain(|dir| !self.folders.contains(dir));
        self.misfits
            .extend(linked.into_iter().map(|dir| (dir, LINKED.into())));
        Ok(())
    }

    /// Takes note of a directory; whether there may be folders in it.
    fn enter(&mut self, root: &Path, entry: &walkdir::DirEntry) -> bool {
        let name = entry.file_name().as_bytes();
        if matches!(name, b"cur" | b"new") {
            self.folders.insert(parent_below(root, entry.path()));
        }
        if is_reserved(name) || name.starts_with(b".") {
            return false;
        }
        if entry.depth() > DEPTH_MAX {
            self.misfits.push((
                below(root, entry.path()),
                format!("It is over {DEPTH_MAX} levels deep"),
            ));
            return false;
        }
        true
    }

    /// Takes note of a link that stands where a folder, or the messages of one, could.
    fn meet_link(
        &mut self,
        root: &Path,
        entry: &walkdir::DirEntry,
        linked: &mut BTreeSet<Vec<u8>>,
    ) {
        match entry.file_name().as_bytes() {
            b"cur" | b"new" => {
                linked.insert(parent_below(root, entry.path()));
            }
            name if is_reserved(name) || name.starts_with(b".") => {}
            _ if fs::metadata(entry.path()).is_ok_and(|target| target.is_dir()) => {
                self.misfits.push((below(root, entry.path()), LINK.into()));
            }
            _ => {}
        }
    }
}

/// Looks for `cur`, and for `new` only where `cur` is missing: one stat for most folders.
fn kind_of(path: &Path) -> io::Result<Kind> {
    let mut is_linked = false;
    for name in ["cur", "new"] {
        match fs::symlink_metadata(path.join(name)) {
            Ok(metadata) if metadata.is_dir() => return Ok(Kind::Folder),
            Ok(metadata) => is_linked |= metadata.is_symlink(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if is_linked {
        return Ok(Kind::Linked);
    }
    // What vanished since it was listed may have been renamed to where the listing had been: unknown, not without mail.
    fs::symlink_metadata(path).map(|_| Kind::Other)
}

/// A link into nothing may be a folder on a disk that is not mounted; one to a file is somebody's dot-file, and one to
/// a directory without mail an indexer's.
fn may_hide_folder(link: &Path) -> bool {
    match fs::metadata(link) {
        Ok(target) => target.is_dir() && !matches!(kind_of(link), Ok(Kind::Other)),
        Err(_) => true,
    }
}

/// A path without the root, as bytes.
fn below(root: &Path, path: &Path) -> Vec<u8> {
    bytes_of(path.strip_prefix(root).unwrap_or(path)).to_vec()
}

/// The directory in which a path lies, without the root.
fn parent_below(root: &Path, path: &Path) -> Vec<u8> {
    below(root, path.parent().unwrap_or(root))
}

fn bytes_of(path: &Path) -> &[u8] {
    OsStr::as_bytes(path.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    const UTF8: Encoding = Encoding::Utf8;
    const UTF7: Encoding = Encoding::Utf7;

    fn flat(encoding: Encoding) -> Layout {
        Layout {
            style: Style::MaildirPlusPlus,
            encoding,
            inbox: Inbox::Root,
        }
    }

    fn nested(encoding: Encoding, inbox: Inbox) -> Layout {
        Layout {
            style: Style::Nested,
            encoding,
            inbox,
        }
    }

    fn folder(name: &[u8]) -> FolderName {
        FolderName::new(name).expect("the test's names are valid")
    }

    /// A temporary root with these directories in it.
    fn tree(dirs: &[&str]) -> TempDir {
        let root = TempDir::new().expect("a temporary directory");
        for dir in dirs {
            make(&root, dir);
        }
        root
    }

    fn make(root: &TempDir, dir: &str) {
        fs::create_dir_all(root.path().join(dir)).expect("a directory");
    }

    fn link(root: &TempDir, target: &str, link: &str) {
        symlink(target, root.path().join(link)).expect("a link");
    }

    fn detect(root: &TempDir) -> Layout {
        Layout::detect(root.path(), Setting::default()).expect("the tree is readable")
    }

    /// Names and reasons of what is found, as text.
    fn found(root: &TempDir, layout: &Layout) -> (Vec<String>, Vec<String>) {
        let discovery = discover(root.path(), layout);
        assert!(discovery.errors.is_empty(), "{:?}", discovery.errors);
        assert!(
            discovery
                .folders
                .is_sorted_by(|left, right| left.dir < right.dir)
        );
        let names = discovery
            .folders
            .iter()
            .map(|found| found.name.to_string())
            .collect();
        (
            names,
            discovery
                .misfits
                .iter()
                .map(|(dir, why)| format!("{}: {why}", escape(dir)))
                .collect(),
        )
    }

    #[test]
    fn valid_names_map_both_ways() {
        let root = nested(UTF8, Inbox::Root);
        let below = nested(UTF8, Inbox::Subdirectory);
        let long = format!(".{}", "x".repeat(254));
        for (layout, dir, name) in [
            (flat(UTF8), &b""[..], &b"INBOX"[..]),
            (flat(UTF8), b".Lists.debian", b"Lists/debian"),
            (flat(UTF8), b".cur", b"cur"),
            (flat(UTF8), b".Lists.new", b"Lists/new"),
            (flat(UTF8), b".INBOX.Sub", b"INBOX/Sub"),
            (flat(UTF8), b".Inbox", b"Inbox"),
            (flat(UTF8), b".Lists.INBOX", b"Lists/INBOX"),
            (flat(UTF8), b".[Gmail].All Mail", b"[Gmail]/All Mail"),
            (flat(UTF8), b".100% *?`id`$(id)", b"100% *?`id`$(id)"),
            (flat(UTF8), b".trailing space ", b"trailing space "),
            (flat(UTF8), b".~tilde", b"~tilde"),
            (flat(UTF8), b".a\nb\\", b"a\nb\\"),
            (flat(UTF8), b".A&B", b"A&B"),
            (flat(UTF8), b".Entw&APw-rfe", b"Entw&APw-rfe"),
            (flat(UTF8), b".Entw\xc3\xbcrfe", b"Entw\xc3\xbcrfe"),
            (flat(UTF8), b".Entwu\xcc\x88rfe", b"Entwu\xcc\x88rfe"),
            (flat(UTF8), b".Entw\xfcrfe", b"Entw\xfcrfe"),
            (flat(UTF8), b".dovecot", b"dovecot"),
            (flat(UTF8), b".notmuch.patches", b"notmuch/patches"),
            (flat(UTF8), long.as_bytes(), &long.as_bytes()[1..]),
            (flat(UTF7), b"", b"INBOX"),
            (flat(UTF7), b".A&-B", b"A&B"),
            (flat(UTF7), b".Entw&APw-rfe", b"Entw\xc3\xbcrfe"),
            (flat(UTF7), b".Entwu&Awg-rfe", b"Entwu\xcc\x88rfe"),
            (flat(UTF7), b".Entw&-APw-rfe", b"Entw&APw-rfe"),
            (
                flat(UTF7),
                b".Entw\xfcrfe.Entw&APw-rfe",
                b"Entw\xfcrfe/Entw\xc3\xbcrfe",
            ),
            (flat(UTF7), b".\xff&APw-", b"\xff&APw-"),
            (
                flat(UTF7),
                b".&U,BTFw-.&ZeVnLIqe-",
                "\u{53f0}\u{5317}/\u{65e5}\u{672c}\u{8a9e}".as_bytes(),
            ),
            (root, b"", b"INBOX"),
            (root, b"INBOX/Sub", b"INBOX/Sub"),
            (root, b"inbox", b"inbox"),
            (root, b"Lists/dev.tools", b"Lists/dev.tools"),
            (root, b"Lists/dovecot", b"Lists/dovecot"),
            (root, b"trailing.", b"trailing."),
            (root, b"notmuch", b"notmuch"),
            (below, b"INBOX", b"INBOX"),
            (below, b"INBOX/Sub", b"INBOX/Sub"),
            (below, b"Lists", b"Lists"),
            (
                nested(UTF7, Inbox::Root),
                b"Lists/Entw&APw-rfe",
                b"Lists/Entw\xc3\xbcrfe",
            ),
        ] {
            assert_eq!(
                layout.name(dir),
                Ok(folder(name)),
                "{layout:?} {}",
                escape(dir)
            );
            assert_eq!(
                layout.dir(&folder(name)),
                Ok(dir.to_vec()),
                "{layout:?} {}",
                escape(name)
            );
        }
    }

    #[test]
    fn directories_without_a_name_are_misfits() {
        let root = nested(UTF8, Inbox::Root);
        let deep = ["d"; DEPTH_MAX + 1].join("/");
        let wide = format!(".{}", utf7::encode(&"\u{65e5}".repeat(90)).escape_ascii());
        for (layout, dir, why) in [
            (flat(UTF8), &b".INBOX"[..], "would be INBOX"),
            (flat(UTF8), b"Lists", "begins with a dot"),
            (flat(UTF8), b".", "empty"),
            (flat(UTF8), b"..", "empty"),
            (flat(UTF8), b"...dots", "empty"),
            (flat(UTF8), b".a..b", "empty"),
            (flat(UTF8), b".trailing.", "empty"),
            (flat(UTF8), b".a/b", "same name"),
            (flat(UTF8), b".a\0b", "NUL"),
            (flat(UTF8), b".notmuch", "database"),
            (flat(UTF7), b".Entw\xc3\xbcrfe", "is in UTF-8"),
            (flat(UTF7), b".A&B", "canonical"),
            (flat(UTF7), b".&AGE-", "canonical"),
            (flat(UTF7), b".a&AC8-b", "canonical"),
            (flat(UTF7), b".&AAA-", "NUL"),
            (flat(UTF7), wide.as_bytes(), "over 255 bytes"),
            (root, b"INBOX", "would be INBOX"),
            (root, b"Lists/cur", "\"cur\" is where"),
            (root, b"new", "\"new\" is where"),
            (root, b"tmp/Sub", "\"tmp\" is where"),
            (root, b".Lists", "begins with a dot"),
            (root, b"Lists/.git", "begins with a dot"),
            (root, b"a/../b", "\"..\""),
            (root, b"/a", "empty"),
            (root, deep.as_bytes(), "levels deep"),
            (nested(UTF8, Inbox::Subdirectory), b"", "not the root"),
        ] {
            let misfit = layout.name(dir).expect_err("it has no name");
            assert!(
                misfit.why.contains(why),
                "{layout:?} {}: {}",
                escape(dir),
                misfit.why
            );
        }
    }

    #[test]
    fn names_without_a_directory_are_misfits() {
        let root = nested(UTF8, Inbox::Root);
        let (long, wide) = ("x".repeat(255), "\u{e9}x".repeat(80));
        let (deep, far) = (
            ["d"; DEPTH_MAX + 1].join("/"),
            vec!["\u{e9}x".repeat(30); 39].join("/"),
        );
        for (layout, name, why) in [
            (flat(UTF8), "Lists/dev.tools", "\"dev.tools\" holds a dot"),
            (flat(UTF7), "trailing.", "holds a dot"),
            (flat(UTF7), ".hidden", "holds a dot"),
            (flat(UTF8), "notmuch", "database"),
            (flat(UTF8), &long, "over 255 bytes"),
            (flat(UTF7), &wide, "over 255 bytes"),
            (root, "cur", "is where"),
            (root, "Lists/tmp", "is where"),
            (root, ".hidden", "begins with a dot"),
            (root, &deep, "levels deep"),
            (nested(UTF7, Inbox::Root), &wide, "over 255 bytes"),
            (nested(UTF7, Inbox::Root), &far, "path would be over"),
        ] {
            let misfit = layout
                .dir(&folder(name.as_bytes()))
                .expect_err("it has no directory");
            assert!(
                misfit.why.contains(why),
                "{layout:?} {name}: {}",
                misfit.why
            );
        }
        assert_eq!(root.dir(&folder(long.as_bytes())), Ok(long.into_bytes()));
        assert_eq!(root.dir(&folder(far.as_bytes())), Ok(far.into_bytes()));
    }

    #[test]
    fn reasons_show_no_control_characters() {
        let why = nested(UTF8, Inbox::Root)
            .name(b".a\x1b[31m\n")
            .expect_err("a dot-file")
            .why;
        assert!(why.contains("\".a\\x1b[31m\\x0a\""), "{why}");
    }

    #[test]
    fn the_style_is_found_by_looking() {
        let style = |dirs: &[&str]| detect(&tree(dirs)).style;
        assert_eq!(style(&[]), Style::MaildirPlusPlus);
        assert_eq!(style(&["cur", "new", "tmp"]), Style::MaildirPlusPlus);
        assert_eq!(style(&["cur", ".Sent/cur"]), Style::MaildirPlusPlus);
        assert_eq!(
            style(&["cur", ".Sent/cur", "Old/cur"]),
            Style::MaildirPlusPlus
        );
        assert_eq!(style(&["cur", "Sent/cur"]), Style::Nested);
        assert_eq!(
            style(&["cur", ".notmuch/xapian", "Lists/debian/devel/cur"]),
            Style::Nested
        );
        assert_eq!(style(&["INBOX/cur"]), Style::Nested);
        assert_eq!(
            style(&["cur/Sub/cur", ".notmuch/hooks", "sieve"]),
            Style::MaildirPlusPlus
        );
    }

    #[test]
    fn inbox_is_the_root_or_a_directory_of_that_name() {
        assert_eq!(detect(&tree(&["cur", "Sent/cur"])).inbox, Inbox::Root);
        assert_eq!(
            detect(&tree(&["INBOX/cur", "Sent/cur"])).inbox,
            Inbox::Subdirectory
        );
        assert_eq!(
            detect(&tree(&["INBOX/cur", ".Sent/cur"])).inbox,
            Inbox::Root
        );
        let linked = tree(&["Sent/cur", "elsewhere"]);
        link(&linked, "elsewhere", "cur");
        assert_eq!(detect(&linked).inbox, Inbox::Root);
        let file = tree(&["Sent/cur"]);
        fs::write(file.path().join("cur"), b"").expect("a file");
        assert_eq!(detect(&file).inbox, Inbox::Subdirectory);
    }

    #[test]
    fn the_encoding_is_found_by_looking() {
        let encoding = |dirs: &[&str]| detect(&tree(dirs)).encoding;
        assert_eq!(encoding(&[".Sent/cur"]), UTF7);
        assert_eq!(encoding(&["Sent/cur"]), UTF8);
        assert_eq!(encoding(&[".Entw&APw-rfe/cur", ".A&B/cur"]), UTF7);
        assert_eq!(encoding(&["Lists/R&-D/cur"]), UTF7);
        assert_eq!(encoding(&[".A&B/cur"]), UTF8);
        assert_eq!(encoding(&[".Entw\u{fc}rfe/new"]), UTF8);
        assert_eq!(
            encoding(&[".A&-B/cur", ".Entw\u{fc}rfe/cur", ".Entw&APw-rfe/cur"]),
            UTF8
        );
        assert_eq!(
            encoding(&[".Sent/cur", ".Entw\u{fc}rfe/something", "Entw\u{fc}rfe/cur"]),
            UTF7
        );
        let latin1 = tree(&[]);
        fs::create_dir_all(latin1.path().join(OsStr::from_bytes(b".Entw\xfcrfe/cur")))
            .expect("a directory");
        assert_eq!(detect(&latin1).encoding, UTF7);
    }

    #[test]
    fn a_setting_is_not_looked_for() {
        let root = tree(&["Entw\u{fc}rfe/cur"]);
        let set = |style, encoding| {
            Layout::detect(root.path(), Setting { style, encoding }).expect("a layout")
        };
        assert_eq!(set(Some(Style::MaildirPlusPlus), None), flat(UTF7));
        assert_eq!(
            set(Some(Style::Nested), None),
            nested(UTF8, Inbox::Subdirectory)
        );
        assert_eq!(set(None, Some(UTF7)), nested(UTF7, Inbox::Subdirectory));
        assert_eq!(set(Some(Style::MaildirPlusPlus), Some(UTF8)), flat(UTF8));
    }

    #[test]
    fn a_root_that_is_none_is_an_error() {
        let root = tree(&[]);
        fs::write(root.path().join("file"), b"").expect("a file");
        for (name, kind) in [
            ("file", io::ErrorKind::NotADirectory),
            ("gone", io::ErrorKind::NotFound),
        ] {
            let path = root.path().join(name);
            for style in [None, Some(Style::MaildirPlusPlus), Some(Style::Nested)] {
                for encoding in [None, Some(UTF8)] {
                    let error =
                        Layout::detect(&path, Setting { style, encoding }).expect_err("no tree");
                    assert_eq!(error.kind(), kind);
                }
            }
            for layout in [flat(UTF8), nested(UTF8, Inbox::Root)] {
                let discovery = discover(&path, &layout);
                assert!(
                    discovery.folders.is_empty() && discovery.errors.len() == 1,
                    "{discovery:?}"
                );
            }
        }
    }

    #[test]
    fn folders_of_maildir_plus_plus_are_found() {
        let root = tree(&[
            "cur",
            ".b/cur",
            ".b/new",
            ".NoCur/new",
            ".NoTmp/cur",
            ".a..b/cur",
            ".INBOX/cur",
            ".a.c/cur",
        ]);
        for dir in [
            ".notmuch/xapian",
            ".JustADirectory",
            ".OnlyTmp/tmp",
            "plain/cur",
            "cur/x/cur",
            ".CurIsAFile",
        ] {
            make(&root, dir);
        }
        for file in [".CurIsAFile/cur", "dovecot-uidlist", ".uidvalidity"] {
            fs::write(root.path().join(file), b"").expect("a file");
        }
        let (names, misfits) = found(&root, &detect(&root));
        assert_eq!(names, ["INBOX", "NoCur", "NoTmp", "a/c", "b"]);
        assert_eq!(misfits.len(), 2, "{misfits:?}");
        assert!(
            misfits[0].starts_with(".INBOX: ") && misfits[1].starts_with(".a..b: "),
            "{misfits:?}"
        );
    }

    #[test]
    fn nested_folders_are_found() {
        let root = tree(&[
            "INBOX/cur",
            "Lists/debian/cur",
            "Lists/dev.tools/new",
            "A/cur/deep/cur",
            "A/tmp/x/cur",
        ]);
        for dir in [
            ".notmuch/xapian",
            "A/.hidden/cur",
            "Empty/Emptier",
            "Only/tmp",
            "INBOX/Sub/cur",
            "INBOX/Sub/new",
        ] {
            make(&root, dir);
        }
        fs::write(root.path().join("Empty/cur"), b"").expect("a file");
        let (names, misfits) = found(&root, &detect(&root));
        assert_eq!(
            names,
            ["A", "INBOX", "INBOX/Sub", "Lists/debian", "Lists/dev.tools"]
        );
        assert_eq!(misfits, [""; 0]);

        make(&root, "cur");
        let (names, misfits) = found(&root, &detect(&root));
        assert_eq!(
            names,
            ["INBOX", "A", "INBOX/Sub", "Lists/debian", "Lists/dev.tools"]
        );
        assert_eq!(
            misfits,
            ["INBOX: Its name would be INBOX, which is the root itself"]
        );
    }

    #[test]
    fn links_are_reported_and_never_followed() {
        let root = tree(&[
            "cur",
            ".a/cur",
            ".Half/new",
            ".Linked",
            "elsewhere/cur",
            "database",
        ]);
        for (target, name) in [
            ("elsewhere", ".Elsewhere"),
            (".", ".Loop"),
            (".Self", ".Self"),
            ("gone", ".Dangling"),
            ("database", ".notmuch"),
            ("/dev/null", ".rc"),
            ("gone", "plain"),
            ("../elsewhere/cur", ".Linked/cur"),
            ("../elsewhere/cur", ".Half/cur"),
        ] {
            link(&root, target, name);
        }
        let (names, misfits) = found(&root, &flat(UTF8));
        assert_eq!(names, ["INBOX", "Half", "a"]);
        let expected = [
            (".Dangling", LINK),
            (".Elsewhere", LINK),
            (".Linked", LINKED),
            (".Loop", LINK),
            (".Self", LINK),
        ];
        assert_eq!(misfits, expected.map(|(dir, why)| format!("{dir}: {why}")));
    }

    #[test]
    fn links_in_a_nested_tree_are_reported_and_never_followed() {
        let root = tree(&["cur", "a/cur", "Half/new", "Linked", "Lists/x/cur"]);
        for (target, name) in [
            ("../a", "Lists/Link"),
            ("..", "Lists/Loop"),
            ("Self", "Self"),
            ("gone", "Dangling"),
            ("/dev/null", "null"),
            ("a", ".a"),
            ("../a/cur", "Linked/cur"),
            ("../a/cur", "Half/cur"),
            ("../a", "Lists/x/tmp"),
        ] {
            link(&root, target, name);
        }
        let (names, misfits) = found(&root, &nested(UTF8, Inbox::Root));
        assert_eq!(names, ["INBOX", "Half", "Lists/x", "a"]);
        let expected = [
            ("Linked", LINKED),
            ("Lists/Link", LINK),
            ("Lists/Loop", LINK),
        ];
        assert_eq!(misfits, expected.map(|(dir, why)| format!("{dir}: {why}")));
    }

    #[test]
    fn the_root_itself_may_be_a_link() {
        for (style, dir) in [(Style::MaildirPlusPlus, ".Sent"), (Style::Nested, "Sent")] {
            let root = tree(&["mail/cur", &format!("mail/{dir}/cur")]);
            link(&root, "mail", "link");
            let path = root.path().join("link");
            let layout = Layout::detect(&path, Setting::default()).expect("the tree is readable");
            assert_eq!(layout.style, style);
            let dirs: Vec<_> = discover(&path, &layout)
                .folders
                .into_iter()
                .map(|found| found.dir)
                .collect();
            assert_eq!(dirs, [b"", dir.as_bytes()]);
        }
    }

    #[test]
    fn a_walk_ends_at_its_deepest_level() {
        let deepest = ["d"; DEPTH_MAX].join("/");
        let root = tree(&[&format!("{deepest}/cur"), &format!("{deepest}/e/cur")]);
        let (names, misfits) = found(&root, &nested(UTF8, Inbox::Root));
        assert_eq!(
            misfits,
            [format!("{deepest}/e: It is over {DEPTH_MAX} levels deep")]
        );
        assert_eq!(names, [deepest]);
    }

    #[test]
    fn what_is_discovered_has_one_name_each_and_is_found_by_it() {
        let root = tree(&[
            "cur",
            ".A&B/cur",
            ".A&-B/cur",
            ".Entw\u{fc}rfe/cur",
            ".Entw&APw-rfe/cur",
            ".a/cur",
            ".A/cur",
        ]);
        for (encoding, misfit_count) in [(UTF8, 0), (UTF7, 2)] {
            let layout = flat(encoding);
            let Discovery {
                folders, misfits, ..
            } = discover(root.path(), &layout);
            let names: BTreeSet<_> = folders.iter().map(|found| found.name.clone()).collect();
            assert_eq!(
                (names.len(), misfits.len()),
                (7 - misfit_count, misfit_count)
            );
            assert_eq!(names.len(), folders.len());
            for found in folders {
                assert_eq!(layout.dir(&found.name), Ok(found.dir));
            }
        }
    }

    #[test]
    fn the_words_of_the_configuration_are_read_and_written() {
        for style in [Style::MaildirPlusPlus, Style::Nested] {
            assert_eq!(
                serde_json::from_value::<Style>(style.as_str().into()).ok(),
                Some(style)
            );
        }
        for encoding in [UTF8, UTF7] {
            assert_eq!(
                serde_json::from_value::<Encoding>(encoding.as_str().into()).ok(),
                Some(encoding)
            );
        }
    }

    fn layouts() -> impl Strategy<Value = Layout> {
        prop::sample::select(vec![
            flat(UTF8),
            flat(UTF7),
            nested(UTF8, Inbox::Root),
            nested(UTF7, Inbox::Root),
            nested(UTF8, Inbox::Subdirectory),
            nested(UTF7, Inbox::Subdirectory),
        ])
    }

    /// Bytes rich in what separates, shifts and is reserved.
    fn paths() -> impl Strategy<Value = Vec<u8>> {
        let words = [
            ".", "/", "&", "-", "&-", "&APw-", "&AC8-", "\u{fc}", "cur", "INBOX", "inbox", "a",
            "\n", "notmuch",
        ];
        let words = words
            .iter()
            .map(|word| word.as_bytes())
            .chain([&b"\xfc"[..]])
            .collect::<Vec<_>>();
        prop::collection::vec(prop::sample::select(words), 0..7).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_directory_with_a_name_is_found_by_it(layout in layouts(), dir in paths()) {
            if let Ok(name) = layout.name(&dir) {
                prop_assert_eq!(layout.dir(&name), Ok(dir));
            }
        }

        #[test]
        fn a_name_with_a_directory_is_read_from_it(layout in layouts(), path in paths()) {
            if let Ok(name) = FolderName::new(&path) && let Ok(dir) = layout.dir(&name) {
                prop_assert_eq!(layout.name(&dir), Ok(name));
            }
        }

        #[test]
        fn ordinary_names_have_a_place_everywhere(
            layout in layouts(),
            name in "[A-Z&\u{e9} ]{2,4}(/[a-z\u{fc}]{4,9}){0,3}",
        ) {
            let dir = layout.dir(&folder(name.as_bytes()));
            prop_assert!(dir.is_ok(), "{:?}", dir);
        }
    }
}
