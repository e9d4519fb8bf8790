//! What is told of plugins is as documented, also where nothing runs.

use reqwest::Method;
use serde_json::json;

use super::host::TestHost;

/// Two versions in the database, the second on probation.
async fn with_plugins() -> TestHost {
    let host = TestHost::start().await;
    for (digit, name) in [("1", "one"), ("2", "two")] {
        sqlx::query(
            "INSERT INTO tidemill.plugins (digest, kind, name, version, bytes, size, pushed_by)
             VALUES ('sha256:' || repeat($1, 64), 'transform', $2, '0.1.0', '\\x00', 1, 'test')",
        )
        .bind(digit)
        .bind(name)
        .execute(&host.database.pool)
        .await
        .unwrap();
        sqlx::query("SELECT tidemill.activate_plugin('p/s', 'sha256:' || repeat($1, 64), 'file', 'test')")
            .bind(digit)
            .execute(&host.database.pool)
            .await
            .unwrap();
    }
    host
}

#[tokio::test]
async fn stored_plugins_and_the_history_of_a_stage_are_shown() {
    let host = with_plugins().await;
    let stored = host.get("/v1/plugins").await;
    assert_eq!(stored["plugins"].as_array().map(Vec::len), Some(2));
    let stage = host.get("/v1/pipelines/p/stages/s/plugin").await;
    assert_eq!((&stage["state"], &stage["epoch"]), (&json!("probation"), &json!(2)));
    assert_eq!(stage["history"][1]["outcome"], "replaced");
    assert_eq!(host.get("/v1/shadows").await, json!({ "shadows": [] }));
}

#[tokio::test]
async fn a_stage_that_does_not_run_here_takes_no_plugin() {
    let host = with_plugins().await;
    let path = "/v1/pipelines/p/stages/s/plugin";
    let wasm = |body: &'static str| {
        host.request(Method::PUT, path).header("content-type", "application/wasm").body(body)
    };
    let (status, error) = host.refused(wasm("\0asm")).await;
    assert_eq!((status, &error["code"]), (404, &json!("stage_not_found")));
    let (status, _) = host.refused(host.request(Method::PUT, path).body("\0asm")).await;
    assert_eq!(status, 415);
    let (status, _) = host.refused(host.request(Method::GET, "/v1/pipelines/p/stages/none/plugin")).await;
    assert_eq!(status, 404);
    let (status, error) = host.refused(host.request(Method::DELETE, "/v1/pipelines/p/stages/s/shadow")).await;
    assert_eq!((status, &error["code"]), (404, &json!("plugin_not_found")), "{error}");
}
