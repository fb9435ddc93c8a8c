//! Whether NetworkManager calls this machine's network metered, asked of the system bus by the program `busctl`. Where there is no
//! such program, or nobody who answers, it counts as not metered.

use std::io::ErrorKind;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::endpoint::program::output;
use crate::endpoint::transport::last_line;

const ASK: [&str; 8] = [
    "--system",
    "--json=short",
    "--auto-start=no",
    "get-property",
    "org.freedesktop.NetworkManager",
    "/org/freedesktop/NetworkManager",
    "org.freedesktop.NetworkManager",
    "Metered",
];
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(3);
/// Yes, and guessed so (`NMMetered`).
const YES: [u64; 2] = [1, 3];

/// What is known of it.
#[derive(Default)]
pub(super) struct Network {
    is_metered: bool,
    asked: Option<Instant>,
    is_absence_said: bool,
}

impl Network {
    pub(super) fn is_metered(&self) -> bool {
        self.is_metered
    }

    /// Forgets it.
    pub(super) fn forget(&mut self) {
        (self.is_metered, self.asked) = (false, None);
    }

    /// Asks, if it was not asked for so long.
    pub(super) fn look(&mut self, now: Instant, every: Duration) {
        if self.asked.is_some_and(|asked| now < asked + every) {
            return;
        }
        self.asked = Some(now);
        match ask() {
            Ok(Some(is_metered)) => self.is_metered = is_metered,
            // Nothing else is known than before.
            Ok(None) => tracing::info!("busctl said nothing for {} s", LIMIT.as_secs()),
            Err(why) => {
                self.is_metered = false;
                if !std::mem::replace(&mut self.is_absence_said, true) {
                    tracing::info!(
                        "Nobody says whether the network is metered, so it counts as not metered: {why}"
                    );
                }
            }
        }
    }
}

/// What NetworkManager says; nothing where the answer takes too long.
fn ask() -> Result<Option<bool>, String> {
    let answer = match output(Command::new("busctl").args(ASK), LIMIT) {
        Ok(Some(answer)) => answer,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err("there is no busctl".to_owned());
        }
        Err(error) => return Err(format!("Cannot start busctl: {error}")),
    };
    if !answer.status.success() {
        return Err(last_line(&answer.stderr));
    }
    match metered(&answer.stdout) {
        Some(is_metered) => Ok(Some(is_metered)),
        None => Err(format!("busctl says {}", last_line(&answer.stdout))),
    }
}

fn metered(answer: &[u8]) -> Option<bool> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    Some(YES.contains(&answer["data"].as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_guessed_yes_are_metered_and_what_is_no_answer_is_none() {
        let answers = (0..5).map(|value| {
            let answer = format!("{{\"type\":\"u\",\"data\":{value}}}\n");
            metered(answer.as_bytes())
        });
        let expected = [false, true, false, true, false].map(Some);
        assert_eq!(answers.collect::<Vec<_>>(), expected);
        for other in ["", "u 1", "{\"type\":\"s\",\"data\":\"1\"}", "[]"] {
            assert_eq!(metered(other.as_bytes()), None, "{other}");
        }
    }
}
