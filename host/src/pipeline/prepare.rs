//! From a stage of a plan to a stage that can start: which component it runs, checked, and all it needs in place.
//!
//! Files only propose. What a stage runs is a row in Postgres ([`crate::registry`]); the file of a stage is published when
//! it has changed since it was looked at last, and a host without the file runs what is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::component::{self, Bytes, Component, ComponentError};
use super::effects::Outlet;
use super::runtime::{ApplyError, Inner, spec};
use super::stage::{Stage, limits};
use super::status::StageCell;
use super::version::{Code, Probation, Version};
use crate::config::plan::{PipelinePlan, Plan, QueuePlan, StageKind, StagePlan, Target};
use crate::ids::PipelineName;
use crate::log::Topic;
use crate::plugin::{Descriptor, Instance, PluginDigest};
use crate::registry::{Active, Source, Standing};
use crate::tables::{Keeper, Table};

/// A component that fits its stage, not yet decided for.
pub struct Fitted {
    pub checked: Checked,
    /// What it was tried with.
    pub instance: Option<Instance>,
}

/// What of it is stored and run.
pub struct Checked {
    pub bytes: Arc<[u8]>,
    pub code: Code,
    pub descriptor: Descriptor,
}

impl Checked {
    pub fn digest(&self) -> &str {
        self.code.plugin.digest().as_str()
    }
}

/// A stage that is ready but for the decision what it runs.
pub struct Prepared {
    pipeline: PipelineName,
    plan: StagePlan,
    fitted: Fitted,
    /// None: its file, which is to be published.
    stored: Option<Active>,
    input: Option<Arc<Topic>>,
    outlets: BTreeMap<String, Outlet>,
    jobs: Option<QueuePlan>,
}

/// What a stage that starts is to run.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// What its file holds.
    File,
    /// What is stored as its active version.
    Stored,
}

/// Decides between the file and the stored version. A pin in the pipeline file decides over both.
fn choose(active: Option<&Active>, file: Option<&str>, pin: Option<&str>) -> Choice {
    let Some(active) = active else { return Choice::File };
    if let Some(pin) = pin {
        let pinned = active.digest.strip_prefix("sha256:") == Some(pin);
        return if pinned { Choice::Stored } else { Choice::File };
    }
    match file {
        None => Choice::Stored,
        Some(file) if active.file_digest.as_deref() == Some(file) => Choice::Stored,
        Some(file) if active.refused.iter().any(|refused| refused == file) => Choice::Stored,
        Some(_) => Choice::File,
    }
}

impl Inner {
    /// Everything a stage of a plan needs before it can start. `tried`: its component must take its config now, or it is refused.
    pub async fn prepare(
        &self,
        whole: &Plan,
        pipeline: &PipelinePlan,
        plan: &StagePlan,
        tried: bool,
    ) -> Result<Prepared, ApplyError> {
        let label = format!("{}/{}", pipeline.name, plan.name);
        let in_component = |error| ApplyError::Component { stage: label.clone(), error };
        let in_registry = |error| ApplyError::Registry { stage: label.clone(), error };
        let in_log = |error| ApplyError::Log { stage: label.clone(), error };
        let active = self.services.registry.of(&pipeline.name, &plan.name).await.map_err(in_registry)?;
        let (bytes, stored) = self.select(pipeline, plan, active, &label).await?;
        let component = component::check(&self.engine, &bytes, plan).await.map_err(in_component)?;
        let log = &self.services.log;
        let mut outlets = BTreeMap::new();
        for (port, target) in &plan.outputs {
            let outlet = match target {
                Target::Topic(topic) => Outlet::Topic(log.topic(topic.as_str()).await.map_err(in_log)?),
                Target::Queue(name) => {
                    let ordered = whole.queue(name).is_some_and(|queue| queue.ordered);
                    Outlet::Queue { name: name.clone(), ordered }
                }
            };
            outlets.insert(port.clone(), outlet);
        }
        let jobs = plan.jobs.as_ref().and_then(|jobs| whole.queue(&jobs.queue)).cloned();
        let mut input = None;
        if let Some(wanted) = &plan.input {
            input = Some(log.topic(wanted.topic.as_str()).await.map_err(in_log)?);
            self.services.groups.join(&wanted.group, &wanted.topic, wanted.start).await.map_err(in_log)?;
        }
        let fitted = self.fit(&pipeline.name, plan, bytes, component, tried).await?;
        let (pipeline, plan) = (pipeline.name.clone(), plan.clone());
        Ok(Prepared { pipeline, plan, fitted, stored, input, outlets, jobs })
    }

