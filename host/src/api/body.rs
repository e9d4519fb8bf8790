//! Reads request bodies under limits: of one body, of all bodies together, and of the time between two pieces.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::config::units;

/// Largest body of an append.
pub const MAX_APPEND: usize = 8 << 20;
/// Largest body of anything else.
const MAX_COMMAND: usize = 64 << 10;
/// Bytes of bodies in memory at a time, over all requests.
const MAX_IN_FLIGHT: usize = 128 << 20;
/// Unit of the budget.
const KIB: usize = 1 << 10;
/// A client that sends nothing for so long is given up.
const STALLED_READ: Duration = Duration::from_secs(30);
/// Nor may it take longer than this in all, however steadily it trickles.
const MAX_READING: Duration = Duration::from_secs(120);
/// How much of a refused body is thrown away at most, and for how long.
const MAX_DRAINED: usize = 256 << 20;
const MAX_DRAINING: Duration = Duration::from_secs(5);

/// The budget of bytes that bodies may take together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BodyBudget(Arc<Semaphore>);

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_IN_FLIGHT / KIB)))
    }
}

/// A body that was read; its share of the budget is given back when it is dropped.
#[derive(Debug)]
pub struct ReadBody {
    pub bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl BodyBudget {
    /// Reads a body of at most `limit` bytes.
    pub async fn read(&self, headers: &HeaderMap, body: Body, limit: usize) -> Result<ReadBody, ApiError> {
        let declared = match headers.get(CONTENT_LENGTH) {
            Some(length) => Some(parse_length(length)?),
            None => None,
        };
        if declared.is_some_and(|length| length > limit) {
            discard(headers, body).await;
            return Err(too_large(limit));
        }
        let room = declared.unwrap_or(limit).div_ceil(KIB).max(1);
        let share =
            u32::try_from(room).ok().and_then(|room| self.0.clone().try_acquire_many_owned(room).ok());
        let Some(share) = share else {
            discard(headers, body).await;
            return Err(ApiError::unavailable("busy", "too much is being sent at a time")
                .hint("try again in a moment")
                .close());
        };
        let reading = collect(body, declared.unwrap_or(0), limit);
        let bytes = tokio::time::timeout(MAX_READING, reading).await.map_err(|_| stalled())??;
        Ok(ReadBody { bytes, _share: share })
    }

    /// Reads a JSON document.
    pub async fn json<T: DeserializeOwned>(&self, headers: &HeaderMap, body: Body) -> Result<T, ApiError> {
        self.json_within(headers, body, MAX_COMMAND).await
    }

    /// Reads a JSON document of at most `limit` bytes.
    pub async fn json_within<T: DeserializeOwned>(
        &self,
        headers: &HeaderMap,
        body: Body,
        limit: usize,
    ) -> Result<T, ApiError> {
        require_json(headers)?;
        let body = self.read(headers, body, limit).await?;
        serde_json::from_slice(&body.bytes).map_err(|error| {
            ApiError::bad_request("bad_json", format!("the body is not what is expected: {error}"))
                .hint("GET /v1/openapi.json describes each body")
        })
    }
}

/// Media type of a body in lower case, without parameters.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

pub fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    match media_type(headers).as_deref() {
        Some("application/json") => Ok(()),
        found => Err(unsupported(found, "application/json")),
    }
}

/// 415 with what would do.
pub fn unsupported(found: Option<&str>, wanted: &str) -> ApiError {
    let message = match found {
        Some(found) => format!("the body's type {found:?} is not taken here"),
        None => "the body has no Content-Type".to_string(),
    };
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
        .hint(format!("send `Content-Type: {wanted}`"))
        .close()
}

fn parse_length(value: &HeaderValue) -> Result<usize, ApiError> {
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.ok_or_else(|| ApiError::bad_request("bad_header", "the Content-Length is not a number"))
}

fn too_large(limit: usize) -> ApiError {
    ApiError::too_large(
        "body_too_large",
        format!("the body is larger than {}", units::show_size(limit as u64)),
    )
    .hint("send smaller batches")
    .close()
}

fn stalled() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_stalled", "the body takes too long to come").close()
}

/// Throws a refused body away as it comes, so that the client sees the answer instead of a reset. One that waits for
/// leave to send has sent nothing and is not given leave.
pub async fn discard(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(EXPECT) {
        drain(body).await;
    }
}

async fn collect(body: Body, expected: usize, limit: usize) -> Result<Bytes, ApiError> {
    let mut pieces = body.into_data_stream();
    let mut whole = BytesMut::with_capacity(expected);
    loop {
        let piece = match tokio::time::timeout(STALLED_READ, pieces.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => {
                return Err(ApiError::bad_request(
                    "body_cut_short",
                    format!("the body ended early: {error}"),
                )
                .close());
            }
            Ok(None) => return Ok(whole.freeze()),
            Err(_elapsed) => return Err(stalled()),
        };
        if whole.len() + piece.len() > limit {
            drop(whole);
            drain(Body::from_stream(pieces)).await;
            return Err(too_large(limit));
        }
        whole.extend_from_slice(&piece);
    }
}

async fn drain(body: Body) {
    let mut pieces = body.into_data_stream();
    let mut drained = 0;
    let reading = async {
        while let Some(Ok(piece)) = pieces.next().await {
            drained += piece.len();
            if drained > MAX_DRAINED {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(MAX_DRAINING, reading).await;
}
