//! Status, topics, groups, and what is answered to bad questions.

use std::time::Duration;

use axum::http::Method;
use serde_json::json;

use super::host::TestHost;

#[tokio::test]
async fn the_status_has_everything_as_the_document_says() {
    let host = TestHost::start().await;
    host.topic("flights", 2, "json").await;
    host.lines("flights", "", "{}\n{}\n").await;
    host.post("/v1/groups/export/seek", json!({ "topic": "flights", "to": "earliest" })).await;
    let status = host.get("/v1/status").await;
    assert_eq!(status["topics"][0]["records"], 2);
    assert!(status["topics"][0]["hot"]["bytes_per_record"].as_f64().unwrap() > 1.0);
    assert_eq!(status["groups"][0]["lag"], 2);
    assert_eq!(status["host"], "h-test");
    host.get("/v1/pipelines").await;
    let (status, error) = host.refused(host.request(Method::GET, "/v1/pipelines/nothing")).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("pipeline_not_found")));
}

#[tokio::test]
async fn a_host_is_ready_when_it_is_told_so() {
    let host = TestHost::start().await;
    host.get("/healthz").await;
    let (status, error) = host.refused(host.request(Method::GET, "/readyz")).await;
    assert_eq!((status, error["code"].as_str()), (503, Some("starting")));
    host.state.ready().set();
    host.get("/readyz").await;
    host.database.pool.close().await;
    let (status, error) = host.refused(host.request(Method::GET, "/readyz")).await;
    assert_eq!((status, error["code"].as_str()), (503, Some("postgres_unavailable")));
}

#[tokio::test]
async fn topics_are_made_shown_and_deleted() {
    let host = TestHost::start().await;
    let body = json!({ "name": "flights", "partitions": 3, "segment": "1m", "retention": { "hot": "5m", "cold": "30d" } });
    let made = host.post("/v1/topics", body.clone()).await;
    assert_eq!(made["segment"], "1m");
    assert_eq!(made["retention"], json!({ "hold": [], "hot": "5m", "cold": "30d" }));
    assert_eq!(made["next_offsets"], json!([0, 0, 0]));
    let again = host.request(Method::POST, "/v1/topics").json(&body);
    assert_eq!(host.refused(again).await.0, 409);
    assert_eq!(host.get("/v1/topics").await["topics"].as_array().unwrap().len(), 1);
    assert_eq!(host.get("/v1/topics/flights").await, made);
    let gone = host.request(Method::DELETE, "/v1/topics/flights").send().await.unwrap();
    assert_eq!(gone.status(), 204);
    let (status, error) = host.refused(host.request(Method::GET, "/v1/topics/flights")).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("topic_not_found")));
}

#[tokio::test]
async fn an_unknown_topic_comes_with_a_suggestion_and_a_bad_name_with_a_good_one() {
    let host = TestHost::start().await;
    host.topic("positions", 1, "json").await;
    let (status, error) = host.refused(host.request(Method::GET, "/v1/topics/position")).await;
    assert_eq!(status, 404);
    assert!(error["hint"].as_str().unwrap().contains("did you mean positions?"), "{error}");
    for path in ["/v1/topics/a%22b", "/v1/topics/a%22b/records", "/v1/topics/a%22b/stream"] {
        let (status, error) = host.refused(host.request(Method::GET, path)).await;
        assert_eq!((status, error["code"].as_str()), (400, Some("bad_name")), "{path}");
        assert!(error["message"].as_str().unwrap().contains("try \"a_b\""), "{error}");
    }
    let quoted = host.request(Method::POST, "/v1/topics").json(&json!({ "name": "x\"; drop table y" }));
    let (status, error) = host.refused(quoted).await;
    assert_eq!((status, error["code"].as_str()), (400, Some("bad_json")));
}

#[tokio::test]
async fn bad_questions_are_explained() {
    let host = TestHost::start().await;
    host.topic("t", 2, "json").await;
    let get = |path: &str| host.request(Method::GET, path);
    for (request, status, code) in [
        (get("/v1/nothing"), 404, "no_such_route"),
        (get("/v1"), 404, "no_such_route"),
        (host.request(Method::PUT, "/v1/topics"), 405, "method_not_allowed"),
        (host.request(Method::POST, "/v1/status"), 405, "method_not_allowed"),
        (host.request(Method::POST, "/v1/topics").body("{}"), 415, "unsupported_media_type"),
        (host.request(Method::POST, "/v1/topics").json(&json!({ "nam": "x" })), 400, "bad_json"),
        (get("/v1/topics/t/records?form=latest"), 400, "unknown_parameter"),
        (get("/v1/topics/t/records?from=yesterday"), 400, "bad_parameter"),
        (get("/v1/topics/t/records?max=0"), 400, "bad_parameter"),
        (get("/v1/topics/t/records?max=20000"), 400, "bad_parameter"),
        (get("/v1/topics/t/records?follow=true"), 400, "bad_parameter"),
        (get("/v1/topics/t/records?partition=2"), 400, "no_such_partition"),
        (get("/v1/topics/t/records?partition=0&from=5"), 416, "offset_out_of_range"),
        (get("/v1/topics/t/records?from=0:9,1:0"), 416, "offset_out_of_range"),
        (get("/v1/topics/t/records?from=0:0,7:0"), 400, "no_such_partition"),
        (get("/v1/topics/t/stream?batch=perhaps"), 400, "bad_parameter"),
        (get("/v1/groups/none"), 404, "group_not_found"),
        (get("/v1/tables/none"), 404, "table_not_found"),
        (get("/v1/tables/none/stream"), 404, "table_not_found"),
        (get("/v1/tables/none/stream?interval=1"), 400, "bad_parameter"),
        (get("/v1/status?verbose=1"), 400, "unknown_parameter"),
    ] {
        let (method, url) = (format!("{:?}", request), status);
        let (found, error) = host.refused(request).await;
        assert_eq!((found, error["code"].as_str()), (url, Some(code)), "{method}: {error}");
    }
}

