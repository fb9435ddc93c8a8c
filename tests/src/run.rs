//! What one run of the client said: exit code, the JSON object, and what people read.

use serde_json::Value;

use crate::process::Finished;

/// The tallies of either side.
pub const TALLIES: [&str; 6] = ["new", "flags", "moved", "copied", "deleted", "replaced"];

/// A finished run of `maildir-sync … --json`.
#[derive(Clone, Debug)]
#[must_use]
pub struct Run {
    /// The command line, for messages.
    pub what: String,
    /// The exit code; none when the client was killed.
    pub code: Option<i32>,
    /// The JSON object of the account, if one was printed.
    pub json: Option<Value>,
    /// Everything on stdout.
    pub stdout: String,
    /// Everything on stderr.
    pub stderr: String,
}

impl Run {
    /// Reads what a process left behind.
    pub fn of(what: String, done: Finished) -> Run {
        let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
        let json = stdout
            .lines()
            .rev()
            .find_map(|line| serde_json::from_str(line).ok());
        let json = json.or_else(|| serde_json::from_str(&stdout).ok());
        Run {
            what,
            code: done.code,
            json,
            stdout,
            stderr: done.stderr,
        }
    }

    /// Fails unless the exit code is this one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Run {
        assert_eq!(
            self.code,
            Some(code),
            "{} should exit {code}, and said:\n{}{}",
            self.what,
            self.stdout,
            self.stderr
        );
        if let Some(told) = self
            .json
            .as_ref()
            .and_then(|json| json.get("exit"))
            .and_then(Value::as_i64)
        {
            assert_eq!(
                told,
                i64::from(code),
                "the exit in the JSON of {}",
                self.what
            );
        }
        self
    }

    /// Fails unless all went well.
    #[track_caller]
    pub fn ok(self) -> Run {
        self.exits(0)
    }

    /// Fails unless stderr has this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Run {
        let found = self.stderr.to_lowercase().contains(&text.to_lowercase());
        assert!(
            found,
            "{} should say {text:?} on stderr, but said:\n{}",
            self.what, self.stderr
        );
        self
    }

    /// Fails unless stderr is one line, for a person.
    #[track_caller]
    pub fn says_one_sentence(self) -> Run {
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        assert_eq!(
            lines.len(),
            1,
            "{} should say one sentence on stderr, but said:\n{}",
            self.what,
            self.stderr
        );
        assert!(
            !self.stderr.contains("panicked"),
            "{} panicked: {}",
            self.what,
            self.stderr
        );
        self
    }

    /// A figure of the JSON object, by its path; a list counts its elements.
    ///
    /// # Panics
    /// When the object has no such figure.
    #[must_use]
    #[track_caller]
    pub fn figure(&self, path: &[&str]) -> u64 {
        let json = self
            .json
            .as_ref()
            .unwrap_or_else(|| panic!("{} printed no JSON: {}", self.what, self.stderr));
        let value = path.iter().try_fold(json, |value, key| value.get(key));
        match value {
            Some(Value::Array(list)) => list.len() as u64,
            Some(Value::Number(number)) => number.as_u64().expect("figures are not negative"),
            other => panic!("{}: {path:?} is {other:?} in {json}", self.what),
        }
    }

    /// A tally of what happened here.
    #[must_use]
    #[track_caller]
    pub fn here(&self, tally: &str) -> u64 {
        self.figure(&["here", tally])
    }

    /// A tally of what happened there.
    #[must_use]
    #[track_caller]
    pub fn there(&self, tally: &str) -> u64 {
        self.figure(&["there", tally])
    }

    /// How many conflicts were reported.
    #[must_use]
    #[track_caller]
    pub fn conflicts(&self) -> u64 {
        self.figure(&["conflicts"])
    }

    /// How many changes stay pending.
    #[must_use]
    #[track_caller]
    pub fn pending(&self) -> u64 {
        self.figure(&["pending"])
    }

    /// Bytes sent and received, together.
    #[must_use]
    #[track_caller]
    pub fn bytes(&self) -> u64 {
        self.figure(&["bytes_sent"]) + self.figure(&["bytes_received"])
    }

    /// Everything that was done, both sides together.
    #[must_use]
    #[track_caller]
    pub fn done(&self) -> u64 {
        TALLIES
            .iter()
            .map(|tally| self.here(tally) + self.there(tally))
            .sum()
    }

    /// Fails if anything was done.
    #[track_caller]
    pub fn idle(self) -> Run {
        assert_eq!(
            self.done(),
            0,
            "{} should have had nothing to do: {}",
            self.what,
            self.stdout
        );
        self
    }

    /// The plan that `--confirm` wants.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn plan(&self) -> String {
        let plan = self
            .json
            .as_ref()
            .and_then(|json| json.pointer("/plan/name"))
            .and_then(Value::as_str);
        plan.unwrap_or_else(|| {
            panic!(
                "{} gave no plan to confirm: {}{}",
                self.what, self.stdout, self.stderr
            )
        })
        .to_owned()
    }
}
