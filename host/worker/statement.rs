//! Whether a text is exactly one SELECT, as DuckDB's own parser sees it. No list of forbidden words: DuckDB has too many
//! ways to say a thing.
//!
//! This must come before the text is prepared: `Connection::prepare` runs all statements of a text but the last.

use duckdb::Connection;
use serde::Deserialize;

use tidemill::query::protocol::{Failure, FailureKind};

use crate::session::failure_of;

/// Refuses all that is not one SELECT.
pub fn check(session: &Connection, sql: &str) -> Result<(), Failure> {
    if sql.contains('\0') {
        return Err(refused("the statement holds a NUL character", None));
    }
    let parsed: String = session
        .query_row("SELECT json_serialize_sql(?::VARCHAR)::VARCHAR", [sql], |row| row.get(0))
        .map_err(failure_of)?;
    let parsed: Parsed = serde_json::from_str(&parsed).map_err(|error| Failure {
        kind: FailureKind::Internal,
        message: format!("DuckDB's description of the statement cannot be read: {error}"),
        position: None,
    })?;
    match parsed {
        Parsed { error: true, error_type, error_message, position, .. } => Err(match error_type.as_deref() {
            Some("not implemented") => refused("only a SELECT can be run here", None),
            kind => Failure {
                kind: FailureKind::Query,
                message: format!(
                    "{} error: {}",
                    kind.unwrap_or("parser"),
                    error_message.unwrap_or_else(|| "the statement cannot be read".to_string())
                ),
                position: position.and_then(|position| position.parse().ok()),
            },
        }),
        Parsed { statements, .. } => match statements.len() {
            1 => Ok(()),
            0 => Err(refused("there is no statement", None)),
            several => Err(refused(
                format!("there are {several} statements, and only one can be run at a time"),
                None,
            )),
        },
    }
}

fn refused(message: impl Into<String>, position: Option<u64>) -> Failure {
    Failure { kind: FailureKind::Statement, message: message.into(), position }
}

/// What `json_serialize_sql` answers.
#[derive(Deserialize)]
struct Parsed {
    error: bool,
    error_type: Option<String>,
    error_message: Option<String>,
    position: Option<String>,
    #[serde(default)]
    statements: Vec<serde::de::IgnoredAny>,
}
