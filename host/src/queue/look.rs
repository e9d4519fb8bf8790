//! Looking at queues and their jobs, and changing single ones by hand.

use serde::Serialize;
use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{PAGE_MAX, QueueError, Queues};
use crate::ids::{Micros, QueueName};
use crate::log::encode::headers_from_json;
use crate::record::Header;

/// What a queue holds. `waiting` counts what was drawn and not claimed; the others are counted up to 100,000.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueCount {
    pub queue: String,
    pub waiting: u64,
    pub scheduled: u64,
    pub blocked: u64,
    pub running: u64,
    pub dead: u64,
    /// Since when the job waits that is next.
    pub oldest_waiting_at: Option<Micros>,
    pub paused: bool,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    Waiting,
    /// Not due: put for later, snoozed, or before its next attempt.
    Scheduled,
    /// Its key is busy.
    Blocked,
    Running,
    Dead,
    Done,
    Cancelled,
}

impl JobState {
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Scheduled,
        Self::Blocked,
        Self::Running,
        Self::Dead,
        Self::Done,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Scheduled => "scheduled",
            Self::Blocked => "blocked",
            Self::Running => "running",
            Self::Dead => "dead",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(state: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == state)
    }
}

/// A job as it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: u64,
    pub state: JobState,
    pub priority: u8,
    /// Runs so far, the present one included.
    pub attempt: u32,
    pub max_attempts: u32,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<Header>,
    pub unique_key: Option<String>,
    pub payload: Vec<u8>,
    pub enqueued_at: Micros,
    /// When it is due, if it is scheduled.
    pub run_at: Option<Micros>,
    pub claimed_at: Option<Micros>,
    pub finished_at: Option<Micros>,
    pub worker: Option<String>,
    pub result: Option<Vec<u8>>,
    /// Why its last run failed.
    pub error: Option<String>,
}

pub(super) const COLUMNS: &str = "id, state, priority, attempt, max_attempts, key, headers, unique_key, payload,
    tidemill.micros(enqueued_at), tidemill.micros(run_at), tidemill.micros(claimed_at), tidemill.micros(finished_at), worker,
    result, error";

impl Queues {
    /// What each queue holds, by name.
    pub async fn counts(&self) -> Result<Vec<QueueCount>, QueueError> {
        let sql = "SELECT queue, waiting, scheduled, blocked, running, dead, tidemill.micros(oldest_waiting_at), paused
                     FROM tidemill.queue_counts()";
        let rows = sqlx::query(sql).fetch_all(self.pool()).await?;
        Ok(rows.iter().map(count).collect::<Result<_, _>>()?)
    }

    /// Jobs in a state, at most [`PAGE_MAX`]: those that wait in the order of their turns, scheduled ones by when they are due,
    /// the others newest first.
    pub async fn list(&self, queue: &QueueName, state: JobState, limit: u32) -> Result<Vec<Job>, QueueError> {
        let sql = format!("SELECT {COLUMNS} FROM tidemill.list_jobs($1, $2, $3)");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(queue.as_str())
            .bind(state.as_str())
            .bind(limit.min(PAGE_MAX).cast_signed())
            .fetch_all(self.pool())
            .await?;
        Ok(rows.iter().map(job).collect::<Result<_, _>>()?)
    }

    /// One job; None if the queue knows it no more.
    pub async fn find(&self, queue: &QueueName, id: u64) -> Result<Option<Job>, QueueError> {
        let sql = format!("SELECT {COLUMNS} FROM tidemill.find_job($1, $2)");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(queue.as_str()).bind(id.cast_signed());
        let row = query.fetch_optional(self.pool()).await?;
        Ok(row.as_ref().map(job).transpose()?)
    }

    /// Ends a job that waits or runs; answers with the state it was in.
    pub async fn cancel(
        &self,
        queue: &QueueName,
        id: u64,
        reason: Option<&str>,
    ) -> Result<String, QueueError> {
        let query = sqlx::query_scalar("SELECT tidemill.cancel_job($1, $2, $3)");
        let was =
            query.bind(queue.as_str()).bind(id.cast_signed()).bind(reason).fetch_one(self.pool()).await?;
        self.wake(queue);
        Ok(was)
    }

    /// Runs a dead or a scheduled job now.
    pub async fn retry(&self, queue: &QueueName, id: u64) -> Result<(), QueueError> {
        let query =
            sqlx::query("SELECT tidemill.retry_job($1, $2)").bind(queue.as_str()).bind(id.cast_signed());
        query.execute(self.pool()).await?;
        self.wake(queue);
        Ok(())
    }

    /// Forgets dead jobs. How many there were.
    pub async fn drop_dead(&self, queue: &QueueName, ids: &[u64]) -> Result<u64, QueueError> {
        let ids: Vec<i64> = ids.iter().map(|id| id.cast_signed()).collect();
        let query =
            sqlx::query_scalar("SELECT tidemill.drop_dead_jobs($1, $2)").bind(queue.as_str()).bind(ids);
        let dropped: i64 = query.fetch_one(self.pool()).await?;
        Ok(dropped.cast_unsigned())
    }
}

fn count(row: &PgRow) -> Result<QueueCount, sqlx::Error> {
    let number = |column: usize| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
    Ok(QueueCount {
        queue: row.try_get(0)?,
        waiting: number(1)?,
        scheduled: number(2)?,
        blocked: number(3)?,
        running: number(4)?,
        dead: number(5)?,
        oldest_waiting_at: row.try_get(6)?,
        paused: row.try_get(7)?,
    })
}

pub(super) fn job(row: &PgRow) -> Result<Job, sqlx::Error> {
    let state: String = row.try_get(1)?;
    let state =
        JobState::parse(&state).ok_or_else(|| sqlx::Error::Decode(format!("a job is {state:?}").into()))?;
    Ok(Job {
        id: row.try_get::<i64, _>(0)?.cast_unsigned(),
        state,
        priority: u8::try_from(row.try_get::<i32, _>(2)?).unwrap_or_default(),
        attempt: row.try_get::<i32, _>(3)?.cast_unsigned(),
        max_attempts: row.try_get::<i32, _>(4)?.cast_unsigned(),
        key: row.try_get(5)?,
        headers: row.try_get::<Option<Value>, _>(6)?.as_ref().map(headers_from_json).unwrap_or_default(),
        unique_key: row.try_get(7)?,
        payload: row.try_get(8)?,
        enqueued_at: row.try_get(9)?,
        run_at: row.try_get(10)?,
        claimed_at: row.try_get(11)?,
        finished_at: row.try_get(12)?,
        worker: row.try_get(13)?,
        result: row.try_get(14)?,
        error: row.try_get(15)?,
    })
}
