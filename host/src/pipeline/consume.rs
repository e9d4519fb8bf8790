//! The loop of a transform, materializer or sink on one partition: take, run, commit.
//!
//! The plugin runs outside any transaction. What fails is data: a refused message goes where `on_error` says; a batch that
//! makes the plugin trap, time out or grow too large is cut in half until the one message at fault stands alone, so that
//! the rest goes on. Order is kept throughout: nothing after a message is committed before it is.
//!
//! A new version is taken over between two batches. While it is on probation none of this is held against the messages:
//! at its first failure the version before takes the same batch, and what it refuses the version before is asked about.

mod breaking;
mod call;
mod redrive;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::breaker::Breaker;
use super::commit::{Step, commit};
use super::current::{Current, is_of_the_host};
use super::effects::{DeadKind, DeadLetter, Effects};
use super::intake::Intake;
use super::share::Share;
use super::stage::{Services, Stage, StageError, state_limits};
use super::status::State;
use super::version::{Probation, Version};
use crate::config::plan::{Cold, OnError};
use crate::ids::{Offset, Partition, Place};
use crate::letters::watch::Queue;
use crate::log::offsets::Lease;
use crate::log::{FetchError, Topic};
use crate::pg::notify::Waiter;
use crate::plugin::{CallError, Context, Grant, Instance, Seed};
use crate::record::Record;
use crate::replay::ReplayError;
use crate::state::TaskState;
use call::{Answer, ask, messages};

/// How long a look at the log waits before the task checks whether it should stop.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a task waits for its share before it says that it is idle.
const SETTLE: Duration = Duration::from_secs(2);

/// How often a task asks for a partition of its share that another host still holds, when nobody says that it is free.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Runs one partition, while it is in this host's share, until the token is cancelled or something ends it.
pub async fn run(
    stage: Arc<Stage>,
    partition: Partition,
    token: CancellationToken,
) -> Result<(), StageError> {
    let (Some(topic), Some(input)) = (&stage.input, &stage.plan.input) else {
        return Err(StageError::Fatal("a stage of this kind needs a topic to read".to_string()));
    };
    let Services { groups, shares, host, .. } = &stage.services;
    let label = stage.label();
    let mut turn = Turn::new(&stage, partition);
    while turn.comes(&token).await {
        let _taken = turn.share.take();
        let acquired = groups.acquire(&input.group, topic.id, partition, host, &label).await;
        let Some(lease) = acquired.map_err(|error| StageError::Again(error.to_string()))? else {
            turn.wait(&token).await;
            continue;
        };
        let held = token.child_token();
        let ended = match Task::new(&stage, topic.clone(), &lease).await {
            Ok(mut task) => turn.share.during(&held, task.run(&held)).await,
            Err(error) => Err(error),
        };
        if let Err(StageError::Fenced { .. }) = ended {
            // A seek or another host: look again who owns it.
            tracing::info!(stage = label, partition, "lease lost, asking again");
            // Or another server, which the next read and the next lease must know of.
            if let Err(error) = stage.services.log.check_server().await {
                tracing::debug!(stage = label, %error, "cannot see which server the log is on");
            }
            continue;
        }
        match groups.release(&lease).await {
            Ok(()) => shares.released().await,
            Err(error) => {
                tracing::debug!(stage = label, partition, %error, "the lease was not given back; a later look does it")
            }
        }
        ended?;
    }
    Ok(())
}

/// Waits for the partition to be this host's.
pub(super) struct Turn<'a> {
    stage: &'a Stage,
    partition: Partition,
    pub share: Share,
    told: Waiter,
}

impl<'a> Turn<'a> {
    pub fn new(stage: &'a Stage, partition: Partition) -> Self {
        let share = stage.services.shares.of(&stage.label(), partition);
        Self { stage, partition, share, told: stage.services.log.hub().hosts() }
    }

    /// Waits until the partition is in the share; false when the token was cancelled.
    pub async fn comes(&mut self, token: &CancellationToken) -> bool {
        let idle = tokio::time::sleep(SETTLE);
        tokio::pin!(idle);
        loop {
            tokio::select! {
                () = token.cancelled() => return false,
                () = self.share.gained() => return !token.is_cancelled(),
                () = &mut idle, if !idle.is_elapsed() => self.idle("another host runs it"),
            }
        }
    }

