//! One Maildir, and what mail readers, delivery agents and users do to it.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::process::must;

/// How folders lie on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// `.Lists.debian` below the root, which is INBOX.
    MaildirPlusPlus,
    /// `Lists/debian` below the root; INBOX is the folder `INBOX`.
    Nested,
}

/// A Maildir on disk.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    layout: Layout,
}

/// Splits a file name into the unique name and the rest.
#[must_use]
pub fn split(name: &[u8]) -> (&[u8], &[u8]) {
    let at = name
        .windows(3)
        .position(|part| part == b":2,")
        .unwrap_or(name.len());
    name.split_at(at)
}

/// The flag letters of an info, sorted, each once.
#[must_use]
pub fn flags_of(info: &[u8]) -> String {
    let field = info.strip_prefix(b":2,").unwrap_or_default();
    let field = field.split(|&byte| byte == b',').next().unwrap_or_default();
    let mut letters: Vec<u8> = field
        .iter()
        .copied()
        .filter(u8::is_ascii_alphabetic)
        .collect();
    letters.sort_unstable();
    letters.dedup();
    letters.iter().map(|&letter| char::from(letter)).collect()
}

/// The modification time that the harness gives every file with these bytes, so that equal bodies have equal times.
#[must_use]
pub fn time_of(bytes: &[u8]) -> SystemTime {
    let hash = blake3::hash(bytes);
    let number = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"));
    SystemTime::UNIX_EPOCH
        + Duration::new(
            1_000_000_000 + number % 700_000_000,
            u32::from(hash.as_bytes()[9]) * 1_000_003,
        )
}

impl Tree {
    /// Names a Maildir; nothing is made.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>, layout: Layout) -> Tree {
        Tree {
            root: root.into(),
            layout,
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How its folders lie.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Makes the root with an INBOX.
    pub fn create(&self) {
        fs::create_dir_all(&self.root).expect("root is made");
        self.make_folder("INBOX");
    }

    /// The directory of a folder, which is named with `/`.
    #[must_use]
    pub fn dir(&self, folder: &str) -> PathBuf {
        match (self.layout, folder) {
            (Layout::MaildirPlusPlus, "INBOX") => self.root.clone(),
            (Layout::MaildirPlusPlus, name) => {
                self.root.join(format!(".{}", name.replace('/', ".")))
            }
            (Layout::Nested, name) => self.root.join(name),
        }
    }

    /// Makes a folder with its three directories.
    pub fn make_folder(&self, folder: &str) {
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(self.dir(folder).join(part)).expect("folder is made");
        }
    }

    /// Removes a folder with all that is in it.
    pub fn remove_folder(&self, folder: &str) {
        fs::remove_dir_all(self.dir(folder)).expect("folder is there to be removed");
    }

    /// Renames a folder (and in the nested layout those below it).
    pub fn rename_folder(&self, from: &str, to: &str) {
        let to = self.dir(to);
        fs::create_dir_all(to.parent().expect("folders lie below the root"))
            .expect("parent is made");
        rename(&self.dir(from), &to);
    }

    /// Whether the folder is there.
    #[must_use]
    pub fn has_folder(&self, folder: &str) -> bool {
        self.dir(folder).join("cur").is_dir()
    }

    /// Waits until a file that was made now could be told from this one by its time, on any kernel. No event tells of that.
    pub fn let_the_clock_tick(&self, folder: &str, unique: &str) {
        let file = fs::metadata(self.path(folder, unique)).expect("file is there");
        let changed = Duration::new(file.ctime().cast_unsigned(), file.ctime_nsec() as u32);
        let later = UNIX_EPOCH + changed + Duration::from_millis(30);
        while let Ok(left) = later.duration_since(SystemTime::now()) {
            std::thread::sleep(left);
        }
    }

    /// Delivers as an MTA does: into `tmp`, then into `new`.
    pub fn deliver(&self, folder: &str, unique: &str, bytes: &[u8]) {
        self.put(folder, "new", unique.as_bytes(), bytes);
    }

    /// Stores as an IMAP server does: into `tmp`, then into `cur`, with flags.
    pub fn store(&self, folder: &str, unique: &str, flags: &str, bytes: &[u8]) {
        self.put(
            folder,
            "cur",
            format!("{unique}:2,{flags}").as_bytes(),
            bytes,
        );
    }

    /// Adds a file of this very name to `new` or `cur`, through `tmp`.
    pub fn put(&self, folder: &str, part: &str, name: &[u8], bytes: &[u8]) {
        let dir = self.dir(folder);
        let tmp = dir.join("tmp").join("being-delivered");
        self.make_folder(folder);
        write_with_time(&tmp, bytes);
        let target = dir.join(part).join(std::ffi::OsStr::from_bytes(name));
        assert!(!target.exists(), "{} is taken", target.display());
        fs::rename(&tmp, target).expect("message is delivered");
    }

    /// Finds the file of a message, if there is one.
    #[must_use]
    pub fn find(&self, folder: &str, unique: &str) -> Option<PathBuf> {
        let found = ["new", "cur"]
            .iter()
            .flat_map(|part| files(&self.dir(folder).join(part)));
        found
            .into_iter()
            .find(|path| split(name_bytes(path)).0 == unique.as_bytes())
    }

