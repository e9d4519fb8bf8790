//! Cuts the input into lines and gathers them into batches, one for each lane. Pure: no input, no network.

use bytes::{Bytes, BytesMut};

use crate::api::produce::key;
use crate::log::partitioner::partition_of;

/// Longest line, which is the longest record the host takes.
const MAX_LINE: usize = 1 << 20;
/// Bytes a batch has at most, but for a last line that goes over: well under the host's limit of 8 MiB a request.
const BATCH_BYTES: usize = 2 << 20;

/// How lines find their lane.
#[derive(Clone, Debug)]
pub struct Routing {
    /// Of the topic: lanes follow partitions, so that a request touches few of them and its batches are large.
    pub partitions: u32,
    pub lanes: u32,
    pub key_field: Option<String>,
    pub key_separator: Option<String>,
    pub batch_records: usize,
    pub keep_empty: bool,
}

/// Lines of one request.
#[derive(Debug)]
pub struct Batch {
    pub body: Bytes,
    /// Where each line stands in the input, from 1, so that an error can name it.
    pub lines: Vec<u64>,
}

#[derive(Debug, thiserror::Error)]
#[error("line {line} is longer than {MAX_LINE} bytes, the largest record; is this a file of lines?")]
pub struct LineTooLong {
    line: u64,
}

#[derive(Debug)]
pub struct LineRouter {
    routing: Routing,
    /// The start of a line whose end has not been read.
    carry: Vec<u8>,
    line: u64,
    skipped: u64,
    filling: Vec<Filling>,
}

#[derive(Debug, Default)]
struct Filling {
    body: BytesMut,
    lines: Vec<u64>,
}

impl LineRouter {
    pub fn new(routing: Routing) -> Self {
        let filling = (0..routing.lanes.max(1)).map(|_| Filling::default()).collect();
        Self { routing, carry: Vec::new(), line: 0, skipped: 0, filling }
    }

    /// Empty lines that were left out.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether no whole line waits for its batch to fill.
    pub fn is_empty(&self) -> bool {
        self.filling.iter().all(|f| f.lines.is_empty())
    }

    /// Takes the next piece of input and gives the batches it filled, with their lanes.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<(usize, Batch)>, LineTooLong> {
        let mut full = Vec::new();
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            if self.carry.is_empty() {
                self.take(line, &mut full)?;
            } else {
                let mut whole = std::mem::take(&mut self.carry);
                whole.extend_from_slice(line);
                self.take(&whole, &mut full)?;
                whole.clear();
                self.carry = whole;
            }
            rest = after;
        }
        self.carry.extend_from_slice(rest);
        if self.carry.len() > MAX_LINE {
            return Err(LineTooLong { line: self.line + 1 });
        }
        Ok(full)
    }

    /// What waits, full or not.
    pub fn flush(&mut self) -> Vec<(usize, Batch)> {
        let waiting = self.filling.iter_mut().enumerate();
        waiting
            .filter(|(_, filling)| !filling.lines.is_empty())
            .map(|(lane, filling)| (lane, filling.take()))
            .collect()
    }

    /// The end of the input: a last line without a newline counts.
    pub fn finish(&mut self) -> Result<Vec<(usize, Batch)>, LineTooLong> {
        let mut out = Vec::new();
        if !self.carry.is_empty() {
            let last = std::mem::take(&mut self.carry);
            self.take(&last, &mut out)?;
        }
        out.extend(self.flush());
        Ok(out)
    }

    fn take(&mut self, line: &[u8], full: &mut Vec<(usize, Batch)>) -> Result<(), LineTooLong> {
        self.line += 1;
        if line.len() > MAX_LINE {
            return Err(LineTooLong { line: self.line });
        }
        if !self.routing.keep_empty && matches!(line, b"" | b"\r") {
            self.skipped += 1;
            return Ok(());
        }
        let lane = self.routing.lane(line);
        let filling = &mut self.filling[lane];
        if !filling.lines.is_empty() && filling.body.len() + line.len() >= BATCH_BYTES {
            full.push((lane, filling.take()));
        }
        filling.body.extend_from_slice(line);
        filling.body.extend_from_slice(b"\n");
        filling.lines.push(self.line);
        if filling.lines.len() >= self.routing.batch_records {
            full.push((lane, filling.take()));
        }
        Ok(())
    }
}

