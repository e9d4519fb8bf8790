//! A standby takes over: a real one, made by `pg_basebackup`, with and without the last commits of the primary.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::PgPool;
use tidemill::pg::embedded::account::Account;
use tidemill::pg::embedded::binaries::Binaries;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Host, client, eventually, scratch};

const PATIENCE: Duration = Duration::from_secs(60);

const PIPELINE: &str = r#"
[pipeline]
name = "failover"

[topics.events]
partitions = 1
format = "bytes"

[topics.copies]
partitions = 1
format = "bytes"

[transforms.copy]
plugin = "test-identity"
from = "events"
to = "copies"
"#;

/// A Postgres of the test's own, on a port, with `fsync` on.
struct Server {
    child: Child,
    port: u16,
}

fn command(program: &str) -> Command {
    let binaries = Binaries::find(None, None).expect("Postgres's programs");
    let account = Account::choose().expect("an account for the server");
    let mut command = account.command(&binaries.program(program));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn done(mut command: Command) {
    let status = command.status().expect("the program starts");
    assert!(status.success(), "{command:?}: {status}");
}

/// A folder that the server's user owns, and nobody else may enter.
fn folder(path: PathBuf) -> PathBuf {
    std::fs::DirBuilder::new().mode(0o700).create(&path).expect("the folder can be made");
    Account::choose().expect("an account for the server").own(&path).expect("its owner can be set");
    path
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

impl Server {
    fn primary(data: &Path) -> Self {
        let mut initdb = command("initdb");
        initdb.arg("-D").arg(data).args(["-U", "tidemill", "-A", "trust", "-N"]);
        done(initdb);
        Self::start(data)
    }

    fn standby(data: &Path, primary: &Self) -> Self {
        let mut backup = command("pg_basebackup");
        backup.arg("-D").arg(data).args(["-h", "127.0.0.1", "-U", "tidemill", "-c", "fast", "-R", "-N"]);
        backup.args(["-p", &primary.port.to_string()]);
        done(backup);
        Self::start(data)
    }

    fn start(data: &Path) -> Self {
        let port = free_port();
        let mut postgres = command("postgres");
        postgres.arg("-D").arg(data).args(["-p", &port.to_string()]);
        postgres.args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "fsync=on",
        ]);
        Self { child: postgres.spawn().expect("postgres starts"), port }
    }

    async fn pool(&self, database: &str) -> PgPool {
        let url = format!("postgres://tidemill@127.0.0.1:{}/{database}", self.port);
        eventually("the server answers", PATIENCE, || async { tidemill::pg::pool::ping(&url).await.is_ok() })
            .await;
        PgPool::connect(&url).await.expect("the server answers")
    }

    /// SIGQUIT: at once, as a crash.
    fn crash(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("a child has a pid");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
    }
}

/// The address that hosts know: leads to one server, then to another.
struct Address {
    port: u16,
    target: Arc<AtomicU16>,
    cut: watch::Sender<()>,
    _task: AbortOnDropHandle<()>,
}

