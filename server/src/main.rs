//! `maildir-sync-server`: the agent that serves one Maildir over stdin and stdout.
//!
//! Only turns arguments and the hello into a call of [`serve::serve`]. Started by ssh, often through a forced command;
//! then the client's own command line, whose last word is the hello, is in `SSH_ORIGINAL_COMMAND`.

mod answer;
mod arguments;
mod serve;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Parser;

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
        Err(error) => {
            eprintln!("maildir-sync-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let hello = arguments.hello()?;
    // The standard library's own stdout flushes at every newline byte, which a compressed stream is full of.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    serve::serve(arguments.service()?, hello, input, output)
}
