//! Which folders the tree has: found, known again, gone, or there and unknown.
//!
//! It must never look into a folder's `cur` or `new`, but to know INBOX again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt;

use protocol::bytes::escape;
use protocol::folder::find_inbox;
use protocol::name::split;

use crate::discover::{Discovery, FoundFolder, discover};
use crate::error::{Error, Result};
use crate::granularity::changed_ns;
use crate::index::FolderRow;
use crate::marker::check_nothing_below;
use crate::path::{folder_text, join, split_path, subdir};
use crate::scanner::Scanner;
use crate::stamp::DirStamp;
use crate::time::now_ns;

/// So many directories to list once more in every run are worth a transaction.
const LEAVES_MIN: usize = 16;

impl Scanner<'_> {
    /// Finds the folders.
    pub(super) fn find(&mut self) -> Result<()> {
        let live = self.folders.iter().filter(|row| !row.gone);
        let known = live.filter(|row| row.leaf != DirStamp::default());
        let known = known.map(|row| (row.dir.as_slice(), row.leaf)).collect();
        let discovery = discover(self.root, &known);
        self.tree_problems.clear();
        self.unseen.clear();
        self.unknown.clear();
        for (dir, why) in &discovery.unusable {
            self.tell(escape(dir), why.clone());
        }
        for (dir, error) in &discovery.errors {
            let path = self.root.full(dir);
            let told = self.tell(escape(path.as_os_str().as_bytes()), error.to_string());
            self.unseen.add(self.root, dir, &told);
        }
        self.match_folders(&discovery)?;
        self.take_leaves(&discovery.folders)
    }

    /// Tells known, renamed, new and vanished folders apart.
    fn match_folders(&mut self, discovery: &Discovery) -> Result<()> {
        let found: BTreeSet<&[u8]> = discovery.folders.iter().map(|one| &one.dir[..]).collect();
        let inbox = self.inbox(|_| true);
        let filled = self.inbox(|row| row.messages > 0 || found.contains(&row.dir[..]));
        let mut seen = HashSet::new();
        // A folder that moved may have left its place to the next, so what is live is asked again.
        loop {
            let live = self.folders.iter().filter(|row| !row.gone);
            let live: HashSet<&[u8]> = live.map(|row| &row.dir[..]).collect();
            let mut fresh: Vec<&[u8]> = found.iter().copied().collect();
            fresh.retain(|dir| !live.contains(dir) && !seen.contains(dir));
            if fresh.is_empty() {
                break;
            }
            for dir in fresh {
                self.has_moved = true;
                seen.insert(dir);
                self.add_folder(dir, &found, inbox.as_deref())?;
            }
        }
        let live = self.folders.iter().filter(|row| !row.gone);
        let vanished: Vec<FolderRow> = live
            .filter(|row| !found.contains(&row.dir[..]))
            .cloned()
            .collect();
        let lost = |row: &&FolderRow| Some(&row.dir) == filled.as_ref();
        if let Some(row) = vanished.iter().find(lost) {
            self.find_inbox_again(row.id, &found)?;
        }
        let mut gone = BTreeSet::new();
        for row in vanished {
            self.missing.remove(&row.id);
            if self.is_unseen(&row, discovery, &found) {
                self.unknown.insert(row.id);
                continue;
            }
            let mut rows = self.index.files_of(row.id)?;
            rows.retain(|row| !row.gone);
            self.missing.insert(row.id, rows);
            gone.insert(row.id);
        }
        self.has_moved |= self.vanished != gone;
        self.vanished = gone;
        Ok(())
    }

    /// Whether a folder that is found no more may be there all the same; then it is unknown, with all that was in it, and so
    /// is whether something went there.
    fn is_unseen(
        &mut self,
        row: &FolderRow,
        discovery: &Discovery,
        found: &BTreeSet<&[u8]>,
    ) -> bool {
        let is_below = |dir: &[u8]| {
            let rest = row.dir.strip_prefix(dir);
            dir.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let is_told = discovery.unusable.iter().any(|(dir, _)| is_below(dir))
            || discovery.errors.iter().any(|(dir, _)| is_below(dir));
        let told = match self.still_there(row, found) {
            _ if is_told => escape(&row.dir),
            Some(why) => self.tell(folder_text(&row.dir), why),
            None => return false,
        };
        self.unseen.add(self.root, &row.dir, &told);
        true
    }

    /// The directory, of those that count, that was INBOX when the tree was last looked at.
    pub(super) fn inbox(&self, counts: impl Fn(&FolderRow) -> bool) -> Option<Vec<u8>> {
        let live = self.folders.iter().filter(|row| !row.gone && counts(row));
        find_inbox(live.map(|row| &row.dir[..])).map(<[u8]>::to_vec)
    }

    /// INBOX that is found no more may have been laid out anew, from a directory into the root or back: then most of its
    /// messages stand in what is INBOX now, whether or not that was there before, and its row says that it holds none, for
    /// the next run. Otherwise the tree may be unmounted or emptied.
    fn find_inbox_again(&mut self, id: u32, found: &BTreeSet<&[u8]>) -> Result<()> {
        let mut there = HashSet::new();
        if let Some(dir) = find_inbox(found.iter().copied()) {
            for part in [true, false].map(subdir) {
                let listed = self.root.list(&join(dir, &[part])).unwrap_or_default();
                let names = listed.iter().map(|one| split(&one.name));
                there.extend(names.flatten().map(|(unique, _)| unique));
            }
        }
        let mut rows = self.index.files_of(id)?;
        rows.retain(|row| !row.gone);
        let stand = rows.iter().filter(|row| there.contains(&row.unique));
        if stand.count() * 2 < rows.len().max(1) && !self.adopt {
            return Err(Error::Unsafe(format!(
                "{:?} has lost its INBOX, so it may be unmounted or emptied and nothing was done; put it back, or run again with --adopt to take it as it is",
                self.root.path()
            )));
        }
        self.index.begin()?;
        for row in self.folders.iter_mut().filter(|row| row.id == id) {
            (row.messages, row.dirty) = (0, true);
            self.index.put_folder(row)?;
        }
        Ok(())
    }

    /// Remembers in which directories nothing leads to further folders, so that they need not be listed again. A few of
    /// them are not worth a transaction.
    fn take_leaves(&mut self, found: &[FoundFolder]) -> Result<()> {
        let leaves: HashMap<&[u8], DirStamp> =
            found.iter().map(|one| (&one.dir[..], one.leaf)).collect();
        let proven_ns = now_ns() - self.granularity_ns;
        let mut changed = Vec::new();
        for row in self.folders.iter_mut().filter(|row| !row.gone) {
            let leaf = leaves.get(&row.dir[..]).copied().unwrap_or_default();
            let changed_ns = changed_ns(self.granularity_ns, leaf.mtime_ns, leaf.ctime_ns);
            let leaf = match changed_ns <= proven_ns {
                true => leaf,
                false => DirStamp::default(),
            };
            if row.leaf != leaf {
                row.leaf = leaf;
                changed.push(&*row);
            }
        }
        if changed.len() >= LEAVES_MIN {
            self.index.begin()?;
        }
        if self.index.is_writing() {
            changed
                .iter()
                .try_for_each(|row| self.index.put_folder(row).map(drop))?;
        }
        Ok(())
    }

    /// Whether a folder that is found no more is there all the same, as something that is no folder or under what is no
    /// folder's name; says which.
    fn still_there(&self, row: &FolderRow, found: &BTreeSet<&[u8]>) -> Option<String> {
        let cur = join(&row.dir, &[b"cur"]);
        if let Err(error) = self.root.dir_stamp(&cur)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Some(format!(
                "its cur is no directory that can be read ({error}); put it back"
            ));
        }
        let (parent, _) = split_path(&row.dir);
        let siblings = match self.root.list(parent) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Some(error.to_string());
            }
            other => other.unwrap_or_default(),
        };
        let mut siblings = siblings
            .iter()
            .map(|sibling| join(parent, &[&sibling.name]));
        let here = siblings.find(|dir| {
            let identity = self.root.dir_identity(dir);
            row.birth != 0
                && identity.is_ok_and(|identity| identity == (row.ino, row.birth))
                && self.root.dir_stamp(&join(dir, &[b"cur"])).is_ok()
                && !found.contains(&dir[..])
        })?;
        Some(format!(
            "it is {} now, which is no folder's place; rename it, or move it out of the Maildir to delete it",
            escape(&here)
        ))
    }

    /// Records a folder in a directory that was none: a renamed one if its identity is known, else a new one.
    fn add_folder(
        &mut self,
        dir: &[u8],
        found: &BTreeSet<&[u8]>,
        inbox: Option<&[u8]>,
    ) -> Result<()> {
        let Ok((ino, birth)) = self.root.dir_identity(dir) else {
            return Ok(()); // Gone again since it was found.
        };
        let is_inbox_now = find_inbox(found.iter().copied()) == Some(dir);
        // An inode alone may have been used again; the time of birth shows it. Where the folder was may have been filled anew.
        let old = self.folders.iter().position(|row| {
            let was_moved = || {
                !found.contains(&row.dir[..])
                    || self
                        .root
                        .dir_identity(&row.dir)
                        .is_ok_and(|identity| identity != (ino, birth))
            };
            let may_move = Some(&row.dir[..]) != inbox || is_inbox_now;
            !row.gone
                && may_move
                && birth != 0
                && (row.ino, row.birth) == (ino, birth)
                && was_moved()
        });
        let seq = self.index.next_number()?;
        let at = old.or_else(|| self.folders.iter().position(|row| row.dir == dir));
        check_nothing_below(self.root, dir)?;
        let mut row = match at {
            Some(at) => self.folders.remove(at),
            None => FolderRow::new(dir.to_vec(), (ino, birth)),
        };
        let was_live = !row.gone && at.is_some();
        (row.dir, row.ino, row.birth, row.gone, row.seq) = (dir.to_vec(), ino, birth, false, seq);
        row.leaf = DirStamp::default();
        row.dirty = row.dirty || !was_live;
        self.index.begin()?;
        row.id = self.index.put_folder(&row)?;
        self.folders.push(row);
        Ok(())
    }
}
