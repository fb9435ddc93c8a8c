//! Batches that a client sends: what its key allows is carried out, and every operation is answered in its turn.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver as Queue, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maildir::{Received, Receiver, Shared};
use protocol::codec::batches;
use protocol::{Cursor, Op, Outcome, Response};

use crate::alive::end_with;
use crate::answer::Output;
use crate::work::Work;

/// Takes batches in.
pub(crate) struct Pushed {
    pub(crate) receiver: Receiver,
    answers: Answers,
    finished: Queue<Cursor>,
}

/// What is to be answered.
#[derive(Default)]
struct Due {
    /// Of each operation, in order, whether it is allowed.
    allowed: VecDeque<bool>,
    /// Of each batch, how many operations are not answered, and what is owed for it.
    batches: VecDeque<(usize, Work)>,
}

/// Answers in the order in which was asked, wherever they come from.
#[derive(Clone)]
struct Answers {
    due: Arc<Mutex<Due>>,
    output: Output,
}

impl Pushed {
    /// Begins: what becomes of a batch is said as soon as it is known.
    pub(crate) fn begin(replica: &Shared, output: Output) -> Pushed {
        let answers = Answers {
            due: Arc::default(),
            output,
        };
        let (finish, finished) = sync_channel(1);
        let said = answers.clone();
        let receiver = Receiver::start(replica, false, move |result| {
            let done = match result {
                Ok(Received::Outcomes(outcomes)) => said.say(outcomes).map_err(Into::into),
                Ok(Received::Finished(cursor)) => finish.send(cursor).map_err(Into::into),
                Err(error) => Err(anyhow::Error::from(error)),
            };
            // Everything is made to be cut off at any moment, and the tree is right all the same.
            if let Err(error) = done {
                end_with(&format_args!("{error:#}"));
            }
        });
        Pushed {
            receiver,
            answers,
            finished,
        }
    }

    /// Takes the operations of a batch that are allowed; the bodies of those follow.
    pub(crate) fn take(&mut self, ops: Vec<(Op, bool)>, work: Work) -> protocol::Result<()> {
        let mut due = self.answers.lock();
        due.allowed.extend(ops.iter().map(|(_, allowed)| allowed));
        due.batches.push_back((ops.len(), work));
        drop(due);
        self.answers.say(Vec::new())?;
        let allowed = ops.into_iter().filter(|(_, allowed)| *allowed);
        let allowed: Vec<Op> = allowed.map(|(op, _)| op).collect();
        if !allowed.is_empty() {
            self.receiver.begin(allowed);
        }
        Ok(())
    }

    /// Ends, after all that was taken; returns how far the client knows the replica then.
    pub(crate) fn finish(mut self) -> anyhow::Result<Cursor> {
        self.receiver.finish();
        Ok(self.finished.recv()?)
    }
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says these outcomes of operations that were allowed, and between them what was not.
    fn say(&self, outcomes: Vec<Outcome>) -> protocol::Result<()> {
        let mut due = self.lock();
        let (mut outcomes, mut answers) = (outcomes.into_iter(), Vec::new());
        while let Some(allowed) = due.allowed.front() {
            answers.push(match allowed {
                true => match outcomes.next() {
                    Some(outcome) => outcome,
                    None => break,
                },
                false => Outcome::Denied,
            });
            due.allowed.pop_front();
            if let Some((left, _)) = due.batches.front_mut() {
                *left -= 1;
                if *left == 0 {
                    due.batches.pop_front();
                }
            }
        }
        if answers.is_empty() {
            return Ok(());
        }
        // Nobody else says some before these are said.
        let mut output = self.output.lock();
        for outcomes in batches(answers) {
            output.message(&Response::Outcomes(outcomes))?;
        }
        output.flush()
    }
}
