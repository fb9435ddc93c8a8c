//! `maildir-sync`: reads the command line, does it for each account, and ends with the worst exit code.
//!
//! Its rooms, from the user inwards; each says on its first page what it owns and what it must never know:
//!
//! - [`cli`]: what was typed. [`config`]: what is meant.
//! - [`mod@run`]: the story of one account's sync. Start reading there.
//! - [`merge`]: who is who, what shall be, and what has to be done for it; [`merge::reconcile`] is the heart of it.
//! - [`mod@watch`]: one run after the other, whenever either side changes.
//! - [`archive`]: what both sides agreed on.
//! - [`endpoint`]: how the replica here and the agent are reached.
//! - [`report`]: what people and scripts see.
//!
//! Never imports the server.
#![expect(
    unreachable_pub,
    reason = "of a program nothing can be reached from outside; `pub` is what the other rooms may use"
)]

mod archive;
mod cli;
mod config;
mod endpoint;
mod merge;
mod report;
mod run;
mod watch;

use std::io;
use std::path::Path;

use crate::cli::{
    Cli, Command, PauseArgs, StandArgs, StatusArgs, SyncArgs, WatchArgs, completions, man,
};
use crate::config::{Account, Dirs, Resolved, resolve, state_dir, watched};
use crate::endpoint::stop::Stop;
use crate::merge::plan::Direction;
use crate::report::exit_code::ExitCode;
use crate::report::figures::duration_text;
use crate::report::progress::Progress;
use crate::report::{Reporter, Summary};
use crate::run::attempt::last_synced;
use crate::run::pause;
use crate::run::run;
use crate::run::status::Status;
use crate::run::watching;
use crate::watch::ToWatch;
use serde_json::{Value, json};

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
        Command::Watch(args) => watch(args),
        Command::Status(args) => status(args),
        Command::Pause(args) => pause(args),
        Command::Resume(args) => resume(args),
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

/// The accounts to deal with, each with what is wrong with it; none where they cannot be known.
fn accounts(args: &SyncArgs, command: &str, reporter: &Reporter) -> Option<Vec<Resolved>> {
    let resolved = Dirs::from_env().and_then(|dirs| resolve(args, command, &dirs, last_synced));
    let said = resolved.inspect_err(|error| reporter.error(None, &error.to_string()));
    said.ok()
}

/// One account after the other; one that fails does not stop the next.
fn sync(args: &SyncArgs, direction: Direction) -> ExitCode {
    trace(args.output.verbose);
    let reporter = Reporter::new(&args.output, Progress::hidden());
    let Some(accounts) = accounts(args, direction.name(), &reporter) else {
        return ExitCode::Usage;
    };
    let stop = match Stop::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            reporter.error(None, &format!("Cannot listen for signals: {error}"));
            return ExitCode::Error;
        }
    };
    let mut worst = ExitCode::InSync;
    for (name, account) in accounts {
        if stop.is_requested() {
            break;
        }
        let progress = if args.output.quiet || account.is_err() {
            Progress::hidden()
        } else {
            Progress::new(args.progress.progress, &name)
        };
        let reporter = Reporter::new(&args.output, progress.clone());
        let summary = match account {
            Ok(account) => run(&account, direction, &progress, reporter.detail(), &stop),
            Err(error) => Summary {
                account: name,
                direction: direction.name(),
                dry_run: args.run.dry_run,
                exit: ExitCode::Usage,
                error: Some(error.to_string()),
                ..Summary::default()
            },
        };
        worst = worst.worst(summary.exit);
        worst = worst.worst(written(reporter.summary(&summary)));
    }
    worst
}

