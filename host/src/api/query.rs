//! `POST /v1/query`: one SELECT over topics and the archive.
//!
//! A client that goes away ends its query: the server drops the request's future then, and with it the child process.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_util::io::ReaderStream;

use super::ApiState;
use super::error::ApiError;
use super::params::Params;
use crate::query::protocol::AnswerColumn;
use crate::query::{Answer, AnswerFormat, Body as AnswerBody, Query, QueryError};

/// A file is sent in pieces of this size.
const PIECE: usize = 64 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    sql: String,
    #[serde(default)]
    format: AnswerFormat,
    max_rows: Option<u64>,
    timeout_seconds: Option<f64>,
}

/// The answer in JSON.
#[derive(Debug, Serialize)]
struct Rows<'a> {
    columns: &'a [AnswerColumn],
    rows: &'a RawValue,
    row_count: u64,
    truncated: bool,
    elapsed_ms: f64,
    rows_read: u64,
    bytes_read: u64,
    files_read: u64,
}

pub async fn run(
    State(state): State<ApiState>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    let question: Question = state.bodies.json(&headers, body).await?;
    let timeout = question.timeout_seconds.map(timeout).transpose()?;
    let query = Query { sql: question.sql, format: question.format, max_rows: question.max_rows, timeout };
    let running = state.queries.run(query.clone());
    let answer = tokio::select! {
        answer = running => answer.map_err(|error| refusal(error, &query.sql))?,
        () = state.shutdown.cancelled() => return Err(ApiError::unavailable("stopping", "the host stops")),
    };
    Ok(respond(answer, query.format))
}

fn timeout(seconds: f64) -> Result<Duration, ApiError> {
    let timeout =
        Duration::try_from_secs_f64(seconds).ok().filter(|timeout| *timeout >= Duration::from_millis(1));
    timeout.ok_or_else(|| {
        ApiError::bad_request("bad_parameter", format!("timeout_seconds = {seconds} is not a time"))
            .hint("it is a number of seconds, such as 10")
    })
}

fn respond(answer: Answer, format: AnswerFormat) -> Response {
    match answer.body {
        AnswerBody::Rows(ref rows) => Json(Rows {
            columns: &answer.columns,
            rows,
            row_count: answer.rows,
            truncated: answer.truncated,
            elapsed_ms: milliseconds(answer.elapsed),
            rows_read: answer.rows_read,
            bytes_read: answer.bytes_read,
            files_read: answer.files_read,
        })
        .into_response(),
        AnswerBody::File(file, size) => {
            let (kind, name) = match format {
                AnswerFormat::Parquet => {
                    ("application/vnd.apache.parquet", "attachment; filename=\"query.parquet\"")
                }
                _ => ("text/csv; charset=utf-8; header=present", "attachment; filename=\"query.csv\""),
            };
            let body = Body::from_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE));
            let described = [(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, name), (CACHE_CONTROL, "no-store")];
            let told = [
                ("tidemill-row-count", answer.rows.to_string()),
                ("tidemill-truncated", answer.truncated.to_string()),
                ("tidemill-elapsed-ms", milliseconds(answer.elapsed).to_string()),
                ("tidemill-rows-read", answer.rows_read.to_string()),
                ("tidemill-bytes-read", answer.bytes_read.to_string()),
                ("tidemill-files-read", answer.files_read.to_string()),
            ];
            (described, told, [(CONTENT_LENGTH, size.to_string())], body).into_response()
        }
    }
}

/// To a tenth.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

fn refusal(error: QueryError, sql: &str) -> ApiError {
    let message = error.to_string();
    match error {
        QueryError::Statement { position: Some(position), .. } => {
            let (line, column) = place(sql, position);
            let message = format!("{message} (line {line}, column {column})");
            ApiError {
                position: Some(position as u64),
                ..ApiError::bad_request("query_failed", message).line(line)
            }
        }
        QueryError::Statement { position: None, .. } => ApiError::bad_request("query_failed", message),
        QueryError::Forbidden(_) => ApiError::forbidden("query_forbidden", message)
            .hint("a query reads topics by their names, and archive/**/*.parquet"),
        QueryError::Deadline(_) | QueryError::Processor(_) => {
            too_much("query_timeout", message).hint("read less: fewer columns, a range of _ts, or one topic")
        }
        QueryError::Memory(_) => {
            too_much("query_out_of_memory", message).hint("group or sort by less, or select fewer rows first")
        }
        QueryError::Busy { .. } => ApiError::new(StatusCode::TOO_MANY_REQUESTS, "query_busy", message)
            .retry_after(1)
            .hint("try again in a moment"),
        QueryError::NoWorker(_) => ApiError::unavailable("query_unavailable", message)
            .hint("install tidemill-query beside tidemill (`cargo build` makes both)"),
        QueryError::Hot(_) | QueryError::Archive(_) => {
            ApiError::unavailable("query_unavailable", message).hint("try again in a moment")
        }
        QueryError::Log(error) => error.into(),
        QueryError::Process(_) => {
            tracing::error!(%message, "a query failed");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "query_crashed", message)
                .hint("the log of the host may say more")
        }
    }
}

fn too_much(code: &'static str, message: String) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
}

/// Line and column of a byte, from 1.
fn place(sql: &str, position: usize) -> (u64, u64) {
    let before = sql.get(..position).unwrap_or(sql);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line as u64, column as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_characters() {
        assert_eq!(place("SELECT 1", 0), (1, 1));
        assert_eq!(place("SELECT\n  'é', x", 15), (2, 8));
        assert_eq!(place("SELECT", 99), (1, 7));
    }
}
