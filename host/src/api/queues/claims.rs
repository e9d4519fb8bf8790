//! Claims: how a worker that is no plugin gets jobs, keeps them and ends them.
//!
//! Guarantee: a claim is the fence. What is ended under one that ran out or was taken away is refused by id, and changed nothing.
//! Bound: 1,000 jobs a claim and a finish; a body of 8 MiB.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{bad, seconds, view};
use crate::api::ApiState;
use crate::api::body::MAX_APPEND;
use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::path::Named;
use crate::clock::rfc3339;
use crate::ids::QueueName;
use crate::queue::{Finished, Verdict};

/// Jobs of one request.
const JOBS_MAX: u32 = 1_000;
/// Characters of a worker's name and of an error.
const WORKER_MAX: usize = 200;
const ERROR_MAX: usize = 2_000;
const LEASES: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    max_jobs: Option<u32>,
    worker: Option<String>,
    lease_s: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Longer {
    lease_s: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ended {
    jobs: Vec<Run>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    id: u64,
    verdict: String,
    result: Option<Box<RawValue>>,
    error: Option<String>,
    after_s: Option<f64>,
}

pub async fn claim(
    State(state): State<ApiState>,
    Named(queue): Named<QueueName>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    let wanted: Wanted = state.bodies.json(&headers, body).await?;
    let most = wanted.max_jobs.unwrap_or(1);
    if !(1..=JOBS_MAX).contains(&most) {
        return Err(bad(format!("max_jobs is {most}, and goes from 1 to {JOBS_MAX}")));
    }
    let worker = wanted.worker.unwrap_or_else(|| "http".to_string());
    if worker.chars().count() > WORKER_MAX || worker.contains('\0') {
        return Err(bad(format!("the worker's name has at most {WORKER_MAX} characters, none of them zero")));
    }
    let jobs = state.queues().claim(&queue, most, &worker, lease(wanted.lease_s)?).await?;
    // As text: it needs more bits than many readers of JSON have.
    let claim = jobs.first().map(|job| job.claim.to_string());
    let views = jobs.iter().map(view::claimed).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "claim": claim, "jobs": views })))
}

pub async fn extend(
    State(state): State<ApiState>,
    Path((queue, claim)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    let longer: Longer = state.bodies.json(&headers, body).await?;
    let lease = lease(longer.lease_s)?;
    let claim = held(&state, &queue, &claim).await?;
    let expires_at = state.queues().extend_one(claim, lease).await?;
    Ok(Json(json!({ "claim": claim.to_string(), "expires_at": rfc3339(expires_at) })))
}

pub async fn finish(
    State(state): State<ApiState>,
    Path((queue, claim)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    let ended: Ended = state.bodies.json_within(&headers, body, MAX_APPEND).await?;
    if ended.jobs.is_empty() || ended.jobs.len() > JOBS_MAX as usize {
        return Err(bad(format!("{} jobs were given: 1 to {JOBS_MAX} are ended at once", ended.jobs.len())));
    }
    let number = number(&claim)?;
    let runs: Vec<Finished> =
        ended.jobs.into_iter().map(|run| run.finished(number)).collect::<Result<_, _>>()?;
    let ids: BTreeSet<u64> = runs.iter().map(|run| run.id).collect();
    if ids.len() != runs.len() {
        return Err(bad("a job is named twice"));
    }
    held(&state, &queue, &claim).await?;
    let accepted: BTreeSet<u64> = state.queues().finish(&runs).await?.into_iter().map(|(_, id)| id).collect();
    let refused: Vec<u64> = ids.difference(&accepted).copied().collect();
    Ok(Json(json!({ "accepted": accepted, "refused": refused })))
}

impl Run {
    fn finished(self, claim: i64) -> Result<Finished, ApiError> {
        let Self { id, verdict, result, error, after_s } = self;
        if i64::try_from(id).is_err() {
            return Err(bad(format!("{id} is not the id of a job")));
        }
        if error.as_ref().is_some_and(|error| error.contains('\0')) {
            return Err(bad(format!("the error of job {id} has a zero character")));
        }
        let error =
            || error.as_deref().unwrap_or("no reason was given").chars().take(ERROR_MAX).collect::<String>();
        let after = after_s.map(|after| seconds("after_s", after)).transpose()?;
        let verdict = match verdict.as_str() {
            "done" => Verdict::Done(result.map(|result| Bytes::copy_from_slice(result.get().as_bytes()))),
            "retry" => Verdict::Retry { error: error(), after },
            "snooze" => Verdict::Snooze(after.ok_or_else(|| bad(format!("job {id}: snooze needs after_s")))?),
            "reject" => Verdict::Reject(error()),
            "cancel" => Verdict::Cancel(error()),
            other => {
                return Err(bad(format!("job {id}: {other:?} is no verdict"))
                    .hint("it is done, retry, snooze, reject or cancel"));
            }
        };
        Ok(Finished { claim, id, verdict })
    }
}

fn lease(given: Option<f64>) -> Result<Option<Duration>, ApiError> {
    match given {
        Some(lease) if !LEASES.contains(&lease) => Err(bad(format!(
            "lease_s is {lease}, and goes from {} to {} seconds",
            LEASES.start(),
            LEASES.end()
        ))),
        lease => lease.map(|lease| seconds("lease_s", lease)).transpose(),
    }
}

/// The number of a claim of this queue.
async fn held(state: &ApiState, queue: &str, claim: &str) -> Result<i64, ApiError> {
    let queue = queue.parse::<QueueName>()?;
    let claim = number(claim)?;
    match state.queues().has_claim(&queue, claim).await? {
        true => Ok(claim),
        false => {
            Err(ApiError::conflict("claim_lost", format!("claim {claim} holds no job of queue \"{queue}\""))
                .hint("its lease ran out or its jobs have ended: give up what came of them, and claim anew"))
        }
    }
}

fn number(claim: &str) -> Result<i64, ApiError> {
    claim.parse::<i64>().ok().filter(|claim| *claim > 0).ok_or_else(|| {
        ApiError::bad_request("bad_claim", format!("{claim:?} is not a claim"))
            .hint("it is the text that POST /v1/queues/QUEUE/claim answers with")
    })
}
