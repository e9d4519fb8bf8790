//! `tidemill up`: everything in one process.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::Invalid;
use crate::app::{App, AppError, AppOptions};
use crate::archive::ArchiverOptions;
use crate::config;
use crate::config::plan::Plan;
use crate::config::plugins::PluginFolders;
use crate::config::units;
use crate::segments::MaintainerOptions;

/// Run pipelines, with all they need: Postgres, the log, plugins, HTTP and the web page.
///
/// Without --database-url an embedded Postgres runs in the data directory; it is stopped with the host. Without files the
/// host serves the log alone.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  tidemill up pipelines/aircraft.toml --listen 127.0.0.1:9000")]
pub struct UpArgs {
    /// Pipeline files, or folders of them.
    #[arg(value_name = "FILE or FOLDER")]
    pub pipelines: Vec<PathBuf>,
    /// A Postgres 15 or later to use instead of the embedded one.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// The database URL leads to a pooler in transaction mode, such as pgbouncer: nothing is then kept in a session. Costs
    /// three more round trips for each statement that stands alone.
    #[arg(long, env = "TIDEMILL_POOLER", requires = "database_url")]
    pub pooler: bool,
    /// Beside --pooler: a URL of the server itself. Used for LISTEN and for detaching old segments, over one connection
    /// each; without it other hosts' records are found by polling only, once a second.
    #[arg(
        long,
        env = "TIDEMILL_DIRECT_URL",
        hide_env_values = true,
        requires = "pooler",
        value_name = "URL"
    )]
    pub direct_url: Option<String>,
    /// Run although Postgres has fsync off: a crash of its machine may then destroy the whole database.
    #[arg(long)]
    pub allow_no_fsync: bool,
    /// Where the host keeps its files.
    #[arg(long, env = "TIDEMILL_DATA_DIR", default_value = ".tidemill", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The address of HTTP and the web page. Port 0 takes a free one.
    #[arg(long, env = "TIDEMILL_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// What clients must send as `Authorization: Bearer`; needed when others than this machine can connect.
    #[arg(long, env = "TIDEMILL_TOKEN", hide_env_values = true, value_name = "TEXT")]
    pub token: Option<String>,
    /// A further name by which browsers address this host. May be repeated.
    #[arg(long = "allow-host", value_name = "NAME")]
    pub allowed_hosts: Vec<String>,
    /// A folder of components, looked at before the others. May be repeated.
    #[arg(long = "plugins", env = "TIDEMILL_PLUGINS", value_name = "DIR")]
    pub plugins: Vec<PathBuf>,
    /// Where Postgres's programs are (initdb, postgres), if they are not found.
    #[arg(long, env = "TIDEMILL_POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,
    /// Where history goes that leaves Postgres: a folder, or s3://bucket/prefix?endpoint=URL&region=NAME with its keys in
    /// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Default: the folder `bucket` in the data directory.
    #[arg(long, env = "TIDEMILL_BUCKET", value_name = "URL")]
    pub bucket: Option<String>,
    /// How long an object that an interrupted upload left in the bucket stays there.
    #[arg(long, default_value = "24h", value_parser = units::duration, value_name = "DURATION")]
    pub sweep_after: Duration,
    /// How long dead letters stay that nobody redrives or drops, such as 30d, or forever.
    #[arg(long, default_value = "forever", value_parser = keep, value_name = "DURATION")]
    pub keep_dead_letters: Keep,
    /// Log as JSON lines.
    #[arg(long)]
    pub log_json: bool,
}

/// None: for ever.
#[derive(Clone, Copy, Debug)]
pub struct Keep(Option<Duration>);

fn keep(text: &str) -> Result<Keep, String> {
    match text {
        "forever" => Ok(Keep(None)),
        text => units::duration(text).map(|keep| Keep(Some(keep))),
    }
}

pub async fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    log_to_stderr(args.log_json);
    let plan = if args.pipelines.is_empty() {
        Plan::default()
    } else {
        config::load(&args.pipelines).map_err(|errors| Invalid(errors.to_string()))?
    };
    let names: Vec<String> = plan
        .pipelines
        .values()
        .map(|pipeline| format!("{} ({} stages)", pipeline.name, pipeline.stages.len()))
        .collect();
    let options = AppOptions {
        data_dir: args.data_dir,
        database_url: args.database_url,
        pooler: args.pooler,
        direct_url: args.direct_url,
        allow_no_fsync: args.allow_no_fsync,
        postgres_bin: args.postgres_bin,
        listen: args.listen,
        token: args.token,
        allowed_hosts: args.allowed_hosts,
        plugins: PluginFolders::new(args.plugins),
        pipelines: args.pipelines,
        bucket: args.bucket,
        archiver: ArchiverOptions {
            orphan_after: args.sweep_after,
            sweep_every: args.sweep_after.clamp(Duration::from_secs(1), Duration::from_secs(60)),
            ..ArchiverOptions::default()
        },
        segments: MaintainerOptions::default(),
        keep_letters: args.keep_dead_letters.0,
    };
    let mut stop = std::pin::pin!(signalled());
    let app = tokio::select! {
        app = App::start(options, plan) => app.map_err(invalid_or_failed)?,
        signal = &mut stop => {
            tracing::info!(signal, "stopped while starting");
            return Ok(ExitCode::FAILURE);
        }
    };
    announce(&app, &names)?;
    let signal = stop.await;
    tracing::info!(signal, "stopping: stages finish the commit they are in");
    app.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn invalid_or_failed(error: AppError) -> anyhow::Error {
    match &error {
        AppError::Apply(apply) if apply.is_validation() => Invalid(error.to_string()).into(),
        _ => error.into(),
    }
}

fn announce(app: &App, pipelines: &[String]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "tidemill {} serving", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  map and API   {}", app.url)?;
    writeln!(out, "  Postgres      {}", app.postgres_url)?;
    writeln!(out, "  bucket        {}", app.bucket_url)?;
    let pipelines = if pipelines.is_empty() { "none".to_string() } else { pipelines.join(", ") };
    writeln!(out, "  pipelines     {pipelines}")?;
    if !app.durability.is_durable() {
        writeln!(
            out,
            "  WARNING       this Postgres may lose acknowledged records; see the log and `tidemill status`"
        )?;
    }
    writeln!(out, "  stop          Ctrl-C")?;
    out.flush()
}

/// Waits for the first Ctrl-C or SIGTERM. A second one ends the process at once: it can be killed at any line.
async fn signalled() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let name = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(1);
    });
    name
}

/// `RUST_LOG` chooses what is logged; the default is quiet enough for a terminal.
fn log_to_stderr(json: bool) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,wasmtime=warn,cranelift=warn,sqlx=warn,hyper=warn,h2=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if json {
        builder.json().init();
    } else {
        builder.init();
    }
}
