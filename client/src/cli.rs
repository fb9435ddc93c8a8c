//! The command line as typed: commands, options, their help, shell completions.
//!
//! What it all means, once the configuration has had its say, is [`crate::config`]'s. An option is only known to the
//! commands that it does something for; the others refuse it. It must never know the file of the configuration.

mod man;
mod span;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{
    ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
};
use clap_complete::Shell;

use crate::merge::filter::Verdict;
use crate::merge::guard::MaxDelete;

pub use man::man;
pub use span::parse_span;

const BIN: &str = "maildir-sync";

/// Keeps two Maildirs the same over ssh: fast, without IMAP, and never losing a message
#[derive(Parser, Debug)]
#[command(name = BIN, version, max_term_width = 100, propagate_version = false, subcommand_required = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = false)]
#[command(override_usage = "maildir-sync [OPTIONS] <COMMAND>", after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Options may stand before or after the command;
`maildir-sync help COMMAND` lists those that it takes.

Examples:
  maildir-sync pull me@mail.example.org:Maildir ~/Maildir
                              the first copy, and later what is new there
  maildir-sync sync           both ways, every account of the config file
  maildir-sync sync -n home   show what syncing account \"home\" would do

Exit status:
  0 in sync, 1 error, 2 usage, 3 done but for the messages listed,
  4 a guard refused and nothing was deleted, 75 try again later";

const ADDRESS_HELP: &str = "\
Without arguments: every account of the config file.

REMOTE is one of
  me@mail.example.org:Maildir              a path from the home directory there
  mail.example.org:/var/mail/me            an absolute path there
  mail.example.org:                        the path that the server's --root sets
  ssh://me@mail.example.org:2222/~/Maildir with a port
  /media/disk/Maildir, ./copy, ~/copy      a Maildir on this machine, without ssh
Host aliases and everything else in your ssh config count.";

const PAUSE_HELP: &str = "\
Whoever starts a run meanwhile, a timer too, is told so in one sentence; nothing is connected.
A run that is under way comes to its end; dry runs are not paused. Of two pauses the newer one counts.";

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Brings the remote's changes here; the remote is not written
    #[command(override_usage = "maildir-sync pull [OPTIONS] [ACCOUNT | REMOTE LOCAL]", after_help = ADDRESS_HELP)]
    Pull(SyncArgs),
    /// Sends the changes made here; this side is not written
    #[command(override_usage = "maildir-sync push [OPTIONS] [ACCOUNT | REMOTE LOCAL]", after_help = ADDRESS_HELP)]
    Push(SyncArgs),
    /// Does both over one connection
    #[command(override_usage = "maildir-sync sync [OPTIONS] [ACCOUNT | REMOTE LOCAL]", after_help = ADDRESS_HELP)]
    Sync(SyncArgs),
    /// Stays connected and keeps both sides the same until it is stopped
    #[command(override_usage = "maildir-sync watch [OPTIONS] [ACCOUNT... | REMOTE LOCAL]", after_help = ADDRESS_HELP)]
    Watch(WatchArgs),
    /// Says how the last attempt ended, what is pending and why, and whether it is healthy; offline
    #[command(override_usage = "maildir-sync status [OPTIONS] [ACCOUNT | REMOTE LOCAL]", after_help = ADDRESS_HELP)]
    Status(StatusArgs),
    /// Lets every run end at once with exit 75, for 30m, 2h or 1d, or until `resume`
    #[command(override_usage = "maildir-sync pause [OPTIONS] [DURATION]", after_help = PAUSE_HELP)]
    Pause(PauseArgs),
    /// Ends a pause
    #[command(override_usage = "maildir-sync resume [OPTIONS]")]
    Resume(StandArgs),
    /// Prints a completion script for a shell
    Completions {
        /// The shell to write it for
        shell: Shell,
    },
    /// Prints the manual page, in roff
    Man,
}

