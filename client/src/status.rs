//! `status`: when an account last synced, what is pending here, and whether it is healthy. Offline.

use std::collections::BTreeSet;

use maildir::{Options, Replica};
use protocol::Cursor;
use serde_json::{Value, json};

use crate::archive::{Archive, now_secs};
use crate::config::Account;
use crate::failure::Failure;
use crate::filter::Scope;
use crate::known;
use crate::record::Side;
use crate::report::{Skipped, duration_text};

/// How an account stands.
#[derive(Debug)]
pub struct Status {
    /// The account's name.
    pub account: String,
    /// Seconds since 1970, if it ever synced to the end.
    pub last_sync: Option<u64>,
    /// Messages that changed here since.
    pub changed_here: u64,
    /// Messages on which both sides were not agreed at the end of the last run.
    pub pending: u64,
    /// What was left alone then.
    pub skipped: Vec<Skipped>,
    /// What is wrong, one sentence.
    pub error: Option<String>,
}

impl Status {
    /// Looks at an account without changing anything.
    #[must_use]
    pub fn of(account: &Account) -> Status {
        let mut status = Status {
            account: account.name.clone(),
            last_sync: None,
            changed_here: 0,
            pending: 0,
            skipped: Vec::new(),
            error: None,
        };
        if let Err(failure) = status.look(account) {
            status.error = Some(failure.to_string());
        }
        status
    }

    fn look(&mut self, account: &Account) -> Result<(), Failure> {
        let Some(pair) = known::find(account) else {
            return Err(Failure::Usage(
                "It was never synced; run `maildir-sync sync` first".to_owned(),
            ));
        };
        let archive = Archive::open(&account.state_dir, pair.local, pair.remote, true)?;
        self.last_sync = archive.get("last_sync")?;
        let folders = archive.folders()?.into_iter().filter(|(_, folder)| {
            let [here, there] = Side::BOTH.map(|side| folder.on(side).map(|(_, name)| name));
            here != there && account.filter.scope(folder.name().as_bytes()) != Scope::Excluded
        });
        self.pending = (archive.pending()?.len() + folders.count()) as u64;
        self.skipped = archive
            .get::<BTreeSet<Skipped>>("skipped")?
            .unwrap_or_default()
            .into_iter()
            .collect();
        let mut local = Replica::open(Options {
            root: account.local.clone(),
            state_dir: account.state_dir.clone(),
            trash_dir: None,
            trash_days: u64::from(account.trash_days),
            client: String::new(),
            dry_run: true,
            checksum: false,
            expect: Some(pair.local),
            adopt: false,
            create: false,
            layout: maildir::layout::Setting::default(),
        })?;
        local.scan()?;
        if let Some(cursor) = archive.get::<Cursor>("local_cursor")? {
            if !local.continues(cursor.tag)? {
                return Err(Failure::Unsafe(
                    "The tree here is not the one that was synced last; the next run joins both sides and deletes nothing".to_owned(),
                ));
            }
            local.changes_since(cursor.number, |_| {
                self.changed_here += 1;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Whether nothing is wrong: it has synced to the end, the tree is the one that was synced, nothing was left alone.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.error.is_none() && self.last_sync.is_some() && self.skipped.is_empty()
    }

    /// For scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        let skipped: Vec<Value> = self.skipped.iter().map(Skipped::json).collect();
        json!({
            "account": self.account, "last_sync": self.last_sync, "changed_here": self.changed_here,
            "pending": self.pending, "skipped": skipped, "error": self.error, "healthy": self.is_healthy(),
        })
    }

    /// For people, one line and one for each message that was left alone.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = match self.last_sync {
            Some(at) => format!(
                "{}: last synced {} ago",
                self.account,
                duration_text(now_secs().saturating_sub(at) as f64)
            ),
            None => format!("{}: never synced to the end", self.account),
        };
        text.push_str(&format!(
            ", {} changed here since, {} pending",
            self.changed_here, self.pending
        ));
        if let Some(error) = &self.error {
            text.push_str(&format!("; {error}"));
        }
        for Skipped { side, path, why } in &self.skipped {
            text.push_str(&format!("\n  {path} {}: {why}", side.word()));
        }
        text
    }
}
