//! Readers that come from the bucket into Postgres, and objects that were damaged.

use super::*;
use crate::archive::objects::{MIRROR_BYTES, Objects};
use crate::archive::reader::ArchiveReader;
use crate::log::{FetchError, FetchLimits, LogOptions, SeekTarget};
use crate::replay::{Replay, ReplayError};

const PATIENCE: Duration = Duration::from_secs(10);

/// A reader that has none of the batches cached which the test itself has read.
fn replay(rig: &Rig) -> Replay {
    let cache = rig.folder.path().join("cache");
    let objects = Objects::open(rig.bucket.clone(), &cache, MIRROR_BYTES).unwrap();
    let log = log_with(&rig.database, LogOptions::default());
    Replay::with_archive(log, ArchiveReader::new(rig.database.pool.clone(), objects))
}

/// Two partitions in three segments of 90 messages; the first two segments are only in the bucket.
async fn half_archived() -> (Rig, Vec<Vec<Record>>) {
    let mut rig = Rig::new(archived(2)).await;
    for segment in 0..3 {
        rig.segment(segment * 90, 90).await;
        if segment == 1 {
            rig.archiver.tick().await.unwrap();
        }
    }
    let expected = vec![rig.hot(0).await, rig.hot(1).await];
    sqlx::query("UPDATE tidemill.topics SET hot_retention = interval '1 ms'")
        .execute(&rig.database.pool)
        .await
        .unwrap();
    let dropped = "SELECT count(*) FROM tidemill.segments WHERE state = 'dropped'";
    for _ in 0..10 {
        rig.maintainer.tick().await.unwrap();
        if count(&rig.database.pool, dropped).await > 0 {
            break;
        }
    }
    assert!(rig.log.bounds(rig.topic.id).await.unwrap().iter().all(|bounds| bounds.start == 180));
    (rig, expected)
}

