//! What people and scripts see; the only place that prints.
//!
//! On stdout: one summary line per account, or with `--json` one object per account and nothing else. On stderr:
//! errors, warnings, notes, skipped messages and, with `-v`, what was done to each message. Whatever came from a
//! file name or from the other side is escaped before it reaches a terminal. It must never decide anything: what it shows is handed
//! to it.

pub mod exit_code;
pub mod figures;
pub mod heading;
pub mod progress;
pub mod refusal;
pub mod skipped;
mod text;
pub mod waiting;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use protocol::bytes::escape;
use serde::Serialize;

use crate::cli::{OutputArgs, When};
use crate::merge::plan::Kind;
use crate::report::exit_code::ExitCode;
use crate::report::heading::Heading;
use crate::report::progress::Progress;
use crate::report::refusal::Refusal;
use crate::report::skipped::Skipped;
use crate::report::waiting::Waiting;

/// Up to so many lines of one kind are printed; of more, counts by folder, and all with `-v`. `--json` has them all.
pub const LINES_MAX: usize = 20;

/// What was done on one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Tally {
    /// Messages that were added.
    pub new: u64,
    /// Messages whose flags, or new-or-cur, changed.
    pub flags: u64,
    /// Messages that were moved or renamed.
    pub moved: u64,
    /// Messages that were copied within the side.
    pub copied: u64,
    /// Messages that went to the trash.
    pub deleted: u64,
    /// Messages whose bytes were replaced.
    pub replaced: u64,
    /// Folders that were made, renamed or removed.
    pub folders: u64,
    /// Dovecot's keywords that messages lost because the folder they came into has no letter for them.
    pub keywords_dropped: u64,
}

impl Tally {
    /// Counts something that was done for a message.
    pub fn add(&mut self, kind: Kind) {
        *match kind {
            Kind::New => &mut self.new,
            Kind::Copied => &mut self.copied,
            Kind::Moved => &mut self.moved,
            Kind::Flags => &mut self.flags,
            Kind::Replaced => &mut self.replaced,
            Kind::Deleted => &mut self.deleted,
        } += 1;
    }

    /// How many messages.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.new + self.flags + self.moved + self.copied + self.deleted + self.replaced
    }
}

/// What a dry run would do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PlannedAction {
    /// "here" or "there".
    pub side: &'static str,
    /// What would be done, in one word.
    pub action: &'static str,
    /// The folder's name, escaped.
    pub folder: String,
    /// The message's unique name, escaped; empty for a folder.
    pub name: String,
    /// Where it would go, escaped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What the message says of itself, where it is shown and its file is here.
    #[serde(flatten)]
    pub heading: Option<Heading>,
}

/// How much is wanted of what happens to each message.
#[derive(Clone, Copy, Debug)]
pub struct Detail {
    /// A line for each.
    pub is_verbose: bool,
    /// Each action of a dry run, for people or for scripts.
    pub has_actions: bool,
}

/// What a dry run would do. There may be very many: without a reader who wants each of them they are only counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Actions {
    /// Each, or the first ones: more than [`LINES_MAX`] where there are more.
    pub each: Vec<PlannedAction>,
    /// How many there are of a side, in a word, of messages in a folder; folders themselves under "".
    pub counts: BTreeMap<(&'static str, &'static str, String), u64>,
}

impl Actions {
    /// Adds one.
    pub fn add(&mut self, action: PlannedAction, detail: Detail) {
        let is_message = !action.name.is_empty();
        let folder = is_message.then(|| action.folder.clone());
        let key = (action.side, action.action, folder.unwrap_or_default());
        *self.counts.entry(key).or_default() += 1;
        if detail.has_actions || self.each.len() <= LINES_MAX {
            self.each.push(action);
        }
    }
}

/// A sentence about a message of a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConflictText {
    /// The folder, escaped.
    pub folder: String,
    /// The sentence.
    pub text: String,
}

