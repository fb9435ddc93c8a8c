//! Makes the ssh connection itself: the `ssh` of this machine, in the background, with a control socket.

use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use protocol::bytes::escape;

use super::{Login, terminal};
use crate::endpoint::program::{Program, output};
use crate::endpoint::transport::{ConnectError, Patience, Relay, Tail};

/// How often is looked whether a person is being asked, or wants us to end.
const TICK: Duration = Duration::from_millis(50);
/// A Ctrl-C on the terminal is for us alone: whatever ssh itself has started (a jump host's connection) would die of it, and
/// with it the connection. ssh's prompts, which need the terminal, get it all the same.
const WITHOUT_INTERRUPT: &str = "trap '' INT; exec \"$0\" \"$@\"";

/// What we need to know of the user's ssh config.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// The control socket that he would use, if any.
    pub(super) control_path: Option<PathBuf>,
    /// Whether he limits how long connecting may take.
    limits_connecting: bool,
}

/// Asks ssh what the user's config says about this login.
///
/// # Errors
/// When ssh is not there, or the config or the key file is not.
pub(super) fn settings(login: &Login, patience: &Patience) -> Result<Settings, ConnectError> {
    let mut command = base(login);
    command.arg("-G").arg("--").arg(login.host);
    let output = output(&mut command, patience.left()).map_err(not_started)?;
    let output = output.ok_or_else(|| late(login, patience))?;
    if !output.status.success() {
        let said = crate::endpoint::transport::one_line(&output.stderr);
        return Err(ConnectError::Options(format!(
            "ssh does not accept its configuration: {said}"
        )));
    }
    Ok(parse_settings(&output.stdout))
}

fn parse_settings(output: &[u8]) -> Settings {
    let value = |key: &[u8]| {
        let line = output
            .split(|&byte| byte == b'\n')
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(b" "));
        line.filter(|value| !value.is_empty() && *value != b"none")
    };
    let control_path =
        value(b"controlpath").map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)));
    Settings {
        control_path,
        limits_connecting: value(b"connecttimeout").is_some(),
    }
}

