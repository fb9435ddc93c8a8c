//! What the merge may look up of what both sides agreed on, and what it knows of where a message is stored.
//!
//! Values only: the archive implements [`Agreed`], a test may with a map.

use protocol::Digest;
use serde::{Deserialize, Serialize};

use crate::merge::record::{Fid, Place, Record, Side, State};

/// The agreed messages, to be read only.
pub trait Agreed {
    /// Why they cannot be read.
    type Error;

    /// The one at a place.
    ///
    /// # Errors
    /// When it cannot be read.
    fn at(&self, place: &Place) -> Result<Option<Record>, Self::Error>;

    /// All in a folder, in order of (unique, copy).
    ///
    /// # Errors
    /// When they cannot be read.
    fn in_folder(&self, folder: Fid) -> Result<Vec<Record>, Self::Error>;

    /// All with these bytes.
    ///
    /// # Errors
    /// When they cannot be read.
    fn with_digest(&self, digest: &Digest) -> Result<Vec<Record>, Self::Error>;

    /// Whether there are none.
    ///
    /// # Errors
    /// When that cannot be read.
    fn is_none(&self) -> Result<bool, Self::Error>;
}

/// Where a record is stored.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Stored {
    /// Nowhere yet.
    #[default]
    Nowhere,
    /// Among the agreed ones, under its place.
    Agreed(Place),
    /// Among the pending ones, under its number.
    Pending(i64),
}

/// What was asked of a side for one message, before it is known whether it happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Of which side.
    pub side: Side,
    /// Where the record was stored then.
    pub stored: Stored,
    /// The record then.
    pub record: Record,
    /// What the message shall be on that side; `None` for gone.
    pub target: Option<State>,
}
