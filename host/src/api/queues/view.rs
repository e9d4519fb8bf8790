//! Jobs as JSON. Key, headers and payload are as those of records.

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::encode::{Payload, RecordWriter};
use crate::api::error::ApiError;
use crate::clock::rfc3339;
use crate::queue::remote::{GLANCE, Glance};
use crate::queue::{ClaimedJob, Job, JobState};
use crate::record::Header;

/// What there is to know of a job beside what it carries.
#[derive(Serialize)]
struct Facts<'a> {
    id: u64,
    state: JobState,
    priority: u8,
    attempt: u32,
    max_attempts: u32,
    unique_key: Option<&'a str>,
    enqueued_at: String,
    run_at: Option<String>,
    claimed_at: Option<String>,
    finished_at: Option<String>,
    worker: Option<&'a str>,
    error: Option<&'a str>,
    /// Of the whole payload.
    bytes: u64,
}

/// The same for a worker.
#[derive(Serialize)]
struct ClaimedFacts {
    id: u64,
    attempt: u32,
    max_attempts: u32,
    priority: u8,
    enqueued_at: String,
}

/// One job, whole.
pub fn whole(job: &Job) -> Result<Box<RawValue>, ApiError> {
    let size = job.payload.len() as u64;
    let result = job.result.as_deref().map(Carried::Whole);
    written(&facts(job, size), job, Carried::Whole(&job.payload), result)
}

/// One job of a list: what is longer than [`GLANCE`] is a `preview`.
pub fn glance(glance: &Glance) -> Result<Box<RawValue>, ApiError> {
    let Glance { job, bytes, result_bytes } = glance;
    let carried =
        |bytes, size| if size > GLANCE as u64 { Carried::Cut(bytes) } else { Carried::Whole(bytes) };
    let result = job.result.as_deref().map(|result| carried(result, *result_bytes));
    written(&facts(job, *bytes), job, carried(&job.payload, *bytes), result)
}

pub fn claimed(job: &ClaimedJob) -> Result<Box<RawValue>, ApiError> {
    let facts = ClaimedFacts {
        id: job.id,
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        priority: job.priority,
        enqueued_at: rfc3339(job.enqueued_at),
    };
    let mut out = opened(&facts)?;
    content(&mut out, job.key.as_deref(), &job.headers, Carried::Whole(&job.payload));
    finish(out)
}

/// Bytes that somebody gave us.
#[derive(Clone, Copy)]
enum Carried<'a> {
    Whole(&'a [u8]),
    /// Their beginning.
    Cut(&'a [u8]),
}

fn facts(job: &Job, bytes: u64) -> Facts<'_> {
    Facts {
        id: job.id,
        state: job.state,
        priority: job.priority,
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        unique_key: job.unique_key.as_deref(),
        enqueued_at: rfc3339(job.enqueued_at),
        run_at: job.run_at.map(rfc3339),
        claimed_at: job.claimed_at.map(rfc3339),
        finished_at: job.finished_at.map(rfc3339),
        worker: job.worker.as_deref(),
        error: job.error.as_deref(),
        bytes,
    }
}

fn written(
    facts: &Facts<'_>,
    job: &Job,
    payload: Carried<'_>,
    result: Option<Carried<'_>>,
) -> Result<Box<RawValue>, ApiError> {
    let mut out = opened(facts)?;
    content(&mut out, job.key.as_deref(), &job.headers, payload);
    match result {
        None => out.text(",\"result\":null"),
        Some(result) => {
            out.text(",\"result\":{");
            // Members begin with a comma, so that they can follow others.
            let mut inner = RecordWriter::new(Payload::Embedded);
            carry(&mut inner, result);
            out.out.extend_from_slice(inner.take().get(1..).unwrap_or_default());
            out.text("}");
        }
    }
    finish(out)
}

/// The facts as an object that is not closed.
fn opened(facts: &impl Serialize) -> Result<RecordWriter, ApiError> {
    let mut out = RecordWriter::new(Payload::Embedded);
    out.out = serde_json::to_vec(facts).map_err(internal)?;
    out.out.pop();
    Ok(out)
}

fn content(out: &mut RecordWriter, key: Option<&[u8]>, headers: &[Header], payload: Carried<'_>) {
    out.key(key);
    out.headers(headers);
    carry(out, payload);
}

fn carry(out: &mut RecordWriter, carried: Carried<'_>) {
    match carried {
        Carried::Whole(bytes) => out.payload(bytes),
        Carried::Cut(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => preview(out, text),
            // Cut within a character.
            Err(error) if error.error_len().is_none() => {
                preview(out, &String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default()));
            }
            Err(_) => {
                out.text(",\"preview_base64\":");
                out.json(&STANDARD.encode(bytes));
            }
        },
    }
}

fn preview(out: &mut RecordWriter, text: &str) {
    out.text(",\"preview\":");
    out.json(text);
}

fn finish(mut out: RecordWriter) -> Result<Box<RawValue>, ApiError> {
    out.text("}");
    serde_json::from_slice(&out.take()).map_err(internal)
}

fn internal(error: serde_json::Error) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
}