/// Connects and logs in, and leaves ssh in the background with its control socket at `socket`.
///
/// # Errors
/// When there is no connection; the sentence is made from what ssh said.
pub(super) fn start(
    login: &Login,
    settings: &Settings,
    socket: &Path,
    idle_secs: u64,
    patience: &mut Patience,
) -> Result<(), ConnectError> {
    if let Some(key) = login.options.identity.as_ref().filter(|key| !key.exists()) {
        let key = escape(key.as_os_str().as_bytes());
        return Err(ConnectError::Options(format!("There is no key \"{key}\"")));
    }
    let interactive = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let words = background(login, settings, socket, idle_secs, interactive, patience);
    let mut command = if interactive {
        let mut shell = Command::new("sh");
        shell.args(["-c", WITHOUT_INTERRUPT, "ssh"]);
        shell.args(words.get_args());
        shell
    } else {
        words
    };
    if !interactive {
        command.process_group(0);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut ssh = command.spawn().map_err(not_started)?;
    let relay = match (login.options.verbose, interactive) {
        (true, _) => Relay::AtOnce,
        (false, true) => Relay::HeldBack,
        (false, false) => Relay::Never,
    };
    let stderr = ssh.stderr.take().expect("stderr was asked to be a pipe");
    let stderr = Tail::collect(stderr, relay);
    let (ended, end) = channel();
    let ssh = Program::watch(ssh, move |status| drop(ended.send(status)));
    let status = wait(login, &ssh, &end, interactive, patience)?;
    if status.success() {
        return Ok(());
    }
    if interactive {
        std::thread::sleep(TICK); // A Ctrl-C at a question ends ssh, which may be quicker than we are to learn of it.
    }
    if login.options.stop.is_requested() {
        Err(ConnectError::Interrupted)
    } else {
        Err(explain(login, &stderr.bytes()))
    }
}

/// Waits for the login. While a person is asked something on the terminal, time is his.
fn wait(
    login: &Login,
    ssh: &Program,
    end: &Receiver<std::io::Result<ExitStatus>>,
    interactive: bool,
    patience: &mut Patience,
) -> Result<ExitStatus, ConnectError> {
    loop {
        match end.recv_timeout(TICK) {
            Ok(status) => return status.map_err(not_started),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(late(login, patience)); // The thread that waits for it is gone.
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if login.options.stop.is_requested() {
            ssh.terminate();
            return Err(ConnectError::Interrupted);
        }
        if interactive && terminal::is_open_in(ssh.pid().as_raw_nonzero().get()) {
            patience.give(TICK);
        } else if patience.left().is_zero() {
            if interactive {
                ssh.terminate();
            } else {
                ssh.kill_group();
            }
            return Err(late(login, patience));
        }
    }
}

fn late(login: &Login, patience: &Patience) -> ConnectError {
    ConnectError::Unreachable {
        host: login.host.to_owned(),
        said: format!("no answer within {} s", patience.seconds()),
    }
}

/// The command line of a connection in the background.
fn background(
    login: &Login,
    settings: &Settings,
    socket: &Path,
    idle_secs: u64,
    interactive: bool,
    patience: &Patience,
) -> Command {
    let mut command = base(login);
    // -f: it returns once the login has succeeded. -a, -x: neither the user's ssh agent nor his display is the
    // server's business. LogLevel: without its words nothing says why it failed.
    command
        .args(["-f", "-N", "-a", "-x", "-S"])
        .arg(escape_percent(socket));
    let mut options = vec![
        "ControlMaster=auto".to_owned(),
        format!("ControlPersist={idle_secs}"),
        "ServerAliveInterval=15".to_owned(),
        "ServerAliveCountMax=3".to_owned(),
        "ClearAllForwardings=yes".to_owned(),
        "Compression=no".to_owned(),
        "LogLevel=INFO".to_owned(),
    ];
    if !settings.limits_connecting {
        // TCP alone would take two minutes.
        options.push(format!("ConnectTimeout={}", patience.seconds()));
    }
    if !interactive {
        options.push("BatchMode=yes".to_owned());
    }
    for option in &options {
        command.args(["-o", option]);
    }
    command.arg("--").arg(login.host);
    command
}

/// The options that say who logs in where.
fn base(login: &Login) -> Command {
    let mut command = Command::new("ssh");
    command.args(login_options(login));
    command
}

fn login_options(login: &Login) -> Vec<std::ffi::OsString> {
    let mut words: Vec<std::ffi::OsString> = Vec::new();
    if let Some(config) = &login.options.ssh_config {
        words.extend(["-F".into(), config.into()]);
    }
    if let Some(key) = &login.options.identity {
        words.extend([
            "-i".into(),
            key.into(),
            "-o".into(),
            "IdentitiesOnly=yes".into(),
        ]);
    }
    if let Some(port) = login.port {
        words.extend(["-p".into(), port.to_string().into()]);
    }
    if let Some(user) = login.user {
        words.extend(["-l".into(), user.into()]);
    }
    words
}

/// ssh expands `%` in the path of a control socket.
fn escape_percent(path: &Path) -> std::ffi::OsString {
    let bytes = path.as_os_str().as_bytes();
    let escaped = bytes.iter().flat_map(|&byte| {
        if byte == b'%' {
            vec![byte; 2]
        } else {
            vec![byte]
        }
    });
    std::os::unix::ffi::OsStringExt::from_vec(escaped.collect())
}

fn not_started(source: std::io::Error) -> ConnectError {
    ConnectError::Start {
        program: "ssh".to_owned(),
        source,
    }
}

/// Turns ssh's last words into an error of ours. They are English whatever the locale: ssh translates nothing.
fn explain(login: &Login, said: &[u8]) -> ConnectError {
    let host = login.host.to_owned();
    let has = |words: &[&str]| {
        words
            .iter()
            .any(|word| said.windows(word.len()).any(|part| part == word.as_bytes()))
    };
    let last = crate::endpoint::transport::last_line(said);
    if has(&[
        "Host key verification failed",
        "No matching host key fingerprint found in DNS",
    ]) {
        let changed = has(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]);
        ConnectError::HostKey {
            host,
            changed,
            check: check(login),
        }
    } else if has(&[
        "Permission denied (",
        "Too many authentication failures",
        "No supported authentication methods",
    ]) {
        match open_key(said) {
            Some(key) => ConnectError::OpenKey { host, key },
            None => ConnectError::Denied {
                host,
                said: last,
                check: check(login),
            },
        }
    } else if has(&UNREACHABLE) {
        ConnectError::Unreachable { host, said: last }
    } else if last.is_empty() {
        ConnectError::Ssh {
            host,
            said: "it ended without a word".to_owned(),
        }
    } else {
        ConnectError::Ssh {
            host,
            said: crate::endpoint::transport::one_line(said),
        }
    }
}

/// The private key that ssh did not use because others may read it: "Permissions 0644 for '/k' are too open."
fn open_key(said: &[u8]) -> Option<String> {
    let mut lines = said
        .split(|byte| b"\r\n".contains(byte))
        .map(|line| escape(line.trim_ascii()));
    lines.find_map(|line| {
        let (_, rest) = line.strip_prefix("Permissions ")?.split_once(" for '")?;
        Some(rest.strip_suffix("' are too open.")?.to_owned())
    })
}

/// What ssh says when trying again later may help.
const UNREACHABLE: [&str; 11] = [
    "Could not resolve hostname",
    "Connection refused",
    "timed out",
    "No route to host",
    "Network is unreachable",
    "Host is down",
    "Connection closed by",
    "Connection reset by",
    "Broken pipe",
    "kex_exchange_identification",
    "Timeout, server",
];

/// The command that lets people see for themselves what is wrong.
fn check(login: &Login) -> String {
    let mut words = vec!["ssh".to_owned()];
    words.extend(
        login_options(login)
            .iter()
            .map(|word| escape(word.as_bytes())),
    );
    words.extend([login.host.to_owned(), "true".to_owned()]);
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::transport::ConnectOptions;
    use crate::report::exit_code::ExitCode;

    #[test]
    fn the_users_own_socket_is_found() {
        let output = b"user me\ncontrolmaster auto\ncontrolpath /run/ssh/a b\nconnecttimeout 5\n";
        let settings = Settings {
            control_path: Some("/run/ssh/a b".into()),
            limits_connecting: true,
        };
        assert_eq!(parse_settings(output), settings);
        assert_eq!(
            parse_settings(b"controlpath none\nconnecttimeout none\n"),
            Settings::default()
        );
        assert_eq!(parse_settings(b"controlpathology x\n"), Settings::default());
    }

    #[test]
    fn what_ssh_says_becomes_one_sentence_and_the_right_exit_code() {
        let options = ConnectOptions {
            identity: Some("/k".into()),
            ..ConnectOptions::default()
        };
        let login = Login {
            user: Some("me"),
            host: "mail.example.org",
            port: Some(2222),
            options: &options,
        };
        let check = "ssh -i /k -o IdentitiesOnly=yes -p 2222 -l me mail.example.org true";
        let table = [
            (
                "ssh: Could not resolve hostname mail.example.org: Name or service not known\r\n",
                "Cannot reach mail.example.org: Could not resolve hostname mail.example.org: Name or service not known; \
                 check the name and the network"
                    .to_owned(),
                ExitCode::Temporary,
            ),
            (
                "Warning: x\nssh: connect to host mail.example.org port 2222: Connection refused\r\n",
                "Cannot reach mail.example.org: connect to host mail.example.org port 2222: Connection refused; check \
                 the name and the network"
                    .to_owned(),
                ExitCode::Temporary,
            ),
            (
                "Connection timed out during banner exchange\r\nConnection to 192.0.2.1 port 22 timed out\r\n",
                "Cannot reach mail.example.org: Connection to 192.0.2.1 port 22 timed out; check the name and the \
                 network"
                    .to_owned(),
                ExitCode::Temporary,
            ),
            (
                "me@mail.example.org: Permission denied (publickey).\r\n",
                format!(
                    "mail.example.org refused the login: me@mail.example.org: Permission denied (publickey); check the \
                     key with `{check}`"
                ),
                ExitCode::Error,
            ),
            (
                "@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\r\nPermissions 0644 for '/a k' are too open.\r\n\
                 This private key will be ignored.\r\nLoad key \"/a k\": bad permissions\r\n\
                 me@mail.example.org: Permission denied (publickey).\r\n",
                "mail.example.org refused the login: others may read the key file \"/a k\", so ssh did not use it; run \
                 `chmod 600 '/a k'`"
                    .to_owned(),
                ExitCode::Error,
            ),
            (
                "No ED25519 host key is known for mail.example.org and you have requested strict checking.\r\n\
                 Host key verification failed.\r\n",
                format!("The host key of mail.example.org is not known yet: run `{check}` once and compare it"),
                ExitCode::Error,
            ),
            (
                "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.\n",
                format!("The host key of mail.example.org is another one than before: find out why, then see what `{check}` says"),
                ExitCode::Error,
            ),
            ("\x1bUnable to x\n", "ssh to mail.example.org failed: \\x1bUnable to x".to_owned(), ExitCode::Error),
            ("", "ssh to mail.example.org failed: it ended without a word".to_owned(), ExitCode::Error),
        ];
        for (said, sentence, code) in table {
            let error = explain(&login, said.as_bytes());
            assert_eq!((error.to_string(), error.exit_code()), (sentence, code));
        }
    }

    #[test]
    fn the_host_stands_behind_all_options_and_the_rest_is_as_decided() {
        let config = Some(PathBuf::from("/my config"));
        let options = ConnectOptions {
            ssh_config: config,
            timeout: Duration::from_secs(60),
            ..ConnectOptions::default()
        };
        let login = Login {
            user: None,
            host: "mail.example.org",
            port: None,
            options: &options,
        };
        let line = |settings: &Settings, interactive| {
            let patience = Patience::of(&options);
            let socket = Path::new("/run/%s");
            let command = background(&login, settings, socket, 600, interactive, &patience);
            let words: Vec<&str> = command
                .get_args()
                .filter_map(|word| word.to_str())
                .collect();
            words.join(" ")
        };
        let fixed = "-F /my config -f -N -a -x -S /run/%%s -o ControlMaster=auto -o ControlPersist=600 \
             -o ServerAliveInterval=15 -o ServerAliveCountMax=3 -o ClearAllForwardings=yes -o Compression=no \
             -o LogLevel=INFO";
        let host = "-- mail.example.org";
        let limited = Settings {
            limits_connecting: true,
            ..Settings::default()
        };
        assert_eq!(line(&limited, true), format!("{fixed} {host}"));
        let unlimited = line(&Settings::default(), false);
        assert_eq!(
            unlimited,
            format!("{fixed} -o ConnectTimeout=30 -o BatchMode=yes {host}")
        );
    }

    #[test]
    fn percent_signs_of_a_path_are_not_expanded() {
        assert_eq!(escape_percent(Path::new("/run/%h/x")), "/run/%%h/x");
    }
}
