//! The version a task works with, and its warm instance: how a task follows its stage from one version to the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::stage::{Stage, StageError};
use super::version::{Probation, Version};
use crate::ids::Partition;
use crate::plugin::{CallError, Instance};

/// How long a version that could not be taken over is left alone.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// One task's place in its stage. It changes version only when [`Current::follow`] is called: between two batches.
pub struct Current<'a> {
    stage: &'a Stage,
    partition: Partition,
    version: Arc<Version>,
    versions: watch::Receiver<Arc<Version>>,
    instance: Option<Instance>,
    /// When a version may be tried again that could not be instantiated.
    not_before: Option<Instant>,
}

impl<'a> Current<'a> {
    /// Begins with the version that the stage runs now.
    pub async fn start(stage: &'a Stage, partition: Partition) -> Result<Self, StageError> {
        let mut versions = stage.versions();
        loop {
            let version = versions.borrow_and_update().clone();
            match stage.instantiate(&version).await {
                Ok(instance) => {
                    stage.cell.runs(partition, version.digest());
                    let instance = Some(instance);
                    return Ok(Self { stage, partition, version, versions, instance, not_before: None });
                }
                Err(error) if version.probation().is_some() && !is_of_the_host(&error) => {
                    stage.fail(&version, &stage.words(&error)).await?;
                    // Another host may have decided otherwise: then the probation is over, or another version on its way.
                    let _ = tokio::time::timeout(TRY_AGAIN, changed(&mut versions)).await;
                }
                Err(error) => return Err(stage.cannot_start(&error)),
            }
        }
    }

    pub fn version(&self) -> &Arc<Version> {
        &self.version
    }

    /// The probation of the version, unless it is over.
    pub fn probation(&self) -> Option<Arc<Probation>> {
        self.version.probation()
    }

    /// Takes the wanted version over, if it is another one. Its instance is there before the old one is let go; if it
    /// cannot be made, the old one goes on. True when the version is another one now.
    pub async fn follow(&mut self) -> Result<bool, StageError> {
        let waited = self.not_before.is_none_or(|time| Instant::now() >= time);
        if !(waited && self.versions.has_changed().unwrap_or(false)) {
            return Ok(false);
        }
        self.not_before = None;
        let wanted = self.versions.borrow_and_update().clone();
        if wanted.digest() == self.version.digest() {
            self.version = wanted;
            return Ok(false);
        }
        match self.stage.instantiate(&wanted).await {
            Ok(instance) => {
                self.instance = Some(instance);
                self.version = wanted;
                self.stage.cell.runs(self.partition, self.version.digest());
                return Ok(true);
            }
            Err(error) if wanted.probation().is_some() && !is_of_the_host(&error) => {
                self.stage.fail(&wanted, &self.stage.words(&error)).await?;
            }
            Err(error) => {
                let words = self.stage.words(&error);
                tracing::warn!(
                    stage = self.stage.label(),
                    digest = wanted.digest(),
                    error = words,
                    "the version cannot be instantiated; the one before goes on"
                );
                self.versions.mark_changed();
                self.not_before = Some(Instant::now() + TRY_AGAIN);
            }
        }
        Ok(false)
    }

    /// An instance that can be called: the warm one, or a fresh one after a failure.
    pub async fn take(&mut self) -> Result<Instance, CallError> {
        match self.instance.take() {
            Some(instance) if !instance.poisoned() => Ok(instance),
            _ => self.stage.instantiate(&self.version).await,
        }
    }

    /// Keeps the instance for the next call.
    pub fn keep(&mut self, instance: Instance) {
        self.instance = Some(instance).filter(|instance| !instance.poisoned());
        self.stage.cell.observe(self.partition, self.instance.as_ref());
    }

    /// Waits for `wait`, or until the stage has another version.
    pub async fn pause(&mut self, wait: Duration) {
        match self.not_before {
            Some(time) => tokio::time::sleep(wait.min(time.saturating_duration_since(Instant::now()))).await,
            None => drop(tokio::time::timeout(wait, changed(&mut self.versions.clone())).await),
        }
    }

    /// Gives a version on probation up: the one before runs the same batch again.
    pub async fn give_up(&mut self, reason: &str) -> Result<(), StageError> {
        self.instance = None;
        self.stage.fail(&self.version, reason).await?;
        // Another host may have decided: what it decided is on its way.
        if self.version.active.epoch == self.stage.version().active.epoch {
            self.pause(TRY_AGAIN).await;
        }
        self.follow().await.map(drop)
    }
}

/// Whether a call failed for what the host lacks, and not for what the plugin did.
pub fn is_of_the_host(error: &CallError) -> bool {
    matches!(error, CallError::TooManyInstances { .. } | CallError::Internal { .. } | CallError::Poisoned)
}

async fn changed(versions: &mut watch::Receiver<Arc<Version>>) {
    if versions.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
