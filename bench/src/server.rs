//! The server that everything is measured on: an embedded Postgres in a folder of its own, set up as the host sets it up,
//! and what it has used so far.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions};
use tidemill::clock::Clock;
use tidemill::log::{Log, LogOptions};
use tidemill::pg::datadir::DataDir;
use tidemill::pg::durability::{self, Durability};
use tidemill::pg::embedded::{EmbeddedOptions, EmbeddedServer};
use tidemill::pg::migrate::migrate;
use tidemill::pg::notify::NotifyHub;
use tidemill::pg::pool::{self, Pool, PoolSettings};
use tidemill::pg::testing::TemporaryDir;

/// For eight writers, readers, and the rest of a host.
const CONNECTIONS: u32 = 24;

pub struct Server {
    pub pool: Pool,
    pub durability: Durability,
    embedded: EmbeddedServer,
    settings: PoolSettings,
    topics: AtomicU32,
    /// After the server: it removes the folder. In it, the data directory that the server lives in.
    folder: TemporaryDir,
}

impl Server {
    /// Takes a second or two. The folder goes when the value is dropped or the process ends.
    pub async fn start() -> Result<Self> {
        let folder = TemporaryDir::new();
        let data_dir = DataDir::open(folder.path())?;
        let embedded = EmbeddedServer::start(&data_dir, EmbeddedOptions::default()).await?;
        let settings = PoolSettings {
            max_connections: CONNECTIONS,
            statement_timeout: Duration::from_secs(300),
            application_name: "tidemill-bench".into(),
            ..PoolSettings::default()
        };
        let pool = pool::connect(embedded.url(), &settings).await?;
        migrate(&pool).await?;
        let durability = durability::check(&pool).await?;
        ensure!(durability.is_durable(), "the server is not durable: {}", durability.warnings().join("; "));
        Ok(Self { pool, durability, embedded, settings, topics: AtomicU32::new(0), folder })
    }

    /// A connection beside the pool.
    pub async fn connect(&self) -> Result<PgConnection> {
        Ok(pool::connect_options(self.embedded.url(), &self.settings)?.connect().await?)
    }

    /// A log with nothing in its caches.
    pub fn log(&self) -> Log {
        let hub = NotifyHub::start(self.pool.clone(), None);
        Log::new(self.pool.clone(), hub, Clock::system(), LogOptions::default())
    }

    /// A folder on the server's disk.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A name that no topic has had.
    pub fn topic_name(&self) -> String {
        format!("bench_{}", self.topics.fetch_add(1, Ordering::Relaxed))
    }

    /// For a host of its own.
    pub fn url(&self) -> &str {
        self.embedded.url()
    }

    /// How programs other than ours connect, as psql takes it from its environment.
    pub fn variables(&self) -> Result<[(&'static str, String); 4]> {
        let options = pool::connect_options(self.embedded.url(), &self.settings)?;
        let socket = options.get_socket().map(|socket| socket.display().to_string());
        Ok([
            ("PGHOST", socket.unwrap_or_else(|| options.get_host().to_owned())),
            ("PGPORT", options.get_port().to_string()),
            ("PGUSER", options.get_username().to_owned()),
            ("PGDATABASE", options.get_database().context("the server's URL names no database")?.to_owned()),
        ])
    }

    pub async fn execute(&self, sql: impl Into<String>) -> Result<()> {
        let sql: String = sql.into();
        sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&self.pool).await.with_context(|| sql)?;
        Ok(())
    }

    /// Writes out what variants before have left in memory, so that none pays for another.
    pub async fn settle(&self) -> Result<()> {
        self.execute("CHECKPOINT").await
    }

    /// Bytes of WAL since the server was made.
    pub async fn wal(&self) -> Result<i64> {
        let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    /// Processor time of all of the server's processes, those included that have ended.
    pub fn cpu(&self) -> Result<Duration> {
        let postmaster = self.postmaster()?;
        let mut ticks = 0;
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // A process may end while we look.
            let Some(stat) = Stat::read(&format!("/proc/{pid}/stat")) else { continue };
            if pid == postmaster {
                ticks += stat.own + stat.children;
            } else if stat.parent == postmaster {
                ticks += stat.own;
            }
        }
        Ok(time(ticks))
    }

    fn postmaster(&self) -> Result<u32> {
        let file: PathBuf = self.embedded.home().join("data/postmaster.pid");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        text.lines().next().and_then(|line| line.trim().parse().ok()).context("the server has no process id")
    }

    pub async fn stop(self) -> Result<()> {
        self.pool.close().await;
        self.embedded.stop().await?;
        Ok(())
    }
}

/// Processor time of this process.
pub fn own_cpu() -> Duration {
    Stat::read("/proc/self/stat").map_or(Duration::ZERO, |stat| time(stat.own))
}

/// Processor time of another process; None if it is not there.
pub fn cpu_of(process: u32) -> Option<Duration> {
    Stat::read(&format!("/proc/{process}/stat")).map(|stat| time(stat.own))
}

/// What `/proc/<pid>/stat` says, in ticks of the clock.
struct Stat {
    parent: u32,
    own: u64,
    /// Of children that have ended.
    children: u64,
}

impl Stat {
    fn read(path: &str) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        // The second field is a name in parentheses, which may hold anything; the third is the state.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: number(11)? + number(12)?,
            children: number(13)? + number(14)?,
        })
    }
}

fn time(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
