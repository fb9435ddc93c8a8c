//! Messages that are a proper beginning of what they were.

use protocol::message::Prefix;
use protocol::{Digest, Request, Response};

use super::Session;
use crate::failure::Failure;
use crate::link::unexpected;
use crate::record::Side;

impl Session<'_> {
    /// Finds messages that are a proper beginning of what they were: that is damage, not an edit (§4).
    pub(super) fn find_truncated(&mut self) -> Result<(), Failure> {
        let mut asked = Vec::new();
        let mut lines = Vec::new();
        for (index, work) in self.set.all.iter().enumerate() {
            for side in Side::BOTH {
                let (Some(base), Some(seen), Some(good)) = (
                    &work.record.base,
                    work.record.seen(side),
                    work.record.seen(side.other()),
                ) else {
                    continue;
                };
                let is_shorter = seen.entry.digest != base.digest && seen.entry.size < base.size;
                if !is_shorter
                    || seen.entry.damaged
                    || seen.entry.flags().contains(b'D')
                    || good.entry.digest != base.digest
                {
                    continue;
                }
                let at = self.at(side.other(), &good.place);
                lines.push(Prefix {
                    at,
                    digest: base.digest,
                    length: seen.entry.size,
                });
                asked.push((index, side, seen.entry.digest));
            }
        }
        let digests = self.prefixes(&asked, lines)?;
        for ((index, side, digest), prefix) in asked.into_iter().zip(digests) {
            if prefix == Some(digest) {
                self.set.mark_damaged(index, side);
            }
        }
        Ok(())
    }

    /// Asks whoever holds the good version what its first bytes digest to.
    fn prefixes(
        &mut self,
        asked: &[(usize, Side, Digest)],
        lines: Vec<Prefix>,
    ) -> Result<Vec<Option<Digest>>, Failure> {
        let (mut remote, mut answers) = (Vec::new(), Vec::new());
        let bodies = self.local.lock().bodies()?;
        for ((_, side, _), line) in asked.iter().zip(lines) {
            answers.push(match side {
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
        for ((_, side, _), answer) in asked.iter().zip(&mut answers) {
            if *side == Side::Local {
                *answer = told.next().flatten();
            }
        }
        Ok(answers)
    }
}
