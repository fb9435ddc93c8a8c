//! Directories that stay open while a batch is carried out, so that a thousand deliveries resolve `cur` once.
//!
//! A held directory stays the same directory when somebody renames it meanwhile, and is flushed as such: what was put
//! into it is durable wherever it is now. The caller must
//! [`Held::release`] them all before it renames or removes directories.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use crate::durable::sync_dirs;
use crate::path::split_path;
use crate::rename::rename;
use crate::root::{Root, name_in, stamp_in};
use crate::stamp::FileStamp;

/// How many directories are open at once at most.
const HELD_MAX: usize = 64;

/// The held directories of a root, and those that are to be flushed.
pub(crate) struct Held<'a> {
    root: &'a Root,
    open: RefCell<HashMap<Vec<u8>, Rc<OwnedFd>>>,
    /// Those in which names were given or taken.
    dirty: RefCell<BTreeSet<Vec<u8>>>,
}

impl<'a> Held<'a> {
    pub(crate) fn new(root: &'a Root) -> Held<'a> {
        Held {
            root,
            open: RefCell::default(),
            dirty: RefCell::default(),
        }
    }

    pub(crate) fn root(&self) -> &'a Root {
        self.root
    }

    /// Lets go of all directories: they may be others from now on.
    pub(crate) fn release(&self) {
        self.open.borrow_mut().clear();
    }

    fn dir(&self, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        let mut open = self.open.borrow_mut();
        if let Some(dir) = open.get(path) {
            return Ok(Rc::clone(dir));
        }
        let dir = Rc::new(self.root.open_dir(path)?);
        if open.len() < HELD_MAX {
            open.insert(path.to_vec(), Rc::clone(&dir));
        }
        Ok(dir)
    }

    /// Like [`Root::rename`]: never overwrites (I5).
    pub(crate) fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (split_path(from), split_path(to));
        let (from_dir, to_dir) = (self.dir(from_dir)?, self.dir(to_dir)?);
        let (from_place, to_place) = (name_in(&from_dir, from_name), name_in(&to_dir, to_name));
        rename(from_place, to_place, || self.root.leave(from, to))
    }

    /// Renames into a folder's `new` or `cur`, which is made if it is missing.
    pub(crate) fn give_name(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let sub = split_path(to).0;
        match self.rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.release();
                self.root.make_dir(sub)?;
                self.mark_dirty(split_path(sub).0);
                self.rename(from, to)?;
            }
            other => other?,
        }
        self.mark_dirty(sub);
        self.mark_dirty(split_path(from).0);
        Ok(())
    }

    /// Like [`Root::file_stamp`].
    pub(crate) fn file_stamp(&self, path: &[u8]) -> io::Result<FileStamp> {
        let (dir, name) = split_path(path);
        stamp_in(self.dir(dir)?.as_fd(), name)
    }

    /// Remembers that names were given or taken in a directory.
    pub(crate) fn mark_dirty(&self, dir: &[u8]) {
        let mut dirty = self.dirty.borrow_mut();
        if !dirty.contains(dir) {
            dirty.insert(dir.to_vec());
        }
    }

    /// Makes those names durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let (open, dirty) = (self.open.borrow(), self.dirty.borrow());
        sync_dirs(self.root, &dirty, |path| {
            open.get(path).map(|dir| dir.as_fd())
        })
    }
}
