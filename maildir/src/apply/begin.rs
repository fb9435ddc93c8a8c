//! What a batch is about to do, recorded before it does it: in the index for the next run, and in the trash's log.

use std::os::unix::ffi::OsStringExt;

use protocol::message::{At, NewBody, Reason};
use protocol::{Digest, Entry, Op};

use super::lookup::{Lookup, Message};
use super::naming::{Target, entry_of};
use super::op::{counts, is_trashing, trashed};
use super::pending::{Arriving, Changing, Leaving, Pending, Replaces};
use super::prepare::{Ready, TmpFile};
use super::site::Site;
use crate::error::Result;
use crate::path::split_path;
use crate::root::Root;
use crate::stamp::FileStamp;
use crate::trash::{Label, Trash, reason_text};

/// An operation that stands in the index as begun, if it can be carried out at all.
pub(crate) struct Begun<'op> {
    pub(crate) op: &'op Op,
    pub(crate) ready: Ready,
    pub(crate) in_trash: InTrash,
}

/// The place in the trash of what an operation takes away.
pub(crate) enum InTrash {
    /// It takes nothing away.
    Nothing,
    /// It will lie there under this name.
    Named(String),
    /// The trash cannot be written, so nothing is taken away (I6).
    Closed { why: String },
}

impl InTrash {
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            InTrash::Named(name) => Some(name),
            InTrash::Nothing | InTrash::Closed { .. } => None,
        }
    }

    /// The path in the trash.
    fn path(&self, trash: &Trash) -> Option<Vec<u8>> {
        let path = |name| trash.path(name).into_os_string().into_vec();
        self.name().map(path)
    }
}

/// Records a batch in the trash's log and in the index.
pub(crate) fn begin<'op>(
    lookup: &Lookup,
    site: &mut Site,
    ops: &'op [Op],
    ready: Vec<Ready>,
) -> Result<Vec<Begun<'op>>> {
    lookup.index.begin()?;
    let in_trash = announce(lookup, site.trash, ops);
    let all = ops.iter().zip(ready).zip(in_trash);
    let batch = all.map(|((op, ready), in_trash)| Begun {
        op,
        ready,
        in_trash,
    });
    let batch: Vec<_> = batch.collect();
    let mut pending = Vec::new();
    for begun in &batch {
        pending.extend(pending_of(lookup, site, begun)?);
    }
    if pending.is_empty() {
        lookup.index.rollback();
        return Ok(batch);
    }
    let pending = protocol::codec::encode_state(&pending);
    lookup.index.put_pending(&pending)?;
    lookup.index.commit()?;
    Ok(batch)
}

/// Announces to the trash what the batch may take away.
fn announce(lookup: &Lookup, trash: &mut Trash, ops: &[Op]) -> Vec<InTrash> {
    let taking = ops.iter().filter(|op| is_trashing(op));
    let labels: Result<Vec<Label>> = taking.map(|op| label_of(lookup, op)).collect();
    let names = labels.and_then(|labels| match labels.is_empty() {
        true => Ok(Vec::new()),
        false => trash.announce(&labels),
    });
    let mut names = names.map(Vec::into_iter);
    let in_trash = ops.iter().map(|op| match &mut names {
        _ if !is_trashing(op) => InTrash::Nothing,
        Ok(names) => names.next().map_or(InTrash::Nothing, InTrash::Named),
        Err(error) => InTrash::Closed {
            why: error.to_string(),
        },
    });
    in_trash.collect()
}

/// What the trash's log says of what an operation takes away.
fn label_of(lookup: &Lookup, op: &Op) -> Result<Label> {
    let mut label = Label::default();
    if let Some((at, reason)) = trashed(op) {
        label.folder = at.folder.as_bytes().to_vec();
        label.name = at.unique.as_bytes().to_vec();
        label.reason = Some(reason_text(reason));
        if let Some(message) = lookup.message_at(at)? {
            let entry = &message.row.entry;
            label.name.extend_from_slice(entry.info.as_bytes());
            (label.in_new, label.digest) = (entry.in_new, Some(entry.digest));
            if entry.damaged && reason == Reason::Replaced {
                label.reason = Some(reason_text(Reason::Damaged));
            }
        }
    } else if let Op::RemoveFolder { dir, .. } = op {
        label.folder = dir.as_bytes().to_vec();
    }
    Ok(label)
}

