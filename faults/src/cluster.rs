//! A cluster to be hurt: one Postgres, one bucket, and hosts that run one pipeline, all in the run's folder.
//!
//! Hosts reach Postgres over its socket, or each through a [`Proxy`] of its own.

pub mod host;
pub mod pipeline;
pub mod pooler;
pub mod reaper;
pub mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use futures::future::try_join_all;
use tokio::time::sleep;

use crate::proxy::{Proxy, Upstream};
use crate::run::Run;
use host::{Host, HostOptions};
use reaper::Reaper;
use server::Server;

/// Groups that have work left after this are stuck.
const SETTLE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Layout {
    pub hosts: usize,
    /// Text of the pipeline file; None: hosts serve the log alone.
    pub pipeline: Option<String>,
    /// Texts of those hosts, by number, that run something else.
    pub others: Vec<(usize, String)>,
    /// Whether hosts reach Postgres through a proxy.
    pub proxied: bool,
    /// Whether each host has a role of its own in Postgres, so that its sessions can be told from others'. Not with a proxy.
    pub roles: bool,
    /// Whether hosts reach Postgres through pgbouncer, and in no other way.
    pub pooled: bool,
    /// None: a folder in the run's folder.
    pub bucket: Option<String>,
    pub environment: Vec<(String, String)>,
    pub arguments: Vec<String>,
    /// Settings of Postgres beyond the usual ones.
    pub postgres: Vec<(&'static str, &'static str)>,
}

impl Layout {
    /// So many hosts that run this pipeline.
    pub fn new(hosts: usize, pipeline: impl Into<String>) -> Self {
        Self {
            hosts,
            pipeline: Some(pipeline.into()),
            others: Vec::new(),
            proxied: false,
            roles: false,
            pooled: false,
            bucket: None,
            environment: Vec::new(),
            arguments: Vec::new(),
            postgres: Vec::new(),
        }
    }

    /// With a proxy before Postgres for each host.
    pub fn proxied(self) -> Self {
        Self { proxied: true, ..self }
    }
}

/// A running cluster. All of it ends when this is dropped.
pub struct Cluster {
    pub folder: PathBuf,
    pub server: Arc<Server>,
    pub hosts: Vec<Arc<Host>>,
    /// One for each host, if the layout says so.
    pub proxies: Vec<Proxy>,
    /// Last, so that it ends what is left when all handles are gone.
    _reaper: Reaper,
}

impl Cluster {
    /// Starts Postgres, then the hosts, the first of them alone: it makes the schema and the topics.
    pub async fn start(run: &Run, layout: Layout) -> Result<Self> {
        std::fs::create_dir_all(&run.folder).with_context(|| run.folder.display().to_string())?;
        open_to_others(&run.folder)?;
        let reaper = Reaper::start(&run.folder)?;
        let server = Server::create(&run.folder, &run.folder.join("postgres"), &layout.postgres).await?;
        let server = Arc::new(server);
        let mut cluster = Self {
            folder: run.folder.clone(),
            server,
            hosts: Vec::new(),
            proxies: Vec::new(),
            _reaper: reaper,
        };
        let pipelines = pipeline_files(&run.folder, &layout)?;
        let folder_bucket = run.folder.join("bucket").display().to_string();
        let pooler = match layout.pooled {
            true => pooler::start(&run.folder, &cluster.server)?,
            false => None,
        };
        for (number, pipelines) in pipelines.into_iter().enumerate() {
            let database_url = match &pooler {
                Some(pooler) => pooler.clone(),
                None => cluster.way_to_postgres(run, &layout, number).await?,
            };
            let options = HostOptions {
                tidemill: run.tidemill.clone(),
                run: run.folder.clone(),
                plugins: run.plugins.clone(),
                number,
                database_url,
                bucket: layout.bucket.clone().unwrap_or_else(|| folder_bucket.clone()),
                pipelines,
                arguments: layout.arguments.clone(),
                environment: layout.environment.clone(),
            };
            cluster.hosts.push(Arc::new(Host::new(options)));
        }
        if let Some((first, others)) = cluster.hosts.split_first() {
            first.start().await?;
            try_join_all(others.iter().map(|host| host.start())).await?;
        }
        Ok(cluster)
    }

    /// The URL that a host of this number gets.
    async fn way_to_postgres(&mut self, run: &Run, layout: &Layout, number: usize) -> Result<String> {
        if layout.proxied {
            let upstream = Upstream::Socket(self.server.socket());
            let proxy = Proxy::start(upstream, run.rng(&format!("proxy {number}"))).await?;
            let url = format!("postgres://tidemill@{}/tidemill?sslmode=disable", proxy.address());
            self.proxies.push(proxy);
            return Ok(url);
        }
        if layout.roles { self.server.add_role(&host::role(number)).await } else { Ok(self.server.url()) }
    }

    /// Kills a host that serves and starts it again after a while, in a task of its own. Says which.
    pub fn kill_and_restart(&self, rng: &mut Rng, longest: Duration) -> Option<Restart> {
        let host = host::live(&self.hosts, rng)?.clone();
        let after = longest.mul_f64(rng.f64());
        let name = host.name();
        let task = tokio::spawn(async move {
            host.kill().await?;
            sleep(after).await;
            host.start().await
        });
        Some(Restart { name, task })
    }

    /// Waits until no group has anything left to read. Hosts are expected to be up.
    pub async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let lag: i64 = self.server.ask("SELECT coalesce(sum(lag), 0)::bigint FROM tidemill.lag").await?;
            if lag == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                let groups: String = self
                    .server
                    .ask(
                        "SELECT string_agg(format('%s/%s at %s of %s (%s)', group_name, partition, next_offset,
                                                  end_offset, coalesce(owner, 'nobody')), ', ')
                           FROM tidemill.lag WHERE lag > 0",
                    )
                    .await?;
                bail!("groups are stuck for {} s: {groups}", SETTLE.as_secs());
            }
            sleep(POLL).await;
        }
    }

    /// Fails when a host has ended by itself.
    pub async fn all_alive(&self) -> Result<()> {
        for host in &self.hosts {
            if host.has_died().await? {
                bail!("{} ended without having been asked to; see {}", host.name(), host.log().display());
            }
        }
        Ok(())
    }

    /// Stops hosts and server in order.
    pub async fn stop(self) -> Result<()> {
        for host in &self.hosts {
            host.kill().await?;
        }
        self.server.stop().await
    }
}

/// A host that was killed and comes back.
pub struct Restart {
    pub name: String,
    pub task: tokio::task::JoinHandle<Result<()>>,
}

/// Writes the files of each host.
fn pipeline_files(folder: &Path, layout: &Layout) -> Result<Vec<Vec<PathBuf>>> {
    let write = |name: String, text: &str| -> Result<Vec<PathBuf>> {
        let file = folder.join(name);
        std::fs::write(&file, text)?;
        Ok(vec![file])
    };
    let common = layout.pipeline.as_ref().map(|text| write("pipeline.toml".to_owned(), text)).transpose()?;
    let mut files = vec![common.unwrap_or_default(); layout.hosts];
    for (number, text) in &layout.others {
        files[*number] = write(format!("pipeline-{}.toml", number + 1), text)?;
    }
    Ok(files)
}

/// Root's Postgres runs as another user, who has to pass through.
fn open_to_others(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
