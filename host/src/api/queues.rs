//! Queues: list, show, pause, resume. Their jobs are in [`jobs`], the claims of workers in [`claims`].

pub mod claims;
pub mod jobs;
mod view;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use serde_json::{Value, json};

use super::ApiState;
use super::error::ApiError;
use super::params::Params;
use super::path::Named;
use crate::clock::rfc3339;
use crate::ids::QueueName;
use crate::queue::crons::CronState;
use crate::queue::remote::{QueueInfo, Settings};

/// A queue as answers show it.
#[derive(Clone, Debug, Serialize)]
pub struct QueueView {
    name: String,
    paused: bool,
    /// Jobs that wait for a worker.
    waiting: u64,
    scheduled: u64,
    blocked: u64,
    running: u64,
    dead: u64,
    oldest_waiting_at: Option<String>,
    /// How long the job that is next has been waiting.
    oldest_waiting_s: Option<f64>,
    #[serde(flatten)]
    settings: Settings,
    created_at: String,
    crons: Vec<CronView>,
}

#[derive(Clone, Debug, Serialize)]
struct CronView {
    name: String,
    schedule: String,
    next_at: String,
    fired_at: Option<String>,
    /// The job it made last.
    job: Option<u64>,
}

impl QueueView {
    fn new(info: QueueInfo, crons: &[CronState]) -> Self {
        let QueueInfo { count, oldest_waiting, settings, created_at } = info;
        let own = crons.iter().filter(|cron| cron.queue == count.queue);
        Self {
            paused: count.paused,
            waiting: count.waiting,
            scheduled: count.scheduled,
            blocked: count.blocked,
            running: count.running,
            dead: count.dead,
            oldest_waiting_at: count.oldest_waiting_at.map(rfc3339),
            oldest_waiting_s: oldest_waiting.map(|seconds| (seconds * 1000.0).round() / 1000.0),
            settings,
            created_at: rfc3339(created_at),
            crons: own.map(CronView::new).collect(),
            name: count.queue,
        }
    }
}

impl CronView {
    fn new(cron: &CronState) -> Self {
        Self {
            name: cron.name.clone(),
            schedule: cron.schedule.clone(),
            next_at: rfc3339(cron.next_at),
            fired_at: cron.fired_at.map(rfc3339),
            job: cron.job,
        }
    }
}

/// All queues, by name.
pub async fn views(state: &ApiState) -> Result<Vec<QueueView>, ApiError> {
    let queues = state.queues();
    let (infos, crons) = tokio::try_join!(queues.infos(None), queues.crons(None))?;
    Ok(infos.into_iter().map(|info| QueueView::new(info, &crons)).collect())
}

pub async fn list(State(state): State<ApiState>, uri: Uri) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    Ok(Json(json!({ "queues": views(&state).await? })))
}

pub async fn describe(
    State(state): State<ApiState>,
    Named(queue): Named<QueueName>,
    uri: Uri,
) -> Result<Json<QueueView>, ApiError> {
    Params::read(&uri, &[])?;
    let queues = state.queues();
    let (infos, crons) = tokio::try_join!(queues.infos(Some(&queue)), queues.crons(Some(&queue)))?;
    let view = infos.into_iter().next().map(|info| QueueView::new(info, &crons));
    view.map(Json).ok_or_else(|| no_queue(&queue))
}

pub async fn pause(
    State(state): State<ApiState>,
    Named(queue): Named<QueueName>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    set_paused(&state, &queue, &uri, true).await
}

pub async fn resume(
    State(state): State<ApiState>,
    Named(queue): Named<QueueName>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    set_paused(&state, &queue, &uri, false).await
}

async fn set_paused(
    state: &ApiState,
    queue: &QueueName,
    uri: &Uri,
    paused: bool,
) -> Result<Json<Value>, ApiError> {
    Params::read(uri, &[])?;
    state.queues().pause(queue, paused).await?;
    Ok(Json(json!({ "queue": queue, "paused": paused })))
}

fn no_queue(queue: &QueueName) -> ApiError {
    ApiError::not_found("queue_not_found", format!("there is no queue \"{queue}\"")).hint(
        "GET /v1/queues lists them; [queues.NAME] in a pipeline file or tidemill.create_queue makes one",
    )
}

/// A time that is given in seconds.
fn seconds(name: &str, seconds: f64) -> Result<std::time::Duration, ApiError> {
    /// Ten years: more is a mistake of units.
    const LONGEST: f64 = 10.0 * 366.0 * 86_400.0;
    match (0.0..=LONGEST).contains(&seconds) {
        true => Ok(std::time::Duration::from_secs_f64(seconds)),
        false => Err(bad(format!("{name} is {seconds}, and goes from 0 to {LONGEST} seconds"))),
    }
}

/// A job, or what is said of one, that cannot be taken.
fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, "bad_job", message)
}
