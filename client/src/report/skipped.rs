//! Messages and folders that were left alone, and why. The order of the fields is the stored format.

use protocol::message::Problem;
use serde::{Deserialize, Serialize};

use crate::merge::record::Side;
use crate::report::heading::{Heading, named};

/// A message or folder that was left alone, and why.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// On which side.
    pub side: Side,
    /// The file or folder, escaped.
    pub path: String,
    /// What is the matter with it.
    pub why: String,
    /// What the message says of itself, where its file is here.
    pub heading: Option<Heading>,
    /// Whether deletions on the other side wait for it.
    pub holds: bool,
}

impl Skipped {
    /// What a side reported of itself.
    pub fn on(side: Side, problems: Vec<Problem>) -> Vec<Skipped> {
        let skipped = |Problem { path, why, holds }| Skipped {
            side,
            path,
            why,
            holds,
            heading: None,
        };
        problems.into_iter().map(skipped).collect()
    }

    /// For people: the message, the side, and what is the matter.
    #[must_use]
    pub fn text(&self) -> String {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let named = match &self.heading {
            Some(heading) => named(folder, name, Some(heading)),
            None => format!("\"{}\"", self.path),
        };
        format!("{named} {}: {}", self.side.word(), self.why)
    }

    /// The folder and the side.
    #[must_use]
    pub fn folder(&self) -> String {
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("\"{folder}\" {}", self.side.word())
    }

    /// What of it is reported to people: once, as long as it stays the same.
    #[must_use]
    pub fn reported(&self) -> (Side, &str, &str) {
        (self.side, &self.path, &self.why)
    }

    /// For scripts.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "side": self.side.word(), "path": self.path, "why": self.why, "holds": self.holds })
    }
}
