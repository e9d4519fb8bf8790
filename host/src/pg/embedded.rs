//! The embedded server: a Postgres that the host starts in its data directory, watches, and stops with itself.
//!
//! * It keeps running when the host is killed, and the next host on the same data directory finds it and takes it over.
//! * When it ends without having been asked to, it is started again, with back-off, for as long as the host lives. Its
//!   URL stays the same, so pools reconnect by themselves.
//! * It listens on a unix socket in a folder that only its user can enter, and on no port.
//! * [`EmbeddedServer::stop`] stops it and waits. Dropping the value, or the future that starts it, tells it to stop and
//!   does not wait.
//!
//! Modules in the order of a start: [`binaries`], [`account`], [`layout`], [`cluster`], [`pidfile`], [`settings`],
//! [`postmaster`], [`log_file`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::pg::datadir::DataDir;
use crate::pg::pool;

pub mod account;
pub mod binaries;
mod cluster;
mod layout;
mod log_file;
mod pidfile;
mod postmaster;
mod settings;

use account::Account;
use binaries::Binaries;
use layout::Layout;
use log_file::LogFile;
use postmaster::{Leash, Postmaster, Recipe};

/// The role and the database.
pub const NAME: &str = "tidemill";

/// How often the server's log is held to its bound.
const LOG_CHECK: Duration = Duration::from_secs(60);
/// Pause before a server that ended is started again: doubled by each failure, from the first to the second.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Why there is no embedded server.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(transparent)]
    Binaries(#[from] binaries::BinariesError),
    #[error(transparent)]
    Account(#[from] account::NoAccount),
    #[error("the embedded Postgres has no place: {0}")]
    Layout(#[from] layout::LayoutError),
    #[error("the embedded Postgres cannot be set up: {0}")]
    Cluster(#[from] cluster::ClusterError),
    #[error("the embedded Postgres does not run: {0}")]
    Postmaster(#[from] postmaster::PostmasterError),
    #[error("the embedded Postgres refused to create its database: {0}")]
    Database(#[source] sqlx::Error),
    #[error("the task that watches the embedded Postgres failed: {0}")]
    Task(#[from] JoinError),
}

/// What a start may be told.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedOptions {
    /// The folder with `initdb` and `postgres`; otherwise looked for, see [`Binaries::find`].
    pub binaries: Option<PathBuf>,
    /// Server settings beyond the usual ones, which win over them.
    pub settings: Vec<(String, String)>,
}

/// A running server.
#[derive(Debug)]
pub struct EmbeddedServer {
    url: String,
    version: binaries::Version,
    home: PathBuf,
    stop: CancellationToken,
    task: AbortOnDropHandle<Result<(), EmbeddedError>>,
    _owner: Owner,
}

/// Lets go of the server in order, whatever the way out.
#[derive(Debug)]
struct Owner(Arc<Leash>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.pull();
    }
}

impl EmbeddedServer {
    /// Starts the server, or takes over the one that an earlier host left running. Takes a second or two the first
    /// time, and up to a minute after a crash.
    pub async fn start(data_dir: &DataDir, options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        let binaries = Binaries::find(options.binaries.as_deref(), Layout::existing_major(data_dir))?;
        let account = Account::choose()?;
        let layout = Layout::prepare(data_dir, &account, &binaries)?;
        create_cluster(&layout, &binaries, &account).await?;

        let leash = Arc::new(Leash::default());
        let owner = Owner(leash.clone());
        let recipe = Recipe { layout, binaries, account, extra: options.settings, leash };
        let postmaster = recipe.launch().await?;
        create_database(&postmaster.url).await.map_err(EmbeddedError::Database)?;

        let stop = CancellationToken::new();
        Ok(Self {
            url: postmaster.url.clone(),
            version: recipe.binaries.version,
            home: recipe.layout.home.clone(),
            task: AbortOnDropHandle::new(tokio::spawn(watch(recipe, postmaster, stop.clone()))),
            stop,
            _owner: owner,
        })
    }

    /// For psql and for every driver. It holds no secret, but works only for the server's user and root.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The version of the programs, e.g. `15.18`.
    pub fn version(&self) -> String {
        self.version.to_string()
    }

    /// The folder with the cluster and `server.log`.
    pub fn home(&self) -> &std::path::Path {
        &self.home
    }

    /// Stops the server: fast, and at once if that takes more than half a minute. Close the pools first.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        self.stop.cancel();
        self.task.await?
    }
}

async fn create_cluster(
    layout: &Layout,
    binaries: &Binaries,
    account: &Account,
) -> Result<(), EmbeddedError> {
    let (layout, binaries, account) = (layout.clone(), binaries.clone(), account.clone());
    let home = layout.home.clone();
    let version = binaries.version;
    let created =
        tokio::task::spawn_blocking(move || cluster::create(&layout, &binaries, &account)).await??;
    if created {
        tracing::info!(%version, place = %home.display(), "created the embedded Postgres");
    }
    Ok(())
}

/// `initdb` makes only the maintenance databases. One host at a time holds the data directory, so nobody races.
async fn create_database(url: &str) -> Result<(), sqlx::Error> {
    let options = pool::parse_url(url)?;
    let mut connection = PgConnection::connect_with(&options.clone().database("postgres")).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(NAME)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        sqlx::query("CREATE DATABASE tidemill").execute(&mut connection).await?;
    }
    // The role and a schema have one name, and `"$user"` in the default path would make that schema the place where a
    // user's unqualified names lead to.
    sqlx::query("ALTER ROLE tidemill SET search_path = public").execute(&mut connection).await?;
    connection.close().await
}

/// Keeps the server running until told to stop. Cancelled (with the handle dropped), it leaves the server as it is.
async fn watch(
    recipe: Recipe,
    mut postmaster: Postmaster,
    stop: CancellationToken,
) -> Result<(), EmbeddedError> {
    let log = LogFile::new(&recipe.layout.log);
    let mut log_check = tokio::time::interval(LOG_CHECK);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                postmaster.stop().await?;
                recipe.layout.tidy_up();
                return Ok(());
            }
            status = postmaster.exited() => {
                tracing::error!(
                    status, log = %recipe.layout.log.display(),
                    "the embedded Postgres ended without being asked to; starting it again (stop the host to stop it)"
                );
                let Some(again) = relaunch(&recipe, &stop).await else { return Ok(()) };
                postmaster = again;
            }
            _ = log_check.tick() => {
                if let Err(error) = log.trim() {
                    tracing::warn!(%error, log = %recipe.layout.log.display(), "cannot shorten the log of Postgres");
                }
            }
        }
    }
}

/// Tries until the server runs again, or until told to stop (then None).
async fn relaunch(recipe: &Recipe, stop: &CancellationToken) -> Option<Postmaster> {
    let (mut pause, longest) = RESTART_PAUSE;
    loop {
        stop.run_until_cancelled(tokio::time::sleep(pause)).await?;
        // Not cancelled half way: a server that was started must not be forgotten.
        match recipe.launch().await {
            Ok(postmaster) => {
                tracing::info!("the embedded Postgres runs again");
                return Some(postmaster);
            }
            Err(error) => tracing::error!(%error, "the embedded Postgres does not start; trying again"),
        }
        pause = (pause * 2).min(longest);
    }
}

#[cfg(test)]
mod tests;
