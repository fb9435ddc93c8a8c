//! Messages that are a proper beginning of what they were.

use std::collections::HashMap;

use protocol::message::Prefix;
use protocol::{Digest, Request, Response, Unique};

use super::Session;
use crate::endpoint::link::unexpected;
use crate::merge::reconcile::is_shorter;
use crate::merge::record::Side;
use crate::run::failure::Failure;

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
                let Some(base) = &record.base else { continue };
                // A copy may be longer than its original, and begin like it.
                if record.copied().is_none() && is_shorter(&seen.entry, base) {
                    let good = record.seen(side.other()).unwrap_or(seen);
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

    /// Asks whoever holds the good version, or has it in the trash, what its first bytes digest to.
    fn prefixes(
        &mut self,
        suspects: &[Suspect],
        lines: Vec<Prefix>,
    ) -> Result<Vec<Option<Digest>>, Failure> {
        let (mut remote, mut answers) = (Vec::new(), Vec::new());
        let bodies = self.local.lock().bodies()?;
        let theirs = suspects.iter().zip(&lines);
        let theirs = theirs.filter(|(suspect, _)| suspect.side == Side::Remote);
        let wanted = theirs.map(|(_, line)| line.digest).collect();
        let trashed = self.local.lock().trashed(&wanted);
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
                    match located {
                        Some(located) => bodies.prefix(&located, line.length).ok().flatten(),
                        None => trashed.prefix(&line.digest, line.length),
                    }
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
