//! Topics: list, make, show, delete.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ApiState;
use super::error::ApiError;
use super::params::Params;
use super::path::Named;
use crate::archive::picture;
use crate::config::plan::{Acks, Cold, Format, Hold, TopicPlan};
use crate::config::units;
use crate::ids::{GroupName, Offset, TopicName};
use crate::log::{LogError, Topic};

/// Topics that are looked at side by side for a listing.
const SIDE_BY_SIDE: usize = 4;
const LONGEST_SEGMENT: Duration = Duration::from_secs(31 * 86_400);

/// A topic as answers show it.
#[derive(Clone, Debug, Serialize)]
pub struct TopicView {
    name: String,
    partitions: u32,
    format: Format,
    /// Records that can be read.
    records: u64,
    /// Appended, averaged over some seconds; null until that is known.
    records_per_second: Option<f64>,
    /// From the bucket on, where that has some.
    first_offsets: Vec<Offset>,
    /// In Postgres.
    start_offsets: Vec<Offset>,
    next_offsets: Vec<Offset>,
    segment: String,
    retention: RetentionView,
    acks: Acks,
    compression: String,
    hot: HotView,
    cold: ColdView,
}

#[derive(Clone, Debug, Serialize)]
struct RetentionView {
    hot: String,
    cold: String,
    /// Groups for which rows stay longer than `hot`.
    hold: Vec<GroupName>,
}

/// What is in Postgres, measured there.
#[derive(Clone, Debug, Serialize)]
struct HotView {
    segments: u64,
    records: u64,
    bytes: u64,
    bytes_per_record: Option<f64>,
}

/// What is in the bucket, as the catalog has it.
#[derive(Clone, Debug, Serialize)]
struct ColdView {
    objects: i64,
    records: i64,
    bytes: i64,
    bytes_per_record: Option<f64>,
    /// What the same records took in Postgres.
    hot_bytes_per_record: Option<f64>,
}

/// The body that makes a topic.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTopic {
    name: TopicName,
    #[serde(default = "default_partitions")]
    partitions: u32,
    #[serde(default = "default_segment")]
    segment: String,
    #[serde(default)]
    retention: NewRetention,
    #[serde(default = "default_format")]
    format: String,
    #[serde(default = "default_acks")]
    acks: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NewRetention {
    hot: String,
    cold: String,
}

impl Default for NewRetention {
    fn default() -> Self {
        Self { hot: "24h".to_string(), cold: "forever".to_string() }
    }
}

fn default_partitions() -> u32 {
    4
}

fn default_segment() -> String {
    "1h".to_string()
}

fn default_format() -> String {
    "json".to_string()
}

fn default_acks() -> String {
    "fsync".to_string()
}

pub async fn list(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    Ok(Json(json!({ "topics": views(&state).await? })).into_response())
}

pub async fn describe(
    State(state): State<ApiState>,
    Named(name): Named<TopicName>,
    uri: Uri,
) -> Result<Json<TopicView>, ApiError> {
    Params::read(&uri, &[])?;
    let topic = state.log.topic(name.as_str()).await?;
    Ok(Json(view(&state, &topic).await?))
}

pub async fn create(
    State(state): State<ApiState>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    let new: NewTopic = state.bodies.json(&headers, body).await?;
    let plan = new.plan().map_err(|reason| ApiError::bad_request("bad_topic", reason))?;
    let topic = state.log.create_topic(&plan).await?;
    Ok((StatusCode::CREATED, Json(view(&state, &topic).await?)).into_response())
}

