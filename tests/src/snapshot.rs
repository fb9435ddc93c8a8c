//! What a tree holds at one moment, and how two trees are compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::mail::digest_hex;
use crate::tree::{Layout, Tree, files, flags_of, name_bytes, split};

/// One message as it lies on disk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Its folder, parts joined by `/`.
    pub folder: Vec<u8>,
    /// What stands before `:2,`.
    pub unique: Vec<u8>,
    /// Whether it lies in `new`.
    pub in_new: bool,
    /// Its flag letters, sorted.
    pub flags: String,
    /// The digest of its bytes, hexadecimal.
    pub digest: String,
    /// Its modification time, nanoseconds since 1970.
    pub mtime_ns: i128,
}

/// Where a message's bytes lie, for tests that nothing was rewritten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stamp {
    /// The inode.
    pub inode: u64,
    /// The change time, nanoseconds since 1970.
    pub ctime_ns: i128,
    /// How many names the inode has.
    pub links: u64,
}

/// A tree at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Its messages, sorted; equal ones stand as often as they are there.
    pub messages: Vec<(Message, Stamp)>,
    /// Its folders.
    pub folders: BTreeSet<Vec<u8>>,
    /// Files in a `tmp`.
    pub rubbish: Vec<PathBuf>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let part = if self.in_new { "new" } else { "cur" };
        let place = format!(
            "{} {part} {}",
            self.folder.escape_ascii(),
            self.unique.escape_ascii()
        );
        write!(
            f,
            "{place} flags={:?} {}… mtime={}",
            self.flags,
            &self.digest[..12],
            self.mtime_ns
        )
    }
}

/// Digests of files already read, so that looking again costs no reading.
#[derive(Clone, Debug, Default)]
pub struct DigestCache(HashMap<(u64, i128, i128, u64), String>);

impl DigestCache {
    /// The digest of a file; files that the harness writes get a time of their bytes, so a change always shows.
    fn digest(&mut self, path: &Path, stat: &fs::Metadata) -> Option<String> {
        let key = (
            stat.ino(),
            nanoseconds(stat.mtime(), stat.mtime_nsec()),
            ctime_ns(stat),
            stat.size(),
        );
        if let Some(digest) = self.0.get(&key) {
            return Some(digest.clone());
        }
        let digest = digest_hex(&fs::read(path).ok()?);
        self.0.insert(key, digest.clone());
        Some(digest)
    }
}

impl Snapshot {
    /// Looks at a tree.
    #[must_use]
    pub fn of(tree: &Tree) -> Snapshot {
        Snapshot::again(tree, &mut DigestCache::default())
    }

    /// Looks at a tree whose files were mostly read before.
    #[must_use]
    pub fn again(tree: &Tree, cache: &mut DigestCache) -> Snapshot {
        let mut snapshot = Snapshot {
            messages: Vec::new(),
            folders: BTreeSet::new(),
            rubbish: Vec::new(),
        };
        for (name, dir) in folders(tree) {
            snapshot.add_folder(name, &dir, cache);
        }
        snapshot.messages.sort();
        snapshot
    }

    /// The messages without their stamps.
    #[must_use]
    pub fn mail(&self) -> Vec<&Message> {
        self.messages.iter().map(|(message, _)| message).collect()
    }

    /// How often each digest is there.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for message in self.mail() {
            *counts.entry(message.digest.as_str()).or_default() += 1;
        }
        counts
    }

    /// The inodes that hold each digest.
    #[must_use]
    pub fn inodes(&self) -> BTreeMap<&str, BTreeSet<u64>> {
        let mut inodes: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (message, stamp) in &self.messages {
            inodes
                .entry(&message.digest)
                .or_default()
                .insert(stamp.inode);
        }
        inodes
    }

    fn add_folder(&mut self, name: Vec<u8>, dir: &Path, cache: &mut DigestCache) {
        for part in ["new", "cur"] {
            for path in files(&dir.join(part)) {
                // A message that somebody moves away meanwhile is simply not there.
                if let Some(message) = look(&name, &path, part == "new", cache) {
                    self.messages.push(message);
                }
            }
        }
        self.rubbish.extend(files(&dir.join("tmp")));
        self.folders.insert(name);
    }
}