    /// The file of a message.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn path(&self, folder: &str, unique: &str) -> PathBuf {
        self.find(folder, unique)
            .unwrap_or_else(|| panic!("{unique} is not in {folder} of {}", self.root.display()))
    }

    /// Whether the message is there.
    #[must_use]
    pub fn has(&self, folder: &str, unique: &str) -> bool {
        self.find(folder, unique).is_some()
    }

    /// The bytes of a message.
    #[must_use]
    pub fn read(&self, folder: &str, unique: &str) -> Vec<u8> {
        fs::read(self.path(folder, unique)).expect("message can be read")
    }

    /// Fails unless a message has these bytes.
    #[track_caller]
    pub fn assert_holds(&self, folder: &str, unique: &str, bytes: &[u8]) {
        let found = self.read(folder, unique);
        let start = |bytes: &[u8]| bytes[..bytes.len().min(300)].escape_ascii().to_string();
        let (root, found_text, text) = (self.root.display(), start(&found), start(bytes));
        let sizes = (found.len(), bytes.len());
        assert!(
            found == bytes,
            "{folder}/{unique} of {root}, sizes {sizes:?}:\n  is {found_text}\n  should be {text}"
        );
    }

    /// The flags of a message.
    #[must_use]
    pub fn flags(&self, folder: &str, unique: &str) -> String {
        flags_of(split(name_bytes(&self.path(folder, unique))).1)
    }

    /// Gives a message these flags, where it is.
    pub fn set_flags(&self, folder: &str, unique: &str, flags: &str) {
        let path = self.path(folder, unique);
        rename(&path, &path.with_file_name(format!("{unique}:2,{flags}")));
    }

    /// Moves a message from `new` to `cur`, with these flags.
    pub fn to_cur(&self, folder: &str, unique: &str, flags: &str) {
        let target = self
            .dir(folder)
            .join("cur")
            .join(format!("{unique}:2,{flags}"));
        rename(&self.path(folder, unique), &target);
    }

    /// Moves a message from `cur` back to `new`, its name as it is.
    pub fn to_new(&self, folder: &str, unique: &str) {
        let path = self.path(folder, unique);
        rename(
            &path,
            &self
                .dir(folder)
                .join("new")
                .join(path.file_name().expect("a file")),
        );
    }

    /// Moves a message to another folder or unique name, or both; its flags and new-or-cur stay.
    pub fn rename(&self, folder: &str, unique: &str, to_folder: &str, to_unique: &str) {
        let path = self.path(folder, unique);
        rename(&path, &self.beside(&path, to_folder, to_unique));
    }

    /// Copies a message to a file of its own.
    pub fn copy(&self, folder: &str, unique: &str, to_folder: &str, to_unique: &str) {
        let path = self.path(folder, unique);
        let bytes = fs::read(&path).expect("message can be read");
        let target = self.beside(&path, to_folder, to_unique);
        assert!(!target.exists(), "{} is taken", target.display());
        write_with_time(&target, &bytes);
    }

    /// Copies a message by a hard link, as some mail readers do.
    pub fn link(&self, folder: &str, unique: &str, to_folder: &str, to_unique: &str) {
        let path = self.path(folder, unique);
        fs::hard_link(&path, self.beside(&path, to_folder, to_unique)).expect("message is linked");
    }

    /// Deletes a message.
    pub fn delete(&self, folder: &str, unique: &str) {
        fs::remove_file(self.path(folder, unique)).expect("message is there to be deleted");
    }

    /// Writes other bytes into the file of a message.
    pub fn edit(&self, folder: &str, unique: &str, bytes: &[u8]) {
        write_with_time(&self.path(folder, unique), bytes);
    }

    /// Puts another file in place of a message's, as editors do.
    pub fn replace(&self, folder: &str, unique: &str, bytes: &[u8]) {
        let tmp = self.dir(folder).join("tmp").join("being-edited");
        write_with_time(&tmp, bytes);
        rename(&tmp, &self.path(folder, unique));
    }

    /// The name of a message's file for another place, its new-or-cur and its info kept.
    fn beside(&self, path: &Path, folder: &str, unique: &str) -> PathBuf {
        let part = path
            .parent()
            .and_then(Path::file_name)
            .expect("messages lie in new or cur");
        let name = [unique.as_bytes(), split(name_bytes(path)).1].concat();
        self.dir(folder)
            .join(part)
            .join(std::ffi::OsString::from_vec(name))
    }
}

/// The name of a file as bytes.
#[must_use]
pub fn name_bytes(path: &Path) -> &[u8] {
    path.file_name().expect("has a name").as_bytes()
}

/// The files of a directory, sorted; none where there is no directory.
#[must_use]
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("directory can be read").path())
        .collect();
    paths.sort();
    paths
}

/// Writes a file in place and gives it the time of its bytes.
pub fn write_with_time(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.write_all(bytes).expect("bytes are written");
    // Both: bindfs sets neither right where one is left out.
    let times = FileTimes::new().set_accessed(SystemTime::now());
    let times = times.set_modified(time_of(bytes));
    file.set_times(times).expect("time is set");
}

/// As `mv` does it: also from one disk to another.
fn rename(from: &Path, to: &Path) {
    match fs::rename(from, to) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            let words = ["--no-target-directory", "--no-clobber", "--"].map(OsStr::new);
            let words: Vec<&OsStr> = words
                .into_iter()
                .chain([from.as_os_str(), to.as_os_str()])
                .collect();
            must("mv", &words);
        }
        Err(error) => panic!("{} to {}: {error}", from.display(), to.display()),
    }
}
