//! What a plugin did, in lines for people or for programs.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::component::Opened;
use crate::cli::output::{count, plain, print, rate, size};
use crate::pipeline::test_run::rows::{Change, Rows};
use crate::pipeline::trial::{Event, Input, Used, What};
use crate::plugin::{DEFAULT_PORT, Emission};

/// Payloads are cut past this many characters where people read them.
const MAX_SHOWN: usize = 400;

/// How a message is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By its place in the input, from 0.
    Place,
    /// By its offset.
    Offset,
}

/// Prints what a plugin does, and counts it.
pub struct Printer {
    json: bool,
    naming: Naming,
    /// Lines that may still be printed.
    left: u64,
    hidden: u64,
    rows: Rows,
    pub counts: Counts,
}

/// What a plugin did in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    /// By port.
    pub emissions: BTreeMap<String, u64>,
    pub changes: u64,
    pub rejected: u64,
    pub again: u64,
    /// Of a worker.
    pub done: u64,
    pub cancelled: u64,
    pub failed: u64,
}

impl Counts {
    fn add(&mut self, what: &What) {
        match what {
            What::Emission(emission) => *self.emissions.entry(port(emission).to_string()).or_default() += 1,
            What::Change(_) => self.changes += 1,
            What::Rejected(_) => self.rejected += 1,
            What::Again(_) | What::Retry(_) => self.again += 1,
            What::Done(_) => self.done += 1,
            What::Cancelled(_) => self.cancelled += 1,
            What::Failed(_) => self.failed += 1,
        }
    }

    fn text(&self) -> String {
        let emitted: u64 = self.emissions.values().sum();
        let mut parts = Vec::new();
        if emitted > 0 || self.changes + self.done == 0 {
            let ports: Vec<String> =
                self.emissions.iter().map(|(port, n)| format!("{} {port}", count(*n))).collect();
            let ports = if ports.is_empty() { String::new() } else { format!(" ({})", ports.join(", ")) };
            parts.push(format!("{} emissions{ports}", count(emitted)));
        }
        let rest = [
            (self.changes, "row changes"),
            (self.done, "jobs done"),
            (self.rejected, "refused"),
            (self.again, "to come again"),
            (self.cancelled, "cancelled"),
            (self.failed, "failed"),
        ];
        parts.extend(rest.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(*n))));
        parts.join(", ")
    }
}

impl Printer {
    /// `most` lines are printed, all of them as JSON.
    pub fn new(opened: &Opened, json: bool, naming: Naming, most: u64) -> Self {
        let left = if json { u64::MAX } else { most };
        let rows = Rows::new(&opened.descriptor);
        Self { json, naming, left, hidden: 0, rows, counts: Counts::default() }
    }

    /// Prints what the plugin made of a batch. False: nobody reads any more.
    pub fn batch(&mut self, batch: &[Input], events: Vec<Event>) -> io::Result<bool> {
        let first = self.counts.records;
        self.counts.records += batch.len() as u64;
        let mut out = String::new();
        for event in events {
            self.counts.add(&event.what);
            if let (What::Change(change), Some(input)) = (&event.what, event.input) {
                // Rows are shown as they are in the end.
                let before = first + (input as u64).saturating_sub(u64::from(change.input));
                self.rows.add(Change::new(usize::try_from(before).unwrap_or(usize::MAX), change.clone()));
                continue;
            }
            if self.left == 0 {
                self.hidden += 1;
                continue;
            }
            self.left -= 1;
            let place = self.place(first, batch, event.input);
            out.push_str(&if self.json { json_line(&place, &event.what) } else { line(&place, &event.what) });
            out.push('\n');
        }
        print(&out)
    }

    fn place(&self, first: u64, batch: &[Input], input: Option<usize>) -> Value {
        match (input, self.naming) {
            (None, _) => Value::Null,
            (Some(input), Naming::Place) => json!(first + input as u64),
            (Some(input), Naming::Offset) => json!(batch.get(input).map(|input| input.message.offset)),
        }
    }

