//! Carrying out operations on folders.

use std::collections::BTreeSet;
use std::io;

use protocol::FolderDir;
use protocol::bytes::escape;
use rustix::fs::FileType;

use super::across::carry;
use super::lookup::Lookup;
use super::site::Site;
use super::step::{Step, failed, stale};
use crate::discover::check_dir;
use crate::held::Held;
use crate::index::FolderRow;
use crate::path::{holds_mail, join, split_path, subdir};
use crate::root::{Listed, Root};
use crate::stamp::DirStamp;
use crate::trash::Retired;

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

/// Makes a folder; returns its number. One that is there may be a renamed one that the client knows elsewhere, so it is
/// reported first.
pub(crate) fn make_folder(lookup: &mut Lookup, held: &Held, dir: &FolderDir) -> Step<u32> {
    if let Some(row) = lookup.folder_in(dir) {
        return match lookup.is_made(row) {
            true => Ok(row.id),
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
        held.root().make_dir(&join(b"", &levels[..depth]))?;
        held.mark_dirty(&join(b"", &levels[..depth - 1]));
    }
    make_parts(held, &dir)?;
    let identity = held.root().dir_identity(&dir)?;
    Ok(lookup.add_folder(dir, identity)?)
}

/// Makes what a folder consists of, as far as it is not there. A kill in between is put in order by `recover`.
pub(crate) fn make_parts(held: &Held, dir: &[u8]) -> io::Result<()> {
    for part in PARTS {
        held.root().make_dir(&join(dir, &[part]))?;
    }
    if FolderDir::new(dir).is_ok_and(|dir| is_maildir_plus_plus(&dir)) {
        // Made, never copied: Maildir++ distinguishes a folder from an account by it.
        match held.root().create_file(&join(dir, &[b"maildirfolder"])) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    held.mark_dirty(dir);
    Ok(())
}

/// Renames a folder's directory, with all that lies in it but other folders.
pub(crate) fn rename_folder(
    lookup: &mut Lookup,
    site: &mut Site,
    number: u32,
    from: &FolderDir,
    to: &FolderDir,
) -> Step<u64> {
    site.held.release();
    let is_root = from.as_bytes().is_empty() || to.as_bytes().is_empty();
    if is_root || lookup.folder_in(to).is_some() {
        return stale();
    }
    check(to)?;
    let mut row = lookup.folder_at(number, from)?;
    let (old_dir, new_dir) = (row.dir, to.as_bytes().to_vec());
    make_above(&site.held, &new_dir)?;
    let staying = staying_entries(lookup, &old_dir, &new_dir);
    let whole = match staying.is_empty() {
        true => site.root().rename(&old_dir, &new_dir),
        false => Err(io::ErrorKind::AlreadyExists.into()),
    };
    match whole {
        // Into a directory that is no folder: it holds other folders, or what was left over of one.
        // A mount, or a directory that overlayfs does not rename, goes in pieces, too.
        Err(error) if is_in_pieces(&error) => move_entries(site, &old_dir, &new_dir, &staying)?,
        other => other?,
    }
    site.held.mark_dirty(split_path(&old_dir).0);
    site.held.mark_dirty(split_path(&new_dir).0);
    row.seq = lookup.index.next_number()?;
    (row.ino, row.birth) = site.root().dir_identity(&new_dir)?;
    (row.dir, row.leaf) = (new_dir, DirStamp::default());
    let seq = row.seq;
    lookup.put_folder(row)?;
    Ok(seq)
}

/// Makes the directories above a folder that are missing.
fn make_above(held: &Held, dir: &[u8]) -> io::Result<()> {
    let above = split_path(dir).0;
    if above.is_empty() {
        return Ok(());
    }
    let parts: Vec<&[u8]> = above.split(|&byte| byte == b'/').collect();
    for depth in 1..=parts.len() {
        held.root().make_dir(&join(b"", &parts[..depth]))?;
    }
    held.mark_dirty(above);
    Ok(())
}

/// The names in a folder's directory that stay when it is renamed: those that lead to other folders, which nested
/// ones do not take along, and to the new place.
fn staying_entries(lookup: &Lookup, dir: &[u8], to: &[u8]) -> BTreeSet<Vec<u8>> {
    let dirs = lookup.live().map(|row| row.dir.as_slice()).chain([to]);
    let below = dirs.filter_map(|other| {
        let rest = other.strip_prefix(dir)?.strip_prefix(b"/")?;
        rest.split(|&byte| byte == b'/').next()
    });
    below.map(<[u8]>::to_vec).collect()
}

/// Moves all that belongs to a folder itself into a directory that may be there, and leaves the rest where it is. What
/// that directory has of the same name was left over of another folder, so both change places: Dovecot must not
/// read one folder's UIDs and keywords in the next.
fn move_entries(site: &mut Site, from: &[u8], to: &[u8], staying: &BTreeSet<Vec<u8>>) -> Step<()> {
    let root = site.root();
    root.make_dir(to)?;
    if root.dir_stamp(&join(to, &[b"cur"])).is_ok() {
        return stale(); // A folder since the last scan.
    }
    let mut entries = root.list(from)?;
    entries.retain(|listed| !staying.contains(&listed.name));
    // `cur` last: as long as it is where it was, the folder is.
    entries.sort_by_key(|listed| listed.name == b"cur");
    for Listed { name, kind, .. } in &entries {
        let (old, new) = (join(from, &[name]), join(to, &[name]));
        match root.rename(&old, &new) {
            Err(error) if is_fixed(&error) => carry_entry(site, *kind, &old, &new, to)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match &name[..] {
                b"new" | b"cur" => {
                    // An empty one makes room. In another may be mail.
                    if let Err(error) = root.remove_dir(&new) {
                        return failed(format!("{} is in its way ({error})", escape(&new)));
                    }
                    root.rename(&old, &new)?;
                }
                b"tmp" => drop(root.remove_dir(&old)),
                b"maildirfolder" => root.unlink(&old)?,
                _ => root.exchange(&old, &new).map(drop)?,
            },
            other => other?,
        }
    }
    // Unless it holds something else.
    let _ = root.remove_dir(from);
    site.held.mark_dirty(from);
    site.held.mark_dirty(to);
    Ok(())
}

/// Moves what no rename leads away from: a directory file by file.
fn carry_entry(site: &mut Site, kind: FileType, from: &[u8], to: &[u8], dir: &[u8]) -> Step<()> {
    let root = site.root();
    let is_part = [&b"cur"[..], b"new"].contains(&split_path(from).1);
    match kind {
        FileType::Directory if is_part => {
            root.make_dir(to)?;
            for Listed { name, .. } in root.list(from)? {
                carry(site, &join(from, &[&name]), &join(to, &[&name]), dir)?;
            }
            site.held.mark_dirty(to);
            Ok(root.remove_dir(from)?)
        }
        FileType::RegularFile => carry(site, from, to, dir),
        _ => {
            // What others have there stays theirs; an empty `tmp` goes.
            let _ = root.remove_dir(from);
            Ok(())
        }
    }
}

/// Removes a folder without messages. Its directory goes into the trash whole if only what servers make anew is
/// left in it; else it only stops being a folder.
pub(crate) fn remove_folder(
    lookup: &mut Lookup,
    site: &mut Site,
    number: u32,
    dir: &FolderDir,
    trash_name: Option<&str>,
) -> Step<u64> {
    site.held.release();
    let root = site.root();
    let mut row = lookup.folder_at(number, dir)?;
    if row.dir.is_empty() || has_messages(root, &row)? {
        return stale();
    }
    let Some(trash_name) = trash_name else {
        return stale();
    };
    let retired = match is_bare(root, &row)? {
        true => site.trash.take_dir(root, &row.dir, trash_name).ok(),
        false => None,
    };
    match retired {
        Some(Retired::Yes) => {}
        Some(Retired::Changed) => return stale(),
        None => close_folder(&site.held, &row.dir)?,
    }
    site.held.mark_dirty(split_path(&row.dir).0);
    (row.gone, row.seq, row.messages) = (true, lookup.index.next_number()?, 0);
    let seq = row.seq;
    lookup.put_folder(row)?;
    Ok(seq)
}

/// Takes from a directory what makes it a folder. What comes meanwhile keeps it one.
fn close_folder(held: &Held, dir: &[u8]) -> Step<()> {
    let root = held.root();
    held.mark_dirty(dir);
    for in_new in [true, false] {
        match root.remove_dir(&join(dir, &[subdir(in_new)])) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                root.make_dir(&join(dir, &[b"new"]))?;
                return Err(error.into());
            }
            Ok(()) => {}
        }
    }
    // Nothing but what belongs to it, unless it holds something else.
    let _ = root.remove_dir(&join(dir, &[b"tmp"]));
    let _ = root.remove_dir(dir);
    Ok(())
}

/// Whether any file that may be a message lies in the folder, known or not.
fn has_messages(root: &Root, row: &FolderRow) -> Step<bool> {
    let mut names = Vec::new();
    for sub in [&b"new"[..], b"cur"] {
        match root.list(&join(&row.dir, &[sub])) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            listed => names.extend(listed?.into_iter().map(|listed| listed.name)),
        }
    }
    Ok(holds_mail(&names))
}

fn is_bare(root: &Root, row: &FolderRow) -> Step<bool> {
    for listed in root.list(&row.dir)? {
        let is_known = match listed.name.as_slice() {
            // What is in them is no mail, but what editors and disks leave beside it.
            b"cur" | b"new" => listed.kind == FileType::Directory,
            b"tmp" => {
                listed.kind == FileType::Directory
                    && root.list(&join(&row.dir, &[&listed.name]))?.is_empty()
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

/// Refuses a directory that can be no folder's.
fn check(dir: &FolderDir) -> Step<()> {
    check_dir(dir).or_else(|why| failed(why.to_owned()))
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
