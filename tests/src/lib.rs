//! The harness: worlds of one server and some clients, in which the real binaries run.
//!
//! It plays everything that is not maildir-sync: the user, the mail reader, the delivery agent, the disk that is
//! restored, the process that is killed, the link that breaks. It knows the programs only by their command lines, and
//! links none of their code. Start reading at [`world`], then [`tree`], then [`snapshot`].

#![allow(
    clippy::disallowed_methods,
    reason = "the suite plays mail readers, and they write files"
)]

pub mod dovecot;
pub mod faults;
pub mod lacks;
pub mod mail;
pub mod mount;
pub mod process;
mod restore;
pub mod rng;
pub mod run;
pub mod snapshot;
pub mod sshd;
pub mod terminal;
pub mod tree;
pub mod watch;
pub mod world;

pub use dovecot::Dovecot;
pub use faults::{Cut, Kill};
pub use mail::{body, bulky, digest_hex, fresh_name};
pub use mount::Mount;
pub use rng::Rng;
pub use run::Run;
pub use snapshot::{Message, Snapshot, are_same, assert_same, assert_untouched};
pub use sshd::Sshd;
pub use terminal::Terminal;
pub use tree::{Layout, Tree};
pub use watch::{Manager, Watch};
pub use world::{Client, Invocation, World};
