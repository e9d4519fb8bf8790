//! Whatever is appended comes back; what fits the schema takes little room.

use std::fs;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::read::check;
use super::write::MAX_RECORDS;
use super::{Encoder, Layout, ParquetError, decode, encode, footer};
use crate::ids::Offset;
use crate::record::{Header, Record, StoredBatch};

fn layout() -> Layout {
    let schema = json!([
        { "name": "id", "type": "string" },
        { "name": "lat", "type": { "decimal": 5 } },
        { "name": "n", "type": "int" },
        { "name": "x", "type": "float" },
        { "name": "on", "type": "bool" },
        { "name": "at", "type": "timestamp" },
        { "name": "more", "type": "json" },
    ]);
    Layout::new(Some(&schema), &["id".to_owned(), "n".to_owned()])
}

fn record(offset: Offset, payload: impl Into<Bytes>) -> Record {
    Record { partition: 3, offset, timestamp: 0, key: None, headers: Vec::new(), payload: payload.into() }
}

/// Batches of the given sizes out of records.
fn batches(records: Vec<Record>, sizes: &[usize]) -> Vec<StoredBatch> {
    let mut records = records.into_iter().peekable();
    let mut sizes = sizes.iter().cycle();
    let mut batches = Vec::new();
    while let Some(first) = records.peek() {
        let base_offset = first.offset;
        let size = sizes.next().copied().unwrap_or(1).max(1);
        let appended_at = 1_790_000_000_000_000 + base_offset.cast_signed() % 1_000_000 * 7;
        let records: Arc<[Record]> = records.by_ref().take(size).collect();
        batches.push(StoredBatch { partition: 3, base_offset, appended_at, log_epoch: None, records });
    }
    batches
}

fn payloads(first: Offset, payloads: &[&str]) -> Vec<StoredBatch> {
    let record = |(at, payload): (usize, &&str)| record(first + at as Offset, payload.to_string());
    batches(payloads.iter().enumerate().map(record).collect(), &[payloads.len()])
}

/// Writes and reads back; how many payloads had to be kept.
fn round_trip(layout: &Layout, given: &[StoredBatch], range: Range<Offset>) -> Result<u64, TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let encoded = encode(layout, given, &path).unwrap().unwrap();
    let checked = check(&path).unwrap();
    prop_assert_eq!(checked.fingerprint, encoded.fingerprint);
    prop_assert_eq!(checked.records, encoded.records);
    prop_assert_eq!(fs::metadata(&path).unwrap().len(), encoded.bytes);
    let wanted: Vec<&Record> =
        given.iter().flat_map(|batch| batch.records.iter()).filter(|r| range.contains(&r.offset)).collect();
    let decoded = decode(&path, range).unwrap();
    let mut next = decoded.first().map_or(0, |batch| batch.base_offset);
    for batch in &decoded {
        prop_assert_eq!(batch.base_offset, next);
        prop_assert!(!batch.records.is_empty());
        let original = given.iter().rfind(|given| given.base_offset <= batch.base_offset).unwrap();
        prop_assert_eq!(batch.appended_at, original.appended_at);
        next = batch.next_offset();
    }
    let got: Vec<&Record> = decoded.iter().flat_map(|batch| batch.records.iter()).collect();
    prop_assert_eq!(got, wanted);
    Ok(encoded.kept_payloads)
}

fn kept(layout: &Layout, lines: &[&str]) -> u64 {
    round_trip(layout, &payloads(10, lines), 0..Offset::MAX).unwrap()
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

/// Values of all kinds, canonical and not, for any field.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|x| json!(x).to_string()),
        (-180_000_000..180_000_000_i64).prop_map(|n| json!(n as f64 / 1e5).to_string()),
        (-1_000_000..1_000_000_i64).prop_map(|n| (n as f64 / 1e5).to_string()),
        any::<String>().prop_map(|text| json!(text).to_string()),
        "[a-c]{0,2}".prop_map(|text| json!(text).to_string()),
        (0..4_000_000_000_i64)
            .prop_map(|at| format!("\"{}\"", crate::clock::rfc3339_with(at * 1_000_003, 3))),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-0.0".to_owned()),
        Just("1e3".to_owned()),
        Just("{\"a\": [1, \"}\"]}".to_owned()),
        "[ -~]{0,6}",
    ]
}

fn object() -> impl Strategy<Value = String> {
    let names = ["id", "lat", "n", "x", "on", "at", "more", "other"];
    let fields = prop::collection::vec((0..names.len(), value()), 0..8);
    (fields, any::<bool>()).prop_map(move |(fields, spaced)| {
        let (comma, colon) = if spaced { (", ", ": ") } else { (",", ":") };
        let fields: Vec<String> =
            fields.into_iter().map(|(name, value)| format!("\"{}\"{colon}{value}", names[name])).collect();
        format!("{{{}}}", fields.join(comma))
    })
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => object().prop_map(Bytes::from),
        1 => bytes(),
        1 => (any::<i32>(), 0..100_u32).prop_map(|(n, id)| {
            let (lat, on) = (json!(f64::from(n % 9_000_000) / 1e5), n % 2 == 0);
            Bytes::from(format!("{{\"id\":\"{id}\",\"lat\":{lat},\"n\":{n},\"on\":{on}}}"))
        }),
    ]
}

