//! How one tree is laid out, by the directories of its folders.

use std::cmp::Ordering;

use protocol::folder::find_inbox;

use crate::merge::mapping::{FolderNames, Layout};
use crate::merge::utf7;

/// What a tree looks like; none where nothing in it says so.
pub(super) struct Looks<'a> {
    pub(super) layout: Option<Layout>,
    pub(super) names: Option<FolderNames>,
    pub(super) inbox: Option<&'a [u8]>,
}

impl<'a> Looks<'a> {
    pub(super) fn of(dirs: &[&'a [u8]]) -> Looks<'a> {
        let inbox = find_inbox(dirs.iter().copied());
        let others = || dirs.iter().copied().filter(|&dir| Some(dir) != inbox);
        let flat = others().filter(|dir| dir.starts_with(b".")).count();
        let nested = others().count() - flat;
        let layout = match (flat, nested) {
            // INBOX below the root is a nested tree's.
            (0, 0) => inbox
                .filter(|inbox| !inbox.is_empty())
                .map(|_| Layout::Nested),
            (flat, nested) if flat >= nested => Some(Layout::MaildirPlusPlus),
            _ => Some(Layout::Nested),
        };
        Looks {
            layout,
            names: names_of(others()),
            inbox,
        }
    }
}

/// The encoding that most names speak for. A bare `&`, which modified UTF-7 never leaves, speaks for UTF-8 where nothing
/// else speaks.
fn names_of<'a>(dirs: impl Iterator<Item = &'a [u8]>) -> Option<FolderNames> {
    let (mut utf8, mut utf7, mut bare) = (0_usize, 0_usize, 0_usize);
    for part in dirs.flat_map(|dir| dir.split(|byte| matches!(byte, b'/' | b'.'))) {
        if !part.is_ascii() {
            utf8 += usize::from(std::str::from_utf8(part).is_ok());
        } else if part.contains(&b'&') {
            match utf7::decode(part) {
                Some(_) => utf7 += 1,
                None => bare += 1,
            }
        }
    }
    match utf7.cmp(&utf8) {
        Ordering::Greater => Some(FolderNames::Utf7),
        Ordering::Equal if utf7 > 0 => Some(FolderNames::Utf7),
        Ordering::Less => Some(FolderNames::Utf8),
        Ordering::Equal => (bare > 0).then_some(FolderNames::Utf8),
    }
}
