//! The shipped sample under fire: killed hosts, a killed Postgres, and the same answers afterwards.

use std::time::Duration;

use serde_json::Value;
use sqlx::{PgPool, Row};

use crate::support::{Host, eventually, root, scratch};

const PATIENCE: Duration = Duration::from_secs(60);

fn aircraft() -> String {
    root().join("pipelines/aircraft.toml").display().to_string()
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn positions(pool: &PgPool) -> i64 {
    count(pool, "SELECT coalesce(sum(c.next_offset), 0)::bigint FROM tidemill.log_counter c JOIN tidemill.topics t USING (topic_id) WHERE t.name = 'positions'").await
}

/// Waits until so many positions are in the log.
async fn flown(pool: &PgPool, wanted: i64) {
    eventually("the fleet reports", PATIENCE, || async { positions(pool).await >= wanted }).await;
}

/// Stops the fleet and lets every group catch up, so that the log and what was made of it can be compared.
async fn settle(pool: &PgPool) {
    eventually("the groups catch up", PATIENCE, || async {
        count(pool, "SELECT coalesce(sum(lag), 0)::bigint FROM tidemill.lag").await == 0
    })
    .await;
    eventually("the jobs are done", PATIENCE, || async {
        count(
            pool,
            "SELECT sum(waiting + scheduled + blocked + running)::bigint FROM tidemill.queue_counts()",
        )
        .await
            == 0
    })
    .await;
}

/// Every offset of every partition is there exactly once.
async fn assert_dense(pool: &PgPool, topic: &str) {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT c.partition, c.next_offset, l.start_offset, count(p.c_offset) AS n,
                count(DISTINCT p.c_offset) AS different, min(p.c_offset) AS low, max(p.c_offset) AS high
           FROM tidemill.log_counter c JOIN tidemill.log_start l USING (topic_id, partition)
           JOIN tidemill.topics t USING (topic_id)
           LEFT JOIN topics.{topic} p ON p.partition = c.partition
          WHERE t.name = '{topic}' GROUP BY 1, 2, 3"
    )))
    .fetch_all(pool)
    .await
    .expect("the log can be read");
    assert!(!rows.is_empty());
    for row in rows {
        let (next, start, n): (i64, i64, i64) =
            (row.get("next_offset"), row.get("start_offset"), row.get("n"));
        let partition: i32 = row.get("partition");
        assert_eq!(n, next - start, "{topic} partition {partition} has a hole or a repeat");
        assert_eq!(row.get::<i64, _>("different"), n, "{topic} partition {partition} repeats an offset");
        if n > 0 {
            assert_eq!(row.get::<Option<i64>, _>("low"), Some(start));
            assert_eq!(row.get::<Option<i64>, _>("high"), Some(next - 1));
        }
    }
}

/// The table holds, for each aircraft, the last report of the log up to where its group stands. One statement sees one
/// snapshot, and the group's offset is in the commit of the rows, so this holds at any moment, also while all is running.
async fn assert_table_is_the_fold_of_the_log(pool: &PgPool) {
    let different = count(
        pool,
        "WITH last AS (
             SELECT DISTINCT ON (p.value->>'id') p.value, p.c_offset
               FROM topics.positions p
               JOIN tidemill.consumer_offsets o ON o.group_name = 'latest' AND o.partition = p.partition
              WHERE p.c_offset < o.next_offset
              ORDER BY p.value->>'id', p.partition, p.c_offset DESC)
         SELECT count(*) FROM last FULL JOIN current_positions t ON t.id = last.value->>'id'
          WHERE t.id IS NULL OR last.value IS NULL
             OR (t.lat, t.lon, t.altitude, t.heading, t.speed, t._offset)
                IS DISTINCT FROM ((value->>'lat')::float8, (value->>'lon')::float8, (value->>'altitude')::bigint,
                                  (value->>'heading')::float8, (value->>'speed')::float8, c_offset)",
    )
    .await;
    assert_eq!(different, 0, "rows of current_positions that are not the last report of their aircraft");
}

