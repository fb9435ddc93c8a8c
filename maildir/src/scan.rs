//! Looking at the tree: which messages are new, changed or gone since the index was last right.
//!
//! # Evidence (I2, I3)
//! *What holds*: a message is recorded as gone only if it can have gone nowhere unseen.
//! - A folder's listing reads `new` before `cur`, because mail readers move files that way, and again if a stamp moved
//!   meanwhile: readdir may miss a file that is renamed under it.
//! - A folder whose `cur` and `new` have unchanged stamps is not read, but only once the stamps are older than the
//!   timestamp granularity: a change within one tick leaves no trace in them. Until then it is *dirty* and read again.
//! - In a folder that is read, names and inodes are compared with the rows, and what differs is stat-ed, as are drafts. Where
//!   only the info or new-or-cur differs the digest stays, and the file is due; all else is hashed. A file that cannot
//!   be hashed is unknown: no message of its unique name, in whatever folder, is recorded as gone.
//! - Every run looks at a slice of all files, those due first, so that the whole tree comes round.
//! - A message that is missing counts as gone only after another pass over all folders in which nothing had changed since the
//!   one before, and only if no place that could not be looked at may have received it ([`crate::unseen`]).
//! - What is missing while a `cur` or `new` was put there from outside is gone and *lost*: nobody deleted it, and it may have
//!   lain in the directory that was replaced, wherever it was before.
//!
//! *If interrupted*: what was committed is right, the rest is found again, since a folder's stamps are written together
//! with its rows.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use protocol::bytes::escape;
use protocol::message::Problem;

use crate::error::Result;
use crate::folder_scan;
use crate::granularity::PATIENCE_NS;
use crate::index::FolderRow;
use crate::listing::{self, FolderListing, ToList};
use crate::pairing::{AHEAD, Ahead};
use crate::path::subdir;
use crate::scanner::Scanner;
use crate::stamp::DirStamp;
use crate::time::now_ns;

mod folders;
mod slice;

/// After so many passes in which ever more goes missing, the tree is too busy to say what is gone.
const PASSES_MAX: usize = 6;

/// What a scan found, beside what it wrote into the index.
#[derive(Debug, Default)]
pub struct Scan {
    /// Whether everything could be listed, and nothing moved meanwhile.
    pub complete: bool,
    /// How many messages are missing and may not be called gone.
    pub held: u64,
    /// What was left alone, in the whole tree.
    pub problems: Vec<Problem>,
}

