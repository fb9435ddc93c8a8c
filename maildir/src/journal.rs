//! Reading what the index reports, in pages: between two of them nothing of it stays open, so that a slow reader keeps
//! nobody from committing.
//!
//! *What holds*: what was reported is the index as it was when the last page was read. Whatever changes between two pages gets
//! a higher number, so a later page reports it again; of several changes of one place the one reported last counts.

use protocol::entry::{Change, FolderChange, FolderDigest};
use protocol::{Digest, IndexId};

use crate::error::Result;
use crate::replica::Replica;

/// How many changes a page holds at most.
const PAGE: usize = 256;

/// How far a reader of the journal has come.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    folders: u64,
    files: u64,
    with_gone: bool,
    is_through: bool,
}

impl Reader {
    /// Up to which number the messages were read.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.files
    }

    /// Begins after a number. Without those that are gone, only what goes while it is read is reported as gone: it may
    /// have been reported as there.
    #[must_use]
    pub fn since(number: u64, with_gone: bool) -> Reader {
        Reader {
            folders: number,
            files: number,
            with_gone,
            is_through: false,
        }
    }
}

/// What is read at once: the folders first, so that each message's folder is known before it.
#[derive(Debug, Default)]
pub struct Page {
    /// Folders that were made, renamed or removed.
    pub folders: Vec<FolderChange>,
    /// Messages that came, changed or went.
    pub changes: Vec<Change>,
}

