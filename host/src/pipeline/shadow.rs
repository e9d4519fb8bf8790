//! A candidate version beside a running stage: the same messages, a group, topics and tables of its own.
//!
//! A shadow is a stage that no pipeline file names. It starts where its stage stands, with copies of state and tables, and runs
//! by the same code as any stage; `tidemill.shadows` says which there are, and every host follows that. Sinks have none, nor
//! do stages that may use HTTP: their effects outside would happen twice. Producers have none, since they read no offsets, nor
//! have workers. A shadow puts no jobs, which would be done: ports that lead to queues are not connected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::component::{self, Bytes};
use super::effects::Outlet;
use super::reload::{PushError, label};
use super::runtime::{ApplyError, Inner, Runtime, lock};
use super::stage::Stage;
use super::status::StageCell;
use super::supervisor::Running;
use super::version::Version;
use crate::config::StageKey;
use crate::config::plan::{Cold, Hold, Input, StageKind, StagePlan, Target, TopicPlan};
use crate::ids::{GroupName, NameError, StageName, TableName, TopicName};
use crate::plugin::PluginDigest;
use crate::registry::shadows::{NewShadow, Shadow};
use crate::registry::{Active, Source, Standing};

/// How often hosts look which shadows there are, beside being told.
const POLL: Duration = Duration::from_secs(1);

/// A shadow that runs on this host.
#[derive(Debug)]
pub(super) struct ShadowRun {
    digest: String,
    running: Running,
}

impl ShadowRun {
    pub fn stage(&self) -> &Stage {
        &self.running.stage
    }

    pub async fn stop(&self) {
        self.running.stop().await;
    }
}

/// The plan of a stage's shadow. The error is in words for the user.
fn plan_of(live: &StagePlan, digest: &str) -> Result<StagePlan, String> {
    let refuse = |why: &str| Err(format!("{} is a {} {why}", live.name, live.kind));
    match (live.kind, &live.input) {
        (StageKind::Worker, _) => refuse("and a job is done by one worker"),
        (StageKind::Producer, _) | (_, None) => refuse("and reads no offsets that a shadow could read too"),
        (StageKind::Sink, _) => refuse("and its shadow would deliver everything a second time"),
        _ if live.tables.is_empty() && live.outputs.values().all(|target| target.queue().is_some()) => {
            refuse(
                "that puts jobs and nothing else, and since a shadow puts none there is nothing to compare",
            )
        }
        _ if live.http.is_some() => {
            refuse("that may use HTTP, and its shadow would make every request a second time")
        }
        (_, Some(input)) => {
            let digits = digest.trim_start_matches("sha256:").get(..6).unwrap_or_default();
            named(live, input, digits).map_err(|error| error.to_string())
        }
    }
}

fn named(live: &StagePlan, input: &Input, digits: &str) -> Result<StagePlan, NameError> {
    let mut plan = live.clone();
    plan.name = StageName::parse(&format!("{}-shadow", live.name))?;
    plan.plugin.sha256 = None;
    plan.input = Some(Input {
        group: GroupName::parse(&format!("{}-shadow-{digits}", input.group))?,
        ..input.clone()
    });
    // Jobs would be done: what goes to a queue is dropped.
    plan.outputs.retain(|_, target| target.topic().is_some());
    for target in plan.outputs.values_mut() {
        *target = Target::Topic(TopicName::parse(&format!("{target}_shadow"))?);
    }
    for table in plan.tables.values_mut() {
        *table = TableName::parse(&format!("{table}_shadow"))?;
    }
    Ok(plan)
}

/// Live name -> name of the shadow, of the maps of two plans.
fn pairs<N: ToString>(live: &BTreeMap<String, N>, shadow: &BTreeMap<String, N>) -> BTreeMap<String, String> {
    let pair = |(port, name): (&String, &N)| Some((name.to_string(), shadow.get(port)?.to_string()));
    live.iter().filter_map(pair).collect()
}

