//! The claims that this host holds: kept alive, and watched for what was taken away.
//!
//! Guarantee: a call ends soon after the last of its jobs is not this host's any more, because it was cancelled, because the
//! lease ended, or because Postgres was out of reach for longer than the lease. Nothing depends on that: what comes of such a
//! call is refused when it is committed. It saves the work.
//! Bound: a claim is forgotten with the last call that holds a part of it, so a call that panics does not keep its jobs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ids::QueueName;
use crate::queue::{QueueError, Queues};

/// Claims are extended so many times in a lease.
const BEATS: u32 = 3;

/// The shortest time between two looks at what was cancelled.
const LOOK: Duration = Duration::from_millis(250);

/// The wait after a beat that Postgres did not answer, and for an answer.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Held {
    queues: Queues,
    queue: QueueName,
    lease: Duration,
    claims: Mutex<BTreeMap<i64, Claim>>,
}

struct Claim {
    /// The lease lasts at least until then.
    until: Instant,
    /// The calls that have its jobs.
    parts: HashMap<u64, Part>,
    /// Of the next part.
    number: u64,
}

struct Part {
    ids: Vec<u64>,
    stop: CancellationToken,
}

/// Jobs that a call has in its hands. Let go when dropped.
pub(super) struct Hold {
    held: Arc<Held>,
    claim: i64,
    part: u64,
    /// Cancelled when none of the jobs is this host's any more.
    pub stop: CancellationToken,
}

impl Held {
    pub fn new(queues: Queues, queue: QueueName, lease: Duration) -> Self {
        Self { queues, queue, lease, claims: Mutex::default() }
    }

    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Keeps jobs of a claim that was asked for at a time.
    pub fn hold(self: &Arc<Self>, claim: i64, ids: Vec<u64>, asked: Instant) -> Hold {
        let stop = CancellationToken::new();
        let mut claims = self.claims();
        let entry = claims.entry(claim).or_insert_with(|| Claim {
            until: asked + self.lease,
            parts: HashMap::new(),
            number: 0,
        });
        let part = entry.number;
        entry.number += 1;
        entry.parts.insert(part, Part { ids, stop: stop.clone() });
        Hold { held: self.clone(), claim, part, stop }
    }

    /// Extends and looks, for as long as anybody polls it.
    pub async fn keep(self: Arc<Self>) {
        let mut told = self.queues.waiter(&self.queue);
        let mut beat = Instant::now() + self.lease / BEATS;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(beat) => {
                    let extended = self.beat().await;
                    if extended {
                        self.look(Duration::ZERO).await;
                    }
                    let wait = self.lease / BEATS;
                    beat = Instant::now() + if extended { wait } else { wait.min(AGAIN) };
                }
                // A job may have been cancelled. Calls that are over soon are not worth a question.
                () = told.woken() => self.look(LOOK).await,
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Extends all claims. False if Postgres did not answer.
    async fn beat(&self) -> bool {
        let claims = self.numbers(Duration::ZERO);
        let asked = Instant::now();
        let limit = self.lease / BEATS;
        let extended = match claims.is_empty() {
            true => Ok(Vec::new()),
            false => within(limit, self.queues.extend(&claims)).await,
        };
        match &extended {
            Ok(alive) => {
                let alive: HashSet<i64> = alive.iter().copied().collect();
                let mut held = self.claims();
                for number in claims {
                    let Some(claim) = held.get_mut(&number) else { continue };
                    match alive.contains(&number) {
                        true => claim.until = asked + self.lease,
                        false => claim.stop(),
                    }
                }
            }
            Err(words) => {
                tracing::warn!(queue = %self.queue, error = words, "claims could not be extended");
                let now = Instant::now();
                self.claims().values().filter(|claim| claim.until <= now).for_each(Claim::stop);
            }
        }
        extended.is_ok()
    }

    /// Ends the calls whose jobs were all taken away, of claims that were made or extended so long ago.
    async fn look(&self, age: Duration) {
        let claims = self.numbers(age);
        if claims.is_empty() {
            return;
        }
        let Ok(held) = within(AGAIN, self.queues.holds(&claims)).await else { return };
        let held: HashMap<i64, HashSet<u64>> =
            held.into_iter().map(|(claim, ids)| (claim, ids.into_iter().collect())).collect();
        let ours = self.claims();
        for (claim, parts) in claims.iter().filter_map(|claim| Some((claim, &ours.get(claim)?.parts))) {
            let is_held = |id: &u64| held.get(claim).is_some_and(|ids| ids.contains(id));
            let lost = parts.values().filter(|part| !part.ids.iter().any(is_held));
            lost.for_each(|part| part.stop.cancel());
        }
    }

    /// The claims that were made or extended so long ago.
    fn numbers(&self, age: Duration) -> Vec<i64> {
        let latest = Instant::now() + self.lease - age;
        let claims = self.claims();
        claims.iter().filter(|(_, claim)| claim.until <= latest).map(|(number, _)| *number).collect()
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<i64, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, QueueError>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("Postgres does not answer".to_string()),
    }
}

impl Claim {
    fn stop(&self) {
        self.parts.values().for_each(|part| part.stop.cancel());
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut claims = self.held.claims();
        if let Some(claim) = claims.get_mut(&self.claim) {
            claim.parts.remove(&self.part);
            if claim.parts.is_empty() {
                claims.remove(&self.claim);
            }
        }
    }
}
