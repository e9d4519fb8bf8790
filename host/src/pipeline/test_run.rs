//! Runs a `[[tests]]` entry: the stage's real component on the given input, without Postgres.
//!
//! Everything about a run is fixed, so that it comes out the same everywhere: the clock stands at the start of 1970, messages
//! are of partition 0 with offsets from 0, batches are as large as the stage's `batch.records`, state begins empty and is kept
//! from batch to batch, requests are refused. What a port puts out that `to` does not connect is dropped, as it is when the
//! stage runs.

mod compare;
pub mod rows;

use serde_json::Value;

use super::stage::{limits, state_limits};
use crate::config::plan::{StageKind, StagePlan, StageTest};
use crate::ids::Offset;
use crate::plugin::state::Memory;
use crate::plugin::{
    CallError, Context, DEFAULT_PORT, Descriptor, Emission, Instance, Job, Message, Plugin, Poll, Refusal,
    Refused, Seed, Token, Verdict,
};

/// What a stage made of a test's input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub emissions: Vec<Emitted>,
    pub refusals: Vec<Refuse>,
    /// Rows by table of the plugin.
    pub rows: Vec<(String, Vec<Value>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    pub port: String,
    /// As text; bytes that are not UTF-8 are replaced.
    pub payload: String,
}

/// One refused message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// Its place in the test's input, from 0.
    pub input: usize,
    pub reason: String,
}

/// Runs a test. The lines say how what came out differs from what was expected; none if it does not.
pub async fn run(
    plugin: &Plugin,
    descriptor: &Descriptor,
    stage: &StagePlan,
    test: &StageTest,
) -> Result<Vec<String>, CallError> {
    let outcome = outcome(plugin, descriptor, stage, &test.input).await?;
    Ok(compare::differences(&test.expect, &outcome))
}

/// What a stage makes of some payloads.
pub async fn outcome(
    plugin: &Plugin,
    descriptor: &Descriptor,
    stage: &StagePlan,
    input: &[String],
) -> Result<Outcome, CallError> {
    let label = format!("test of {}", stage.name);
    let plugin = plugin.granted(plugin.grants().offline()).unwrap_or_else(|_| plugin.clone());
    let mut instance = plugin.instantiate(&label, &stage.config.reveal(), &limits(&stage.limits)).await?;
    let state = Memory::default();
    let space = state.space(state_limits(&stage.limits));
    let mut run = Run { stage, outcome: Outcome::default(), changes: Vec::new() };
    if stage.kind == StageKind::Producer {
        let poll = Poll { position: None, now: 0, max_records: stage.batch.records };
        let production = instance.produce(poll).await?;
        run.emitted(production.emissions);
    }
    let size = stage.jobs.as_ref().map_or(stage.batch.records, |jobs| jobs.batch);
    let size = (size as usize).max(1);
    for (i, payloads) in input.chunks(size).enumerate() {
        let session = space.session(0);
        let seed = Seed::of(&[b"test", &(i as u64).to_be_bytes()]);
        instance.set_context(Context { now: 0, seed, state: Some(session.clone()) });
        run.batch(&mut instance, i * size, payloads).await?;
        if let Some(writes) = session.take().await {
            state.commit(&writes);
        }
    }
    let mut outcome = run.outcome;
    outcome.rows = rows::fold(descriptor, run.changes);
    Ok(outcome)
}

/// A test under way.
struct Run<'a> {
    stage: &'a StagePlan,
    outcome: Outcome,
    changes: Vec<rows::Change>,
}

impl Run<'_> {
    async fn batch(
        &mut self,
        instance: &mut Instance,
        first: usize,
        payloads: &[String],
    ) -> Result<(), CallError> {
        let batch: Vec<Message> =
            payloads.iter().enumerate().map(|(i, text)| message(first + i, text)).collect();
        match self.stage.kind {
            StageKind::Producer => {}
            StageKind::Worker => {
                let jobs = batch.into_iter().map(job).collect::<Vec<_>>();
                let answer = instance.work(jobs).await?;
                self.emitted(answer.emissions);
                self.judged(first, answer.verdicts);
            }
            StageKind::Transform => {
                let answer = instance.process(batch).await?;
                self.emitted(answer.emissions);
                self.refused(first, answer.refusals);
            }
            StageKind::Materializer => {
                let answer = instance.materialize(batch).await?;
                self.changes
                    .extend(answer.changes.into_iter().map(|change| rows::Change::new(first, change)));
                self.refused(first, answer.refusals);
            }
            StageKind::Sink => {
                let token = self.token(first as Offset, (first + batch.len()) as Offset);
                let refusals = instance.deliver(token, batch).await?;
                self.refused(first, refusals);
            }
        }
        Ok(())
    }

    fn token(&self, first: Offset, next: Offset) -> Token {
        let input = self.stage.input.as_ref();
        Token {
            group: input.map(|i| i.group.to_string()).unwrap_or_default(),
            topic: input.map(|i| i.topic.to_string()).unwrap_or_default(),
            partition: 0,
            first,
            next,
        }
    }

    fn emitted(&mut self, emissions: Vec<Emission>) {
        for emission in emissions {
            let port = emission.port.unwrap_or_else(|| DEFAULT_PORT.to_string());
            if self.stage.outputs.contains_key(&port) {
                let payload = String::from_utf8_lossy(&emission.payload).into_owned();
                self.outcome.emissions.push(Emitted { port, payload });
            }
        }
    }

    /// Jobs that do not end as done are refused.
    fn judged(&mut self, first: usize, verdicts: Vec<Verdict>) {
        let reason = |verdict| match verdict {
            Verdict::Done(_) => None,
            Verdict::Reject(reason) | Verdict::Cancel(reason) => Some(reason),
            Verdict::Retry(retry) => Some(retry.reason),
            Verdict::Snooze(_) => Some("asked for again".to_string()),
        };
        let refused = verdicts.into_iter().enumerate().filter_map(|(i, verdict)| Some((i, reason(verdict)?)));
        self.outcome.refusals.extend(refused.map(|(i, reason)| Refuse { input: first + i, reason }));
    }

    fn refused(&mut self, first: usize, refusals: Vec<Refused>) {
        self.outcome.refusals.extend(refusals.into_iter().map(|refused| Refuse {
            input: first + refused.input as usize,
            reason: match refused.refusal {
                Refusal::Reject(reason) => reason,
                Refusal::Retry(_) => "asked for again".to_string(),
            },
        }));
    }
}

/// A job with the usual settings, as it comes for the first time.
fn job(message: Message) -> Job {
    Job {
        id: message.offset + 1,
        attempt: 1,
        max_attempts: 10,
        priority: 2,
        key: message.key,
        headers: message.headers,
        enqueued: message.timestamp,
        payload: message.payload,
    }
}

fn message(offset: usize, payload: &str) -> Message {
    Message {
        partition: 0,
        offset: offset as Offset,
        timestamp: 0,
        attempt: 1,
        key: None,
        headers: Vec::new(),
        payload: payload.as_bytes().to_vec(),
    }
}
