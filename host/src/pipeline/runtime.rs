//! From a plan to running stages, and from one plan to the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::component::ComponentError;
use super::reload::PushError;
use super::shadow::ShadowRun;
use super::stage::{Services, Stage};
use super::status::{Candidate, FilesError, PipelineStatus};
use super::supervisor::Running;
use crate::config::plan::{Plan, StageKind, Target};
use crate::config::plugins::PluginFolders;
use crate::config::{Change, Diff, StageKey, diff};
use crate::ids::{PipelineName, QueueName, TopicName};
use crate::log::LogError;
use crate::plugin::{ColumnType, PluginEngine, Table as TableDescriptor};
use crate::queue::QueueError;
use crate::queue::crons::Crons;
use crate::registry::{Registry, RegistryError};
use crate::tables::{self, ColumnSpec, TableError, TableSpec, Tables};

/// Why a plan was not applied. What ran before runs on.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{stage}: {error}")]
    Component { stage: String, error: ComponentError },
    #[error("topic {topic}: {error}")]
    Topic { topic: TopicName, error: LogError },
    #[error("queue {queue}: {error}")]
    Queue { queue: QueueName, error: QueueError },
    #[error("{stage}: {error}")]
    Table { stage: String, error: TableError },
    #[error("{stage}: {error}")]
    Log { stage: String, error: LogError },
    #[error("{stage} cannot have this shadow: {words}")]
    Shadow { stage: String, words: String },
    #[error("{stage}: {error}")]
    Registry { stage: String, error: RegistryError },
}

impl ApplyError {
    /// Whether the user's files are wrong (and not Postgres or the machine).
    pub fn is_validation(&self) -> bool {
        match self {
            Self::Component { error, .. } => !matches!(error, ComponentError::Unreadable { .. }),
            Self::Topic { error, .. } => matches!(error, LogError::TopicFixed { .. } | LogError::Invalid(_)),
            Self::Queue { error, .. } => !matches!(error, QueueError::Postgres(_)),
            Self::Table { error, .. } => !matches!(error, TableError::Postgres(_)),
            Self::Shadow { .. } => true,
            Self::Log { .. } | Self::Registry { .. } => false,
        }
    }
}

/// All running pipelines of this process. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    pub(super) inner: Arc<Inner>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

pub(super) struct Inner {
    pub engine: PluginEngine,
    pub services: Services,
    pub tables: Tables,
    pub folders: PluginFolders,
    pub token: CancellationToken,
    /// What runs. Only `apply` and `stop` change it, one at a time.
    running: Mutex<BTreeMap<StageKey, Running>>,
    pub plan: std::sync::Mutex<Plan>,
    /// Those of the plan.
    crons: watch::Sender<Crons>,
    /// The stages of what runs, for those who do not start or stop them.
    stages: std::sync::Mutex<BTreeMap<StageKey, Arc<Stage>>>,
    /// Decisions that this host could not follow, by stage: their epoch, and when that was.
    pub stuck: std::sync::Mutex<BTreeMap<String, (i64, Instant)>>,
    /// Why the pipeline files as they are now do not run.
    files: std::sync::Mutex<Option<FilesError>>,
    /// The shadows of stages that run here, by `pipeline/stage`.
    pub shadows: Mutex<BTreeMap<String, ShadowRun>>,
    /// The same, for those who only look.
    pub shadow_stages: std::sync::Mutex<Vec<Arc<Stage>>>,
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
            crons: watch::Sender::default(),
            stages: std::sync::Mutex::default(),
            stuck: std::sync::Mutex::default(),
            files: std::sync::Mutex::default(),
            shadows: Mutex::default(),
            shadow_stages: std::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Makes what runs equal to `plan`: builds what is new or changed, then stops what is gone or changed, then starts.
    /// When anything cannot be built nothing is stopped, and nothing is decided for other hosts.
    ///
    /// A stage that changes while it runs must take its new config first; one that is added starts, and shows what is wrong.
    pub async fn apply(&self, plan: Plan) -> Result<(), ApplyError> {
        let inner = &self.inner;
        let mut running = inner.running.lock().await;
        let mut changes = diff(&lock(&inner.plan), &plan);
        for (name, _) in changes.topics.iter().filter(|(_, change)| **change != Change::Removed) {
            let declared = plan.pipelines.values().find_map(|pipeline| pipeline.topics.get(name));
            if let Some(topic) = declared {
                let ensured = inner.services.log.ensure_topic(topic).await;
                ensured.map_err(|error| ApplyError::Topic { topic: name.clone(), error })?;
            }
        }
        for (name, _) in changes.queues.iter().filter(|(_, change)| **change != Change::Removed) {
            if let Some(queue) = plan.queue(name) {
                let declared = inner.services.queues.bring_in_line(queue).await;
                declared.map_err(|error| ApplyError::Queue { queue: name.clone(), error })?;
            }
        }
        touch_users(&mut changes, &plan);
        let mut prepared = Vec::new();
        for (key, change) in changes.stages.iter().filter(|(_, change)| **change != Change::Removed) {
            let Some(pipeline) = plan.pipelines.get(&key.pipeline) else { continue };
            let Some(stage) = pipeline.stages.get(&key.stage) else { continue };
            let tried = *change == Change::Changed;
            prepared.push((key.clone(), inner.prepare(&plan, pipeline, stage, tried).await?));
        }
        let mut built: Vec<(StageKey, Arc<Stage>)> = Vec::new();
        for (key, prepared) in prepared {
            built.push((key, Arc::new(inner.complete(prepared).await?)));
        }
        for key in changes.stages.keys() {
            inner.stop_shadow(key).await;
            if let Some(old) = running.remove(key) {
                tracing::info!(stage = old.stage.label(), "stop");
                old.stop().await;
            }
        }
        for (key, stage) in built {
            let digest = stage.version().digest().to_string();
            tracing::info!(stage = stage.label(), plugin = stage.plan.plugin.name, digest, "start");
            running.insert(key, Running::start(stage, &inner.token));
        }
        *lock(&inner.stages) = running.iter().map(|(key, it)| (key.clone(), it.stage.clone())).collect();
        inner.announce();
        inner.crons.send_replace(Crons::of(&plan));
        *lock(&inner.plan) = plan;
        Ok(())
    }

