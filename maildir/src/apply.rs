//! Carrying out a batch of operations, each with what it expects to find.
//!
//! # The order (I1, I4, I5)
//! *What holds*: a kill at any point leaves every message in full under its old name, its new one, or in the trash.
//! 1. New bodies are written into `tmp`, checked against their digests, and made durable.
//! 2. What is about to happen is recorded in the index (`pending`), durably: so the next run knows where to look for what a
//!    kill left half done.
//! 3. The operations are carried out, one after the other; no rename overwrites a file.
//! 4. The directories are made durable, then the rows are committed, what counts for the guard is counted, and `pending`
//!    is emptied, in the same transaction.
//!
//! *How the next run restores it*: [`crate::recover`].

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use protocol::message::{At, Expect, NewBody};
use protocol::{Entry, Flags, Info, Op, Outcome, Unique};

use crate::aside::set_aside;
use crate::body::Body;
use crate::error::{Error, Result, is_full};
use crate::folder_scan::path as path_of;
use crate::held::Held;
use crate::inbox::Inbox;
use crate::index::{FileRow, FolderRow, Index, now_secs};
use crate::listing::subdir;
use crate::op::{counted, is_trashing};
use crate::prepare::Ready;
use crate::rename::Exchanged;
use crate::root::{Root, join, split_path};
use crate::stamp::FileStamp;
use crate::trash::{Taken, Trash};

/// One batch in progress.
pub(crate) struct Applier<'a> {
    pub(crate) root: &'a Root,
    /// The directories that deliveries go into.
    pub(crate) held: Held<'a>,
    pub(crate) index: &'a Index,
    pub(crate) trash: &'a mut Trash,
    /// Why nothing can be taken away: the trash cannot be written.
    pub(crate) trash_failed: Option<String>,
    pub(crate) tag: protocol::Tag,
    /// Where it is recorded into which `tmp` bodies are written.
    pub(crate) records: PathBuf,
    /// Writes them.
    pub(crate) inbox: &'a mut Inbox,
    pub(crate) folders: Vec<FolderRow>,
    pub(crate) dirty_dirs: BTreeSet<Vec<u8>>,
    /// The folders that were made in this run.
    pub(crate) made: &'a mut BTreeSet<u32>,
    /// The folders of the batch in whose place another directory lies than when they were scanned.
    pub(crate) strange: BTreeSet<u32>,
}

/// A message that has its new name, and not yet its new row.
struct Moved {
    row: FileRow,
    from: Vec<u8>,
    path: Vec<u8>,
    /// The directory that it lies in.
    sub: Vec<u8>,
    /// Its new place, if it changes.
    place: Option<(u32, Unique, u16)>,
}

/// Ends an operation early with what became of it.
pub(crate) type Step<T> = std::result::Result<T, Stop>;

pub(crate) enum Stop {
    Outcome(Outcome),
    Fatal(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Fatal(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Outcome(outcome_of(&error))
    }
}

pub(crate) fn stale<T>() -> Step<T> {
    Err(Stop::Outcome(Outcome::Stale))
}

fn taken<T>() -> Step<T> {
    Err(Stop::Outcome(Outcome::Taken))
}

/// What giving a name has come to.
pub(crate) fn named(given: io::Result<()>) -> Step<()> {
    match given {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken(),
        other => Ok(other?),
    }
}

/// What a refused system call makes of its operation.
pub(crate) fn outcome_of(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists | io::ErrorKind::Interrupted => {
            Outcome::Stale
        }
        _ if is_full(error) => Outcome::Full {
            why: error.to_string(),
        },
        _ => Outcome::Failed {
            why: error.to_string(),
        },
    }
}

