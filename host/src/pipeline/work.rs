//! A worker stage on one host: it claims jobs of its queue, runs them and ends them.
//!
//! Guarantee: what a run leads to is committed with its end, under the claim that holds the job, or not at all ([`ends`]).
//! Bounds: `concurrency` calls at a time, and [`UNCOMMITTED`] more whose ends wait for a commit. No more is claimed than free
//! calls can begin at once or in a moment, so jobs do not wait in one host while another is free.
//! Failure: a call of several jobs that fails is made again job by job; a single job that fails has used up an attempt. Jobs of
//! a host that dies, or that Postgres does not hear of for a lease, come again elsewhere, and what it still has to say of them
//! is refused. A host that stops begins nothing new, gives back what it has not begun, and waits for calls up to their deadline.
//!
//! Map: [`claim`] takes jobs as calls are free, [`call`] runs them, [`instances`] has what they run on, [`ends`] commits, [`held`]
//! keeps claims alive and notices what was taken away, [`meter`] counts.

mod call;
mod claim;
mod ends;
mod held;
mod instances;
mod meter;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::stage::{Stage, StageError};
use super::status::State;
use crate::ids::QueueName;
use ends::Ends;
use held::Held;
use instances::Instances;
use meter::Meter;

/// A worker has no partitions, so its one task has this place in the status.
const TASK: u32 = 0;

/// Calls whose ends wait for a commit, beside those that run. Quick calls fill a commit with them.
const UNCOMMITTED: usize = 256;

/// What the tasks of one stage share.
struct Worker {
    stage: Arc<Stage>,
    queue: QueueName,
    /// Jobs of one call.
    batch: usize,
    /// Calls at a time.
    calls: Arc<Semaphore>,
    /// Calls whose ends are not committed.
    open: Arc<Semaphore>,
    /// Whether jobs may be claimed for calls to come.
    is_claimed_ahead: bool,
    instances: Instances,
    held: Arc<Held>,
    ends: Ends,
    meter: Arc<Meter>,
    /// Nothing new is begun.
    stopping: CancellationToken,
    /// Why the stage cannot go on.
    trouble: Mutex<Option<StageError>>,
}

/// Runs the stage until the token is cancelled or something ends it.
pub async fn run(stage: Arc<Stage>, token: CancellationToken) -> Result<(), StageError> {
    let (Some(jobs), Some(queue)) = (stage.plan.jobs.clone(), stage.jobs.clone()) else {
        return Err(StageError::Fatal("a worker needs a queue".to_string()));
    };
    let instances = Instances::start(&stage).await?;
    let stopping = token.child_token();
    let meter = Arc::new(Meter::new(&stage.cell));
    let concurrency = jobs.concurrency as usize;
    let open = concurrency + UNCOMMITTED;
    let (ends, committing) = ends::start(&stage, &queue, meter.clone(), open, stopping.clone()).await;
    let held = Arc::new(Held::new(stage.services.queues.clone(), jobs.queue.clone(), queue.lease));
    let heart = AbortOnDropHandle::new(tokio::spawn(held.clone().keep()));
    let worker = Arc::new(Worker {
        stage,
        queue: jobs.queue,
        batch: jobs.batch as usize,
        calls: Arc::new(Semaphore::new(concurrency)),
        open: Arc::new(Semaphore::new(open)),
        is_claimed_ahead: queue.concurrency.is_none(),
        instances,
        held,
        ends,
        meter,
        stopping,
        trouble: Mutex::default(),
    });
    worker.stage.cell.set(TASK, State::Running, None);
    worker.stage.cell.runs(TASK, worker.stage.version().digest());
    let calls = TaskTracker::new();
    worker.claim_jobs(&calls).await;
    calls.close();
    calls.wait().await;
    let trouble = worker.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
    // The last sender: the committer ends with it.
    drop(worker);
    let committed = committing.await;
    drop(heart);
    match (trouble, committed) {
        (Some(trouble), _) => Err(trouble),
        (None, Err(panic)) => {
            Err(StageError::Again(format!("internal error: the committer panicked: {panic}")))
        }
        (None, Ok(())) => Ok(()),
    }
}

impl Worker {
    /// Ends the stage's work: nothing new is begun, and the supervisor decides what happens next.
    fn fail(&self, trouble: StageError) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(trouble);
        self.stopping.cancel();
    }
}
