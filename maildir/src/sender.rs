//! The sending side of a conversation: what a replica answers to what is asked of it, and the bodies of messages.
//!
//! The replica is locked for one look at a time, and never while the peer is waited for.

use std::fs::File;
use std::io::{self, Read};

use protocol::codec::batches;
use protocol::entry::Change;
use protocol::message::{At, Fetch, Listed, Listing, Prefix};
use protocol::{Cursor, Digest, Response};

use crate::body::{Bodies, CHUNK_BYTES, Located, Outgoing};
use crate::error::Error;
use crate::journal::Reader;
use crate::replica::Replica;
use crate::scan::Scan;
use crate::shared::Shared;

/// Where answers go.
pub trait Outlet {
    /// Why it takes no more.
    type Error: From<Error>;

    /// Takes an answer.
    ///
    /// # Errors
    /// When nobody is there any more.
    fn say(&mut self, response: Response) -> Result<(), Self::Error>;

    /// Takes a piece of a body, and whether it is the last.
    ///
    /// # Errors
    /// When nobody is there any more.
    fn piece(&mut self, bytes: Vec<u8>, is_last: bool) -> Result<(), Self::Error>;

    /// Hears that so many messages or folders are listed.
    ///
    /// # Errors
    /// When the peer has had too many listed.
    fn count_listed(&mut self, _replica: &Replica, _count: usize) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Hears that a message of so many bytes is read.
    ///
    /// # Errors
    /// When the peer has had too much read.
    fn count_read(&mut self, _replica: &Replica, _bytes: u64) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// What a replica has to report after a scan.
pub struct Report {
    /// What is listed.
    pub from: Listing,
    /// After which number of the journal.
    pub since: u64,
    /// How far the replica vouches for what it reports.
    pub told: Cursor,
    /// What the scan came to.
    pub scan: Scan,
    /// After so many messages the list ends early, with a cursor that says how far it came, but not behind this number.
    pub part: Option<(usize, u64)>,
}

/// Lists folders and messages, what was left alone, and bodies that broke off.
///
/// # Errors
/// The outlet's, and when the index cannot be asked or was made anew meanwhile.
pub fn report<O: Outlet>(outlet: &mut O, replica: &Shared, report: Report) -> Result<(), O::Error> {
    let Report {
        from,
        since,
        told,
        scan,
        part,
    } = report;
    let mut cursor = told;
    let mut reader = Reader::since(since, from == Listing::Cursor);
    if from == Listing::Digests {
        let page = replica.lock().next_page(&mut reader)?.unwrap_or_default();
        let digests = replica.lock().folder_digests()?;
        let folders = batches(page.folders).map(Response::Folders);
        let digests = batches(digests).map(Response::Digests);
        folders
            .chain(digests)
            .try_for_each(|response| outlet.say(response))?;
    } else {
        cursor.number = list_since(outlet, replica, reader, part)?.unwrap_or(told.number);
    }
    let (listed, partials) = {
        let replica = replica.lock();
        if !replica.remembers(told.index, since)? {
            let why = "The index was made anew while it was read; try again";
            return Err(Error::Busy(why.to_owned()).into());
        }
        let listed = Listed {
            from,
            cursor,
            complete: scan.complete,
            held: scan.held,
            messages: replica.messages()?,
            deleted_lately: replica.deleted_lately()?,
        };
        (listed, replica.partials().list())
    };
    let problems = batches(scan.problems).map(Response::Problems);
    let partials = batches(partials).map(Response::Partials);
    problems
        .chain(partials)
        .try_for_each(|response| outlet.say(response))?;
    outlet.say(Response::Listed(listed))
}

/// Lists all that is in some folders, and what changed anywhere since the replica's cursor: what has left a folder since the
/// list may be in another one.
///
/// # Errors
/// The outlet's, and when the index cannot be asked.
pub fn list_folders<O: Outlet>(
    outlet: &mut O,
    replica: &Shared,
    folders: &[u32],
) -> Result<(), O::Error> {
    let cursor = replica.lock().cursor()?;
    outlet.count_listed(&replica.lock(), 1 + folders.len())?;
    for &folder in folders {
        let mut last: Option<Change> = None;
        loop {
            let changes = replica.lock().manifest(folder, last.as_ref())?;
            let Some(change) = changes.last() else { break };
            last = Some(change.clone());
            outlet.count_listed(&replica.lock(), changes.len())?;
            list_changes(outlet, changes)?;
        }
    }
    let reader = Reader::since(cursor.number, true);
    list_since(outlet, replica, reader, None)?;
    let (messages, deleted_lately) = {
        let replica = replica.lock();
        (replica.messages()?, replica.deleted_lately()?)
    };
    let listed = Listed {
        from: Listing::Manifests,
        cursor,
        complete: true,
        held: 0,
        messages,
        deleted_lately,
    };
    outlet.say(Response::Listed(listed))
}

/// Lists what a reader has before it, page by page, without the end of the list. Returns how far it came where it ended early.
///
/// # Errors
/// The outlet's, and when the index cannot be asked.
fn list_since<O: Outlet>(
    outlet: &mut O,
    replica: &Shared,
    mut reader: Reader,
    part: Option<(usize, u64)>,
) -> Result<Option<u64>, O::Error> {
    let mut count = 0;
    loop {
        let page = replica.lock().next_page(&mut reader)?;
        let Some(page) = page else { return Ok(None) };
        for folders in batches(page.folders) {
            outlet.say(Response::Folders(folders))?;
        }
        count += page.changes.len();
        list_changes(outlet, page.changes)?;
        let is_part = |(most, until)| count >= most && reader.number() < until;
        if part.is_some_and(is_part) {
            return Ok(Some(reader.number()));
        }
    }
}

fn list_changes<O: Outlet>(outlet: &mut O, changes: Vec<Change>) -> Result<(), O::Error> {
    batches(changes).try_for_each(|changes| outlet.say(Response::Changes(changes)))
}

/// Finds what is to be sent, in order; `None` where it is unavailable.
///
/// # Errors
/// The outlet's, and when the index cannot be asked.
pub fn locate<O: Outlet>(
    outlet: &mut O,
    replica: &Shared,
    lines: &[Fetch],
) -> Result<Vec<Option<Located>>, O::Error> {
    let places: Vec<_> = lines.iter().map(|line| (&line.at, &line.digest)).collect();
    let replica = replica.lock();
    let located = replica.locate(&places)?;
    for (line, located) in lines.iter().zip(&located) {
        let size = located.as_ref().map_or(0, Located::size);
        outlet.count_read(&replica, size.saturating_sub(line.offset))?;
    }
    Ok(located)
}

/// Says what the first bytes of messages digest to, also of those that are in the trash by now.
///
/// # Errors
/// The outlet's, and when the index cannot be asked.
pub fn report_prefixes<O: Outlet>(
    outlet: &mut O,
    replica: &Shared,
    lines: &[Prefix],
) -> Result<(), O::Error> {
    let replica = replica.lock();
    let bodies = replica.bodies()?;
    let mut digests = Vec::with_capacity(lines.len());
    let places: Vec<_> = lines.iter().map(|line| (&line.at, &line.digest)).collect();
    let located = replica.locate(&places)?;
    let lost = lines.iter().zip(&located);
    let lost = lost.filter(|(_, located)| located.is_none());
    let trashed = replica.trashed(&lost.map(|(line, _)| line.digest).collect());
    outlet.count_read(&replica, trashed.read)?;
    for (line, located) in lines.iter().zip(located) {
        let Prefix { digest, length, .. } = line;
        let Some(located) = located else {
            let size = trashed.size(digest).map_or(0, |size| size * 2);
            outlet.count_read(&replica, size)?;
            digests.push(trashed.prefix(digest, *length));
            continue;
        };
        // No message begins with more than it has.
        let is_long = *length <= located.size();
        outlet.count_read(&replica, if is_long { *length } else { 0 })?;
        let prefix = is_long.then(|| bodies.prefix(&located, *length).ok().flatten());
        digests.push(prefix.flatten());
    }
    drop(replica);
    outlet.say(Response::Prefixes(digests))
}

/// Says what messages have in common with copies that were made over IMAP.
///
/// # Errors
/// The outlet's, and when the index cannot be asked.
pub fn report_fingerprints<O: Outlet>(
    outlet: &mut O,
    replica: &Shared,
    lines: &[(At, Digest)],
) -> Result<(), O::Error> {
    let places: Vec<_> = lines.iter().map(|(at, digest)| (at, digest)).collect();
    let (bodies, located) = {
        let replica = replica.lock();
        let located = replica.locate(&places)?;
        for located in &located {
            outlet.count_read(&replica, located.as_ref().map_or(0, Located::size))?;
        }
        (replica.bodies()?, located)
    };
    // A message that cannot be read has none; the scan has reported it.
    let answers = located
        .into_iter()
        .map(|located| bodies.fingerprint(&located?).ok().flatten());
    batches(answers).try_for_each(|some| outlet.say(Response::Fingerprints(some)))
}

/// Sends one body from an offset on, or why it is unavailable; returns its length, in bytes.
///
/// # Errors
/// The outlet's.
pub fn send_body<O: Outlet>(
    outlet: &mut O,
    bodies: &Bodies,
    located: Option<&Located>,
    offset: u64,
) -> Result<u64, O::Error> {
    let opened = match located {
        Some(located) => bodies.open(located, offset),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    match opened {
        Ok(Outgoing::Small(bytes)) => {
            let length = bytes.len() as u64;
            outlet.piece(bytes, true).map(|()| length)
        }
        Ok(Outgoing::Large(file, left)) => send_large(outlet, file, left).map(|()| left),
        Err(error) => {
            let is_timing = matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::Interrupted
            );
            let why = match is_timing {
                true => String::new(),
                false => error.to_string(),
            };
            outlet.say(Response::NoBody { why }).map(|()| 0)
        }
    }
}

/// Sends a large file; if it cannot be read to its end, the receiver sees by the digest that it is not whole.
fn send_large<O: Outlet>(outlet: &mut O, file: File, left: u64) -> Result<(), O::Error> {
    let mut file = file.take(left);
    loop {
        let mut bytes = vec![0; CHUNK_BYTES];
        let count = file.read(&mut bytes).unwrap_or_else(|error| {
            tracing::warn!("A message could not be read to its end: {error}");
            0
        });
        bytes.truncate(count);
        outlet.piece(bytes, count == 0)?;
        if count == 0 {
            return Ok(());
        }
    }
}
