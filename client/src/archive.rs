//! What both replicas last agreed on, on disk, and what differs still.
//!
//! One SQLite file for each pair of replicas, named after their random ids; locked for the whole run. Losing it costs a
//! first sync, never mail. Messages on which both sides agree are rows of `agreed`; all others are whole records in
//! `pending`, and come into every run until they are agreed. `asked` holds what a batch is about to ask of a side, from
//! before it is sent until its outcome is stored (I4). It must never know what follows from what it stores. `docs/state.md` has the essay.

use std::path::{Path, PathBuf};
use std::time::Duration;

use maildir::{Lock, private};
use protocol::codec::{decode_state, encode_state};
use protocol::{Digest, ReplicaId};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::merge::agreed::{Asked, Stored};
use crate::merge::folder::Folder;
use crate::merge::record::{Fid, Record, Side, State};

mod agreed;
mod merged;

const SCHEMA_VERSION: i64 = 3;
/// How long a second run waits for the first before it gives up (exit 75).
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE folders (id INTEGER PRIMARY KEY, folder BLOB NOT NULL);
CREATE TABLE agreed (
  folder INTEGER NOT NULL, uniq BLOB NOT NULL, copy INTEGER NOT NULL, in_new INTEGER NOT NULL, flags INTEGER NOT NULL,
  digest BLOB NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, local_seq INTEGER NOT NULL,
  remote_seq INTEGER NOT NULL, bears INTEGER, PRIMARY KEY (folder, uniq, copy)) WITHOUT ROWID;
CREATE TABLE pending (id INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE asked (id INTEGER PRIMARY KEY, lines BLOB NOT NULL);
CREATE TABLE plans (plan TEXT PRIMARY KEY, lines BLOB NOT NULL, at INTEGER NOT NULL);
";

/// What becomes of an account whose archive is lost.
const JOINED: &str = "without it the next run compares everything and deletes nothing";

/// Why the archive is of no use to this run.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Another run holds it, or the disk refused.
    #[error(transparent)]
    Lock(#[from] maildir::Error),
    /// SQLite failed.
    #[error(
        "The archive {path:?} failed: {source}; {}",
        maildir::remedy(source, JOINED)
    )]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// Something stored does not read back.
    #[error(
        "The archive {path:?} is damaged ({why}); move it away, and the next run compares everything and deletes nothing"
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

type Result<T> = std::result::Result<T, ArchiveError>;

/// The same while it is asked; the order of the fields is the stored format of [`Asked`].
#[derive(Clone, Copy, Serialize)]
pub struct AskedRef<'a> {
    /// Of which side.
    pub side: Side,
    /// Where the record is stored.
    pub stored: &'a Stored,
    /// The record.
    pub record: &'a Record,
    /// What the message shall be on that side; `None` for gone.
    pub target: Option<&'a State>,
}

/// An open archive.
pub struct Archive {
    db: Connection,
    path: PathBuf,
    /// Where one of an older format was put.
    pub set_aside: Option<PathBuf>,
    lock: Option<Lock>,
}

impl Archive {
    /// Opens the archive of a pair, or begins one.
    ///
    /// # Errors
    /// When another run holds it, or it cannot be read.
    pub fn open(
        state_dir: &Path,
        local: ReplicaId,
        remote: ReplicaId,
        dry_run: bool,
    ) -> Result<Archive> {
        let dir = state_dir.join("archives");
        let path = dir.join(format!("{local}-{remote}.db"));
        let wrap = |source| ArchiveError::Sqlite {
            path: path.clone(),
            source,
        };
        if dry_run {
            let mut db = Connection::open("").map_err(wrap)?;
            if path.exists() && !maildir::has_hot_journal(&path) {
                let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
                let source = Connection::open_with_flags(&path, flags).map_err(wrap)?;
                let copy = rusqlite::backup::Backup::new(&source, &mut db).map_err(wrap)?;
                copy.run_to_completion(10_000, Duration::ZERO, None)
                    .map_err(wrap)?;
            }
            return Archive {
                db,
                path,
                set_aside: None,
                lock: None,
            }
            .ready();
        }
        private::make_dirs(&dir)?;
        let busy = "Another run is syncing this pair; try again when it is through";
        let lock = Lock::take(&path.with_extension("lock"), LOCK_PATIENCE, busy)?;
        private::prepare_database(&path)?;
        let db = Connection::open(&path).map_err(wrap)?;
        Archive {
            db,
            path,
            set_aside: None,
            lock: Some(lock),
        }
        .ready()
    }

    /// Whether a pair has an archive.
    #[must_use]
    pub fn exists(state_dir: &Path, local: ReplicaId, remote: ReplicaId) -> bool {
        state_dir
            .join("archives")
            .join(format!("{local}-{remote}.db"))
            .exists()
    }

