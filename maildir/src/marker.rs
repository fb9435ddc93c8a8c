//! The marker: a small file in the root that holds the replica's id and the tags of its newest runs.
//!
//! A tree *continues* a memory (an archive, an index, a cursor) if and only if the newest tag that the memory saw is
//! listed. So a crash, a second state directory or another client is no break, while a restored backup, a rolled-back
//! disk, a clone or an unmounted root is. See `docs/state.md`.
//!
//! Text, one line each: `maildir-sync 1 <id>`, then the tags, oldest first. Never written in place: a hard link or a
//! snapshot of the tree must keep the tags that it had. Everything goes through the held root, follows no link
//! and waits for nothing, whatever somebody put there under these names.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use protocol::bytes::hex;
use protocol::{ReplicaId, Tag};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::path::join;
use crate::random::random;
use crate::root::{Root, stat_of};

/// The marker's name in the root.
pub const MARKER_NAME: &str = ".maildir-sync";
/// What a marker that is being written is called, before 16 hex digits.
const BESIDE: &str = ".maildir-sync.new-";
/// How many tags a marker keeps; the index keeps all.
const TAGS_KEPT: usize = 1000;
/// What every marker begins with, whatever its format.
const NAME: &str = "maildir-sync ";
const FORMAT: u64 = 1;
/// No head of a marker is longer, up to its id.
const HEAD_BYTES_MAX: u64 = 64;
/// More is not read: no marker is that long.
const BYTES_MAX: u64 = 1 << 20;

/// What the marker of a root says.
#[derive(Debug)]
pub(crate) struct Marker {
    pub(crate) id: ReplicaId,
    tags: Vec<Tag>,
}

impl Marker {
    /// Reads the root's marker; `None` where there is none.
    pub(crate) fn read(root: &Root) -> Result<Option<Marker>> {
        let path = path_in(root);
        let file = match root.open_file(MARKER_NAME.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_link(&error) => return Err(no_marker(&path)),
            other => other.context("open", &path)?,
        };
        let stat = stat_of(&file).context("look at", &path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(no_marker(&path));
        }
        let mut text = Vec::new();
        let read = file.take(BYTES_MAX).read_to_end(&mut text);
        read.context("read", &path)?;
        Marker::parse(&path, &text).map(Some)
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Marker> {
        let mut lines = text.split_inclusive(|&byte| byte == b'\n');
        let head = lines.next().and_then(|line| line.strip_suffix(b"\n"));
        let id = match head.and_then(format_of) {
            Some((format, _)) if format > FORMAT => {
                return Err(Error::Usage(format!(
                    "The marker {path:?} has format {format}, and this version knows {FORMAT}; install the newer version"
                )));
            }
            Some((FORMAT, id)) => ReplicaId::parse(id),
            Some(_) | None => None,
        };
        let Some(id) = id else {
            return Err(Error::Unsafe(format!(
                "The marker {path:?} is damaged, so it is not known which mail this is; move it away and run again with --adopt"
            )));
        };
        let tags = lines
            .filter_map(|line| Tag::parse(line.strip_suffix(b"\n")?))
            .collect();
        Ok(Marker { id, tags })
    }

    /// A marker for a root that has none; it exists on disk only once it is saved.
    pub(crate) fn new(id: ReplicaId, tags: Vec<Tag>) -> Marker {
        Marker { id, tags }
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

    /// Adds the tag of a run, durably; the oldest goes where there are too many.
    pub(crate) fn append(&mut self, root: &Root, tag: Tag) -> Result<()> {
        self.tags.push(tag);
        let surplus = self.tags.len().saturating_sub(TAGS_KEPT);
        self.tags.drain(..surplus);
        self.save(root)
    }

    /// Removes the marker from a root that nobody knows yet.
    pub(crate) fn remove(root: &Root) -> Result<()> {
        let removed = root.unlink(MARKER_NAME.as_bytes());
        removed.context("remove", &path_in(root))
    }

    /// Puts the whole marker in the place of the one that is there, durably and in one step; the root must be locked.
    ///
    /// If it fails, the old one is there, and nothing beside it. If interrupted, the old one is there, or the new one, and what
    /// lies beside it goes with the next one that is written.
    pub(crate) fn save(&self, root: &Root) -> Result<()> {
        let path = path_in(root);
        sweep(root).context("clear what lies beside", &path)?;
        let mut text = format!("{NAME}{FORMAT} {}\n", self.id);
        for tag in &self.tags {
            text.push_str(&format!("{tag}\n"));
        }
        let beside = format!("{BESIDE}{}", hex(&random::<8>()?));
        let placed = write_beside(root, beside.as_bytes(), text.as_bytes())
            .and_then(|()| root.replace(beside.as_bytes(), MARKER_NAME.as_bytes()));
        if placed.is_err() {
            let _ = root.unlink(beside.as_bytes()); // What stays is swept by the next one.
        }
        placed
            .and_then(|()| root.sync_dir(b""))
            .context("write", &path)
    }
}

/// The nearest directory from `path` upwards that bears a marker.
pub(crate) fn above(path: &Path) -> Option<&Path> {
    let is_marked = |dir: &&Path| {
        let (path, flags) = (
            dir.join(MARKER_NAME),
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        );
        let opened = rustix::fs::openat(CWD, &path, flags, Mode::empty());
        // In a directory that may not be searched, nobody knows whether there is one. Opening what is below will fail, and say so.
        let is_there = || rustix::fs::lstat(&path).is_ok();
        is_marker(opened.map(File::from).map_err(io::Error::from)) && is_there()
    };
    path.ancestors().find(is_marked)
}

/// The first directory on the way from the root down to a folder's that bears a marker, the root itself left out.
pub(crate) fn below<'d>(root: &Root, dir: &'d [u8]) -> Option<&'d [u8]> {
    let ends = dir.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let ends = ends.map(|(at, _)| at).chain([dir.len()]);
    let mut parts = ends.map(|end| &dir[..end]).filter(|dir| !dir.is_empty());
    parts.find(|dir| is_marker(root.open_file(&join(dir, &[MARKER_NAME.as_bytes()]))))
}

