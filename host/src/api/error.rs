//! The one shape of an error answer: `{"error":{"code","message","hint"}}` and a fitting status.

use std::borrow::Cow;
use std::fmt;

use axum::Json;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::ids::{NameError, Offset, Partition};
use crate::letters::LetterError;
use crate::log::{AppendError, FetchError, LogError};
use crate::pipeline::reload::PushError;
use crate::queue::QueueError;
use crate::registry::RegistryError;
use crate::replay::ReplayError;
use crate::tables::TableError;

/// An error answer. The code is for programs, the message says what happened, the hint what to do.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    pub hint: Option<Cow<'static, str>>,
    /// The line of the body that is at fault, from 1.
    pub line: Option<u64>,
    /// The byte of a statement that is at fault, from 0.
    pub position: Option<u64>,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
    /// The rest of the request was not read, so the connection cannot carry another one.
    pub close: bool,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hint: None,
            line: None,
            position: None,
            retry_after: None,
            close: false,
        }
    }

    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    pub fn too_large(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, code, message)
    }

    /// The host is busy or cannot reach what it needs; the same request may go through later.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        error.retry_after = Some(1);
        error
    }

    pub fn out_of_range(partition: Partition, offset: Offset, start: Offset, end: Offset) -> Self {
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "offset_out_of_range",
            format!(
                "offset {offset} of partition {partition} is out of range: the log holds {start} up to {end}"
            ),
        )
        .hint("read from earliest or latest")
    }

    fn no_postgres(message: String) -> Self {
        Self::unavailable("postgres_unavailable", message).hint("try again in a moment; see /readyz")
    }

    /// Something that should not happen: the log of the host gets it, and the caller, who runs the host, in short.
    fn postgres(error: &sqlx::Error) -> Self {
        tracing::error!(%error, "a request failed in Postgres");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("postgres: {error}"))
            .hint("the log of the host may say more")
    }

    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// The body, also sent as an event where an answer has already begun.
    pub fn body(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".to_string(), self.code.into());
        error.insert("message".to_string(), self.message.clone().into());
        if let Some(hint) = &self.hint {
            error.insert("hint".to_string(), hint.as_ref().into());
        }
        if let Some(line) = self.line {
            error.insert("line".to_string(), line.into());
        }
        if let Some(position) = self.position {
            error.insert("position".to_string(), position.into());
        }
        json!({ "error": error })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::bad_request("bad_name", error.to_string())
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        let message = error.to_string();
        match error {
            LogError::TopicNotFound { name, near } => {
                let hint = match near.is_empty() {
                    true => "GET /v1/topics lists them; `tidemill topic create` makes one".to_string(),
                    false => format!("did you mean {}?", near.join(" or ")),
                };
                Self::not_found("topic_not_found", format!("there is no topic {name:?}")).hint(hint)
            }
            LogError::TopicExists(_) => {
                Self::conflict("topic_exists", message).hint("use it as it is, or choose another name")
            }
            LogError::TopicFixed { .. } => Self::conflict("topic_fixed", message),
            LogError::Invalid(_) => Self::bad_request("invalid", message),
            LogError::Read(error) => error.into(),
            LogError::Unavailable(_) => Self::no_postgres(message),
            LogError::Postgres(error) => Self::postgres(&error),
        }
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        let message = error.to_string();
        match error {
            AppendError::TopicGone { .. } => Self::not_found("topic_not_found", message),
            AppendError::NoSuchPartition { .. } => Self::bad_request("no_such_partition", message),
            AppendError::RecordTooLarge { .. } => Self::too_large("record_too_large", message),
            AppendError::RequestTooLarge { .. } => {
                Self::too_large("body_too_large", message).hint("send smaller batches")
            }
            AppendError::Invalid(_) => Self::bad_request("invalid", message),
            AppendError::Fenced(_) => Self::conflict("producer_fenced", message),
            AppendError::OutOfSequence(_) => Self::conflict("producer_out_of_sequence", message),
            AppendError::Overloaded { .. } => Self::unavailable("overloaded", message),
            AppendError::Unavailable(_) => Self::no_postgres(message),
            AppendError::Unknown(_) => Self::unavailable("outcome_unknown", message).hint(
                "repeat it with the same Idempotency-Key or producer sequence; without one it may be stored twice",
            ),
            AppendError::Postgres(error) => Self::postgres(&error),
        }
    }
}

