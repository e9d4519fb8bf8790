//! Hosts that reach Postgres through pgbouncer in transaction mode only, with fewer server connections than they use.
//!
//! pgbouncer is the system's or the one that `scripts/setup.sh pgbouncer` fetched; Debian 12's 1.18 knows nothing of
//! prepared statements. It has no settings that a user would have to find out about first.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use tidemill::pg::embedded::account::Account;
use tidemill::pg::pool::parse_url;
use tidemill::pg::testing::{TestDatabase, empty_database};

use crate::support::{Host, eventually, root, scratch};
use crate::windows::{self, PATIENCE, caught_up, compare, feed, number};

/// Server connections; each host has up to 20 sessions.
const SERVER_CONNECTIONS: usize = 6;

/// A running pgbouncer in front of the test server.
struct Pooler {
    child: Child,
    program: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Pooler {
    /// None, said out loud, where there is no pgbouncer.
    async fn start(database: &TestDatabase, folder: &Path) -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: there is no pgbouncer (scripts/setup.sh pgbouncer)");
            return None;
        };
        let server = parse_url(&database.url).expect("the test server's URL");
        let socket = server.get_socket().expect("the test server has a socket");
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let config = folder.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={} port={} user=tidemill\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\n",
            socket.display(),
            server.get_port()
        );
        std::fs::write(&config, text).expect("the configuration can be written");
        let pooler = Self { child: spawn(&program, &config), program, config, port };
        pooler.answers(database).await;
        Some(pooler)
    }

    fn url(&self, database: &TestDatabase) -> String {
        format!("postgres://tidemill@127.0.0.1:{}/{}", self.port, database.name)
    }

    async fn answers(&self, database: &TestDatabase) {
        let options = self.options(database);
        eventually("pgbouncer answers", PATIENCE, || async {
            PgConnection::connect_with(&options).await.is_ok()
        })
        .await;
    }

    /// Of a session that pgbouncer takes without further settings.
    fn options(&self, database: &TestDatabase) -> PgConnectOptions {
        parse_url(&self.url(database)).expect("the pooler's URL").extra_float_digits(None)
    }

    /// SIGKILL, and the next one at once: every session of every host breaks.
    async fn kill(&mut self, database: &TestDatabase) {
        self.child.kill().expect("pgbouncer can be killed");
        self.child.wait().expect("pgbouncer ends");
        self.child = spawn(&self.program, &self.config);
        self.answers(database).await;
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), root().join(".setup/pgbouncer")])
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
}

