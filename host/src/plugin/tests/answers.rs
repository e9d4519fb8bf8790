//! Answers that do not keep to the plugin's descriptor or to the limits.

use super::super::output::Contract;
use super::*;

fn contract() -> Contract {
    let column = |name: &str, type_| Column { name: name.to_owned(), type_ };
    let descriptor = Descriptor {
        name: "sample".to_owned(),
        version: "1".to_owned(),
        description: String::new(),
        config_schema: String::new(),
        ports: vec![Port { name: "alerts".to_owned(), description: String::new() }],
        tables: vec![Table {
            name: "positions".to_owned(),
            columns: vec![
                column("id", ColumnType::Text),
                column("seen", ColumnType::Timestamp),
                column("extra", ColumnType::Json),
                column("raw", ColumnType::Bytes),
            ],
            key: vec!["id".to_owned()],
            newest_by: Some("seen".to_owned()),
        }],
    };
    Contract::new(&descriptor, &Limits { output_records: 3, output_bytes: 100, ..Limits::default() })
}

fn emission() -> Emission {
    Emission { input: None, port: None, key: None, headers: Vec::new(), timestamp: None, payload: Vec::new() }
}

fn row() -> Vec<Value> {
    vec![Value::Text("a1".to_owned()), Value::Timestamp(0), Value::Json("{}".to_owned()), Value::Null]
}

/// The verdict on what a transform emits from a batch of two.
fn emitted(emissions: Vec<Emission>, refusals: Vec<Refused>) -> String {
    verdict(contract().check_outcome(Outcome { emissions, refusals }, 2))
}

/// The verdict on one change of table `positions`, made from input 1 of a batch of two.
fn changed(change: Change) -> String {
    let change = RowChange { input: 1, table: "positions".to_owned(), change };
    verdict(contract().check_rows(RowOutcome { changes: vec![change], refusals: Vec::new() }, 2))
}

fn upserted(column: usize, value: Value) -> String {
    let mut row = row();
    row[column] = value;
    changed(Change::Upsert(row))
}

fn verdict<T>(checked: Result<T, CallError>) -> String {
    checked.map_or_else(|error| error.to_string(), |_| "fine".to_owned())
}

fn rejected(input: u32, reason: &str) -> Refused {
    Refused { input, refusal: Refusal::Reject(reason.to_owned()) }
}

#[track_caller]
fn assert_has(found: &str, expected: &str) {
    assert!(found.contains(expected), "`{found}` should have `{expected}`");
}

#[test]
fn declared_ports_and_the_default_are_fine() {
    let to = |port: Option<&str>| Emission { port: port.map(str::to_owned), input: Some(1), ..emission() };
    assert_eq!(emitted(vec![to(None), to(Some("default")), to(Some("alerts"))], vec![]), "fine");
    let found = emitted(vec![to(None), to(Some("al\nerts"))], vec![]);
    assert_has(&found, "emission 1 goes to port `al\\nerts`, which its descriptor does not declare");
}

#[test]
fn inputs_are_those_of_the_batch_and_not_refused() {
    let from = |input| Emission { input: Some(input), ..emission() };
    assert_has(&emitted(vec![from(2)], vec![]), "emission 0 names input 2 of a batch of 2");
    let both = emitted(vec![from(0)], vec![rejected(0, "no")]);
    assert_has(&both, "emission 0 comes from input 0, which is refused");
    assert_has(&emitted(vec![], vec![rejected(2, "")]), "refusal 0 names input 2 of a batch of 2");
    let twice = emitted(vec![], vec![rejected(1, ""), rejected(1, "")]);
    assert_has(&twice, "refusal 1 comes from input 1, which is refused");
}

#[test]
fn records_and_bytes_are_counted_with_keys_and_headers() {
    assert_eq!(emitted(vec![emission(); 3], vec![]), "fine");
    assert_has(&emitted(vec![emission(); 4], vec![]), "4 records, allowed are 3");
    let full = Emission {
        key: Some(vec![0; 30]),
        headers: vec![Header { name: "h".repeat(10), value: vec![0; 10] }],
        payload: vec![0; 50],
        ..emission()
    };
    assert_eq!(emitted(vec![full.clone()], vec![]), "fine");
    assert_has(
        &emitted(vec![full.clone(), Emission { payload: vec![0], ..emission() }], vec![]),
        "more than 100 B",
    );
    assert_has(&emitted(vec![full], vec![rejected(0, "x")]), "more than 100 B");
}

#[test]
fn a_reason_is_made_fit_to_be_stored() {
    let outcome = Outcome { emissions: vec![], refusals: vec![rejected(0, "a\0b")] };
    let checked = contract().check_outcome(outcome, 1).unwrap();
    assert_eq!(checked.refusals, [rejected(0, "a\\u{0}b")]);
}

#[test]
fn times_and_header_names_are_checked() {
    let at = |timestamp| emitted(vec![Emission { timestamp: Some(timestamp), ..emission() }], vec![]);
    assert_eq!(at(253_402_300_799_999_999), "fine");
    assert_has(&at(253_402_300_800_000_000), "not within the years 1 to 9999");
    assert_has(&at(i64::MIN), "not within the years 1 to 9999");
    let header = Header { name: "a\0".to_owned(), value: vec![] };
    let found = emitted(vec![Emission { headers: vec![header], ..emission() }], vec![]);
    assert_has(&found, "NUL character in the name of a header");
}

#[test]
fn a_producer_gives_what_was_asked_for() {
    let made = |emissions, position| {
        verdict(contract().check_production(Production { emissions, position, next: 0 }, 2))
    };
    assert_eq!(made(vec![emission(); 2], vec![1]), "fine");
    assert_has(&made(vec![emission(); 3], vec![]), "3 records, allowed are 2");
    assert_has(&made(vec![Emission { input: Some(0), ..emission() }], vec![]), "a producer has none");
    assert_has(&made(vec![], vec![0; (1 << 20) + 1]), "its position has 1048577 bytes");
}

