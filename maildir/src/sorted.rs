//! The files of a folder in the order of their unique names, which is that of the index, in one piece of memory: there may be
//! hundreds of thousands of them, and most are only asked whether they are as they were.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use protocol::{Info, Unique, name};

use crate::stamp::{FileStamp, Origin};

/// What stat-ing a file showed.
pub(crate) type Looked = (FileStamp, Origin);

/// One file as it was listed.
pub(crate) struct FoundFile {
    pub(crate) unique: Unique,
    pub(crate) info: Info,
    pub(crate) in_new: bool,
    /// Its inode as the listing brought it. A wrong one costs a stat.
    pub(crate) ino: u64,
    /// What it looks like, if it was stat-ed already.
    pub(crate) looked: Option<Looked>,
}

impl FoundFile {
    pub(crate) fn name(&self) -> Vec<u8> {
        [self.unique.as_bytes(), self.info.as_bytes()].concat()
    }
}

/// Files as they were listed.
#[derive(Default)]
pub(crate) struct Sorted {
    /// All names, one after the other.
    names: Vec<u8>,
    files: Vec<File>,
    /// What some of them look like, by the start of their names.
    looked: BTreeMap<usize, Looked>,
}

struct File {
    /// Where its name starts.
    start: usize,
    ino: u64,
    length: u16,
    unique_length: u16,
    in_new: bool,
}

impl Sorted {
    /// Adds a file; its name can be split. The caller sorts after the last one.
    pub(crate) fn add(&mut self, name: &[u8], in_new: bool, ino: u64, looked: Option<Looked>) {
        let length = |bytes: usize| u16::try_from(bytes).expect("names are short");
        let start = self.names.len();
        self.names.extend_from_slice(name);
        self.looked.extend(looked.map(|looked| (start, looked)));
        self.files.push(File {
            start,
            ino,
            length: length(name.len()),
            unique_length: length(name::unique_length(name)),
            in_new,
        });
    }

    pub(crate) fn sort(&mut self) {
        let names = &self.names;
        self.files.sort_by_cached_key(|file| {
            let unique = &names[file.start..][..file.unique_length.into()];
            // Most differ early, and numbers are quickly compared. No name holds NUL, so the order is that of the bytes.
            let mut first = [0; 16];
            let common = unique.len().min(first.len());
            first[..common].copy_from_slice(&unique[..common]);
            (u128::from_be_bytes(first), unique)
        });
        // Names in order are read one after the other, which memory is good at.
        let unsorted = std::mem::take(&mut self.names);
        let mut looked = std::mem::take(&mut self.looked);
        self.names.reserve_exact(unsorted.len());
        for file in &mut self.files {
            let (from, to) = (file.start, self.names.len());
            file.start = to;
            self.names
                .extend_from_slice(&unsorted[from..][..file.length.into()]);
            self.looked
                .extend(looked.remove(&from).map(|looked| (to, looked)));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// The name of a file, in the order of now.
    pub(crate) fn name(&self, at: usize) -> &[u8] {
        let file = &self.files[at];
        &self.names[file.start..][..file.length.into()]
    }

    pub(crate) fn unique(&self, at: usize) -> &[u8] {
        &self.name(at)[..self.files[at].unique_length.into()]
    }

    pub(crate) fn info(&self, at: usize) -> &[u8] {
        &self.name(at)[self.files[at].unique_length.into()..]
    }

    pub(crate) fn in_new(&self, at: usize) -> bool {
        self.files[at].in_new
    }

    pub(crate) fn ino(&self, at: usize) -> u64 {
        self.files[at].ino
    }

    /// A file of this unique name.
    pub(crate) fn find(&self, unique: &Unique) -> Option<usize> {
        let unique = unique.as_bytes();
        let all = self.files.binary_search_by(|file| {
            self.names[file.start..][..file.unique_length.into()].cmp(unique)
        });
        all.ok()
    }

    /// Puts some of them in the order of [`newest_first`].
    pub(crate) fn sort_newest_first(&self, some: &mut [usize]) {
        some.sort_by(|&a, &b| newest_first(self.unique(a)).cmp(&newest_first(self.unique(b))));
    }

    /// Whether two files that follow each other have one unique name; not where there is no further one.
    pub(crate) fn is_double(&self, at: usize) -> bool {
        at + 1 < self.len() && self.unique(at) == self.unique(at + 1)
    }

    pub(crate) fn set_looked(&mut self, at: usize, looked: Looked) {
        let file = &mut self.files[at];
        file.ino = looked.0.ino;
        self.looked.insert(file.start, looked);
    }

    pub(crate) fn retain(&mut self, is_kept: impl Fn(&[u8]) -> bool) {
        let names = &self.names;
        self.files
            .retain(|file| is_kept(&names[file.start..][..file.length.into()]));
    }

    /// One of them by itself.
    pub(crate) fn found(&self, at: usize) -> FoundFile {
        let (unique, info) = name::split(self.name(at)).expect("it can be split");
        let File { ino, in_new, .. } = self.files[at];
        let looked = self.looked.get(&self.files[at].start).copied();
        FoundFile {
            unique,
            info,
            in_new,
            ino,
            looked,
        }
    }
}

/// Orders unique names by the time that they begin with (maildir(5)), the newest first, then by their bytes.
pub(crate) fn newest_first(unique: &[u8]) -> (Reverse<u64>, &[u8]) {
    let digits = unique.iter().take_while(|byte| byte.is_ascii_digit());
    let seconds = digits.fold(0_u64, |seconds, digit| {
        seconds
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    (Reverse(seconds), unique)
}