/// Whether what was opened is a marker. One that may not be read is somebody else's, and a marker all the same.
fn is_marker(opened: io::Result<File>) -> bool {
    let file = match opened {
        Ok(file) => file,
        Err(error) => return error.kind() == io::ErrorKind::PermissionDenied,
    };
    let stat = stat_of(&file);
    let is_file =
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    let mut head = Vec::new();
    is_file
        && file.take(HEAD_BYTES_MAX).read_to_end(&mut head).is_ok()
        && format_of(&head).is_some()
}

/// The format that the first line of a marker names, and what stands behind it.
fn format_of(head: &[u8]) -> Option<(u64, &[u8])> {
    let rest = head.strip_prefix(NAME.as_bytes())?;
    let end = rest.iter().position(|&byte| byte == b' ')?;
    let digits = std::str::from_utf8(&rest[..end]).ok()?;
    Some((digits.parse().ok()?, &rest[end + 1..]))
}

fn path_in(root: &Root) -> PathBuf {
    root.path().join(MARKER_NAME)
}

/// Writes a new file in the root, flushed. It belongs to whom the marker belongs that it will replace: a run of the
/// administrator must not lock the owner of the mail out.
fn write_beside(root: &Root, name: &[u8], text: &[u8]) -> io::Result<()> {
    let mut file = root.create_private(name)?;
    file.write_all(text)?;
    if let Ok(old) = root.open_file(MARKER_NAME.as_bytes()) {
        keep_owner(&old, &file)?;
    }
    file.sync_all()
}

fn keep_owner(old: &File, new: &File) -> io::Result<()> {
    let (old, is) = (stat_of(old)?, stat_of(new)?);
    if (old.st_uid, old.st_gid) != (is.st_uid, is.st_gid) {
        let (user, group) = (
            rustix::fs::Uid::from_raw(old.st_uid),
            rustix::fs::Gid::from_raw(old.st_gid),
        );
        // A user who may not give files away owns this one: nobody else can have written the old one.
        let _ = rustix::fs::fchown(new, Some(user), Some(group));
    }
    Ok(())
}

