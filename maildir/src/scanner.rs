//! What a scan knows of the tree while it goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use protocol::Unique;
use protocol::message::Problem;

use crate::error::Result;
use crate::granularity::granularity_ns;
use crate::index::{FileRow, FolderRow, Index};
use crate::pairing::Ahead;
use crate::root::Root;
use crate::stamp::FileStamp;
use crate::time::now_ns;
use crate::unseen::Unseen;
use crate::watch::WRITING;

/// One scan in progress.
pub(crate) struct Scanner<'a> {
    pub(crate) root: &'a Root,
    pub(crate) index: &'a Index,
    /// Read and hash everything, whatever the stamps say.
    pub(crate) checksum: bool,
    /// Somebody watches the tree, and looks again once what is being written has been left alone.
    pub(crate) is_watched: bool,
    /// Take the tree as it is, also without the INBOX that it had.
    pub(crate) adopt: bool,
    pub(crate) granularity_ns: i64,
    /// Unique names of what is there but could not be looked at or hashed, and where.
    pub(crate) unhashed: HashMap<Unique, String>,
    /// What the last reading of each folder missed.
    pub(crate) missing: BTreeMap<u32, Vec<FileRow>>,
    /// Places that could not be looked at.
    pub(crate) unseen: Unseen,
    /// Folders that moved under their last listing.
    pub(crate) unsettled: BTreeSet<u32>,
    /// Whether anything had changed in the last pass since the one before it.
    pub(crate) has_moved: bool,
    pub(crate) folders: Vec<FolderRow>,
    /// The first rows of a folder, read while it was listed.
    pub(crate) ahead: Option<Ahead>,
    pub(crate) vanished: BTreeSet<u32>,
    /// Folders that are found no more and may be there all the same.
    pub(crate) unknown: BTreeSet<u32>,
    pub(crate) tree_problems: Vec<Problem>,
    /// Paths of the problems for which something that is missing waits.
    pub(crate) holding: HashSet<String>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(
        root: &'a Root,
        index: &'a Index,
        checksum: bool,
        adopt: bool,
    ) -> Result<Scanner<'a>> {
        Ok(Scanner {
            root,
            index,
            checksum,
            is_watched: false,
            adopt,
            granularity_ns: granularity_ns(root),
            unhashed: HashMap::new(),
            missing: BTreeMap::new(),
            unseen: Unseen::load(index)?,
            unsettled: BTreeSet::new(),
            has_moved: false,
            folders: index.folders()?,
            ahead: None,
            vanished: BTreeSet::new(),
            unknown: BTreeSet::new(),
            tree_problems: Vec::new(),
            holding: HashSet::new(),
        })
    }

    /// Whether a file that is not as its row says may only be half written.
    pub(crate) fn is_being_written(&self, stamp: &FileStamp) -> bool {
        let age_ns = now_ns().saturating_sub(stamp.ctime_ns);
        self.is_watched && (0..WRITING.as_nanos() as i64).contains(&age_ns)
    }
}