impl Scanner<'_> {
    /// Looks at the whole tree, and at files that are said to have been written to. `spot_from` says after which number the slice of
    /// all files goes on, and is moved; without it there is none.
    pub(crate) fn run(
        mut self,
        spot_from: Option<&mut u64>,
        written: &BTreeSet<Vec<u8>>,
    ) -> Result<Scan> {
        let begun = self.index.number()?;
        let before_ns = self.first_pass()?;
        self.spot_check(spot_from, written)?;
        // Every later pass reads what changed meanwhile or was too fresh to be trusted. If nothing had, all listings held
        // at the moment between both: what none of them has is nowhere, wherever it went while they were made.
        self.checksum = false;
        let mut settled = self.gone_count() == 0;
        for _ in 1..PASSES_MAX {
            if settled || self.is_held() {
                break;
            }
            self.has_moved = false;
            self.pass()?;
            settled = !self.has_moved && self.unsettled.is_empty();
        }
        let held = if settled && !self.is_held() {
            self.record_gone()?
        } else {
            self.record_moved(begun)?;
            self.look_again_later()?;
            self.holding
                .extend(self.unseen.holding().map(str::to_owned));
            self.missing.values().map(Vec::len).sum()
        };
        if held == 0 {
            self.unseen.remember(self.index, before_ns)?;
        }
        let mut problems = self.index.problems()?;
        problems.append(&mut self.tree_problems);
        for problem in problems.iter_mut().filter(|_| held > 0) {
            problem.holds = self.holding.contains(&problem.path);
        }
        self.index.commit()?;
        Ok(Scan {
            complete: self.unseen.is_empty() && settled,
            held: held as u64,
            problems,
        })
    }

    /// Whether what is missing may have gone where nobody can look.
    fn is_held(&self) -> bool {
        self.unseen.holding().next().is_some()
    }

    /// Whether any folder has names for its letters.
    pub(crate) fn holds_keywords(&self) -> bool {
        let mut live = self.folders.iter().filter(|row| !row.gone);
        live.any(|row| row.keywords.is_some())
    }

    /// The first pass; returns when it began, less the timestamp granularity. It is made again where a place that cannot be looked at
    /// has just changed, or that would hold deletions back once more in the next run.
    fn first_pass(&mut self) -> Result<i64> {
        let mut before_ns = now_ns() - self.granularity_ns;
        self.pass()?;
        if self.granularity_ns < PATIENCE_NS && self.unseen.is_fresh(before_ns) {
            std::thread::sleep(Duration::from_nanos(self.granularity_ns.unsigned_abs()));
            before_ns = now_ns() - self.granularity_ns;
            self.pass()?;
        }
        Ok(before_ns)
    }

    fn gone_count(&self) -> usize {
        self.missing.values().map(Vec::len).sum::<usize>() + self.vanished.len()
    }

    /// Finds the folders and what Dovecot calls their letters, and looks into none of them.
    pub(crate) fn find_folders(mut self) -> Result<()> {
        self.find()?;
        for row in self.folders.iter().filter(|row| !row.gone) {
            let mut now = row.clone();
            // What cannot be read is reported by the scan that follows.
            folder_scan::read_keywords(&self, &mut now, &mut Vec::new())?;
            if now != *row {
                self.index.begin()?;
                self.index.put_folder(&now)?;
            }
        }
        self.index.commit()
    }

    /// Finds the folders and reads those whose stamps moved.
    fn pass(&mut self) -> Result<()> {
        self.find()?;
        self.read_folders(|_| true)
    }

    /// Reports what is the matter with the tree, and returns under which path.
    fn tell(&mut self, path: String, why: String) -> String {
        self.tree_problems.push(Problem {
            path: path.clone(),
            why,
            holds: false,
        });
        path
    }

    /// Reads those of the chosen folders whose stamps moved.
    fn read_folders(&mut self, is_chosen: impl Fn(&FolderRow) -> bool) -> Result<()> {
        let mut wanted = Vec::new();
        for at in 0..self.folders.len() {
            let row = &self.folders[at];
            let is_there = !self.vanished.contains(&row.id) && !self.unknown.contains(&row.id);
            if row.gone || !is_there || !is_chosen(row) {
                continue;
            }
            match listing::stamps(self.root, &row.dir) {
                Ok(stamps)
                    if !row.dirty
                        && !self.checksum
                        && (row.cur, row.new) == (stamps.cur, stamps.new) => {}
                Ok(stamps) => match self.absent(row, stamps)? {
                    Some(error) => self.take_listing(at, Err(error))?,
                    None => wanted.push(ToList {
                        at,
                        dir: row.dir.clone(),
                        stamps,
                    }),
                },
                Err(error) => self.take_listing(at, Err(error))?,
            }
        }
        // People want what is in it first; by that it is numbered and reported.
        let inbox = self.inbox(|_| true);
        let is_new_inbox = |wanted: &ToList| {
            inbox.as_ref() == Some(&wanted.dir)
                && self.folders[wanted.at].cur == DirStamp::default()
        };
        let (first, rest): (Vec<_>, Vec<_>) = wanted.into_iter().partition(is_new_inbox);
        self.read_listed(&first)?;
        self.read_listed(&rest)
    }

    fn read_listed(&mut self, wanted: &[ToList]) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let (root, index) = (self.root, self.index);
        std::thread::scope(|scope| {
            let listings = listing::read_folders(scope, root, wanted);
            let largest = wanted.iter().map(|wanted| &self.folders[wanted.at]);
            let largest = largest.max_by_key(|row| row.messages).map(|row| row.id);
            self.ahead = largest
                .map(|id| Ahead::read(index, id, AHEAD))
                .transpose()?;
            listings
                .into_iter()
                .try_for_each(|(wanted, listing)| self.take_listing(wanted.at, listing))
        })
    }

    /// Whether `new` or `cur` is not there any more, with messages in it: then nobody knows what became of them.
    fn absent(&self, row: &FolderRow, stamps: listing::Stamps) -> Result<Option<io::Error>> {
        for (in_new, stamp) in [(true, stamps.new), (false, stamps.cur)] {
            if stamp == DirStamp::default() && self.index.holds(row.id, in_new)? {
                let sub = escape(subdir(in_new));
                let why = format!("its {sub} is missing, with messages in it; put it back");
                return Ok(Some(io::Error::other(why)));
            }
        }
        Ok(None)
    }

    fn take_listing(&mut self, at: usize, listing: io::Result<FolderListing>) -> Result<()> {
        let mut row = self.folders[at].clone();
        match listing {
            Ok(listing) => folder_scan::compare(self, &mut row, listing)?,
            Err(error) => folder_scan::unreadable(self, &mut row, &error.to_string())?,
        }
        self.folders[at] = row;
        Ok(())
    }

    /// Turns what is missing into tombstones; returns how many may not become some yet. Only here does a message become gone.
    fn record_gone(&mut self) -> Result<usize> {
        let lost = self.folders.iter().any(|row| row.put_back);
        let (mut waits, mut held) = (BTreeSet::new(), 0);
        for (folder, rows) in std::mem::take(&mut self.missing) {
            for mut row in rows {
                if let Some(path) = self.unhashed.get(&row.unique) {
                    self.holding.insert(path.clone());
                    waits.insert(folder);
                    held += 1;
                    continue;
                }
                row.seq = self.index.next_number()?;
                (row.gone, row.lost) = (true, lost);
                self.index.put_file(&row)?;
            }
        }
        if lost && held == 0 {
            self.forget_put_back()?;
        }
        for at in 0..self.folders.len() {
            let row = &mut self.folders[at];
            if self.vanished.contains(&row.id) && !waits.contains(&row.id) {
                (row.gone, row.seq, row.messages) = (true, self.index.next_number()?, 0);
                self.index.put_folder(row)?;
                self.index.replace_problems(row.id, &[])?;
            }
        }
        self.missing = waits
            .into_iter()
            .map(|folder| (folder, Vec::new()))
            .collect();
        self.look_again_later()?;
        Ok(held)
    }

    /// What went by it is reported.
    fn forget_put_back(&mut self) -> Result<()> {
        self.index.begin()?;
        for row in self.folders.iter_mut().filter(|row| row.put_back) {
            row.put_back = false;
            self.index.put_folder(row)?;
        }
        Ok(())
    }

    /// A message that is missing and was found again in another folder, the very file, went there and nowhere else, whatever was
    /// not seen besides. Were it not recorded, the move would be reported as a copy now and as a deletion later.
    fn record_moved(&mut self, begun: u64) -> Result<()> {
        for rows in self.missing.values_mut() {
            let mut left = Vec::new();
            for mut row in std::mem::take(rows) {
                let mut has_moved = false;
                let others = self.folders.iter();
                for folder in others.filter(|other| !other.gone && other.id != row.folder) {
                    let found = self.index.file_at(folder.id, &row.unique, row.copy)?;
                    has_moved |= found.is_some_and(|found| {
                        let is_same = found.stamp.ino == row.stamp.ino;
                        !found.gone
                            && found.born > begun
                            && is_same
                            && found.entry.digest == row.entry.digest
                    });
                }
                if has_moved {
                    row.seq = self.index.next_number()?;
                    (row.gone, row.lost) = (true, false);
                    self.index.begin()?;
                    self.index.put_file(&row)?;
                } else {
                    left.push(row);
                }
            }
            *rows = left;
        }
        Ok(())
    }

    /// Folders in which something is missing that may not be called gone are read again next time.
    fn look_again_later(&mut self) -> Result<()> {
        for row in &mut self.folders {
            if self.missing.contains_key(&row.id) && !row.dirty && !row.gone {
                row.dirty = true;
                self.index.begin()?;
                self.index.put_folder(row)?;
            }
        }
        Ok(())
    }
}
