//! Why a difference between the sides is not brought over in this run.

use crate::merge::record::Side;

/// Why a difference was not brought over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Why {
    /// Too many deletions at once, or others than those that were confirmed.
    Guard,
    /// Deletions are switched off here.
    NoDelete,
    /// The key may not delete.
    RightNoDelete,
    /// The key may only add.
    RightAppend,
    /// The key may change nothing.
    RightRead,
    /// The command does not change that side.
    Unchanged(Side),
    /// The folder is not among those that were chosen.
    NotChosen,
    /// Another folder has its name on that side, or a folder cannot have it.
    NoPlace(Side),
    /// Its body is too large for the network.
    Large,
    /// The side that should give the bytes has damaged ones.
    NoGoodCopy,
    /// The disk of that side takes no more.
    Full(Side),
    /// It could not be done, and is reported by itself.
    Failed,
    /// A folder that is to go holds what waits.
    Filled,
    /// It changed while the run was under way.
    Changed,
    /// The run ended before.
    Unreached,
}
