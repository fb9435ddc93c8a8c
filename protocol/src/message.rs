//! What the two ends say to each other: the hello, requests, operations and answers.
//!
//! The client asks, the agent answers; `docs/protocol.md` gives the order. Bodies travel as raw frames between messages
//! ([`crate::frame`]): after [`Request::Apply`] one body for each operation whose source is [`Source::Body`], in order;
//! after [`Request::Fetch`] one body or [`Response::NoBody`] for each line, in order.

use serde::{Deserialize, Serialize};

use crate::entry::{Change, FolderChange};
use crate::fingerprint::Fingerprint;
use crate::{Cursor, Digest, ReplicaId, Unique};

mod op;

pub use op::{At, Consent, Expect, NewBody, Op, Outcome, Reason, Source};

/// The feature by which a client that has nothing yet gets messages and bodies together, as the agent reads them: see
/// [`Request::Stream`].
pub const STREAM: u64 = 1;

/// The feature by which a conversation has several rounds: see [`Request::Round`].
pub const ROUNDS: u64 = 2;

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
    /// The client is through, or with this round where [`ROUNDS`] are served; answered by [`Response::Finished`].
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
    /// Asks for the next round after [`Response::Finished`], with a hello whose path and versions say nothing any more. It waits until
    /// something changed that the hello's cursor does not cover, and is then answered like the hello at the beginning. Only while
    /// [`ROUNDS`] are served.
    Round(Box<Hello>),
    /// Lets the round that waits begin, whether or not there is news; means nothing where it has begun.
    Begin {
        /// Look at a slice of all files, too, as a run of its own does, and not only at what changed in directories.
        whole: bool,
    },
    /// Asks whether the agent is alive, while a round waits; answered by [`Response::Alive`]. Means nothing where the round has begun,
    /// which answers it.
    Ping,
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
    /// The explicit end, of a round where [`ROUNDS`] are served; else nothing follows.
    Finished {
        /// How far the client knows the replica, its own changes included.
        cursor: Cursor,
    },
    /// A round waits, and how the agent will hear of changes: empty where the system reports them, else why it looks at the tree now and
    /// then instead, for people. Said for each round that waits, and again when that is another way.
    Waits {
        /// Why it does not hear of them.
        #[serde(deserialize_with = "crate::bytes::escaped")]
        polling: String,
    },
    /// It is there; the answer to [`Request::Ping`].
    Alive,
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
