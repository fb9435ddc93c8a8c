//! Why there is no agent to talk to, in one sentence each: the thing and the remedy.

use std::ffi::OsStr;

use protocol::bytes::escape;

use crate::config::address::quote;
use crate::report::exit_code::ExitCode;

/// How much of what came instead of an agent is quoted.
const QUOTE_BYTES_MAX: usize = 200;

/// Why there is no agent to talk to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The network, the name or the port.
    #[error("Cannot reach {host}: {said}; check the name and the network")]
    Unreachable {
        /// The host as it was named.
        host: String,
        /// ssh's own words.
        said: String,
    },
    /// The login was refused.
    #[error("{host} refused the login: {said}; check the key with `{check}`")]
    Denied {
        /// The host as it was named.
        host: String,
        /// ssh's own words.
        said: String,
        /// The command that shows whether it works.
        check: String,
    },
    /// The login was refused, and ssh had not used a key that others may read.
    #[error(
        "{host} refused the login: others may read the key file \"{}\", so ssh did not use it; run `chmod 600 {}`",
        escape(.key.as_bytes()),
        quote(OsStr::new(.key))
    )]
    OpenKey {
        /// The host as it was named.
        host: String,
        /// The key file, as ssh named it.
        key: String,
    },
    /// The host's key is not known, or is another one.
    #[error("{}", host_key_text(.host, *.changed, .check))]
    HostKey {
        /// The host as it was named.
        host: String,
        /// Whether another key was known.
        changed: bool,
        /// The command that shows the key and asks about it.
        check: String,
    },
    /// ssh ended for another reason.
    #[error("ssh to {host} failed: {said}")]
    Ssh {
        /// The host as it was named.
        host: String,
        /// ssh's own words.
        said: String,
    },
    /// An option names what is not there.
    #[error("{0}")]
    Options(String),
    /// A program of this machine could not be started.
    #[error("Cannot start \"{program}\": {source}")]
    Start {
        /// The program.
        program: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// There is no such program over there.
    #[error(
        "{command} is not installed on {machine}{hint}{}; install it, or name its path in server_command or the key's forced command",
        in_brackets(.said)
    )]
    NotInstalled {
        /// The host, or this machine.
        machine: String,
        /// What was to be started.
        command: String,
        /// Why it may not be found although it is there.
        hint: &'static str,
        /// What the shell said.
        said: String,
    },
    /// Something answered that is no agent.
    #[error(
        "{machine} did not answer as maildir-sync-server does: {said}; check the key's forced command, and what the login's shell prints"
    )]
    Stranger {
        /// The host, or this machine.
        machine: String,
        /// What came instead, quoted.
        said: String,
    },
    /// Another run is about to make the same connection.
    #[error("{0}")]
    Busy(String),
    /// The program began to run and said nothing.
    #[error(
        "{command} on {machine} said nothing for {seconds} s; check that it is maildir-sync-server, and the key's forced command"
    )]
    Silent {
        /// The host, or this machine.
        machine: String,
        /// What was started.
        command: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The agent ended with an error of its own.
    #[error("{command} on {machine} failed with status {code}{}{hint}", after_colon(.said))]
    Agent {
        /// The host, or this machine.
        machine: String,
        /// What was started.
        command: String,
        /// Its exit status.
        code: i32,
        /// The end of its stderr.
        said: String,
        /// What to check, where it had not introduced itself.
        hint: &'static str,
    },
    /// The agent, or the link to it, hangs.
    #[error("Gave up the connection to {machine}, which was silent for {seconds} s")]
    Hung {
        /// The host, or this machine.
        machine: String,
        /// For how long.
        seconds: u64,
    },
    /// We are asked to end.
    #[error("Interrupted")]
    Interrupted,
    /// The connection broke, or the agent was killed.
    #[error("Lost the connection to {machine}{}", after_colon(.said))]
    Lost {
        /// The host, or this machine.
        machine: String,
        /// What ssh said.
        said: String,
    },
}

