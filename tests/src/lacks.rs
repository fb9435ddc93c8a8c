//! What a machine lacks that a test needs. Such a test passes and shows nothing, so it says that by name; where tests are what
//! the machine is there for (`CI`), it fails.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Where [`unshown`] notes tests, too; `tests/run` prints it at the end.
const NOTED_IN: &str = "MAILDIR_SYNC_UNSHOWN";

/// Says that the running test shows nothing here, because of what the machine lacks.
///
/// # Panics
/// Under continuous integration.
#[track_caller]
pub fn lacks(what: &str) {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!is_ci, "{what}");
    unshown(what);
}

/// The same for what is to be had nowhere but where somebody has put it.
///
/// # Panics
/// When it cannot be noted.
pub fn unshown(what: &str) {
    let this = std::thread::current();
    let line = format!(
        "{} shows nothing here: {what}\n",
        this.name().unwrap_or("a test")
    );
    print!("{line}");
    if let Some(path) = std::env::var_os(NOTED_IN) {
        let mut file = OpenOptions::new()
            .append(true)
            .open(path)
            .expect("tests/run made it");
        file.write_all(line.as_bytes()).expect("it is noted");
    }
}

/// Whether the tests run as root; what only root can do is lacking otherwise.
#[must_use]
#[track_caller]
pub fn is_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        lacks(&format!("only root can {what}"));
    }
    is_root
}

/// Whether the file system below a path is one of which every change is told: what else there may be is looked at instead.
///
/// # Panics
/// When it cannot be asked.
#[must_use]
#[track_caller]
pub fn tells_of_changes(path: &Path) -> bool {
    // ext2 to ext4, XFS, Btrfs, tmpfs, F2FS and bcachefs.
    let telling = [
        0xEF53,
        0x5846_5342,
        0x9123_683E,
        0x0102_1994,
        0xF2F5_2010,
        0xCA45_1A4E,
    ];
    let kind = rustix::fs::statfs(path).expect("it is there").f_type;
    let is_telling = telling.contains(&kind);
    if !is_telling {
        lacks(&format!(
            "a file system of type {kind:#x} is always looked at"
        ));
    }
    is_telling
}
