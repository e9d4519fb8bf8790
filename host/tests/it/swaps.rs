//! Components that change under load: nothing is lost or doubled, each output is of one version, bad versions go back.
//!
//! `TIDEMILL_SWAPS=200 cargo test --test it swaps -- --nocapture` runs the long form and prints the gaps.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{PgPool, Row};
use tokio_util::sync::CancellationToken;

use crate::marked::{marked, rename_into};
use crate::support::{Host, client, eventually, root, scratch, stderr, stdout};

const PATIENCE: Duration = Duration::from_secs(60);

/// What one call of the swapped stage may take: a version that hangs is found out after this.
const DEADLINE: Duration = Duration::from_millis(400);

/// The stage that is swapped, one beside it, and perhaps a fleet that feeds both.
fn pipeline(fleet_rate: Option<u32>) -> String {
    let fleet = fleet_rate.map_or_else(String::new, |rate| {
        let config = format!("{{ aircraft = 500, rate = {rate} }}");
        format!("[producers.fleet]\nplugin = \"aircraft-generator\"\nto = \"a\"\nconfig = {config}\n")
    });
    format!(
        "[pipeline]\nname = \"swaps\"\n\n[topics.a]\npartitions = 2\n\n[topics.b]\npartitions = 2\n\n\
         [topics.c]\npartitions = 2\n\n{fleet}\n\
         [transforms.t]\nplugin = \"./marked.wasm\"\nfrom = \"a\"\nto = \"b\"\n\
         limits = {{ deadline = \"{}ms\", memory = \"16MiB\" }}\n\
         probation = {{ batches = 8, time = \"50ms\" }}\n\n\
         [transforms.bystander]\nplugin = \"test-identity\"\nfrom = \"a\"\nto = \"c\"\n",
        DEADLINE.as_millis()
    )
}

/// What is tried, in turn.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    Good,
    /// Panics when it is configured.
    StartTrap,
    /// Panics in its third batch.
    LaterTrap,
    /// Never comes back from a batch.
    Slow,
    MemoryBomb,
    RefusesAll,
    WrongWorld,
    Truncated,
}

const BAD: [Version; 7] = [
    Version::StartTrap,
    Version::LaterTrap,
    Version::Slow,
    Version::MemoryBomb,
    Version::RefusesAll,
    Version::WrongWorld,
    Version::Truncated,
];

impl Version {
    fn of(swap: usize) -> Self {
        // A tenth is bad.
        if swap % 10 == 9 { BAD[(swap / 10) % BAD.len()] } else { Self::Good }
    }

    fn bytes(self, name: &str) -> Vec<u8> {
        match self {
            Self::Good => marked('n', name),
            Self::StartTrap => marked('s', name),
            Self::LaterTrap => marked('l', name),
            Self::Slow => marked('w', name),
            Self::MemoryBomb => marked('m', name),
            Self::RefusesAll => marked('r', name),
            Self::WrongWorld => {
                std::fs::read(root().join("plugins/dist/latest-position.wasm")).expect("the sample is built")
            }
            Self::Truncated => {
                let mut bytes = marked('n', name);
                bytes.truncate(bytes.len() / 2);
                bytes
            }
        }
    }

    /// Whether it is found out before it gets a message.
    fn is_refused(self) -> bool {
        matches!(self, Self::StartTrap | Self::WrongWorld | Self::Truncated)
    }
}

struct Bench {
    host: Host,
    pool: PgPool,
    file: PathBuf,
    /// Digest and mark of all that was ever tried.
    marks: Vec<(String, String)>,
}

/// Several of these feed the stage.
const FEEDERS: u64 = 3;

/// Sends its share of 5,000 messages a second in small requests, until it is told to stop. Says how many.
async fn feed(url: String, stop: CancellationToken) -> u64 {
    const EVERY: Duration = Duration::from_millis(10 * FEEDERS);
    let url = format!("{url}/v1/topics/a/records?key_separator=:");
    let (client, mut sent) = (client(), 0);
    let mut tick = tokio::time::interval(EVERY);
    while !stop.is_cancelled() {
        tick.tick().await;
        let lines: Vec<String> = (sent..sent + 50).map(|n| format!("{}:{n}", n % 100)).collect();
        let request = client.post(&url).header("content-type", "text/plain").body(lines.join("\n"));
        let answer = request.send().await.expect("the host answers");
        assert!(answer.status().is_success(), "{}", answer.status());
        sent += 50;
    }
    sent
}

