//! Two components on the same records: where do they answer differently, and what does each cost?
//!
//! Emissions and row changes are compared to the byte and in their order, message by message. No time is the time of the
//! message, as it is in a host. The reasons of refusals are for people, and are not compared.

use std::collections::BTreeMap;

use serde_json::json;

use super::TestArgs;
use crate::cli::output::{count, print};
use crate::cli::plugin::component::Opened;
use crate::cli::plugin::shown::{self, Counts, port, words};
use crate::pipeline::trial::{Event, Trial, What};
use crate::plugin::PluginKind;

/// What has been found so far.
pub(super) struct Comparison<'a> {
    args: &'a TestArgs,
    records: u64,
    differing: u64,
    /// Lines that may still be printed.
    left: u64,
}

/// How the answers to one message differ.
#[derive(Debug, PartialEq)]
struct Difference {
    /// Its place in the batch; None for what belongs to no message.
    input: Option<usize>,
    /// Names of what differs.
    what: Vec<&'static str>,
    a: Vec<String>,
    b: Vec<String>,
}

/// Runs both. False if they differ.
pub(super) async fn run(args: &TestArgs, a: &Opened, b: &Opened) -> anyhow::Result<bool> {
    let mut comparison = Comparison { args, records: 0, differing: 0, left: args.show };
    let (mut trial_a, mut trial_b) = (args.trial(a).await?, args.trial(b).await?);
    let (mut made_a, mut made_b) = (0, 0);
    if a.plugin.kind() == PluginKind::Producer {
        let (mut at_a, mut at_b) = (None, None);
        for number in 0..args.polls {
            let (from_a, next_a) = trial_a.poll(args.poll(number, at_a)).await?;
            let (from_b, next_b) = trial_b.poll(args.poll(number, at_b)).await?;
            (at_a, at_b) = (Some(next_a), Some(next_b));
            made_a += from_a.len() as u64;
            made_b += from_b.len() as u64;
            comparison.records += 1;
            if !comparison.batch(0, &from_a, &from_b)? {
                break;
            }
        }
    } else {
        let mut records = args.records()?;
        loop {
            let batch = records.batch(args.batch as usize)?;
            if batch.is_empty() {
                break;
            }
            let (from_a, from_b) = (trial_a.batch(&batch).await?, trial_b.batch(&batch).await?);
            let first = comparison.records;
            comparison.records += batch.len() as u64;
            if !comparison.batch(first, &from_a, &from_b)? {
                break;
            }
        }
        (made_a, made_b) = (comparison.records, comparison.records);
    }
    comparison.finish([(a, &trial_a, made_a), (b, &trial_b, made_b)])
}

impl Comparison<'_> {
    /// `first` is how many messages came before. False: nobody reads any more.
    fn batch(&mut self, first: u64, a: &[Event], b: &[Event]) -> anyhow::Result<bool> {
        let mut out = String::new();
        for difference in differences(a, b) {
            self.differing += 1;
            if self.left == 0 && !self.args.json {
                continue;
            }
            self.left = self.left.saturating_sub(1);
            let place = difference.input.map(|input| first + input as u64);
            out.push_str(&if self.args.json { difference.json(place) } else { difference.text(place) });
        }
        Ok(print(&out)?)
    }

    fn finish(self, sides: [(&Opened, &Trial, u64); 2]) -> anyhow::Result<bool> {
        let same = self.differing == 0;
        let counts = |records| Counts { records, ..Counts::default() };
        if self.args.json {
            let [a, b] =
                sides.map(|(opened, trial, made)| shown::summary(opened, &counts(made), trial.used()));
            let summary = json!({ "records": self.records, "differing": self.differing, "a": a, "b": b });
            print(&format!("{}\n", json!({ "summary": summary })))?;
            return Ok(same);
        }
        let found = match self.differing {
            0 => "the answers are the same".to_string(),
            n => format!("the answers to {} differ", count(n)),
        };
        let [a, b] = sides.map(|(opened, trial, made)| shown::cost(opened, &counts(made), trial.used()));
        let given = if sides[0].0.plugin.kind() == PluginKind::Producer { "polls" } else { "records" };
        print(&format!("\n{} {given}: {found}\n- {a}\n+ {b}\n", count(self.records)))?;
        Ok(same)
    }
}

