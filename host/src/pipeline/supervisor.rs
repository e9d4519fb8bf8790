//! Keeps the tasks of a stage alive: restarts them with a growing wait, isolates their panics, stops them in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backoff::Backoff;
use super::stage::{Stage, StageError};
use super::status::State;
use super::{consume, produce, work};
use crate::config::plan::StageKind;
use crate::ids::Partition;

/// A task that ran this long without a failure starts its waits anew.
const HEALTHY: Duration = Duration::from_secs(60);

/// The running tasks of one stage.
#[derive(Debug)]
pub struct Running {
    pub stage: Arc<Stage>,
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Starts one task per partition, or one for a producer or a worker.
    pub fn start(stage: Arc<Stage>, parent: &CancellationToken) -> Self {
        let token = parent.child_token();
        let tasks = TaskTracker::new();
        for partition in 0..stage.partitions() {
            stage.cell.set(partition, State::Starting, None);
            tasks.spawn(supervise(stage.clone(), partition, token.clone()));
        }
        tasks.close();
        Self { stage, token, tasks }
    }

    /// Lets each task finish the commit it is in, and waits for that.
    pub async fn stop(&self) {
        self.token.cancel();
        self.tasks.wait().await;
    }
}

async fn supervise(stage: Arc<Stage>, partition: Partition, token: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut versions = stage.versions();
    loop {
        versions.borrow_and_update();
        let started = tokio::time::Instant::now();
        let reason = match run_once(&stage, partition, &token).await {
            Ok(()) => break,
            Err(StageError::Fatal(reason)) => {
                tracing::error!(
                    stage = stage.label(),
                    partition,
                    reason,
                    "the stage failed and stays stopped until it gets another version"
                );
                stage.cell.set(partition, State::Failed, Some(reason));
                tokio::select! {
                    () = token.cancelled() => return,
                    _ = versions.changed() => continue,
                }
            }
            Err(error) => error.to_string(),
        };
        if token.is_cancelled() {
            break;
        }
        if started.elapsed() >= HEALTHY {
            backoff.reset();
        }
        let wait = backoff.pause();
        tracing::warn!(stage = stage.label(), partition, reason, ?wait, "the task ended, starting it again");
        stage.cell.restarts.fetch_add(1, Ordering::Relaxed);
        stage.cell.set(partition, State::Backoff, Some(reason));
        tokio::select! {
            stopped = consume::stopped(&token, wait) => if stopped { break },
            _ = versions.changed() => backoff.reset(),
        }
    }
    stage.cell.set(partition, State::Stopped, None);
}

/// One life of a task. It is spawned by itself so that a panic ends it and nothing else.
async fn run_once(
    stage: &Arc<Stage>,
    partition: Partition,
    token: &CancellationToken,
) -> Result<(), StageError> {
    let work = match stage.plan.kind {
        StageKind::Producer => tokio::spawn(produce::run(stage.clone(), token.clone())),
        StageKind::Worker => tokio::spawn(work::run(stage.clone(), token.clone())),
        _ => tokio::spawn(consume::run(stage.clone(), partition, token.clone())),
    };
    match work.await {
        Ok(ended) => ended,
        Err(panic) => Err(StageError::Again(format!("internal error: the task panicked: {panic}"))),
    }
}
