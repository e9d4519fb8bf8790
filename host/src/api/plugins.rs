//! Components: which are stored, which a stage runs, giving a stage another one, and running one beside it.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ApiState;
use super::body::{ReadBody, discard, media_type, unsupported};
use super::error::ApiError;
use super::params::Params;
use crate::config::StageKey;
use crate::ids::{PipelineName, StageName};
use crate::pipeline::reload::label;
use crate::pipeline::status::Candidate;
use crate::plugin::MAX_COMPONENT_BYTES;
use crate::registry::shadows::Shadow;
use crate::registry::{Active, Past};

const WASM: &str = "application/wasm";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    /// The first digits of a digest; None is the version before.
    to: Option<String>,
}

/// What a stage runs, was offered and ran.
#[derive(Serialize)]
pub struct StagePlugin {
    #[serde(flatten)]
    active: Active,
    candidate: Option<Candidate>,
    history: Vec<Past>,
}

pub async fn list(State(state): State<ApiState>, uri: Uri) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    Ok(Json(json!({ "plugins": state.runtime.registry().list().await? })))
}

pub async fn describe(
    State(state): State<ApiState>,
    Path(names): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<StagePlugin>, ApiError> {
    Params::read(&uri, &[])?;
    let key = key(names)?;
    let registry = state.runtime.registry();
    let Some(active) = registry.of(&key.pipeline, &key.stage).await? else {
        return Err(no_stage(&label(&key)));
    };
    let history = registry.history(&key.pipeline, &key.stage).await?;
    Ok(Json(StagePlugin { active, candidate: state.runtime.candidate(&key), history }))
}

pub async fn push(
    State(state): State<ApiState>,
    Path(names): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Active>, ApiError> {
    Params::read(&uri, &[])?;
    let key = key(names)?;
    let body = component(&state, &headers, body).await?;
    Ok(Json(state.runtime.push(&key, body.bytes.clone()).await?))
}

pub async fn roll_back(
    State(state): State<ApiState>,
    Path(names): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Active>, ApiError> {
    Params::read(&uri, &[])?;
    let key = key(names)?;
    let rollback: Rollback = state.bodies.json(&headers, body).await?;
    Ok(Json(state.runtime.roll_back(&key, rollback.to.as_deref()).await?))
}

pub async fn shadows(State(state): State<ApiState>, uri: Uri) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    Ok(Json(json!({ "shadows": state.runtime.registry().shadows().await? })))
}

pub async fn start_shadow(
    State(state): State<ApiState>,
    Path(names): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Shadow>, ApiError> {
    Params::read(&uri, &[])?;
    let key = key(names)?;
    let body = component(&state, &headers, body).await?;
    Ok(Json(state.runtime.start_shadow(&key, body.bytes.clone()).await?))
}

pub async fn end_shadow(
    State(state): State<ApiState>,
    Path(names): Path<(String, String)>,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    Params::read(&uri, &[])?;
    state.runtime.registry().end_shadow(&label(&key(names)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn promote(
    State(state): State<ApiState>,
    Path(names): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<Active>, ApiError> {
    Params::read(&uri, &[])?;
    Ok(Json(state.runtime.promote(&key(names)?).await?))
}

/// Reads a body that is a component.
async fn component(state: &ApiState, headers: &HeaderMap, body: Body) -> Result<ReadBody, ApiError> {
    let media_type = media_type(headers);
    if media_type.as_deref() != Some(WASM) {
        discard(headers, body).await;
        return Err(unsupported(media_type.as_deref(), WASM));
    }
    state.bodies.read(headers, body, MAX_COMPONENT_BYTES).await
}

fn key((pipeline, stage): (String, String)) -> Result<StageKey, ApiError> {
    Ok(StageKey { pipeline: PipelineName::parse(&pipeline)?, stage: StageName::parse(&stage)? })
}

/// 404 for a stage.
pub fn no_stage(label: &str) -> ApiError {
    ApiError::not_found("stage_not_found", format!("there is no stage {label}"))
        .hint("GET /v1/pipelines lists them")
}
