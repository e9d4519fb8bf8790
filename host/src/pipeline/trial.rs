//! Runs a component on records without a host: no Postgres, no topics, state in memory.
//!
//! What a call sees is fixed by its messages, as it is in a host: the time is when the last of them was appended, chance
//! begins at the group, the topic, the partition and the first offset, and state is what the calls before left. So a trial
//! comes out the same each time, and as it did in the host if it is given the same messages, batches and state.
//!
//! What fails is told, and not repeated: a batch that makes the plugin trap, time out or grow too large is cut in half until
//! the message at fault stands alone, and the rest goes on, as in a host. A message that is to come again does not.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stage::state_limits;
use crate::config::plan::StageLimits;
use crate::ids::{Micros, Offset};
use crate::plugin::state::{Memory, Space};
use crate::plugin::{
    CallError, Context, Emission, Instance, Job, Limits, Message, Plugin, PluginKind, Poll, Refusal, Refused,
    RetryJob, RowChange, Seed, Token, Verdict,
};

/// What the jobs of a trial are, which are made of messages.
const USUAL_ATTEMPTS: u32 = 10;
const USUAL_PRIORITY: u8 = 2;

/// A message, and when it was appended.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub message: Message,
    pub appended_at: Micros,
}

/// Whose messages they are.
#[derive(Clone, Debug)]
pub struct Reader {
    pub group: String,
    pub topic: String,
}

/// One thing that a plugin did.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The place in the batch of the message it belongs to; None for what belongs to none.
    pub input: Option<usize>,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Without a time if it is that of its message.
    Emission(Emission),
    Change(RowChange),
    Rejected(String),
    /// The message is to come again, after so many microseconds if that was said.
    Again(Option<u64>),
    /// The job is done, with what it led to.
    Done(Option<Vec<u8>>),
    /// The job's attempt failed, in the worker's words.
    Retry(RetryJob),
    /// The job ends without being done.
    Cancelled(String),
    /// The call failed: in a host the message would be tried again, and then given up.
    Failed(CallError),
}

/// What a trial has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub calls: u64,
    /// In calls, without compiling and starting.
    pub time: Duration,
    /// The most bytes of memories and tables that one instance had.
    pub memory: u64,
}

/// A configured plugin on trial. One instance serves all calls, until one fails.
pub struct Trial {
    plugin: Plugin,
    reader: Reader,
    config: Value,
    limits: Limits,
    instance: Option<Instance>,
    memory: Memory,
    space: Arc<Space>,
    used: Used,
}

impl Trial {
    /// Starts and configures the plugin, which must have the grants that it needs.
    ///
    /// # Errors
    ///
    /// As [`Plugin::instantiate`].
    pub async fn start(
        plugin: Plugin,
        config: Value,
        limits: &StageLimits,
        reader: Reader,
    ) -> Result<Self, CallError> {
        let memory = Memory::default();
        let space = memory.space(state_limits(limits));
        let limits = super::stage::limits(limits);
        let mut trial =
            Self { plugin, reader, config, limits, instance: None, memory, space, used: Used::default() };
        let instance = trial.instance().await?;
        trial.used.memory = instance.memory_used();
        trial.instance = Some(instance);
        Ok(trial)
    }

    pub fn used(&self) -> Used {
        self.used
    }

    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// What the plugin makes of a batch, in the order of its answers.
    ///
    /// # Errors
    ///
    /// What would stop the stage in a host: the plugin gave up, or the host is at fault.
    pub async fn batch(&mut self, batch: &[Input]) -> Result<Vec<Event>, CallError> {
        let mut events = Vec::new();
        // The next part is on top.
        let mut parts: Vec<Range<usize>> = Vec::new();
        parts.extend((!batch.is_empty()).then_some(0..batch.len()));
        while let Some(part) = parts.pop() {
            match self.call(&batch[part.clone()]).await {
                Ok(found) => events.extend(found.into_iter().map(|event| event.behind(part.start))),
                Err(error) if splits(&error) && part.len() > 1 => {
                    let middle = part.start + part.len().div_ceil(2);
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                }
                Err(error) if splits(&error) => {
                    events.push(Event { input: Some(part.start), what: What::Failed(error) });
                }
                Err(error @ CallError::Retry { .. }) => {
                    events.push(Event { input: None, what: What::Failed(error) });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(events)
    }

    /// What a producer makes, and its position after that.
    ///
    /// # Errors
    ///
    /// Any failure of the call.
    pub async fn poll(&mut self, poll: Poll) -> Result<(Vec<Event>, Vec<u8>), CallError> {
        let mut instance = self.instance().await?;
        let polls = self.used.calls.to_be_bytes();
        instance.set_context(Context { now: poll.now, seed: Seed::of(&[b"poll", &polls]), state: None });
        let began = Instant::now();
        let answer = instance.produce(poll).await;
        self.after(instance, began);
        let production = answer?;
        Ok((emissions(production.emissions), production.position))
    }

    /// One call. Its writes to the state count if it succeeds.
    async fn call(&mut self, batch: &[Input]) -> Result<Vec<Event>, CallError> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(Vec::new()) };
        let mut instance = self.instance().await?;
        let session = self.space.session(last.appended_at);
        let (partition, first) = (first.message.partition, first.message.offset);
        instance.set_context(Context {
            now: last.appended_at,
            seed: Seed::of_batch(&self.reader.group, &self.reader.topic, partition, first),
            state: Some(Arc::clone(&session)),
        });
        let messages: Vec<Message> = batch.iter().map(|input| input.message.clone()).collect();
        let token = Token {
            group: self.reader.group.clone(),
            topic: self.reader.topic.clone(),
            partition,
            first,
            next: last.message.offset + 1,
        };
        let began = Instant::now();
        let answer = answer(&mut instance, token, messages).await;
        self.after(instance, began);
        let mut events = answer?;
        events.iter_mut().for_each(|event| event.without_time_of(batch));
        if let Some(writes) = session.take().await {
            self.memory.commit(&writes);
        }
        Ok(events)
    }

    async fn instance(&mut self) -> Result<Instance, CallError> {
        match self.instance.take() {
            Some(instance) => Ok(instance),
            None => {
                let label = self.plugin.digest().short().to_string();
                self.plugin.instantiate(&label, &self.config, &self.limits).await
            }
        }
    }

    fn after(&mut self, instance: Instance, began: Instant) {
        self.used.time += began.elapsed();
        self.used.calls += 1;
        self.used.memory = self.used.memory.max(instance.memory_used());
        self.instance = (!instance.poisoned()).then_some(instance);
    }
}

impl Event {
    /// An emission without a time gets that of its message, so those that name it say no more.
    fn without_time_of(&mut self, batch: &[Input]) {
        let message = self.input.and_then(|input| batch.get(input)).map(|input| &input.message);
        if let (What::Emission(emission), Some(message)) = (&mut self.what, message)
            && emission.timestamp == Some(message.timestamp)
        {
            emission.timestamp = None;
        }
    }

