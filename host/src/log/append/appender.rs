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

/// Waiting for requests takes at most this part of what the last commit took...
const PATIENCE_PART: u32 = 8;
/// ...or, where that is long enough to sleep meanwhile, this part of it, and no longer than that.
const SLEEP_PART: u32 = 4;
const SLEEP_MIN: Duration = Duration::from_millis(1);
const SLEEP_MAX: Duration = Duration::from_millis(4);

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

/// How long a commit waits for more: until it has as many requests as there were before, but not for long. One request after
/// another never waits, and those who stay away are waited for once.
#[derive(Clone, Copy, Debug, Default)]
struct Patience {
    /// Of the commit before, and those that waited when it was over.
    requests: usize,
    /// What it took to store.
    commit: Duration,
}

impl Patience {
    /// None: it is over.
    fn wait(self, requests: usize, waited: Duration) -> Option<Wait> {
        let sleep = (self.commit / SLEEP_PART).min(SLEEP_MAX);
        let spin = self.commit / PATIENCE_PART;
        match requests < self.requests {
            true if sleep >= SLEEP_MIN => {
                sleep.checked_sub(waited).filter(|left| !left.is_zero()).map(Wait::Sleep)
            }
            true if waited < spin => Some(Wait::Spin),
            _ => None,
        }
    }
}

/// How to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// A timer would sleep for longer than the commit takes.
    Spin,
    /// At most so long. Commits are slow where others need the processor, who would only be kept from it.
    Sleep(Duration),
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
                self.patience = Patience { requests: patience.requests + self.waits, ..patience };
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
                Err(_) if !self.is_open => return,
                Err(_) => match self.patience.wait(self.waits, started.elapsed()) {
                    None => return,
                    Some(Wait::Spin) => yield_now().await,
                    Some(Wait::Sleep(left)) => match timeout(left, self.queue.recv()).await {
                        Ok(requests) => self.received(requests),
                        Err(_) => return,
                    },
                },
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
        let (none, micros) = (Duration::ZERO, Duration::from_micros);
        assert_eq!(Patience::default().wait(1, none), None, "the first request of all");
        let alone = Patience { requests: 1, commit: micros(3_000) };
        assert_eq!(alone.wait(1, none), None, "one after another");
        let eight = Patience { requests: 8, ..alone };
        assert_eq!(eight.wait(7, micros(374)), Some(Wait::Spin));
        assert_eq!(eight.wait(7, micros(375)), None, "an eighth of a commit");
        assert_eq!(eight.wait(8, none), None);
        let slow = Patience { commit: micros(8_000), ..eight };
        assert_eq!(slow.wait(7, none), Some(Wait::Sleep(micros(2_000))));
        assert_eq!(slow.wait(7, micros(1_500)), Some(Wait::Sleep(micros(500))));
        assert_eq!(slow.wait(7, micros(2_000)), None, "a quarter of a commit");
        assert_eq!(slow.wait(8, none), None);
        let stuck = Patience { commit: Duration::from_secs(1), ..eight };
        assert_eq!(stuck.wait(7, none), Some(Wait::Sleep(SLEEP_MAX)));
    }
}
