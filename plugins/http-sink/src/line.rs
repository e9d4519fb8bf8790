//! A message as one line.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_plugin::{Message, Refusal, Timestamp};

use crate::config::Format;

#[derive(Serialize)]
struct Record<'a> {
    partition: u32,
    offset: u64,
    /// Microseconds since the Unix epoch.
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// A key that is not UTF-8, as hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    #[serde(flatten)]
    payload: Payload<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Payload<'a> {
    /// JSON, as it is.
    Payload(&'a RawValue),
    /// Not JSON.
    Text(&'a str),
}

/// # Errors
/// A reject if the payload is not of the format.
pub fn of(message: &Message, format: Format) -> Result<Vec<u8>, Refusal> {
    match format {
        Format::Payloads => {
            let text = one_line(message.json::<&RawValue>()?)?;
            Ok(text.into_bytes())
        }
        Format::Records => record(message),
    }
}

fn record(message: &Message) -> Result<Vec<u8>, Refusal> {
    let compact = match message.json::<&RawValue>() {
        Ok(raw) => Some(one_line(raw)?),
        Err(_) => None,
    };
    let raw = compact.as_deref().map(serde_json::from_str::<&RawValue>).transpose().map_err(unwritable)?;
    let payload = match raw {
        Some(raw) => Payload::Payload(raw),
        None => Payload::Text(message.text()?),
    };
    let (key, key_hex) = match message.key.as_deref().map(|key| str::from_utf8(key).map_err(|_| key)) {
        None => (None, None),
        Some(Ok(key)) => (Some(key), None),
        Some(Err(bytes)) => (None, Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
    };
    let (partition, offset, timestamp) = (message.partition, message.offset, message.timestamp);
    serde_json::to_vec(&Record { partition, offset, timestamp, key, key_hex, payload }).map_err(unwritable)
}

/// JSON as it came, without line breaks: written anew only if it has some.
fn one_line(raw: &RawValue) -> Result<String, Refusal> {
    let text = raw.get().trim();
    if !text.contains(['\n', '\r']) {
        return Ok(text.to_owned());
    }
    let value: Value = serde_json::from_str(text).map_err(unwritable)?;
    Ok(value.to_string())
}

fn unwritable(error: serde_json::Error) -> Refusal {
    Refusal::reject(format!("payload: cannot be written as a line: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(payload: &[u8], format: Format) -> Result<String, Refusal> {
        let message = Message {
            partition: 1,
            offset: 7,
            timestamp: 9,
            attempt: 1,
            key: Some(b"k".to_vec()),
            headers: Vec::new(),
            payload: payload.to_vec(),
        };
        of(&message, format).map(|line| String::from_utf8(line).unwrap_or_default())
    }

    #[test]
    fn a_payload_stays_as_it_came_but_for_line_breaks() {
        assert_eq!(
            line(b" {\"b\": 1.50, \"a\": 2}\n", Format::Payloads),
            Ok("{\"b\": 1.50, \"a\": 2}".to_owned())
        );
        assert_eq!(line(b"[1,\n2]", Format::Payloads), Ok("[1,2]".to_owned()));
        assert!(matches!(line(b"plain", Format::Payloads), Err(Refusal::Reject(_))));
    }

    #[test]
    fn a_record_says_where_its_payload_was() {
        let expected = r#"{"partition":1,"offset":7,"timestamp":9,"key":"k","payload":{"a":1}}"#;
        assert_eq!(line(b"{\"a\":1}", Format::Records), Ok(expected.to_owned()));
        let expected = r#"{"partition":1,"offset":7,"timestamp":9,"key":"k","text":"plain"}"#;
        assert_eq!(line(b"plain", Format::Records), Ok(expected.to_owned()));
        assert!(line(b"\xff", Format::Records).is_err());
    }

    #[test]
    fn a_key_that_is_not_text_is_written_as_digits() {
        let message = Message {
            partition: 0,
            offset: 0,
            timestamp: 0,
            attempt: 1,
            key: Some(vec![0, 255]),
            headers: Vec::new(),
            payload: b"1".to_vec(),
        };
        let line = of(&message, Format::Records).unwrap();
        assert_eq!(line, br#"{"partition":0,"offset":0,"timestamp":0,"key_hex":"00ff","payload":1}"#);
    }
}
