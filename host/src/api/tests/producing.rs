//! Appending through HTTP.

use serde_json::{Value, json};

use super::host::TestHost;

#[tokio::test]
async fn lines_come_out_byte_for_byte() {
    let host = TestHost::start().await;
    host.topic("t", 1, "bytes").await;
    let body = b"one\r\n\n two \xff\x00\nlast".to_vec();
    let answer = host.lines("t", "", body.clone()).await;
    assert_eq!((answer["records"].as_u64(), answer["duplicate"].as_bool()), (Some(4), Some(false)));
    let mut expected = body;
    expected.push(b'\n');
    assert_eq!(host.raw("t", "").await, expected);
}

#[tokio::test]
async fn keyed_lines_keep_their_order_in_their_partition() {
    let host = TestHost::start().await;
    host.topic("t", 4, "json").await;
    let line = |n: usize| format!("{{\"n\":{n},\"id\":\"k{}\"}}\n", n % 13);
    let body: String = (0..5_000).map(line).collect();
    let answer = host.produce("t", "?key_field=id", "application/x-ndjson", body).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["records"], 5_000);
    assert!(answer["partitions"].as_array().unwrap().len() > 1);
    let page = host.get("/v1/topics/t/records?max=10000").await;
    let records = page["records"].as_array().unwrap();
    assert_eq!(records.len(), 5_000);
    assert_eq!(page["next"], page["end"]);
    let mut last: std::collections::HashMap<&str, (u64, u64)> = Default::default();
    for record in records {
        let key = record["key"].as_str().unwrap();
        let place = (record["partition"].as_u64().unwrap(), record["value"]["n"].as_u64().unwrap());
        if let Some(before) = last.insert(key, place) {
            assert!(before.0 == place.0 && before.1 < place.1, "{key}: {before:?} then {place:?}");
        }
    }
    assert_eq!(last.len(), 13);
}

#[tokio::test]
async fn a_repeat_stores_nothing_and_gets_the_first_answer() {
    let host = TestHost::start().await;
    host.topic("t", 4, "bytes").await;
    let body: String = (0..100).map(|n| format!("k{n}\tv{n}\n")).collect();
    let send = |headers: Vec<(&'static str, String)>| {
        let mut request = host.produce("t", "?key_separator=%09", "text/plain", body.clone());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        async move { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let keyed = || send(vec![("idempotency-key", "load-1".into())]);
    let numbered = |seq: i64| {
        send(vec![("tidemill-producer-id", "p".into()), ("tidemill-producer-seq", seq.to_string())])
    };
    let first = keyed().await;
    let mut second = keyed().await;
    assert_eq!(second["duplicate"], true, "{second}");
    second["duplicate"] = json!(false);
    assert_eq!(first, second);

    let (a, b) = (numbered(0).await, numbered(1).await);
    assert_ne!(a, b);
    let mut repeated = numbered(0).await;
    assert_eq!(repeated["duplicate"], true);
    repeated["duplicate"] = json!(false);
    assert_eq!(repeated, a);
    assert_eq!(host.get("/v1/topics/t").await["records"], 300);
    for seq in 2..12 {
        numbered(seq).await;
    }
    let (status, error) = host
        .refused(
            host.produce("t", "?key_separator=%09", "text/plain", body.clone())
                .header("tidemill-producer-id", "p")
                .header("tidemill-producer-seq", "0"),
        )
        .await;
    assert_eq!((status, error["code"].as_str()), (409, Some("producer_out_of_sequence")));
}

#[tokio::test]
async fn one_bad_line_stores_nothing_and_is_named() {
    let host = TestHost::start().await;
    host.topic("t", 2, "json").await;
    let bad = "{\"id\":1}\n{\"id\":2}\n{\"id\":\n{\"id\":4}\n";
    for query in ["", "?key_field=id"] {
        let (status, error) = host.refused(host.produce("t", query, "application/x-ndjson", bad)).await;
        assert_eq!(
            (status, error["code"].as_str(), error["line"].as_u64()),
            (400, Some("bad_line"), Some(3))
        );
        assert!(error["message"].as_str().unwrap().starts_with("line 3 is not JSON"), "{error}");
    }
    let array = json!([{ "value": 1 }, { "text": "x", "value": 2 }]).to_string();
    let (status, error) = host.refused(host.produce("t", "", "application/json", array)).await;
    assert_eq!((status, error["line"].as_u64()), (400, Some(2)));
    assert_eq!(host.get("/v1/topics/t").await["records"], 0);
}

#[tokio::test]
async fn an_array_carries_keys_headers_times_and_partitions() {
    let host = TestHost::start().await;
    host.topic("t", 3, "json").await;
    let body = json!([
        { "key": "a", "value": { "n": 1 }, "headers": [["trace", "1"], ["bin", { "base64": "/w==" }]],
          "timestamp": "2024-11-22T08:26:40.123456Z", "partition": 2 },
        { "text": "not json", "partition": 2 },
        { "base64": "/wA=", "key_base64": "/g==", "partition": 1 },
        { "value": null, "partition": 1 }
    ]);
    let send =
        || host.produce("t", "", "application/json", body.to_string()).header("idempotency-key", "x").send();
    let answer: Value = send().await.unwrap().json().await.unwrap();
    assert_eq!((answer["records"].as_u64(), answer["partitions"].as_array().unwrap().len()), (Some(4), 2));
    let again: Value = send().await.unwrap().json().await.unwrap();
    assert_eq!(again["duplicate"], true);

    let page = host.get("/v1/topics/t/records?partition=2").await;
    assert_eq!(page["records"][0]["headers"], body[0]["headers"]);
    assert_eq!(page["records"][0]["timestamp"], body[0]["timestamp"]);
    assert_eq!(page["records"][1]["text"], "not json");
    let page = host.get("/v1/topics/t/records?partition=1").await;
    assert_eq!(page["records"][0]["base64"], "/wA=");
    assert_eq!(page["records"][0]["key_base64"], "/g==");
    assert!(page["records"][1]["value"].is_null() && page["records"][1].get("value").is_some());
}

#[tokio::test]
async fn bodies_that_are_no_records_are_refused() {
    let host = TestHost::start().await;
    host.topic("t", 1, "json").await;
    let large = vec![b'x'; (1 << 20) + 1];
    for (request, status, code) in [
        (host.produce("t", "", "text/plain", ""), 400, "no_records"),
        (host.produce("t", "", "application/json", "[]"), 400, "no_records"),
        (host.produce("t", "", "application/json", "{\"value\":1}"), 400, "bad_json"),
        (host.produce("t", "", "application/xml", "<a/>"), 415, "unsupported_media_type"),
        (host.produce("t", "", "text/plain", large), 413, "record_too_large"),
        (host.produce("t", "", "text/plain", "\n".repeat(100_001)), 413, "too_many_records"),
        (host.produce("t", "?partition=1", "text/plain", "a"), 400, "no_such_partition"),
        (host.produce("t", "?key_separator=", "text/plain", "a"), 400, "bad_parameter"),
        (host.produce("t", "?key_field=a&key_separator=b", "text/plain", "a"), 400, "bad_parameter"),
        (host.produce("t", "?key_feild=a", "text/plain", "a"), 400, "unknown_parameter"),
        (host.produce("t", "", "text/plain", "a").header("tidemill-producer-seq", "1"), 400, "bad_producer"),
        (host.produce("none", "", "text/plain", "a"), 404, "topic_not_found"),
    ] {
        let (found, error) = host.refused(request).await;
        assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{error}");
    }
    assert_eq!(host.get("/v1/topics/t").await["records"], 0);
}
