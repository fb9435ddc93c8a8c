//! What the two ends say to each other: the hello, requests, operations and answers.
//!
//! The client asks, the agent answers; `docs/protocol.md` gives the order. Bodies travel as raw frames between messages
//! ([`crate::frame`]): after [`Request::Apply`] one body for each operation whose source is [`Source::Body`], in order;
//! after [`Request::Fetch`] one body or [`Response::NoBody`] for each line, in order.

use serde::{Deserialize, Serialize};

use crate::entry::{Change, FolderChange};
use crate::fingerprint::{Fingerprint, Form};
use crate::{Cursor, Digest, Flags, FolderDir, Info, ReplicaId, Unique};

/// The feature by which a client that has nothing yet gets messages and bodies together, as the agent reads them: see
/// [`Request::Stream`].
pub const STREAM: u64 = 1;

/// What the client says in the word of the command that ssh executes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The lowest and highest protocol version that the client speaks.
    pub versions: (u16, u16),
    /// Bits of optional features that the client wants, as [`STREAM`].
    pub features: u64,
    /// The Maildir that is wanted, as bytes of a path on the server; empty leaves it to the agent's `--root`.
    pub path: PathBytes,
    /// Who asks, for the trash's log.
    #[serde(deserialize_with = "crate::bytes::escaped")]
    pub client: String,
    /// The replica that the client synced with under this address, if any.
    pub expect: Option<ReplicaId>,
    /// From where on changes are wanted; none asks for everything.
    pub cursor: Option<Cursor>,
    /// Write nothing at all.
    pub dry_run: bool,
    /// Trust no cached digest.
    pub checksum: bool,
    /// Take the tree as it is, even if it is not the expected one.
    pub adopt: bool,
    /// After how many seconds without a byte the client gives up while it waits; see [`Response::Busy`].
    pub timeout: u16,
}

/// Bytes of a path; checked where it is opened.
#[derive(Clone, PartialEq, Eq)]
pub struct PathBytes(Box<[u8]>);
crate::bytes::serde_as_bytes!(PathBytes);

impl PathBytes {
    /// Takes a path.
    ///
    /// # Errors
    /// When it holds NUL or is over 1,024 bytes long, which a hello has no room for.
    pub fn new(bytes: &[u8]) -> crate::Result<PathBytes> {
        let why = if bytes.contains(&0) {
            "it holds NUL"
        } else if bytes.len() > 1024 {
            "it is over 1,024 bytes long"
        } else {
            return Ok(PathBytes(bytes.into()));
        };
        Err(crate::Error::Name {
            what: "path",
            name: crate::bytes::escape(bytes),
            why,
        })
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a client may do to the agent's replica, whatever it asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Rights {
    /// Everything.
    All,
    /// Everything but deleting messages and removing folders.
    NoDelete,
    /// New messages, copies and folders.
    AppendOnly,
    /// Nothing.
    ReadOnly,
}

/// The agent's first message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both speak from here on.
    pub version: u16,
    /// Those of them that the agent serves now.
    pub features: u64,
    /// The agent's own version, for people.
    #[serde(deserialize_with = "crate::bytes::escaped")]
    pub agent: String,
    /// What the client may do.
    pub rights: Rights,
    /// The replica's id.
    pub replica: ReplicaId,
    /// Whether the replica had no marker until now.
    pub fresh: bool,
    /// Whether the tree continues the memory that the hello's cursor stands for; `None` where there was no cursor.
    pub continues: Option<bool>,
    /// The root, for messages to people.
    pub root: PathBytes,
}

/// From where the reported changes are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Listing {
    /// Since the hello's cursor.
    Cursor,
    /// Everything that is there; what is not named is not there.
    Everything,
    /// Nothing but digests of folders: the hello's cursor is of another index.
    Digests,
    /// The folders that [`Request::Manifests`] named, everything that is in them.
    Manifests,
    /// The folders that are there, and no message: it is for [`Request::Stream`] to say of which they are wanted. Told
    /// once more before each folder, with the cursor's tag and how many messages there are as far as that is known.
    Folders,
    /// What [`Request::Stream`] named, and that is all of it.
    Stream,
}

/// The end of a list of changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// What the list was.
    pub from: Listing,
    /// The cursor that covers it: everything up to its number was reported.
    pub cursor: Cursor,
    /// Whether every folder was listed without error; otherwise what a list of everything does not name may be there.
    pub complete: bool,
    /// How many messages are missing and may not be called gone: something holds that back, or the tree is busy.
    pub held: u64,
    /// How many messages the replica holds.
    pub messages: u64,
    /// How many were deleted or replaced in the last 24 hours, by any client, that count for the guard.
    pub deleted_lately: u64,
}

