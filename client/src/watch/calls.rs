//! What happens outside of an account's own two trees, and is to be heard by everybody who watches: a wake-up from suspend, another
//! network, SIGUSR1.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::endpoint::Bell;

/// One account's ear.
#[derive(Clone)]
pub(super) struct Ear(Arc<Heard>);

struct Heard {
    bell: Bell,
    doubt: AtomicBool,
    again: AtomicBool,
}

impl Ear {
    /// Whether connections became doubtful since this was asked last.
    pub(super) fn take_doubt(&self) -> bool {
        self.0.doubt.swap(false, Ordering::SeqCst)
    }

    /// Whether it is worth trying again at once since this was asked last.
    pub(super) fn take_again(&self) -> bool {
        self.0.again.swap(false, Ordering::SeqCst)
    }

    /// The bell that rings with each call.
    pub(super) fn bell(&self) -> &Bell {
        &self.0.bell
    }
}

/// Calls all accounts; clones call the same.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<Vec<Ear>>>);

impl Calls {
    fn ears(&self) -> MutexGuard<'_, Vec<Ear>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another account that listens.
    pub(super) fn listen(&self) -> Ear {
        let ear = Ear(Arc::new(Heard {
            bell: Bell::default(),
            doubt: AtomicBool::new(false),
            again: AtomicBool::new(false),
        }));
        self.ears().push(ear.clone());
        ear
    }

    /// The machine has slept, or its network is another one: connections may be dead, and what failed may work now.
    pub(super) fn network_changed(&self) {
        for ear in &*self.ears() {
            ear.0.doubt.store(true, Ordering::SeqCst);
            ear.0.again.store(true, Ordering::SeqCst);
            ear.0.bell.ring();
        }
    }

    /// Somebody asks to try again, or to look whether a pause has begun or ended.
    pub(super) fn try_again(&self) {
        for ear in &*self.ears() {
            ear.0.again.store(true, Ordering::SeqCst);
            ear.0.bell.ring();
        }
    }
}
