//! Running jobs: one call for all of them, and one for each if that fails.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::Worker;
use super::claim::Room;
use super::ends::End;
use super::held::Hold;
use crate::pipeline::effects::{DeadKind, Routed, route};
use crate::pipeline::stage::{Stage, StageError};
use crate::pipeline::version::Version;
use crate::plugin::{CallError, Context, Emission, Header, Job, Seed, Verdict as Judged, WorkOutcome};
use crate::queue::{ClaimedJob, Finished, Verdict};

/// How long jobs wait that the host could not run for want of something of its own.
const SHORTAGE: Duration = Duration::from_secs(1);

/// Jobs of a claim that are given to the plugin together.
pub(super) struct Lot {
    /// The place of the first one in the claim.
    pub first: usize,
    pub hold: Hold,
    /// None: not in a call.
    pub room: Option<Room>,
    pub jobs: Vec<ClaimedJob>,
}

/// What is to be done about a call.
enum Next {
    /// All is said.
    Ended,
    /// Somebody of these jobs makes the call fail: each is to be called alone.
    Split,
}

impl Lot {
    /// Runs the jobs to their ends.
    pub async fn run(mut self, worker: Arc<Worker>) {
        let now = worker.stage.services.log.clock().now();
        for job in &self.jobs {
            worker.meter.begins(Duration::from_micros(now.saturating_sub(job.due_at).max(0).cast_unsigned()));
        }
        let all = 0..self.jobs.len();
        if matches!(self.attempt(&worker, all.clone()).await, Next::Ended) {
            return;
        }
        for index in all.clone() {
            if self.hold.stop.is_cancelled() {
                return;
            }
            if worker.stopping.is_cancelled() {
                return self.give_back(&worker, index..all.end).await;
            }
            self.attempt(&worker, index..index + 1).await;
        }
    }

    /// One call, and the commit of what came of it.
    async fn attempt(&mut self, worker: &Worker, range: Range<usize>) -> Next {
        if worker.stopping.is_cancelled() {
            self.give_back(worker, range).await;
            return Next::Ended;
        }
        let jobs = &self.jobs[range.clone()];
        let (ends, next) = match worker.call(jobs, self.first + range.start, &self.hold).await {
            Ok(ends) => (ends, Next::Ended),
            Err(error) => match self.judge(worker, range.clone(), error).await {
                Ok(ends) => (ends, Next::Ended),
                Err(next) => return next,
            },
        };
        // The guest is done with: another call may begin while this one is committed.
        let whole = range.len() == self.jobs.len();
        let open = match self.room.take() {
            Some(Room { call, open }) if whole => {
                drop(call);
                Some(open)
            }
            room => {
                self.room = room;
                None
            }
        };
        let committed = worker.ends.commit(ends).await;
        let Err(words) = committed else { return next };
        tracing::warn!(stage = worker.stage.label(), error = words, "what jobs led to cannot be stored");
        worker.stage.cell.failed(DeadKind::Output.as_str());
        if let Some(open) = open {
            let Ok(call) = worker.calls.clone().acquire_owned().await else { return Next::Ended };
            self.room = Some(Room { call, open });
        }
        if range.len() > 1 {
            return Next::Split;
        }
        let verdict = Verdict::Retry { error: words, after: None };
        if let Err(error) = worker.ends.commit(self.all(range, verdict)).await {
            tracing::error!(stage = worker.stage.label(), error, "a failed attempt cannot be stored");
        }
        Next::Ended
    }

    /// What a call that failed means for its jobs.
    async fn judge(&self, worker: &Worker, range: Range<usize>, error: CallError) -> Result<Vec<End>, Next> {
        let stage = &worker.stage;
        let words = stage.words(&error);
        match &error {
            CallError::Interrupted => return Err(Next::Ended),
            CallError::Retry { after, .. } => {
                return Ok(self.all(range, Verdict::Retry { error: words, after: *after }));
            }
            CallError::Fatal(_)
            | CallError::Configure(_)
            | CallError::BadDescriptor { .. }
            | CallError::NotGranted { .. } => {
                worker.fail(StageError::Fatal(words));
                return Ok(self.all(range, Verdict::Snooze(Duration::ZERO)));
            }
            _ => {}
        }
        let Some(kind) = DeadKind::of(&error) else {
            worker.fail(StageError::Again(words));
            return Ok(self.all(range, Verdict::Snooze(SHORTAGE)));
        };
        stage.cell.failed(kind.as_str());
        let (jobs, first) = (range.len(), self.jobs[range.start].id);
        tracing::warn!(stage = stage.label(), jobs, first, error = words, "the plugin failed on jobs");
        if jobs > 1 {
            return Err(Next::Split);
        }
        Ok(self.all(range, Verdict::Retry { error: words, after: None }))
    }

