//! Copies that were made over IMAP: each side reads what is left unpaired in folders of both, and says what it has in
//! common with its copies.

use protocol::codec::batches;
use protocol::message::At;
use protocol::{Cursor, Digest, Fingerprint, Request, Response};

use super::Session;
use crate::endpoint::link::unexpected;
use crate::merge::copies::{Candidate, pair_copies, unpaired};
use crate::merge::record::Side;
use crate::run::failure::Failure;

/// About how many messages are asked about at once: an answer takes no longer than reading them.
const ASKED_AT_ONCE: usize = 256;

impl Session<'_> {
    /// Pairs what differs only as such copies do; returns how many.
    pub(super) fn pair_copies(&mut self) -> Result<usize, Failure> {
        // Also where a first sync is resumed.
        let cursor = self.archive.get::<Cursor>("remote_cursor")?;
        let is_everything = cursor.is_none_or(|cursor| cursor.number == 0);
        let folders = unpaired(&self.set, is_everything);
        let [local, remote] = Side::BOTH.map(|side| {
            let all = folders.values().flat_map(|sides| &sides[side as usize]);
            let lines = all.filter_map(|index| {
                let seen = self.set.all[*index].record.seen(side)?;
                Some((self.at(side, &seen.place), seen.entry.digest))
            });
            lines.collect::<Vec<_>>()
        });
        let expected = remote.len();
        for lines in remote.chunks(ASKED_AT_ONCE) {
            for lines in batches(lines.to_vec()) {
                self.link.request(Request::Fingerprints(lines));
            }
        }
        // Both sides read at the same time.
        let here = self.fingerprints(&local)?;
        let there = self.told_fingerprints(expected)?;
        let (mut here, mut there) = (here.into_iter(), there.into_iter());
        let mut count = 0;
        for [local, remote] in folders.into_values() {
            let local = candidates(local, &mut here);
            let remote = candidates(remote, &mut there);
            count += pair_copies(&mut self.set, [local, remote]);
        }
        Ok(count)
    }

    fn fingerprints(&self, lines: &[(At, Digest)]) -> Result<Vec<Option<Fingerprint>>, Failure> {
        let mut all = Vec::with_capacity(lines.len());
        let bodies = self.local.lock().bodies()?;
        for lines in lines.chunks(ASKED_AT_ONCE) {
            let places: Vec<_> = lines.iter().map(|(at, digest)| (at, digest)).collect();
            let located = self.local.lock().locate(&places)?.into_iter();
            all.extend(located.map(|located| bodies.fingerprint(&located?).ok().flatten()));
        }
        Ok(all)
    }

    fn told_fingerprints(&mut self, expected: usize) -> Result<Vec<Option<Fingerprint>>, Failure> {
        let mut all = Vec::with_capacity(expected);
        while all.len() < expected {
            match self.link.response()? {
                Response::Fingerprints(more) if !more.is_empty() => all.extend(more),
                other => return Err(unexpected(&other).into()),
            }
        }
        Ok(all)
    }
}

/// The messages that can be read, each with its fingerprint.
fn candidates(
    indexes: Vec<usize>,
    fingerprints: &mut impl Iterator<Item = Option<Fingerprint>>,
) -> Vec<Candidate> {
    let both = indexes.into_iter().zip(fingerprints);
    let readable = both.filter_map(|(index, fingerprint)| {
        Some(Candidate {
            index,
            fingerprint: fingerprint?,
        })
    });
    readable.collect()
}