/// What the index shall remember of an operation; nothing of one that cannot be begun.
fn pending_of(lookup: &Lookup, site: &Site, begun: &Begun) -> Result<Option<Pending>> {
    let (root, op) = (site.root(), begun.op);
    let file = begun.ready.file().ok();
    let trashed = begun.in_trash.path(site.trash);
    Ok(match op {
        Op::Create {
            at,
            in_new,
            info,
            body,
        } => file.zip(lookup.folder_of(at)).map(|(file, folder)| {
            let entry = entry_of(*in_new, info.clone(), body, &file.stamp);
            Pending::Create(arriving(at, folder.id, entry, file))
        }),
        Op::Update { body: Some(_), .. } if file.is_none() => None,
        Op::Update {
            at,
            expect,
            to,
            in_new,
            flags,
            body,
            consent: _,
        } => {
            let target = Target::new(to, *in_new, *flags);
            let bytes = body.as_ref().zip(file);
            let replaces = bytes.map(|(body, file)| replaces(at, body, file, trashed, counts(op)));
            let changing = changing(lookup, root, at, &target, expect.digest, replaces)?;
            Some(Pending::Update(changing))
        }
        Op::Retire { at, .. } => {
            let message = lookup.message_at(at)?;
            let taken = message.zip(trashed);
            taken.map(|(message, trashed)| {
                Pending::Retire(leaving(root, &message, trashed, counts(op)))
            })
        }
        Op::RenameFolder { number, .. } | Op::RemoveFolder { number, .. } => {
            let dir = lookup.folder(*number).map(|folder| folder.dir.clone());
            dir.map(|dir| Pending::Folder { dir, trashed })
        }
        Op::MakeFolder { dir } => Some(Pending::MakeFolder {
            dir: dir.as_bytes().to_vec(),
        }),
    })
}

fn arriving(at: &At, folder: u32, entry: Entry, file: &TmpFile) -> Arriving {
    Arriving {
        tmp: file.path.clone(),
        folder,
        unique: at.unique.clone(),
        copy: at.copy,
        entry,
    }
}

fn replaces(
    at: &At,
    body: &NewBody,
    file: &TmpFile,
    trashed: Option<Vec<u8>>,
    counts: bool,
) -> Replaces {
    Replaces {
        tmp: file.path.clone(),
        ino: file.stamp.ino,
        digest: body.digest,
        folder: at.folder.as_bytes().to_vec(),
        name: at.unique.as_bytes().to_vec(),
        trashed,
        counts,
    }
}

/// Where a message lies that shall be changed, and where it shall lie. It may not be there yet: another operation of the batch
/// brings it.
fn changing(
    lookup: &Lookup,
    root: &Root,
    at: &At,
    target: &Target,
    digest: Digest,
    replaces: Option<Replaces>,
) -> Result<Changing> {
    let (mut from, mut to, mut stamp) = (Vec::new(), Vec::new(), None);
    if let (Some(message), Some(folder)) = (lookup.message_at(at)?, lookup.folder_of(target.to)) {
        from = message.path();
        let info = target.info(&message.row);
        to = target.path(&folder.dir, &info).unwrap_or_default();
        stamp = root.file_stamp(&from).ok();
    }
    let there = match split_path(&from).0 == split_path(&to).0 {
        true => None,
        false => root.file_stamp(&to).ok(),
    };
    Ok(Changing {
        from,
        to,
        ino: stamp.map(|stamp| stamp.ino),
        ctime_ns: stamp.unwrap_or_default().ctime_ns,
        digest,
        there: there.map(|there| there.ino),
        replaces,
    })
}

fn leaving(root: &Root, message: &Message, trashed: Vec<u8>, counts: bool) -> Leaving {
    let (path, row) = (message.path(), &message.row);
    let stamp = root.file_stamp(&path).unwrap_or(row.stamp);
    let stamp = FileStamp {
        ino: row.stamp.ino,
        ..stamp
    };
    Leaving {
        folder: message.folder.id,
        unique: row.unique.clone(),
        copy: row.copy,
        path,
        stamp,
        trashed,
        counts,
    }
}
