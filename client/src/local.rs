//! The replica on this side, and the threads that carry batches out on it: disks are waited for there, while the driver
//! takes in what comes and asks for more.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use maildir::{Body, Replica};
use protocol::{BatchId, Op, Outcome};

/// How many batches are under way at once: one is flushed, one is carried out, and one waits. Their bodies lie in `tmp`.
const BATCHES_AHEAD: usize = 3;

/// A replica that two threads use in turns.
#[derive(Clone)]
pub struct Local(Arc<Mutex<Replica>>);

impl Local {
    /// Shares a replica.
    #[must_use]
    pub fn new(replica: Replica) -> Local {
        Local(Arc::new(Mutex::new(replica)))
    }

    /// The replica, once no batch is being carried out.
    pub fn lock(&self) -> MutexGuard<'_, Replica> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One batch, with its bodies in order.
struct Job {
    batch: BatchId,
    ops: Vec<Op>,
    bodies: Vec<io::Result<Body>>,
}

/// Carries batches out, in the order in which it gets them: one thread makes their bodies durable, the next one does the
/// rest, so that a batch is flushed while the one before it is carried out.
pub struct Hand {
    jobs: Option<SyncSender<Job>>,
    results: Receiver<maildir::Result<Vec<Outcome>>>,
    under_way: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Hand {
    /// Starts it; it ends with this value, after what it was given.
    ///
    /// # Errors
    /// When no further descriptor is to be had.
    pub fn start(local: &Local) -> maildir::Result<Hand> {
        let (jobs, to_do) = sync_channel::<Job>(BATCHES_AHEAD);
        let (flushed, to_apply) = sync_channel::<Job>(BATCHES_AHEAD);
        let (done, results) = sync_channel(BATCHES_AHEAD);
        let flusher = local.lock().flusher()?;
        let flushing = std::thread::spawn(move || {
            for mut job in to_do {
                flusher.flush(&mut job.bodies);
                if flushed.send(job).is_err() {
                    return;
                }
            }
        });
        let local = local.clone();
        let applying = std::thread::spawn(move || {
            for job in to_apply {
                let result = local.lock().apply(Some(job.batch), &job.ops, job.bodies);
                // After a failure nothing more is begun: the driver hears of it and ends the run.
                let is_failed = result.is_err();
                if done.send(result).is_err() || is_failed {
                    return;
                }
            }
        });
        Ok(Hand {
            jobs: Some(jobs),
            results,
            under_way: 0,
            threads: vec![flushing, applying],
        })
    }

    /// Whether another batch has to wait for the outcome of an earlier one.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.under_way == BATCHES_AHEAD
    }

    /// Hands a batch over.
    pub fn give(&mut self, batch: BatchId, ops: Vec<Op>, bodies: Vec<io::Result<Body>>) {
        let jobs = self.jobs.as_ref();
        // A thread that is gone has failed, and its last result tells why.
        let is_given = jobs.is_some_and(|jobs| jobs.send(Job { batch, ops, bodies }).is_ok());
        self.under_way += usize::from(is_given);
    }

    /// The outcome of the oldest batch under way, if it is there; it is waited for if `wait` says so.
    ///
    /// # Errors
    /// What the replica said.
    pub fn take(&mut self, wait: bool) -> maildir::Result<Option<Vec<Outcome>>> {
        let result = match wait {
            _ if self.under_way == 0 => None,
            true => Some(self.results.recv().expect("every batch is answered")),
            false => self.results.try_recv().ok(),
        };
        self.under_way = match &result {
            Some(Ok(_)) => self.under_way - 1,
            Some(Err(_)) => 0, // It does nothing more.
            None => self.under_way,
        };
        result.transpose()
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // Had it panicked, its results would have ended, and the run with them.
        }
    }
}
