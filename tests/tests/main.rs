//! The black-box suite: both real binaries, over a child process and over a real sshd.
//!
//! One module per topic; `tests/README.md` tells how to run each, and what the long sweeps are.

#![allow(
    clippy::disallowed_methods,
    reason = "the suite plays mail readers, and they write files"
)]

mod beside;
mod between;
mod bodies;
mod clocks;
mod concurrent;
mod costs;
mod damage;
mod disk;
mod editors;
mod errors;
mod evidence;
mod faults;
mod file_systems;
mod first_sync;
mod folders;
mod formats;
mod full_disk;
mod guard;
mod histories;
mod hooks;
mod hostile;
mod interrupted;
mod keywords;
mod killed_again;
mod layouts;
mod leftovers;
mod modes;
mod names;
mod pause;
mod people;
mod promises;
mod put_back;
mod reading;
mod readme;
mod real_mail;
mod restored;
mod rights;
mod rows;
mod scenario;
mod slice;
mod slow_wire;
mod ssh;
mod ssh_config;
mod status;
mod stream;
mod taken_back;
mod taken_over;
mod tidy;
mod trash;
mod trees;
mod two_archives;
mod unread;
mod unseen;
mod usage;
mod waits;
mod watch;
mod wire;