    /// Prints the rows that are left, and what it all came to.
    pub fn finish(mut self, opened: &Opened, used: Used) -> io::Result<bool> {
        let mut out = String::new();
        let rows = std::mem::replace(&mut self.rows, Rows::new(&opened.descriptor)).finish();
        for (table, row) in rows.iter().flat_map(|(table, rows)| rows.iter().map(move |row| (table, row))) {
            if self.left == 0 {
                self.hidden += 1;
                continue;
            }
            self.left -= 1;
            out.push_str(&match self.json {
                true => format!("{}\n", json!({ "row": { "table": table, "values": row } })),
                false => format!("{table}: {}\n", cut(&row.to_string())),
            });
        }
        if self.hidden > 0 {
            out.push_str(&format!("… {} lines more; --show N prints N of them\n", count(self.hidden)));
        }
        out.push_str(&match self.json {
            true => format!("{}\n", json!({ "summary": summary(opened, &self.counts, used) })),
            false => format!(
                "\n{}: {}\n{}\n",
                given(&self.counts, used),
                self.counts.text(),
                cost(opened, &self.counts, used)
            ),
        });
        print(&out)
    }
}

/// What the plugin was given. A producer is only asked.
fn given(counts: &Counts, used: Used) -> String {
    let calls = if used.calls == 1 { "1 call".to_string() } else { format!("{} calls", count(used.calls)) };
    match counts.records {
        0 => calls,
        1 => format!("1 record in {calls}"),
        n => format!("{} records in {calls}", count(n)),
    }
}

/// One thing a plugin did, for people.
fn line(place: &Value, what: &What) -> String {
    let place = if place.is_null() { "[batch]".to_string() } else { format!("[{place}]") };
    format!("{place} {}", words(what))
}

/// What was done, without to which message.
pub fn words(what: &What) -> String {
    match what {
        What::Emission(emission) => {
            let key = emission.key.as_deref().map(|key| format!(" key {}", text(key))).unwrap_or_default();
            let headers: Vec<String> =
                emission.headers.iter().map(|h| format!("{}={}", plain(&h.name), text(&h.value))).collect();
            let headers =
                if headers.is_empty() { String::new() } else { format!(" headers {}", headers.join(" ")) };
            let time = emission.timestamp.map(|at| format!(" time {at}")).unwrap_or_default();
            format!("-> {}{key}{headers}{time}: {}", port(emission), text(&emission.payload))
        }
        What::Change(change) => format!("{}: {}", plain(&change.table), cut(&format!("{:?}", change.change))),
        What::Rejected(reason) => format!("refused: {}", cut(reason)),
        What::Again(None) => "to come again".to_string(),
        What::Again(Some(after)) => {
            format!("to come again after {}", humantime::format_duration(Duration::from_micros(*after)))
        }
        What::Done(None) => "done".to_string(),
        What::Done(Some(result)) => format!("done: {}", text(result)),
        What::Retry(retry) => {
            let after = words(&What::Again(retry.after));
            format!("{after}: {}", cut(&retry.reason))
        }
        What::Cancelled(reason) => format!("cancelled: {}", cut(reason)),
        What::Failed(error) => format!("FAILED: {}", cut(&error.to_string())),
    }
}

fn json_line(place: &Value, what: &What) -> String {
    let value = match what {
        What::Emission(emission) => {
            let headers: Vec<Value> = emission
                .headers
                .iter()
                .map(|h| match std::str::from_utf8(&h.value) {
                    Ok(text) => json!([h.name, text]),
                    Err(_) => json!([h.name, { "base64": STANDARD.encode(&h.value) }]),
                })
                .collect();
            let mut fields = Map::new();
            fields.insert("input".to_string(), place.clone());
            fields.insert("port".to_string(), json!(port(emission)));
            bytes(&mut fields, "key", "key_base64", emission.key.as_deref());
            bytes(&mut fields, "text", "base64", Some(&emission.payload));
            fields.insert("headers".to_string(), json!(headers));
            if let Some(at) = emission.timestamp {
                fields.insert("timestamp".to_string(), json!(crate::clock::rfc3339(at)));
            }
            json!({ "emission": fields })
        }
        What::Change(change) => json!({ "change": { "input": place, "table": change.table } }),
        What::Rejected(reason) => json!({ "refused": { "input": place, "reason": reason } }),
        What::Again(after) => json!({ "again": { "input": place, "after_us": after } }),
        What::Done(result) => {
            let mut fields = Map::new();
            fields.insert("input".to_string(), place.clone());
            bytes(&mut fields, "text", "base64", result.as_deref());
            json!({ "done": fields })
        }
        What::Retry(retry) => {
            json!({ "again": { "input": place, "after_us": retry.after, "reason": retry.reason } })
        }
        What::Cancelled(reason) => json!({ "cancelled": { "input": place, "reason": reason } }),
        What::Failed(error) => json!({ "failed": { "input": place, "error": error.to_string() } }),
    };
    value.to_string()
}