    /// The event as one of a larger batch, in which its own has so many messages before it.
    fn behind(self, count: usize) -> Self {
        Self { input: self.input.map(|input| input + count), ..self }
    }
}

/// Whether a host would look for the one message at fault.
fn splits(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Trap { .. }
            | CallError::Deadline { .. }
            | CallError::Memory { .. }
            | CallError::OutputTooLarge(_)
            | CallError::BadOutput { .. }
    )
}

async fn answer(
    instance: &mut Instance,
    token: Token,
    messages: Vec<Message>,
) -> Result<Vec<Event>, CallError> {
    Ok(match instance.kind() {
        PluginKind::Transform => {
            let outcome = instance.process(messages).await?;
            let mut events = emissions(outcome.emissions);
            events.extend(outcome.refusals.into_iter().map(refused));
            events
        }
        PluginKind::Materializer => {
            let outcome = instance.materialize(messages).await?;
            let change =
                |change: RowChange| Event { input: Some(change.input as usize), what: What::Change(change) };
            outcome.changes.into_iter().map(change).chain(outcome.refusals.into_iter().map(refused)).collect()
        }
        PluginKind::Sink => {
            let refusals = instance.deliver(token, messages).await?;
            refusals.into_iter().map(refused).collect()
        }
        PluginKind::Worker => {
            let outcome = instance.work(messages.into_iter().map(job).collect::<Vec<Job>>()).await?;
            let mut events = emissions(outcome.emissions);
            events.extend(outcome.verdicts.into_iter().enumerate().map(judged));
            events
        }
        kind @ PluginKind::Producer => return Err(CallError::WrongKind { kind, function: "process" }),
    })
}

fn emissions(emissions: Vec<Emission>) -> Vec<Event> {
    let event = |emission: Emission| Event {
        input: emission.input.map(|input| input as usize),
        what: What::Emission(emission),
    };
    emissions.into_iter().map(event).collect()
}

fn refused(refused: Refused) -> Event {
    let what = match refused.refusal {
        Refusal::Reject(reason) => What::Rejected(reason),
        Refusal::Retry(after) => What::Again(after),
    };
    Event { input: Some(refused.input as usize), what }
}

/// A message as the payload of a job, whose id is the offset and one, since ids begin there.
fn job(message: Message) -> Job {
    Job {
        id: message.offset + 1,
        attempt: message.attempt,
        max_attempts: USUAL_ATTEMPTS.max(message.attempt),
        priority: USUAL_PRIORITY,
        key: message.key,
        headers: message.headers,
        enqueued: message.timestamp,
        payload: message.payload,
    }
}

fn judged((job, verdict): (usize, Verdict)) -> Event {
    let what = match verdict {
        Verdict::Done(result) => What::Done(result),
        Verdict::Retry(retry) => What::Retry(retry),
        Verdict::Snooze(after) => What::Again(Some(after)),
        Verdict::Reject(reason) => What::Rejected(reason),
        Verdict::Cancel(reason) => What::Cancelled(reason),
    };
    Event { input: Some(job), what }
}

/// Messages of partition 0 with offsets from 0, as tests give them: appended when they happened, one after the other.
pub fn input(offset: Offset, timestamp: Micros, key: Option<Vec<u8>>, payload: Vec<u8>) -> Input {
    let message = Message { partition: 0, offset, timestamp, attempt: 1, key, headers: Vec::new(), payload };
    Input { message, appended_at: timestamp }
}

#[cfg(test)]
mod tests;
