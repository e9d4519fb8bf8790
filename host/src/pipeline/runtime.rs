//! From a plan to running stages, and from one plan to the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::component::{self, Component, ComponentError};
use super::stage::{Services, Stage};
use super::status::{PipelineStatus, StageCell};
use super::supervisor::Running;
use crate::config::plan::{PipelinePlan, Plan, StageKind, StagePlan};
use crate::config::plugins::PluginFolders;
use crate::config::{Change, StageKey, diff};
use crate::ids::{PipelineName, TopicName};
use crate::log::LogError;
use crate::log::offsets::HEARTBEAT;
use crate::plugin::{ColumnType, Descriptor, PluginEngine, Table as TableDescriptor};
use crate::tables::{self, ColumnSpec, Keeper, TableError, TableSpec, Tables};

/// Why a plan was not applied. What ran before runs on.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{stage}: {error}")]
    Component { stage: String, error: ComponentError },
    #[error("topic {topic}: {error}")]
    Topic { topic: TopicName, error: LogError },
    #[error("{stage}: {error}")]
    Table { stage: String, error: TableError },
    #[error("{stage}: {error}")]
    Log { stage: String, error: LogError },
}

impl ApplyError {
    /// Whether the user's files are wrong (and not Postgres or the machine).
    pub fn is_validation(&self) -> bool {
        match self {
            Self::Component { error, .. } => !matches!(error, ComponentError::Unreadable { .. }),
            Self::Topic { error, .. } => matches!(error, LogError::TopicFixed { .. } | LogError::Invalid(_)),
            Self::Table { error, .. } => !matches!(error, TableError::Postgres(_)),
            Self::Log { .. } => false,
        }
    }
}

/// All running pipelines of this process. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

struct Inner {
    engine: PluginEngine,
    services: Services,
    tables: Tables,
    folders: PluginFolders,
    token: CancellationToken,
    /// What runs. Only `apply` and `stop` change it, one at a time.
    running: Mutex<BTreeMap<StageKey, Running>>,
    plan: std::sync::Mutex<Plan>,
    /// The cells of what runs, for those who only look.
    cells: std::sync::Mutex<BTreeMap<StageKey, Arc<StageCell>>>,
}