impl Runtime {
    /// Runs a component beside a stage of this host.
    pub async fn start_shadow(&self, key: &StageKey, bytes: bytes::Bytes) -> Result<Shadow, PushError> {
        let inner = &self.inner;
        let live = inner.stage(key)?;
        let refused = |words: String| PushError::Refused(ApplyError::Shadow { stage: label(key), words });
        let digest = PluginDigest::of(&bytes).to_string();
        let plan = plan_of(&live.plan, &digest).map_err(refused)?;
        let bytes = Bytes { bytes: bytes.as_ref().into(), from: "the pushed component".to_string() };
        let component = component::check(&inner.engine, &bytes, &plan).await;
        let component = component
            .map_err(|error| PushError::Refused(ApplyError::Component { stage: label(key), error }))?;
        for topic in plan.outputs.values().filter_map(Target::topic) {
            inner.shadow_topic(&live, &plan, topic).await.map_err(PushError::Refused)?;
        }
        let fitted =
            inner.fit(&key.pipeline, &plan, bytes, component, true).await.map_err(PushError::Refused)?;
        let shapes = live.version().tables.iter().all(|(name, table)| {
            fitted.checked.code.tables.get(name).is_some_and(|other| other.spec == table.spec)
        });
        let (true, Some(input), Some(own)) = (shapes, &live.plan.input, &plan.input) else {
            return Err(refused(
                "the component declares tables of another shape, so rows cannot be compared".into(),
            ));
        };
        let registry = &inner.services.registry;
        let (checked, by) = (&fitted.checked, &inner.services.host.0);
        registry.store(&checked.code.plugin, &checked.descriptor, &checked.bytes, by).await?;
        let new = NewShadow {
            pipeline: &key.pipeline,
            stage: &key.stage,
            digest: &digest,
            live_group: &input.group,
            group: &own.group,
            topic: &input.topic,
            topics: pairs(&live.plan.outputs, &plan.outputs),
            tables: pairs(&live.plan.tables, &plan.tables),
        };
        registry.start_shadow(new, by).await?;
        match registry.shadows().await?.into_iter().find(|shadow| shadow.stage == label(key)) {
            Some(shadow) => Ok(shadow),
            None => Err(PushError::NoStage(label(key))),
        }
    }

    /// Makes the shadow of a stage its version.
    pub async fn promote(&self, key: &StageKey) -> Result<Active, PushError> {
        let inner = &self.inner;
        let live = inner.stage(key)?;
        let deciding = live.decide().await;
        let active = inner.services.registry.promote(&label(key), &inner.services.host.0).await?;
        inner.adopt(&live, &deciding, active.clone(), None).await.map_err(PushError::Refused)?;
        Ok(active)
    }

