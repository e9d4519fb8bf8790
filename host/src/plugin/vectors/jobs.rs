//! Jobs and verdicts in a file of vectors.

use serde::Deserialize;

use super::{Batch, Before, Bytes, shown};
use crate::ids::Micros;
use crate::plugin::{Header, Job, RetryJob, Verdict};

/// A job; what is left out has a usual value.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    /// Else one more than the number of jobs before it in the file.
    id: Option<u64>,
    #[serde(default = "first")]
    attempt: u32,
    #[serde(default = "usual_attempts")]
    max_attempts: u32,
    #[serde(default = "usual_priority")]
    priority: u8,
    key: Option<Bytes>,
    #[serde(default)]
    headers: Vec<(String, Bytes)>,
    #[serde(default)]
    enqueued: Micros,
    payload: Bytes,
}

fn first() -> u32 {
    1
}

fn usual_attempts() -> u32 {
    10
}

fn usual_priority() -> u8 {
    2
}

/// A verdict. Reasons are words that must be in what the worker says; a result is compared byte by byte.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Expected {
    Done(Option<Bytes>),
    Retry {
        reason: String,
        /// Microseconds, or none.
        after: Option<u64>,
    },
    /// Microseconds.
    Snooze(u64),
    Reject(String),
    Cancel(String),
}

impl Given {
    fn job(&self, id: u64) -> Job {
        let headers = self.headers.iter().cloned();
        Job {
            id: self.id.unwrap_or(id),
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            priority: self.priority,
            key: self.key.clone().map(|key| key.0),
            headers: headers.map(|(name, value)| Header { name, value: value.0 }).collect(),
            enqueued: self.enqueued,
            payload: self.payload.0.clone(),
        }
    }
}

impl Batch {
    pub(super) fn jobs(&self, before: &mut Before) -> Vec<Job> {
        let job = |given: &Given| {
            before.jobs += 1;
            given.job(before.jobs)
        };
        self.jobs.iter().map(job).collect()
    }
}

/// In sentences what is not as it should be.
pub(super) fn compare(expected: &[Expected], verdicts: &[Verdict]) -> Vec<String> {
    let differs = |index: usize| {
        let (wanted, got) = (expected.get(index), verdicts.get(index));
        let agree = wanted.zip(got).is_some_and(|(wanted, got)| wanted.agrees(got));
        let got = got.map(Shown);
        (!agree).then(|| format!("verdict {index}: expected {}, got {}", shown(wanted), shown(got.as_ref())))
    };
    (0..expected.len().max(verdicts.len())).filter_map(differs).collect()
}

impl Expected {
    fn agrees(&self, got: &Verdict) -> bool {
        match (self, got) {
            (Self::Done(wanted), Verdict::Done(result)) => {
                wanted.as_ref().map(|bytes| &bytes.0) == result.as_ref()
            }
            (Self::Retry { reason: words, after: wanted }, Verdict::Retry(RetryJob { reason, after })) => {
                reason.contains(words) && wanted == after
            }
            (Self::Snooze(wanted), Verdict::Snooze(after)) => wanted == after,
            (Self::Reject(words), Verdict::Reject(reason))
            | (Self::Cancel(words), Verdict::Cancel(reason)) => reason.contains(words),
            _ => false,
        }
    }
}

/// A verdict in the words of a file.
struct Shown<'a>(&'a Verdict);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Verdict::Done(result) => write!(f, "Done({:?})", result.clone().map(Bytes)),
            Verdict::Retry(retry) => write!(f, "{retry:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(json: &str) -> Expected {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_verdict_agrees_with_its_own_kind_and_words() {
        let retry = |reason: &str, after| Verdict::Retry(RetryJob { reason: reason.to_owned(), after });
        let verdicts = [
            Verdict::Done(Some(b"{}".to_vec())),
            retry("it is late", Some(5)),
            Verdict::Snooze(9),
            Verdict::Reject("it is bad".to_owned()),
            Verdict::Cancel("it is bad".to_owned()),
        ];
        let fits = [
            r#"{"done":"{}"}"#,
            r#"{"retry":{"reason":"late","after":5}}"#,
            r#"{"snooze":9}"#,
            r#"{"reject":"bad"}"#,
            r#"{"cancel":"bad"}"#,
        ];
        for (i, json) in fits.iter().enumerate() {
            for (j, verdict) in verdicts.iter().enumerate() {
                assert_eq!(expected(json).agrees(verdict), i == j, "{json} {verdict:?}");
            }
        }
        let differs = [r#"{"done":null}"#, r#"{"retry":{"reason":"late","after":null}}"#, r#"{"snooze":8}"#];
        for (json, verdict) in differs.iter().zip(&verdicts) {
            assert!(!expected(json).agrees(verdict), "{json}");
        }
    }

    #[test]
    fn too_few_verdicts_are_told() {
        let found =
            compare(&[expected(r#"{"done":null}"#), expected(r#"{"snooze":1}"#)], &[Verdict::Done(None)]);
        assert_eq!(found, ["verdict 1: expected Snooze(1), got none"]);
    }
}
