//! Opening a replica: the root, its marker, and the index that belongs to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use protocol::{IndexId, ReplicaId};

use super::place::{
    check_is_maildir, check_nothing_above, check_trash_is_outside, prepare_root, unsafe_root,
};
use super::{Options, Replica, Streaming, lock, records_in};
use crate::discover::follow_links;
use crate::error::{Context, Result};
use crate::inbox::Inbox;
use crate::index::Index;
use crate::marker::Marker;
use crate::partial::Partials;
use crate::private;
use crate::random::random;
use crate::relaxed::{may_be_torn, remove_torn};
use crate::root::Root;
use crate::touched::Touched;
use crate::trash::Trash;

impl Replica {
    /// Opens a replica: checks that the root is the expected one, reads or makes its marker, and finds the index that
    /// belongs to it.
    ///
    /// # Errors
    /// [`crate::Error::Unsafe`] when a known root is missing, emptied or without its marker; [`crate::Error::Usage`] when the path is
    /// no Maildir; else what the system said.
    pub fn open(options: Options) -> Result<Replica> {
        let path = &options.root;
        check_nothing_above(path)?;
        let made_root = prepare_root(&options)?;
        check_trash_is_outside(&options)?;
        // Two runs must not make a marker at once.
        let _lock = lock(path)?;
        let mut root = Root::open(path)?;
        if options.follow_links {
            follow_links(&mut root).context("look at", path)?;
        }
        let found = Marker::read(&root)?;
        let is_fresh = found.is_none();
        let marker = match found {
            Some(marker) => marker,
            None => fresh_marker(&options, &root)?,
        };
        if is_fresh && !options.dry_run {
            marker.save(&root)?;
        }
        let state = options
            .state_dir
            .join("replicas")
            .join(marker.id.to_string());
        let index = open_index(&options, &marker, &state)?;
        let trash_dir = options
            .trash_dir
            .clone()
            .unwrap_or_else(|| state.join("trash"));
        let trash = Trash::new(trash_dir, options.client.clone());
        let partials = Partials::new(state.join("partial"));
        let root = Arc::new(root);
        let inbox = Inbox::new(Arc::clone(&root), records_in(&state));
        Ok(Replica {
            options,
            root,
            marker,
            index,
            trash,
            state,
            is_fresh,
            made_root,
            tag: None,
            reported: 0,
            inbox,
            partials,
            applied_at: None,
            is_watched: false,
            touched: Touched::default(),
            streaming: Streaming::default(),
            made: BTreeSet::new(),
        })
    }

    /// Gives a tree that was copied with its marker an id of its own; must come before anything else is done with it.
    ///
    /// # Errors
    /// When the marker cannot be written or the new index cannot be made.
    pub fn renew_id(&mut self) -> Result<()> {
        let marker = Marker::new(ReplicaId(random()?), self.marker.tags().to_vec());
        if !self.options.dry_run {
            {
                let _lock = self.lock()?;
                marker.save(&self.root)?;
            }
            *self = Replica::open(Options {
                expect: None,
                ..self.options.clone()
            })?;
            return Ok(());
        }
        (self.marker, self.is_fresh) = (marker, true);
        Ok(())
    }

    /// Takes back a root that was made for a run which then came to nothing, and what is remembered of it.
    pub fn unmake(&self) {
        if !self.made_root {
            return;
        }
        let path = self.root.path();
        let removed = Marker::remove(&self.root)
            .and_then(|()| fs::remove_dir(path).context("remove", path))
            .and_then(|()| fs::remove_dir_all(&self.state).context("remove", &self.state));
        if let Err(error) = removed {
            tracing::debug!("{error}"); // It is empty, and does no harm.
        }
    }
}

/// A marker for a root that has none, if it may get one.
fn fresh_marker(options: &Options, root: &Root) -> Result<Marker> {
    if options.expect.is_some() && !options.adopt {
        return Err(unsafe_root(&options.root, "has no marker"));
    }
    check_is_maildir(root)?;
    Ok(Marker::new(ReplicaId(random()?), Vec::new()))
}

/// Opens the index of a replica; where it is of another tree it is made anew.
fn open_index(options: &Options, marker: &Marker, state: &Path) -> Result<Index> {
    let path = state.join("index.db");
    let id = IndexId(random()?);
    let index = if options.dry_run {
        Index::temporary(&path, || id)?
    } else {
        private::make_dirs(state)?;
        if may_be_torn(state) {
            remove_torn(state, &path)?;
        }
        private::prepare_database(&path)?;
        Index::open(&path, || id)?
    };
    let newest = index.newest_tag()?;
    if newest.is_some_and(|(tag, _)| !marker.lists(tag)) {
        let root = &options.root;
        tracing::info!("{root:?} is not the tree that its index knows; the index is made anew");
        index.reset(IndexId(random()?))?;
    }
    Ok(index)
}
