//! The index of a replica: what was last observed of every message, and the numbered journal of changes.
//!
//! A cache with a memory: it can be rebuilt from the tree at any time, but then it starts a new life (another
//! [`IndexId`]) whose numbers mean nothing to a cursor of the old one. Each place of a message (folder, unique name, copy)
//! has one row, keyed by the number of its last change, so that "what changed since" is a range of the primary key.
//! A row stays as a tombstone when its message goes, for 90 days.
//!
//! A rollback journal, not WAL: it works on NFS, leaves one file, and several agents may use it in turn under the
//! replica's lock. `docs/state.md` has the columns.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::message::Problem;
use protocol::{IndexId, Tag};
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::time::now_secs;

mod rows;
pub(crate) use rows::{FileRow, FolderRow, Known, path_of};

/// The version of the schema below, in SQLite's `user_version`.
const SCHEMA_VERSION: i64 = 4;
/// How long the journal remembers that a message went.
const JOURNAL_DAYS: u64 = 90;
/// For how long a deletion counts for the guard.
const GUARD_SECS: u64 = 86_400;

const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE tags (position INTEGER PRIMARY KEY, tag BLOB NOT NULL UNIQUE, number INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE TABLE folders (
  id INTEGER PRIMARY KEY AUTOINCREMENT, dir BLOB NOT NULL, ino INTEGER NOT NULL, birth INTEGER NOT NULL,
  leaf_mtime INTEGER NOT NULL, leaf_ctime INTEGER NOT NULL,
  cur_ino INTEGER NOT NULL, cur_birth INTEGER NOT NULL, cur_mtime INTEGER NOT NULL, cur_ctime INTEGER NOT NULL,
  new_ino INTEGER NOT NULL, new_birth INTEGER NOT NULL, new_mtime INTEGER NOT NULL, new_ctime INTEGER NOT NULL,
  dirty INTEGER NOT NULL, put_back INTEGER NOT NULL, gone INTEGER NOT NULL, seq INTEGER NOT NULL,
  messages INTEGER NOT NULL, keywords BLOB, exact INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX live_folders ON folders (dir) WHERE NOT gone;
CREATE TABLE files (
  seq INTEGER PRIMARY KEY, born INTEGER NOT NULL, folder INTEGER NOT NULL, uniq BLOB NOT NULL, copy INTEGER NOT NULL,
  gone INTEGER NOT NULL, lost INTEGER NOT NULL, in_new INTEGER NOT NULL, info BLOB NOT NULL, digest BLOB NOT NULL,
  size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL, ino INTEGER NOT NULL,
  damaged INTEGER NOT NULL, draft INTEGER NOT NULL, due INTEGER NOT NULL);
CREATE UNIQUE INDEX places ON files (folder, uniq, copy);
CREATE INDEX drafts ON files (seq) WHERE draft;
CREATE INDEX due_files ON files (seq) WHERE due;
CREATE TABLE pending (id INTEGER PRIMARY KEY, batch BLOB NOT NULL);
CREATE TABLE deletions (at INTEGER NOT NULL, count INTEGER NOT NULL);
CREATE TABLE problems (folder INTEGER NOT NULL, path TEXT NOT NULL, why TEXT NOT NULL);
CREATE TABLE unseen (path BLOB PRIMARY KEY, mark INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX problem_folders ON problems (folder);
";
/// What makes today's format of the one before.
const CARRIED_OVER: &str = "ALTER TABLE folders ADD COLUMN exact INTEGER NOT NULL DEFAULT 0";

/// What belongs together in an index: all of it is committed, or nothing.
pub(crate) struct Whole<'i>(&'i Index);

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        self.0.rollback();
    }
}

/// An open index.
pub(crate) struct Index {
    db: Connection,
    path: PathBuf,
    /// The newest number, while a transaction is open.
    number: Cell<u64>,
    /// How often all folders were asked for.
    #[cfg(test)]
    pub(crate) listings: Cell<u64>,
}

