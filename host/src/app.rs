//! Composition root: builds the parts of a host in order, runs them, and takes them down in the opposite order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, ApiSettings, ApiState};
use crate::archive::objects::{MIRROR_BYTES, Objects};
use crate::archive::reader::ArchiveReader;
use crate::archive::{ArchiveError, Archiver, ArchiverOptions, Bucket, BucketError, BucketOptions};
use crate::clock::Clock;
use crate::config::plan::Plan;
use crate::config::plugins::PluginFolders;
use crate::letters::Letters;
use crate::log::hosts::{Hosts, Member};
use crate::log::offsets::Groups;
use crate::log::{Log, LogOptions};
use crate::pg::datadir::{DataDir, DataDirError};
use crate::pg::durability::{self, Durability, DurabilityError};
use crate::pg::embedded::{EmbeddedError, EmbeddedOptions, EmbeddedServer};
use crate::pg::migrate::{self, MigrateError};
use crate::pg::notify::NotifyHub;
use crate::pg::pool::{self, ConnectError, PoolSettings, redact_url};
use crate::pipeline::runtime::{ApplyError, Runtime};
use crate::pipeline::share::Shares;
use crate::pipeline::stage::Services;
use crate::pipeline::watch;
use crate::plugin::{EngineError, EngineOptions, PluginEngine};
use crate::query::{Queries, QueryOptions};
use crate::queue::Queues;
use crate::registry::Registry;
use crate::replay::Replay;
use crate::segments::{Maintainer, MaintainerOptions};
use crate::tables::Tables;

/// How long requests in flight may take to end when the host stops.
const DRAIN: Duration = Duration::from_secs(5);

/// What a host is started with.
#[derive(Clone, Debug)]
pub struct AppOptions {
    pub data_dir: PathBuf,
    /// None runs the embedded server in the data directory.
    pub database_url: Option<String>,
    /// The URL leads to a pooler in transaction mode.
    pub pooler: bool,
    /// Beside a pooler: the way to the server itself, for what no pooler carries.
    pub direct_url: Option<String>,
    /// Run on a server with `fsync` off.
    pub allow_no_fsync: bool,
    /// Where the server's programs are, if not where they are looked for.
    pub postgres_bin: Option<PathBuf>,
    pub listen: SocketAddr,
    /// Needed to listen on anything but loopback.
    pub token: Option<String>,
    /// Names by which the host may be addressed, beside loopback and the bound address.
    pub allowed_hosts: Vec<String>,
    pub plugins: PluginFolders,
    /// The files and folders that the plan was read from: they are read again when they change.
    pub pipelines: Vec<PathBuf>,
    /// Where sealed segments go: a folder or `s3://bucket/prefix`. None is the folder `bucket` in the data directory.
    pub bucket: Option<String>,
    pub archiver: ArchiverOptions,
    pub segments: MaintainerOptions,
    /// How long dead letters stay that nobody redrives or drops; None is for ever.
    pub keep_letters: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(
        "cannot listen on {address}: {error}; another program (perhaps another tidemill) uses that port: \
         stop it, or give another address with --listen 127.0.0.1:0 (any free port)"
    )]
    PortTaken { address: SocketAddr, error: std::io::Error },
    #[error("cannot listen on {address}: {error}; give another address with --listen")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error(
        "refusing to listen on {0}, which other machines can reach, without a token: set --token or TIDEMILL_TOKEN, or \
         listen on 127.0.0.1"
    )]
    OpenWithoutToken(SocketAddr),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Durability(#[from] DurabilityError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("the archiver cannot start: {0}")]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(
        "cannot make a folder for queries in the data directory: {0}; see whether it can be written and has room"
    )]
    Queries(std::io::Error),
    #[error("the web server ended: {0}")]
    Serve(std::io::Error),
}

