//! How what came out differs from what a test expects, in lines for people: `-` is missing, `+` is too much.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Emitted, Outcome, Refuse};
use crate::config::plan::{Expectation, ExpectedEmission, ExpectedPayload};

/// Lines past this many are not shown.
const MAX_LINES: usize = 20;
/// A payload is cut past this many characters.
const MAX_SHOWN: usize = 240;

pub(super) fn differences(expect: &Expectation, outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(expected) = &expect.emissions {
        emissions(expected, &outcome.emissions, &mut lines);
    }
    if let Some(expected) = expect.rejects {
        rejects(expected, &outcome.refusals, &mut lines);
    }
    if let Some(expected) = &expect.rows {
        rows(expected, &outcome.rows, &mut lines);
    }
    // The reason of a refusal mostly explains all the rest.
    if !lines.is_empty() && expect.rejects.is_none() {
        lines.extend(outcome.refusals.iter().map(refused));
    }
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("and {more} lines more"));
    }
    lines
}

fn emissions(expected: &[ExpectedEmission], got: &[Emitted], lines: &mut Vec<String>) {
    let mut found = Vec::new();
    for i in 0..expected.len().max(got.len()) {
        match (expected.get(i), got.get(i)) {
            (Some(wanted), Some(got)) => emission(i, wanted, got, &mut found),
            (Some(wanted), None) => found.push(format!("- [{i}] {}", wanted_line(wanted))),
            (None, Some(got)) => found.push(format!("+ [{i}] {}", got_line(got))),
            (None, None) => {}
        }
    }
    if !found.is_empty() {
        lines.push(format!("emissions: expected {}, got {}", expected.len(), got.len()));
        lines.extend(found);
    }
}

fn emission(i: usize, wanted: &ExpectedEmission, got: &Emitted, found: &mut Vec<String>) {
    let right_port = wanted.port.as_ref().is_none_or(|port| *port == got.port);
    let wanted_json = match &wanted.payload {
        ExpectedPayload::Any => None,
        ExpectedPayload::Exactly(text) => json(text),
        ExpectedPayload::Fields(fields) => Some(Value::Object(fields.clone())),
    };
    let got_json = json(&got.payload);
    let same = match (&wanted.payload, &wanted_json, &got_json) {
        (ExpectedPayload::Any, ..) => true,
        (ExpectedPayload::Exactly(_), Some(wanted), Some(got)) => equal(wanted, got),
        (ExpectedPayload::Exactly(wanted), ..) => *wanted == got.payload,
        (ExpectedPayload::Fields(_), Some(wanted), Some(got)) => contains(got, wanted),
        (ExpectedPayload::Fields(_), ..) => false,
    };
    let partly = matches!(wanted.payload, ExpectedPayload::Fields(_));
    match (wanted_json, got_json) {
        _ if right_port && same => {}
        (Some(Value::Object(wanted)), Some(Value::Object(got))) if right_port => {
            let extra = got.keys().filter(|key| !partly && !wanted.contains_key(*key));
            for key in wanted.keys().chain(extra) {
                field(&format!("[{i}].{key}"), wanted.get(key), got.get(key), found);
            }
        }
        _ => {
            found.push(format!("- [{i}] {}", wanted_line(wanted)));
            found.push(format!("+ [{i}] {}", got_line(got)));
        }
    }
}

fn field(place: &str, wanted: Option<&Value>, got: Option<&Value>, found: &mut Vec<String>) {
    let line = match (wanted, got) {
        (Some(wanted), Some(got)) if equal(wanted, got) => return,
        (Some(wanted), Some(got)) => format!("expected {}, got {}", short(wanted), short(got)),
        (Some(wanted), None) => format!("expected {}, is missing", short(wanted)),
        (None, Some(got)) => format!("not expected, got {}", short(got)),
        (None, None) => return,
    };
    found.push(format!("  {place}: {line}"));
}