    /// Waits a moment for the host that still holds the lease.
    pub async fn wait(&mut self, token: &CancellationToken) {
        self.idle("another host still holds it");
        tokio::select! {
            () = token.cancelled() => {}
            () = self.told.woken() => {}
            () = tokio::time::sleep(ASK_AGAIN) => {}
        }
    }

    fn idle(&self, why: &str) {
        self.stage.cell.set(self.partition, State::Idle, Some(why.to_string()));
    }
}

/// True when the token was cancelled within the wait.
pub(super) async fn stopped(token: &CancellationToken, wait: Duration) -> bool {
    tokio::time::timeout(wait, token.cancelled()).await.is_ok()
}

struct Task<'a> {
    stage: &'a Stage,
    lease: &'a Lease,
    topic: Arc<Topic>,
    intake: Intake,
    offset: Offset,
    current: Current<'a>,
    /// An instance of the version before, while it is asked about what the current one refuses.
    elder: Option<Instance>,
    state: Option<TaskState>,
    /// Records the next call may get: halved by a failure, doubled by a success.
    size: usize,
    /// Deliveries so far of the message at `offset`.
    attempts: u32,
    backoff: Backoff,
    breaker: Breaker,
    /// Dead letters of the partition that are to run again.
    queue: Queue,
}

impl<'a> Task<'a> {
    async fn new(stage: &'a Stage, topic: Arc<Topic>, lease: &'a Lease) -> Result<Self, StageError> {
        let offset = lease.next_offset;
        let place = Place { offset, epoch: Some(lease.log_epoch) };
        let intake =
            Intake::new(&stage.services.replay, topic.clone(), lease.partition, place, stage.plan.batch);
        let size = stage.plan.batch.records as usize;
        let current = Current::start(stage, lease.partition).await?;
        let queue = stage.services.letters.queue(lease, topic.name.as_str());
        let state = match stage.plan.grants.contains(&Grant::State) {
            true => {
                let limits = state_limits(&stage.plan.limits);
                let opened = TaskState::open(stage.services.log.pool(), lease, limits).await;
                Some(opened.map_err(|error| StageError::Again(error.to_string()))?)
            }
            false => None,
        };
        Ok(Self {
            stage,
            lease,
            topic,
            intake,
            offset,
            current,
            elder: None,
            state,
            size,
            attempts: 0,
            backoff: Backoff::default(),
            breaker: Breaker::new(stage.plan.breaker),
            queue,
        })
    }

    async fn run(&mut self, token: &CancellationToken) -> Result<(), StageError> {
        self.set(State::Running, None);
        while !token.is_cancelled() {
            if !self.may_take(token).await? {
                continue;
            }
            let patience = if self.redrive(token).await? { Duration::ZERO } else { PATIENCE };
            let filled = tokio::select! {
                filled = self.intake.fill(patience) => filled,
                () = token.cancelled() => return Ok(()),
            };
            let there = match filled {
                Ok(there) => there,
                Err(error) => return Err(self.explain(error).await),
            };
            if self.current.follow().await? {
                self.new_version();
            }
            if !there {
                self.check_lease().await?;
                continue;
            }
            let size = self.batch_size();
            let batch = self.intake.batch(size).to_vec();
            let answer = self.call(&batch).await;
            match answer {
                Ok(Answer::Done(effects, refused)) => match self.current.probation() {
                    Some(probation) if !refused.is_empty() => {
                        self.ask_elder(&probation, &batch, *effects, refused, token).await?;
                    }
                    _ => {
                        let version = self.current.version().clone();
                        self.finish(&version, &batch, *effects, refused, token).await?;
                    }
                },
                Ok(Answer::Redeliver { index, after }) => self.redeliver(&batch, index, after, token).await?,
                Err(error) => self.failed(&batch, error, token).await?,
            }
        }
        Ok(())
    }

    fn set(&self, state: State, reason: Option<String>) {
        self.stage.cell.set(self.lease.partition, state, reason);
    }

