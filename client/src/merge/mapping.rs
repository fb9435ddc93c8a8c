//! Which directory here and which there are one folder, and what people call it.
//!
//! Pure. Where both trees are laid out alike, a folder's directory has the same bytes on both sides, whatever they are.
//! Where they are not, directories are mapped through their text, one-to-one: a directory without a text, or a text
//! without a directory, has no place on the other side. Only here are Maildir++ and nested trees distinguished, and UTF-8
//! and modified UTF-7; both replicas know directories and nothing else. `crate::merge::folders` gives out the names.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use protocol::FolderDir;
use protocol::bytes::escape;
use serde::Deserialize;

use crate::merge::record::Side;
use crate::merge::utf7;

mod looks;
use looks::Looks;

const INBOX: &[u8] = b"INBOX";

/// How folders lie in a root.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum Layout {
    /// `.Lists.debian`
    #[serde(rename = "maildir++")]
    MaildirPlusPlus,
    /// `Lists/debian`
    #[serde(rename = "nested")]
    Nested,
}

/// How folder names are written on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum FolderNames {
    /// UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// IMAP's modified UTF-7.
    #[serde(rename = "utf-7")]
    Utf7,
}

/// What the configuration says of the tree here: it counts where that has no folder yet, and where both sides differ.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key `layout`.
    pub layout: Option<Layout>,
    /// The key `folder_names`.
    pub folder_names: Option<FolderNames>,
}

/// The name by which a run knows a folder: the same on both sides for one that is on both. Not stored.
#[derive(Clone, Debug, Default)]
pub struct FolderName {
    /// Empty for INBOX.
    key: Arc<[u8]>,
    /// The only side on which it can be; then the key is the directory there.
    only: Option<Side>,
    text: Arc<[u8]>,
}

/// The two layouts of a pair.
#[derive(Debug, Default)]
pub struct Mapping {
    /// Both are alike: a folder has one directory.
    is_same: bool,
    sides: [SideLayout; 2],
}

/// How folders are laid out on a side.
#[derive(Debug)]
struct SideLayout {
    layout: Layout,
    names: FolderNames,
    /// Where INBOX is, or would be.
    inbox: Vec<u8>,
}

impl Default for SideLayout {
    fn default() -> SideLayout {
        SideLayout {
            layout: Layout::MaildirPlusPlus,
            names: FolderNames::Utf7,
            inbox: Vec::new(),
        }
    }
}

impl FolderName {
    fn new(key: &[u8], text: &[u8]) -> FolderName {
        FolderName {
            key: key.into(),
            only: None,
            text: text.into(),
        }
    }

    /// Whether it is INBOX.
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.key.is_empty() && self.only.is_none()
    }

    /// The bytes that distinguish it from all others.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.key
    }

    /// What people call it: in UTF-8 where it can be read as such, with `/`, INBOX for INBOX.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        match self.is_inbox() {
            true => INBOX,
            false => &self.text,
        }
    }

    /// How many folders it lies in.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.key.iter().filter(|&&byte| byte == b'/').count()
    }
}

impl PartialEq for FolderName {
    fn eq(&self, other: &FolderName) -> bool {
        (&self.key, self.only) == (&other.key, other.only)
    }
}

impl Eq for FolderName {}

impl Hash for FolderName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.key, self.only).hash(state);
    }
}

impl fmt::Display for FolderName {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&escape(self.text()))
    }
}

impl Mapping {
    /// Finds out how two trees are laid out, by the directories of their folders.
    ///
    /// A tree without a folder takes everything from the other one. Two that look alike are the same. Two that do not are
    /// the same nevertheless if more of their folders have one directory on both sides than have two: a folder of another
    /// kind does not change what all the others are called.
    #[must_use]
    pub fn find(setting: Setting, dirs: [Vec<&[u8]>; 2]) -> Mapping {
        let [here, there] = [Looks::of(&dirs[0]), Looks::of(&dirs[1])];
        let set = match here.layout {
            None => setting,
            Some(_) => Setting::default(),
        };
        let fallback = Layout::MaildirPlusPlus;
        let layout = here.layout.or(set.layout);
        let layouts = [
            layout.or(there.layout).unwrap_or(fallback),
            there.layout.or(layout).unwrap_or(fallback),
        ];
        let names = [here.names.or(set.folder_names), there.names];
        // What nothing in a tree says, the other one does if that is of its kind, or if there is no folder yet.
        let choose = |at: usize, looks: &Looks| {
            let is_alike = layouts[0] == layouts[1] || looks.layout.is_none();
            let other = names[1 - at].filter(|_| is_alike);
            names[at].or(other).unwrap_or(match layouts[at] {
                Layout::MaildirPlusPlus => FolderNames::Utf7,
                Layout::Nested => FolderNames::Utf8,
            })
        };
        let names = [choose(0, &here), choose(1, &there)];
        let looks_same = layouts[0] == layouts[1] && names[0] == names[1];
        let inboxes = [here.inbox, there.inbox];
        let side = |at: usize, inbox| SideLayout {
            layout: layouts[at],
            names: names[at],
            inbox,
        };
        let place = |at: usize| match (inboxes[at], inboxes[1 - at], layouts[at]) {
            (Some(inbox), _, _) => inbox.to_vec(),
            (None, Some(inbox), _) if looks_same && is_bare(&dirs[at]) => inbox.to_vec(),
            (None, _, Layout::MaildirPlusPlus) => Vec::new(),
            (None, _, Layout::Nested) => INBOX.to_vec(),
        };
        let mut mapping = Mapping {
            is_same: looks_same,
            sides: [side(0, place(0)), side(1, place(1))],
        };
        if !looks_same {
            mapping.is_same = mapping.has_common(&dirs);
            let local = &mut mapping.sides[0];
            local.layout = setting.layout.unwrap_or(local.layout);
            local.names = setting.folder_names.unwrap_or(local.names);
        }
        mapping
    }

