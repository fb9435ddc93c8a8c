//! The message that an operation expects: what is not the very one, in the index and on disk, is not touched (I8).

use std::io;

use protocol::Unique;
use protocol::message::{At, Expect};

use super::lookup::{Lookup, Message};
use super::step::{Step, stale};
use crate::hash::hash_file;
use crate::held::Held;
use crate::path::{is_named, join, split_path, subdir};
use crate::root::{Listed, Root};

/// The message at a place, if it is the expected one, in the index and on disk, with no other name.
pub(crate) fn expected(lookup: &Lookup, held: &Held, at: &At, expect: &Expect) -> Step<Message> {
    let Some(mut message) = lookup.message_at(at)? else {
        return stale();
    };
    let row = &message.row;
    let seen = Expect {
        in_new: row.entry.in_new,
        flags: row.entry.flags(),
        digest: row.entry.digest,
    };
    if seen != *expect {
        return stale();
    }
    let (root, path) = (held.root(), message.path());
    let stamp = match root.file_stamp(&path)? {
        stamp if stamp == row.stamp => stamp,
        _ => {
            let hashed = hash_file(root, &path)?;
            if hashed.digest != expect.digest {
                return stale();
            }
            hashed.stamp
        }
    };
    (message.row.stamp, message.row.due) = (stamp, false);
    if root.links(&path)? > 1 {
        drop_links(held, &message, &path)?;
    }
    Ok(message)
}

/// Removes the other names that a message has in its folder: they would be taken for it once this one is gone.
fn drop_links(held: &Held, message: &Message, path: &[u8]) -> Step<()> {
    let (root, row) = (held.root(), &message.row);
    let mut links = links_in(root, &message.folder.dir, &row.unique, row.stamp.ino)?;
    links.retain(|link| link != path);
    for link in links {
        if !root.remove(&link, |seen| seen.ino == row.stamp.ino)? {
            return stale();
        }
        held.mark_dirty(split_path(&link).0);
    }
    Ok(())
}

/// The names of a file in a folder's directory that count as one message: those of one unique name.
pub(crate) fn links_in(
    root: &Root,
    dir: &[u8],
    unique: &Unique,
    ino: u64,
) -> io::Result<Vec<Vec<u8>>> {
    let mut links = Vec::new();
    for in_new in [true, false] {
        let sub = join(dir, &[subdir(in_new)]);
        let names = match root.list(&sub) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for Listed { name, .. } in names {
            let path = join(&sub, &[&name]);
            if is_named(&name, unique) && root.file_stamp(&path)?.ino == ino {
                links.push(path);
            }
        }
    }
    Ok(links)
}