fn bytes(fields: &mut Map<String, Value>, name: &str, coded: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => fields.insert(name.to_string(), Value::Null),
        Some((_, Ok(text))) => fields.insert(name.to_string(), json!(text)),
        Some((bytes, Err(_))) => fields.insert(coded.to_string(), json!(STANDARD.encode(bytes))),
    };
}

/// What a trial came to, for programs.
pub fn summary(opened: &Opened, counts: &Counts, used: Used) -> Value {
    json!({
        "name": opened.descriptor.name, "version": opened.descriptor.version,
        "digest": opened.plugin.digest().as_str(), "records": counts.records, "calls": used.calls,
        "emissions": counts.emissions, "row_changes": counts.changes, "refused": counts.rejected,
        "again": counts.again, "done": counts.done, "cancelled": counts.cancelled, "failed": counts.failed, "time_us": used.time.as_micros() as u64,
        "memory": used.memory, "compiled_in_us": opened.compiled_in.as_micros() as u64,
    })
}

/// Time and memory, for people.
pub fn cost(opened: &Opened, counts: &Counts, used: Used) -> String {
    let made: u64 = counts.emissions.values().sum();
    let records = if counts.records > 0 { counts.records } else { made };
    let seconds = used.time.as_secs_f64();
    let each =
        if records > 0 { format!(", {} a record", time(seconds / records as f64)) } else { String::new() };
    let speed = if records > 0 && seconds > 0.0 {
        format!(", {}", rate(records as f64 / seconds).replace("/s", " records/s"))
    } else {
        String::new()
    };
    format!(
        "{} {} ({}): {} in the plugin{each}{speed}; {} of memory; compiled in {}",
        plain(&opened.descriptor.name),
        plain(&opened.descriptor.version),
        opened.plugin.digest().short(),
        time(seconds),
        size(used.memory),
        time(opened.compiled_in.as_secs_f64())
    )
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.1} us", s * 1e6),
    }
}

pub fn port(emission: &Emission) -> &str {
    emission.port.as_deref().unwrap_or(DEFAULT_PORT)
}

/// Bytes for people.
pub fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => cut(text),
        Err(_) => cut(&format!("hex {}", hex::encode(bytes))),
    }
}

fn cut(text: &str) -> String {
    let mut line: String = plain(text).chars().take(MAX_SHOWN).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_without_those_that_are_none() {
        let mut counts = Counts::default();
        assert_eq!(counts.text(), "0 emissions");
        counts.emissions = BTreeMap::from([("alerts".to_string(), 2), ("default".to_string(), 1_000)]);
        counts.rejected = 3;
        assert_eq!(counts.text(), "1,002 emissions (2 alerts, 1,000 default), 3 refused");
        counts = Counts { changes: 4, failed: 1, ..Counts::default() };
        assert_eq!(counts.text(), "4 row changes, 1 failed");
    }

    #[test]
    fn bytes_are_shown_on_one_line() {
        assert_eq!(text(b"a\nb\x1b"), "a b ");
        assert_eq!(text(b"\xff\x00"), "hex ff00");
        assert_eq!(text(&[b'x'; 500]).chars().count(), 401);
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        assert_eq!([2.0, 0.0123, 0.000_004_2].map(time), ["2.0 s", "12.3 ms", "4.2 us"]);
    }
}
