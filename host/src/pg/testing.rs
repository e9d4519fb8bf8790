//! A real server for tests: one for each test process, in a temporary folder, and one database for each test.
//!
//! The server goes with the process, however that ends: a shell waits on a pipe that only this process holds open, and
//! when it closes stops the server and removes its folder.

#![allow(clippy::expect_used, reason = "a test without its database cannot go on")]

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::Mutex;

use super::datadir::DataDir;
use super::embedded::{EmbeddedOptions, EmbeddedServer, NAME};
use super::migrate::migrate;
use super::pool::{self, Pool, PoolSettings};

/// A database of one test's own.
pub struct TestDatabase {
    pub name: String,
    pub url: String,
    pub pool: Pool,
}

/// A database with the schema in it.
pub async fn database() -> TestDatabase {
    database_with("schema", |pool| async move { migrate(&pool).await.expect("migrating the template") }).await
}

/// A database with nothing in it.
pub async fn empty_database() -> TestDatabase {
    from_template("template1").await
}

/// A clone of a database that `set_up` has filled. It runs once in a process for each `template` name.
pub async fn database_with<F, T>(template: &'static str, set_up: F) -> TestDatabase
where
    F: FnOnce(Pool) -> T,
    T: Future<Output = ()>,
{
    static READY: Mutex<Option<HashMap<&'static str, String>>> = Mutex::const_new(None);
    let mut ready = READY.lock().await;
    let ready = ready.get_or_insert_default();
    let name = match ready.get(template) {
        Some(name) => name.clone(),
        None => {
            let database = empty_database().await;
            set_up(database.pool.clone()).await;
            database.pool.close().await;
            ready.insert(template, database.name.clone());
            database.name
        }
    };
    from_template(&name).await
}

async fn from_template(template: &str) -> TestDatabase {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("t_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let server = server_url();
    let mut connection = PgConnection::connect_with(&pool::parse_url(server).expect("the server's URL"))
        .await
        .expect("connecting to the test server");
    let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.expect("creating a test database");
    let _ = connection.close().await;

    let url = server.replace(&format!("/{NAME}?"), &format!("/{name}?"));
    let settings = PoolSettings { max_connections: 8, ..PoolSettings::default() };
    let pool = pool::connect(&url, &settings).await.expect("connecting to a test database");
    TestDatabase { name, url, pool }
}

/// The URL of this process's server, which is started by the first call. It lives on a thread of its own, because each
/// test has its own runtime.
fn server_url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let dir = TemporaryDir::new();
                let data_dir = DataDir::open(dir.path()).expect("a data directory");
                let server = EmbeddedServer::start(&data_dir, EmbeddedOptions::default())
                    .await
                    .expect("the test server");
                send.send(server.url().to_owned()).expect("the test that waits for the server");
                std::future::pending::<()>().await;
            });
        });
        receive.recv().expect("the test server did not start; its error is above")
    })
}

/// A folder for a server of one's own. It goes, with a server that still runs in it, when the value is dropped or the
/// process ends. Not made by `tempfile`, which would close it to the user that root's Postgres runs as.
pub struct TemporaryDir {
    path: PathBuf,
    /// Cleans up when its standard input is closed.
    reaper: Child,
}

/// `$0` is the folder. A server is told to stop at once and waited for; a link is there when root's server had to live
/// elsewhere.
const REAPER: &str = r#"
    read -r _
    pid=$(head -n 1 "$0/postgres/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
    while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    find "$0" -type l -name postgres -exec sh -c 'rm -rf "$(readlink "$1")"' _ {} \;
    rm -rf "$0"
"#;

impl TemporaryDir {
    #[allow(clippy::new_without_default, reason = "it creates a folder and a process")]
    pub fn new() -> Self {
        use std::os::unix::process::CommandExt;
        let name = format!("tidemill-test-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        let mut command = Command::new("sh");
        // A group of its own: Ctrl-C ends the tests, and the cleaning goes on.
        command.arg("-c").arg(REAPER).arg(&path).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let reaper = command.spawn().expect("a shell that cleans up");
        Self { path, reaper }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        self.reaper.stdin.take();
        let _ = self.reaper.wait();
    }
}
