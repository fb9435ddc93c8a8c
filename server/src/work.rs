//! What the client is owed an answer for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the client is owed an answer for; clones count together.
#[derive(Clone, Default)]
pub(crate) struct Due(Arc<AtomicUsize>);

/// Something is owed as long as this lives.
pub(crate) struct Work(Due);

impl Due {
    /// Something is owed from now on.
    pub(crate) fn begin(&self) -> Work {
        self.0.fetch_add(1, Ordering::SeqCst);
        Work(self.clone())
    }

    pub(crate) fn is_any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

impl Work {
    /// What somebody else does is waited for: nothing is owed meanwhile.
    pub(crate) fn rest<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
        let result = wait();
        self.0.0.fetch_add(1, Ordering::SeqCst);
        result
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_owed_but_while_it_rests() {
        let due = Due::default();
        let (one, other) = (due.begin(), due.begin());
        drop(one);
        assert!(due.is_any());
        assert!(!other.rest(|| due.is_any()));
        assert!(due.is_any());
        drop(other);
        assert!(!due.is_any());
    }
}
