//! What stops a run on a replica. One bad message never does: that is a [`protocol::message::Problem`].

use std::path::{Path, PathBuf};

use protocol::message::RefusalKind;

/// Why a replica cannot be used or changed, split by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something.
    #[error("Cannot {what} {path:?}: {source}{}", cure(source))]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The index failed.
    #[error(
        "The index {path:?} failed: {source}; {}",
        remedy(source, "deleting it costs time, never mail")
    )]
    Index {
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// Going on could delete mail.
    #[error("{0}")]
    Unsafe(String),
    /// The root is not there, or is no Maildir.
    #[error("{0}")]
    Root(String),
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Another run holds the lock.
    #[error("{0}")]
    Busy(String),
}

/// What helps where a database failed: room where its disk is full, else what is said of it.
#[must_use]
pub fn remedy<'a>(error: &rusqlite::Error, otherwise: &'a str) -> &'a str {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => "make room and run again, what is done is kept",
        _ if is_busy(error) => "another run is busy with it; try again later",
        _ => otherwise,
    }
}

/// Whether another process held a database for too long.
#[must_use]
pub fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseBusy | DatabaseLocked)
    )
}

/// What helps where the system refused something, as far as that is known.
fn cure(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{
        NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    match error.kind() {
        PermissionDenied => "; give this user access to it",
        NotFound => "; check the path",
        ReadOnlyFilesystem => "; make its file system writable, or name another place",
        StorageFull | QuotaExceeded => "; make room and run again, what is done is kept",
        _ => "",
    }
}

impl Error {
    /// What the system says where a disk or quota is full; else the error itself.
    pub(crate) fn full(self) -> Result<String> {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded) => {
                Ok(source.to_string())
            }
            other => Err(other),
        }
    }

    /// What a client should make of it.
    #[must_use]
    pub fn kind(&self) -> RefusalKind {
        match self {
            Error::Index { source, .. } if is_busy(source) => RefusalKind::Temporary,
            Error::Io { .. } | Error::Index { .. } | Error::Root(_) => RefusalKind::Error,
            Error::Unsafe(_) => RefusalKind::Unsafe,
            Error::Usage(_) => RefusalKind::Usage,
            Error::Busy(_) => RefusalKind::Temporary,
        }
    }
}

/// The result of anything on a replica.
pub type Result<T> = std::result::Result<T, Error>;

/// Names the path and the verb of a failed system call.
pub(crate) trait Context<T> {
    fn context(self, what: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io {
            what,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

/// Whether the disk or quota is full, or the file system read-only: nothing more should be added.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        StorageFull | QuotaExceeded | ReadOnlyFilesystem
    )
}

/// Whether an error says that a file has just gone or is being written, which is no problem, only bad timing.
pub(crate) fn is_bad_timing(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::Interrupted
    )
}