impl From<FetchError> for ApiError {
    fn from(error: FetchError) -> Self {
        let message = error.to_string();
        match error {
            FetchError::OutOfRange { partition, from, start, end } => {
                Self::out_of_range(partition, from, start, end)
            }
            FetchError::Archived { damaged: true, .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "archive_damaged", message)
            }
            FetchError::Archived { .. } => Self::unavailable("bucket_unavailable", message)
                .hint("the host tries again; see that the bucket can be reached"),
            FetchError::Lost { .. } => Self::new(StatusCode::GONE, "offsets_lost", message)
                .hint("these records are in no place of the log any more"),
            FetchError::TopicGone => Self::not_found("topic_not_found", message),
            FetchError::Unavailable(_) => Self::no_postgres(message),
            FetchError::Postgres(error) => Self::postgres(&error),
        }
    }
}

impl From<ReplayError> for ApiError {
    fn from(error: ReplayError) -> Self {
        error.source.into()
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match error {
            RegistryError::Unknown(_) => {
                Self::not_found("plugin_not_found", message).hint("GET /v1/plugins lists what is stored")
            }
            RegistryError::Invalid(_) => Self::bad_request("bad_digest", message),
            RegistryError::Impossible(_) => Self::conflict("plugin_impossible", message)
                .hint("GET /v1/plugins lists what is stored; push a component to store it again"),
            RegistryError::Postgres(error) => error.into(),
        }
    }
}

impl From<LetterError> for ApiError {
    fn from(error: LetterError) -> Self {
        let message = error.to_string();
        match error {
            LetterError::Unknown(_) => Self::not_found("dead_letter_not_found", message)
                .hint("it was redriven or dropped; GET /v1/dead-letters lists them"),
            LetterError::Impossible(_) => Self::conflict("dead_letter_orphaned", message)
                .hint("start the pipeline with that group, or drop the letter"),
            LetterError::Postgres(error) => error.into(),
        }
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        let message = error.to_string();
        match error {
            QueueError::Unknown(_) if message.starts_with("there is no queue") => {
                Self::not_found("queue_not_found", message).hint(
                    "GET /v1/queues lists them; [queues.NAME] in a pipeline file or tidemill.create_queue makes one",
                )
            }
            QueueError::Unknown(_) => Self::not_found("job_not_found", message)
                .hint("it may have ended longer ago than the queue keeps jobs"),
            QueueError::Fenced(_) => Self::conflict("claim_lost", message)
                .hint("its lease ran out or its jobs have ended: give up what came of them, and claim anew"),
            QueueError::Invalid(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_job", message),
            QueueError::Impossible(_) => Self::conflict("job_impossible", message),
            QueueError::Postgres(error) => error.into(),
        }
    }
}

impl From<PushError> for ApiError {
    fn from(error: PushError) -> Self {
        let message = error.to_string();
        match error {
            PushError::NoStage(label) => super::plugins::no_stage(&label),
            PushError::Refused(error) if error.is_validation() => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "plugin_refused", message)
                    .hint("what ran before runs on")
            }
            PushError::Refused(_) => Self::unavailable("plugin_not_taken", message),
            PushError::Registry(error) => error.into(),
        }
    }
}

impl From<TableError> for ApiError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Unknown(name) => {
                Self::not_found("table_not_found", format!("there is no table {name:?} kept by a pipeline"))
                    .hint("GET /v1/tables lists them")
            }
            TableError::Postgres(error) => LogError::from(error).into(),
            other => Self::conflict("table_conflict", other.to_string()),
        }
    }
}
