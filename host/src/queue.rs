//! Queues of jobs: what the SQL functions of `migrations/0011_queues.sql` do, for Rust.
//!
//! Guarantee: a job that was put in a committed transaction is run until one run is accepted, and only one ever is: ending a
//! run names the claim that holds the job, and belongs into the transaction of whatever the run led to ([`finish_in`]).
//! Bound: claims by [`CLAIM_MAX`], requests by [`ENQUEUE_MAX`], lists by [`PAGE_MAX`]; sizes by [`PAYLOAD_MAX`].
//! Failure: a claim whose answer is lost lapses with its lease, and its jobs come again. Whether a finish whose answer is lost
//! was committed is asked with [`Queues::holds`].

pub mod crons;
mod declare;
mod look;
pub mod remote;

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;

pub use look::{Job, JobState, QueueCount};

use crate::ids::{Micros, QueueName};
use crate::log::encode::{headers_from_json, headers_to_json};
use crate::log::{Log, LogError};
use crate::pg::notify::Waiter;
use crate::pg::pool::{Pool, Session};
use crate::record::Header;

/// Jobs that one call claims.
pub const CLAIM_MAX: u32 = 10_000;
/// Jobs that one request puts.
pub const ENQUEUE_MAX: usize = 10_000;
/// Jobs of one page.
pub const PAGE_MAX: u32 = 1_000;
/// Bytes of a job's payload.
pub const PAYLOAD_MAX: usize = 16 << 20;
/// Bytes of a job's key.
pub const KEY_MAX: usize = 1024;
/// How long a look for jobs asks enqueues to notify.
const AWAIT_SECONDS: i32 = 10;

#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// There is no such queue or job.
    #[error("{0}")]
    Unknown(String),
    /// The claim does not hold it any more.
    #[error("{0}")]
    Fenced(String),
    #[error("{0}")]
    Invalid(String),
    /// It cannot be done as things stand.
    #[error("{0}")]
    Impossible(String),
    #[error(transparent)]
    Postgres(LogError),
}

impl From<sqlx::Error> for QueueError {
    fn from(error: sqlx::Error) -> Self {
        let Some(said) = error.as_database_error() else { return Self::Postgres(error.into()) };
        let words = said.message().to_string();
        match said.code().as_deref() {
            Some("TM001") => Self::Unknown(words),
            Some("TM003") => Self::Fenced(words),
            Some("TM005") => Self::Invalid(words),
            Some("TM006") => Self::Impossible(words),
            _ => Self::Postgres(error.into()),
        }
    }
}

/// All queues of a database. Cheap to clone.
#[derive(Clone)]
pub struct Queues {
    pool: Pool,
    log: Log,
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queues").finish_non_exhaustive()
    }
}

/// A job that is to be put into a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewJob {
    pub payload: Bytes,
    /// At most [`KEY_MAX`] bytes. What queues with `per_key` or `ordered` go by.
    pub key: Option<Bytes>,
    pub headers: Vec<Header>,
    /// 1 (first) to 4; None: 2.
    pub priority: Option<u8>,
    /// Not before this. None: at once.
    pub run_at: Option<Micros>,
    pub unique: Option<Unique>,
    /// 1..=1000; None: as the queue says.
    pub max_attempts: Option<u32>,
}

/// No second job with this key is put while the first has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// At most 1,024 characters.
    pub key: String,
    /// And not before so much time has passed since the first was put.
    pub lasting: Option<Duration>,
}

/// What became of a [`NewJob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    pub id: u64,
    /// False: another job has its unique key, and this is that one's id.
    pub created: bool,
}

/// A job as its worker gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedJob {
    pub claim: i64,
    pub id: u64,
    /// 1 for the first run.
    pub attempt: u32,
    pub max_attempts: u32,
    pub priority: u8,
    pub key: Option<Bytes>,
    pub headers: Vec<Header>,
    pub payload: Bytes,
    pub enqueued_at: Micros,
    /// When it could first be claimed.
    pub due_at: Micros,
}

/// How one run of a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub claim: i64,
    pub id: u64,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With a result that can be looked at while the queue keeps the job.
    Done(Option<Bytes>),
    /// It failed, and runs again after a time (None: the queue's back-off), unless it was the last attempt.
    Retry { error: String, after: Option<Duration> },
    /// It runs again after a time, and this run does not count.
    Snooze(Duration),
    /// It is dead at once.
    Reject(String),
    /// It is over, neither done nor dead.
    Cancel(String),
}

