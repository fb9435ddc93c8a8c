//! What a batch is about to do, recorded before it does it: in the index for the next run, and in the trash's log.

use std::os::unix::ffi::OsStringExt;

use protocol::message::{At, Reason};
use protocol::{Digest, Entry, Op, Unique};
use serde::{Deserialize, Serialize};

use crate::apply::{Applier, entry_of, info_after, target};
use crate::error::Result;
use crate::folder_scan::path as path_of;
use crate::listing::subdir;
use crate::op::{counts, is_trashing, trashed};
use crate::prepare::Ready;
use crate::root::{join, split_path};
use crate::stamp::FileStamp;
use crate::trash::{Label, reason_text};

/// The file in `tmp` shall be exchanged with a message, whose old version then goes to the trash.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Replaces {
    pub(crate) tmp: Vec<u8>,
    /// Its inode.
    pub(crate) ino: u64,
    pub(crate) digest: Digest,
    pub(crate) folder: Vec<u8>,
    pub(crate) name: Vec<u8>,
    /// Where the old version will lie in the trash; empty where it does not go there.
    pub(crate) trashed: Vec<u8>,
    /// It counts for the guard.
    pub(crate) counts: bool,
}

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
    /// A message shall get another name, other bytes, or both.
    Update {
        from: Vec<u8>,
        to: Vec<u8>,
        /// 0 where the message is not there yet: another operation of the batch brings it.
        ino: u64,
        ctime_ns: i64,
        /// The bytes that it has.
        digest: Digest,
        /// The inode of what lay under the new name, in another directory; 0 where nothing did.
        there: u64,
        replaces: Option<Replaces>,
    },
    /// A message shall go to the trash.
    Retire {
        folder: u32,
        unique: Unique,
        copy: u16,
        path: Vec<u8>,
        stamp: FileStamp,
        /// Where its file will lie in the trash.
        trashed: Vec<u8>,
        /// It counts for the guard.
        counts: bool,
    },
    /// A folder shall be made.
    MakeFolder { dir: Vec<u8> },
    /// A folder shall be renamed or removed, whose messages may be set aside for a moment.
    Folder {
        dir: Vec<u8>,
        /// Where its directory will lie in the trash.
        trashed: Option<Vec<u8>>,
    },
}

impl Pending {
    /// Whether it counts for the guard, if it happened.
    pub(crate) fn counts(&self) -> bool {
        match self {
            Pending::Create { .. } | Pending::MakeFolder { .. } | Pending::Folder { .. } => false,
            Pending::Update { replaces, .. } => {
                replaces.as_ref().is_some_and(|replaces| replaces.counts)
            }
            Pending::Retire { counts, .. } => *counts,
        }
    }
}

impl Pending {
    /// What it brought into `tmp`.
    pub(crate) fn tmp(&self) -> Option<Vec<u8>> {
        match self {
            Pending::Create { tmp, .. } => Some(tmp.clone()),
            Pending::Update { replaces, .. } => {
                replaces.as_ref().map(|replaces| replaces.tmp.clone())
            }
            Pending::Retire { .. } | Pending::MakeFolder { .. } | Pending::Folder { .. } => None,
        }
    }

    /// Paths in the `cur` or `new` of the folders that it is about.
    pub(crate) fn paths(&self) -> Vec<Vec<u8>> {
        let paths = match self {
            Pending::Create { tmp, .. } => {
                let (dir, _) = split_path(split_path(tmp).0);
                [true, false]
                    .map(|in_new| join(dir, &[subdir(in_new), b"."]))
                    .into()
            }
            Pending::Update { from, to, .. } => vec![from.clone(), to.clone()],
            Pending::Retire { path, .. } => vec![path.clone()],
            Pending::MakeFolder { .. } => Vec::new(),
            Pending::Folder { dir, .. } => [true, false]
                .map(|in_new| join(dir, &[subdir(in_new), b"."]))
                .into(),
        };
        paths.into_iter().filter(|path| !path.is_empty()).collect()
    }
}