/// A running host.
pub struct App {
    pub url: String,
    /// Without a password.
    pub postgres_url: String,
    /// Where history goes that leaves Postgres.
    pub bucket_url: String,
    pub durability: Durability,
    token: CancellationToken,
    tasks: TaskTracker,
    runtime: Runtime,
    log: Log,
    server: Option<EmbeddedServer>,
    _data_dir: DataDir,
}

impl App {
    /// Starts everything, or takes down what was started and says what is wrong.
    pub async fn start(options: AppOptions, plan: Plan) -> Result<Self, AppError> {
        let data_dir = DataDir::open(&options.data_dir)?;
        let bucket = bucket(&options, &data_dir)?;
        let listener = listen(&options).await?;
        let server = match &options.database_url {
            Some(_) => None,
            None => {
                let embedded =
                    EmbeddedOptions { binaries: options.postgres_bin.clone(), ..Default::default() };
                Some(EmbeddedServer::start(&data_dir, embedded).await?)
            }
        };
        match Self::build(options, plan, data_dir, bucket, listener, &server).await {
            Ok(app) => Ok(Self { server, ..app }),
            Err(error) => {
                if let Some(server) = server
                    && let Err(stop) = server.stop().await
                {
                    tracing::warn!(error = %stop, "the embedded Postgres was not stopped");
                }
                Err(error)
            }
        }
    }

    async fn build(
        options: AppOptions,
        plan: Plan,
        data_dir: DataDir,
        bucket: Bucket,
        listener: TcpListener,
        server: &Option<EmbeddedServer>,
    ) -> Result<Self, AppError> {
        let database = match (server, options.database_url) {
            (Some(server), _) => server.url().to_string(),
            (None, given) => given.unwrap_or_default(),
        };
        let settings = PoolSettings {
            pooler: options.pooler,
            direct_url: options.direct_url,
            ..PoolSettings::default()
        };
        let pool = pool::connect(&database, &settings).await?;
        let durability = durability::check(&pool).await?;
        durability.demand_fsync(options.allow_no_fsync)?;
        for warning in durability.warnings() {
            tracing::warn!("{warning}");
        }
        migrate::migrate(&pool).await?;
        let clock = Clock::system();
        if pool.direct().is_none() {
            tracing::info!(
                "polling only: LISTEN does not work through a pooler, so records that other hosts append are found \
                 within a second; --direct-url makes that milliseconds"
            );
        }
        let hub = NotifyHub::start(pool.clone(), pool.direct().cloned());
        let log = Log::new(pool.clone(), hub, clock.clone(), LogOptions::default());
        log.check_server().await.map_err(|error| ApplyError::Log { stage: "host".to_string(), error })?;
        let query_cache = data_dir.private_dir("query-cache")?;
        let objects = Objects::open(bucket.clone(), &query_cache, MIRROR_BYTES).map_err(AppError::Queries)?;
        let replay = Replay::with_archive(log.clone(), ArchiveReader::new(pool.clone(), objects.clone()));
        let (groups, tables) = (Groups::new(pool.clone()), Tables::new(pool.clone()));
        let hosts = Hosts::new(pool.clone());
        let cache_dir = data_dir.private_dir("wasm-cache")?;
        let engine = PluginEngine::new(EngineOptions { cache_dir: Some(cache_dir), ..Default::default() })?;
        let host = data_dir.host_id().clone();
        let url =
            listener.local_addr().map(|address| format!("http://{address}")).map_err(AppError::Serve)?;
        let member = Member { host: host.clone(), version: env!("CARGO_PKG_VERSION"), url: url.clone() };
        let shares = Shares::new(hosts.clone(), member);
        let letters = Letters::new(log.clone());
        let services = Services {
            log: log.clone(),
            replay: replay.clone(),
            groups: groups.clone(),
            shares: shares.clone(),
            registry: Registry::new(pool.clone()),
            letters: letters.clone(),
            queues: Queues::new(log.clone()),
            host: host.clone(),
        };
        // Of what a query reads, this is the part that is not archived.
        let hot = Replay::new(log.clone());
        let queries =
            Queries::open(hot, objects, &query_cache, QueryOptions::default()).map_err(AppError::Queries)?;
        let runtime = Runtime::new(engine, services, tables.clone(), options.plugins);

        let (token, tasks) = (CancellationToken::new(), TaskTracker::new());
        let postgres_url = redact_url(&database);
        let state = ApiState::new(
            log.clone(),
            replay,
            groups.clone(),
            tables,
            runtime.clone(),
            queries,
            ApiSettings {
                url: url.clone(),
                postgres_url: postgres_url.clone(),
                data_dir: data_dir.path().to_path_buf(),
                host: host.clone(),
                durability: durability.clone(),
                token: options.token,
                allowed_hosts: options.allowed_hosts,
            },
        );
        let bucket_url = bucket.url().to_owned();
        let work = data_dir.private_dir("archive-work")?;
        let archiver = Archiver::new(log.clone(), bucket, host.clone(), work, options.archiver)?;
        let ready = state.ready();
        tasks.spawn(api::serve(state, listener, token.clone()));
        let app = Self {
            url: url.clone(),
            postgres_url,
            bucket_url,
            durability,
            token: token.clone(),
            tasks,
            runtime: runtime.clone(),
            log,
            server: None,
            _data_dir: data_dir,
        };
        let started = async {
            shares.enter().await.map_err(|error| ApplyError::Log { stage: "host".to_string(), error })?;
            runtime.apply(plan).await
        };
        if let Err(error) = started.await {
            app.stop_tasks().await;
            return Err(error.into());
        }
        let maintainer = Maintainer::new(pool, clock, options.segments);
        app.tasks.spawn(maintainer.run(token.clone()));
        app.tasks.spawn(archiver.run(token.clone()));
        app.tasks.spawn(letters.watch(options.keep_letters, token.clone()));
        app.tasks.spawn(app.log.clone().watch_server(token.clone()));
        app.tasks.spawn(runtime.clone().converge(token.clone()));
        app.tasks.spawn(runtime.clone().shadows(token.clone()));
        app.tasks.spawn(runtime.clone().fire_crons(token.clone()));
        app.tasks.spawn(watch::watch(runtime.clone(), options.pipelines, token.clone()));
        app.tasks.spawn(shares.keep(app.log.hub().clone(), token.clone()));
        app.tasks.spawn(runtime.sample_rates(token));
        app.tasks.close();
        ready.set();
        Ok(app)
    }

