//! Reads a stream of JSON records for a group: what to print, and how far the group may be moved.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use crate::cli::client::{Client, ClientError};
use crate::ids::{LogEpoch, Offset, Partition, Place};
use crate::replay::Position;

/// The longest line the host can send: a record of 1 MiB, each byte escaped, and what goes around it.
const MAX_LINE: usize = 8 << 20;

pub struct GroupReader {
    client: Client,
    group: String,
    topic: String,
    /// Print payloads instead of the JSON around them.
    raw: bool,
    carry: Vec<u8>,
    /// Next offsets after what was taken, after what was written, after what was committed.
    taken: Next,
    written: Next,
    committed: Next,
}

type Next = BTreeMap<Partition, Place>;

#[derive(Deserialize)]
struct Line<'a> {
    partition: Partition,
    offset: Offset,
    log_epoch: Option<i32>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    base64: Option<&'a str>,
}

impl GroupReader {
    pub fn new(client: Client, group: &str, topic: &str, raw: bool) -> Self {
        Self {
            client,
            group: group.to_string(),
            topic: topic.to_string(),
            raw,
            carry: Vec::new(),
            taken: Next::new(),
            written: Next::new(),
            committed: Next::new(),
        }
    }

    /// Takes a piece of the answer and gives what is to be printed for the whole lines in it.
    pub fn take(&mut self, chunk: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut input = std::mem::take(&mut self.carry);
        input.extend_from_slice(chunk);
        let mut out = Vec::with_capacity(input.len());
        let mut rest: &[u8] = &input;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.line(&rest[..end], &mut out)?;
            rest = &rest[end + 1..];
        }
        if rest.len() > MAX_LINE {
            anyhow::bail!("the host sent a line of more than {MAX_LINE} bytes; is it a tidemill host?");
        }
        self.carry = rest.to_vec();
        Ok(out)
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        let record: Line =
            serde_json::from_slice(line).context("the host sent a line that is not a record")?;
        match (self.raw, &record.text, record.base64) {
            (false, ..) => out.extend_from_slice(line),
            (true, Some(text), _) => out.extend_from_slice(text.as_bytes()),
            (true, None, Some(text)) => {
                STANDARD.decode_vec(text, out).context("the host sent a payload that is not base64")?
            }
            (true, None, None) => anyhow::bail!("the host sent a record without a payload"),
        }
        out.push(b'\n');
        let place = Place { offset: record.offset + 1, epoch: record.log_epoch.map(LogEpoch) };
        self.taken.insert(record.partition, place);
        Ok(())
    }

    /// What was taken so far has been printed.
    pub fn written(&mut self) {
        self.written.clone_from(&self.taken);
    }

    /// Moves the group past what was printed.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        let news =
            self.written.iter().filter(|(partition, next)| self.committed.get(partition) != Some(next));
        let position: Position = news.map(|(partition, next)| (*partition, *next)).collect();
        if position == Position::default() {
            return Ok(());
        }
        let body = json!({ "topic": self.topic, "position": position });
        let path = ["v1", "groups", &self.group, "commit"];
        self.client.post::<serde_json::Value>(&path, &body).await?;
        self.committed.clone_from(&self.written);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::ClientArgs;

    fn reader(raw: bool) -> GroupReader {
        let args = ClientArgs { url: "http://127.0.0.1:1".to_string(), token: None };
        GroupReader::new(args.connect().unwrap(), "g", "t", raw)
    }

    #[test]
    fn payloads_come_out_byte_for_byte_however_the_answer_is_cut() {
        let input = concat!(
            r#"{"partition":1,"offset":4,"log_epoch":2,"text":"{\"a\": 1}\r"}"#,
            "\n",
            r#"{"partition":0,"offset":9,"base64":"/wA="}"#,
            "\n",
        );
        for cut in 0..=input.len() {
            let mut reader = reader(true);
            let mut out = reader.take(&input.as_bytes()[..cut]).unwrap();
            out.extend(reader.take(&input.as_bytes()[cut..]).unwrap());
            assert_eq!(out, b"{\"a\": 1}\r\n\xff\x00\n", "cut at {cut}");
            assert!(reader.written.is_empty(), "nothing counts before it was printed");
            reader.written();
            let there = Place { offset: 5, epoch: Some(LogEpoch(2)) };
            assert_eq!(reader.written, Next::from([(0, Place::from(10)), (1, there)]));
        }
    }

    #[test]
    fn json_lines_are_printed_as_they_came() {
        let line = "{\"partition\":0,\"offset\":0,\"value\":{\"b\":1,  \"a\":2}}\n";
        assert_eq!(reader(false).take(line.as_bytes()).unwrap(), line.as_bytes());
    }
}
