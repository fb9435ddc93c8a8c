//! One server and some clients in a directory of their own, with the real binaries and nothing of the user's.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{LIMIT, Running, must, start, start_on_terminal};
use crate::restore::keep_identities;
use crate::run::Run;
use crate::snapshot::assert_same;
use crate::terminal::Terminal;
use crate::tree::{Layout, Tree};

/// The user that tests of permissions run as, where the suite runs as root.
const NOBODY: u32 = 65_534;

/// A server's Maildir and clients that have one each; all of it vanishes when it is dropped.
#[derive(Debug)]
pub struct World {
    dir: TempDir,
    server: Tree,
    clients: Vec<Client>,
}

/// One laptop: a home, a Maildir in it, and how it reaches the server.
#[derive(Clone, Debug)]
pub struct Client {
    home: PathBuf,
    tree: Tree,
    remote: OsString,
    server_command: Option<String>,
    program: PathBuf,
    user: Option<u32>,
    extra: Vec<String>,
}

/// A command line of the client, not yet run.
#[derive(Clone, Debug)]
#[must_use]
pub struct Invocation {
    client: Client,
    words: Vec<OsString>,
    pair: bool,
    wrapper: Vec<OsString>,
    env: Vec<(String, OsString)>,
    limit: Duration,
}

/// The client's executable.
#[must_use]
pub fn client_program() -> PathBuf {
    program("maildir-sync")
}

/// The agent's executable.
#[must_use]
pub fn agent_program() -> PathBuf {
    program("maildir-sync-server")
}

/// The suite's own wrapper around the agent.
#[must_use]
pub fn wrap_program() -> PathBuf {
    program("agent-wrap")
}

/// The real agent, whose words are changed on the way; the lies are in `tests/peer/src/lies.rs`.
#[must_use]
pub fn twisting(lies: &str, agent: &str) -> String {
    format!("{} {lies} -- {agent}", program("agent-twists").display())
}

fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it lies");
    let deps = test.parent().expect("a test lies in a directory");
    let path = deps.parent().expect("target/<profile>/deps").join(name);
    assert!(
        path.is_file(),
        "{} is missing: cargo build --workspace --bins first",
        path.display()
    );
    path
}

/// The agent's command line for a state directory.
#[must_use]
pub fn agent_command(state: &Path) -> String {
    format!(
        "{} --state-dir {}",
        agent_program().display(),
        state.display()
    )
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

impl World {
    /// One client, Maildir++ on both sides.
    #[must_use]
    pub fn new() -> World {
        World::with_clients(1)
    }

    /// Some clients, Maildir++ everywhere.
    #[must_use]
    pub fn with_clients(count: usize) -> World {
        World::with_layouts(
            Layout::MaildirPlusPlus,
            &vec![Layout::MaildirPlusPlus; count],
        )
    }

    /// Some clients with the layouts given. The server's root is made; the clients' roots are not.
    #[must_use]
    pub fn with_layouts(server: Layout, clients: &[Layout]) -> World {
        let dir = tempfile::Builder::new()
            .prefix("ms")
            .tempdir()
            .expect("temporary directory");
        fs::create_dir(dir.path().join("w")).expect("world is made");
        let server = Tree::at(dir.path().join("w/server/Maildir"), server);
        server.create();
        let state = dir.path().join("w/server/state");
        let client = |(number, layout): (usize, &Layout)| {
            Client::new(
                &dir.path().join(format!("w/c{number}")),
                *layout,
                server.root().into(),
                &state,
            )
        };
        let clients = clients.iter().enumerate().map(client).collect();
        World {
            dir,
            server,
            clients,
        }
    }

    /// A world whose programs run as an ordinary user, so that permissions count even where the suite is root. Call
    /// [`World::give_away`] after making files.
    #[must_use]
    pub fn unprivileged() -> World {
        let mut world = World::new();
        if rustix::process::geteuid().is_root() {
            let bin = world.path("bin");
            fs::create_dir(&bin).expect("bin is made");
            for program in [client_program(), agent_program()] {
                fs::copy(&program, bin.join(program.file_name().expect("a file")))
                    .expect("program is copied");
            }
            fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755))
                .expect("world is opened");
            let agent = format!(
                "{}/maildir-sync-server --state-dir {}",
                bin.display(),
                world.server_state().display()
            );
            for client in &mut world.clients {
                client.user = Some(NOBODY);
                client.program = bin.join("maildir-sync");
                client.server_command = Some(agent.clone());
            }
            world.give_away();
        }
        world
    }

    /// Hands all files of an unprivileged world to its user.
    pub fn give_away(&self) {
        if let Some(user) = self.clients.first().and_then(|client| client.user) {
            for path in crate::snapshot::everything(&self.path("")).keys() {
                let is_link = fs::symlink_metadata(path).is_ok_and(|stat| stat.is_symlink());
                if !is_link {
                    chown(path, Some(user), Some(user)).expect("root may give files away");
                }
            }
        }
    }

    /// The server's Maildir.
    #[must_use]
    pub fn server(&self) -> &Tree {
        &self.server
    }

    /// The agent's state directory.
    #[must_use]
    pub fn server_state(&self) -> PathBuf {
        self.path("server/state")
    }

    /// The only or the first client.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.nth(0)
    }

    /// A client by number.
    #[must_use]
    pub fn nth(&self, number: usize) -> &Client {
        &self.clients[number]
    }

    /// All clients.
    #[must_use]
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// The only or the first client's Maildir.
    #[must_use]
    pub fn local(&self) -> &Tree {
        self.client().tree()
    }

    /// A path of the world.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("w").join(name)
    }

    /// Fails unless the server and the first client are equal.
    #[track_caller]
    pub fn assert_same(&self) {
        assert_same(&self.server, self.local());
    }

    /// Keeps a copy of the whole world beside it.
    pub fn save(&self, name: &str) {
        copy_dir(&self.path(""), &self.dir.path().join(name));
    }

    /// Puts the world back as it was when it was saved, also for what remembers its directories.
    pub fn load(&self, name: &str) {
        copy_dir(&self.dir.path().join(name), &self.path(""));
        let clients = self.clients.iter().map(|client| client.tree().root());
        let roots: Vec<&Path> = clients.chain([self.server.root()]).collect();
        keep_identities(&self.path(""), &roots);
    }
}

