//! A Postgres of the run's own, with fsync on, that can be stopped at once, started again, and whose backends can be killed.
//!
//! Not the host's embedded server: that one starts itself again, and here it is the case that decides when. It listens on
//! a unix socket only; a proxy gives it a port where a case needs one.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tidemill::pg::embedded::account::Account;
use tidemill::pg::embedded::binaries::Binaries;
use tidemill::pg::pool;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::reaper;

/// A recovery after a crash may take a while on a busy disk.
const READY: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);
/// The role and the database.
pub const NAME: &str = "tidemill";
/// Shown in `pg_stat_activity`, so that no case kills its own session.
const OURS: &str = "tidemill-faults";

/// A server that was ready once.
pub struct Server {
    home: PathBuf,
    run: PathBuf,
    binaries: Binaries,
    account: Account,
    settings: Vec<(String, String)>,
    process: Mutex<Option<Child>>,
}

impl Server {
    /// Makes a cluster in `home` and starts it. `settings` come after the usual ones and win over them.
    pub async fn create(run: &Path, home: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let binaries = Binaries::find(None, None)?;
        let account = Account::choose()?;
        let settings = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let server = Self {
            home: home.to_path_buf(),
            run: run.to_path_buf(),
            binaries,
            account,
            settings,
            process: Mutex::default(),
        };
        server.initdb()?;
        server.start().await?;
        let mut connection = server.connect_to("postgres").await?;
        sqlx::query("CREATE DATABASE tidemill").execute(&mut connection).await?;
        sqlx::query("ALTER ROLE tidemill SET search_path = public").execute(&mut connection).await?;
        let fsync: String = sqlx::query_scalar("SHOW fsync").fetch_one(&mut connection).await?;
        ensure!(fsync == "on", "the server runs with fsync {fsync}");
        connection.close().await?;
        Ok(server)
    }