fn look(
    folder: &[u8],
    path: &Path,
    in_new: bool,
    cache: &mut DigestCache,
) -> Option<(Message, Stamp)> {
    let stat = fs::symlink_metadata(path)
        .ok()
        .filter(fs::Metadata::is_file)?;
    let (unique, info) = split(name_bytes(path));
    if unique.starts_with(b".") {
        return None;
    }
    let message = Message {
        folder: folder.to_vec(),
        unique: unique.to_vec(),
        in_new,
        flags: flags_of(info),
        digest: cache.digest(path, &stat)?,
        mtime_ns: nanoseconds(stat.mtime(), stat.mtime_nsec()),
    };
    Some((
        message,
        Stamp {
            inode: stat.ino(),
            ctime_ns: ctime_ns(&stat),
            links: stat.nlink(),
        },
    ))
}

fn ctime_ns(stat: &fs::Metadata) -> i128 {
    nanoseconds(stat.ctime(), stat.ctime_nsec())
}

fn nanoseconds(seconds: i64, rest: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
}

/// The folders of a tree with their directories.
#[must_use]
pub fn folders(tree: &Tree) -> Vec<(Vec<u8>, PathBuf)> {
    let mut found = Vec::new();
    match tree.layout() {
        Layout::MaildirPlusPlus => {
            found.push((b"INBOX".to_vec(), tree.root().to_owned()));
            for path in files(tree.root()) {
                if name_bytes(&path).starts_with(b".") && path.join("cur").is_dir() {
                    let name = name_bytes(&path)[1..]
                        .iter()
                        .map(|&byte| if byte == b'.' { b'/' } else { byte });
                    found.push((name.collect(), path));
                }
            }
        }
        Layout::Nested => descend(tree.root(), tree.root(), &mut found),
    }
    found
}

fn descend(root: &Path, dir: &Path, found: &mut Vec<(Vec<u8>, PathBuf)>) {
    for path in files(dir) {
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_dir());
        if !is_dir
            || [&b"cur"[..], b"new", b"tmp"].contains(&name_bytes(&path))
            || name_bytes(&path)[0] == b'.'
        {
            continue;
        }
        if path.join("cur").is_dir() {
            let name = path.strip_prefix(root).expect("lies below the root");
            found.push((name.as_os_str().as_bytes().to_vec(), path.clone()));
        }
        descend(root, &path, found);
    }
}

/// Fails unless both trees hold the same messages by folder, name, new-or-cur, flags, bytes and time, and the same
/// folders, and no `tmp` holds a file.
pub fn assert_same(server: &Tree, client: &Tree) {
    let (server, client) = (Snapshot::of(server), Snapshot::of(client));
    let difference = difference(&server.mail(), &client.mail());
    assert!(
        difference.is_empty(),
        "server (<) and client (>) differ:\n{difference}"
    );
    assert_eq!(
        escaped(&server.folders),
        escaped(&client.folders),
        "folders of server and client differ"
    );
    assert_eq!(server.rubbish, Vec::<PathBuf>::new(), "tmp of the server");
    assert_eq!(client.rubbish, Vec::<PathBuf>::new(), "tmp of the client");
}

/// Whether [`assert_same`] would fail for none of these.
#[must_use]
pub fn are_same(trees: &[&Tree]) -> bool {
    // Each is looked at once: what still goes from one to another is then missing somewhere.
    let views: Vec<Snapshot> = trees.iter().map(|tree| Snapshot::of(tree)).collect();
    views.iter().all(|view| {
        let is_equal = view.folders == views[0].folders && view.mail() == views[0].mail();
        is_equal && view.rubbish.is_empty()
    })
}

/// Fails if a message, its file or a folder is not as it was.
pub fn assert_untouched(before: &Snapshot, tree: &Tree, what: &str) {
    let after = Snapshot::of(tree);
    let difference = difference(&before.mail(), &after.mail());
    assert!(
        difference.is_empty(),
        "{what} changed its messages (< before, > after):\n{difference}"
    );
    assert_eq!(
        escaped(&before.folders),
        escaped(&after.folders),
        "{what} changed its folders"
    );
    assert_eq!(before.messages, after.messages, "{what} touched files");
    let left: Vec<&PathBuf> = after
        .rubbish
        .iter()
        .filter(|path| !before.rubbish.contains(path))
        .collect();
    assert!(left.is_empty(), "{what} left files in tmp: {left:?}");
}

