//! What goes, what is held, and for whom.

use super::*;

/// Moves a group, as a consumer's commit does.
async fn stand(rig: &Rig, group: &str, offset: i64) {
    sqlx::query("SELECT tidemill.join_group($1, 'events')")
        .bind(group)
        .execute(&rig.database.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE tidemill.consumer_offsets SET next_offset = $2 WHERE group_name = $1")
        .bind(group)
        .bind(offset)
        .execute(&rig.database.pool)
        .await
        .unwrap();
}

fn held(max_bytes: u64) -> TopicPlan {
    let hold = Hold { groups: vec![GroupName::parse("reports").unwrap()], max_bytes };
    TopicPlan { hot: Some(Duration::from_millis(50)), hold, ..archived(1) }
}

async fn start(rig: &Rig) -> u64 {
    rig.log.bounds(rig.topic.id).await.unwrap()[0].start
}

/// Archives and lets go what may go.
async fn settle(rig: &mut Rig) {
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.archiver.tick().await.unwrap();
    for _ in 0..2 {
        rig.maintainer.tick().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_group_holds_what_it_has_not_read() {
    let mut rig = Rig::new(held(1 << 30)).await;
    assert_eq!(rig.topic.hold.groups.len(), 1, "{:?}", rig.topic.hold);
    stand(&rig, "reports", 0).await;
    stand(&rig, "others", 0).await;
    rig.segment(0, 100).await;
    rig.segment(100, 100).await;
    settle(&mut rig).await;
    assert_eq!(start(&rig).await, 0, "the group has read nothing");
    assert_eq!(rig.cold(0).await.len(), 200, "held or not, it is archived");
    stand(&rig, "reports", 100).await;
    settle(&mut rig).await;
    assert_eq!(start(&rig).await, 100);
    stand(&rig, "reports", 200).await;
    settle(&mut rig).await;
    assert_eq!(start(&rig).await, 200);
    let groups = crate::log::offsets::Groups::new(rig.database.pool.clone()).list().await.unwrap();
    let behind: Vec<(&str, u64)> = groups.iter().map(|lag| (lag.group.as_str(), lag.behind_hot)).collect();
    assert_eq!(behind, [("others", 200), ("reports", 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_limited_and_the_oldest_goes_first() {
    let mut rig = Rig::new(held(1 << 20)).await;
    stand(&rig, "reports", 0).await;
    let blob = |n: usize| -> Vec<NewRecord> {
        // Does not compress.
        let mut random = fastrand::Rng::with_seed(n as u64);
        let payload: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(600_000).collect();
        vec![NewRecord { payload: payload.into(), ..NewRecord::default() }]
    };
    for n in 0..3 {
        rig.log.append(&rig.topic, blob(n), to(0)).await.unwrap();
        rig.segment(n * 10, 10).await;
    }
    settle(&mut rig).await;
    let start = start(&rig).await;
    assert!(start == 22, "of three segments of 600 kB one fits into 1 MiB; the log starts at {start}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_never_read_holds_nothing() {
    let mut rig = Rig::new(held(1 << 30)).await;
    rig.segment(0, 10).await;
    settle(&mut rig).await;
    assert_eq!(start(&rig).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_go_after_the_cold_retention_catalogue_first() {
    let plan = TopicPlan {
        hot: Some(Duration::from_millis(50)),
        cold: Cold::For(Duration::from_millis(100)),
        ..archived(1)
    };
    let mut rig = Rig::new(plan).await;
    rig.segment(0, 50).await;
    settle(&mut rig).await;
    let [path] = rig.paths().await.try_into().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let report = rig.archiver.tick().await.unwrap();
    assert_eq!((report.expired, report.swept), (1, 0), "readers that know of it may still read it");
    assert!(rig.paths().await.is_empty());
    assert!(rig.bucket.size(&path).await.unwrap().is_some());
    rig.archiver.options.gone_after = Duration::ZERO;
    let report = rig.archiver.tick().await.unwrap();
    assert_eq!(report.swept, 1);
    assert_eq!(rig.bucket.size(&path).await.unwrap(), None);
    assert_eq!(count(&rig.database.pool, "SELECT count(*) FROM tidemill.loose_objects").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_objects_of_a_deleted_topic_are_swept_and_nothing_else() {
    let mut rig = Rig::new(archived(2)).await;
    rig.segment(0, 20).await;
    rig.archiver.tick().await.unwrap();
    let strange = "archive/events/date=2026-01-01/mine.parquet";
    rig.bucket.put_new(strange, "not ours".into()).await.unwrap();
    assert_eq!(rig.bucket.list("archive").await.unwrap().len(), 3);
    rig.log.delete_topic(&rig.topic.name).await.unwrap();
    assert_eq!(rig.archiver.tick().await.unwrap().swept, 0, "there is time to change one's mind");
    rig.archiver.options.gone_after = Duration::ZERO;
    assert_eq!(rig.archiver.tick().await.unwrap().swept, 2);
    assert_eq!(rig.bucket.list("archive").await.unwrap(), [strange]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphan_goes_and_a_doomed_one_is_not_catalogued() {
    let mut rig = Rig::new(archived(1)).await;
    rig.segment(0, 20).await;
    rig.archiver.tick().await.unwrap();
    let [path] = rig.paths().await.try_into().unwrap();
    sqlx::raw_sql("DELETE FROM tidemill.objects; UPDATE tidemill.segments SET state = 'sealed' WHERE state = 'archived'")
        .execute(&rig.database.pool)
        .await
        .unwrap();
    // Another host is about to delete it.
    sqlx::raw_sql("UPDATE tidemill.loose_objects SET doomed_at = clock_timestamp()")
        .execute(&rig.database.pool)
        .await
        .unwrap();
    let report = rig.archiver.tick().await.unwrap();
    assert!(report.failures[0].contains("being swept"), "{report:?}");
    sqlx::raw_sql("UPDATE tidemill.loose_objects SET doomed_at = clock_timestamp() - interval '1 hour'")
        .execute(&rig.database.pool)
        .await
        .unwrap();
    let report = rig.archiver.tick().await.unwrap();
    assert_eq!(report.swept, 1);
    assert_eq!(rig.bucket.size(&path).await.unwrap(), None);
    assert_eq!(rig.archiver.tick().await.unwrap().objects, 1);
    assert_eq!(rig.cold(0).await, rig.hot(0).await);
}
