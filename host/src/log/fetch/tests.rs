use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::log::AppendOptions;
use crate::log::testing::*;

fn limits(records: u32, bytes: u64) -> FetchLimits {
    FetchLimits { records, bytes }
}

fn shape(fetched: &Fetched) -> Vec<(Offset, usize)> {
    fetched.batches.iter().map(|batch| (batch.base_offset, batch.records.len())).collect()
}

#[tokio::test]
async fn whole_batches_come_back_and_the_first_is_cut() {
    let (database, log, topic) = with_topic(1).await;
    for n in 0..4 {
        log.append(&topic, records((0..5).map(|m| n * 5 + m)), AppendOptions::default()).await.unwrap();
    }
    let everything = FetchLimits::default();
    for cold in [true, false] {
        // A second handle has nothing in its cache.
        let other = log_with(&database, crate::log::LogOptions::default());
        let log = if cold { other } else { log.clone() };
        let fetched = log.fetch(&topic, 0, 7, everything).await.unwrap();
        assert_eq!(shape(&fetched), [(7, 3), (10, 5), (15, 5)]);
        assert_eq!(payload(&fetched.batches[0].records[0]), "7");
        assert_eq!(fetched.batches[0].records[0].offset, 7);
        let few = log.fetch(&topic, 0, 7, limits(10, u64::MAX)).await.unwrap();
        assert_eq!(shape(&few), [(7, 3), (10, 5)]);
        let least = log.fetch(&topic, 0, 7, limits(1, 1)).await.unwrap();
        assert_eq!(shape(&least), [(7, 3)]);
        assert!(log.fetch(&topic, 0, 20, everything).await.unwrap().batches.is_empty());
    }
}

#[tokio::test]
async fn a_reader_at_the_end_sees_what_comes_next() {
    let (_database, log, topic) = with_topic(1).await;
    let mut wakeup = log.subscribe(topic.id);
    for n in 0..20 {
        assert!(log.fetch(&topic, 0, n, FetchLimits::default()).await.unwrap().batches.is_empty());
        log.append(&topic, records([n]), AppendOptions::default()).await.unwrap();
        assert!(wakeup.wait(Duration::from_secs(10)).await);
        let fetched = log.fetch(&topic, 0, n, FetchLimits::default()).await.unwrap();
        assert_eq!(shape(&fetched), [(n, 1)]);
        assert!(fetched.at_end, "who has read it all need not ask");
    }
    let other = log.fetch(&topic, 0, 0, limits(5, u64::MAX)).await.unwrap();
    assert!(!other.at_end);
}

#[tokio::test]
async fn an_offset_that_the_log_does_not_hold_is_an_error_with_the_bounds() {
    let (database, log, topic) = with_topic(2).await;
    log.append(&topic, records(0..5), to(0)).await.unwrap();
    sqlx::query("UPDATE tidemill.log_start SET start_offset = 2 WHERE partition = 0")
        .execute(&database.pool)
        .await
        .unwrap();
    for from in [0, 1, 6, u64::MAX] {
        match log.fetch(&topic, 0, from, FetchLimits::default()).await {
            Err(FetchError::OutOfRange { start: 2, end: 5, from: at, .. }) => assert_eq!(at, from),
            other => panic!("{other:?}"),
        }
    }
    let fetched = log.fetch(&topic, 0, 2, FetchLimits::default()).await.unwrap();
    assert_eq!(shape(&fetched), [(2, 3)]);
    let error = log.fetch(&topic, 2, 0, FetchLimits::default()).await.unwrap_err();
    assert!(matches!(error, FetchError::TopicGone), "{error}");
}

#[tokio::test]
async fn a_read_goes_on_across_segments() {
    let (database, log, topic) = with_topic(2).await;
    for n in 0..6 {
        log.append(&topic, records([n, n]), to(0)).await.unwrap();
        // The next batch lies in another segment; every second one is skipped altogether.
        sqlx::query(
            "UPDATE tidemill.log_counter SET last_ts = last_ts + $1 * interval '1 hour' WHERE partition = 0",
        )
        .bind(f64::from(1 + n % 2))
        .execute(&database.pool)
        .await
        .unwrap();
    }
    let segments: i64 = sqlx::query_scalar("SELECT count(DISTINCT tableoid) FROM log.events")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(segments, 6);
    let stored = read(&log, &topic, 0, 0).await;
    let numbers: Vec<_> = stored.iter().map(|record| payload(record).to_owned()).collect();
    assert_eq!(numbers.join(""), "001122334455");
    assert_eq!(read(&log, &topic, 0, 9).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_of_one_range_share_one_read() {
    let (_database, log, topic) = with_topic(1).await;
    log.append(&topic, records(0..100), AppendOptions::default()).await.unwrap();
    let readers: Vec<_> = (0..64)
        .map(|_| {
            let (log, topic) = (log.clone(), topic.clone());
            tokio::spawn(async move { log.fetch(&topic, 0, 0, FetchLimits::default()).await.unwrap() })
        })
        .collect();
    let mut shared = Vec::new();
    for reader in readers {
        shared.push(reader.await.unwrap().batches.remove(0));
    }
    // The same memory: nobody decoded the batch a second time.
    assert!(shared.iter().all(|batch| Arc::ptr_eq(&batch.records, &shared[0].records)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_at_the_end_ask_together_and_miss_nothing() {
    let (_database, log, topic) = with_topic(4).await;
    let readers: Vec<_> = (0..40)
        .map(|reader| {
            let (log, topic) = (log.clone(), topic.clone());
            tokio::spawn(async move {
                let mut wakeup = log.subscribe(topic.id);
                let mut next = 0;
                while next < 50 {
                    let fetched = log.fetch(&topic, reader % 4, next, FetchLimits::default()).await.unwrap();
                    match fetched.batches.last() {
                        Some(last) => next = last.next_offset(),
                        // It would wait here for ever if a read after the wake-up could miss what woke it.
                        None => assert!(wakeup.wait(Duration::from_secs(30)).await),
                    }
                }
            })
        })
        .collect();
    for n in 0..50 {
        for partition in 0..4 {
            log.append(&topic, records([n]), to(partition)).await.unwrap();
        }
    }
    for reader in readers {
        reader.await.unwrap();
    }
}
