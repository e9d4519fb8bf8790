//! The edge between hot and archived records, while both move: nothing is missing, nothing is counted twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Asked;
use crate::support::eventually;

const SQL: &str = "SELECT _partition, count(*), count(DISTINCT _offset), min(_offset), max(_offset), sum(n) FROM positions \
                   GROUP BY _partition ORDER BY _partition";
const PIECE: u64 = 200;
const LASTS: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_counted_once_while_records_arrive_and_segments_are_archived() {
    let asked = Arc::new(Asked::start(0).await);
    let pool = asked.host.pool().await;
    sqlx::query("UPDATE tidemill.topics SET hot_retention = interval '3 seconds' WHERE name = 'positions'")
        .execute(&pool)
        .await
        .expect("retention can be changed");
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let producer = {
        let (asked, acknowledged, stop) = (asked.clone(), acknowledged.clone(), stop.clone());
        tokio::spawn(async move {
            let mut next = 0;
            while !stop.load(Ordering::Acquire) {
                asked.produce(next, next + PIECE).await;
                next += PIECE;
                acknowledged.store(next, Ordering::Release);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            next
        })
    };
    let started = Instant::now();
    let (mut queries, mut across) = (0, 0);
    while started.elapsed() < LASTS {
        let before = acknowledged.load(Ordering::Acquire);
        let rows = asked.rows(SQL).await;
        let after = acknowledged.load(Ordering::Acquire) + PIECE;
        let total = dense(&rows);
        assert!((before..=after).contains(&total), "{total} records, of {before} to {after}");
        queries += 1;
        let objects: i64 = count(&pool, "SELECT count(*) FROM tidemill.objects").await;
        across += u32::from(objects > 0);
    }
    stop.store(true, Ordering::Release);
    let appended = producer.await.expect("the producer ends");
    assert!(queries >= 5 && across > 0, "{queries} queries, {across} of them with archived records");
    eventually("segments leave Postgres", Duration::from_secs(60), || {
        let pool = pool.clone();
        async move { count(&pool, "SELECT count(*) FROM tidemill.segments WHERE state = 'dropped'").await >= 2 }
    })
    .await;
    let rows = asked.rows(SQL).await;
    assert_eq!(dense(&rows), appended);
    let sum: u64 = rows.as_array().expect("rows").iter().map(|row| number(&row[5])).sum();
    assert_eq!(sum, appended * (appended - 1) / 2, "every record once, by its content");
}

/// The records of all partitions, each from 0 on without a gap or a repetition.
fn dense(rows: &Value) -> u64 {
    let rows = rows.as_array().expect("rows");
    for row in rows {
        let [count, distinct, first, last] = [1, 2, 3, 4].map(|column| number(&row[column]));
        assert_eq!((distinct, first, last + 1), (count, 0, count), "{row}");
    }
    rows.iter().map(|row| number(&row[1])).sum()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

async fn count(pool: &sqlx::PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.expect("Postgres answers")
}
