//! What is stored is what was given, and takes little room.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::log::FetchLimits;
use crate::record::Header;

/// What an aircraft reports; numbers are as random as they can be, which compresses badly.
fn report(at: i64) -> NewRecord {
    let below = |limit: u64| fastrand::u64(0..limit);
    let id = format!("a{:05x}", below(500));
    let payload = format!(
        r#"{{"id":"{id}","callsign":"UAL{}","kind":"airliner","lat":{}.{:05},"lon":-{}.{:05},"alt":{},"speed":{}.{},"heading":{}.{},"squawk":"{:04}"}}"#,
        below(9999),
        25 + below(24),
        below(100_000),
        67 + below(58),
        below(100_000),
        below(1600) * 25,
        100 + below(450),
        below(10),
        below(360),
        below(10),
        below(7777)
    );
    NewRecord { timestamp: Some(at), ..record(Some(&id), payload) }
}

#[tokio::test]
async fn fifty_messages_in_a_batch_take_less_than_130_bytes_each() {
    let (_database, log, topic) = with_topic(1).await;
    for batch in 0..400 {
        let at = 1_790_000_000_000_000 + batch * 50_000;
        let batch = (0..50).map(|n| report(at + n * 1_000)).collect();
        log.append(&topic, batch, AppendOptions::default()).await.unwrap();
    }
    let size = log.size(topic.id).await.unwrap();
    let each = size.bytes as f64 / size.records as f64;
    assert!(size.records == 20_000 && each < 130.0, "{each:.1} bytes a message");
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
        for row in crate::log::append::rows(&batch) {
            prop_assert_eq!(row.start, next);
            prop_assert!(!row.is_empty() && row.len() <= ROW_RECORDS_MAX);
            prop_assert!(batch[row.clone()].iter().map(NewRecord::size).sum::<usize>() <= ROW_BYTES_MAX);
            next = row.end;
        }
        prop_assert_eq!(next, batch.len());
    }
}
