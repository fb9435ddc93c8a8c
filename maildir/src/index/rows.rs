//! The rows of messages and folders: what was last seen of each.

use std::ops::ControlFlow;

use protocol::codec::{decode_state, encode_state};
use protocol::entry::{Change, FolderChange};
use protocol::{Digest, Entry, FolderDir, Info, Keywords, Unique};
use rusqlite::{OptionalExtension, Row as SqlRow, params};

use super::{Index, broken, get_u64};
use crate::error::Result;
use crate::path::{join, subdir};
use crate::stamp::{DirStamp, FileStamp};

const FILE_COLUMNS: &str = "seq, born, folder, uniq, copy, gone, in_new, info, digest, size, mtime, ctime, ino, damaged, \
     lost, due";
/// What rows are compared by; of most no more is read.
const KNOWN_COLUMNS: &str = "seq, uniq, gone, in_new, info, ctime, ino";
const FOLDER_COLUMNS: &str = "id, dir, ino, birth, leaf_mtime, leaf_ctime, cur_ino, cur_birth, cur_mtime, cur_ctime, new_ino, new_birth, new_mtime, new_ctime, \
     dirty, put_back, gone, seq, messages, keywords, exact";

const FILES_OF: &str = "folder = ?1 ORDER BY uniq, copy";

/// One place of a message: what was last seen there.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct FileRow {
    pub(crate) seq: u64,
    pub(crate) born: u64,
    pub(crate) folder: u32,
    pub(crate) unique: Unique,
    pub(crate) copy: u16,
    pub(crate) gone: bool,
    /// It is gone, or another one took its place, and nobody deleted it: see [`FolderRow::put_back`].
    pub(crate) lost: bool,
    pub(crate) entry: Entry,
    pub(crate) stamp: FileStamp,
    /// Its name changed since it was hashed, so the slice looks at it before others.
    pub(crate) due: bool,
}

/// One folder: where it lies and what its directories looked like when they were last read.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct FolderRow {
    pub(crate) id: u32,
    /// Below the root, verbatim; empty for the root itself.
    pub(crate) dir: Vec<u8>,
    pub(crate) ino: u64,
    pub(crate) birth: i64,
    /// What the directory looked like when nothing in it led to further folders; else nothing.
    pub(crate) leaf: DirStamp,
    pub(crate) cur: DirStamp,
    pub(crate) new: DirStamp,
    /// The stamps prove nothing: read again at the next chance.
    pub(crate) dirty: bool,
    /// Its `cur` or `new` was put there from outside, and what went by that is not reported yet.
    pub(crate) put_back: bool,
    pub(crate) gone: bool,
    pub(crate) seq: u64,
    /// How many live messages it held when it was last read.
    pub(crate) messages: u64,
    /// What Dovecot's file called its letters when it was last read.
    pub(crate) keywords: Option<Keywords>,
    /// Whether each of its files was a message of its own when it was last read.
    pub(crate) exact: bool,
}

/// The path of a message's file.
pub(crate) fn path_of(dir: &[u8], row: &FileRow) -> Vec<u8> {
    let name = [row.unique.as_bytes(), row.entry.info.as_bytes()].concat();
    join(dir, &[subdir(row.entry.in_new), &name])
}

impl FolderRow {
    /// A folder of which nothing is known but where it lies.
    pub(crate) fn new(dir: Vec<u8>, (ino, birth): (u64, i64)) -> FolderRow {
        FolderRow {
            id: 0,
            dir,
            ino,
            birth,
            leaf: DirStamp::default(),
            cur: DirStamp::default(),
            new: DirStamp::default(),
            dirty: true,
            put_back: false,
            gone: false,
            seq: 0,
            messages: 0,
            keywords: None,
            exact: false,
        }
    }
}

impl Index {
    // Folders.

    pub(crate) fn folders(&self) -> Result<Vec<FolderRow>> {
        #[cfg(test)]
        self.listings.set(self.listings.get() + 1);
        let sql = format!("SELECT {FOLDER_COLUMNS} FROM folders ORDER BY id");
        let mut statement = self.wrap(self.db.prepare_cached(&sql))?;
        let rows = self.wrap(statement.query_map([], folder_row))?;
        rows.map(|row| self.wrap(row)).collect()
    }

    /// A folder by its number, whether or not it is there.
    pub(crate) fn folder(&self, id: u32) -> Result<Option<FolderRow>> {
        self.one_folder("id = ?1", [id])
    }

    /// The live folder in a directory.
    pub(crate) fn folder_in(&self, dir: &FolderDir) -> Result<Option<FolderRow>> {
        self.one_folder("dir = ?1 AND NOT gone", [dir.as_bytes()])
    }

