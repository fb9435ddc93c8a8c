//! What a replica is asked to do, with what is expected there, and what becomes of it.

use serde::{Deserialize, Serialize};

use crate::fingerprint::Form;
use crate::{Digest, Flags, FolderDir, Info, Unique};
/// A place on the agent's side.
///
/// A folder is known by its number, because its directory may have become another one's since it was reported. A folder that
/// the client has had made in this run has none yet: then the directory is that of such a one, and no other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct At {
    /// The folder's number.
    pub number: Option<u32>,
    /// The folder's directory.
    pub folder: FolderDir,
    /// The unique name.
    pub unique: Unique,
    /// The running number among files of the same unique name, mostly 0.
    pub copy: u16,
}

/// What an operation expects to find at a place; anything else makes it stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Expect {
    /// In `new` or in `cur`.
    pub in_new: bool,
    /// The flags.
    pub flags: Flags,
    /// The bytes.
    pub digest: Digest,
}

/// Where the bytes of a new message or of a replacement come from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Source {
    /// They follow as a body, from this byte on: the replica kept those before it when the link broke.
    Body {
        /// How many bytes the replica has already, see [`super::Response::Partials`].
        offset: u64,
    },
    /// The replica holds them already, in this message.
    Copy(At),
    /// They are made of the message's own bytes; nothing of those is lost.
    Remade(Form),
}

/// Bytes that are to be written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewBody {
    /// Their digest, checked before anything appears.
    pub digest: Digest,
    /// Their number.
    #[serde(deserialize_with = "crate::codec::size")]
    pub size: u64,
    /// The modification time to give the file, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Where they come from.
    pub source: Source,
}

/// One step that changes a replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Makes a folder where there is none.
    MakeFolder {
        /// Its directory.
        dir: FolderDir,
    },
    /// Renames a folder with all that is in it, where the target is free.
    RenameFolder {
        /// Its number.
        number: u32,
        /// Its directory now.
        from: FolderDir,
        /// Its directory then.
        to: FolderDir,
    },
    /// Removes a folder that holds no message.
    RemoveFolder {
        /// Its number.
        number: u32,
        /// Its directory.
        dir: FolderDir,
    },
    /// Adds a message where there is none.
    Create {
        /// Where.
        at: At,
        /// In `new` or in `cur`.
        in_new: bool,
        /// What follows the unique name, verbatim.
        info: Info,
        /// The bytes.
        body: NewBody,
    },
    /// Changes a message: its place, new-or-cur, flags, bytes, or several of them.
    Update {
        /// Where it is.
        at: At,
        /// What it is.
        expect: Expect,
        /// Where it shall be.
        to: At,
        /// Whether it shall lie in `new`.
        in_new: bool,
        /// The flags that it shall have; the rest of its info is kept.
        flags: Flags,
        /// The bytes that it shall have, where they change; the old version goes to the trash.
        body: Option<NewBody>,
        /// How that counts; without new bytes it means nothing.
        consent: Consent,
    },
    /// Takes a message away into the trash.
    Retire {
        /// Where it is.
        at: At,
        /// What it is.
        expect: Expect,
        /// Why, for the trash's log.
        reason: Reason,
        /// How it counts.
        consent: Consent,
    },
}

impl Op {
    /// Whether it is about a folder, and not about a message.
    #[must_use]
    pub fn is_of_folder(&self) -> bool {
        match self {
            Op::MakeFolder { .. } | Op::RenameFolder { .. } | Op::RemoveFolder { .. } => true,
            Op::Create { .. } | Op::Update { .. } | Op::Retire { .. } => false,
        }
    }

    /// The folders that it names.
    pub fn folders(&self) -> impl Iterator<Item = &FolderDir> {
        let (one, other) = match self {
            Op::MakeFolder { dir } | Op::RemoveFolder { dir, .. } => (dir, None),
            Op::RenameFolder { from, to, .. } => (from, Some(to)),
            Op::Create { at, .. } | Op::Retire { at, .. } => (&at.folder, None),
            Op::Update { at, to, .. } => (&at.folder, Some(&to.folder)),
        };
        std::iter::once(one).chain(other)
    }

    /// The places that it names.
    pub fn places(&self) -> impl Iterator<Item = &At> {
        let (one, other) = match self {
            Op::MakeFolder { .. } | Op::RenameFolder { .. } | Op::RemoveFolder { .. } => {
                (None, None)
            }
            Op::Create { at, .. } | Op::Retire { at, .. } => (Some(at), None),
            Op::Update { at, to, .. } => (Some(at), Some(to)),
        };
        let source = self.new_body().and_then(|body| match &body.source {
            Source::Copy(at) => Some(at),
            Source::Body { .. } | Source::Remade(_) => None,
        });
        [one, other, source].into_iter().flatten()
    }

    /// Where the message comes to be that it brings or changes.
    #[must_use]
    pub fn target(&self) -> Option<&At> {
        match self {
            Op::Create { at, .. } => Some(at),
            Op::Update { to, .. } => Some(to),
            Op::MakeFolder { .. }
            | Op::RenameFolder { .. }
            | Op::RemoveFolder { .. }
            | Op::Retire { .. } => None,
        }
    }

    /// The bytes that it brings along, from wherever they come.
    #[must_use]
    pub fn new_body(&self) -> Option<&NewBody> {
        match self {
            Op::Create { body, .. } => Some(body),
            Op::Update { body, .. } => body.as_ref(),
            Op::MakeFolder { .. }
            | Op::RenameFolder { .. }
            | Op::RemoveFolder { .. }
            | Op::Retire { .. } => None,
        }
    }

    /// The bytes of it that follow the batch, one body each.
    #[must_use]
    pub fn wired(&self) -> Option<&NewBody> {
        self.new_body()
            .filter(|body| matches!(body.source, Source::Body { .. }))
    }

    /// Whether its new bytes are made of what lies there already.
    #[must_use]
    pub fn copies(&self) -> bool {
        self.new_body().is_some() && self.wired().is_none()
    }
}

/// How a deletion or replacement counts where it happens. Nobody else takes it for anybody's consent: each client's guard
/// asks for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Consent {
    /// Nobody was asked: it counts for the guard of every client that deletes here in the next 24 hours.
    Counts,
    /// It does not count: a person confirmed it, or the run was without any guard.
    Free,
}

/// Why a message went to the trash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reason {
    /// It was deleted on the other side.
    Deleted,
    /// It was moved on the other side into a folder that is excluded here.
    Excluded,
    /// It was replaced by an edited version.
    Replaced,
    /// It was damaged and the good version came back.
    Damaged,
}

/// What became of an operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It happened, and has this number in the replica's journal (0 where it made no entry).
    Done {
        /// The journal's number.
        seq: u64,
    },
    /// It was not what was expected; the message waits for the next run.
    Stale,
    /// The rights do not allow it.
    Denied,
    /// It could not be done; the rest goes on.
    Failed {
        /// What is the matter, for people.
        #[serde(deserialize_with = "crate::bytes::escaped")]
        why: String,
    },
    /// The disk or quota is full or the file system read-only; nothing more should be added.
    Full {
        /// The system's error, for people.
        #[serde(deserialize_with = "crate::bytes::escaped")]
        why: String,
    },
    /// The folder was made, and has this number in the replica's journal.
    Made {
        /// The replica's own number of it.
        folder: u32,
    },
    /// Another message has the name that it should get.
    Taken,
}