/// What a worker's answer to a batch of two jobs is found to be.
fn worked(verdicts: Vec<Verdict>, emissions: Vec<Emission>) -> Result<WorkOutcome, String> {
    contract().check_work(WorkOutcome { verdicts, emissions }, 2).map_err(|error| error.to_string())
}

#[test]
fn each_job_gets_one_verdict() {
    let done = Verdict::Done(None);
    assert!(worked(vec![done.clone(); 2], vec![]).is_ok());
    let few = worked(vec![done.clone()], vec![]).unwrap_err();
    assert_has(&few, "it has 1 verdicts for a batch of 2 jobs");
    let many = worked(vec![done; 3], vec![]).unwrap_err();
    assert_has(&many, "it has 3 verdicts for a batch of 2 jobs");
}

#[test]
fn what_a_job_emits_that_is_not_done_is_dropped() {
    let from = |input| Emission { input: Some(input), ..emission() };
    let verdicts = || vec![Verdict::Snooze(1), Verdict::Done(None)];
    let outcome = worked(verdicts(), vec![from(0), from(1), from(0)]).unwrap();
    assert_eq!(outcome.emissions, [from(1)]);
    let stray = worked(verdicts(), vec![from(1), from(2)]).unwrap_err();
    assert_has(&stray, "emission 1 names input 2 of a batch of 2");
    let unnamed = worked(verdicts(), vec![emission()]).unwrap_err();
    assert_has(&unnamed, "emission 0 names no input, but could come from each of 2 jobs");
    let alone = WorkOutcome { verdicts: vec![Verdict::Done(None)], emissions: vec![emission()] };
    assert_eq!(contract().check_work(alone, 1).unwrap().emissions, [from(0)]);
}

#[test]
fn results_reasons_and_waits_of_verdicts_have_their_limits() {
    let one = |verdict| worked(vec![verdict, Verdict::Done(None)], vec![]);
    assert!(one(Verdict::Done(Some(vec![0; 100]))).is_ok());
    assert_has(&one(Verdict::Done(Some(vec![0; 101]))).unwrap_err(), "more than 100 B");
    assert_has(&one(Verdict::Reject("x".repeat(101))).unwrap_err(), "more than 100 B");
    let both = worked(vec![Verdict::Done(Some(vec![0; 60])), Verdict::Cancel("x".repeat(41))], vec![]);
    assert_has(&both.unwrap_err(), "more than 100 B");
    assert_has(&one(Verdict::Snooze(u64::MAX)).unwrap_err(), "verdict 0 waits for");
    let retry = |after| Verdict::Retry(RetryJob { reason: "a\0b".to_owned(), after });
    assert_has(&one(retry(Some(u64::MAX))).unwrap_err(), "more than ten years");
    let kept = one(retry(None)).unwrap();
    assert_eq!(kept.verdicts[0], Verdict::Retry(RetryJob { reason: "a\\u{0}b".to_owned(), after: None }));
    let emissions = vec![Emission { input: Some(0), ..emission() }; 4];
    let many = worked(vec![Verdict::Done(None), Verdict::Done(None)], emissions).unwrap_err();
    assert_has(&many, "4 records, allowed are 3");
}

#[test]
fn rows_fit_their_table() {
    assert_eq!(changed(Change::Upsert(row())), "fine");
    assert_has(&changed(Change::Upsert(row()[..3].to_vec())), "change 0 has 3 values for the 4 columns");
    assert_has(&upserted(0, Value::Integer(1)), "a value of type integer in column `id` of type text");
    assert_has(&upserted(0, Value::Null), "has no value in column `id`");
    assert_has(&upserted(1, Value::Null), "has no value in column `seen`");
    assert_eq!(upserted(2, Value::Null), "fine");
    assert_has(&upserted(1, Value::Timestamp(i64::MAX)), "not within the years");
    assert_has(&upserted(3, Value::Bytes(vec![0; 101])), "more than 100 B");
    assert_eq!(changed(Change::Delete(vec![Value::Text("a1".to_owned())])), "fine");
    assert_has(&changed(Change::Delete(row())), "deletes by 4 values, the key of its table has 1 columns");
    assert_has(&changed(Change::Delete(vec![Value::Null])), "has no value in column `id`");
    let elsewhere = RowChange { input: 0, table: "pg_class".to_owned(), change: Change::Upsert(row()) };
    let outcome = RowOutcome { changes: vec![elsewhere.clone()], refusals: vec![] };
    assert_has(&verdict(contract().check_rows(outcome, 1)), "goes to table `pg_class`");
    let outcome = RowOutcome { changes: vec![elsewhere], refusals: vec![rejected(0, "")] };
    assert_has(&verdict(contract().check_rows(outcome, 1)), "comes from input 0, which is refused");
}

#[test]
fn texts_that_no_store_takes_are_refused() {
    assert_has(&upserted(0, Value::Text("a\0".to_owned())), "NUL character in text column `id`");
    let json = |text: &str| upserted(2, Value::Json(text.to_owned()));
    assert_eq!(json(r#"{"a": "\\u0000"}"#), "fine");
    assert_has(&json("{"), "no JSON document");
    assert_has(&json(r#"{"a": ["\u0000"]}"#), "in json column `extra` a NUL character");
    assert_has(&json(r#"{"a\u0000": 1}"#), "in json column `extra` a NUL character");
    assert_has(&json(r#"["\ud800"]"#), "no JSON document");
    assert_has(&json(&"[".repeat(60)), "no JSON document");
}
