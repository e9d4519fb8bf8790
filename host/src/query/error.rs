//! Why a query has no answer, by what its author can do about it.

use std::path::PathBuf;
use std::time::Duration;

use super::protocol::{Failure, FailureKind};
use crate::archive::objects::ObjectError;
use crate::log::LogError;

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The statement is not one that runs: not one SELECT, or wrong as DuckDB sees it.
    #[error("{message}")]
    Statement {
        message: String,
        /// Where in the statement, as a byte.
        position: Option<usize>,
    },
    #[error("the statement reads what queries may not read: {0}")]
    Forbidden(String),
    #[error("the query was stopped after {} s", .0.as_secs_f64())]
    Deadline(Duration),
    #[error("the query was stopped because it took more than {0} s of processor time")]
    Processor(u64),
    #[error("the query needs more memory than it may take ({} MiB)", .0 >> 20)]
    Memory(u64),
    #[error("{running} queries run and {waiting} wait already")]
    Busy { running: usize, waiting: usize },
    #[error("the program that runs queries is missing: {} is not there", .0.display())]
    NoWorker(PathBuf),
    #[error("records that are not archived yet cannot be read: {0}")]
    Hot(String),
    #[error("archived records cannot be read: {0}")]
    Archive(String),
    #[error(transparent)]
    Log(#[from] LogError),
    /// The child ended in a way that it should not.
    #[error("the process of the query failed: {0}")]
    Process(String),
}

impl From<ObjectError> for QueryError {
    fn from(error: ObjectError) -> Self {
        Self::Archive(error.to_string())
    }
}

impl QueryError {
    pub(super) fn io(what: &str, error: &std::io::Error) -> Self {
        Self::Process(format!("{what}: {error}"))
    }

    /// What a failure that the child tells of means to the caller.
    pub(super) fn of(failure: Failure, deadline: Duration, memory: u64) -> Self {
        let position = failure.position.and_then(|position| usize::try_from(position).ok());
        match failure.kind {
            FailureKind::Statement | FailureKind::Query => {
                Self::Statement { message: failure.message, position }
            }
            FailureKind::Forbidden => Self::Forbidden(failure.message),
            FailureKind::Deadline => Self::Deadline(deadline),
            FailureKind::Memory => Self::Memory(memory),
            FailureKind::Internal => Self::Process(failure.message),
        }
    }
}
