//! Dead letters: messages that a stage gave up on, whole, until they are run again or dropped.
//!
//! Guarantee: a letter is written in the commit that moves its group past the message, and it ends in the commit of what the
//! message led to when it ran again ([`redrive`]). Both name the epoch of the owner, so a letter is processed once.
//! Bound: lists by [`PAGE_MAX`], what one request changes by [`CHANGE_MAX`]. Letters stay until they are redriven or dropped,
//! or for as long as the host was told to keep them; [`watch`] warns when a group has many.
//! Failure: a letter that somebody changes while it runs is left as it was changed, and runs again.

pub mod redrive;
pub mod watch;

use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::ids::{Micros, Offset, Partition};
use crate::log::encode::headers_from_json;
use crate::log::{Log, LogError};
use crate::pg::pool::Pool;
use crate::record::Record;
use watch::Queued;

/// Letters of one page.
pub const PAGE_MAX: u32 = 1_000;
/// Letters that one request redrives or drops.
pub const CHANGE_MAX: u32 = 10_000;
/// Bytes of a payload that a list shows.
const PREVIEW_BYTES: i32 = 256;

/// What a filter lets through; the binds come from [`Filter`], in this order from `$1` on.
const FILTER: &str = "($1::text IS NULL OR group_name = $1) AND ($2::text IS NULL OR topic = $2)
    AND ($3::text IS NULL OR $3 IN (stage, pipeline || '/' || stage)) AND ($4::text IS NULL OR kind = $4)
    AND ($5::text IS NULL OR starts_with(digest, 'sha256:' || regexp_replace($5, '^sha256:', '')))
    AND ($6::bigint IS NULL OR failed_at >= tidemill.from_micros($6))
    AND ($7::bigint IS NULL OR failed_at < tidemill.from_micros($7))";

/// Columns of a letter but for payload, key and headers.
const COLUMNS: &str = "dead_letter_id, xmin::text AS version, group_name, pipeline, stage, digest, topic, partition, c_offset,
    tidemill.micros(ts) AS at, tidemill.micros(coalesce(appended_at, ts)) AS appended, length(payload) AS bytes, kind, error,
    attempts, tries, state, tidemill.micros(created_at) AS created, tidemill.micros(failed_at) AS failed,
    tidemill.micros(redriven_at) AS redriven";

#[derive(Clone, Debug, thiserror::Error)]
pub enum LetterError {
    #[error("{0}")]
    Unknown(String),
    /// It cannot be done as things stand.
    #[error("{0}")]
    Impossible(String),
    #[error(transparent)]
    Postgres(LogError),
}

impl From<sqlx::Error> for LetterError {
    fn from(error: sqlx::Error) -> Self {
        let Some(said) = error.as_database_error() else { return Self::Postgres(error.into()) };
        let words = said.message().to_string();
        match said.code().as_deref() {
            Some("TM001") => Self::Unknown(words),
            Some("TM006") => Self::Impossible(words),
            _ => Self::Postgres(error.into()),
        }
    }
}

/// All dead letters of a database. Cheap to clone.
#[derive(Clone)]
pub struct Letters {
    pool: Pool,
    log: Log,
    queued: Queued,
}

impl std::fmt::Debug for Letters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letters").finish_non_exhaustive()
    }
}

/// Which letters. Nothing set: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub group: Option<String>,
    pub topic: Option<String>,
    /// `stage` or `pipeline/stage`.
    pub stage: Option<String>,
    pub kind: Option<String>,
    /// The first digits, with or without `sha256:`.
    pub digest: Option<String>,
    /// Failed at or after, and before.
    pub since: Option<Micros>,
    pub until: Option<Micros>,
}

/// A dead letter. In a list the record has no headers, and no more than the beginning of its payload.
#[derive(Clone, Debug)]
pub struct Letter {
    pub id: i64,
    /// The row's version: who changes the row changes it.
    pub version: String,
    pub group: String,
    pub pipeline: String,
    pub stage: String,
    /// The component that failed last.
    pub digest: String,
    pub topic: String,
    pub record: Record,
    /// Of the whole payload.
    pub bytes: u64,
    pub appended_at: Micros,
    pub kind: String,
    pub error: String,
    /// Deliveries so far, redrives included.
    pub attempts: u32,
    /// Deliveries since it was queued that asked to come again.
    pub tries: u32,
    pub queued: bool,
    pub created_at: Micros,
    pub failed_at: Micros,
    pub redriven_at: Option<Micros>,
}

/// How many letters a group has.
#[derive(Clone, Debug, Serialize)]
pub struct LetterCount {
    pub group: String,
    /// Counted up to 100,000.
    pub letters: u64,
    pub queued: u64,
}

impl Letters {
    pub fn new(log: Log) -> Self {
        Self { pool: log.pool().clone(), log, queued: Queued::default() }
    }

    /// A page, newest first, of the letters below the id `before`.
    pub async fn list(
        &self,
        filter: &Filter,
        queued: Option<bool>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Letter>, LetterError> {
        let state = queued.map(|queued| if queued { "queued" } else { "dead" });
        let sql = format!(
            "SELECT {COLUMNS}, substring(key for $8) AS key, NULL::jsonb AS headers, substring(payload for $8) AS payload
               FROM tidemill.dead_letters
              WHERE {FILTER} AND ($9::bigint IS NULL OR dead_letter_id < $9) AND ($10::text IS NULL OR state = $10)
              ORDER BY dead_letter_id DESC LIMIT $11"
        );
        let query = filter.bind(sqlx::query(sqlx::AssertSqlSafe(sql)));
        let rows = query
            .bind(PREVIEW_BYTES)
            .bind(before)
            .bind(state)
            .bind(i64::from(limit.min(PAGE_MAX)))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.iter().map(letter).collect::<Result<_, _>>()?)
    }