    /// Whether more folders have the same directory on both sides, where their text has not, than the same text alone.
    fn has_common(&self, dirs: &[Vec<&[u8]>; 2]) -> bool {
        let (mut common, mut textual) = (0_usize, 0_usize);
        for side in Side::BOTH {
            let across: HashSet<&[u8]> = dirs[side.other() as usize].iter().copied().collect();
            for dir in dirs[side as usize]
                .iter()
                .filter_map(|dir| FolderDir::new(dir).ok())
            {
                let name = self.name(side, &dir);
                let mapped = self.dir(side.other(), &name).ok();
                if !name.is_inbox() && mapped.as_ref() != Some(&dir) {
                    let is_there = |dir: &FolderDir| across.contains(dir.as_bytes());
                    common += usize::from(is_there(&dir));
                    textual += usize::from(mapped.as_ref().is_some_and(is_there));
                }
            }
        }
        common > textual
    }

    /// The name of the folder in a directory of a side.
    #[must_use]
    pub fn name(&self, side: Side, dir: &FolderDir) -> FolderName {
        let (plan, dir) = (&self.sides[side as usize], dir.as_bytes());
        if dir == plan.inbox {
            return FolderName::default();
        }
        let text = plan.text(dir);
        match (self.is_same, text) {
            (true, text) => {
                let text = text.filter(|text| *text != INBOX);
                FolderName::new(&self.unswapped(side, dir), text.as_deref().unwrap_or(dir))
            }
            (false, Some(text)) if is_name(&text) => FolderName::new(&text, &text),
            (false, _) => self.only(side, dir),
        }
    }

    /// A name for a directory that has none on the other side, or whose name is another's.
    #[must_use]
    pub fn only(&self, side: Side, dir: &[u8]) -> FolderName {
        let text = self.sides[side as usize].text(dir);
        let text = text.filter(|text| *text != INBOX);
        FolderName {
            only: Some(side),
            ..FolderName::new(dir, text.as_deref().unwrap_or(dir))
        }
    }

    /// The directory of a folder on a side.
    ///
    /// # Errors
    /// When there can be none; with the reason, for people.
    pub fn dir(&self, side: Side, name: &FolderName) -> Result<FolderDir, String> {
        let plan = &self.sides[side as usize];
        if name.is_inbox() {
            return FolderDir::new(&plan.inbox).map_err(|error| error.to_string());
        }
        let dir = match name.only {
            Some(only) if only == side => name.key.to_vec(),
            Some(only) => return Err(self.why_only(only, &name.key)),
            None if self.is_same => self.swapped(side, &name.key),
            None => plan.write(&name.key)?,
        };
        let dir = FolderDir::new(&dir).map_err(|error| error.to_string())?;
        maildir::check_dir(&dir)?;
        let inbox = protocol::folder::find_inbox([dir.as_bytes(), &plan.inbox]);
        if inbox != Some(&plan.inbox) || dir.as_bytes() == plan.inbox {
            return Err("it would be INBOX there; rename it".to_owned());
        }
        if name.only.is_none() && self.name(side, &dir) != *name {
            return Err(format!(
                "its directory there, {dir}, would be read as another name; rename it"
            ));
        }
        Ok(dir)
    }

