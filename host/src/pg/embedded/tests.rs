//! Against a real server each. These kill what others would share, so none uses the shared test server.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::*;
use crate::pg::testing::TemporaryDir;

const PATIENCE: Duration = Duration::from_secs(60);

async fn start(dir: &Path) -> (DataDir, EmbeddedServer) {
    let data_dir = DataDir::open(dir).unwrap();
    let server = EmbeddedServer::start(&data_dir, EmbeddedOptions::default()).await.unwrap();
    (data_dir, server)
}

async fn execute(url: &str, sql: &'static str) {
    let mut connection = PgConnection::connect_with(&pool::parse_url(url).unwrap()).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
}

async fn count(url: &str) -> Result<i64, sqlx::Error> {
    let mut connection = PgConnection::connect_with(&pool::parse_url(url)?).await?;
    sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(&mut connection).await
}

/// As after a kill -9 of the host: nobody watches the server, and nobody told it to stop.
fn abandon(server: EmbeddedServer, data_dir: DataDir) {
    server._owner.0.release();
    drop((server, data_dir));
}

/// The postmaster's pid, as its own file has it.
fn pid(server: &EmbeddedServer) -> Pid {
    match pidfile::look(&server.home().join("data")) {
        pidfile::Found::Server(running) => running.pid,
        other => panic!("no server: {other:?}"),
    }
}

