//! From one file system to another, where no rename leads (C60): a folder may be a mount or a subvolume, and some refuse
//! renames within.
//!
//! A durable copy gets the new name, then the old file goes to the trash, or away where it is ours. If interrupted before
//! the copy has its name, nothing has happened; after it, [`crate::recover`] takes the old file away.

use std::io;

use protocol::message::NewBody;
use protocol::{Digest, Outcome};

use crate::apply::{Applier, Step, Stop, named, stale};
use crate::error::Context;
use crate::hash::hash_file;
use crate::index::{FileRow, FolderRow};
use crate::listing::subdir;
use crate::root::split_path;
use crate::stamp::FileStamp;
use crate::trash::{Label, MOVED, Taken};
use crate::written::{Written, flush};

impl Applier<'_> {
    /// A durable copy of a file in the `tmp` of a folder.
    fn copy_near(&mut self, from: &[u8], dir: &[u8], body: (&Digest, i64)) -> io::Result<Written> {
        let source = self.root.open_file(from)?;
        let written = self.inbox.copy(dir, body, source)?;
        flush([&written].into_iter())?;
        Ok(written)
    }

    /// Delivers a body that waits in the `tmp` of another file system.
    pub(crate) fn deliver_across(
        &mut self,
        tmp: &[u8],
        path: &[u8],
        folder: &FolderRow,
        (in_new, body): (bool, &NewBody),
    ) -> Step<()> {
        let near = self.copy_near(tmp, &folder.dir, (&body.digest, body.mtime_ns))?;
        named(self.give_name(&near.path, path, folder, in_new))?;
        drop(near.into_file());
        Ok(self.root.unlink(tmp)?)
    }

    /// Moves a message to a folder on another file system.
    pub(crate) fn move_across(
        &mut self,
        row: &FileRow,
        (from, path): (&[u8], &[u8]),
        (folder, in_new): (&FolderRow, bool),
    ) -> Step<()> {
        let body = (&row.entry.digest, row.stamp.mtime_ns);
        let near = self.copy_near(from, &folder.dir, body)?;
        let trash_name = self.announce_moved(from, &row.entry.digest)?;
        named(self.give_name(&near.path, path, folder, in_new))?;
        let (_, stamp, _record) = near.into_file();
        self.root.sync_dir(split_path(path).0)?;
        self.drop_old((from, path), (&row.stamp, &stamp), &trash_name)
    }

    /// Takes the old file of a message away; where that cannot be, the copy goes again.
    fn drop_old(
        &mut self,
        (from, path): (&[u8], &[u8]),
        (old, new): (&FileStamp, &FileStamp),
        trash_name: &str,
    ) -> Step<()> {
        let taken = self.trash.take(self.root, from, old, trash_name);
        if matches!(taken, Ok(Taken::Yes)) {
            self.dirty_dirs.insert(split_path(from).0.to_vec());
            return Ok(());
        }
        self.root.remove(path, |seen| seen.ino == new.ino)?;
        match taken {
            Err(error) => Err(error.into()),
            Ok(_) => stale(),
        }
    }

    /// What the trash says of a file that goes because its copy has come elsewhere.
    fn moved(&self, from: &[u8], digest: &Digest) -> Label {
        let (sub, name) = split_path(from);
        let (dir, sub) = split_path(sub);
        Label {
            folder: dir.to_vec(),
            name: name.to_vec(),
            in_new: sub == subdir(true),
            digest: Some(*digest),
            reason: Some(MOVED),
        }
    }

    fn announce_moved(&mut self, from: &[u8], digest: &Digest) -> Step<String> {
        let label = self.moved(from, digest);
        let names = self.trash.announce(self.tag, &[label]);
        let mut names = names.map_err(|error| {
            let why = error.to_string();
            Stop::Outcome(Outcome::Failed { why })
        })?;
        Ok(names.remove(0))
    }

    /// Moves a file of a folder that is renamed, whatever lies between both directories.
    pub(crate) fn carry(&mut self, from: &[u8], to: &[u8], dir: &[u8]) -> Step<()> {
        match self.root.rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
            other => return Ok(other?),
        }
        let hashed = hash_file(self.root, from)?;
        let near = self.copy_near(from, dir, (&hashed.digest, hashed.stamp.mtime_ns))?;
        let trash_name = self.announce_moved(from, &hashed.digest)?;
        named(self.root.rename(&near.path, to))?;
        let (_, stamp, _record) = near.into_file();
        self.root.sync_dir(split_path(to).0)?;
        self.drop_old((from, to), (&hashed.stamp, &stamp), &trash_name)
    }

    /// Takes away the old file of a message whose copy got its name before a run was cut off.
    pub(crate) fn finish_move(&mut self, from: &[u8], digest: &Digest) -> crate::error::Result<()> {
        let full = self.root.full(from);
        let stamp = self.root.file_stamp(from).context("look at", &full)?;
        let names = self.trash.announce(self.tag, &[self.moved(from, digest)])?;
        let taken = self.trash.take(self.root, from, &stamp, &names[0]);
        taken.map(drop).context("move to the trash", &full)
    }
}
