//! History leaves Postgres for the bucket, in a real host, and nothing is lost on the way.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tidemill::archive::parquet;

use crate::support::{Host, client, eventually, root, scratch};

const PATIENCE: Duration = Duration::from_secs(90);

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The sample with short segments and a fast fleet.
fn hurried(folder: &Path) -> String {
    let text = std::fs::read_to_string(root().join("pipelines/aircraft.toml")).expect("the sample is there");
    let hurried = text
        .replace("rate = 1000", "rate = 4000")
        .replace("segment = \"1m\"", "segment = \"2s\"")
        .replace("hot = \"5m\"", "hot = \"3s\"");
    assert_ne!(hurried, text);
    let file = folder.join("aircraft.toml");
    std::fs::write(&file, hurried).expect("the copy can be written");
    file.display().to_string()
}

/// Of each partition what is in Postgres and what is in the bucket only make up the log.
async fn assert_nothing_is_missing(pool: &PgPool, bucket: &Path) {
    let wrong = count(
        pool,
        "SELECT count(*) FROM tidemill.log_counter c JOIN tidemill.log_start l USING (topic_id, partition)
           JOIN tidemill.topics t USING (topic_id)
          CROSS JOIN LATERAL (SELECT coalesce(sum(o.records), 0) AS records FROM tidemill.objects o
                               WHERE o.topic_id = c.topic_id AND o.partition = c.partition
                                 AND o.next_offset <= l.start_offset) cold
          CROSS JOIN LATERAL (SELECT count(*) AS records FROM topics.positions p WHERE p.partition = c.partition) hot
          WHERE t.name = 'positions' AND cold.records + hot.records <> c.next_offset",
    )
    .await;
    assert_eq!(wrong, 0, "partitions whose hot and archived messages do not add up to their next offset");
    let objects: Vec<(String, i64, i64, i64)> =
        sqlx::query_as("SELECT path, first_offset, next_offset, bytes FROM tidemill.objects")
            .fetch_all(pool)
            .await
            .expect("the catalog can be read");
    assert!(!objects.is_empty());
    for (path, first, next, bytes) in objects {
        let file = bucket.join(&path);
        assert_eq!(
            std::fs::metadata(&file).expect("a catalogued object is there").len() as i64,
            bytes,
            "{path}"
        );
        let checked = parquet::check(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(checked.records as i64, next - first, "{path}");
    }
}

#[tokio::test]
async fn segments_go_to_the_bucket_and_their_tables_go_away() {
    let folder = scratch();
    let data = folder.path().join("data");
    let mut host = Host::start(&data, &[&hurried(folder.path())]);
    let pool = host.pool().await;
    let dropped = "SELECT count(*) FROM tidemill.segments s JOIN tidemill.topics t USING (topic_id)
                    WHERE t.name = 'positions' AND s.state = 'dropped' AND to_regclass('log.' || s.table_name) IS NULL
                      AND EXISTS (SELECT 1 FROM tidemill.objects o WHERE o.segment_id = s.segment_id)";
    eventually("four segments have left Postgres", PATIENCE, || async { count(&pool, dropped).await >= 4 })
        .await;
    let topic = host.get("/v1/topics/positions").await;
    let (hot, cold) = (&topic["cold"]["hot_bytes_per_record"], &topic["cold"]["bytes_per_record"]);
    // Objects of two seconds: the footer alone is half of one. How small a real one is, archive::tests::measure tells.
    assert!(hot.as_f64() > cold.as_f64().map(|bytes| bytes * 4.0), "{topic}");
    let segments = host.get("/v1/topics/positions/segments").await;
    let states: Vec<&str> = segments["segments"]
        .as_array()
        .expect("segments")
        .iter()
        .filter_map(|s| s["state"].as_str())
        .collect();
    assert!(states.contains(&"dropped") && states.contains(&"open"), "{states:?}");
    host.kill();
    drop(host);
    let host = Host::start(&data, &[]);
    assert_nothing_is_missing(&host.pool().await, &data.join("bucket")).await;
    published_query_runs(&host, &data.join("bucket")).await;
}

/// The article's query, word for word, over all topics: by the host, and by DuckDB itself where it is installed.
async fn published_query_runs(host: &Host, bucket: &Path) {
    const PUBLISHED: &str = "SELECT kind, count(*) AS msgs, count(DISTINCT id) AS entities\n\
                             FROM read_parquet('archive/**/*.parquet') GROUP BY kind;";
    let pool = host.pool().await;
    let catalogued = "SELECT coalesce(sum(records), 0)::bigint FROM tidemill.objects";
    // The last segments are still on their way.
    eventually("all is archived", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.segments WHERE state = 'sealed'").await == 0
    })
    .await;
    let topics = "SELECT count(DISTINCT topic_id) FROM tidemill.objects";
    assert!(count(&pool, topics).await >= 2, "more than one topic is archived, each with its own columns");
    let (status, answer) = crate::query::ask(&host.url, json!({ "sql": PUBLISHED })).await;
    assert!(status.is_success(), "{answer}");
    let mut rows: Vec<Value> = answer["rows"].as_array().expect("rows").clone();
    rows.sort_by_key(ToString::to_string);
    assert_eq!(rows.len(), 5, "{answer}");
    let messages: i64 = rows.iter().filter_map(|row| row[1].as_i64()).sum();
    assert_eq!(messages, count(&pool, catalogued).await);
    let Some(duckdb) = duckdb() else {
        return eprintln!("skipped: DuckDB's command line is not installed (scripts/setup.sh duckdb-cli)");
    };
    let output = Command::new(duckdb).args(["-json", "-c", PUBLISHED]).current_dir(bucket).output();
    let output = output.expect("DuckDB's command line runs");
    assert!(output.status.success(), "{}", crate::support::stderr(&output));
    let theirs: Vec<Value> = serde_json::from_slice(&output.stdout).expect("DuckDB prints JSON");
    let mut theirs: Vec<Value> =
        theirs.iter().map(|row| json!([row["kind"], row["msgs"], row["entities"]])).collect();
    theirs.sort_by_key(ToString::to_string);
    assert_eq!(rows, theirs);
}