impl Client {
    fn new(home: &Path, layout: Layout, remote: OsString, server_state: &Path) -> Client {
        fs::create_dir_all(home.join("run")).expect("home is made");
        fs::set_permissions(home.join("run"), fs::Permissions::from_mode(0o700))
            .expect("run is closed");
        Client {
            home: home.to_owned(),
            tree: Tree::at(home.join("Maildir"), layout),
            remote,
            server_command: Some(agent_command(server_state)),
            program: client_program(),
            user: None,
            extra: Vec::new(),
        }
    }

    /// Its Maildir.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Its home.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Its state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    /// Its configuration file, which need not be there.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.home.join(".config/maildir-sync/config.toml")
    }

    /// Writes its configuration file.
    pub fn configure(&self, text: &str) {
        let path = self.config();
        fs::create_dir_all(path.parent().expect("lies in a directory")).expect("directory is made");
        fs::write(path, text).expect("config is written");
    }

    /// The same client with another way to the server.
    #[must_use]
    pub fn reaching(&self, remote: impl Into<OsString>, server_command: Option<String>) -> Client {
        Client {
            remote: remote.into(),
            server_command,
            ..self.clone()
        }
    }

    /// The same client with an option on every command line.
    #[must_use]
    pub fn with(&self, options: &[&str]) -> Client {
        let mut client = self.clone();
        client
            .extra
            .extend(options.iter().map(|&option| option.to_owned()));
        client
    }

    /// The same client with another Maildir.
    #[must_use]
    pub fn with_tree(&self, tree: &Tree) -> Client {
        Client {
            tree: tree.clone(),
            ..self.clone()
        }
    }

    /// The way to the server.
    #[must_use]
    pub fn remote(&self) -> &OsStr {
        &self.remote
    }

    /// `maildir-sync sync REMOTE LOCAL --json`.
    pub fn sync(&self) -> Invocation {
        self.pair("sync")
    }

    /// `maildir-sync pull REMOTE LOCAL --json`.
    pub fn pull(&self) -> Invocation {
        self.pair("pull")
    }

    /// `maildir-sync push REMOTE LOCAL --json`.
    pub fn push(&self) -> Invocation {
        self.pair("push")
    }

    /// A command on the pair of this client.
    pub fn pair(&self, command: &str) -> Invocation {
        let mut invocation = self.bare(&[command]);
        invocation.words.push("--json".into());
        invocation.pair = true;
        invocation
    }

    /// A command line as it is typed.
    pub fn bare(&self, words: &[&str]) -> Invocation {
        Invocation {
            client: self.clone(),
            words: words.iter().map(OsString::from).collect(),
            pair: false,
            wrapper: Vec::new(),
            env: Vec::new(),
            limit: LIMIT,
        }
    }
}

