//! Carrying out a batch of operations, each with what it expects to find.
//!
//! # The order (I1, I4, I5)
//! *What holds*: a kill at any point leaves every message in full under its old name, its new one, or in the trash; and
//! the next run knows of every operation whether it happened.
//! 1. New bodies are written into `tmp`, checked against their digests, and made durable.
//! 2. What is about to happen is recorded in the index (`pending`), durably: a message that we create and that the user
//!    deletes before the next scan must not look as if it had never been created.
//! 3. The operations are carried out, one after the other; no rename overwrites a file.
//! 4. The directories are made durable, then the rows are committed and `pending` is emptied in the same transaction.
//!
//! *How the next run restores it*: [`crate::recover`].

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};

use protocol::message::{At, Expect, NewBody, Reason, Source};
use protocol::{Digest, Entry, Flags, Info, Op, Outcome, Unique};
use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::durable::SYNCFS_FROM;
use crate::error::{Error, Result, is_full};
use crate::folder_scan::{path as path_of, subdir};
use crate::hash::{hash_file, hash_open};
use crate::held::Held;
use crate::index::{FileRow, FolderRow, Index};
use crate::layout::Layout;
use crate::root::{Root, join, set_mtime, split_path, stamp_of};
use crate::stamp::FileStamp;
use crate::trash::{Label, Taken, Trash};

/// The beginning of the names of our files in `tmp`.
pub(crate) const TMP_PREFIX: &str = "maildir-sync-";

/// An operation that was begun, as the index remembers it; the order of the fields is the stored format.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Pending {
    /// A message shall appear from `tmp`.
    Create {
        tmp: Vec<u8>,
        folder: u32,
        unique: Unique,
        copy: u16,
        entry: Entry,
    },
    /// The file in `tmp` shall be exchanged with a message, whose old version then goes to the trash.
    Replace {
        tmp: Vec<u8>,
        digest: Digest,
        folder: Vec<u8>,
        name: Vec<u8>,
    },
    /// A message shall go to the trash.
    Retire {
        folder: u32,
        unique: Unique,
        copy: u16,
        path: Vec<u8>,
        ino: u64,
        ctime_ns: i64,
    },
}

/// One batch in progress.
pub(crate) struct Applier<'a> {
    pub(crate) root: &'a Root,
    /// The directories that deliveries go into.
    pub(crate) held: Held<'a>,
    pub(crate) layout: &'a Layout,
    pub(crate) index: &'a Index,
    pub(crate) trash: &'a mut Trash,
    pub(crate) tag: protocol::Tag,
    /// Where `tmp` files are written, relative to the root.
    pub(crate) tmp_dir: Vec<u8>,
    /// A running number for their names.
    pub(crate) tmp_count: &'a mut u64,
    pub(crate) folders: Vec<FolderRow>,
    pub(crate) dirty_dirs: BTreeSet<Vec<u8>>,
}

