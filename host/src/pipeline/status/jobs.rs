//! The live numbers of a worker's jobs.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::queue::Verdict;

/// Raised by the tasks of a worker.
#[derive(Debug, Default)]
pub struct JobCounts {
    running: AtomicU64,
    done: AtomicU64,
    retried: AtomicU64,
    snoozed: AtomicU64,
    rejected: AtomicU64,
    cancelled: AtomicU64,
    refused: AtomicU64,
}

/// Of one stage in this host, since the stage was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct JobStatus {
    /// In calls now.
    pub running: u64,
    pub done: u64,
    /// Attempts that failed; the job came again, or was dead after the last.
    pub retried: u64,
    pub snoozed: u64,
    /// Given up by the plugin.
    pub rejected: u64,
    pub cancelled: u64,
    /// Runs whose end came too late.
    pub refused: u64,
}

impl JobCounts {
    pub fn begin(&self, jobs: usize) {
        self.running.fetch_add(jobs as u64, Ordering::Relaxed);
    }

    pub fn rest(&self, jobs: usize) {
        self.running.fetch_sub(jobs as u64, Ordering::Relaxed);
    }

    pub fn end(&self, verdict: &Verdict) {
        let count = match verdict {
            Verdict::Done(_) => &self.done,
            Verdict::Retry { .. } => &self.retried,
            Verdict::Snooze(_) => &self.snoozed,
            Verdict::Reject(_) => &self.rejected,
            Verdict::Cancel(_) => &self.cancelled,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    pub fn status(&self) -> JobStatus {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        JobStatus {
            running: of(&self.running),
            done: of(&self.done),
            retried: of(&self.retried),
            snoozed: of(&self.snoozed),
            rejected: of(&self.rejected),
            cancelled: of(&self.cancelled),
            refused: of(&self.refused),
        }
    }
}
