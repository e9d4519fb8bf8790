//! The OpenAPI document: kept by hand in `openapi.json`, and held to the truth by tests, which compare it with the
//! router and real answers with its schemas.

use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::params::Params;

pub const DOCUMENT: &str = include_str!("openapi.json");

pub async fn document(uri: Uri) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    Ok(([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response())
}
