//! The segments of a topic on their time line: what is in Postgres, what in the bucket, and what each takes.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use serde_json::{Value, json};

use super::ApiState;
use super::error::ApiError;
use super::params::Params;
use super::path::Named;
use crate::archive::picture::{self, SegmentInfo};
use crate::clock::rfc3339;
use crate::ids::TopicName;

const DEFAULT_MAX: u64 = 500;
const MAX: u64 = 10_000;

#[derive(Serialize)]
struct SegmentView {
    /// From this time of appending, up to the other.
    lower: String,
    upper: String,
    state: String,
    records: Option<i64>,
    hot_bytes: i64,
    cold: Option<ColdPart>,
    error: Option<String>,
}

#[derive(Serialize)]
struct ColdPart {
    objects: i64,
    records: i64,
    bytes: i64,
}

impl From<SegmentInfo> for SegmentView {
    fn from(info: SegmentInfo) -> Self {
        let cold = ColdPart { objects: info.objects, records: info.cold_records, bytes: info.cold_bytes };
        Self {
            lower: rfc3339(info.lower),
            upper: rfc3339(info.upper),
            state: info.state,
            records: info.records,
            hot_bytes: info.hot_bytes,
            cold: (info.objects > 0).then_some(cold),
            error: info.error,
        }
    }
}

pub async fn list(
    State(state): State<ApiState>,
    Named(name): Named<TopicName>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let max = Params::read(&uri, &["max"])?.number("max", 1, MAX)?.unwrap_or(DEFAULT_MAX);
    let topic = state.log.topic(name.as_str()).await?;
    let most = u32::try_from(max).unwrap_or(u32::MAX);
    let segments =
        picture::segments(state.log.pool(), topic.id, most).await.map_err(crate::log::LogError::from)?;
    let segments: Vec<SegmentView> = segments.into_iter().map(SegmentView::from).collect();
    Ok(Json(json!({ "topic": topic.name, "segments": segments })))
}
