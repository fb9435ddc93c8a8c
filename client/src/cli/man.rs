//! The manual page, made from the definition of the command line so that it cannot drift from it.

use std::io::Write;

use clap::CommandFactory as _;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, line_break, roman};

use super::{ADDRESS_HELP, BIN, Cli};

/// What each number means that the process ends with.
const EXIT_STATUS: [(&str, &str); 6] = [
    ("0", "In sync, or nothing to do; status: healthy."),
    (
        "1",
        "An error; run again after mending what it names. status: not healthy.",
    ),
    ("2", "The command line or the configuration is wrong."),
    (
        "3",
        "Done, except for the messages listed on stderr; standing ones are listed by status.",
    ),
    (
        "4",
        "A safety guard refused; nothing was deleted, and stderr says both ways out.",
    ),
    (
        "75",
        "Temporary: server not reachable, connection lost or silent, interrupted, paused, or another run holds the lock.",
    ),
];

const FILES: [(&str, &str); 2] = [
    (
        "$XDG_CONFIG_HOME/maildir-sync/config.toml",
        "The accounts. Without XDG_CONFIG_HOME, below ~/.config.",
    ),
    (
        "$XDG_STATE_HOME/maildir-sync/",
        "What both sides last agreed on, and the trash. Without XDG_STATE_HOME, below ~/.local/state.",
    ),
];

const CONFIG: &str = r#"[account.home]
remote     = "me@mail.example.org:Maildir"
local      = "~/Maildir"
exclude    = ["Junk", "Archive/20*"]
hooks.post = "notmuch new --quiet""#;

/// Every key of an account.
const KEYS: [(&str, &str); 24] = [
    ("remote", "Where the remote Maildir is; see ADDRESSES."),
    (
        "local",
        "The Maildir on this machine; a relative path starts at home.",
    ),
    (
        "folder",
        "A list of patterns: deal only with these folders, as --folder.",
    ),
    (
        "exclude",
        "A list of patterns: forget these folders, as --exclude; cuts from folder.",
    ),
    (
        "max_delete",
        "How much may be deleted unasked: a number, or a share like \"5%\".",
    ),
    (
        "no_delete",
        "true: carry out no deletion; it stays pending.",
    ),
    (
        "trash_days",
        "How many days deleted and replaced messages are kept here (30).",
    ),
    (
        "persist",
        "How long the ssh connection stays open after a run, like \"10m\" (not at all).",
    ),
    (
        "timeout",
        "How long a server is waited for that says nothing (\"60s\").",
    ),
    (
        "metered",
        "What watch does where NetworkManager calls the network metered: \"pause\" (nothing), \"small\" (all but bodies over 64 KiB) or \"ignore\". Any other run does everything.",
    ),
    (
        "hooks.pre",
        "A command for sh -c before a run; where it ends with 75 there is no run now, any other failure is a warning.",
    ),
    (
        "hooks.post",
        "A command after a run that changed something here; the changed paths are on its stdin, each ended by NUL.",
    ),
    (
        "hooks.new",
        "A command after a run that brought unseen messages, in whatever folder; theirs are the paths.",
    ),
    (
        "hooks.conflict",
        "A command after a run in which both sides had changed the same thing.",
    ),
    (
        "hooks.failure",
        "A command after the first run of a series that fails, and after the first one that does not any more.",
    ),
    (
        "hooks.format",
        "What is on their stdin: \"paths\", \"records\" (operation, folder, path, old path, each ended by NUL) or \"json\" (these in an object a line).",
    ),
    (
        "hooks.timeout",
        "How long a hook may take before it is killed (\"60s\").",
    ),
    (
        "server_command",
        "The command that starts the agent on the server.",
    ),
    ("identity", "The private key to log in with, as -i."),
    ("ssh_config", "The ssh config to use, as -F."),
    (
        "layout",
        "How new folders lie here: \"maildir++\" or \"nested\" (what is there, else as on the server).",
    ),
    (
        "folder_names",
        "How names of new folders are written here: \"utf-8\" or \"utf-7\" (likewise).",
    ),
    (
        "follow_links",
        "true: follow symbolic links to folders here.",
    ),
    (
        "checksum",
        "true: read every message at every run, as --checksum.",
    ),
];

/// What a hook finds in its environment.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("MAILDIR_SYNC_ACCOUNT", "The name of the account."),
    (
        "MAILDIR_SYNC_RUN",
        "The run's tag, with which the name of its directory in the trash ends; empty where it has none yet.",
    ),
    ("MAILDIR_SYNC_NEW", "How many messages are new here."),
    (
        "MAILDIR_SYNC_CHANGED",
        "How many were flagged, moved, copied or replaced here.",
    ),
    ("MAILDIR_SYNC_DELETED", "How many were deleted here."),
    (
        "MAILDIR_SYNC_EXIT",
        "The exit status of the run; 0 for hooks.pre.",
    ),
];

