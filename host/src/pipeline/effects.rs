//! What one batch led to, sorted out of a plugin's answer. Pure: nothing here waits or writes.

pub mod jobs;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{Micros, Partition, QueueName, TopicId};
use crate::log::{Topic, partition_of};
use crate::plugin::{
    CallError, Change as TableChange, DEFAULT_PORT, Emission, Refusal, Refused, RowChange as PluginChange,
    Value,
};
use crate::queue::NewJob;
use crate::record::{Header, NewRecord, Record};
use crate::state::StateChanges;
use crate::tables::Table;
use crate::tables::apply::fold;
use crate::tables::spec::{Cell, Change, RowChange};

/// Everything that belongs into the commit of one batch.
#[derive(Debug, Default)]
pub struct Effects {
    /// Sorted by (topic, partition): every transaction takes the counters in this order.
    pub outputs: Vec<Output>,
    /// Sorted by queue.
    pub jobs: Vec<(QueueName, Vec<NewJob>)>,
    pub tables: Vec<(Arc<Table>, Vec<Change>)>,
    pub dead: Vec<DeadLetter>,
    pub state: Option<StateChanges>,
    /// Messages refused, whatever became of them.
    pub refused: usize,
}

/// Where what comes out of a port goes.
#[derive(Clone, Debug)]
pub enum Outlet {
    Topic(Arc<Topic>),
    /// Each emission becomes a job. `ordered`: of a queue that takes no priorities.
    Queue {
        name: QueueName,
        ordered: bool,
    },
}

impl Outlet {
    pub fn topic(&self) -> Option<&Arc<Topic>> {
        match self {
            Self::Topic(topic) => Some(topic),
            Self::Queue { .. } => None,
        }
    }
}

/// Emissions that were sent where their ports lead.
#[derive(Debug, Default)]
pub struct Routed {
    /// Sorted by (topic, partition).
    pub outputs: Vec<Output>,
    /// Sorted by queue.
    pub jobs: Vec<(QueueName, Vec<NewJob>)>,
}

impl From<Routed> for Effects {
    fn from(Routed { outputs, jobs }: Routed) -> Self {
        Self { outputs, jobs, ..Self::default() }
    }
}

#[derive(Debug)]
pub struct Output {
    pub topic: Arc<Topic>,
    pub partition: Partition,
    pub records: Vec<NewRecord>,
    /// For each record, the place of its input in the batch.
    pub index: Vec<i16>,
}

/// A message a stage gave up on.
#[derive(Debug)]
pub struct DeadLetter {
    pub record: Record,
    pub appended_at: Micros,
    pub kind: DeadKind,
    pub error: String,
    pub attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadKind {
    Reject,
    Retries,
    Trap,
    Deadline,
    Memory,
    Output,
    /// The plugin gave up; only of a letter that was run again, since a stage stops at it.
    Fatal,
}

impl DeadKind {
    /// How a call failed by the plugin's fault; None if it was not that.
    pub fn of(error: &CallError) -> Option<Self> {
        match error {
            CallError::Trap { .. } => Some(Self::Trap),
            CallError::Deadline { .. } => Some(Self::Deadline),
            CallError::Memory { .. } => Some(Self::Memory),
            CallError::OutputTooLarge(_) | CallError::BadOutput { .. } => Some(Self::Output),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Retries => "retries",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Fatal => "fatal",
        }
    }
}

impl Effects {
    pub fn records_out(&self) -> usize {
        self.outputs.iter().map(|output| output.records.len()).sum::<usize>()
            + self.jobs.iter().map(|(_, jobs)| jobs.len()).sum::<usize>()
            + self.tables.iter().map(|(_, changes)| changes.len()).sum::<usize>()
    }

    /// The output topics, each once.
    pub fn topics(&self) -> impl Iterator<Item = TopicId> + '_ {
        let mut last = None;
        self.outputs.iter().map(|output| output.topic.id).filter(move |id| last.replace(*id) != Some(*id))
    }
}

