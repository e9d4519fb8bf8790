//! Queues of pipeline files on a real host: what stages emit becomes jobs in their commits, crons fire, settings follow the file.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::marked::{rename_into, renamed};
use crate::support::{Host, client, eventually, root, scratch, stderr};

const PATIENCE: Duration = Duration::from_secs(60);

fn file(folder: &Path, queue: &str, stage: &str) -> String {
    let file = folder.join("jobs.toml");
    let text = format!(
        "[pipeline]\nname = \"jobs\"\n\n[topics.a]\npartitions = 1\n\n[queues.q]\n{queue}\n\n{stage}\n"
    );
    rename_into(&file, text.as_bytes());
    file.display().to_string()
}

const PASS: &str = "[transforms.pass]\nplugin = \"test-identity\"\nfrom = \"a\"\nmax_attempts = 1\n\
                    to = { default = { queue = \"q\" } }";

async fn produce(host: &Host, records: Value) {
    let sent = client().post(format!("{}/v1/topics/a/records", host.url)).json(&records).send().await;
    let answer = sent.expect("the host answers");
    assert!(answer.status().is_success(), "{}", answer.status());
}

async fn processed(pool: &PgPool) {
    eventually("everything is processed", PATIENCE, || async {
        let sql = "SELECT coalesce(sum(lag), 1)::bigint FROM tidemill.lag";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await.expect("the lag can be read") == 0
    })
    .await;
}

/// The jobs of a queue in a state, as the host shows them.
async fn jobs(host: &Host, state: &str) -> Vec<Value> {
    let page = host.get(&format!("/v1/queues/q/jobs?state={state}&limit=1000")).await;
    page["jobs"].as_array().cloned().unwrap_or_default()
}

fn texts(jobs: &[Value]) -> Vec<&str> {
    jobs.iter().filter_map(|job| job["text"].as_str()).collect()
}

#[tokio::test]
async fn emissions_become_jobs_with_their_headers_and_bad_ones_are_bad_output() {
    let folder = scratch();
    let host = Host::start(&folder.path().join("data"), &[&file(folder.path(), "", PASS)]);
    let pool = host.pool().await;
    let unique = json!([["tidemill-unique", "u"]]);
    let later =
        json!([["trace", "7"], ["tidemill-priority", "1"], ["tidemill-run-at", "2100-01-01T00:00:00Z"]]);
    produce(
        &host,
        json!([
            { "key": "k", "text": "later", "headers": later },
            { "text": "once", "headers": unique },
            { "text": "bad", "headers": [["tidemill-priority", "9"]] },
            { "text": "twice", "headers": unique },
            { "text": "plain" }
        ]),
    )
    .await;
    processed(&pool).await;
    assert_eq!(texts(&jobs(&host, "waiting").await), ["once", "plain"]);
    let scheduled = jobs(&host, "scheduled").await;
    assert_eq!(texts(&scheduled), ["later"]);
    let job = &scheduled[0];
    assert_eq!((&job["priority"], &job["key"]), (&json!(1), &json!("k")));
    assert_eq!(job["headers"], json!([["trace", "7"]]), "what the host understands is taken out");
    assert_eq!(job["run_at"], "2100-01-01T00:00:00.000000Z");
    let letters: Vec<(String, String, String)> =
        sqlx::query_as("SELECT convert_from(payload, 'UTF8'), kind, error FROM tidemill.dead_letters")
            .fetch_all(&pool)
            .await
            .expect("dead letters can be read");
    let [(payload, kind, error)] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((payload.as_str(), kind.as_str()), ("bad", "output"));
    assert!(error.contains("tidemill-priority") && error.contains("from 1 to 4"), "{error}");

    // A shadow would run on the same messages, and its jobs would be done.
    let candidate = folder.path().join("candidate.wasm");
    let identity = std::fs::read(root().join("plugins/dist/test-identity.wasm")).expect("it is built");
    std::fs::write(&candidate, renamed(identity)).expect("written");
    let refused = host.cli(&["plugin", "shadow", &candidate.display().to_string(), "--stage", "jobs/pass"]);
    assert!(stderr(&refused).contains("a shadow puts none"), "{}", stderr(&refused));
}

#[tokio::test]
async fn crons_fire_and_settings_follow_the_file() {
    let folder = scratch();
    let nightly =
        "lease = \"10s\"\n[queues.q.cron.nightly]\nschedule = \"0 3 1 1 *\"\npayload = \"good night\"";
    let host = Host::start(&folder.path().join("data"), &[&file(folder.path(), nightly, PASS)]);
    let pool = host.pool().await;
    let queue = host.get("/v1/queues/q").await;
    assert_eq!((&queue["lease_s"], &queue["crons"][0]["name"]), (&json!(10.0), &json!("nightly")));
    // The night comes now, and one before it was missed.
    sqlx::query("UPDATE tidemill.queue_crons SET next_at = now() - interval '2 years'")
        .execute(&pool)
        .await
        .expect("the cron can be moved");
    eventually("the cron fires", PATIENCE, || async { !jobs(&host, "waiting").await.is_empty() }).await;
    let made = jobs(&host, "waiting").await;
    assert_eq!(texts(&made), ["good night"]);
    let cron = host.get("/v1/queues/q").await["crons"][0].clone();
    assert_eq!((&cron["job"], cron["fired_at"].is_string()), (&made[0]["id"], true));

    file(folder.path(), "lease = \"1m\"\nmax_attempts = 3", PASS);
    eventually("the file is followed", PATIENCE, || async {
        let queue = host.get("/v1/queues/q").await;
        queue["lease_s"] == 60.0 && queue["max_attempts"] == 3 && queue["crons"] == json!([])
    })
    .await;
}

#[tokio::test]
async fn a_source_that_is_killed_puts_each_job_once() {
    let folder = scratch();
    let fleet = "[producers.fleet]\nplugin = \"aircraft-generator\"\nto = { default = { queue = \"q\" } }\n\
                 config = { aircraft = 10, rate = 50 }";
    let mut host = Host::start(&folder.path().join("data"), &[&file(folder.path(), "", fleet)]);
    for round in 1..=3 {
        eventually("jobs are put", PATIENCE, || async { jobs(&host, "waiting").await.len() >= round * 100 })
            .await;
        host.kill();
        host.restart();
    }
    let pool = host.pool().await;
    host.kill();
    let (all, different): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT (value->>'id', value->>'ts'))
           FROM (SELECT convert_from(payload, 'UTF8')::jsonb AS value FROM tidemill.list_jobs('q', 'waiting', 1000)) j",
    )
    .fetch_one(&pool)
    .await
    .expect("jobs can be read");
    assert!(all >= 300, "{all}");
    assert_eq!(all, different, "reports that came as more than one job");
}