    /// A group and the log that it reads come through a fail-over together, so a task that had read on beyond what is left
    /// looks again where its group stands. A group that itself stands beyond the log stops.
    async fn explain(&mut self, error: ReplayError) -> StageError {
        let (start, end) = match error.source {
            FetchError::OutOfRange { from, start, end, .. } if from < start => (start, end),
            FetchError::OutOfRange { start, end, .. } => {
                match self.stage.services.groups.standing(self.lease).await {
                    Ok(Some((stands, _))) if stands > end => (start, end),
                    Ok(_) => return self.moved_back(&error),
                    Err(error) => return StageError::Again(error.to_string()),
                }
            }
            FetchError::Lost { .. } => return self.moved_back(&error),
            _ => return StageError::Again(error.to_string()),
        };
        StageError::Fatal(left_postgres(self.lease, &self.topic, self.offset, start, end))
    }

    fn moved_back(&self, error: &ReplayError) -> StageError {
        tracing::warn!(
            stage = self.stage.label(), partition = self.lease.partition, %error,
            "the stage had read what another server does not have; it goes on from where that has its group"
        );
        StageError::Fenced { topic: self.topic.name.clone(), partition: self.lease.partition }
    }

    /// While there is nothing to commit, nothing else tells that the group was moved or taken over.
    async fn check_lease(&mut self) -> Result<(), StageError> {
        let standing = self.stage.services.groups.standing(self.lease).await;
        match standing.map_err(|error| StageError::Again(error.to_string()))? {
            Some((offset, epoch)) if epoch == self.lease.epoch && offset == self.offset => Ok(()),
            _ => Err(StageError::Fenced { topic: self.topic.name.clone(), partition: self.lease.partition }),
        }
    }

    async fn call(&mut self, batch: &[Record]) -> Result<Answer, CallError> {
        let mut instance = self.current.take().await?;
        let version = self.current.version().clone();
        let answer = self.ask(&version, &mut instance, batch).await;
        self.current.keep(instance);
        answer
    }

    /// One call of a version, and what it wrote to the state: nothing of an earlier call is left in that.
    async fn ask(
        &mut self,
        version: &Version,
        instance: &mut Instance,
        batch: &[Record],
    ) -> Result<Answer, CallError> {
        let messages = messages(batch, self.attempts + 1);
        instance.set_context(self.context(batch));
        let mut answer = ask(self.stage, version, instance, self.lease, batch, messages).await;
        if let (Ok(Answer::Done(effects, _)), Some(state)) = (&mut answer, &mut self.state) {
            effects.state = state.take().await;
        }
        answer
    }

    /// A version on probation refuses messages: the version before is given the same batch, and its answer counts. So no
    /// message is given up for what a new version makes of it, unless the one before fails on the batch as well.
    async fn ask_elder(
        &mut self,
        probation: &Probation,
        batch: &[Record],
        effects: Effects,
        refused: Vec<(usize, String)>,
        token: &CancellationToken,
    ) -> Result<(), StageError> {
        let elder = &probation.elder;
        let mut instance = match self.elder.take() {
            Some(instance) if !instance.poisoned() => instance,
            _ => {
                let made = self.stage.instantiate(elder).await;
                made.map_err(|error| StageError::Again(self.stage.words(&error)))?
            }
        };
        let answer = self.ask(elder, &mut instance, batch).await;
        self.elder = Some(instance);
        let Ok(Answer::Done(elders, also_refused)) = answer else {
            let version = self.current.version().clone();
            return self.finish(&version, batch, effects, refused, token).await;
        };
        let taken = |index: &usize| !also_refused.iter().any(|(also, _)| also == index);
        let first = refused.iter().find(|(index, _)| taken(index)).map(|(_, reason)| reason.clone());
        let more = refused.iter().filter(|(index, _)| taken(index)).count();
        let verdict = probation.count.weigh(batch.len(), more);
        self.finish(elder, batch, *elders, also_refused, token).await?;
        match verdict {
            Some(verdict) => {
                let first = self.stage.plan.config.scrub(&first.unwrap_or_default());
                self.give_up_version(&format!("{verdict}; the first because: {first}")).await
            }
            None => Ok(()),
        }
    }

