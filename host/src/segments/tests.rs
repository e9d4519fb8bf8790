use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::*;
use crate::config::plan::{Cold, TopicPlan};
use crate::log::testing::*;
use crate::log::{AppendOptions, FetchError, FetchLimits, Log, Topic};
use crate::pg::testing::TestDatabase;
use crate::replay::Replay;

fn eager() -> MaintainerOptions {
    MaintainerOptions {
        seal_after: Duration::ZERO,
        drop_after: Duration::ZERO,
        ..MaintainerOptions::default()
    }
}

fn maintainer(database: &TestDatabase, options: MaintainerOptions) -> Maintainer {
    Maintainer::new(database.pool.clone(), Clock::system(), options)
}

/// Segments of one second, dropped soon after.
fn quick(partitions: u32) -> TopicPlan {
    TopicPlan {
        segment: Duration::from_secs(1),
        hot: Some(Duration::from_millis(500)),
        ..plan("events", partitions)
    }
}

async fn count(database: &TestDatabase, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&database.pool).await.unwrap()
}

async fn states(database: &TestDatabase) -> Vec<String> {
    sqlx::query_scalar("SELECT DISTINCT state FROM tidemill.segments ORDER BY 1")
        .fetch_all(&database.pool)
        .await
        .unwrap()
}

/// Fills a segment and waits until its time is over.
async fn past_segment(database: &TestDatabase, log: &Log, topic: &Topic) -> String {
    for partition in 0..topic.partitions {
        log.append(topic, records(0..10), to(partition)).await.unwrap();
    }
    let table: String = sqlx::query_scalar("SELECT max(tableoid::regclass::text) FROM log.events")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    // That of the records, not that of an empty one before it.
    eventually("the segment's time is over", || async {
        sqlx::query_scalar(
            "SELECT s.upper < clock_timestamp() - interval '600 ms' FROM tidemill.segments s
              WHERE 'log.' || s.table_name = $1",
        )
        .bind(&table)
        .fetch_one(&database.pool)
        .await
        .unwrap()
    })
    .await;
    table
}

/// What a sealed segment is said to hold is what it holds.
async fn check_seals(database: &TestDatabase) {
    let sealed: Vec<(i64, String)> = sqlx::query_as(
        "SELECT segment_id, table_name FROM tidemill.segments WHERE state = 'sealed' ORDER BY lower",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    for (segment, table) in sealed {
        let wrong = format!(
            "SELECT count(*) FROM (SELECT partition, min(base_offset) AS a, max(base_offset + record_count) AS b
                                     FROM log.\"{table}\" GROUP BY 1) held
               FULL JOIN (SELECT partition, first_offset AS a, next_offset AS b FROM tidemill.segment_ranges
                           WHERE segment_id = {segment}) said USING (partition, a, b)
              WHERE held IS NULL OR said IS NULL"
        );
        // Retention may have dropped it meanwhile.
        if let Ok(wrong) =
            sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(wrong)).fetch_one(&database.pool).await
        {
            assert_eq!(wrong, 0, "{table}");
        }
    }
}

