//! Storing what was taken from the queues, and answering it.
//!
//! What is surely rolled back is tried again, a bounded number of times with growing pauses, while later requests of the
//! partition wait behind it, so order holds. When the connection breaks before the answer, the commit may have happened:
//! requests with a producer are repeated, which is harmless, and the others are told that it is unknown.

use std::time::Instant;

use tokio::time::sleep;

use crate::ids::{Offset, Partition, TopicId, TopicName, TopicPartition};
use crate::pg::notify::NotifyHub;
use crate::pg::pool::Pool;
use crate::record::Appended;

use super::super::AppendError;
use super::super::error::{ATTEMPTS, Trouble, pause};
use super::queue::Request;
use super::write::{self, Outcome, Verdict};
use super::{ROW_BYTES_MAX, ROW_RECORDS_MAX};

/// Requests of one partition, in order, that make one row; or one that is too large for a row. Never empty.
pub(super) struct Group(pub(super) Vec<Request>);

impl Group {
    pub(super) fn partition(&self) -> Partition {
        self.0.first().map_or(0, |request| request.partition)
    }

    pub(super) fn requests(&self) -> usize {
        self.0.len()
    }

    /// One request that becomes several rows.
    pub(super) fn is_large(&self) -> bool {
        matches!(&self.0[..], [one] if one.records.len() > ROW_RECORDS_MAX || one.bytes > ROW_BYTES_MAX)
    }
}

/// Writes to one topic.
#[derive(Clone)]
pub(super) struct Store {
    topic: TopicId,
    name: TopicName,
    pool: Pool,
    hub: NotifyHub,
}

impl Store {
    pub(super) fn new(topic: TopicId, name: TopicName, pool: Pool, hub: NotifyHub) -> Self {
        Self { topic, name, pool, hub }
    }

    pub(super) fn topic(&self) -> TopicId {
        self.topic
    }

    /// Stores groups of several partitions in one commit and answers their requests. What is left is to be stored by
    /// itself, partition for partition.
    pub(super) async fn together(&self, groups: Vec<Group>) -> Vec<Group> {
        if groups.iter().any(Group::is_large) {
            return groups;
        }
        let started = Instant::now();
        let (error, trouble) = match self.write(&groups).await {
            Ok(outcomes) => {
                metrics::histogram!("tidemill_append_commit_seconds").record(started.elapsed());
                let outcomes = groups.into_iter().zip(outcomes);
                let left = outcomes.map(|(group, outcome)| self.came_out(group, outcome));
                return left.flatten().collect();
            }
            Err(failed) => failed,
        };
        tracing::debug!(topic = %self.name, partitions = groups.len(), %error, "an append is taken apart");
        let open = |group: Group| match trouble {
            // It will not get better by itself, nor for one partition alone.
            Trouble::Unavailable => give_up(group, &error, |_| true),
            Trouble::Unknown => give_up(group, &error, |request| request.producer.is_none()),
            Trouble::Passing | Trouble::Ours | Trouble::Other => Some(group),
        };
        groups.into_iter().filter_map(open).collect()
    }

    /// Stores a group and answers each of its requests.
    pub(super) async fn alone(&self, group: Group) {
        let mut group = Some(group);
        let mut attempt = 1;
        while let Some(left) = group.take() {
            let started = Instant::now();
            match self.write_alone(&left).await {
                Ok(outcome) => {
                    metrics::histogram!("tidemill_append_commit_seconds").record(started.elapsed());
                    group = self.came_out(left, outcome);
                }
                Err((error, trouble)) => {
                    let last = attempt >= ATTEMPTS;
                    let partition = left.partition();
                    group = match trouble {
                        Trouble::Passing if !last => Some(left),
                        Trouble::Unknown if !last => give_up(left, &error, |r| r.producer.is_none()),
                        _ => give_up(left, &error, |_| true),
                    };
                    if group.is_some() {
                        metrics::counter!("tidemill_append_retries_total").increment(1);
                        tracing::debug!(topic = %self.name, partition, attempt, %error, "an append is tried again");
                        sleep(pause(attempt)).await;
                        attempt += 1;
                    }
                }
            }
        }
    }