    async fn select(
        &self,
        pipeline: &PipelinePlan,
        plan: &StagePlan,
        active: Option<Active>,
        label: &str,
    ) -> Result<(Bytes, Option<Active>), ApplyError> {
        let in_component = |error| ApplyError::Component { stage: label.to_string(), error };
        let found = self.folders.find(&plan.plugin, &pipeline.file);
        let file = match &found {
            Ok(path) => Some(component::read(path).await.map_err(in_component)?),
            Err(_) => None,
        };
        let digest = file.as_ref().map(|file| PluginDigest::of(&file.bytes));
        let digest = digest.as_ref().map(PluginDigest::as_str);
        match (choose(active.as_ref(), digest, plan.plugin.sha256.as_deref()), active) {
            (Choice::Stored, Some(active)) => {
                let bytes = match file.filter(|_| digest == Some(&active.digest)) {
                    Some(same) => same,
                    None => self.stored(label, &active.digest).await?,
                };
                Ok((bytes, Some(active)))
            }
            (_, _) => match (file, found) {
                (Some(file), _) => Ok((file, None)),
                (None, Err(missing)) => Err(in_component(ComponentError::NotFound(missing))),
                (None, Ok(path)) => Err(in_component(ComponentError::Unreadable {
                    path,
                    error: std::io::ErrorKind::NotFound.into(),
                })),
            },
        }
    }

    /// The bytes of a stored component.
    pub async fn stored(&self, label: &str, digest: &str) -> Result<Bytes, ApplyError> {
        let in_registry = |error| ApplyError::Registry { stage: label.to_string(), error };
        match self.services.registry.bytes(digest).await.map_err(in_registry)? {
            Some(bytes) => Ok(Bytes { bytes: bytes.into(), from: format!("the stored plugin {digest}") }),
            None => Err(ApplyError::Component {
                stage: label.to_string(),
                error: ComponentError::Forgotten { digest: digest.to_string() },
            }),
        }
    }

    /// Gives a checked component its tables and its label, and tries whether it takes the stage's config.
    pub async fn fit(
        &self,
        pipeline: &PipelineName,
        plan: &StagePlan,
        bytes: Bytes,
        component: Component,
        tried: bool,
    ) -> Result<Fitted, ApplyError> {
        let label = format!("{pipeline}/{}", plan.name);
        let Component { plugin, descriptor } = component;
        let instance = match tried {
            true => {
                let made = plugin.instantiate(&label, &plan.config.reveal(), &limits(&plan.limits)).await;
                Some(made.map_err(|error| ApplyError::Component {
                    stage: label.clone(),
                    error: ComponentError::Configure {
                        from: bytes.from.clone(),
                        words: plan.config.scrub(&error.to_string()),
                    },
                })?)
            }
            false => None,
        };
        let tables = self.ensure_tables(pipeline, plan, &descriptor, &label).await?;
        let digest = plugin.digest().as_str();
        let log = &self.services.log;
        let origin = log.origin(pipeline.as_str(), plan.name.as_str(), &plan.plugin.name, digest).await;
        let origin = origin.map_err(|error| ApplyError::Log { stage: label.clone(), error })?;
        let code = Code { plugin, version: descriptor.version.clone(), origin, tables };
        Ok(Fitted { checked: Checked { bytes: bytes.bytes, code, descriptor }, instance })
    }

    async fn ensure_tables(
        &self,
        pipeline: &PipelineName,
        plan: &StagePlan,
        descriptor: &Descriptor,
        label: &str,
    ) -> Result<BTreeMap<String, Arc<Table>>, ApplyError> {
        let mut ensured = BTreeMap::new();
        let (StageKind::Materializer, Some(input)) = (plan.kind, &plan.input) else { return Ok(ensured) };
        for declared in &descriptor.tables {
            let Some(name) = plan.tables.get(&declared.name) else { continue };
            let keeper = Keeper {
                pipeline: pipeline.as_str(),
                stage: plan.name.as_str(),
                group: &input.group,
                topic: &input.topic,
            };
            let table = self.tables.ensure(name, &spec(declared), keeper).await;
            let table = table.map_err(|error| ApplyError::Table { stage: label.to_string(), error })?;
            ensured.insert(declared.name.clone(), table);
        }
        Ok(ensured)
    }

    /// Decides for a prepared stage, and makes it.
    pub async fn complete(&self, prepared: Prepared) -> Result<Stage, ApplyError> {
        let Prepared { pipeline, plan, fitted, stored, input, outlets, jobs } = prepared;
        let label = format!("{pipeline}/{}", plan.name);
        let in_registry = |error| ApplyError::Registry { stage: label.clone(), error };
        let active = match stored {
            Some(active) => active,
            None => self.publish(&label, &plan, &fitted.checked, Source::File).await.map_err(in_registry)?,
        };
        let fitted = match active.digest == fitted.checked.digest() {
            true => fitted,
            // Another host was faster.
            false => self.load(&pipeline, &plan, &active.digest, false).await?,
        };
        let probation = self.probation(&pipeline, &plan, &active, None).await;
        let version = Version::new(fitted.checked.code, active, probation, fitted.instance);
        let cell = StageCell::new(pipeline, plan.clone());
        Ok(Stage::new(plan, input, outlets, jobs, cell, self.services.clone(), version))
    }