/// What became of one account.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Summary {
    /// The account.
    pub account: String,
    /// "pull", "push" or "sync".
    pub direction: &'static str,
    /// What was done here.
    pub here: Tally,
    /// What was done there.
    pub there: Tally,
    /// Where both sides had changed the same thing, one sentence each.
    pub conflicts: Vec<ConflictText>,
    /// What waits for a later run, and why; none where the sides were not compared.
    pub waiting: Option<Vec<Waiting>>,
    /// What was left alone.
    pub skipped: Vec<Skipped>,
    /// Bytes that went over the wire.
    pub bytes_sent: u64,
    /// Bytes that came over the wire.
    pub bytes_received: u64,
    /// How long it took.
    pub seconds: f64,
    /// How it ended.
    pub exit: ExitCode,
    /// What the guard held back, where it refused.
    pub refusal: Option<Refusal>,
    /// Whether nothing was done, and the tallies say what would be.
    pub dry_run: bool,
    /// What would be done, in a dry run.
    pub actions: Actions,
    /// What people should know besides, one sentence each.
    pub notes: Vec<String>,
    /// What stopped the run, one sentence.
    pub error: Option<String>,
    /// Whether no further try mends that: something must be changed first.
    pub is_lasting: bool,
    /// Whether it did not begin because somebody wanted none now: nothing failed.
    pub is_not_now: bool,
}

impl Summary {
    /// What waits for a later run, and why.
    #[must_use]
    pub fn waiting(&self) -> &[Waiting] {
        self.waiting.as_deref().unwrap_or_default()
    }

    /// Whether anything was done, or failed, or is to be known.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.is_news()
            || self.error.is_some()
            || self.refusal.is_some()
            || !self.notes.is_empty()
            || !self.skipped.is_empty()
    }

    /// Whether there is anything to report to a user who did not ask.
    fn is_news(&self) -> bool {
        let is_blind = self.waiting().iter().any(|waiting| waiting.unseen);
        text::has_figures(self) || self.dry_run || is_blind || !self.conflicts.is_empty()
    }
}

/// Prints, as the options say.
pub struct Reporter {
    json: bool,
    quiet: bool,
    verbose: bool,
    /// A user is looking on: stdout or stderr is a terminal.
    watched: bool,
    colored: (bool, bool),
    progress: Progress,
}

/// How much a line matters, which decides its colour.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    Error,
    Warning,
    Note,
}

impl Reporter {
    /// Prints as these options say, around this progress line.
    #[must_use]
    pub fn new(output: &OutputArgs, progress: Progress) -> Reporter {
        let colored = (
            colored(output.color, &io::stdout()),
            colored(output.color, &io::stderr()),
        );
        Reporter {
            json: output.json,
            quiet: output.quiet,
            verbose: output.verbose > 0,
            watched: io::stdout().is_terminal() || io::stderr().is_terminal(),
            colored,
            progress,
        }
    }

    /// Prints what became of one account, instead of the progress line.
    ///
    /// # Errors
    /// When stdout takes no more, as on a full disk.
    pub fn summary(&self, summary: &Summary) -> io::Result<()> {
        self.progress.clear();
        let account = Some(summary.account.as_str());
        let skipped = summary.skipped.iter();
        let skipped =
            skipped.map(|skipped| (skipped.folder(), format!("Skipped {}", skipped.text())));
        self.listed(account, Weight::Warning, "skipped", skipped.collect());
        if !self.quiet {
            let conflicts = summary.conflicts.iter().cloned();
            let conflicts = conflicts.map(|ConflictText { folder, text }| (folder, text));
            self.listed(account, Weight::Note, "conflicts", conflicts.collect());
            for note in &summary.notes {
                self.print_err(account, Weight::Note, note);
            }
        }
        if summary.dry_run && !self.json {
            for line in text::action_lines(&summary.actions, self.verbose) {
                self.print_out(&line)?;
            }
        }
        if let Some(error) = &summary.error {
            self.error(account, error);
        }
        if let Some(refusal) = &summary.refusal {
            let mut lines = refusal.lines();
            if self.verbose {
                lines.extend(refusal.messages());
            }
            self.error(account, &lines.join("\n"));
        }
        let is_line_due = self.watched || self.verbose || summary.is_news();
        if self.json {
            self.print_out(&text::json_line(&text::summary_json(summary)))?;
        } else if !self.quiet
            && is_line_due
            && (summary.error.is_none() || text::has_figures(summary))
        {
            self.print_out(&text::summary_line(summary, self.colored.0))?;
        }
        Ok(())
    }

