//! Names in paths, read into the types that the rest of the host uses.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::error::ApiError;
use crate::ids::NameError;

/// The one name in the path of a route.
#[derive(Debug)]
pub struct Named<T>(pub T);

impl<T, S> FromRequestParts<S> for Named<T>
where
    T: FromStr<Err = NameError>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(name) = Path::<String>::from_request_parts(parts, state).await.map_err(|error| {
            ApiError::bad_request("bad_name", format!("the name in the path cannot be read: {error}"))
        })?;
        Ok(Self(name.parse()?))
    }
}