impl Bench {
    async fn stage(&self) -> Value {
        let pipelines = self.host.get("/v1/pipelines").await;
        let stages = pipelines["pipelines"][0]["stages"].as_array().cloned().unwrap_or_default();
        stages.into_iter().find(|stage| stage["name"] == "t").expect("the stage runs")
    }

    /// Gives the stage a version, by HTTP or by its file, and waits for what becomes of it.
    async fn swap(&mut self, swap: usize) {
        let version = Version::of(swap);
        let name = format!("{swap:016}");
        let bytes = version.bytes(&name);
        let digest = tidemill::plugin::PluginDigest::of(&bytes).to_string();
        self.marks.push((digest.clone(), name));
        // A file with a refused version would be offered for ever, so those are pushed.
        let by_file = swap % 4 == 3 && !version.is_refused();
        if by_file {
            rename_into(&self.file, &bytes);
        } else {
            let url = format!("{}/v1/pipelines/swaps/stages/t/plugin", self.host.url);
            let request = client().put(url).header("content-type", "application/wasm").body(bytes);
            let answer = request.send().await.expect("the host answers");
            let status = answer.status();
            let said: Value = answer.json().await.expect("JSON");
            match version.is_refused() {
                true => assert_eq!(
                    (status.as_u16(), &said["error"]["code"]),
                    (422, &json!("plugin_refused")),
                    "swap {swap} {version:?}: {said}"
                ),
                false => assert!(status.is_success(), "swap {swap} {version:?}: {said}"),
            }
        }
        let said = format!("swap {swap} ({version:?}, by file: {by_file}) is decided");
        match version {
            _ if version.is_refused() => assert_ne!(self.stage().await["digest"], json!(digest)),
            Version::Good => {
                eventually(&said, PATIENCE, || async {
                    self.is_run_by_all(&digest).await
                        && self.stage().await["deployment"]["state"] != "probation"
                })
                .await;
            }
            _ => {
                eventually(&said, PATIENCE, || async { self.outcome(&digest).await.is_some() }).await;
                let outcome = self.outcome(&digest).await.expect("it has ended");
                assert_eq!(outcome, "rolled-back", "swap {swap} ({version:?})");
            }
        }
    }