    fn one_folder(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> Result<Option<FolderRow>> {
        let sql = format!("SELECT {FOLDER_COLUMNS} FROM folders WHERE {condition}");
        let mut statement = self.wrap(self.db.prepare_cached(&sql))?;
        self.wrap(statement.query_row(values, folder_row).optional())
    }

    /// Writes a folder; one without an id gets one, which is returned.
    pub(crate) fn put_folder(&self, row: &FolderRow) -> Result<u32> {
        let sql = "INSERT OR REPLACE INTO folders VALUES \
                   (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)";
        let id = (row.id != 0).then_some(row.id);
        self.execute(
            sql,
            params![
                id,
                row.dir,
                row.ino.cast_signed(),
                row.birth,
                row.leaf.mtime_ns,
                row.leaf.ctime_ns,
                row.cur.ino.cast_signed(),
                row.cur.birth_ns,
                row.cur.mtime_ns,
                row.cur.ctime_ns,
                row.new.ino.cast_signed(),
                row.new.birth_ns,
                row.new.mtime_ns,
                row.new.ctime_ns,
                row.dirty,
                row.put_back,
                row.gone,
                row.seq.cast_signed(),
                row.messages.cast_signed(),
                row.keywords.as_ref().map(encode_state),
                row.exact
            ],
        )?;
        Ok(id.unwrap_or_else(|| {
            u32::try_from(self.db.last_insert_rowid()).expect("fewer than 2^32 folders")
        }))
    }

    /// Makes every folder be read again.
    pub(crate) fn distrust_folders(&self) -> Result<()> {
        self.batch("UPDATE folders SET dirty = 1 WHERE NOT gone")
    }

    /// Makes every folder be read again and every file be hashed again, for a disk whose inodes mean something else.
    pub(crate) fn distrust_stamps(&self) -> Result<()> {
        self.batch("UPDATE folders SET dirty = 1; UPDATE files SET ctime = 0 WHERE NOT gone")
    }

    pub(crate) fn folders_since(&self, number: u64) -> Result<Vec<FolderChange>> {
        let sql = format!("SELECT {FOLDER_COLUMNS} FROM folders WHERE seq > ?1 ORDER BY seq");
        let mut statement = self.wrap(self.db.prepare_cached(&sql))?;
        let rows = self.wrap(statement.query_map([number.cast_signed()], |row| {
            let row = folder_row(row)?;
            Ok(FolderChange {
                seq: row.seq,
                id: row.id,
                dir: FolderDir::new(&row.dir).map_err(|error| broken(1, error))?,
                gone: row.gone,
                keywords: row.keywords,
            })
        }))?;
        rows.map(|row| self.wrap(row)).collect()
    }

    // Files.

    /// Calls `take` for each row that the condition finds.
    pub(crate) fn each_file(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
        mut take: impl FnMut(FileRow) -> Result<()>,
    ) -> Result<()> {
        let _ = self.each_row(FILE_COLUMNS, condition, values, |row| {
            take(self.wrap(file_row(row))?)?;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }

    fn each_row(
        &self,
        columns: &str,
        condition: &str,
        values: impl rusqlite::Params,
        mut take: impl FnMut(&SqlRow) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let sql = format!("SELECT {columns} FROM files WHERE {condition}");
        let mut statement = self.wrap(self.db.prepare_cached(&sql))?;
        let mut rows = self.wrap(statement.query(values))?;
        while let Some(row) = self.wrap(rows.next())? {
            if take(row)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// All rows of a folder, tombstones too, in order of (unique, copy).
    pub(crate) fn files_of(&self, folder: u32) -> Result<Vec<FileRow>> {
        let mut rows = Vec::new();
        self.each_file_of(folder, |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The same, one after the other.
    pub(crate) fn each_file_of(
        &self,
        folder: u32,
        take: impl FnMut(FileRow) -> Result<()>,
    ) -> Result<()> {
        self.each_file(FILES_OF, [folder], take)
    }

    /// The same from a unique name on, as long as `take` goes on, of which only that is read by which they are compared.
    pub(crate) fn each_of(
        &self,
        folder: u32,
        from: &[u8],
        mut take: impl FnMut(&Known) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let condition = "folder = ?1 AND uniq >= ?2 ORDER BY uniq, copy";
        self.each_row(KNOWN_COLUMNS, condition, params![folder, from], |row| {
            take(&self.wrap(known_row(row))?)
        })
    }

    /// A row by its number.
    pub(crate) fn file(&self, seq: i64) -> Result<FileRow> {
        let sql = format!("SELECT {FILE_COLUMNS} FROM files WHERE seq = ?1");
        let mut statement = self.wrap(self.db.prepare_cached(&sql))?;
        self.wrap(statement.query_row([seq], file_row))
    }

    /// Whether live messages were last seen in a folder's `new` or `cur`.
    pub(crate) fn holds(&self, folder: u32, in_new: bool) -> Result<bool> {
        let sql =
            "SELECT EXISTS (SELECT 1 FROM files WHERE folder = ?1 AND in_new = ?2 AND NOT gone)";
        let mut statement = self.wrap(self.db.prepare_cached(sql))?;
        self.wrap(statement.query_row(params![folder, in_new], |row| row.get(0)))
    }

    pub(crate) fn file_at(
        &self,
        folder: u32,
        unique: &Unique,
        copy: u16,
    ) -> Result<Option<FileRow>> {
        let mut found = None;
        let values = params![folder, unique.as_bytes(), copy];
        self.each_file("folder = ?1 AND uniq = ?2 AND copy = ?3", values, |row| {
            found = Some(row);
            Ok(())
        })?;
        Ok(found)
    }

    /// All rows of one unique name in a folder, tombstones too.
    pub(crate) fn files_at(&self, folder: u32, unique: &Unique) -> Result<Vec<FileRow>> {
        let mut rows = Vec::new();
        let values = params![folder, unique.as_bytes()];
        self.each_file("folder = ?1 AND uniq = ?2", values, |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// How many messages came into a folder after this number and are there, and how many went that were there before.
    pub(crate) fn came_and_went(&self, folder: u32, number: u64) -> Result<(u64, u64)> {
        // The `+` keeps SQLite from going through all rows of the folder: few are that new.
        let sql = "SELECT coalesce(sum(NOT gone AND born > ?1), 0), coalesce(sum(gone AND born <= ?1), 0) \
                   FROM files WHERE seq > ?1 AND +folder = ?2";
        let values = params![number.cast_signed(), folder];
        let counts = |row: &SqlRow| Ok((get_u64(row, 0)?, get_u64(row, 1)?));
        self.wrap(self.db.query_row(sql, values, counts))
    }

    /// Writes a row under its number, in the place of whatever stood at its place.
    pub(crate) fn put_file(&self, row: &FileRow) -> Result<()> {
        // A client to which the loss of a message here is not reported yet must not take what fills its place for its successor.
        let sql = "INSERT OR REPLACE INTO files VALUES \
                   (?1, ?2, ?3, ?4, ?5, ?6, \
                   ?7 OR (NOT ?6 AND EXISTS (SELECT 1 FROM files WHERE folder = ?3 AND uniq = ?4 AND copy = ?5 AND lost)), ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
        let entry = &row.entry;
        self.execute(
            sql,
            params![
                row.seq.cast_signed(),
                row.born.cast_signed(),
                row.folder,
                row.unique.as_bytes(),
                row.copy,
                row.gone,
                row.lost,
                entry.in_new,
                entry.info.as_bytes(),
                entry.digest.as_bytes(),
                entry.size.cast_signed(),
                entry.mtime_ns,
                row.stamp.ctime_ns,
                row.stamp.ino.cast_signed(),
                entry.damaged,
                !row.gone && entry.flags().contains(b'D'),
                !row.gone && row.due
            ],
        )
    }

    /// The first changes after a number, so many at most, in order.
    pub(crate) fn changes_after(&self, number: u64, count: usize) -> Result<Vec<Change>> {
        let values = params![number.cast_signed(), count as i64];
        self.changes("seq > ?1 ORDER BY seq LIMIT ?2", values)
    }

    /// The first live messages of a folder after this one, so many at most, in order of (unique, copy).
    pub(crate) fn live_after(
        &self,
        folder: u32,
        after: Option<&Change>,
        count: usize,
    ) -> Result<Vec<Change>> {
        let (unique, copy) = after.map_or((&b""[..], -1), |change| {
            (change.unique.as_bytes(), i64::from(change.copy))
        });
        let condition =
            "folder = ?1 AND (uniq, copy) > (?2, ?3) AND NOT gone ORDER BY uniq, copy LIMIT ?4";
        self.changes(condition, params![folder, unique, copy, count as i64])
    }

    fn changes(&self, condition: &str, values: impl rusqlite::Params) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        self.each_file(condition, values, |row| {
            changes.push(row.into_change());
            Ok(())
        })?;
        Ok(changes)
    }

    /// How many changes there are after a number.
    pub(crate) fn count_since(&self, number: u64) -> Result<u64> {
        let sql = "SELECT count(*) FROM files WHERE seq > ?1";
        let values = [number.cast_signed()];
        self.wrap(self.db.query_row(sql, values, |row| get_u64(row, 0)))
    }

    /// How many bytes all live messages have.
    pub(crate) fn bytes(&self) -> Result<u64> {
        let sql = "SELECT coalesce(sum(size), 0) FROM files WHERE NOT gone";
        self.wrap(self.db.query_row(sql, [], |row| get_u64(row, 0)))
    }

    /// How many live messages the folders held when they were last read.
    pub(crate) fn messages(&self) -> Result<u64> {
        let sql = "SELECT coalesce(sum(messages), 0) FROM folders WHERE NOT gone";
        self.wrap(self.db.query_row(sql, [], |row| get_u64(row, 0)))
    }
}

impl FileRow {
    pub(crate) fn into_change(self) -> Change {
        let FileRow {
            seq,
            born,
            folder,
            unique,
            copy,
            gone,
            lost,
            entry,
            ..
        } = self;
        Change {
            seq,
            born,
            folder,
            unique,
            copy,
            gone,
            lost,
            entry,
        }
    }
}

/// What a row is compared by.
pub(crate) struct Known<'r> {
    pub(crate) seq: i64,
    pub(crate) unique: &'r [u8],
    pub(crate) in_new: bool,
    pub(crate) info: &'r [u8],
    pub(crate) ino: u64,
    /// It is of a live message whose file was proven to have its bytes.
    pub(crate) is_proven: bool,
}

fn known_row<'r>(row: &'r SqlRow) -> rusqlite::Result<Known<'r>> {
    Ok(Known {
        seq: row.get(0)?,
        unique: row.get_ref(1)?.as_blob()?,
        in_new: row.get(3)?,
        info: row.get_ref(4)?.as_blob()?,
        ino: get_u64(row, 6)?,
        is_proven: row.get::<_, i64>(5)? != 0 && !row.get::<_, bool>(2)?,
    })
}

fn stamp_at(row: &SqlRow) -> rusqlite::Result<FileStamp> {
    Ok(FileStamp {
        ino: get_u64(row, 12)?,
        size: get_u64(row, 9)?,
        mtime_ns: row.get(10)?,
        ctime_ns: row.get(11)?,
    })
}

fn file_row(row: &SqlRow) -> rusqlite::Result<FileRow> {
    let stamp = stamp_at(row)?;
    let entry = Entry {
        in_new: row.get(6)?,
        info: Info::new(row.get_ref(7)?.as_blob()?).map_err(|error| broken(7, error))?,
        digest: Digest::new(row.get(8)?),
        size: stamp.size,
        mtime_ns: stamp.mtime_ns,
        damaged: row.get(13)?,
    };
    Ok(FileRow {
        seq: get_u64(row, 0)?,
        born: get_u64(row, 1)?,
        folder: row.get(2)?,
        unique: Unique::new(row.get_ref(3)?.as_blob()?).map_err(|error| broken(3, error))?,
        copy: row.get(4)?,
        gone: row.get(5)?,
        lost: row.get(14)?,
        entry,
        stamp,
        due: row.get(15)?,
    })
}

fn folder_row(row: &SqlRow) -> rusqlite::Result<FolderRow> {
    let stamp = |at: usize| -> rusqlite::Result<DirStamp> {
        Ok(DirStamp {
            ino: get_u64(row, at)?,
            birth_ns: row.get(at + 1)?,
            mtime_ns: row.get(at + 2)?,
            ctime_ns: row.get(at + 3)?,
        })
    };
    let keywords = row.get_ref(19)?.as_blob_or_null()?;
    let (ino, birth) = (get_u64(row, 2)?, row.get(3)?);
    let leaf = match row.get(5)? {
        0 => DirStamp::default(),
        ctime_ns => DirStamp {
            ino,
            birth_ns: birth,
            mtime_ns: row.get(4)?,
            ctime_ns,
        },
    };
    Ok(FolderRow {
        id: row.get(0)?,
        dir: row.get(1)?,
        ino,
        birth,
        leaf,
        cur: stamp(6)?,
        new: stamp(10)?,
        dirty: row.get(14)?,
        put_back: row.get(15)?,
        gone: row.get(16)?,
        seq: get_u64(row, 17)?,
        messages: get_u64(row, 18)?,
        keywords: keywords
            .map(decode_state)
            .transpose()
            .map_err(|error| broken(19, error))?,
        exact: row.get(20)?,
    })
}
