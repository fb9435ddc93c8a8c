//! How one operation ends early, while the rest of its batch goes on.

use std::io;

use protocol::Outcome;

use crate::error::{Error, is_full};

/// Ends an operation early with what became of it.
pub(crate) type Step<T> = Result<T, Stop>;

pub(crate) enum Stop {
    /// The operation ends here, and the batch goes on.
    Outcome(Outcome),
    /// The batch ends here.
    Fatal(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Fatal(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Outcome(outcome_of(&error))
    }
}

pub(crate) fn stale<T>() -> Step<T> {
    Err(Stop::Outcome(Outcome::Stale))
}

pub(crate) fn taken<T>() -> Step<T> {
    Err(Stop::Outcome(Outcome::Taken))
}

pub(crate) fn failed<T>(why: String) -> Step<T> {
    Err(Stop::Outcome(Outcome::Failed { why }))
}

/// What giving a name has come to.
pub(crate) fn named(given: io::Result<()>) -> Step<()> {
    match given {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken(),
        other => Ok(other?),
    }
}

/// What a refused system call makes of its operation.
pub(crate) fn outcome_of(error: &io::Error) -> Outcome {
    let why = error.to_string();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists | io::ErrorKind::Interrupted => {
            Outcome::Stale
        }
        _ if is_full(error) => Outcome::Full { why },
        _ => Outcome::Failed { why },
    }
}
