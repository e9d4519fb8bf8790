//! Claiming jobs, one claim at a time and as many jobs as there is room for.
//!
//! With nothing to do a stage waits to be told: by enqueues of this process, by those of others through NOTIFY, which
//! enqueues send while somebody waits. What is lost of that, and what becomes due by itself, is found by looking: soon after
//! the last job, then less and less often.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::call::Lot;
use super::{TASK, Worker};
use crate::pg::notify::Waiter;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::consume::stopped;
use crate::pipeline::status::State;
use crate::queue::{CLAIM_MAX, ClaimedJob, QueueError};

/// The first look after there was nothing, and the longest pause between two looks.
const LOOK: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(500);

/// How often a stage that waits says so. Enqueues notify for a little longer.
const ANNOUNCE: Duration = Duration::from_secs(4);

/// The right to one call and to its commit.
pub(super) struct Room {
    pub call: OwnedSemaphorePermit,
    pub open: OwnedSemaphorePermit,
}

impl Worker {
    /// Claims and begins until the stage stops.
    pub(super) async fn claim_jobs(self: &Arc<Self>, calls: &TaskTracker) {
        let mut idle = Idle::new(self.stage.services.queues.waiter(&self.queue));
        let mut backoff = Backoff::default();
        let mut failing = false;
        while let Some(room) = self.room().await {
            // Not given up half way: jobs that were claimed and not taken would wait for their lease to end.
            let asked = Instant::now();
            match self.claim(room.len()).await {
                Ok(jobs) => {
                    if std::mem::take(&mut failing) {
                        backoff.reset();
                        self.stage.cell.set(TASK, State::Running, None);
                    }
                    if jobs.is_empty() {
                        drop(room);
                        idle.wait(self).await;
                    } else {
                        idle.pause = LOOK;
                        self.begin(jobs, room, asked, calls);
                    }
                }
                Err(error) => {
                    drop(room);
                    failing = true;
                    tracing::warn!(stage = self.stage.label(), %error, "cannot claim jobs");
                    let reason = format!("cannot claim jobs: {error}");
                    self.stage.cell.set(TASK, State::Backoff, Some(reason));
                    stopped(&self.stopping, backoff.pause()).await;
                }
            }
        }
    }

    /// Waits until a call is free, and takes all that are. None: the stage stops.
    async fn room(&self) -> Option<Vec<Room>> {
        let first = async {
            let open = self.open.clone().acquire_owned().await.ok()?;
            let call = self.calls.clone().acquire_owned().await.ok()?;
            Some(Room { call, open })
        };
        let mut room = tokio::select! {
            biased;
            () = self.stopping.cancelled() => return None,
            first = first => vec![first?],
        };
        while let Ok(open) = self.open.clone().try_acquire_owned()
            && let Ok(call) = self.calls.clone().try_acquire_owned()
        {
            room.push(Room { call, open });
        }
        Some(room)
    }

    async fn claim(&self, calls: usize) -> Result<Vec<ClaimedJob>, QueueError> {
        let most = u32::try_from(calls * self.batch).unwrap_or(CLAIM_MAX);
        let services = &self.stage.services;
        let name = format!("{}/{}", services.host, self.stage.label());
        services.queues.claim(&self.queue, most, &name, Some(self.held.lease())).await
    }

    /// Begins a call for each batch, for all of which there is room.
    fn begin(
        self: &Arc<Self>,
        mut jobs: Vec<ClaimedJob>,
        room: Vec<Room>,
        asked: Instant,
        calls: &TaskTracker,
    ) {
        let mut first = 0;
        for room in room {
            if jobs.is_empty() {
                break;
            }
            let rest = jobs.split_off(self.batch.min(jobs.len()));
            let jobs = std::mem::replace(&mut jobs, rest);
            let hold = self.held.hold(jobs[0].claim, jobs.iter().map(|job| job.id).collect(), asked);
            let lot = Lot { first, hold, room: Some(room), jobs };
            first += lot.jobs.len();
            calls.spawn(lot.run(self.clone()));
        }
    }
}

/// How long there was nothing to do.
struct Idle {
    told: Waiter,
    pause: Duration,
    announced: Option<Instant>,
}

impl Idle {
    fn new(told: Waiter) -> Self {
        Self { told, pause: LOOK, announced: None }
    }

    /// Waits until it is time to look again.
    async fn wait(&mut self, worker: &Worker) {
        if self.announced.is_none_or(|at| at.elapsed() >= ANNOUNCE) {
            self.announced = Some(Instant::now());
            match worker.stage.services.queues.announce(&worker.queue).await {
                // What was put before that has told nobody.
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "enqueues do not know that a worker waits"),
            }
        }
        tokio::select! {
            () = worker.stopping.cancelled() => {}
            () = self.told.woken() => self.pause = LOOK,
            () = tokio::time::sleep(self.pause) => self.pause = (self.pause * 2).min(LONGEST),
        }
    }
}