impl Index {
    /// Opens the index of a replica, or begins a new one.
    pub(crate) fn open(path: &Path, index_id: impl FnOnce() -> IndexId) -> Result<Index> {
        let db = Connection::open(path).map_err(|source| Error::Index {
            path: path.to_owned(),
            source,
        })?;
        Index {
            db,
            path: path.to_owned(),
            number: Cell::new(0),
            #[cfg(test)]
            listings: Cell::new(0),
        }
        .ready(index_id)
    }

    /// An index that is gone with the run: a copy of the one at `path` if there is one, for runs that may not write anything.
    /// What has no room in memory goes to a temporary file that has no name.
    pub(crate) fn temporary(path: &Path, index_id: impl FnOnce() -> IndexId) -> Result<Index> {
        let wrap = |source| Error::Index {
            path: path.to_owned(),
            source,
        };
        let mut db = Connection::open("").map_err(wrap)?;
        // A journal left by a crash could only be rolled back by writing; then the run starts without a memory.
        if path.exists() && !has_hot_journal(path) {
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
            let source = Connection::open_with_flags(path, flags).map_err(wrap)?;
            let copy = rusqlite::backup::Backup::new(&source, &mut db).map_err(wrap)?;
            copy.run_to_completion(10_000, Duration::ZERO, None)
                .map_err(wrap)?;
        }
        Index {
            db,
            path: path.to_owned(),
            number: Cell::new(0),
            #[cfg(test)]
            listings: Cell::new(0),
        }
        .ready(index_id)
    }

    fn ready(self, index_id: impl FnOnce() -> IndexId) -> Result<Index> {
        // FULL: a committed batch is durable, or I4 could not be kept.
        self.batch(
            "PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = FULL; PRAGMA cache_size = -4096;",
        )?;
        self.wrap(self.db.busy_timeout(Duration::from_secs(10)))?;
        let version: i64 = self.wrap(
            self.db
                .query_row("PRAGMA user_version", [], |row| row.get(0)),
        )?;
        if version == SCHEMA_VERSION {
            return Ok(self);
        }
        if version > SCHEMA_VERSION {
            return Err(Error::Usage(format!(
                "The index {:?} has format {version}, and this version knows {SCHEMA_VERSION}; install the newer version, or delete the index",
                self.path
            )));
        }
        self.batch("BEGIN IMMEDIATE")?;
        if version == SCHEMA_VERSION - 1 {
            self.batch(CARRIED_OVER)?;
            self.number.set(self.stored_number()?);
        } else {
            self.drop_tables()?;
            self.batch(SCHEMA)?;
            self.set_meta("index", index_id().0.as_slice())?;
        }
        self.batch(&format!("PRAGMA user_version = {SCHEMA_VERSION}"))?;
        self.commit()?;
        Ok(self)
    }

    /// An index of an older format is built anew from the tree.
    fn drop_tables(&self) -> Result<()> {
        let sql =
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let mut statement = self.wrap(self.db.prepare(sql))?;
        let names = self.wrap(statement.query_map([], |row| row.get(0)))?;
        let names: Vec<String> = names.map(|name| self.wrap(name)).collect::<Result<_>>()?;
        names
            .iter()
            .try_for_each(|name| self.batch(&format!("DROP TABLE {name}")))
    }

    /// Forgets everything and begins a new life, because the tree is not the one that was remembered.
    pub(crate) fn reset(&self, index_id: IndexId) -> Result<()> {
        let _whole = self.whole();
        self.begin()?;
        self.batch(
            "DELETE FROM files; DELETE FROM folders; DELETE FROM tags; DELETE FROM pending; DELETE FROM deletions; \
             DELETE FROM problems; DELETE FROM unseen; DELETE FROM meta;",
        )?;
        self.number.set(0);
        self.set_meta("index", index_id.0.as_slice())?;
        self.commit()
    }

    fn wrap<T>(&self, result: rusqlite::Result<T>) -> Result<T> {
        result.map_err(|source| Error::Index {
            path: self.path.clone(),
            source,
        })
    }

    fn batch(&self, sql: &str) -> Result<()> {
        self.wrap(self.db.execute_batch(sql))
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Result<()> {
        self.wrap(
            self.db
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute(values)),
        )?;
        Ok(())
    }

