//! Where deleted and replaced messages go, outside the root (I6).
//!
//! One directory a run, `<seconds>-<tag>`, with the files numbered and a log that has one JSON object a line: what each
//! was, where it lay, who took it away, when and why. The log is durable before the first file leaves the root; if
//! interrupted in between, a line may name a file that never came.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use protocol::bytes::{escape, hex, unhex};
use protocol::message::Reason;
use protocol::{Digest, Tag};
use rustix::fs::{AtFlags, Mode};
use serde::Deserialize;
use serde_json::json;
use walkdir::{DirEntry, WalkDir};

use crate::aside::set_aside;
use crate::clock::Clock;
use crate::error::{Context, Result};
use crate::hash::hash_prefix;
use crate::path::{folder_text, holds_mail, subdir};
use crate::private;
use crate::root::{Root, set_mtime, stamp_in, stamp_of};
use crate::stamp::FileStamp;
use crate::time::now_secs;

/// The log's name in a run's directory.
pub const LOG_NAME: &str = "log.jsonl";

/// What the log says of a file.
#[derive(Default)]
pub(crate) struct Label {
    pub(crate) folder: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) in_new: bool,
    pub(crate) digest: Option<Digest>,
    pub(crate) reason: Option<&'static str>,
}

/// The trash of one run; its directory is made when the first file comes.
pub(crate) struct Trash {
    dir: PathBuf,
    client: String,
    /// That of the run that takes something away.
    tag: Tag,
    run: Option<Run>,
}

struct Run {
    path: PathBuf,
    dir: File,
    log: File,
    count: u64,
}

/// What came of taking a file or a directory away.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Retired {
    /// It lies in the trash.
    Yes,
    /// It was not the expected file any more and lies where it was.
    Changed,
}

impl Trash {
    pub(crate) fn new(dir: PathBuf, client: String) -> Trash {
        Trash {
            dir,
            client,
            tag: Tag([0; 8]),
            run: None,
        }
    }

    /// Says whose run takes something away from now on.
    pub(crate) fn set_tag(&mut self, tag: Tag) {
        self.tag = tag;
    }

    fn run(&mut self) -> Result<&mut Run> {
        if self.run.is_none() {
            let path = self.dir.join(format!("{}-{}", now_secs(), self.tag));
            private::make_dirs(&path)?;
            crate::durable::sync_parent(&path)?;
            crate::durable::sync_parent(&self.dir)?;
            let dir = File::open(&path).context("open", &path)?;
            let log_path = path.join(LOG_NAME);
            let mut log = private::open(&log_path).context("open", &log_path)?;
            log.seek(SeekFrom::End(0)).context("open", &log_path)?;
            self.run = Some(Run {
                path,
                dir,
                log,
                count: 0,
            });
        }
        Ok(self.run.as_mut().expect("it was just made"))
    }

    /// Writes what is about to come into the log, durably; returns the names under which the files will lie.
    pub(crate) fn announce(&mut self, labels: &[Label]) -> Result<Vec<String>> {
        let client = self.client.clone();
        let run = self.run()?;
        let mut text = String::new();
        let mut names = Vec::new();
        for label in labels {
            run.count += 1;
            let file = format!("{:06}", run.count);
            let line = json!({
                "file": file, "folder": folder_text(&label.folder), "name": escape(&label.name),
                "folder_hex": hex(&label.folder), "name_hex": hex(&label.name), "in_new": label.in_new,
                "digest": label.digest.map(|digest| hex(digest.as_bytes())),
                "reason": label.reason, "client": client, "time": now_secs(),
            });
            text.push_str(&format!("{line}\n"));
            names.push(file);
        }
        let path = &run.path;
        run.log
            .write_all(text.as_bytes())
            .and_then(|()| run.log.sync_data())
            .context("write the log in", path)?;
        run.dir.sync_all().context("flush", path)?;
        Ok(names)
    }

    /// Where a file that was announced will lie.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let run = self.run.as_ref().map(|run| &run.path);
        run.unwrap_or(&self.dir).join(name)
    }

    /// Moves a file into the trash, if it still is the expected one; it is checked again after the move, and put back
    /// if somebody replaced it in between.
    ///
    /// # Errors
    /// When the file cannot be moved or copied; then it is where it was.
    pub(crate) fn take(
        &mut self,
        root: &Root,
        path: &[u8],
        stamp: &FileStamp,
        name: &str,
    ) -> io::Result<Retired> {
        let run = self
            .run
            .as_mut()
            .ok_or_else(|| io::Error::other("the trash was not announced"))?;
        let (dir, to) = (run.dir.as_fd(), name.as_bytes());
        let taken = set_aside(
            || root.rename_out(path, dir, to),
            || Ok(stamp_in(dir, to)?.same_but_renamed(stamp)),
            || root.rename_in(dir, to, path),
        );
        match taken {
            Ok(true) => close(dir, to),
            Ok(false) => return Ok(Retired::Changed),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                return copy_out(run, root, path, stamp, name);
            }
            Err(error) => return Err(error),
        }
        Ok(Retired::Yes)
    }

    /// Moves a folder's directory into the trash, unless mail has come into it.
    ///
    /// # Errors
    /// When it cannot be renamed, as on another file system.
    pub(crate) fn take_dir(&mut self, root: &Root, path: &[u8], name: &str) -> io::Result<Retired> {
        let run = self
            .run
            .as_mut()
            .ok_or_else(|| io::Error::other("the trash was not announced"))?;
        let (dir, to) = (run.dir.as_fd(), name.as_bytes());
        let is_bare = set_aside(
            || root.rename_out(path, dir, to),
            || Ok(!has_mail(&run.path.join(name))?),
            || root.rename_in(dir, to, path),
        )?;
        run.dir.sync_all()?;
        Ok(if is_bare {
            Retired::Yes
        } else {
            Retired::Changed
        })
    }

    /// Makes the names of what came durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.run.as_ref().map_or(Ok(()), |run| run.dir.sync_all())
    }
}