fn rejects(expected: u32, got: &[Refuse], lines: &mut Vec<String>) {
    if got.len() != expected as usize {
        lines.push(format!("rejects: expected {expected}, got {}", got.len()));
        lines.extend(got.iter().map(refused));
    }
}

fn refused(refuse: &Refuse) -> String {
    format!("  input [{}] was refused: {}", refuse.input, cut(&refuse.reason))
}

/// Each expected row takes one row that has all its columns; none may be left over.
fn rows(expected: &BTreeMap<String, Vec<Value>>, got: &[(String, Vec<Value>)], lines: &mut Vec<String>) {
    for (table, wanted) in expected {
        let rows = got.iter().find(|(name, _)| name == table);
        let mut left: Vec<&Value> = rows.iter().flat_map(|(_, rows)| rows).collect();
        let count = left.len();
        let mut missing = Vec::new();
        for row in wanted {
            match left.iter().position(|got| contains(got, row)) {
                Some(at) => drop(left.remove(at)),
                None => missing.push(row),
            }
        }
        if missing.is_empty() && left.is_empty() {
            continue;
        }
        lines.push(format!("rows of {table}: expected {}, got {count}", wanted.len()));
        if let ([row], [Value::Object(got)], Value::Object(wanted)) =
            (missing.as_slice(), left.as_slice(), missing.first().copied().unwrap_or(&Value::Null))
            && row.is_object()
        {
            for (key, value) in wanted {
                field(&format!("row.{key}"), Some(value), got.get(key), lines);
            }
            continue;
        }
        lines.extend(missing.iter().map(|row| format!("- {}", short(row))));
        lines.extend(left.iter().map(|row| format!("+ {}", short(row))));
    }
}

fn contains(row: &Value, wanted: &Value) -> bool {
    let columns = wanted.as_object().into_iter().flatten();
    columns.into_iter().all(|(column, value)| row.get(column).is_some_and(|got| equal(value, got)))
}

/// Equal as JSON; a number is equal however it is written, and so is a time.
fn equal(wanted: &Value, got: &Value) -> bool {
    match (wanted, got) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (Value::String(a), Value::String(b)) => a == b || time(a).is_some_and(|a| Some(a) == time(b)),
        (a, b) => a == b,
    }
}

fn time(text: &str) -> Option<jiff::Timestamp> {
    text.parse().ok()
}

fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

fn wanted_line(wanted: &ExpectedEmission) -> String {
    let payload = match &wanted.payload {
        ExpectedPayload::Any => "anything".to_string(),
        ExpectedPayload::Exactly(text) => cut(text),
        ExpectedPayload::Fields(fields) => format!("{} and more", short(&Value::Object(fields.clone()))),
    };
    match &wanted.port {
        Some(port) => format!("{port}: {payload}"),
        None => payload,
    }
}

fn got_line(got: &Emitted) -> String {
    format!("{}: {}", got.port, cut(&got.payload))
}

fn short(value: &Value) -> String {
    cut(&value.to_string())
}