    /// Whether a transaction is open, so that one more row costs nothing.
    pub(crate) fn is_writing(&self) -> bool {
        !self.db.is_autocommit()
    }

    /// Whether a commit waits until the disk has it; it does when the index is opened.
    pub(crate) fn flush_commits(&self, is_flushed: bool) -> Result<()> {
        let level = if is_flushed { "FULL" } else { "OFF" };
        self.batch(&format!("PRAGMA synchronous = {level}"))
    }

    /// Begins a transaction, unless one is open.
    pub(crate) fn begin(&self) -> Result<()> {
        if self.db.is_autocommit() {
            self.batch("BEGIN IMMEDIATE")?;
            self.number.set(self.stored_number()?);
        }
        Ok(())
    }

    /// Reads many rows under one shared lock; without, SQLite takes and checks it for each.
    pub(crate) fn reading<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.db.is_autocommit() {
            return read();
        }
        let _whole = self.whole();
        self.batch("BEGIN")?;
        let result = read()?;
        self.batch("COMMIT")?;
        Ok(result)
    }

    /// What was begun and not committed is taken back when this goes: after an error nobody writes into it, unnoticed.
    pub(crate) fn whole(&self) -> Whole<'_> {
        Whole(self)
    }

    /// Ends the open transaction, if there is one, durably.
    pub(crate) fn commit(&self) -> Result<()> {
        if self.db.is_autocommit() {
            return Ok(());
        }
        self.set_meta("number", self.number.get().cast_signed())?;
        self.batch("COMMIT")
    }

    /// Takes back an open transaction, if one is open.
    pub(crate) fn rollback(&self) {
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::warn!("Cannot roll back the index: {error}");
        }
    }

    pub(crate) fn set_meta(&self, key: &str, value: impl rusqlite::ToSql) -> Result<()> {
        self.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
            params![key, value],
        )
    }

    fn meta<T: rusqlite::types::FromSql>(&self, key: &str) -> Result<Option<T>> {
        let sql = "SELECT value FROM meta WHERE key = ?1";
        self.wrap(self.db.query_row(sql, [key], |row| row.get(0)).optional())
    }

    pub(crate) fn id(&self) -> Result<IndexId> {
        let id: Option<[u8; 8]> = self.meta("index")?;
        id.map(IndexId)
            .ok_or_else(|| Error::Usage(format!("The index {:?} has no id; delete it", self.path)))
    }

    fn stored_number(&self) -> Result<u64> {
        Ok(self.meta::<i64>("number")?.unwrap_or(0).cast_unsigned())
    }

    /// The number of the newest change.
    pub(crate) fn number(&self) -> Result<u64> {
        if self.db.is_autocommit() {
            self.stored_number()
        } else {
            Ok(self.number.get())
        }
    }

    /// The number under which the next change is recorded; begins a transaction where none is open.
    pub(crate) fn next_number(&self) -> Result<u64> {
        self.begin()?;
        self.number.set(self.number.get() + 1);
        Ok(self.number.get())
    }

    /// Below this number tombstones were forgotten; cursors under it are not known any more.
    pub(crate) fn floor(&self) -> Result<u64> {
        Ok(self.meta::<i64>("floor")?.unwrap_or(0).cast_unsigned())
    }

    pub(crate) fn file_system(&self) -> Result<Option<i64>> {
        self.meta("file_system")
    }

    /// The newest tag that this index saw, and the number up to which tags vouch for the journal.
    pub(crate) fn newest_tag(&self) -> Result<Option<(Tag, u64)>> {
        let sql = "SELECT tag, number FROM tags ORDER BY position DESC LIMIT 1";
        let row = self
            .db
            .query_row(sql, [], |row| Ok((Tag(row.get(0)?), get_u64(row, 1)?)))
            .optional();
        self.wrap(row)
    }

    pub(crate) fn lists_tag(&self, tag: Tag) -> Result<bool> {
        let sql = "SELECT 1 FROM tags WHERE tag = ?1";
        Ok(self
            .wrap(self.db.query_row(sql, [tag.0], |_| Ok(())).optional())?
            .is_some())
    }

    pub(crate) fn add_tag(&self, tag: Tag, number: u64) -> Result<()> {
        self.execute(
            "INSERT OR IGNORE INTO tags (tag, number, at) VALUES (?1, ?2, ?3)",
            params![tag.0, number.cast_signed(), now_secs().cast_signed()],
        )
    }

    /// When the runs were.
    pub(crate) fn clock(&self) -> Result<Clock> {
        let sql = "SELECT tag, at FROM tags ORDER BY position";
        let mut statement = self.wrap(self.db.prepare_cached(sql))?;
        let rows = statement.query_map([], |row| Ok((Tag(row.get(0)?), get_u64(row, 1)?)));
        let times = self.wrap(rows)?.map(|row| self.wrap(row));
        Ok(Clock(times.collect::<Result<_>>()?))
    }

    /// Forgets tombstones that are older than the journal's 90 days.
    pub(crate) fn prune(&self, clock: &Clock) -> Result<()> {
        let Some(tag) = clock.newest_older_than(JOURNAL_DAYS * 86_400) else {
            return Ok(());
        };
        let sql = "SELECT number FROM tags WHERE tag = ?1";
        let floor = self.db.query_row(sql, [tag.0], |row| row.get(0));
        let floor: Option<i64> = self.wrap(floor.optional())?;
        let Some(floor) = floor.filter(|&floor| floor.cast_unsigned() > self.floor().unwrap_or(0))
        else {
            return Ok(());
        };
        let _whole = self.whole();
        self.begin()?;
        self.execute("DELETE FROM files WHERE gone AND seq <= ?1", [floor])?;
        self.execute("DELETE FROM folders WHERE gone AND seq <= ?1", [floor])?;
        self.set_meta("floor", floor)?;
        self.commit()
    }

    // Problems of the folders that were read; those of the tree itself are found anew in every scan.

    pub(crate) fn replace_problems(&self, folder: u32, problems: &[Problem]) -> Result<()> {
        self.execute("DELETE FROM problems WHERE folder = ?1", [folder])?;
        for problem in problems {
            let sql = "INSERT INTO problems (folder, path, why) VALUES (?1, ?2, ?3)";
            self.execute(sql, params![folder, problem.path, problem.why])?;
        }
        Ok(())
    }

    pub(crate) fn problems(&self) -> Result<Vec<Problem>> {
        let mut statement = self.wrap(
            self.db
                .prepare_cached("SELECT path, why FROM problems ORDER BY path"),
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Problem {
                path: row.get(0)?,
                why: row.get(1)?,
                holds: false,
            })
        });
        self.wrap(rows)?.map(|row| self.wrap(row)).collect()
    }

    // Places that could not be looked at.

    /// What such places looked like when nothing that was known was missing anywhere.
    pub(crate) fn unseen(&self) -> Result<BTreeMap<Vec<u8>, i64>> {
        let mut statement = self.wrap(self.db.prepare_cached("SELECT path, mark FROM unseen"))?;
        let rows = self.wrap(statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))))?;
        rows.map(|row| self.wrap(row)).collect()
    }

    pub(crate) fn replace_unseen(&self, places: &BTreeMap<Vec<u8>, i64>) -> Result<()> {
        self.begin()?;
        self.batch("DELETE FROM unseen")?;
        for (path, mark) in places {
            let sql = "INSERT INTO unseen (path, mark) VALUES (?1, ?2)";
            self.execute(sql, params![path, mark])?;
        }
        Ok(())
    }

    // Batches begun and not known to be ended.

    pub(crate) fn put_pending(&self, batch: &[u8]) -> Result<()> {
        self.execute("INSERT INTO pending (batch) VALUES (?1)", [batch])
    }

    pub(crate) fn pending(&self) -> Result<Vec<Vec<u8>>> {
        let mut statement = self.wrap(
            self.db
                .prepare_cached("SELECT batch FROM pending ORDER BY id"),
        )?;
        let rows = self.wrap(statement.query_map([], |row| row.get(0)))?;
        rows.map(|row| self.wrap(row)).collect()
    }

    pub(crate) fn clear_pending(&self) -> Result<()> {
        self.batch("DELETE FROM pending")
    }

    // What the guard counts. A clock that was wrong must not make it ask for ever, so what is to come is far away, too.

    /// Counts deletions and replacements, and forgets those that count no more.
    pub(crate) fn count_deleted(&self, now_secs: u64, count: u64) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let now = now_secs.cast_signed();
        let sql = "DELETE FROM deletions WHERE abs(at - ?1) > ?2";
        self.execute(sql, params![now, (2 * GUARD_SECS).cast_signed()])?;
        let sql = "INSERT INTO deletions (at, count) VALUES (?1, ?2)";
        self.execute(sql, params![now, count.cast_signed()])
    }

    /// How many deletions and replacements of the last 24 hours count for the guard.
    pub(crate) fn deleted_lately(&self, now_secs: u64) -> Result<u64> {
        let sql = "SELECT coalesce(sum(count), 0) FROM deletions WHERE abs(at - ?1) < ?2";
        let values = params![now_secs.cast_signed(), GUARD_SECS.cast_signed()];
        self.wrap(self.db.query_row(sql, values, |row| get_u64(row, 0)))
    }
}

