//! The archiver on a real Postgres and real buckets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sha2::Digest;

use super::*;
use crate::clock::Clock;
use crate::config::plan::{Cold, Format, Hold, TopicPlan};
use crate::ids::{GroupName, HostId};
use crate::log::testing::*;
use crate::log::{Log, Topic};
use crate::pg::pool::Pool;
use crate::pg::testing::TestDatabase;
use crate::record::{Header, NewRecord, Record};
use crate::segments::{Maintainer, MaintainerOptions};

mod crash;
mod measure;
mod reading;
mod retention;
mod s3;

/// Segments of one second with an archive.
fn archived(partitions: u32) -> TopicPlan {
    TopicPlan {
        segment: Duration::from_secs(1),
        hot: Some(Duration::from_secs(3600)),
        cold: Cold::Forever,
        format: Format::Json,
        schema: Some(json!([
            { "name": "id", "type": "string" },
            { "name": "lat", "type": { "decimal": 5 } },
            { "name": "n", "type": "int" },
        ])),
        sort: vec!["id".to_owned(), "n".to_owned()],
        ..plan("events", partitions)
    }
}

/// Messages of all kinds: as the schema says, other JSON, with headers, without key, no JSON at all.
fn mixed(from: usize, count: usize) -> Vec<NewRecord> {
    (from..from + count)
        .map(|n| NewRecord {
            key: (n % 5 != 0).then(|| format!("k{}", n % 7).into_bytes().into()),
            headers: match n % 11 {
                0 => vec![Header { name: "trace".to_owned(), value: vec![0, 255, n as u8].into() }],
                _ => Vec::new(),
            },
            timestamp: (n % 3 != 0).then_some(1_790_000_000_000_000 + n as i64 * 1_000),
            payload: match n % 13 {
                0 => vec![0, 159, 146, 150, n as u8].into(),
                1 => format!("{{\"n\": {n}, \"other\": null}}").into(),
                _ => format!("{{\"id\":\"k{}\",\"lat\":{}.5,\"n\":{n}}}", n % 7, n % 90).into(),
            },
        })
        .collect()
}

fn eager() -> MaintainerOptions {
    MaintainerOptions {
        seal_after: Duration::ZERO,
        drop_after: Duration::ZERO,
        ..MaintainerOptions::default()
    }
}

/// Fails fast, sweeps each time.
fn quick() -> ArchiverOptions {
    ArchiverOptions { retry: Duration::ZERO, sweep_every: Duration::ZERO, ..ArchiverOptions::default() }
}

/// A log, a bucket in a folder, and what moves between them.
struct Rig {
    database: TestDatabase,
    log: Log,
    topic: Arc<Topic>,
    bucket: Bucket,
    folder: tempfile::TempDir,
    maintainer: Maintainer,
    archiver: Archiver,
}

impl Rig {
    async fn new(topic: TopicPlan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = folder.path().join("bucket").display().to_string();
        let bucket = Bucket::open(&url, &BucketOptions::default()).unwrap();
        Self::with(topic, bucket, folder, quick()).await
    }

    async fn with(
        topic: TopicPlan,
        bucket: Bucket,
        folder: tempfile::TempDir,
        options: ArchiverOptions,
    ) -> Self {
        let (database, log) = open().await;
        let topic = log.create_topic(&topic).await.unwrap();
        let maintainer = Maintainer::new(database.pool.clone(), Clock::system(), eager());
        let work = folder.path().join("work");
        let archiver = Archiver::new(log.clone(), bucket.clone(), host("h-1"), work, options).unwrap();
        Self { database, log, topic, bucket, folder, maintainer, archiver }
    }

    /// A second host's archiver on the same bucket.
    fn another(&self, name: &str) -> Archiver {
        let work = self.folder.path().join(name);
        Archiver::new(self.log.clone(), self.bucket.clone(), host(name), work, quick()).unwrap()
    }

    /// Appends to each partition, and waits until the segment's time is over and it is sealed. Begins early in a segment,
    /// so that one is enough unless the machine is very slow.
    async fn segment(&mut self, from: usize, count: usize) {
        let pool = self.database.pool.clone();
        let early = "SELECT (extract(epoch FROM clock_timestamp()) % 1 < 0.4)::int::bigint";
        eventually("a segment has just begun", || async { self::count(&pool, early).await == 1 }).await;
        for partition in 0..self.topic.partitions {
            for part in mixed(from, count).chunks(40) {
                self.log.append(&self.topic, part.to_vec(), to(partition)).await.unwrap();
            }
        }
        self.time_is_over().await;
        self.maintainer.tick().await.unwrap();
    }

    /// Waits until the time of every segment that has records is over.
    async fn time_is_over(&self) {
        let still_written = "SELECT count(*) FROM tidemill.segments s \
                             WHERE s.state = 'open' AND s.upper > clock_timestamp() AND EXISTS \
                               (SELECT 1 FROM tidemill.log_counter c \
                                WHERE c.topic_id = s.topic_id AND c.last_ts >= s.lower)";
        let pool = self.database.pool.clone();
        eventually("the segment's time is over", || async { self::count(&pool, still_written).await == 0 })
            .await;
    }

