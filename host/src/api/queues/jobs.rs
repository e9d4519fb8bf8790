//! Jobs: put, list, show, retry, cancel, drop.
//!
//! Bound: a body of 8 MiB and 10,000 jobs, 1 MiB each. Nothing is put when anything in the body is wrong.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{bad, seconds, view};
use crate::api::ApiState;
use crate::api::body::{self, MAX_APPEND};
use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::path::Named;
use crate::api::produce::MAX_RECORD;
use crate::api::produce::array::{HeaderValue, decode, header, present};
use crate::clock::parse_rfc3339;
use crate::ids::{Micros, QueueName};
use crate::queue::{ENQUEUE_MAX, JobState, NewJob, PAGE_MAX, Unique};

/// Jobs of a page that does not say how many.
const PAGE: u32 = 50;
/// Characters of the reason of a cancellation.
const REASON_MAX: usize = 2_000;

/// A job as it is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    text: Option<String>,
    base64: Option<String>,
    key: Option<String>,
    key_base64: Option<String>,
    priority: Option<i64>,
    run_at: Option<When>,
    unique: Option<String>,
    unique_for_s: Option<f64>,
    max_attempts: Option<i64>,
    #[serde(default)]
    headers: Vec<(String, HeaderValue)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum When {
    Micros(Micros),
    Text(String),
}

pub async fn enqueue(
    State(state): State<ApiState>,
    Named(queue): Named<QueueName>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    body::require_json(&headers)?;
    let body = state.bodies.read(&headers, body, MAX_APPEND).await?;
    let jobs = parse(&body.bytes)?;
    let enqueued = state.queues().enqueue(&queue, &jobs).await?;
    metrics::counter!("tidemill_http_jobs_in_total", "queue" => queue.to_string())
        .increment(enqueued.iter().filter(|job| job.created).count() as u64);
    let jobs: Vec<Value> =
        enqueued.iter().map(|job| json!({ "id": job.id, "created": job.created })).collect();
    Ok((StatusCode::CREATED, Json(json!({ "jobs": jobs }))).into_response())
}

/// One object, or an array of them.
fn parse(body: &[u8]) -> Result<Vec<NewJob>, ApiError> {
    let wrong = |error: &dyn std::fmt::Display| {
        ApiError::bad_request("bad_json", format!("the body is neither a job nor an array of jobs: {error}"))
            .hint("send {\"payload\":{…}}, perhaps with key, priority, run_at, unique, unique_for_s, max_attempts, headers")
    };
    let text = std::str::from_utf8(body).map_err(|error| wrong(&error))?;
    let elements: Vec<&RawValue> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(text).map_err(|error| wrong(&error))?,
        false => vec![serde_json::from_str(text).map_err(|error| wrong(&error))?],
    };
    match elements.len() {
        0 => Err(bad("the body has no jobs").hint("send at least one")),
        1..=ENQUEUE_MAX => {
            elements.iter().enumerate().map(|(at, element)| read(element, at as u64 + 1)).collect()
        }
        count => Err(ApiError::too_large(
            "too_many_jobs",
            format!("{count} jobs are too many at once: {ENQUEUE_MAX} are allowed"),
        )
        .hint("send smaller batches")),
    }
}

fn read(element: &RawValue, number: u64) -> Result<NewJob, ApiError> {
    let sent = serde_json::from_str::<Sent<'_>>(element.get()).map_err(|error| error.to_string());
    let job = sent.and_then(Sent::job).map_err(|reason| {
        bad(format!("job {number}: {reason}"))
            .hint(
                "a job has one of payload, text and base64, and may have key or key_base64, priority, run_at, unique, \
                 unique_for_s, max_attempts and headers; nothing of the body was put",
            )
            .line(number)
    })?;
    if job.payload.len() > MAX_RECORD {
        let size = job.payload.len();
        return Err(ApiError::too_large(
            "job_too_large",
            format!("job {number} has {size} bytes; a job has at most {MAX_RECORD}"),
        )
        .hint("store large things elsewhere and send where they are")
        .line(number));
    }
    Ok(job)
}

impl Sent<'_> {
    fn job(self) -> Result<NewJob, String> {
        let payload = match (self.payload, self.text, self.base64) {
            (Some(value), None, None) => Bytes::copy_from_slice(value.get().as_bytes()),
            (None, Some(text), None) => Bytes::from(text),
            (None, None, Some(text)) => decode("base64", &text)?,
            (None, None, None) => return Err("there is no payload, text or base64".to_string()),
            _ => return Err("there is more than one of payload, text and base64".to_string()),
        };
        let key = match (self.key, self.key_base64) {
            (Some(key), None) => Some(Bytes::from(key)),
            (None, Some(text)) => Some(decode("key_base64", &text)?),
            (None, None) => None,
            (Some(_), Some(_)) => return Err("there is both a key and a key_base64".to_string()),
        };
        let unique = match (self.unique, self.unique_for_s) {
            (None, None) => None,
            (None, Some(_)) => return Err("unique_for_s needs unique".to_string()),
            (Some(key), _) if key.is_empty() || key.contains('\0') => {
                return Err("unique is some text without zero characters".to_string());
            }
            (Some(key), lasting) => {
                let lasting = lasting.map(|lasting| seconds("unique_for_s", lasting)).transpose();
                Some(Unique { key, lasting: lasting.map_err(|error| error.message)? })
            }
        };
        Ok(NewJob {
            payload,
            key,
            headers: self.headers.into_iter().map(header).collect::<Result<_, _>>()?,
            priority: self.priority.map(|priority| within("priority", priority, 4)).transpose()?,
            run_at: self.run_at.map(When::micros).transpose()?,
            unique,
            max_attempts: self
                .max_attempts
                .map(|attempts| within("max_attempts", attempts, 1000))
                .transpose()?,
        })
    }
}

