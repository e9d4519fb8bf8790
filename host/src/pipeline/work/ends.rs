//! The ends of runs, and what came of them, in commits that calls share.
//!
//! Guarantee: the first statement of a commit asks for the claim of each job; what came of a job that is not accepted is not
//! written. Queues come before topics, and topics in the order of (topic, partition), as in every commit of a stage.
//! Failure: after a broken connection the claims are asked whether the commit happened. A claim that is gone either was ended
//! by it or has lapsed; neither may be written again, and a commit that is still under way when it is asked about is waited
//! for by the next try, at the claim's row. What can never be stored, and what Postgres goes on refusing for another reason
//! than its own state, is told to the one call that it came of.
//! Bounds: one commit at a time in a stage, of [`GROUP_JOBS`] jobs or [`GROUP_BYTES`], beyond the first call.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::meter::Meter;
use crate::config::plan::QueuePlan;
use crate::crash;
use crate::ids::{Partition, QueueName, TopicId};
use crate::log::append::{Lineage, OutBatch, append_in};
use crate::log::{AppendError, LogError};
use crate::pg::pool::Session;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::commit::{append_is_final, enqueue_is_final};
use crate::pipeline::consume::stopped;
use crate::pipeline::effects::Routed;
use crate::pipeline::stage::Stage;
use crate::queue::{ClaimedJob, Finished, NewJob, QueueError, Verdict, enqueue_in, finish_in};
use crate::record::NewRecord;

const GROUP_JOBS: usize = 10_000;
/// Of results and outputs.
const GROUP_BYTES: usize = 8 << 20;

/// Refusals of Postgres that nobody foresaw, after which it is not asked again.
const REFUSALS: u32 = 5;

/// Commits that a host which stops still tries when Postgres does not confirm them.
const LAST_TRIES: u32 = 5;

/// The end of one run.
pub(super) struct End {
    /// Of the job in its claim.
    pub place: usize,
    pub finished: Finished,
    pub routed: Routed,
    /// What made it.
    pub origin: i32,
}

impl End {
    /// An end that the host gives.
    pub fn new(job: &ClaimedJob, place: usize, verdict: Verdict) -> Self {
        let finished = Finished { claim: job.claim, id: job.id, verdict };
        Self { place, finished, routed: Routed::default(), origin: 0 }
    }

    fn bytes(&self) -> usize {
        let result = match &self.finished.verdict {
            Verdict::Done(Some(result)) => result.len(),
            _ => 0,
        };
        let records = self.routed.outputs.iter().flat_map(|output| &output.records).map(NewRecord::size);
        let jobs = self.routed.jobs.iter().flat_map(|(_, jobs)| jobs).map(|job| job.payload.len());
        result + records.sum::<usize>() + jobs.sum::<usize>()
    }
}

/// Takes ends. The committer stops with the last of them.
pub(super) struct Ends(mpsc::Sender<Batch>);

/// The ends of one call.
struct Batch {
    ends: Vec<End>,
    bytes: usize,
    said: oneshot::Sender<Result<(), String>>,
}

impl Ends {
    /// Returns when the ends are committed, or refused since others have the jobs by now. The error is why what came of them
    /// can never be stored.
    pub async fn commit(&self, ends: Vec<End>) -> Result<(), String> {
        let (said, answer) = oneshot::channel();
        let bytes = ends.iter().map(End::bytes).sum();
        let lost = || Err("internal error: the committer is gone".to_string());
        match self.0.send(Batch { ends, bytes, said }).await {
            Ok(()) => answer.await.unwrap_or_else(|_| lost()),
            Err(_) => lost(),
        }
    }
}

/// Starts the committer of a stage, for so many calls at a time.
pub(super) async fn start(
    stage: &Arc<Stage>,
    queue: &QueuePlan,
    meter: Arc<Meter>,
    calls: usize,
    stopping: CancellationToken,
) -> (Ends, JoinHandle<()>) {
    let (sender, inbox) = mpsc::channel(calls);
    let history = match &queue.history {
        Some(topic) => stage.services.log.topic(topic.as_str()).await.ok().map(|topic| topic.id),
        None => None,
    };
    // The end of a job makes room for another.
    let limited = queue.ordered || queue.per_key.is_some() || queue.concurrency.is_some();
    let wakes = limited.then(|| queue.name.clone());
    let committer = Committer { stage: stage.clone(), meter, history, wakes, stopping };
    (Ends(sender), tokio::spawn(committer.run(inbox)))
}

