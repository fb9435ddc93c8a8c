//! Files and directories outside of any Maildir that only their owner may read, whatever the umask: the state and the
//! trash.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Context, Result};

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Makes a directory and those above it that are missing.
///
/// # Errors
/// When the disk refuses.
pub fn make_dirs(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_dirs(above)?;
    }
    let made = DirBuilder::new().mode(DIR_MODE).create(path);
    match made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(DIR_MODE))) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other.context("make", path),
    }
}

/// Opens a file for reading and writing, which is made if it is missing.
///
/// # Errors
/// When the disk refuses.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    match create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        other => other,
    }
}

/// Writes a whole file that may be lost.
///
/// # Errors
/// When the disk refuses.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = open(path)?;
    file.set_len(0)?;
    file.write_all(bytes)
}

/// Makes a file that nobody else has made.
///
/// # Errors
/// When it is there, or the disk refuses.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true);
    let file = options.mode(FILE_MODE).open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != FILE_MODE {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

/// Makes a database's file before the database is opened, whose own files get its mode.
///
/// # Errors
/// When the disk refuses.
pub fn prepare_database(path: &Path) -> Result<()> {
    open(path).map(drop).context("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_its_owners_alone_and_what_is_there_stays_as_it_is() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mode = |path: &Path| {
            let stat = fs::metadata(path).expect("it is there");
            stat.permissions().mode() & 0o777
        };
        let (deep, file) = (dir.path().join("a/b"), dir.path().join("a/b/file"));
        make_dirs(&deep).expect("they are made");
        drop(open(&file).expect("it is made"));
        assert_eq!((mode(&deep), mode(&dir.path().join("a"))), (0o700, 0o700));
        assert_eq!(mode(&file), 0o600);
        assert!(create(&file).is_err());
        fs::set_permissions(&deep, Permissions::from_mode(0o750)).expect("it is mine");
        make_dirs(&deep).expect("it is there");
        drop(open(&file).expect("it is there"));
        assert_eq!(mode(&deep), 0o750);
    }
}
