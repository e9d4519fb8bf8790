//! What every task of a stage shares, and how a task ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use crate::config::plan::{OnError, QueuePlan, StageLimits, StagePlan};
use crate::ids::{HostId, TopicName};
use crate::letters::Letters;
use crate::log::offsets::Groups;
use crate::log::{Log, Topic};
use crate::pipeline::effects::Outlet;
use crate::pipeline::share::Shares;
use crate::pipeline::status::StageCell;
use crate::pipeline::version::Version;
use crate::plugin::state::StateLimits;
use crate::plugin::{CallError, Instance, Limits};
use crate::queue::Queues;
use crate::registry::{Registry, RegistryError};
use crate::replay::Replay;

/// A stage that was built: its component is compiled and checked, its topics and tables exist.
#[derive(Debug)]
pub struct Stage {
    pub plan: StagePlan,
    /// The topic it reads; None for a producer and a worker.
    pub input: Option<Arc<Topic>>,
    /// Output port -> topic or queue.
    pub outlets: BTreeMap<String, Outlet>,
    /// The queue whose jobs it does; workers only.
    pub jobs: Option<QueuePlan>,
    pub cell: Arc<StageCell>,
    pub services: Services,
    /// What its tasks run from their next batch on.
    versions: watch::Sender<Arc<Version>>,
    /// Held by whoever decides about the version, one at a time.
    deciding: Mutex<()>,
}

/// The parts of the host that stages use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Services {
    pub log: Log,
    pub replay: Replay,
    pub groups: Groups,
    pub shares: Shares,
    pub registry: Registry,
    pub letters: Letters,
    pub queues: Queues,
    pub host: HostId,
}

/// Why a task ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Try again after a wait.
    #[error("{0}")]
    Again(String),
    /// Somebody else owns the partition now, or the group was moved: take the lease anew.
    #[error("lost the lease of {topic} partition {partition}")]
    Fenced { topic: TopicName, partition: u32 },
    /// Stay stopped until the stage is reloaded.
    #[error("{0}")]
    Fatal(String),
}

impl Stage {
    pub fn new(
        plan: StagePlan,
        input: Option<Arc<Topic>>,
        outlets: BTreeMap<String, Outlet>,
        jobs: Option<QueuePlan>,
        cell: Arc<StageCell>,
        services: Services,
        version: Arc<Version>,
    ) -> Self {
        cell.wants(&version);
        let versions = watch::Sender::new(version);
        Self { plan, input, outlets, jobs, cell, services, versions, deciding: Mutex::default() }
    }

    /// What its tasks are to run.
    pub fn version(&self) -> Arc<Version> {
        self.versions.borrow().clone()
    }

    /// Tells when that changes.
    pub fn versions(&self) -> watch::Receiver<Arc<Version>> {
        self.versions.subscribe()
    }