/// One line, without control characters, not too long.
fn cut(text: &str) -> String {
    let mut line: String =
        text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn emitted(port: &str, payload: &str) -> Emitted {
        Emitted { port: port.to_string(), payload: payload.to_string() }
    }

    fn wanted(port: Option<&str>, payload: &str) -> ExpectedEmission {
        let payload = ExpectedPayload::Exactly(payload.to_string());
        ExpectedEmission { port: port.map(str::to_string), payload }
    }

    fn compare(expected: Vec<ExpectedEmission>, got: Vec<Emitted>) -> Vec<String> {
        let expect = Expectation { emissions: Some(expected), ..Expectation::default() };
        differences(&expect, &Outcome { emissions: got, ..Outcome::default() })
    }

    #[test]
    fn json_is_compared_as_json_and_text_as_text() {
        let same = compare(
            vec![wanted(None, r#"{"a":1,"b":2.0}"#), wanted(Some("x"), "plain")],
            vec![emitted("default", r#"{ "b": 2, "a": 1.0 }"#), emitted("x", "plain")],
        );
        assert_eq!(same, Vec::<String>::new());
    }

    #[test]
    fn the_differing_field_is_named() {
        let lines = compare(
            vec![wanted(None, r#"{"a":1,"b":2,"c":3}"#)],
            vec![emitted("default", r#"{"a":1,"b":5,"d":4}"#)],
        );
        assert_eq!(
            lines,
            [
                "emissions: expected 1, got 1",
                "  [0].b: expected 2, got 5",
                "  [0].c: expected 3, is missing",
                "  [0].d: not expected, got 4",
            ]
        );
    }

    #[test]
    fn fields_are_looked_at_and_the_rest_is_not() {
        let with = |payload| vec![ExpectedEmission { port: None, payload }];
        let fields = |value: Value| ExpectedPayload::Fields(value.as_object().cloned().unwrap_or_default());
        let got = || vec![emitted("default", r#"{"a":1,"b":2}"#)];
        assert!(compare(with(ExpectedPayload::Any), got()).is_empty());
        assert!(compare(with(fields(json!({"a": 1}))), got()).is_empty());
        let lines = compare(with(fields(json!({"a": 2}))), got());
        assert_eq!(lines, ["emissions: expected 1, got 1", "  [0].a: expected 2, got 1"]);
        assert_eq!(compare(with(fields(json!({"a": 2}))), vec![emitted("default", "text")]).len(), 3);
    }

    #[test]
    fn what_is_missing_or_too_much_or_on_another_port_is_shown() {
        let lines =
            compare(vec![wanted(Some("alerts"), "a"), wanted(None, "b")], vec![emitted("default", "a")]);
        assert_eq!(lines, ["emissions: expected 2, got 1", "- [0] alerts: a", "+ [0] default: a", "- [1] b"]);
        assert_eq!(compare(vec![], vec![emitted("default", "a")])[1], "+ [0] default: a");
    }

    #[test]
    fn rows_match_in_the_columns_they_name_in_any_order() {
        let got = vec![
            json!({"id": "a", "n": 1, "at": "2024-01-01T00:00:00Z"}),
            json!({"id": "b", "n": 2, "at": "2024-01-01T00:00:00Z"}),
        ];
        let outcome = Outcome { rows: vec![("t".to_string(), got)], ..Outcome::default() };
        let compare = |rows: Value| {
            let rows = rows.as_array().cloned().unwrap_or_default();
            let rows = Some(BTreeMap::from([("t".to_string(), rows)]));
            differences(&Expectation { rows, ..Expectation::default() }, &outcome)
        };
        let at = "2024-01-01T01:00:00+01:00";
        assert!(compare(json!([{"id": "b"}, {"id": "a", "at": at}])).is_empty());
        assert_eq!(compare(json!([{"id": "a"}])).len(), 2);
        assert_eq!(
            compare(json!([{"id": "a"}, {"id": "b", "n": 3}])),
            ["rows of t: expected 2, got 2", "  row.n: expected 3, got 2"]
        );
        assert_eq!(compare(json!([{"id": "a"}, {"id": "c"}, {"id": "d"}])).len(), 4);
    }

    #[test]
    fn a_failure_tells_why_messages_were_refused() {
        let refusals = vec![Refuse { input: 3, reason: "no\nid".to_string() }];
        let outcome = Outcome { refusals, ..Outcome::default() };
        let expect = Expectation { emissions: Some(vec![wanted(None, "x")]), ..Expectation::default() };
        let lines = differences(&expect, &outcome);
        assert_eq!(lines.last().map(String::as_str), Some("  input [3] was refused: no id"));
        let expect = Expectation { rejects: Some(0), ..Expectation::default() };
        assert_eq!(differences(&expect, &outcome).len(), 2);
        let expect = Expectation { rejects: Some(1), ..Expectation::default() };
        assert!(differences(&expect, &outcome).is_empty());
    }
}
