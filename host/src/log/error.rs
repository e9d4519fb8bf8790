//! What can go wrong, by what the caller can do about it, and which failures of Postgres are worth another try.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgDatabaseError;

use crate::clock::rfc3339;
use crate::ids::{LogEpoch, Micros, Offset, Partition, TopicName};

/// Attempts at one statement, the first included: with the pauses between them some five seconds, in which a server that
/// crashed is usually back.
pub(crate) const ATTEMPTS: u32 = 12;
/// The pause before the second attempt; it doubles, with jitter, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Topics: making, changing, asking.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    #[error("there is no topic {name:?}{}", suggest(.near))]
    TopicNotFound { name: String, near: Vec<String> },
    #[error("topic {0:?} exists already")]
    TopicExists(String),
    #[error(
        "topic {name:?} has {what} {is}, which cannot become {wanted}: make a topic under another name and copy the \
         messages, or delete this one"
    )]
    TopicFixed { name: TopicName, what: &'static str, is: String, wanted: String },
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Read(#[from] FetchError),
    #[error("postgres is not available: {0}")]
    Unavailable(String),
    #[error("postgres: {0}")]
    Postgres(Arc<sqlx::Error>),
}

/// An append. Unless it says otherwise, nothing of the request is stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    #[error("topic {topic:?} is gone")]
    TopicGone { topic: String },
    #[error("topic {topic:?} has no partition {partition}: its partitions are 0 to {}", .partitions.saturating_sub(1))]
    NoSuchPartition { topic: TopicName, partition: Partition, partitions: u32 },
    #[error(
        "record {index} has {size} bytes: at most {max} are allowed, so store it elsewhere and send a reference"
    )]
    RecordTooLarge { index: usize, size: usize, max: usize },
    #[error(
        "one partition gets {size} bytes of this request: at most {max} are allowed, so send it in parts"
    )]
    RequestTooLarge { size: usize, max: usize },
    #[error("{0}")]
    Invalid(String),
    /// A newer instance of the producer has taken over.
    #[error("{0}; a newer instance of this producer has taken over, so this one must stop")]
    Fenced(String),
    /// The sequence is older than what is remembered.
    #[error("{0}; sequences must rise, and the last eight of a producer can be repeated")]
    OutOfSequence(String),
    /// The bounded queue is full.
    #[error("too much waits to be stored in topic {topic:?}; try again in a second")]
    Overloaded { topic: TopicName },
    #[error("postgres is not available: {0}")]
    Unavailable(String),
    /// The connection broke while the answer was awaited, and the request had no producer to ask about.
    #[error(
        "the connection to postgres broke, so the records may or may not be stored: {0}; append with a producer id and \
         sequence to be able to repeat"
    )]
    Unknown(String),
    #[error("postgres: {0}")]
    Postgres(Arc<sqlx::Error>),
}

/// A read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    #[error("offset {from} of partition {partition} is out of range: the log holds {start} up to {end}")]
    OutOfRange { partition: Partition, from: Offset, start: Offset, end: Offset },
    /// It has left Postgres, and the bucket does not give it now. `damaged`: it will not get better by itself.
    #[error("offset {from} of partition {partition} is in the bucket: {reason}")]
    Archived { partition: Partition, from: Offset, reason: String, damaged: bool },
    /// Read under an earlier epoch of the log, and not on the server that took over.
    #[error(
        "offsets {from} up to {until} of partition {partition} are gone: another server took over (noticed at {}) that did \
         not have them, and they are given anew since; what was made of them must be looked at, and reading can go on from \
         {partition}:{from}@{}", rfc3339(*.at), .epoch.0
    )]
    Lost { partition: Partition, from: Offset, until: Offset, epoch: LogEpoch, at: Micros },
    #[error("the topic is gone")]
    TopicGone,
    #[error("postgres is not available: {0}")]
    Unavailable(String),
    #[error("postgres: {0}")]
    Postgres(Arc<sqlx::Error>),
}

/// What a failure of Postgres means for the statement that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Rolled back by something that passes: a deadlock, a lock that DDL held, a server that stops.
    Passing,
    /// Rolled back, and it will not get better within seconds: no disk, no connection to be had.
    Unavailable,
    /// The connection broke: a commit may have happened.
    Unknown,
    /// One of our codes, `TM001` to `TM007`.
    Ours,
    Other,
}

impl Trouble {
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(_) => Self::of_code(code(error)),
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Self::Unknown,
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Tls(_) => Self::Unavailable,
            _ => Self::Other,
        }
    }

    /// A server that was told to stop (57P01) may say so after it committed; 57P02 and 57P03 only come before.
    fn of_code(code: &str) -> Self {
        match code {
            "40001" | "40P01" | "55P03" | "57P02" | "57P03" => Self::Passing,
            "57P01" => Self::Unknown,
            "25006" | "57014" | "58030" => Self::Unavailable,
            // No disk, no memory, no connection.
            _ if code.starts_with("53") => Self::Unavailable,
            _ if code.starts_with("08") => Self::Unknown,
            _ if code.starts_with("TM") => Self::Ours,
            _ => Self::Other,
        }
    }
}