#[tokio::test]
async fn segments_are_made_ahead_and_follow_a_changed_span() {
    let (database, log) = open().await;
    let topic = log.create_topic(&plan("events", 1)).await.unwrap();
    let mut maintainer =
        maintainer(&database, MaintainerOptions { ahead: 5, ..MaintainerOptions::default() });
    let report = maintainer.tick().await.unwrap();
    assert!(report.created >= 2 && report.failures.is_empty(), "{report:?}");
    assert_eq!(maintainer.tick().await.unwrap().created, 0);
    let shorter = TopicPlan { segment: Duration::from_secs(7 * 60), ..plan("events", 1) };
    log.ensure_topic(&shorter).await.unwrap();
    sqlx::query("UPDATE tidemill.log_counter SET last_ts = (SELECT max(upper) FROM tidemill.segments) + interval '1 s'")
        .execute(&database.pool)
        .await
        .unwrap();
    assert!(maintainer.tick().await.unwrap().created >= 5);
    log.append(&topic, records(["x"]), AppendOptions::default()).await.unwrap();
    let overlaps = count(
        &database,
        "SELECT count(*) FROM tidemill.segments a JOIN tidemill.segments b ON a.segment_id < b.segment_id \
         AND a.lower < b.upper AND b.lower < a.upper",
    )
    .await;
    assert_eq!(overlaps, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn segments_come_and_go_under_load_without_an_error_to_anyone() {
    let (database, log) = open().await;
    let topic = log.create_topic(&quick(2)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for writer in 0..4 {
        let (log, topic, stop) = (log.clone(), topic.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let started = std::time::Instant::now();
                log.append(&topic, records(0..3), to(writer % 2)).await.unwrap();
                slowest = slowest.max(started.elapsed());
            }
            slowest
        }));
    }
    // A reader that keeps up sees each offset once, across every segment's life.
    let reader = {
        let (log, topic, stop) = (log.clone(), topic.clone(), stop.clone());
        tokio::spawn(async move {
            let mut cursor = Replay::new(log).cursor(topic, vec![(0, 0), (1, 0)], FetchLimits::default());
            let mut next = [0, 0];
            while !stop.load(Ordering::Relaxed) {
                if let Some(batch) = cursor.next(Duration::from_millis(100)).await.unwrap() {
                    let next = &mut next[batch.partition as usize];
                    assert_eq!(batch.base_offset, *next);
                    *next = batch.next_offset();
                }
            }
            next
        })
    };
    let (mut one, mut two) = (maintainer(&database, eager()), maintainer(&database, eager()));
    let mut total = Report::default();
    let started = std::time::Instant::now();
    while total.dropped < 4 {
        assert!(started.elapsed() < Duration::from_secs(60), "{total:?}");
        let (a, b) = tokio::join!(one.tick(), two.tick());
        for report in [a.unwrap(), b.unwrap()] {
            assert!(report.failures.is_empty(), "{report:?}");
            total.created += report.created;
            total.sealed += report.sealed;
            total.dropped += report.dropped;
        }
        check_seals(&database).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        let slowest = task.await.unwrap();
        assert!(slowest < Duration::from_secs(2), "an append took {slowest:?}");
    }
    let read = reader.await.unwrap();
    let bounds = log.bounds(topic.id).await.unwrap();
    for bounds in bounds {
        assert!(bounds.start > 0 && bounds.start <= read[bounds.partition as usize]);
        let left = self::read(&log, &topic, bounds.partition, bounds.start).await;
        assert_eq!(left.len() as u64, bounds.next - bounds.start, "dense from start to end");
    }
    // Sealed ranges of a partition follow one another without a hole.
    let holes = count(
        &database,
        "SELECT count(*) FROM (SELECT r.first_offset - lag(r.next_offset) OVER (PARTITION BY r.partition ORDER BY s.lower) \
         AS gap FROM tidemill.segment_ranges r JOIN tidemill.segments s USING (segment_id)) g WHERE gap <> 0",
    )
    .await;
    assert_eq!(holes, 0);
}

