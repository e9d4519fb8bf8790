//! The loop of a transform, materializer or sink on one partition: take, run, commit.
//!
//! The plugin runs outside any transaction. What fails is data: a refused message goes where `on_error` says; a batch that
//! makes the plugin trap, time out or grow too large is cut in half until the one message at fault stands alone, so that
//! the rest goes on. Order is kept throughout: nothing after a message is committed before it is.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::commit::{Step, commit};
use super::effects::{self, DeadKind, DeadLetter, Effects, Verdict, judge};
use super::intake::Intake;
use super::stage::{Stage, StageError, state_limits};
use super::status::State;
use crate::config::plan::{Cold, OnError, StageKind};
use crate::ids::{Offset, Partition};
use crate::log::offsets::Lease;
use crate::log::{FetchError, Topic};
use crate::plugin::{CallError, Context, Grant, Header as PluginHeader, Instance, Message, Seed, Token};
use crate::record::Record;
use crate::replay::ReplayError;
use crate::state::TaskState;

/// How long a look at the log waits before the task checks whether it should stop.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a task asks for a partition that another host holds.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What a plugin made of a batch.
enum Answer {
    /// These effects, with these messages (index, reason) refused.
    Done(Effects, Vec<(usize, String)>),
    /// The message at the index is to come again.
    Redeliver { index: usize, after: Option<Duration> },
}