prop_compose! {
    fn any_record()(
        timestamp in prop_oneof![Just(0_i64), any::<i64>(), 1_700_000_000_000_000..1_800_000_000_000_000_i64],
        key in prop::option::of(bytes()),
        headers in prop::collection::vec(
            (any::<String>(), bytes()).prop_map(|(name, value)| Header { name, value }), 0..3),
        payload in payload(),
    ) -> Record {
        Record { partition: 3, offset: 0, timestamp, key, headers, payload }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_records_come_back_as_they_were(
        records in prop::collection::vec(any_record(), 1..60),
        sizes in prop::collection::vec(1..20_usize, 1..4),
        first in prop_oneof![Just(0_u64), 0..1_u64 << 62],
        with_schema in any::<bool>(),
        from in 0..60_u64,
        length in 0..60_u64,
    ) {
        let records = records
            .into_iter()
            .enumerate()
            .map(|(at, record)| Record { offset: first + at as Offset, ..record })
            .collect();
        let layout = if with_schema { layout() } else { Layout::new(None, &[]) };
        let given = batches(records, &sizes);
        round_trip(&layout, &given, 0..Offset::MAX)?;
        round_trip(&layout, &given, first + from..first + from + length)?;
    }
}

#[test]
fn what_the_schema_renders_needs_no_payload() {
    let line =
        r#"{"id":"a1","lat":39.5,"n":-7,"x":1.5e-9,"on":true,"at":1700000000000000,"more":{"b": [1,2]}}"#;
    assert_eq!(kept(&layout(), &[line, r#"{"id":"ü\"\n","lat":0.0}"#, "{}"]), 0);
}

#[test]
fn other_ways_to_write_json_are_learnt_from_the_first_records() {
    let python = r#"{"n": 1, "id": "a", "lat": 39.0, "at": "2026-11-22T08:17:00.123Z", "more": null}"#;
    let javascript = r#"{"n":1,"id":"a","lat":39,"x":null,"at":"2026-11-22T08:17:00.120Z"}"#;
    let all_null = r#"{"id":null,"lat":null,"n":null,"x":null,"on":null,"at":null,"more":null}"#;
    for line in [python, javascript, all_null] {
        let fields: Vec<&str> = ["id", "lat", "n", "x", "on", "at", "more"]
            .into_iter()
            .filter(|name| line.contains(&format!("\"{name}\"")))
            .collect();
        let schema: Vec<_> = layout()
            .fields
            .iter()
            .filter(|field| fields.contains(&&*field.name))
            .map(|field| json!({ "name": &*field.name, "type": field.kind }))
            .collect();
        assert_eq!(kept(&Layout::new(Some(&json!(schema)), &[]), &[line]), 0, "{line}");
    }
}

#[test]
fn a_payload_that_would_render_otherwise_is_kept() {
    let usual = r#"{"id":"a","lat":1.5}"#;
    for odd in [
        r#"{"id":"a","lat":1.50}"#,
        r#"{"id":"a","lat":1.123456}"#,
        r#"{"id":"\u0061","lat":1.5}"#,
        r#"{"lat":1.5,"id":"a"}"#,
        r#"{"id":"a","lat":null}"#,
        r#"{"id":"a","lat":1.5,"id":"a"}"#,
        r#"{"id":"a","lat":1.5,"new":0}"#,
        r#"{"id":"a","lat":1.5} "#,
        r#"{"id":"a","lat":-0.0}"#,
        "not JSON",
        "",
    ] {
        assert_eq!(kept(&layout(), &[usual, usual, odd, usual]), 1, "{odd}");
    }
}

#[test]
fn rows_are_sorted_and_offsets_come_back_in_order() {
    let lines: Vec<String> = (0..1000_u32)
        .map(|n| format!("{{\"id\":\"{}\",\"n\":{}}}", n % 7, i64::from(n * 7919 % 1000) - 500))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(kept(&layout(), &lines), 0);
}

#[test]
fn a_column_never_takes_the_name_of_another() {
    let schema = json!([
        { "name": "id", "type": "string" },
        { "name": "ID", "type": "int" },
        { "name": "_offset", "type": "int" },
        { "name": "a.b", "type": "bool" },
        { "name": "unknown", "type": "tuple" },
    ]);
    let layout = Layout::new(Some(&schema), &["_offset".to_owned()]);
    let columns: Vec<&str> = layout.fields.iter().map(|field| &*field.column).collect();
    assert_eq!(columns, ["id", "ID_2", "_offset_2", "a.b"]);
    assert_eq!(layout.sort, [2]);
    let line = r#"{"id":"a","ID":7,"_offset":8,"a.b":true}"#;
    assert_eq!(round_trip(&layout, &payloads(0, &[line, line]), 0..2).unwrap(), 0);
}

#[test]
fn a_gap_or_too_many_records_are_refused() {
    let mut encoder = Encoder::new(&layout(), 3, 10);
    for batch in payloads(10, &["{}"]) {
        encoder.push(&batch).unwrap();
    }
    for batch in payloads(12, &["{}"]) {
        assert!(matches!(encoder.push(&batch), Err(ParquetError::OutOfOrder { offset: 12, after: 11, .. })));
    }
    let many = vec![record(11, "{}"); MAX_RECORDS];
    let batch =
        StoredBatch { partition: 3, base_offset: 11, appended_at: 0, log_epoch: None, records: many.into() };
    assert!(matches!(encoder.push(&batch), Err(ParquetError::OutOfOrder { .. })));
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let line = r#"{"id":"a","lat":1.5,"n":3,"x":0.5}"#;
    encode(&layout(), &payloads(0, &[line; 50]), &path).unwrap();
    let good = fs::read(&path).unwrap();
    let fingerprint = check(&path).unwrap().fingerprint;
    let hurt = folder.path().join("b.parquet");
    for length in (0..good.len()).step_by(37) {
        fs::write(&hurt, &good[..length]).unwrap();
        assert!(check(&hurt).is_err(), "cut to {length} bytes");
    }
    fs::write(&hurt, b"PAR1 but nothing else PAR1").unwrap();
    assert!(footer(&hurt).is_err());
    assert_eq!(check(&path).unwrap().fingerprint, fingerprint);
}
