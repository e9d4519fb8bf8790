//! One call of a plugin on a batch, and what its answer means for the batch.

use std::time::Duration;

use crate::config::plan::StageKind;
use crate::ids::{LogEpoch, Offset};
use crate::log::offsets::Lease;
use crate::pipeline::effects::{self, Effects, Verdict, judge};
use crate::pipeline::stage::Stage;
use crate::pipeline::version::Version;
use crate::plugin::{CallError, Header as PluginHeader, Instance, Message, Token};
use crate::record::Record;

/// What a plugin made of a batch.
pub enum Answer {
    /// These effects, with these messages (index, reason) refused.
    Done(Box<Effects>, Vec<(usize, String)>),
    /// The message at the index is to come again.
    Redeliver { index: usize, after: Option<Duration> },
}

pub fn messages(batch: &[Record], first_attempt: u32) -> Vec<Message> {
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
pub async fn ask(
    stage: &Stage,
    version: &Version,
    instance: &mut Instance,
    lease: &Lease,
    batch: &[Record],
    messages: Vec<Message>,
) -> Result<Answer, CallError> {
    let mut effects = Effects::default();
    let refusals = match stage.plan.kind {
        StageKind::Transform => {
            let outcome = instance.process(messages).await?;
            effects = effects::route(&stage.outlets, outcome.emissions, batch)?.into();
            outcome.refusals
        }
        StageKind::Materializer => {
            let outcome = instance.materialize(messages).await?;
            effects.tables = effects::changes(&version.tables, outcome.changes, batch);
            outcome.refusals
        }
        StageKind::Sink => {
            let topic = stage.input.as_ref().map(|topic| topic.name.to_string()).unwrap_or_default();
            let first = batch.first().map_or(0, |record| record.offset);
            let next = first + batch.len() as Offset;
            // Other records than those that had these offsets before are another delivery.
            let group = match lease.given_anew(next) {
                None => lease.group.to_string(),
                Some(LogEpoch(epoch)) => format!("{}@{epoch}", lease.group),
            };
            instance
                .deliver(Token { group, topic, partition: lease.partition, first, next }, messages)
                .await?
        }
        kind @ (StageKind::Producer | StageKind::Worker) => {
            return Err(CallError::Fatal(format!("a {kind} reads no topic")));
        }
    };
    Ok(match judge(refusals) {
        Verdict::Commit(rejected) => Answer::Done(Box::new(effects), rejected),
        Verdict::Redeliver { index, after } => {
            Answer::Redeliver { index, after: after.map(Duration::from_micros) }
        }
    })
}
