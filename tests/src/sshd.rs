//! A private sshd on loopback, with a host key and an authorized_keys of its own, and the client's side of it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{must, pid_of};
use crate::world::{Client, World, agent_program};

/// A running sshd; it dies when it is dropped, with its sessions.
#[derive(Debug)]
pub struct Sshd {
    child: Child,
    dir: PathBuf,
    log: Receiver<String>,
}

/// One that is not running.
#[derive(Debug)]
pub struct Down(PathBuf);

impl Down {
    /// Starts it again.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(&self) -> Sshd {
        Sshd::listen(&self.0).expect("sshd comes up again")
    }
}

/// What the server does with the client's key.
#[derive(Clone, Debug)]
pub enum Login {
    /// `command="…",restrict`.
    Forced(String),
    /// An ordinary login.
    Shell,
}

impl Login {
    /// The agent, confined to the world's server root, with more options.
    #[must_use]
    pub fn agent(world: &World, options: &str) -> Login {
        let root = world.server().root().display();
        let state = world.server_state();
        let state = state.display();
        Login::Forced(format!(
            "{} --root {root} --state-dir {state} {options}",
            agent_program().display()
        ))
    }
}

impl Sshd {
    /// Starts one in a world.
    ///
    /// # Panics
    /// When there is no sshd to be found, or it does not come up.
    #[must_use]
    pub fn start(world: &World, login: &Login) -> Sshd {
        let dir = world.path("sshd");
        if !dir.exists() {
            make_keys(&dir);
        }
        authorize(&dir, login);
        // Another process may take the port between asking and binding: then the next one is tried.
        (0..5)
            .find_map(|_| Sshd::try_start(&dir))
            .expect("sshd comes up")
    }

    fn try_start(dir: &Path) -> Option<Sshd> {
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").expect("sshd's own directory");
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a port is free")
            .port();
        configure(dir, port);
        Sshd::listen(dir)
    }

    /// Starts one as it is configured.
    fn listen(dir: &Path) -> Option<Sshd> {
        let mut command = Command::new(sshd_program());
        command
            .args(["-D", "-e", "-f"])
            .arg(dir.join("sshd_config"))
            .process_group(0);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let log = follow(child.stderr.take().expect("stderr is piped"));
        let mut sshd = Sshd {
            child,
            dir: dir.to_owned(),
            log,
        };
        loop {
            match sshd.log.recv_timeout(Duration::from_secs(20)) {
                Ok(line) if line.contains("Server listening") => return Some(sshd),
                Ok(_) => {}
                Err(_) => {
                    sshd.stop();
                    return None;
                }
            }
        }
    }

    /// Refuses every connection until it is started again, on the same port.
    #[must_use]
    pub fn refuse(mut self) -> Down {
        self.stop();
        Down(self.dir.clone())
    }

    /// Changes what the key may do, from the next login on.
    pub fn allow(&self, login: &Login) {
        authorize(&self.dir, login);
    }

    /// The client's ssh config, for `-F`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("ssh_config")
    }

    /// The client's key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.dir.join("key")
    }

    /// The host keys that the client knows.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    /// A client of the world that goes through this sshd, to a path there.
    #[must_use]
    pub fn client(&self, client: &Client, path: &str) -> Client {
        let config = self.config();
        client
            .reaching(format!("mailhost:{path}"), None)
            .with(&["-F", &config.display().to_string()])
    }

    /// How many logins there were since the last call.
    #[must_use]
    pub fn logins(&self) -> usize {
        self.logged("Accepted publickey")
    }

    /// How many connections there were since the last call, whatever became of them.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.logged("Connection from ")
    }

    fn logged(&self, words: &str) -> usize {
        self.log
            .try_iter()
            .filter(|line| line.contains(words))
            .count()
    }

    /// Stops the whole server in the middle of whatever it does, as a link does that swallows everything.
    pub fn freeze(&self) {
        let _ = self.stopped_family();
    }

    /// Stops the sessions that there are, and goes on listening. Returns those that serve a login, stopped.
    #[must_use]
    pub fn freeze_sessions(&self) -> Vec<Pid> {
        let sessions = children_of(pid_of(&self.child));
        for &session in &sessions {
            let _ = kill_process(session, Signal::STOP);
            // Where privileges are separated, a child of it speaks to the client.
            for child in children_of(session) {
                let is_agent = fs::read_to_string(format!("/proc/{}/comm", child.as_raw_nonzero()))
                    .is_ok_and(|name| !name.starts_with("sshd"));
                if !is_agent {
                    let _ = kill_process(child, Signal::STOP);
                }
            }
        }
        sessions
    }

    /// Ends all sessions, and goes on listening.
    pub fn forget_connections(&self) {
        for session in children_of(pid_of(&self.child)) {
            let _ = kill_process(session, Signal::KILL);
        }
    }

    /// A session makes a process group of its own, so the family is found by parentage.
    fn stopped_family(&self) -> Vec<Pid> {
        let mut family = vec![pid_of(&self.child)];
        let mut next = 0;
        while let Some(&parent) = family.get(next) {
            // Nobody of a stopped family has children any more while they are counted.
            let _ = kill_process(parent, Signal::STOP);
            family.extend(children_of(parent));
            next += 1;
        }
        family
    }

    fn stop(&mut self) {
        for pid in self.stopped_family() {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let pid = parent.as_raw_nonzero();
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|word| Pid::from_raw(word.parse().ok()?))
        .collect()
}

fn sshd_program() -> &'static str {
    let places = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"];
    places
        .into_iter()
        .find(|place| Path::new(place).exists())
        .expect("sshd is installed (tests/run does it)")
}

fn make_keys(dir: &Path) {
    fs::create_dir_all(dir).expect("directory is made");
    for name in ["host_key", "key"] {
        let file = dir.join(name);
        let words = ["-q", "-t", "ed25519", "-N", "", "-f"].map(OsStr::new);
        must("ssh-keygen", &[&words[..], &[file.as_os_str()]].concat());
    }
}

fn authorize(dir: &Path, login: &Login) {
    let key = fs::read_to_string(dir.join("key.pub")).expect("key was made");
    let line = match login {
        Login::Forced(command) => format!("command=\"{command}\",restrict {key}"),
        Login::Shell => key,
    };
    fs::write(dir.join("authorized_keys"), line).expect("key is authorized");
}

fn configure(dir: &Path, port: u16) {
    let path = dir.display();
    let server = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {path}/host_key\nPidFile none\n\
         AuthorizedKeysFile {path}/authorized_keys\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nLogLevel VERBOSE\nPrintMotd no\nPermitRootLogin yes\n"
    );
    fs::write(dir.join("sshd_config"), server).expect("server is configured");
    let host = fs::read_to_string(dir.join("host_key.pub")).expect("host key was made");
    fs::write(
        dir.join("known_hosts"),
        format!("[127.0.0.1]:{port} {host}"),
    )
    .expect("host is known");
    let client = format!(
        "Host mailhost\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {path}/key\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile {path}/known_hosts\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
    );
    fs::write(dir.join("ssh_config"), client).expect("client is configured");
    fs::set_permissions(dir.join("ssh_config"), fs::Permissions::from_mode(0o600))
        .expect("config is closed");
}

fn follow(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
