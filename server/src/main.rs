//! `maildir-sync-server`: the agent that serves one Maildir over stdin and stdout.
//!
//! Only turns arguments and the hello into a call of [`serve::serve`]. Started by ssh, often through a forced command;
//! then the client's own command line, whose last word is the hello, is in `SSH_ORIGINAL_COMMAND`.

mod agent;
mod alive;
mod allowance;
mod answer;
mod arguments;
mod arrivals;
mod pushed;
mod rest;
mod serve;
mod stream;
mod work;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use protocol::handshake::{HandshakeError, write_greeting};
use signal_hook::consts::SIGINT;

use crate::arguments::Arguments;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("MAILDIR_SYNC_LOG")
                .unwrap_or_else(|_| "warn".into()),
        )
        .without_time()
        .init();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // The client went away; nobody is left to hear, and everything is made to be cut off at any moment.
        Err(error) if is_lost(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "maildir-sync-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A hello of versions that we do not speak: the greeting names ours, and the client explains.
fn is_other_version(error: &anyhow::Error) -> bool {
    let found = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<protocol::Error>());
    matches!(
        found,
        Some(protocol::Error::Handshake(HandshakeError::Version { .. }))
    )
}

fn is_lost(error: &anyhow::Error) -> bool {
    let is_io = |cause: &(dyn std::error::Error + 'static)| {
        matches!(
            cause.downcast_ref::<protocol::Error>(),
            Some(protocol::Error::Io(_))
        ) || cause.downcast_ref::<std::sync::mpsc::RecvError>().is_some()
    };
    error.chain().any(is_io)
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // On one machine, a Ctrl-C on the client's terminal reaches the agent, too. It is the client's to hear: the batch under
    // way is ended, and then the agent ends with its stdin.
    signal_hook::flag::register(SIGINT, Arc::default())?;
    // The standard library's own stdout flushes at every newline byte, which a compressed stream is full of.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    match arguments.hello() {
        Ok(hello) => serve::serve(&arguments.service()?, hello, input, output),
        Err(error) => {
            if is_other_version(&error) {
                write_greeting(&mut &output)?;
                alive::wait_for_end(input);
            }
            Err(error)
        }
    }
}
