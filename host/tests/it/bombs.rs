//! Plugins that take all they can get, in a host whose memory is watched from outside.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Host, client, eventually, scratch};

const PATIENCE: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
/// What each stage below may take.
const LIMIT: u64 = 64 * MIB;
/// What the host may take beside it.
const SLACK: u64 = 64 * MIB;

/// `tests/guests/transform.wat` with a body of `process`, and what it needs.
fn guest(memory: &str, process: &str) -> String {
    include_str!("../guests/transform.wat")
        .replace("(;MEMORY;)", memory)
        .replace("(;PROCESS;)", process)
        .replace("(;WORK;)", "tidemill:plugin/transforming@0.1.0")
}

/// Four tables that grow until one does not.
fn tables() -> String {
    let grow = |i: u32| {
        format!(
            "(loop $t{i} (br_if $t{i} (i32.ne (table.grow $t{i} (ref.null func) (i32.const 100000)) (i32.const -1))))"
        )
    };
    let tables: String = (0..4).map(|i| format!("(table $t{i} 0 funcref)")).collect();
    guest(&tables, &format!("{} unreachable", (0..4).map(grow).collect::<String>()))
}

/// Timers without end, none of which is given back.
fn handles() -> String {
    let import =
        "(import \"wasi:io/poll@0.2.0\" (instance $poll (export \"pollable\" (type (sub resource)))))
        (alias export $poll \"pollable\" (type $pollable))
        (import \"wasi:clocks/monotonic-clock@0.2.0\" (instance $clock
            (alias outer 1 $pollable (type $p))
            (export \"subscribe-duration\" (func (param \"when\" u64) (result (own $p))))))
        (core func $sub (canon lower (func $clock \"subscribe-duration\")))
        (core module $code (import \"host\" \"sub\" (func $sub (param i64) (result i32)))";
    guest("", "(loop $more (drop (call $sub (i64.const 1000000000000))) (br $more))")
        .replace("(core module $code", import)
        .replace(
            "(core instance $code (instantiate $code))",
            "(core instance $code (instantiate $code (with \"host\" (instance (export \"sub\" (func $sub))))))",
        )
}

/// 10,000 records whose payloads are all the same 4 MiB: 40 GB for a host that copies what it is shown.
fn output() -> String {
    guest(
        "",
        "(drop (memory.grow (i32.const 128)))
         (loop $next
           (i32.store offset=131128 (i32.mul (local.get $i) (i32.const 64)) (i32.const 1048576))
           (i32.store offset=131132 (i32.mul (local.get $i) (i32.const 64)) (i32.const 4194304))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $next (i32.lt_u (local.get $i) (i32.const 10000))))
         (i32.store (i32.const 8) (i32.const 131072))
         (i32.store (i32.const 12) (i32.const 10000))",
    )
}

fn build(folder: &Path, name: &str, text: &str) {
    let bytes = wat::parse_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    std::fs::write(folder.join(name), bytes).expect("written");
}

fn stage(name: &str, plugin: &str, more: &str) -> String {
    format!(
        "[topics.{name}_in]\npartitions = 1\n[transforms.{name}]\nplugin = \"{plugin}\"\nfrom = \"{name}_in\"\nto = \"out\"\n\
         max_attempts = 1\nlimits = {{ memory = \"64MiB\", deadline = \"20s\" }}\n{more}\n\n"
    )
}

/// Bytes of a line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the host runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
    let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

async fn append(pool: &PgPool, topic: &str, payloads: &[String]) {
    let payloads: Vec<&[u8]> = payloads.iter().map(|payload| payload.as_bytes()).collect();
    sqlx::query("SELECT tidemill.append_many($1, $2, to_partition => 0)")
        .bind(topic)
        .bind(payloads)
        .execute(pool)
        .await
        .expect("appended");
}

async fn lag(pool: &PgPool, group: &str) -> i64 {
    sqlx::query_scalar("SELECT coalesce(sum(lag), -1)::bigint FROM tidemill.lag WHERE group_name = $1")
        .bind(group)
        .fetch_one(pool)
        .await
        .unwrap_or(-1)
}

async fn stage_status(host: &Host, name: &str) -> Value {
    let status = host.get("/v1/status").await;
    let stages = status["pipelines"][0]["stages"].as_array().cloned().unwrap_or_default();
    stages
        .into_iter()
        .find(|stage| stage["name"] == name)
        .unwrap_or_else(|| panic!("no stage {name} in {status}"))
}

#[tokio::test]
async fn bombs_cost_the_host_their_limit_and_no_more() {
    let folder = scratch();
    build(folder.path(), "tables.wasm", &tables());
    build(folder.path(), "handles.wasm", &handles());
    build(folder.path(), "output.wasm", &output());
    let text = [
        "[pipeline]\nname = \"bombs\"\n[topics.out]\n\n".to_owned(),
        stage("memory", "test-misbehave", "config = { fault = \"hog\", when = \"process\", bytes = 2147483648 }"),
        stage("tables", "./tables.wasm", ""),
        stage("handles", "./handles.wasm", ""),
        stage("output", "./output.wasm", ""),
        stage("flood", "test-misbehave", "config = { fault = \"flood\", records = 1000000, bytes = 40 }"),
        stage("chatter", "test-misbehave", "config = { fault = \"chatter\", lines = 300000 }"),
        stage(
            "state",
            "test-reach",
            "grants = [\"clock\", \"http\", \"metrics\", \"random\", \"state\"]\nhttp = { allow = [\"https://example.com\"] }",
        ),
    ]
    .concat();
    let file = folder.path().join("bombs.toml");
    std::fs::write(&file, text).expect("written");
    let host = Host::start(&folder.path().join("data"), &[&file.display().to_string()]);
    let pool = host.pool().await;
    let puts: Vec<String> = (0..900)
        .map(|i| json!({"try": "set", "key": format!("k{i}"), "size": 1_000_000}).to_string())
        .collect();
    let one = vec!["x".to_owned()];
    let bombs: [(&str, &[String], Option<&str>); 7] = [
        ("memory", &one, Some("memory")),
        ("tables", &one, Some("memory")),
        ("handles", &one, Some("trap")),
        ("output", &one, Some("output")),
        ("flood", &one, Some("memory")),
        ("chatter", &one, None),
        ("state", &puts, None),
    ];
    for (name, payloads, expected) in bombs {
        // Forgets the peak so far.
        std::fs::write(format!("/proc/{}/clear_refs", host.pid()), "5").expect("the peak can be forgotten");
        let before = status(host.pid(), "VmRSS");
        append(&pool, &format!("{name}_in"), payloads).await;
        eventually(name, PATIENCE, || async { lag(&pool, name).await == 0 }).await;
        let cost = status(host.pid(), "VmHWM").saturating_sub(before);
        println!("{name}: {} MiB over {} MiB", cost / MIB, before / MIB);
        assert!(cost <= LIMIT + SLACK, "{name} cost {} MiB", cost / MIB);
        let kind: Option<String> =
            sqlx::query_scalar("SELECT kind FROM tidemill.dead_letters WHERE stage = $1 LIMIT 1")
                .bind(name)
                .fetch_optional(&pool)
                .await
                .expect("dead letters can be read");
        assert_eq!(kind.as_deref(), expected, "{name}");
    }
    let chatter = stage_status(&host, "chatter").await;
    assert!(chatter["dropped_log_lines"].as_u64().is_some_and(|dropped| dropped > 200_000), "{chatter}");
    let written: i64 = sqlx::query_scalar("SELECT sum(bytes)::bigint FROM tidemill.state_spaces")
        .fetch_one(&pool)
        .await
        .expect("state can be read");
    assert!(written > 10 << 20 && written <= 64 << 20, "{written} bytes of state");
}

/// With the breaker off, which else would end the storm: `letters` tests that.
#[tokio::test]
async fn a_storm_of_traps_stays_in_its_stage_and_is_counted() {
    let folder = scratch();
    let text = "[pipeline]\nname = \"storm\"\n[topics.a]\npartitions = 1\n[topics.b]\n[topics.c]\n\
                [transforms.storm]\nplugin = \"test-misbehave\"\nfrom = \"a\"\nto = \"b\"\nmax_attempts = 1\n\
                config = { fault = \"trap\" }\nbreaker = { failures = 0 }\n\
                [transforms.calm]\nplugin = \"test-identity\"\nfrom = \"a\"\nto = \"c\"\n";
    let file = folder.path().join("storm.toml");
    std::fs::write(&file, text).expect("written");
    let host = Host::start(&folder.path().join("data"), &[&file.display().to_string()]);
    let pool = host.pool().await;
    let traps: Vec<String> = (0..1_000).map(|i| format!("trap {i}")).collect();
    for _ in 0..3 {
        append(&pool, "a", &traps).await;
    }
    eventually("the calm stage is done, while the other is not", Duration::from_secs(20), || async {
        lag(&pool, "calm").await == 0
    })
    .await;
    let status = stage_status(&host, "storm").await;
    assert!(status["failures"]["trap"].as_u64().is_some_and(|traps| traps > 10), "{status}");
    eventually("every message that traps is a dead letter", PATIENCE, || async {
        lag(&pool, "storm").await == 0
    })
    .await;
    let dead: i64 = sqlx::query_scalar("SELECT count(*) FROM tidemill.dead_letters WHERE kind = 'trap'")
        .fetch_one(&pool)
        .await
        .expect("dead letters can be read");
    assert_eq!(dead, 3_000);
    let status = stage_status(&host, "storm").await;
    assert!(status["failures"]["trap"].as_u64().is_some_and(|traps| traps >= 3_000), "{status}");
    assert!(stage_status(&host, "calm").await["failures"].as_object().is_some_and(serde_json::Map::is_empty));
    let metrics = client().get(format!("{}/metrics", host.url)).send().await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    let line = metrics
        .lines()
        .find(|line| line.starts_with("tidemill_stage_failures_total") && line.contains("storm"));
    assert!(line.is_some_and(|line| line.contains("kind=\"trap\"")), "{metrics}");
    for name in ["tidemill_stage_memory_bytes", "tidemill_stage_instances"] {
        assert!(
            metrics.lines().any(|line| line.starts_with(name) && line.contains("calm")),
            "{name}: {metrics}"
        );
    }
}
