//! The whole program with hardly any records: each case works, and what it counts is right.
//!
//! The cases check for themselves that all that was acknowledged is there, that component and native code give as many
//! records, and that all ways to query give one answer; a case that finds otherwise fails.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Runs cases, and checks that each row says something and stands in the table.
fn run(cases: &[&str]) -> Value {
    let json = std::env::temp_dir().join(format!("tidemill-bench-{}-{}.json", std::process::id(), cases[0]));
    let mut program = Command::new(env!("CARGO_BIN_EXE_tidemill-bench"));
    let ran = program.arg("--smoke").args(cases).arg("--json").arg(&json).output();
    let ran = ran.expect("the program starts");
    let (said, complained) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}\n{complained}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("the file is written")).unwrap();
    std::fs::remove_file(&json).unwrap();
    for row in report["rows"].as_array().unwrap() {
        // Nothing dead and nothing lost are figures too.
        if !["rows", "%"].contains(&row["unit"].as_str().unwrap()) {
            assert!(row["value"]["median"].as_f64().unwrap() > 0.0, "{row}");
        }
        assert!(said.contains(row["variant"].as_str().unwrap()), "{row} is not in the table");
    }
    assert_eq!(report["machine"]["fsync"], true);
    report
}

/// How many variants of each case were measured.
fn variants(report: &Value) -> BTreeMap<&str, usize> {
    let mut variants: BTreeMap<&str, usize> = BTreeMap::new();
    for row in report["rows"].as_array().unwrap() {
        *variants.entry(row["case"].as_str().unwrap()).or_default() += 1;
    }
    variants
}

#[test]
fn every_case_runs_and_reports_what_it_measured() {
    let report = run(&["append", "partitions", "fetch", "transform", "archive", "query"]);
    let mut variants = variants(&report);
    let queries = variants.remove("query").unwrap();
    assert!(queries == 3 || queries == 5, "with the command line of DuckDB or without: {queries}");
    let expected =
        [("append", 12), ("archive", 3), ("disk", 1), ("fetch", 3), ("partitions", 4), ("transform", 4)];
    assert_eq!(variants, expected.into());

    let rows = report["rows"].as_array().unwrap();
    let wal = |way: &str| {
        let row = rows.iter().find(|row| row["variant"].as_str().unwrap().starts_with(way)).unwrap();
        row["wal_bytes"].as_f64().unwrap()
    };
    // Whatever the machine does: a row per message writes more than its payload of some 180 bytes, a batch writes less.
    assert!(wal("published SQL, a row per message, batch 1000") > 200.0);
    assert!(wal("Tidemill, batch 1000") < 150.0);
    let bars = report["bars"].as_array().unwrap();
    assert_eq!(bars.len(), if queries == 5 { 10 } else { 8 });
}

#[test]
fn queues_are_measured_beside_the_peers_that_are_installed() {
    let report = run(&["queue", "queue-held"]);
    let rows = report["rows"].as_array().unwrap();
    let named = |peer: &str| rows.iter().any(|row| row["variant"].as_str().unwrap().contains(peer));
    let (pgmq, graphile) = (named("pgmq"), named("graphile-worker"));
    let of = |there: bool, count: usize| if there { count } else { 0 };
    let expected =
        [("disk", 1), ("queue", 23 + of(pgmq, 10) + of(graphile, 5)), ("queue-held", 7 + of(pgmq, 7))];
    assert_eq!(variants(&report), expected.into());
    let bars = report["bars"].as_array().unwrap();
    assert_eq!(bars.len(), 2 + of(pgmq, 9) + of(graphile, 3));
    if pgmq {
        // Whatever the machine does: pgmq writes each job anew when it is read, a claim names a hundred.
        let wal = |way: &str| {
            let row = rows.iter().find(|row| row["variant"].as_str().unwrap().starts_with(way)).unwrap();
            row["wal_bytes"].as_f64().unwrap()
        };
        let (ours, theirs) = ("Tidemill by SQL, not kept, batch 100", "pgmq, read + delete, batch 100");
        assert!(wal(ours) * 3.0 < wal(theirs), "{} and {}", wal(ours), wal(theirs));
    }
}
