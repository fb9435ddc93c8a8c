//! What the merge asks about messages: both sides read them at the same time.

use protocol::codec::batches;
use protocol::{Request, Response};

use super::Session;
use crate::endpoint::unexpected;
use crate::merge::record::Side;
use crate::merge::{Answers, Questions};
use crate::run::failure::Failure;

/// About how many messages are asked about at once: an answer takes no longer than reading them.
const ASKED_AT_ONCE: usize = 256;

impl Session<'_> {
    /// Asks each side what the merge wants to know of its messages.
    pub(super) fn answers(&mut self, questions: &[Questions; 2]) -> Result<[Answers; 2], Failure> {
        for (side, asked) in Side::BOTH.into_iter().zip(questions) {
            let endpoint = self.endpoint(side);
            for lines in asked.fingerprints.chunks(ASKED_AT_ONCE) {
                for lines in batches(lines.to_vec()) {
                    endpoint.request(Request::Fingerprints(lines));
                }
            }
            for lines in batches(asked.prefixes.clone()) {
                endpoint.request(Request::Prefixes(lines));
            }
        }
        let [here, there] = questions;
        Ok([
            self.answers_of(Side::Local, here)?,
            self.answers_of(Side::Remote, there)?,
        ])
    }

    fn answers_of(&mut self, side: Side, asked: &Questions) -> Result<Answers, Failure> {
        let mut answers = Answers::default();
        while answers.fingerprints.len() < asked.fingerprints.len()
            || answers.prefixes.len() < asked.prefixes.len()
        {
            match self.endpoint(side).response()? {
                Response::Fingerprints(more) if !more.is_empty() => {
                    answers.fingerprints.extend(more)
                }
                Response::Prefixes(more) if !more.is_empty() => answers.prefixes.extend(more),
                other => return Err(unexpected(&other).into()),
            }
        }
        Ok(answers)
    }
}
