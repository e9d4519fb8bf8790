//! What is counted of the jobs of a stage: in its status, and as metrics with the labels of the stage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram};

use crate::pipeline::status::StageCell;
use crate::pipeline::status::jobs::JobCounts;
use crate::queue::Verdict;

/// Handles are made once, since some are used for each job.
pub(super) struct Meter {
    cell: Arc<StageCell>,
    waited: Histogram,
    ran: Histogram,
    refused: Counter,
    /// By verdict, in the order of [`VERDICTS`].
    ended: [Counter; VERDICTS.len()],
    /// Microseconds; 0 before the first call.
    typical: AtomicU64,
}

const VERDICTS: [&str; 5] = ["done", "retry", "snooze", "reject", "cancel"];

impl Meter {
    pub fn new(cell: &Arc<StageCell>) -> Self {
        let labels = [("pipeline", cell.pipeline.to_string()), ("stage", cell.plan.name.to_string())];
        let ended = |verdict: &'static str| {
            let [pipeline, stage] = labels.clone();
            let labels = [pipeline, stage, ("verdict", verdict.to_string())];
            metrics::counter!("tidemill_jobs_total", &labels)
        };
        Self {
            cell: cell.clone(),
            waited: metrics::histogram!("tidemill_job_wait_seconds", &labels),
            ran: metrics::histogram!("tidemill_job_run_seconds", &labels),
            refused: metrics::counter!("tidemill_jobs_refused_total", &labels),
            ended: VERDICTS.map(ended),
            typical: AtomicU64::new(0),
        }
    }

    fn counts(&self) -> &JobCounts {
        &self.cell.jobs
    }

    /// A job begins for the first time since it was claimed, so long after it could have.
    pub fn begins(&self, waited: Duration) {
        self.waited.record(waited);
    }

    /// What calls took lately: an average in which each new one has the weight of an eighth. None before the first.
    pub fn typical(&self) -> Option<Duration> {
        match self.typical.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    fn took(&self, time: Duration) {
        self.ran.record(time);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        // Calls that end at the same moment may overwrite each other: it is an estimate.
        let typical = match self.typical.load(Ordering::Relaxed) {
            0 => micros,
            before => before - before / 8 + micros / 8,
        };
        self.typical.store(typical.max(1), Ordering::Relaxed);
    }

    /// A call of so many jobs is under way, until the answer is dropped.
    pub fn runs(&self, jobs: usize) -> Running<'_> {
        self.counts().begin(jobs);
        Running { meter: self, jobs, since: std::time::Instant::now() }
    }

    /// The end of a run was committed.
    pub fn ended(&self, verdict: &Verdict) {
        self.counts().end(verdict);
        let place = VERDICTS.iter().position(|name| *name == verdict.as_str());
        if let Some(counter) = place.and_then(|place| self.ended.get(place)) {
            counter.increment(1);
        }
    }

    /// The end of a run came too late: the job was not this host's any more.
    pub fn refused(&self) {
        self.counts().refuse();
        self.refused.increment(1);
    }
}

/// A call under way.
pub(super) struct Running<'a> {
    meter: &'a Meter,
    jobs: usize,
    since: std::time::Instant,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.meter.counts().rest(self.jobs);
        self.meter.took(self.since.elapsed());
    }
}