/// Whether a crash left a journal that is to be rolled back before the database can be read.
#[must_use]
pub fn has_hot_journal(path: &Path) -> bool {
    std::fs::metadata(path.with_extension("db-journal")).is_ok_and(|metadata| metadata.len() > 0)
}

/// SQLite's integers are signed; numbers and inodes are stored as the same 64 bits.
fn get_u64(row: &SqlRow, at: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(at)?.cast_unsigned())
}

fn broken(at: usize, error: protocol::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Blob, Box::new(error))
}

#[cfg(test)]
mod fixture_tests;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn rows(index: &Index) -> i64 {
        let count = index
            .db
            .query_row("SELECT count(*) FROM deletions", [], |row| row.get(0));
        count.expect("it can be asked")
    }

    #[test]
    fn after_an_error_nobody_writes_into_what_was_begun() {
        let index = Index::temporary(Path::new("nowhere"), || IndexId([1; 8])).expect("it opens");
        let fail = || -> Result<()> {
            let _whole = index.whole();
            index.begin()?;
            index.set_meta("half", 1)?;
            index.batch("INSERT INTO nowhere VALUES (1)")
        };
        assert!(fail().is_err());
        index.set_meta("next", 2).expect("it is written");
        assert!(index.db.is_autocommit());
        let known = |key| index.meta::<i64>(key).expect("it can be asked");
        assert_eq!((known("half"), known("next")), (None, Some(2)));
    }

    #[test]
    fn deletions_count_for_a_day_and_are_forgotten_after_two() {
        let index = Index::temporary(Path::new("nowhere"), || IndexId([1; 8])).expect("it opens");
        let now = 20_000 * DAY;
        index.count_deleted(now, 30).expect("it is counted");
        index.count_deleted(now + 10, 12).expect("it is counted");
        index.count_deleted(now + 20, 0).expect("it is counted");
        let lately = |now| index.deleted_lately(now).expect("it can be asked");
        assert_eq!((lately(now + 10), rows(&index)), (42, 2));
        assert_eq!(lately(now + DAY - 1), 42);
        assert_eq!(lately(now + DAY), 12);
        assert_eq!(lately(now + DAY + 10), 0);
        assert_eq!(lately(now - 2 * DAY), 0, "the clock was wrong");
        index
            .count_deleted(now + 2 * DAY, 1)
            .expect("it is counted");
        assert_eq!(rows(&index), 3, "nothing is over two days old");
        index
            .count_deleted(now + 2 * DAY + 5, 1)
            .expect("it is counted");
        assert_eq!(rows(&index), 3, "the first is forgotten");
        index.reset(IndexId([2; 8])).expect("it is emptied");
        assert_eq!(rows(&index), 0);
    }
}