    /// Stops every stage after the commit it is in.
    pub async fn stop(&self) {
        self.inner.services.shares.leave().await;
        self.inner.token.cancel();
        let mut running = self.inner.running.lock().await;
        for stage in std::mem::take(&mut *running).into_values() {
            stage.stop().await;
        }
        for shadow in std::mem::take(&mut *self.inner.shadows.lock().await).into_values() {
            shadow.stop().await;
        }
    }

    pub fn status(&self) -> Vec<PipelineStatus> {
        let plan = lock(&self.inner.plan);
        let running = lock(&self.inner.stages);
        let shadows = lock(&self.inner.shadow_stages);
        let stages = |name: &PipelineName| {
            let cells = running.values().chain(shadows.iter()).map(|stage| &stage.cell);
            cells.filter(|cell| cell.pipeline == *name).map(|cell| cell.status()).collect()
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

    /// The parts of the host that stages use.
    pub fn services(&self) -> &Services {
        &self.inner.services
    }

    /// What stages run, by decision of all hosts.
    pub fn registry(&self) -> &Registry {
        &self.inner.services.registry
    }

    /// The component that a stage of this host was offered last and did not take.
    pub fn candidate(&self, key: &StageKey) -> Option<Candidate> {
        self.inner.stage(key).ok()?.cell.candidate()
    }

    /// Why the pipeline files as they are now do not run; None when they do.
    pub fn files_error(&self) -> Option<FilesError> {
        lock(&self.inner.files).clone()
    }

    /// Says so. True if that is news.
    pub(super) fn set_files_error(&self, error: Option<FilesError>) -> bool {
        let mut shown = lock(&self.inner.files);
        let news = shown.as_ref().map(|old| &old.error) != error.as_ref().map(|new| &new.error);
        if news {
            *shown = error;
        }
        news
    }

    /// The topics that running pipelines name.
    pub fn uses_topic(&self, topic: &TopicName) -> bool {
        lock(&self.inner.plan).pipelines.values().any(|pipeline| pipeline.topics.contains_key(topic))
    }

    /// Fires the crons of the plan, until the token is cancelled.
    pub async fn fire_crons(self, token: CancellationToken) {
        let crons = self.inner.crons.subscribe();
        self.inner.services.queues.clone().fire_crons(crons, token).await;
    }

    /// Samples the rates, until the token is cancelled.
    pub async fn sample_rates(self, token: CancellationToken) {
        let mut sample = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                _ = sample.tick() => self.sample(),
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "rates are over monotonic time and decide nothing")]
    fn sample(&self) {
        let now = Instant::now();
        for stage in lock(&self.inner.stages).values() {
            stage.cell.sample(now);
        }
        for shadow in lock(&self.inner.shadow_stages).iter() {
            shadow.cell.sample(now);
        }
    }
}

impl Inner {
    /// A running stage.
    pub fn stage(&self, key: &StageKey) -> Result<Arc<Stage>, PushError> {
        let found = lock(&self.stages).get(key).cloned();
        found.ok_or_else(|| PushError::NoStage(super::reload::label(key)))
    }

    /// A running stage by `pipeline/stage`.
    pub fn labelled(&self, label: &str) -> Option<Arc<Stage>> {
        lock(&self.stages).values().find(|stage| stage.label() == label).cloned()
    }

    /// Tells all hosts what this one runs, so that it gets its share. Workers need none: their queue deals out the jobs.
    pub fn announce(&self) {
        let shadows = lock(&self.shadow_stages);
        let stages = lock(&self.stages);
        let all = stages.values().chain(shadows.iter()).filter(|stage| stage.plan.kind != StageKind::Worker);
        self.services.shares.run(all.map(|stage| (stage.label(), stage.partitions())).collect());
    }

    /// All running stages.
    pub fn stages(&self) -> Vec<(StageKey, Arc<Stage>)> {
        lock(&self.stages).iter().map(|(key, stage)| (key.clone(), stage.clone())).collect()
    }
}

/// A stage holds its topics and queues as they were when it was built: one that changes changes its stages.
fn touch_users(changes: &mut Diff, plan: &Plan) {
    for pipeline in plan.pipelines.values() {
        for stage in pipeline.stages.values() {
            let outputs = || stage.outputs.values();
            let mut topics =
                outputs().filter_map(Target::topic).chain(stage.input.iter().map(|input| &input.topic));
            let mut queues =
                outputs().filter_map(Target::queue).chain(stage.jobs.iter().map(|jobs| &jobs.queue));
            if topics.any(|topic| changes.topics.get(topic) == Some(&Change::Changed))
                || queues.any(|queue| changes.queues.get(queue) == Some(&Change::Changed))
            {
                let key = StageKey { pipeline: pipeline.name.clone(), stage: stage.name.clone() };
                changes.stages.entry(key).or_insert(Change::Changed);
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
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