impl Invocation {
    /// Adds a word.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Invocation {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// Adds words.
    pub fn args(mut self, words: &[&str]) -> Invocation {
        self.words.extend(words.iter().map(OsString::from));
        self
    }

    /// Reaches the agent by another command.
    pub fn through(mut self, server_command: &str) -> Invocation {
        self.client.server_command = Some(server_command.to_owned());
        self
    }

    /// Reaches the agent by itself, found beside the client.
    pub fn found_beside(mut self) -> Invocation {
        self.client.server_command = None;
        self
    }

    /// Names another remote.
    pub fn remote(mut self, remote: impl AsRef<OsStr>) -> Invocation {
        self.client.remote = remote.as_ref().to_owned();
        self
    }

    /// Runs the client under another program.
    pub fn under(mut self, wrapper: &[&str]) -> Invocation {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Invocation {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Gives it more or less time.
    pub fn limit(mut self, limit: Duration) -> Invocation {
        self.limit = limit;
        self
    }

    /// Starts it.
    pub fn start(self) -> Running {
        let limit = self.limit;
        start(self.command(), limit)
    }

    /// Starts it before a person, on a terminal that is its own.
    #[must_use]
    pub fn before_a_person(self) -> Terminal {
        let wrapped = self.under(&["setsid", "--ctty"]).env("TERM", "xterm");
        Terminal::start(wrapped.command())
    }

    /// Runs it to its end, its stderr a terminal.
    pub fn run_on_terminal(self) -> Run {
        let (what, limit) = (self.to_string(), self.limit);
        Run::of(what, start_on_terminal(self.command(), limit).wait())
    }

    /// Runs it to its end.
    pub fn run(self) -> Run {
        let what = self.to_string();
        Run::of(what, self.start().wait())
    }

    pub(crate) fn command(self) -> Command {
        let client = &self.client;
        let mut words: Vec<OsString> = self.wrapper.clone();
        words.push(client.program.clone().into());
        words.extend(self.words.iter().cloned());
        if self.pair {
            words.extend(["--state-dir".into(), client.state().into()]);
            words.extend(client.extra.iter().map(OsString::from));
            if let Some(server_command) = &client.server_command {
                words.extend(["--server-command".into(), server_command.into()]);
            }
            words.extend([client.remote.clone(), client.tree.root().into()]);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear();
        environment(&mut command, &client.home);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(user) = client.user {
            command.uid(user).gid(user);
        }
        command
    }
}

impl std::fmt::Display for Invocation {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let words: Vec<_> = self
            .words
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        write!(
            f,
            "maildir-sync {} in {}",
            words.join(" "),
            self.client.home.display()
        )
    }
}

/// Points everything that a program looks up for its user into a home of the test.
fn environment(command: &mut Command, home: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    command
        .env("PATH", path)
        .env("HOME", home)
        .env("LANG", "C.UTF-8")
        .env("RUST_BACKTRACE", "1");
    command
        .env("XDG_CONFIG_HOME", home.join(".config"))
        .env("XDG_STATE_HOME", home.join(".local/state"));
    command
        .env("XDG_CACHE_HOME", home.join(".cache"))
        .env("XDG_RUNTIME_DIR", home.join("run"));
    command.current_dir(home);
}

/// Makes `to` a true copy of `from`, times and all, whatever was there.
pub fn copy_dir(from: &Path, to: &Path) {
    copy_as("-a", from, to);
}

/// The same, with what symbolic links lead to in their place.
pub fn copy_dir_through_links(from: &Path, to: &Path) {
    copy_as("-aL", from, to);
}

/// Makes `to` a snapshot of `from` by hard links, whatever was there.
pub fn link_dir(from: &Path, to: &Path) {
    copy_as("-al", from, to);
}

fn copy_as(how: &str, from: &Path, to: &Path) {
    remove_dir(to);
    // A trailing slash would make cp's meaning depend on whether the target is there.
    let clean = |path: &Path| path.components().collect::<PathBuf>();
    must(
        "cp",
        &[
            how.as_ref(),
            "--".as_ref(),
            clean(from).as_os_str(),
            clean(to).as_os_str(),
        ],
    );
}

/// Removes a directory with all that is in it, if it is there.
pub fn remove_dir(dir: &Path) {
    if dir.exists() {
        fs::remove_dir_all(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
}
