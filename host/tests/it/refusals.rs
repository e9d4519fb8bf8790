//! What a plugin refuses, and what becomes of it under each `on_error`.

use std::time::Duration;

use sqlx::PgPool;

use crate::support::{Host, client, eventually, scratch, stdout};

/// `refuse` rejects payloads with "bad", and asks for those with "later" again.
fn pipeline(folder: &std::path::Path) -> String {
    let stage = |name: &str, on_error: &str| {
        format!(
            "[topics.out_{name}]\npartitions = 1\n\n[transforms.{name}]\nplugin = \"test-misbehave\"\nfrom = \"a\"\n\
             to = \"out_{name}\"\nconfig = {{ fault = \"refuse\" }}\non_error = \"{on_error}\"\nmax_attempts = 3\n\n"
        )
    };
    let text = format!(
        "[pipeline]\nname = \"refusals\"\n\n[topics.a]\npartitions = 1\nformat = \"bytes\"\n\n{}{}{}",
        stage("letters", "dead-letter"),
        stage("skips", "skip"),
        stage("stops", "stop")
    );
    let file = folder.join("refusals.toml");
    std::fs::write(&file, text).expect("a pipeline file can be written");
    file.display().to_string()
}

async fn lag(pool: &PgPool, group: &str) -> i64 {
    sqlx::query_scalar("SELECT sum(lag)::bigint FROM tidemill.lag WHERE group_name = $1")
        .bind(group.to_string())
        .fetch_one(pool)
        .await
        .expect("the lag can be read")
}

#[tokio::test]
async fn refused_messages_go_where_on_error_says_and_the_rest_keeps_its_order() {
    let folder = scratch();
    let host = Host::start(&folder.path().join("data"), &[&pipeline(folder.path())]);
    let body = "one\ntwo\nbad three\nfour\nlater five\nsix\n";
    let answer = client()
        .post(format!("{}/v1/topics/a/records", host.url))
        .header("content-type", "text/plain")
        .body(body)
        .send()
        .await
        .expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
    let pool = host.pool().await;
    eventually("two stages get past the refused messages", Duration::from_secs(30), || async {
        lag(&pool, "letters").await == 0 && lag(&pool, "skips").await == 0
    })
    .await;
    for topic in ["out_letters", "out_skips"] {
        let out = stdout(&host.cli(&["consume", topic, "--from", "earliest", "--format", "raw"]));
        assert_eq!(out, "one\ntwo\nfour\nsix\n", "{topic}");
    }
    let letters: Vec<(String, String, i64, String, i32)> = sqlx::query_as(
        "SELECT stage, kind, c_offset, convert_from(payload, 'UTF8'), attempts FROM tidemill.dead_letters ORDER BY 3",
    )
    .fetch_all(&pool)
    .await
    .expect("dead letters can be read");
    let letters: Vec<_> =
        letters.iter().map(|(s, k, o, p, a)| (s.as_str(), k.as_str(), *o, p.as_str(), *a)).collect();
    assert_eq!(
        letters,
        [("letters", "reject", 2, "bad three", 1), ("letters", "retries", 4, "later five", 3)]
    );
    // The stage that stops has done what comes before the message, and says where and why it stands.
    eventually("the third stage stops", Duration::from_secs(30), || async { lag(&pool, "stops").await == 4 })
        .await;
    let mut reason = String::new();
    eventually("the status says why", Duration::from_secs(30), || async {
        let status = host.get("/v1/status").await;
        let stages = status["pipelines"][0]["stages"].as_array().cloned().unwrap_or_default();
        stages.iter().any(|stage| stage["name"] == "stops" && stage["state"] == "failed")
    })
    .await;
    for stage in host.get("/v1/status").await["pipelines"][0]["stages"].as_array().into_iter().flatten() {
        if stage["name"] == "stops" {
            reason = stage["reason"].as_str().unwrap_or_default().to_string();
        }
    }
    assert!(reason.contains("offset 2") && reason.contains("on_error"), "{reason}");
}

/// What a stage wrote names the plugin that wrote it and the message it was made from.
#[tokio::test]
async fn each_output_can_be_traced_to_its_input_and_its_plugin() {
    let folder = scratch();
    let host = Host::start(&folder.path().join("data"), &[&pipeline(folder.path())]);
    let answer = client()
        .post(format!("{}/v1/topics/a/records", host.url))
        .header("content-type", "text/plain")
        .body("zero\nbad one\ntwo\n")
        .send()
        .await
        .expect("an answer");
    assert!(answer.status().is_success());
    let pool = host.pool().await;
    eventually("the stage is done", Duration::from_secs(30), || async { lag(&pool, "letters").await == 0 })
        .await;
    let traced: Vec<(String, i64, bool)> = sqlx::query_as(
        "SELECT convert_from(b.payloads[i], 'UTF8'),
                b.input_offset + coalesce(b.input_index[i], i - 1),
                o.digest LIKE 'sha256:%' AND o.stage = 'letters'
           FROM log.out_letters b JOIN tidemill.origins o ON o.origin_id = b.origin,
                generate_series(1, b.record_count) i
          ORDER BY b.base_offset, i",
    )
    .fetch_all(&pool)
    .await
    .expect("the log can be read");
    assert_eq!(traced, [("zero".to_string(), 0, true), ("two".to_string(), 2, true)]);
}
