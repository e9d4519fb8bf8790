//! The catalog of the archive in Postgres. Each function is one statement or one short transaction.

use std::ops::Range;
use std::time::Duration;

use super::parquet::Footer;
use crate::ids::{Epoch, HostId, Micros, Offset, Partition, TopicId, TopicName};
use crate::log::encode::stored_batch;
use crate::pg::pool::Pool;
use crate::record::StoredBatch;

/// The right to archive one segment, until it is taken over.
#[derive(Clone, Debug)]
pub struct Claim {
    pub segment: i64,
    pub topic: TopicId,
    pub name: TopicName,
    /// When the segment begins.
    pub lower: Micros,
    pub table: String,
    pub epoch: Epoch,
}

/// An object that was put and read back, on its way into the catalog.
#[derive(Clone, Debug)]
pub struct NewObject {
    pub path: String,
    pub footer: Footer,
    pub bytes: u64,
    pub sha256: String,
    /// Keys, headers and payloads of its records.
    pub record_bytes: u64,
}

/// Why a segment did not become archived.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another host has claimed the segment since, or it is gone with its topic.
    #[error("another host has taken the segment over")]
    Fenced,
    /// The sweep was faster: an attempt long ago left the same object, and it is being deleted.
    #[error("an object of this segment is being swept; the next attempt puts it again")]
    Swept,
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
}

/// Makes segments that hold no record `archived`: there is nothing to put. How many.
pub async fn archive_empty(pool: &Pool) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE tidemill.segments s SET state = 'archived', archive_error = NULL FROM tidemill.topics t \
         WHERE t.topic_id = s.topic_id AND t.archive AND s.state = 'sealed' AND NOT EXISTS ( \
           SELECT 1 FROM tidemill.segment_ranges r WHERE r.segment_id = s.segment_id AND r.first_offset < r.next_offset)",
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Takes the oldest sealed segment that nobody archives. None: there is nothing to do.
pub async fn claim(pool: &Pool, host: &HostId, ttl: Duration) -> Result<Option<Claim>, sqlx::Error> {
    let row: Option<(i64, i32, String, i64, String, i64)> = sqlx::query_as(
        "SELECT segment_id, topic_id, topic, tidemill.micros(lower), table_name, epoch \
         FROM tidemill.claim_segment($1, make_interval(secs => $2))",
    )
    .bind(&*host.0)
    .bind(ttl.as_secs_f64())
    .fetch_optional(pool)
    .await?;
    let Some((segment, topic, name, lower, table, epoch)) = row else { return Ok(None) };
    let name = TopicName::parse(&name).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Some(Claim { segment, topic: TopicId(topic), name, lower, table, epoch: Epoch(epoch) }))
}

/// Keeps a claim for `ttl` from now on; false if it is lost.
pub async fn renew(pool: &Pool, claim: &Claim, ttl: Duration) -> Result<bool, sqlx::Error> {
    let renewed = sqlx::query(
        "UPDATE tidemill.segments SET archive_until = clock_timestamp() + make_interval(secs => $3) \
         WHERE segment_id = $1 AND archive_epoch = $2 AND state = 'sealed'",
    )
    .bind(claim.segment)
    .bind(claim.epoch.0)
    .bind(ttl.as_secs_f64())
    .execute(pool)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Notes why an attempt failed, and leaves the segment alone for `pause`.
pub async fn failed(pool: &Pool, claim: &Claim, error: &str, pause: Duration) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE tidemill.segments SET archive_owner = NULL, archive_error = left($3, 1000), \
         archive_until = clock_timestamp() + make_interval(secs => $4) \
         WHERE segment_id = $1 AND archive_epoch = $2 AND state = 'sealed'",
    )
    .bind(claim.segment)
    .bind(claim.epoch.0)
    .bind(error.replace('\0', ""))
    .bind(pause.as_secs_f64())
    .execute(pool)
    .await?;
    Ok(())
}

/// What a sealed segment holds, by partition.
pub async fn ranges(pool: &Pool, segment: i64) -> Result<Vec<(Partition, Range<Offset>)>, sqlx::Error> {
    let rows: Vec<(i32, i64, i64)> = sqlx::query_as(
        "SELECT partition, first_offset, next_offset FROM tidemill.segment_ranges \
         WHERE segment_id = $1 AND first_offset < next_offset ORDER BY partition",
    )
    .bind(segment)
    .fetch_all(pool)
    .await?;
    let range = |(partition, first, next): (i32, i64, i64)| {
        (partition.cast_unsigned(), first.cast_unsigned()..next.cast_unsigned())
    };
    Ok(rows.into_iter().map(range).collect())
}

