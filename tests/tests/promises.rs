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
