//! Reports in, rows of `current_positions` out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use latest_position::LatestPosition;
use tidemill_plugin::{Change, Changes, Materializer, Message, NoConfig, Plugin, Refusal, Value};

const REPORT: &str = concat!(
    r#"{"id":"a3f2c1","callsign":"UAL1234","kind":"airliner","lat":39.12345,"lon":-98.0,"#,
    r#""altitude":35000,"heading":271.3,"speed":451.2,"vertical_rate":-64,"squawk":"1200","#,
    r#""ts":1732264000123}"#
);

fn materialize(payloads: &[String]) -> Changes {
    let batch = payloads
        .iter()
        .map(|payload| Message {
            partition: 0,
            offset: 0,
            timestamp: 0,
            attempt: 1,
            key: None,
            headers: Vec::new(),
            payload: payload.clone().into(),
        })
        .collect();
    LatestPosition::new(NoConfig {}).unwrap().materialize(batch).unwrap()
}

fn report(id: &str, ts: i64) -> String {
    REPORT.replace("a3f2c1", id).replace("1732264000123", &ts.to_string())
}

fn row(change: &Change) -> &[Value] {
    match change {
        Change::Upsert(row) => row,
        Change::Delete(_) => panic!("a report deletes nothing"),
    }
}

#[test]
fn a_report_becomes_a_row_in_the_order_of_the_columns() {
    let changes = materialize(&[REPORT.to_owned()]);
    assert_eq!(changes.refusals, []);
    assert_eq!(changes.changes.len(), 1);
    assert_eq!(changes.changes[0].table, "current_positions");
    let expected = [
        ("id", Value::from("a3f2c1")),
        ("callsign", Value::from("UAL1234")),
        ("kind", Value::from("airliner")),
        ("lat", Value::from(39.12345)),
        ("lon", Value::from(-98.0)),
        ("altitude", Value::from(35_000)),
        ("heading", Value::from(271.3)),
        ("speed", Value::from(451.2)),
        ("vertical_rate", Value::from(-64)),
        ("squawk", Value::from("1200")),
        ("reported_at", Value::timestamp(1_732_264_000_123_000)),
    ];
    let table = &LatestPosition::describe().tables[0];
    let columns = table.columns.iter().map(|column| column.name.as_str());
    let values = row(&changes.changes[0].change).iter().cloned();
    assert!(columns.zip(values).eq(expected));
    assert_eq!(table.key, ["id"]);
    assert_eq!(table.newest_by.as_deref(), Some("reported_at"));
}

#[test]
fn of_the_reports_of_one_aircraft_only_the_newest_crosses_the_boundary() {
    let batch = [report("a", 5), report("b", 1), report("a", 9), report("a", 7), report("b", 1)];
    let changes = materialize(&batch);
    let kept: Vec<_> =
        changes.changes.iter().map(|change| (change.input, row(&change.change)[10].clone())).collect();
    // Of equally old reports the last counts, as it would if each were applied in turn.
    assert_eq!(kept, [(2, Value::timestamp(9_000)), (4, Value::timestamp(1_000))]);
}

#[test]
fn a_wrong_payload_is_rejected_by_the_name_of_its_field_and_the_rest_goes_on() {
    let cases = [
        ("not JSON".to_owned(), "line 1"),
        (REPORT.replace(r#""lat":39.12345,"#, ""), "missing field `lat`"),
        (REPORT.replace("-98.0", r#""west""#), "field `lon`"),
        (REPORT.replace("39.12345", "91.0"), "field `lat`"),
        (REPORT.replace("271.3", "360.1"), "field `heading`"),
        (REPORT.replace("451.2", "-1.0"), "field `speed`"),
        (REPORT.replace("35000", "35000.5"), "field `altitude`"),
        (REPORT.replace("a3f2c1", ""), "field `id`"),
        (REPORT.replace("1732264000123", "9223372036854775807"), "field `ts`"),
    ];
    let mut payloads: Vec<_> = cases.iter().map(|(payload, _)| payload.clone()).collect();
    payloads.push(REPORT.to_owned());
    let changes = materialize(&payloads);
    assert_eq!(changes.changes.len(), 1);
    assert_eq!(changes.changes[0].input, cases.len() as u32);
    assert_eq!(changes.refusals.len(), cases.len());
    for (refused, (_, word)) in changes.refusals.iter().zip(&cases) {
        let Refusal::Reject(reason) = &refused.refusal else {
            panic!("retrying does not mend a payload");
        };
        assert!(reason.contains(word), "{reason} does not contain {word}");
    }
}

#[test]
fn escapes_and_unknown_fields_are_understood() {
    let payload = REPORT.replace("UAL1234", r"UAL\u00341").replace("{", r#"{"extra":[1],"#);
    let changes = materialize(&[payload]);
    assert_eq!(row(&changes.changes[0].change)[1], Value::from("UAL41"));
}