    async fn stop_tasks(&self) {
        self.runtime.stop().await;
        self.token.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("some requests did not end in time and are cut");
        }
        // A session whose server is gone without a word is not worth waiting for.
        if tokio::time::timeout(DRAIN, self.log.pool().close()).await.is_err() {
            tracing::warn!("some connections to Postgres did not close in time and are cut");
        }
    }

    /// Ends stages after the commit they are in, then requests, then the embedded server.
    pub async fn stop(self) {
        self.stop_tasks().await;
        let Self { server, runtime, log, .. } = self;
        // The listener has a connection of its own, which goes with the last handle on the log.
        drop((runtime, log));
        if let Some(server) = server
            && let Err(error) = server.stop().await
        {
            tracing::warn!(%error, "the embedded Postgres was not stopped; the next start finds it");
        }
    }
}

fn bucket(options: &AppOptions, data_dir: &DataDir) -> Result<Bucket, BucketError> {
    let folder = || data_dir.path().join("bucket").display().to_string();
    Bucket::open(&options.bucket.clone().unwrap_or_else(folder), &BucketOptions::default())
}

async fn listen(options: &AppOptions) -> Result<TcpListener, AppError> {
    let address = options.listen;
    if !address.ip().is_loopback() && options.token.is_none() {
        return Err(AppError::OpenWithoutToken(address));
    }
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => AppError::PortTaken { address, error },
        _ => AppError::Listen { address, error },
    })
}