/// What `pull`, `push` and `sync` take.
#[derive(Args, Clone, Debug, Default)]
pub struct SyncArgs {
    /// Which replicas.
    #[command(flatten)]
    pub target: TargetArgs,
    /// What may be done.
    #[command(flatten)]
    pub run: RunArgs,
    /// Which folders.
    #[command(flatten)]
    pub folders: FolderArgs,
    /// How the agent is reached.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Where configuration and state lie.
    #[command(flatten)]
    pub places: PlaceArgs,
    /// What is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether a progress line is shown.
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// What `watch` takes.
#[derive(Args, Clone, Debug, Default)]
pub struct WatchArgs {
    /// Accounts of the config file; or where the remote Maildir is, and where the one on this machine
    #[arg(value_name = "ACCOUNT | REMOTE LOCAL", value_hint = clap::ValueHint::Other)]
    pub words: Vec<OsString>,
    /// Not for this command: it is refused with a sentence.
    #[arg(short = 'n', long, hide = true)]
    pub dry_run: bool,
    /// Which folders.
    #[command(flatten)]
    pub folders: FolderArgs,
    /// How the agent is reached.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Where configuration and state lie.
    #[command(flatten)]
    pub places: PlaceArgs,
    /// What is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether a progress line is shown.
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// What `status` takes.
#[derive(Args, Clone, Debug, Default)]
pub struct StatusArgs {
    /// Which replicas.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Where configuration and state lie.
    #[command(flatten)]
    pub places: PlaceArgs,
    /// What is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl StatusArgs {
    /// The same as the arguments of a run with nothing else said, so that both are resolved alike.
    #[must_use]
    pub fn to_sync(&self) -> SyncArgs {
        let StatusArgs {
            target,
            places,
            output,
        } = self.clone();
        SyncArgs {
            target,
            places,
            output,
            ..SyncArgs::default()
        }
    }
}

/// What `pause` takes.
#[derive(Args, Clone, Debug, Default)]
pub struct PauseArgs {
    /// For how long, like 30m, 2h or 1d [default: until `maildir-sync resume`]
    #[arg(value_parser = parse_span)]
    pub duration: Option<Duration>,
    /// Where, and what is printed.
    #[command(flatten)]
    pub stand: StandArgs,
}

/// What `pause` and `resume` take.
#[derive(Args, Clone, Debug, Default)]
pub struct StandArgs {
    /// Where state lies.
    #[command(flatten)]
    pub state: StateArgs,
    /// What is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which replicas: nothing, an account, or a remote and a local one.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetArgs {
    /// An account of the config file; or, with LOCAL, where the remote Maildir is
    #[arg(value_name = "ACCOUNT | REMOTE", value_hint = clap::ValueHint::Other)]
    pub account_or_remote: Option<OsString>,
    /// Where the Maildir on this machine is
    #[arg(value_name = "LOCAL", value_hint = clap::ValueHint::DirPath)]
    pub local: Option<PathBuf>,
}

/// What a run may do.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// Only show what would be done; nothing is written here or there
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Carry out no deletion; what is held back stays pending
    #[arg(long)]
    pub no_delete: bool,
    /// How much may be deleted before the guard stops it: a number of messages, or a share of them
    ///
    /// Replaces the guard's own numbers (over 50 and over 5 %, or over 2000, or a whole folder of over 50);
    /// 100% is no guard at all.
    #[arg(long, value_name = "N|P%")]
    pub max_delete: Option<MaxDelete>,
    /// Do the deletions that the guard held back under this name
    #[arg(long, value_name = "PLAN", conflicts_with = "adopt")]
    pub confirm: Option<String>,
    /// Treat it as a first sync: pair what is equal, join the rest, delete nothing
    #[arg(long)]
    pub adopt: bool,
    /// Trust no cached digest: read every message
    #[arg(long)]
    pub checksum: bool,
}

/// `--folder` and `--exclude`, in the order in which they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderArgs(pub Vec<(Verdict, String)>);

/// How the agent is reached.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Use this ssh config instead of ~/.ssh/config
    #[arg(short = 'F', long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub ssh_config: Option<PathBuf>,
    /// Log in with this private key
    #[arg(short = 'i', long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub identity: Option<PathBuf>,
    /// The command that starts the agent at the remote [default: maildir-sync-server]
    #[arg(long, value_name = "CMD")]
    pub server_command: Option<String>,
}

/// Where configuration and state lie.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Places")]
pub struct PlaceArgs {
    /// Read the accounts from here [default: ~/.config/maildir-sync/config.toml]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Where state lies.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Where state lies.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Places")]
pub struct StateArgs {
    /// Keep the memory of earlier runs here [default: ~/.local/state/maildir-sync]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
}

/// What is printed.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print one JSON object per account on stdout
    #[arg(long)]
    pub json: bool,
    /// Print nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; repeat for more still
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
    /// Whether to colour what is printed: auto, always or never
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    pub color: When,
}

