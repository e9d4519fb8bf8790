//! How small the archive is and how fast it is written, on the feed of the sample pipeline. Run with
//! `cargo test --release --lib archive::tests::measure -- --ignored --nocapture`.

use std::path::Path;
use std::time::Instant;

use super::*;
use crate::log::AppendOptions;
use crate::plugin::{EngineOptions, Limits, PluginEngine, PluginKind, Poll};

const RECORDS: u64 = 1_000_000;
/// The most bytes a message of the feed may take.
const BYTES_PER_RECORD: f64 = 6.0;

/// Fills the topic with what 500 aircraft report in 1,000 s.
async fn fill(rig: &Rig) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/aircraft-generator.wasm");
    let engine = PluginEngine::new(EngineOptions::default()).unwrap();
    let bytes = std::fs::read(file).expect("`make plugins` builds the generator");
    let plugin = engine.load(bytes, PluginKind::Producer).await.unwrap();
    let config = json!({ "aircraft": 500, "rate": 1000, "seed": 1 });
    let mut instance = plugin.instantiate("measure", &config, &Limits::default()).await.unwrap();
    let (mut position, mut now, mut sent) = (None, 1_790_000_000_000_000_i64, 0);
    while sent < RECORDS {
        let poll = Poll { position, now, max_records: 1000 };
        let production = instance.produce(poll).await.unwrap();
        let records: Vec<NewRecord> = production
            .emissions
            .into_iter()
            .map(|emission| NewRecord {
                key: emission.key.map(Into::into),
                timestamp: emission.timestamp,
                payload: emission.payload.into(),
                ..NewRecord::default()
            })
            .collect();
        sent += records.len() as u64;
        if !records.is_empty() {
            rig.log.append(&rig.topic, records, AppendOptions::default()).await.unwrap();
        }
        position = Some(production.position);
        now += 100_000;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; it prints what the README quotes"]
async fn the_aircraft_feed_is_small_and_quick_to_archive() {
    let plan = crate::config::load(&["../pipelines/aircraft.toml"]).unwrap();
    let pipeline = plan.pipelines.values().next().unwrap();
    let topic = pipeline.topics.values().find(|topic| topic.name.as_str() == "positions").unwrap().clone();
    let topic = TopicPlan { segment: Duration::from_secs(60), hot: Some(Duration::from_secs(3600)), ..topic };
    let mut rig = Rig::new(topic).await;
    let began = Instant::now();
    fill(&rig).await;
    println!("appended in {:.1} s", began.elapsed().as_secs_f64());
    let pool = rig.database.pool.clone();
    let mut sealed = 0;
    while sealed < RECORDS as i64 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.maintainer.tick().await.unwrap();
        sealed = count(
            &pool,
            "SELECT coalesce(sum(next_offset - first_offset), 0)::bigint FROM tidemill.segment_ranges",
        )
        .await;
    }
    let began = Instant::now();
    let report = rig.archiver.tick().await.unwrap();
    let took = began.elapsed().as_secs_f64();
    assert_eq!((report.failures.len(), report.records), (0, sealed.cast_unsigned()));
    let cold = picture::cold_size(&pool, rig.topic.id).await.unwrap();
    let each = |bytes: i64| bytes as f64 / cold.records as f64;
    println!(
        "{} records in {} objects of {} segments: {:.2} bytes each in the bucket, {:.1} in Postgres, ratio {:.0}; \
         {:.0} records/s from Postgres to verified objects",
        cold.records,
        cold.objects,
        report.segments,
        each(cold.bytes),
        each(cold.hot_bytes),
        cold.hot_bytes as f64 / cold.bytes as f64,
        report.records as f64 / took,
    );
    assert!(each(cold.bytes) <= BYTES_PER_RECORD);
    for partition in 0..rig.topic.partitions {
        assert_eq!(rig.cold(partition).await, rig.hot(partition).await, "exact payloads");
    }
}
