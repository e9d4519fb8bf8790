//! Server-sent events: how they are written, how many streams there may be, and how long one may be silent.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Streams at a time, events and chunked answers together.
const MAX_STREAMS: usize = 256;
/// Longest silence. A real event and no comment, which browsers hide from the page.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// About as many bytes of an answer are made at a time.
pub const CHUNK: usize = 128 << 10;

/// The room for streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STREAMS)))
    }
}

impl Streams {
    /// A place, held until the stream ends.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            ApiError::new(
                axum::http::StatusCode::TOO_MANY_REQUESTS,
                "too_many_streams",
                format!("{MAX_STREAMS} streams are open, which is the limit"),
            )
            .hint("close one, or try again later")
            .retry_after(5)
        })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        MAX_STREAMS - self.0.available_permits()
    }
}

/// Something that makes an answer piece by piece, each when the client has taken the one before. None ends it; an error
/// cuts the connection, so that the client does not take what it has for the whole.
pub trait Pieces: Send + 'static {
    fn next(&mut self) -> impl Future<Output = Option<io::Result<Bytes>>> + Send;
}

/// A chunked answer.
pub fn chunked(pieces: impl Pieces, kind: &'static str) -> Response {
    let stream = stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.next().await?;
        Some((piece, pieces))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer would hold events back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A stream of events.
pub fn events(pieces: impl Pieces) -> Response {
    chunked(pieces, "text/event-stream")
}

/// Where a client that comes back had got to.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    match headers.get("last-event-id").map(HeaderValue::to_str) {
        None | Some(Ok("")) => Ok(None),
        Some(Ok(id)) => Ok(Some(id)),
        Some(Err(_)) => Err(ApiError::bad_request("bad_header", "Last-Event-ID is not plain text")),
    }
}

/// Writes one event. Neither part may contain a line's end.
pub fn event(out: &mut Vec<u8>, name: &str, id: Option<&dyn std::fmt::Display>, data: &[u8]) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        out.extend_from_slice(format!("\nid: {id}").as_bytes());
    }
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

/// What opens every stream: how long a browser waits before it comes back.
pub fn opening() -> Bytes {
    Bytes::from_static(b"retry: 1000\n\n")
}

pub fn heartbeat() -> Bytes {
    Bytes::from_static(b"event: heartbeat\ndata: {}\n\n")
}

/// The last event of a stream that cannot go on. A browser comes back with its position and is then told by a status.
pub fn failure(error: &ApiError) -> Bytes {
    let mut out = Vec::new();
    event(&mut out, "error", None, error.body().to_string().as_bytes());
    out.into()
}
