//! A body that lies in `tmp`, complete, and is its writer's until a batch takes it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::disk::Disk;
use crate::durable::{Unflushed, sync_files};
use crate::partial::Partial;
use crate::record::RunRecord;
use crate::root::Root;
use crate::stamp::FileStamp;

/// A body in `tmp`, complete and with its time; removed when it is dropped without having been used.
#[derive(Debug)]
pub struct Written {
    root: Arc<Root>,
    pub(crate) path: Vec<u8>,
    pub(crate) stamp: FileStamp,
    pub(crate) is_durable: bool,
    is_used: bool,
    /// Where it was collected, if it was large: kept until its batch begins, so that nothing of it is sent again.
    pub(crate) partial: Option<Partial>,
    disk: Arc<Disk>,
    /// Its file, for flushing, as long as few are open.
    pub(crate) open: Option<Open>,
    record: Arc<RunRecord>,
}

/// A file that is kept open, and counted.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) file: File,
    pub(crate) _counted: Arc<()>,
}

impl Written {
    /// A file in `tmp` that has no bytes yet.
    pub(crate) fn empty(
        root: Arc<Root>,
        path: Vec<u8>,
        disk: Arc<Disk>,
        record: Arc<RunRecord>,
    ) -> Written {
        Written {
            root,
            path,
            stamp: FileStamp::default(),
            is_durable: false,
            is_used: false,
            partial: None,
            disk,
            open: None,
            record,
        }
    }

    /// From here on somebody else sees to the file, who holds on to the record as long as it may lie in `tmp`.
    pub(crate) fn into_file(mut self) -> (Vec<u8>, FileStamp, Arc<RunRecord>) {
        self.is_used = true;
        if let Some(partial) = self.partial.take() {
            partial.remove();
        }
        let record = Arc::clone(&self.record);
        (std::mem::take(&mut self.path), self.stamp, record)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if !self.is_used {
            self.record.remove(&self.root, &self.path);
        }
    }
}

/// Makes bodies in `tmp` durable.
pub(crate) fn flush<'w>(written: impl Iterator<Item = &'w Written>) -> io::Result<()> {
    let mut by_disk: HashMap<u64, Vec<&Written>> = HashMap::new();
    for written in written {
        by_disk
            .entry(written.disk.device)
            .or_default()
            .push(written);
    }
    by_disk.values().try_for_each(|written| {
        let files = written.iter().map(|written| Unflushed {
            open: written.open.as_ref().map(|open| &open.file),
            root: &written.root,
            path: &written.path,
        });
        sync_files(&written[0].disk, &files.collect::<Vec<_>>())
    })
}
