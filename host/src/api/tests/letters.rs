//! Dead letters over HTTP.

use axum::http::Method;
use serde_json::json;

use super::host::TestHost;

/// A group that reads a topic and has given up on three messages; one of them is not text.
async fn with_letters() -> TestHost {
    let host = TestHost::start().await;
    host.topic("flights", 1, "bytes").await;
    host.post("/v1/groups/watch/seek", json!({ "topic": "flights", "to": "earliest" })).await;
    sqlx::query(
        "INSERT INTO tidemill.dead_letters (group_name, pipeline, stage, digest, topic, partition, c_offset, ts, key, headers,
                                            payload, kind, error, attempts)
         SELECT 'watch', 'p', 's', 'sha256:1a2b', 'flights', 0, n, now(), convert_to('a' || n, 'UTF8'), '[[\"h\", \"v\"]]',
                CASE n WHEN 2 THEN '\\xff00'::bytea ELSE convert_to('{\"n\": ' || n || '}', 'UTF8') END, 'trap', 'out of fuel', 5
           FROM generate_series(0, 2) n",
    )
    .execute(&host.database.pool)
    .await
    .unwrap();
    host
}

#[tokio::test]
async fn letters_are_listed_in_pages_and_shown_to_the_byte() {
    let host = with_letters().await;
    let page = host.get("/v1/dead-letters?group=watch&limit=2").await;
    assert_eq!(page["dead_letters"][0]["offset"], 2);
    let next = page["next"].as_i64().unwrap();
    let rest = host.get(&format!("/v1/dead-letters?group=watch&limit=2&before={next}")).await;
    assert_eq!(rest["dead_letters"][0]["preview"], "{\"n\": 0}");
    assert_eq!((rest["dead_letters"].as_array().unwrap().len(), rest["next"].is_null()), (1, true));
    let none = host.get("/v1/dead-letters?kind=deadline&state=queued&since=2026-01-01T00:00:00Z").await;
    assert_eq!(none["dead_letters"], json!([]));
    let whole = host.get(&format!("/v1/dead-letters/{next}")).await;
    assert_eq!((&whole["record"]["text"], &whole["record"]["key"]), (&json!("{\"n\": 1}"), &json!("a1")));
    let binary = host.get(&format!("/v1/dead-letters/{}", next + 1)).await;
    assert_eq!((&binary["record"]["base64"], &binary["bytes"]), (&json!("/wA="), &json!(2)));
    let status = host.get("/v1/status").await;
    assert_eq!(status["dead_letters"], json!([{ "group": "watch", "letters": 3, "queued": 0 }]));
}

#[tokio::test]
async fn letters_are_queued_and_dropped_by_id_and_by_group() {
    let host = with_letters().await;
    let ids: Vec<i64> = host.get("/v1/dead-letters").await["dead_letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| letter["id"].as_i64().unwrap())
        .collect();
    let queued = host.post("/v1/dead-letters/redrive", json!({ "ids": [ids[0]] })).await;
    assert_eq!(queued, json!({ "queued": 1, "more": false }));
    assert_eq!(host.get(&format!("/v1/dead-letters/{}", ids[0])).await["state"], "queued");
    let queued = host.post("/v1/dead-letters/redrive", json!({ "group": "watch", "max": 1 })).await;
    assert_eq!(queued, json!({ "queued": 1, "more": true }));
    let gone = host.request(Method::DELETE, &format!("/v1/dead-letters/{}", ids[0])).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    let dropped = host.post("/v1/dead-letters/drop", json!({ "group": "watch", "kind": "trap" })).await;
    assert_eq!(dropped, json!({ "dropped": 2, "more": false }));
    let dropped = host.post("/v1/dead-letters/drop", json!({ "ids": ids })).await;
    assert_eq!(dropped["dropped"], 0);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let host = with_letters().await;
    for body in [
        json!({}),
        json!({ "ids": [1], "group": "watch" }),
        json!({ "kind": "trap" }),
        json!({ "group": "watch", "max": 0 }),
    ] {
        let request = host.request(Method::POST, "/v1/dead-letters/drop").json(&body);
        let (status, error) = host.refused(request).await;
        assert_eq!((status, error["code"].as_str()), (400, Some("bad_choice")), "{body}");
    }
    assert_eq!(host.get("/v1/dead-letters").await["dead_letters"].as_array().unwrap().len(), 3);
    for (method, path, status, code) in [
        (Method::GET, "/v1/dead-letters/99", 404, "dead_letter_not_found"),
        (Method::DELETE, "/v1/dead-letters/99", 404, "dead_letter_not_found"),
        (Method::GET, "/v1/dead-letters/last", 400, "bad_id"),
        (Method::GET, "/v1/dead-letters?state=alive", 400, "bad_parameter"),
        (Method::GET, "/v1/dead-letters?since=today", 400, "bad_parameter"),
        (Method::GET, "/v1/dead-letters?limit=1001", 400, "bad_parameter"),
        (Method::GET, "/v1/dead-letters?grp=watch", 400, "unknown_parameter"),
    ] {
        let (found, error) = host.refused(host.request(method, path)).await;
        assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{path}");
    }
    let unknown = host.request(Method::POST, "/v1/dead-letters/redrive").json(&json!({ "ids": [99] }));
    assert_eq!(host.refused(unknown).await.0, 404);
    sqlx::query("DELETE FROM tidemill.consumer_offsets").execute(&host.database.pool).await.unwrap();
    let id = host.get("/v1/dead-letters").await["dead_letters"][0]["id"].clone();
    let orphan = host.request(Method::POST, "/v1/dead-letters/redrive").json(&json!({ "ids": [id] }));
    let (status, error) = host.refused(orphan).await;
    assert_eq!((status, error["code"].as_str()), (409, Some("dead_letter_orphaned")));
}
