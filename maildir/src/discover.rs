//! Which directories below the root are folders.
//!
//! One walk through the held root. A directory is a folder if it holds a `cur` or a `new`, in whatever style it was made;
//! that alone distinguishes mail from what indexers and servers keep beside it. No link is followed but those that were
//! resolved before ([`follow_links`]). Must never know what a
//! folder's name means to people, and never writes.

use std::collections::HashMap;
use std::io;

use protocol::FolderDir;
use rustix::fs::FileType;

use crate::marker::MARKER_NAME;
use crate::path::join;
use crate::root::{Listed, Root};
use crate::stamp::DirStamp;

/// How many levels of directories a tree may have; deeper ones are left alone, so a walk always ends.
pub(crate) const DEPTH_MAX: usize = 64;

/// A folder that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundFolder {
    /// Its directory below the root; empty for the root itself.
    pub(crate) dir: Vec<u8>,
    /// What its directory looked like if nothing in it leads to further folders; else nothing.
    pub(crate) leaf: DirStamp,
}

/// What [`discover`] saw; every list is sorted by directory.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    pub(crate) folders: Vec<FoundFolder>,
    /// Every directory that was looked into: there, a folder may be made.
    pub(crate) entered: Vec<Vec<u8>>,
    /// What may be a folder and is not looked into, with the reason, for people.
    pub(crate) unusable: Vec<(Vec<u8>, String)>,
    /// Links that lead to what may be folders, or are in place of a folder's `cur` or `new`.
    pub(crate) links: Vec<Vec<u8>>,
    /// What could not be read: it is unknown, not absent.
    pub(crate) errors: Vec<(Vec<u8>, io::Error)>,
}

const LINK: &str = "Symbolic links are not followed without follow_links (the agent's option --follow-links), nor into this Maildir";
const LINKED: &str = "Its cur or new is a symbolic link, and those are not followed without follow_links (the agent's option --follow-links)";
const OURS: &str = "Names that begin with .maildir-sync are no folder's; rename it";
const DEEP: &str = "It is over 64 levels deep";

/// Lists the folders of a tree. `known` holds directories in which nothing led to further folders, as they looked then:
/// while one looks the same, it is not listed again.
pub(crate) fn discover(root: &Root, known: &HashMap<&[u8], DirStamp>) -> Discovery {
    let mut walk = Walk {
        root,
        known,
        waiting: vec![Vec::new()],
        seen: Discovery::default(),
    };
    while let Some(dir) = walk.waiting.pop() {
        if let Err(error) = walk.enter(&dir) {
            walk.seen.errors.push((dir, error));
        }
    }
    let mut seen = walk.seen;
    seen.folders.sort_by(|left, right| left.dir.cmp(&right.dir));
    seen.entered.sort();
    seen.unusable.sort();
    seen.links.sort();
    seen.errors.sort_by(|(left, _), (right, _)| left.cmp(right));
    seen
}

/// Follows the links behind which there may be folders, once and for all that is done with this root.
///
/// # Errors
/// When the root's own path cannot be resolved.
pub(crate) fn follow_links(root: &mut Root) -> io::Result<()> {
    // A followed directory may hold further links.
    for _ in 0..DEPTH_MAX {
        let links = discover(root, &HashMap::new()).links;
        if !root.follow(&links)? {
            break;
        }
    }
    Ok(())
}

/// Why a directory cannot be a folder's, whatever the tree.
///
/// # Errors
/// With the reason, for people.
pub fn check_dir(dir: &FolderDir) -> Result<(), &'static str> {
    let mut levels = dir.as_bytes().split(|&byte| byte == b'/');
    if levels.any(is_reserved) {
        return Err("cur, new and tmp are where a folder keeps its messages");
    }
    let mut levels = dir.as_bytes().split(|&byte| byte == b'/');
    if levels.any(|level| level == b".notmuch") {
        return Err(".notmuch is where notmuch keeps its database");
    }
    let mut levels = dir.as_bytes().split(|&byte| byte == b'/');
    if levels.any(is_ours) {
        return Err(OURS);
    }
    if dir.depth() > DEPTH_MAX {
        return Err(DEEP);
    }
    Ok(())
}