/// What step 1 prepared for an operation.
enum Ready {
    /// Nothing was needed.
    Plain,
    /// The new bytes lie in `tmp`.
    Written { tmp: Vec<u8>, stamp: FileStamp },
    /// It cannot be done.
    No(Outcome),
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

/// What a refused system call makes of its operation.
fn outcome_of(error: &io::Error) -> Outcome {
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
        let mut bodies = bodies.into_iter();
        let mut ready = Vec::with_capacity(ops.len());
        let mut files = Vec::new();
        for op in ops {
            ready.push(self.prepare(op, &mut bodies, &mut files));
        }
        let synced = crate::durable::sync_files(self.root, &files);
        drop(files);
        let mut trash_names = Vec::new();
        if let Err(error) = synced {
            let outcome = outcome_of(&error);
            ready
                .iter_mut()
                .for_each(|ready| self.forget(ready, &outcome));
        } else {
            trash_names = self.record(ops, &ready)?;
        }
        self.index.begin()?;
        let mut outcomes = Vec::with_capacity(ops.len());
        let mut trash_names = trash_names.into_iter();
        for (op, ready) in ops.iter().zip(&ready) {
            let name = is_trashing(op).then(|| trash_names.next()).flatten();
            outcomes.push(match self.carry_out(op, ready, name.as_deref()) {
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
        self.held.sync(&self.dirty_dirs).map_err(io)?;
        self.trash.sync().map_err(io)?;
        self.index.clear_pending()?;
        self.index.commit()?;
        for (ready, outcome) in ready.iter_mut().zip(&outcomes) {
            self.forget(ready, outcome);
        }
        Ok(outcomes)
    }

    // Step 1.

    fn prepare(
        &mut self,
        op: &Op,
        bodies: &mut dyn Iterator<Item = io::Result<Body>>,
        files: &mut Vec<File>,
    ) -> Ready {
        let Some(body) = new_body(op) else {
            return Ready::Plain;
        };
        let written = match &body.source {
            Source::Body { .. } => match bodies.next() {
                Some(Ok(bytes)) => self.write_tmp(body, bytes),
                Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    Err(io::ErrorKind::Interrupted.into())
                }
                Some(Err(error)) => Err(error),
                None => Err(io::ErrorKind::Interrupted.into()),
            },
            Source::Copy(from) => self.copy_tmp(body, from),
        };
        match written {
            Ok((tmp, stamp, file)) => {
                // Where there are many, one call flushes them all, and a descriptor for each would be too many.
                if files.len() < SYNCFS_FROM {
                    files.push(file);
                }
                Ready::Written { tmp, stamp }
            }
            Err(error) => Ready::No(outcome_of(&error)),
        }
    }

    fn create_tmp(&mut self) -> io::Result<(Vec<u8>, File)> {
        *self.tmp_count += 1;
        let name = format!("{TMP_PREFIX}{}-{}", self.tag, self.tmp_count);
        let tmp = join(&self.tmp_dir, &[name.as_bytes()]);
        match self.held.create_file(&tmp) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.held.release();
                self.root.make_dir(&self.tmp_dir)?;
                self.held.create_file(&tmp).map(|file| (tmp, file))
            }
            other => other.map(|file| (tmp, file)),
        }
    }

    fn write_tmp(&mut self, body: &NewBody, bytes: Body) -> io::Result<(Vec<u8>, FileStamp, File)> {
        let (tmp, mut file) = self.create_tmp()?;
        let written = match &bytes {
            Body::Small(bytes) => file.write_all(bytes),
            Body::Large(path) => {
                File::open(path).and_then(|mut from| io::copy(&mut from, &mut file).map(|_| ()))
            }
        };
        let written = written.and_then(|()| {
            finish_tmp(self.root, &tmp, file, body, matches!(bytes, Body::Large(_)))
        });
        if let (Ok(_), Body::Large(path)) = (&written, &bytes) {
            let _ = std::fs::remove_file(path); // It lies in tmp now; left behind it would only be found again.
        }
        self.or_unlink(written, tmp)
    }

    fn copy_tmp(&mut self, body: &NewBody, from: &At) -> io::Result<(Vec<u8>, FileStamp, File)> {
        let row = self
            .row_at(from)
            .ok()
            .flatten()
            .filter(|(_, row)| row.entry.digest == body.digest);
        let (folder, row) = row.ok_or(io::ErrorKind::NotFound)?;
        let mut source = self.root.open_file(&path_of(&folder.dir, &row))?;
        let (tmp, mut file) = self.create_tmp()?;
        // std copies inside the kernel where it can, which shares blocks on file systems that do.
        let written = io::copy(&mut source, &mut file);
        let written = written.and_then(|_| finish_tmp(self.root, &tmp, file, body, true));
        self.or_unlink(written, tmp)
    }

    fn or_unlink(
        &self,
        written: io::Result<(FileStamp, File)>,
        tmp: Vec<u8>,
    ) -> io::Result<(Vec<u8>, FileStamp, File)> {
        match written {
            Ok((stamp, file)) => Ok((tmp, stamp, file)),
            Err(error) => {
                let _ = self.root.unlink(&tmp); // What failed to be written is of no use; the first error counts.
                Err(error)
            }
        }
    }

