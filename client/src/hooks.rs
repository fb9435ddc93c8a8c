//! Runs the user's own command after a run that changed something here.
//!
//! The command is the user's text and goes to `sh -c`; the paths are other people's and go to its stdin, never onto
//! a command line (a folder called `$(reboot)` is just a folder).

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};

/// Runs `sh -c COMMAND` with the changed paths on its stdin, each ended by NUL, and waits for it.
///
/// What it prints goes to stderr, because stdout is for the summary. It need not read its stdin.
///
/// # Errors
/// When it cannot be started or ends otherwise than with status 0: one sentence for a warning, no reason for the run
/// to fail.
pub fn run_post(command: &str, changed: &[PathBuf]) -> Result<(), String> {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(std::io::stderr());
    let mut child = shell
        .spawn()
        .map_err(|error| format!("Cannot start sh for hooks.post: {error}"))?;
    let stdin = child.stdin.take().expect("stdin was asked to be a pipe");
    let told = tell(stdin, changed);
    let status = child
        .wait()
        .map_err(|error| format!("Cannot wait for hooks.post: {error}"))?;
    if status.success() {
        told
    } else {
        Err(ended(status))
    }
}

/// Writes the paths; a command that does not want to know them closes its stdin, or ends.
fn tell(mut stdin: ChildStdin, changed: &[PathBuf]) -> Result<(), String> {
    let mut chunk = Vec::new();
    for path in changed {
        chunk.extend_from_slice(path.as_os_str().as_bytes());
        chunk.push(0);
    }
    match stdin.write_all(&chunk) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("Cannot tell hooks.post what changed: {error}"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(127), _) => {
            "hooks.post failed with status 127: a command in it was not found".to_owned()
        }
        (Some(code), _) => format!("hooks.post failed with status {code}"),
        (None, signal) => format!(
            "hooks.post was killed by signal {}",
            signal.unwrap_or_default()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_arrive_verbatim_and_never_on_a_command_line() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let seen = dir.path().join("seen");
        let paths = ["/m/cur/a\nb:2,S", "/m/.$(exit 9)/`x`", "/m/\u{fc}"].map(PathBuf::from);
        assert_eq!(
            run_post(&format!("cat > '{}'", seen.display()), &paths),
            Ok(())
        );
        let read = std::fs::read(&seen).expect("the hook wrote it");
        assert_eq!(
            read,
            "/m/cur/a\nb:2,S\0/m/.$(exit 9)/`x`\0/m/\u{fc}\0".as_bytes()
        );
    }

    #[test]
    fn a_hook_that_does_not_read_is_fine() {
        let many: Vec<PathBuf> = (0..50_000)
            .map(|number| PathBuf::from(format!("/m/cur/{number}")))
            .collect();
        assert_eq!(run_post("exit 0", &many), Ok(()));
        assert_eq!(run_post("exec <&-; true", &many), Ok(()));
    }

    #[test]
    fn a_failure_is_told_with_its_status() {
        assert_eq!(
            run_post("exit 3", &[]),
            Err("hooks.post failed with status 3".to_owned())
        );
        assert_eq!(
            run_post("kill -9 $$", &[]),
            Err("hooks.post was killed by signal 9".to_owned())
        );
        let missing = run_post("/no/such/command", &[]).expect_err("it is not there");
        assert_eq!(
            missing,
            "hooks.post failed with status 127: a command in it was not found"
        );
    }
}
