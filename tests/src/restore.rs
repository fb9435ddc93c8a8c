//! Putting a whole world back, trees and states, as if no time had passed.
//!
//! A copy's directories are other ones than those that its indexes remember, and a directory in another's place is taken for a
//! backup that somebody put back. Here nobody did: the memory went back, too. So the indexes are told which directories
//! are in the place of theirs, as a copy of the whole disk would have it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// Tells the indexes below `world` of the replicas in `roots` what their directories are now.
pub(crate) fn keep_identities(world: &Path, roots: &[&Path]) {
    for root in roots {
        let Ok(marker) = fs::read_to_string(root.join(".maildir-sync")) else {
            continue; // Not synced yet.
        };
        let id = marker
            .split_whitespace()
            .nth(2)
            .expect("a marker has an id");
        for index in indexes(world, id) {
            rewrite(&index, root).unwrap_or_else(|error| panic!("{}: {error}", index.display()));
        }
    }
}

/// The indexes of a replica, in whatever state directory.
fn indexes(dir: &Path, id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let own = dir.join("replicas").join(id).join("index.db");
    if own.exists() {
        found.push(own);
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && !dir.ends_with("replicas") {
            found.extend(indexes(&entry.path(), id));
        }
    }
    found
}

fn rewrite(index: &Path, root: &Path) -> rusqlite::Result<()> {
    let mut db = Connection::open(index)?;
    db.execute_batch("PRAGMA synchronous = OFF")?;
    let all = db.transaction()?;
    let folders: Vec<(i64, Vec<u8>)> = all
        .prepare("SELECT id, dir FROM folders WHERE NOT gone")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (id, dir) in folders {
        let dir = root.join(OsStr::from_bytes(&dir));
        for (part, ino, birth) in [
            ("", "ino", "birth"),
            ("cur", "cur_ino", "cur_birth"),
            ("new", "new_ino", "new_birth"),
        ] {
            if let Some((now, made)) = identity(&dir.join(part)) {
                let sql = format!(
                    "UPDATE folders SET {ino} = ?2, {birth} = ?3 WHERE id = ?1 AND {ino} <> 0"
                );
                all.execute(&sql, params![id, now, made])?;
            }
        }
    }
    all.commit()
}

/// Inode and time of birth of what is there.
fn identity(path: &Path) -> Option<(i64, i64)> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
    let birth = stat.stx_btime.tv_sec * 1_000_000_000 + i64::from(stat.stx_btime.tv_nsec);
    Some((stat.stx_ino.cast_signed(), birth))
}