    fn ready(self) -> Result<Archive> {
        self.batch(
            "PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = FULL; PRAGMA cache_size = -4096;",
        )?;
        let version: i64 = self.wrap(
            self.db
                .query_row("PRAGMA user_version", [], |row| row.get(0)),
        )?;
        match version {
            SCHEMA_VERSION => {}
            0 => self.batch(&format!(
                "BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            ))?,
            older if (1..SCHEMA_VERSION).contains(&older) => return self.renew(older),
            other => {
                let why =
                    format!("its format {other} is newer than this version's {SCHEMA_VERSION}");
                return Err(ArchiveError::Damaged {
                    path: self.path,
                    why,
                });
            }
        }
        Ok(self)
    }

    /// Begins anew, because what is there has an older format: it stays beside, and the pair is adopted.
    fn renew(mut self, format: i64) -> Result<Archive> {
        let aside = self.path.with_extension(format!("format-{format}"));
        let db = if self.lock.is_some() {
            std::fs::rename(&self.path, &aside).map_err(|source| maildir::Error::Io {
                what: "set aside",
                path: self.path.clone(),
                source,
            })?;
            Connection::open(&self.path)
        } else {
            Connection::open("")
        };
        self.db = self.wrap(db)?;
        self.set_aside = Some(aside);
        self.ready()
    }

    fn wrap<T>(&self, result: rusqlite::Result<T>) -> Result<T> {
        result.map_err(|source| ArchiveError::Sqlite {
            path: self.path.clone(),
            source,
        })
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        decode_state(bytes).map_err(|error| ArchiveError::Damaged {
            path: self.path.clone(),
            why: error.to_string(),
        })
    }

    fn batch(&self, sql: &str) -> Result<()> {
        self.wrap(self.db.execute_batch(sql))
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
        self.wrap(
            self.db
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute(values)),
        )
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn begin(&self) -> Result<()> {
        self.batch("BEGIN")
    }

    /// Ends the transaction, durably; where SQLite refuses, nothing of it stays.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn commit(&self) -> Result<()> {
        let committed = self.batch("COMMIT");
        self.rollback();
        committed
    }

    /// Ends the transaction in which something was stored: durably where all went well. After an error nothing of it
    /// stays, or the next writer would write into it, unnoticed.
    ///
    /// # Errors
    /// What went wrong, or when SQLite refuses.
    pub fn end<T, E: From<ArchiveError>>(
        &self,
        stored: std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        if stored.is_ok() {
            self.commit()?;
        }
        self.rollback();
        stored
    }

    /// Takes back an open transaction, if one is open.
    fn rollback(&self) {
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::warn!("Cannot roll back the archive: {error}");
        }
    }

