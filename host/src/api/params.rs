//! Query parameters, read strictly: an unknown or repeated one is refused, since a misspelt `form=latest` that is
//! silently ignored reads a topic from the start.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::Query;
use axum::http::Uri;

use super::error::ApiError;

/// The parameters of one request.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the query of `uri`, in which only `known` names may stand.
    pub fn read(uri: &Uri, known: &[&str]) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| {
            ApiError::bad_request("bad_query", format!("the query cannot be read: {error}"))
        })?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(unknown(name, known));
            }
            if pairs[..index].iter().any(|(before, _)| before == name) {
                return Err(ApiError::bad_request(
                    "bad_parameter",
                    format!("the parameter {name:?} stands in the query twice"),
                ));
            }
        }
        Ok(Self(pairs))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value)
    }

    /// A parameter that reads as `T`.
    pub fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|error| {
            ApiError::bad_request("bad_parameter", format!("{name}={text} cannot be used: {error}"))
        })
    }

    /// A number within bounds.
    pub fn number(&self, name: &str, low: u64, high: u64) -> Result<Option<u64>, ApiError> {
        let number = self.parsed::<u64>(name)?;
        match number {
            Some(n) if n < low || n > high => Err(ApiError::bad_request(
                "bad_parameter",
                format!("{name}={n} cannot be used: it goes from {low} to {high}"),
            )),
            _ => Ok(number),
        }
    }

    /// `true` or `false`; absent is false.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.parsed::<bool>(name)?.unwrap_or(false))
    }
}

fn unknown(name: &str, known: &[&str]) -> ApiError {
    let shown: String = name.chars().take(80).collect();
    let error = ApiError::bad_request("unknown_parameter", format!("there is no parameter {shown:?} here"));
    let near = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&shown, candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    match (near, known.is_empty()) {
        (Some((_, candidate)), _) => error.hint(format!("did you mean {candidate:?}?")),
        (None, true) => error.hint("this route takes none"),
        (None, false) => error.hint(format!("it takes {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Params, ApiError> {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        Params::read(&uri, &["from", "partition", "max"])
    }

    #[test]
    fn a_misspelt_parameter_is_refused_with_a_suggestion() {
        let error = read("form=latest").unwrap_err();
        assert_eq!(
            (error.code, error.hint.as_deref()),
            ("unknown_parameter", Some("did you mean \"from\"?"))
        );
        let error = read("colour=red").unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("it takes from, partition, max"));
        assert_eq!(read("max=1&max=2").unwrap_err().code, "bad_parameter");
    }

    #[test]
    fn values_are_decoded_and_bounded() {
        let params = read("from=2026-01-01T00%3A00%3A00Z&max=5").unwrap();
        assert_eq!(params.text("from"), Some("2026-01-01T00:00:00Z"));
        assert_eq!(params.number("max", 1, 10).unwrap(), Some(5));
        assert!(params.number("max", 6, 10).unwrap_err().message.contains("6 to 10"));
        assert!(read("max=many").unwrap().number("max", 1, 10).is_err());
    }
}