struct Committer {
    stage: Arc<Stage>,
    meter: Arc<Meter>,
    /// The topic to which ended jobs go.
    history: Option<TopicId>,
    /// The queue, if jobs of it may wait for others to end.
    wakes: Option<QueueName>,
    stopping: CancellationToken,
}

/// What was accepted, as claim and id.
type Accepted = HashSet<(i64, u64)>;

enum WriteError {
    /// It can never be stored, for this reason.
    Final(String),
    /// Nothing was written, and the reason is no state of Postgres that would pass.
    Odd(String),
    /// Nothing was written, or it is not known: then this is what a commit would have done.
    Open { error: String, sent: Option<Accepted> },
}

impl Committer {
    async fn run(self, mut inbox: mpsc::Receiver<Batch>) {
        let mut left = None;
        loop {
            let first = match left.take() {
                Some(batch) => batch,
                None => match inbox.recv().await {
                    Some(batch) => batch,
                    None => return,
                },
            };
            let (mut jobs, mut bytes) = (first.ends.len(), first.bytes);
            let mut group = vec![first];
            // What came while the last commit was under way.
            while let Ok(next) = inbox.try_recv() {
                jobs += next.ends.len();
                bytes += next.bytes;
                if jobs > GROUP_JOBS || bytes > GROUP_BYTES {
                    left = Some(next);
                    break;
                }
                group.push(next);
            }
            self.settle(group).await;
        }
    }

    /// Commits calls together, and each by itself if one of them spoils that.
    async fn settle(&self, group: Vec<Batch>) {
        let ends: Vec<&End> = group.iter().flat_map(|batch| &batch.ends).collect();
        let stored = self.store(&ends).await;
        if stored.is_ok() || group.len() == 1 {
            group.into_iter().for_each(|batch| drop(batch.said.send(stored.clone())));
            return;
        }
        for batch in group {
            let stored = self.store(&batch.ends.iter().collect::<Vec<_>>()).await;
            let _ = batch.said.send(stored);
        }
    }

    /// Writes ends, again and again until it is known that they are stored or that they may not be.
    async fn store(&self, ends: &[&End]) -> Result<(), String> {
        let mut backoff = Backoff::default();
        let (mut last_tries, mut refusals) = (0, 0);
        loop {
            let (error, sent) = match self.write(ends).await {
                Ok(accepted) => {
                    self.after(ends, &accepted);
                    return Ok(());
                }
                Err(WriteError::Final(words)) => return Err(words),
                Err(WriteError::Odd(words)) => {
                    refusals += 1;
                    if refusals == REFUSALS {
                        return Err(words);
                    }
                    (words, None)
                }
                Err(WriteError::Open { error, sent }) => (error, sent),
            };
            tracing::warn!(stage = self.stage.label(), error, "the ends of jobs are not confirmed");
            loop {
                if self.stopping.is_cancelled() {
                    last_tries += 1;
                    tokio::time::sleep(backoff.pause()).await;
                } else {
                    stopped(&self.stopping, backoff.pause()).await;
                }
                if last_tries >= LAST_TRIES {
                    tracing::warn!(
                        stage = self.stage.label(),
                        "the ends of jobs are given up; they come again"
                    );
                    return Ok(());
                }
                let Some(sent) = &sent else { break };
                match self.happened(sent).await {
                    Ok(true) => {
                        self.after(ends, sent);
                        return Ok(());
                    }
                    Ok(false) => break,
                    Err(error) => {
                        tracing::debug!(stage = self.stage.label(), %error, "Postgres does not answer")
                    }
                }
            }
        }
    }

    /// Whether a commit whose answer was lost is there: then no claim holds any of its jobs.
    async fn happened(&self, sent: &Accepted) -> Result<bool, QueueError> {
        let mut claims: Vec<i64> = sent.iter().map(|(claim, _)| *claim).collect();
        claims.sort_unstable();
        claims.dedup();
        let held = self.stage.services.queues.holds(&claims).await?;
        Ok(!held.iter().any(|(claim, ids)| ids.iter().any(|id| sent.contains(&(*claim, *id)))))
    }