/// Watches accounts until it is asked to end; one that fails does not stop the others.
fn watch(args: &WatchArgs) -> ExitCode {
    trace(args.output.verbose);
    let reporter = Reporter::new(&args.output, Progress::hidden());
    if args.dry_run {
        let why = "watch keeps both sides the same, so it has no dry run; see what would be done with `maildir-sync sync -n`";
        reporter.error(None, why);
        return ExitCode::Usage;
    }
    let mut found = Vec::new();
    for args in watched(args) {
        let Some(accounts) = accounts(&args, "watch", &reporter) else {
            return ExitCode::Usage;
        };
        for (name, account) in accounts {
            // Named twice it is one account.
            if !found.iter().any(|(_, known, _)| *known == name) {
                found.push((args.clone(), name, account));
            }
        }
    }
    let stop = match Stop::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            reporter.error(None, &format!("Cannot listen for signals: {error}"));
            return ExitCode::Error;
        }
    };
    let is_alone = found.len() == 1;
    let (mut to_watch, mut worst) = (Vec::new(), ExitCode::InSync);
    for (sync_args, name, account) in found {
        let account = match account {
            Ok(account) => account,
            Err(error) => {
                reporter.error(Some(&name), &error.to_string());
                worst = ExitCode::Usage;
                continue;
            }
        };
        let progress = match is_alone && !args.output.quiet {
            true => Progress::new(args.progress.progress, &name),
            false => Progress::hidden(),
        };
        to_watch.push(ToWatch {
            account,
            reload: Box::new(move || reloaded(&sync_args, &name)),
            reporter: Reporter::new(&args.output, progress.clone()),
            progress,
        });
    }
    if to_watch.is_empty() {
        return worst;
    }
    match watch::watch(to_watch, &stop) {
        Ok(code) => worst.worst(code),
        Err(error) => {
            reporter.error(None, &format!("Cannot listen for signals: {error}"));
            ExitCode::Error
        }
    }
}

/// An account as the configuration has it now.
fn reloaded(args: &SyncArgs, name: &str) -> Result<Account, String> {
    let accounts = Dirs::from_env().and_then(|dirs| resolve(args, "watch", &dirs, last_synced));
    let accounts = accounts.map_err(|error| error.to_string())?;
    let account = accounts.into_iter().find(|(known, _)| known == name);
    let (_, account) =
        account.ok_or_else(|| format!("Account \"{name}\" is not configured any more"))?;
    account.map_err(|error| error.to_string())
}

fn status(args: &StatusArgs) -> ExitCode {
    trace(args.output.verbose);
    let reporter = Reporter::new(&args.output, Progress::hidden());
    let Some(accounts) = accounts(&args.to_sync(), "status", &reporter) else {
        return ExitCode::Usage;
    };
    let mut worst = ExitCode::InSync;
    for (name, account) in accounts {
        let (result, exit) = match account {
            Ok(account) => {
                let status = Status::of(&account);
                let result = if reporter.wants_json() {
                    reporter.json(&status.json())
                } else {
                    reporter.answer(&status.text())
                };
                let exit = if status.is_healthy() {
                    ExitCode::InSync
                } else {
                    ExitCode::Error
                };
                (result, exit)
            }
            Err(error) => {
                let (error, exit) = (error.to_string(), ExitCode::Usage);
                reporter.error(Some(&name), &error);
                let value = json!({ "account": name, "exit": exit.number(), "error": error, "healthy": false });
                (reporter.json(&value), exit)
            }
        };
        worst = worst.worst(exit).worst(written(result));
    }
    worst
}

fn pause(args: &PauseArgs) -> ExitCode {
    stand(&args.stand, |state_dir| {
        let paused = pause::begin(state_dir, args.duration)?;
        let text = match args.duration {
            Some(span) => {
                let span = duration_text(span.as_secs_f64());
                format!("Paused for {span}; `maildir-sync resume` goes on at once")
            }
            None => "Paused until `maildir-sync resume`".to_owned(),
        };
        let text = text + "; a run that is under way comes to its end";
        watching::call_all(state_dir);
        Ok((text, json!({ "paused": paused })))
    })
}

fn resume(args: &StandArgs) -> ExitCode {
    stand(args, |state_dir| {
        let text = match pause::end(state_dir)? {
            true => "Not paused any more; the next run goes on",
            false => "Nothing is paused",
        };
        watching::call_all(state_dir);
        Ok((text.to_owned(), json!({ "paused": null })))
    })
}

/// Does something about the pause, and says what, for people and for scripts.
fn stand(
    args: &StandArgs,
    act: impl FnOnce(&Path) -> maildir::Result<(String, Value)>,
) -> ExitCode {
    trace(args.output.verbose);
    let reporter = Reporter::new(&args.output, Progress::hidden());
    let state_dir = match Dirs::from_env().and_then(|dirs| state_dir(&args.state, &dirs)) {
        Ok(state_dir) => state_dir,
        Err(error) => {
            reporter.error(None, &error.to_string());
            return ExitCode::Usage;
        }
    };
    match act(&state_dir) {
        Ok((text, value)) => {
            let said = reporter.answer(&text).and_then(|()| reporter.json(&value));
            written(said)
        }
        Err(error) => {
            reporter.error(None, &error.to_string());
            ExitCode::Error
        }
    }
}
