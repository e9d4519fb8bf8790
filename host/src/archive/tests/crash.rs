//! A process is killed at every step, and another goes on where it was.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// Every place between two steps.
const PLACES: [&str; 12] = [
    "archive.claim",
    "archive.write",
    "archive.intend",
    "archive.put",
    "archive.verify",
    "archive.commit",
    "archive.committed",
    "segments.expire",
    "segments.detach",
    "segments.drop",
    "archive.doom",
    "archive.sweep",
];
/// Kills at each place; `TIDEMILL_ROUNDS=10` makes it the long test.
const ROUNDS: usize = 1;

const DATABASE: &str = "TIDEMILL_TEST_DATABASE";
const FOLDER: &str = "TIDEMILL_TEST_FOLDER";

fn sweeps_at_once() -> ArchiverOptions {
    ArchiverOptions { orphan_after: Duration::ZERO, gone_after: Duration::ZERO, ..quick() }
}

/// The process that is killed: archives and drops until nothing is left to do.
#[test]
#[ignore = "the process that the crash test starts and kills"]
fn child() {
    let (Ok(url), Ok(folder)) = (std::env::var(DATABASE), std::env::var(FOLDER)) else {
        return;
    };
    let folder = Path::new(&folder);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let settings = crate::pg::pool::PoolSettings { max_connections: 4, ..Default::default() };
        let pool = crate::pg::pool::connect(&url, &settings).await.unwrap();
        let hub = crate::pg::notify::NotifyHub::start(pool.clone(), None);
        let log = Log::new(pool.clone(), hub, Clock::system(), crate::log::LogOptions::default());
        let url = folder.join("bucket").display().to_string();
        let bucket = Bucket::open(&url, &BucketOptions::default()).unwrap();
        let mut archiver =
            Archiver::new(log, bucket, host("h-1"), folder.join("work"), sweeps_at_once()).unwrap();
        let mut maintainer = Maintainer::new(pool.clone(), Clock::system(), eager());
        loop {
            maintainer.tick().await.unwrap();
            let report = archiver.tick().await.unwrap();
            assert_eq!(report.failures, Vec::<String>::new());
            let dropped = count(&pool, "SELECT count(*) FROM tidemill.segments WHERE state = 'dropped'").await;
            let left = count(&pool, "SELECT count(*) FROM tidemill.segments WHERE upper < clock_timestamp() AND state <> 'dropped'").await;
            if dropped > 0 && left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

fn run(url: &str, folder: &Path, crash: Option<&str>) -> std::process::ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "archive::tests::crash::child", "--ignored", "--nocapture"]);
    command.env(DATABASE, url).env(FOLDER, folder).env_remove("TIDEMILL_CRASH_AT");
    if let Some(place) = crash {
        command.env("TIDEMILL_CRASH_AT", place);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap()
}

/// Nothing is lost, whoever was killed where: each offset is in Postgres or in an object whose content is right.
async fn nothing_is_missing(rig: &Rig, expected: &[Vec<Record>]) {
    for (partition, expected) in (0..).zip(expected) {
        let bounds = rig.log.bounds(rig.topic.id).await.unwrap()[partition as usize];
        let cold = rig.cold(partition).await;
        assert!(cold.len() as u64 >= bounds.start, "dropped {} but archived {}", bounds.start, cold.len());
        assert_eq!(cold, expected[..cold.len()]);
        let hot = read(&rig.log, &rig.topic, partition, bounds.start).await;
        assert_eq!(hot, expected[bounds.start as usize..]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_loses_nothing_and_leaves_nothing_behind() {
    let rounds =
        std::env::var("TIDEMILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let plan = TopicPlan { hot: Some(Duration::from_millis(10)), ..archived(2) };
    let rig = Rig::new(plan).await;
    let mut expected: Vec<Vec<Record>> = vec![Vec::new(); 2];
    let mut sent = 0;
    for round in 0..rounds {
        for place in PLACES {
            for (partition, expected) in (0..).zip(&mut expected) {
                rig.log.append(&rig.topic, mixed(sent, 60), to(partition)).await.unwrap();
                expected.extend(read(&rig.log, &rig.topic, partition, expected.len() as u64).await);
            }
            sent += 60;
            if matches!(place, "archive.doom" | "archive.sweep") {
                let path = format!("archive/events/date=2026-01-01/orphan-{round}-{place}.parquet");
                rig.bucket.put_new(&path, "left by somebody".into()).await.unwrap();
                note(&rig.database.pool, &path).await;
            }
            let status = run(&rig.database.url, rig.folder.path(), Some(place));
            assert_eq!(status.signal(), Some(9), "{place}: {status}");
            nothing_is_missing(&rig, &expected).await;
        }
    }
    // What was doomed by a killed sweep is taken up after a while.
    sqlx::raw_sql("UPDATE tidemill.loose_objects SET doomed_at = doomed_at - interval '1 hour'")
        .execute(&rig.database.pool)
        .await
        .unwrap();
    rig.time_is_over().await;
    let status = run(&rig.database.url, rig.folder.path(), None);
    assert!(status.success(), "{status}");
    nothing_is_missing(&rig, &expected).await;
    let pool = &rig.database.pool;
    let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
    assert_eq!(count(pool, pending).await, 0);
    assert_eq!(count(pool, "SELECT count(*) FROM tidemill.loose_objects").await, 0);
    assert_eq!(count(pool, "SELECT sum(records)::bigint FROM tidemill.objects").await, sent as i64 * 2);
    let catalogued: BTreeSet<String> = rig.paths().await.into_iter().collect();
    let stored: BTreeSet<String> = rig.bucket.list("archive").await.unwrap().into_iter().collect();
    assert_eq!(stored, catalogued, "orphans are left");
    assert_eq!(std::fs::read_dir(rig.folder.path().join("work")).unwrap().count(), 0);
}
