//! The web page, embedded in the binary.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use rust_embed::{EmbeddedFile, RustEmbed};

/// What `npm run build` made. A host without it serves the API alone.
#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct Dist;

const NOT_BUILT: &str = "This host was built without the web page; the API under /v1 works.\n\
    To have the page: run `make web` (npm ci && npm run build in web/), then build the host again.\n";

/// The file at a path; None if there is none.
pub fn file(path: &str, headers: &HeaderMap) -> Option<Response> {
    let name = path.trim_start_matches('/');
    let name = if name.is_empty() { "index.html" } else { name };
    match Dist::get(name) {
        Some(file) => Some(answer(name, file, headers)),
        None if name == "index.html" => {
            let kind = HeaderValue::from_static("text/plain; charset=utf-8");
            Some(([(CONTENT_TYPE, kind)], NOT_BUILT).into_response())
        }
        None => None,
    }
}

fn answer(name: &str, file: EmbeddedFile, headers: &HeaderMap) -> Response {
    // Weak, since the same file may be sent compressed.
    let etag = format!("W/\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    // The build puts a digest into the names of assets, so what a name stands for never changes.
    let cache = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .any(|tags| tags.to_str().is_ok_and(|tags| tags.split(',').any(|tag| tag.trim() == etag)));
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => match file.data {
            Cow::Borrowed(data) => Body::from(Bytes::from_static(data)).into_response(),
            Cow::Owned(data) => Body::from(data).into_response(),
        },
    };
    let kind = HeaderValue::from_str(&content_type(&file.metadata)).ok();
    let etag = HeaderValue::from_str(&etag).ok();
    let answer = response.headers_mut();
    answer.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    answer.extend(kind.map(|kind| (CONTENT_TYPE, kind)));
    answer.extend(etag.map(|etag| (ETAG, etag)));
    response
}

fn content_type(metadata: &rust_embed::Metadata) -> String {
    let kind = metadata.mimetype();
    let text = kind.starts_with("text/") || matches!(kind, "application/javascript" | "application/json");
    if text { format!("{kind}; charset=utf-8") } else { kind.to_string() }
}