    /// Answers what is decided and returns what is still to be stored.
    fn came_out(&self, group: Group, outcome: Outcome) -> Option<Group> {
        match outcome {
            Outcome::Stored(base) => {
                self.stored(group, base);
                None
            }
            Outcome::Refused(verdicts) => settle(group, verdicts),
        }
    }

    fn stored(&self, group: Group, base: Offset) {
        self.hub.appended(self.topic);
        let partition = group.partition();
        let records: usize = group.0.iter().map(|request| request.records.len()).sum();
        metrics::counter!("tidemill_append_batches_total", "topic" => self.name.to_string()).increment(1);
        metrics::counter!("tidemill_append_records_total", "topic" => self.name.to_string())
            .increment(records as u64);
        let mut next = base;
        for request in group.0 {
            let base_offset = next;
            next += request.records.len() as Offset;
            // Whoever asked may be gone; the records are stored all the same.
            let _ = request.reply.send(Ok(Appended {
                partition,
                base_offset,
                next_offset: next,
                duplicate: false,
            }));
        }
    }

    async fn write(&self, groups: &[Group]) -> Result<Vec<Outcome>, Failed> {
        let mut session = self.pool.acquire().await.map_err(not_begun)?;
        write::rows_together(&mut session, self.topic, groups).await.map_err(|error| self.failed(error))
    }

    async fn write_alone(&self, group: &Group) -> Result<Outcome, Failed> {
        let target = TopicPartition { topic: self.topic, partition: group.partition() };
        match &group.0[..] {
            [request] if group.is_large() => {
                let mut transaction = self.pool.begin().await.map_err(not_begun)?;
                let written = write::rows(&mut transaction, target, request).await;
                let outcome = written.map_err(|error| self.not_committed(error))?;
                match outcome {
                    Outcome::Stored(_) => transaction.commit().await.map(|()| outcome),
                    refused @ Outcome::Refused(_) => Ok(refused),
                }
            }
            requests => {
                let mut session = self.pool.acquire().await.map_err(not_begun)?;
                write::row(&mut session, target, requests).await
            }
        }
        .map_err(|error| self.failed(error))
    }

    fn failed(&self, error: sqlx::Error) -> Failed {
        let trouble = Trouble::of(&error);
        (AppendError::of(error, &self.name), trouble)
    }

    /// A connection that broke before COMMIT was sent has stored nothing.
    fn not_committed(&self, error: sqlx::Error) -> Failed {
        match Trouble::of(&error) {
            Trouble::Unknown => not_begun(error),
            trouble => (AppendError::of(error, &self.name), trouble),
        }
    }
}

/// What went wrong, and what that means.
type Failed = (AppendError, Trouble);

/// Apart, so that not getting a connection is never mistaken for losing one.
fn not_begun(error: sqlx::Error) -> Failed {
    let trouble = match Trouble::of(&error) {
        Trouble::Unknown => Trouble::Passing,
        trouble => trouble,
    };
    (AppendError::Unavailable(error.to_string()), trouble)
}

/// Answers the requests that are not to be appended and returns the others, if there are any.
fn settle(group: Group, verdicts: Vec<Verdict>) -> Option<Group> {
    let mut verdicts = verdicts.into_iter();
    let mut left = Vec::with_capacity(group.requests());
    for request in group.0 {
        let verdict = request.producer.as_ref().and_then(|_| verdicts.next());
        match verdict {
            Some(Verdict::Answer(answer)) => {
                let _ = request.reply.send(answer);
            }
            Some(Verdict::Append) | None => left.push(request),
        }
    }
    (!left.is_empty()).then_some(Group(left))
}

/// Answers some requests with an error and returns the others, if there are any.
fn give_up(group: Group, error: &AppendError, which: impl Fn(&Request) -> bool) -> Option<Group> {
    let (given_up, left): (Vec<_>, Vec<_>) = group.0.into_iter().partition(which);
    for request in given_up {
        let _ = request.reply.send(Err(error.clone()));
    }
    (!left.is_empty()).then_some(Group(left))
}
