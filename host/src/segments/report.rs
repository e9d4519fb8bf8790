//! What a tick did.

use sqlx::error::DatabaseError;

/// A tick that could not be carried through.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
}

/// Counts of segments, unless named otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Another host was at it, so nothing was done.
    pub busy: bool,
    /// Detaches that had been left half done.
    pub finalized: u32,
    pub created: u32,
    pub sealed: u32,
    /// Taken out of the log by retention.
    pub expired: u32,
    pub detached: u32,
    pub dropped: u32,
    /// Rows of idle producers, tombstones and segments dropped long ago.
    pub forgotten: u64,
    /// A lock was not to be had in 200 ms; the next tick tries again.
    pub postponed: u32,
    /// Errors by segment or topic.
    pub failures: Vec<String>,
}

impl Report {
    /// 1 for what was done; else notes why not.
    pub(super) fn done(&mut self, done: Result<(), sqlx::Error>, what: &str) -> u32 {
        match done {
            Ok(()) => 1,
            Err(error) => {
                self.failed(&error, what);
                0
            }
        }
    }

    /// Locks, deadlocks, and a topic that was deleted meanwhile pass by themselves; so does 55000, another detach of the
    /// same topic that is pending.
    pub(super) fn failed(&mut self, error: &sqlx::Error, what: &str) {
        let code = error.as_database_error().and_then(DatabaseError::code);
        match code.as_deref() {
            Some("55P03" | "40P01" | "40001" | "42P01" | "55000") => self.postponed += 1,
            _ => self.failures.push(format!("{what}: {error}")),
        }
    }

    pub(super) fn log(&self) {
        let counts = [
            ("created", self.created),
            ("sealed", self.sealed),
            ("dropped", self.dropped),
            ("postponed", self.postponed),
        ];
        for (what, count) in counts {
            metrics::counter!("tidemill_segments_total", "what" => what).increment(count.into());
        }
        for failure in &self.failures {
            tracing::warn!(failure, "a segment is not maintained; trying again with the next tick");
        }
        if self.created + self.sealed + self.dropped > 0 {
            tracing::debug!(report = ?self, "segments");
        }
    }
}
