//! Places in a log that people name: its ends, where Postgres has it from, an offset, a time, the last few records.

use std::fmt;
use std::str::FromStr;

use crate::clock::{parse_rfc3339, rfc3339};
use crate::ids::{Micros, Offset, Partition};

use super::error::{Trouble, code};
use super::{FetchError, Log, LogError, Topic};

/// `earliest`, `hot`, `latest`, an offset, an RFC 3339 time, or `tail:N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeekTarget {
    /// The first record that there is, in the bucket or in Postgres.
    Earliest,
    /// The first record that Postgres holds.
    Hot,
    /// After the last record.
    Latest,
    Offset(Offset),
    /// The first batch that was appended at or after this time; in the bucket, the start of the segment that holds it.
    Time(Micros),
    /// The last so many records of each partition, or as many as there are.
    Tail(u64),
}

/// A text that is none of the forms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a place in a log: use earliest, hot, latest, an offset, tail:N, or a time such as 2026-01-31T12:00:00Z"
)]
pub struct SeekTargetError(String);

impl FromStr for SeekTarget {
    type Err = SeekTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || SeekTargetError(text.chars().take(80).collect());
        match text {
            "earliest" => Ok(Self::Earliest),
            "hot" => Ok(Self::Hot),
            "latest" => Ok(Self::Latest),
            _ => match text.strip_prefix("tail:") {
                Some(count) => count.parse().map(Self::Tail).map_err(|_| error()),
                None if text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(['-', ':']) => {
                    text.parse().map(Self::Offset).map_err(|_| error())
                }
                None => parse_rfc3339(text).map(Self::Time).ok_or_else(error),
            },
        }
    }
}

impl fmt::Display for SeekTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Hot => f.write_str("hot"),
            Self::Latest => f.write_str("latest"),
            Self::Offset(offset) => offset.fmt(f),
            Self::Time(at) => f.write_str(&rfc3339(*at)),
            Self::Tail(count) => write!(f, "tail:{count}"),
        }
    }
}

impl Log {
    /// The offset of one partition that a target means now. An offset outside of the log is an error, a time is not: one
    /// before the log means its start, one after it its end.
    pub async fn resolve(
        &self,
        topic: &Topic,
        partition: Partition,
        to: &SeekTarget,
    ) -> Result<Offset, LogError> {
        let sql = match to {
            SeekTarget::Earliest => "SELECT tidemill.resolve_offset($1, $2, 'earliest') + 0 * $3",
            SeekTarget::Hot => "SELECT tidemill.resolve_offset($1, $2, 'hot') + 0 * $3",
            SeekTarget::Latest => "SELECT tidemill.resolve_offset($1, $2, 'latest') + 0 * $3",
            SeekTarget::Offset(_) => "SELECT tidemill.resolve_offset($1, $2, $3::text)",
            SeekTarget::Time(_) => "SELECT tidemill.offset_at($1, $2, tidemill.from_micros($3))",
            SeekTarget::Tail(_) => {
                "SELECT greatest(tidemill.resolve_offset($1, $2, 'latest') - $3, \
                 tidemill.resolve_offset($1, $2, 'earliest'))"
            }
        };
        let wanted = match to {
            SeekTarget::Earliest | SeekTarget::Hot | SeekTarget::Latest => 0,
            SeekTarget::Offset(offset) => i64::try_from(*offset).unwrap_or(i64::MAX),
            SeekTarget::Time(at) => *at,
            SeekTarget::Tail(count) => i64::try_from(*count).unwrap_or(i64::MAX),
        };
        let resolved: Result<i64, sqlx::Error> = sqlx::query_scalar(sql)
            .bind(topic.id.0)
            .bind(partition.cast_signed())
            .bind(wanted)
            .fetch_one(self.pool())
            .await;
        resolved.map(i64::cast_unsigned).map_err(|error| match (Trouble::of(&error), code(&error)) {
            (Trouble::Ours, "TM001" | "TM002") => {
                FetchError::of(error, partition, wanted.cast_unsigned()).into()
            }
            _ => error.into(),
        })
    }
}

#[cfg(test)]
mod tests;
