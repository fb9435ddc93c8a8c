//! What documents and contrib promise: commands that are there, links that lead somewhere, units that systemd takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::lacks::lacks;
use harness::tree::files;

use crate::tidy::root;

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("README.md is there")
}

/// The two commands that do all the set-up are in the README, and are there to be run.
#[test]
fn the_readme_has_its_two_commands() {
    let readme = readme();
    assert!(
        readme.contains("tests/run"),
        "the command that passes the tests"
    );
    let commands: Vec<&str> = readme
        .lines()
        .map(|line| line.trim().trim_start_matches("$ "))
        .collect();
    let scripts: Vec<&str> = commands
        .iter()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| {
            word.starts_with("./") || word.starts_with("tests/") || word.starts_with("contrib/")
        })
        .filter(|word| {
            word.chars()
                .all(|char| char.is_ascii_alphanumeric() || "./-_".contains(char))
        })
        .collect();
    assert!(
        scripts.iter().any(|word| word.ends_with("tests/run")),
        "tests/run stands on a line of its own: {scripts:?}"
    );
    for script in scripts {
        assert!(
            root().join(script).exists(),
            "the README runs {script}, which is not there"
        );
    }
}

#[test]
fn the_scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    for script in ["tests/run", ".ci/run"] {
        let mode = fs::metadata(root().join(script))
            .expect("script is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o111, 0o111, "{script} is not executable");
        let mut command = Command::new("bash");
        command.arg("-n").arg(root().join(script));
        let done = harness::process::run(command, harness::process::LIMIT);
        assert_eq!(done.code, Some(0), "{script}: {}", done.stderr);
    }
}

#[test]
fn what_the_readme_links_is_there() {
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "docs/protocol.md",
        "docs/state.md",
        "docs/promises.md",
        "tests/README.md",
    ] {
        let path = root().join(document);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{document}: {error}"));
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            assert!(
                path.parent().expect("lies somewhere").join(file).exists(),
                "{document} links {link}"
            );
        }
    }
}

/// Units are only shipped if systemd takes them.
#[test]
fn systemd_takes_the_units() {
    let units: Vec<PathBuf> = walk(&root().join("contrib"))
        .into_iter()
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == "service" || end == "timer")
        })
        .collect();
    assert!(
        units
            .iter()
            .any(|unit| unit.extension().is_some_and(|end| end == "timer")),
        "a timer is shipped"
    );
    for unit in &units {
        let text = fs::read_to_string(unit).expect("unit can be read");
        let service = unit.extension().is_some_and(|end| end == "service");
        assert!(
            !service || text.contains("SuccessExitStatus=75"),
            "{} takes 75 for a failure",
            unit.display()
        );
    }
    let text = |name: &str| {
        let unit = root().join("contrib/systemd").join(name);
        fs::read_to_string(unit).expect("unit can be read")
    };
    assert!(text("maildir-sync@.timer").contains("\nOnClockChange=yes\n"));
    let watch = text("maildir-sync-watch@.service");
    // A first sync of hours is no hang, and what was temporary is tried again.
    for line in [
        "Type=notify",
        "ExecStart=/usr/bin/env maildir-sync watch %i",
        "TimeoutStartSec=infinity",
        "Restart=on-failure",
        "RestartForceExitStatus=75",
    ] {
        assert!(watch.lines().any(|other| other == line), "{line}");
    }
    assert_eq!(
        sandbox(&watch),
        sandbox(&text("maildir-sync@.service")),
        "both confine alike"
    );
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        lacks("systemd-analyze is not there");
        return;
    }
    verify_units(&units);
}

/// What a unit forbids its program.
fn sandbox(unit: &str) -> Vec<&str> {
    let start = unit.find("\nNoNewPrivileges=").expect("a sandbox");
    let lines = unit[start..].lines().skip(1);
    lines.take_while(|line| !line.is_empty()).collect()
}