impl Address {
    async fn of(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let target = Arc::new(AtomicU16::new(server.port));
        let (cut, _) = watch::channel(());
        let (to, cuts) = (target.clone(), cut.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (to, mut cuts) = (to.load(Ordering::SeqCst), cuts.subscribe());
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { port, target, cut, _task: AbortOnDropHandle::new(task) }
    }

    fn move_to(&self, server: &Server) {
        self.target.store(server.port, Ordering::SeqCst);
        self.cut.send_replace(());
    }

    fn url(&self) -> String {
        format!("postgres://tidemill@127.0.0.1:{}/tidemill", self.port)
    }
}

struct Setting {
    host: Host,
    address: Address,
    primary: Server,
    standby: Server,
    on_primary: PgPool,
    /// Last, so that it goes after what runs in it.
    _folder: tempfile::TempDir,
}

/// A host on a primary whose standby has caught up. `synchronous` commits wait for it.
async fn setting(synchronous: bool) -> Setting {
    let scratch = scratch();
    let primary = Server::primary(&folder(scratch.path().join("primary")));
    let maintenance = primary.pool("postgres").await;
    sqlx::query("CREATE DATABASE tidemill").execute(&maintenance).await.expect("a database");
    let standby = Server::standby(&folder(scratch.path().join("standby")), &primary);
    if synchronous {
        sqlx::query("ALTER SYSTEM SET synchronous_standby_names = '*'")
            .execute(&maintenance)
            .await
            .expect("set");
        sqlx::query("SELECT pg_reload_conf()").execute(&maintenance).await.expect("reloaded");
        let wanted = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')";
        eventually("the standby is synchronous", PATIENCE, || async {
            sqlx::query_scalar(wanted).fetch_one(&maintenance).await.unwrap_or(false)
        })
        .await;
    }
    let address = Address::of(&primary).await;
    let file = scratch.path().join("failover.toml");
    std::fs::write(&file, PIPELINE).expect("written");
    let host = Host::start(
        &scratch.path().join("host"),
        &[&file.display().to_string(), "--database-url", &address.url()],
    );
    let on_primary = primary.pool("tidemill").await;
    Setting { host, address, primary, standby, on_primary, _folder: scratch }
}

impl Setting {
    /// Everything that was written until now has been replayed. The end itself moves on: hosts give signs of life, and a
    /// standby tells how far it has replayed only with what it receives next.
    async fn caught_up(&self) {
        let end = sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text");
        let end: String = end.fetch_one(&self.on_primary).await.expect("the primary answers");
        let there = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE replay_lsn >= $1::pg_lsn)";
        eventually("the standby catches up", PATIENCE, || async {
            sqlx::query_scalar(there).bind(&end).fetch_one(&self.on_primary).await.unwrap_or(false)
        })
        .await;
    }

    /// The primary dies, and the standby takes its place and its address.
    async fn fail_over(&mut self) -> PgPool {
        self.primary.crash();
        let standby = self.standby.pool("tidemill").await;
        sqlx::query("SELECT pg_promote()").execute(&standby).await.expect("promoted");
        self.address.move_to(&self.standby);
        standby
    }

    /// One record. The offset it got; None if that is not known.
    async fn produce(&self, payload: &str) -> Option<i64> {
        let request = client()
            .post(format!("{}/v1/topics/events/records", self.host.url))
            .header("content-type", "text/plain")
            .body(payload.to_string());
        let answer = request.send().await.expect("the host answers");
        if !answer.status().is_success() {
            assert_eq!(answer.status(), 503, "{payload}");
            return None;
        }
        let answer: Value = answer.json().await.expect("JSON");
        answer["partitions"][0]["first_offset"].as_i64()
    }

