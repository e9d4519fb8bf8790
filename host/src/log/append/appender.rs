//! The task of one partition: takes what waits, stores it as one row in one commit, answers, and again.
//!
//! Whoever is answered together mostly writes again at once and together. Without a moment's patience the first of them
//! would get a commit alone and the others the next, so that half of the commits held one request; see [`Patience`].
//!
//! What is surely rolled back is tried again, a bounded number of times with growing pauses, while later requests wait
//! behind it, so order holds. When the connection breaks before the answer, the commit may have happened: requests with
//! a producer are repeated, which is harmless, and the others are told that it is unknown.

use std::collections::HashSet;
use std::sync::{PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::ids::{Offset, TopicName, TopicPartition};
use crate::pg::notify::NotifyHub;
use crate::pg::pool::Pool;
use crate::record::Appended;

use super::super::AppendError;
use super::super::error::{ATTEMPTS, Trouble, pause};
use super::queue::{Queues, Request};
use super::write::{self, Outcome, Verdict};
use super::{ROW_BYTES_MAX, ROW_RECORDS_MAX};

/// Waiting for requests takes at most this part of what the last commit took, and no longer than that.
const PATIENCE_PART: u32 = 8;
const PATIENCE_MAX: Duration = Duration::from_millis(1);

pub(super) struct Appender {
    target: TopicPartition,
    topic: TopicName,
    pool: Pool,
    hub: NotifyHub,
    queue: mpsc::Receiver<Request>,
    /// Taken from the queue, but not fit for the group before.
    held: Option<Request>,
    patience: Patience,
}

/// How long a group waits for more: until it has as many requests as the one before, but not for long. One request after
/// another never waits, and those who stay away are waited for once.
#[derive(Clone, Copy, Debug, Default)]
struct Patience {
    /// Of the group before.
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
    pub(super) fn new(
        target: TopicPartition,
        topic: TopicName,
        pool: Pool,
        hub: NotifyHub,
        queue: mpsc::Receiver<Request>,
    ) -> Self {
        Self { target, topic, pool, hub, queue, held: None, patience: Patience::default() }
    }

    /// Ends when nothing came for `idle`, or when the log is dropped and all that was sent is answered.
    pub(super) async fn run(mut self, idle: Duration, queues: Weak<Queues>) {
        loop {
            let first = match self.held.take() {
                Some(held) => Some(held),
                None => match timeout(idle, self.queue.recv()).await {
                    Ok(first) => first,
                    Err(_) => {
                        self.retire(&queues);
                        continue;
                    }
                },
            };
            let Some(first) = first else { return };
            let group = self.collect(first).await;
            let (requests, started) = (group.len(), Instant::now());
            self.store(group).await;
            self.patience = Patience { requests, commit: started.elapsed() };
        }
    }

    /// Leaves the map, so that the next request starts a new task, and lets in no more; what has room already is still
    /// received before the queue ends.
    fn retire(&mut self, queues: &Weak<Queues>) {
        if let Some(queues) = queues.upgrade() {
            let mut queues = queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.remove(&self.target);
        }
        self.queue.close();
    }

    /// Adds what waits or comes in a moment, as far as it fits into one row. A producer occurs once in a group, since the
    /// answer to its second request depends on the first.
    async fn collect(&mut self, first: Request) -> Vec<Request> {
        let (mut records, mut bytes) = (first.records.len(), first.bytes);
        let mut producers: HashSet<String> = first.producer.iter().map(|p| p.id.clone()).collect();
        let mut group = vec![first];
        let started = Instant::now();
        loop {
            let Ok(next) = self.queue.try_recv() else {
                if self.patience.is_over(group.len(), started.elapsed()) {
                    return group;
                }
                // The writers' turn. A timer would sleep for longer than most commits take.
                yield_now().await;
                continue;
            };
            records += next.records.len();
            bytes += next.bytes;
            let again = match &next.producer {
                Some(producer) => !producers.insert(producer.id.clone()),
                None => false,
            };
            if again || records > ROW_RECORDS_MAX || bytes > ROW_BYTES_MAX {
                self.held = Some(next);
                return group;
            }
            group.push(next);
        }
    }

    /// Stores a group and answers each of its requests.
    async fn store(&self, mut group: Vec<Request>) {
        let mut attempt = 1;
        while !group.is_empty() {
            let started = Instant::now();
            match self.write(&group).await {
                Ok(Outcome::Stored(base)) => {
                    metrics::histogram!("tidemill_append_commit_seconds").record(started.elapsed());
                    self.stored(group, base);
                    return;
                }
                Ok(Outcome::Refused(verdicts)) => group = settle(group, verdicts),
                Err((error, trouble)) => {
                    let last = attempt >= ATTEMPTS;
                    group = match trouble {
                        Trouble::Passing if !last => group,
                        Trouble::Unknown if !last => give_up(group, &error, |r| r.producer.is_none()),
                        _ => give_up(group, &error, |_| true),
                    };
                    if !group.is_empty() {
                        metrics::counter!("tidemill_append_retries_total").increment(1);
                        tracing::debug!(topic = %self.topic, partition = self.target.partition, attempt, %error,
                            "an append is tried again");
                        sleep(pause(attempt)).await;
                        attempt += 1;
                    }
                }
            }
        }
    }

    fn stored(&self, group: Vec<Request>, base: Offset) {
        self.hub.appended(self.target.topic);
        let records: usize = group.iter().map(|request| request.records.len()).sum();
        metrics::counter!("tidemill_append_batches_total", "topic" => self.topic.to_string()).increment(1);
        metrics::counter!("tidemill_append_records_total", "topic" => self.topic.to_string())
            .increment(records as u64);
        let mut next = base;
        for request in group {
            let base_offset = next;
            next += request.records.len() as Offset;
            // Whoever asked may be gone; the records are stored all the same.
            let _ = request.reply.send(Ok(Appended {
                partition: self.target.partition,
                base_offset,
                next_offset: next,
                duplicate: false,
            }));
        }
    }

    async fn write(&self, group: &[Request]) -> Result<Outcome, (AppendError, Trouble)> {
        let written = match group {
            [request] if request.records.len() > ROW_RECORDS_MAX || request.bytes > ROW_BYTES_MAX => {
                let mut transaction = self.pool.begin().await.map_err(not_begun)?;
                let written = write::rows(&mut transaction, self.target, request).await;
                let outcome = written.map_err(|error| self.not_committed(error))?;
                match outcome {
                    Outcome::Stored(_) => transaction.commit().await.map(|()| outcome),
                    refused @ Outcome::Refused(_) => Ok(refused),
                }
            }
            group => {
                let mut session = self.pool.acquire().await.map_err(not_begun)?;
                write::row(&mut session, self.target, group).await
            }
        };
        written.map_err(|error| {
            let trouble = Trouble::of(&error);
            (AppendError::of(error, &self.topic), trouble)
        })
    }

    /// A connection that broke before COMMIT was sent has stored nothing.
    fn not_committed(&self, error: sqlx::Error) -> (AppendError, Trouble) {
        match Trouble::of(&error) {
            Trouble::Unknown => not_begun(error),
            trouble => (AppendError::of(error, &self.topic), trouble),
        }
    }
}

/// Apart, so that not getting a connection is never mistaken for losing one.
fn not_begun(error: sqlx::Error) -> (AppendError, Trouble) {
    let trouble = match Trouble::of(&error) {
        Trouble::Unknown => Trouble::Passing,
        trouble => trouble,
    };
    (AppendError::Unavailable(error.to_string()), trouble)
}

/// Answers the requests that are not to be appended and returns the others.
fn settle(group: Vec<Request>, verdicts: Vec<Verdict>) -> Vec<Request> {
    let mut verdicts = verdicts.into_iter();
    let mut left = Vec::with_capacity(group.len());
    for request in group {
        let verdict = request.producer.as_ref().and_then(|_| verdicts.next());
        match verdict {
            Some(Verdict::Answer(answer)) => {
                let _ = request.reply.send(answer);
            }
            Some(Verdict::Append) | None => left.push(request),
        }
    }
    left
}

/// Answers some requests with an error and returns the others.
fn give_up(group: Vec<Request>, error: &AppendError, which: impl Fn(&Request) -> bool) -> Vec<Request> {
    let mut left = Vec::new();
    for request in group {
        if which(&request) {
            let _ = request.reply.send(Err(error.clone()));
        } else {
            left.push(request);
        }
    }
    left
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