/// Whether a name is one that a run which was killed leaves beside the marker.
pub(crate) fn is_left_over(name: &[u8]) -> bool {
    let suffix = name.strip_prefix(BESIDE.as_bytes());
    suffix.is_some_and(|suffix| protocol::bytes::unhex::<8>(suffix).is_some())
}

/// Removes what runs that were killed left beside the marker.
fn sweep(root: &Root) -> io::Result<()> {
    for listed in root.list(b"")? {
        if is_left_over(&listed.name) && listed.kind == FileType::RegularFile {
            root.unlink(&listed.name)?;
        }
    }
    Ok(())
}

/// Whether nothing was opened because it is a link.
fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn no_marker(path: &Path) -> Error {
    Error::Unsafe(format!(
        "{path:?} is no regular file, so it is not known which mail this is; move it away and run again with --adopt"
    ))
}

/// A folder that is new to a replica must not hold a Maildir that is synced by itself.
pub(crate) fn check_nothing_below(root: &Root, dir: &[u8]) -> Result<()> {
    match below(root, dir) {
        Some(below) => Err(Error::Usage(format!(
            "{:?} holds the Maildir {:?}, which is synced by itself; move that one out of it, or remove {} there if it is only a copy",
            root.path(),
            root.full(below),
            MARKER_NAME
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn root_in(dir: &Path) -> Root {
        Root::open(dir).expect("it opens")
    }

    fn read(root: &Root) -> Marker {
        Marker::read(root).expect("readable").expect("there")
    }

    /// `fixtures/marker-N` for each format N.
    fn fixture(format: u64) -> Vec<u8> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let path = dir.join(format!("marker-{format}"));
        fs::read(&path).unwrap_or_else(|_| panic!("{path:?} is missing"))
    }

    #[test]
    fn the_format_of_today_has_a_fixture_which_is_read_and_written_as_it_stands() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = root_in(dir.path());
        let path = dir.path().join(MARKER_NAME);
        fs::write(&path, fixture(FORMAT)).expect("written");
        let marker = read(&root);
        assert_eq!(marker.id, ReplicaId([0xab; 16]));
        assert_eq!(marker.tags(), [Tag([1; 8]), Tag([2; 8])]);
        marker.save(&root).expect("saved");
        assert_eq!(fs::read(&path).expect("read"), fixture(FORMAT));
    }

    #[test]
    fn a_newer_format_is_refused_and_is_a_marker_all_the_same() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (root, below_it) = (root_in(dir.path()), dir.path().join("a"));
        let newer = FORMAT + 1;
        let text = format!("maildir-sync {newer} what do we know\n");
        for place in [dir.path(), &below_it] {
            fs::create_dir_all(place).expect("made");
            fs::write(place.join(MARKER_NAME), &text).expect("written");
        }
        let refused = Marker::read(&root).expect_err("it is refused").to_string();
        let said = format!("has format {newer}, and this version knows {FORMAT}");
        assert!(refused.contains(&said), "{refused}");
        assert_eq!(below(&root, b"a"), Some(&b"a"[..]));
        assert_eq!(above(&below_it), Some(&*below_it));
    }

    #[test]
    fn tags_survive_a_torn_last_line() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = root_in(dir.path());
        let marker = Marker::new(ReplicaId([7; 16]), vec![Tag([1; 8])]);
        marker.save(&root).expect("saved");
        let path = dir.path().join(MARKER_NAME);
        let mut text = fs::read(&path).expect("read");
        text.extend(b"0202");
        fs::write(&path, text).expect("written");
        let mut marker = read(&root);
        assert_eq!(marker.tags(), [Tag([1; 8])]);
        marker.append(&root, Tag([3; 8])).expect("appended");
        assert_eq!(read(&root).tags(), [Tag([1; 8]), Tag([3; 8])]);
        assert_eq!(read(&root).id, ReplicaId([7; 16]));
    }

    #[test]
    fn the_newest_thousand_tags_are_kept() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = root_in(dir.path());
        let tags = (0..1000_u64).map(|number| Tag(number.to_be_bytes()));
        let mut marker = Marker::new(ReplicaId([7; 16]), tags.collect());
        for number in 1000..1003_u64 {
            let tag = Tag(number.to_be_bytes());
            marker.append(&root, tag).expect("appended");
        }
        let marker = read(&root);
        assert_eq!(marker.tags().len(), 1000);
        assert_eq!(marker.tags()[0], Tag(3_u64.to_be_bytes()));
        assert_eq!(marker.newest(), Some(Tag(1002_u64.to_be_bytes())));
    }

    /// What has another name in a snapshot stays as it was there.
    #[test]
    fn a_hard_link_keeps_the_tags_that_it_had() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = root_in(dir.path());
        let mut marker = Marker::new(ReplicaId([7; 16]), vec![Tag([1; 8])]);
        marker.save(&root).expect("saved");
        let (path, link) = (dir.path().join(MARKER_NAME), dir.path().join("snapshot"));
        fs::hard_link(&path, &link).expect("linked");
        let before = fs::read(&link).expect("read");
        marker.append(&root, Tag([2; 8])).expect("appended");
        assert_eq!(fs::read(&link).expect("read"), before);
        let stat = fs::metadata(&path).expect("there");
        assert_eq!(
            (stat.nlink(), stat.permissions().mode() & 0o777),
            (1, 0o600)
        );
    }

    #[test]
    fn what_a_killed_run_left_beside_it_goes_and_what_others_have_there_stays() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = root_in(dir.path());
        let names = [".maildir-sync.new-0123456789abcdef", ".maildir-sync.new-x"];
        for name in names {
            fs::write(dir.path().join(name), "").expect("written");
        }
        fs::create_dir(dir.path().join(".maildir-sync.new")).expect("made");
        let marker = Marker::new(ReplicaId([7; 16]), Vec::new());
        marker.save(&root).expect("saved");
        assert!(!dir.path().join(names[0]).exists());
        assert!(dir.path().join(names[1]).exists());
        assert!(dir.path().join(".maildir-sync.new").exists());
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once_and_not_followed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = root_in(dir.path());
        let path = dir.path().join(MARKER_NAME);
        let outside = dir.path().join("outside");
        fs::write(
            &outside,
            "maildir-sync 1 07070707070707070707070707070707\n",
        )
        .expect("written");
        symlink(&outside, &path).expect("linked");
        assert!(matches!(Marker::read(&root), Err(Error::Unsafe(_))));
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        assert!(matches!(Marker::read(&root), Err(Error::Unsafe(_))));
        fs::remove_dir(&path).expect("removed");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).expect("made");
        assert!(matches!(Marker::read(&root), Err(Error::Unsafe(_))));
    }

    #[test]
    fn markers_above_and_below_are_found_and_other_files_of_the_name_are_none() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("mail");
        let deep = path.join("a/b/c");
        fs::create_dir_all(&deep).expect("made");
        let root = root_in(&path);
        let marker = Marker::new(ReplicaId([7; 16]), Vec::new());
        marker.save(&root).expect("saved");
        fs::write(path.join("a").join(MARKER_NAME), "my notes").expect("written");
        assert_eq!((above(&deep), below(&root, b"a/b/c")), (Some(&*path), None));
        assert_eq!(below(&root, b""), None);
        marker.save(&root_in(&path.join("a/b"))).expect("saved");
        assert_eq!(below(&root, b"a/b/c"), Some(&b"a/b"[..]));
        assert_eq!(above(&deep), Some(&*path.join("a/b")));
    }

    #[test]
    fn a_damaged_marker_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join(MARKER_NAME), b"what is this").expect("written");
        let root = root_in(dir.path());
        assert!(matches!(Marker::read(&root), Err(Error::Unsafe(_))));
    }
}
