//! Claiming jobs, one claim at a time and as many jobs as there is room for.
//!
//! Where calls take next to no time, asking for the jobs of the next ones would take most of it. So jobs are claimed ahead, as
//! many as should begin within [`AHEAD`] by what calls took lately; if it comes otherwise, those that have not begun after
//! [`STALE`] are given back. A queue with a limit of its own is not claimed ahead, since others may have room for its jobs.
//!
//! With nothing to do a stage waits to be told: by enqueues of this process, by those of others through NOTIFY, which
//! enqueues send while somebody waits. What is lost of that, and what becomes due by itself, is found by looking: soon after
//! the last job, then less and less often.

use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::call::{Lot, give_back};
use super::{TASK, Worker};
use crate::pg::notify::Waiter;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::consume::stopped;
use crate::pipeline::status::State;
use crate::queue::{CLAIM_MAX, ClaimedJob, QueueError};

const AHEAD: Duration = Duration::from_millis(20);
const STALE: Duration = Duration::from_millis(250);
/// Jobs of a claim that is made ahead, and calls for each that is free now.
const AHEAD_JOBS: usize = 1_000;
const AHEAD_CALLS: usize = 64;

/// From so many jobs on, each call has a claim of its own.
const OWN_CLAIM: usize = 16;

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

/// What there is room for.
enum Turn {
    Room(Vec<Room>),
    /// Jobs were claimed ahead and have waited for too long.
    Stale,
    Stop,
}

impl Worker {
    /// Claims and begins until the stage stops.
    pub(super) async fn claim_jobs(self: &Arc<Self>, calls: &TaskTracker) {
        let mut idle = Idle::new(self.stage.services.queues.waiter(&self.queue));
        let mut backoff = Backoff::default();
        let mut failing = false;
        let mut waiting = Waiting::default();
        loop {
            let mut room = match self.turn(&waiting).await {
                Turn::Room(room) => room,
                Turn::Stale => {
                    calls.spawn(give_back(self.clone(), waiting.lots.drain(..).collect()));
                    continue;
                }
                Turn::Stop => break,
            };
            self.begin(&mut waiting, &mut room, calls);
            if room.is_empty() {
                continue;
            }
            let asked = Instant::now();
            // Not given up half way: jobs that were claimed and not taken would wait for their lease to end.
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
                        self.take(jobs, asked, &mut waiting);
                        self.begin(&mut waiting, &mut room, calls);
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
        calls.spawn(give_back(self.clone(), waiting.lots.into()));
    }

    /// Waits until a call is free, and takes all that are.
    async fn turn(&self, waiting: &Waiting) -> Turn {
        let first = async {
            let open = self.open.clone().acquire_owned().await.ok()?;
            let call = self.calls.clone().acquire_owned().await.ok()?;
            Some(Room { call, open })
        };
        let first = tokio::select! {
            biased;
            () = self.stopping.cancelled() => None,
            first = first => first,
            () = tokio::time::sleep_until(waiting.since + STALE), if !waiting.lots.is_empty() => return Turn::Stale,
        };
        let Some(first) = first else { return Turn::Stop };
        let mut room = vec![first];
        while let Ok(open) = self.open.clone().try_acquire_owned()
            && let Ok(call) = self.calls.clone().try_acquire_owned()
        {
            room.push(Room { call, open });
        }
        Turn::Room(room)
    }

    async fn claim(&self, calls: usize) -> Result<Vec<ClaimedJob>, QueueError> {
        let now = calls * self.batch;
        let ahead = match self.meter.typical() {
            Some(typical) if self.is_claimed_ahead => {
                let times = AHEAD.as_micros() / typical.as_micros().max(1);
                now * usize::try_from(times).unwrap_or(AHEAD_CALLS).clamp(1, AHEAD_CALLS)
            }
            _ => now,
        };
        let most = u32::try_from(ahead.min(AHEAD_JOBS).max(now)).unwrap_or(CLAIM_MAX);
        let services = &self.stage.services;
        let name = format!("{}/{}", services.host, self.stage.label());
        let part = (self.batch >= OWN_CLAIM).then(|| u32::try_from(self.batch).unwrap_or(CLAIM_MAX));
        services.queues.claim_in_parts(&self.queue, most, &name, Some(self.held.lease()), part).await
    }

    /// Makes the batches of calls out of what was claimed. A batch is of one claim.
    fn take(&self, jobs: Vec<ClaimedJob>, asked: Instant, waiting: &mut Waiting) {
        waiting.since = Instant::now();
        let mut jobs = jobs.into_iter().peekable();
        let (mut last, mut first) = (None, 0);
        while let Some(claim) = jobs.peek().map(|job| job.claim) {
            if last.replace(claim) != Some(claim) {
                first = 0;
            }
            let batch: Vec<_> =
                iter::from_fn(|| jobs.next_if(|job| job.claim == claim)).take(self.batch).collect();
            let hold = self.held.hold(claim, batch.iter().map(|job| job.id).collect(), asked);
            let next = first + batch.len();
            waiting.lots.push_back(Lot { first, hold, room: None, jobs: batch });
            first = next;
        }
    }

    /// Begins as many calls as there is room for.
    fn begin(self: &Arc<Self>, waiting: &mut Waiting, room: &mut Vec<Room>, calls: &TaskTracker) {
        while !room.is_empty()
            && let Some(lot) = waiting.lots.pop_front()
        {
            let lot = Lot { room: room.pop(), ..lot };
            calls.spawn(lot.run(self.clone()));
        }
    }
}

/// Jobs that were claimed for calls to come.
struct Waiting {
    lots: VecDeque<Lot>,
    since: Instant,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { lots: VecDeque::new(), since: Instant::now() }
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