/// Sends emissions to the partitions of their topics and to their queues. `inputs` is the batch they were made from, empty
/// for a producer and a worker. A port that the pipeline file leaves unconnected drops what comes out of it. The error is a
/// job that its queue could not take: [`CallError::BadOutput`].
pub fn route(
    outlets: &BTreeMap<String, Outlet>,
    emissions: Vec<Emission>,
    inputs: &[Record],
) -> Result<Routed, CallError> {
    let mut jobs: BTreeMap<QueueName, Vec<NewJob>> = BTreeMap::new();
    let mut routed: BTreeMap<(TopicId, Partition), Output> = BTreeMap::new();
    // Records without a key of one call stay together; calls take turns over the partitions by their first input.
    let turn = inputs.first().map_or_else(|| fastrand::u32(..), |record| record.partition);
    for emission in emissions {
        let topic = match outlets.get(emission.port.as_deref().unwrap_or(DEFAULT_PORT)) {
            None => continue,
            Some(Outlet::Topic(topic)) => topic,
            Some(Outlet::Queue { name, ordered }) => {
                jobs.entry(name.clone()).or_default().push(jobs::new_job(emission, *ordered)?);
                continue;
            }
        };
        let input = emission.input.map_or(0, |index| index as usize);
        let partition = match &emission.key {
            Some(key) => partition_of(key, topic.partitions),
            None => turn % topic.partitions,
        };
        let timestamp = emission.timestamp.or_else(|| {
            let from = emission.input.and_then(|index| inputs.get(index as usize));
            from.map(|record| record.timestamp)
        });
        let output = routed.entry((topic.id, partition)).or_insert_with(|| Output {
            topic: topic.clone(),
            partition,
            records: Vec::new(),
            index: Vec::new(),
        });
        output.records.push(new_record(emission, timestamp));
        output.index.push(i16::try_from(input).unwrap_or(i16::MAX));
    }
    Ok(Routed { outputs: routed.into_values().collect(), jobs: jobs.into_iter().collect() })
}

fn new_record(emission: Emission, timestamp: Option<Micros>) -> NewRecord {
    NewRecord {
        key: emission.key.map(Bytes::from),
        headers: emission
            .headers
            .into_iter()
            .map(|h| Header { name: h.name, value: h.value.into() })
            .collect(),
        timestamp,
        payload: emission.payload.into(),
    }
}

/// Sorts row changes by table and folds them to one per key.
pub fn changes(
    tables: &BTreeMap<String, Arc<Table>>,
    rows: Vec<PluginChange>,
    inputs: &[Record],
) -> Vec<(Arc<Table>, Vec<Change>)> {
    let mut by_table: BTreeMap<String, Vec<Change>> = BTreeMap::new();
    for change in rows {
        let Some(record) = inputs.get(change.input as usize) else { continue };
        let row = match change.change {
            TableChange::Upsert(values) => RowChange::Upsert(values.into_iter().map(cell).collect()),
            TableChange::Delete(values) => RowChange::Delete(values.into_iter().map(cell).collect()),
        };
        let change_of_row = Change { partition: record.partition, offset: record.offset, row };
        by_table.entry(change.table).or_default().push(change_of_row);
    }
    by_table
        .into_iter()
        .filter_map(|(name, changes)| {
            let table = tables.get(&name)?;
            Some((table.clone(), fold(&table.spec, changes)))
        })
        .collect()
}

pub fn cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Boolean(value) => Cell::Boolean(value),
        Value::Integer(value) => Cell::Integer(value),
        Value::Float(value) => Cell::Float(value),
        Value::Text(value) => Cell::Text(value),
        Value::Bytes(value) => Cell::Bytes(value),
        Value::Timestamp(value) => Cell::Timestamp(value),
        Value::Json(value) => Cell::Json(value),
    }
}

/// What the refusals of a batch ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, or only rejections: the batch can be committed, with these messages given up (index, reason).
    Commit(Vec<(usize, String)>),
    /// The message at this index is to be delivered again, not before so many microseconds. What comes before it can be
    /// committed first.
    Redeliver { index: usize, after: Option<u64> },
}

/// Reads the refusals of an answer. The first message that is to come again decides, since order is kept.
pub fn judge(refusals: Vec<Refused>) -> Verdict {
    let mut rejected: BTreeMap<usize, String> = BTreeMap::new();
    let mut again: Option<(usize, Option<u64>)> = None;
    for refused in refusals {
        let index = refused.input as usize;
        match refused.refusal {
            Refusal::Reject(reason) => {
                rejected.insert(index, reason);
            }
            Refusal::Retry(after) if again.is_none_or(|(first, _)| index < first) => {
                again = Some((index, after))
            }
            Refusal::Retry(_) => {}
        }
    }
    match again {
        Some((index, after)) => Verdict::Redeliver { index, after },
        None => Verdict::Commit(rejected.into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(input: u32, refusal: Refusal) -> Refused {
        Refused { input, refusal }
    }

    #[test]
    fn rejections_alone_can_be_committed() {
        let verdict =
            judge(vec![refused(3, Refusal::Reject("b".into())), refused(1, Refusal::Reject("a".into()))]);
        assert_eq!(verdict, Verdict::Commit(vec![(1, "a".into()), (3, "b".into())]));
    }

    #[test]
    fn the_first_message_that_is_to_come_again_decides() {
        let verdict = judge(vec![
            refused(5, Refusal::Retry(None)),
            refused(2, Refusal::Retry(Some(7))),
            refused(1, Refusal::Reject("a".into())),
        ]);
        assert_eq!(verdict, Verdict::Redeliver { index: 2, after: Some(7) });
    }
}