    /// Why a directory has a place on its own side only.
    fn why_only(&self, side: Side, dir: &[u8]) -> String {
        let plan = &self.sides[side as usize];
        let remedy = "rename it";
        match plan.text(dir) {
            Some(text) if text == INBOX => format!("it would be INBOX there; {remedy}"),
            Some(text) if is_name(&text) && !self.is_same => format!(
                "\"{}\" is another folder's name already; {remedy}",
                escape(&text)
            ),
            Some(_) if !self.is_same => format!(
                "a part of its name is empty, \".\" or \"..\", and the folders on both sides are laid out differently; {remedy}"
            ),
            _ => format!("its place there is another folder's; {remedy}"),
        }
    }

    /// Two trees that only differ in how INBOX is written differ so in what lies below it, too.
    fn swapped(&self, side: Side, key: &[u8]) -> Vec<u8> {
        match below(INBOX, key) {
            Some(rest) if self.is_swapping() => {
                [&self.sides[side as usize].inbox[..], b"/", rest].concat()
            }
            _ => key.to_vec(),
        }
    }

    fn unswapped<'a>(&self, side: Side, dir: &'a [u8]) -> Cow<'a, [u8]> {
        match below(&self.sides[side as usize].inbox, dir) {
            Some(rest) if self.is_swapping() => [INBOX, b"/", rest].concat().into(),
            _ => dir.into(),
        }
    }

    fn is_swapping(&self) -> bool {
        let [here, there] = [&self.sides[0].inbox, &self.sides[1].inbox];
        here != there && !here.is_empty() && !there.is_empty()
    }
}

impl SideLayout {
    /// What a directory is called: its parts with `/` between them; none for what has an empty part.
    fn text(&self, dir: &[u8]) -> Option<Vec<u8>> {
        if let Some(rest) = below(&self.inbox, dir) {
            let levels = rest.split(|&byte| byte == b'/');
            return Some(
                self.join(
                    [Cow::Borrowed(INBOX)]
                        .into_iter()
                        .chain(self.decoded(levels)),
                ),
            );
        }
        let mut levels = dir.split(|&byte| byte == b'/');
        let Some(flat) = dir.strip_prefix(b".") else {
            return Some(self.join(self.decoded(levels)));
        };
        let flat = flat.split(|&byte| byte == b'/').next().unwrap_or_default();
        levels.next();
        let parts = flat.split(|&byte| byte == b'.').chain(levels);
        let text = self.join(self.decoded(parts));
        (!text.is_empty()).then_some(text)
    }

    fn join<'a>(&self, parts: impl Iterator<Item = Cow<'a, [u8]>>) -> Vec<u8> {
        parts.collect::<Vec<_>>().join(&b'/')
    }

    /// What is no modified UTF-7 in a tree of such names is taken as it is.
    fn decoded<'a>(
        &self,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> impl Iterator<Item = Cow<'a, [u8]>> {
        let names = self.names;
        parts.map(move |part| match (names, utf7::decode(part)) {
            (FolderNames::Utf7, Some(text)) => text.into_bytes().into(),
            _ => part.into(),
        })
    }

    /// The directory of a text.
    fn write(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        let (start, text) = match (below(INBOX, text), self.layout) {
            (Some(rest), Layout::Nested) if !self.inbox.is_empty() => (Some(&self.inbox[..]), rest),
            _ => (None, text),
        };
        let parts = text.split(|&byte| byte == b'/').map(|part| {
            match (self.names, std::str::from_utf8(part)) {
                (FolderNames::Utf7, Ok(text)) => utf7::encode(text),
                _ => part.to_vec(),
            }
        });
        let mut parts: Vec<Vec<u8>> = parts.collect();
        match self.layout {
            Layout::MaildirPlusPlus => {
                if let Some(part) = parts.iter().find(|part| part.contains(&b'.')) {
                    return Err(format!(
                        "its part \"{}\" holds a dot, which separates parts in Maildir++ there; rename it",
                        escape(part)
                    ));
                }
                Ok([b".", &parts.join(&b'.')[..]].concat())
            }
            Layout::Nested => {
                parts.splice(0..0, start.map(<[u8]>::to_vec));
                if parts.first().is_some_and(|part| part.starts_with(b".")) {
                    return Err(
                        "it begins with a dot, as only Maildir++ has it; rename it".to_owned()
                    );
                }
                Ok(parts.join(&b'/'))
            }
        }
    }
}

/// What lies below a directory.
fn below<'a>(dir: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(dir)?.strip_prefix(b"/")?;
    (!dir.is_empty()).then_some(rest)
}

/// Whether a text names a folder beside INBOX on both sides.
fn is_name(text: &[u8]) -> bool {
    text != INBOX && !text.is_empty() && FolderDir::new(text).is_ok()
}

/// Whether a tree has no folder at all.
fn is_bare(dirs: &[&[u8]]) -> bool {
    dirs.is_empty()
}

#[cfg(test)]
mod tests;
