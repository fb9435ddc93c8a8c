//! What a batch is about to do, recorded before it does it: in the index for the next run, and in the trash's log.

use protocol::message::Reason;
use protocol::{Digest, Entry, Op, Unique};
use serde::{Deserialize, Serialize};

use crate::apply::{Applier, entry_of, is_trashing, trashed};
use crate::error::Result;
use crate::folder_scan::path as path_of;
use crate::prepare::Ready;
use crate::trash::Label;

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

impl Applier<'_> {
    pub(crate) fn record(&mut self, ops: &[Op], ready: &[Ready]) -> Result<Vec<String>> {
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
}
