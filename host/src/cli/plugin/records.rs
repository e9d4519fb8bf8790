//! Records of a file or of standard input, as messages for a plugin. A batch at a time is in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::api::produce::key;
use crate::cli::Invalid;
use crate::clock::parse_rfc3339;
use crate::ids::Micros;
use crate::pipeline::trial::{Input, input};
use crate::plugin::Header;

/// The longest line: a record of 1 MiB as JSON, each byte escaped, and what goes around it.
const MAX_LINE: u64 = 8 << 20;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The payload
    Raw,
    /// A record in JSON, as `tidemill consume --format json` prints it
    Json,
}

/// How lines are read.
#[derive(Clone, Debug)]
pub struct Reading {
    pub format: Format,
    /// A field of each payload that is its key.
    pub key_field: Option<String>,
    /// The time of records that have none.
    pub at: Micros,
}

/// Records that are read one after the other.
pub struct Records {
    lines: BufReader<Box<dyn Read + Send>>,
    name: String,
    line: u64,
    /// Records so far, which is the offset of the next one unless it names its own.
    count: u64,
    reading: Reading,
}

/// A record as the HTTP API writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    partition: u32,
    offset: Option<u64>,
    timestamp: Option<String>,
    appended_at: Option<String>,
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    value: Option<Box<RawValue>>,
    text: Option<String>,
    base64: Option<String>,
    #[serde(default)]
    headers: Vec<(String, HeaderValue)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum HeaderValue {
    Text(String),
    Base64 { base64: String },
}

/// `null` is a payload too.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

impl Records {
    /// Opens a file, or standard input for `-`.
    pub fn open(path: &Path, reading: Reading) -> anyhow::Result<Self> {
        let standard = path == Path::new("-");
        let name = if standard { "standard input".to_string() } else { path.display().to_string() };
        let source: Box<dyn Read + Send> = match standard {
            true => Box::new(io::stdin()),
            false => Box::new(File::open(path).with_context(|| format!("cannot read {name}"))?),
        };
        Ok(Self { lines: BufReader::new(source), name, line: 0, count: 0, reading })
    }

    /// The next records, at most `most`; none at the end. Empty lines are left out.
    pub fn batch(&mut self, most: usize) -> anyhow::Result<Vec<Input>> {
        let mut batch = Vec::new();
        let mut line = Vec::new();
        while batch.len() < most {
            line.clear();
            let read = (&mut self.lines).take(MAX_LINE + 1).read_until(b'\n', &mut line);
            read.with_context(|| format!("cannot read {}", self.name))?;
            if line.is_empty() {
                break;
            }
            self.line += 1;
            if line.len() as u64 > MAX_LINE {
                return Err(self.wrong("is too long; is this a file of lines?").into());
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            if !matches!(line.as_slice(), b"" | b"\r") {
                batch.push(self.record(&line)?);
                self.count += 1;
            }
        }
        Ok(batch)
    }

    fn record(&self, line: &[u8]) -> Result<Input, Invalid> {
        let mut record = match self.reading.format {
            Format::Raw => input(self.count, self.reading.at, None, line.to_vec()),
            Format::Json => parse(line, self.count, self.reading.at).map_err(|why| {
                self.wrong(&format!("is no record: {why}; with --format raw a line is a payload"))
            })?,
        };
        if let Some(field) = &self.reading.key_field {
            let key = key::of_field(&record.message.payload, field);
            record.message.key = key.map_err(|error| self.wrong(&error.to_string()))?.map(|key| key.to_vec());
        }
        Ok(record)
    }

    fn wrong(&self, what: &str) -> Invalid {
        Invalid(format!("{}: line {} {what}", self.name, self.line))
    }
}

/// Reads a record as the HTTP API and `tidemill consume --format json` write it.
///
/// # Errors
///
/// In words, as the end of a sentence.
pub fn parse(line: &[u8], offset: u64, at: Micros) -> Result<Input, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let payload = match (line.value, line.text, line.base64) {
        (Some(value), None, None) => value.get().as_bytes().to_vec(),
        (None, Some(text), None) => text.into_bytes(),
        (None, None, Some(coded)) => decoded(&coded)?,
        _ => return Err("it must have one of `value`, `text` and `base64`".to_string()),
    };
    let key = match (line.key, line.key_base64) {
        (key, None) => key.map(String::into_bytes),
        (None, Some(coded)) => Some(decoded(&coded)?),
        _ => return Err("it has both `key` and `key_base64`".to_string()),
    };
    let timestamp = line.timestamp.as_deref().map(time).transpose()?.unwrap_or(at);
    let mut record = input(line.offset.unwrap_or(offset), timestamp, key, payload);
    record.message.partition = line.partition;
    record.message.headers = line.headers.into_iter().map(header).collect::<Result<_, _>>()?;
    record.appended_at = line.appended_at.as_deref().map(time).transpose()?.unwrap_or(timestamp);
    Ok(record)
}

