//! Counts against the definition, in whatever batches the messages come.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidemill_plugin::{Message, Plugin, Transform, state};
use window_counts::{Config, WindowCounts};

const SECOND: i64 = 1_000_000;

fn plugin(window_s: i64, lateness_s: i64) -> WindowCounts {
    WindowCounts::new(Config { field: "kind".to_owned(), window_s, lateness_s }).unwrap()
}

fn message(offset: usize, second: i64, kind: &str) -> Message {
    Message {
        partition: 0,
        offset: offset as u64,
        timestamp: second * SECOND,
        attempt: 1,
        key: None,
        headers: Vec::new(),
        payload: json!({ "kind": kind }).to_string().into_bytes(),
    }
}

/// Closed windows (from, value) -> count, and the offsets of late messages, of messages in batches of a size.
fn run(
    messages: &[Message],
    size: usize,
    window_s: i64,
    lateness_s: i64,
) -> (BTreeMap<(i64, String), u64>, usize) {
    state::clear();
    let (mut counts, mut late) = (BTreeMap::new(), 0);
    for batch in messages.chunks(size) {
        // A new instance for each batch: nothing may be kept in it.
        let outcome = plugin(window_s, lateness_s).process(batch.to_vec()).unwrap();
        for emission in outcome.emissions {
            if emission.port.as_deref() == Some("late") {
                late += 1;
                continue;
            }
            let record: Value = serde_json::from_slice(&emission.payload).unwrap();
            let key = (record["from"].as_i64().unwrap(), record["value"].as_str().unwrap().to_owned());
            let twice = counts.insert(key, record["count"].as_u64().unwrap());
            assert_eq!(twice, None, "a window was written twice");
        }
    }
    (counts, late)
}

#[test]
fn windows_close_once_with_what_came_in_time() {
    let times =
        [(0, "a"), (5, "b"), (9, "a"), (12, "a"), (3, "a"), (14, "b"), (9, "a"), (25, "a"), (40, "c")];
    let messages: Vec<_> = times.iter().enumerate().map(|(i, (at, kind))| message(i, *at, kind)).collect();
    let (counts, late) = run(&messages, 100, 10, 3);
    // At 14 the watermark is 11: the window up to 10 is closed, and the message of second 9 after it is late.
    let expected = [((0, "a"), 3), ((0, "b"), 1), ((10_000, "a"), 1), ((10_000, "b"), 1), ((20_000, "a"), 1)];
    let expected = expected.map(|((from, value), count)| ((from, value.to_owned()), count));
    assert_eq!(counts, BTreeMap::from(expected));
    assert_eq!(late, 1);
}

#[test]
fn batches_of_every_size_give_the_same() {
    // Times that go up and down, from a linear congruence.
    let messages: Vec<_> = (0..500_usize)
        .map(|i| message(i, (i / 3 + i * 7919 % 17) as i64 - 8, ["a", "b", "c"][i * 31 % 3]))
        .collect();
    let whole = run(&messages, messages.len(), 5, 6);
    assert!(whole.0.len() > 50 && whole.1 > 10, "{whole:?}");
    for size in [1, 2, 7, 100, 499] {
        assert_eq!(run(&messages, size, 5, 6), whole, "batches of {size}");
    }
}

#[test]
fn a_payload_without_the_field_is_rejected_and_counts_nowhere() {
    state::clear();
    let mut wrong = message(0, 100, "a");
    wrong.payload = b"{\"kind\":null}".to_vec();
    let outcome = plugin(10, 0).process(vec![wrong, message(1, 3, "a"), message(2, 11, "a")]).unwrap();
    assert_eq!((outcome.refusals.len(), outcome.emissions.len()), (1, 1));
}

#[test]
fn a_config_out_of_range_is_told() {
    let error =
        WindowCounts::new(Config { field: "k".to_owned(), window_s: 0, lateness_s: 0 }).err().unwrap();
    assert!(error.contains("`window_s` is 0"), "{error}");
}