    /// Decisions about the version wait for each other.
    pub async fn decide(&self) -> Deciding<'_> {
        Deciding { stage: self, _one: self.deciding.lock().await }
    }

    /// The same, unless somebody decides now.
    pub fn try_decide(&self) -> Option<Deciding<'_>> {
        self.deciding.try_lock().ok().map(|one| Deciding { stage: self, _one: one })
    }

    /// Gives a version on probation up, for all hosts: the version before takes over. Nothing happens if it is not the
    /// current one any more.
    pub async fn fail(&self, version: &Version, reason: &str) -> Result<(), StageError> {
        let deciding = self.decide().await;
        let (Some(probation), true) =
            (version.probation(), self.version().active.epoch == version.active.epoch)
        else {
            return Ok(());
        };
        let registry = &self.services.registry;
        let failed = registry.fail(&self.label(), version.active.epoch, reason, &self.services.host.0).await;
        let again = |error: RegistryError| {
            StageError::Again(format!("{reason}; and it could not be rolled back yet: {error}"))
        };
        // None: decided elsewhere, and on its way here.
        let Some(active) = failed.map_err(again)? else { return Ok(()) };
        tracing::warn!(
            stage = self.label(),
            digest = version.digest(),
            restored = active.digest,
            reason,
            "the new version failed its probation and was rolled back"
        );
        self.cell.count_plugin("tidemill_stage_plugin_rollbacks_total");
        if active.digest == probation.elder.digest() {
            deciding.publish(Version::new(probation.elder.code(), active, None, None));
        }
        Ok(())
    }

    /// Counts a batch, and those of its messages that were not weighed, for the probation of a version, and ends that when
    /// it has shown enough.
    pub async fn passed(&self, version: &Version, messages: usize) {
        let Some(probation) = version.probation() else { return };
        if !probation.count.passes(messages, std::time::Instant::now()) {
            return;
        }
        match self.services.registry.prove(&self.label(), version.active.epoch).await {
            Ok(proven) => {
                version.end_probation();
                if proven {
                    tracing::info!(
                        stage = self.label(),
                        digest = version.digest(),
                        "the new version has passed its probation"
                    );
                    self.cell.proven(version.active.epoch);
                }
            }
            Err(error) => {
                tracing::debug!(stage = self.label(), %error, "the end of a probation is not written down yet");
                probation.count.undecided();
            }
        }
    }

    /// `pipeline/stage`.
    pub fn label(&self) -> String {
        self.cell.label()
    }

    /// How many tasks run it, on all hosts together.
    pub fn partitions(&self) -> u32 {
        self.input.as_ref().map_or(1, |topic| topic.partitions)
    }

    pub fn limits(&self) -> Limits {
        limits(&self.plan.limits)
    }

    pub fn on_error(&self) -> OnError {
        self.plan.on_error
    }

    /// An error in words that may be logged and shown: a plugin may quote its config, secrets and all.
    pub fn words(&self, error: &CallError) -> String {
        self.plan.config.scrub(&error.to_string())
    }

    /// A fresh, configured instance.
    pub async fn instantiate(&self, version: &Version) -> Result<Instance, CallError> {
        match version.take_spare() {
            Some(instance) => Ok(instance),
            None => {
                version.plugin.instantiate(&self.label(), &self.plan.config.reveal(), &self.limits()).await
            }
        }
    }

    /// Why a task of the stage ends that gets no instance.
    pub fn cannot_start(&self, error: &CallError) -> StageError {
        match error {
            CallError::Configure(_)
            | CallError::Fatal(_)
            | CallError::BadDescriptor { .. }
            | CallError::NotGranted { .. } => StageError::Fatal(self.words(error)),
            error => StageError::Again(self.words(error)),
        }
    }
}

/// The right to decide what a stage runs on this host.
pub struct Deciding<'a> {
    stage: &'a Stage,
    _one: tokio::sync::MutexGuard<'a, ()>,
}

impl Deciding<'_> {
    /// Tasks take the version over between two batches. An older decision than the current one is ignored.
    pub fn publish(&self, version: Arc<Version>) {
        if version.active.epoch < self.stage.version().active.epoch {
            return;
        }
        self.stage.cell.wants(&version);
        self.stage.cell.count_plugin("tidemill_stage_plugin_changes_total");
        self.stage.versions.send_replace(version);
    }
}

/// The bounds of a stage's state in each partition. What a call writes there counts as output.
pub fn state_limits(plan: &StageLimits) -> StateLimits {
    StateLimits {
        quota: plan.state,
        value: plan.state_value,
        call_bytes: plan.output_bytes,
        call_entries: plan.output_records as usize,
    }
}

/// The plugin host's form of a plan's limits.
pub fn limits(plan: &StageLimits) -> Limits {
    Limits {
        memory: plan.memory,
        deadline: plan.deadline,
        output_records: plan.output_records,
        output_bytes: plan.output_bytes,
        handles: plan.handles,
        instances: plan.instances,
        log_lines: plan.log_lines,
    }
}
