//! Carrying out operations on messages.

use std::cell::Cell;
use std::io;

use protocol::message::{At, NewBody};
use protocol::{Entry, Unique};

use super::across::{deliver_across, move_across};
use super::expect::links_in;
use super::lookup::{Lookup, Message};
use super::naming::{Target, entry_of, path_in};
use super::prepare::TmpFile;
use super::site::Site;
use super::step::{Step, named, stale, taken};
use crate::aside::set_aside;
use crate::index::FileRow;
use crate::path::split_path;
use crate::rename::Exchanged;
use crate::root::Root;
use crate::trash::Retired;

/// A message that has its new name, and not yet its new row.
pub(crate) struct Moved {
    row: FileRow,
    from: Vec<u8>,
    path: Vec<u8>,
    /// Its new place, if it changes.
    place: Option<Place>,
}

/// Where the index has a message.
struct Place {
    folder: u32,
    unique: Unique,
    copy: u16,
}

/// Gives a body in `tmp` the name of a new message; returns its number.
pub(crate) fn create(
    lookup: &Lookup,
    site: &mut Site,
    at: &At,
    body: &NewBody,
    entry: Entry,
    file: &TmpFile,
) -> Step<u64> {
    let folder = lookup.live_folder(at)?;
    if lookup.message_at(at)?.is_some() {
        return taken();
    }
    let path = path_in(&folder.dir, entry.in_new, &at.unique, &entry.info)?;
    let tmp = file.path_in(site.root(), &folder.dir);
    match site.held.give_name(&tmp, &path) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            deliver_across(site, &tmp, &path, body)?;
        }
        other => named(other)?,
    }
    let seq = lookup.index.next_number()?;
    let stamp = site.held.file_stamp(&path)?;
    lookup.index.put_file(&FileRow {
        seq,
        born: seq,
        folder: folder.id,
        unique: at.unique.clone(),
        copy: at.copy,
        gone: false,
        lost: false,
        entry,
        stamp,
        due: false,
    })?;
    Ok(seq)
}

/// Gives a message its new name: what can still be refused without anything having happened.
pub(crate) fn rename(
    lookup: &Lookup,
    site: &mut Site,
    message: Message,
    target: &Target,
) -> Step<Moved> {
    let (to, from) = (target.to, message.path());
    let mut row = message.row;
    let folder = lookup.live_folder(to)?;
    let is_same_place = (folder.id, &to.unique, to.copy) == (row.folder, &row.unique, row.copy);
    if !is_same_place && lookup.message_at(to)?.is_some() {
        return taken();
    }
    // Beside a hard link under its unique name it would count as one message with that one.
    let root = site.root();
    if !is_same_place
        && root.links(&from)? > 1
        && !links_in(root, &folder.dir, &to.unique, row.stamp.ino)?.is_empty()
    {
        return taken();
    }
    let info = target.info(&row);
    let path = target.path(&folder.dir, &info)?;
    let given = match from == path {
        true => Ok(()),
        false => site.held.give_name(&from, &path),
    };
    match given {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            move_across(site, &row, &from, &path)?;
        }
        other => named(other)?,
    }
    (row.entry.in_new, row.entry.info) = (target.in_new, info);
    let place = (!is_same_place).then(|| Place {
        folder: folder.id,
        unique: to.unique.clone(),
        copy: to.copy,
    });
    Ok(Moved {
        row,
        from,
        path,
        place,
    })
}

/// Gives a message that was renamed its new bytes, or its old name.
pub(crate) fn replace(
    site: &mut Site,
    moved: &mut Moved,
    body: &NewBody,
    file: Step<&TmpFile>,
    trash_name: Option<&str>,
) -> Step<()> {
    let replaced = file.and_then(|file| {
        exchange(site, moved, file, trash_name)?;
        let entry = &mut moved.row.entry;
        *entry = entry_of(entry.in_new, entry.info.clone(), body, &file.stamp);
        Ok(())
    });
    if replaced.is_ok() {
        site.held.mark_dirty(split_path(&moved.path).0);
    } else if moved.from != moved.path {
        site.root().rename(&moved.path, &moved.from)?;
    }
    replaced
}

/// Exchanges a message's file with its new version, and takes the old one into the trash, unless nothing of it is lost.
fn exchange(site: &mut Site, moved: &Moved, file: &TmpFile, trash_name: Option<&str>) -> Step<()> {
    let (root, path) = (site.root(), &moved.path);
    let tmp = &file.path_in(root, split_path(split_path(path).0).0);
    let is_taken = Cell::new(false);
    let is_done = set_aside(
        || {
            let exchanged = root.exchange(tmp, path)?;
            is_taken.set(exchanged == Exchanged::NameTaken);
            Ok(())
        },
        || {
            if !root.file_stamp(tmp)?.same_but_renamed(&moved.row.stamp) {
                return Ok(false);
            }
            match trash_name {
                Some(name) => {
                    let retired = site.trash.take(root, tmp, &moved.row.stamp, name)?;
                    Ok(retired == Retired::Yes)
                }
                None => root.unlink(tmp).map(|()| true),
            }
        },
        || match is_taken.get() {
            true => root.put_back(tmp, path),
            false => root.exchange(tmp, path).map(drop),
        },
    )?;
    if !is_done || is_taken.get() {
        return stale();
    }
    Ok(())
}

/// Writes the row of a message that has its new name and bytes; returns its number.
pub(crate) fn put_moved(lookup: &Lookup, root: &Root, moved: Moved) -> Step<u64> {
    let index = lookup.index;
    let mut row = moved.row;
    row.stamp = root.file_stamp(&moved.path)?;
    if let Some(place) = moved.place {
        let tombstone = FileRow {
            gone: true,
            lost: false,
            seq: index.next_number()?,
            ..row.clone()
        };
        index.put_file(&tombstone)?;
        (row.born, row.lost) = (index.number()? + 1, false);
        (row.folder, row.unique, row.copy) = (place.folder, place.unique, place.copy);
    }
    row.seq = index.next_number()?;
    index.put_file(&row)?;
    Ok(row.seq)
}

/// Takes a message into the trash; returns the number of its tombstone.
pub(crate) fn retire(
    lookup: &Lookup,
    site: &mut Site,
    message: Message,
    trash_name: Option<&str>,
) -> Step<u64> {
    let path = message.path();
    let mut row = message.row;
    let Some(name) = trash_name else {
        return stale();
    };
    if site.trash.take(site.held.root(), &path, &row.stamp, name)? == Retired::Changed {
        return stale();
    }
    site.held.mark_dirty(split_path(&path).0);
    (row.gone, row.lost, row.seq) = (true, false, lookup.index.next_number()?);
    lookup.index.put_file(&row)?;
    Ok(row.seq)
}