/// It refuses to run as root, and must be able to reach the server's socket.
fn spawn(program: &Path, config: &Path) -> Child {
    let mut command = Command::new(program);
    if let Account::Other { name, .. } = Account::choose().expect("an account for the server") {
        command.args(["-u", &name]);
    }
    let log = std::fs::File::create(config.with_extension("log")).expect("a log");
    command
        .arg(config)
        .env("LD_LIBRARY_PATH", program.parent().expect("a program is in a folder"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("pgbouncer starts")
}

/// A host that has only the pooler, and one that may also listen.
fn hosts(folder: &Path, pooler: &Pooler, database: &TestDatabase) -> [Host; 2] {
    let file = folder.join("windows.toml");
    std::fs::write(&file, windows::PIPELINE).expect("written");
    let (file, url) = (file.display().to_string(), pooler.url(database));
    let through = [file.as_str(), "--pooler", "--database-url", &url];
    let with_direct: Vec<&str> = through.into_iter().chain(["--direct-url", &database.url]).collect();
    [Host::start(&folder.join("first"), &through), Host::start(&folder.join("second"), &with_direct)]
}

async fn straight(database: &TestDatabase) -> PgPool {
    let options = parse_url(&database.url).expect("the test server's URL");
    PgPoolOptions::new().max_connections(4).connect_with(options).await.expect("the test server answers")
}

#[tokio::test]
async fn nothing_is_lost_or_repeated_through_a_pooler_whatever_is_killed() {
    let folder = scratch();
    let database = empty_database().await;
    let Some(mut pooler) = Pooler::start(&database, folder.path()).await else { return };
    let mut hosts = hosts(folder.path(), &pooler, &database);
    let pool = straight(&database).await;
    let mut fed = 0;
    for round in 0..6 {
        for _ in 0..4 {
            feed(&pool, fed, 400).await;
            fed += 400;
        }
        let closed = number(&pool, "SELECT count(*) FROM topics.counts").await;
        match round % 3 {
            0 => hosts[round / 3].kill(),
            1 => pooler.kill(&database).await,
            // The server connections of the pooler break in the middle of whatever they do.
            _ => {
                sqlx::query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name = 'tidemill'",
                )
                .execute(&pool)
                .await
                .expect("backends can be terminated");
            }
        }
        feed(&pool, fed, 400).await;
        fed += 400;
        if round % 3 == 0 {
            hosts[round / 3].restart();
        }
        eventually("windows go on being closed", PATIENCE, || async {
            number(&pool, "SELECT count(*) FROM topics.counts").await > closed
        })
        .await;
    }
    feed(&pool, fed + 10_000, 1).await;
    caught_up(&pool).await;
    let (wrong, windows, missing, late) = compare(&pool).await;
    assert_eq!((wrong, missing), (0, 0), "{windows} windows, {late} late messages");
    assert!(windows > 200 && late > 50, "{windows} windows, {late} late messages");
    leaves_nothing_in_sessions(&pooler, &database).await;
}

/// Server connections are handed from one host to the next, so what one leaves behind, another meets.
async fn leaves_nothing_in_sessions(pooler: &Pooler, database: &TestDatabase) {
    let pool = PgPoolOptions::new().connect_with(pooler.options(database)).await.expect("the pooler answers");
    for _ in 0..4 * SERVER_CONNECTIONS {
        // As one simple statement, so that asking leaves nothing behind either.
        let left = sqlx::raw_sql(
            "SELECT (SELECT count(*) FROM pg_prepared_statements)
                  + (SELECT count(*) FROM pg_settings WHERE source = 'session' AND name <> 'application_name'
                        AND name NOT IN ('client_encoding', 'DateStyle', 'TimeZone'))
                  + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())",
        )
        .fetch_one(&pool)
        .await
        .expect("the pooler answers");
        let left: i64 = sqlx::Row::get(&left, 0);
        assert_eq!(left, 0, "prepared statements, settings or locks that outlived a transaction");
    }
}

#[tokio::test]
async fn a_host_that_has_only_a_pooler_finds_records_by_polling_and_drops_segments() {
    let folder = scratch();
    let database = empty_database().await;
    let Some(pooler) = Pooler::start(&database, folder.path()).await else { return };
    let [_alone, listening] = hosts(folder.path(), &pooler, &database);
    let pool = straight(&database).await;
    // Appended beside all hosts, and nobody notifies: found within a poll.
    feed(&pool, 0, 500).await;
    feed(&pool, 10_000, 1).await;
    eventually("a record that nobody told of is read", Duration::from_secs(10), || async {
        number(&pool, "SELECT coalesce(sum(lag), 0)::bigint FROM tidemill.lag").await == 0
    })
    .await;
    drop(listening);
    sqlx::raw_sql(
        "SELECT tidemill.create_topic('short', 1, '1 second', '1 second', false);
                   SELECT tidemill.append('short', 'x')",
    )
    .execute(&pool)
    .await
    .expect("a topic is made");
    eventually("its first segment is dropped", PATIENCE, || async {
        number(
            &pool,
            "SELECT count(*) FROM tidemill.segments JOIN tidemill.topics t USING (topic_id)
              WHERE t.name = 'short' AND state = 'dropped'",
        )
        .await
            > 0
    })
    .await;
}