impl Replica {
    /// The next page of the journal; `None` at its end.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn next_page(&self, reader: &mut Reader) -> Result<Option<Page>> {
        if reader.is_through {
            return Ok(None);
        }
        let mut page = self.index.reading(|| {
            Ok(Page {
                folders: self.index.folders_since(reader.folders)?,
                changes: self.index.changes_after(reader.files, PAGE)?,
            })
        })?;
        reader.is_through = page.changes.len() < PAGE;
        let newest = page.folders.last().map(|folder| folder.seq);
        reader.folders = newest.unwrap_or(reader.folders);
        let newest = page.changes.last().map(|change| change.seq);
        reader.files = newest.unwrap_or(reader.files);
        let is_reported = |gone: bool, seq: u64| reader.with_gone || !gone || seq > self.reported;
        page.folders
            .retain(|folder| is_reported(folder.gone, folder.seq));
        page.changes
            .retain(|change| is_reported(change.gone, change.seq));
        Ok(Some(page))
    }

    /// The folders that are there.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn live_folders(&self) -> Result<Vec<FolderChange>> {
        let mut folders = self.index.folders_since(0)?;
        folders.retain(|folder| !folder.gone);
        Ok(folders)
    }

    /// Whether what was read since a number is whole: the index is in the same life, and remembers what is gone from there on.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn remembers(&self, index: IndexId, number: u64) -> Result<bool> {
        Ok(self.index.id()? == index && self.index.floor()? <= number)
    }

    /// How many changes there are after a number.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn count_since(&self, number: u64) -> Result<u64> {
        self.index.count_since(number)
    }

    /// The next live messages of a folder after this one, or its first ones; none at its end. What changes meanwhile is
    /// for the journal to report.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn manifest(&self, folder: u32, after: Option<&Change>) -> Result<Vec<Change>> {
        self.index.live_after(folder, after, PAGE)
    }

    /// The digests of all live folders.
    ///
    /// # Errors
    /// When the index cannot be asked.
    pub fn folder_digests(&self) -> Result<Vec<(u32, Digest)>> {
        let folders = self.index.folders()?.into_iter();
        let live = folders.filter(|folder| !folder.gone);
        live.map(|folder| Ok((folder.id, self.folder_digest(folder.id)?)))
            .collect()
    }

    fn folder_digest(&self, folder: u32) -> Result<Digest> {
        let mut digest = FolderDigest::default();
        self.index.each_file_of(folder, |row| {
            if !row.gone {
                let entry = &row.entry;
                digest.add(
                    &row.unique,
                    row.copy,
                    entry.in_new,
                    entry.flags(),
                    &entry.digest,
                );
            }
            Ok(())
        })?;
        Ok(digest.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use protocol::message::{At, Consent, Expect};
    use protocol::{Flags, FolderDir, Op, Unique};

    use super::*;
    use crate::replica::open_for_test;

    const MANY: usize = 3 * PAGE;

    fn unique(number: usize) -> Unique {
        Unique::new(format!("{number:05}.a.b").as_bytes()).expect("a name")
    }

    /// A Maildir with many messages in INBOX, one in each of some folders.
    fn mail(dir: &Path, folders: usize) {
        for sub in ["cur", "new", "tmp"] {
            fs::create_dir_all(dir.join("mail").join(sub)).expect("it is made");
            for folder in 0..folders {
                let path = dir.join(format!("mail/.F{folder}")).join(sub);
                fs::create_dir_all(path).expect("it is made");
            }
        }
    }

    fn put(dir: &Path, sub: &str, number: usize) {
        let path = dir.join("mail").join(sub);
        let name = format!("{}:2,", unique(number));
        fs::write(path.join(name), number.to_string()).expect("it is written");
    }

    fn at(folder: u32, number: usize) -> At {
        At {
            number: Some(folder),
            folder: FolderDir::root(),
            unique: unique(number),
            copy: 0,
        }
    }

    /// Another client moves a message of INBOX.
    fn move_away(replica: &mut Replica, number: usize, (from, to): (u32, u32)) {
        let op = Op::Update {
            at: at(from, number),
            expect: Expect {
                in_new: false,
                flags: Flags::EMPTY,
                digest: Digest::of(number.to_string().as_bytes()),
            },
            to: at(to, number),
            in_new: false,
            flags: Flags::EMPTY,
            body: None,
            consent: Consent::Free,
        };
        let outcomes = replica.apply(&[op], Vec::new()).expect("it is done");
        assert!(
            matches!(outcomes[..], [protocol::Outcome::Done { .. }]),
            "{outcomes:?}"
        );
    }

    #[test]
    fn what_moves_between_two_pages_is_told_where_it_is_at_last() {
        let dir = tempfile::tempdir().expect("temp dir");
        mail(dir.path(), 1);
        for number in 0..MANY {
            put(dir.path(), "cur", number);
        }
        let mut reading = open_for_test(dir.path(), "state");
        reading.scan().expect("it scans");
        reading.promise().expect("it reports");
        let mut other = open_for_test(dir.path(), "state");
        let (mut reader, mut told) = (Reader::since(0, false), BTreeMap::new());
        let (mut pages, mut folders) = (0, (0, 0));
        while let Some(page) = reading.next_page(&mut reader).expect("it reads") {
            if let Some(change) = page.changes.first().filter(|_| pages == 0) {
                folders = (change.folder, 3 - change.folder);
            }
            for change in page.changes {
                told.insert((change.folder, change.unique), change.gone);
            }
            // One that was reported, and one that was not.
            if pages < 3 {
                move_away(&mut other, pages, folders);
                move_away(&mut other, MANY - 1 - pages, folders);
            }
            pages += 1;
        }
        let live: Vec<_> = told.iter().filter(|(_, gone)| !**gone).collect();
        assert_eq!(live.len(), MANY, "each message is reported once as there");
        let moved = live.iter().filter(|((folder, _), _)| *folder == folders.1);
        assert_eq!(moved.count(), 6);
    }

    /// The order in which people want it, in a nested tree as well.
    #[test]
    fn a_tree_that_was_never_read_is_reported_inbox_first_and_newest_first() {
        let dir = tempfile::tempdir().expect("temp dir");
        for folder in ["Archive", "INBOX"] {
            for sub in ["cur", "new", "tmp"] {
                let path = dir.path().join("mail").join(folder).join(sub);
                fs::create_dir_all(path).expect("it is made");
            }
        }
        for number in 0..5 {
            put(dir.path(), "Archive/cur", 10 + number);
            put(dir.path(), "INBOX/cur", number);
        }
        let mut replica = open_for_test(dir.path(), "state");
        replica.scan().expect("it scans");
        let mut reader = Reader::since(0, false);
        let page = replica.next_page(&mut reader).expect("it reads");
        let changes = page.expect("a page").changes.into_iter();
        let came: Vec<Unique> = changes.map(|change| change.unique).collect();
        let wanted = [4, 3, 2, 1, 0, 14, 13, 12, 11, 10].map(unique);
        assert_eq!(came, wanted);
    }

    #[test]
    fn what_is_looked_up_for_each_message_loads_no_list_of_folders() {
        const FOLDERS: usize = 20;
        let dir = tempfile::tempdir().expect("temp dir");
        mail(dir.path(), FOLDERS);
        for number in 0..FOLDERS {
            put(dir.path(), &format!(".F{number}/cur"), number);
        }
        let mut replica = open_for_test(dir.path(), "state");
        replica.scan().expect("it scans");
        let mut reader = Reader::since(0, false);
        let page = replica.next_page(&mut reader).expect("it reads");
        let changes = page.expect("a page").changes;
        assert_eq!(changes.len(), FOLDERS);
        let before = replica.index.listings.get();
        for change in changes {
            let at = At {
                number: Some(change.folder),
                folder: FolderDir::root(),
                unique: change.unique,
                copy: 0,
            };
            let located = replica.locate(&[(&at, &change.entry.digest)]);
            assert!(matches!(located.expect("it is asked")[..], [Some(_)]));
            let path = replica.file_path(&at).expect("it is asked");
            assert!(path.expect("it is known").is_file());
        }
        assert_eq!(replica.index.listings.get(), before);
    }
}
