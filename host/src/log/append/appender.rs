//! The task of one topic: takes what waits, stores it in one commit, answers, and again.
//!
//! * A partition is in one commit at a time, and what arrives for it meanwhile makes its next row. A commit takes all
//!   partitions that have something waiting: its cost is the same for one and for ten, and the more hosts or partitions share
//!   the requests, the less of them each row would have otherwise.
//! * What is too much for one commit goes into others beside it, up to [`COMMITS`]. So does what comes for other partitions.
//! * If a commit fails, or some partition's counter is locked for longer than a moment, each of its partitions goes on by
//!   itself and is waited for by nobody but its own requests.
//!
//! Whoever is answered together mostly writes again at once and together. Without a moment's patience the first of them
//! would get a commit alone and the others the next, so that half of the commits held one request; see [`Patience`].

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::mem::take;
use std::sync::{PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::ids::Partition;

use super::queue::{Queues, Request};
use super::store::{Group, Store};
use super::{ROW_BYTES_MAX, ROW_RECORDS_MAX};

/// Commits of one topic at once, without those of partitions that go by themselves.
const COMMITS: usize = 4;
/// A commit that holds this much is closed, and what else waits goes beside it.
const COMMIT_RECORDS: usize = 10_000;
const COMMIT_BYTES: usize = 2 << 20;
/// Each is a call in one statement.
pub(super) const COMMIT_PARTITIONS: usize = 16;

/// Waiting for requests takes at most this part of what the last commit took, and no longer than that.
const PATIENCE_PART: u32 = 8;
const PATIENCE_MAX: Duration = Duration::from_millis(1);

pub(super) struct Appender {
    store: Store,
    queue: mpsc::UnboundedReceiver<Vec<Request>>,
    is_open: bool,
    waiting: BTreeMap<Partition, VecDeque<Request>>,
    /// Requests in `waiting`.
    waits: usize,
    /// Partitions that are being stored.
    busy: HashSet<Partition>,
    /// Commits that count for [`COMMITS`].
    commits: usize,
    flights: FuturesUnordered<BoxFuture<'static, Landed>>,
    patience: Patience,
}

/// How something that was being stored came out. What is answered is not in it any more.
enum Landed {
    Together {
        partitions: Vec<Partition>,
        patience: Patience,
        /// To be stored each by itself.
        left: Vec<Group>,
    },
    Alone(Partition),
}

/// How long a group waits for more: until it has as many requests as the one before, but not for long. One request after
/// another never waits, and those who stay away are waited for once.
#[derive(Clone, Copy, Debug, Default)]
struct Patience {
    /// Of the commit before.
    requests: usize,
    /// What it took to store.
    commit: Duration,
}

impl Patience {
    fn is_over(self, requests: usize, waited: Duration) -> bool {
        requests >= self.requests || waited >= (self.commit / PATIENCE_PART).min(PATIENCE_MAX)
    }
}

impl Appender {
    pub(super) fn new(store: Store, queue: mpsc::UnboundedReceiver<Vec<Request>>) -> Self {
        Self {
            store,
            queue,
            is_open: true,
            waiting: BTreeMap::new(),
            waits: 0,
            busy: HashSet::new(),
            commits: 0,
            flights: FuturesUnordered::new(),
            patience: Patience::default(),
        }
    }

    /// Ends when nothing came for `idle`, or when the log is dropped and all that was sent is answered.
    pub(super) async fn run(mut self, idle: Duration, queues: Weak<Queues>) {
        loop {
            self.start().await;
            if self.flights.is_empty() {
                if !self.is_open {
                    return;
                }
                match timeout(idle, self.queue.recv()).await {
                    Ok(requests) => self.received(requests),
                    Err(_) => self.retire(&queues),
                }
                continue;
            }
            tokio::select! {
                Some(landed) = self.flights.next() => self.landed(landed),
                requests = self.queue.recv(), if self.is_open => self.received(requests),
            }
        }
    }

    fn received(&mut self, requests: Option<Vec<Request>>) {
        let Some(requests) = requests else {
            self.is_open = false;
            return;
        };
        self.waits += requests.len();
        for request in requests {
            self.waiting.entry(request.partition).or_default().push_back(request);
        }
    }

    /// Leaves the map, so that the next request starts a new task, and lets in no more; what was sent already is still
    /// received before the queue ends.
    fn retire(&mut self, queues: &Weak<Queues>) {
        if let Some(queues) = queues.upgrade() {
            let mut queues = queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.remove(&self.store.topic());
        }
        self.queue.close();
    }

    /// Begins what may begin.
    async fn start(&mut self) {
        while self.commits < COMMITS && self.is_ready() {
            self.gather().await;
            let groups = self.take();
            let partitions: Vec<_> = groups.iter().map(Group::partition).collect();
            self.busy.extend(&partitions);
            self.commits += 1;
            let store = self.store.clone();
            let flight = async move {
                let requests = groups.iter().map(Group::requests).sum();
                let started = Instant::now();
                let left = store.together(groups).await;
                let patience = Patience { requests, commit: started.elapsed() };
                Landed::Together { partitions, patience, left }
            };
            self.flights.push(flight.boxed());
        }
    }

    fn landed(&mut self, landed: Landed) {
        match landed {
            Landed::Alone(partition) => {
                self.busy.remove(&partition);
            }
            Landed::Together { partitions, patience, left } => {
                self.commits -= 1;
                self.patience = patience;
                for partition in partitions {
                    self.busy.remove(&partition);
                }
                for group in left {
                    let partition = group.partition();
                    self.busy.insert(partition);
                    let store = self.store.clone();
                    let flight = async move {
                        store.alone(group).await;
                        Landed::Alone(partition)
                    };
                    self.flights.push(flight.boxed());
                }
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.waiting.keys().any(|partition| !self.busy.contains(partition))
    }

    /// Receives what has come, or comes in a moment.
    async fn gather(&mut self) {
        let started = Instant::now();
        loop {
            match self.queue.try_recv() {
                Ok(requests) => self.received(Some(requests)),
                Err(_) if self.patience.is_over(self.waits, started.elapsed()) => return,
                // The writers' turn. A timer would sleep for longer than most commits take.
                Err(_) => yield_now().await,
            }
        }
    }

    /// What is ready, as far as it fits.
    fn take(&mut self) -> Vec<Group> {
        let (mut groups, mut records, mut bytes) = (Vec::new(), 0, 0);
        for (partition, waiting) in &mut self.waiting {
            if self.busy.contains(partition) {
                continue;
            }
            if groups.len() == COMMIT_PARTITIONS || records >= COMMIT_RECORDS || bytes >= COMMIT_BYTES {
                break;
            }
            let group = group(waiting);
            if group.is_large() && !groups.is_empty() {
                // It takes a transaction of its own.
                group.0.into_iter().rev().for_each(|request| waiting.push_front(request));
                break;
            }
            self.waits -= group.requests();
            records += group.0.iter().map(|request| request.records.len()).sum::<usize>();
            bytes += group.0.iter().map(|request| request.bytes).sum::<usize>();
            groups.push(group);
        }
        self.waiting.retain(|_, waiting| !waiting.is_empty());
        for request in groups.iter_mut().flat_map(|group| &mut group.0) {
            drop(take(&mut request.place));
        }
        groups
    }
}

/// The next row of a partition: what waits, as far as it fits. A producer occurs once in it, since the answer to its second
/// request depends on the first.
fn group(waiting: &mut VecDeque<Request>) -> Group {
    let (mut records, mut bytes, mut group) = (0, 0, Vec::new());
    let mut producers: HashSet<String> = HashSet::new();
    while let Some(next) = waiting.front() {
        records += next.records.len();
        bytes += next.bytes;
        let fits = records <= ROW_RECORDS_MAX && bytes <= ROW_BYTES_MAX;
        let again = next.producer.as_ref().is_some_and(|producer| !producers.insert(producer.id.clone()));
        if again || !(fits || group.is_empty()) {
            break;
        }
        group.extend(waiting.pop_front());
    }
    Group(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_waits_for_as_many_as_came_before_and_not_for_long() {
        let none = Duration::ZERO;
        assert!(Patience::default().is_over(1, none), "the first request of all");
        let alone = Patience { requests: 1, commit: Duration::from_millis(3) };
        assert!(alone.is_over(1, none), "one after another");
        let eight = Patience { requests: 8, ..alone };
        assert!(!eight.is_over(7, Duration::from_micros(374)));
        assert!(eight.is_over(7, Duration::from_micros(375)), "an eighth of a commit");
        assert!(eight.is_over(8, none));
        let slow = Patience { commit: Duration::from_secs(1), ..eight };
        assert!(!slow.is_over(7, Duration::from_micros(999)));
        assert!(slow.is_over(7, PATIENCE_MAX));
    }
}
