//! What the merge asks about messages: both sides read them at the same time.

use protocol::codec::batches;
use protocol::message::Prefix;
use protocol::{Digest, Fingerprint, Request, Response};

use super::Session;
use crate::endpoint::link::unexpected;
use crate::merge::{Answers, Questions};
use crate::run::failure::Failure;

/// About how many messages are asked about at once: an answer takes no longer than reading them.
const ASKED_AT_ONCE: usize = 256;

impl Session<'_> {
    /// Asks each side what the merge wants to know of its messages.
    pub(super) fn answers(
        &mut self,
        [here, there]: &[Questions; 2],
    ) -> Result<[Answers; 2], Failure> {
        for lines in there.fingerprints.chunks(ASKED_AT_ONCE) {
            for lines in batches(lines.to_vec()) {
                self.link.request(Request::Fingerprints(lines));
            }
        }
        for lines in batches(there.prefixes.clone()) {
            self.link.request(Request::Prefixes(lines));
        }
        let here = Answers {
            fingerprints: self.fingerprints(here)?,
            prefixes: self.prefixes(&here.prefixes)?,
        };
        let mut answers = Answers::default();
        while answers.fingerprints.len() < there.fingerprints.len() {
            match self.link.response()? {
                Response::Fingerprints(more) if !more.is_empty() => {
                    answers.fingerprints.extend(more)
                }
                other => return Err(unexpected(&other).into()),
            }
        }
        while answers.prefixes.len() < there.prefixes.len() {
            match self.link.response()? {
                Response::Prefixes(more) if !more.is_empty() => answers.prefixes.extend(more),
                other => return Err(unexpected(&other).into()),
            }
        }
        Ok([here, answers])
    }

    fn fingerprints(&self, questions: &Questions) -> Result<Vec<Option<Fingerprint>>, Failure> {
        let lines = &questions.fingerprints;
        let mut all = Vec::with_capacity(lines.len());
        let bodies = self.local.lock().bodies()?;
        for lines in lines.chunks(ASKED_AT_ONCE) {
            let places: Vec<_> = lines.iter().map(|(at, digest)| (at, digest)).collect();
            let located = self.local.lock().locate(&places)?.into_iter();
            all.extend(located.map(|located| bodies.fingerprint(&located?).ok().flatten()));
        }
        Ok(all)
    }

    /// What the first bytes of messages digest to that are here, or in the trash.
    fn prefixes(&self, lines: &[Prefix]) -> Result<Vec<Option<Digest>>, Failure> {
        let bodies = self.local.lock().bodies()?;
        let wanted = lines.iter().map(|line| line.digest).collect();
        let trashed = self.local.lock().trashed(&wanted);
        let places: Vec<_> = lines.iter().map(|line| (&line.at, &line.digest)).collect();
        let located = self.local.lock().locate(&places)?;
        let prefix = |(located, line): (_, &Prefix)| match located {
            Some(located) => bodies.prefix(&located, line.length).ok().flatten(),
            None => trashed.prefix(&line.digest, line.length),
        };
        Ok(located.into_iter().zip(lines).map(prefix).collect())
    }
}
