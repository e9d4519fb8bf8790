//! Dead letters run again: in their own group, once, whatever is killed.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Host, client, eventually, scratch, stderr, stdout};

const PATIENCE: Duration = Duration::from_secs(60);

/// Two stages that trap at payloads with "trap", each with a group and a topic of its own.
fn pipeline(folder: &Path, more: &str) -> String {
    let stage = |name: &str| {
        format!(
            "[topics.out_{name}]\npartitions = 1\nformat = \"bytes\"\n\n[transforms.{name}]\nplugin = \"test-misbehave\"\n\
             from = \"a\"\nto = \"out_{name}\"\nconfig = {{ fault = \"trap\" }}\nmax_attempts = 1\n{more}\n\n"
        )
    };
    let text = format!(
        "[pipeline]\nname = \"letters\"\n\n[topics.a]\npartitions = 1\nformat = \"bytes\"\n\n{}{}",
        stage("first"),
        stage("second")
    );
    let file = folder.join("letters.toml");
    std::fs::write(&file, text).expect("a pipeline file can be written");
    file.display().to_string()
}

async fn produce(host: &Host, topic: &str, body: String) {
    let url = format!("{}/v1/topics/{topic}/records", host.url);
    let answer = client().post(url).header("content-type", "text/plain").body(body).send().await;
    let status = answer.expect("an answer").status();
    assert!(status.is_success(), "{status}");
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap_or(-1)
}

async fn lag(pool: &PgPool) -> i64 {
    count(pool, "SELECT coalesce(sum(lag), -1)::bigint FROM tidemill.lag").await
}

async fn execute(pool: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn out(host: &Host, topic: &str) -> String {
    stdout(&host.cli(&["consume", topic, "--from", "earliest", "--format", "raw"]))
}

#[tokio::test]
async fn a_repaired_message_runs_again_in_its_own_group_and_only_there() {
    let folder = scratch();
    let host = Host::start(&folder.path().join("data"), &[&pipeline(folder.path(), "")]);
    let pool = host.pool().await;
    produce(&host, "a", "one\ntrap two\nthree\n".to_string()).await;
    eventually("both groups have passed the message", PATIENCE, || async { lag(&pool).await == 0 }).await;
    let list = stdout(&host.cli(&["dlq", "list", "--group", "first"]));
    assert!(list.contains("a 0:1") && list.contains("trap") && !list.contains("second"), "{list}");
    let page: Value =
        serde_json::from_str(&stdout(&host.cli(&["dlq", "list", "--group", "first", "--json"])))
            .expect("it prints JSON");
    let id = page["dead_letters"][0]["id"].as_i64().expect("an id").to_string();
    let shown = stdout(&host.cli(&["dlq", "show", &id]));
    assert!(shown.contains("trap two") && shown.contains("letters/first"), "{shown}");

    // As it is it fails again, with one attempt more.
    assert!(host.cli(&["dlq", "redrive", &id]).status.success());
    eventually("the letter has failed again", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.dead_letters WHERE state = 'dead' AND attempts = 2").await
            == 1
    })
    .await;
    execute(&pool, "UPDATE tidemill.dead_letters SET payload = 'mended two' WHERE group_name = 'first'")
        .await;
    let queued: bool = sqlx::query_scalar(
        "SELECT tidemill.redrive(dead_letter_id) FROM tidemill.dead_letters WHERE group_name = 'first'",
    )
    .fetch_one(&pool)
    .await
    .expect("psql users can queue it");
    assert!(queued);
    eventually("the letter is gone", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.dead_letters WHERE group_name = 'first'").await == 0
    })
    .await;
    assert_eq!(out(&host, "out_first"), "one\nthree\nmended two\n");
    assert_eq!(out(&host, "out_second"), "one\nthree\n", "the other group is left alone");
    assert_eq!(count(&pool, "SELECT count(*) FROM tidemill.dead_letters").await, 1);
    // The output still names the message it was made from.
    let input = "SELECT input_offset FROM log.out_first ORDER BY base_offset DESC LIMIT 1";
    assert_eq!(count(&pool, input).await, 1);
    let status = host.get("/v1/status").await;
    assert_eq!(status["dead_letters"], json!([{ "group": "second", "letters": 1, "queued": 0 }]));

    let refused = host.cli(&["dlq", "drop", "--group", "second"]);
    assert!(!refused.status.success() && stderr(&refused).contains("1 dead letter of group second"));
    let dropped = stdout(&host.cli(&["dlq", "drop", "--group", "second", "--yes"]));
    assert_eq!(dropped, "1 dead letter dropped\n");
}

/// Kills the host at a place in the middle of redrives until all are done, and gives the number of kills.
async fn redrive_under_kills(place: &str) -> u32 {
    const LETTERS: i64 = 60;
    let folder = scratch();
    let data = folder.path().join("data");
    let mut host = Host::start(&data, &[&pipeline(folder.path(), "breaker = { failures = 0 }")]);
    let pool = host.pool().await;
    let lines: String = (0..LETTERS).map(|n| format!("trap {n}\nfine {n}\n")).collect();
    produce(&host, "a", lines).await;
    eventually("all messages are done with", PATIENCE, || async { lag(&pool).await == 0 }).await;
    execute(&pool, "UPDATE tidemill.dead_letters SET payload = convert_to(replace(convert_from(payload, 'UTF8'), 'trap', 'mended'), 'UTF8')").await;
    host.stop();
    pool.close().await;
    // What is queued while no host runs is done by the first one that comes.
    drop(host);
    let mut kills = 0;
    let mut queued = false;
    loop {
        let file = pipeline(folder.path(), "breaker = { failures = 0 }");
        let mut host = Host::start_with(&data, &[&file], &[("TIDEMILL_CRASH_AT", place)]);
        let pool = host.pool().await;
        if !queued {
            let all: i64 =
                sqlx::query_scalar("SELECT tidemill.redrive('first') + tidemill.redrive('second')")
                    .fetch_one(&pool)
                    .await
                    .expect("queued");
            assert_eq!(all, 2 * LETTERS);
            queued = true;
        }
        let deadline = std::time::Instant::now() + PATIENCE;
        let done = loop {
            if host.ended() {
                break false;
            }
            if count(&pool, "SELECT count(*) FROM tidemill.dead_letters").await == 0 {
                break true;
            }
            assert!(std::time::Instant::now() < deadline, "neither killed nor done");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if done {
            for group in ["first", "second"] {
                let mut lines: Vec<String> =
                    out(&host, &format!("out_{group}")).lines().map(str::to_string).collect();
                let mended: Vec<String> = lines.extract_if(.., |line| line.starts_with("mended")).collect();
                let wanted: Vec<String> = (0..LETTERS).map(|n| format!("mended {n}")).collect();
                assert_eq!(mended, wanted, "{group}: each once, in the order of offsets");
                let fine: Vec<String> = (0..LETTERS).map(|n| format!("fine {n}")).collect();
                assert_eq!(lines, fine, "{group}");
            }
            return kills;
        }
        kills += 1;
    }
}

#[tokio::test]
async fn redrives_that_are_killed_before_their_commit_run_once() {
    let kills = redrive_under_kills("letter.commit:25").await;
    assert!(kills >= 4, "only {kills} kills");
}

#[tokio::test]
async fn redrives_that_are_killed_after_their_commit_run_once() {
    let kills = redrive_under_kills("letter.committed:25").await;
    assert!(kills >= 4, "only {kills} kills");
}
