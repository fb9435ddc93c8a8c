//! Paths below the root, and what the parts of a folder are called in them.

use std::collections::HashSet;

use protocol::bytes::escape;
use protocol::name::{self, edited};
use protocol::{Info, Unique};

/// The directory of a path in the root, and the name in it.
pub(crate) fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|&byte| byte == b'/');
    at.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]))
}

/// Joins the parts of a path in the root.
pub(crate) fn join(dir: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut path = dir.to_vec();
    for part in parts {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    path
}

/// The subdirectory of a message.
pub(crate) fn subdir(in_new: bool) -> &'static [u8] {
    if in_new { b"new" } else { b"cur" }
}

/// A folder's directory for people.
pub(crate) fn folder_text(dir: &[u8]) -> String {
    match dir {
        b"" => "INBOX".to_owned(),
        dir => escape(dir),
    }
}

/// Whether there may be mail among files of these names in a folder's `new` or `cur`.
pub(crate) fn holds_mail(names: &[Vec<u8>]) -> bool {
    let names = names.iter().filter(|name| !name.starts_with(b"."));
    names
        .map(|name| edited(name))
        .any(|belongs| is_mail(belongs, &HashSet::new()))
}

/// Whether a file of this name is a message of this unique name, and not what an editor left beside it.
pub(crate) fn is_named(name: &[u8], unique: &Unique) -> bool {
    edited(name).is_none() && name::split(name).is_ok_and(|(found, _)| found == *unique)
}

/// Whether a file is mail that by its name may belong to one of these messages. What belongs to a draft stays an editor's
/// file when the draft is sent and gone.
pub(crate) fn is_mail(belongs: Option<(Unique, Info)>, messages: &HashSet<Unique>) -> bool {
    belongs.is_none_or(|(unique, info)| !messages.contains(&unique) && !info.flags().contains(b'D'))
}
