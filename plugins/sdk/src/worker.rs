//! Workers: jobs of a queue, each run at least once and ended once.

use serde::Serialize;

use crate::{
    Emission, Exported, Failure, Instance, Job, Plugin, Refusal, RetryJob, Verdict, WorkOutcome,
    bindings::worker::exports::tidemill::plugin::working, lifecycle,
};

/// Does jobs of a queue.
pub trait Worker: Plugin {
    /// Called with one job, or with as many as the stage's `batch` says. The end of each job, its result and its
    /// emissions are committed together; what a job emits that is not done is not written.
    ///
    /// # Errors
    /// A [`Failure`] concerns all jobs of the call: this attempt of each failed, or, if it is fatal, the stage stops
    /// and the jobs wait. For single jobs give verdicts.
    fn work(&mut self, batch: Vec<Job>) -> Result<WorkOutcome, Failure>;
}

/// Makes a component of the world `worker` out of a [`Worker`].
#[macro_export]
macro_rules! export_worker {
    ($plugin:ty) => {
        $crate::__instance!($plugin);

        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::Exported<$plugin>;
            $crate::bindings::worker::export_worker_world!(Exported);
        };
    };
}

impl WorkOutcome {
    /// Runs `work` on each job. What it pushes are the job's emissions; they get the job's index as their input, and
    /// a job that is not done leaves none behind. The error is a verdict too, so that `?` ends a job early.
    pub fn each(
        batch: &[Job],
        mut work: impl FnMut(&Job, &mut Vec<Emission>) -> Result<Verdict, Verdict>,
    ) -> Self {
        let mut outcome = WorkOutcome { verdicts: Vec::with_capacity(batch.len()), emissions: Vec::new() };
        for (input, job) in (0..).zip(batch) {
            let before = outcome.emissions.len();
            let (Ok(verdict) | Err(verdict)) = work(job, &mut outcome.emissions);
            if !matches!(verdict, Verdict::Done(_)) {
                outcome.emissions.truncate(before);
            }
            outcome.emissions[before..].iter_mut().for_each(|emission| emission.input = Some(input));
            outcome.verdicts.push(verdict);
        }
        outcome
    }
}

impl Verdict {
    /// Done, without a result.
    #[must_use]
    pub fn done() -> Self {
        Verdict::Done(None)
    }

    /// Done, with a result as JSON.
    ///
    /// # Errors
    /// A reject if `result` has no JSON form, as a map has none whose keys are not strings.
    pub fn result(result: &impl Serialize) -> Result<Self, Self> {
        match serde_json::to_vec(result) {
            Ok(result) => Ok(Verdict::Done(Some(result))),
            Err(error) => Err(Verdict::reject(format!("result: {error}"))),
        }
    }

    /// This attempt failed. The job is run again after `micros` or after the queue's own back-off, unless it was the
    /// last attempt.
    pub fn retry(reason: impl Into<String>, micros: Option<u64>) -> Self {
        Verdict::Retry(RetryJob { reason: reason.into(), after: micros })
    }

    /// Running it again will not help: the job is dead at once.
    pub fn reject(reason: impl Into<String>) -> Self {
        Verdict::Reject(reason.into())
    }

    /// There is nothing to do any more.
    pub fn cancel(reason: impl Into<String>) -> Self {
        Verdict::Cancel(reason.into())
    }
}

/// So that `?` takes what [`Emission::json`] refuses.
impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Reject(reason) => Verdict::Reject(reason),
            Refusal::Retry(after) => Verdict::retry("asked to come again", after),
        }
    }
}

impl<T: Worker + Instance> working::Guest for Exported<T> {
    fn work(batch: Vec<Job>) -> Result<WorkOutcome, Failure> {
        lifecycle::with(|plugin: &mut T| plugin.work(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(payload: &str) -> Job {
        Job {
            id: 1,
            attempt: 1,
            max_attempts: 2,
            priority: 2,
            key: None,
            headers: Vec::new(),
            enqueued: 0,
            payload: payload.into(),
        }
    }

    #[test]
    fn each_judges_every_job_and_keeps_the_emissions_of_those_done() {
        let batch = ["1", "x", "2", "9"].map(job);
        let outcome = WorkOutcome::each(&batch, |job, emissions| {
            emissions.push(Emission::new("seen"));
            match job.json::<u64>()? {
                9 => Ok(Verdict::Snooze(5)),
                number => Verdict::result(&(number * 2)),
            }
        });
        let inputs: Vec<_> = outcome.emissions.iter().map(|emission| emission.input).collect();
        assert_eq!(inputs, [Some(0), Some(2)]);
        let [first, second, third, fourth] = outcome.verdicts.as_slice() else {
            panic!("{:?}", outcome.verdicts)
        };
        assert_eq!(first, &Verdict::Done(Some(b"2".to_vec())));
        assert!(matches!(second, Verdict::Reject(reason) if reason.contains("payload")), "{second:?}");
        assert_eq!(third, &Verdict::Done(Some(b"4".to_vec())));
        assert_eq!(fourth, &Verdict::Snooze(5));
    }

    #[test]
    fn the_last_attempt_is_known() {
        assert!(!job("").is_last_attempt());
        assert!(Job { attempt: 2, ..job("") }.is_last_attempt());
    }
}
