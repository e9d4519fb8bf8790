//! What every task of a stage shares, and how a task ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::plan::{OnError, StageLimits, StagePlan};
use crate::ids::{HostId, TopicName};
use crate::log::offsets::Groups;
use crate::log::{Log, Topic};
use crate::pipeline::status::StageCell;
use crate::plugin::state::StateLimits;
use crate::plugin::{CallError, Instance, Limits, Plugin};
use crate::replay::Replay;
use crate::tables::Table;

/// A stage that was built: its component is compiled and checked, its topics and tables exist.
#[derive(Debug)]
pub struct Stage {
    pub plan: StagePlan,
    pub plugin: Plugin,
    /// What its outputs are labelled with (`tidemill.origins`).
    pub origin: i32,
    /// The topic it reads; None for a producer.
    pub input: Option<Arc<Topic>>,
    /// Output port -> topic.
    pub outputs: BTreeMap<String, Arc<Topic>>,
    /// Table in the descriptor -> table in Postgres.
    pub tables: BTreeMap<String, Arc<Table>>,
    pub cell: Arc<StageCell>,
    pub services: Services,
}

/// The parts of the host that stages use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Services {
    pub log: Log,
    pub replay: Replay,
    pub groups: Groups,
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
    /// `pipeline/stage`.
    pub fn label(&self) -> String {
        self.cell.label()
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
    pub async fn instantiate(&self) -> Result<Instance, StageError> {
        self.plugin.instantiate(&self.label(), &self.plan.config.reveal(), &self.limits()).await.map_err(
            |error| match error {
                CallError::Configure(_)
                | CallError::Fatal(_)
                | CallError::BadDescriptor { .. }
                | CallError::NotGranted { .. } => StageError::Fatal(self.words(&error)),
                error => StageError::Again(self.words(&error)),
            },
        )
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