    /// Runs the shadows that there are to be, until the token is cancelled.
    pub async fn shadows(self, token: CancellationToken) {
        let mut told = self.inner.services.log.hub().plugins();
        loop {
            match self.inner.services.registry.shadows().await {
                Ok(wanted) => self.inner.follow_shadows(wanted).await,
                Err(error) => tracing::debug!(%error, "cannot ask which shadows there are"),
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = told.woken() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

impl Inner {
    async fn follow_shadows(&self, wanted: Vec<Shadow>) {
        let mut shadows = self.shadows.lock().await;
        let is_wanted = |name: &str, run: &ShadowRun| {
            wanted.iter().any(|it| it.stage == name && it.digest == run.digest && !it.ending)
        };
        let gone: Vec<String> = shadows
            .iter()
            .filter(|(name, run)| !is_wanted(name, run))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(run) = shadows.remove(&name) {
                tracing::info!(stage = run.stage().label(), "stop");
                run.stop().await;
            }
        }
        for shadow in wanted {
            if shadow.ending {
                self.clear(&shadow).await;
            } else if !shadows.contains_key(&shadow.stage)
                && let Some(live) = self.labelled(&shadow.stage)
            {
                match self.build_shadow(&live, &shadow).await {
                    Ok(stage) => {
                        tracing::info!(stage = stage.label(), digest = shadow.digest, "start");
                        let running = Running::start(Arc::new(stage), &self.token);
                        shadows.insert(shadow.stage, ShadowRun { digest: shadow.digest, running });
                    }
                    Err(error) => {
                        tracing::warn!(stage = shadow.stage, %error, "the shadow does not start here")
                    }
                }
            }
        }
        let stages: Vec<Arc<Stage>> = shadows.values().map(|run| run.running.stage.clone()).collect();
        let changed = stages.len() != lock(&self.shadow_stages).len()
            || stages.iter().zip(lock(&self.shadow_stages).iter()).any(|(new, old)| !Arc::ptr_eq(new, old));
        *lock(&self.shadow_stages) = stages;
        if changed {
            self.announce();
        }
    }

    async fn clear(&self, shadow: &Shadow) {
        let Some((pipeline, stage)) = shadow.stage.split_once('/') else { return };
        match self.services.registry.clear_shadow(pipeline, stage).await {
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(stage = shadow.stage, %error, "what a shadow left is not cleared yet")
            }
        }
    }

    /// Stops the shadow of a stage that changes: it is built anew with the new plan.
    pub async fn stop_shadow(&self, key: &StageKey) {
        if let Some(run) = self.shadows.lock().await.remove(&label(key)) {
            run.stop().await;
        }
    }

    async fn build_shadow(&self, live: &Stage, shadow: &Shadow) -> Result<Stage, ApplyError> {
        let (pipeline, label) = (&live.cell.pipeline, live.label());
        let plan = plan_of(&live.plan, &shadow.digest)
            .map_err(|words| ApplyError::Shadow { stage: label.clone(), words })?;
        let mut outlets = BTreeMap::new();
        let topics = plan.outputs.iter().filter_map(|(port, target)| Some((port, target.topic()?)));
        for (port, topic) in topics {
            let topic = self.shadow_topic(live, &plan, topic).await?;
            outlets.insert(port.clone(), Outlet::Topic(topic));
        }
        let fitted = self.load(pipeline, &plan, &shadow.digest, false).await?;
        let active = Active {
            stage: format!("{pipeline}/{}", plan.name),
            digest: shadow.digest.clone(),
            previous: None,
            epoch: 1,
            source: Source::Push,
            state: Standing::Stable,
            reason: None,
            changed_at: shadow.started_at,
            changed_by: shadow.started_by.clone(),
            file_digest: None,
            refused: Vec::new(),
        };
        let version = Version::new(fitted.checked.code, active, None, None);
        let cell = StageCell::new(pipeline.clone(), plan.clone());
        Ok(Stage::new(plan, live.input.clone(), outlets, None, cell, self.services.clone(), version))
    }

    /// A topic for what the shadow puts out: like the live one, but never archived.
    async fn shadow_topic(
        &self,
        live: &Stage,
        plan: &StagePlan,
        name: &TopicName,
    ) -> Result<Arc<crate::log::Topic>, ApplyError> {
        let port = plan.outputs.iter().find(|(_, target)| target.topic() == Some(name)).map(|(port, _)| port);
        let Some(original) = port.and_then(|port| live.outlets.get(port)?.topic()) else {
            let words = format!("topic {name} belongs to no port");
            return Err(ApplyError::Shadow { stage: live.label(), words });
        };
        let spec = TopicPlan {
            name: name.clone(),
            partitions: original.partitions,
            segment: original.segment,
            hot: original.hot,
            cold: Cold::None,
            hold: Hold::default(),
            format: original.format,
            acks: original.acks,
            schema: None,
            sort: Vec::new(),
        };
        let ensured = self.services.log.ensure_topic(&spec).await;
        ensured.map_err(|error| ApplyError::Topic { topic: name.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn stage(text: &str, name: &str) -> anyhow::Result<StagePlan> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("p.toml");
        std::fs::write(&file, format!("[pipeline]\nname = \"p\"\n[topics.a]\n[topics.b]\n{text}"))?;
        let plan = config::load(&[file])?;
        let found =
            plan.pipelines.values().flat_map(|it| it.stages.values()).find(|it| it.name.as_str() == name);
        found.cloned().ok_or_else(|| anyhow::anyhow!("there is no stage {name}"))
    }

    #[test]
    fn a_shadow_reads_the_same_topic_and_writes_beside() -> anyhow::Result<()> {
        let live = stage("[transforms.watch]\nplugin = \"w\"\nfrom = \"a\"\nto = \"b\"\n", "watch")?;
        let plan = plan_of(&live, "sha256:1a2b3c4d").map_err(anyhow::Error::msg)?;
        let input = plan.input.ok_or_else(|| anyhow::anyhow!("it reads nothing"))?;
        assert_eq!((input.topic.as_str(), input.group.as_str()), ("a", "watch-shadow-1a2b3c"));
        assert_eq!((plan.name.as_str(), plan.outputs["default"].as_str()), ("watch-shadow", "b_shadow"));
        Ok(())
    }

    #[test]
    fn a_shadow_puts_no_jobs() -> anyhow::Result<()> {
        let text = "[queues.q]\n[transforms.watch]\nplugin = \"w\"\nfrom = \"a\"\n\
                    to = { default = \"b\", jobs = { queue = \"q\" } }\n\
                    [workers.w]\nplugin = \"w\"\nqueue = \"q\"\n";
        let plan = plan_of(&stage(text, "watch")?, "sha256:1a2b3c4d").map_err(anyhow::Error::msg)?;
        assert_eq!(plan.outputs.keys().collect::<Vec<_>>(), ["default"]);
        assert!(plan_of(&stage(text, "w")?, "sha256:1a2b3c4d").is_err(), "a job is done by one worker");
        let only = text.replace("default = \"b\", ", "");
        let refused = plan_of(&stage(&only, "watch")?, "sha256:1a2b3c4d").map(|plan| plan.name);
        assert!(refused.as_ref().is_err_and(|words| words.contains("nothing to compare")), "{refused:?}");
        Ok(())
    }

    #[test]
    fn what_acts_outside_has_no_shadow() -> anyhow::Result<()> {
        let sink = stage("[sinks.out]\nplugin = \"o\"\nfrom = \"a\"\n", "out")?;
        let refused = plan_of(&sink, "sha256:1a2b3c4d").map(|plan| plan.name);
        assert!(refused.as_ref().is_err_and(|words| words.contains("a second time")), "{refused:?}");
        let source = stage("[producers.in]\nplugin = \"i\"\nto = \"a\"\n", "in")?;
        assert!(plan_of(&source, "sha256:1a2b3c4d").is_err());
        Ok(())
    }
}
