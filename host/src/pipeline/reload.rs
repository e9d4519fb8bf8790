//! Another component for a stage that runs: from a changed file, a push, a rollback, or a decision of another host.
//!
//! Guarantee: a component is compiled, checked against its stage, described and configured before anybody decides for it;
//! what fails before that leaves the running version alone and is shown as the stage's candidate. The decision is a row in
//! Postgres, and every host follows it: notified at once, and by asking each [`POLL`].
//! Failure: a version that this host cannot load is tried again each [`STUCK`]; while it is on probation, it is given up.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::component::{self, Bytes};
use super::prepare::{Fitted, near};
use super::runtime::{ApplyError, Inner, Runtime, lock};
use super::stage::{Deciding, Stage};
use super::status::Candidate;
use super::version::Version;
use crate::config::StageKey;
use crate::plugin::PluginDigest;
use crate::registry::{Active, RegistryError, Source, Standing};

/// How often the decisions of other hosts are asked for, beside being told of them.
const POLL: Duration = Duration::from_secs(1);

/// When a version is tried again that could not be loaded.
const STUCK: Duration = Duration::from_secs(30);

/// Why a stage does not run what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("no stage {0} runs here")]
    NoStage(String),
    /// What runs before runs on.
    #[error("{0}")]
    Refused(ApplyError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Why a changed file is not taken, in words for the user.
enum Unfit {
    Refused(String),
    /// Not for what is in it: it is to be looked at again.
    Later(String),
}

impl From<ApplyError> for Unfit {
    fn from(error: ApplyError) -> Self {
        match error.is_validation() {
            true => Self::Refused(error.to_string()),
            false => Self::Later(error.to_string()),
        }
    }
}

impl From<RegistryError> for Unfit {
    fn from(error: RegistryError) -> Self {
        Self::Later(error.to_string())
    }
}

impl Runtime {
    /// Makes bytes the component of a running stage, once they fit. What was decided comes back.
    pub async fn push(&self, key: &StageKey, bytes: bytes::Bytes) -> Result<Active, PushError> {
        let inner = &self.inner;
        let (running, label) = (inner.stage(key)?, label(key));
        let bytes = Bytes { bytes: bytes.as_ref().into(), from: "the pushed component".to_string() };
        let fitted = inner.fit_running(&running, bytes).await.map_err(PushError::Refused)?;
        let deciding = running.decide().await;
        let active = inner.publish(&label, &running.plan, &fitted.checked, Source::Push).await?;
        inner.adopt(&running, &deciding, active.clone(), Some(fitted)).await.map_err(PushError::Refused)?;
        running.cell.refuse(None);
        Ok(active)
    }

    /// Goes back to the version before, or to the one that `to` begins the digest of.
    pub async fn roll_back(&self, key: &StageKey, to: Option<&str>) -> Result<Active, PushError> {
        let inner = &self.inner;
        let running = inner.stage(key)?;
        let deciding = running.decide().await;
        let (registry, by) = (&inner.services.registry, &inner.services.host.0);
        let active = registry.roll_back(&label(key), to, by).await?;
        inner.adopt(&running, &deciding, active.clone(), None).await.map_err(PushError::Refused)?;
        Ok(active)
    }

    /// Looks at the changed file of a stage. False: it is to be looked at again, since Postgres or the machine failed.
    pub async fn offer(&self, key: &StageKey, file: &Bytes) -> bool {
        let Ok(running) = self.inner.stage(key) else { return true };
        let digest = PluginDigest::of(&file.bytes).to_string();
        let (error, judged) = match self.inner.consider(&running, &digest, file).await {
            Ok(()) => {
                running.cell.refuse(None);
                return true;
            }
            Err(Unfit::Refused(error)) => (error, true),
            Err(Unfit::Later(error)) => (error, false),
        };
        self.show_refused(&running, Some(digest), &file.from, &error);
        judged
    }

    /// Says that the changed file of a stage cannot be read.
    pub fn unreadable(&self, key: &StageKey, path: &Path, error: &str) {
        if let Ok(running) = self.inner.stage(key) {
            self.show_refused(&running, None, &path.display().to_string(), error);
        }
    }

    fn show_refused(&self, running: &Stage, digest: Option<String>, from: &str, error: &str) {
        let at = self.inner.services.log.clock().now();
        let candidate = Candidate::new(digest.clone(), from.to_string(), error.to_string(), at);
        if running.cell.refuse(Some(candidate)) {
            tracing::warn!(
                stage = running.label(),
                digest,
                error,
                "the changed file is not taken; what runs goes on"
            );
        }
    }

    /// Follows the decisions of all hosts until the token is cancelled.
    pub async fn converge(self, token: CancellationToken) {
        let mut told = self.inner.services.log.hub().plugins();
        let tasks = TaskTracker::new();
        loop {
            match self.inner.services.registry.all().await {
                Ok(decisions) => decisions.into_iter().for_each(|active| self.heed(active, &tasks)),
                Err(error) => tracing::debug!(%error, "cannot ask which plugins are to run"),
            }
            tokio::select! {
                () = token.cancelled() => break,
                () = told.woken() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Starts what one decision asks of this host, without waiting for it: a compiler may take seconds.
    fn heed(&self, active: Active, tasks: &TaskTracker) {
        let Some(running) = self.inner.labelled(&active.stage) else { return };
        let version = running.version();
        if active.epoch == version.active.epoch {
            if active.state == Standing::Stable && version.active.state == Standing::Probation {
                version.end_probation();
                running.cell.proven(active.epoch);
            }
            return;
        }
        if active.epoch < version.active.epoch || self.inner.is_stuck(&active) {
            return;
        }
        let inner = self.inner.clone();
        tasks.spawn(async move {
            // Whoever holds it is about to publish this decision or a later one.
            if let Some(deciding) = running.try_decide() {
                inner.catch_up(&running, &deciding, active).await;
            }
        });
    }
}

impl Inner {
    /// A component for a running stage: checked, and tried with its config.
    async fn fit_running(&self, running: &Stage, bytes: Bytes) -> Result<Fitted, ApplyError> {
        let component = component::check(&self.engine, &bytes, &running.plan).await;
        let component = component.map_err(|error| ApplyError::Component { stage: running.label(), error })?;
        self.fit(&running.cell.pipeline, &running.plan, bytes, component, true).await
    }

    /// Publishes what a stage's file holds now, unless that is known.
    async fn consider(&self, running: &Stage, digest: &str, file: &Bytes) -> Result<(), Unfit> {
        let registry = &self.services.registry;
        let active = registry.of(&running.cell.pipeline, &running.plan.name).await;
        if let Some(active) = &active? {
            if active.refused.iter().any(|refused| refused == digest) {
                return Err(Unfit::Refused(format!(
                    "it was rolled back here before; change it, or try it again with `tidemill plugin push {} --stage {}`",
                    file.from,
                    running.label()
                )));
            }
            if active.file_digest.as_deref() == Some(digest) {
                return Ok(());
            }
        }
        let fitted = self.fit_running(running, file.clone()).await?;
        let deciding = running.decide().await;
        let active = self.publish(&running.label(), &running.plan, &fitted.checked, Source::File).await?;
        Ok(self.adopt(running, &deciding, active, Some(fitted)).await?)
    }

    /// Makes a decision the running version of this host.
    pub(super) async fn adopt(
        &self,
        running: &Stage,
        deciding: &Deciding<'_>,
        active: Active,
        fitted: Option<Fitted>,
    ) -> Result<(), ApplyError> {
        let current = running.version();
        if current.active.epoch >= active.epoch {
            return Ok(());
        }
        let (pipeline, plan) = (&running.cell.pipeline, &running.plan);
        let fitted = fitted.filter(|fitted| fitted.checked.digest() == active.digest);
        let (code, spare) = match (fitted, near(&current, &active.digest)) {
            (Some(fitted), _) => (fitted.checked.code, fitted.instance),
            (None, Some(version)) => (version.code(), None),
            (None, None) => {
                let fitted = self.load(pipeline, plan, &active.digest, true).await?;
                (fitted.checked.code, fitted.instance)
            }
        };
        let probation = self.probation(pipeline, plan, &active, Some(&current)).await;
        tracing::info!(
            stage = running.label(),
            digest = active.digest,
            before = current.digest(),
            source = active.source.as_str(),
            epoch = active.epoch,
            probation = probation.is_some(),
            "another version"
        );
        deciding.publish(Version::new(code, active, probation, spare));
        Ok(())
    }

    /// Follows the decision of another host, or says why not.
    async fn catch_up(&self, running: &Stage, deciding: &Deciding<'_>, active: Active) {
        let Err(error) = self.adopt(running, deciding, active.clone(), None).await else {
            lock(&self.stuck).remove(&active.stage);
            return;
        };
        let words = error.to_string();
        if active.state == Standing::Probation && error.is_validation() {
            let registry = &self.services.registry;
            let failed = registry.fail(&active.stage, active.epoch, &words, &self.services.host.0).await;
            if let Ok(Some(restored)) = failed
                && self.adopt(running, deciding, restored, None).await.is_ok()
            {
                return;
            }
        }
        lock(&self.stuck).insert(active.stage.clone(), (active.epoch, Instant::now()));
        let at = self.services.log.clock().now();
        let from = format!("the decision of {}", active.changed_by);
        let candidate = Candidate::new(Some(active.digest.clone()), from, words.clone(), at);
        if running.cell.refuse(Some(candidate)) {
            tracing::error!(
                stage = active.stage,
                digest = active.digest,
                error = words,
                "this host cannot run the version that all are to run; the one before goes on here"
            );
        }
    }

    fn is_stuck(&self, active: &Active) -> bool {
        let stuck = lock(&self.stuck);
        stuck
            .get(&active.stage)
            .is_some_and(|(epoch, since)| *epoch == active.epoch && since.elapsed() < STUCK)
    }
}

/// `pipeline/stage`.
pub fn label(key: &StageKey) -> String {
    format!("{}/{}", key.pipeline, key.stage)
}
