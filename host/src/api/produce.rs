//! Appends records: one JSON array, or lines.
//!
//! Guarantee: nothing is stored when anything in the body is wrong. With an `Idempotency-Key` or a producer's sequence a
//! repeat stores nothing and gets the first answer, each partition for itself. Payloads of lines are slices of the body,
//! kept byte for byte.
//! Bound: a body of 8 MiB and 100,000 records, within the budget of all bodies ([`super::body`]).

pub mod array;
pub mod key;
mod lines;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use futures::future::try_join_all;
use serde::Serialize;

use super::ApiState;
use super::body::{self, MAX_APPEND, media_type, unsupported};
use super::error::ApiError;
use super::params::Params;
use super::path::Named;
use super::start::no_partition;
use crate::ids::{Offset, Partition, TopicName};
use crate::log::{AppendOptions, ProducerSeq, Topic, partition_of};
use crate::record::{Appended, NewRecord};
use lines::Lines;

/// Records in one request: what they take beside their payloads is bounded too.
const MAX_RECORDS: usize = 100_000;
/// Bytes of one record.
pub const MAX_RECORD: usize = 1 << 20;
/// Longest name of a producer and longest key, in bytes, before our prefix.
const MAX_PRODUCER: usize = 200;

const KINDS: &str = "application/x-ndjson, text/plain, application/octet-stream or application/json";

/// A record and where the request wants it.
#[derive(Debug)]
pub struct Placed {
    record: NewRecord,
    partition: Option<Partition>,
}

#[derive(Debug, Serialize)]
pub struct Answer {
    topic: String,
    records: u64,
    /// Nothing was stored now: the same request was answered before.
    duplicate: bool,
    partitions: Vec<Part>,
}

#[derive(Debug, Serialize)]
struct Part {
    partition: Partition,
    first_offset: Offset,
    next_offset: Offset,
}

/// What a request asks for, apart from its body.
struct Wanted {
    topic: Arc<Topic>,
    shape: Shape,
    partition: Option<Partition>,
    producer: Option<ProducerSeq>,
}

enum Shape {
    Array,
    Lines(Lines),
}

