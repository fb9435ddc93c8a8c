//! What systemd wants to know of a service: that it is ready, how it stands, and that it works.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::Standing;
use crate::endpoint::Bell;

/// For how long to wait where nothing is due.
const LONG: Duration = Duration::from_secs(3600);

/// The service manager, if there is one.
pub(super) struct Service {
    /// How often it is to be told that all is well.
    interval: Option<Duration>,
}

impl Service {
    /// As the environment says.
    pub(super) fn from_env() -> Service {
        Service {
            // Twice as often as it must be.
            interval: sd_notify::watchdog_enabled().map(|limit| limit / 2),
        }
    }

    /// Tells it how all stand, until all have ended.
    pub(super) fn run(&self, standings: &[Standing], changed: &Bell) {
        let (mut is_ready, mut said) = (false, String::new());
        loop {
            let count = changed.count();
            if !is_ready && standings.iter().all(|one| one.lock().has_had_round) {
                is_ready = true;
                notify(&[NotifyState::Ready]);
            }
            let text: Vec<String> = standings
                .iter()
                .map(|one| one.lock().text.clone())
                .collect();
            let text = text.join("; ");
            if text != said {
                notify(&[NotifyState::Status(&text)]);
                said = text;
            }
            if self.interval.is_some() && !standings.iter().any(Standing::hangs) {
                notify(&[NotifyState::Watchdog]);
            }
            if standings.iter().all(|one| one.lock().has_ended) {
                return;
            }
            changed.wait(count, Instant::now() + self.interval.unwrap_or(LONG));
        }
    }
}

/// Where nobody listens, nothing is said.
fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("Cannot tell the service manager: {error}");
    }
}