    /// One letter, whole.
    pub async fn get(&self, id: i64) -> Result<Letter, LetterError> {
        let sql = format!(
            "SELECT {COLUMNS}, key, headers, payload FROM tidemill.dead_letters WHERE dead_letter_id = $1"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(&self.pool).await?;
        let unknown = || LetterError::Unknown(format!("there is no dead letter {id}"));
        Ok(letter(&row.ok_or_else(unknown)?)?)
    }

    /// Queues letters by their ids, all or none. How many were not queued yet.
    pub async fn redrive(&self, ids: &[i64]) -> Result<u64, LetterError> {
        let queued: i64 = sqlx::query_scalar(
            "SELECT count(*) FILTER (WHERE tidemill.redrive(id))
               FROM (SELECT DISTINCT id FROM unnest($1::bigint[]) id ORDER BY id) ids",
        )
        .bind(ids)
        .fetch_one(&self.pool)
        .await?;
        self.queued.hurry();
        Ok(queued.max(0) as u64)
    }

    /// Queues letters of a group, the oldest first, at most `most`. How many.
    pub async fn redrive_all(&self, filter: &Filter, most: u32) -> Result<u64, LetterError> {
        let sql = "SELECT tidemill.redrive($1::text, $2, $3, $4, $5, tidemill.from_micros($6), tidemill.from_micros($7), $8)";
        let query = sqlx::query(sql);
        let row = filter.bind(query).bind(most.min(CHANGE_MAX) as i32).fetch_one(&self.pool).await?;
        self.queued.hurry();
        Ok(row.try_get::<i64, _>(0)?.max(0) as u64)
    }

    /// Drops letters by their ids. How many there were.
    pub async fn drop(&self, ids: &[i64]) -> Result<u64, LetterError> {
        let sql = "DELETE FROM tidemill.dead_letters WHERE dead_letter_id = ANY ($1)";
        Ok(sqlx::query(sql).bind(ids).execute(&self.pool).await?.rows_affected())
    }

    /// Drops the oldest letters that a filter lets through, at most `most`. How many.
    pub async fn drop_all(&self, filter: &Filter, most: u32) -> Result<u64, LetterError> {
        let sql = format!(
            "DELETE FROM tidemill.dead_letters WHERE dead_letter_id = ANY (ARRAY(
                 SELECT dead_letter_id FROM tidemill.dead_letters WHERE {FILTER} ORDER BY dead_letter_id LIMIT $8))"
        );
        let query = filter.bind(sqlx::query(sqlx::AssertSqlSafe(sql)));
        Ok(query.bind(i64::from(most.min(CHANGE_MAX))).execute(&self.pool).await?.rows_affected())
    }

    /// How many each group has.
    pub async fn counts(&self) -> Result<Vec<LetterCount>, LetterError> {
        let sql = "SELECT group_name, letters, queued FROM tidemill.dead_letter_counts ORDER BY group_name";
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(sql).fetch_all(&self.pool).await?;
        let count = |(group, letters, queued): (String, i64, i64)| LetterCount {
            group,
            letters: letters.max(0) as u64,
            queued: queued.max(0) as u64,
        };
        Ok(rows.into_iter().map(count).collect())
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

impl Filter {
    /// Binds `$1` to `$7`.
    fn bind<'q>(&self, query: Query<'q>) -> Query<'q> {
        query
            .bind(self.group.clone())
            .bind(self.topic.clone())
            .bind(self.stage.clone())
            .bind(self.kind.clone())
            .bind(self.digest.clone())
            .bind(self.since)
            .bind(self.until)
    }
}

fn letter(row: &PgRow) -> Result<Letter, sqlx::Error> {
    let headers: Option<serde_json::Value> = row.try_get("headers")?;
    let record = Record {
        partition: row.try_get::<i32, _>("partition")? as Partition,
        offset: row.try_get::<i64, _>("c_offset")? as Offset,
        timestamp: row.try_get("at")?,
        key: row.try_get::<Option<Vec<u8>>, _>("key")?.map(Into::into),
        headers: headers.as_ref().map(headers_from_json).unwrap_or_default(),
        payload: row.try_get::<Vec<u8>, _>("payload")?.into(),
    };
    Ok(Letter {
        id: row.try_get("dead_letter_id")?,
        version: row.try_get("version")?,
        group: row.try_get("group_name")?,
        pipeline: row.try_get("pipeline")?,
        stage: row.try_get("stage")?,
        digest: row.try_get("digest")?,
        topic: row.try_get("topic")?,
        record,
        bytes: row.try_get::<i32, _>("bytes")? as u64,
        appended_at: row.try_get("appended")?,
        kind: row.try_get("kind")?,
        error: row.try_get("error")?,
        attempts: row.try_get::<i32, _>("attempts")? as u32,
        tries: row.try_get::<i32, _>("tries")? as u32,
        queued: row.try_get::<&str, _>("state")? == "queued",
        created_at: row.try_get("created")?,
        failed_at: row.try_get("failed")?,
        redriven_at: row.try_get("redriven")?,
    })
}

#[cfg(test)]
mod tests;
