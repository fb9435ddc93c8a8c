//! The tags of a replica's runs: whether its tree continues a memory, and how far a client knows it.

use protocol::{Cursor, Tag};

use super::Replica;
use super::place::unsafe_root;
use crate::error::Result;
use crate::marker::Marker;
use crate::random::random;

impl Replica {
    /// Whether the tree continues a memory that saw this tag last.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn continues(&self, tag: Tag) -> Result<bool> {
        Ok(self.marker.lists(tag) || self.index.lists_tag(tag)?)
    }

    /// Whether the index can report what changed since a cursor. Numbers alone do not say so: an index that was put back from
    /// a backup gives them a second time, but it does not know the tags of what it reported since.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn knows(&self, cursor: &Cursor) -> Result<bool> {
        let numbers = self.index.floor()?..=self.index.number()?;
        Ok(self.index.id()? == cursor.index
            && numbers.contains(&cursor.number)
            && (cursor.number == 0 || self.index.lists_tag(cursor.tag)?))
    }

    /// Whether the index has anything that a cursor does not cover.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn has_news(&self, cursor: &Cursor) -> Result<bool> {
        Ok(!self.knows(cursor)? || self.index.number()? > cursor.number)
    }

    /// Says how far the index has come, and makes it a promise: a client may remember it, so a tag that vouches for it is in the
    /// marker first.
    ///
    /// # Errors
    /// When the marker or the index cannot be written.
    pub fn promise(&mut self) -> Result<Cursor> {
        let _lock = self.lock()?;
        self.reported = self.index.number()?;
        self.vouch()?;
        self.cursor()
    }

    /// Makes sure that a tag vouches for the whole journal; under the lock, because marker and index must agree whenever
    /// somebody opens them.
    pub(super) fn vouch(&mut self) -> Result<()> {
        let number = self.index.number()?;
        let vouched = self.index.newest_tag()?;
        if self.options.dry_run || vouched.is_some_and(|(_, vouched)| number <= vouched) {
            return Ok(());
        }
        self.append_tag()
    }

    /// Adds another tag to the marker, whatever vouches for the journal already; returns it.
    ///
    /// # Errors
    /// When the marker or the index cannot be written.
    pub fn renew_tag(&mut self) -> Result<Tag> {
        let _lock = self.lock()?;
        self.append_tag()?;
        Ok(self.tag.unwrap_or(Tag([0; 8])))
    }

    pub(super) fn append_tag(&mut self) -> Result<()> {
        let tag = Tag(random()?);
        // Other runs have written since; and what lost its marker meanwhile gets none from us.
        let mut marker = match Marker::read(&self.root)? {
            Some(marker) if marker.id == self.marker.id => marker,
            Some(_) => return Err(unsafe_root(self.root.path(), "has another marker by now")),
            None => return Err(unsafe_root(self.root.path(), "has lost its marker")),
        };
        marker.append(&self.root, tag)?;
        self.marker = marker;
        let _whole = self.index.whole();
        self.index.begin()?;
        let number = self.index.number()?;
        self.index.add_tag(tag, number)?;
        self.index.commit()?;
        self.tag = Some(tag);
        self.trash.set_tag(tag);
        Ok(())
    }

    /// How far the client knows the replica.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn cursor(&self) -> Result<Cursor> {
        // The newest of the index's own: another state directory may have added to the marker.
        let own = self.index.newest_tag()?.map(|(tag, _)| tag);
        let tag = own.or_else(|| self.marker.newest());
        let tag = tag.unwrap_or(Tag([0; 8]));
        Ok(Cursor {
            index: self.index.id()?,
            number: self.reported,
            tag,
        })
    }
}