/// Where two answers to one batch differ, in the order of its messages.
fn differences(a: &[Event], b: &[Event]) -> Vec<Difference> {
    let (a, b) = (by_input(a), by_input(b));
    let mut inputs: Vec<Option<usize>> = a.keys().chain(b.keys()).copied().collect();
    inputs.sort_unstable();
    inputs.dedup();
    let none = Vec::new();
    let difference = |input: Option<usize>| {
        let (a, b) = (a.get(&input).unwrap_or(&none), b.get(&input).unwrap_or(&none));
        let what = differing(a, b);
        let (a, b) = (a.iter().map(|what| words(what)), b.iter().map(|what| words(what)));
        (!what.is_empty()).then(|| Difference { input, what, a: a.collect(), b: b.collect() })
    };
    inputs.into_iter().filter_map(difference).collect()
}

fn by_input(events: &[Event]) -> BTreeMap<Option<usize>, Vec<&What>> {
    let mut found: BTreeMap<Option<usize>, Vec<&What>> = BTreeMap::new();
    for event in events {
        found.entry(event.input).or_default().push(&event.what);
    }
    found
}

/// Names of what differs, each once.
fn differing(a: &[&What], b: &[&What]) -> Vec<&'static str> {
    let mut names = Vec::new();
    if a.len() != b.len() {
        names.push("number");
    }
    for (a, b) in a.iter().zip(b) {
        match (a, b) {
            (What::Emission(a), What::Emission(b)) => {
                let parts = [
                    (port(a) != port(b), "port"),
                    (a.key != b.key, "key"),
                    (a.headers != b.headers, "headers"),
                    (a.timestamp != b.timestamp, "timestamp"),
                    (a.payload != b.payload, "payload"),
                ];
                names.extend(parts.iter().filter(|(differs, _)| *differs).map(|(_, name)| *name));
            }
            (What::Change(a), What::Change(b)) if (&a.table, &a.change) != (&b.table, &b.change) => {
                names.push("row");
            }
            (What::Again(a), What::Again(b)) if a != b => names.push("wait"),
            (What::Retry(a), What::Retry(b)) if a.after != b.after => names.push("wait"),
            (What::Done(a), What::Done(b)) if a != b => names.push("result"),
            (a, b) if std::mem::discriminant(*a) != std::mem::discriminant(*b) => names.push("kind"),
            _ => {}
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

impl Difference {
    fn text(&self, place: Option<u64>) -> String {
        let place = place.map_or("[batch]".to_string(), |place| format!("[{place}]"));
        let mut out = format!("{place} {}\n", self.what.join(", "));
        let none = ["nothing".to_string()];
        for (sign, lines) in [("-", &self.a), ("+", &self.b)] {
            let lines = if lines.is_empty() { none.as_slice() } else { lines };
            out.extend(lines.iter().map(|line| format!("  {sign} {line}\n")));
        }
        out
    }

    fn json(&self, place: Option<u64>) -> String {
        let value = json!({ "input": place, "what": self.what, "a": self.a, "b": self.b });
        format!("{}\n", json!({ "difference": value }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Emission;

    fn emitted(input: usize, port: Option<&str>, key: &str, payload: &str) -> Event {
        let emission = Emission {
            input: None,
            port: port.map(str::to_string),
            key: Some(key.as_bytes().to_vec()),
            headers: Vec::new(),
            timestamp: None,
            payload: payload.as_bytes().to_vec(),
        };
        Event { input: Some(input), what: What::Emission(emission) }
    }

    fn refused(input: usize, reason: &str) -> Event {
        Event { input: Some(input), what: What::Rejected(reason.to_string()) }
    }

    #[test]
    fn answers_in_other_words_are_the_same() {
        let a = [emitted(0, None, "k", "x"), refused(1, "no JSON")];
        let b = [refused(1, "not a JSON document"), emitted(0, Some("default"), "k", "x")];
        assert_eq!(differences(&a, &b), []);
    }

    #[test]
    fn what_differs_is_named_by_message() {
        let a = [
            emitted(0, None, "k", "x"),
            emitted(1, None, "k", "x"),
            refused(2, "no"),
            emitted(4, None, "k", "x"),
        ];
        let b = [emitted(0, Some("odd"), "l", "x"), emitted(1, None, "k", "y"), emitted(2, None, "k", "x")];
        let found = differences(&a, &b);
        let named: Vec<(Option<usize>, &[&str])> =
            found.iter().map(|difference| (difference.input, difference.what.as_slice())).collect();
        assert_eq!(
            named,
            [
                (Some(0), ["key", "port"].as_slice()),
                (Some(1), &["payload"]),
                (Some(2), &["kind"]),
                (Some(4), &["number"]),
            ]
        );
        assert_eq!(found[3].text(Some(9)), "[9] number\n  - -> default key k: x\n  + nothing\n");
    }
}