    /// Stores a component and makes it the active one of a stage.
    pub async fn publish(
        &self,
        label: &str,
        plan: &StagePlan,
        checked: &Checked,
        source: Source,
    ) -> Result<Active, crate::registry::RegistryError> {
        let (registry, by) = (&self.services.registry, &self.services.host.0);
        registry.store(&checked.code.plugin, &checked.descriptor, &checked.bytes, by).await?;
        // Jobs are retried one by one, so a worker's new version takes over at once.
        let probation = !plan.probation.is_off() && plan.kind != StageKind::Worker;
        registry.activate(label, checked.digest(), source, by, probation).await
    }

    /// A stored component, checked against a stage of this host.
    pub async fn load(
        &self,
        pipeline: &PipelineName,
        plan: &StagePlan,
        digest: &str,
        tried: bool,
    ) -> Result<Fitted, ApplyError> {
        let label = format!("{pipeline}/{}", plan.name);
        let bytes = self.stored(&label, digest).await?;
        let component = component::check(&self.engine, &bytes, plan).await;
        let component = component.map_err(|error| ApplyError::Component { stage: label, error })?;
        self.fit(pipeline, plan, bytes, component, tried).await
    }

    /// The probation of a version, with the version before at hand; None when it is not on probation or, for once, there
    /// is nothing to go back to.
    pub async fn probation(
        &self,
        pipeline: &PipelineName,
        plan: &StagePlan,
        active: &Active,
        current: Option<&Arc<Version>>,
    ) -> Option<Probation> {
        let previous = active.previous.as_ref().filter(|_| active.state == Standing::Probation)?;
        let elder = current.and_then(|current| near(current, previous));
        let elder = match elder {
            Some(elder) => elder,
            None => match self.load(pipeline, plan, previous, false).await {
                Ok(fitted) => Version::new(fitted.checked.code, active.clone(), None, None),
                Err(error) => {
                    tracing::warn!(
                        stage = active.stage,
                        %error,
                        "the version before does not fit any more and cannot stand by; the new one is believed"
                    );
                    if let Err(error) = self.services.registry.prove(&active.stage, active.epoch).await {
                        tracing::debug!(stage = active.stage, %error, "that is not written down");
                    }
                    return None;
                }
            },
        };
        Some(Probation::new(elder, plan.probation, Instant::now()))
    }
}

/// The running version or the one that stands by for it, if it has this digest.
pub fn near(current: &Arc<Version>, digest: &str) -> Option<Arc<Version>> {
    if current.digest() == digest {
        return Some(Version::new(current.code(), current.active.clone(), None, None));
    }
    current.probation().map(|probation| probation.elder.clone()).filter(|elder| elder.digest() == digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(digest: &str, file: &str, refused: &[&str]) -> Active {
        Active {
            stage: "p/s".into(),
            digest: digest.into(),
            previous: None,
            epoch: 3,
            source: Source::File,
            state: Standing::Stable,
            reason: None,
            changed_at: 0,
            changed_by: "h".into(),
            file_digest: Some(file.into()),
            refused: refused.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_stage_that_never_ran_runs_its_file() {
        assert_eq!(choose(None, Some("a"), None), Choice::File);
        assert_eq!(choose(None, None, None), Choice::File);
    }

    #[test]
    fn what_was_pushed_or_rolled_back_outlives_a_restart_until_the_file_changes() {
        let pushed = active("b", "a", &[]);
        assert_eq!(choose(Some(&pushed), Some("a"), None), Choice::Stored);
        assert_eq!(choose(Some(&pushed), Some("c"), None), Choice::File);
        assert_eq!(choose(Some(&pushed), None, None), Choice::Stored);
    }

    #[test]
    fn a_file_never_brings_back_what_was_rolled_back() {
        let rolled_back = active("a", "a", &["b"]);
        assert_eq!(choose(Some(&rolled_back), Some("b"), None), Choice::Stored);
    }

    #[test]
    fn a_pin_decides() {
        let running = active("sha256:aa", "sha256:aa", &[]);
        assert_eq!(choose(Some(&running), None, Some("aa")), Choice::Stored);
        assert_eq!(choose(Some(&running), None, Some("bb")), Choice::File);
    }
}
