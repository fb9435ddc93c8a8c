//! `status`: how the last attempt at an account ended, what is pending and why, and whether it is healthy. Offline.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use maildir::{Options, Replica};
use protocol::{Cursor, ReplicaId};
use rustix::fs::Access;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::archive::{Archive, now_secs};
use crate::config::Account;
use crate::merge::filter::Scope;
use crate::merge::folders::Folders;
use crate::report::figures::duration_text;
use crate::report::skipped::Skipped;
use crate::report::waiting::Waiting;
use crate::run::attempt::{self, Attempt};
use crate::run::failure::Failure;
use crate::run::hooks;
use crate::run::known;
use crate::run::pause::{self, Paused};
use crate::run::watching::{self, Record};

/// How an account stands.
#[derive(Debug)]
pub struct Status {
    /// The account's name.
    pub account: String,
    /// The last attempt, if there ever was one.
    pub attempt: Option<Attempt>,
    /// Messages that changed here since it last synced.
    pub changed_here: u64,
    /// Messages and folders on which both sides were not agreed at the end of the last run.
    pub pending: u64,
    /// What was left alone then.
    pub skipped: Vec<Skipped>,
    /// Patterns of the configuration that match no folder.
    pub unmatched: Vec<String>,
    /// What is wrong now, one sentence.
    pub error: Option<String>,
    /// Whether what is remembered of it could be read.
    pub is_known: bool,
    /// What hooks still have to get, and why, a sentence each.
    pub hooks: Vec<String>,
    /// The pause that is in force, which is nothing that is wrong.
    pub paused: Option<Paused>,
    /// The watch that is running, if there is one.
    pub watch: Option<Record>,
}

impl Status {
    /// Looks at an account without changing anything.
    #[must_use]
    pub fn of(account: &Account) -> Status {
        let mut status = Status {
            account: account.name.clone(),
            attempt: attempt::find(account),
            changed_here: 0,
            pending: 0,
            skipped: Vec::new(),
            unmatched: Vec::new(),
            error: None,
            is_known: true,
            hooks: hooks::waiting(account),
            paused: pause::current(&account.state_dir),
            watch: watching::running(account),
        };
        if let Err(failure) = status.look(account) {
            status.error = Some(failure.to_string());
        }
        status
    }

    fn look(&mut self, account: &Account) -> Result<(), Failure> {
        // What cannot be read is not taken for what is not there.
        for path in [known::path(account), attempt::path(account)] {
            if let Err(source) = std::fs::read(&path)
                && source.kind() != ErrorKind::NotFound
            {
                self.is_known = false;
                let what = "read";
                return Err(maildir::Error::Io { what, path, source }.into());
            }
        }
        let state_dir = &account.state_dir;
        if rustix::fs::access(state_dir, Access::WRITE_OK) == Err(Errno::ROFS) {
            // Then what is remembered may be older than the last attempt.
            let why =
                format!("The state directory {state_dir:?} can only be read; make it writable");
            return Err(Failure::Usage(why));
        }
        let Some(pair) = known::find(account) else {
            return match self.attempt {
                Some(_) => Ok(()),
                None => Err(Failure::Usage(
                    "It was never synced; run `maildir-sync sync` first".to_owned(),
                )),
            };
        };
        let archive = Archive::open(&account.state_dir, pair.local, pair.remote, true)?;
        let folders = Folders::load(&archive, account.setting())?;
        [self.unmatched, _] = folders.unmatched(&account.filter);
        let unlike = folders.iter().filter(|(id, folder)| {
            let scope = folders.scope(&account.filter, *id);
            folder.differs() && !matches!(scope, Scope::Excluded | Scope::Placeless)
        });
        let differing = (archive.pending()?.len() + unlike.count()) as u64;
        self.pending = differing.max(Waiting::total(self.waiting()));
        self.skipped = archive
            .get::<BTreeSet<Skipped>>("skipped")?
            .unwrap_or_default()
            .into_iter()
            .collect();
        let mut local = open(account, pair.local)?;
        local.scan()?;
        if let Some(cursor) = archive.get::<Cursor>("local_cursor")? {
            if !local.continues(cursor.tag)? {
                return Err(Failure::Unsafe(
                    "The tree here is not the one that was synced last; the next run joins both sides and deletes nothing".to_owned(),
                ));
            }
            self.changed_here = local.count_since(cursor.number)?;
        }
        Ok(())
    }

    fn waiting(&self) -> &[Waiting] {
        let attempt = self.attempt.as_ref();
        attempt.map_or(&[], |attempt| &attempt.waiting)
    }

