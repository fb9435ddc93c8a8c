//! Setting aside: a file or directory goes where nobody else gives names, is looked at there once more, and then goes for
//! good, or back to where it was.
//!
//! Everything that takes a name away does it so, because between a look and a step another program may have put something
//! else under that name. A kill in between leaves it aside; its place there says where it belongs, and
//! [`Root::bring_back`] takes it there, so that no other program's file is ever swept away.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use protocol::name;
use rustix::fs::{Mode, OFlags};

use crate::hash::hash_open;
use crate::path::{join, split_path, subdir};
use crate::rename::rename;
use crate::root::{Listed, Root, name_in};
use crate::stamp::FileStamp;

/// Sets something aside, looks whether it is what is meant, and puts it back if not. Returns whether it was.
///
/// # Errors
/// When a step fails; then it is where it was, or waits aside where it could not go back.
pub(crate) fn set_aside(
    go: impl FnOnce() -> io::Result<()>,
    is_it: impl FnOnce() -> io::Result<bool>,
    back: impl FnOnce() -> io::Result<()>,
) -> io::Result<bool> {
    go()?;
    match is_it() {
        Ok(true) => Ok(true),
        other => back().and(other),
    }
}

/// The directory in `tmp` for what was in `cur` or `new`.
fn aside_name(in_new: bool) -> Vec<u8> {
    [b"maildir-sync-aside-", subdir(in_new)].concat()
}

/// Where a file of `cur` or `new` is set aside: a directory in its folder's `tmp`, and its name there.
fn aside_of(path: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (sub, name) = split_path(path);
    let (folder, sub) = split_path(sub);
    let in_new = [true, false]
        .into_iter()
        .find(|in_new| subdir(*in_new) == sub)?;
    let dir = join(folder, &[b"tmp", &aside_name(in_new)]);
    let aside = join(&dir, &[name]);
    Some((dir, aside))
}