#[tokio::test]
async fn groups_move_commit_and_go() {
    let host = TestHost::start().await;
    host.topic("t", 1, "bytes").await;
    host.lines("t", "", "a\nb\nc\nd\n").await;
    let post = |path: &str, body: serde_json::Value| host.request(Method::POST, path).json(&body);
    let seek = |to: &str| json!({ "topic": "t", "to": to });
    let commit = |position: &str| json!({ "topic": "t", "position": position });

    let group = host.post("/v1/groups/export/commit", commit("0:2")).await;
    assert_eq!((group["lag"].as_u64(), group["partitions"][0]["offset"].as_u64()), (Some(2), Some(2)));
    assert_eq!(host.raw("t", "&group=export").await, b"c\nd\n");
    for (to, offset) in [("earliest", 0), ("latest", 4), ("1", 1), ("tail:1", 3), ("2000-01-01T00:00:00Z", 0)]
    {
        let group = host.post("/v1/groups/export/seek", seek(to)).await;
        assert_eq!(group["partitions"][0]["offset"], offset, "{to}");
    }
    for (request, status, code) in [
        (post("/v1/groups/export/commit", commit("0:9")), 416, "offset_out_of_range"),
        (post("/v1/groups/export/commit", commit("1:0")), 400, "no_such_partition"),
        (post("/v1/groups/export/commit", commit("here")), 400, "bad_position"),
        (post("/v1/groups/export/seek", seek("soon")), 400, "bad_target"),
        (
            post("/v1/groups/export/seek", json!({ "topic": "t", "to": "9", "partition": 0 })),
            416,
            "offset_out_of_range",
        ),
        (post("/v1/groups/Export!/seek", seek("latest")), 400, "bad_name"),
        (host.request(Method::GET, "/v1/groups/exprot"), 404, "group_not_found"),
    ] {
        let (found, error) = host.refused(request).await;
        assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{error}");
    }
    assert_eq!(host.get("/v1/groups/export").await["topics"].as_array().unwrap().len(), 1);
    assert_eq!(host.get("/v1/groups").await["groups"].as_array().unwrap().len(), 1);
    let gone = host.request(Method::DELETE, "/v1/groups/export").send().await.unwrap();
    assert_eq!(gone.status(), 204);
    assert_eq!(host.refused(host.request(Method::DELETE, "/v1/groups/export")).await.0, 404);
}

#[tokio::test]
async fn a_group_that_a_stage_owns_is_left_alone() {
    let host = TestHost::start().await;
    host.topic("t", 1, "bytes").await;
    host.lines("t", "", "a\n").await;
    let (group, topic) = ("latest".parse().unwrap(), "t".parse().unwrap());
    host.state.groups.join(&group, &topic, crate::config::plan::Start::Earliest).await.unwrap();
    let id = host.state.log.topic("t").await.unwrap().id;
    let owner = host.state.settings.host.clone();
    host.state.groups.acquire(&group, id, 0, &owner, "p/s").await.unwrap().unwrap();
    let commit = host
        .request(Method::POST, "/v1/groups/latest/commit")
        .json(&json!({ "topic": "t", "position": "0:1" }));
    for request in [commit, host.request(Method::DELETE, "/v1/groups/latest")] {
        let (status, error) = host.refused(request).await;
        assert_eq!((status, error["code"].as_str()), (409, Some("group_in_use")));
    }
    // A seek moves it all the same.
    let moved = host.post("/v1/groups/latest/seek", json!({ "topic": "t", "to": "latest" })).await;
    assert_eq!(moved["lag"], 0);
}

#[tokio::test]
async fn rates_are_known_after_some_seconds() {
    let host = TestHost::start().await;
    host.topic("t", 1, "bytes").await;
    for _ in 0..40 {
        host.lines("t", "", "a\n".repeat(50)).await;
        let rate = host.get("/v1/topics/t").await["records_per_second"].as_f64();
        if rate.is_some_and(|rate| rate > 0.0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("no rate after ten seconds");
}