impl Applier<'_> {
    /// Records the batch in the index; returns the names that its files get in the trash.
    pub(crate) fn record(&mut self, ops: &[Op], ready: &[Ready]) -> Result<Vec<String>> {
        let mut pending = Vec::new();
        self.index.begin()?;
        let names = self.announce(ops).unwrap_or_else(|error| {
            // Then nothing is deleted or replaced, and all else goes on (I6).
            self.trash_failed = Some(error.to_string());
            Vec::new()
        });
        let mut trash_names = names.iter();
        for (op, ready) in ops.iter().zip(ready) {
            let name = is_trashing(op).then(|| trash_names.next()).flatten();
            let begun = match op {
                Op::Create { .. } => self.begun_create(op, ready),
                Op::Update { .. } => self.begun_update(op, ready, name)?,
                Op::Retire { at, .. } => self.begun_retire(at, counts(op), name)?,
                Op::RenameFolder { number, .. } | Op::RemoveFolder { number, .. } => {
                    self.begun_folder(*number, name)
                }
                Op::MakeFolder { dir } => Some(Pending::MakeFolder {
                    dir: dir.as_bytes().to_vec(),
                }),
            };
            pending.extend(begun);
        }
        if pending.is_empty() {
            self.index.rollback();
            return Ok(names);
        }
        self.index
            .put_pending(&protocol::codec::encode_state(&pending))?;
        self.index.commit()?;
        Ok(names)
    }

    fn begun_create(&self, op: &Op, ready: &Ready) -> Option<Pending> {
        let (
            Op::Create {
                at,
                in_new,
                info,
                body,
            },
            Ready::Written { tmp, stamp, .. },
        ) = (op, ready)
        else {
            return None;
        };
        let folder = self.folder_of(at)?;
        Some(Pending::Create {
            tmp: tmp.clone(),
            folder: folder.id,
            unique: at.unique.clone(),
            copy: at.copy,
            entry: entry_of(*in_new, info.clone(), body, stamp),
        })
    }

    fn begun_update(
        &self,
        op: &Op,
        ready: &Ready,
        name: Option<&String>,
    ) -> Result<Option<Pending>> {
        let Op::Update {
            at,
            expect,
            to,
            in_new,
            flags,
            body,
            ..
        } = op
        else {
            return Ok(None);
        };
        let replaces = match (body, ready) {
            (None, _) => None,
            (Some(body), Ready::Written { tmp, stamp, .. }) => Some(Replaces {
                tmp: tmp.clone(),
                ino: stamp.ino,
                digest: body.digest,
                folder: at.folder.as_bytes().to_vec(),
                name: at.unique.as_bytes().to_vec(),
                trashed: name.map_or_else(Vec::new, |name| self.in_trash(name)),
                counts: counts(op),
            }),
            (Some(_), Ready::Plain | Ready::No(_)) => return Ok(None), // It is not begun at all.
        };
        let (mut from, mut target_path, mut stamp) = (Vec::new(), Vec::new(), None);
        let target_folder = self.folder_of(to);
        if let (Some((folder, row)), Some(target_folder)) = (self.row_at(at)?, target_folder) {
            from = path_of(&folder.dir, &row);
            let info = info_after(&row, &to.unique, *in_new, *flags);
            target_path = target(target_folder, &to.unique, &info, *in_new).unwrap_or_default();
            stamp = self.root.file_stamp(&from).ok();
        }
        let stamp = stamp.unwrap_or_default();
        let there = match split_path(&from).0 == split_path(&target_path).0 {
            true => None,
            false => self.root.file_stamp(&target_path).ok(),
        };
        Ok(Some(Pending::Update {
            from,
            to: target_path,
            ino: stamp.ino,
            ctime_ns: stamp.ctime_ns,
            digest: expect.digest,
            there: there.map_or(0, |there| there.ino),
            replaces,
        }))
    }

    fn begun_retire(
        &self,
        at: &At,
        counts: bool,
        name: Option<&String>,
    ) -> Result<Option<Pending>> {
        let Some(name) = name else { return Ok(None) };
        let Some((folder, row)) = self.row_at(at)? else {
            return Ok(None);
        };
        let path = path_of(&folder.dir, &row);
        let stamp = self.root.file_stamp(&path).unwrap_or(row.stamp);
        let stamp = FileStamp {
            ino: row.stamp.ino,
            ..stamp
        };
        Ok(Some(Pending::Retire {
            folder: folder.id,
            unique: row.unique.clone(),
            copy: row.copy,
            path,
            stamp,
            trashed: self.in_trash(name),
            counts,
        }))
    }

    fn in_trash(&self, name: &str) -> Vec<u8> {
        self.trash.path(name).into_os_string().into_vec()
    }

    fn begun_folder(&self, number: u32, name: Option<&String>) -> Option<Pending> {
        let trashed = name.map(|name| self.in_trash(name));
        let dir = self.folder(number)?.dir.clone();
        Some(Pending::Folder { dir, trashed })
    }

    /// Announces to the trash what the batch may take away; one name for each such operation, in order.
    fn announce(&mut self, ops: &[Op]) -> Result<Vec<String>> {
        let mut labels = Vec::new();
        for op in ops.iter().filter(|op| is_trashing(op)) {
            let mut label = Label::default();
            if let Some((at, reason)) = trashed(op) {
                label.folder = at.folder.as_bytes().to_vec();
                label.name = at.unique.as_bytes().to_vec();
                label.reason = Some(reason_text(reason));
                if let Some((_, row)) = self.row_at(at)? {
                    label.name.extend_from_slice(row.entry.info.as_bytes());
                    (label.in_new, label.digest) = (row.entry.in_new, Some(row.entry.digest));
                    if row.entry.damaged && reason == Reason::Replaced {
                        label.reason = Some(reason_text(Reason::Damaged));
                    }
                }
            } else if let Op::RemoveFolder { dir, .. } = op {
                label.folder = dir.as_bytes().to_vec();
            }
            labels.push(label);
        }
        if labels.is_empty() {
            Ok(Vec::new())
        } else {
            self.trash.announce(self.tag, &labels)
        }
    }
}