impl When {
    fn micros(self) -> Result<Micros, String> {
        match self {
            Self::Micros(micros) => Ok(micros),
            Self::Text(text) => parse_rfc3339(&text).ok_or_else(|| {
                format!("run_at is {text:?}, and should be a time such as 2026-01-31T08:00:00Z, or microseconds since 1970")
            }),
        }
    }
}

fn within<T: TryFrom<i64>>(name: &str, number: i64, most: i64) -> Result<T, String> {
    let within = (1..=most).contains(&number).then_some(number);
    within
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("{name} is {number}, and goes from 1 to {most}"))
}

pub async fn list(
    State(state): State<ApiState>,
    Named(queue): Named<QueueName>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let params = Params::read(&uri, &["state", "limit", "before"])?;
    let wanted = params.text("state").unwrap_or(JobState::Waiting.as_str());
    let job_state = JobState::parse(wanted).ok_or_else(|| {
        let states = JobState::ALL.map(JobState::as_str).join(", ");
        ApiError::bad_request("bad_parameter", format!("state={wanted} cannot be used"))
            .hint(format!("it is one of {states}"))
    })?;
    let limit = params.number("limit", 1, u64::from(PAGE_MAX))?.map_or(PAGE, |limit| limit as u32);
    let before = params.number("before", 0, i64::MAX as u64)?;
    let jobs = state.queues().glance(&queue, job_state, limit, before).await?;
    let next = jobs.last().filter(|_| jobs.len() == limit as usize).map(|glance| glance.job.id);
    let views = jobs.iter().map(view::glance).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "jobs": views, "next": next })))
}

pub async fn show(
    State(state): State<ApiState>,
    Path((queue, id)): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<Box<RawValue>>, ApiError> {
    Params::read(&uri, &[])?;
    let (queue, id) = named(&queue, &id)?;
    match state.queues().find(&queue, id).await? {
        Some(job) => Ok(Json(view::whole(&job)?)),
        None => Err(no_job(&queue, id)),
    }
}

pub async fn retry(
    State(state): State<ApiState>,
    Path((queue, id)): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    let (queue, id) = named(&queue, &id)?;
    state.queues().retry(&queue, id).await?;
    Ok(Json(json!({ "id": id })))
}

pub async fn cancel(
    State(state): State<ApiState>,
    Path((queue, id)): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let params = Params::read(&uri, &["reason"])?;
    let (queue, id) = named(&queue, &id)?;
    let reason = params.text("reason");
    if reason.is_some_and(|reason| reason.chars().count() > REASON_MAX || reason.contains('\0')) {
        let message = format!("the reason has more than {REASON_MAX} characters, or a zero character");
        return Err(ApiError::bad_request("bad_parameter", message));
    }
    let was = state.queues().cancel(&queue, id, reason).await?;
    Ok(Json(json!({ "id": id, "was": was })))
}

pub async fn remove(
    State(state): State<ApiState>,
    Path((queue, id)): Path<(String, String)>,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    Params::read(&uri, &[])?;
    let (queue, id) = named(&queue, &id)?;
    if state.queues().drop_dead(&queue, &[id]).await? > 0 {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(match state.queues().find(&queue, id).await? {
        Some(job) => {
            let message = format!(
                "job {id} of queue \"{queue}\" is {}, and only dead ones are dropped",
                job.state.as_str()
            );
            ApiError::conflict("job_impossible", message).hint("cancel a job that waits or runs")
        }
        None => no_job(&queue, id),
    })
}

fn named(queue: &str, id: &str) -> Result<(QueueName, u64), ApiError> {
    let queue = queue.parse::<QueueName>()?;
    let number = id.parse::<u64>().ok().filter(|id| i64::try_from(*id).is_ok());
    let id = number.ok_or_else(|| {
        ApiError::bad_request("bad_id", format!("{id:?} is not the id of a job"))
            .hint("it is a number; GET /v1/queues/QUEUE/jobs lists them")
    })?;
    Ok((queue, id))
}

fn no_job(queue: &QueueName, id: u64) -> ApiError {
    ApiError::not_found("job_not_found", format!("queue \"{queue}\" knows no job {id}"))
        .hint("it may have ended longer ago than the queue keeps jobs")
}