    /// The version on probation has failed: the one before goes on with the batch that is not committed.
    async fn give_up_version(&mut self, reason: &str) -> Result<(), StageError> {
        self.current.give_up(reason).await?;
        self.new_version();
        Ok(())
    }

    /// What the call sees of time, chance and state: all of it follows from the batch and from what is committed.
    fn context(&mut self, batch: &[Record]) -> Context {
        let last = batch.last().map_or(self.offset, |record| record.offset);
        let (group, topic) = (self.lease.group.as_str(), self.topic.name.as_str());
        let seed = Seed::of_batch(group, topic, self.lease.partition, self.offset);
        let mut context = Context { now: self.intake.appended_at(last), seed, state: None };
        if let Some(state) = &mut self.state {
            state.begin(&mut context);
        }
        context
    }

    /// Commits a batch whose plugin call went well.
    async fn finish(
        &mut self,
        version: &Version,
        batch: &[Record],
        mut effects: Effects,
        refused: Vec<(usize, String)>,
        token: &CancellationToken,
    ) -> Result<(), StageError> {
        effects.refused += refused.len();
        for (index, reason) in refused {
            let Some(record) = batch.get(index) else { continue };
            let reason = self.stage.plan.config.scrub(&reason);
            if self.stage.on_error() == OnError::Stop {
                return self.stop_before(batch, index, reason);
            }
            // Only the first message of a batch may have been delivered before.
            let attempts = if index == 0 { self.attempts + 1 } else { 1 };
            self.give_up(&mut effects, record, DeadKind::Reject, reason, attempts);
        }
        self.store(version, batch.len(), effects, token).await?;
        self.passed(batch.len());
        self.size = (self.size * 2).min(self.stage.plan.batch.records as usize);
        Ok(())
    }

    /// `version` made the effects.
    async fn store(
        &mut self,
        version: &Version,
        count: usize,
        effects: Effects,
        token: &CancellationToken,
    ) -> Result<(), StageError> {
        let step = Step::Group { lease: self.lease, from: self.offset, to: self.offset + count as Offset };
        match commit(self.stage, version, step, &effects, token).await {
            Err(StageError::Fatal(reason)) if version.probation().is_some() => {
                return self.give_up_version(&reason).await;
            }
            committed => drop(committed?),
        }
        self.stage.cell.count(count, effects.records_out(), effects.refused);
        let current = self.current.version();
        let weighed = version.digest() != current.digest();
        self.stage.passed(current, if weighed { 0 } else { count }).await;
        if self.current.probation().is_none() {
            self.elder = None;
        }
        self.intake.done(count);
        self.offset += count as Offset;
        self.attempts = 0;
        self.backoff.reset();
        if !self.is_broken() {
            self.set(State::Running, None);
        }
        Ok(())
    }

    fn give_up(&self, effects: &mut Effects, record: &Record, kind: DeadKind, error: String, attempts: u32) {
        if self.stage.on_error() == OnError::DeadLetter {
            let appended_at = self.intake.appended_at(record.offset);
            effects.dead.push(DeadLetter { record: record.clone(), appended_at, kind, error, attempts });
        }
    }

    /// `on_error = "stop"`: what comes before the message is processed, then the stage stops in front of it.
    fn stop_before(&mut self, batch: &[Record], index: usize, reason: String) -> Result<(), StageError> {
        if index > 0 {
            self.size = index;
            return Ok(());
        }
        Err(StageError::Fatal(format!(
            "stopped before offset {} of {} partition {}, as on_error = \"stop\" says: {reason}",
            batch[0].offset, self.topic.name, self.lease.partition
        )))
    }

    /// A message asked to come again: first commit what is before it, then wait and give it alone.
    async fn redeliver(
        &mut self,
        batch: &[Record],
        index: usize,
        after: Option<Duration>,
        token: &CancellationToken,
    ) -> Result<(), StageError> {
        if index > 0 {
            self.size = index;
            return Ok(());
        }
        self.attempts += 1;
        if self.attempts >= self.stage.plan.max_attempts {
            let reason = format!("it asked to come again {} times", self.attempts);
            return self.give_up_first(batch, DeadKind::Retries, reason, token).await;
        }
        self.size = 1;
        let wait = self.backoff.pause_for(after);
        self.set(State::Backoff, Some(format!("offset {} is to come again", batch[0].offset)));
        self.pause(token, wait).await;
        Ok(())
    }

