use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::Row;

use super::*;
use crate::config::plan::{Acks, TopicPlan};
use crate::log::testing::*;
use crate::log::{FetchLimits, LogOptions};
use crate::pg::testing::{TestDatabase, database};
use crate::record::Header;

/// Holds the counters of all partitions, so that appends wait.
async fn block(database: &TestDatabase) -> sqlx::Transaction<'static, sqlx::Postgres> {
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
async fn a_repeat_is_stored_once_and_gets_the_first_answer() {
    let (_database, log, topic) = with_topic(4).await;
    let batch = || -> Vec<_> { (0..20).map(|n| record(Some(&format!("k{n}")), "x")).collect() };
    let first = log.append(&topic, batch(), by("p", 0, 7)).await.unwrap();
    assert!(first.len() > 1 && first.iter().all(|part| !part.duplicate));
    // Eight sequences are remembered, so seven may come between.
    for seq in 8..15 {
        log.append(&topic, batch(), by("p", 0, seq)).await.unwrap();
    }
    let again = log.append(&topic, batch(), by("p", 0, 7)).await.unwrap();
    for (first, again) in first.iter().zip(&again) {
        assert_eq!(again, &Appended { duplicate: true, ..*first });
    }
    log.append(&topic, batch(), by("p", 0, 15)).await.unwrap();
    let forgotten = log.append(&topic, batch(), by("p", 0, 7)).await.unwrap_err();
    assert!(matches!(forgotten, AppendError::OutOfSequence(_)), "{forgotten}");
    let total: u64 = log.bounds(topic.id).await.unwrap().iter().map(|bounds| bounds.next).sum();
    assert_eq!(total, 9 * 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_repeats_through_two_hosts_are_stored_once() {
    let (database, one, topic) = with_topic(2).await;
    let two = log_with(&database, LogOptions::default());
    for seq in 0..20 {
        let sends: Vec<_> = (0..6)
            .map(|n| {
                let (log, topic) = (if n % 2 == 0 { one.clone() } else { two.clone() }, topic.clone());
                // Others on the same partitions, so that repeats meet in groups with strangers.
                let other = log.clone();
                let (other_topic, id) = (topic.clone(), format!("other {n}"));
                tokio::spawn(async move {
                    other.append(&other_topic, records(["other"]), by(&id, 0, seq)).await.unwrap();
                });
                tokio::spawn(async move {
                    let batch = (0..10).map(|n| record(Some(&format!("k{n}")), format!("p {seq}"))).collect();
                    log.append(&topic, batch, by("p", 0, seq)).await.unwrap()
                })
            })
            .collect();
        let mut answers = Vec::new();
        for send in sends {
            answers.push(send.await.unwrap());
        }
        for part in 0..answers[0].len() {
            let fresh = answers.iter().filter(|answer| !answer[part].duplicate).count();
            assert_eq!(fresh, 1, "sequence {seq}");
            let offsets = |a: &Vec<Appended>| (a[part].base_offset, a[part].next_offset);
            assert!(answers.iter().all(|answer| offsets(answer) == offsets(&answers[0])));
        }
    }
    let mut stored = read(&one, &topic, 0, 0).await;
    stored.extend(read(&one, &topic, 1, 0).await);
    let ours = stored.iter().filter(|record| payload(record).starts_with("p ")).count();
    assert_eq!(ours, 200);
}

#[tokio::test]
async fn an_older_instance_of_a_producer_is_fenced() {
    let (_database, log, topic) = with_topic(1).await;
    log.append(&topic, records(["a"]), by("p", 1, 5)).await.unwrap();
    log.append(&topic, records(["b"]), by("p", 2, 0)).await.unwrap();
    let fenced = log.append(&topic, records(["c"]), by("p", 1, 6)).await.unwrap_err();
    assert!(matches!(fenced, AppendError::Fenced(_)), "{fenced}");
    assert!(fenced.to_string().contains("has epoch 2"), "{fenced}");
    log.append(&topic, records(["d"]), by("p", 2, 1)).await.unwrap();
    let stored: Vec<_> = read(&log, &topic, 0, 0).await.iter().map(|r| payload(r).to_owned()).collect();
    assert_eq!(stored, ["a", "b", "d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_does_not_harm_those_it_shares_a_commit_with() {
    let (database, log, topic) = with_topic(1).await;
    log.append(&topic, records(["first"]), by("stale", 3, 0)).await.unwrap();
    let blocker = block(&database).await;
    let send = |payload: &'static str, how| {
        let (log, topic) = (log.clone(), topic.clone());
        tokio::spawn(async move { log.append(&topic, records([payload]), how).await })
    };
    // The first waits for the lock; the others make the next group.
    let head = send("head", AppendOptions::default());
    eventually("an append waits", || async { !waiting(&database).await.is_empty() }).await;
    let stale = send("stale", by("stale", 2, 9));
    let repeat = send("repeat", by("stale", 3, 0));
    let good = send("good", by("good", 0, 0));
    let plain = send("plain", AppendOptions::default());
    drop(blocker);
    for good in [head, good, plain] {
        assert!(!good.await.unwrap().unwrap()[0].duplicate);
    }
    assert!(matches!(stale.await.unwrap().unwrap_err(), AppendError::Fenced(_)));
    let repeat = repeat.await.unwrap().unwrap();
    assert!(repeat[0].duplicate && repeat[0].base_offset == 0);
    assert_eq!(read(&log, &topic, 0, 0).await.len(), 4);
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
async fn a_broken_connection_is_repeated_with_a_producer_and_admitted_without() {
    let (database, log, topic) = with_topic(1).await;
    for (how, survives) in [(by("p", 0, 0), true), (AppendOptions::default(), false)] {
        let blocker = block(&database).await;
        let append = {
            let (log, topic, how) = (log.clone(), topic.clone(), how.clone());
            tokio::spawn(async move { log.append(&topic, records(["x"]), how).await })
        };
        eventually("an append waits", || async { !waiting(&database).await.is_empty() }).await;
        for pid in waiting(&database).await {
            sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&database.pool).await.unwrap();
        }
        drop(blocker);
        let answer = append.await.unwrap();
        if survives {
            assert_eq!(answer.unwrap()[0].base_offset, 0);
        } else {
            let error = answer.unwrap_err();
            assert!(matches!(error, AppendError::Unknown(_)), "{error}");
        }
    }
    assert_eq!(read(&log, &topic, 0, 0).await.len(), 1);
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

fn any_bytes() -> impl Strategy<Value = bytes::Bytes> {
    prop_oneof![
        any::<String>().prop_map(bytes::Bytes::from),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(bytes::Bytes::from),
    ]
}

fn any_record() -> impl Strategy<Value = NewRecord> {
    let header = (any::<String>(), any_bytes()).prop_map(|(name, value)| Header { name, value });
    let headers = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(header, 0..4)];
    let timestamp = prop_oneof![Just(None), any::<i64>().prop_map(Some)];
    (prop::option::of(any_bytes()), headers, timestamp, any_bytes())
        .prop_map(|(key, headers, timestamp, payload)| NewRecord { key, headers, timestamp, payload })
}

#[test]
fn any_record_comes_back_as_it_went_in() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_database, log, topic) = runtime.block_on(with_topic(3));
    let topic: Arc<Topic> = topic;
    let batches = prop::collection::vec(any_record(), 1..30);
    let mut runner = TestRunner::new(Config::with_cases(100));
    runner
        .run(&batches, |batch| {
            runtime.block_on(async {
                let appended = log.append(&topic, batch.clone(), AppendOptions::default()).await.unwrap();
                let mut found = Vec::new();
                for part in appended {
                    let fetched = log
                        .fetch(&topic, part.partition, part.base_offset, FetchLimits::default())
                        .await
                        .unwrap();
                    let stored = fetched.batches.into_iter().next().unwrap();
                    assert_eq!(stored.base_offset, part.base_offset);
                    for (offset, record) in (part.base_offset..).zip(stored.records.iter()) {
                        assert_eq!((record.partition, record.offset), (part.partition, offset));
                        found.push((stored.appended_at, record.clone()));
                    }
                }
                prop_assert_eq!(found.len(), batch.len());
                for wanted in batch {
                    let place = found.iter().position(|(appended_at, found)| {
                        found.key == wanted.key
                            && found.payload == wanted.payload
                            && found.headers == wanted.headers
                            && found.timestamp == wanted.timestamp.unwrap_or(*appended_at)
                    });
                    prop_assert!(place.is_some(), "{:?} is not in {:?}", wanted, found);
                    found.swap_remove(place.unwrap());
                }
                // SQL reads them too, whatever is in them.
                sqlx::query("SELECT count(value), count(headers), max(ts) FROM topics.events")
                    .execute(log.pool())
                    .await
                    .unwrap();
                Ok(())
            })
        })
        .unwrap();
}

proptest! {
    #[test]
    fn rows_cover_the_records_and_keep_their_limits(sizes in prop::collection::vec(0..300_000_usize, 0..60)) {
        let block = bytes::Bytes::from(vec![0; 300_000]);
        let batch: Vec<_> = sizes
            .iter()
            .map(|size| NewRecord { payload: block.slice(..*size), ..NewRecord::default() })
            .collect();
        let mut next = 0;
        for row in super::rows(&batch) {
            prop_assert_eq!(row.start, next);
            prop_assert!(!row.is_empty() && row.len() <= ROW_RECORDS_MAX);
            prop_assert!(batch[row.clone()].iter().map(NewRecord::size).sum::<usize>() <= ROW_BYTES_MAX);
            next = row.end;
        }
        prop_assert_eq!(next, batch.len());
    }
}
