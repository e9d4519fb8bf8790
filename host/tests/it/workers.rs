//! Workers on real hosts: what comes of each kind of run, and that each job ends once, whatever happens to its host.
//!
//! The component `test-worker` does with each job what the job's payload asks for.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::marked::renamed;
use crate::support::{Host, client, eventually, root, run, scratch, stderr, stdout};

const PATIENCE: Duration = Duration::from_secs(60);

/// A job whose worker is silent for longer than this is given to another.
const LEASE: Duration = Duration::from_secs(2);

/// Hosts that work on the same queues.
struct Bench {
    folder: tempfile::TempDir,
    /// Has the Postgres; the others come and go.
    first: Host,
    pool: PgPool,
}

/// The pipeline of most tests; `queue` are further settings of the queue, `worker` of the stage.
fn pipeline(queue: &str, worker: &str) -> String {
    format!(
        "[pipeline]\nname = \"work\"\n\n[topics.out]\npartitions = 2\n\n[queues.q]\nlease = \"{}s\"\n\
         backoff = {{ first = \"20ms\", longest = \"50ms\" }}\nmax_attempts = 3\n{queue}\n\n\
         [workers.w]\nplugin = \"test-worker\"\nqueue = \"q\"\nto = \"out\"\nconfig = {{ emit = true }}\n{worker}\n",
        LEASE.as_secs()
    )
}

impl Bench {
    async fn start(pipeline: &str) -> Self {
        let folder = scratch();
        std::fs::write(folder.path().join("work.toml"), pipeline).expect("the pipeline can be written");
        let first = Host::start(&folder.path().join("first"), &[&toml(folder.path())]);
        let pool = first.pool().await;
        Self { folder, first, pool }
    }

    fn join(&self, name: &str, environment: &[(&str, &str)]) -> Host {
        let bucket = self.folder.path().join("first/bucket").display().to_string();
        let arguments =
            [&toml(self.folder.path()), "--database-url", &self.first.postgres_url, "--bucket", &bucket];
        Host::start_with(&self.folder.path().join(name), &arguments, environment)
    }

    async fn put(&self, queue: &str, payload: Value) -> i64 {
        let query = sqlx::query_scalar("SELECT id FROM tidemill.enqueue($1, $2)").bind(queue).bind(&payload);
        query.fetch_one(&self.pool).await.unwrap_or_else(|error| panic!("{payload}: {error}"))
    }

    /// So many jobs with this payload, in one transaction.
    async fn put_many(&self, queue: &str, payload: Value, count: usize) {
        let payloads = vec![payload.to_string().into_bytes(); count];
        let sql = "SELECT count(*) FROM tidemill.enqueue_many($1, $2)";
        let query = sqlx::query_scalar::<_, i64>(sql).bind(queue).bind(payloads);
        assert_eq!(query.fetch_one(&self.pool).await.expect("jobs can be put"), count as i64);
    }

