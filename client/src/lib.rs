//! The client of maildir-sync: everything that has a user.
//!
//! Start reading at [`run`], which is the story of one account's sync; [`reconcile`] is the heart of it, [`record`] and
//! [`archive`] what it remembers, [`link`] how it talks to the agent. Never imports the server.

pub mod address;
pub mod archive;
pub mod attempt;
pub mod cli;
pub mod config;
pub mod consent;
pub mod copies;
pub mod execute;
pub mod exit_code;
pub mod failure;
pub mod filter;
pub mod fold;
pub mod folders;
pub mod guard;
pub mod heading;
pub mod hooks;
pub mod known;
pub mod letters;
pub mod link;
pub mod local;
pub mod mapping;
pub mod naming;
pub mod pair;
pub mod plan;
mod program;
pub mod progress;
pub mod reconcile;
pub mod record;
pub mod refusal;
pub mod report;
pub mod run;
pub mod session;
pub mod ssh;
pub mod status;
pub mod stop;
pub mod stream;
pub mod transport;
mod utf7;
pub mod waiting;
