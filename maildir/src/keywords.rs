//! Reading what Dovecot calls the letters `a`-`z` of a folder. Its file is never written.
//!
//! It is looked at whenever a folder is read: Dovecot gives a letter only to put it into the name of a message. So a run
//! that finds nothing changed does not ask for it.

use std::io::{self, Read};

use protocol::Keywords;

use crate::path::join;
use crate::root::{Root, stamp_of};

/// What Dovecot calls the file, in a folder's directory.
const FILE_NAME: &[u8] = b"dovecot-keywords";
/// 26 of the longest names, several times.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What the letters of a folder are called, if Dovecot says so; an error where its file is none that can be read.
pub(crate) fn read(root: &Root, dir: &[u8]) -> io::Result<Option<Keywords>> {
    let file = match root.open_file(&join(dir, &[FILE_NAME])) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if stamp_of(&file)?.size > FILE_BYTES_MAX {
        return Err(io::Error::other("it is over 64 KiB long"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let read = Keywords::parse(&bytes);
    read.map(Some)
        .ok_or_else(|| io::Error::other("no line of it is a number from 0 to 25 and a name"))
}

/// Where the file lies, for people.
pub(crate) fn path(dir: &[u8]) -> Vec<u8> {
    join(dir, &[FILE_NAME])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_short_regular_file_in_the_folder_itself_is_read() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = Root::open(dir.path()).expect("it opens");
        assert_eq!(read(&root, b"").expect("none"), None);
        let put = |folder: &str, bytes: &[u8]| {
            let folder = dir.path().join(folder);
            fs::create_dir_all(&folder).expect("made");
            fs::write(folder.join("dovecot-keywords"), bytes).expect("written");
        };
        put("", b"0 Work\n");
        put(".A", b"");
        put(".Long", &b"0 Work\n".repeat(10_000));
        put(".Broken", b"\0\0\0");
        for folder in [".Link", ".Dir"] {
            fs::create_dir(dir.path().join(folder)).expect("made");
        }
        symlink(
            "../dovecot-keywords",
            dir.path().join(".Link/dovecot-keywords"),
        )
        .expect("linked");
        fs::create_dir(dir.path().join(".Dir/dovecot-keywords")).expect("made");
        let work = Keywords::parse(b"0 Work\n");
        assert_eq!(read(&root, b"").expect("it is read"), work);
        assert_eq!(
            read(&root, b".A").expect("it is read"),
            Some(Keywords::default())
        );
        for folder in [".Long", ".Broken", ".Link", ".Dir"] {
            assert!(read(&root, folder.as_bytes()).is_err(), "{folder}");
        }
    }
}
