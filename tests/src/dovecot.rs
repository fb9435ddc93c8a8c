//! A real Dovecot over a Maildir, and the programs that copy Maildirs over IMAP from it: mbsync and OfflineIMAP.
//!
//! Nothing listens: each connection is a process of `imap` that speaks on a pipe and knows its user already. Dovecot
//! refuses to work for root, so where the suite is root it runs in a name space in which root is called otherwise.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::lacks::lacks;
use crate::process::{LIMIT, run};
use crate::tree::{Layout, Tree};

/// Where Debian has the process that speaks IMAP.
const IMAP: &str = "/usr/lib/dovecot/imap";
/// Under which name root is one that Dovecot works for.
const AS_USER: [&str; 4] = ["unshare", "--user", "--map-user=1000", "--map-group=1000"];

/// A Dovecot that serves one Maildir.
#[derive(Debug)]
pub struct Dovecot {
    dir: PathBuf,
}

impl Dovecot {
    /// Prepares one for a tree; its files go into a directory that is made. `None` where it cannot run here.
    #[must_use]
    pub fn serving(tree: &Tree, dir: &Path) -> Option<Dovecot> {
        if !has(&[IMAP]) || !can_change_name() {
            return None;
        }
        fs::create_dir_all(dir.join("home")).expect("directory is made");
        let (root, dir_text) = (tree.root().display(), dir.display());
        let location = match tree.layout() {
            Layout::MaildirPlusPlus => format!("maildir:{root}"),
            Layout::Nested => format!("maildir:{root}:LAYOUT=fs:INBOX={root}/INBOX"),
        };
        let conf = format!(
            "base_dir = {dir_text}/run\nstate_dir = {dir_text}/state\nmail_location = {location}\n\
             mail_home = {dir_text}/home\nprotocols = imap\nssl = no\nnamespace inbox {{\n  inbox = yes\n  separator = /\n}}\n"
        );
        fs::write(dir.join("dovecot.conf"), conf).expect("configuration is written");
        let change = if is_root() {
            AS_USER.join(" ")
        } else {
            String::new()
        };
        let script = format!(
            "#!/bin/sh\nexec env USER=tester HOME={dir_text}/home {change} {IMAP} -c {dir_text}/dovecot.conf \
             2>>{dir_text}/imap.log\n"
        );
        let dovecot = Dovecot {
            dir: dir.to_owned(),
        };
        fs::write(dovecot.tunnel(), script).expect("script is written");
        fs::set_permissions(dovecot.tunnel(), fs::Permissions::from_mode(0o755))
            .expect("script is made executable");
        Some(dovecot)
    }

    /// The command that speaks IMAP on stdin and stdout, for a user who is known already.
    #[must_use]
    pub fn tunnel(&self) -> PathBuf {
        self.dir.join("imap")
    }

    /// Gives it commands, each with its tag, and returns all that it answered.
    ///
    /// # Panics
    /// When it refuses one of them.
    #[must_use]
    pub fn speak(&self, commands: &[&str]) -> String {
        let mut child = Command::new(self.tunnel())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("imap starts");
        let mut lines: Vec<String> = commands
            .iter()
            .enumerate()
            .map(|(number, command)| format!("t{number} {command}\r\n"))
            .collect();
        lines.push("bye LOGOUT\r\n".to_owned());
        let mut stdin = child.stdin.take().expect("stdin is piped");
        stdin
            .write_all(lines.concat().as_bytes())
            .expect("imap listens");
        drop(stdin);
        let done = child.wait_with_output().expect("imap ends");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        for (number, command) in commands.iter().enumerate() {
            let is_done = said
                .lines()
                .any(|line| line.starts_with(&format!("t{number} OK")));
            assert!(is_done, "{command} was refused:\n{said}\n{}", self.log());
        }
        said
    }