    /// The first message of a batch has used up its attempts.
    async fn give_up_first(
        &mut self,
        batch: &[Record],
        kind: DeadKind,
        reason: String,
        token: &CancellationToken,
    ) -> Result<(), StageError> {
        if self.current.probation().is_some() {
            return self.give_up_version(&format!("at offset {}: {reason}", batch[0].offset)).await;
        }
        if self.stage.on_error() == OnError::Stop {
            return self.stop_before(batch, 0, reason);
        }
        let mut effects = Effects { refused: 1, ..Effects::default() };
        tracing::warn!(stage = self.stage.label(), offset = batch[0].offset, reason, "message given up");
        self.give_up(&mut effects, &batch[0], kind, reason, self.attempts);
        let version = self.current.version().clone();
        self.store(&version, 1, effects, token).await?;
        if kind != DeadKind::Retries {
            self.message_failed();
        }
        Ok(())
    }

    /// The call itself failed.
    async fn failed(
        &mut self,
        batch: &[Record],
        error: CallError,
        token: &CancellationToken,
    ) -> Result<(), StageError> {
        let words = self.stage.words(&error);
        let tries =
            matches!(error, CallError::Retry { .. }) && self.attempts + 1 < self.stage.plan.max_attempts;
        if self.current.probation().is_some() && !tries && !is_of_the_host(&error) {
            let reason = format!("at offset {}: {words}", self.offset);
            return self.give_up_version(&reason).await;
        }
        let kind = match &error {
            CallError::Fatal(_) | CallError::Configure(_) | CallError::BadDescriptor { .. } => {
                return Err(StageError::Fatal(words));
            }
            CallError::Retry { after, .. } => {
                let wait = self.backoff.pause_for(*after);
                self.attempts += 1;
                self.set(State::Backoff, Some(words));
                self.pause(token, wait).await;
                return Ok(());
            }
            error => match DeadKind::of(error) {
                Some(kind) => kind,
                None => return Err(StageError::Again(words)),
            },
        };
        self.stage.cell.failed(kind.as_str());
        self.call_failed();
        let stage = self.stage.label();
        tracing::warn!(
            stage,
            offset = self.offset,
            records = batch.len(),
            error = words,
            "the plugin failed on a batch"
        );
        if batch.len() > 1 {
            self.size = batch.len().div_ceil(2);
            return Ok(());
        }
        self.attempts += 1;
        if self.attempts >= self.stage.plan.max_attempts {
            return self.give_up_first(batch, kind, words, token).await;
        }
        if self.is_broken() {
            return Ok(());
        }
        self.set(State::Backoff, Some(words));
        let wait = self.backoff.pause();
        self.pause(token, wait).await;
        Ok(())
    }

    /// Waits, unless the host stops or another version comes: that one may do better.
    async fn pause(&mut self, token: &CancellationToken, wait: Duration) {
        tokio::select! {
            () = token.cancelled() => {}
            () = self.current.pause(wait) => {}
        }
    }
}

/// A group that lags behind what is in Postgres is told what it misses and where that is.
fn left_postgres(lease: &Lease, topic: &Topic, offset: Offset, start: Offset, end: Offset) -> String {
    let (group, name, partition) = (&lease.group, &topic.name, lease.partition);
    if offset > end {
        return format!(
            "group {group} stands at offset {offset} of {name} partition {partition}, but the log ends at {end}; move the \
             group with `tidemill group seek {group} {name} latest`"
        );
    }
    let place = match topic.cold {
        Cold::None => "were dropped, since the topic has no archive",
        Cold::Forever => "are not in the bucket either",
        Cold::For(_) => "are older than the topic's cold retention",
    };
    format!(
        "group {group} lags behind: offsets {offset} up to {start} of {name} partition {partition} have left Postgres and \
         {place}; to go on with what is there move the group with `tidemill group seek {group} {name} earliest`, and to \
         keep messages for it set hold = [\"{group}\"] in the topic's retention"
    )
}