    /// Removes what lies in `tmp` for an operation that did not happen.
    fn forget(&self, ready: &mut Ready, outcome: &Outcome) {
        if let (Ready::Written { tmp, .. }, false) = (
            &*ready,
            matches!(outcome, Outcome::Done { .. } | Outcome::Made { .. }),
        ) {
            if let Err(error) = self.root.unlink(tmp)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("Cannot remove {:?}: {error}", self.root.full(tmp));
            }
            *ready = Ready::No(outcome.clone());
        }
    }

    // Step 2.

    fn record(&mut self, ops: &[Op], ready: &[Ready]) -> Result<Vec<String>> {
        let mut pending = Vec::new();
        self.index.begin()?;
        for (op, ready) in ops.iter().zip(ready) {
            match (op, ready) {
                (
                    Op::Create {
                        at,
                        in_new,
                        info,
                        body,
                    },
                    Ready::Written { tmp, stamp },
                ) => {
                    if let Some(folder) = self
                        .folders
                        .iter()
                        .find(|row| !row.gone && row.name == at.folder)
                    {
                        let entry = entry_of(*in_new, info.clone(), body, stamp);
                        let (unique, copy) = (at.unique.clone(), at.copy);
                        pending.push(Pending::Create {
                            tmp: tmp.clone(),
                            folder: folder.id,
                            unique,
                            copy,
                            entry,
                        });
                    }
                }
                (
                    Op::Update {
                        at,
                        body: Some(body),
                        ..
                    },
                    Ready::Written { tmp, .. },
                ) => {
                    let (folder, name) =
                        (at.folder.as_bytes().to_vec(), at.unique.as_bytes().to_vec());
                    pending.push(Pending::Replace {
                        tmp: tmp.clone(),
                        digest: body.digest,
                        folder,
                        name,
                    });
                }
                (Op::Retire { at, .. }, _) => {
                    if let Some((folder, row)) = self.row_at(at)? {
                        pending.push(Pending::Retire {
                            folder: folder.id,
                            unique: row.unique.clone(),
                            copy: row.copy,
                            path: path_of(&folder.dir, &row),
                            ino: row.stamp.ino,
                            ctime_ns: row.stamp.ctime_ns,
                        });
                    }
                }
                _ => {}
            }
        }
        let names = self.announce(ops)?;
        if pending.is_empty() {
            self.index.rollback();
        } else {
            self.index
                .put_pending(&protocol::codec::encode_state(&pending))?;
            self.index.commit()?;
        }
        Ok(names)
    }

    /// Announces to the trash what the batch may take away; one name for each such operation, in order.
    fn announce(&mut self, ops: &[Op]) -> Result<Vec<String>> {
        let mut labels = Vec::new();
        for op in ops.iter().filter(|op| is_trashing(op)) {
            let mut label = Label::default();
            if let Some((at, reason)) = trashed(op) {
                label.folder = at.folder.as_bytes().to_vec();
                label.name = at.unique.as_bytes().to_vec();
                label.reason = Some(reason);
                if let Some((_, row)) = self.row_at(at)? {
                    label.name.extend_from_slice(row.entry.info.as_bytes());
                    (label.in_new, label.digest) = (row.entry.in_new, Some(row.entry.digest));
                    if row.entry.damaged && reason == Reason::Replaced {
                        label.reason = Some(Reason::Damaged);
                    }
                }
            } else if let Op::RemoveFolder { name } = op {
                label.folder = name.as_bytes().to_vec();
            }
            labels.push(label);
        }
        if labels.is_empty() {
            Ok(Vec::new())
        } else {
            self.trash.announce(self.tag, &labels)
        }
    }

    // Step 3.

    fn carry_out(&mut self, op: &Op, ready: &Ready, trash_name: Option<&str>) -> Step<u64> {
        if let Ready::No(outcome) = ready {
            return Err(Stop::Outcome(outcome.clone()));
        }
        match op {
            Op::MakeFolder { name } => self.make_folder(name),
            Op::RenameFolder { from, to } => {
                self.held.release();
                self.rename_folder(from, to)
            }
            Op::RemoveFolder { name } => {
                self.held.release();
                self.remove_folder(name, trash_name)
            }
            Op::Create {
                at,
                in_new,
                info,
                body,
            } => self.create(at, *in_new, info, body, ready),
            Op::Update {
                at,
                expect,
                to,
                in_new,
                flags,
                body,
            } => {
                let (folder, row) = self.expected(at, expect)?;
                self.update(
                    folder,
                    row,
                    to,
                    *in_new,
                    *flags,
                    body.as_ref().zip(trash_name),
                    ready,
                )
            }
            Op::Retire {
                at,
                expect,
                reason: _,
                confirmed,
            } => self.retire(at, expect, *confirmed, trash_name),
            Op::Confirm { at } => self.confirm(at),
        }
    }

    pub(crate) fn row_at(&self, at: &At) -> Result<Option<(FolderRow, FileRow)>> {
        let Some(folder) = self
            .folders
            .iter()
            .find(|row| !row.gone && row.name == at.folder)
        else {
            return Ok(None);
        };
        let row = self.index.file_at(folder.id, &at.unique, at.copy)?;
        Ok(row.filter(|row| !row.gone).map(|row| (folder.clone(), row)))
    }

    /// The message at a place, if it is the expected one, in the index and on disk.
    fn expected(&self, at: &At, expect: &Expect) -> Step<(FolderRow, FileRow)> {
        let Some((folder, mut row)) = self.row_at(at)? else {
            return stale();
        };
        let seen = Expect {
            in_new: row.entry.in_new,
            flags: row.entry.flags(),
            digest: row.entry.digest,
        };
        if seen != *expect {
            return stale();
        }
        let path = path_of(&folder.dir, &row);
        row.stamp = match self.root.file_stamp(&path)? {
            stamp if stamp == row.stamp => stamp,
            _ => {
                let hashed = hash_file(self.root, &path)?;
                if hashed.digest != expect.digest {
                    return stale();
                }
                hashed.stamp
            }
        };
        Ok((folder, row))
    }

    pub(crate) fn live_folder(&self, name: &protocol::FolderName) -> Step<FolderRow> {
        let row = self
            .folders
            .iter()
            .find(|row| !row.gone && row.name == *name);
        row.cloned().ok_or(Stop::Outcome(Outcome::Stale))
    }

    fn create(
        &mut self,
        at: &At,
        in_new: bool,
        info: &Info,
        body: &NewBody,
        ready: &Ready,
    ) -> Step<u64> {
        let Ready::Written { tmp, stamp } = ready else {
            return stale();
        };
        let folder = self.live_folder(&at.folder)?;
        if self.row_at(at)?.is_some() {
            return stale();
        }
        let entry = entry_of(in_new, info.clone(), body, stamp);
        let path = target(&folder, &at.unique, &entry.info, in_new)?;
        self.rename_making(tmp, &path, &folder, in_new)?;
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
            confirmed: false,
            entry,
            stamp,
        };
        self.index.put_file(&row)?;
        Ok(seq)
    }

    /// Renames into a folder's `new` or `cur`, which is made if it is missing.
    fn rename_making(
        &mut self,
        from: &[u8],
        to: &[u8],
        folder: &FolderRow,
        in_new: bool,
    ) -> Step<()> {
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

    #[expect(
        clippy::too_many_arguments,
        reason = "an update has as many fields as a message"
    )]
    fn update(
        &mut self,
        folder: FolderRow,
        mut row: FileRow,
        to: &At,
        in_new: bool,
        flags: Flags,
        body: Option<(&NewBody, &str)>,
        ready: &Ready,
    ) -> Step<u64> {
        let target_folder = self.live_folder(&to.folder)?;
        let same_place =
            (target_folder.id, &to.unique, to.copy) == (row.folder, &row.unique, row.copy);
        if !same_place && self.row_at(to)?.is_some() {
            return stale();
        }
        let mut info = row.entry.info.with_flags(flags);
        if row.entry.in_new && !in_new && info == Info::default() {
            info = Info::of(flags); // Readers of `cur` expect an info; `new` has none.
        }
        let path = path_of(&folder.dir, &row);
        let new_path = target(&target_folder, &to.unique, &info, in_new)?;
        // The rename comes first: it is what can still be refused without anything having happened.
        if path != new_path {
            self.rename_making(&path, &new_path, &target_folder, in_new)?;
        }
        if let Some((body, trash_name)) = body {
            if let Err(stop) = self.replace(&new_path, &mut row, body, trash_name, ready) {
                if path != new_path {
                    self.root.rename(&new_path, &path)?;
                }
                return Err(stop);
            }
            self.dirty_dirs
                .insert(join(&target_folder.dir, &[subdir(in_new)]));
        }
        (row.entry.in_new, row.entry.info) = (in_new, info);
        row.stamp = self.root.file_stamp(&new_path)?;
        row.confirmed = false;
        if !same_place {
            let tombstone = FileRow {
                gone: true,
                seq: self.index.next_number()?,
                ..row.clone()
            };
            self.index.put_file(&tombstone)?;
            row.born = self.index.number()? + 1;
        }
        row.seq = self.index.next_number()?;
        (row.folder, row.unique, row.copy) = (target_folder.id, to.unique.clone(), to.copy);
        self.index.put_file(&row)?;
        Ok(row.seq)
    }

    /// Exchanges a file with its new version and takes the old one into the trash.
    fn replace(
        &mut self,
        path: &[u8],
        row: &mut FileRow,
        body: &NewBody,
        name: &str,
        ready: &Ready,
    ) -> Step<()> {
        let Ready::Written { tmp, stamp } = ready else {
            return stale();
        };
        self.root.exchange(tmp, path)?;
        let taken = match self.root.file_stamp(tmp) {
            Ok(seen) if seen.same_but_renamed(&row.stamp) => {
                self.trash.take(self.root, tmp, &row.stamp, name)
            }
            Ok(_) => Ok(Taken::Changed),
            Err(error) => Err(error),
        };
        match taken {
            Ok(Taken::Yes) => {}
            Ok(Taken::Changed) => {
                self.root.exchange(tmp, path)?;
                return stale();
            }
            Err(error) => {
                self.root.exchange(tmp, path)?;
                return Err(error.into());
            }
        }
        row.entry = entry_of(row.entry.in_new, row.entry.info.clone(), body, stamp);
        Ok(())
    }

    fn retire(
        &mut self,
        at: &At,
        expect: &Expect,
        confirmed: bool,
        name: Option<&str>,
    ) -> Step<u64> {
        let (folder, mut row) = self.expected(at, expect)?;
        let path = path_of(&folder.dir, &row);
        let Some(name) = name else { return stale() };
        if self.trash.take(self.root, &path, &row.stamp, name)? == Taken::Changed {
            return stale();
        }
        self.dirty_dirs
            .insert(join(&folder.dir, &[subdir(row.entry.in_new)]));
        (row.gone, row.confirmed, row.seq) = (true, confirmed, self.index.next_number()?);
        self.index.put_file(&row)?;
        Ok(row.seq)
    }

    fn confirm(&mut self, at: &At) -> Step<u64> {
        let folder = self
            .folders
            .iter()
            .filter(|row| row.name == at.folder)
            .max_by_key(|row| !row.gone);
        let Some(folder) = folder else { return stale() };
        let Some(mut row) = self
            .index
            .file_at(folder.id, &at.unique, at.copy)?
            .filter(|row| row.gone)
        else {
            return stale();
        };
        (row.confirmed, row.seq) = (true, self.index.next_number()?);
        self.index.put_file(&row)?;
        Ok(row.seq)
    }
}