/// Runs one partition until the token is cancelled or something ends it.
pub async fn run(
    stage: Arc<Stage>,
    partition: Partition,
    token: CancellationToken,
) -> Result<(), StageError> {
    let (Some(topic), Some(input)) = (&stage.input, &stage.plan.input) else {
        return Err(StageError::Fatal("a stage of this kind needs a topic to read".to_string()));
    };
    let groups = &stage.services.groups;
    let label = stage.label();
    loop {
        let acquired = groups.acquire(&input.group, topic.id, partition, &stage.services.host, &label).await;
        let lease = match acquired.map_err(|error| StageError::Again(error.to_string()))? {
            Some(lease) => lease,
            None => {
                stage.cell.set(partition, State::Idle, Some("another host holds this partition".to_string()));
                if stopped(&token, ASK_AGAIN).await {
                    return Ok(());
                }
                continue;
            }
        };
        let mut task = Task::new(&stage, topic.clone(), &lease).await?;
        let ended = task.run(&token).await;
        match ended {
            // A seek or another host: look again who owns it.
            Err(StageError::Fenced { .. }) => {
                tracing::info!(stage = label, partition, "lease lost, asking again")
            }
            ended => {
                if let Err(error) = groups.release(&lease).await {
                    tracing::debug!(stage = label, partition, %error, "the lease was not given back; it will run out");
                }
                return ended;
            }
        }
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
    instance: Option<Instance>,
    state: Option<TaskState>,
    /// Records the next call may get: halved by a failure, doubled by a success.
    size: usize,
    /// Deliveries so far of the message at `offset`.
    attempts: u32,
    backoff: Backoff,
}

impl<'a> Task<'a> {
    async fn new(stage: &'a Stage, topic: Arc<Topic>, lease: &'a Lease) -> Result<Self, StageError> {
        let offset = lease.next_offset;
        let intake =
            Intake::new(&stage.services.replay, topic.clone(), lease.partition, offset, stage.plan.batch);
        let size = stage.plan.batch.records as usize;
        let instance = Some(stage.instantiate().await?);
        let state = match stage.plugin.grants().has(Grant::State) {
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
            instance,
            state,
            size,
            attempts: 0,
            backoff: Backoff::default(),
        })
    }

    async fn run(&mut self, token: &CancellationToken) -> Result<(), StageError> {
        self.set(State::Running, None);
        while !token.is_cancelled() {
            let there = tokio::select! {
                there = self.intake.fill(PATIENCE) => there.map_err(|error| self.explain(error))?,
                () = token.cancelled() => return Ok(()),
            };
            if !there {
                self.check_lease().await?;
                continue;
            }
            let batch = self.intake.batch(self.size).to_vec();
            let answer = self.call(&batch).await;
            match answer {
                Ok(Answer::Done(effects, refused)) => self.finish(&batch, effects, refused, token).await?,
                Ok(Answer::Redeliver { index, after }) => self.redeliver(&batch, index, after, token).await?,
                Err(error) => self.failed(&batch, error, token).await?,
            }
        }
        Ok(())
    }

    fn set(&self, state: State, reason: Option<String>) {
        self.stage.cell.set(self.lease.partition, state, reason);
    }

    fn explain(&self, error: ReplayError) -> StageError {
        match error {
            ReplayError { source: FetchError::OutOfRange { start, end, .. }, .. } => {
                StageError::Fatal(left_postgres(self.lease, &self.topic, self.offset, start, end))
            }
            error => StageError::Again(error.to_string()),
        }
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
        let mut instance = match self.instance.take() {
            Some(instance) if !instance.poisoned() => instance,
            _ => self.stage.instantiate().await.map_err(|error| match error {
                StageError::Fatal(reason) => CallError::Fatal(reason),
                error => CallError::Internal { message: error.to_string() },
            })?,
        };
        let messages = messages(batch, self.attempts + 1);
        instance.set_context(self.context(batch));
        let answer = ask(self.stage, &mut instance, self.lease, batch, messages).await;
        self.instance = Some(instance).filter(|instance| !instance.poisoned());
        self.stage.cell.observe(self.lease.partition, self.instance.as_ref());
        answer
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
        batch: &[Record],
        mut effects: Effects,
        refused: Vec<(usize, String)>,
        token: &CancellationToken,
    ) -> Result<(), StageError> {
        effects.refused += refused.len();
        if let Some(state) = &mut self.state {
            effects.state = state.take().await;
        }
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
        self.store(batch.len(), effects, token).await?;
        self.size = (self.size * 2).min(self.stage.plan.batch.records as usize);
        Ok(())
    }

    async fn store(
        &mut self,
        count: usize,
        effects: Effects,
        token: &CancellationToken,
    ) -> Result<(), StageError> {
        let step = Step::Group { lease: self.lease, from: self.offset, to: self.offset + count as Offset };
        commit(self.stage, step, &effects, token).await?;
        self.stage.cell.count(count, effects.records_out(), effects.refused);
        self.intake.done(count);
        self.offset += count as Offset;
        self.attempts = 0;
        self.backoff.reset();
        self.set(State::Running, None);
        Ok(())
    }

    fn give_up(&self, effects: &mut Effects, record: &Record, kind: DeadKind, error: String, attempts: u32) {
        if self.stage.on_error() == OnError::DeadLetter {
            effects.dead.push(DeadLetter { record: record.clone(), kind, error, attempts });
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
        let wait = after.unwrap_or_else(|| self.backoff.pause());
        self.set(State::Backoff, Some(format!("offset {} is to come again", batch[0].offset)));
        stopped(token, wait).await;
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
        if self.stage.on_error() == OnError::Stop {
            return self.stop_before(batch, 0, reason);
        }
        let mut effects = Effects { refused: 1, ..Effects::default() };
        tracing::warn!(stage = self.stage.label(), offset = batch[0].offset, reason, "message given up");
        self.give_up(&mut effects, &batch[0], kind, reason, self.attempts);
        self.store(1, effects, token).await
    }

    /// The call itself failed.
    async fn failed(
        &mut self,
        batch: &[Record],
        error: CallError,
        token: &CancellationToken,
    ) -> Result<(), StageError> {
        let words = self.stage.words(&error);
        let kind = match &error {
            CallError::Fatal(_) | CallError::Configure(_) | CallError::BadDescriptor { .. } => {
                return Err(StageError::Fatal(words));
            }
            CallError::Retry { after, .. } => {
                let wait = after.unwrap_or_else(|| self.backoff.pause());
                self.attempts += 1;
                self.set(State::Backoff, Some(words));
                stopped(token, wait).await;
                return Ok(());
            }
            error => match DeadKind::of(error) {
                Some(kind) => kind,
                None => return Err(StageError::Again(words)),
            },
        };
        self.stage.cell.failed(kind.as_str());
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
        self.set(State::Backoff, Some(words));
        stopped(token, self.backoff.pause()).await;
        Ok(())
    }
}

fn messages(batch: &[Record], first_attempt: u32) -> Vec<Message> {
    let message = |(at, record): (usize, &Record)| Message {
        partition: record.partition,
        offset: record.offset,
        timestamp: record.timestamp,
        attempt: if at == 0 { first_attempt } else { 1 },
        key: record.key.as_ref().map(|key| key.to_vec()),
        headers: record
            .headers
            .iter()
            .map(|header| PluginHeader { name: header.name.clone(), value: header.value.to_vec() })
            .collect(),
        payload: record.payload.to_vec(),
    };
    batch.iter().enumerate().map(message).collect()
}

/// One call of the stage's kind.
async fn ask(
    stage: &Stage,
    instance: &mut Instance,
    lease: &Lease,
    batch: &[Record],
    messages: Vec<Message>,
) -> Result<Answer, CallError> {
    let mut effects = Effects::default();
    let refusals = match stage.plan.kind {
        StageKind::Transform => {
            let outcome = instance.process(messages).await?;
            effects.outputs = effects::route(&stage.outputs, outcome.emissions, batch);
            outcome.refusals
        }
        StageKind::Materializer => {
            let outcome = instance.materialize(messages).await?;
            effects.tables = effects::changes(stage, outcome.changes, batch);
            outcome.refusals
        }
        StageKind::Sink => {
            let topic = stage.input.as_ref().map(|topic| topic.name.to_string()).unwrap_or_default();
            let first = batch.first().map_or(0, |record| record.offset);
            let next = first + batch.len() as Offset;
            let group = lease.group.to_string();
            instance
                .deliver(Token { group, topic, partition: lease.partition, first, next }, messages)
                .await?
        }
        StageKind::Producer => {
            return Err(CallError::Fatal("a producer reads no topic".to_string()));
        }
    };
    Ok(match judge(refusals) {
        Verdict::Commit(rejected) => Answer::Done(effects, rejected),
        Verdict::Redeliver { index, after } => {
            Answer::Redeliver { index, after: after.map(Duration::from_micros) }
        }
    })
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
        Cold::Forever | Cold::For(_) => "are in the bucket, where queries read them and groups do not yet",
    };
    format!(
        "group {group} lags behind: offsets {offset} up to {start} of {name} partition {partition} have left Postgres and \
         {place}; to go on with what is there move the group with `tidemill group seek {group} {name} earliest`, and to \
         keep messages for it set hold = [\"{group}\"] in the topic's retention"
    )
}
