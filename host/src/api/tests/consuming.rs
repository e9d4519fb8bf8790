//! Reading pages and chunked streams.

use std::time::Duration;

use axum::http::Method;
use serde_json::Value;

use super::host::TestHost;

async fn filled(partitions: u32, records: usize) -> TestHost {
    let host = TestHost::start().await;
    host.topic("t", partitions, "json").await;
    let body: String = (0..records).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    for partition in 0..partitions {
        host.lines("t", &format!("?partition={partition}"), body.clone()).await;
    }
    host
}

fn numbers(records: &Value) -> Vec<u64> {
    records.as_array().unwrap().iter().map(|record| record["value"]["n"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_overlap() {
    let host = filled(3, 100).await;
    let mut from = "earliest".to_string();
    let mut seen = Vec::new();
    loop {
        let page = host.get(&format!("/v1/topics/t/records?max=37&from={from}")).await;
        let records = page["records"].as_array().unwrap();
        seen.extend(
            records.iter().map(|r| (r["partition"].as_u64().unwrap(), r["offset"].as_u64().unwrap())),
        );
        from = page["next"].as_str().unwrap().to_string();
        if page["next"] == page["end"] {
            break;
        }
        assert_eq!(records.len(), 37);
    }
    assert_eq!(seen.len(), 300);
    seen.sort_unstable();
    let all: Vec<(u64, u64)> = (0..3).flat_map(|p| (0..100).map(move |o| (p, o))).collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn a_start_can_be_named_in_many_ways() {
    let host = filled(2, 50).await;
    for (query, count) in [
        ("from=earliest&max=1000", 100),
        ("from=latest", 0),
        ("from=tail:3", 6),
        ("from=48&partition=1", 2),
        ("from=48", 4),
        ("from=0:49,1:10&max=1000", 41),
        ("from=1:49", 51),
        ("from=2000-01-01T00:00:00Z&partition=0", 50),
        ("from=2100-01-01T00:00:00Z", 0),
        ("", 100),
    ] {
        let page = host.get(&format!("/v1/topics/t/records?{query}")).await;
        assert_eq!(numbers(&page["records"]).len(), count, "{query}");
    }
    let page = host.get("/v1/topics/t/records?from=48&partition=1").await;
    assert_eq!(numbers(&page["records"]), [48, 49]);
}

#[tokio::test]
async fn a_stream_of_lines_ends_where_the_log_ended() {
    let host = filled(2, 3_000).await;
    let raw = host.raw("t", "").await;
    assert_eq!(raw.iter().filter(|b| **b == b'\n').count(), 6_000);
    let one = host.raw("t", "&partition=0").await;
    let expected: String = (0..3_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    assert_eq!(String::from_utf8(one).unwrap(), expected);
    assert_eq!(host.raw("t", "&partition=0&max=2&from=7").await, b"{\"n\":7}\n{\"n\":8}\n");
    let path = "/v1/topics/t/records?format=json&partition=1&from=tail:2";
    let text = host.request(Method::GET, path).send().await.unwrap().text().await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(numbers(&Value::Array(lines)), [2_998, 2_999]);
    let path = "/v1/topics/t/records?format=json&partition=1&from=tail:1&payload=text";
    let text = host.request(Method::GET, path).send().await.unwrap().text().await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["text"], "{\"n\":2999}");
}

#[tokio::test]
async fn following_goes_on_as_records_come() {
    let host = filled(1, 2).await;
    let path = "/v1/topics/t/records?format=raw&follow=true&from=1&partition=0";
    let mut answer = host.request(Method::GET, path).send().await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "{\"n\":1}\n");
    host.lines("t", "", "later\n").await;
    let later = tokio::time::timeout(Duration::from_secs(10), answer.chunk()).await.unwrap();
    assert_eq!(later.unwrap().unwrap(), "later\n");
}
