//! One JSON array of records, with keys, headers and times of their own.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Placed, check};
use crate::api::error::ApiError;
use crate::clock::parse_rfc3339;
use crate::ids::Partition;
use crate::record::{Header, NewRecord};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Element<'a> {
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    text: Option<String>,
    base64: Option<String>,
    #[serde(default)]
    headers: Vec<(String, HeaderValue)>,
    timestamp: Option<String>,
    partition: Option<Partition>,
}

/// A header's value as it is sent.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum HeaderValue {
    Text(String),
    Binary { base64: String },
}

/// `null` is a value like any other, where an `Option` would take it for none.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads the whole array; an element that is wrong is named by its place from 1.
pub fn parse(body: &[u8]) -> Result<Vec<Placed>, ApiError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| ApiError::bad_request("bad_json", format!("the body is not UTF-8: {error}")))?;
    let mut records = Ok(Vec::new());
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = reader.deserialize_seq(Elements(&mut records)).and_then(|()| reader.end());
    let records = records?;
    read.map_err(|error| {
        ApiError::bad_request("bad_json", format!("the body is not an array of records: {error}")).hint(
            "send [{\"key\":\"k\",\"value\":{…}},…], or lines with `Content-Type: application/x-ndjson`",
        )
    })?;
    Ok(records)
}

/// Takes elements one by one, so that a body of millions of tiny ones is refused before they are all held.
struct Elements<'r>(&'r mut Result<Vec<Placed>, ApiError>);

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let (Ok(records), Some(element)) = (&mut *self.0, elements.next_element::<&RawValue>()?) {
            match read(element, records.len() + 1) {
                Ok(placed) => records.push(placed),
                Err(error) => {
                    *self.0 = Err(error);
                    return Err(A::Error::custom("an element is wrong"));
                }
            }
        }
        Ok(())
    }
}

fn read(element: &RawValue, number: usize) -> Result<Placed, ApiError> {
    let placed = serde_json::from_str::<Element>(element.get())
        .map_err(|error| error.to_string())
        .and_then(Element::place)
        .map_err(|reason| {
            ApiError::bad_request("bad_record", format!("record {number}: {reason}"))
                .hint(
                    "a record has one of value, text and base64, and may have key or key_base64, headers, timestamp \
                     and partition; nothing of the body was stored",
                )
                .line(number as u64)
        })?;
    check(number, &placed.record, "record")?;
    Ok(placed)
}

impl Element<'_> {
    fn place(self) -> Result<Placed, String> {
        let payload = match (self.value, self.text, self.base64) {
            (Some(value), None, None) => Bytes::copy_from_slice(value.get().as_bytes()),
            (None, Some(text), None) => Bytes::from(text),
            (None, None, Some(text)) => decode("base64", &text)?,
            (None, None, None) => return Err("there is no value, text or base64".to_string()),
            _ => return Err("there is more than one of value, text and base64".to_string()),
        };
        let key = match (self.key, self.key_base64) {
            (Some(key), None) => Some(Bytes::from(key)),
            (None, Some(text)) => Some(decode("key_base64", &text)?),
            (None, None) => None,
            (Some(_), Some(_)) => return Err("there is both a key and a key_base64".to_string()),
        };
        let timestamp = match self.timestamp {
            None => None,
            Some(text) => Some(
                parse_rfc3339(&text)
                    .ok_or_else(|| format!("the timestamp {text:?} is not like 2026-01-01T00:00:00Z"))?,
            ),
        };
        let headers = self.headers.into_iter().map(header).collect::<Result<_, _>>()?;
        Ok(Placed { record: NewRecord { key, headers, timestamp, payload }, partition: self.partition })
    }
}

pub fn header((name, value): (String, HeaderValue)) -> Result<Header, String> {
    let value = match value {
        HeaderValue::Text(text) => Bytes::from(text),
        HeaderValue::Binary { base64 } => decode("a header's base64", &base64)?,
    };
    Ok(Header { name, value })
}

pub fn decode(what: &str, text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("{what} cannot be decoded: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_carry_all_that_a_record_has() {
        let body = r#"[
            {"key":"k","value":{"b":1,  "a":[ ]},"headers":[["h","v"],["h",{"base64":"/w=="}]],
             "timestamp":"2024-11-22T08:26:40.123456Z","partition":3},
            {"text":"plain"}, {"base64":"/wA=","key_base64":"/g=="}, {"value":null}
        ]"#;
        let placed = parse(body.as_bytes()).unwrap();
        let first = &placed[0];
        assert_eq!(first.partition, Some(3));
        assert_eq!(first.record.payload, r#"{"b":1,  "a":[ ]}"#, "the value's text is kept");
        assert_eq!(first.record.timestamp, Some(1_732_264_000_123_456));
        assert_eq!(first.record.headers[1], Header { name: "h".into(), value: Bytes::from_static(b"\xff") });
        assert_eq!(placed[1].record.payload, "plain");
        assert_eq!(placed[2].record.payload, &b"\xff\x00"[..]);
        assert_eq!(placed[2].record.key.as_deref(), Some(&b"\xfe"[..]));
        assert_eq!(placed[3].record.payload, "null");
    }

    #[test]
    fn a_bad_element_is_named() {
        for (body, part) in [
            ("{}", "not an array"),
            ("[{\"value\":1},{}]", "record 2: there is no value"),
            ("[{\"value\":1,\"text\":\"a\"}]", "record 1: there is more than one"),
            ("[{\"value\":1,\"kye\":\"a\"}]", "record 1: unknown field `kye`"),
            ("[{\"text\":\"\",\"timestamp\":\"noon\"}]", "record 1: the timestamp"),
            ("[{\"base64\":\"*\"}]", "record 1: base64"),
            ("[1]", "record 1"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(error.message.contains(part), "{body}: {}", error.message);
        }
    }
}