impl Root {
    /// Renames without ever overwriting (I5).
    pub(crate) fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (self.parent(from)?, self.parent(to)?);
        let (from_place, to_place) = (name_in(&from_dir, from_name), name_in(&to_dir, to_name));
        rename(from_place, to_place, || self.leave(from, to))
    }

    /// Removes the first name of a file that has got a second one.
    pub(crate) fn leave(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let ino = self.file_stamp(to)?.ino;
        match self.remove(from, |seen| seen.ino == ino)? {
            true => Ok(()),
            false => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    /// Removes one name of a file, if it is the one that is meant; another that has come under it meanwhile stays.
    pub(crate) fn remove(
        &self,
        path: &[u8],
        is_it: impl FnOnce(&FileStamp) -> bool,
    ) -> io::Result<bool> {
        let Some((dir, aside)) = aside_of(path) else {
            return self.unlink(path).map(|()| true); // Only ours lie elsewhere.
        };
        self.make_dir(split_path(&dir).0)?;
        self.make_dir(&dir)?;
        let removed = set_aside(
            || self.rename_to_ours(path, &aside),
            || self.file_stamp(&aside).map(|stamp| is_it(&stamp)),
            || self.put_back(&aside, path),
        );
        let removed = removed.and_then(|is_it| match is_it {
            true => self.unlink(&aside).map(|()| true),
            false => Ok(false),
        });
        self.remove_aside(dir); // Unless it holds what could not go back.
        removed
    }

    /// Removes a directory of ours that is empty, or will be: FUSE keeps a file that was just read for a moment longer.
    fn remove_aside(&self, dir: Vec<u8>) {
        if self.remove_dir(&dir).is_err() {
            self.asides().insert(dir);
        }
    }

    /// Removes what could not be removed before.
    pub(crate) fn clear_asides(&self) {
        let dirs = std::mem::take(&mut *self.asides());
        for dir in dirs {
            match self.remove_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    self.asides().insert(dir);
                }
                _ => {}
            }
        }
    }

    /// Gives a file its name back, or a fresh one where that is taken now.
    pub(crate) fn put_back(&self, aside: &[u8], path: &[u8]) -> io::Result<()> {
        let (dir, name) = split_path(aside);
        self.put_in(self.open_dir(dir)?.as_fd(), name, path)
    }

    /// The same for a file outside of the root.
    pub(crate) fn put_in(&self, dir: BorrowedFd, name: &[u8], path: &[u8]) -> io::Result<()> {
        match self.rename_in(dir, name, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        let (target, old) = split_path(path);
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let (unique, info) = name::split(old).map_err(invalid)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
        let digest = hash_open(&mut file)?.digest;
        let unique = unique.fresh(&digest, info.as_bytes().len());
        let fresh = name::join(&unique, &info).map_err(invalid)?;
        self.rename_in(dir, name, &join(target, &[&fresh]))
    }

    /// Brings back what a dead run had set aside from a folder. Under the root's lock.
    pub(crate) fn bring_back(&self, folder: &[u8]) -> io::Result<()> {
        for in_new in [true, false] {
            let dir = join(folder, &[b"tmp", &aside_name(in_new)]);
            let listed = match self.list(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let is_ours = |listed: &&Listed| !listed.name.starts_with(b".fuse_hidden");
            for listed in listed.iter().filter(is_ours) {
                let aside = join(&dir, &[&listed.name]);
                let path = join(folder, &[subdir(in_new), &listed.name]);
                let is_second_name = match (self.file_stamp(&aside), self.file_stamp(&path)) {
                    (Ok(one), Ok(other)) => one.ino == other.ino,
                    _ => false,
                };
                match is_second_name {
                    true => self.unlink(&aside)?,
                    false => self.put_back(&aside, &path)?,
                }
            }
            self.remove_aside(dir);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::trash::{Label, Retired, Trash};

    fn root(dir: &Path) -> Root {
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(dir.join("mail").join(part)).expect("it is made");
        }
        Root::open(&dir.join("mail")).expect("it opens")
    }

    /// The files of a directory with what is in them.
    fn files(dir: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(dir).expect("it is there").flatten();
        let read = |path: &Path| fs::read_to_string(path).expect("it is a file");
        let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut files: Vec<_> = entries
            .map(|entry| (name(&entry), read(&entry.path())))
            .collect();
        files.sort();
        files
    }

    fn pair(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    /// Between a look and a removal another program renames its file over the name.
    #[test]
    fn what_has_come_under_a_name_since_the_look_stays_there() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (root, cur) = (root(dir.path()), dir.path().join("mail/cur"));
        fs::write(cur.join("1.a:2,"), "old").expect("it is written");
        let looked = root.file_stamp(b"cur/1.a:2,").expect("it is there");
        fs::write(cur.join("other"), "another").expect("it is written");
        fs::rename(cur.join("other"), cur.join("1.a:2,")).expect("it is renamed");
        let removed = root.remove(b"cur/1.a:2,", |seen| seen.same_but_renamed(&looked));
        assert!(!removed.expect("it is looked at"));
        assert_eq!(files(&cur), [pair("1.a:2,", "another")]);
        assert_eq!(
            fs::read_dir(dir.path().join("mail/tmp"))
                .expect("it is there")
                .count(),
            0
        );
        assert!(root.remove(b"cur/1.a:2,", |_| true).expect("it is the one"));
        assert_eq!(files(&cur), []);
    }

    /// Mail is delivered into a folder between the look into it and its removal.
    #[test]
    fn a_folder_into_which_mail_has_come_since_the_look_stays() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = root(dir.path());
        let folder = dir.path().join("mail/.Old");
        fs::create_dir_all(folder.join("new")).expect("it is made");
        fs::write(folder.join("new/1.a"), "delivered").expect("it is written");
        let mut trash = Trash::new(dir.path().join("trash"), "test".to_owned());
        let mut take = || {
            let names = trash
                .announce(&[Label::default()])
                .expect("it is announced");
            trash
                .take_dir(&root, b".Old", &names[0])
                .expect("it is on one disk")
        };
        assert_eq!(take(), Retired::Changed);
        assert_eq!(files(&folder.join("new")), [pair("1.a", "delivered")]);
        fs::remove_file(folder.join("new/1.a")).expect("it is read");
        assert_eq!(take(), Retired::Yes);
        assert!(!folder.exists());
    }

    /// A run is killed while another program's file is aside.
    #[test]
    fn what_a_dead_run_had_set_aside_comes_back_under_its_name_or_a_fresh_one() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (root, cur) = (root(dir.path()), dir.path().join("mail/cur"));
        let aside = dir.path().join("mail/tmp/maildir-sync-aside-cur");
        let park = |text: &str| {
            fs::create_dir_all(&aside).expect("it is made");
            fs::write(aside.join("1.a,S=5:2,S"), text).expect("it is written");
            root.bring_back(b"").expect("it comes back");
            assert!(!aside.exists());
        };
        park("one");
        assert_eq!(files(&cur), [pair("1.a,S=5:2,S", "one")]);
        park("two");
        let all = files(&cur);
        assert_eq!((all.len(), &all[0]), (2, &pair("1.a,S=5:2,S", "one")));
        assert!(
            all[1].0.ends_with(",S=5:2,S") && all[1].1 == "two",
            "{all:?}"
        );
        fs::create_dir_all(&aside).expect("it is made");
        fs::hard_link(cur.join("1.a,S=5:2,S"), aside.join("1.a,S=5:2,S")).expect("it is linked");
        root.bring_back(b"").expect("it has its name already");
        assert_eq!(files(&cur), all);
    }
}
