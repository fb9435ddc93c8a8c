//! What may be typed, and what is refused.

use super::*;

fn parsed(line: &str) -> Result<Command, clap::Error> {
    let words = [BIN]
        .into_iter()
        .chain(line.split_whitespace())
        .map(Into::into);
    Cli::from_words(words).map(|cli| cli.command)
}

fn sync_args(line: &str) -> SyncArgs {
    match parsed(line).expect(line) {
        Command::Pull(args) | Command::Push(args) | Command::Sync(args) => args,
        Command::Status(args) => args.to_sync(),
        Command::Watch(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Completions { .. }
        | Command::Man => {
            unreachable!("not asked for here")
        }
    }
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn options_stand_before_or_after_the_command() {
    for line in [
        "-n --folder A --color=never -vF cfg pull --exclude B home",
        "pull -n --folder A --color=never -vF cfg --exclude B home",
        "pull home --exclude=B -n --folder A --color never -v --ssh-config cfg --exclude B",
    ] {
        let args = sync_args(line);
        assert!(args.run.dry_run, "{line}");
        assert_eq!(args.connection.ssh_config, Some("cfg".into()), "{line}");
        assert_eq!(
            (args.output.color, args.output.verbose),
            (When::Never, 1),
            "{line}"
        );
        assert_eq!(args.target.account_or_remote, Some("home".into()), "{line}");
        assert_eq!(
            args.folders.0.last(),
            Some(&(Verdict::Exclude, "B".to_owned())),
            "{line}"
        );
    }
    assert_eq!(
        sync_args("--state-dir sync pull").places.state.state_dir,
        Some("sync".into())
    );
    assert_eq!(
        sync_args("-Fsync pull").connection.ssh_config,
        Some("sync".into())
    );
}

#[test]
fn the_order_between_folder_and_exclude_is_kept() {
    let order = |line: &str| -> String {
        let sign = |verdict| if verdict == Verdict::Select { '+' } else { '-' };
        sync_args(line)
            .folders
            .0
            .iter()
            .map(|(verdict, glob)| format!("{}{glob}", sign(*verdict)))
            .collect()
    };
    assert_eq!(order("sync"), "");
    assert_eq!(
        order("sync --folder A --exclude B --folder C --exclude D"),
        "+A-B+C-D"
    );
    assert_eq!(
        order("--exclude B --exclude=C sync --folder A home --exclude D"),
        "-B-C+A-D"
    );
}

#[test]
fn an_option_is_refused_where_it_does_nothing() {
    for line in [
        "status --max-delete 5",
        "status --dry-run",
        "status --folder A",
        "status -F cfg",
        "status --adopt",
        "status --progress always",
        "--checksum status",
        "completions bash --json",
        "man --json",
        "-q man",
        "sync -q -v",
        "sync --max-delete 101%",
        "sync --color sometimes",
        "sync a b c",
        "sync --folder",
        "completions",
        "pause 2",
        "pause --config c",
        "pause home 2h",
        "resume 2h",
        "resume -n",
        "watch --max-delete 5",
        "watch --adopt",
        "undo",
        "",
        "-n",
        "-nx sync",
        "--nothing sync",
        "--folder sync",
    ] {
        let error = parsed(line).expect_err(line);
        assert!(
            error.use_stderr() && error.exit_code() == 2,
            "{line}: {error}"
        );
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for line in [
        "--help",
        "-h",
        "help sync",
        "sync --help",
        "-n sync --help",
        "--version",
        "-V",
        "help",
    ] {
        let shown = parsed(line).expect_err(line);
        assert!(
            !shown.use_stderr() && shown.exit_code() == 0,
            "{line}: {shown}"
        );
    }
}

#[test]
fn help_promises_nothing_that_is_not_there() {
    let mut cli = Cli::command();
    let mut help = cli.render_long_help().to_string();
    for command in cli.get_subcommands_mut() {
        help += &command.render_long_help().to_string();
    }
    for word in ["undo", "verify", "setup", "doctor"] {
        assert!(!help.contains(word), "{word}");
    }
    for word in [
        "me@mail.example.org:Maildir",
        "ssh://me@mail.example.org:2222/~/Maildir",
        "--max-delete <N|P%>",
    ] {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for &shell in Shell::value_variants() {
        let mut script = Vec::new();
        completions(shell, &mut script).expect("memory takes everything");
        assert!(script.windows(8).any(|word| word == b"max-dele"), "{shell}");
    }
}