impl Filling {
    fn take(&mut self) -> Batch {
        Batch { body: self.body.split().freeze(), lines: std::mem::take(&mut self.lines) }
    }
}

impl Routing {
    /// Equal keys go the same way. A line whose key cannot be read goes anywhere: the host will say what is wrong with it.
    fn lane(&self, line: &[u8]) -> usize {
        if self.lanes <= 1 {
            return 0;
        }
        let key = match (&self.key_field, &self.key_separator) {
            (Some(field), _) => key::of_field(line, field).ok().flatten(),
            (None, Some(separator)) => key::before(line, separator.as_bytes()).map(|(key, _)| key.into()),
            (None, None) => None,
        };
        key.map_or(0, |key| (partition_of(&key, self.partitions) % self.lanes) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routing(lanes: u32) -> Routing {
        Routing {
            partitions: 8,
            lanes,
            key_field: (lanes > 1).then(|| "id".to_string()),
            key_separator: None,
            batch_records: 3,
            keep_empty: false,
        }
    }

    fn bodies(batches: Vec<(usize, Batch)>) -> Vec<(usize, String, Vec<u64>)> {
        batches
            .into_iter()
            .map(|(lane, b)| (lane, String::from_utf8_lossy(&b.body).into_owned(), b.lines))
            .collect()
    }

    #[test]
    fn lines_survive_any_cut_of_the_input() {
        let input = b"one\ntwo\r\n\nthree\n\r\nfour";
        for cut in 0..=input.len() {
            let mut router = LineRouter::new(routing(1));
            let mut out = router.push(&input[..cut]).unwrap();
            out.extend(router.push(&input[cut..]).unwrap());
            out.extend(router.finish().unwrap());
            let expected =
                [(0, "one\ntwo\r\nthree\n".to_string(), vec![1, 2, 4]), (0, "four\n".to_string(), vec![6])];
            assert_eq!(bodies(out), expected, "cut at {cut}");
            assert_eq!(router.skipped(), 2);
        }
    }

    #[test]
    fn equal_keys_take_the_same_lane_in_order() {
        let mut router = LineRouter::new(routing(4));
        let mut out = Vec::new();
        for i in 0..100 {
            let line = format!("{{\"n\":{i},\"id\":\"k{}\"}}\n", i % 7);
            out.extend(router.push(line.as_bytes()).unwrap());
        }
        out.extend(router.finish().unwrap());
        let mut seen: std::collections::HashMap<String, (usize, u64)> = Default::default();
        let mut records = 0;
        for (lane, body, _) in bodies(out) {
            for line in body.lines() {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                let (key, n) = (value["id"].to_string(), value["n"].as_u64().unwrap());
                if let Some((before, last)) = seen.insert(key, (lane, n)) {
                    assert_eq!(before, lane);
                    assert!(last < n);
                }
                records += 1;
            }
        }
        assert_eq!(records, 100);
        let lanes: std::collections::HashSet<usize> = seen.values().map(|(lane, _)| *lane).collect();
        assert!(lanes.len() > 1, "seven keys all took one lane");
    }

    #[test]
    fn an_endless_line_is_refused_with_its_number() {
        let mut router = LineRouter::new(routing(1));
        router.push(b"fine\n").unwrap();
        let piece = vec![b'x'; 700_000];
        router.push(&piece).unwrap();
        let error = router.push(&piece).unwrap_err().to_string();
        assert!(error.starts_with("line 2 is longer"), "{error}");
    }

    #[test]
    fn batches_stay_small_however_long_the_lines() {
        let mut router = LineRouter::new(Routing { batch_records: 10_000, ..routing(1) });
        let mut line = vec![b'x'; 900_000];
        line.push(b'\n');
        let mut largest = 0;
        for _ in 0..10 {
            for (_, batch) in router.push(&line).unwrap() {
                largest = largest.max(batch.body.len());
            }
        }
        assert!(largest > 0 && largest <= BATCH_BYTES, "{largest}");
    }
}
