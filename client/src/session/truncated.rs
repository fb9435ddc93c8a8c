//! Messages that are a proper beginning of what they were.

use std::collections::HashMap;

use protocol::message::Prefix;
use protocol::{Digest, Entry, Request, Response, Unique};

use super::Session;
use crate::failure::Failure;
use crate::link::unexpected;
use crate::record::{Base, Side};

/// A message that may be the beginning of another.
struct Suspect {
    /// Its index, and that of the record it belongs to if it is damaged: another one if it was moved, too.
    at: usize,
    of: usize,
    side: Side,
    digest: Digest,
}

impl Session<'_> {
    /// Finds messages that are a proper beginning of what they were: that is damage, not an edit (§4).
    pub(super) fn find_truncated(&mut self) -> Result<(), Failure> {
        let (mut suspects, mut lines) = (Vec::new(), Vec::new());
        for side in Side::BOTH {
            let moved = self.without(side);
            for (at, work) in self.set.all.iter().enumerate() {
                let Some(seen) = work.record.seen(side) else {
                    continue;
                };
                let is_new = work.record.base.is_none() && work.record.seen(side.other()).is_none();
                let of = match is_new {
                    true => moved.get(&seen.place.unique).copied().flatten(),
                    false => Some(at),
                };
                let Some((of, record)) = of.map(|of| (of, &self.set.all[of].record)) else {
                    continue;
                };
                let (Some(base), Some(good)) = (&record.base, record.seen(side.other())) else {
                    continue;
                };
                // A copy may be longer than its original, and begin like it.
                if record.copied().is_none()
                    && good.entry.digest == base.digest
                    && is_shorter(&seen.entry, base)
                {
                    lines.push(Prefix {
                        at: self.at(side.other(), &good.place),
                        digest: base.digest,
                        length: seen.entry.size,
                    });
                    let digest = seen.entry.digest;
                    suspects.push(Suspect {
                        at,
                        of,
                        side,
                        digest,
                    });
                }
            }
        }
        let digests = self.prefixes(&suspects, lines)?;
        for (suspect, prefix) in suspects.into_iter().zip(digests) {
            let Suspect {
                at,
                of,
                side,
                digest,
            } = suspect;
            if prefix == Some(digest) {
                if let Some(seen) = self.set.unlink(at, side) {
                    let seen = self.set.moved(of, side, seen);
                    self.set.link(of, side, seen);
                }
                self.set.mark_damaged(of, side);
            }
        }
        Ok(())
    }

    /// The messages that are gone from a side, by unique name; `None` where one name stands for several.
    fn without(&self, side: Side) -> HashMap<Unique, Option<usize>> {
        let mut gone = HashMap::new();
        for (index, work) in self.set.all.iter().enumerate() {
            let place = work
                .record
                .base
                .as_ref()
                .and_then(|base| base.place.as_ref());
            if let (None, Some(place)) = (work.record.seen(side), place) {
                gone.entry(place.unique.clone())
                    .and_modify(|known| *known = None)
                    .or_insert(Some(index));
            }
        }
        gone
    }

    /// Asks whoever holds the good version what its first bytes digest to.
    fn prefixes(
        &mut self,
        suspects: &[Suspect],
        lines: Vec<Prefix>,
    ) -> Result<Vec<Option<Digest>>, Failure> {
        let (mut remote, mut answers) = (Vec::new(), Vec::new());
        let bodies = self.local.lock().bodies()?;
        for (suspect, line) in suspects.iter().zip(lines) {
            answers.push(match suspect.side {
                Side::Local => {
                    remote.push(line);
                    None
                }
                Side::Remote => {
                    let located = self
                        .local
                        .lock()
                        .locate(&[(&line.at, &line.digest)])?
                        .pop()
                        .flatten();
                    located.and_then(|located| bodies.prefix(&located, line.length).ok().flatten())
                }
            });
        }
        let mut told = Vec::new();
        for lines in protocol::codec::batches(remote) {
            self.link.request(Request::Prefixes(lines));
            match self.link.response()? {
                Response::Prefixes(digests) => told.extend(digests),
                other => return Err(unexpected(&other).into()),
            }
        }
        let mut told = told.into_iter();
        for (suspect, answer) in suspects.iter().zip(&mut answers) {
            if suspect.side == Side::Local {
                *answer = told.next().flatten();
            }
        }
        Ok(answers)
    }
}

/// Whether a message may be a proper beginning of what it was. A draft may be cut short by its writer.
fn is_shorter(entry: &Entry, base: &Base) -> bool {
    entry.digest != base.digest
        && entry.size < base.size
        && !entry.damaged
        && !entry.flags().contains(b'D')
}
