use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::Row;

use super::*;
use crate::config::plan::{Acks, TopicPlan};
use crate::log::LogOptions;
use crate::log::testing::*;
use crate::pg::testing::{TestDatabase, database};

mod producers;
mod stored;
mod together;

/// Holds the counters of all partitions, so that appends wait.
async fn block(database: &TestDatabase) -> crate::pg::pool::Transaction {
    let mut blocker = database.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM tidemill.log_counter FOR UPDATE").execute(&mut *blocker).await.unwrap();
    blocker
}

/// The sessions that wait for a lock within an append.
async fn waiting(database: &TestDatabase) -> Vec<i32> {
    sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
         AND query LIKE '%append_requests%' AND pid <> pg_backend_pid()",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap()
}

async fn rows(database: &TestDatabase) -> Vec<(i32, i64, i32, i64)> {
    sqlx::query(
        "SELECT partition, base_offset, record_count, tidemill.micros(ts) FROM log.events ORDER BY 1, 2",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap()
    .iter()
    .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_writers_get_dense_offsets_and_share_commits() {
    let (database, log, topic) = with_topic(1).await;
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let (log, topic) = (log.clone(), topic.clone());
            tokio::spawn(async move {
                let mut got = Vec::new();
                for round in 0..50 {
                    let batch = records((0..=round % 4).map(|n| format!("{writer} {round} {n}")));
                    let appended = log.append(&topic, batch, AppendOptions::default()).await.unwrap();
                    assert!(!appended[0].duplicate);
                    got.push((appended[0].base_offset, appended[0].next_offset, writer, round));
                }
                assert!(got.is_sorted(), "one writer's appends are in its order");
                got
            })
        })
        .collect();
    let mut got = Vec::new();
    for writer in writers {
        got.extend(writer.await.unwrap());
    }
    got.sort();

    let stored = read(&log, &topic, 0, 0).await;
    let mut next = 0;
    for (base, end, writer, round) in got {
        assert_eq!(base, next, "a hole or an overlap");
        for (n, offset) in (base..end).enumerate() {
            assert_eq!(payload(&stored[usize::try_from(offset).unwrap()]), format!("{writer} {round} {n}"));
        }
        next = end;
    }
    assert_eq!(stored.len() as u64, next);

    let rows = rows(&database).await;
    assert!(rows.len() < 400, "800 requests made {} rows: they do not share commits", rows.len());
    assert!(rows.is_sorted_by_key(|row| row.3), "time ran against offset order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn records_of_a_key_stay_in_one_partition_and_in_order() {
    let (_database, log, topic) = with_topic(4).await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (log, topic) = (log.clone(), topic.clone());
            tokio::spawn(async move {
                for round in 0..30 {
                    let batch = (0..6)
                        .map(|n| record(Some(&format!("{writer}-{}", n % 3)), format!("{}", round * 6 + n)))
                        .collect();
                    log.append(&topic, batch, AppendOptions::default()).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut seen: BTreeMap<String, (Partition, u32, usize)> = BTreeMap::new();
    for partition in 0..4 {
        for record in read(&log, &topic, partition, 0).await {
            let key = String::from_utf8(record.key.as_ref().unwrap().to_vec()).unwrap();
            assert_eq!(partition_of(key.as_bytes(), 4), partition);
            let number: u32 = payload(&record).parse().unwrap();
            let (_, last, count) = seen.entry(key).or_insert((partition, number, 0));
            assert!(*count == 0 || number > *last, "{number} after {last}");
            (*last, *count) = (number, *count + 1);
        }
    }
    assert_eq!(seen.len(), 24);
    assert!(seen.values().all(|(_, _, count)| *count == 60));
}

#[tokio::test]
async fn records_without_a_key_go_together_and_requests_take_turns() {
    let (_database, log, topic) = with_topic(3).await;
    let mut partitions = Vec::new();
    for _ in 0..6 {
        let appended = log.append(&topic, records(0..5), AppendOptions::default()).await.unwrap();
        assert_eq!(appended.len(), 1);
        partitions.push(appended[0].partition);
    }
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 0, 1, 1, 2, 2]);
}

#[tokio::test]
async fn a_large_request_becomes_several_rows_in_one_commit() {
    let (database, log, topic) = with_topic(1).await;
    let count = ROW_RECORDS_MAX * 2 + 5;
    let appended = log.append(&topic, records(0..count), by("p", 0, 0)).await.unwrap();
    assert_eq!((appended[0].base_offset, appended[0].next_offset), (0, 20_005));
    let again = log.append(&topic, records(0..count), by("p", 0, 0)).await.unwrap();
    assert!(again[0].duplicate && again[0].next_offset == 20_005);
    let sizes: Vec<_> = rows(&database).await.iter().map(|row| row.2).collect();
    assert_eq!(sizes, [10_000, 10_000, 5]);
    let stored = read(&log, &topic, 0, 0).await;
    assert!(stored.iter().enumerate().all(|(n, r)| payload(r) == n.to_string()));

    let wide: Vec<_> = (0..9).map(|_| record(None, "x".repeat(RECORD_BYTES_MAX))).collect();
    log.append(&topic, wide, AppendOptions::default()).await.unwrap();
    let sizes: Vec<_> = rows(&database).await.iter().skip(3).map(|row| row.2).collect();
    assert_eq!(sizes, [4, 4, 1]);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_before_anything_is() {
    let (_database, log, topic) = with_topic(2).await;
    let error = log
        .append(&topic, vec![record(None, "fine"), record(None, "x".repeat(RECORD_BYTES_MAX + 1))], to(0))
        .await
        .unwrap_err();
    assert!(matches!(error, AppendError::RecordTooLarge { index: 1, .. }), "{error}");
    let error = log.append(&topic, records(["x"]), to(2)).await.unwrap_err();
    assert!(error.to_string().contains("its partitions are 0 to 1"), "{error}");
    for id in ["", &"x".repeat(257), "nul\0"] {
        let error = log.append(&topic, records(["x"]), by(id, 0, 0)).await.unwrap_err();
        assert!(matches!(error, AppendError::Invalid(_)), "{error}");
    }
    let error = log.append(&topic, records(["x"]), by("p", 0, -1)).await.unwrap_err();
    assert!(matches!(error, AppendError::Invalid(_)), "{error}");
    assert_eq!(log.append(&topic, Vec::new(), AppendOptions::default()).await.unwrap(), []);
    assert!(log.bounds(topic.id).await.unwrap().iter().all(|bounds| bounds.next == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once_and_keeps_what_it_took() {
    let database = database().await;
    let log =
        log_with(&database, LogOptions { queue_bytes: 64 << 10, queue_requests: 3, ..LogOptions::default() });
    let topic = log.create_topic(&plan("events", 1)).await.unwrap();
    let blocker = block(&database).await;
    let send = |size: usize| {
        let (log, topic) = (log.clone(), topic.clone());
        tokio::spawn(async move {
            let batch = vec![record(None, "x".repeat(size))];
            log.append(&topic, batch, AppendOptions::default()).await
        })
    };
    let mut taken = vec![send(1)];
    eventually("the first append waits", || async { !waiting(&database).await.is_empty() }).await;
    let mut refused = 0;
    for _ in 0..8 {
        let mut sent = send(1);
        match tokio::time::timeout(Duration::from_millis(50), &mut sent).await {
            Ok(answer) => {
                assert!(matches!(answer.unwrap().unwrap_err(), AppendError::Overloaded { .. }));
                refused += 1;
            }
            Err(_) => taken.push(sent),
        }
    }
    assert_eq!((taken.len(), refused), (4, 5));
    drop(blocker);
    for taken in taken {
        taken.await.unwrap().unwrap();
    }
    // Bytes count too, and what is answered frees its room.
    assert!(matches!(send((64 << 10) + 1).await.unwrap().unwrap_err(), AppendError::RequestTooLarge { .. }));
    send(60 << 10).await.unwrap().unwrap();
    send(60 << 10).await.unwrap().unwrap();
    assert_eq!(read(&log, &topic, 0, 0).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_queues_together_are_bounded_too() {
    let database = database().await;
    let log = log_with(&database, LogOptions { queue_bytes_total: 100 << 10, ..LogOptions::default() });
    let topic = log.create_topic(&plan("events", 4)).await.unwrap();
    let blocker = block(&database).await;
    let send = |partition| {
        let (log, topic) = (log.clone(), topic.clone());
        tokio::spawn(async move {
            log.append(&topic, vec![record(None, "x".repeat(40 << 10))], to(partition)).await
        })
    };
    let taken = [send(0), send(1)];
    eventually("two appends wait", || async { waiting(&database).await.len() == 2 }).await;
    let refused = send(2).await.unwrap().unwrap_err();
    assert!(matches!(refused, AppendError::Overloaded { .. }), "{refused}");
    drop(blocker);
    for taken in taken {
        taken.await.unwrap().unwrap();
    }
    send(2).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_appender_ends_and_the_next_request_starts_another() {
    let database = database().await;
    let log =
        log_with(&database, LogOptions { appender_idle: Duration::from_millis(1), ..LogOptions::default() });
    let topic = log.create_topic(&plan("events", 1)).await.unwrap();
    for round in 1..=50 {
        log.append(&topic, records(["x"]), AppendOptions::default()).await.unwrap();
        if round % 10 == 0 {
            eventually("the appender ends", || async { log.shared.appenders.running() == 0 }).await;
        }
    }
    assert_eq!(read(&log, &topic, 0, 0).await.len(), 50);
}

#[tokio::test]
async fn a_missing_segment_is_made_when_it_is_needed_and_time_never_goes_back() {
    let (database, log, topic) = with_topic(1).await;
    // As if the server's clock had been set back by a day after this.
    sqlx::query("UPDATE tidemill.log_counter SET last_ts = clock_timestamp() + interval '1 day'")
        .execute(&database.pool)
        .await
        .unwrap();
    let before = log.size(topic.id).await.unwrap().segments;
    for _ in 0..3 {
        log.append(&topic, records(["x"]), AppendOptions::default()).await.unwrap();
    }
    assert!(log.size(topic.id).await.unwrap().segments > before);
    let rows = rows(&database).await;
    assert!(rows.len() == 3 && rows.iter().all(|row| row.3 == rows[0].3));
    assert_eq!(read(&log, &topic, 0, 0).await.len(), 3);
}

#[tokio::test]
async fn a_stage_appends_in_its_own_transaction() {
    let (database, _log, topic) = with_topic(2).await;
    let batch = |records, index| OutBatch {
        topic: topic.id,
        partition: 1,
        records,
        lineage: Lineage {
            origin: Some(4),
            input: Some(InputRange { partition: 3, offset: 100 }),
            index: Some(index),
        },
    };
    let three = records(["a", "b", "c"]);
    let mut lost = database.pool.begin().await.unwrap();
    let appended = append_in(&mut lost, batch(&three, vec![0, 0, 5])).await.unwrap();
    assert_eq!((appended.base_offset, appended.next_offset), (0, 3));
    lost.rollback().await.unwrap();

    let mut kept = database.pool.begin().await.unwrap();
    let appended = append_in(&mut kept, batch(&three, vec![0, 0, 5])).await.unwrap();
    assert_eq!(appended.base_offset, 0, "a rolled back append leaves no hole");
    let many = records(0..ROW_RECORDS_MAX + 1);
    let index = (0..=10_000).map(|n| n % 3_000).collect();
    append_in(&mut kept, batch(&many, index)).await.unwrap();
    kept.commit().await.unwrap();

    let lineage: Vec<(i32, i32, i64, Vec<i16>)> = sqlx::query_as(
        "SELECT origin, input_partition, input_offset, input_index FROM log.events ORDER BY base_offset",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert_eq!(lineage[0], (4, 3, 100, vec![0, 0, 5]));
    assert_eq!((lineage[1].3.len(), &lineage[2].3), (10_000, &vec![1000]));
    let error = append_in(&mut database.pool.acquire().await.unwrap(), batch(&[], Vec::new())).await;
    assert!(matches!(error, Err(AppendError::Invalid(_))));
}

#[tokio::test]
async fn acks_decide_whether_a_commit_waits_for_the_disk() {
    let (database, log) = open().await;
    for (name, acks) in [("safe", Acks::Fsync), ("fast", Acks::Relaxed)] {
        let topic = log.create_topic(&TopicPlan { acks, ..plan(name, 1) }).await.unwrap();
        let spy = format!(
            "CREATE TABLE spy_{name} (mode text);
             CREATE FUNCTION spy_{name}() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO spy_{name} VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;
             CREATE TRIGGER spy BEFORE INSERT ON log.{name} FOR EACH ROW EXECUTE FUNCTION spy_{name}();"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(spy)).execute(&database.pool).await.unwrap();
        log.append(&topic, records(["x"]), AppendOptions::default()).await.unwrap();
        // Two rows, which take the other way.
        log.append(&topic, records(0..10_001), AppendOptions::default()).await.unwrap();
    }
    let modes = |name| {
        sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(format!("SELECT DISTINCT mode FROM spy_{name}")))
            .fetch_all(&database.pool)
    };
    assert_eq!(modes("safe").await.unwrap(), ["on"]);
    assert_eq!(modes("fast").await.unwrap(), ["off"]);
    let left_over: String =
        sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&database.pool).await.unwrap();
    assert_eq!(left_over, "on");
}
