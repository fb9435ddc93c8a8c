//! The directory tree of a replica, reached through one held descriptor.
//!
//! Every path below is relative to the root and resolved beneath it, without following symbolic links, whatever a peer
//! or a mail reader put there meanwhile (I9).

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};

use crate::disk::Disk;
use crate::error::{Context, Result};
use crate::path::{join, split_path};
use crate::rename::{Exchanged, NameIn, exchange, rename, rename_to_ours};
use crate::stamp::{DirStamp, FileStamp};

mod opened;

pub(crate) use opened::{
    Listed, each_in, look_in, name_in, open_in, set_mtime, stamp_in, stamp_of, stamp_of_dir,
    stat_of, sync_held,
};
use opened::{access_of, keeps_birth, list_fd};

/// A held root directory.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
    /// Links below the root that are followed, and the directories to which they led when this run began.
    followed: Arc<Vec<Followed>>,
    disk: Arc<Disk>,
    /// Whether a directory keeps its time of birth for life.
    keeps_birth: bool,
    /// Directories of ours that are to be removed when they are empty.
    asides: Arc<Mutex<BTreeSet<Vec<u8>>>>,
}

/// A link that is followed.
#[derive(Debug)]
struct Followed {
    /// Where the link lies below the root.
    link: Vec<u8>,
    target: PathBuf,
    fd: OwnedFd,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .context("open the Maildir", path)?;
        let held = File::from(fd);
        let disk = Disk::of(&held).context("look at", path)?;
        let keeps_birth = keeps_birth(held.as_fd()).context("look at", path)?;
        Ok(Root {
            fd: held.into(),
            path: path.to_owned(),
            followed: Arc::default(),
            disk: Arc::new(disk),
            keeps_birth,
            asides: Arc::default(),
        })
    }

    /// Follows the links below the root that lead to directories elsewhere, once and for this run. One that leads to the
    /// root, into it, or where another one leads already, is left alone: so no folder is there twice, and loops end.
    pub(crate) fn follow(&mut self, links: &[Vec<u8>]) -> io::Result<bool> {
        let own = self.path.canonicalize()?;
        let overlaps = |one: &Path, other: &Path| one.starts_with(other) || other.starts_with(one);
        let mut followed = Vec::new();
        for link in links {
            let Ok(target) = self.full(link).canonicalize() else {
                continue;
            };
            let known = self.followed.iter().chain(&followed);
            let mut taken = known.map(|known: &Followed| known.target.as_path());
            if overlaps(&target, &own) || taken.any(|known| overlaps(&target, known)) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(fd) = rustix::fs::openat(CWD, &target, flags, Mode::empty()) {
                let link = link.clone();
                followed.push(Followed { link, target, fd });
            }
        }
        let has_more = !followed.is_empty();
        let before = std::mem::take(&mut self.followed);
        followed.extend(Arc::try_unwrap(before).unwrap_or_default());
        self.followed = Arc::new(followed);
        Ok(has_more)
    }

    /// Whether a path is a link that is followed.
    pub(crate) fn is_followed(&self, relative: &[u8]) -> bool {
        self.followed.iter().any(|one| one.link == relative)
    }

    /// The held directory in which a path is resolved, and the path from there.
    fn base<'a>(&self, relative: &'a [u8]) -> (BorrowedFd<'_>, &'a [u8]) {
        let inside = self.followed.iter().filter_map(|one| {
            let rest = relative.strip_prefix(&one.link[..])?;
            match rest.strip_prefix(b"/") {
                Some(rest) => Some((one, rest)),
                None => rest.is_empty().then_some((one, rest)),
            }
        });
        // A link in a followed directory is followed from there.
        let innermost = inside.max_by_key(|(one, _)| one.link.len());
        let (fd, rest) = match innermost {
            Some((one, rest)) => (one.fd.as_fd(), rest),
            None => (self.fd.as_fd(), relative),
        };
        (fd, if rest.is_empty() { b"." } else { rest })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The full path of something in the root, for messages.
    pub(crate) fn full(&self, relative: &[u8]) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(relative))
    }

    pub(crate) fn asides(&self) -> MutexGuard<'_, BTreeSet<Vec<u8>>> {
        self.asides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file system that the root itself lies on; a folder may lie on another.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The number of the file system that a directory lies on.
    pub(crate) fn device_of(&self, relative: &[u8]) -> io::Result<u64> {
        let (base, relative) = self.base(relative);
        let stat = rustix::fs::statat(base, relative, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(stat.st_dev)
    }

    fn open_beneath(&self, relative: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let (base, relative) = self.base(relative);
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // The kernel answers EAGAIN when a rename elsewhere made it unsure of `..`; asking again is its documented cure.
        for _ in 0..8 {
            match rustix::fs::openat2(base, relative, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
        Err(rustix::io::Errno::AGAIN.into())
    }

    pub(crate) fn open_dir(&self, relative: &[u8]) -> io::Result<OwnedFd> {
        self.open_beneath(relative, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// Opens for reading; never blocks on a fifo that somebody put among the mail.
    pub(crate) fn open_file(&self, relative: &[u8]) -> io::Result<File> {
        Ok(self
            .open_beneath(relative, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?
            .into())
    }

    /// Makes a file with the mode that files get in its directory.
    pub(crate) fn create_file(&self, relative: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let mode = self.file_mode(split_path(relative).0)?;
        let file = self.open_beneath(relative, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fchmod(&file, mode)?;
        Ok(file.into())
    }

    /// What a file in a directory may be to whom: the same as the directory, which nobody can execute.
    pub(crate) fn file_mode(&self, dir: &[u8]) -> io::Result<Mode> {
        let stat = rustix::fs::fstat(self.open_dir(dir)?)?;
        let mode = Mode::from_raw_mode(stat.st_mode) & Mode::from_raw_mode(0o666);
        Ok(mode | Mode::RUSR | Mode::WUSR)
    }

    /// Makes a file that only its owner may read, where nothing has its name.
    pub(crate) fn create_private(&self, relative: &[u8]) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        Ok(self
            .open_beneath(relative, flags, Mode::RUSR | Mode::WUSR)?
            .into())
    }

    /// Opens a directory so that names in it can be used one component at a time.
    pub(crate) fn parent<'a>(&self, relative: &'a [u8]) -> io::Result<(OwnedFd, &'a [u8])> {
        let (dir, name) = split_path(relative);
        Ok((self.open_dir(dir)?, name))
    }

    pub(crate) fn file_stamp(&self, relative: &[u8]) -> io::Result<FileStamp> {
        let (dir, name) = self.parent(relative)?;
        stamp_in(dir.as_fd(), name)
    }

    /// How many names a file has.
    pub(crate) fn links(&self, relative: &[u8]) -> io::Result<u64> {
        let (dir, name) = self.parent(relative)?;
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(stat.st_nlink as u64)
    }

    /// The stamp of a directory; cheap, because a sync with nothing to do asks for hundreds of them.
    pub(crate) fn dir_stamp(&self, relative: &[u8]) -> io::Result<DirStamp> {
        match self.look(relative)? {
            (FileType::Directory, stamp) => Ok(stamp),
            _ => Err(rustix::io::Errno::NOTDIR.into()),
        }
    }

    /// What lies there, and its stamp, whatever it is.
    pub(crate) fn look(&self, relative: &[u8]) -> io::Result<(FileType, DirStamp)> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let (base, relative) = self.base(relative);
        let stat = rustix::fs::statx(base, relative, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        let stamp = DirStamp::from(&stat);
        Ok((kind, stamp.born_if(self.keeps_birth)))
    }

    /// Inode and time of birth of a directory: what stays when it is renamed. The birth is 0 where unknown.
    pub(crate) fn dir_identity(&self, relative: &[u8]) -> io::Result<(u64, i64)> {
        let (_, stamp) = self.look(relative)?;
        Ok((stamp.ino, stamp.birth_ns))
    }

    /// A number for the file system under the root, so that inodes of another one are not taken for these.
    pub(crate) fn file_system(&self) -> io::Result<i64> {
        let statfs = rustix::fs::fstatfs(&self.fd)?;
        let text = format!("{:?} {}", statfs.f_fsid, statfs.f_type);
        let digest = blake3::hash(text.as_bytes());
        Ok(i64::from_le_bytes(
            digest.as_bytes()[..8]
                .try_into()
                .expect("a digest has 32 bytes"),
        ))
    }

    /// The magic number of the file system's type, see statfs(2).
    pub(crate) fn file_system_type(&self) -> io::Result<i64> {
        Ok(rustix::fs::fstatfs(&self.fd)?.f_type)
    }

    /// Renames to a name that nobody else gives.
    pub(crate) fn rename_to_ours(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let ((from_dir, from), (to_dir, to)) = (self.parent(from)?, self.parent(to)?);
        rename_to_ours(name_in(&from_dir, from), name_in(&to_dir, to))
    }

    /// Exchanges a file of ours with another.
    pub(crate) fn exchange(&self, ours: &[u8], other: &[u8]) -> io::Result<Exchanged> {
        let ((our_dir, ours), (other_dir, other)) = (self.parent(ours)?, self.parent(other)?);
        exchange(name_in(&our_dir, ours), name_in(&other_dir, other))
    }

    /// Renames over what has the name: the marker, and nothing else.
    pub(crate) fn replace(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let ((from_dir, from), (to_dir, to)) = (self.parent(from)?, self.parent(to)?);
        Ok(rustix::fs::renameat(from_dir, from, to_dir, to)?)
    }

    /// Renames out of the root, into a directory of ours on the same file system.
    pub(crate) fn rename_out(&self, from: &[u8], dir: BorrowedFd, to: &[u8]) -> io::Result<()> {
        let (from_dir, from) = self.parent(from)?;
        rename_to_ours(name_in(&from_dir, from), NameIn { dir, name: to })
    }

    /// The way back of [`Root::rename_out`].
    pub(crate) fn rename_in(&self, dir: BorrowedFd, from: &[u8], to: &[u8]) -> io::Result<()> {
        let (to_dir, to) = self.parent(to)?;
        let from = NameIn { dir, name: from };
        rename(from, name_in(&to_dir, to), || from.unlink())
    }

    pub(crate) fn unlink(&self, relative: &[u8]) -> io::Result<()> {
        let (dir, name) = self.parent(relative)?;
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, relative: &[u8]) -> io::Result<()> {
        let (dir, name) = self.parent(relative)?;
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
    }

    /// Makes a directory, if it is missing, that is to everybody what the one above it is, whatever the umask. Its group
    /// comes from there by itself, where that says so.
    pub(crate) fn make_dir(&self, relative: &[u8]) -> io::Result<()> {
        let (dir, name) = self.parent(relative)?;
        let mode = access_of(dir.as_fd())?;
        match rustix::fs::mkdirat(&dir, name, mode) {
            Err(rustix::io::Errno::EXIST) => return Ok(()),
            other => other?,
        }
        let made = self.open_dir(relative)?;
        // Only where the umask took something: a change of mode may cost a bit that was inherited.
        if access_of(made.as_fd())? != mode {
            let inherited = Mode::from_raw_mode(rustix::fs::fstat(&made)?.st_mode) & Mode::SGID;
            rustix::fs::fchmod(&made, mode | inherited)?;
        }
        Ok(())
    }

    pub(crate) fn sync_dir(&self, relative: &[u8]) -> io::Result<()> {
        sync_held(self.open_dir(relative)?.as_fd())
    }

    /// Flushes the whole file system; reports write-back errors since Linux 5.8 (syncfs(2)).
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.fd)?)
    }

    pub(crate) fn list(&self, relative: &[u8]) -> io::Result<Vec<Listed>> {
        list_fd(self.open_dir(relative)?.as_fd())
    }

    /// What a name is, links not followed.
    pub(crate) fn kind(&self, relative: &[u8]) -> io::Result<FileType> {
        let (dir, name) = self.parent(relative)?;
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    /// Whether there is a `cur` or a `new` in a directory.
    pub(crate) fn holds_mail(&self, relative: &[u8]) -> bool {
        let is_there = |name: &[u8]| self.dir_stamp(&join(relative, &[name])).is_ok();
        is_there(b"cur") || is_there(b"new")
    }

    /// Whether a link leads to a directory that holds a `cur` or a `new`, or to one above such; none if it leads nowhere.
    /// Looks at names only, and opens no file: it may lead anywhere.
    pub(crate) fn holds_mail_behind(&self, link: &[u8]) -> Option<bool> {
        let (base, name) = self.parent(link).ok()?;
        let stat = rustix::fs::statat(&base, name, AtFlags::empty()).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Some(false);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(&base, name, flags, Mode::empty()) else {
            return Some(true); // It may, and cannot be read.
        };
        let target = Root {
            fd,
            path: self.full(link),
            followed: Arc::default(),
            disk: Arc::clone(&self.disk), // Nothing is written there.
            keeps_birth: self.keeps_birth,
            asides: Arc::default(),
        };
        let below = target.list(b"").unwrap_or_default();
        let is_above = |listed: &Listed| target.holds_mail(&listed.name);
        Some(target.holds_mail(b"") || below.iter().any(is_above))
    }
}
