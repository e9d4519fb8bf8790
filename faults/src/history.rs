//! What clients did and what they saw: every append with how it ended, and every record that was read.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

/// What a record says about itself. Ids are unique; `n` counts the records of a key in the order they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    pub id: u64,
    pub key: u32,
    pub n: u32,
}

/// Where a record is in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub partition: u32,
    pub offset: u64,
}

/// A record as somebody read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub place: Place,
    pub item: Item,
}

/// What an answer says of one partition: from `first` up to, not including, `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Part {
    pub partition: u32,
    #[serde(rename = "first_offset")]
    pub first: u64,
    #[serde(rename = "next_offset")]
    pub next: u64,
}

/// How an append ended, as far as its client can know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, here.
    Ok(Vec<Part>),
    /// Refused: none of it may ever be read.
    Fail,
    /// No answer, or one that leaves it open, and the client has given up.
    Unknown,
}

/// One append of one client, with all its repeats.
#[derive(Clone, Debug)]
pub struct Append {
    pub items: Vec<Item>,
    pub outcome: Outcome,
    /// How often it was sent.
    pub sent: u32,
    /// When its client knew.
    pub at: Instant,
}

/// What all clients did. Appended to while the case runs, judged afterwards.
#[derive(Debug, Default)]
pub struct History {
    appends: Mutex<Vec<Append>>,
    /// Answers that no fault excuses, in words.
    surprises: Mutex<Vec<String>>,
}

impl History {
    pub fn append(&self, append: Append) {
        self.appends.lock().unwrap_or_else(PoisonError::into_inner).push(append);
    }

    pub fn surprise(&self, what: String) {
        self.surprises.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    pub fn appends(&self) -> Vec<Append> {
        self.appends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn surprises(&self) -> Vec<String> {
        self.surprises.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Item {
    /// As a record's key.
    pub fn key_text(&self) -> String {
        format!("k{:06}", self.key)
    }

    /// As a record's payload: a report that the component `latest-position` takes, newest by `n`.
    pub fn payload(&self) -> String {
        json!({
            "id": self.key_text(), "callsign": self.id.to_string(), "kind": "load", "lat": 1.5, "lon": 2.5,
            "altitude": self.n, "heading": 0.0, "speed": 0.0, "vertical_rate": 0, "squawk": "0000", "ts": self.n,
        })
        .to_string()
    }

    /// Reads a payload back; None if nobody here wrote it.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Report<'a> {
            id: &'a str,
            callsign: &'a str,
            ts: u32,
        }
        let report: Report<'_> = serde_json::from_slice(payload).ok()?;
        let key = report.id.strip_prefix('k')?.parse().ok()?;
        Some(Self { id: report.callsign.parse().ok()?, key, n: report.ts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_read_back() {
        let item = Item { id: 7_000_000_123, key: 42, n: 9 };
        assert_eq!(Item::parse(item.payload().as_bytes()), Some(item));
        assert_eq!(Item::parse(b"{}"), None);
        assert_eq!(Item::parse(b"not json"), None);
    }
}