impl Verdict {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Retry { .. } => "retry",
            Self::Snooze(_) => "snooze",
            Self::Reject(_) => "reject",
            Self::Cancel(_) => "cancel",
        }
    }

    fn result(&self) -> Option<&[u8]> {
        match self {
            Self::Done(result) => result.as_deref(),
            _ => None,
        }
    }

    fn error(&self) -> Option<&str> {
        match self {
            Self::Retry { error, .. } | Self::Reject(error) | Self::Cancel(error) => Some(error),
            Self::Done(_) | Self::Snooze(_) => None,
        }
    }

    fn after(&self) -> Option<PgInterval> {
        match self {
            Self::Retry { after, .. } => after.map(interval),
            Self::Snooze(after) => Some(interval(*after)),
            _ => None,
        }
    }
}

impl Queues {
    pub fn new(log: Log) -> Self {
        Self { pool: log.pool().clone(), log }
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Makes a queue, or gives an existing one these settings: those of `tidemill.create_queue`, durations in seconds.
    pub async fn declare(&self, queue: &QueueName, settings: &Value) -> Result<bool, QueueError> {
        let query =
            sqlx::query_scalar("SELECT tidemill.create_queue($1, $2)").bind(queue.as_str()).bind(settings);
        Ok(query.fetch_one(&self.pool).await?)
    }

    /// Stops a queue's jobs from being claimed, or lets them again.
    pub async fn pause(&self, queue: &QueueName, paused: bool) -> Result<(), QueueError> {
        sqlx::query("SELECT tidemill.pause_queue($1, $2)")
            .bind(queue.as_str())
            .bind(paused)
            .execute(&self.pool)
            .await?;
        self.wake(queue);
        Ok(())
    }

    /// Puts jobs, all or none, in a transaction of their own.
    pub async fn enqueue(&self, queue: &QueueName, jobs: &[NewJob]) -> Result<Vec<Enqueued>, QueueError> {
        let mut transaction = self.pool.begin().await?;
        let enqueued = enqueue_in(&mut transaction, queue, jobs).await?;
        transaction.commit().await?;
        self.wake(queue);
        Ok(enqueued)
    }

    /// Wakes the workers of this process, after a commit. Those of others are told by the database.
    pub fn wake(&self, queue: &QueueName) {
        self.log.hub().enqueued(queue);
    }

    /// Waits for jobs from now on.
    pub fn waiter(&self, queue: &QueueName) -> Waiter {
        self.log.hub().jobs(queue)
    }

    /// Asks enqueues anywhere to notify for a while, since a worker waits. Look for jobs once more afterwards.
    pub async fn announce(&self, queue: &QueueName) -> Result<(), QueueError> {
        sqlx::query("SELECT tidemill.await_jobs($1, $2)")
            .bind(queue.as_str())
            .bind(AWAIT_SECONDS)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Claims up to so many jobs, which all come under one claim. Nothing if none is to be had. `lease` None: the queue's.
    pub async fn claim(
        &self,
        queue: &QueueName,
        most: u32,
        worker: &str,
        lease: Option<Duration>,
    ) -> Result<Vec<ClaimedJob>, QueueError> {
        self.claim_in_parts(queue, most, worker, lease, None).await
    }

    /// The same, with a claim for so many jobs in a row each, if that is no trouble. To end a whole claim costs less than to
    /// end a part of one, and to make another costs more.
    pub async fn claim_in_parts(
        &self,
        queue: &QueueName,
        most: u32,
        worker: &str,
        lease: Option<Duration>,
        part: Option<u32>,
    ) -> Result<Vec<ClaimedJob>, QueueError> {
        let rows = sqlx::query(
            "SELECT claim, id, attempt, max_attempts, priority, key, headers, payload, tidemill.micros(enqueued_at),
                    tidemill.micros(due_at)
               FROM tidemill.claim_jobs($1, $2, $3, $4, relaxed => true, per_claim => $5)",
        )
        .bind(queue.as_str())
        .bind(most.min(CLAIM_MAX).cast_signed())
        .bind(worker)
        .bind(lease.map(interval))
        .bind(part.map(u32::cast_signed))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.iter().map(claimed).collect::<Result<_, _>>()?)
    }

    /// Lets claims last for another lease, and answers with those that are still there.
    pub async fn extend(&self, claims: &[i64]) -> Result<Vec<i64>, QueueError> {
        let query = sqlx::query_scalar(
            "UPDATE tidemill.claims SET expires_at = clock_timestamp() + lease
              WHERE claim = ANY ($1) AND expires_at >= clock_timestamp() RETURNING claim",
        );
        Ok(query.bind(claims).fetch_all(&self.pool).await?)
    }

    /// The ids that each of these claims still holds, alive or lapsed. Says whether a finish was committed whose answer was lost.
    pub async fn holds(&self, claims: &[i64]) -> Result<Vec<(i64, Vec<u64>)>, QueueError> {
        let held: Vec<(i64, Vec<i64>)> =
            sqlx::query_as("SELECT claim, coalesce(ids, places) FROM tidemill.claims WHERE claim = ANY ($1)")
                .bind(claims)
                .fetch_all(&self.pool)
                .await?;
        let ids = |ids: Vec<i64>| ids.into_iter().map(i64::cast_unsigned).collect();
        Ok(held.into_iter().map(|(claim, held)| (claim, ids(held))).collect())
    }

    /// Ends runs in a transaction of their own; answers with the ids that were accepted.
    pub async fn finish(&self, finished: &[Finished]) -> Result<Vec<(i64, u64)>, QueueError> {
        let mut transaction = self.pool.begin().await?;
        let accepted = finish_in(&mut transaction, finished).await?;
        transaction.commit().await?;
        Ok(accepted)
    }
}

/// Puts jobs into a queue, in the caller's transaction, and answers for each in order. Wake the queue after the commit.
pub async fn enqueue_in(
    session: &mut Session,
    queue: &QueueName,
    jobs: &[NewJob],
) -> Result<Vec<Enqueued>, QueueError> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, bool)> = sqlx::query_as(
        "SELECT id, created FROM tidemill.enqueue_many($1, $2, $3, $4, $5,
                (SELECT array_agg(tidemill.from_micros(at) ORDER BY i) FROM unnest($6::bigint[]) WITH ORDINALITY r(at, i)), $7,
                $8, $9)",
    )
    .bind(queue.as_str())
    .bind(jobs.iter().map(|job| &job.payload[..]).collect::<Vec<_>>())
    .bind(column(jobs, |job| job.key.as_deref()))
    .bind(column(jobs, |job| headers_to_json(&job.headers)))
    .bind(column(jobs, |job| job.priority.map(i32::from)))
    .bind(column(jobs, |job| job.run_at))
    .bind(column(jobs, |job| job.unique.as_ref().map(|unique| unique.key.as_str())))
    .bind(column(jobs, |job| job.unique.as_ref().and_then(|unique| unique.lasting).map(interval)))
    .bind(column(jobs, |job| job.max_attempts.map(u32::cast_signed)))
    .fetch_all(session)
    .await?;
    Ok(rows.into_iter().map(|(id, created)| Enqueued { id: id.cast_unsigned(), created }).collect())
}

