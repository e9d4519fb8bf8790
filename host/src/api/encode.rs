//! Records as JSON, written straight into the answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::clock::rfc3339;
use crate::config::plan::Format;
use crate::ids::{LogEpoch, Micros};
use crate::record::{Header, Record};

/// Writes records one after the other into `out`.
#[derive(Debug)]
pub struct RecordWriter {
    pub out: Vec<u8>,
    payload: Payload,
    /// The last time that was written: most records of a batch share one.
    time: (Micros, String),
    /// Written with each record, for whoever keeps positions.
    pub log_epoch: Option<LogEpoch>,
}

/// How payloads are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Embedded where they are JSON, else as text, else as base64.
    Embedded,
    /// As text where they are UTF-8, else as base64: exact to the byte.
    Text,
}

impl Payload {
    /// What a topic's format asks for.
    pub fn of(format: Format) -> Self {
        match format {
            Format::Json => Self::Embedded,
            Format::Bytes => Self::Text,
        }
    }
}

impl RecordWriter {
    pub fn new(payload: Payload) -> Self {
        Self { out: Vec::new(), payload, time: (Micros::MIN, String::new()), log_epoch: None }
    }

    /// Takes what was written.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// One object, on one line.
    pub fn record(&mut self, record: &Record) {
        self.fields(record);
        self.text("}");
    }

    /// The same, with when the record was appended.
    pub fn appended(&mut self, record: &Record, at: Micros) {
        self.fields(record);
        self.text(",\"appended_at\":\"");
        self.text(&rfc3339(at));
        self.text("\"}");
    }

    fn fields(&mut self, record: &Record) {
        if self.time.0 != record.timestamp {
            self.time = (record.timestamp, rfc3339(record.timestamp));
        }
        self.text("{\"partition\":");
        self.json(&record.partition);
        self.text(",\"offset\":");
        self.json(&record.offset);
        self.text(",\"timestamp\":\"");
        self.out.extend_from_slice(self.time.1.as_bytes());
        self.text("\"");
        self.key(record.key.as_deref());
        self.payload(&record.payload);
        self.headers(&record.headers);
        if let Some(LogEpoch(epoch)) = self.log_epoch {
            self.text(",\"log_epoch\":");
            self.json(&epoch);
        }
    }

    /// As a member of an object that has others before it.
    pub fn headers(&mut self, headers: &[Header]) {
        self.text(",\"headers\":[");
        for (index, header) in headers.iter().enumerate() {
            self.text(if index == 0 { "[" } else { ",[" });
            self.json(&header.name);
            self.text(",");
            match std::str::from_utf8(&header.value) {
                Ok(value) => self.json(&value),
                Err(_) => {
                    self.text("{\"base64\":");
                    self.json(&STANDARD.encode(&header.value));
                    self.text("}");
                }
            }
            self.text("]");
        }
        self.text("]");
    }

    /// The same: `key`, or `key_base64` if it is not text.
    pub fn key(&mut self, key: Option<&[u8]>) {
        match key.map(|key| (key, std::str::from_utf8(key))) {
            None => self.text(",\"key\":null"),
            Some((_, Ok(text))) => {
                self.text(",\"key\":");
                self.json(&text);
            }
            Some((bytes, Err(_))) => {
                self.text(",\"key_base64\":");
                self.json(&STANDARD.encode(bytes));
            }
        }
    }

    /// The same: `value`, `text` or `base64`.
    pub fn payload(&mut self, payload: &[u8]) {
        let Ok(text) = std::str::from_utf8(payload) else {
            self.text(",\"base64\":");
            self.json(&STANDARD.encode(payload));
            return;
        };
        if self.payload == Payload::Embedded && serde_json::from_str::<IgnoredAny>(text).is_ok() {
            self.text(",\"value\":");
            // A line's end can only be white space between the tokens of JSON, so a space means the same.
            let line = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
            self.out.extend(payload.iter().map(line));
        } else {
            self.text(",\"text\":");
            self.json(&text);
        }
    }

    pub fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Writing a number or a string into memory does not fail.
        let _ = serde_json::to_writer(&mut self.out, value);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::record::Header;

    fn written(payload: Payload, record: &Record) -> Value {
        let mut writer = RecordWriter::new(payload);
        writer.record(record);
        let line = writer.take();
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "a record takes one line");
        serde_json::from_slice(&line).unwrap()
    }

    fn record(payload: &'static [u8]) -> Record {
        Record {
            partition: 1,
            offset: 12,
            timestamp: 1_732_264_000_123_456,
            key: Some(Bytes::from_static(b"a1")),
            headers: vec![],
            payload: Bytes::from_static(payload),
        }
    }

    #[test]
    fn a_json_payload_is_embedded_on_one_line() {
        let value = written(Payload::Embedded, &record(b"{\r\n \"a\": \"x\\n\"\n}\r"));
        assert_eq!(
            value,
            json!({
                "partition": 1, "offset": 12, "timestamp": "2024-11-22T08:26:40.123456Z",
                "key": "a1", "value": { "a": "x\n" }, "headers": []
            })
        );
    }

    #[test]
    fn the_time_of_the_append_is_told_when_asked_for() {
        let mut writer = RecordWriter::new(Payload::Text);
        writer.appended(&record(b"x"), 1_732_264_000_123_457);
        let value: Value = serde_json::from_slice(&writer.take()).unwrap();
        assert_eq!(value["appended_at"], "2024-11-22T08:26:40.123457Z");
        assert_eq!(
            (&value["timestamp"], &value["text"]),
            (&json!("2024-11-22T08:26:40.123456Z"), &json!("x"))
        );
    }

    #[test]
    fn other_payloads_are_text_or_base64() {
        assert_eq!(written(Payload::Embedded, &record(b"{\"a\"\n"))["text"], "{\"a\"\n");
        assert_eq!(written(Payload::Embedded, &record(b"\xff\x00"))["base64"], "/wA=");
        assert_eq!(written(Payload::Text, &record(b"{\"a\": 1}\r"))["text"], "{\"a\": 1}\r");
        assert_eq!(written(Payload::Embedded, &record(b""))["text"], "");
    }

    #[test]
    fn keys_and_headers_that_are_not_text_are_base64() {
        let mut odd = record(b"1");
        odd.key = Some(Bytes::from_static(b"\xff"));
        odd.headers = vec![
            Header { name: "a\"b".into(), value: Bytes::from_static(b"\xfe") },
            Header { name: "c".into(), value: Bytes::from_static(b"d") },
        ];
        let value = written(Payload::Embedded, &odd);
        assert_eq!(value["key_base64"], "/w==");
        assert_eq!(value["headers"], json!([["a\"b", { "base64": "/g==" }], ["c", "d"]]));
        odd.key = None;
        assert_eq!(written(Payload::Embedded, &odd)["key"], Value::Null);
    }
}