    /// Forgets all that was agreed, because one of the trees is not the one that is remembered.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn reset(&self) -> Result<()> {
        self.batch(
            "BEGIN; DELETE FROM meta; DELETE FROM folders; DELETE FROM agreed; DELETE FROM pending; DELETE FROM asked; \
             DELETE FROM plans; COMMIT;",
        )
    }

    /// A remembered value.
    ///
    /// # Errors
    /// When it does not read back.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let sql = "SELECT value FROM meta WHERE key = ?1";
        let bytes: Option<Vec<u8>> =
            self.wrap(self.db.query_row(sql, [key], |row| row.get(0)).optional())?;
        bytes.map(|bytes| self.decode(&bytes)).transpose()
    }

    /// Remembers a value.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn set<T: Serialize>(&self, key: &str, value: &T) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
        self.execute(sql, params![key, encode_state(value)])
            .map(|_| ())
    }

    /// Forgets a value.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn remove(&self, key: &str) -> Result<()> {
        self.execute("DELETE FROM meta WHERE key = ?1", [key])
            .map(|_| ())
    }

    fn blobs<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<(i64, T)>> {
        let mut statement = self.wrap(self.db.prepare_cached(sql))?;
        let rows =
            self.wrap(statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?))))?;
        rows.map(|row| {
            let (id, bytes) = self.wrap(row)?;
            Ok((id, self.decode(&bytes)?))
        })
        .collect()
    }

    /// All folders.
    ///
    /// # Errors
    /// When one does not read back.
    pub fn folders(&self) -> Result<Vec<(Fid, Folder)>> {
        let rows = self.blobs("SELECT id, folder FROM folders ORDER BY id")?;
        Ok(rows
            .into_iter()
            .map(|(id, folder)| (fid(id), folder))
            .collect())
    }

    /// Stores a folder under its number.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn put_folder(&self, id: Fid, folder: &Folder) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO folders (id, folder) VALUES (?1, ?2)";
        self.execute(sql, params![id.0, encode_state(folder)])
            .map(|_| ())
    }

    /// Removes a folder that neither side has.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn remove_folder(&self, id: Fid) -> Result<()> {
        self.execute("DELETE FROM folders WHERE id = ?1", [id.0])
            .map(|_| ())
    }

    /// All records that are not agreed.
    ///
    /// # Errors
    /// When one does not read back.
    pub fn pending(&self) -> Result<Vec<(i64, Record)>> {
        self.blobs("SELECT id, record FROM pending ORDER BY id")
    }

    /// What was asked and never answered.
    ///
    /// # Errors
    /// When it does not read back.
    pub fn asked(&self) -> Result<Vec<(i64, Vec<Asked>)>> {
        self.blobs("SELECT id, lines FROM asked ORDER BY id")
    }

    /// Records, durably, what is about to be asked; returns the number under which it is answered.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn ask(&self, lines: &[AskedRef]) -> Result<i64> {
        self.execute(
            "INSERT INTO asked (lines) VALUES (?1)",
            [encode_state(lines)],
        )?;
        Ok(self.db.last_insert_rowid())
    }

    /// Strikes what was answered.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn answered(&self, id: i64) -> Result<()> {
        self.execute("DELETE FROM asked WHERE id = ?1", [id])
            .map(|_| ())
    }

    /// Whether nothing is agreed yet, and nothing was asked that may be.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn is_empty(&self) -> Result<bool> {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM agreed) AND NOT EXISTS (SELECT 1 FROM pending) AND NOT EXISTS (SELECT 1 FROM asked)";
        self.wrap(self.db.query_row(sql, [], |row| row.get(0)))
    }

    /// Stores a record where it belongs now; returns where that is.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn put(&self, stored: &Stored, record: &Record) -> Result<Stored> {
        let place = record
            .is_agreed()
            .then(|| record.local.as_ref().map(|seen| seen.place.clone()))
            .flatten();
        match stored {
            Stored::Agreed(old) if Some(old) != place.as_ref() => {
                let sql = "DELETE FROM agreed WHERE folder = ?1 AND uniq = ?2 AND copy = ?3";
                self.execute(sql, params![old.folder.0, old.unique.as_bytes(), old.copy])?;
            }
            Stored::Pending(id) if place.is_some() || record.is_empty() => {
                self.execute("DELETE FROM pending WHERE id = ?1", [id])?;
            }
            Stored::Agreed(_) | Stored::Pending(_) | Stored::Nowhere => {}
        }
        if let Some(place) = place {
            self.put_agreed(&place, record)?;
            return Ok(Stored::Agreed(place));
        }
        if record.is_empty() {
            return Ok(Stored::Nowhere);
        }
        let bytes = encode_state(record);
        if let Stored::Pending(id) = stored {
            self.execute(
                "UPDATE pending SET record = ?2 WHERE id = ?1",
                params![id, bytes],
            )?;
            return Ok(Stored::Pending(*id));
        }
        self.execute("INSERT INTO pending (record) VALUES (?1)", [bytes])?;
        Ok(Stored::Pending(self.db.last_insert_rowid()))
    }

    // Plans that wait for a person.

    /// Remembers the deletions that a refused plan names.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn put_plan(&self, plan: &str, lines: &[Digest], at_secs: u64) -> Result<()> {
        self.execute(
            "DELETE FROM plans WHERE at < ?1",
            [at_secs.saturating_sub(30 * 86_400).cast_signed()],
        )?;
        let sql = "INSERT OR REPLACE INTO plans (plan, lines, at) VALUES (?1, ?2, ?3)";
        self.execute(
            sql,
            params![plan, encode_state(lines), at_secs.cast_signed()],
        )
        .map(|_| ())
    }

    /// The deletions that a plan names, if there is one of that name.
    ///
    /// # Errors
    /// When it does not read back.
    pub fn plan(&self, plan: &str) -> Result<Option<Vec<Digest>>> {
        let sql = "SELECT lines FROM plans WHERE plan = ?1";
        let bytes: Option<Vec<u8>> =
            self.wrap(self.db.query_row(sql, [plan], |row| row.get(0)).optional())?;
        bytes.map(|bytes| self.decode(&bytes)).transpose()
    }
}

/// Seconds since 1970, for ages and for people.
#[must_use]
pub fn now_secs() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_secs())
}

fn fid(id: i64) -> Fid {
    Fid(u32::try_from(id).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod fixture_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_error_nobody_writes_into_what_was_begun() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (local, remote) = (ReplicaId([1; 16]), ReplicaId([2; 16]));
        let archive = Archive::open(dir.path(), local, remote, false).expect("it opens");
        archive.begin().expect("it begins");
        archive.set("half", &1_u64).expect("it is written");
        let failed = archive.execute("INSERT INTO nowhere VALUES (1)", []);
        assert!(archive.end(failed).is_err());
        archive.set("last_sync", &7_u64).expect("it is written");
        drop(archive);
        let archive = Archive::open(dir.path(), local, remote, false).expect("it opens");
        let known = |key| archive.get::<u64>(key).expect("it can be asked");
        assert_eq!((known("half"), known("last_sync")), (None, Some(7)));
    }

    #[test]
    fn an_archive_without_room_says_what_helps() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (local, remote) = (ReplicaId([1; 16]), ReplicaId([2; 16]));
        let archive = Archive::open(dir.path(), local, remote, false).expect("it opens");
        archive
            .batch("PRAGMA max_page_count = 1")
            .expect("it is limited");
        let full = archive.set("filler", &vec![7_u8; 1 << 20]);
        let said = full.expect_err("there is no room").to_string();
        assert!(said.contains("make room"), "{said}");
    }
}
