//! Partitions that share a commit, and what they do not share.

use super::*;

/// A record for each of four partitions, at least.
fn spread(what: &str) -> Vec<NewRecord> {
    (0..20).map(|n| record(Some(&format!("k{n}")), what)).collect()
}

async fn ends(log: &Log, topic: &Topic) -> Vec<u64> {
    log.bounds(topic.id).await.unwrap().iter().map(|bounds| bounds.next).collect()
}

#[tokio::test]
async fn the_partitions_of_a_request_are_one_commit() {
    let (database, log, topic) = with_topic(4).await;
    let appended = log.append(&topic, spread("x"), by("p", 0, 0)).await.unwrap();
    assert_eq!(appended.len(), 4);
    let commits = "SELECT count(*), count(DISTINCT xmin::text) FROM log.events";
    let (rows, commits): (i64, i64) = sqlx::query_as(commits).fetch_one(&database.pool).await.unwrap();
    assert_eq!((rows, commits), (4, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_partitions_than_a_statement_takes_are_stored_all_the_same() {
    let (_database, log, topic) = with_topic(40).await;
    let batch = || (0..400).map(|n| record(Some(&format!("k{n}")), "x")).collect();
    for seq in 0..3 {
        log.append(&topic, batch(), by("p", 0, seq)).await.unwrap();
    }
    assert_eq!(ends(&log, &topic).await.iter().sum::<u64>(), 1_200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_somebody_holds_does_not_hold_up_the_others() {
    let (database, log, topic) = with_topic(4).await;
    let mut holder = database.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM tidemill.log_counter WHERE partition = 2 FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let held = {
        let (log, topic) = (log.clone(), topic.clone());
        tokio::spawn(async move { log.append(&topic, spread("held"), by("p", 0, 0)).await })
    };
    eventually("the other partitions are stored", || async {
        let ends = ends(&log, &topic).await;
        ends[2] == 0 && [0, 1, 3].iter().all(|partition| ends[*partition] > 0)
    })
    .await;
    for partition in [0, 1, 3] {
        log.append(&topic, records(["meanwhile"]), to(partition)).await.unwrap();
    }
    assert!(!held.is_finished());
    drop(holder);
    assert_eq!(held.await.unwrap().unwrap().len(), 4);
    assert_eq!(ends(&log, &topic).await.iter().sum::<u64>(), 23);
}

#[tokio::test]
async fn what_is_refused_of_one_partition_is_stored_of_the_others() {
    let (_database, log, topic) = with_topic(4).await;
    let newer = AppendOptions { partition: Some(1), ..by("p", 7, 0) };
    log.append(&topic, records(["newer"]), newer).await.unwrap();
    let fenced = log.append(&topic, spread("older"), by("p", 6, 0)).await.unwrap_err();
    assert!(matches!(fenced, AppendError::Fenced(_)), "{fenced}");
    let ends = ends(&log, &topic).await;
    assert!(ends[1] == 1 && [0, 2, 3].iter().all(|partition| ends[*partition] > 0), "{ends:?}");
}