    /// Jobs that are not begun here: another host, or this one later, runs them.
    async fn give_back(&self, worker: &Worker, range: Range<usize>) {
        commit_snoozed(worker, self.all(range, Verdict::Snooze(Duration::ZERO))).await;
    }

    /// The same end for all of them, with nothing that came of it.
    fn all(&self, range: Range<usize>, verdict: Verdict) -> Vec<End> {
        let place = self.first + range.start;
        let ends = self.jobs[range].iter().enumerate();
        ends.map(|(at, job)| End::new(job, place + at, verdict.clone())).collect()
    }
}

/// Gives back jobs that were claimed and not begun.
pub(super) async fn give_back(worker: Arc<Worker>, lots: Vec<Lot>) {
    let snoozed = |lot: &Lot| lot.all(0..lot.jobs.len(), Verdict::Snooze(Duration::ZERO));
    let ends: Vec<End> = lots.iter().flat_map(snoozed).collect();
    if !ends.is_empty() {
        commit_snoozed(&worker, ends).await;
    }
}

async fn commit_snoozed(worker: &Worker, ends: Vec<End>) {
    if let Err(error) = worker.ends.commit(ends).await {
        let stage = worker.stage.label();
        tracing::warn!(stage, error, "jobs could not be given back; their lease will run out");
    }
}

impl Worker {
    /// One call of the plugin. `place` is that of the first job in its claim.
    async fn call(&self, jobs: &[ClaimedJob], place: usize, hold: &Hold) -> Result<Vec<End>, CallError> {
        let mut seat = self.instances.take().await?;
        let running = self.meter.runs(jobs.len());
        seat.instance.set_context(self.context(jobs));
        let batch: Vec<Job> = jobs.iter().map(job).collect();
        let answer = seat.instance.work_until(batch, &hold.stop).await;
        drop(running);
        let version = seat.version.clone();
        self.instances.give(seat);
        ends(&self.stage, &version, jobs, place, answer?)
    }

    /// The time is that of the call; chance begins anew with each attempt of a job.
    fn context(&self, jobs: &[ClaimedJob]) -> Context {
        let seed = jobs.first().map_or_else(Seed::default, |job| {
            Seed::of(&[
                b"job",
                self.queue.as_str().as_bytes(),
                &job.id.to_be_bytes(),
                &job.attempt.to_be_bytes(),
            ])
        });
        Context { now: self.stage.services.log.clock().now(), seed, state: None }
    }
}

fn job(job: &ClaimedJob) -> Job {
    let headers = job.headers.iter();
    Job {
        id: job.id,
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        priority: job.priority,
        key: job.key.as_ref().map(|key| key.to_vec()),
        headers: headers
            .map(|header| Header { name: header.name.clone(), value: header.value.to_vec() })
            .collect(),
        enqueued: job.enqueued_at,
        payload: job.payload.to_vec(),
    }
}

/// Each job with its verdict and with what came of it.
fn ends(
    stage: &Stage,
    version: &Version,
    jobs: &[ClaimedJob],
    place: usize,
    outcome: WorkOutcome,
) -> Result<Vec<End>, CallError> {
    let mut emitted: Vec<Vec<Emission>> = jobs.iter().map(|_| Vec::new()).collect();
    for emission in outcome.emissions {
        if let Some(job) = emission.input.and_then(|input| emitted.get_mut(input as usize)) {
            job.push(emission);
        }
    }
    let mut ends = Vec::with_capacity(jobs.len());
    for (at, ((job, judged), emissions)) in jobs.iter().zip(outcome.verdicts).zip(emitted).enumerate() {
        let routed = match emissions.is_empty() {
            true => Routed::default(),
            false => route(&stage.outlets, emissions, &[])?,
        };
        let finished = Finished { claim: job.claim, id: job.id, verdict: verdict(stage, judged) };
        ends.push(End { place: place + at, finished, routed, origin: version.origin });
    }
    Ok(ends)
}

/// A plugin's words may quote its config, secrets and all.
fn verdict(stage: &Stage, judged: Judged) -> Verdict {
    let scrub = |words: String| stage.plan.config.scrub(&words);
    match judged {
        Judged::Done(result) => Verdict::Done(result.map(Into::into)),
        Judged::Retry(retry) => {
            Verdict::Retry { error: scrub(retry.reason), after: retry.after.map(Duration::from_micros) }
        }
        Judged::Snooze(after) => Verdict::Snooze(Duration::from_micros(after)),
        Judged::Reject(reason) => Verdict::Reject(scrub(reason)),
        Judged::Cancel(reason) => Verdict::Cancel(scrub(reason)),
    }
}
