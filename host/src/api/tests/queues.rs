//! Queues, jobs and claims over HTTP.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use super::host::TestHost;
use crate::ids::QueueName;

async fn with_queue(settings: Value) -> TestHost {
    let host = TestHost::start().await;
    let queue = QueueName::parse("reports").unwrap();
    host.state.queues().declare(&queue, &settings).await.unwrap();
    host
}

const JOBS: &str = "/v1/queues/reports/jobs";
const CLAIM: &str = "/v1/queues/reports/claim";

fn ids(answer: &Value) -> Vec<u64> {
    answer["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn jobs_go_in_and_come_out_to_the_byte() {
    let host = with_queue(json!({})).await;
    let one = host.post(JOBS, json!({ "payload": { "n": 1 }, "key": "a1", "headers": [["h", "v"]] })).await;
    assert_eq!(one["jobs"][0]["created"], true);
    let more = json!([{ "text": "plain" }, { "base64": "/wA=", "key_base64": "/g==" }, { "payload": null }]);
    let more = host.post(JOBS, more).await;
    assert_eq!(ids(&more).len(), 3);
    let claimed = host.post(CLAIM, json!({ "max_jobs": 10, "worker": "w" })).await;
    assert!(claimed["claim"].as_str().unwrap().parse::<i64>().is_ok());
    let jobs = claimed["jobs"].as_array().unwrap();
    assert_eq!((&jobs[0]["value"], &jobs[0]["key"]), (&json!({ "n": 1 }), &json!("a1")));
    assert_eq!((&jobs[0]["headers"], &jobs[0]["attempt"]), (&json!([["h", "v"]]), &json!(1)));
    assert_eq!((&jobs[1]["text"], &jobs[2]["base64"]), (&json!("plain"), &json!("/wA=")));
    assert_eq!((&jobs[2]["key_base64"], &jobs[3]["value"]), (&json!("/g=="), &Value::Null));
    let none = host.post(CLAIM, json!({})).await;
    assert_eq!(none, json!({ "claim": null, "jobs": [] }));
}

#[tokio::test]
async fn a_unique_job_is_put_once_and_a_scheduled_one_waits() {
    let host = with_queue(json!({})).await;
    let job = json!({ "payload": 1, "unique": "u", "unique_for_s": 60, "priority": 1, "max_attempts": 3 });
    let first = host.post(JOBS, job.clone()).await;
    let again = host.post(JOBS, job).await;
    assert_eq!((again["jobs"][0]["created"].clone(), ids(&again)), (json!(false), ids(&first)));
    host.post(JOBS, json!({ "payload": 2, "run_at": "2100-01-01T00:00:00Z" })).await;
    let scheduled = host.get(&format!("{JOBS}?state=scheduled")).await;
    assert_eq!(scheduled["jobs"][0]["run_at"], "2100-01-01T00:00:00.000000Z");
    let waiting = host.get(JOBS).await;
    let shown = &waiting["jobs"][0];
    assert_eq!((&shown["priority"], &shown["max_attempts"]), (&json!(1), &json!(3)));
    assert_eq!((&shown["unique_key"], &waiting["next"]), (&json!("u"), &Value::Null));
    let queue = host.get("/v1/queues/reports").await;
    assert_eq!(queue["scheduled"], 1);
}

#[tokio::test]
async fn runs_are_ended_by_their_claim_and_by_no_other() {
    let host = with_queue(json!({ "max_attempts": 2 })).await;
    host.post(JOBS, json!((0..6).map(|n| json!({ "payload": n })).collect::<Vec<_>>())).await;
    let claimed = host.post(CLAIM, json!({ "max_jobs": 6, "lease_s": 30 })).await;
    let (claim, all) = (claimed["claim"].as_str().unwrap(), ids(&claimed));
    let finish = format!("/v1/queues/reports/claims/{claim}/finish");
    let ended = host
        .post(
            &finish,
            json!({ "jobs": [
                { "id": all[0], "verdict": "done", "result": { "pages": 3 } },
                { "id": all[1], "verdict": "retry", "error": "away", "after_s": 3600 },
                { "id": all[2], "verdict": "snooze", "after_s": 3600 },
                { "id": all[3], "verdict": "reject", "error": "no such incident" },
                { "id": all[4], "verdict": "cancel" },
                { "id": 999, "verdict": "done" },
            ] }),
        )
        .await;
    assert_eq!(ended, json!({ "accepted": all[..5], "refused": [999] }));
    let extended = host.post(&format!("/v1/queues/reports/claims/{claim}/extend"), json!({})).await;
    assert_eq!(extended["claim"], *claim);
    let states = ["done", "scheduled", "scheduled", "dead", "cancelled", "running"];
    for (id, state) in all.iter().zip(states) {
        assert_eq!(host.get(&format!("{JOBS}/{id}")).await["state"], state, "job {id}");
    }
    let done = host.get(&format!("{JOBS}/{}", all[0])).await;
    assert_eq!((&done["result"]["value"], &done["worker"]), (&json!({ "pages": 3 }), &json!("http")));
    assert_eq!(host.get(&format!("{JOBS}/{}", all[3])).await["error"], "no such incident");

    // Its worker is gone, and another has the job.
    sqlx::query("UPDATE tidemill.claims SET expires_at = now() - interval '1 s'")
        .execute(&host.database.pool)
        .await
        .unwrap();
    let late = json!({ "jobs": [{ "id": all[5], "verdict": "done" }] });
    assert_eq!(host.post(&finish, late.clone()).await, json!({ "accepted": [], "refused": [all[5]] }));
    let extend = format!("/v1/queues/reports/claims/{claim}/extend");
    let (status, error) = host.refused(host.request(Method::POST, &extend).json(&json!({}))).await;
    assert_eq!((status, error["code"].as_str()), (409, Some("claim_lost")));
    let other = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let claimed = host.post(CLAIM, json!({ "worker": "other" })).await;
            if !claimed["claim"].is_null() {
                return claimed;
            }
        }
    });
    let other = other.await.unwrap();
    assert_eq!((ids(&other), &other["jobs"][0]["attempt"]), (vec![all[5]], &json!(2)));
    let (status, error) = host.refused(host.request(Method::POST, &finish).json(&late)).await;
    assert_eq!((status, error["code"].as_str()), (409, Some("claim_lost")));
    assert_eq!(host.get(&format!("{JOBS}/{}", all[5])).await["worker"], "other");
}