    /// The last attempt, where it failed.
    fn failed(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| attempt.failed())
    }

    fn last_sync(&self) -> Option<u64> {
        self.attempt.as_ref()?.last_sync
    }

    /// Whether nothing is wrong: it has synced to the end, the last attempt did not fail, the tree is the one that was
    /// synced. What stands skipped or waits is said, and nothing new.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.error.is_none() && self.failed().is_none() && self.last_sync().is_some()
    }

    /// For scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        let skipped: Vec<Value> = self.skipped.iter().map(Skipped::json).collect();
        let failed = self.failed();
        let error = self.error.as_ref();
        let attempt = self.attempt.as_ref().map(|attempt| {
            json!({
                "at": attempt.at, "command": attempt.command, "exit": attempt.exit, "error": attempt.error,
            })
        });
        let hook = Some(self.hooks.join("; ")).filter(|hook| !hook.is_empty());
        json!({
            "account": self.account, "last_sync": self.last_sync(), "changed_here": self.changed_here,
            "pending": self.pending, "waiting": self.waiting(), "skipped": skipped,
            "error": error.or(failed.and_then(|attempt| attempt.error.as_ref())),
            "last_attempt": attempt, "failing_since": failed.and_then(|attempt| attempt.failing_since),
            "plan": failed.and_then(|attempt| attempt.plan.as_ref()), "healthy": self.is_healthy(),
            "hook": hook, "paused": self.paused, "watch": self.watch, "unmatched": self.unmatched,
        })
    }

    /// For people: a line on how it stands, one on each thing that is wrong or waits.
    #[must_use]
    pub fn text(&self) -> String {
        let ago = |at: u64| duration_text(now_secs().saturating_sub(at) as f64);
        let health = if self.is_healthy() {
            "healthy"
        } else {
            "not healthy"
        };
        let synced = match self.last_sync() {
            Some(at) => format!("last synced {} ago", ago(at)),
            None if !self.is_known => "nobody knows when it last synced".to_owned(),
            None => "never synced to the end".to_owned(),
        };
        let mut text = format!(
            "{}: {health}; {synced}, {} changed here since, {} pending",
            self.account, self.changed_here, self.pending
        );
        if let Some(paused) = &self.paused {
            text += &format!("\n  {}", paused.sentence());
        }
        if let Some(watch) = &self.watch {
            text += &format!("\n  {}", watch.sentence());
        }
        let said = self.failed().and_then(|attempt| attempt.error.as_ref());
        if let Some(attempt) = self.failed() {
            text += &format!(
                "\n  the last attempt ({}), {} ago, {} (exit {}): {}",
                attempt.command,
                ago(attempt.at),
                ended(attempt),
                attempt.exit,
                said.map_or("no more is known", String::as_str),
            );
            if let Some(since) = attempt.failing_since.filter(|since| *since < attempt.at) {
                text += &format!("\n  it has been failing for {}", ago(since));
            }
            if let Some(plan) = attempt.plan.as_ref().filter(|_| !attempt.names_plan()) {
                text += &format!(
                    "\n  what the guard holds back is confirmed by --confirm {plan}, and brought back by --adopt"
                );
            }
        }
        if let Some(error) = self.error.as_ref().filter(|error| said != Some(*error)) {
            text += &format!("\n  {error}");
        }
        for waiting in self.waiting() {
            text += &format!("\n  {}", waiting.text());
        }
        for hook in &self.hooks {
            text += &format!("\n  {hook}");
        }
        for pattern in &self.unmatched {
            text += &format!("\n  no folder matches {pattern}");
        }
        for skipped in &self.skipped {
            text += &format!("\n  skipped: {}", skipped.text());
        }
        text
    }
}

/// How an attempt that failed ended, in words.
fn ended(attempt: &Attempt) -> &'static str {
    match attempt.exit {
        2 => "could not begin",
        4 if attempt.names_plan() => "was refused by the guard",
        4 => "was refused for the mail's safety",
        75 => "was given up for now",
        _ => "failed",
    }
}

/// Opens the replica here to look at it.
fn open(account: &Account, expect: ReplicaId) -> Result<Replica, Failure> {
    Ok(Replica::open(Options {
        root: account.local.clone(),
        state_dir: account.state_dir.clone(),
        trash_dir: None,
        trash_days: u64::from(account.trash_days),
        client: String::new(),
        dry_run: true,
        checksum: false,
        expect: Some(expect),
        adopt: false,
        create: false,
        follow_links: account.follow_links,
    })?)
}