/// Whether a progress line is shown.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct ProgressArgs {
    /// Whether to show a progress line on stderr: auto, always or never
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    pub progress: When,
}

/// When to do what suits a terminal.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum When {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Args for FolderArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let arg = |id: &'static str, help: &'static str| {
            clap::Arg::new(id)
                .long(id)
                .value_name("GLOB")
                .action(ArgAction::Append)
                .help(help)
                .help_heading("Folders")
        };
        let folder = arg("folder", "Deal only with folders that match; repeatable").long_help(
            "Deal only with folders that match, and with what lies under them; repeatable\n\n\
             Names are written with \"/\" (Lists/debian), the root is INBOX; * stays within one part, ** does not. \
             Of --folder and --exclude together, the last match wins.",
        );
        let exclude = arg("exclude", "Forget folders that match; repeatable").long_help(
            "Forget folders that match, and what lies under them; repeatable\n\n\
             Nothing is deleted; a folder that is included again is compared in full.",
        );
        command.arg(folder).arg(exclude)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        FolderArgs::augment_args(command)
    }
}

impl FromArgMatches for FolderArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<FolderArgs, clap::Error> {
        let of = |id: &str, verdict: Verdict| {
            let patterns = matches
                .get_many::<String>(id)
                .into_iter()
                .flatten()
                .cloned();
            let places = matches.indices_of(id).into_iter().flatten();
            places
                .zip(patterns)
                .map(move |(place, pattern)| (place, (verdict, pattern)))
                .collect::<Vec<_>>()
        };
        let mut placed = of("folder", Verdict::Select);
        placed.extend(of("exclude", Verdict::Exclude));
        placed.sort_by_key(|(place, _)| *place);
        Ok(FolderArgs(
            placed.into_iter().map(|(_, pattern)| pattern).collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = FolderArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Cli {
    /// Reads the words of a command line, the program's own name first.
    ///
    /// # Errors
    /// When they are no command of ours, and when help or the version was asked for; clap's error knows how to show
    /// either, and on which stream.
    pub fn from_words(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(command_first(words.into_iter().collect()))
    }
}

/// Writes a completion script.
///
/// # Errors
/// When the stream fails.
pub fn completions(shell: Shell, to: &mut dyn Write) -> std::io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), BIN, &mut script);
    if shell == Shell::Bash {
        // clap_complete 4.6 takes the second part of our own name for the command of that name, in half of its labels.
        let text = String::from_utf8(script).map_err(std::io::Error::other)?;
        let right = text.replace("maildir__subcmd__sync", "maildir__sync");
        script = right.into_bytes();
    }
    to.write_all(&script)
}

/// Moves options that stand before the command behind it, where clap looks for them: each command has its own set,
/// and the order among `--folder` and `--exclude` must survive. What clap should complain about stays as it is.
fn command_first(mut words: Vec<OsString>) -> Vec<OsString> {
    let cli = Cli::command();
    let options: Vec<clap::Arg> = cli
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .cloned()
        .collect();
    let mut at = 1;
    while let Some(word) = words
        .get(at)
        .map(|word| word.as_bytes())
        .filter(|word| word.starts_with(b"-"))
    {
        match values_after(&options, word) {
            Some(values) => at += 1 + values,
            None => return words,
        }
    }
    if at < words.len() {
        words[1..=at].rotate_right(1);
    } else {
        // Options and no command: clap then says what commands there are.
        words.truncate(1);
    }
    words
}

/// How many words after an option are its value; `None` for what is no option of any command, or is clap's own.
fn values_after(options: &[clap::Arg], word: &[u8]) -> Option<usize> {
    if let Some(name) = word.strip_prefix(b"--") {
        let end = name
            .iter()
            .position(|&byte| byte == b'=')
            .unwrap_or(name.len());
        let option = options
            .iter()
            .find(|option| option.get_long().map(str::as_bytes) == Some(&name[..end]))?;
        return Some(usize::from(
            option.get_action().takes_values() && end == name.len(),
        ));
    }
    let letters = word.get(1..).filter(|letters| !letters.is_empty())?;
    for (place, &letter) in letters.iter().enumerate() {
        let option = options
            .iter()
            .find(|option| option.get_short() == Some(char::from(letter)))?;
        if option.get_action().takes_values() {
            return Some(usize::from(place + 1 == letters.len()));
        }
    }
    Some(0)
}

#[cfg(test)]
mod tests;
