//! Names, numbers and offsets that cross modules. Each is parsed once, at the edge; inside, it cannot be wrong.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A record's place in a partition. Dense: the first record has 0 and no number is ever skipped.
pub type Offset = u64;

/// Raised when a partition may have lost its end to a fail-over: offsets from there on are then given anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct LogEpoch(pub i32);

/// An offset, and the epoch of the log under which a reader got there. None: somebody chose it, whatever the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub offset: Offset,
    pub epoch: Option<LogEpoch>,
}

impl From<Offset> for Place {
    fn from(offset: Offset) -> Self {
        Self { offset, epoch: None }
    }
}

/// Microseconds since the Unix epoch, UTC.
pub type Micros = i64;

/// A partition of a topic, counted from 0.
pub type Partition = u32;

/// The key of a topic in Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(pub i32);

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: TopicId,
    pub partition: Partition,
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a name was refused. `suggestion` is a close name that would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NameError {
    pub kind: &'static str,
    pub name: String,
    pub rule: &'static str,
    pub suggestion: Option<String>,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a {} name: {}", self.name, self.kind, self.rule)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; try {suggestion:?}"),
            None => Ok(()),
        }
    }
}

/// The characters that may follow the first in a name.
#[derive(Clone, Copy)]
enum Alphabet {
    /// Lower-case letters, digits and underscores: names that SQL takes without quotes.
    Sql,
    /// The same and hyphens.
    Kebab,
}

fn check(kind: &'static str, name: &str, max: usize, alphabet: Alphabet) -> Result<(), NameError> {
    let hyphen = matches!(alphabet, Alphabet::Kebab);
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || (hyphen && c == '-');
    let good_start = name.starts_with(|c: char| c.is_ascii_lowercase());
    if good_start && name.len() <= max && name.chars().all(allowed) {
        // `positions_p_1700000000` is the table of a segment of the topic `positions`.
        let segment = name.rsplit_once("_p_").filter(|(_, n)| n.chars().all(|c| c.is_ascii_digit()));
        return match segment {
            Some((topic, number)) if matches!(alphabet, Alphabet::Sql) => Err(NameError {
                kind,
                name: name.to_string(),
                rule: "names that end in _p_ and digits are taken by the segments of topics",
                suggestion: Some(format!("{topic}_{number}")),
            }),
            _ => Ok(()),
        };
    }
    let mapped: String = name
        .to_lowercase()
        .chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .collect::<String>()
        .trim_matches('_')
        .chars()
        .skip_while(|c| !c.is_ascii_lowercase())
        .take(max)
        .collect();
    Err(NameError {
        kind,
        name: name.chars().take(80).collect(),
        rule: match alphabet {
            Alphabet::Sql => {
                "it starts with a lower-case letter and goes on with lower-case letters, digits and \
                 underscores, at most 48 in all (it becomes a table name)"
            }
            Alphabet::Kebab => {
                "it starts with a lower-case letter and goes on with lower-case letters, digits, underscores \
                 and hyphens, at most 64 in all"
            }
        },
        suggestion: (!mapped.is_empty()).then_some(mapped),
    })
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $max:literal, $alphabet:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The longest name, in bytes.
            pub const MAX: usize = $max;

            pub fn parse(name: &str) -> Result<Self, NameError> {
                check($kind, name, Self::MAX, $alphabet)?;
                Ok(Self(name.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&name).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A topic. It names a table and a view, so it is an SQL name.
    TopicName, "topic", 48, Alphabet::Sql
);
name!(
    /// A queue of jobs. Its name is written where topics are, so it has the same form.
    QueueName, "queue", 48, Alphabet::Sql
);
name!(
    /// One schedule of a queue.
    CronName, "cron", 64, Alphabet::Kebab
);
name!(
    /// A consumer group.
    GroupName, "consumer group", 64, Alphabet::Kebab
);
name!(
    /// A pipeline: one TOML file.
    PipelineName, "pipeline", 64, Alphabet::Kebab
);
name!(
    /// A stage of a pipeline.
    StageName, "stage", 64, Alphabet::Kebab
);
name!(
    /// A table that a materializer keeps.
    TableName, "table", 48, Alphabet::Sql
);

/// One process. Persistent in the data directory, so that a restarted host takes its own leases over at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct HostId(pub Arc<str>);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fence of a lease: raised by every take-over, checked in every protected write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_name_is_an_sql_name() {
        assert_eq!(TopicName::parse("positions_2").map(|n| n.to_string()), Ok("positions_2".to_string()));
        for bad in [
            "",
            "2nd",
            "a b",
            "po\"sitions",
            "x'; drop table y",
            "Ä",
            &"a".repeat(49),
            "a-b",
            "_a",
            "A",
            "a_p_17",
        ] {
            assert!(TopicName::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_refused_name_comes_with_a_close_one_that_would_do() {
        let error = TopicName::parse("Flight-Events").map_err(|e| e.to_string());
        assert!(error.as_ref().is_err_and(|e| e.ends_with("try \"flight_events\"")), "{error:?}");
        let error = TopicName::parse("\"quoted\"").map_err(|e| e.suggestion);
        assert_eq!(error, Err(Some("quoted".to_string())));
    }

    #[test]
    fn stage_names_may_have_hyphens() {
        assert!(StageName::parse("enrich-js").is_ok());
    }
}