fn header((name, value): (String, HeaderValue)) -> Result<Header, String> {
    let value = match value {
        HeaderValue::Text(text) => text.into_bytes(),
        HeaderValue::Base64 { base64 } => decoded(&base64)?,
    };
    Ok(Header { name, value })
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("{text:?} is not base64: {error}"))
}

/// A time as people give it.
pub fn time(text: &str) -> Result<Micros, String> {
    parse_rfc3339(text).ok_or_else(|| format!("{text:?} is not a time; it looks like 2026-01-01T00:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str, reading: Reading) -> Records {
        let source: Box<dyn Read + Send> = Box::new(io::Cursor::new(text.as_bytes().to_vec()));
        Records { lines: BufReader::new(source), name: "f".to_string(), line: 0, count: 0, reading }
    }

    fn raw() -> Reading {
        Reading { format: Format::Raw, key_field: None, at: 7 }
    }

    #[test]
    fn lines_are_payloads_in_batches() {
        let mut records = records("{\"id\":\"a\"}\n\nnot JSON\nlast", raw());
        let first = records.batch(2).unwrap();
        let second = records.batch(2).unwrap();
        let payloads: Vec<&[u8]> =
            first.iter().chain(&second).map(|record| record.message.payload.as_slice()).collect();
        assert_eq!(payloads, [b"{\"id\":\"a\"}".as_slice(), b"not JSON", b"last"]);
        assert_eq!((second[0].message.offset, second[0].message.timestamp), (2, 7));
        assert!(records.batch(2).unwrap().is_empty());
    }

    #[test]
    fn a_field_is_the_key() {
        let reading = Reading { key_field: Some("id".to_string()), ..raw() };
        let mut found = records("{\"id\":\"a\"}\n", reading.clone());
        assert_eq!(found.batch(9).unwrap()[0].message.key.as_deref(), Some(b"a".as_slice()));
        let error = records("{}\nnothing", reading).batch(9).unwrap_err().to_string();
        assert!(error.starts_with("f: line "), "{error}");
    }

    #[test]
    fn records_of_the_api_come_back_to_the_byte() {
        let line = br#"{"partition":2,"offset":9,"timestamp":"2024-11-22T08:26:40.123456Z","key_base64":"/w==","base64":"/wA=","headers":[["a","b"],["c",{"base64":"/g=="}]]}"#;
        let record = parse(line, 0, 0).unwrap();
        let message = &record.message;
        assert_eq!((message.partition, message.offset), (2, 9));
        assert_eq!(record.appended_at, 1_732_264_000_123_456);
        assert_eq!(
            (message.key.as_deref(), message.payload.as_slice()),
            (Some(b"\xff".as_slice()), b"\xff\0".as_slice())
        );
        assert_eq!(message.headers[1].value, b"\xfe");
        assert_eq!(parse(br#"{"value": null}"#, 3, 0).unwrap().message.payload, b"null");
        assert_eq!(parse(br#"{"value":{"a" : 1.0}}"#, 3, 0).unwrap().message.payload, br#"{"a" : 1.0}"#);
    }

    #[test]
    fn what_is_no_record_is_told_with_its_line() {
        let reading = Reading { format: Format::Json, ..raw() };
        for (text, why) in [
            ("{\"text\":\"a\"}\n{\"a\":1}", "line 2 is no record: unknown field `a`"),
            ("{\"text\":\"a\",\"base64\":\"\"}", "one of `value`"),
            ("{\"base64\":\"?\"}", "not base64"),
            ("{\"text\":\"a\",\"timestamp\":\"today\"}", "not a time"),
        ] {
            let error = records(text, reading.clone()).batch(9).unwrap_err().to_string();
            assert!(error.contains(why), "{error} should have {why}");
        }
    }
}
