//! The messages on which both sides are alike: one small row each.

use protocol::{Digest, Entry, Flags, Info, Unique};
use rusqlite::{OptionalExtension, Row, params};

use super::{Archive, ArchiveError, Result};
use crate::merge::agreed::Agreed;
use crate::merge::record::{Base, Fid, Place, Record, Seen, Seq, Side};

const AGREED: &str =
    "folder, uniq, copy, in_new, flags, digest, size, mtime, local_seq, remote_seq, bears";

impl Agreed for Archive {
    type Error = ArchiveError;

    fn at(&self, place: &Place) -> Result<Option<Record>> {
        let sql =
            format!("SELECT {AGREED} FROM agreed WHERE folder = ?1 AND uniq = ?2 AND copy = ?3");
        let mut statement = self.wrap(self.db.prepare_cached(&sql))?;
        let values = params![place.folder.0, place.unique.as_bytes(), place.copy];
        self.wrap(statement.query_row(values, agreed_record).optional())
    }

    fn in_folder(&self, folder: Fid) -> Result<Vec<Record>> {
        let sql = format!("SELECT {AGREED} FROM agreed WHERE folder = ?1 ORDER BY uniq, copy");
        self.agreed_rows(&sql, [folder.0])
    }

    /// Makes the index for it when it is first asked.
    fn with_digest(&self, digest: &Digest) -> Result<Vec<Record>> {
        self.batch("CREATE INDEX IF NOT EXISTS digests ON agreed (digest)")?;
        let sql = format!("SELECT {AGREED} FROM agreed WHERE digest = ?1");
        self.agreed_rows(&sql, [digest.as_bytes()])
    }

    fn is_none(&self) -> Result<bool> {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM agreed)";
        self.wrap(self.db.query_row(sql, [], |row| row.get(0)))
    }
}

impl Archive {
    fn agreed_rows(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<Record>> {
        let mut statement = self.wrap(self.db.prepare_cached(sql))?;
        let rows = self.wrap(statement.query_map(values, agreed_record))?;
        rows.map(|row| self.wrap(row)).collect()
    }

    /// How many messages are agreed, in one folder or in all.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn agreed_count(&self, folder: Option<Fid>) -> Result<u64> {
        let count = |sql: &str, values: &[u32]| {
            (self.db).query_row(sql, rusqlite::params_from_iter(values), |row| row.get(0))
        };
        let count: i64 = self.wrap(match folder {
            Some(folder) => count("SELECT count(*) FROM agreed WHERE folder = ?1", &[folder.0]),
            None => count("SELECT count(*) FROM agreed", &[]),
        })?;
        Ok(count.cast_unsigned())
    }

    /// Drops what is agreed on a folder: it is excluded.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn forget_folder(&self, folder: Fid) -> Result<()> {
        self.execute("DELETE FROM agreed WHERE folder = ?1", [folder.0])
            .map(|_| ())
    }

    /// Makes a side's numbers unknown: its journal began a new life.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn distrust_numbers(&self, side: Side) -> Result<()> {
        let column = match side {
            Side::Local => "local_seq",
            Side::Remote => "remote_seq",
        };
        self.execute(
            &format!("UPDATE agreed SET {column} = ?1"),
            [u64::from(Seq::Unknown).cast_signed()],
        )
        .map(|_| ())
    }

    pub(super) fn put_agreed(&self, place: &Place, record: &Record) -> Result<()> {
        let (Some(local), Some(remote)) = (&record.local, &record.remote) else {
            return Ok(());
        };
        let sql =
            "INSERT OR REPLACE INTO agreed VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let (entry, bears) = (&local.entry, local.entry.flags());
        let values = params![
            place.folder.0,
            place.unique.as_bytes(),
            place.copy,
            entry.in_new,
            local.flags.bits().cast_signed(),
            entry.digest.as_bytes(),
            entry.size.cast_signed(),
            entry.mtime_ns,
            u64::from(local.seq).cast_signed(),
            u64::from(remote.seq).cast_signed(),
            (bears != local.flags).then(|| bears.bits().cast_signed())
        ];
        self.execute(sql, values).map(|_| ())
    }
}

/// The record of a row: base and both sides alike.
fn agreed_record(row: &Row) -> rusqlite::Result<Record> {
    let unique = Unique::new(row.get_ref(1)?.as_blob()?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Blob, Box::new(error))
    })?;
    let place = Place {
        folder: Fid(row.get(0)?),
        unique,
        copy: row.get(2)?,
    };
    let flags = Flags::from_bits(row.get::<_, i64>(4)?.cast_unsigned());
    let in_new = row.get(3)?;
    let digest = Digest::new(row.get(5)?);
    let size = row.get::<_, i64>(6)?.cast_unsigned();
    let bears = row.get::<_, Option<i64>>(10)?;
    let bears = bears.map_or(flags, |bits| Flags::from_bits(bits.cast_unsigned()));
    let mtime_ns = row.get(7)?;
    let seen = |bears: Flags, seq: i64| {
        // Which other bytes the info has on a side is that side's business; flags are all that was agreed.
        let info = if bears.is_empty() {
            Info::default()
        } else {
            Info::of(bears)
        };
        let entry = Entry {
            in_new,
            info,
            digest,
            size,
            mtime_ns,
            damaged: size == 0,
        };
        Seen {
            flags,
            ..Seen::new(place.clone(), entry, Seq::from(seq.cast_unsigned()))
        }
    };
    let (local, remote) = (seen(bears, row.get(8)?), seen(flags, row.get(9)?));
    let base = Base {
        place: Some(place.clone()),
        in_new: Some(in_new),
        flags,
        open: Flags::EMPTY,
        digest,
        size,
    };
    Ok(Record {
        base: Some(base),
        local: Some(local),
        remote: Some(remote),
        copy: None,
    })
}