/// Lines for what only one of two sorted lists holds: `<` the first, `>` the second.
#[must_use]
pub fn difference(left: &[&Message], right: &[&Message]) -> String {
    let mut counts: BTreeMap<&Message, i64> = BTreeMap::new();
    for message in left {
        *counts.entry(message).or_default() += 1;
    }
    for message in right {
        *counts.entry(message).or_default() -= 1;
    }
    let line = |(message, count): (&&Message, &i64)| match count {
        0 => None,
        1.. => Some(format!("  < {message:?}\n")),
        _ => Some(format!("  > {message:?}\n")),
    };
    counts.iter().filter_map(line).collect()
}

/// Names for people.
#[must_use]
pub fn escaped(names: &BTreeSet<Vec<u8>>) -> Vec<String> {
    names
        .iter()
        .map(|name| name.escape_ascii().to_string())
        .collect()
}

/// Every path below `dir` with all that tells whether it was written: inode, size, mode and both times.
#[must_use]
pub fn everything(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = fs::symlink_metadata(&path).expect("nobody else works in this world");
        let times = [
            stat.mtime(),
            stat.mtime_nsec(),
            stat.ctime(),
            stat.ctime_nsec(),
        ];
        let what = format!(
            "inode {} size {} mode {:o} times {times:?}",
            stat.ino(),
            stat.size(),
            stat.mode()
        );
        if stat.is_dir() {
            todo.extend(files(&path));
        }
        seen.insert(path, what);
    }
    seen
}

/// Fails if anything was written below a directory since `before` was taken with [`everything`].
pub fn assert_nothing_written(before: &BTreeMap<PathBuf, String>, dir: &Path) {
    let after = everything(dir);
    let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let changed: Vec<String> = paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| {
            format!(
                "  {}: {:?} -> {:?}\n",
                path.display(),
                before.get(path),
                after.get(path)
            )
        })
        .collect();
    assert!(
        changed.is_empty(),
        "written although nothing should be:\n{}",
        changed.concat()
    );
}

/// Whether some file below `dir` has exactly these bytes.
#[must_use]
pub fn holds_bytes(dir: &Path, bytes: &[u8]) -> bool {
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(stat) = fs::symlink_metadata(&path) else {
            continue;
        };
        if stat.is_dir() {
            todo.extend(files(&path));
        } else if usize::try_from(stat.size()) == Ok(bytes.len())
            && stat.is_file()
            && fs::read(&path).is_ok_and(|found| found == bytes)
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(layout: Layout) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tree = Tree::at(dir.path().join("Maildir"), layout);
        tree.create();
        tree.deliver("INBOX", "1.M.mx", b"one");
        tree.store("Lists/debian", "2.M.mx", "SF", b"two");
        (dir, tree)
    }

    #[test]
    fn both_layouts_look_the_same() {
        let (_one, plus) = tree(Layout::MaildirPlusPlus);
        let (_two, nested) = tree(Layout::Nested);
        assert_same(&plus, &nested);
        let snapshot = Snapshot::of(&plus);
        assert_eq!(escaped(&snapshot.folders), ["INBOX", "Lists/debian"]);
        let seen: Vec<(bool, &str)> = snapshot
            .mail()
            .iter()
            .map(|message| (message.in_new, &*message.flags))
            .collect();
        assert_eq!(seen, [(true, ""), (false, "FS")]);
    }

    #[test]
    #[should_panic(expected = "touched files")]
    fn a_rewritten_file_is_noticed() {
        let (_dir, tree) = tree(Layout::MaildirPlusPlus);
        let before = Snapshot::of(&tree);
        tree.replace("INBOX", "1.M.mx", b"one");
        assert_untouched(&before, &tree, "a rewrite");
    }

    #[test]
    #[should_panic(expected = "differ")]
    fn another_flag_is_a_difference() {
        let (_one, left) = tree(Layout::MaildirPlusPlus);
        let (_two, right) = tree(Layout::MaildirPlusPlus);
        right.set_flags("Lists/debian", "2.M.mx", "S");
        assert_same(&left, &right);
    }

    #[test]
    #[should_panic(expected = "written although nothing should be")]
    fn anything_written_is_noticed() {
        let (dir, tree) = tree(Layout::MaildirPlusPlus);
        let before = everything(dir.path());
        tree.set_flags("INBOX", "1.M.mx", "S");
        assert_nothing_written(&before, dir.path());
    }

    #[test]
    fn bytes_are_found_wherever_they_lie() {
        let (dir, _tree) = tree(Layout::Nested);
        assert!(holds_bytes(dir.path(), b"two") && !holds_bytes(dir.path(), b"owt"));
    }
}
