//! Notes of how far the batch under way has come, for whoever finds it cut off.
//!
//! A rename leaves no trace that outlives a user's next one, and that a file is not in `tmp` any more may be a cleaner's
//! doing. So each is noted in a file beside the index as soon as it
//! happened, without waiting for the disk: a note survives the process, and where it is lost with the machine,
//! [`crate::recover`] falls back on what the files say.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::private;

/// Tells the batch to which notes belong.
pub(crate) type NotesKey = [u8; 16];

/// What is noted of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// Nothing: it was not begun, or was cut off.
    Nothing = 0,
    /// The message has its new name, or came, or went to the trash.
    Renamed = 1,
    /// It was refused.
    Refused = 2,
    /// The message has its new bytes, too.
    Replaced = 3,
    /// A durable copy of it is about to get its new name, on another file system.
    Copied = 4,
}

/// The notes of one batch, being written.
pub(crate) struct Notes {
    file: File,
}

impl Notes {
    /// Begins anew, before the batch is recorded as begun.
    pub(crate) fn begin(path: &Path, key: NotesKey, ops: usize) -> io::Result<Notes> {
        let file = private::open(path)?;
        file.set_len(0)?;
        file.write_all_at(&[key.as_slice(), &vec![0; ops]].concat(), 0)?;
        Ok(Notes { file })
    }

    pub(crate) fn note(&self, op: usize, note: Note) {
        let at = (size_of::<NotesKey>() + op) as u64;
        if let Err(error) = self.file.write_all_at(&[note as u8], at) {
            tracing::debug!("Cannot note what happened: {error}"); // Then the files tell, see recover.
        }
    }

    /// The same for what must outlive the machine, too.
    pub(crate) fn note_durably(&self, op: usize, note: Note) -> io::Result<()> {
        let at = (size_of::<NotesKey>() + op) as u64;
        self.file.write_all_at(&[note as u8], at)?;
        self.file.sync_data()
    }
}

/// The notes of a batch that was cut off; nothing is noted where they are another batch's.
pub(crate) fn read(path: &Path, key: NotesKey, ops: usize) -> Vec<Note> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let notes = bytes.strip_prefix(key.as_slice()).unwrap_or_default();
    let note = |op: usize| match notes.get(op) {
        Some(1) => Note::Renamed,
        Some(2) => Note::Refused,
        Some(3) => Note::Replaced,
        Some(4) => Note::Copied,
        Some(_) | None => Note::Nothing,
    };
    (0..ops).map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back_and_those_of_another_batch_are_none() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("notes");
        let notes = Notes::begin(&path, [7; 16], 4).expect("begins");
        notes.note(0, Note::Renamed);
        notes.note(2, Note::Refused);
        notes.note(3, Note::Replaced);
        let noted = vec![Note::Renamed, Note::Nothing, Note::Refused, Note::Replaced];
        assert_eq!(read(&path, [7; 16], 4), noted);
        assert_eq!(read(&path, [8; 16], 4), vec![Note::Nothing; 4]);
        assert_eq!(
            read(&dir.path().join("none"), [7; 16], 1),
            vec![Note::Nothing]
        );
    }
}