struct Walk<'a> {
    root: &'a Root,
    known: &'a HashMap<&'a [u8], DirStamp>,
    waiting: Vec<Vec<u8>>,
    seen: Discovery,
}

/// What the names in one directory say of it.
#[derive(Default)]
struct Inside {
    is_folder: bool,
    is_linked: bool,
    /// Whether anything may lead to further folders.
    leads_on: bool,
}

impl Walk<'_> {
    /// Looks at one directory, and puts those in it on the list.
    fn enter(&mut self, dir: &[u8]) -> io::Result<()> {
        // Before it is listed: a name that comes meanwhile moves the stamp.
        let stamp = self.root.dir_stamp(dir)?;
        self.seen.entered.push(dir.to_vec());
        if self.known.get(dir) == Some(&stamp) {
            let (dir, leaf) = (dir.to_vec(), stamp);
            self.seen.folders.push(FoundFolder { dir, leaf });
            return Ok(());
        }
        let mut inside = Inside::default();
        for listed in self.root.list(dir)? {
            self.meet(dir, listed, &mut inside)?;
        }
        if inside.is_folder {
            let leaf = match inside.leads_on {
                true => DirStamp::default(),
                false => stamp,
            };
            let dir = dir.to_vec();
            self.seen.folders.push(FoundFolder { dir, leaf });
        } else if inside.is_linked {
            self.seen.unusable.push((dir.to_vec(), LINKED.into()));
        }
        Ok(())
    }

    fn meet(&mut self, dir: &[u8], listed: Listed, inside: &mut Inside) -> io::Result<()> {
        let Listed { name, kind, .. } = listed;
        let path = join(dir, &[&name]);
        let kind = match kind {
            // Some file systems do not say in a listing.
            FileType::Unknown => self.root.kind(&path)?,
            kind => kind,
        };
        match (&name[..], kind) {
            (b"cur" | b"new", FileType::Directory) => inside.is_folder = true,
            (_, FileType::Symlink) if self.root.is_followed(&path) => match &name[..] {
                b"cur" | b"new" => inside.is_folder = true,
                _ => {
                    inside.leads_on = true;
                    self.wait_for(path);
                }
            },
            (b"cur" | b"new", FileType::Symlink) => {
                inside.is_linked = true;
                self.seen.links.push(path);
            }
            (name, _) if is_never_looked_into(name) => {}
            (name, FileType::Directory) if is_ours(name) => {
                let hides_mail = self.root.holds_mail(&path);
                self.seen
                    .unusable
                    .extend(hides_mail.then(|| (path, OURS.into())));
            }
            (_, FileType::Directory) => {
                inside.leads_on = true;
                self.wait_for(path);
            }
            (name, FileType::Symlink) if may_hide_folder(self.root, name, &path) => {
                inside.leads_on = true;
                self.seen.links.push(path.clone());
                self.seen.unusable.push((path, LINK.into()));
            }
            _ => {}
        }
        Ok(())
    }

    fn wait_for(&mut self, dir: Vec<u8>) {
        let is_too_deep = dir.iter().filter(|&&byte| byte == b'/').count() >= DEPTH_MAX;
        if is_too_deep || FolderDir::new(&dir).is_err() {
            self.seen.unusable.push((dir, DEEP.into()));
        } else {
            self.waiting.push(dir);
        }
    }
}

/// Whether nothing of this name leads to folders, whatever it holds.
pub(crate) fn is_never_looked_into(name: &[u8]) -> bool {
    matches!(name, b"tmp" | b".notmuch")
}

/// Whether a directory of this name is part of a folder instead of one.
fn is_reserved(name: &[u8]) -> bool {
    matches!(name, b"cur" | b"new" | b"tmp")
}

pub(crate) fn is_ours(name: &[u8]) -> bool {
    name.starts_with(MARKER_NAME.as_bytes())
}

/// A link into nothing may be a folder on a disk that is not mounted; one to a file is somebody's own, and so is one to a
/// directory in which, and in whose directories, there is no mail. Editors lock files by links into nothing.
fn may_hide_folder(root: &Root, name: &[u8], link: &[u8]) -> bool {
    match root.holds_mail_behind(link) {
        Some(holds_mail) => holds_mail,
        None => !name.starts_with(b".#"),
    }
}

#[cfg(test)]
mod tests;
