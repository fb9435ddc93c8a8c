//! `maildir-sync`: reads the command line, does it for each account, and ends with the worst exit code.

use std::io;

use client::cli::{Cli, Command, StatusArgs, SyncArgs, completions, man};
use client::config::{Account, ConfigError, Dirs, resolve};
use client::exit_code::ExitCode;
use client::plan::Direction;
use client::progress::Progress;
use client::report::{self, Reporter};
use client::run::run;
use client::status::Status;
use client::stop::Stop;

fn main() -> ExitCode {
    let cli = match Cli::from_words(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = !error.use_stderr();
            // Nothing can be said about a terminal that is gone.
            let _ = error.print();
            return if is_help {
                ExitCode::InSync
            } else {
                ExitCode::Usage
            };
        }
    };
    match &cli.command {
        Command::Pull(args) => sync(args, Direction::Pull),
        Command::Push(args) => sync(args, Direction::Push),
        Command::Sync(args) => sync(args, Direction::Sync),
        Command::Status(args) => status(args),
        Command::Completions { shell } => written(completions(*shell, &mut io::stdout())),
        Command::Man => written(man(&mut io::stdout())),
    }
}

/// A reader that has gone away is no error, and no reason to stop syncing.
fn written(result: io::Result<()>) -> ExitCode {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            report::unprinted(&error);
            ExitCode::Error
        }
        _ => ExitCode::InSync,
    }
}

fn trace(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("MAILDIR_SYNC_LOG")
        .unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt()
        .with_writer(|| report::LogLine)
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .init();
}

/// The accounts to deal with, and how it ends because of those that are wrong.
fn accounts(args: &SyncArgs, command: &str, reporter: &Reporter) -> (Vec<Account>, ExitCode) {
    let resolved = Dirs::from_env().and_then(|dirs| resolve(args, command, &dirs));
    let mut worst = ExitCode::InSync;
    let mut wrong = |error: ConfigError| {
        reporter.error(None, &error.to_string());
        worst = ExitCode::Usage;
    };
    let resolved = resolved
        .unwrap_or_else(|error| vec![Err(error)])
        .into_iter();
    let accounts = resolved.filter_map(|account| account.map_err(&mut wrong).ok());
    (accounts.collect(), worst)
}

/// One account after the other; one that fails does not stop the next.
fn sync(args: &SyncArgs, direction: Direction) -> ExitCode {
    trace(args.output.verbose);
    let reporter = Reporter::new(&args.output, Progress::hidden());
    let (accounts, mut worst) = accounts(args, direction.name(), &reporter);
    let stop = match Stop::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            reporter.error(None, &format!("Cannot listen for signals: {error}"));
            return ExitCode::Error;
        }
    };
    for account in &accounts {
        if stop.is_requested() {
            break;
        }
        let progress = if args.output.quiet {
            Progress::hidden()
        } else {
            Progress::new(args.progress.progress, &account.name)
        };
        let reporter = Reporter::new(&args.output, progress.clone());
        let summary = run(
            account,
            direction,
            &progress,
            args.output.verbose > 0,
            &stop,
        );
        worst = worst.worst(summary.exit);
        worst = worst.worst(written(reporter.summary(&summary)));
    }
    worst
}

fn status(args: &StatusArgs) -> ExitCode {
    trace(args.output.verbose);
    let reporter = Reporter::new(&args.output, Progress::hidden());
    let (accounts, mut worst) = accounts(&args.to_sync(), "status", &reporter);
    for account in &accounts {
        let status = Status::of(account);
        worst = worst.worst(written(if reporter.wants_json() {
            reporter.json(&status.json())
        } else {
            reporter.answer(&status.text())
        }));
        worst = worst.worst(if status.is_healthy() {
            ExitCode::InSync
        } else {
            ExitCode::Error
        });
    }
    worst
}