impl Applier<'_> {
    /// Carries out the batch; `bodies` has one body, or why it could not be had, for each operation whose source is
    /// [`Source::Body`], in order.
    pub(crate) fn apply(
        &mut self,
        ops: &[Op],
        bodies: Vec<io::Result<Body>>,
    ) -> Result<Vec<Outcome>> {
        self.find_strange(ops);
        let mut ready = self.prepare(ops, bodies);
        let trash_names = self.record(ops, &ready)?;
        self.index.begin()?;
        let mut outcomes = Vec::with_capacity(ops.len());
        let mut trash_names = trash_names.into_iter();
        for (op, ready) in ops.iter().zip(&ready) {
            let name = is_trashing(op).then(|| trash_names.next()).flatten();
            let done = self.carry_out(op, ready, name.as_deref());
            outcomes.push(match done {
                Ok(folder) if matches!(op, Op::MakeFolder { .. }) => Outcome::Made {
                    folder: u32::try_from(folder).unwrap_or(0),
                },
                Ok(seq) => Outcome::Done { seq },
                Err(Stop::Outcome(outcome)) => outcome,
                Err(Stop::Fatal(error)) => return Err(error),
            });
        }
        let io = |source| Error::Io {
            what: "flush",
            path: self.root.path().to_owned(),
            source,
        };
        self.root.clear_asides();
        self.held.sync(&self.dirty_dirs).map_err(io)?;
        self.trash.sync().map_err(io)?;
        self.index.clear_pending()?;
        self.index
            .count_deleted(now_secs(), counted(ops, &outcomes))?;
        self.index.commit()?;
        for (ready, outcome) in ready.iter_mut().zip(&outcomes) {
            self.forget(ready, outcome);
        }
        Ok(outcomes)
    }

    // Step 3.

    fn carry_out(&mut self, op: &Op, ready: &Ready, trash_name: Option<&str>) -> Step<u64> {
        if let Ready::No(outcome) = ready {
            return Err(Stop::Outcome(outcome.clone()));
        }
        if let (true, None, Some(why)) = (is_trashing(op), trash_name, &self.trash_failed) {
            let why = why.clone();
            return Err(Stop::Outcome(Outcome::Failed { why }));
        }
        match op {
            Op::MakeFolder { dir } => self.make_folder(dir),
            Op::RenameFolder { number, from, to } => {
                self.held.release();
                self.rename_folder(*number, from, to)
            }
            Op::RemoveFolder { number, dir } => {
                self.held.release();
                self.remove_folder(*number, dir, trash_name)
            }
            Op::Create {
                at,
                in_new,
                info,
                body,
            } => self.create((at, *in_new, info, body), ready),
            Op::Update {
                at,
                expect,
                to,
                in_new,
                flags,
                body,
                consent: _,
            } => {
                let (folder, row) = self.expected(at, expect)?;
                let moved = self.rename_for(folder, row, to, *in_new, *flags)?;
                self.update(moved, (body.as_ref(), trash_name), ready)
            }
            Op::Retire {
                at,
                expect,
                reason: _,
                consent: _,
            } => self.retire((at, expect), trash_name),
        }
    }

    fn create(
        &mut self,
        (at, in_new, info, body): (&At, bool, &Info, &NewBody),
        ready: &Ready,
    ) -> Step<u64> {
        let Ready::Written { tmp, stamp, .. } = ready else {
            return stale();
        };
        let folder = self.live_folder(at)?;
        if self.row_at(at)?.is_some() {
            return taken();
        }
        let entry = entry_of(in_new, info.clone(), body, stamp);
        let path = target(&folder, &at.unique, &entry.info, in_new)?;
        let tmp = self.waiting(tmp, &folder.dir);
        let is_on_another_disk = match self.give_name(&tmp, &path, &folder, in_new) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => true,
            other => named(other).map(|()| false)?,
        };
        if is_on_another_disk {
            self.deliver_across(&tmp, &path, &folder, (in_new, body))?;
        }
        let seq = self.index.next_number()?;
        let stamp = self.held.file_stamp(&path)?;
        let (unique, copy) = (at.unique.clone(), at.copy);
        let row = FileRow {
            seq,
            born: seq,
            folder: folder.id,
            unique,
            copy,
            gone: false,
            lost: false,
            entry,
            stamp,
            due: false,
        };
        self.index.put_file(&row)?;
        Ok(seq)
    }

    /// Renames into a folder's `new` or `cur`, which is made if it is missing.
    pub(crate) fn give_name(
        &mut self,
        from: &[u8],
        to: &[u8],
        folder: &FolderRow,
        in_new: bool,
    ) -> io::Result<()> {
        let sub = join(&folder.dir, &[subdir(in_new)]);
        match self.held.rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.held.release();
                self.root.make_dir(&sub)?;
                self.dirty_dirs.insert(folder.dir.clone());
                self.held.rename(from, to)?;
            }
            other => other?,
        }
        for dir in [&sub[..], split_path(from).0] {
            if !self.dirty_dirs.contains(dir) {
                self.dirty_dirs.insert(dir.to_vec());
            }
        }
        Ok(())
    }

    /// Gives a message its new name: what can still be refused without anything having happened.
    fn rename_for(
        &mut self,
        folder: FolderRow,
        mut row: FileRow,
        to: &At,
        in_new: bool,
        flags: Flags,
    ) -> Step<Moved> {
        let target_folder = self.live_folder(to)?;
        let same_place =
            (target_folder.id, &to.unique, to.copy) == (row.folder, &row.unique, row.copy);
        if !same_place && self.row_at(to)?.is_some() {
            return taken();
        }
        let info = info_after(&row, &to.unique, in_new, flags);
        let from = path_of(&folder.dir, &row);
        // Beside a hard link under its unique name it would count as one message with that one (C1).
        if !same_place
            && self.root.links(&from)? > 1
            && !self
                .twins(&target_folder, &to.unique, row.stamp.ino)?
                .is_empty()
        {
            return taken();
        }
        let path = target(&target_folder, &to.unique, &info, in_new)?;
        let given = match from == path {
            true => Ok(()),
            false => self.give_name(&from, &path, &target_folder, in_new),
        };
        match given {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.move_across(&row, (&from, &path), (&target_folder, in_new))?;
            }
            other => named(other)?,
        }
        (row.entry.in_new, row.entry.info) = (in_new, info);
        let place = (!same_place).then(|| (target_folder.id, to.unique.clone(), to.copy));
        Ok(Moved {
            row,
            from,
            path,
            sub: join(&target_folder.dir, &[subdir(in_new)]),
            place,
        })
    }

    fn update(
        &mut self,
        moved: Moved,
        (body, trash_name): (Option<&NewBody>, Option<&str>),
        ready: &Ready,
    ) -> Step<u64> {
        let Moved {
            mut row,
            from,
            path,
            sub,
            place,
        } = moved;
        if let Some(body) = body {
            if let Err(stop) = self.replace(&path, &mut row, body, trash_name, ready) {
                if from != path {
                    self.root.rename(&path, &from)?;
                }
                return Err(stop);
            }
            self.dirty_dirs.insert(sub);
        }
        row.stamp = self.root.file_stamp(&path)?;
        if let Some(place) = place {
            let tombstone = FileRow {
                gone: true,
                lost: false,
                seq: self.index.next_number()?,
                ..row.clone()
            };
            self.index.put_file(&tombstone)?;
            (row.born, row.lost) = (self.index.number()? + 1, false);
            (row.folder, row.unique, row.copy) = place;
        }
        row.seq = self.index.next_number()?;
        self.index.put_file(&row)?;
        Ok(row.seq)
    }

    /// Exchanges a file with its new version and takes the old one into the trash, unless nothing of it is lost.
    fn replace(
        &mut self,
        path: &[u8],
        row: &mut FileRow,
        body: &NewBody,
        name: Option<&str>,
        ready: &Ready,
    ) -> Step<()> {
        let Ready::Written { tmp, stamp, .. } = ready else {
            return stale();
        };
        let tmp = &self.waiting(tmp, split_path(split_path(path).0).0);
        let is_taken = Cell::new(false);
        let is_done = set_aside(
            || {
                let exchanged = self.root.exchange(tmp, path)?;
                is_taken.set(exchanged == Exchanged::Taken);
                Ok(())
            },
            || {
                if !self.root.file_stamp(tmp)?.same_but_renamed(&row.stamp) {
                    return Ok(false);
                }
                match name {
                    Some(name) => {
                        let taken = self.trash.take(self.root, tmp, &row.stamp, name)?;
                        Ok(taken == Taken::Yes)
                    }
                    None => self.root.unlink(tmp).map(|()| true),
                }
            },
            || match is_taken.get() {
                true => self.root.put_back(tmp, path),
                false => self.root.exchange(tmp, path).map(drop),
            },
        )?;
        if !is_done || is_taken.get() {
            return stale();
        }
        row.entry = entry_of(row.entry.in_new, row.entry.info.clone(), body, stamp);
        Ok(())
    }

    fn retire(&mut self, (at, expect): (&At, &Expect), name: Option<&str>) -> Step<u64> {
        let (folder, mut row) = self.expected(at, expect)?;
        let path = path_of(&folder.dir, &row);
        let Some(name) = name else { return stale() };
        if self.trash.take(self.root, &path, &row.stamp, name)? == Taken::Changed {
            return stale();
        }
        self.dirty_dirs
            .insert(join(&folder.dir, &[subdir(row.entry.in_new)]));
        (row.gone, row.lost, row.seq) = (true, false, self.index.next_number()?);
        self.index.put_file(&row)?;
        Ok(row.seq)
    }
}