impl ConnectError {
    /// Whether it is the network.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, ConnectError::Unreachable { .. })
    }

    /// How a run ends that met with this.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            ConnectError::Unreachable { .. }
            | ConnectError::Busy(_)
            | ConnectError::Silent { .. }
            | ConnectError::Hung { .. }
            | ConnectError::Interrupted
            | ConnectError::Lost { .. } => ExitCode::Temporary,
            ConnectError::Options(_) => ExitCode::Usage,
            ConnectError::Denied { .. }
            | ConnectError::OpenKey { .. }
            | ConnectError::HostKey { .. }
            | ConnectError::Ssh { .. }
            | ConnectError::Start { .. }
            | ConnectError::NotInstalled { .. }
            | ConnectError::Stranger { .. }
            | ConnectError::Agent { .. } => ExitCode::Error,
        }
    }

    pub(crate) fn not_installed(
        machine: &str,
        command: &str,
        local: bool,
        said: String,
    ) -> ConnectError {
        let hint = if local {
            ""
        } else {
            ", or not in the PATH of a non-interactive shell"
        };
        ConnectError::NotInstalled {
            machine: machine.to_owned(),
            command: escape(command.as_bytes()),
            hint,
            said,
        }
    }

    /// Quotes what came instead of an agent: its own words first, its stderr where it had none.
    pub(super) fn stranger(machine: &str, noise: &[u8], stderr: &str) -> ConnectError {
        let quote = |bytes: &[u8]| {
            let more = if bytes.len() > QUOTE_BYTES_MAX {
                " …"
            } else {
                ""
            };
            let lines: Vec<String> = bytes[..bytes.len().min(QUOTE_BYTES_MAX)]
                .split(|&byte| byte == b'\n')
                .map(|line| {
                    escape(line.strip_suffix(b"\r").unwrap_or(line))
                        .trim()
                        .to_owned()
                })
                .filter(|line| !line.is_empty())
                .collect();
            format!("\"{}{more}\"", lines.join(" / "))
        };
        let said = match (noise, stderr) {
            ([], "") => "it ended without a word".to_owned(),
            ([], stderr) => quote(stderr.as_bytes()),
            (noise, _) => quote(noise),
        };
        ConnectError::Stranger {
            machine: machine.to_owned(),
            said,
        }
    }
}

fn host_key_text(host: &str, changed: bool, check: &str) -> String {
    if changed {
        format!(
            "The host key of {host} is another one than before: find out why, then see what `{check}` says"
        )
    } else {
        format!("The host key of {host} is not known yet: run `{check}` once and compare it")
    }
}

fn in_brackets(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(" ({said})")
    }
}

fn after_colon(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_instead_is_quoted_short_and_harmless() {
        let text = |noise: &[u8], stderr: &str| {
            ConnectError::stranger("mail.example.org", noise, stderr).to_string()
        };
        let sentence = |said: &str| {
            format!(
                "mail.example.org did not answer as maildir-sync-server does: {said}; check the key's forced command, \
                 and what the login's shell prints"
            )
        };
        assert_eq!(
            text(b"Welcome!\r\n\n  \x1b[1mmotd\n", "x"),
            sentence("\"Welcome! / \\x1b[1mmotd\"")
        );
        assert_eq!(text(b"", "nologin"), sentence("\"nologin\""));
        assert_eq!(text(b"", ""), sentence("it ended without a word"));
        assert_eq!(
            text(&[b'x'; 300], ""),
            sentence(&format!("\"{} …\"", "x".repeat(200)))
        );
    }

    #[test]
    fn a_link_that_is_down_is_temporary_and_a_missing_agent_is_not() {
        let host = || "h".to_owned();
        let lost = ConnectError::Lost {
            machine: host(),
            said: String::new(),
        };
        assert_eq!(lost.exit_code(), ExitCode::Temporary);
        assert_eq!(lost.to_string(), "Lost the connection to h");
        let missing = ConnectError::not_installed(
            "mail.example.org",
            "maildir-sync-server",
            false,
            "sh: not found".to_owned(),
        );
        assert_eq!(missing.exit_code(), ExitCode::Error);
        assert_eq!(
            missing.to_string(),
            "maildir-sync-server is not installed on mail.example.org, or not in the PATH of a non-interactive shell \
             (sh: not found); install it, or name its path in server_command or the key's forced command"
        );
    }
}
