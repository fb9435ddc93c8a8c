//! The README's commands, typed one after the other in an account that has no directory yet.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use harness::process::{Finished, LIMIT, run};
use harness::world::{agent_program, client_program};
use harness::{Manager, Tree, Watch, World, body, tree};

use crate::errors::U1;
use crate::tidy::root;

/// What a document has in its blocks of commands, without their comments; of TOML nothing.
fn commands(document: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(document)).expect("the document is there");
    let mut block = "";
    let mut commands = Vec::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            block = if block.is_empty() && !kind.is_empty() {
                kind
            } else {
                ""
            };
            continue;
        }
        let line = match block {
            "" => line.strip_prefix("    "),
            "sh" => Some(line),
            _ => None,
        };
        let command = line
            .and_then(|line| line.split("  #").next())
            .map(str::trim);
        commands.extend(
            command
                .filter(|command| !command.is_empty())
                .map(str::to_owned),
        );
    }
    commands
}

/// The example of a config file.
fn config() -> String {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README is there");
    let (_, rest) = readme.split_once("```toml\n").expect("an example");
    rest.split("```").next().unwrap_or_default().to_owned()
}

/// A home with nothing in it but programs of other people's that only say that they were called.
struct Account {
    world: World,
}

impl Account {
    fn new() -> Account {
        let world = World::new();
        world.server().store("INBOX", U1, "S", &body("one"));
        let bin = world.path("bin");
        fs::create_dir(&bin).expect("bin is made");
        for program in ["systemctl", "journalctl", "notmuch"] {
            let script = format!("#!/bin/sh\necho {program} \"$@\" >>\"$HOME/called\"\n");
            fs::write(bin.join(program), script).expect("a program is made");
            fs::set_permissions(bin.join(program), fs::Permissions::from_mode(0o755))
                .expect("it runs");
        }
        for program in [client_program(), agent_program()] {
            let name = program.file_name().expect("a file");
            std::os::unix::fs::symlink(&program, bin.join(name)).expect("a link");
        }
        fs::create_dir(world.path("home")).expect("a home is made");
        Account { world }
    }

    fn home(&self) -> std::path::PathBuf {
        self.world.path("home")
    }

    /// Types a line into a shell; the server of the examples is a Maildir of this machine.
    fn types(&self, line: &str) -> Finished {
        run(self.shell(line), LIMIT)
    }

    fn shell(&self, line: &str) -> Command {
        let server = self.world.server().root().display().to_string();
        let line = line.replace("me@mail.example.org:Maildir", &server);
        let path = format!("{}:/usr/bin:/bin", self.world.path("bin").display());
        let mut command = Command::new("bash");
        command
            .args(["-euc", &line])
            .current_dir(root())
            .env_clear();
        command.env("HOME", self.home()).env("PATH", path);
        command
    }

    /// Types a line that goes on until it is ended, which is once its first round is through.
    fn goes_on(&self, line: &str) {
        let manager = Manager::new(&self.home());
        let mut command = self.shell(&format!("exec {line}"));
        command.env("NOTIFY_SOCKET", manager.path());
        let watch = Watch::spawn(command);
        manager.hears("READY=1");
        let (code, _) = watch.end();
        assert_eq!(code, Some(0), "{line}");
        fs::remove_file(manager.path()).expect("it was there");
    }

    #[track_caller]
    fn succeeds(&self, line: &str) {
        let done = self.types(line);
        assert_eq!(done.code, Some(0), "{line}: {}", done.stderr);
    }
}

fn is_first_word(line: &str, words: &[&str]) -> bool {
    words.contains(&line.split_whitespace().next().unwrap_or_default())
}

#[test]
fn the_readme_s_commands_work_in_an_account_without_any_directory() {
    let account = Account::new();
    let all = commands("README.md");
    let count = |start: &str| all.iter().filter(|line| line.starts_with(start)).count();
    assert!(count("mkdir") >= 2 && count("maildir-sync") >= 5, "{all:?}");
    for line in &all {
        if line.starts_with("cargo install") {
            let package = line.split_whitespace().last().unwrap_or_default();
            assert!(root().join(package).join("Cargo.toml").is_file(), "{line}");
        } else if is_first_word(line, &["contrib/demo", "tests/run"]) {
            assert!(root().join(line).is_file(), "{line}");
        } else if line.starts_with("command=") {
            assert!(line.contains("maildir-sync-server --root"), "{line}");
        } else if line.starts_with("maildir-sync watch") {
            account.goes_on(line);
        } else {
            if line.starts_with("maildir-sync sync") && !line.contains("example.org") {
                let server = account.world.server().root().display().to_string();
                let text = config().replace("me@mail.example.org:Maildir", &server);
                let path = account.home().join(".config/maildir-sync/config.toml");
                fs::write(path, text).expect("the directory was made by a command before");
            }
            account.succeeds(line);
        }
    }
    let here = Tree::at(
        account.home().join("Maildir"),
        tree::Layout::MaildirPlusPlus,
    );
    harness::snapshot::assert_same(account.world.server(), &here);
    account
        .world
        .server()
        .deliver("INBOX", "9.M.mx", &body("nine"));
    account.succeeds("maildir-sync sync home");
    let called = fs::read_to_string(account.home().join("called")).expect("programs were called");
    for line in ["systemctl --user daemon-reload", "notmuch new --quiet"] {
        assert!(
            called.lines().any(|called| called == line),
            "{line}: {called}"
        );
    }
}

#[test]
fn every_option_of_the_agent_stands_in_the_example_of_authorized_keys() {
    let mut help = Command::new(agent_program());
    help.arg("--help");
    let help = String::from_utf8(run(help, LIMIT).stdout).expect("help is text");
    let words = help
        .lines()
        .map(|line| line.trim_start().replace("-h, ", ""));
    let options: Vec<String> = words
        .filter(|line| line.starts_with("--"))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|option| !["--help", "--version"].contains(&option.as_str()))
        .collect();
    assert!(options.len() >= 8, "{help}");
    let example = fs::read_to_string(root().join("contrib/authorized_keys")).expect("an example");
    let words: Vec<&str> = example.split_whitespace().collect();
    for option in options {
        assert!(words.contains(&option.as_str()), "{option}");
    }
}

#[test]
fn the_commands_of_contrib_work_in_an_account_without_any_directory() {
    let account = Account::new();
    for line in commands("contrib/README.md") {
        account.succeeds(&line);
    }
    let is_filled = |path: &str| {
        let file = fs::metadata(account.home().join(path));
        assert!(file.is_ok_and(|file| file.len() > 500), "{path}");
    };
    is_filled(".local/share/man/man1/maildir-sync.1");
    is_filled(".config/fish/completions/maildir-sync.fish");
    assert!(
        Path::new(
            &account
                .home()
                .join(".config/systemd/user/maildir-sync@.timer")
        )
        .is_file()
    );
}

/// The demo builds with a profile of its own: what the suite's debug build optimizes would take minutes more.
#[test]
fn the_demo_builds_without_optimization() {
    let demo = fs::read_to_string(root().join("contrib/demo")).expect("the demo is there");
    assert!(
        demo.contains("--profile demo"),
        "the demo has its own profile"
    );
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
    for part in [
        "[profile.demo]\ninherits = \"dev\"\nopt-level = 0",
        "[profile.demo.package.\"*\"]\nopt-level = 0",
    ] {
        assert!(manifest.contains(part), "{part}");
    }
}
