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
        "Temporary: server not reachable, connection lost or silent, interrupted, or another run holds the lock.",
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
max_delete = "5%"
trash_days = 30
persist    = "10m"
hooks.post = "notmuch new --quiet""#;

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
            "completions" => " SHELL",
            "man" => "",
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
    use super::*;

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
}
