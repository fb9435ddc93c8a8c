//! The marker: a small file in the root that holds the replica's id and the tags of its newest runs.
//!
//! A tree *continues* a memory (an archive, an index, a cursor) if and only if the newest tag that the memory saw is
//! listed. So a crash, a second state directory or another client is no break, while a restored backup, a rolled-back
//! disk, a clone or an unmounted root is. See `docs/state.md`.
//!
//! Text, one line each: `maildir-sync 1 <id>`, then the tags, oldest first. Appended in place, so that the root's own
//! times stay; a last line without its newline was cut by a crash and does not count. A marker past twice its length
//! is rewritten under another name and renamed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use protocol::{ReplicaId, Tag};

use crate::durable;
use crate::error::{Context, Error, Result};

/// The marker's name in the root.
pub const MARKER_NAME: &str = ".maildir-sync";
/// How many tags a marker keeps at least.
const TAGS_KEPT: usize = 1000;
const HEAD: &str = "maildir-sync 1 ";
const TAG_LINE_BYTES: usize = 17;

/// What the marker of a root says.
#[derive(Debug)]
pub(crate) struct Marker {
    path: PathBuf,
    pub(crate) id: ReplicaId,
    tags: Vec<Tag>,
    is_torn: bool,
}

impl Marker {
    /// Reads the root's marker; `None` where there is none.
    pub(crate) fn read(root: &Path) -> Result<Option<Marker>> {
        let path = root.join(MARKER_NAME);
        let mut text = Vec::new();
        match File::open(&path) {
            Ok(file) => file
                .take(1 << 20)
                .read_to_end(&mut text)
                .context("read", &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("open", &path),
        };
        Marker::parse(path, &text).map(Some)
    }

    fn parse(path: PathBuf, text: &[u8]) -> Result<Marker> {
        let mut lines = text.split_inclusive(|&byte| byte == b'\n');
        let head = lines.next().and_then(|line| line.strip_suffix(b"\n"));
        let id = head
            .and_then(|head| head.strip_prefix(HEAD.as_bytes()))
            .and_then(ReplicaId::parse);
        let Some(id) = id else {
            return Err(Error::Unsafe(format!(
                "The marker {path:?} is damaged, so it is not known which mail this is; move it away and run again with --adopt"
            )));
        };
        let tags = lines
            .filter_map(|line| Tag::parse(line.strip_suffix(b"\n")?))
            .collect();
        Ok(Marker {
            path,
            id,
            tags,
            is_torn: text.last() != Some(&b'\n'),
        })
    }

    /// A marker for a root that has none; it exists on disk only once it is saved.
    pub(crate) fn new(root: &Path, id: ReplicaId, tags: Vec<Tag>) -> Marker {
        Marker {
            path: root.join(MARKER_NAME),
            id,
            tags,
            is_torn: false,
        }
    }

    pub(crate) fn lists(&self, tag: Tag) -> bool {
        self.tags.contains(&tag)
    }

    pub(crate) fn newest(&self) -> Option<Tag> {
        self.tags.last().copied()
    }

    pub(crate) fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// Adds the tag of a run, durably.
    pub(crate) fn append(&mut self, tag: Tag) -> Result<()> {
        self.tags.push(tag);
        if self.tags.len() > 2 * TAGS_KEPT {
            self.tags.drain(..self.tags.len() - TAGS_KEPT);
            return self.save();
        }
        let mut line = String::with_capacity(TAG_LINE_BYTES + 1);
        if self.is_torn {
            line.push('\n');
        }
        line.push_str(&format!("{tag}\n"));
        let mut file = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .context("open", &self.path)?;
        file.write_all(line.as_bytes())
            .and_then(|()| file.sync_data())
            .context("write", &self.path)?;
        self.is_torn = false;
        Ok(())
    }

    /// Removes the marker from a root that nobody knows yet.
    pub(crate) fn remove(&self) -> Result<()> {
        std::fs::remove_file(&self.path).context("remove", &self.path)
    }

    /// Writes the whole marker, durably and in one step.
    pub(crate) fn save(&mut self) -> Result<()> {
        let mut text = format!("{HEAD}{}\n", self.id);
        for tag in &self.tags {
            text.push_str(&format!("{tag}\n"));
        }
        durable::replace_file(&self.path, text.as_bytes())?;
        self.is_torn = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dir: &Path) -> Marker {
        Marker::read(dir).expect("readable").expect("there")
    }

    #[test]
    fn tags_survive_a_torn_last_line() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut marker = Marker::new(dir.path(), ReplicaId([7; 16]), vec![Tag([1; 8])]);
        marker.save().expect("saved");
        let mut file = OpenOptions::new()
            .append(true)
            .open(dir.path().join(MARKER_NAME))
            .expect("opens");
        file.write_all(b"0202").expect("written");
        let mut marker = read(dir.path());
        assert_eq!(marker.tags(), [Tag([1; 8])]);
        marker.append(Tag([3; 8])).expect("appended");
        assert_eq!(read(dir.path()).tags(), [Tag([1; 8]), Tag([3; 8])]);
        assert_eq!(read(dir.path()).id, ReplicaId([7; 16]));
    }

    #[test]
    fn at_least_a_thousand_tags_are_kept_and_no_more_than_two_thousand() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut marker = Marker::new(dir.path(), ReplicaId([7; 16]), Vec::new());
        marker.save().expect("saved");
        for number in 0..2500_u64 {
            marker.append(Tag(number.to_be_bytes())).expect("appended");
        }
        let marker = read(dir.path());
        assert!((1000..=2000).contains(&marker.tags().len()));
        assert!(marker.lists(Tag(1500_u64.to_be_bytes())));
        assert_eq!(marker.newest(), Some(Tag(2499_u64.to_be_bytes())));
    }

    #[test]
    fn a_damaged_marker_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        durable::replace_file(&dir.path().join(MARKER_NAME), b"what is this").expect("written");
        assert!(matches!(Marker::read(dir.path()), Err(Error::Unsafe(_))));
    }
}