    fn initdb(&self) -> Result<()> {
        std::fs::create_dir_all(&self.home)?;
        std::fs::set_permissions(&self.home, std::fs::Permissions::from_mode(0o755))?;
        for folder in [self.data(), self.sockets()] {
            std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
            self.account.own(&folder)?;
        }
        let mut command = self.account.command(&self.binaries.program("initdb"));
        command.arg("--pgdata").arg(self.data());
        command.args(["--username", NAME, "--encoding", "UTF8", "--locale", "C", "--data-checksums"]);
        command.args(["--auth-local", "trust", "--auth-host", "reject"]);
        let output = command.output().context("initdb")?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Starts the server and waits until it answers.
    pub async fn start(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        ensure!(process.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.home.join("server.log"))?;
        let mut command = self.account.command(&self.binaries.program("postgres"));
        command.arg("-D").arg(self.data()).stdout(log.try_clone()?).stderr(log).stdin(Stdio::null());
        let sockets = self.sockets().display().to_string();
        let fixed = [
            ("listen_addresses", ""),
            ("unix_socket_directories", sockets.as_str()),
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("synchronous_commit", "on"),
            ("max_connections", "150"),
            ("shared_buffers", "128MB"),
            ("max_wal_size", "2GB"),
            ("checkpoint_timeout", "5min"),
            ("jit", "off"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_line_prefix", "%m [%p] %q%a "),
        ];
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.into_iter().chain(own) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.process_group(0);
        let child = Command::from(command).spawn().context("postgres")?;
        let pid = child.id().context("postgres ended at once")?;
        reaper::note(&self.run, pid, "QUIT")?;
        *process = Some(child);
        drop(process);
        self.wait_ready().await
    }

    /// Until it answers: also after a backend was killed, when it starts itself again.
    pub async fn wait_ready(&self) -> Result<()> {
        let connection = self.connect_to("postgres").await?;
        connection.close().await?;
        Ok(())
    }

    /// What `pg_ctl stop -m immediate` does: every session ends at once, without a checkpoint.
    pub async fn stop_immediately(&self) -> Result<()> {
        self.end(Signal::QUIT).await
    }

    /// What `pg_ctl stop -m fast` does.
    pub async fn stop(&self) -> Result<()> {
        self.end(Signal::INT).await
    }

    async fn end(&self, signal: Signal) -> Result<()> {
        let mut process = self.process.lock().await;
        let Some(mut child) = process.take() else { return Ok(()) };
        let Some(id) = child.id() else { return Ok(()) };
        kill_process(pid(id)?, signal)?;
        timeout(READY, child.wait()).await.context("the server does not stop")??;
        reaper::forget(&self.run, id);
        Ok(())
    }

    /// Kills one process of a host's session with SIGKILL, which makes the server drop all of them and recover: one that is
    /// at something, if there is one. Says whether there was any.
    pub async fn kill_backend(&self, rng: &mut Rng) -> Result<bool> {
        let mut connection = self.connect().await?;
        let sessions: Vec<(i32, bool)> = sqlx::query_as(
            "SELECT pid, state <> 'idle' FROM pg_stat_activity
              WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> $1
                AND state IS NOT NULL ORDER BY pid",
        )
        .bind(OURS)
        .fetch_all(&mut connection)
        .await?;
        // Nothing to wait for: the session is about to end.
        drop(connection);
        let busy: Vec<_> = sessions.iter().filter(|(_, busy)| *busy).copied().collect();
        let Some((chosen, _)) = rng.choice(if busy.is_empty() { sessions } else { busy }) else {
            return Ok(false);
        };
        let chosen = Pid::from_raw(chosen).context("a pid")?;
        Ok(kill_process(chosen, Signal::KILL).is_ok())
    }

    /// Ends the sessions in which hosts listen for notifications. How many there were.
    pub async fn terminate_listeners(&self) -> Result<u64> {
        let mut connection = self.connect().await?;
        let ended = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = current_database() AND application_name <> $1
                AND (application_name LIKE '%listen%' OR query LIKE 'LISTEN %')",
        )
        .bind(OURS)
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        Ok(ended.len() as u64)
    }

    /// A session of ours; waits for a server that is just recovering.
    pub async fn connect(&self) -> Result<PgConnection> {
        self.connect_to(NAME).await
    }

    async fn connect_to(&self, database: &str) -> Result<PgConnection> {
        let options = self.options()?.database(database);
        let deadline = Instant::now() + READY;
        loop {
            let error = match timeout(Duration::from_secs(5), options.connect()).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() > deadline {
                bail!("the server does not answer: {error}; see {}", self.home.join("server.log").display());
            }
            sleep(POLL).await;
        }
    }

    /// Runs a query again when the server went away meanwhile. For questions only.
    pub async fn ask<T>(&self, sql: &str) -> Result<T>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let deadline = Instant::now() + READY;
        loop {
            let mut connection = self.connect().await?;
            match sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await {
                Ok(value) => return Ok(value),
                Err(error) if !pool::is_passing(&error) || Instant::now() > deadline => {
                    return Err(error).context(sql.to_owned());
                }
                Err(_) => sleep(POLL).await,
            }
        }
    }

    /// Of the database, over the socket.
    pub fn options(&self) -> Result<PgConnectOptions> {
        Ok(pool::parse_url(&self.url())?.application_name(OURS))
    }

    /// For hosts on this machine.
    pub fn url(&self) -> String {
        self.url_as(NAME)
    }

    fn url_as(&self, role: &str) -> String {
        format!("postgres://{role}@localhost/{NAME}?host={}", self.sockets().display())
    }

    /// Makes a role that may do everything, and gives its URL.
    pub async fn add_role(&self, role: &str) -> Result<String> {
        let mut connection = self.connect().await?;
        sqlx::query(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN SUPERUSER")))
            .execute(&mut connection)
            .await?;
        Ok(self.url_as(role))
    }

    /// The file that a proxy connects to.
    pub fn socket(&self) -> PathBuf {
        self.sockets().join(".s.PGSQL.5432")
    }

    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn sockets(&self) -> PathBuf {
        self.home.join("run")
    }
}

/// A process id as signals take it.
pub fn pid(id: u32) -> Result<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw).context("a pid")
}