/// What the transform wrote is what its component makes of the same input, each output once, in the order of its input.
async fn assert_outputs_follow_inputs(pool: &PgPool) {
    // Every alert of the log can be derived from the position with the same id and time, and none is missing or twice.
    let wrong = count(
        pool,
        "WITH due AS (
             SELECT value->>'id' AS id, (value->>'ts')::bigint AS ts, 'emergency' AS alert FROM topics.positions
              WHERE value->>'squawk' IN ('7500', '7600', '7700')
             UNION ALL
             SELECT value->>'id', (value->>'ts')::bigint, 'rapid_descent' FROM topics.positions
              WHERE (value->>'vertical_rate')::int <= -4000),
         made AS (
             SELECT value->>'id' AS id, (value->>'ts')::bigint AS ts, value->>'alert' AS alert FROM topics.alerts)
         SELECT (SELECT count(*) FROM (SELECT * FROM due EXCEPT ALL SELECT * FROM made) missing)
              + (SELECT count(*) FROM (SELECT * FROM made EXCEPT ALL SELECT * FROM due) extra)",
    )
    .await;
    assert_eq!(wrong, 0, "alerts missing or written twice");
}

/// One job for each incident, one report for each job, and one line of history for each end: none is missing or twice.
async fn assert_each_incident_has_one_report(pool: &PgPool) {
    // An incident is what is wrong with an aircraft, for ten minutes: longer than a test.
    let wrong = count(
        pool,
        "WITH incidents AS (SELECT DISTINCT value->>'id' AS id, value->>'alert' AS alert FROM topics.alerts),
              reports AS (SELECT value->>'id' AS id, value->>'alert' AS alert FROM topics.incident_reports),
              ended AS (SELECT value#>>'{result,id}' AS id, value#>>'{result,alert}' AS alert FROM topics.report_jobs
                         WHERE value->>'state' = 'done')
         SELECT (SELECT count(*) FROM (SELECT * FROM incidents EXCEPT ALL SELECT * FROM reports) missing)
              + (SELECT count(*) FROM (SELECT * FROM reports EXCEPT ALL SELECT * FROM incidents) extra)
              + (SELECT count(*) FROM (SELECT * FROM reports EXCEPT ALL SELECT * FROM ended) unwritten)
              + (SELECT count(*) FROM (SELECT * FROM ended EXCEPT ALL SELECT * FROM reports) unreported)",
    )
    .await;
    assert_eq!(wrong, 0, "incidents without a report, or with more than one");
    assert!(count(pool, "SELECT count(*) FROM topics.incident_reports").await > 0, "there was no incident");
}

async fn assert_everything(pool: &PgPool) {
    for topic in ["positions", "approaches", "alerts", "incident_reports", "report_jobs"] {
        assert_dense(pool, topic).await;
    }
    assert_each_incident_has_one_report(pool).await;
    assert_table_is_the_fold_of_the_log(pool).await;
    assert_outputs_follow_inputs(pool).await;
}

/// A copy of the sample with a faster fleet that stops by itself, so that a test can compare at rest.
fn fast(folder: &std::path::Path, rate: u32) -> String {
    let text = std::fs::read_to_string(aircraft()).expect("the sample is there");
    let faster = text.replace("rate = 1000", &format!("rate = {rate}"));
    assert_ne!(faster, text, "the sample names its rate");
    let file = folder.join("aircraft.toml");
    std::fs::write(&file, faster).expect("the copy can be written");
    file.display().to_string()
}

/// Starts the same host without the fleet: what was made of the log can then be compared with it at rest.
fn without_fleet(folder: &std::path::Path) -> String {
    let text = std::fs::read_to_string(aircraft()).expect("the sample is there");
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line.starts_with("[producers.");
        }
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    let file = folder.join("aircraft-at-rest.toml");
    std::fs::write(&file, kept).expect("the copy can be written");
    file.display().to_string()
}

#[tokio::test]
async fn kill_9_of_the_host_loses_and_repeats_nothing() {
    let folder = scratch();
    let data = folder.path().join("data");
    let file = fast(folder.path(), 4000);
    let mut host = Host::start(&data, &[&file]);
    let pool = host.pool().await;
    let mut before = 0;
    for round in 1..=4 {
        flown(&pool, before + 3000).await;
        assert_table_is_the_fold_of_the_log(&pool).await;
        host.kill();
        before = positions(&pool).await;
        assert!(before > 0, "round {round}");
        host.restart();
    }
    flown(&pool, before + 3000).await;
    host.kill();
    drop(host);
    let host = Host::start(&data, &[&without_fleet(folder.path())]);
    let pool = host.pool().await;
    settle(&pool).await;
    assert!(positions(&pool).await >= 12_000);
    assert_everything(&pool).await;
}

