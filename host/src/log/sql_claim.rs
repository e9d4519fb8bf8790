//! Groups read from SQL alone: several workers, some of which fail, get each message once.

use std::collections::HashSet;

use sqlx::Row;

use crate::pg::pool::Pool;

use super::testing::*;

/// Takes up to `max` messages and keeps them in a table, or gives up half way.
async fn work(pool: &Pool, max: i32, fails: bool) -> usize {
    let mut transaction = pool.begin().await.unwrap();
    let taken = sqlx::query(
        "INSERT INTO done SELECT partition, c_offset FROM tidemill.claim('workers', 'events', $1) RETURNING 1",
    )
    .bind(max)
    .fetch_all(&mut *transaction)
    .await
    .unwrap();
    if fails {
        transaction.rollback().await.unwrap();
    } else {
        transaction.commit().await.unwrap();
    }
    taken.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_that_claim_get_each_message_once() {
    let (database, log, topic) = with_topic(4).await;
    for n in 0..40 {
        log.append(&topic, records(0..=n % 7), to(n % 4)).await.unwrap();
    }
    sqlx::raw_sql(
        "CREATE TABLE done (partition int, c_offset bigint, PRIMARY KEY (partition, c_offset));
         SELECT tidemill.join_group('workers', 'events');",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let total: u64 = log.bounds(topic.id).await.unwrap().iter().map(|bounds| bounds.next).sum();
    let workers: Vec<_> = (0..6)
        .map(|worker| {
            let pool = database.pool.clone();
            tokio::spawn(async move {
                for round in 0.. {
                    let fails = (worker + round) % 3 == 0;
                    let lag: i64 = sqlx::query_scalar("SELECT sum(lag)::bigint FROM tidemill.lag")
                        .fetch_one(&pool)
                        .await
                        .unwrap();
                    if lag == 0 {
                        return;
                    }
                    work(&pool, 1 + (round % 9), fails).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let done: HashSet<(i32, i64)> = sqlx::query("SELECT partition, c_offset FROM done")
        .fetch_all(&database.pool)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(done.len() as u64, total);
}

#[tokio::test]
async fn a_claim_locks_no_more_partitions_than_it_takes_from() {
    let (database, log, topic) = with_topic(4).await;
    for partition in 0..4 {
        log.append(&topic, records(0..5), to(partition)).await.unwrap();
    }
    sqlx::query("SELECT tidemill.join_group('workers', 'events')").execute(&database.pool).await.unwrap();
    let claim = "SELECT DISTINCT partition FROM tidemill.claim('workers', 'events', 3)";
    let (mut open, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let mut transaction = database.pool.begin().await.unwrap();
        taken.extend(sqlx::query_scalar::<_, i32>(claim).fetch_all(&mut *transaction).await.unwrap());
        open.push(transaction);
    }
    taken.sort_unstable();
    assert_eq!(taken, [0, 1, 2, 3], "each of four workers gets a partition of its own");
    let fifth: Vec<i32> = sqlx::query_scalar(claim).fetch_all(&database.pool).await.unwrap();
    assert!(fifth.is_empty(), "and a fifth does not wait");
}
