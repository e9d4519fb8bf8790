//! Statements that want all there is: each ends in its time, and the host goes on serving.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use super::Asked;

const DEADLINE: Duration = Duration::from_secs(2);
/// The host kills one second after the deadline; the rest is for a busy machine.
const PATIENCE: Duration = Duration::from_millis(3_000 + 1_500);

const GREEDY: &[&str] = &[
    "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c",
    "SELECT sum(hash(a.range, b.range)) FROM range(10000000) a, range(10000000) b",
    "SELECT length(repeat('x', 1000000000) || range) FROM range(100)",
    "SELECT repeat(repeat('x', 1000000), 1000000)",
    "SELECT list_sort(range(100000000))",
    "SELECT list_sort(list(hash(range))) FROM range(100000000)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t, range(1000)) SELECT max(n) FROM t",
    "SELECT range, hash(range) FROM range(10000000) ORDER BY 2",
    "SELECT a.range, b.range FROM range(10000) a, range(1000) b",
    "SELECT string_agg(a.range::VARCHAR || b.range::VARCHAR) FROM range(100000) a, range(100000) b",
    "SELECT count(DISTINCT (a.range * 7919 + b.range)) FROM range(100000) a, range(100000) b",
    "SELECT unnest(range(1000000000)) ORDER BY 1 DESC",
    "SELECT regexp_matches(repeat('a', 50000000) || 'b', '(a*)*c')",
    "SELECT list_aggregate(list_transform(range(50000000), lambda x: repeat('y', x)), 'count')",
    "SELECT 1000000000000::HUGEINT ** 1000, factorial(30), count(*) FROM range(100000000000)",
];

#[tokio::test(flavor = "multi_thread")]
async fn greedy_statements_end_in_time_while_the_host_serves() {
    let asked = Asked::start(1_000).await;
    let memory = resident(asked.host.pid());
    let mut sent = 1_000;
    let mut slowest = Duration::ZERO;
    for sql in GREEDY {
        let started = Instant::now();
        let query = asked.ask(json!({ "sql": sql, "timeout_seconds": DEADLINE.as_secs_f64() }));
        let mut query = std::pin::pin!(query);
        let (status, answer) = loop {
            tokio::select! {
                answer = &mut query => break answer,
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            let asked_at = Instant::now();
            asked.produce(sent, sent + 10).await;
            sent += 10;
            slowest = slowest.max(asked_at.elapsed());
        };
        let elapsed = started.elapsed();
        assert!(elapsed < PATIENCE, "{sql} took {elapsed:?}");
        let fits =
            matches!(status, StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST);
        assert!(fits, "{sql}: {status} {answer}");
        eprintln!("{:>6} ms {} {}", elapsed.as_millis(), status.as_u16(), sql);
    }
    assert!(slowest < Duration::from_secs(2), "an append took {slowest:?} beside a greedy query");
    let grown = resident(asked.host.pid()).saturating_sub(memory);
    assert!(grown < 96 << 20, "the host grew by {} MiB", grown >> 20);
    let rows = asked.rows("SELECT count(*) FROM positions").await;
    assert_eq!(rows, json!([[sent]]));
}

/// Memory of a process.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the host runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has a size");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
}
