//! Renames that never overwrite (I5), whatever the file system can.
//!
//! Best is `RENAME_NOREPLACE`. FUSE, NFS and ZFS have none: there a second name is made, which fails where the name is
//! taken, and then the first one is removed. Where there are no links either, and for directories, the name is looked at
//! once more and then given, under the root's lock. If interrupted, a file has its old name, its new one, or both; which
//! of them counts says [`crate::recover`].

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

/// A name in an open directory.
#[derive(Clone, Copy)]
pub(crate) struct NameIn<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) name: &'a [u8],
}

impl NameIn<'_> {
    pub(crate) fn unlink(self) -> io::Result<()> {
        Ok(unlinkat(self.dir, self.name, AtFlags::empty())?)
    }

    fn is_taken(self) -> io::Result<bool> {
        match statat(self.dir, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(false),
            other => Ok(other.map(|_| true)?),
        }
    }
}

/// Renames a file or directory to a name that others may give, too. Where a second name had to be made, `leave` removes
/// the first one, or fails where that is another file by now.
pub(crate) fn rename(
    from: NameIn,
    to: NameIn,
    leave: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    match renameat_with(from.dir, from.name, to.dir, to.name, RenameFlags::NOREPLACE) {
        Err(error) if is_unknown(error) => {}
        other => return Ok(other?),
    }
    match linkat(from.dir, from.name, to.dir, to.name, AtFlags::empty()) {
        Err(error) if has_no_links(error) => look_and_rename(from, to),
        Err(error) => Err(error.into()),
        // If another program took the first name away meanwhile, it did that to a file that had only this one.
        Ok(()) => leave().or_else(|error| to.unlink().and(Err(error))),
    }
}

/// Renames to a name that nobody else gives.
pub(crate) fn rename_to_ours(from: NameIn, to: NameIn) -> io::Result<()> {
    match renameat_with(from.dir, from.name, to.dir, to.name, RenameFlags::NOREPLACE) {
        Err(error) if is_unknown(error) => look_and_rename(from, to),
        other => Ok(other?),
    }
}

fn look_and_rename(from: NameIn, to: NameIn) -> io::Result<()> {
    if to.is_taken()? {
        return Err(Errno::EXIST.into());
    }
    Ok(renameat(from.dir, from.name, to.dir, to.name)?)
}

/// What became of an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exchanged {
    Yes,
    /// Somebody else gave that name meanwhile. What had it before lies in the place of ours, which is gone.
    NameTaken,
}

/// Exchanges a file of ours with one whose name others may give, too: in one step, or so that the name is free for as short
/// as can be. Then what came out is parked beside ours meanwhile, see [`parked_name`].
pub(crate) fn exchange(ours: NameIn, other: NameIn) -> io::Result<Exchanged> {
    match renameat_with(
        ours.dir,
        ours.name,
        other.dir,
        other.name,
        RenameFlags::EXCHANGE,
    ) {
        Err(error) if is_unknown(error) => {}
        done => return Ok(done.map(|()| Exchanged::Yes)?),
    }
    let name = parked_name(ours.name);
    let parked = NameIn {
        dir: ours.dir,
        name: &name,
    };
    rename_to_ours(other, parked)?;
    if let Err(error) = rename(ours, other, || ours.unlink()) {
        return match rename(parked, other, || parked.unlink()) {
            Err(again) if again.kind() == io::ErrorKind::AlreadyExists => {
                ours.unlink()?;
                rename_to_ours(parked, ours)?;
                Ok(Exchanged::NameTaken)
            }
            back => back.and(Err(error)),
        };
    }
    rename_to_ours(parked, ours)?;
    Ok(Exchanged::Yes)
}

/// Where what is exchanged with a file of ours lies in between.
pub(crate) fn parked_name(name: &[u8]) -> Vec<u8> {
    [name, b"-old"].concat()
}

fn is_unknown(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

fn has_no_links(error: Errno) -> bool {
    matches!(
        error,
        Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK
    )
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn without_flags_a_second_name_is_made_and_the_first_is_left() {
        let dir = tempfile::tempdir().expect("temp dir");
        let held = File::open(dir.path()).expect("it opens");
        let place = |name| NameIn {
            dir: held.as_fd(),
            name,
        };
        for name in ["one", "two"] {
            fs::write(dir.path().join(name), name).expect("it is written");
        }
        let (one, two) = (place(b"one"), place(b"two"));
        assert!(look_and_rename(one, two).is_err(), "it is taken");
        assert!(rename(one, two, || panic!("nothing was made")).is_err());
        look_and_rename(one, place(b"three")).expect("it is free");
        assert_eq!(
            fs::read(dir.path().join("three")).expect("it is there"),
            b"one"
        );
        assert_eq!(
            fs::read(dir.path().join("two")).expect("it is there"),
            b"two"
        );
        assert_eq!(
            exchange(two, place(b"three")).expect("it is done"),
            Exchanged::Yes
        );
        assert_eq!(
            fs::read(dir.path().join("two")).expect("it is there"),
            b"one"
        );
    }
}
