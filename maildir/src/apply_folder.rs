//! Carrying out operations on folders.

use std::collections::BTreeSet;
use std::io;

use protocol::bytes::escape;
use protocol::{FolderDir, Outcome};
use rustix::fs::FileType;

use crate::apply::{Applier, Step, Stop, stale};
use crate::discover::check_dir;
use crate::index::FolderRow;
use crate::listing::{holds_mail, subdir};
use crate::root::{Listed, join, split_path};
use crate::stamp::DirStamp;
use crate::trash::Taken;

/// What a folder consists of.
pub(crate) const PARTS: [&[u8]; 3] = [b"tmp", b"new", b"cur"];
/// Files that servers and readers keep in a folder and make anew at need; they go with it.
const SERVER_FILES: &[&[u8]] = &[
    b"dovecot",
    b"maildirfolder",
    b"maildirsize",
    b"courier",
    b".uidvalidity",
    b".mbsyncstate",
    b".isyncuidmap",
    b"subscriptions",
];

impl Applier<'_> {
    /// Makes a folder; returns its number. One that is there may be a renamed one that the client knows elsewhere, so it is
    /// told first.
    pub(crate) fn make_folder(&mut self, dir: &FolderDir) -> Step<u64> {
        if let Some(row) = self.live_in(dir) {
            return match self.made.contains(&row.id) {
                true => Ok(u64::from(row.id)),
                false => stale(),
            };
        }
        check(dir)?;
        let dir = dir.as_bytes().to_vec();
        let levels: Vec<&[u8]> = dir
            .split(|&byte| byte == b'/')
            .filter(|level| !level.is_empty())
            .collect();
        for depth in 1..=levels.len() {
            self.root.make_dir(&join(b"", &levels[..depth]))?;
            self.dirty_dirs.insert(join(b"", &levels[..depth - 1]));
        }
        self.make_parts(&dir)?;
        self.put_new_folder(dir)
    }

    /// Makes what a folder consists of, as far as it is not there. A kill in between is put in order by `recover`.
    pub(crate) fn make_parts(&mut self, dir: &[u8]) -> io::Result<()> {
        for part in PARTS {
            self.root.make_dir(&join(dir, &[part]))?;
        }
        if FolderDir::new(dir).is_ok_and(|dir| is_maildir_plus_plus(&dir)) {
            // Made, never copied: Maildir++ tells a folder from an account by it.
            match self.root.create_file(&join(dir, &[b"maildirfolder"])) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        self.dirty_dirs.insert(dir.to_vec());
        Ok(())
    }

    fn live_in(&self, dir: &FolderDir) -> Option<&FolderRow> {
        let mut live = self.folders.iter().filter(|row| !row.gone);
        live.find(|row| row.dir == dir.as_bytes())
    }

    fn put_new_folder(&mut self, dir: Vec<u8>) -> Step<u64> {
        let identity = self.root.dir_identity(&dir)?;
        let known = self.folders.iter().find(|row| row.dir == dir);
        let id = known.map_or(0, |row| row.id);
        self.folders.retain(|row| row.dir != dir);
        let mut row = FolderRow::new(dir, identity);
        (row.id, row.seq) = (id, self.index.next_number()?);
        row.id = self.index.put_folder(&row)?;
        self.made.insert(row.id);
        let id = u64::from(row.id);
        self.folders.push(row);
        Ok(id)
    }

    /// Renames a folder's directory, with all that lies in it but other folders.
    pub(crate) fn rename_folder(
        &mut self,
        number: u32,
        from: &FolderDir,
        to: &FolderDir,
    ) -> Step<u64> {
        let is_root = from.as_bytes().is_empty() || to.as_bytes().is_empty();
        if is_root || self.live_in(to).is_some() {
            return stale();
        }
        check(to)?;
        let old_dir = self.folder_at(number, from)?.dir;
        let new_dir = to.as_bytes().to_vec();
        if let Some(at) = new_dir.iter().rposition(|&byte| byte == b'/') {
            let parts: Vec<&[u8]> = new_dir[..at].split(|&byte| byte == b'/').collect();
            for depth in 1..=parts.len() {
                self.root.make_dir(&join(b"", &parts[..depth]))?;
            }
            self.dirty_dirs.insert(new_dir[..at].to_vec());
        }
        let staying = self.staying_entries(&old_dir, &new_dir);
        let whole = match staying.is_empty() {
            true => self.root.rename(&old_dir, &new_dir),
            false => Err(io::ErrorKind::AlreadyExists.into()),
        };
        match whole {
            // Into a directory that is no folder: it holds other folders, or what was left over of one.
            // A mount, or a directory that overlayfs does not rename, goes in pieces, too.
            Err(error) if is_in_pieces(&error) => {
                self.move_entries(&old_dir, &new_dir, &staying)?;
            }
            other => other?,
        }
        self.dirty_dirs.insert(parent(&old_dir));
        self.dirty_dirs.insert(parent(&new_dir));
        let seq = self.index.next_number()?;
        let (ino, birth) = self.root.dir_identity(&new_dir)?;
        let Some(row) = self.folders.iter_mut().find(|row| row.id == number) else {
            return stale();
        };
        (row.dir, row.seq, row.ino, row.birth) = (new_dir, seq, ino, birth);
        row.leaf = DirStamp::default();
        let row = row.clone();
        self.index.put_folder(&row)?;
        Ok(seq)
    }

    /// A live folder that is where it was.
    fn folder_at(&self, number: u32, dir: &FolderDir) -> Step<FolderRow> {
        let folder = self.folder(number);
        match folder.filter(|row| row.dir == dir.as_bytes()) {
            Some(row) => Ok(row.clone()),
            None => stale(),
        }
    }

    /// The names in a folder's directory that stay when it is renamed: those that lead to other folders, which nested
    /// ones do not take along, and to the new place.
    fn staying_entries(&self, dir: &[u8], to: &[u8]) -> BTreeSet<Vec<u8>> {
        let live = self.folders.iter().filter(|row| !row.gone);
        let dirs = live.map(|row| row.dir.as_slice()).chain([to]);
        let below = dirs.filter_map(|other| {
            let rest = other.strip_prefix(dir)?.strip_prefix(b"/")?;
            rest.split(|&byte| byte == b'/').next()
        });
        below.map(<[u8]>::to_vec).collect()
    }

    /// Moves all that belongs to a folder itself into a directory that may be there, and leaves the rest where it is. What
    /// that directory has of the same name was left over of another folder, so both change places: Dovecot must not
    /// read one folder's UIDs and keywords in the next.
    fn move_entries(&mut self, from: &[u8], to: &[u8], staying: &BTreeSet<Vec<u8>>) -> Step<()> {
        self.root.make_dir(to)?;
        if self.root.dir_stamp(&join(to, &[b"cur"])).is_ok() {
            return stale(); // A folder since the last scan.
        }
        let mut entries = self.root.list(from)?;
        entries.retain(|listed| !staying.contains(&listed.name));
        // `cur` last: as long as it is where it was, the folder is.
        entries.sort_by_key(|listed| listed.name == b"cur");
        for Listed { name, kind, .. } in &entries {
            let (old, new) = (join(from, &[name]), join(to, &[name]));
            match self.root.rename(&old, &new) {
                Err(error) if is_fixed(&error) => self.carry_entry(*kind, &old, &new, to)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match &name[..] {
                    b"new" | b"cur" => {
                        // An empty one makes room. In another may be mail.
                        if let Err(error) = self.root.remove_dir(&new) {
                            let why = format!("{} is in its way ({error})", escape(&new));
                            return Err(Stop::Outcome(Outcome::Failed { why }));
                        }
                        self.root.rename(&old, &new)?;
                    }
                    b"tmp" => drop(self.root.remove_dir(&old)),
                    b"maildirfolder" => self.root.unlink(&old)?,
                    _ => self.root.exchange(&old, &new).map(drop)?,
                },
                other => other?,
            }
        }
        // Unless it holds something else.
        let _ = self.root.remove_dir(from);
        self.dirty_dirs.insert(from.to_vec());
        self.dirty_dirs.insert(to.to_vec());
        Ok(())
    }

    /// Moves what no rename leads away from: a directory file by file.
    fn carry_entry(&mut self, kind: FileType, from: &[u8], to: &[u8], dir: &[u8]) -> Step<()> {
        let is_part = [&b"cur"[..], b"new"].contains(&split_path(from).1);
        match kind {
            FileType::Directory if is_part => {
                self.root.make_dir(to)?;
                for Listed { name, .. } in self.root.list(from)? {
                    self.carry(&join(from, &[&name]), &join(to, &[&name]), dir)?;
                }
                self.dirty_dirs.insert(to.to_vec());
                Ok(self.root.remove_dir(from)?)
            }
            FileType::RegularFile => self.carry(from, to, dir),
            _ => {
                // What others have there stays theirs; an empty `tmp` goes.
                let _ = self.root.remove_dir(from);
                Ok(())
            }
        }
    }

    /// Removes a folder without messages. Its directory goes into the trash whole if only what servers make anew is
    /// left in it; else it only stops being a folder.
    pub(crate) fn remove_folder(
        &mut self,
        number: u32,
        dir: &FolderDir,
        trash_name: Option<&str>,
    ) -> Step<u64> {
        let mut row = self.folder_at(number, dir)?;
        if row.dir.is_empty() || self.has_messages(&row)? {
            return stale();
        }
        let Some(trash_name) = trash_name else {
            return stale();
        };
        let taken = match self.is_bare(&row)? {
            true => self.trash.take_dir(self.root, &row.dir, trash_name).ok(),
            false => None,
        };
        match taken {
            Some(Taken::Yes) => {}
            Some(Taken::Changed) => return stale(),
            None => self.close_folder(&row.dir)?,
        }
        self.dirty_dirs.insert(parent(&row.dir));
        (row.gone, row.seq, row.messages) = (true, self.index.next_number()?, 0);
        self.index.put_folder(&row)?;
        self.folders
            .iter_mut()
            .filter(|known| known.id == row.id)
            .for_each(|known| *known = row.clone());
        Ok(row.seq)
    }

    /// Takes from a directory what makes it a folder. What comes meanwhile keeps it one.
    fn close_folder(&mut self, dir: &[u8]) -> Step<()> {
        self.dirty_dirs.insert(dir.to_vec());
        for in_new in [true, false] {
            match self.root.remove_dir(&join(dir, &[subdir(in_new)])) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.root.make_dir(&join(dir, &[b"new"]))?;
                    return Err(error.into());
                }
                Ok(()) => {}
            }
        }
        // Nothing but what belongs to it, unless it holds something else.
        let _ = self.root.remove_dir(&join(dir, &[b"tmp"]));
        let _ = self.root.remove_dir(dir);
        Ok(())
    }

    /// Whether any file that may be a message lies in the folder, known or not.
    fn has_messages(&self, row: &FolderRow) -> Step<bool> {
        let mut names = Vec::new();
        for sub in [&b"new"[..], b"cur"] {
            match self.root.list(&join(&row.dir, &[sub])) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                listed => names.extend(listed?.into_iter().map(|listed| listed.name)),
            }
        }
        Ok(holds_mail(&names))
    }

    fn is_bare(&self, row: &FolderRow) -> Step<bool> {
        for listed in self.root.list(&row.dir)? {
            let is_known = match listed.name.as_slice() {
                // What is in them is no mail, but what editors and disks leave beside it.
                b"cur" | b"new" => listed.kind == FileType::Directory,
                b"tmp" => {
                    listed.kind == FileType::Directory
                        && self.root.list(&join(&row.dir, &[&listed.name]))?.is_empty()
                }
                name => {
                    SERVER_FILES.iter().any(|known| name.starts_with(known))
                        && listed.kind != FileType::Directory
                }
            };
            if !is_known {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Refuses a directory that can be no folder's.
fn check(dir: &FolderDir) -> Step<()> {
    check_dir(dir).map_err(|why| {
        Stop::Outcome(Outcome::Failed {
            why: why.to_owned(),
        })
    })
}

/// Whether a folder lies beside the root's own `cur`, as in Maildir++.
fn is_maildir_plus_plus(dir: &FolderDir) -> bool {
    dir.depth() == 1 && dir.as_bytes().starts_with(b".")
}

/// Whether no rename leads from there: across file systems, or from a mount.
fn is_fixed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices | io::ErrorKind::ResourceBusy
    )
}

fn is_in_pieces(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists || is_fixed(error)
}

fn parent(dir: &[u8]) -> Vec<u8> {
    dir.iter()
        .rposition(|&byte| byte == b'/')
        .map_or_else(Vec::new, |at| dir[..at].to_vec())
}