async fn all(replay: &Replay, rig: &Rig, partition: u32, from: u64, limits: FetchLimits) -> Vec<Record> {
    let mut cursor = replay.cursor(rig.topic.clone(), vec![(partition, from)], limits);
    let mut records: Vec<Record> = Vec::new();
    while let Some(batch) = cursor.next(Duration::ZERO).await.unwrap() {
        assert_eq!(batch.base_offset, from + records.len() as u64, "no gap, nothing twice");
        records.extend(batch.records.iter().cloned());
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_goes_from_the_bucket_into_postgres_without_noticing() {
    let (rig, expected) = half_archived().await;
    let replay = replay(&rig);
    let few = FetchLimits { records: 7, bytes: 1 << 20 };
    for (partition, expected) in (0..).zip(&expected) {
        for from in [0, 1, 89, 90, 133, 179, 180, 200] {
            for limits in [few, FetchLimits::default()] {
                let records = all(&replay, &rig, partition, from, limits).await;
                assert_eq!(records, expected[from as usize..], "from {from}");
            }
        }
    }
    // The plain reader of Postgres says what it has.
    let refused = log_with(&rig.database, LogOptions::default()).fetch(&rig.topic, 0, 0, few).await;
    assert!(matches!(refused, Err(FetchError::OutOfRange { start: 180, .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_begins_in_the_bucket_for_those_who_can_read_it() {
    let (rig, _) = half_archived().await;
    let bounds = rig.log.bounds(rig.topic.id).await.unwrap()[0];
    assert_eq!((bounds.first, bounds.start, bounds.next), (0, 180, 270));
    for (target, expected) in [
        (SeekTarget::Earliest, 0),
        (SeekTarget::Hot, 180),
        (SeekTarget::Latest, 270),
        (SeekTarget::Offset(100), 100),
        (SeekTarget::Tail(1_000), 0),
        (SeekTarget::Time(0), 0),
    ] {
        assert_eq!(rig.log.resolve(&rig.topic, 0, &target).await.unwrap(), expected, "{target}");
    }
    let second: i64 = sqlx::query_scalar(
        "SELECT tidemill.micros(s.lower) FROM tidemill.objects o JOIN tidemill.segments s USING (segment_id)
          WHERE o.partition = 0 AND o.first_offset = 90",
    )
    .fetch_one(&rig.database.pool)
    .await
    .unwrap();
    let resolved = rig.log.resolve(&rig.topic, 0, &SeekTarget::Time(second)).await.unwrap();
    assert_eq!(resolved, 90, "the segment that begins then");
    // A group of the host starts there, one that claims by SQL with what SQL can read.
    let pool = &rig.database.pool;
    sqlx::query("SELECT tidemill.join_group('of_host', 'events')").execute(pool).await.unwrap();
    sqlx::query("SELECT * FROM tidemill.claim('of_psql', 'events', 10)").fetch_all(pool).await.unwrap();
    let start = |group: &'static str| async move {
        sqlx::query_scalar::<_, i64>(
            "SELECT min(next_offset) FROM tidemill.consumer_offsets WHERE group_name = $1",
        )
        .bind(group)
        .fetch_one(pool)
        .await
        .unwrap()
    };
    assert_eq!((start("of_host").await, start("of_psql").await), (0, 180));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_is_named_and_not_served() {
    let (rig, expected) = half_archived().await;
    let path: String =
        sqlx::query_scalar("SELECT path FROM tidemill.objects WHERE partition = 0 AND first_offset = 90")
            .fetch_one(&rig.database.pool)
            .await
            .unwrap();
    let file = rig.folder.path().join("bucket").join(&path);
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(&file, &bad).unwrap();
    let replay = replay(&rig);
    let mut cursor = replay.cursor(rig.topic.clone(), vec![(0, 0)], FetchLimits::default());
    let mut met = 0;
    let error = loop {
        match cursor.next(PATIENCE).await {
            Ok(batch) => met = batch.unwrap().next_offset(),
            Err(error) => break error,
        }
    };
    assert_eq!(met, 90, "all before it");
    assert!(
        matches!(&error, ReplayError { source: FetchError::Archived { from: 90, damaged: true, reason, .. }, .. }
            if reason.contains(&path)),
        "{error}"
    );
    // Put back in order, the same reader goes on.
    std::fs::write(&file, &good).unwrap();
    let batch = cursor.next(PATIENCE).await.unwrap().unwrap();
    assert_eq!((batch.base_offset, &batch.records[0]), (90, &expected[0][90]));
    std::fs::remove_file(&file).unwrap();
    let replay = self::replay(&rig);
    let mut cursor = replay.cursor(rig.topic.clone(), vec![(0, 95)], FetchLimits::default());
    let error = cursor.next(PATIENCE).await.unwrap_err();
    assert!(matches!(error.source, FetchError::Archived { damaged: false, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_that_leave_under_a_reader_are_read_on_without_a_gap() {
    let plan = TopicPlan { hot: Some(Duration::from_millis(10)), ..archived(1) };
    let mut rig = Rig::new(plan).await;
    let replay = replay(&rig);
    let topic = rig.topic.clone();
    let limits = FetchLimits { records: 11, bytes: 1 << 20 };
    // One reader at each of several speeds, from the start and slower than segments go.
    let readers: Vec<_> = [0_u64, 3, 15]
        .into_iter()
        .map(|pause| {
            let mut cursor = replay.cursor(topic.clone(), vec![(0, 0)], limits);
            tokio::spawn(async move {
                let mut next = 0;
                while next < 360 {
                    let batch = cursor.next(Duration::from_secs(60)).await.unwrap().unwrap();
                    assert_eq!(batch.base_offset, next);
                    next = batch.next_offset();
                    tokio::time::sleep(Duration::from_millis(pause * batch.records.len() as u64)).await;
                }
            })
        })
        .collect();
    for segment in 0..4 {
        rig.segment(segment * 90, 90).await;
        rig.archiver.tick().await.unwrap();
        rig.maintainer.tick().await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(
        count(&rig.database.pool, "SELECT count(*) FROM tidemill.segments WHERE state = 'dropped'").await
            >= 2
    );
}