    /// State, attempts, result and error of a job.
    async fn job(&self, id: i64) -> (String, i32, Option<String>, Option<String>) {
        let sql =
            "SELECT state, attempt, convert_from(result, 'UTF8'), error FROM tidemill.find_job('q', $1)";
        sqlx::query_as(sql).bind(id).fetch_one(&self.pool).await.expect("the job is known")
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Waits until nothing of a queue waits or runs.
    async fn settles(&self) {
        eventually("all jobs are ended", PATIENCE, || async {
            self.number(
                "SELECT sum(waiting + scheduled + blocked + running)::bigint FROM tidemill.queue_counts()",
            )
            .await
                == 0
        })
        .await;
    }

    /// Jobs with their records in `out`, as (id, records), where there is not exactly one.
    async fn not_once(&self, jobs: i64) -> Vec<(i64, i64)> {
        let sql = "SELECT j, count(o.job) FROM generate_series(1, $1) j
                     LEFT JOIN (SELECT (SELECT (h->>1)::bigint
                                          FROM jsonb_array_elements(headers) h WHERE h->>0 = 'job') AS job
                                  FROM topics.out) o ON o.job = j
                    GROUP BY j HAVING count(o.job) <> 1 ORDER BY j";
        sqlx::query_as(sql).bind(jobs).fetch_all(&self.pool).await.expect("records can be read")
    }
}

fn toml(folder: &Path) -> String {
    folder.join("work.toml").display().to_string()
}

/// The worker's own numbers in a host's status.
async fn counts(host: &Host) -> Value {
    stage(host).await["jobs"].clone()
}

async fn stage(host: &Host) -> Value {
    let status = host.get("/v1/status").await;
    let stages = status["pipelines"][0]["stages"].as_array().expect("the pipeline has stages").clone();
    stages.into_iter().find(|stage| stage["name"] == "w").expect("the worker is a stage")
}

fn signal(host: &Host, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(host.pid() as i32).expect("a host has a pid");
    rustix::process::kill_process(pid, signal).expect("the host can be signalled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_verdict_and_each_failure_has_its_end() {
    let bench = Bench::start(&pipeline("", "limits = { deadline = \"500ms\" }")).await;
    let failed = |words: &'static str| ("dead", 3, None, Some(words));
    let cases = [
        (json!({"do": "done", "result": "r"}), ("done", 1, Some("r"), None)),
        (json!("anything"), ("done", 1, None, None)),
        (json!({"do": "retry", "until": 3}), ("done", 3, None, None)),
        (json!({"do": "retry", "ms": 5}), failed("asked to retry")),
        (json!({"do": "reject"}), ("dead", 1, None, Some("asked to reject"))),
        (json!({"do": "cancel"}), ("cancelled", 1, None, Some("asked to cancel"))),
        (json!({"do": "trap", "until": 2}), ("done", 2, None, None)),
        (json!({"do": "trap"}), failed("asked to trap")),
        (json!({"do": "spin", "until": 2}), ("done", 2, None, None)),
        (json!({"do": "hog", "until": 3}), ("done", 3, None, None)),
        (json!({"do": "no-verdict"}), failed("it has 0 verdicts for a batch of 1 jobs")),
        (json!({"do": "stray-port"}), failed("which its descriptor does not declare")),
        (json!({"do": "fail", "ms": 1, "until": 2}), ("done", 2, None, None)),
    ];
    let snoozed = bench.put("q", json!({"do": "snooze", "ms": 600_000})).await;
    let mut ids = Vec::new();
    for (payload, _) in &cases {
        ids.push(bench.put("q", payload.clone()).await);
    }
    eventually("all but the snoozed one are ended", PATIENCE, || async {
        bench.number("SELECT waiting + scheduled + blocked + running FROM tidemill.queue_counts()").await == 1
    })
    .await;
    let mut done = 0;
    for (id, (payload, (state, attempts, result, error))) in ids.iter().zip(&cases) {
        let (was, ran, gave, said) = bench.job(*id).await;
        assert_eq!((was.as_str(), ran, gave.as_deref()), (*state, *attempts, *result), "{payload}: {said:?}");
        if let Some(words) = error {
            assert!(said.as_ref().is_some_and(|said| said.contains(words)), "{payload}: {said:?}");
        }
        if *state == "done" {
            done += 1;
            assert_eq!(bench.not_once(*id).await.iter().find(|(job, _)| job == id), None, "{payload}");
        }
    }
    let (state, attempts, ..) = bench.job(snoozed).await;
    assert_eq!((state.as_str(), attempts), ("scheduled", 0), "a snooze is no attempt");
    assert_eq!(bench.number("SELECT count(*) FROM topics.out").await, done);
    let counts = counts(&bench.first).await;
    assert_eq!((&counts["done"], &counts["running"]), (&json!(done), &json!(0)), "{counts}");
    assert_eq!(
        (&counts["rejected"], &counts["cancelled"], &counts["snoozed"]),
        (&json!(1), &json!(1), &json!(1))
    );
    let failures = &stage(&bench.first).await["failures"];
    assert_eq!((&failures["trap"], &failures["deadline"]), (&json!(4), &json!(1)), "{failures}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_one_call_do_not_suffer_for_each_other_and_outputs_may_be_jobs() {
    let text = pipeline("", "batch = { jobs = 50 }")
        .replace("to = \"out\"", "to = { default = { queue = \"next\" } }")
        + "\n[queues.next]\n\n[workers.after]\nplugin = \"test-worker\"\nqueue = \"next\"\nto = \"out\"\n\
           batch = { jobs = 20 }\nconfig = { emit = true }\n";
    let bench = Bench::start(&text).await;
    let payloads: Vec<Vec<u8>> = (0..200)
        .map(|n| match n % 40 {
            7 => br#"{"do":"trap"}"#.to_vec(),
            _ => n.to_string().into_bytes(),
        })
        .collect();
    let sql = "SELECT count(*) FROM tidemill.enqueue_many('q', $1)";
    let put: i64 =
        sqlx::query_scalar(sql).bind(payloads).fetch_one(&bench.pool).await.expect("jobs can be put");
    assert_eq!(put, 200);
    bench.settles().await;
    let states = "SELECT count(*) FROM generate_series(1, 200) j, tidemill.find_job('q', j) f
                   WHERE f.state = 'done' AND f.attempt = 1";
    assert_eq!(bench.number(states).await, 195, "only those that trap are tried again");
    assert_eq!(bench.number("SELECT dead FROM tidemill.queue_counts() WHERE queue = 'q'").await, 5);
    assert_eq!(bench.number("SELECT count(*) FROM topics.out").await, 195);
    assert_eq!(bench.number("SELECT count(DISTINCT payload) FROM topics.out").await, 195);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_leads_to_and_cannot_be_stored_fails_that_job_and_no_other() {
    let next = "to = { default = { queue = \"next\" } }";
    let text = pipeline("", "batch = { jobs = 5 }").replace("to = \"out\"", next) + "\n[queues.next]\n";
    let bench = Bench::start(&text).await;
    sqlx::query("SELECT tidemill.delete_queue('next')")
        .execute(&bench.pool)
        .await
        .expect("it can be deleted");
    let ids = [bench.put("q", json!("x")).await, bench.put("q", json!({"do": "reject"})).await];
    bench.settles().await;
    let (state, attempts, _, error) = bench.job(ids[0]).await;
    assert_eq!((state.as_str(), attempts), ("dead", 3), "{error:?}");
    assert!(error.as_ref().is_some_and(|error| error.contains("there is no queue \"next\"")), "{error:?}");
    let (state, attempts, ..) = bench.job(ids[1]).await;
    assert_eq!((state.as_str(), attempts), ("dead", 1), "what leads to nothing is not held up");
    assert_eq!(stage(&bench.first).await["state"], json!("running"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_killed_host_are_taken_over_within_two_leases() {
    let bench = Bench::start(&pipeline("", "")).await;
    let mut second = bench.join("second", &[]);
    bench.put_many("q", json!({"do": "slow", "ms": 400}), 40).await;
    eventually("both hosts run jobs", PATIENCE, || async {
        bench.number("SELECT count(DISTINCT worker) FROM tidemill.claims").await == 2
    })
    .await;
    second.kill();
    let killed = Instant::now();
    bench.settles().await;
    let taken = killed.elapsed();
    assert_eq!(bench.not_once(40).await, []);
    // The lease, and what the host that is left needs for all that was not done.
    assert!(taken < 2 * LEASE + Duration::from_secs(6), "{taken:?}");
    let again =
        "SELECT count(*) FROM generate_series(1, 40) j, tidemill.find_job('q', j) f WHERE f.attempt = 2";
    let again = bench.number(again).await;
    assert!((1..=8).contains(&again), "{again} jobs ran twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_around_the_commit_end_each_job_once() {
    let bench = Bench::start(&pipeline("", "")).await;
    for (point, name) in [("job.commit:3", "before"), ("job.committed:3", "after")] {
        let mut crashing = bench.join(name, &[("TIDEMILL_CRASH_AT", point)]);
        bench.put_many("q", json!({"do": "slow", "ms": 20}), 60).await;
        eventually("the host has crashed", PATIENCE, || {
            let ended = crashing.ended();
            async move { ended }
        })
        .await;
        bench.settles().await;
    }
    assert_eq!(bench.not_once(120).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_paused_host_says_too_late_is_refused() {
    let bench = Bench::start(&pipeline("", "limits = { deadline = \"20s\" }")).await;
    let second = bench.join("second", &[]);
    bench.put_many("q", json!({"do": "slow", "ms": 1_500}), 8).await;
    eventually("both hosts run jobs", PATIENCE, || async {
        bench.number("SELECT count(DISTINCT worker) FROM tidemill.claims").await == 2
    })
    .await;
    signal(&second, rustix::process::Signal::STOP);
    bench.settles().await;
    signal(&second, rustix::process::Signal::CONT);
    eventually("the paused host has let go", PATIENCE, || async {
        counts(&second).await["running"] == json!(0)
    })
    .await;
    assert_eq!(bench.not_once(8).await, []);
    assert_eq!(counts(&second).await["done"], json!(0));
    // It works on.
    bench.put_many("q", json!("x"), 100).await;
    bench.settles().await;
    assert_eq!(bench.not_once(108).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_stops_its_call_and_leases_outlast_long_calls() {
    let bench = Bench::start(&pipeline("", "limits = { deadline = \"5min\" }")).await;
    let long = bench.put("q", json!({"do": "slow", "ms": 5_000})).await;
    let endless = bench.put("q", json!({"do": "spin"})).await;
    eventually("both run", PATIENCE, || async { counts(&bench.first).await["running"] == json!(2) }).await;
    let was: String = sqlx::query_scalar("SELECT tidemill.cancel_job('q', $1)")
        .bind(endless)
        .fetch_one(&bench.pool)
        .await
        .expect("it can be cancelled");
    assert_eq!(was, "running");
    let cancelled = Instant::now();
    eventually("its call is stopped", PATIENCE, || async {
        counts(&bench.first).await["running"] == json!(1)
    })
    .await;
    let stopped = cancelled.elapsed();
    assert!(stopped < LEASE * 2, "{stopped:?}");
    bench.settles().await;
    let (state, attempts, ..) = bench.job(long).await;
    assert_eq!((state.as_str(), attempts), ("done", 1), "its lease was extended");
    assert_eq!(bench.job(endless).await.0, "cancelled");
    assert_eq!(bench.number("SELECT count(*) FROM topics.out").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_concurrency_of_a_queue_holds_over_all_hosts() {
    let bench = Bench::start(&pipeline("concurrency = 3", "concurrency = 2")).await;
    let _second = bench.join("second", &[]);
    bench.put_many("q", json!({"do": "slow", "ms": 60}), 60).await;
    let (most, workers) = (AtomicI64::new(0), AtomicI64::new(0));
    eventually("all are done", PATIENCE, || async {
        let sql = "SELECT coalesce(sum(cardinality(places)), 0)::bigint, count(DISTINCT worker) FROM tidemill.claims";
        let (running, at): (i64, i64) = sqlx::query_as(sql).fetch_one(&bench.pool).await.expect("claims");
        most.fetch_max(running, SeqCst);
        workers.fetch_max(at, SeqCst);
        bench.number("SELECT waiting + running + scheduled FROM tidemill.queue_counts()").await == 0
    })
    .await;
    assert_eq!((most.into_inner(), workers.into_inner()), (3, 2));
    assert_eq!(bench.not_once(60).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_host_ends_what_runs_and_gives_back_the_rest() {
    let bench = Bench::start(&pipeline("", "limits = { deadline = \"20s\" }")).await;
    let mut second = bench.join("second", &[]);
    bench.put_many("q", json!({"do": "slow", "ms": 1_000}), 24).await;
    eventually("both hosts run jobs", PATIENCE, || async {
        bench.number("SELECT count(DISTINCT worker) FROM tidemill.claims").await == 2
    })
    .await;
    let code = tokio::task::spawn_blocking(move || second.stop()).await.expect("it stops");
    assert_eq!(code, Some(0));
    let held = "SELECT count(*) FROM tidemill.claims WHERE expires_at < clock_timestamp()";
    assert_eq!(bench.number(held).await, 0);
    bench.settles().await;
    assert_eq!(bench.not_once(24).await, []);
    let again =
        "SELECT count(*) FROM generate_series(1, 24) j, tidemill.find_job('q', j) f WHERE f.attempt <> 1";
    assert_eq!(bench.number(again).await, 0, "no run was for nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_takes_over_between_two_calls() {
    let bench = Bench::start(&pipeline("", "")).await;
    bench.put_many("q", json!({"do": "slow", "ms": 20}), 400).await;
    eventually("some are done", PATIENCE, || async {
        bench.number("SELECT count(*) FROM topics.out").await > 40
    })
    .await;
    let component =
        std::fs::read(root().join("plugins/dist/test-worker.wasm")).expect("the guests are built");
    let url = format!("{}/v1/pipelines/work/stages/w/plugin", bench.first.url);
    let pushed = client()
        .put(url)
        .header("content-type", "application/wasm")
        .body(renamed(component))
        .send()
        .await
        .expect("the host answers");
    assert!(pushed.status().is_success(), "{}", pushed.text().await.unwrap_or_default());
    let before = bench.number("SELECT count(*) FROM topics.out").await;
    assert!(before < 400, "the push came after all jobs");
    bench.settles().await;
    assert_eq!(bench.not_once(400).await, []);
    assert_eq!(bench.number("SELECT count(DISTINCT origin) FROM log.out").await, 2);
    let stage = stage(&bench.first).await;
    assert_eq!(stage["digest"], stage["tasks"][0]["digest"]);
    assert_eq!((&stage["deployment"]["state"], &stage["failures"]), (&json!("stable"), &json!({})));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_gives_up_stops_its_stage_and_its_jobs_wait() {
    let bench = Bench::start(&pipeline("", "")).await;
    let id = bench.put("q", json!({"do": "fatal"})).await;
    eventually("the stage has failed", PATIENCE, || async {
        stage(&bench.first).await["state"] == json!("failed")
    })
    .await;
    assert!(stage(&bench.first).await["reason"].as_str().is_some_and(|it| it.contains("asked to give up")));
    let (state, attempts, ..) = bench.job(id).await;
    assert!(matches!(state.as_str(), "waiting" | "scheduled") && attempts == 0, "{state} {attempts}");
    assert_eq!(bench.number("SELECT count(*) FROM tidemill.claims").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_component_of_its_world_can_be_a_worker() {
    let folder = scratch();
    let text = pipeline("", "").replace("test-worker", "window-counts");
    std::fs::write(folder.path().join("work.toml"), text).expect("the pipeline can be written");
    let plugins = root().join("plugins/dist").display().to_string();
    let output = run(&["check", &toml(folder.path()), "--plugins", &plugins]);
    assert!(!output.status.success());
    let said = stdout(&output) + &stderr(&output);
    assert!(said.contains("needs a component of world tidemill:plugin/worker@0.1.0"), "{said}");
}

/// Prints how fast jobs that do nothing go; `TIDEMILL_JOBS=100000 cargo test --release --test it no_op_jobs -- --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_op_jobs_share_claims_and_commits() {
    let count: usize = std::env::var("TIDEMILL_JOBS").ok().and_then(|it| it.parse().ok()).unwrap_or(5_000);
    let text = pipeline("keep = \"0s\"", "batch = { jobs = 250 }").replace("emit = true", "emit = false");
    let bench = Bench::start(&text).await;
    bench.put("q", json!("warm")).await;
    bench.settles().await;
    let pause = async |paused: bool| {
        let query = sqlx::query("SELECT tidemill.pause_queue('q', $1)").bind(paused);
        query.execute(&bench.pool).await.expect("the queue can be paused");
    };
    pause(true).await;
    for part in 0..count.div_ceil(5_000) {
        bench.put_many("q", json!("x"), 5_000.min(count - part * 5_000)).await;
    }
    pause(false).await;
    let began = Instant::now();
    eventually("all are done", PATIENCE, || async { counts(&bench.first).await["done"] == json!(count + 1) })
        .await;
    let took = began.elapsed();
    eprintln!("{count} jobs in {took:?}: {:.0}/s", count as f64 / took.as_secs_f64());
    let counts = counts(&bench.first).await;
    assert_eq!((&counts["refused"], &counts["retried"]), (&json!(0), &json!(0)));
}
