//! What two builds of maildir-sync must agree on: the nouns of a Maildir and the wire between both ends.
//!
//! Works on values, slices and byte streams that it is handed. It must never know of files, processes, clocks,
//! environments or runtimes; `docs/protocol.md` describes the same things for another language. Start reading at
//! [`entry`], then [`message`], then [`frame`].

pub mod bytes;
pub mod codec;
mod digest;
pub mod entry;
pub mod fingerprint;
mod flags;
pub mod folder;
pub mod frame;
pub mod handshake;
mod identity;
mod keywords;
pub mod message;
pub mod name;
pub mod pace;

pub use digest::Digest;
pub use entry::{Change, Entry, FolderChange};
pub use fingerprint::Fingerprint;
pub use flags::Flags;
pub use folder::FolderDir;
pub use identity::{Cursor, IndexId, ReplicaId, Tag};
pub use keywords::{Keyword, Keywords};
pub use message::{Op, Outcome, Request, Response};
pub use name::{Info, Unique};

/// Why bytes from the peer, or a name from disk, were not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name holds what no file of a Maildir may be called.
    #[error("Invalid {what} {name:?}: {why}")]
    Name {
        /// Which noun was being made.
        what: &'static str,
        /// The offending bytes, escaped.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A value did not decode, or had bytes left over.
    #[error("Malformed message: {0}")]
    Malformed(String),
    /// A length from the wire is over its limit.
    #[error("{what} of {got} bytes is over the limit of {limit}")]
    TooLong {
        /// Which length.
        what: &'static str,
        /// What the peer claimed.
        got: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The other end said no in the handshake, or was not our agent at all.
    #[error(transparent)]
    Handshake(#[from] handshake::HandshakeError),
    /// The stream under the frames failed or ended early.
    #[error("Connection lost: {0}")]
    Io(#[from] std::io::Error),
}

/// The result of anything that reads from the peer.
pub type Result<T> = std::result::Result<T, Error>;
