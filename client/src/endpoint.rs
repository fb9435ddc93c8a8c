//! How the two replicas are reached: the one here, on threads of its own, and the agent's, over a link.
//!
//! [`local`] carries batches out here. [`link`] is a conversation with an agent, over a pair of streams that [`transport`] opens:
//! through [`ssh`], or to a child process. `program` waits for other programs, and no longer than it should.
//!
//! It must never know what is merged, nor why something is asked.

pub mod link;
pub mod local;
pub(crate) mod program;
pub mod ssh;
pub mod transport;