pub(crate) fn entry_of(in_new: bool, info: Info, body: &NewBody, stamp: &FileStamp) -> Entry {
    let damaged = body.size == 0;
    Entry {
        in_new,
        info,
        digest: body.digest,
        size: body.size,
        mtime_ns: stamp.mtime_ns,
        damaged,
    }
}

/// The info that a message gets with new flags and perhaps another unique name.
pub(crate) fn info_after(row: &FileRow, unique: &Unique, in_new: bool, flags: Flags) -> Info {
    let mut info = row.entry.info.with_flags(flags);
    if row.entry.in_new && !in_new && info == Info::default() {
        info = Info::of(flags); // Readers of `cur` expect an info; `new` has none.
    }
    // One that says nothing is left out where there is no room for it.
    let is_too_long = protocol::name::join(unique, &info).is_err();
    if is_too_long && info == Info::of(Flags::default()) {
        info = Info::default();
    }
    info
}

/// The path a message shall have; a name that no disk holds is the message's problem.
pub(crate) fn target(
    folder: &FolderRow,
    unique: &Unique,
    info: &Info,
    in_new: bool,
) -> Step<Vec<u8>> {
    match protocol::name::join(unique, info) {
        Ok(name) => Ok(join(&folder.dir, &[subdir(in_new), &name])),
        Err(error) => Err(Stop::Outcome(Outcome::Failed {
            why: error.to_string(),
        })),
    }
}

#[cfg(test)]
mod tests;
