//! Where folders lie, for a thread that writes bodies while the replica is busy.

use std::collections::HashMap;

use protocol::message::At;

use crate::discover::check_dir;

/// The directories of folders as they were at one moment.
#[derive(Debug)]
pub struct Places {
    pub(crate) dirs: HashMap<u32, Vec<u8>>,
}

impl Places {
    /// The directory of a message's folder, if it is known.
    #[must_use]
    pub fn dir(&self, at: &At) -> Option<Vec<u8>> {
        match at.number {
            Some(number) => self.dirs.get(&number).cloned(),
            None => check_dir(&at.folder)
                .ok()
                .map(|()| at.folder.as_bytes().to_vec()),
        }
    }
}