    /// Prints what stopped a run.
    pub fn error(&self, account: Option<&str>, message: &str) {
        self.print_err(account, Weight::Error, message);
    }

    /// How much is wanted of what happens to each message.
    #[must_use]
    pub fn detail(&self) -> Detail {
        Detail {
            is_verbose: self.verbose,
            has_actions: self.verbose || self.json,
        }
    }

    /// Whether one JSON object per account is wanted.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        self.json
    }

    /// Prints an answer for people on stdout, line by line; not with `--json`, and not with `-q`.
    ///
    /// # Errors
    /// When stdout takes no more.
    pub fn answer(&self, text: &str) -> io::Result<()> {
        if !self.json && !self.quiet {
            for line in text.lines() {
                self.print_out(&escape(line.as_bytes()))?;
            }
        }
        Ok(())
    }

    /// Prints an answer for scripts on stdout, if that is wanted.
    ///
    /// # Errors
    /// When stdout takes no more.
    pub fn json(&self, value: &serde_json::Value) -> io::Result<()> {
        if self.json {
            self.print_out(&text::json_line(value))?;
        }
        Ok(())
    }

    /// Prints a line for each message, or counts by folder where they are too many.
    fn listed(
        &self,
        account: Option<&str>,
        weight: Weight,
        what: &str,
        lines: Vec<(String, String)>,
    ) {
        if self.verbose || lines.len() <= LINES_MAX {
            for (_, line) in lines {
                self.print_err(account, weight, &line);
            }
            return;
        }
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (folder, _) in lines {
            *counts.entry(folder).or_default() += 1;
        }
        for (folder, count) in counts {
            let line = format!("{folder}: {count} {what}, -v lists them");
            self.print_err(account, weight, &line);
        }
    }

    fn print_err(&self, account: Option<&str>, weight: Weight, message: &str) {
        let line = text::message_line(account, weight, message, self.colored.1);
        self.progress
            .suspend(|| put(&mut io::stderr().lock(), &line));
    }

    fn print_out(&self, line: &str) -> io::Result<()> {
        self.progress
            .suspend(|| writeln!(io::stdout().lock(), "{line}"))
    }
}

/// Says that stdout took no more.
pub fn unprinted(error: &io::Error) {
    let line = format!("Cannot write to stdout ({error}); what was done is kept");
    let line = text::message_line(None, Weight::Error, &line, false);
    put(&mut io::stderr().lock(), &line);
}

/// Passes on what ssh or the agent said on its stderr, escaped line by line, and marked: no line of it is ours.
pub fn relay(said: &[u8]) {
    for line in said
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        put(&mut io::stderr().lock(), &format!("> {}", escape(line)));
    }
}

/// Writes each event of the log as one line; names and texts of the other end may stand in it.
pub struct LogLine;

impl Write for LogLine {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        put(&mut io::stderr().lock(), &escape(text));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What cannot be said on stderr cannot be said.
fn put(to: &mut dyn Write, line: &str) {
    let _ = writeln!(to, "{line}");
}

/// Source of the rule for `auto`: <https://no-color.org>.
fn colored(when: When, stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            stream.is_terminal()
                && !set("NO_COLOR")
                && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        }
    }
}