/// A message that was left alone, and why.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// The file or folder, for people (escaped).
    #[serde(deserialize_with = "crate::bytes::escaped")]
    pub path: String,
    /// What is the matter with it.
    #[serde(deserialize_with = "crate::bytes::escaped")]
    pub why: String,
    /// Whether messages that are missing elsewhere may be there, so that their deletions wait for it.
    pub holds: bool,
}

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
        /// How many bytes the replica has already, see [`Response::Partials`].
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

/// A body that is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fetch {
    /// Where the message was seen.
    pub at: At,
    /// Its bytes; they are also found elsewhere, after a move.
    pub digest: Digest,
    /// From which byte on, to go on with a broken-off one.
    pub offset: u64,
}

/// What the client asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Everything in these folders, answered like the hello: [`Response::Changes`] … [`Response::Listed`].
    Manifests {
        /// The agent's numbers of the folders.
        folders: Vec<u32>,
    },
    /// Bodies, answered one by one.
    Fetch(Vec<Fetch>),
    /// Whether shorter bytes are the beginning of a message, answered by [`Response::Prefixes`].
    Prefixes(Vec<Prefix>),
    /// Operations, applied as one batch and answered by [`Response::Outcomes`].
    Apply(Vec<Op>),
    /// The client is through; answered by [`Response::Finished`].
    Finish,
    /// What messages have in common with copies that were made over IMAP, answered by [`Response::Fingerprints`] in one
    /// or several messages.
    Fingerprints(Vec<(At, Digest)>),
    /// Messages of these folders, in this order, answered by [`Response::Changes`], each followed by a body or
    /// [`Response::NoBody`] for each of its messages. Goes on with the next such request; one without folders is the last,
    /// answered by [`Response::Listed`]. Only while [`STREAM`] is served, and before anything else.
    Stream {
        /// The folders.
        folders: Vec<Course>,
        /// Bodies that the client has part of: it asks for the rest.
        kept: Vec<Digest>,
    },
}

/// A folder of which all messages are wanted, newest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Course {
    /// The agent's number of it.
    pub folder: u32,
    /// The last message that the client has of it, where it has some.
    pub after: Option<Unique>,
}

/// Asks for the digest of a message's first bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Prefix {
    /// The message.
    pub at: At,
    /// Its bytes.
    pub digest: Digest,
    /// How many bytes of it to hash.
    pub length: u64,
}

/// What the agent answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Response {
    /// The agent serves.
    Welcome(Welcome),
    /// The agent does not serve, and ends.
    Refused(Refusal),
    /// Folders that are new, renamed or gone.
    Folders(Vec<FolderChange>),
    /// Messages that are new, changed or gone.
    Changes(Vec<Change>),
    /// Digests of all live folders, by the agent's numbers.
    Digests(Vec<(u32, Digest)>),
    /// What was left alone.
    Problems(Vec<Problem>),
    /// Bodies that broke off and can be resumed: digest and how many bytes are there.
    Partials(Vec<(Digest, u64)>),
    /// The end of such a list.
    Listed(Listed),
    /// Instead of a body: it is unavailable now; `why` is empty where the message has just vanished.
    NoBody {
        /// What is the matter, for people.
        #[serde(deserialize_with = "crate::bytes::escaped")]
        why: String,
    },
    /// The answer to [`Request::Prefixes`]; `None` where the message is not as described.
    Prefixes(Vec<Option<Digest>>),
    /// What became of a batch, in its order.
    Outcomes(Vec<Outcome>),
    /// Answers to [`Request::Fingerprints`], in its order; `None` where the message is unavailable.
    Fingerprints(Vec<Option<Fingerprint>>),
    /// It is still at work; said when nothing else has been for a while.
    Busy,
    /// The explicit end; nothing follows.
    Finished {
        /// How far the client knows the replica, its own changes included.
        cursor: Cursor,
    },
}

/// Why the agent does not serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// What the client should make of it.
    pub kind: RefusalKind,
    /// One sentence for people: the thing and the remedy.
    #[serde(deserialize_with = "crate::bytes::escaped")]
    pub why: String,
}

/// What the client should make of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RefusalKind {
    /// The request is wrong (exit 2).
    Usage,
    /// Something at the server must be mended first (exit 1).
    Error,
    /// Going on could delete mail (exit 4).
    Unsafe,
    /// Try again later (exit 75).
    Temporary,
}