/// The hooks of contrib run in any `sh`, and do what they say with programs that only say how they were called.
#[test]
fn the_hooks_of_contrib_call_what_they_are_for() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().expect("temporary directory");
    for program in ["notmuch", "mu", "notify-send", "maildir-sync"] {
        let path = home.path().join(program);
        let script = format!("#!/bin/sh\necho {program} \"$@\" | tee -a \"$HOME/called\"\n");
        fs::write(&path, script).expect("a program is made");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it runs");
    }
    let calls = [
        ("notmuch-post", "", 0, "notmuch new --quiet\n"),
        ("mu-post", "", 0, "mu index --quiet --lazy-check\n"),
        (
            "notify",
            "new",
            0,
            "notify-send --app-name=maildir-sync home: 2 new \n",
        ),
        (
            "notify",
            "failure",
            3,
            "notify-send --app-name=maildir-sync home: syncs again \n",
        ),
        (
            "notify",
            "failure",
            1,
            "maildir-sync status home\n\
             notify-send --app-name=maildir-sync home: does not sync (exit 1) maildir-sync status home\n",
        ),
    ];
    for (hook, word, exit, expected) in calls {
        let script = root().join("contrib/hooks").join(hook);
        let path = format!("{}:/usr/bin:/bin", home.path().display());
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &format!("printf '/m/1\\0/m/2\\0' | {} {word}", script.display()),
        ]);
        command
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", path);
        command.env("MAILDIR_SYNC_ACCOUNT", "home");
        command.env("MAILDIR_SYNC_EXIT", exit.to_string());
        let done = harness::process::run(command, harness::process::LIMIT);
        assert_eq!(done.code, Some(0), "{hook}: {}", done.stderr);
        let called = home.path().join("called");
        assert_eq!(
            fs::read_to_string(&called).expect("something was called"),
            expected
        );
        fs::remove_file(called).expect("it is there");
    }
    if Command::new("shellcheck")
        .arg("--version")
        .output()
        .is_err()
    {
        lacks("shellcheck is not there");
        return;
    }
    let mut command = Command::new("shellcheck");
    command.args(walk(&root().join("contrib/hooks")));
    let done = harness::process::run(command, harness::process::LIMIT);
    assert_eq!(
        done.code,
        Some(0),
        "{}",
        String::from_utf8(done.stdout).expect("text")
    );
}

/// Verifies copies whose program is one that is there: it is the unit that is looked at, not the installation.
fn verify_units(units: &[PathBuf]) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut copies = Vec::new();
    for unit in units {
        let text = fs::read_to_string(unit).expect("unit can be read");
        let start = |line: &str| {
            if line.starts_with("ExecStart=") {
                "ExecStart=/bin/true".to_owned()
            } else {
                line.to_owned()
            }
        };
        let copy = dir.path().join(unit.file_name().expect("a file"));
        fs::write(
            &copy,
            text.lines().map(start).collect::<Vec<_>>().join("\n"),
        )
        .expect("copy is written");
        copies.push(copy);
    }
    let mut command = Command::new("systemd-analyze");
    command
        .args(["verify", "--user", "--man=no"])
        .args(&copies)
        .env("XDG_RUNTIME_DIR", dir.path());
    let done = harness::process::run(command, harness::process::LIMIT);
    let about_ours: Vec<&str> = done
        .stderr
        .lines()
        .filter(|line| line.contains("maildir-sync"))
        .collect();
    assert!(
        about_ours.is_empty() && done.code == Some(0),
        "{:?} {}",
        done.code,
        done.stderr
    );
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let inside = |path: PathBuf| {
        if path.is_dir() {
            walk(&path)
        } else {
            vec![path]
        }
    };
    files(dir).into_iter().flat_map(inside).collect()
}

/// The authorized_keys example confines the key.
#[test]
fn the_authorized_keys_example_is_restricted() {
    let examples: Vec<String> = walk(&root().join("contrib"))
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    let found = examples.iter().any(|text| {
        text.contains("command=\"maildir-sync-server --root") && text.contains(",restrict ")
    });
    assert!(
        found,
        "contrib shows command=\"maildir-sync-server --root …\",restrict"
    );
}