/// Writes the page in roff, for `man -l -`.
///
/// # Errors
/// When the stream fails.
pub fn man(to: &mut dyn Write) -> std::io::Result<()> {
    let cli = Cli::command();
    let about = cli.get_about().cloned().unwrap_or_default().to_string();
    let page = Man::new(cli.clone())
        .title(BIN.to_uppercase())
        .manual("User Commands");
    page.render_title(to)?;
    page.render_name_section(to)?;
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"])
        .text([bold(BIN), roman(" [OPTIONS] COMMAND")]);
    roff.control("SH", ["DESCRIPTION"])
        .text([roman(about + ".")]);
    commands(&mut roff, &cli);
    roff.to_writer(to)?;
    let options = cli
        .find_subcommand("sync")
        .expect("sync is a command, and has every option")
        .clone();
    Man::new(options.mut_args(|arg| {
        if arg.is_positional() {
            arg.hide(true)
        } else {
            arg
        }
    }))
    .render_options_section(to)?;
    let mut roff = Roff::new();
    verbatim(roff.control("SH", ["ADDRESSES"]), ADDRESS_HELP);
    verbatim(roff.control("SH", ["CONFIGURATION"]), CONFIG);
    list(&mut roff, &KEYS);
    list(roff.control("SH", ["ENVIRONMENT OF HOOKS"]), &ENVIRONMENT);
    list(roff.control("SH", ["FILES"]), &FILES);
    list(roff.control("SH", ["EXIT STATUS"]), &EXIT_STATUS);
    roff.to_writer(to)
}

fn commands(roff: &mut Roff, cli: &clap::Command) {
    roff.control("SH", ["COMMANDS"]);
    for command in cli
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        let takes = match command.get_name() {
            "pause" => " [DURATION]",
            "completions" => " SHELL",
            "man" | "resume" => "",
            _ => " [ACCOUNT | REMOTE LOCAL]",
        };
        let about = command.get_about().cloned().unwrap_or_default().to_string();
        roff.control("TP", [])
            .text([bold(command.get_name()), roman(takes)])
            .text([roman(about + ".")]);
    }
}

fn list(roff: &mut Roff, entries: &[(&str, &str)]) {
    for (term, meaning) in entries {
        roff.control("TP", [])
            .text([bold(*term)])
            .text([roman(*meaning)]);
    }
}

fn verbatim(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    let lines: Vec<Inline> = text
        .lines()
        .flat_map(|line| [roman(line), line_break()])
        .collect();
    roff.text(lines).control("fi", []);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::file::{Hooks, Keys};
    use crate::run::hooks::VARIABLES;

    #[test]
    fn the_page_has_every_section_and_option() {
        let mut page = Vec::new();
        man(&mut page).expect("memory takes everything");
        let page = String::from_utf8(page).expect("roff is ASCII");
        for heading in [
            "NAME",
            "SYNOPSIS",
            "COMMANDS",
            "OPTIONS",
            "FOLDERS",
            "CONNECTION",
            "ADDRESSES",
            "EXIT STATUS",
        ] {
            let lines = [format!(".SH {heading}"), format!(".SH \"{heading}\"")];
            assert_eq!(
                page.lines()
                    .filter(|line| lines.contains(&(*line).to_owned()))
                    .count(),
                1,
                "{heading}"
            );
        }
        let options = Cli::command()
            .find_subcommand("sync")
            .expect("a command")
            .clone();
        for option in options.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(
                page.contains(&format!("\\-\\-{}", option.replace('-', "\\-"))),
                "{option}"
            );
        }
    }

    /// What serde says that a table takes.
    fn accepted<T: serde::de::DeserializeOwned + std::fmt::Debug>() -> Vec<String> {
        let error = toml::from_str::<T>("'' = 1").expect_err("no key is empty");
        let quoted = error.message().split('`').skip(1).step_by(2);
        quoted
            .filter(|key| !key.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_key_and_every_variable_of_a_hook_is_explained() {
        let hooks = accepted::<Hooks>();
        let hooks = hooks.iter().map(|key| format!("hooks.{key}"));
        let keys = accepted::<Keys>().into_iter();
        let accepted: BTreeSet<String> = keys.filter(|key| key != "hooks").chain(hooks).collect();
        let explained = KEYS.iter().map(|(key, _)| (*key).to_owned());
        assert_eq!(explained.collect::<BTreeSet<_>>(), accepted);
        assert_eq!(ENVIRONMENT.map(|(name, _)| name), VARIABLES);
    }
}