/// Ends runs, in the caller's transaction and as its first statement: what else the runs led to follows. Answers with what was
/// accepted, as claim and id; the transaction must not write anything that came of the others.
pub async fn finish_in(session: &mut Session, finished: &[Finished]) -> Result<Vec<(i64, u64)>, QueueError> {
    if finished.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, i64)> =
        sqlx::query_as("SELECT claim, id FROM tidemill.finish_claims($1, $2, $3, $4, $5, $6)")
            .bind(finished.iter().map(|run| run.claim).collect::<Vec<_>>())
            .bind(finished.iter().map(|run| run.id.cast_signed()).collect::<Vec<_>>())
            .bind(finished.iter().map(|run| run.verdict.as_str()).collect::<Vec<_>>())
            .bind(column(finished, |run| run.verdict.result()))
            .bind(column(finished, |run| run.verdict.error()))
            .bind(column(finished, |run| run.verdict.after()))
            .fetch_all(session)
            .await?;
    Ok(rows.into_iter().map(|(claim, id)| (claim, id.cast_unsigned())).collect())
}

/// A column of what may be missing; None if it is missing everywhere.
fn column<'a, T, V>(rows: &'a [T], value: impl Fn(&'a T) -> Option<V>) -> Option<Vec<Option<V>>> {
    let values: Vec<Option<V>> = rows.iter().map(value).collect();
    values.iter().any(Option::is_some).then_some(values)
}

/// To the microsecond, and no longer than Postgres can say.
fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}

fn claimed(row: &PgRow) -> Result<ClaimedJob, sqlx::Error> {
    Ok(ClaimedJob {
        claim: row.try_get(0)?,
        id: row.try_get::<i64, _>(1)?.cast_unsigned(),
        attempt: row.try_get::<i32, _>(2)?.cast_unsigned(),
        max_attempts: row.try_get::<i32, _>(3)?.cast_unsigned(),
        priority: u8::try_from(row.try_get::<i32, _>(4)?).unwrap_or_default(),
        key: row.try_get::<Option<Vec<u8>>, _>(5)?.map(Bytes::from),
        headers: row.try_get::<Option<Value>, _>(6)?.as_ref().map(headers_from_json).unwrap_or_default(),
        payload: row.try_get::<Vec<u8>, _>(7)?.into(),
        enqueued_at: row.try_get(8)?,
        due_at: row.try_get(9)?,
    })
}

#[cfg(test)]
mod tests;
