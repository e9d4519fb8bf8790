//! Deliveries in, log lines and refusals out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use log_sink::LogSink;
use tidemill_plugin::{Message, NoConfig, Plugin, Sink, Token, log};

fn message(offset: u64, payload: &[u8]) -> Message {
    Message {
        partition: 2,
        offset,
        timestamp: 0,
        attempt: 1,
        key: None,
        headers: Vec::new(),
        payload: payload.into(),
    }
}

fn token(first: u64, next: u64) -> Token {
    Token { group: "log".to_owned(), topic: "positions".to_owned(), partition: 2, first, next }
}

#[test]
fn each_delivery_leaves_one_line_with_its_counts() {
    let mut sink = LogSink::new(NoConfig {}).unwrap();
    let batch = vec![message(7, b"one"), message(8, b"two"), message(9, b"\xff")];
    let refused = sink.deliver(token(7, 10), batch).unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].input, 2);
    sink.deliver(token(10, 11), vec![message(10, "ä".repeat(200).as_bytes())]).unwrap();

    let lines: Vec<_> = log::take().into_iter().map(|(_, line)| line).collect();
    assert_eq!(
        lines[0],
        "2 of 3 messages from positions/2 offsets 7..10; 2 messages in 1 deliveries so far; first: one"
    );
    assert!(lines[1].ends_with(&format!("3 messages in 2 deliveries so far; first: {}", "ä".repeat(80))));
    assert_eq!(lines.len(), 2);
}
