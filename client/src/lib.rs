//! The client of maildir-sync: everything that has a user.
//!
//! Its rooms, from the user inwards; each says on its first page what it owns and what it must never know:
//!
//! - [`cli`]: what was typed. [`config`]: what is meant.
//! - [`run`]: the story of one account's sync. Start reading there.
//! - [`merge`]: who is who, what shall be, and what has to be done for it; [`merge::reconcile`] is the heart of it.
//! - [`archive`]: what both sides agreed on.
//! - [`endpoint`]: how the replica here and the agent are reached.
//! - [`report`]: what people and scripts see.
//!
//! Never imports the server.

pub mod archive;
pub mod cli;
pub mod config;
pub mod endpoint;
pub mod merge;
pub mod report;
pub mod run;
