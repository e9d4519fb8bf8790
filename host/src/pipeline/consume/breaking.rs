//! What a partition's task does with its breaker: it waits, says so, and tries one message.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Task;
use crate::pipeline::stage::StageError;
use crate::pipeline::status::State;

/// How often a task that waits looks whether it still owns its partition.
const LOOK: Duration = Duration::from_secs(1);

impl Task<'_> {
    /// Waits while the breaker is open, or until the host stops or another version comes. True: take a batch.
    pub(super) async fn may_take(&mut self, token: &CancellationToken) -> Result<bool, StageError> {
        let Some(left) = self.breaker.holds(Instant::now()) else { return Ok(true) };
        self.pause(token, left.min(LOOK)).await;
        if self.current.follow().await? {
            self.new_version();
            return Ok(true);
        }
        self.check_lease().await?;
        Ok(false)
    }

    /// What the version before could not do is no fault of this one.
    pub(super) fn new_version(&mut self) {
        self.attempts = 0;
        self.elder = None;
        self.backoff.reset();
        self.breaker.reset();
        self.size = self.stage.plan.batch.records as usize;
        self.set(State::Running, None);
    }

    /// Messages of the next batch.
    pub(super) fn batch_size(&self) -> usize {
        if self.breaker.is_half_open() { 1 } else { self.size }
    }

    /// The plugin answers.
    pub(super) fn passed(&mut self, messages: usize) {
        if self.breaker.is_half_open() {
            tracing::info!(
                stage = self.stage.label(),
                partition = self.lease.partition,
                "the breaker closes"
            );
        }
        self.breaker.passed(messages, Instant::now());
    }

    /// A call failed by the plugin's fault.
    pub(super) fn call_failed(&mut self) {
        if self.breaker.failed(Instant::now()) {
            self.opened();
        }
    }

    /// A message was given up on for that.
    pub(super) fn message_failed(&mut self) {
        if self.breaker.gave_up(Instant::now()) {
            self.opened();
        }
    }

    fn opened(&mut self) {
        self.stage.cell.broke();
        if let Some((wait, why)) = self.breaker.open_for(Instant::now()) {
            tracing::warn!(
                stage = self.stage.label(),
                partition = self.lease.partition,
                offset = self.offset,
                why,
                ?wait,
                "the breaker opens: the plugin gets no messages for a while"
            );
        }
        self.is_broken();
    }

    /// Whether the breaker is open. Says so, if it is.
    pub(super) fn is_broken(&mut self) -> bool {
        let Some((wait, why)) = self.breaker.open_for(Instant::now()) else { return false };
        let words = format!(
            "the breaker is open, and offset {} is tried after {:.1} s: {why}; push a version that works, or wait: nothing \
             is lost",
            self.offset,
            wait.as_secs_f64()
        );
        self.set(State::Broken, Some(words));
        true
    }
}