    async fn write(&self, ends: &[&End]) -> Result<Accepted, WriteError> {
        let mut transaction = self.stage.services.log.pool().begin().await?;
        let mut ordered: Vec<&&End> = ends.iter().collect();
        // A claim that ends as it was made is the quickest.
        ordered.sort_by_key(|end| (end.finished.claim, end.place));
        let finished: Vec<Finished> = ordered.iter().map(|end| end.finished.clone()).collect();
        let accepted = finish_in(&mut transaction, &finished).await;
        let accepted: Accepted = accepted.map_err(finishing)?.into_iter().collect();
        write_outputs(&mut transaction, ends, &accepted).await?;
        crash::point("job.commit");
        let committed = transaction.commit().await;
        crash::point("job.committed");
        match committed {
            Ok(()) => Ok(accepted),
            Err(error) => Err(WriteError::Open { error: error.to_string(), sent: Some(accepted) }),
        }
    }

    /// Tells those who wait for what was just committed, and counts it.
    fn after(&self, ends: &[&End], accepted: &Accepted) {
        let (services, cell) = (&self.stage.services, &self.stage.cell);
        let (mut out, mut rejected) = (0, 0);
        let (mut topics, mut queues) = (HashSet::new(), HashSet::new());
        for end in ends {
            if !accepted.contains(&(end.finished.claim, end.finished.id)) {
                self.meter.refused();
                continue;
            }
            self.meter.ended(&end.finished.verdict);
            rejected += usize::from(matches!(end.finished.verdict, Verdict::Reject(_)));
            topics.extend(end.routed.outputs.iter().map(|output| output.topic.id));
            queues.extend(end.routed.jobs.iter().map(|(queue, _)| queue));
            out += end.routed.outputs.iter().map(|output| output.records.len()).sum::<usize>();
            out += end.routed.jobs.iter().map(|(_, jobs)| jobs.len()).sum::<usize>();
        }
        if accepted.is_empty() {
            return;
        }
        cell.count(accepted.len(), out, rejected);
        topics.into_iter().chain(self.history).for_each(|topic| services.log.hub().appended(topic));
        queues.into_iter().chain(&self.wakes).for_each(|queue| services.queues.wake(queue));
    }
}

/// What came of the runs that were accepted.
async fn write_outputs(session: &mut Session, ends: &[&End], accepted: &Accepted) -> Result<(), WriteError> {
    let mut queues: BTreeMap<&QueueName, Vec<NewJob>> = BTreeMap::new();
    let mut topics: BTreeMap<(TopicId, Partition, i32), Vec<NewRecord>> = BTreeMap::new();
    for end in ends.iter().filter(|end| accepted.contains(&(end.finished.claim, end.finished.id))) {
        for (queue, jobs) in &end.routed.jobs {
            queues.entry(queue).or_default().extend_from_slice(jobs);
        }
        for output in &end.routed.outputs {
            let place = (output.topic.id, output.partition, end.origin);
            topics.entry(place).or_default().extend_from_slice(&output.records);
        }
    }
    for (queue, jobs) in queues {
        let enqueued = enqueue_in(session, queue, &jobs).await;
        enqueued.map_err(|error| match enqueue_is_final(&error) {
            true => WriteError::Final(format!("queue {queue}: {error}")),
            false => finishing(error),
        })?;
    }
    for ((topic, partition, origin), records) in topics {
        // A job has no place in a topic that its records could name.
        let lineage = Lineage { origin: Some(origin), input: None, index: None };
        let batch = OutBatch { topic, partition, records: &records, lineage };
        append_in(session, batch).await.map_err(appending)?;
    }
    Ok(())
}

fn open(error: &dyn std::fmt::Display) -> WriteError {
    WriteError::Open { error: error.to_string(), sent: None }
}

fn finishing(error: QueueError) -> WriteError {
    match &error {
        QueueError::Postgres(LogError::Unavailable(_)) => open(&error),
        QueueError::Postgres(_) => WriteError::Odd(error.to_string()),
        _ => WriteError::Final(error.to_string()),
    }
}

fn appending(error: AppendError) -> WriteError {
    match error {
        AppendError::Unavailable(_) | AppendError::Unknown(_) | AppendError::Overloaded { .. } => {
            open(&error)
        }
        error if append_is_final(&error) => WriteError::Final(error.to_string()),
        error => WriteError::Odd(error.to_string()),
    }
}

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        open(&error)
    }
}
