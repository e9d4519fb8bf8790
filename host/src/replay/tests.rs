use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ids::LogEpoch;
use crate::log::AppendOptions;
use crate::log::testing::*;

const AT_ONCE: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_secs(10);

fn few() -> FetchLimits {
    FetchLimits { records: 20, bytes: 1 << 20 }
}

#[tokio::test]
async fn partitions_take_turns_and_the_position_follows() {
    let (_database, log, topic) = with_topic(3).await;
    for partition in 0..2 {
        for n in 0..4 {
            log.append(&topic, records(n * 10..(n + 1) * 10), to(partition)).await.unwrap();
        }
    }
    let mut cursor = Replay::new(log).cursor(topic, vec![(0, 5), (1, 0), (2, 0)], few());
    assert_eq!(cursor.position().to_string(), "0:5,1:0,2:0");
    let mut order = Vec::new();
    while let Some(batch) = cursor.next(AT_ONCE).await.unwrap() {
        order.push((batch.partition, batch.base_offset, batch.next_offset()));
        assert_eq!(cursor.position().get(batch.partition), Some(batch.next_offset()));
    }
    let expected = [
        (0, 5, 10),
        (1, 0, 10),
        (0, 10, 20),
        (1, 10, 20),
        (0, 20, 30),
        (1, 20, 30),
        (0, 30, 40),
        (1, 30, 40),
    ];
    assert_eq!(order, expected);
    assert_eq!(cursor.position().to_string(), "0:40@1,1:40@1,2:0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_reader_is_woken_and_a_cancelled_one_skips_nothing() {
    let (_database, log, topic) = with_topic(2).await;
    let mut cursor = Replay::new(log.clone()).cursor(topic.clone(), vec![(0, 0), (1, 0)], few());
    assert!(cursor.next(AT_ONCE).await.unwrap().is_none());
    let mut next = [0, 0];
    let writer = tokio::spawn(async move {
        for n in 0..200 {
            log.append(&topic, records([n]), to(n % 2)).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let started = std::time::Instant::now();
    while next != [100, 100] {
        assert!(started.elapsed() < Duration::from_secs(60), "{next:?}");
        // Cancelled again and again, at any point.
        let patience = Duration::from_micros(fastrand::u64(0..3_000));
        if let Ok(batch) = tokio::time::timeout(patience, cursor.next(SOON)).await {
            let batch = batch.unwrap().unwrap();
            let next = &mut next[batch.partition as usize];
            assert_eq!(batch.base_offset, *next);
            *next = batch.next_offset();
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_wait_that_brings_nothing_ends_in_time() {
    let (_database, log, topic) = with_topic(1).await;
    let mut cursor = Replay::new(log).cursor(topic, vec![(0, 0)], few());
    let started = std::time::Instant::now();
    assert!(cursor.next(Duration::from_millis(100)).await.unwrap().is_none());
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(100) && waited < Duration::from_secs(5), "{waited:?}");
}

#[tokio::test]
async fn an_append_that_nobody_told_of_is_found_by_polling() {
    let (database, log, topic) = with_topic(1).await;
    let mut cursor = Replay::new(log.clone()).cursor(topic.clone(), vec![(0, 0)], few());
    assert!(cursor.next(AT_ONCE).await.unwrap().is_none());
    // Another host, which this one does not listen to.
    let other = log_with(&database, crate::log::LogOptions::default());
    other.append(&topic, records(["x"]), AppendOptions::default()).await.unwrap();
    assert_eq!(cursor.next(SOON).await.unwrap().unwrap().next_offset(), 1);
}

#[tokio::test]
async fn a_reader_before_the_start_is_told_and_reading_no_partition_is_an_end() {
    let (database, log, topic) = with_topic(1).await;
    log.append(&topic, records(0..5), AppendOptions::default()).await.unwrap();
    sqlx::query("UPDATE tidemill.log_start SET start_offset = 2").execute(&database.pool).await.unwrap();
    let replay = Replay::new(log);
    let mut cursor = replay.cursor(topic.clone(), vec![(0, 1)], few());
    let error = cursor.next(AT_ONCE).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "topic \"events\": offset 1 of partition 0 is out of range: the log holds 2 up to 5"
    );
    assert!(
        replay.cursor(topic, Vec::<(Partition, Place)>::new(), few()).next(AT_ONCE).await.unwrap().is_none()
    );
}

#[test]
fn a_text_that_is_no_position_is_refused() {
    for bad in [
        "0",
        "0:",
        ":1",
        "a:1",
        "0:1,",
        ",0:1",
        "0:1,0:2",
        "0:-1",
        "0:+1",
        "0:1;1:2",
        "4294967296:0",
        " 0:1",
        "0:1@",
        "0:1@-1",
        "0:1@a",
        "0:1@2@3",
        "0:1@2147483648",
    ] {
        assert!(bad.parse::<Position>().is_err(), "{bad:?} was taken");
    }
    assert_eq!("".parse(), Ok(Position::default()));
}

proptest! {
    #[test]
    fn positions_come_back_as_they_were(
        entries in prop::collection::btree_map(any::<u32>(), (any::<u64>(), prop::option::of(0..i32::MAX)), 0..9)
    ) {
        let place = |(offset, epoch): (u64, Option<i32>)| Place { offset, epoch: epoch.map(LogEpoch) };
        let position: Position = entries.into_iter().map(|(partition, at)| (partition, place(at))).collect();
        prop_assert_eq!(position.to_string().parse(), Ok::<_, PositionError>(position.clone()));
        let json = serde_json::to_string(&position).unwrap();
        prop_assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
    }
}
