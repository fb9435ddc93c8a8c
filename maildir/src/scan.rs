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

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use protocol::bytes::escape;
use protocol::folder::find_inbox;
use protocol::message::Problem;
use protocol::name::split;

use crate::discover::{Discovery, FoundFolder, discover};
use crate::error::{Error, Result};
use crate::folder_scan;
use crate::granularity::{PATIENCE_NS, changed_ns};
use crate::held::Held;
use crate::index::{FileRow, FolderRow, path_of};
use crate::listing::{self, FolderListing, ToList};
use crate::marker::check_nothing_below;
use crate::pairing::{AHEAD, Ahead};
use crate::path::{folder_text, join, split_path, subdir};
use crate::scanner::Scanner;
use crate::stamp::DirStamp;
use crate::time::now_ns;

/// After so many passes in which ever more goes missing, the tree is too busy to say what is gone.
const PASSES_MAX: usize = 6;
/// How long one run hashes files whose names changed.
const DUE_MAX: Duration = Duration::from_millis(15);
/// How many files whose names changed are hashed in one run at most.
const DUE_FILES: i64 = 1000;
/// How long it stats files of all folders, in turn, that nothing else makes it look at.
const SPOT_CHECK_MAX: Duration = Duration::from_millis(5);
/// How many files that is at most, so that nothing hangs on a slow clock.
const SPOT_CHECK_FILES: u64 = 80 * SPOT_CHECK_STEP;
/// So many directories to list once more in every run are worth a transaction.
const LEAVES_MIN: usize = 16;
/// How many are looked at before the clock is asked: a busy machine must not keep the round from getting on.
const SPOT_CHECK_STEP: u64 = 64;

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
    /// Looks at the whole tree; `spot_from` says after which number the spot check goes on, and is moved.
    pub(crate) fn run(mut self, spot_from: &mut u64) -> Result<Scan> {
        let begun = self.index.number()?;
        let before_ns = self.first_pass()?;
        self.spot_check(spot_from)?;
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

    /// Finds the folders.
    fn find(&mut self) -> Result<()> {
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
        // In the order in which people want what is new; by that it is numbered and reported.
        let inbox = self.inbox(|_| true);
        wanted.sort_by_key(|wanted| inbox.as_ref() != Some(&wanted.dir));
        let (root, index) = (self.root, self.index);
        std::thread::scope(|scope| {
            let listings = listing::read_folders(scope, root, &wanted);
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
    fn inbox(&self, counts: impl Fn(&FolderRow) -> bool) -> Option<Vec<u8>> {
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

    /// Looks at drafts, which are edited in place, at what is due, and in turn at some others of all files.
    fn spot_check(&mut self, spot_from: &mut u64) -> Result<()> {
        let (begun, held) = (Instant::now(), Held::new(self.root));
        // Of what is missing nothing new is to be found out.
        let missing = self.missing.values().flatten().map(|row| row.seq);
        let missing: HashSet<u64> = missing.collect();
        let mut changed = Vec::new();
        self.index.each_file("draft ORDER BY seq", [], |row| {
            self.look_at(&held, row, &mut changed);
            Ok(())
        })?;
        let mut due = Vec::new();
        self.index
            .each_file("due ORDER BY seq LIMIT ?1", [DUE_FILES], |row| {
                let path = self.live_path(&row).filter(|_| !missing.contains(&row.seq));
                due.extend(path.map(|path| (path, row)));
                Ok(())
            })?;
        let mut suspects = folder_scan::prove(self, due, begun + DUE_MAX)?;
        self.index
            .reading(|| self.look_at_some(&held, spot_from, &mut changed))?;
        drop(held);
        changed.retain(|row| !missing.contains(&row.seq));
        suspects.extend(changed.iter().map(|row| row.folder));
        for row in changed {
            self.index.begin()?;
            self.index.put_file(&folder_scan::unproven(row))?;
        }
        for row in &mut self.folders {
            row.dirty |= suspects.contains(&row.id);
        }
        self.read_folders(|row| suspects.contains(&row.id))
    }

    /// Goes on where the last run stopped, to the end, and then on from the beginning up to there.
    fn look_at_some(
        &self,
        held: &Held,
        spot_from: &mut u64,
        changed: &mut Vec<FileRow>,
    ) -> Result<()> {
        let deadline = Instant::now() + SPOT_CHECK_MAX;
        let (begin, mut left, mut last) = (*spot_from, SPOT_CHECK_FILES, 0);
        for (mut from, to) in [(begin, i64::MAX.cast_unsigned()), (0, begin)] {
            // However busy the machine is, one step is made.
            let is_first = |left| left > SPOT_CHECK_FILES - SPOT_CHECK_STEP;
            while left > 0 && (is_first(left) || Instant::now() < deadline) {
                let range = [from, to, left.min(SPOT_CHECK_STEP)].map(u64::cast_signed);
                let sql = "seq > ?1 AND seq <= ?2 AND NOT gone ORDER BY seq LIMIT ?3";
                let before = left;
                self.index.each_file(sql, range, |row| {
                    (from, left, last) = (row.seq, left - 1, row.seq);
                    self.look_at(held, row, changed);
                    Ok(())
                })?;
                if left == before {
                    break;
                }
            }
        }
        *spot_from = last;
        Ok(())
    }

    /// Stats a file, if its folder can be looked at; keeps its row where it is another one than that says, and not due.
    fn look_at(&self, held: &Held, row: FileRow, changed: &mut Vec<FileRow>) {
        let path = self.live_path(&row).filter(|_| !row.due);
        if path.is_some_and(|path| held.file_stamp(&path).ok() != Some(row.stamp)) {
            changed.push(row);
        }
    }

    fn live_path(&self, row: &FileRow) -> Option<Vec<u8>> {
        let mut folders = self.folders.iter();
        let folder = folders.find(|folder| folder.id == row.folder && !folder.gone)?;
        Some(path_of(&folder.dir, row))
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