    /// As [`Setting::produce`], until it is stored.
    async fn produce_surely(&self, payload: &str) -> i64 {
        let started = std::time::Instant::now();
        loop {
            if let Some(offset) = self.produce(payload).await {
                return offset;
            }
            assert!(started.elapsed() < PATIENCE, "the host does not store again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Status and body of a page of records.
    async fn page(&self, from: &str) -> (u16, Value) {
        let url = format!("{}/v1/topics/events/records?payload=text&max=1000&from={from}", self.host.url);
        let answer = client().get(url).send().await.expect("the host answers");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }
}

async fn payloads(pool: &PgPool, topic: &str) -> Vec<String> {
    let sql = format!("SELECT convert_from(payload, 'UTF8') FROM topics.{topic} ORDER BY c_offset");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await.expect("the log can be read")
}

async fn copied(pool: &PgPool) {
    eventually("the stage catches up", PATIENCE, || async {
        let lag = sqlx::query_scalar("SELECT coalesce(sum(lag), 1)::bigint FROM tidemill.lag")
            .fetch_one(pool)
            .await;
        lag.is_ok_and(|lag: i64| lag == 0)
    })
    .await;
}

// The address is served while the host starts, which blocks a thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_ahead_of_a_standby_that_takes_over_are_told_what_is_gone() {
    let mut setting = setting(false).await;
    for n in 0..20 {
        assert_eq!(setting.produce(&format!("kept-{n}")).await, Some(n));
    }
    copied(&setting.on_primary).await;
    setting.caught_up().await;
    // From here on the standby hears nothing.
    let standby = setting.standby.pool("tidemill").await;
    sqlx::query("ALTER SYSTEM SET primary_conninfo = ''").execute(&standby).await.expect("set");
    sqlx::query("SELECT pg_reload_conf()").execute(&standby).await.expect("reloaded");
    eventually("the standby is cut off", PATIENCE, || async {
        let sql = "SELECT NOT EXISTS (SELECT FROM pg_stat_replication)";
        sqlx::query_scalar(sql).fetch_one(&setting.on_primary).await.unwrap_or(false)
    })
    .await;
    for n in 20..35 {
        assert_eq!(setting.produce(&format!("lost-{n}")).await, Some(n), "acknowledged by the primary alone");
    }
    copied(&setting.on_primary).await;
    let (_, page) = setting.page("0:0").await;
    assert_eq!(page["next"], "0:35@1", "a reader has them");

    let pool = setting.fail_over().await;
    for n in 20..50 {
        assert_eq!(setting.produce_surely(&format!("new-{n}")).await, n, "the offsets are given anew");
    }
    let epochs: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT e.epoch, e.start_offset FROM tidemill.log_epochs e JOIN tidemill.topics t USING (topic_id)
          WHERE t.name = 'events'",
    )
    .fetch_all(&pool)
    .await
    .expect("epochs");
    let [(epoch, 20)] = epochs[..] else { panic!("{epochs:?}") };

    let (status, error) = setting.page("0:35@1").await;
    assert_eq!((status, &error["error"]["code"]), (410, &Value::from("offsets_lost")), "{error}");
    let message = error["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("offsets 20 up to 35 of partition 0 are gone"), "{message}");
    assert!(message.contains(&format!("0:20@{epoch}")), "where to go on: {message}");
    for place in [format!("0:20@{epoch}"), "0:20@1".to_string()] {
        let (_, page) = setting.page(&place).await;
        assert_eq!(page["records"][0]["text"], "new-20", "not what was read before, from a cache: {page}");
        assert_eq!(page["next"], format!("0:50@{epoch}"));
    }
    // The stage was as far as the reader. Its group came back with the log, and so did what it had written.
    copied(&pool).await;
    let events = payloads(&pool, "events").await;
    assert_eq!(events.len(), 50);
    assert!(events.iter().all(|payload| !payload.starts_with("lost")));
    assert_eq!(payloads(&pool, "copies").await, events, "each once, in order");
}

// The address is served while the host starts, which blocks a thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_synchronous_standby_confirmed_is_lost() {
    let mut setting = setting(true).await;
    let mut stored = Vec::new();
    for n in 0..100 {
        let payload = format!("record-{n}");
        stored.push((setting.produce(&payload).await.expect("stored"), payload));
    }
    let (_, page) = setting.page("0:0").await;
    assert_eq!(page["next"], "0:100@1");
    let pool = setting.fail_over().await;
    for n in 100..200 {
        let payload = format!("record-{n}");
        stored.push((setting.produce_surely(&payload).await, payload));
    }
    copied(&pool).await;
    let events = payloads(&pool, "events").await;
    for (offset, payload) in &stored {
        assert_eq!(events.get(*offset as usize), Some(payload), "at the offset that was acknowledged");
    }
    assert_eq!(payloads(&pool, "copies").await, events, "each once, in order");
    let (status, page) = setting.page("0:100@1").await;
    assert_eq!(
        (status, &page["records"][0]["offset"]),
        (200, &Value::from(100)),
        "nothing before it is gone: {page}"
    );
}
