//! What a query gives, and how it says no.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Asked, ask};
use crate::support::{client, eventually, stderr, stdout};

/// Processes of queries that run below this host.
fn children(host: u32) -> usize {
    let path = format!("/proc/{host}/task");
    let tasks = std::fs::read_dir(path).expect("the host runs");
    let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<String> =
        lists.flat_map(|list| list.split_whitespace().map(str::to_string).collect::<Vec<_>>()).collect();
    let is_query = |pid: &&String| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "tidemill-query")
    };
    pids.iter().filter(is_query).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_a_table_with_typed_columns() {
    let asked = Asked::start(1_000).await;
    let (status, answer) = asked
        .ask(json!({ "sql": "SELECT kind, count(*) AS msgs, min(lat) AS low FROM positions GROUP BY kind ORDER BY kind" }))
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(
        answer["columns"],
        json!([
            { "name": "kind", "type": "VARCHAR" },
            { "name": "msgs", "type": "BIGINT" },
            { "name": "low", "type": "DECIMAL(18,5)" }
        ])
    );
    assert_eq!(answer["rows"], json!([["airliner", 334, 0.5], ["cargo", 333, 1.5], ["private", 333, 2.5]]));
    assert_eq!((&answer["row_count"], &answer["truncated"]), (&json!(3), &json!(false)));
    assert_eq!(answer["rows_read"], 1_000, "{answer}");
    assert!(answer["bytes_read"].as_u64() > Some(0), "{answer}");

    asked.produce(1_000, 1_500).await;
    assert_eq!(
        asked.rows("SELECT count(*), count(DISTINCT (_partition, _offset)) FROM positions").await,
        json!([[1_500, 1_500]])
    );
    let described = asked.rows("DESCRIBE positions").await;
    let names: Vec<&str> = described.as_array().unwrap().iter().filter_map(|row| row[0].as_str()).collect();
    assert_eq!(
        names,
        ["id", "kind", "n", "lat", "_partition", "_offset", "_ts", "_key", "_headers", "_payload"]
    );
    assert_eq!(asked.rows("SHOW TABLES").await, json!([["positions"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_cut_at_their_caps_and_say_so() {
    let asked = Asked::start(10).await;
    let (_, answer) = asked.ask(json!({ "sql": "SELECT n FROM positions ORDER BY n", "max_rows": 3 })).await;
    assert_eq!((&answer["rows"], &answer["truncated"]), (&json!([[0], [1], [2]]), &json!(true)));
    let (_, answer) = asked.ask(json!({ "sql": "SELECT range FROM range(20000)" })).await;
    assert_eq!((&answer["row_count"], &answer["truncated"]), (&json!(10_000), &json!(true)));
    let (_, answer) = asked.ask(json!({ "sql": "SELECT repeat('x', 1000000) FROM range(100)" })).await;
    assert_eq!((&answer["row_count"], &answer["truncated"]), (&json!(8), &json!(true)));
    let (_, answer) = asked.ask(json!({ "sql": "SELECT range FROM range(10000)" })).await;
    assert_eq!((&answer["row_count"], &answer["truncated"]), (&json!(10_000), &json!(false)));
    let (status, answer) = asked.ask(json!({ "sql": "SELECT repeat('x', 9000000)" })).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("query_failed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_statement_is_said_with_its_place() {
    let asked = Asked::start(10).await;
    let cases = [
        ("SELECT\n  kin FROM positions", 2, 9, "kind"),
        ("SELECT * FORM positions", 1, 14, "syntax error"),
        ("SELECT 'é',\n  nothing FROM positions", 2, 15, "nothing"),
        ("SELECT * FROM position", 1, 14, "positions"),
    ];
    for (sql, line, position, word) in cases {
        let (status, answer) = asked.ask(json!({ "sql": sql })).await;
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (StatusCode::BAD_REQUEST, &json!("query_failed")), "{answer}");
        assert_eq!((&error["line"], &error["position"]), (&json!(line), &json!(position)), "{sql}: {answer}");
        assert!(error["message"].as_str().unwrap().contains(word), "{answer}");
    }
    let output = asked.host.cli(&["query", "SELECT nothing FROM positions"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("\"nothing\" not found") && stderr(&output).contains("line 1, column 8")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_have_a_text() {
    let asked = Asked::start(0).await;
    let sql = "SELECT 9007199254740993 AS big, 1.25::DECIMAL(9,2) AS d, 'NaN'::DOUBLE AS nan, TIMESTAMP '2026-01-02 03:04:05' AS t, \
               TIMESTAMPTZ '2026-01-02 03:04:05+00' AS tz, DATE '2026-01-02' AS day, TIME '03:04:05' AS clock, \
               '\\xFFa'::BLOB AS b, [1, NULL] AS list, {'a': 1, 'b': 'x'} AS s, MAP {'k': 1} AS m, NULL AS nothing, \
               true AS yes, 170141183460469231731687303715884105727::HUGEINT AS huge, 'x'::ENUM('x', 'y') AS e, \
               '2c8f2f0e-32a6-4b0f-9a3b-6e0a1b2c3d4e'::UUID AS u";
    let (status, answer) = asked.ask(json!({ "sql": sql })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let kinds: Vec<&str> =
        answer["columns"].as_array().unwrap().iter().filter_map(|c| c["type"].as_str()).collect();
    assert_eq!(
        kinds,
        [
            "BIGINT",
            "DECIMAL(9,2)",
            "DOUBLE",
            "TIMESTAMP",
            "TIMESTAMP WITH TIME ZONE",
            "DATE",
            "TIME",
            "BLOB",
            "INTEGER[]",
            "STRUCT(\"a\" INTEGER, \"b\" VARCHAR)",
            "MAP(VARCHAR, INTEGER)",
            "INTEGER",
            "BOOLEAN",
            "HUGEINT",
            "ENUM",
            "UUID"
        ]
    );
    assert_eq!(
        answer["rows"],
        json!([[
            "9007199254740993", 1.25, "NaN", "2026-01-02T03:04:05.000000", "2026-01-02T03:04:05.000000Z", "2026-01-02",
            "03:04:05", "\\xFFa", [1, null], {"a": 1, "b": "x"}, [["k", 1]], null, true,
            "170141183460469231731687303715884105727", "x", "2c8f2f0e-32a6-4b0f-9a3b-6e0a1b2c3d4e"
        ]])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_writes_tables_csv_and_parquet() {
    let asked = Asked::start(30_000).await;
    let table = asked
        .host
        .cli(&["query", "SELECT kind, count(*) AS msgs FROM positions GROUP BY kind ORDER BY kind"]);
    let lines: Vec<String> =
        stdout(&table).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["kind msgs", "airliner 10000", "cargo 10000", "private 10000"], "{}", stderr(&table));
    assert!(stderr(&table).starts_with("3 rows in "), "{}", stderr(&table));

    let csv = asked.host.cli(&[
        "query",
        "SELECT n, kind, NULL AS x, 'a,\"b' AS q FROM positions ORDER BY n",
        "--format",
        "csv",
    ]);
    let text = stdout(&csv);
    assert!(text.starts_with("n,kind,x,q\n0,airliner,,\"a,\"\"b\"\n"), "{}", &text[..80]);
    assert_eq!(text.lines().count(), 30_001, "a file is not cut at the rows of a JSON answer");

    let file = asked.folder.path().join("data/bucket/archive/copy.parquet");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let path = file.to_str().unwrap();
    let parquet = asked.host.cli(&[
        "query",
        "SELECT *, n AS n FROM positions",
        "--format",
        "parquet",
        "--output",
        path,
    ]);
    assert!(parquet.status.success(), "{}", stderr(&parquet));
    assert_eq!(
        asked.rows("SELECT count(*), sum(n), count(n_1) FROM read_parquet('archive/*.parquet')").await,
        json!([[30_000, 449_985_000, 30_000]])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_its_query_and_the_third_one_waits() {
    let asked = Asked::start(0).await;
    let slow = json!({ "sql": "SELECT count(*) FROM range(100000) a, range(100000) b, range(100000) c" });
    let url = asked.host.url.clone();
    let started: Vec<_> = (0..2)
        .map(|_| {
            let (url, slow) = (url.clone(), slow.clone());
            tokio::spawn(async move { ask(&url, slow).await })
        })
        .collect();
    let pid = asked.host.pid();
    eventually("two queries run", Duration::from_secs(30), || async { children(pid) == 2 }).await;
    // Eight may wait; whoever asks then is refused. Nobody else can be answered, as both slow ones still run.
    let mut waiting = Vec::new();
    let refused = loop {
        let asked = url.clone();
        let mut query = tokio::spawn(async move { ask(&asked, json!({ "sql": "SELECT 1" })).await });
        match tokio::time::timeout(Duration::from_millis(500), &mut query).await {
            Ok(answer) => break answer.unwrap(),
            Err(_still_waiting) => waiting.push(query),
        }
        assert!(waiting.len() <= 8, "nobody is refused");
    };
    assert_eq!(
        (refused.0, &refused.1["error"]["code"]),
        (StatusCode::TOO_MANY_REQUESTS, &json!("query_busy"))
    );
    assert_eq!(waiting.len(), 8);
    for query in started {
        query.abort();
    }
    for query in waiting {
        let (status, answer) = query.await.unwrap();
        assert_eq!((status, &answer["rows"]), (StatusCode::OK, &json!([[1]])), "{answer}");
    }
    eventually("no process is left", Duration::from_secs(5), || async { children(pid) == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_dies_takes_its_queries_with_it() {
    let mut asked = Asked::start(0).await;
    let url = asked.host.url.clone();
    let slow = json!({ "sql": "SELECT count(*) FROM range(100000) a, range(100000) b, range(100000) c" });
    let query = tokio::spawn(async move {
        let _ = client().post(format!("{url}/v1/query")).json(&slow).send().await;
    });
    let pid = asked.host.pid();
    let mut running = None;
    eventually("the query runs", Duration::from_secs(30), || {
        running = running_query(pid);
        let found = running.is_some();
        async move { found }
    })
    .await;
    asked.host.kill();
    let running = running.unwrap();
    let since = Instant::now();
    while std::path::Path::new(&format!("/proc/{running}/exe")).exists() {
        assert!(since.elapsed() < Duration::from_secs(3), "the query outlives its host");
        std::thread::sleep(Duration::from_millis(20));
    }
    query.abort();
}

fn running_query(host: u32) -> Option<String> {
    let tasks = std::fs::read_dir(format!("/proc/{host}/task")).ok()?;
    let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let mut pids = lists.flat_map(|list| list.split_whitespace().map(str::to_string).collect::<Vec<_>>());
    pids.find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "tidemill-query")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_question_is_refused() {
    let asked = Asked::start(0).await;
    let bodies: [Value; 4] = [
        json!({}),
        json!({ "sql": "SELECT 1", "format": "xml" }),
        json!({ "sql": "SELECT 1", "rows": 1 }),
        json!({ "sql": "SELECT 1", "timeout_seconds": -1 }),
    ];
    for body in bodies {
        let (status, answer) = asked.ask(body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
    }
}