fn duckdb() -> Option<PathBuf> {
    Some(root().join(".setup/bin/duckdb")).filter(|path| path.exists())
}

#[tokio::test]
async fn the_bucket_gives_back_the_bytes_that_were_sent() {
    let folder = scratch();
    let data = folder.path().join("data");
    let host = Host::start(&data, &[]);
    let pool = host.pool().await;
    let made = client()
        .post(format!("{}/v1/topics", host.url))
        .json(&json!({ "name": "notes", "partitions": 1, "segment": "1s", "retention": { "hot": "1s" } }))
        .send()
        .await
        .expect("the host answers");
    assert!(made.status().is_success());
    let lines: Vec<String> =
        (0..500).map(|n| format!("{{ \"n\":{n}, \"text\":\"\\u00fc {}\" }}", "x".repeat(n % 50))).collect();
    let sent = client()
        .post(format!("{}/v1/topics/notes/records", host.url))
        .header("content-type", "application/x-ndjson")
        .body(lines.join("\n"))
        .send()
        .await
        .expect("the host answers");
    assert!(sent.status().is_success());
    eventually("they have left Postgres", PATIENCE, || async {
        count(&pool, "SELECT min(start_offset) FROM tidemill.log_start").await == 500
    })
    .await;
    let paths: Vec<String> = sqlx::query_scalar("SELECT path FROM tidemill.objects ORDER BY first_offset")
        .fetch_all(&pool)
        .await
        .expect("the catalog can be read");
    let mut back = Vec::new();
    for path in paths {
        let batches =
            parquet::decode(&data.join("bucket").join(path), 0..u64::MAX).expect("an object decodes");
        back.extend(batches.iter().flat_map(|batch| batch.records.to_vec()));
    }
    let back: Vec<&[u8]> = back.iter().map(|record| record.payload.as_ref()).collect();
    assert_eq!(back, lines.iter().map(String::as_bytes).collect::<Vec<_>>());
}

#[test]
fn a_bucket_that_is_none_is_refused_before_anything_starts() {
    let folder = scratch();
    let data = folder.path().join("data").display().to_string();
    let output =
        crate::support::run(&["up", "--data-dir", &data, "--listen", "127.0.0.1:0", "--bucket", "ftp://x/y"]);
    assert!(!output.status.success());
    let said = crate::support::stderr(&output);
    assert!(said.contains("is not a bucket") && said.contains("s3://bucket/prefix"), "{said}");
}