impl Runtime {
    pub fn new(engine: PluginEngine, services: Services, tables: Tables, folders: PluginFolders) -> Self {
        let inner = Inner {
            engine,
            services,
            tables,
            folders,
            token: CancellationToken::new(),
            running: Mutex::default(),
            plan: std::sync::Mutex::default(),
            cells: std::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Makes what runs equal to `plan`: builds what is new or changed, then stops what is gone or changed, then starts.
    /// When anything cannot be built nothing is stopped.
    pub async fn apply(&self, plan: Plan) -> Result<(), ApplyError> {
        let inner = &self.inner;
        let mut running = inner.running.lock().await;
        let changes = diff(&lock(&inner.plan), &plan);
        for (name, _) in changes.topics.iter().filter(|(_, change)| **change != Change::Removed) {
            let declared = plan.pipelines.values().find_map(|pipeline| pipeline.topics.get(name));
            if let Some(topic) = declared {
                let ensured = inner.services.log.ensure_topic(topic).await;
                ensured.map_err(|error| ApplyError::Topic { topic: name.clone(), error })?;
            }
        }
        let mut built: Vec<(StageKey, Arc<Stage>)> = Vec::new();
        for (key, _) in changes.stages.iter().filter(|(_, change)| **change != Change::Removed) {
            let Some(pipeline) = plan.pipelines.get(&key.pipeline) else { continue };
            let Some(stage) = pipeline.stages.get(&key.stage) else { continue };
            built.push((key.clone(), Arc::new(self.build(pipeline, stage).await?)));
        }
        for key in changes.stages.keys() {
            if let Some(old) = running.remove(key) {
                old.stop().await;
            }
        }
        for (key, stage) in built {
            tracing::info!(stage = stage.label(), plugin = stage.plan.plugin.name, digest = %stage.plugin.digest(), "start");
            running.insert(key, Running::start(stage, &inner.token));
        }
        let cells = running.iter().map(|(key, running)| (key.clone(), running.stage.cell.clone())).collect();
        *lock(&inner.cells) = cells;
        *lock(&inner.plan) = plan;
        Ok(())
    }

    /// Everything a stage needs before it can start: its component checked, its topics, tables and group in place.
    async fn build(&self, pipeline: &PipelinePlan, plan: &StagePlan) -> Result<Stage, ApplyError> {
        let inner = &self.inner;
        let label = format!("{}/{}", pipeline.name, plan.name);
        let opened = component::open(&inner.engine, &inner.folders, &pipeline.file, plan).await;
        let Component { plugin, descriptor, .. } =
            opened.map_err(|error| ApplyError::Component { stage: label.clone(), error })?;
        let log = &inner.services.log;
        let in_log = |error| ApplyError::Log { stage: label.clone(), error };
        let mut outputs = BTreeMap::new();
        for (port, topic) in &plan.outputs {
            outputs.insert(port.clone(), log.topic(topic.as_str()).await.map_err(in_log)?);
        }
        let mut input = None;
        if let Some(wanted) = &plan.input {
            input = Some(log.topic(wanted.topic.as_str()).await.map_err(in_log)?);
            inner.services.groups.join(&wanted.group, &wanted.topic, wanted.start).await.map_err(in_log)?;
        }
        let tables = self.ensure_tables(pipeline, plan, &descriptor, &label).await?;
        let digest = plugin.digest().to_string();
        let origin = log
            .origin(pipeline.name.as_str(), plan.name.as_str(), &plan.plugin.name, &digest)
            .await
            .map_err(in_log)?;
        let cell = StageCell::new(pipeline.name.clone(), plan.clone(), descriptor.version.clone(), digest);
        let services = inner.services.clone();
        Ok(Stage { plan: plan.clone(), plugin, origin, input, outputs, tables, cell, services })
    }

    async fn ensure_tables(
        &self,
        pipeline: &PipelinePlan,
        plan: &StagePlan,
        descriptor: &Descriptor,
        label: &str,
    ) -> Result<BTreeMap<String, Arc<tables::Table>>, ApplyError> {
        let mut ensured = BTreeMap::new();
        let (StageKind::Materializer, Some(input)) = (plan.kind, &plan.input) else { return Ok(ensured) };
        for declared in &descriptor.tables {
            let Some(name) = plan.tables.get(&declared.name) else { continue };
            let keeper = Keeper {
                pipeline: pipeline.name.as_str(),
                stage: plan.name.as_str(),
                group: &input.group,
                topic: &input.topic,
            };
            let table = self.inner.tables.ensure(name, &spec(declared), keeper).await;
            let table = table.map_err(|error| ApplyError::Table { stage: label.to_string(), error })?;
            ensured.insert(declared.name.clone(), table);
        }
        Ok(ensured)
    }

    /// Stops every stage after the commit it is in.
    pub async fn stop(&self) {
        self.inner.token.cancel();
        let mut running = self.inner.running.lock().await;
        for stage in std::mem::take(&mut *running).into_values() {
            stage.stop().await;
        }
    }

    pub fn status(&self) -> Vec<PipelineStatus> {
        let plan = lock(&self.inner.plan);
        let cells = lock(&self.inner.cells);
        let stages = |name: &PipelineName| {
            cells.iter().filter(|(key, _)| key.pipeline == *name).map(|(_, cell)| cell.status()).collect()
        };
        plan.pipelines
            .values()
            .map(|pipeline| PipelineStatus {
                name: pipeline.name.to_string(),
                file: pipeline.file.display().to_string(),
                stages: stages(&pipeline.name),
            })
            .collect()
    }

    /// The topics that running pipelines name.
    pub fn uses_topic(&self, topic: &TopicName) -> bool {
        lock(&self.inner.plan).pipelines.values().any(|pipeline| pipeline.topics.contains_key(topic))
    }

    /// Renews the leases of this host and samples the rates, until the token is cancelled.
    pub async fn keep_alive(self, token: CancellationToken) {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut sample = tokio::time::interval(Duration::from_secs(1));
        let services = &self.inner.services;
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                _ = sample.tick() => self.sample(),
                _ = heartbeat.tick() => {
                    if let Err(error) = services.groups.heartbeat(&services.host).await {
                        tracing::warn!(%error, "the leases of this host were not renewed");
                    }
                }
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "rates are over monotonic time and decide nothing")]
    fn sample(&self) {
        let now = Instant::now();
        for cell in lock(&self.inner.cells).values() {
            cell.sample(now);
        }
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A declared table in the form of the tables module.
pub fn spec(declared: &TableDescriptor) -> TableSpec {
    let kind = |kind: &ColumnType| match kind {
        ColumnType::Boolean => tables::ColumnType::Boolean,
        ColumnType::Integer => tables::ColumnType::Integer,
        ColumnType::Float => tables::ColumnType::Float,
        ColumnType::Text => tables::ColumnType::Text,
        ColumnType::Bytes => tables::ColumnType::Bytes,
        ColumnType::Timestamp => tables::ColumnType::Timestamp,
        ColumnType::Json => tables::ColumnType::Json,
    };
    TableSpec {
        columns: declared
            .columns
            .iter()
            .map(|column| ColumnSpec { name: column.name.clone(), kind: kind(&column.type_) })
            .collect(),
        key: declared.key.clone(),
        newest_by: declared.newest_by.clone(),
    }
}