pub async fn produce(
    State(state): State<ApiState>,
    Named(name): Named<TopicName>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Answer>, ApiError> {
    let wanted = match Wanted::read(&state, &name, &uri, &headers).await {
        Ok(wanted) => wanted,
        Err(error) => {
            body::discard(&headers, body).await;
            return Err(error);
        }
    };
    let body = state.bodies.read(&headers, body, MAX_APPEND).await?;
    let placed = match &wanted.shape {
        Shape::Array => array::parse(&body.bytes)?,
        Shape::Lines(lines) => lines.parse(&body.bytes)?,
    };
    let appended = append(&state, &wanted.topic, placed, wanted.partition, wanted.producer).await?;
    let answer = Answer::new(&wanted.topic, &appended);
    let stored: u64 = appended.iter().filter(|a| !a.duplicate).map(|a| a.next_offset - a.base_offset).sum();
    metrics::counter!("tidemill_http_records_in_total", "topic" => answer.topic.clone()).increment(stored);
    Ok(Json(answer))
}

impl Wanted {
    async fn read(
        state: &ApiState,
        name: &TopicName,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, ApiError> {
        let kind = media_type(headers);
        let json = match kind.as_deref() {
            Some("application/json") => None,
            Some("application/x-ndjson" | "application/jsonl" | "application/jsonlines") => Some(true),
            Some("text/plain" | "application/octet-stream") => Some(false),
            other => return Err(unsupported(other, KINDS)),
        };
        let (params, shape) = match json {
            None => (Params::read(uri, &["partition"])?, Shape::Array),
            Some(json) => {
                let params = Params::read(uri, &["partition", "key_field", "key_separator"])?;
                let lines = Lines::new(json, &params)?;
                (params, Shape::Lines(lines))
            }
        };
        Ok(Self {
            partition: params.parsed::<Partition>("partition")?,
            producer: producer(headers)?,
            topic: state.log.topic(name.as_str()).await?,
            shape,
        })
    }
}

/// Refuses what is too much or too large, naming the record by its place from 1.
fn check(place: usize, record: &NewRecord, what: &'static str) -> Result<(), ApiError> {
    if place > MAX_RECORDS {
        return Err(ApiError::too_large(
            "too_many_records",
            format!("the body has more than {MAX_RECORDS} records"),
        )
        .hint("send smaller batches"));
    }
    if record.size() > MAX_RECORD {
        return Err(ApiError::too_large(
            "record_too_large",
            format!("{what} {place} has {} bytes; a record has at most {MAX_RECORD}", record.size()),
        )
        .hint("store large things elsewhere and send where they are")
        .line(place as u64));
    }
    Ok(())
}

async fn append(
    state: &ApiState,
    topic: &Topic,
    placed: Vec<Placed>,
    partition: Option<Partition>,
    producer: Option<ProducerSeq>,
) -> Result<Vec<Appended>, ApiError> {
    if placed.is_empty() {
        return Err(ApiError::bad_request("no_records", "the body has no records")
            .hint("send at least one line or one element"));
    }
    if let Some(partition) = partition.filter(|partition| *partition >= topic.partitions) {
        return Err(no_partition(topic, partition));
    }
    if placed.iter().all(|placed| placed.partition.is_none()) {
        let records = placed.into_iter().map(|placed| placed.record).collect();
        return Ok(state.log.append(topic, records, AppendOptions { partition, producer }).await?);
    }
    // Some records say where they go. All are placed here, so that each partition gets one append: with a producer a
    // second one of the same sequence would be taken for a repeat.
    let loose = match &producer {
        Some(producer) => partition_of(producer.id.as_bytes(), topic.partitions),
        None => fastrand::u32(..topic.partitions),
    };
    let mut groups: BTreeMap<Partition, Vec<NewRecord>> = BTreeMap::new();
    for Placed { record, partition: own } in placed {
        let of_key = || record.key.as_deref().map(|key| partition_of(key, topic.partitions));
        let partition = own.or(partition).or_else(of_key).unwrap_or(loose);
        if partition >= topic.partitions {
            return Err(no_partition(topic, partition));
        }
        groups.entry(partition).or_default().push(record);
    }
    let appends = groups.into_iter().map(|(partition, records)| {
        let how = AppendOptions { partition: Some(partition), producer: producer.clone() };
        state.log.append(topic, records, how)
    });
    Ok(try_join_all(appends).await?.into_iter().flatten().collect())
}

impl Answer {
    fn new(topic: &Topic, appended: &[Appended]) -> Self {
        // A large batch is stored as several rows of one partition, next to each other or not.
        let mut parts: BTreeMap<Partition, Part> = BTreeMap::new();
        for appended in appended {
            let part = parts.entry(appended.partition).or_insert(Part {
                partition: appended.partition,
                first_offset: appended.base_offset,
                next_offset: appended.next_offset,
            });
            part.first_offset = part.first_offset.min(appended.base_offset);
            part.next_offset = part.next_offset.max(appended.next_offset);
        }
        Self {
            topic: topic.name.to_string(),
            records: appended.iter().map(|a| a.next_offset - a.base_offset).sum(),
            duplicate: !appended.is_empty() && appended.iter().all(|a| a.duplicate),
            partitions: parts.into_values().collect(),
        }
    }
}

/// Who appends, if the request says so. Names get a prefix, which is what lets idle ones be forgotten.
fn producer(headers: &HeaderMap) -> Result<Option<ProducerSeq>, ApiError> {
    let key = text(headers, "idempotency-key")?;
    let id = text(headers, "tidemill-producer-id")?;
    let seq = number(headers, "tidemill-producer-seq")?;
    let epoch = number(headers, "tidemill-producer-epoch")?;
    match (key, id, seq) {
        (None, None, None) if epoch.is_none() => Ok(None),
        (Some(key), None, None) if epoch.is_none() => {
            Ok(Some(ProducerSeq { id: format!("http:key:{key}"), epoch: 0, seq: 0 }))
        }
        (None, Some(id), Some(seq)) => {
            Ok(Some(ProducerSeq { id: format!("http:id:{id}"), epoch: epoch.unwrap_or(0), seq }))
        }
        _ => Err(ApiError::bad_request("bad_producer", "the headers do not say which request this is").hint(
            "send either Idempotency-Key alone, or Tidemill-Producer-Id with Tidemill-Producer-Seq and, if it is not \
             0, Tidemill-Producer-Epoch",
        )),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=MAX_PRODUCER).contains(&text.len()));
    text.map(Some).ok_or_else(|| {
        ApiError::bad_request(
            "bad_producer",
            format!("the header {name} must have 1 to {MAX_PRODUCER} plain characters"),
        )
    })
}

fn number(headers: &HeaderMap, name: &'static str) -> Result<Option<i64>, ApiError> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.map(Some).ok_or_else(|| {
        ApiError::bad_request("bad_producer", format!("the header {name} must be a number from 0 on"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &str)]) -> Result<Option<(String, i64, i64)>, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        producer(&headers).map(|p| p.map(|p| (p.id, p.epoch, p.seq))).map_err(|e| e.code)
    }

    #[test]
    fn a_request_says_in_one_of_two_ways_which_it_is() {
        let (key, id) = ("idempotency-key", "tidemill-producer-id");
        let (seq, epoch) = ("tidemill-producer-seq", "tidemill-producer-epoch");
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[(key, "k")]), Ok(Some(("http:key:k".into(), 0, 0))));
        assert_eq!(read(&[(id, "p"), (seq, "7")]), Ok(Some(("http:id:p".into(), 0, 7))));
        assert_eq!(read(&[(id, "p"), (seq, "7"), (epoch, "2")]), Ok(Some(("http:id:p".into(), 2, 7))));
        for bad in [
            vec![(id, "p")],
            vec![(seq, "1")],
            vec![(epoch, "1")],
            vec![(key, "k"), (id, "p"), (seq, "1")],
            vec![(id, "p"), (seq, "-1")],
            vec![(id, "p"), (seq, "x")],
            vec![(key, "")],
        ] {
            assert_eq!(read(&bad), Err("bad_producer"), "{bad:?}");
        }
    }
}
