//! Lines of a body as records. Payloads and keys are slices of the body where they can be.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::{Placed, check, key};
use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::record::NewRecord;

/// How lines are read.
#[derive(Debug)]
pub struct Lines {
    /// Each line must be JSON.
    pub json: bool,
    pub key_field: Option<String>,
    pub key_separator: Option<String>,
}

impl Lines {
    /// With the parameters that say where keys are.
    pub fn new(json: bool, params: &Params) -> Result<Self, ApiError> {
        let key_field = params.text("key_field").map(String::from);
        let key_separator = params.text("key_separator").map(String::from);
        let bad = |message| Err(ApiError::bad_request("bad_parameter", message));
        if key_field.is_some() && key_separator.is_some() {
            return bad("key_field and key_separator both say where the key is; give one of them");
        }
        if key_separator.as_deref().is_some_and(|text| text.is_empty() || text.contains('\n')) {
            return bad("key_separator must be some text within a line, such as %09 for a tab");
        }
        Ok(Self { json, key_field, key_separator })
    }

    /// Cuts the body at its line ends. The last line may have none; nothing else is changed.
    pub fn parse(&self, body: &Bytes) -> Result<Vec<Placed>, ApiError> {
        let mut records = Vec::new();
        let mut at = 0;
        while at < body.len() {
            let length = body[at..].iter().position(|b| *b == b'\n').unwrap_or(body.len() - at);
            let line = body.slice(at..at + length);
            at += length + 1;
            let number = records.len() + 1;
            let record = self.record(&line, number)?;
            check(number, &record, "line")?;
            records.push(Placed { record, partition: None });
        }
        Ok(records)
    }

    fn record(&self, line: &Bytes, number: usize) -> Result<NewRecord, ApiError> {
        let (key, payload) = match (&self.key_field, &self.key_separator) {
            (Some(field), _) => {
                let key =
                    key::of_field(line, field).map_err(|error| refused(number, line, &error.to_string()))?;
                (key.map(|key| shared(line, key)), line.clone())
            }
            (None, Some(separator)) => {
                let Some((key, payload)) = key::before(line, separator.as_bytes()) else {
                    return Err(refused(
                        number,
                        line,
                        &format!("has no separator {separator:?} after a key"),
                    ));
                };
                let payload = line.slice_ref(payload);
                if self.json {
                    json(&payload, number)?;
                }
                (Some(line.slice_ref(key)), payload)
            }
            (None, None) => {
                if self.json {
                    json(line, number)?;
                }
                (None, line.clone())
            }
        };
        Ok(NewRecord { key, headers: Vec::new(), timestamp: None, payload })
    }
}

fn shared(line: &Bytes, key: Cow<'_, [u8]>) -> Bytes {
    match key {
        Cow::Borrowed(key) => line.slice_ref(key),
        Cow::Owned(key) => Bytes::from(key),
    }
}

fn json(line: &Bytes, number: usize) -> Result<(), ApiError> {
    let text = std::str::from_utf8(line)
        .map_err(|error| refused(number, line, &format!("is not JSON, since it is not UTF-8: {error}")))?;
    serde_json::from_str::<IgnoredAny>(text)
        .map(drop)
        .map_err(|error| refused(number, line, &format!("is not JSON: {error}")))
}

fn refused(number: usize, line: &Bytes, why: &str) -> ApiError {
    let hint = match line.is_empty() {
        true => "leave empty lines out".to_string(),
        false => {
            let start: String =
                String::from_utf8_lossy(&line[..line.len().min(120)]).chars().take(60).collect();
            format!("nothing of the body was stored; the line starts with {start:?}")
        }
    };
    ApiError::bad_request("bad_line", format!("line {number} {why}")).hint(hint).line(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: bool, field: Option<&str>, separator: Option<&str>) -> Lines {
        Lines { json, key_field: field.map(String::from), key_separator: separator.map(String::from) }
    }

    fn parsed(lines: &Lines, body: &'static [u8]) -> Result<Vec<(Option<String>, String)>, ApiError> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let records = lines.parse(&Bytes::from_static(body))?;
        Ok(records.iter().map(|p| (p.record.key.as_ref().map(text), text(&p.record.payload))).collect())
    }

    #[test]
    fn lines_are_kept_byte_for_byte() {
        let plain = lines(false, None, None);
        let body = Bytes::from_static(b"a\r\n\n b\xff\nlast");
        let records = plain.parse(&body).unwrap();
        let payloads: Vec<&[u8]> = records.iter().map(|p| p.record.payload.as_ref()).collect();
        assert_eq!(payloads, [&b"a\r"[..], b"", b" b\xff", b"last"]);
        assert_eq!(plain.parse(&Bytes::from_static(b"a\n")).unwrap().len(), 1);
        assert!(plain.parse(&Bytes::new()).unwrap().is_empty());
        // No payload is a copy.
        let within = body.as_ptr_range();
        assert!(
            records
                .iter()
                .all(|p| p.record.payload.is_empty() || within.contains(&p.record.payload.as_ptr()))
        );
    }

    #[test]
    fn keys_come_from_a_field_or_before_a_separator() {
        assert_eq!(
            parsed(&lines(true, Some("id"), None), b"{\"id\":\"a\"}\n{\"id\":7}").unwrap(),
            [(Some("a".into()), "{\"id\":\"a\"}".into()), (Some("7".into()), "{\"id\":7}".into())]
        );
        assert_eq!(
            parsed(&lines(false, None, Some("\t")), b"k\tv\tw\n\tx").unwrap(),
            [(Some("k".into()), "v\tw".into()), (Some(String::new()), "x".into())]
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        for (lines, body, part) in [
            (lines(true, None, None), &b"{}\n{\"a\":\n"[..], "line 2 is not JSON: EOF"),
            (lines(true, None, None), b"{}\n\n{}", "line 2 is not JSON"),
            (lines(true, None, None), b"1\n\"\xff\"", "line 2 is not JSON, since"),
            (lines(true, Some("id"), None), b"{\"id\":1}\n{}\n", "line 2 has no field \"id\""),
            (lines(false, None, Some("\t")), b"a\tb\nab\n", "line 2 has no separator"),
        ] {
            let error = lines.parse(&Bytes::from_static(body)).unwrap_err();
            assert!(error.message.starts_with(part), "{}", error.message);
            assert_eq!(error.line, Some(2));
        }
    }

    #[test]
    fn one_large_record_is_refused() {
        let body = Bytes::from(vec![b'x'; (1 << 20) + 1]);
        let error = lines(false, None, None).parse(&body).unwrap_err();
        assert_eq!((error.code, error.line), ("record_too_large", Some(1)));
    }
}
