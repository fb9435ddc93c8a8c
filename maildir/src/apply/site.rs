//! What a batch changes on disk.

use crate::error::{Context, Result};
use crate::held::Held;
use crate::inbox::Inbox;
use crate::root::Root;
use crate::trash::Trash;

/// The directories of a tree, the way into their `tmp`, and the trash, while a batch is carried out or put in order.
pub(crate) struct Site<'a> {
    pub(crate) held: Held<'a>,
    pub(crate) inbox: &'a mut Inbox,
    pub(crate) trash: &'a mut Trash,
}

impl<'a> Site<'a> {
    pub(crate) fn new(root: &'a Root, inbox: &'a mut Inbox, trash: &'a mut Trash) -> Site<'a> {
        let held = Held::new(root);
        Site { held, inbox, trash }
    }

    pub(crate) fn root(&self) -> &'a Root {
        self.held.root()
    }

    /// Makes all names that were given and taken durable.
    pub(crate) fn flush(&self) -> Result<()> {
        let flushed = self.held.flush().and_then(|()| self.trash.sync());
        flushed.context("flush", self.root().path())
    }
}
