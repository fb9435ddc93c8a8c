//! What a replica reports of its messages and folders.

use serde::{Deserialize, Serialize};

use crate::{Digest, Flags, FolderDir, Info, Keywords, Unique};

/// One message as it was last observed, without its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Whether the file lies in `new` (else in `cur`).
    pub in_new: bool,
    /// What follows the unique name.
    pub info: Info,
    /// BLAKE3 of the bytes.
    pub digest: Digest,
    /// Length in bytes.
    #[serde(deserialize_with = "crate::codec::size")]
    pub size: u64,
    /// The file's modification time, nanoseconds since 1970: Dovecot's received date.
    pub mtime_ns: i64,
    /// The bytes became empty or all NUL, or changed while every stamp stayed: reported, never sent.
    pub damaged: bool,
}

impl Entry {
    /// The flag letters of the info.
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.info.flags()
    }
}

/// One line of a replica's journal: a message that is there, or that was there and is gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The number of this change; of several changes to one place only the last is reported.
    pub seq: u64,
    /// The number at which this place was last filled: a place whose `born` is news was emptied in between.
    pub born: u64,
    /// The replica's own number of the folder.
    pub folder: u32,
    /// The unique name.
    pub unique: Unique,
    /// 0, or a running number where several files of one folder share the unique name.
    pub copy: u16,
    /// Whether the message is gone; then `entry` is what it last was.
    pub gone: bool,
    /// Whether nobody deleted what went: it went when a directory was put there from outside, as from a backup, and shall come
    /// back. Where `gone` is not set, that is the message that was in this place before `born`.
    pub lost: bool,
    /// The message.
    pub entry: Entry,
}

/// One folder that is there, or gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FolderChange {
    /// The number of this change.
    pub seq: u64,
    /// The replica's own number of the folder; it stays when the folder is renamed.
    pub id: u32,
    /// Its directory, or the last one.
    pub dir: FolderDir,
    /// Whether the folder is gone.
    pub gone: bool,
    /// What Dovecot calls its letters `a`-`z`; none where it has no such file, or one that nobody can read.
    pub keywords: Option<Keywords>,
}

/// The digest of a folder's live messages, so that equal folders need not be listed.
///
/// Taken over the messages in order of (unique, copy), each as: length of the unique name (u16 LE), its bytes, copy
/// (u16 LE), in-new (one byte), flag bits (u64 LE), digest (32 bytes).
#[derive(Default)]
pub struct FolderDigest(blake3::Hasher);

impl FolderDigest {
    /// Takes the next message, in order.
    pub fn add(&mut self, unique: &Unique, copy: u16, in_new: bool, flags: Flags, digest: &Digest) {
        let bytes = unique.as_bytes();
        let length = u16::try_from(bytes.len()).expect("a unique name has at most 255 bytes");
        self.0
            .update(&length.to_le_bytes())
            .update(bytes)
            .update(&copy.to_le_bytes());
        self.0
            .update(&[u8::from(in_new)])
            .update(&flags.bits().to_le_bytes())
            .update(digest.as_bytes());
    }

    /// The digest of all that was added.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest::new(*self.0.finalize().as_bytes())
    }
}