pub async fn remove(
    State(state): State<ApiState>,
    Named(name): Named<TopicName>,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    Params::read(&uri, &[])?;
    if state.runtime.uses_topic(&name) {
        return Err(ApiError::conflict("topic_in_use", format!("a running pipeline uses topic {name}"))
            .hint("stop the host, or run it without that pipeline, then delete the topic"));
    }
    state.log.delete_topic(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All topics, by name.
pub async fn views(state: &ApiState) -> Result<Vec<TopicView>, ApiError> {
    let topics = state.log.topics().await?;
    let views = stream::iter(topics).map(|topic| async move { view(state, &topic).await });
    let mut views: Vec<TopicView> = views.buffered(SIDE_BY_SIDE).try_collect().await?;
    views.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(views)
}

async fn view(state: &ApiState, topic: &Topic) -> Result<TopicView, ApiError> {
    let cold = async { picture::cold_size(state.log.pool(), topic.id).await.map_err(LogError::from) };
    let (bounds, size, cold) = tokio::try_join!(state.log.bounds(topic.id), state.log.size(topic.id), cold)?;
    let records = bounds.iter().map(|b| b.next - b.start).sum();
    Ok(TopicView {
        name: topic.name.to_string(),
        partitions: topic.partitions,
        format: topic.format,
        records,
        records_per_second: state.rates.of_topic(topic.name.as_str()),
        first_offsets: bounds.iter().map(|b| b.first).collect(),
        start_offsets: bounds.iter().map(|b| b.start).collect(),
        next_offsets: bounds.iter().map(|b| b.next).collect(),
        segment: short(topic.segment),
        retention: RetentionView {
            hot: topic.hot.map_or_else(|| "forever".to_string(), short),
            cold: match topic.cold {
                Cold::None => "none".to_string(),
                Cold::Forever => "forever".to_string(),
                Cold::For(time) => short(time),
            },
            hold: topic.hold.groups.clone(),
        },
        acks: topic.acks,
        compression: topic.compression.clone(),
        hot: HotView {
            segments: size.segments,
            records: size.records,
            bytes: size.bytes,
            bytes_per_record: each(size.bytes, size.records),
        },
        cold: ColdView {
            objects: cold.objects,
            records: cold.records,
            bytes: cold.bytes,
            bytes_per_record: each(cold.bytes.unsigned_abs(), cold.records.unsigned_abs()),
            hot_bytes_per_record: each(cold.hot_bytes.unsigned_abs(), cold.records.unsigned_abs()),
        },
    })
}

/// Bytes of one record, to a tenth.
fn each(bytes: u64, records: u64) -> Option<f64> {
    (records > 0).then(|| (bytes as f64 / records as f64 * 10.0).round() / 10.0)
}

/// In the largest unit that says it exactly: `5m`, `24h`, `90s`.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    if time.subsec_nanos() > 0 {
        return units::show_duration(time);
    }
    match seconds {
        s if s % 86_400 == 0 && s > 86_400 => format!("{}d", s / 86_400),
        s if s % 3600 == 0 && s > 0 => format!("{}h", s / 3600),
        s if s % 60 == 0 && s > 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

impl NewTopic {
    fn plan(self) -> Result<TopicPlan, String> {
        if !(1..=256).contains(&self.partitions) {
            return Err(format!("partitions is {}: it goes from 1 to 256", self.partitions));
        }
        let segment = units::duration(&self.segment)?;
        let whole = segment.subsec_nanos() == 0 && segment >= Duration::from_secs(1);
        if !whole || segment > LONGEST_SEGMENT {
            return Err(format!("segment is {}: it is whole seconds, from 1s to 31days", self.segment));
        }
        let hot = units::duration_or_forever(&self.retention.hot)?;
        let cold = match self.retention.cold.as_str() {
            "none" => Cold::None,
            text => units::duration_or_forever(text)?.map_or(Cold::Forever, Cold::For),
        };
        if hot == Some(Duration::ZERO) || cold == Cold::For(Duration::ZERO) {
            return Err("a retention of nothing would keep nothing; give a time, or forever".to_string());
        }
        Ok(TopicPlan {
            name: self.name,
            partitions: self.partitions,
            segment,
            hot,
            cold,
            format: choice("format", &self.format, [("json", Format::Json), ("bytes", Format::Bytes)])?,
            acks: choice("acks", &self.acks, [("fsync", Acks::Fsync), ("relaxed", Acks::Relaxed)])?,
            schema: None,
            sort: Vec::new(),
            hold: Hold::default(),
        })
    }
}

fn choice<T: Copy>(name: &str, text: &str, choices: [(&str, T); 2]) -> Result<T, String> {
    let found = choices.iter().find(|(choice, _)| *choice == text);
    let [(a, _), (b, _)] = choices;
    found.map(|(_, value)| *value).ok_or_else(|| format!("{name} is {text:?}: it is {a} or {b}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(body: serde_json::Value) -> Result<TopicPlan, String> {
        serde_json::from_value::<NewTopic>(body).map_err(|e| e.to_string())?.plan()
    }

    #[test]
    fn a_name_is_enough_for_a_topic() {
        let plan = plan(json!({ "name": "flights" })).unwrap();
        assert_eq!(plan.partitions, 4);
        assert_eq!(plan.segment, Duration::from_secs(3600));
        assert_eq!(plan.hot, Some(Duration::from_secs(86_400)));
        assert_eq!((plan.cold, plan.format, plan.acks), (Cold::Forever, Format::Json, Acks::Fsync));
    }

    #[test]
    fn what_makes_no_topic_is_said() {
        for (body, part) in [
            (json!({ "name": "a\"b" }), "try \"a_b\""),
            (json!({ "name": "a", "partitions": 0 }), "1 to 256"),
            (json!({ "name": "a", "segment": "10ms" }), "whole seconds"),
            (json!({ "name": "a", "segment": "soon" }), "not a duration"),
            (json!({ "name": "a", "retention": { "hot": "0s" } }), "keep nothing"),
            (json!({ "name": "a", "format": "xml" }), "json or bytes"),
            (json!({ "name": "a", "partition": 3 }), "unknown field"),
        ] {
            let error = plan(body.clone()).unwrap_err();
            assert!(error.contains(part), "{body}: {error}");
        }
    }

    #[test]
    fn times_are_shown_short() {
        let shown = [60, 90, 3600, 86_400, 7 * 86_400].map(|s| short(Duration::from_secs(s)));
        assert_eq!(shown, ["1m", "90s", "1h", "24h", "7d"]);
    }
}
