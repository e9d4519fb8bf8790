//! Dead letters of the partition, run again between two batches.
//!
//! A letter runs alone, with the time and chance of its own offset, one more attempt, and the state as it is now. It holds
//! nothing up: one that asks to come again stays in the queue, and what comes after it goes on. It proves and disproves no
//! version: its failure is its own, for its user is looking at it.
//! Bound: a turn ends after [`TURN`] letters or [`TURN_TIME`], so live messages wait no longer than that, and after the first
//! letter that makes the plugin fail, so that letters cost at most one fresh instance for each batch.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Task;
use super::call::{Answer, ask, messages};
use crate::letters::redrive::Failure;
use crate::letters::{Letter, LetterError};
use crate::log::offsets::CommitError;
use crate::pipeline::backoff::{self, spread};
use crate::pipeline::commit::{Committed, Step, commit};
use crate::pipeline::current::is_of_the_host;
use crate::pipeline::effects::{DeadKind, Effects};
use crate::pipeline::stage::StageError;
use crate::plugin::{CallError, Context, Seed};

/// Letters of one turn.
const TURN: usize = 64;
const TURN_TIME: Duration = Duration::from_millis(250);
/// The longest that a letter may ask for.
const AGAIN_MAX: Duration = Duration::from_secs(3_600);

/// What became of a letter.
enum End {
    Stored(Box<Effects>),
    Again(Option<Duration>),
    Failed(DeadKind, String),
}

impl Task<'_> {
    /// Runs letters that wait for this partition, a few of them. True: there may be more.
    pub(super) async fn redrive(&mut self, token: &CancellationToken) -> Result<bool, StageError> {
        if self.breaker.is_half_open() || !self.queue.is_due() {
            return Ok(false);
        }
        // Who has just pushed a version that works wants it to run the letters.
        if self.current.follow().await? {
            self.new_version();
        }
        let began = Instant::now();
        for _ in 0..TURN {
            if !self.queue.is_due() || token.is_cancelled() {
                return Ok(false);
            }
            if began.elapsed() >= TURN_TIME {
                return Ok(true);
            }
            let next = self.stage.services.letters.next(self.lease, self.topic.name.as_str()).await;
            let Some(letter) = next.map_err(again)? else {
                self.queue.emptied();
                return Ok(false);
            };
            if !self.run_again(&letter, token).await? {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// False: the plugin failed.
    async fn run_again(&mut self, letter: &Letter, token: &CancellationToken) -> Result<bool, StageError> {
        let stage = self.stage;
        let ended = self.try_again(letter).await?;
        let (outcome, went_well) = match ended {
            End::Stored(effects) => return self.settle(letter, *effects, token).await,
            End::Again(after) if letter.tries + 1 < stage.plan.max_attempts => {
                let wait = after.map_or_else(|| backoff::after(letter.tries), spread).min(AGAIN_MAX);
                let postponed = stage.services.letters.postpone(self.lease, letter, wait).await;
                postponed.map_err(|error| self.lost(error))?;
                ("again", true)
            }
            End::Again(_) => {
                let reason = format!("it asked to come again {} times", letter.tries + 1);
                self.put_back(letter, DeadKind::Retries, &reason).await?;
                ("failed", true)
            }
            End::Failed(kind, reason) => {
                self.put_back(letter, kind, &reason).await?;
                ("failed", kind == DeadKind::Reject)
            }
        };
        self.count_letter(outcome);
        Ok(went_well)
    }

    /// One call with the message alone.
    async fn try_again(&mut self, letter: &Letter) -> Result<End, StageError> {
        let batch = std::slice::from_ref(&letter.record);
        let mut instance = match self.current.take().await {
            Ok(instance) => instance,
            Err(error) => return Err(self.stage.cannot_start(&error)),
        };
        let version = self.current.version().clone();
        let seed = Seed::of_batch(
            self.lease.group.as_str(),
            self.topic.name.as_str(),
            self.lease.partition,
            letter.record.offset,
        );
        let mut context = Context { now: letter.appended_at, seed, state: None };
        if let Some(state) = &mut self.state {
            state.begin(&mut context);
        }
        instance.set_context(context);
        let given = messages(batch, letter.attempts + 1);
        let answer = ask(self.stage, &version, &mut instance, self.lease, batch, given).await;
        self.current.keep(instance);
        let scrub = |reason: &str| self.stage.plan.config.scrub(reason);
        Ok(match answer {
            Ok(Answer::Done(mut effects, refused)) => match refused.first() {
                Some((_, reason)) => End::Failed(DeadKind::Reject, scrub(reason)),
                None => {
                    if let Some(state) = &mut self.state {
                        effects.state = state.take().await;
                    }
                    End::Stored(effects)
                }
            },
            Ok(Answer::Redeliver { after, .. }) => End::Again(after),
            Err(CallError::Retry { after, .. }) => End::Again(after),
            Err(error) if is_of_the_host(&error) => return Err(StageError::Again(self.stage.words(&error))),
            Err(error) => {
                let kind = DeadKind::of(&error).unwrap_or(DeadKind::Fatal);
                self.stage.cell.failed(kind.as_str());
                End::Failed(kind, self.stage.words(&error))
            }
        })
    }

    /// Commits what a letter led to, and its end. False: what the plugin made cannot be stored.
    async fn settle(
        &mut self,
        letter: &Letter,
        effects: Effects,
        token: &CancellationToken,
    ) -> Result<bool, StageError> {
        let version = self.current.version().clone();
        let step = Step::Letter { lease: self.lease, letter };
        match commit(self.stage, &version, step, &effects, token).await {
            Ok(Committed::Stored) => {
                self.stage.cell.count(0, effects.records_out(), 0);
                self.count_letter("done");
                Ok(true)
            }
            // Changed: it is still queued, and runs as it is now. Dropped: that was its end.
            Ok(Committed::Moot) => Ok(true),
            Err(StageError::Fatal(reason)) => {
                self.put_back(letter, DeadKind::Output, &reason).await?;
                self.count_letter("failed");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn put_back(&mut self, letter: &Letter, kind: DeadKind, error: &str) -> Result<(), StageError> {
        let digest = self.current.version().digest().to_string();
        tracing::warn!(
            stage = self.stage.label(),
            letter = letter.id,
            offset = letter.record.offset,
            error,
            "a redriven dead letter failed again"
        );
        let failure = Failure { kind: kind.as_str(), error, digest: &digest };
        let put = self.stage.services.letters.fail(self.lease, letter, failure).await;
        put.map_err(|error| self.lost(error))
    }

    fn lost(&self, error: CommitError) -> StageError {
        match error {
            CommitError::Fenced => {
                StageError::Fenced { topic: self.topic.name.clone(), partition: self.lease.partition }
            }
            CommitError::Postgres(error) => StageError::Again(error.to_string()),
        }
    }

    fn count_letter(&self, outcome: &'static str) {
        let labels = [
            ("pipeline", self.stage.cell.pipeline.to_string()),
            ("stage", self.stage.plan.name.to_string()),
            ("outcome", outcome.to_string()),
        ];
        metrics::counter!("tidemill_dead_letters_redriven_total", &labels).increment(1);
    }
}

fn again(error: LetterError) -> StageError {
    StageError::Again(error.to_string())
}