    async fn outcome(&self, digest: &str) -> Option<String> {
        let outcome: Option<Option<String>> =
            sqlx::query_scalar("SELECT outcome FROM tidemill.stage_plugin_history WHERE digest = $1")
                .bind(digest)
                .fetch_optional(&self.pool)
                .await
                .expect("the history can be read");
        outcome.flatten()
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Every input has led to one output, and every output names the version whose mark it carries.
    async fn assert_exact(&self) {
        let lost = self.number("SELECT count(*) FROM (SELECT key, payload FROM topics.a EXCEPT ALL SELECT key, payload FROM topics.b) x").await;
        let doubled = self.number("SELECT count(*) FROM (SELECT key, payload FROM topics.b EXCEPT ALL SELECT key, payload FROM topics.a) x").await;
        assert_eq!((lost, doubled), (0, 0), "messages lost and doubled");
        let inputs = self.number("SELECT count(*) FROM topics.a").await;
        let named = self
            .number(
                "SELECT count(DISTINCT (b.input_partition, b.input_offset + coalesce(b.input_index[m.i], m.i - 1)))
                   FROM log.b b CROSS JOIN LATERAL generate_subscripts(b.payloads, 1) m(i)",
            )
            .await;
        assert_eq!(named, inputs, "each input is named by one output");
        sqlx::query("CREATE TABLE marks (digest text PRIMARY KEY, mark text)")
            .execute(&self.pool)
            .await
            .expect("a table");
        for (digest, mark) in &self.marks {
            sqlx::query("INSERT INTO marks VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(digest)
                .bind(mark)
                .execute(&self.pool)
                .await
                .expect("a mark");
        }
        let untrue = self
            .number(
                "SELECT count(*) FROM log.b b
                   JOIN tidemill.origins o ON o.origin_id = b.origin LEFT JOIN marks m USING (digest)
                  CROSS JOIN LATERAL unnest(b.payloads, b.headers) r(payload, headers)
                  WHERE m.mark IS DISTINCT FROM r.headers->0->>1",
            )
            .await;
        assert_eq!(untrue, 0, "outputs whose origin is not the version that made them");
        assert_eq!(self.number("SELECT count(*) FROM log.b WHERE origin IS NULL").await, 0);
        assert_eq!(self.number("SELECT count(*) FROM tidemill.dead_letters").await, 0, "dead letters");
    }

    /// How long a bad version ran: nothing is slower than its first failure and a second.
    async fn assert_rolled_back_in_time(&self) {
        let rows = sqlx::query(
            "SELECT digest, extract(epoch FROM ended_at - started_at)::float8 AS seconds, reason
               FROM tidemill.stage_plugin_history WHERE outcome = 'rolled-back' AND reason <> 'by hand'",
        )
        .fetch_all(&self.pool)
        .await
        .expect("the history can be read");
        assert!(!rows.is_empty());
        for row in rows {
            let (seconds, reason): (f64, String) = (row.get("seconds"), row.get("reason"));
            let allowed = 1.0 + if reason.contains("deadline") { DEADLINE.as_secs_f64() } else { 0.0 };
            eprintln!("rolled back after {:.0} ms: {}", seconds * 1e3, &reason[..reason.len().min(100)]);
            assert!(seconds < allowed, "rolled back after {seconds} s: {reason}");
        }
    }

    /// Prints the times between the last batch of one version and the first of the next, per partition, beside those between
    /// any two batches, from a time on. Around bad versions they are told apart. Returns the 99th percentiles of the two.
    async fn report_gaps(&self, what: &str, since: i64) -> (f64, f64) {
        let row = sqlx::query(
            "WITH batches AS (
                 SELECT b.partition, b.ts, b.origin, lag(b.ts) OVER w AS before, lag(b.origin) OVER w AS former,
                        extract(epoch FROM b.ts - lag(b.ts) OVER w)::float8 * 1000 AS gap
                   FROM log.b b WHERE b.ts >= tidemill.from_micros($1)
                 WINDOW w AS (PARTITION BY b.partition ORDER BY b.base_offset)),
             bad AS (
                 SELECT started_at, ended_at FROM tidemill.stage_plugin_history
                  WHERE outcome = 'rolled-back' AND reason <> 'by hand'),
             good AS (
                 SELECT * FROM batches g WHERE gap IS NOT NULL AND NOT EXISTS (
                     SELECT FROM bad WHERE g.ts >= bad.started_at AND g.before <= bad.ended_at + interval '50 ms'))
             SELECT count(*) FILTER (WHERE origin <> former) AS changes,
                    percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY gap)
                        FILTER (WHERE origin <> former) AS change,
                    percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY gap) AS any,
                    (SELECT max(gap) FROM batches) AS longest
               FROM good",
        )
        .bind(since)
        .fetch_one(&self.pool)
        .await
        .expect("gaps can be read");
        let (change, any): (Vec<f64>, Vec<f64>) = (row.get("change"), row.get("any"));
        let changes: i64 = row.get("changes");
        eprintln!(
            "{what}: gap in the output over {changes} changes of version, ms: median {:.1}, p99 {:.1}, longest {:.1}; \
             between any two batches: median {:.1}, p99 {:.1}, longest {:.1}; with bad versions {:.1}",
            change[0],
            change[1],
            change[2],
            any[0],
            any[1],
            any[2],
            row.get::<f64, _>("longest"),
        );
        (change[1], any[1])
    }

    /// Goes to and fro between two versions that are compiled. Returns when it began.
    async fn toggle(&self, times: usize) -> i64 {
        // The last of each ten is bad, the two before it are good.
        let [.., (one, _), (other, _), _] = &self.marks[..] else { panic!("too few swaps") };
        let pair = [one, other];
        for digest in pair {
            self.go_back_to(digest).await;
        }
        let began = self.number("SELECT tidemill.micros(clock_timestamp())").await;
        for digest in pair.iter().cycle().take(times) {
            self.go_back_to(digest).await;
        }
        began
    }

    async fn go_back_to(&self, digest: &str) {
        let url = format!("{}/v1/pipelines/swaps/stages/t/plugin/rollback", self.host.url);
        let answer =
            client().post(url).json(&json!({ "to": digest })).send().await.expect("the host answers");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
        eventually("all tasks run it", PATIENCE, || async { self.is_run_by_all(digest).await }).await;
    }

    /// By all tasks that this host runs; of others it does not know.
    async fn is_run_by_all(&self, digest: &str) -> bool {
        let stage = self.stage().await;
        let tasks = stage["tasks"].as_array().into_iter().flatten();
        let run: Vec<&Value> = tasks.map(|task| &task["digest"]).filter(|digest| !digest.is_null()).collect();
        !run.is_empty() && run.iter().all(|run| **run == json!(digest))
    }
}