#[tokio::test]
async fn what_was_dropped_is_out_of_range_and_never_an_empty_answer() {
    let (database, log) = open().await;
    let topic = log.create_topic(&quick(2)).await.unwrap();
    let table = past_segment(&database, &log, &topic).await;
    log.append(&topic, records(0..3), to(1)).await.unwrap();
    let mut maintainer = maintainer(&database, eager());
    let report = maintainer.tick().await.unwrap();
    assert!(report.sealed > 0 && report.dropped > 0, "{report:?}");
    let fresh = log_with(&database, crate::log::LogOptions::default());
    for partition in 0..2 {
        match fresh.fetch(&topic, partition, 3, FetchLimits::default()).await {
            Err(FetchError::OutOfRange { start: 10, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(read(&fresh, &topic, 1, 10).await.len(), 3);
    assert!(read(&fresh, &topic, 0, 10).await.is_empty());
    let exists: Option<String> = sqlx::query_scalar("SELECT to_regclass($1)::text")
        .bind(&table)
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(exists, None);
}

#[tokio::test]
async fn a_topic_with_an_archive_keeps_what_is_not_archived() {
    let (database, log) = open().await;
    let spec = TopicPlan { cold: Cold::Forever, ..quick(1) };
    let topic = log.create_topic(&spec).await.unwrap();
    past_segment(&database, &log, &topic).await;
    let mut maintainer = maintainer(&database, eager());
    let report = maintainer.tick().await.unwrap();
    assert!(report.sealed > 0 && report.expired == 0, "{report:?}");
    assert_eq!(read(&log, &topic, 0, 0).await.len(), 10);
    sqlx::query("UPDATE tidemill.segments SET state = 'archived' WHERE state = 'sealed'")
        .execute(&database.pool)
        .await
        .unwrap();
    assert!(maintainer.tick().await.unwrap().expired > 0);
    assert_eq!(log.bounds(topic.id).await.unwrap()[0].start, 10);
}

#[tokio::test]
async fn a_detach_that_a_crash_left_pending_is_finished() {
    let (database, log) = open().await;
    let topic = log.create_topic(&quick(1)).await.unwrap();
    let table = past_segment(&database, &log, &topic).await;
    // Somebody reads the view in a long transaction, so a detach cannot end.
    let mut reader = PgConnection::connect(&database.url).await.unwrap();
    let mut transaction = reader.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM topics.events").execute(&mut *transaction).await.unwrap();
    let mut maintainer = maintainer(&database, eager());
    let report = maintainer.tick().await.unwrap();
    assert!(report.expired > 0 && report.postponed > 0 && report.detached == 0, "{report:?}");
    let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
    assert_eq!(count(&database, pending).await, 1);

    // Meanwhile nobody is hurt: appends go on, and the log starts after it.
    log.append(&topic, records(["x"]), AppendOptions::default()).await.unwrap();
    assert_eq!(log.bounds(topic.id).await.unwrap()[0].start, 10);
    let report = maintainer.tick().await.unwrap();
    assert!(report.finalized == 0 && report.postponed > 0, "{report:?}");

    transaction.rollback().await.unwrap();
    let report = maintainer.tick().await.unwrap();
    assert!(report.finalized == 1 && report.dropped >= 1, "{report:?}");
    assert_eq!(count(&database, pending).await, 0);
    let exists: Option<String> = sqlx::query_scalar("SELECT to_regclass($1)::text")
        .bind(&table)
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(exists, None);
}

#[tokio::test]
async fn one_host_ticks_at_a_time() {
    let (database, _log, _topic) = with_topic(1).await;
    let mut turn = database.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('tidemill.segments.maintainer', 0))")
        .execute(&mut *turn)
        .await
        .unwrap();
    let mut maintainer = maintainer(&database, eager());
    assert!(maintainer.tick().await.unwrap().busy);
    turn.rollback().await.unwrap();
    assert!(!maintainer.tick().await.unwrap().busy);
}

#[tokio::test]
async fn what_is_old_is_forgotten_and_what_is_not_stays() {
    let (database, log, topic) = with_topic(1).await;
    for id in ["http:old", "http:new", "mine"] {
        log.append(&topic, records(["x"]), by(id, 0, 0)).await.unwrap();
    }
    sqlx::raw_sql(
        "UPDATE tidemill.producers SET updated_at = now() - interval '25 hours' WHERE producer_id <> 'http:new';
         INSERT INTO tidemill.tables (schema_name, table_name, pipeline, stage, group_name, topic, columns, key)
         VALUES ('public', 't', 'p', 's', 'g', 'events', '[]', '{id}');
         INSERT INTO tidemill.tombstones (table_id, partition, c_offset, key, created_at)
         SELECT table_id, 0, n, '{}', now() - n * interval '7 minutes' FROM tidemill.tables, generate_series(0, 3) n",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let clock = Clock::fixed(0);
    let mut maintainer = Maintainer::new(database.pool.clone(), clock.clone(), eager());
    assert_eq!(maintainer.tick().await.unwrap().forgotten, 3);
    let left: Vec<String> = sqlx::query_scalar("SELECT producer_id FROM tidemill.producers ORDER BY 1")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    assert_eq!(left, ["http:new", "mine"]);
    assert_eq!(count(&database, "SELECT count(*) FROM tidemill.tombstones").await, 2);

    // It is looked for once a minute.
    sqlx::query("UPDATE tidemill.tombstones SET created_at = now() - interval '1 hour'")
        .execute(&database.pool)
        .await
        .unwrap();
    assert_eq!(maintainer.tick().await.unwrap().forgotten, 0);
    clock.set(FORGET_EVERY);
    assert_eq!(maintainer.tick().await.unwrap().forgotten, 2);
}

#[tokio::test]
async fn the_loop_ends_when_told_and_survives_a_broken_database() {
    let (database, _log, _topic) = with_topic(1).await;
    let stop = CancellationToken::new();
    let options = MaintainerOptions { interval: Duration::from_millis(5), ..eager() };
    let running = tokio::spawn(maintainer(&database, options).run(stop.clone()));
    eventually("segments are sealed or made", || async { states(&database).await == ["open"] }).await;
    sqlx::query("ALTER SCHEMA tidemill RENAME TO gone").execute(&database.pool).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!running.is_finished());
    sqlx::query("ALTER SCHEMA gone RENAME TO tidemill").execute(&database.pool).await.unwrap();
    stop.cancel();
    running.await.unwrap();
}
