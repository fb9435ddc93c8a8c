//! What was begun, as the index remembers it until the batch has ended.
//!
//! The order of the fields is the stored format; `index` has a fixture of it.

use crate::path::{join, split_path, subdir};
use crate::stamp::FileStamp;
use protocol::{Digest, Entry, Unique};
use serde::{Deserialize, Serialize};

/// An operation that was begun.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Pending {
    /// A message shall appear from `tmp`.
    Create(Arriving),
    /// A message shall get another name, other bytes, or both.
    Update(Changing),
    /// A message shall go to the trash.
    Retire(Leaving),
    /// A folder shall be made.
    MakeFolder { dir: Vec<u8> },
    /// A folder shall be renamed or removed, whose messages may be set aside for a moment.
    Folder {
        dir: Vec<u8>,
        /// Where its directory will lie in the trash.
        trashed: Option<Vec<u8>>,
    },
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Arriving {
    pub(crate) tmp: Vec<u8>,
    pub(crate) folder: u32,
    pub(crate) unique: Unique,
    pub(crate) copy: u16,
    pub(crate) entry: Entry,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Changing {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
    /// Its inode; none where it is not there yet: another operation of the batch brings it.
    #[serde(with = "zero")]
    pub(crate) ino: Option<u64>,
    pub(crate) ctime_ns: i64,
    /// The bytes that it has.
    pub(crate) digest: Digest,
    /// The inode of what lay under the new name, in another directory.
    #[serde(with = "zero")]
    pub(crate) there: Option<u64>,
    pub(crate) replaces: Option<Replaces>,
}

/// The file in `tmp` shall be exchanged with a message, whose old version then goes to the trash.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Replaces {
    pub(crate) tmp: Vec<u8>,
    /// Its inode.
    pub(crate) ino: u64,
    pub(crate) digest: Digest,
    pub(crate) folder: Vec<u8>,
    pub(crate) name: Vec<u8>,
    /// Where the old version will lie in the trash, if it goes there.
    #[serde(with = "empty")]
    pub(crate) trashed: Option<Vec<u8>>,
    /// It counts for the guard.
    pub(crate) counts: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Leaving {
    pub(crate) folder: u32,
    pub(crate) unique: Unique,
    pub(crate) copy: u16,
    pub(crate) path: Vec<u8>,
    pub(crate) stamp: FileStamp,
    /// Where its file will lie in the trash.
    pub(crate) trashed: Vec<u8>,
    /// It counts for the guard.
    pub(crate) counts: bool,
}

impl Pending {
    /// Whether it counts for the guard, if it happened.
    pub(crate) fn counts(&self) -> bool {
        match self {
            Pending::Create(_) | Pending::MakeFolder { .. } | Pending::Folder { .. } => false,
            Pending::Update(Changing { replaces, .. }) => {
                replaces.as_ref().is_some_and(|replaces| replaces.counts)
            }
            Pending::Retire(leaving) => leaving.counts,
        }
    }

    /// What it brought into `tmp`.
    pub(crate) fn tmp(&self) -> Option<Vec<u8>> {
        match self {
            Pending::Create(arriving) => Some(arriving.tmp.clone()),
            Pending::Update(Changing { replaces, .. }) => {
                replaces.as_ref().map(|replaces| replaces.tmp.clone())
            }
            Pending::Retire(_) | Pending::MakeFolder { .. } | Pending::Folder { .. } => None,
        }
    }

    /// Paths in the `cur` or `new` of the folders that it is about.
    pub(crate) fn paths(&self) -> Vec<Vec<u8>> {
        let both_of = |dir: &[u8]| [true, false].map(|in_new| join(dir, &[subdir(in_new), b"."]));
        let mut paths = match self {
            Pending::Create(arriving) => {
                let (dir, _) = split_path(split_path(&arriving.tmp).0);
                both_of(dir).into()
            }
            Pending::Update(Changing { from, to, .. }) => vec![from.clone(), to.clone()],
            Pending::Retire(leaving) => vec![leaving.path.clone()],
            Pending::MakeFolder { .. } => Vec::new(),
            Pending::Folder { dir, .. } => both_of(dir).into(),
        };
        paths.retain(|path| !path.is_empty());
        paths
    }
}

/// An inode, stored as 0 where there is none.
mod zero {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(ino: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        ino.unwrap_or(0).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        Ok(Some(u64::deserialize(from)?).filter(|ino| *ino != 0))
    }
}

/// A path, stored as an empty one where there is none.
mod empty {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        path: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        path.as_deref().unwrap_or_default().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Some(Vec::deserialize(from)?).filter(|path| !path.is_empty()))
    }
}
