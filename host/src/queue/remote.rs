//! What workers and people outside of this process ask: queues with their settings, glances at jobs, claims by their number.

use std::time::Duration;

use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::look::{COLUMNS, job};
use super::{Job, JobState, PAGE_MAX, QueueCount, QueueError, Queues, interval};
use crate::ids::{Micros, QueueName};

/// Bytes of a payload and of a result that a glance carries: a page of the largest jobs stays below 20 MB.
pub const GLANCE: usize = 8 << 10;

/// A queue: what it holds and how it is set.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueInfo {
    pub count: QueueCount,
    /// Seconds since `oldest_waiting_at`, by the database's clock.
    pub oldest_waiting: Option<f64>,
    pub settings: Settings,
    pub created_at: Micros,
}

/// Durations in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    pub lease_s: f64,
    pub max_attempts: u32,
    pub backoff_first_s: f64,
    pub backoff_longest_s: f64,
    pub concurrency: Option<u32>,
    pub per_key: Option<u32>,
    pub ordered: bool,
    pub keep_s: f64,
    /// A topic.
    pub history: Option<String>,
}

/// A job without what is long of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Payload and result are cut to [`GLANCE`].
    pub job: Job,
    /// Of the whole payload and the whole result.
    pub bytes: u64,
    pub result_bytes: u64,
}

impl Queues {
    /// All queues by name, or the one that is asked for.
    pub async fn infos(&self, queue: Option<&QueueName>) -> Result<Vec<QueueInfo>, QueueError> {
        let rows = sqlx::query(
            "SELECT c.queue, c.waiting, c.scheduled, c.blocked, c.running, c.dead, tidemill.micros(c.oldest_waiting_at), c.paused,
                    CASE WHEN c.oldest_waiting_at IS NOT NULL
                         THEN greatest(extract(epoch FROM clock_timestamp() - c.oldest_waiting_at), 0)::float8 END,
                    extract(epoch FROM q.lease)::float8, q.max_attempts, extract(epoch FROM q.backoff_first)::float8,
                    extract(epoch FROM q.backoff_longest)::float8, q.concurrency, q.per_key, q.ordered,
                    extract(epoch FROM q.keep)::float8, t.name, tidemill.micros(q.created_at)
               FROM tidemill.queue_counts() c JOIN tidemill.queues q ON q.name = c.queue
               LEFT JOIN tidemill.topics t ON t.topic_id = q.history
              WHERE $1 IS NULL OR c.queue = $1 ORDER BY c.queue",
        )
        .bind(queue.map(QueueName::as_str))
        .fetch_all(self.pool())
        .await?;
        Ok(rows.iter().map(info).collect::<Result<_, _>>()?)
    }

    /// As [`Queues::list`], with payloads and results cut short by the database. `before`: only what comes after that job in the
    /// order of the list, as far as it is among the first [`PAGE_MAX`].
    pub async fn glance(
        &self,
        queue: &QueueName,
        state: JobState,
        limit: u32,
        before: Option<u64>,
    ) -> Result<Vec<Glance>, QueueError> {
        let looked = if before.is_some() { PAGE_MAX } else { limit.min(PAGE_MAX) };
        let columns = COLUMNS
            .replace(" payload,", &format!(" substring(payload FOR {GLANCE}),"))
            .replace(" result,", &format!(" substring(result FOR {GLANCE}),"));
        let sql = format!(
            "SELECT {columns}, length(payload)::bigint, coalesce(length(result), 0)::bigint
               FROM tidemill.list_jobs($1, $2, $3)"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(queue.as_str())
            .bind(state.as_str())
            .bind(looked.cast_signed())
            .fetch_all(self.pool())
            .await?;
        let all = rows.iter().map(|row| {
            Ok(Glance {
                job: job(row)?,
                bytes: row.try_get::<i64, _>(16)?.cast_unsigned(),
                result_bytes: row.try_get::<i64, _>(17)?.cast_unsigned(),
            })
        });
        let mut all = all.collect::<Result<Vec<Glance>, sqlx::Error>>()?;
        if let Some(before) = before {
            let at = all.iter().position(|glance| glance.job.id == before).map_or(all.len(), |at| at + 1);
            all.drain(..at);
        }
        all.truncate(limit as usize);
        Ok(all)
    }

    /// Lets one claim last from now on for a lease; `None`: as long as it lasted before. Answers with its end.
    pub async fn extend_one(&self, claim: i64, lease: Option<Duration>) -> Result<Micros, QueueError> {
        let query = sqlx::query_scalar("SELECT tidemill.micros(tidemill.extend_claim($1, $2))");
        Ok(query.bind(claim).bind(lease.map(interval)).fetch_one(self.pool()).await?)
    }

    /// Whether a claim is one of this queue.
    pub async fn has_claim(&self, queue: &QueueName, claim: i64) -> Result<bool, QueueError> {
        let query = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM tidemill.claims c
                            WHERE c.claim = $2 AND c.queue_id = (tidemill.queue_named($1)).queue_id)",
        );
        Ok(query.bind(queue.as_str()).bind(claim).fetch_one(self.pool()).await?)
    }
}

fn info(row: &PgRow) -> Result<QueueInfo, sqlx::Error> {
    let number = |column: usize| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
    let limit =
        |column: usize| row.try_get::<Option<i32>, _>(column).map(|limit| limit.map(i32::cast_unsigned));
    Ok(QueueInfo {
        count: QueueCount {
            queue: row.try_get(0)?,
            waiting: number(1)?,
            scheduled: number(2)?,
            blocked: number(3)?,
            running: number(4)?,
            dead: number(5)?,
            oldest_waiting_at: row.try_get(6)?,
            paused: row.try_get(7)?,
        },
        oldest_waiting: row.try_get(8)?,
        settings: Settings {
            lease_s: row.try_get(9)?,
            max_attempts: row.try_get::<i32, _>(10)?.cast_unsigned(),
            backoff_first_s: row.try_get(11)?,
            backoff_longest_s: row.try_get(12)?,
            concurrency: limit(13)?,
            per_key: limit(14)?,
            ordered: row.try_get(15)?,
            keep_s: row.try_get(16)?,
            history: row.try_get(17)?,
        },
        created_at: row.try_get(18)?,
    })
}