/// Ends a file in `tmp`: its time, its stamp, and its digest where nobody checked it before.
fn finish_tmp(
    root: &Root,
    tmp: &[u8],
    file: File,
    body: &NewBody,
    must_check: bool,
) -> io::Result<(FileStamp, File)> {
    set_mtime(&file, body.mtime_ns)?;
    if must_check {
        let hashed = hash_open(&mut root.open_file(tmp)?)?;
        if hashed.digest != body.digest {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    let stamp = stamp_of(&file)?;
    Ok((stamp, file))
}

fn new_body(op: &Op) -> Option<&NewBody> {
    match op {
        Op::Create { body, .. } => Some(body),
        Op::Update { body, .. } => body.as_ref(),
        Op::MakeFolder { .. }
        | Op::RenameFolder { .. }
        | Op::RemoveFolder { .. }
        | Op::Retire { .. }
        | Op::Confirm { .. } => None,
    }
}

/// What an operation takes away, and why.
fn trashed(op: &Op) -> Option<(&At, Reason)> {
    match op {
        Op::Retire { at, reason, .. } => Some((at, *reason)),
        Op::Update {
            at, body: Some(_), ..
        } => Some((at, Reason::Replaced)),
        Op::Update { .. }
        | Op::Create { .. }
        | Op::MakeFolder { .. }
        | Op::RenameFolder { .. }
        | Op::RemoveFolder { .. }
        | Op::Confirm { .. } => None,
    }
}

fn is_trashing(op: &Op) -> bool {
    trashed(op).is_some() || matches!(op, Op::RemoveFolder { .. })
}

fn entry_of(in_new: bool, info: Info, body: &NewBody, stamp: &FileStamp) -> Entry {
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

/// The path a message shall have; a name that no disk holds is the message's problem.
fn target(folder: &FolderRow, unique: &Unique, info: &Info, in_new: bool) -> Step<Vec<u8>> {
    match protocol::name::join(unique, info) {
        Ok(name) => Ok(join(&folder.dir, &[subdir(in_new), &name])),
        Err(error) => Err(Stop::Outcome(Outcome::Failed {
            why: error.to_string(),
        })),
    }
}
