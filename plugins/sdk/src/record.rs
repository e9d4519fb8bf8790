//! Conveniences on the records that cross the boundary.

use std::str;

use serde::{Deserialize, Serialize};

use crate::{Emission, Failure, Header, Job, Message, Refusal, RetryHint, Timestamp, Verdict};

impl Message {
    /// The payload as JSON. `T` may borrow from it.
    ///
    /// # Errors
    /// A reject that names the field and says what is wrong with it.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Refusal> {
        json(&self.payload).map_err(Refusal::reject)
    }

    /// The payload as text.
    ///
    /// # Errors
    /// A reject if it is not UTF-8.
    pub fn text(&self) -> Result<&str, Refusal> {
        text(&self.payload).map_err(Refusal::reject)
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        header(&self.headers, name)
    }
}

impl Job {
    /// As [`Message::json`].
    ///
    /// # Errors
    /// A reject that names the field and says what is wrong with it.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Verdict> {
        json(&self.payload).map_err(Verdict::reject)
    }

    /// The payload as text.
    ///
    /// # Errors
    /// A reject if it is not UTF-8.
    pub fn text(&self) -> Result<&str, Verdict> {
        text(&self.payload).map_err(Verdict::reject)
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        header(&self.headers, name)
    }

    /// Whether a failure of this attempt is the end of the job.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.attempt >= self.max_attempts
    }
}

fn json<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| json_fault::<T>(payload, &error))
}

fn text(payload: &[u8]) -> Result<&str, String> {
    str::from_utf8(payload).map_err(|error| format!("payload: not UTF-8: {error}"))
}

fn header<'a>(headers: &'a [Header], name: &str) -> Option<&'a [u8]> {
    let header = headers.iter().find(|header| header.name == name)?;
    Some(&header.value)
}

/// Parses once more to learn at which field it went wrong: tracking the path costs too much to do it for all.
fn json_fault<'a, T: Deserialize<'a>>(payload: &'a [u8], plain: &serde_json::Error) -> String {
    let mut parser = serde_json::Deserializer::from_slice(payload);
    match serde_path_to_error::deserialize::<_, T>(&mut parser) {
        Err(error) if error.path().iter().len() > 0 => {
            format!("payload: field `{}`: {}", error.path(), error.inner())
        }
        _ => format!("payload: {plain}"),
    }
}

impl Emission {
    /// A record for the port `default`, without key, headers, time and origin.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Emission {
            input: None,
            port: None,
            key: None,
            headers: Vec::new(),
            timestamp: None,
            payload: payload.into(),
        }
    }

    /// A record whose payload is `value` as JSON.
    ///
    /// # Errors
    /// A reject of the message it is made from if `value` has no JSON form, as a map has none whose keys are not
    /// strings.
    pub fn json(value: &impl Serialize) -> Result<Self, Refusal> {
        serde_json::to_vec(value)
            .map(Emission::new)
            .map_err(|error| Refusal::reject(format!("emission: {error}")))
    }

    /// The same record as `message`: key, headers, time and payload.
    #[must_use]
    pub fn copy_of(message: Message) -> Self {
        Emission {
            input: None,
            port: None,
            key: message.key,
            headers: message.headers,
            timestamp: Some(message.timestamp),
            payload: message.payload,
        }
    }

    /// Sends it to a port of the descriptor.
    #[must_use]
    pub fn port(mut self, port: &str) -> Self {
        self.port = Some(port.to_owned());
        self
    }

    /// Sets the key: records with equal keys go to one partition and keep their order.
    #[must_use]
    pub fn key(mut self, key: impl Into<Option<Vec<u8>>>) -> Self {
        self.key = key.into();
        self
    }

    /// Adds a header; names may repeat.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(Header { name: name.to_owned(), value: value.into() });
        self
    }

    /// Sets when the event happened, in microseconds since the Unix epoch, UTC.
    #[must_use]
    pub fn at(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Names the message it was made from by its index in the batch.
    #[must_use]
    pub fn from_input(mut self, input: u32) -> Self {
        self.input = Some(input);
        self
    }
}

impl Refusal {
    /// Redelivering will not help: the message is wrong.
    pub fn reject(reason: impl Into<String>) -> Self {
        Refusal::Reject(reason.into())
    }

    /// Deliver it again, not before `micros` have passed.
    #[must_use]
    pub fn retry_after(micros: u64) -> Self {
        Refusal::Retry(Some(micros))
    }
}

impl Failure {
    /// Trying again will not help: the stage stops and shows the reason.
    pub fn fatal(reason: impl Into<String>) -> Self {
        Failure::Fatal(reason.into())
    }

    /// A passing trouble: the same batch comes again, after `micros` or after the host's own back-off.
    pub fn retry(reason: impl Into<String>, micros: Option<u64>) -> Self {
        Failure::Retry(RetryHint { reason: reason.into(), after: micros })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> Message {
        Message {
            partition: 3,
            offset: 4,
            timestamp: 5,
            attempt: 1,
            key: Some(b"key".to_vec()),
            headers: vec![Header { name: "trace".to_owned(), value: b"1".to_vec() }],
            payload: payload.into(),
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Flight {
        legs: Vec<Leg>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Leg {
        nm: u32,
    }

    fn reason(refusal: Refusal) -> String {
        match refusal {
            Refusal::Reject(reason) => reason,
            Refusal::Retry(_) => panic!("not a reject"),
        }
    }

    #[test]
    fn a_wrong_payload_is_told_by_the_path_of_its_field() {
        let fault = |payload: &[u8]| reason(message(payload).json::<Flight>().unwrap_err());
        assert!(fault(br#"{"legs":[{"nm":1},{"nm":-1}]}"#).contains("field `legs[1].nm`"));
        assert!(fault(br#"{"legs":[{}]}"#).contains("missing field `nm`"));
        assert!(fault(b"{}").contains("missing field `legs`"));
        assert!(fault(b"").contains("EOF"));
        assert!(fault(br#"{"legs":[]} trailing"#).contains("trailing"));
        assert!(reason(message(b"\xff").text().unwrap_err()).contains("UTF-8"));
    }

    #[test]
    fn a_copy_keeps_all_but_the_place() {
        let copy = Emission::copy_of(message(b"payload"));
        assert_eq!(copy.key.as_deref(), Some(b"key".as_slice()));
        assert_eq!(copy.timestamp, Some(5));
        assert_eq!(copy.payload, b"payload");
        assert_eq!(copy.headers[0].name, "trace");
        assert_eq!((copy.input, copy.port), (None, None));
    }

    #[test]
    fn an_emission_is_built_in_steps() {
        let emission = Emission::json(&[1, 2])
            .unwrap()
            .port("alerts")
            .key(b"k".to_vec())
            .header("a", "1")
            .at(9)
            .from_input(7);
        let expected = Emission {
            input: Some(7),
            port: Some("alerts".to_owned()),
            key: Some(b"k".to_vec()),
            headers: vec![Header { name: "a".to_owned(), value: b"1".to_vec() }],
            timestamp: Some(9),
            payload: b"[1,2]".to_vec(),
        };
        assert_eq!(emission, expected);
        assert_eq!(message(b"").header("trace"), Some(b"1".as_slice()));
        assert_eq!(message(b"").header("Trace"), None);
    }
}