#[tokio::test]
async fn jobs_are_retried_cancelled_and_dropped_by_hand() {
    let host = with_queue(json!({})).await;
    host.post(JOBS, json!((0..3).map(|n| json!({ "payload": n })).collect::<Vec<_>>())).await;
    let claimed = host.post(CLAIM, json!({ "max_jobs": 2 })).await;
    let (claim, all) = (claimed["claim"].as_str().unwrap(), ids(&claimed));
    let dead: Vec<Value> = all.iter().map(|id| json!({ "id": id, "verdict": "reject" })).collect();
    host.post(&format!("/v1/queues/reports/claims/{claim}/finish"), json!({ "jobs": dead })).await;
    assert_eq!(host.post(&format!("{JOBS}/{}/retry", all[0]), json!({})).await, json!({ "id": all[0] }));
    let gone = host.request(Method::DELETE, &format!("{JOBS}/{}", all[1])).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    assert_eq!(host.get(&format!("{JOBS}?state=dead")).await["jobs"], json!([]));
    let waiting = ids(&host.get(JOBS).await)[0];
    let cancelled = host.post(&format!("{JOBS}/{waiting}/cancel?reason=not+needed"), json!({})).await;
    assert_eq!(cancelled, json!({ "id": waiting, "was": "waiting" }));
    let shown = host.get(&format!("{JOBS}/{waiting}")).await;
    assert_eq!((&shown["state"], &shown["error"]), (&json!("cancelled"), &json!("not needed")));
    for (method, path, status, code) in [
        (Method::POST, format!("{JOBS}/{waiting}/cancel"), 409, "job_impossible"),
        (Method::POST, format!("{JOBS}/{waiting}/retry"), 409, "job_impossible"),
        (Method::DELETE, format!("{JOBS}/{waiting}"), 409, "job_impossible"),
        (Method::DELETE, format!("{JOBS}/{}", all[1]), 404, "job_not_found"),
        (Method::POST, format!("{JOBS}/{}/retry", all[1]), 404, "job_not_found"),
        (Method::POST, format!("{JOBS}/{}/cancel", all[1]), 404, "job_not_found"),
        (Method::GET, format!("{JOBS}/{}", all[1]), 404, "job_not_found"),
    ] {
        let (found, error) = host.refused(host.request(method.clone(), &path)).await;
        assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{method} {path}");
    }
}

