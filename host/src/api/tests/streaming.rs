//! Topics as server-sent events.

use std::time::Duration;

use axum::http::Method;
use reqwest::Response;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::host::TestHost;
use crate::api::metrics::resident_bytes;

/// Reads events as a browser does: whole ones, with the id that counts after each.
pub struct Events {
    response: Response,
    buffer: Vec<u8>,
    pub last_id: Option<String>,
}

#[derive(Debug)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

impl Events {
    pub async fn open(host: &TestHost, path: &str, last_id: Option<&str>) -> Self {
        let mut request = host.request(Method::GET, path);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, buffer: Vec::new(), last_id: last_id.map(String::from) }
    }

    pub async fn next(&mut self) -> Event {
        tokio::time::timeout(Duration::from_secs(20), self.read()).await.expect("an event in time")
    }

    async fn read(&mut self) -> Event {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let block = String::from_utf8(block).unwrap();
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_string);
                if let Some(id) = field("id: ") {
                    self.last_id = Some(id);
                }
                if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
                    return Event { name, data: serde_json::from_str(&data).unwrap() };
                }
            }
            let chunk = self.response.chunk().await.unwrap().expect("the stream goes on");
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

fn place(record: &Value) -> (u64, u64) {
    (record["partition"].as_u64().unwrap(), record["offset"].as_u64().unwrap())
}

#[tokio::test]
async fn a_reader_that_comes_back_gets_each_record_once() {
    let host = TestHost::start().await;
    host.topic("t", 3, "bytes").await;
    for partition in 0..3 {
        host.lines("t", &format!("?partition={partition}"), "x\n".repeat(100)).await;
    }
    for (query, step) in [("", 7), ("?batch=true", 1)] {
        let path = format!("/v1/topics/t/stream{query}");
        let mut seen = Vec::new();
        let mut last_id = None;
        // Comes back after a few events each time, mostly in the middle of a stored batch.
        while seen.len() < 300 {
            let mut events = Events::open(&host, &path, last_id.as_deref()).await;
            for _ in 0..step.min(300 - seen.len()) {
                let event = events.next().await;
                match event.name.as_str() {
                    "record" => seen.push(place(&event.data)),
                    "records" => seen.extend(event.data.as_array().unwrap().iter().map(place)),
                    other => panic!("an event {other:?}: {}", event.data),
                }
            }
            last_id = events.last_id.clone();
        }
        let all: Vec<(u64, u64)> = (0..3).flat_map(|p| (0..100).map(move |o| (p, o))).collect();
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, all, "{query}");
        for partition in 0..3 {
            assert!(seen.iter().filter(|(p, _)| *p == partition).is_sorted(), "order within a partition");
        }
        assert_eq!(last_id.as_deref(), Some("0:100@1,1:100@1,2:100@1"));
    }
}

#[tokio::test]
async fn records_come_as_they_are_appended() {
    let host = TestHost::start().await;
    host.topic("t", 2, "json").await;
    host.lines("t", "", "{\"n\":1}\n").await;
    let mut events = Events::open(&host, "/v1/topics/t/stream?from=latest", None).await;
    for n in 2..5 {
        host.lines("t", "", format!("{{\"n\":{n}}}\n")).await;
        let event = events.next().await;
        assert_eq!((event.name.as_str(), event.data["value"]["n"].as_u64()), ("record", Some(n)));
    }
}

#[tokio::test]
async fn silence_is_broken_by_a_heartbeat() {
    let host = TestHost::start().await;
    host.topic("t", 1, "json").await;
    let mut events = Events::open(&host, "/v1/topics/t/stream", None).await;
    let event = events.next().await;
    assert_eq!((event.name.as_str(), event.data), ("heartbeat", serde_json::json!({})));
}

#[tokio::test]
async fn a_place_that_is_gone_is_refused_and_not_skipped() {
    let host = TestHost::start().await;
    host.topic("t", 1, "bytes").await;
    host.lines("t", "", "a\nb\nc\n").await;
    sqlx::query("UPDATE tidemill.log_start SET start_offset = 2").execute(&host.database.pool).await.unwrap();
    for (id, status) in [("0:1", 416), ("0:9", 416), ("nonsense", 400)] {
        let request = host.request(Method::GET, "/v1/topics/t/stream").header("last-event-id", id);
        assert_eq!(host.refused(request).await.0, status, "{id}");
    }
    let mut events = Events::open(&host, "/v1/topics/t/stream", Some("0:2")).await;
    assert_eq!(place(&events.next().await.data), (0, 2));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_costs_nothing() {
    let host = TestHost::start().await;
    host.topic("t", 1, "bytes").await;
    let line = format!("{}\n", "x".repeat(8_000));
    let body = line.repeat(900);
    // Readers that never read, on sockets that hold little.
    let address = host.url.trim_start_matches("http://").to_string();
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = format!("GET /v1/topics/t/stream HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    host.lines("t", "", body.clone()).await;
    let before = resident_bytes().unwrap_or(0);
    for _ in 0..30 {
        host.lines("t", "", body.clone()).await;
    }
    // 210 MB went through the topic; the cache of recent batches is shared and bounded.
    let grown = resident_bytes().unwrap_or(0).saturating_sub(before);
    assert!(grown < 160 << 20, "memory grew by {grown} bytes");
    let mut events = Events::open(&host, "/v1/topics/t/stream?from=tail:1", None).await;
    assert_eq!(events.next().await.data["offset"], 31 * 900 - 1);
    assert_eq!(slow.len(), 20);
}
