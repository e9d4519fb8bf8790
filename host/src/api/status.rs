//! How the host is: alive, ready, and everything on one page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::error::ApiError;
use super::groups::GroupView;
use super::params::Params;
use super::queues::{self, QueueView};
use super::topics::{self, TopicView};
use super::{ApiState, metrics};
use crate::clock::rfc3339;
use crate::ids::HostId;
use crate::letters::LetterCount;
use crate::log::epochs::ServerFacts;
use crate::log::hosts::{HostView, Hosts};
use crate::log::offsets::GroupLag;
use crate::pipeline::status::{FilesError, PipelineStatus};
use crate::tables::TableInfo;

/// How long a status serves everyone who asks: sizes are measured in Postgres, and many pages may be open.
const FRESH: Duration = Duration::from_millis(500);
const POSTGRES_PATIENCE: Duration = Duration::from_secs(2);

/// The status that was last made. Who asks while it is being made waits for it.
#[derive(Clone, Debug, Default)]
pub struct StatusCache(Arc<Mutex<Option<(Instant, Bytes)>>>);

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    host: &'a HostId,
    started_at: String,
    uptime_seconds: f64,
    url: &'a str,
    postgres_url: &'a str,
    data_dir: String,
    durability: Durability<'a>,
    postgres_version: &'a str,
    server: ServerFacts,
    memory_bytes: Option<u64>,
    pipelines: Vec<PipelineStatus>,
    pipeline_files: Option<FilesError>,
    topics: Vec<TopicView>,
    groups: Vec<GroupView>,
    dead_letters: Vec<LetterCount>,
    queues: Vec<QueueView>,
    tables: Vec<TableInfo>,
    hosts: Vec<HostView>,
}

#[derive(Serialize)]
struct Durability<'a> {
    durable: bool,
    fsync: bool,
    full_page_writes: bool,
    synchronous_commit: &'a str,
}

pub async fn health(uri: Uri) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    Ok(Json(json!({ "status": "ok" })))
}

pub async fn readiness(State(state): State<ApiState>, uri: Uri) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    let asked =
        tokio::time::timeout(POSTGRES_PATIENCE, sqlx::query("SELECT 1").execute(state.log.pool())).await;
    let trouble = match asked {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_elapsed) => Some("it does not answer".to_string()),
    };
    if let Some(trouble) = trouble {
        return Err(ApiError::unavailable(
            "postgres_unavailable",
            format!("postgres cannot be reached: {trouble}"),
        )
        .hint("see that the server runs and has connections left"));
    }
    if !state.ready.is_set() {
        return Err(
            ApiError::unavailable("starting", "pipelines are still starting").hint("ask again in a moment")
        );
    }
    Ok(Json(json!({ "status": "ready" })))
}

pub async fn status(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    let mut cached = state.status.0.lock().await;
    let fresh = cached.as_ref().filter(|(made, _)| made.elapsed() < FRESH).map(|(_, bytes)| bytes.clone());
    let bytes = match fresh {
        Some(bytes) => bytes,
        None => {
            let bytes = make(&state).await?;
            *cached = Some((Instant::now(), bytes.clone()));
            bytes
        }
    };
    Ok(([(CONTENT_TYPE, "application/json")], bytes).into_response())
}

async fn make(state: &ApiState) -> Result<Bytes, ApiError> {
    let hosts = Hosts::new(state.log.pool().clone());
    let (topics, lags, dead_letters, queues, tables, hosts, server) = tokio::try_join!(
        topics::views(state),
        async { state.groups.list().await.map_err(ApiError::from) },
        async { state.letters().counts().await.map_err(ApiError::from) },
        queues::views(state),
        async { state.tables.list().await.map_err(ApiError::from) },
        async { hosts.list().await.map_err(ApiError::from) },
        async { state.log.server_facts().await.map_err(ApiError::from) },
    )?;
    let settings = &state.settings;
    let durability = &settings.durability;
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        host: &settings.host,
        started_at: rfc3339(state.started_at),
        uptime_seconds: (state.started.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        url: &settings.url,
        postgres_url: &settings.postgres_url,
        data_dir: settings.data_dir.display().to_string(),
        durability: Durability {
            durable: durability.is_durable(),
            fsync: durability.fsync,
            full_page_writes: durability.full_page_writes,
            synchronous_commit: &durability.synchronous_commit,
        },
        postgres_version: &durability.version,
        server,
        memory_bytes: metrics::resident_bytes(),
        pipelines: with_lag(state.runtime.status(), &lags),
        pipeline_files: state.runtime.files_error(),
        topics,
        groups: lags.into_iter().map(|lag| GroupView::new(state, lag)).collect(),
        dead_letters,
        queues,
        tables,
        hosts,
    };
    serde_json::to_vec(&status).map(Bytes::from).map_err(|error| {
        ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
    })
}

/// What a stage is behind is known by its group.
fn with_lag(mut pipelines: Vec<PipelineStatus>, lags: &[GroupLag]) -> Vec<PipelineStatus> {
    for stage in pipelines.iter_mut().flat_map(|pipeline| &mut pipeline.stages) {
        let of_stage = |lag: &&GroupLag| {
            Some(&lag.group) == stage.group.as_ref() && Some(&lag.topic) == stage.from.as_ref()
        };
        stage.lag = lags.iter().find(of_stage).map(|lag| lag.lag);
    }
    pipelines
}

async fn pipelines_now(state: &ApiState) -> Result<Vec<PipelineStatus>, ApiError> {
    Ok(with_lag(state.runtime.status(), &state.groups.list().await?))
}

pub async fn pipelines(State(state): State<ApiState>, uri: Uri) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    Ok(Json(json!({ "pipelines": pipelines_now(&state).await? })))
}

pub async fn pipeline(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Json<PipelineStatus>, ApiError> {
    Params::read(&uri, &[])?;
    let pipelines = pipelines_now(&state).await?;
    let found = pipelines.into_iter().find(|pipeline| pipeline.name == name);
    found.map(Json).ok_or_else(|| {
        ApiError::not_found("pipeline_not_found", format!("no pipeline {name:?} runs here"))
            .hint("GET /v1/pipelines lists them")
    })
}
