//! Several hosts on one Postgres: they share the partitions, hand over when one joins or stops, and replace one that is
//! killed or paused, without losing, doubling or reordering a message.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::support::{Host, client, eventually, scratch};

const PATIENCE: Duration = Duration::from_secs(60);
const PIPELINE: &str = "[pipeline]\nname = \"shared\"\n\n[topics.a]\npartitions = 6\n\n[topics.b]\npartitions = 2\n\n\
                        [transforms.t]\nplugin = \"test-identity\"\nfrom = \"a\"\nto = \"b\"\n";

struct Fleet {
    folder: tempfile::TempDir,
    /// Has the Postgres; the others come and go.
    first: Host,
    pool: PgPool,
}

impl Fleet {
    async fn start() -> Self {
        let folder = scratch();
        std::fs::write(folder.path().join("shared.toml"), PIPELINE).expect("the pipeline can be written");
        let first = Host::start(&folder.path().join("first"), &[&toml(folder.path())]);
        let pool = first.pool().await;
        Self { folder, first, pool }
    }

    fn join(&self, name: &str) -> Host {
        let bucket = self.folder.path().join("first/bucket").display().to_string();
        let arguments =
            [&toml(self.folder.path()), "--database-url", &self.first.postgres_url, "--bucket", &bucket];
        Host::start(&self.folder.path().join(name), &arguments)
    }

    /// Live leases of each host that has any, fewest first.
    async fn shares(&self) -> Vec<i64> {
        sqlx::query_scalar("SELECT count(*) FROM tidemill.leases GROUP BY owner ORDER BY 1")
            .fetch_all(&self.pool)
            .await
            .expect("leases can be read")
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// How long it takes until the leases are shared like this.
    async fn becomes(&self, shares: &[i64]) -> Duration {
        let started = Instant::now();
        eventually(&format!("leases are shared {shares:?}"), PATIENCE, || async {
            self.shares().await == shares
        })
        .await;
        started.elapsed()
    }
}

fn toml(folder: &Path) -> String {
    folder.join("shared.toml").display().to_string()
}

/// Sends numbered messages of 50 keys, until it is told to stop. Says how many.
async fn feed(url: String, stop: CancellationToken) -> u64 {
    let url = format!("{url}/v1/topics/a/records?key_separator=:");
    let (client, mut sent) = (client(), 0);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while !stop.is_cancelled() {
        tick.tick().await;
        let lines: Vec<String> = (sent..sent + 20).map(|n| format!("{}:{n}", n % 50)).collect();
        let request = client.post(&url).header("content-type", "text/plain").body(lines.join("\n"));
        let answer = request.send().await.expect("the host answers");
        assert!(answer.status().is_success(), "{}", answer.status());
        sent += 20;
    }
    sent
}

fn pause(host: &Host, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(host.pid() as i32).expect("a host has a pid");
    rustix::process::kill_process(pid, signal).expect("the host can be signalled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_share_hand_over_and_replace_each_other() {
    let fleet = Fleet::start().await;
    fleet.becomes(&[6]).await;
    let stop = CancellationToken::new();
    let feeding = tokio::spawn(feed(fleet.first.url.clone(), stop.clone()));

    let mut second = fleet.join("second");
    let joined = fleet.becomes(&[3, 3]).await;
    let mut third = fleet.join("third");
    fleet.becomes(&[2, 2, 2]).await;
    assert_eq!(fleet.first.get("/v1/status").await["hosts"].as_array().map(Vec::len), Some(3));

    let stopping = Instant::now();
    let stopped = tokio::task::spawn_blocking(move || {
        let code = second.stop();
        (second, code)
    });
    let handed_over = fleet.becomes(&[3, 3]).await;
    let (mut second, code) = stopped.await.expect("the host stops");
    let gone = stopping.elapsed();
    assert_eq!(code, Some(0));

    third.kill();
    let taken_over = fleet.becomes(&[6]).await;
    third.restart();
    fleet.becomes(&[3, 3]).await;

    // Longer than its leases: it wakes up with batches that it took when they were its own.
    pause(&third, rustix::process::Signal::STOP);
    fleet.becomes(&[6]).await;
    pause(&third, rustix::process::Signal::CONT);
    fleet.becomes(&[3, 3]).await;
    second.restart();
    fleet.becomes(&[2, 2, 2]).await;
    eprintln!(
        "joined {joined:?}, handed over {handed_over:?}, stopped {gone:?}, taken over after a kill {taken_over:?}"
    );

    stop.cancel();
    let sent = feeding.await.expect("the feeder ends well");
    eventually("all is read", PATIENCE, || async {
        fleet.number("SELECT sum(lag)::bigint FROM tidemill.lag").await == 0
    })
    .await;
    assert_eq!(fleet.number("SELECT count(*) FROM topics.b").await, sent as i64);
    let lost = "SELECT count(*) FROM (SELECT key, payload FROM topics.a EXCEPT ALL SELECT key, payload FROM topics.b) x";
    assert_eq!(fleet.number(lost).await, 0);
    let reordered = "SELECT count(*) FROM (
            SELECT convert_from(payload, 'UTF8')::bigint AS n,
                   lag(convert_from(payload, 'UTF8')::bigint) OVER (PARTITION BY key ORDER BY c_offset) AS before
              FROM topics.b) x WHERE n <= before";
    assert_eq!(fleet.number(reordered).await, 0);
    assert_eq!(fleet.number("SELECT count(*) FROM tidemill.dead_letters").await, 0);
    // Those whose Postgres is another's are stopped first.
    drop((second, third));
}
