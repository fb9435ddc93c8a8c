//! A replica that several threads use in turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::replica::Replica;

/// A replica behind a lock; clones are the same replica.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Replica>>);

impl Shared {
    /// Shares a replica.
    #[must_use]
    pub fn new(replica: Replica) -> Shared {
        Shared(Arc::new(Mutex::new(replica)))
    }

    /// The replica, once nobody else uses it: a batch takes as long as the disk does.
    pub fn lock(&self) -> MutexGuard<'_, Replica> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