/// Makes a file in the trash its owner's alone. One that has other names, as in a snapshot of the tree, keeps its mode there;
/// so does somebody else's, and the directory keeps others out.
fn close(dir: BorrowedFd, name: &[u8]) {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    if let Ok(stat) = stat
        && stat.st_nlink == 1
        && stat.st_mode & 0o177 != 0
    {
        let _ = rustix::fs::chmodat(dir, name, Mode::RUSR | Mode::WUSR, AtFlags::empty());
    }
}

/// Copies a file out to a trash on another file system, durably, and only then removes it.
fn copy_out(
    run: &mut Run,
    root: &Root,
    path: &[u8],
    stamp: &FileStamp,
    name: &str,
) -> io::Result<Retired> {
    let mut from = root.open_file(path)?;
    if !stamp_of(&from)?.same_but_renamed(stamp) {
        return Ok(Retired::Changed);
    }
    let target = run.path.join(name);
    let copied = private::create(&target).and_then(|mut to| {
        io::copy(&mut from, &mut to)?;
        set_mtime(&to, stamp.mtime_ns)?;
        to.sync_all()?;
        run.dir.sync_all()
    });
    if let Err(error) = copied {
        let _ = fs::remove_file(&target); // Half a copy is of no use; the original stays.
        return Err(error);
    }
    if root.remove(path, |seen| seen.same_but_renamed(stamp))? {
        return Ok(Retired::Yes);
    }
    fs::remove_file(&target)?;
    Ok(Retired::Changed)
}

/// Whether there is mail in a folder's directory outside of the root.
pub(crate) fn has_mail(dir: &Path) -> io::Result<bool> {
    let holds = |entry: &DirEntry| {
        let name = entry.file_name().as_bytes();
        entry.depth() != 1 || [true, false].map(subdir).contains(&name)
    };
    let entries = WalkDir::new(dir).max_depth(2).into_iter();
    let mut names = Vec::new();
    for entry in entries.filter_entry(holds) {
        let entry = entry?;
        if entry.depth() == 2 {
            names.push(entry.file_name().as_bytes().to_vec());
        }
    }
    Ok(holds_mail(&names))
}

/// What goes because a copy of it on another file system takes its place.
pub(crate) const MOVED: &str = "moved to another disk";

pub(crate) fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::Deleted => "deleted",
        Reason::Excluded => "excluded",
        Reason::Replaced => "replaced",
        Reason::Damaged => "damaged",
    }
}

/// Bodies that lie in the trash, by their digests.
#[derive(Default)]
pub struct Trashed {
    paths: HashMap<Digest, PathBuf>,
    /// How many bytes were read to find them.
    pub read: u64,
}

impl Trashed {
    /// Looks for bodies in what is kept of earlier runs.
    pub(crate) fn find(dir: &Path, wanted: &HashSet<Digest>) -> Trashed {
        let mut found = Trashed::default();
        if wanted.is_empty() {
            return found;
        }
        for run in fs::read_dir(dir).into_iter().flatten().flatten() {
            // What cannot be read is as if it were not there: then nobody knows.
            let Ok(log) = File::open(run.path().join(LOG_NAME)) else {
                continue;
            };
            for line in BufReader::new(log).lines().map_while(io::Result::ok) {
                found.read += line.len() as u64;
                let text = serde_json::from_str::<Logged>(&line).ok();
                if let Some(Logged { file, digest }) = text
                    && let Some(digest) = digest.and_then(|digest| unhex(digest.as_bytes()))
                    && wanted.contains(&Digest::new(digest))
                    && !file.contains('/')
                {
                    let path = run.path().join(file);
                    found.paths.insert(Digest::new(digest), path);
                }
            }
        }
        found
    }

    /// How long a body is.
    #[must_use]
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let path = self.paths.get(digest)?;
        fs::symlink_metadata(path).ok().map(|meta| meta.len())
    }

    /// The digest of a body's first bytes, if it still is what it was.
    #[must_use]
    pub fn prefix(&self, digest: &Digest, length: u64) -> Option<Digest> {
        let (path, size) = (self.paths.get(digest)?, self.size(digest)?);
        let hash = |length| hash_prefix(&mut File::open(path).ok()?, length).ok()?;
        let is_whole = length <= size && hash(size) == Some(*digest);
        is_whole.then(|| hash(length)).flatten()
    }
}

/// What of a line of the log is read again.
#[derive(Deserialize)]
struct Logged {
    file: String,
    digest: Option<String>,
}

/// Removes the runs whose time is over: since they began the clock has run forward for longer than so many days.
pub(crate) fn expire(dir: &Path, days: u64, clock: &Clock) -> io::Result<()> {
    let kept_secs = days.saturating_mul(86_400);
    let runs = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for run in runs {
        let run = run?;
        let begun = begun_at(run.file_name().as_bytes());
        let is_over = begun.is_some_and(|(begun, tag)| clock.age_secs(tag, begun) > kept_secs);
        if is_over && run.file_type()?.is_dir() {
            fs::remove_dir_all(run.path())?;
        }
    }
    Ok(())
}

/// When the run began whose directory has this name, and its tag. Somebody else's directory, in a place that was named for
/// the trash, may begin with a number too, and must not be taken for one.
fn begun_at(name: &[u8]) -> Option<(u64, Tag)> {
    let (seconds, tag) = std::str::from_utf8(name).ok()?.split_once('-')?;
    Some((seconds.parse().ok()?, Tag::parse(tag.as_bytes())?))
}
