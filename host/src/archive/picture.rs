//! What of a topic is where: totals of what is in the bucket, and the segments on their time line.

use serde::Serialize;
use sqlx::FromRow;

use crate::ids::{Micros, TopicId};
use crate::pg::pool::Pool;

/// What of a topic is in the bucket, as the catalog has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, FromRow)]
pub struct ColdSize {
    pub objects: i64,
    pub records: i64,
    pub bytes: i64,
    /// What the same records took in Postgres.
    pub hot_bytes: i64,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct SegmentInfo {
    pub lower: Micros,
    pub upper: Micros,
    /// open, sealed, archived, dropping or dropped.
    pub state: String,
    /// Known once it is sealed.
    pub records: Option<i64>,
    /// Of its table, indexes and TOAST now; 0 once they are dropped.
    pub hot_bytes: i64,
    pub objects: i64,
    /// Records in the bucket.
    pub cold_records: i64,
    pub cold_bytes: i64,
    /// Why it is not archived yet, after a failure.
    pub error: Option<String>,
}

/// What waits to be archived, of all topics: how many segments with records in them, and for how many seconds the oldest
/// of them has been over. It is always some, since a segment is sealed first; while the bucket is away it grows.
pub async fn waiting(pool: &Pool) -> Result<(i64, f64), sqlx::Error> {
    sqlx::query_as(
        "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(s.upper)), 0)::float8 \
           FROM tidemill.segments s JOIN tidemill.topics t USING (topic_id) \
          WHERE t.archive AND s.state = 'sealed' \
            AND EXISTS (SELECT FROM tidemill.segment_ranges r WHERE r.segment_id = s.segment_id)",
    )
    .fetch_one(pool)
    .await
}

/// What of a topic is in the bucket now.
pub async fn cold_size(pool: &Pool, topic: TopicId) -> Result<ColdSize, sqlx::Error> {
    sqlx::query_as("SELECT objects, records, bytes, hot_bytes FROM tidemill.cold_size($1)")
        .bind(topic.0)
        .fetch_one(pool)
        .await
}

/// The newest segments of a topic, at most `most`, in the order of time. Those made ahead and still empty are left out,
/// and those of which nothing is left anywhere.
pub async fn segments(pool: &Pool, topic: TopicId, most: u32) -> Result<Vec<SegmentInfo>, sqlx::Error> {
    let mut segments: Vec<SegmentInfo> = sqlx::query_as(
        "SELECT tidemill.micros(s.lower) AS lower, tidemill.micros(s.upper) AS upper, s.state, r.records, \
                coalesce(pg_total_relation_size(to_regclass(format('log.%I', s.table_name))), 0) AS hot_bytes, \
                o.objects, o.cold_records, o.cold_bytes, s.archive_error AS error \
           FROM tidemill.segments s \
          CROSS JOIN LATERAL (SELECT count(*) AS objects, coalesce(sum(o.records), 0)::bigint AS cold_records, \
                                     coalesce(sum(o.bytes), 0)::bigint AS cold_bytes \
                                FROM tidemill.objects o WHERE o.segment_id = s.segment_id) o \
          CROSS JOIN LATERAL (SELECT CASE WHEN s.state = 'open' THEN NULL \
                                          ELSE coalesce(sum(r.next_offset - r.first_offset), 0)::bigint END AS records \
                                FROM tidemill.segment_ranges r WHERE r.segment_id = s.segment_id) r \
          WHERE s.topic_id = $1 AND s.lower <= clock_timestamp() \
            AND (s.state <> 'dropped' OR o.objects > 0) \
          ORDER BY s.lower DESC LIMIT $2",
    )
    .bind(topic.0)
    .bind(i64::from(most))
    .fetch_all(pool)
    .await?;
    segments.reverse();
    Ok(segments)
}