#[tokio::test]
async fn an_immediate_stop_of_postgres_loses_and_repeats_nothing() {
    let folder = scratch();
    let data = folder.path().join("data");
    let file = fast(folder.path(), 4000);
    let host = Host::start(&data, &[&file]);
    let mut before = 0;
    for _ in 0..3 {
        let pool = host.pool().await;
        flown(&pool, before + 3000).await;
        before = positions(&pool).await;
        let postmaster: String = sqlx::query_scalar("SELECT pg_read_file('postmaster.pid', 0, 20)")
            .fetch_one(&pool)
            .await
            .expect("the server tells its pid");
        let pid = postmaster.lines().next().and_then(|line| line.trim().parse().ok()).expect("a pid");
        // What `pg_ctl stop -m immediate` sends: every backend ends at once, without a checkpoint.
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::QUIT)
            .expect("the server can be signalled");
    }
    // The host brings its server back by itself.
    eventually("the fleet reports again", PATIENCE, || async {
        let status = reqwest_status(&host).await;
        status.is_some_and(|status| topic_records(&status, "positions") >= before as u64 + 3000)
    })
    .await;
    drop(host);
    let host = Host::start(&data, &[&without_fleet(folder.path())]);
    let pool = host.pool().await;
    settle(&pool).await;
    assert_everything(&pool).await;
}

async fn reqwest_status(host: &Host) -> Option<Value> {
    let answer = crate::support::client().get(format!("{}/v1/status", host.url)).send().await.ok()?;
    answer.json().await.ok()
}

fn topic_records(status: &Value, topic: &str) -> u64 {
    status["topics"]
        .as_array()
        .and_then(|topics| topics.iter().find(|t| t["name"] == topic))
        .and_then(|topic| topic["records"].as_u64())
        .unwrap_or(0)
}

#[tokio::test]
async fn the_sample_serves_its_map_and_its_numbers() {
    let folder = scratch();
    let mut host = Host::start(&folder.path().join("data"), &[&aircraft()]);
    let pool = host.pool().await;
    flown(&pool, 8000).await;
    // Measured by Postgres itself: tables, indexes and TOAST of the live segments.
    let status = host.get("/v1/status").await;
    let positions =
        status["topics"].as_array().and_then(|t| t.iter().find(|t| t["name"] == "positions")).cloned();
    let positions = positions.expect("the status lists positions");
    assert!(positions["hot"]["bytes_per_record"].as_f64().is_some_and(|bytes| bytes > 20.0), "{positions}");
    let table = host.get("/v1/tables/current_positions").await;
    assert_eq!(table["rows"].as_array().map(Vec::len), Some(500));
    for stage in status["pipelines"][0]["stages"].as_array().expect("stages") {
        assert_eq!(stage["state"], "running", "{stage}");
    }
    assert_eq!(host.stop(), Some(0), "SIGTERM is a clean end");
}

#[tokio::test]
async fn a_group_that_seeks_to_earliest_makes_the_same_table_again() {
    let folder = scratch();
    let data = folder.path().join("data");
    let host = Host::start(&data, &[&fast(folder.path(), 4000)]);
    flown(&host.pool().await, 6000).await;
    drop(host);
    let host = Host::start(&data, &[&without_fleet(folder.path())]);
    let pool = host.pool().await;
    settle(&pool).await;
    sqlx::query("DELETE FROM current_positions").execute(&pool).await.expect("the table can be emptied");
    let sought = host.cli(&["group", "seek", "latest", "positions", "earliest"]);
    assert!(sought.status.success(), "{}", crate::support::stderr(&sought));
    eventually("the table is made again", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM current_positions").await == 500
    })
    .await;
    settle(&pool).await;
    assert_table_is_the_fold_of_the_log(&pool).await;
}
