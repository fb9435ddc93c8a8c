//! What a message is after an operation: its info, its path, its entry.

use protocol::message::{At, NewBody};
use protocol::{Entry, Flags, Info, Unique, name};

use super::step::{Step, failed};
use crate::index::FileRow;
use crate::path::{join, subdir};
use crate::stamp::FileStamp;

/// What a message that is there shall become.
pub(crate) struct Target<'op> {
    pub(crate) to: &'op At,
    pub(crate) in_new: bool,
    flags: Flags,
}

impl<'op> Target<'op> {
    pub(crate) fn new(to: &'op At, in_new: bool, flags: Flags) -> Target<'op> {
        Target { to, in_new, flags }
    }

    /// The info that a message gets with its new flags and perhaps another unique name.
    pub(crate) fn info(&self, row: &FileRow) -> Info {
        let mut info = row.entry.info.with_flags(self.flags);
        if row.entry.in_new && !self.in_new && info == Info::default() {
            info = Info::of(self.flags); // Readers of `cur` expect an info; `new` has none.
        }
        // One that says nothing is left out where there is no room for it.
        let is_too_long = name::join(&self.to.unique, &info).is_err();
        if is_too_long && info == Info::of(Flags::default()) {
            info = Info::default();
        }
        info
    }

    /// Its path in a folder's directory.
    pub(crate) fn path(&self, dir: &[u8], info: &Info) -> Step<Vec<u8>> {
        path_in(dir, self.in_new, &self.to.unique, info)
    }
}

/// The path of a message in a folder's directory; a name that no disk holds is the message's problem.
pub(crate) fn path_in(dir: &[u8], in_new: bool, unique: &Unique, info: &Info) -> Step<Vec<u8>> {
    match name::join(unique, info) {
        Ok(name) => Ok(join(dir, &[subdir(in_new), &name])),
        Err(error) => failed(error.to_string()),
    }
}

pub(crate) fn entry_of(in_new: bool, info: Info, body: &NewBody, stamp: &FileStamp) -> Entry {
    let damaged = body.size == 0;
    Entry {
        in_new,
        info,
        digest: body.digest,
        size: body.size,
        mtime_ns: stamp.mtime_ns,
        damaged,
    }
}