/// The SQLSTATE; empty if the error is not the server's.
pub(crate) fn code(error: &sqlx::Error) -> &str {
    pg(error).map_or("", PgDatabaseError::code)
}

fn pg(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    match error {
        sqlx::Error::Database(error) => error.try_downcast_ref(),
        _ => None,
    }
}

/// The server's sentence without our wrapping, and its hint.
pub(crate) fn message(error: &sqlx::Error) -> String {
    match pg(error) {
        Some(error) => match error.hint() {
            Some(hint) => format!("{}; {hint}", error.message()),
            None => error.message().to_owned(),
        },
        None => error.to_string(),
    }
}

/// How long to wait before attempt `attempt` (from 1 on): half of it is chance, so that hosts do not march in step.
pub(crate) fn pause(attempt: u32) -> Duration {
    let longest = PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(PAUSE_MAX);
    longest / 2 + longest.mul_f64(fastrand::f64() / 2.0)
}

impl FetchError {
    /// Of a read of `partition` from `from`.
    pub(crate) fn of(error: sqlx::Error, partition: Partition, from: Offset) -> Self {
        match (Trouble::of(&error), code(&error)) {
            (_, "TM001") => Self::TopicGone,
            (_, "TM007") => Self::lost(&error, partition).unwrap_or_else(|| Self::Postgres(Arc::new(error))),
            (_, "TM002") => {
                let (start, end) = pg(&error)
                    .and_then(PgDatabaseError::detail)
                    .and_then(|detail| detail.split_once(' '))
                    .and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)))
                    .unwrap_or_default();
                Self::OutOfRange { partition, from, start, end }
            }
            (Trouble::Passing | Trouble::Unavailable | Trouble::Unknown, _) => {
                Self::Unavailable(message(&error))
            }
            _ => Self::Postgres(Arc::new(error)),
        }
    }
}

impl FetchError {
    /// Reads the detail that `tidemill.check_place` gives: from, up to, epoch, time.
    fn lost(error: &sqlx::Error, partition: Partition) -> Option<Self> {
        let numbers: Vec<i64> =
            pg(error)?.detail()?.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let [from, until, epoch, at] = numbers[..] else { return None };
        let (from, until) = (from.cast_unsigned(), until.cast_unsigned());
        Some(Self::Lost { partition, from, until, epoch: LogEpoch(i32::try_from(epoch).ok()?), at })
    }
}

impl From<sqlx::Error> for LogError {
    fn from(error: sqlx::Error) -> Self {
        match (Trouble::of(&error), code(&error)) {
            (_, "TM005" | "TM006") => Self::Invalid(message(&error)),
            (Trouble::Passing | Trouble::Unavailable | Trouble::Unknown, _) => {
                Self::Unavailable(message(&error))
            }
            _ => Self::Postgres(Arc::new(error)),
        }
    }
}

impl AppendError {
    /// Of an append to `topic` that is not tried again.
    pub(crate) fn of(error: sqlx::Error, topic: impl std::fmt::Display) -> Self {
        match (Trouble::of(&error), code(&error)) {
            (_, "TM001") => Self::TopicGone { topic: topic.to_string() },
            (_, "TM003") => Self::Fenced(message(&error)),
            (_, "TM004") => Self::OutOfSequence(message(&error)),
            (_, "TM005") => Self::Invalid(message(&error)),
            (Trouble::Unknown, _) => Self::Unknown(message(&error)),
            (Trouble::Passing | Trouble::Unavailable, _) => Self::Unavailable(message(&error)),
            _ => Self::Postgres(Arc::new(error)),
        }
    }

    /// Whether a whole transaction that met this may simply be run again.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Overloaded { .. })
    }
}

fn suggest(near: &[String]) -> String {
    match near {
        [] => "; `tidemill topic list` shows all".to_owned(),
        near => format!("; did you mean {}?", near.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_stay_bounded_and_differ() {
        for attempt in 1..=40 {
            let pause = pause(attempt);
            assert!(pause >= PAUSE / 2 && pause <= PAUSE_MAX, "{attempt}: {pause:?}");
        }
        assert!(pause(10) > pause(1));
    }

    #[test]
    fn only_what_is_surely_rolled_back_passes() {
        for code in ["40001", "40P01", "55P03"] {
            assert_eq!(Trouble::of_code(code), Trouble::Passing);
        }
        for code in ["57P01", "08006", "08003"] {
            assert_eq!(Trouble::of_code(code), Trouble::Unknown);
        }
        for code in ["53100", "53200", "53300", "58030"] {
            assert_eq!(Trouble::of_code(code), Trouble::Unavailable);
        }
        assert_eq!(Trouble::of_code("TM003"), Trouble::Ours);
        assert_eq!(Trouble::of_code("22021"), Trouble::Other);
        assert_eq!(
            Trouble::of(&sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())),
            Trouble::Unknown
        );
    }
}
