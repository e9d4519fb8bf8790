//! What the tests of this module and of those above it share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::config::plan::{Acks, Cold, Format, Hold, TopicPlan};
use crate::ids::{Offset, Partition, TopicName};
use crate::pg::notify::NotifyHub;
use crate::pg::testing::{TestDatabase, database};
use crate::record::{NewRecord, Record};

use super::{AppendOptions, FetchLimits, Log, LogOptions, ProducerSeq, Topic};

pub(crate) fn log_with(database: &TestDatabase, options: LogOptions) -> Log {
    let hub = NotifyHub::start(database.pool.clone(), None);
    Log::new(database.pool.clone(), hub, Clock::system(), options)
}

pub(crate) async fn open() -> (TestDatabase, Log) {
    let database = database().await;
    let log = log_with(&database, LogOptions::default());
    (database, log)
}

pub(crate) fn plan(name: &str, partitions: u32) -> TopicPlan {
    TopicPlan {
        name: TopicName::parse(name).unwrap(),
        partitions,
        segment: Duration::from_secs(3600),
        hot: Some(Duration::from_secs(24 * 3600)),
        cold: Cold::None,
        format: Format::Bytes,
        acks: Acks::Fsync,
        schema: None,
        sort: Vec::new(),
        hold: Hold::default(),
    }
}

/// A log with one topic, `events`.
pub(crate) async fn with_topic(partitions: u32) -> (TestDatabase, Log, Arc<Topic>) {
    let (database, log) = open().await;
    let topic = log.create_topic(&plan("events", partitions)).await.unwrap();
    (database, log, topic)
}

pub(crate) fn record(key: Option<&str>, payload: impl Into<String>) -> NewRecord {
    NewRecord {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        payload: payload.into().into(),
        ..NewRecord::default()
    }
}

pub(crate) fn records(payloads: impl IntoIterator<Item = impl ToString>) -> Vec<NewRecord> {
    payloads.into_iter().map(|payload| record(None, payload.to_string())).collect()
}

pub(crate) fn to(partition: Partition) -> AppendOptions {
    AppendOptions { partition: Some(partition), producer: None }
}

pub(crate) fn by(id: &str, epoch: i64, seq: i64) -> AppendOptions {
    AppendOptions { partition: None, producer: Some(ProducerSeq { id: id.to_owned(), epoch, seq }) }
}

/// Everything in a partition from an offset to the end.
pub(crate) async fn read(log: &Log, topic: &Topic, partition: Partition, from: Offset) -> Vec<Record> {
    let (mut read, mut next) = (Vec::new(), from);
    loop {
        let fetched = log.fetch(topic, partition, next, FetchLimits::default()).await.unwrap();
        for batch in &fetched.batches {
            assert_eq!(batch.base_offset, next, "a gap");
            next = batch.next_offset();
            read.extend_from_slice(&batch.records);
        }
        if fetched.batches.is_empty() {
            return read;
        }
    }
}

pub(crate) fn payload(record: &Record) -> &str {
    std::str::from_utf8(&record.payload).unwrap()
}

/// Looks again until it is so; a test that waits in vain fails.
pub(crate) async fn eventually<F, T>(what: &str, mut look: F)
where
    F: FnMut() -> T,
    T: Future<Output = bool>,
{
    let started = std::time::Instant::now();
    while !look().await {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