/// Waits until another postmaster than `old` serves.
async fn restarted(server: &EmbeddedServer, old: Pid) {
    let again = async {
        loop {
            let found = pidfile::look(&server.home().join("data"));
            if matches!(found, pidfile::Found::Server(running) if running.pid != old)
                && count(server.url()).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn data_lasts_from_one_start_to_the_next() {
    let temp = TemporaryDir::new();
    let (data_dir, server) = start(temp.path()).await;
    execute(server.url(), "CREATE TABLE kept AS SELECT 1").await;
    let home = server.home().to_path_buf();
    server.stop().await.unwrap();
    assert_eq!(pidfile::look(&home.join("data")), pidfile::Found::Nobody);
    assert!(!pidfile::path(&home.join("data")).exists(), "stopped, but not in order");
    drop(data_dir);

    let (_data_dir, server) = start(temp.path()).await;
    assert_eq!(count(server.url()).await.unwrap(), 1);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_whose_host_is_gone_is_taken_over() {
    let temp = TemporaryDir::new();
    let (data_dir, server) = start(temp.path()).await;
    let (url, first) = (server.url().to_owned(), pid(&server));
    abandon(server, data_dir);

    let (_data_dir, server) = start(temp.path()).await;
    assert_eq!((server.url(), pid(&server)), (url.as_str(), first));
    // It is watched like one's own child.
    execute(server.url(), "CREATE TABLE kept AS SELECT 1").await;
    kill_process(first, Signal::QUIT).unwrap();
    restarted(&server, first).await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_host_that_gives_up_takes_its_server_with_it() {
    let temp = TemporaryDir::new();
    let (_data_dir, server) = start(temp.path()).await;
    let cluster = server.home().join("data");
    drop(server);
    let gone = async {
        while pidfile::path(&cluster).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_and_nothing_committed_is_lost() {
    let temp = TemporaryDir::new();
    let (_data_dir, server) = start(temp.path()).await;
    execute(server.url(), "CREATE TABLE kept (n int)").await;
    // QUIT is what `pg_ctl stop -m immediate` sends.
    for (round, signal) in [(1, Signal::QUIT), (2, Signal::KILL), (3, Signal::INT)] {
        execute(server.url(), "INSERT INTO kept VALUES (1)").await;
        let old = pid(&server);
        kill_process(old, signal).unwrap();
        restarted(&server, old).await;
        assert_eq!(count(server.url()).await.unwrap(), round, "after {signal:?}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_stale_pid_file_does_not_block_a_start() {
    let temp = TemporaryDir::new();
    let (data_dir, server) = start(temp.path()).await;
    execute(server.url(), "CREATE TABLE kept AS SELECT 1").await;
    let (home, old) = (server.home().to_path_buf(), pid(&server));
    abandon(server, data_dir);
    kill_process(old, Signal::KILL).unwrap();
    // The pid has since been given to another process of a user whom Postgres may signal.
    let path = pidfile::path(&home.join("data"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mine = text.replacen(&old.as_raw_nonzero().to_string(), &std::process::id().to_string(), 1);
    std::fs::write(&path, mine).unwrap();

    let (_data_dir, server) = start(temp.path()).await;
    assert_eq!(count(server.url()).await.unwrap(), 1);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn half_an_initdb_is_done_again() {
    let temp = TemporaryDir::new();
    let (data_dir, server) = start(temp.path()).await;
    let home = server.home().to_path_buf();
    server.stop().await.unwrap();
    drop(data_dir);
    // What a kill -9 during initdb leaves: some files, in the folder beside.
    std::fs::rename(home.join("data"), home.join("data.new")).unwrap();
    std::fs::remove_file(home.join("data.new/PG_VERSION")).unwrap();

    let (_data_dir, server) = start(temp.path()).await;
    assert!(!home.join("data.new").exists());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_deep_data_directory_works_too() {
    let temp = TemporaryDir::new();
    let deep = temp.path().join("d".repeat(120)).join("with space & %");
    let (_data_dir, server) = start(&deep).await;
    execute(server.url(), "CREATE TABLE kept AS SELECT 1").await;
    assert_eq!(count(server.url()).await.unwrap(), 1);
    let sockets = match pidfile::look(&server.home().join("data")) {
        pidfile::Found::Server(running) => running.sockets,
        other => panic!("no server: {other:?}"),
    };
    // Root's server may have moved as a whole, to where there is room for the socket too.
    let is_shared = !sockets.starts_with(server.home());
    server.stop().await.unwrap();
    assert_eq!(sockets.exists(), !is_shared, "{}", sockets.display());
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let temp = TemporaryDir::new();
    let data_dir = DataDir::open(temp.path()).unwrap();
    let settings = vec![("shared_buffers".to_owned(), "much".to_owned())];
    let options = EmbeddedOptions { settings, ..EmbeddedOptions::default() };
    let error = EmbeddedServer::start(&data_dir, options).await.unwrap_err().to_string();
    assert!(error.contains("invalid value for parameter \"shared_buffers\": \"much\""), "{error}");
    assert!(error.contains("server.log"), "{error}");
}

#[tokio::test]
async fn data_of_another_version_is_refused_with_the_versions_named() {
    let temp = TemporaryDir::new();
    let data_dir = DataDir::open(temp.path()).unwrap();
    std::fs::create_dir_all(temp.path().join("postgres/data")).unwrap();
    std::fs::write(temp.path().join("postgres/data/PG_VERSION"), "9\n").unwrap();
    let error = EmbeddedServer::start(&data_dir, EmbeddedOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("was made by PostgreSQL 9, but only"), "{error}");
}

#[tokio::test]
async fn only_the_servers_user_can_enter_the_sockets_folder() {
    use std::os::unix::fs::MetadataExt;
    let temp = TemporaryDir::new();
    let (_data_dir, server) = start(temp.path()).await;
    let meta = std::fs::metadata(server.home().join("run")).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o700);
    let mut connection = PgConnection::connect_with(&pool::parse_url(server.url()).unwrap()).await.unwrap();
    let tcp: String = sqlx::query_scalar("SHOW listen_addresses").fetch_one(&mut connection).await.unwrap();
    assert_eq!(tcp, "");
    let checksums: String =
        sqlx::query_scalar("SHOW data_checksums").fetch_one(&mut connection).await.unwrap();
    assert_eq!(checksums, "on");
    drop(connection);
    server.stop().await.unwrap();
}

/// The names are glibc's; what they are worth stands where they are set.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn backends_keep_the_memory_of_large_batches() {
    let temp = TemporaryDir::new();
    let (_data_dir, server) = start(temp.path()).await;
    let environment = std::fs::read(format!("/proc/{}/environ", pid(&server).as_raw_nonzero())).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    for (name, value) in settings::ENVIRONMENT {
        assert!(
            environment.split('\0').any(|entry| entry == format!("{name}={value}")),
            "{name}: {environment}"
        );
    }
    server.stop().await.unwrap();
}