    /// Everything in a partition as Postgres gives it.
    async fn hot(&self, partition: u32) -> Vec<Record> {
        read(&self.log, &self.topic, partition, 0).await
    }

    async fn paths(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT path FROM tidemill.objects ORDER BY partition, first_offset")
            .fetch_all(&self.database.pool)
            .await
            .unwrap()
    }

    /// Everything in a partition as the bucket gives it.
    async fn cold(&self, partition: u32) -> Vec<Record> {
        cold(&self.database.pool, &self.bucket, self.folder.path(), partition).await
    }
}

fn host(name: &str) -> HostId {
    HostId(name.into())
}

async fn count(pool: &Pool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// The catalogued objects of a partition, each checked against its row, decoded.
/// As an attempt does before it puts an object.
async fn note(pool: &Pool, path: &str) {
    sqlx::query("INSERT INTO tidemill.loose_objects (path, reason) VALUES ($1, 'put')")
        .bind(path)
        .execute(pool)
        .await
        .unwrap();
}

async fn cold(pool: &Pool, bucket: &Bucket, folder: &std::path::Path, partition: u32) -> Vec<Record> {
    let objects: Vec<(String, i64, i64, i64, String)> = sqlx::query_as(
        "SELECT path, first_offset, next_offset, bytes, sha256 FROM tidemill.objects WHERE partition = $1 ORDER BY 2",
    )
    .bind(partition.cast_signed())
    .fetch_all(pool)
    .await
    .unwrap();
    let mut records = Vec::new();
    for (path, first, next, bytes, sha256) in objects {
        let copy = folder.join("copy.parquet");
        let fetched = bucket.fetch_to(&path, &copy).await.expect("a catalogued object is there");
        assert_eq!((fetched.bytes as i64, &fetched.sha256), (bytes, &sha256), "{path}");
        let range = first.cast_unsigned()..next.cast_unsigned();
        let batches = parquet::decode(&copy, range.clone()).unwrap();
        let decoded: Vec<Record> = batches.iter().flat_map(|batch| batch.records.iter().cloned()).collect();
        assert_eq!(decoded.len() as i64, next - first, "{path}");
        assert_eq!(decoded.first().map(|record| record.offset), Some(range.start));
        records.extend(decoded);
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_segment_becomes_objects_that_give_the_same_records() {
    let mut rig = Rig::new(archived(2)).await;
    rig.segment(0, 500).await;
    rig.segment(500, 300).await;
    let (waiting, seconds) = picture::waiting(&rig.database.pool).await.unwrap();
    assert!(waiting >= 2 && seconds > 0.0, "{waiting} for {seconds} s");
    let report = rig.archiver.tick().await.unwrap();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(picture::waiting(&rig.database.pool).await.unwrap(), (0, 0.0));
    // A slow machine appends over the end of a segment.
    let parts = count(
        &rig.database.pool,
        "SELECT count(*) FROM tidemill.segment_ranges WHERE first_offset < next_offset",
    )
    .await;
    assert!(parts >= 4, "two segments of two partitions: {parts}");
    assert_eq!((report.objects, report.records), (parts.cast_unsigned(), 1600));
    for partition in 0..2 {
        let (hot, cold) = (rig.hot(partition).await, rig.cold(partition).await);
        assert_eq!(hot.len(), 800);
        assert_eq!(cold, hot);
    }
    let paths = rig.paths().await;
    assert!(paths.iter().all(|path| path.starts_with("archive/events/date=20")), "{paths:?}");
    assert_eq!(
        rig.bucket.list("archive").await.unwrap().into_iter().collect::<BTreeSet<_>>(),
        paths.into_iter().collect()
    );
    assert_eq!(count(&rig.database.pool, "SELECT count(*) FROM tidemill.loose_objects").await, 0);
    assert_eq!(std::fs::read_dir(rig.folder.path().join("work")).unwrap().count(), 0, "no file is left");
    let again = rig.archiver.tick().await.unwrap();
    assert_eq!(again, Report::default());
    let size = picture::cold_size(&rig.database.pool, rig.topic.id).await.unwrap();
    assert_eq!((size.objects, size.records), (parts, 1600));
    assert!(size.hot_bytes > size.records && size.bytes > 0, "{size:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_archived_leaves_postgres_when_its_time_is_over_and_not_before() {
    let mut rig = Rig::new(TopicPlan { hot: Some(Duration::from_millis(100)), ..archived(2) }).await;
    rig.segment(0, 100).await;
    let hot = rig.hot(1).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let report = rig.maintainer.tick().await.unwrap();
    assert_eq!((report.expired, report.dropped), (0, 0), "not archived yet");
    rig.archiver.tick().await.unwrap();
    let report = rig.maintainer.tick().await.unwrap();
    assert!(report.expired >= 1, "{report:?}");
    rig.maintainer.tick().await.unwrap();
    assert_eq!(rig.cold(1).await, hot);
    let bounds = rig.log.bounds(rig.topic.id).await.unwrap();
    assert!(bounds.iter().all(|bounds| bounds.start == 100 && bounds.next == 100), "{bounds:?}");
    let segments = picture::segments(&rig.database.pool, rig.topic.id, 10).await.unwrap();
    let dropped: Vec<_> = segments.iter().filter(|segment| segment.state == "dropped").collect();
    assert!(
        dropped.iter().any(|segment| segment.cold_records == 200 && segment.hot_bytes == 0),
        "{segments:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_replaced_writes_nothing_into_the_catalog() {
    let mut rig = Rig::new(archived(1)).await;
    rig.segment(0, 50).await;
    let pool = rig.database.pool.clone();
    let stale = catalog::claim(&pool, &host("h-1"), Duration::ZERO).await.unwrap().unwrap();
    let mut other = rig.another("h-2");
    let report = other.tick().await.unwrap();
    assert_eq!((report.objects, report.failures.len()), (1, 0));
    let error = catalog::commit(&pool, &stale, &[]).await.unwrap_err();
    assert!(matches!(error, catalog::CommitError::Fenced), "{error}");
    assert!(!catalog::renew(&pool, &stale, Duration::from_secs(1)).await.unwrap());
    assert_eq!(count(&pool, "SELECT count(*) FROM tidemill.objects").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_replaced_has_nothing_swept_that_is_in_the_catalog() {
    let mut rig = Rig::new(archived(1)).await;
    rig.segment(0, 50).await;
    let pool = rig.database.pool.clone();
    let stale = catalog::claim(&pool, &host("h-1"), Duration::ZERO).await.unwrap().unwrap();
    let mut other = rig.another("h-2");
    other.options = ArchiverOptions { orphan_after: Duration::ZERO, ..quick() };
    other.tick().await.unwrap();
    let [path] = rig.paths().await.try_into().unwrap();
    // It comes to the same object, which the other has put and catalogued.
    let error = catalog::intend(&pool, &stale, &path).await.unwrap_err();
    assert!(matches!(error, catalog::CommitError::Fenced), "{error}");
    assert_eq!(count(&pool, "SELECT count(*) FROM tidemill.loose_objects").await, 0);
    // Nor is it swept should it be noted all the same.
    note(&pool, &path).await;
    assert_eq!(other.tick().await.unwrap().swept, 0);
    assert_eq!(rig.cold(0).await, rig.hot(0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_share_the_work_and_catalogue_nothing_twice() {
    let mut rig = Rig::new(archived(2)).await;
    for part in 0..4 {
        rig.segment(part * 50, 50).await;
    }
    let mut other = rig.another("h-2");
    let (mine, others) = tokio::join!(rig.archiver.tick(), other.tick());
    let (mine, others) = (mine.unwrap(), others.unwrap());
    assert_eq!(mine.records + others.records, 400, "{mine:?} {others:?}");
    for partition in 0..2 {
        assert_eq!(rig.cold(partition).await, rig.hot(partition).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_of_another_database_is_refused() {
    let mut rig = Rig::new(archived(1)).await;
    rig.bucket.put_new("tidemill.json", "{\"installation\":\"theirs\"}".into()).await.unwrap();
    rig.segment(0, 10).await;
    let report = rig.archiver.tick().await.unwrap();
    assert!(report.failures[0].contains("belongs to another database"), "{report:?}");
    let segments = picture::segments(&rig.database.pool, rig.topic.id, 10).await.unwrap();
    assert!(segments.iter().any(|segment| segment.error.is_some()), "{segments:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_changed_in_the_bucket_is_put_again() {
    let mut rig = Rig::new(archived(1)).await;
    rig.segment(0, 200).await;
    rig.archiver.tick().await.unwrap();
    let [path] = rig.paths().await.try_into().unwrap();
    // As after a crash between put and commit, with a file that some fault damaged without changing its length.
    sqlx::raw_sql("DELETE FROM tidemill.objects; UPDATE tidemill.segments SET state = 'sealed' WHERE state = 'archived'")
        .execute(&rig.database.pool)
        .await
        .unwrap();
    let file = rig.bucket.local_path(&path).unwrap();
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    std::fs::write(&file, bad).unwrap();
    let report = rig.archiver.tick().await.unwrap();
    assert!(report.failures[0].contains("other bytes than were put"), "{report:?}");
    assert_eq!(count(&rig.database.pool, "SELECT count(*) FROM tidemill.objects").await, 0);
    let report = rig.archiver.tick().await.unwrap();
    assert_eq!((report.objects, report.failures.len()), (1, 0), "{report:?}");
    assert_eq!(sha2::Sha256::digest(std::fs::read(&file).unwrap()), sha2::Sha256::digest(good));
    assert_eq!(rig.cold(0).await, rig.hot(0).await);
}