#[tokio::test]
async fn a_paused_queue_gives_nothing_until_it_is_resumed_and_status_and_metrics_tell() {
    let host = with_queue(json!({ "lease": 60, "concurrency": 7, "keep": 0 })).await;
    host.post(JOBS, json!({ "payload": 1 })).await;
    assert_eq!(host.post("/v1/queues/reports/pause", json!({})).await["paused"], true);
    assert_eq!(host.post(CLAIM, json!({})).await["claim"], Value::Null);
    let queue = host.get("/v1/status").await["queues"][0].clone();
    assert_eq!((&queue["name"], &queue["paused"]), (&json!("reports"), &json!(true)));
    assert_eq!((&queue["lease_s"], &queue["concurrency"]), (&json!(60.0), &json!(7)));
    assert!(queue["oldest_waiting_s"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{queue}");
    let other = QueueName::parse("idle").unwrap();
    host.state.queues().declare(&other, &json!({})).await.unwrap();
    assert_eq!(host.get("/v1/queues/idle").await["oldest_waiting_s"], Value::Null);
    assert_eq!(host.get("/v1/queues").await["queues"].as_array().unwrap().len(), 2);
    host.post("/v1/queues/reports/resume", json!({})).await;
    assert_eq!(ids(&host.post(CLAIM, json!({})).await).len(), 1);
    let gauge = "tidemill_queue_jobs{queue=\"reports\",state=\"running\"} 1";
    let seen = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let text = host.http.get(format!("{}/metrics", host.url)).send().await.unwrap();
            if text.text().await.unwrap().contains(gauge) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    seen.await.unwrap_or_else(|_| panic!("{gauge} was not seen"));
}

#[tokio::test]
async fn lists_are_pages_and_carry_only_the_beginning_of_what_is_long() {
    let host = with_queue(json!({})).await;
    let long = "ü".repeat(10_000);
    host.post(JOBS, json!([{ "text": "short" }, { "text": long }, { "payload": 3 }])).await;
    let page = host.get(&format!("{JOBS}?limit=2")).await;
    assert_eq!(page["jobs"][0]["text"], "short");
    let cut = &page["jobs"][1];
    assert_eq!((cut["bytes"].as_u64(), cut.get("text")), (Some(20_000), None));
    assert!(
        cut["preview"].as_str().is_some_and(|preview| preview.len() == 8192 && long.starts_with(preview))
    );
    let rest = host.get(&format!("{JOBS}?limit=2&before={}", page["next"])).await;
    assert_eq!((rest["jobs"].as_array().unwrap().len(), &rest["jobs"][0]["value"]), (1, &json!(3)));
    assert_eq!(rest["next"], Value::Null);
    assert_eq!(host.get(&format!("{JOBS}/{}", cut["id"])).await["text"], long);
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_with_words_and_nothing_is_put() {
    let host = with_queue(json!({ "ordered": true })).await;
    let post = |path: &str, body: Value| host.request(Method::POST, path).json(&body);
    for (body, code, words) in [
        (json!([]), "bad_job", "no jobs"),
        (json!([{ "payload": 1 }, {}]), "bad_job", "job 2: there is no payload"),
        (json!({ "payload": 1, "text": "x" }), "bad_job", "more than one"),
        (json!({ "payload": 1, "kye": "x" }), "bad_job", "unknown field `kye`"),
        (json!({ "payload": 1, "priority": 5 }), "bad_job", "1 to 4"),
        (json!({ "payload": 1, "priority": 1 }), "bad_job", "ordered"),
        (json!({ "payload": 1, "run_at": "soon" }), "bad_job", "2026-01-31T08:00:00Z"),
        (json!({ "payload": 1, "max_attempts": 0 }), "bad_job", "1 to 1000"),
        (json!({ "payload": 1, "unique_for_s": 5 }), "bad_job", "needs unique"),
        (json!({ "payload": 1, "unique": "" }), "bad_job", "unique"),
        (json!({ "payload": 1, "key": "k".repeat(1025) }), "bad_job", "1,024 bytes"),
    ] {
        let (status, error) = host.refused(post(JOBS, body.clone())).await;
        assert_eq!((status, error["code"].as_str()), (422, Some(code)), "{body}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(words)), "{body}: {error}");
    }
    for (body, code) in [
        (json!({ "text": "x".repeat((1 << 20) + 1) }), "job_too_large"),
        (json!(vec![json!({ "payload": 1 }); 10_001]), "too_many_jobs"),
        (json!({ "text": "x".repeat(9 << 20) }), "body_too_large"),
    ] {
        let (status, error) = host.refused(post(JOBS, body)).await;
        assert_eq!((status, error["code"].as_str()), (413, Some(code)));
    }
    let text = host.request(Method::POST, JOBS).header("content-type", "text/plain").body("x");
    assert_eq!(host.refused(text).await.0, 415);
    for (method, path, body, status, code) in [
        (Method::POST, JOBS, json!("x"), 422, "bad_job"),
        (Method::POST, "/v1/queues/none/jobs", json!({ "payload": 1 }), 404, "queue_not_found"),
        (Method::POST, "/v1/queues/none/claim", json!({}), 404, "queue_not_found"),
        (Method::POST, "/v1/queues/none/pause", json!({}), 404, "queue_not_found"),
        (Method::GET, "/v1/queues/none", json!(null), 404, "queue_not_found"),
        (Method::GET, "/v1/queues/none/jobs", json!(null), 404, "queue_not_found"),
        (Method::GET, "/v1/queues/none/jobs/1", json!(null), 404, "queue_not_found"),
        (Method::GET, "/v1/queues/No", json!(null), 400, "bad_name"),
        (Method::GET, "/v1/queues/reports/jobs/last", json!(null), 400, "bad_id"),
        (Method::GET, "/v1/queues/reports/jobs?state=lost", json!(null), 400, "bad_parameter"),
        (Method::GET, "/v1/queues/reports/jobs?limit=1001", json!(null), 400, "bad_parameter"),
        (Method::GET, "/v1/queues/reports/jobs?sate=dead", json!(null), 400, "unknown_parameter"),
        (Method::POST, CLAIM, json!({ "max_jobs": 0 }), 422, "bad_job"),
        (Method::POST, CLAIM, json!({ "lease_s": 0.5 }), 422, "bad_job"),
        (Method::POST, CLAIM, json!({ "jobs": 1 }), 400, "bad_json"),
        (Method::POST, "/v1/queues/reports/claims/x/extend", json!({}), 400, "bad_claim"),
        (Method::POST, "/v1/queues/reports/claims/5/extend", json!({}), 409, "claim_lost"),
        (Method::POST, "/v1/queues/reports/claims/5/finish", json!({ "jobs": [] }), 422, "bad_job"),
        (
            Method::POST,
            "/v1/queues/reports/claims/5/finish",
            json!({ "jobs": [{ "id": 1, "verdict": "fine" }] }),
            422,
            "bad_job",
        ),
        (
            Method::POST,
            "/v1/queues/reports/claims/5/finish",
            json!({ "jobs": [{ "id": 1, "verdict": "snooze" }] }),
            422,
            "bad_job",
        ),
    ] {
        let request = host.request(method.clone(), path);
        let request = if body.is_null() { request } else { request.json(&body) };
        let (found, error) = host.refused(request).await;
        assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{method} {path}");
    }
    assert_eq!(host.get("/v1/queues/reports").await["waiting"], 0);
}

#[tokio::test]
async fn a_job_whose_key_is_not_text_ends_and_has_its_line_of_history() {
    let host = TestHost::start().await;
    host.topic("ended", 1, "json").await;
    let queue = QueueName::parse("reports").unwrap();
    host.state.queues().declare(&queue, &json!({ "history": "ended" })).await.unwrap();
    host.post(JOBS, json!([{ "payload": 1, "key_base64": "/wA=" }, { "payload": 2, "key": "a1" }])).await;
    let claimed = host.post(CLAIM, json!({ "max_jobs": 2 })).await;
    let done: Vec<Value> = ids(&claimed).iter().map(|id| json!({ "id": id, "verdict": "done" })).collect();
    let finish = format!("/v1/queues/reports/claims/{}/finish", claimed["claim"].as_str().unwrap());
    let ended = host.post(&finish, json!({ "jobs": done })).await;
    assert_eq!(ended, json!({ "accepted": ids(&claimed), "refused": [] }));
    let history = host.get("/v1/topics/ended/records?format=page").await;
    let keys: Vec<&Value> =
        history["records"].as_array().unwrap().iter().map(|record| &record["value"]["key"]).collect();
    assert_eq!(keys, [&json!({ "base64": "/wA=" }), &json!("a1")]);
}
