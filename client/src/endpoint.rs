//! How the two replicas are reached: one [`Endpoint`], two homes.
//!
//! [`local`] is the replica here, on threads of its own. [`link`] is a conversation with an agent, over a pair of streams that
//! `connect` opens: through [`ssh`], or to a child process; [`transport`] has what both need. Both are asked the same and answer the same, in the words of
//! `docs/protocol.md`. `program` waits for other programs, and no longer than it should.
//!
//! It must never know what is merged, nor why something is asked.

use std::time::Duration;

use protocol::{Request, Response};

use link::LinkError;

mod bell;
#[cfg(test)]
mod conformance_tests;
mod connect;
mod inflow;
pub mod link;
pub mod local;
pub(crate) mod program;
mod ssh;
pub mod stop;
pub mod transport;

pub use bell::Bell;

/// Why an endpoint is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The agent, or the way to it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The replica here.
    #[error(transparent)]
    Replica(#[from] maildir::Error),
}

type Result<T> = std::result::Result<T, EndpointError>;

/// What an endpoint answers.
#[derive(Debug)]
pub enum Answer {
    /// A message.
    Response(Response),
    /// A piece of a body, and whether it is the last.
    Body(Vec<u8>, bool),
}

/// A replica, wherever it is. What is asked is answered in its order, but bodies and outcomes each for themselves. The
/// caller goes on reading answers, so that neither waits for the other.
pub trait Endpoint {
    /// Asks for something. Never waits.
    fn request(&mut self, request: Request);

    /// Hands on a piece of the next body of the batch that was asked for last; a last one without any bytes says that it is not
    /// to be had. Waits for nothing but the disk.
    ///
    /// # Errors
    /// When far more came than was announced.
    fn body(&mut self, bytes: Vec<u8>, is_last: bool) -> Result<()>;

    /// Says that the bodies which the last batch still waits for will not come. Returns whether the rest of the batch is carried
    /// out; otherwise nothing of it is said any more.
    fn cut_off(&mut self) -> bool;

    /// Whether it takes more pieces without memory growing.
    fn has_room(&self) -> bool;

    /// The next answer, if it is there.
    ///
    /// # Errors
    /// When no further one will come, or what came is none.
    fn poll(&mut self) -> Result<Option<Answer>>;

    /// The next answer, which must be a message, waited for.
    ///
    /// # Errors
    /// Like [`Endpoint::poll`], and when the endpoint has been silent for too long.
    fn response(&mut self) -> Result<Response>;

    /// Says that so long was waited, though something is due.
    ///
    /// # Errors
    /// When that is too long by now.
    fn waited(&mut self, time: Duration) -> Result<()>;

    /// Says that nothing more comes for it just now.
    fn rest(&mut self);
}

/// What the driver says of an answer that makes no sense where it came.
#[must_use]
pub fn unexpected(response: &Response) -> LinkError {
    let text = format!("{response:?}");
    let name = text.split(['(', ' ', '{']).next().unwrap_or_default();
    LinkError::Protocol(format!(
        "The agent answered {name} where something else was due; install the same release on both sides"
    ))
}
