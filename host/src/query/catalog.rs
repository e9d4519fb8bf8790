//! Which objects and which offsets make topics, all from one snapshot.
//!
//! Guarantee: in each partition the ranges of the objects and [`Holding::hot`] are disjoint, and together they are all
//! that the log holds up to `next`. One statement reads it, so an object is counted exactly from the moment its catalog
//! row is committed, and the same records are hot exactly until then.

use std::collections::HashMap;

use sqlx::Row;

use super::protocol::Range;
use crate::archive::objects::Object;
use crate::ids::{Offset, Partition, TopicId};
use crate::pg::pool::Pool;

/// What a topic held at the moment of the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    pub objects: Vec<Object>,
    /// Records that are in no object.
    pub hot: Vec<Range>,
}

const SNAPSHOT: &str = "
    SELECT c.topic_id, c.partition, coalesce(s.start_offset, 0), c.next_offset, o.firsts, o.nexts, o.paths, o.sizes, o.hashes
    FROM tidemill.log_counter c
    LEFT JOIN tidemill.log_start s USING (topic_id, partition)
    LEFT JOIN LATERAL (
        SELECT array_agg(first_offset ORDER BY first_offset) AS firsts,
               array_agg(next_offset ORDER BY first_offset) AS nexts,
               array_agg(path ORDER BY first_offset) AS paths,
               array_agg(bytes ORDER BY first_offset) AS sizes,
               array_agg(sha256 ORDER BY first_offset) AS hashes
        FROM tidemill.objects WHERE topic_id = c.topic_id AND partition = c.partition
    ) o ON true
    WHERE c.topic_id = ANY($1) ORDER BY c.topic_id, c.partition";

/// Looks the topics up.
pub async fn snapshot(pool: &Pool, topics: &[TopicId]) -> Result<HashMap<TopicId, Holding>, sqlx::Error> {
    let ids: Vec<i32> = topics.iter().map(|topic| topic.0).collect();
    let rows = sqlx::query(SNAPSHOT).bind(ids).fetch_all(pool).await?;
    let mut holdings: HashMap<TopicId, Holding> = HashMap::new();
    for row in rows {
        let holding = holdings.entry(TopicId(row.try_get(0)?)).or_default();
        let partition = row.try_get::<i32, _>(1)?.cast_unsigned();
        let (start, next) =
            (row.try_get::<i64, _>(2)?.cast_unsigned(), row.try_get::<i64, _>(3)?.cast_unsigned());
        let numbers = |column: usize| -> Result<Vec<u64>, sqlx::Error> {
            let given: Option<Vec<i64>> = row.try_get(column)?;
            Ok(given.unwrap_or_default().into_iter().map(i64::cast_unsigned).collect())
        };
        let archived: Vec<(Offset, Offset)> = numbers(4)?.into_iter().zip(numbers(5)?).collect();
        let texts = |column: usize| -> Result<Vec<String>, sqlx::Error> {
            Ok(row.try_get::<Option<Vec<String>>, _>(column)?.unwrap_or_default())
        };
        let named = texts(6)?.into_iter().zip(numbers(7)?).zip(texts(8)?);
        holding.objects.extend(named.map(|((path, bytes), sha256)| Object { path, bytes, sha256 }));
        holding.hot.extend(gaps(partition, start, next, &archived));
    }
    Ok(holdings)
}

/// All objects that there are.
pub async fn objects(pool: &Pool) -> Result<Vec<Object>, sqlx::Error> {
    let rows = sqlx::query("SELECT path, bytes, sha256 FROM tidemill.objects").fetch_all(pool).await?;
    let object = |row: &sqlx::postgres::PgRow| -> Result<Object, sqlx::Error> {
        Ok(Object {
            path: row.try_get(0)?,
            bytes: row.try_get::<i64, _>(1)?.cast_unsigned(),
            sha256: row.try_get(2)?,
        })
    };
    rows.iter().map(object).collect()
}

/// What of `start..next` is in none of the ranges, which are in order of their starts.
fn gaps(partition: Partition, start: Offset, next: Offset, archived: &[(Offset, Offset)]) -> Vec<Range> {
    let mut gaps = Vec::new();
    let mut at = start;
    for &(first, end) in archived {
        if first > at {
            gaps.push(Range { partition, first: at, next: first.min(next) });
        }
        at = at.max(end);
    }
    if at < next {
        gaps.push(Range { partition, first: at, next });
    }
    gaps.retain(|gap| gap.first < gap.next);
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(start: Offset, next: Offset, archived: &[(Offset, Offset)]) -> Vec<(Offset, Offset)> {
        gaps(0, start, next, archived).into_iter().map(|gap| (gap.first, gap.next)).collect()
    }

    #[test]
    fn what_is_not_archived_is_hot() {
        assert_eq!(plain(0, 10, &[]), [(0, 10)]);
        assert_eq!(plain(0, 10, &[(0, 4), (4, 8)]), [(8, 10)]);
        assert_eq!(plain(0, 10, &[(0, 10)]), []);
        assert_eq!(plain(5, 10, &[(0, 4), (4, 8)]), [(8, 10)], "dropped from Postgres, archived");
        assert_eq!(plain(0, 10, &[(4, 8)]), [(0, 4), (8, 10)], "a later segment was archived first");
        assert_eq!(plain(6, 10, &[(0, 4)]), [(6, 10)], "4..6 were dropped without an archive");
        assert_eq!(plain(10, 10, &[(0, 10)]), []);
    }
}