/// Some batches of a sealed segment, from the one that begins with `from` on: about `bytes`, and at least one.
pub async fn page(
    pool: &Pool,
    claim: &Claim,
    partition: Partition,
    from: Offset,
    bytes: u64,
) -> Result<Vec<StoredBatch>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT base_offset, tidemill.micros(appended_at), timestamps, keys, headers, payloads, \
                NULL::int AS log_epoch FROM tidemill.segment_page($1, $2, $3, $4)",
    )
    .bind(&claim.table)
    .bind(partition.cast_signed())
    .bind(i64::try_from(from).unwrap_or(i64::MAX))
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| stored_batch(row, partition)).collect()
}

/// Notes that an object is about to be put, for as long as the claim holds. A host that lost it must not: another may have
/// put the same object and catalogued it, and who is noted is swept.
pub async fn intend(pool: &Pool, claim: &Claim, path: &str) -> Result<(), CommitError> {
    // The lock makes this come before the commit of whoever claims next, which then removes the note, or find that claim.
    let (held, noted): (bool, bool) = sqlx::query_as(
        "WITH held AS ( \
           SELECT 1 FROM tidemill.segments WHERE segment_id = $2 AND archive_epoch = $3 AND state = 'sealed' FOR SHARE \
         ), noted AS ( \
           INSERT INTO tidemill.loose_objects AS l (path, reason) SELECT $1, 'put' FROM held \
           ON CONFLICT ON CONSTRAINT loose_objects_pk DO UPDATE SET reason = 'put', since = clock_timestamp() \
           WHERE l.doomed_at IS NULL RETURNING 1 \
         ) SELECT EXISTS (SELECT FROM held), EXISTS (SELECT FROM noted)",
    )
    .bind(path)
    .bind(claim.segment)
    .bind(claim.epoch.0)
    .fetch_one(pool)
    .await?;
    match (held, noted) {
        (false, _) => Err(CommitError::Fenced),
        (true, false) => Err(CommitError::Swept),
        (true, true) => Ok(()),
    }
}

/// Writes the objects of a segment into the catalog and makes it `archived`, in one transaction.
pub async fn commit(pool: &Pool, claim: &Claim, objects: &[NewObject]) -> Result<(), CommitError> {
    let table_bytes: i64 =
        sqlx::query_scalar("SELECT pg_total_relation_size(to_regclass(format('log.%I', $1::text)))")
            .bind(&claim.table)
            .fetch_one(pool)
            .await?;
    let all: u64 = objects.iter().map(|object| object.record_bytes.max(1)).sum();
    let mut transaction = pool.begin().await?;
    let archived = sqlx::query(
        "UPDATE tidemill.segments SET state = 'archived', archive_until = NULL, archive_error = NULL \
         WHERE segment_id = $1 AND archive_epoch = $2 AND state = 'sealed'",
    )
    .bind(claim.segment)
    .bind(claim.epoch.0)
    .execute(&mut *transaction)
    .await?;
    if archived.rows_affected() != 1 {
        return Err(CommitError::Fenced);
    }
    let paths: Vec<&str> = objects.iter().map(|object| object.path.as_str()).collect();
    let tied = sqlx::query("DELETE FROM tidemill.loose_objects WHERE path = ANY ($1) AND doomed_at IS NULL")
        .bind(&paths)
        .execute(&mut *transaction)
        .await?;
    if tied.rows_affected() != objects.len() as u64 {
        return Err(CommitError::Swept);
    }
    for object in objects {
        let share = object.record_bytes.max(1) as f64 / all as f64;
        insert(claim, object, (table_bytes as f64 * share) as i64).execute(&mut *transaction).await?;
    }
    crate::crash::point("archive.commit");
    transaction.commit().await?;
    Ok(())
}

fn insert<'q>(
    claim: &Claim,
    object: &'q NewObject,
    hot_bytes: i64,
) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
    let footer = &object.footer;
    sqlx::query(
        "INSERT INTO tidemill.objects (topic_id, segment_id, partition, first_offset, next_offset, records, path, bytes, \
         sha256, hot_bytes, first_ts, last_ts) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, tidemill.from_micros($11), tidemill.from_micros($12))",
    )
    .bind(claim.topic.0)
    .bind(claim.segment)
    .bind(footer.partition.cast_signed())
    .bind(footer.first_offset.cast_signed())
    .bind(footer.next_offset.cast_signed())
    .bind(footer.records().cast_signed())
    .bind(&object.path)
    .bind(object.bytes.cast_signed())
    .bind(&object.sha256)
    .bind(hot_bytes)
    .bind(footer.first_ts)
    .bind(footer.last_ts)
}

/// The id that this database writes into its bucket.
pub async fn installation(pool: &Pool) -> Result<String, sqlx::Error> {
    let id: String = sqlx::query_scalar("SELECT id::text FROM tidemill.installation").fetch_one(pool).await?;
    Ok(id)
}