    /// What it complained about.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("imap.log")).unwrap_or_default()
    }

    /// Lets mbsync copy everything into a tree, which is made if it is not there; `options` are lines more for its
    /// channel. False where there is no mbsync.
    #[must_use]
    pub fn mbsync(&self, tree: &Tree, options: &str) -> bool {
        if !has(&["mbsync"]) {
            return false;
        }
        let (inbox, style) = match tree.layout() {
            Layout::MaildirPlusPlus => (tree.root().to_owned(), "Maildir++"),
            Layout::Nested => (tree.root().join("INBOX"), "Verbatim"),
        };
        // Maildir++ has no place of its own for folders beside INBOX's.
        let path = match tree.layout() {
            Layout::MaildirPlusPlus => String::new(),
            Layout::Nested => format!("Path {}/\n", tree.root().display()),
        };
        fs::create_dir_all(tree.root()).expect("root is made");
        let rc = format!(
            "IMAPAccount server\nTunnel \"{}\"\n\nIMAPStore far\nAccount server\n\nMaildirStore near\n{path}Inbox {}\n\
             SubFolders {style}\n\nChannel all\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nCopyArrivalDate yes\n\
             SyncState {}/\n{}\n",
            self.tunnel().display(),
            inbox.display(),
            self.made("mbsync-state").display(),
            if options.is_empty() {
                "Sync Pull"
            } else {
                options
            },
        );
        fs::write(self.dir.join("mbsyncrc"), rc).expect("configuration is written");
        let rc = self.dir.join("mbsyncrc");
        self.run(
            "mbsync",
            &["-q".as_ref(), "-c".as_ref(), rc.as_os_str(), "-a".as_ref()],
        );
        true
    }

    /// Lets OfflineIMAP copy everything into a nested tree, or bring both up to each other. False where there is none.
    #[must_use]
    pub fn offlineimap(&self, tree: &Tree) -> bool {
        assert_eq!(tree.layout(), Layout::Nested, "the layout that it is told");
        if !has(&["offlineimap"]) {
            return false;
        }
        let rc = format!(
            "[general]\naccounts = all\nmetadata = {}\nui = quiet\n\n[Account all]\nlocalrepository = here\n\
             remoterepository = there\n\n[Repository here]\ntype = Maildir\nlocalfolders = {}\nsep = /\n\n\
             [Repository there]\ntype = IMAP\npreauthtunnel = {}\n",
            self.made("offlineimap-state").display(),
            tree.root().display(),
            self.tunnel().display(),
        );
        fs::write(self.dir.join("offlineimaprc"), rc).expect("configuration is written");
        let rc = self.dir.join("offlineimaprc");
        self.run(
            "offlineimap",
            &["-c".as_ref(), rc.as_os_str(), "-o".as_ref()],
        );
        true
    }

    fn made(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).expect("directory is made");
        dir
    }

    fn run(&self, program: &str, words: &[&OsStr]) {
        let mut command = Command::new(program);
        command.args(words).env("HOME", self.dir.join("home"));
        let done = run(command, LIMIT);
        assert_eq!(done.code, Some(0), "{program}: {done:?}\n{}", self.log());
    }
}

/// Whether these programs are there; see [`lacks`].
#[must_use]
#[track_caller]
pub fn has(programs: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &&str| std::env::split_paths(&paths).any(|dir| dir.join(program).is_file());
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| !is_there(program))
        .collect();
    if !missing.is_empty() {
        lacks(&format!("{missing:?} is not installed"));
    }
    missing.is_empty()
}

/// Whether root can be called otherwise, where that is needed.
fn can_change_name() -> bool {
    if !is_root() {
        return true;
    }
    let mut command = Command::new(AS_USER[0]);
    command.args(&AS_USER[1..]).arg("true");
    let can = run(command, LIMIT).code == Some(0);
    if !can {
        lacks("no user name space can be made");
    }
    can
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::body;
    use crate::tree::{files, name_bytes, split};

    fn messages(tree: &Tree, folder: &str) -> Vec<PathBuf> {
        let subs = ["cur", "new"].map(|sub| files(&tree.dir(folder).join(sub)));
        subs.concat()
    }

    #[test]
    fn a_real_dovecot_answers_and_real_programs_copy_from_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let server = Tree::at(dir.path().join("server"), Layout::MaildirPlusPlus);
        server.create();
        server.store("INBOX", "1.M1P1.mx", "S", &body("one"));
        server.deliver("Lists/debian", "2.M1P1.mx", &body("two"));
        let Some(dovecot) = Dovecot::serving(&server, &dir.path().join("dovecot")) else {
            return;
        };
        let said = dovecot.speak(&["SELECT Lists/debian", "FETCH 1 (FLAGS)"]);
        assert!(said.contains("1 EXISTS"), "{said}");
        let copy = Tree::at(dir.path().join("mbsync"), Layout::Nested);
        if dovecot.mbsync(&copy, "") {
            for folder in ["INBOX", "Lists/debian"] {
                let copied = messages(&copy, folder);
                assert_eq!(copied.len(), 1, "{folder}");
                assert!(split(name_bytes(&copied[0])).0.ends_with(b",U=1"));
                let bytes = fs::read_to_string(&copied[0]).expect("it is text");
                assert!(bytes.contains("\nX-TUID: "), "{bytes}");
            }
        }
        let copy = Tree::at(dir.path().join("offlineimap"), Layout::Nested);
        if dovecot.offlineimap(&copy) {
            for folder in ["INBOX", "Lists/debian"] {
                assert_eq!(messages(&copy, folder).len(), 1, "{folder}");
            }
        }
    }
}