async fn start(folder: &Path, fleet_rate: Option<u32>) -> Bench {
    let file = folder.join("marked.wasm");
    let first = marked('n', "first");
    rename_into(&file, &first);
    let toml = folder.join("swaps.toml");
    std::fs::write(&toml, pipeline(fleet_rate)).expect("written");
    let host = Host::start(&folder.join("data"), &[&toml.display().to_string()]);
    let pool = host.pool().await;
    let digest = tidemill::plugin::PluginDigest::of(&first).to_string();
    let marks = vec![(digest, format!("{:0>16}", "first"))];
    Bench { host, pool, file, marks }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_lose_and_double_nothing_and_bad_versions_go_back() {
    let swaps = std::env::var("TIDEMILL_SWAPS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let folder = scratch();
    let mut bench = start(folder.path(), None).await;
    let stop = CancellationToken::new();
    let feeders: Vec<_> =
        (0..FEEDERS).map(|_| tokio::spawn(feed(bench.host.url.clone(), stop.clone()))).collect();
    eventually("the stage runs", PATIENCE, || async { bench.number("SELECT count(*) FROM log.b").await > 0 })
        .await;
    let begun = Instant::now();
    for swap in 0..swaps {
        bench.swap(swap).await;
    }
    let took = begun.elapsed();
    let toggled = bench.toggle(if swaps > 40 { 100 } else { 20 }).await;
    stop.cancel();
    let fed = begun.elapsed();
    let mut sent = 0;
    for feeder in feeders {
        sent += feeder.await.expect("the feeder ends");
    }
    eventually("the groups catch up", PATIENCE, || async {
        bench.number("SELECT sum(lag)::bigint FROM tidemill.lag").await == 0
    })
    .await;
    eprintln!("{swaps} swaps in {took:?}, {:.0} messages/s", sent as f64 / fed.as_secs_f64());
    bench.report_gaps("new components, compiled meanwhile", 0).await;
    let (change, any) = bench.report_gaps("components already compiled", toggled).await;
    assert!(change < any.max(25.0) * 2.0, "a change of version takes {change} ms, other batches {any} ms");
    assert_eq!(bench.number("SELECT count(*) FROM topics.a").await, sent as i64);
    bench.assert_exact().await;
    bench.assert_rolled_back_in_time().await;
    let restarts = bench.stage().await["restarts"].clone();
    assert_eq!(restarts, 0, "no task of the stage was started again");
    let copied = bench.number("SELECT count(*) FROM topics.c").await;
    assert_eq!(copied, bench.number("SELECT count(*) FROM topics.a").await, "the stage beside it");
}

#[tokio::test]
async fn a_push_outlives_a_restart_and_a_lost_file_until_the_file_changes() {
    let folder = scratch();
    let mut bench = start(folder.path(), Some(1000)).await;
    bench.swap(0).await;
    let pushed = bench.stage().await["digest"].clone();
    bench.host.kill();
    bench.host.restart();
    bench.pool = bench.host.pool().await;
    assert_eq!(bench.stage().await["digest"], pushed, "the file has not changed since");
    assert_eq!(bench.host.stop(), Some(0));
    std::fs::remove_file(&bench.file).expect("removed");
    bench.host.restart();
    assert_eq!(bench.stage().await["digest"], pushed, "what is stored runs without a file");
    assert_eq!(bench.host.stop(), Some(0));
    let changed = marked('n', "changed");
    rename_into(&bench.file, &changed);
    bench.host.restart();
    let digest = tidemill::plugin::PluginDigest::of(&changed).to_string();
    assert_eq!(bench.stage().await["digest"], json!(digest));
}

#[tokio::test]
async fn what_cannot_run_is_shown_and_what_runs_goes_on() {
    let folder = scratch();
    let bench = start(folder.path(), Some(1000)).await;
    let before = bench.stage().await["digest"].clone();
    let candidate = |says: &'static str| {
        let bench = &bench;
        async move {
            eventually(says, PATIENCE, || async {
                let stage = bench.stage().await;
                stage["candidate"]["error"].as_str().is_some_and(|error| error.contains(says))
            })
            .await;
        }
    };
    // Half a file, as a slow copy leaves it for a while, and then the rest.
    let whole = marked('n', "whole");
    std::fs::write(&bench.file, &whole[..whole.len() / 3]).expect("written");
    candidate("damaged or not valid").await;
    assert_eq!(bench.stage().await["digest"], before);
    std::fs::write(&bench.file, &whole).expect("written");
    eventually("the whole file runs", PATIENCE, || async {
        let stage = bench.stage().await;
        stage["digest"] != before && stage["candidate"].is_null()
    })
    .await;
    // What was rolled back does not come back with the file, until it is pushed.
    rename_into(&bench.file, &marked('m', "bomb"));
    eventually("the bomb is rolled back", PATIENCE, || async {
        bench.stage().await["deployment"]["state"] == "rolled-back"
    })
    .await;
    rename_into(&bench.file, &whole);
    rename_into(&bench.file, &marked('m', "bomb"));
    candidate("rolled back here before").await;

    let status = || async { bench.host.get("/v1/status").await };
    std::fs::write(folder.path().join("swaps.toml"), pipeline(Some(100)).replace("rate", "rtae"))
        .expect("written");
    eventually("the mistake is shown", PATIENCE, || async {
        status().await["pipeline_files"]["error"].as_str().is_some_and(|error| error.contains("rtae"))
    })
    .await;
    let shown = stdout(&bench.host.cli(&["status"]));
    assert!(shown.contains("rtae") && shown.contains("did not take"), "{shown}");
    std::fs::write(folder.path().join("swaps.toml"), pipeline(Some(100))).expect("written");
    eventually("the files run again", PATIENCE, || async { status().await["pipeline_files"].is_null() })
        .await;
}

#[tokio::test]
async fn the_command_line_pushes_rolls_back_and_tells() {
    let folder = scratch();
    let bench = start(folder.path(), Some(1000)).await;
    let first = bench.stage().await["digest"].clone();
    let file = |name: &str, bytes: Vec<u8>| {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).expect("written");
        file.display().to_string()
    };
    let good = file("good.wasm", marked('n', "good"));
    let output = bench.host.cli(&["plugin", "push", &good, "--stage", "swaps/t", "--wait", "20s"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("swaps/t runs sha256:"), "{}", stdout(&output));
    assert!(!stdout(&output).contains("probation"), "{}", stdout(&output));

    let bomb = file("bomb.wasm", marked('m', "bomb"));
    let output = bench.host.cli(&["plugin", "push", &bomb, "--stage", "swaps/t", "--wait", "20s"]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(
        stderr(&output).contains("rolled back") && stderr(&output).contains("memory"),
        "{}",
        stderr(&output)
    );

    let core = file("core.wasm", wat::parse_str("(module)").expect("wat"));
    let output = bench.host.cli(&["plugin", "push", &core, "--stage", "swaps/t"]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("core WebAssembly module"), "{}", stderr(&output));
    let output = bench.host.cli(&["plugin", "push", &good, "--stage", "swaps/nothing"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no stage swaps/nothing"), "{}", stderr(&output));

    let output = bench.host.cli(&["plugin", "rollback", "swaps/t"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(bench.stage().await["digest"], first, "the version that was proven before");
    let listed = stdout(&bench.host.cli(&["plugin", "list"]));
    assert!(listed.contains("test-marked") && listed.contains("swaps/t"), "{listed}");
    let history = stdout(&bench.host.cli(&["plugin", "history", "swaps/t"]));
    assert!(history.contains("rolled-back") && history.contains("memory"), "{history}");
    let digest = tidemill::plugin::PluginDigest::of(&marked('n', "good")).to_string();
    let output = bench.host.cli(&["plugin", "rollback", "swaps/t", "--to", &digest[7..15]]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(bench.stage().await["digest"], json!(digest));
}

#[tokio::test]
async fn two_hosts_run_what_one_of_them_was_given() {
    let folder = scratch();
    let mut bench = start(folder.path(), Some(1000)).await;
    let toml = folder.path().join("swaps.toml").display().to_string();
    let url = bench.host.postgres_url.clone();
    let second = Host::start(&folder.path().join("second"), &[&toml, "--database-url", &url]);
    let of_second = || async {
        let pipelines = second.get("/v1/pipelines").await;
        let stages = pipelines["pipelines"][0]["stages"].as_array().cloned().unwrap_or_default();
        stages.into_iter().find(|stage| stage["name"] == "t").map(|stage| stage["digest"].clone())
    };
    bench.swap(0).await;
    let good = bench.stage().await["digest"].clone();
    eventually("the second host follows", Duration::from_secs(5), || async {
        of_second().await == Some(good.clone())
    })
    .await;
    // A version that traps later: rolled back once, for both.
    bench.swap(19).await;
    eventually("both are back", Duration::from_secs(5), || async { of_second().await == Some(good.clone()) })
        .await;
    assert_eq!(bench.stage().await["digest"], good);
    let decided = bench
        .number("SELECT count(*) FROM tidemill.stage_plugin_history WHERE stage = 't' AND outcome = 'rolled-back'")
        .await;
    assert_eq!(decided, 1, "one host decided");
}
