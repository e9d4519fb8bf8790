//! Where a reader begins: `from`, a group's offsets or a position, made into one offset for each partition.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::ApiState;
use super::error::ApiError;
use crate::ids::{GroupName, Offset, Partition, Place, TopicPartition};
use crate::log::{Bounds, SeekTarget, Topic};
use crate::replay::Position;

/// The parameter `from`.
#[derive(Clone, Debug)]
pub enum Start {
    Target(SeekTarget),
    Position(Position),
}

impl Default for Start {
    fn default() -> Self {
        Self::Target(SeekTarget::Earliest)
    }
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(target) = text.parse() {
            return Ok(Self::Target(target));
        }
        text.parse().map(Self::Position).map_err(|_| {
            "it is earliest, hot, latest, an offset, a time such as 2026-01-01T00:00:00Z, tail:N, or a position such as \
             0:120@1,1:99@1"
                .to_string()
        })
    }
}

/// Offsets to read from, and what the log held when they were looked up.
#[derive(Debug)]
pub struct Begin {
    pub from: BTreeMap<Partition, Place>,
    /// Where each of these partitions ended.
    pub end: BTreeMap<Partition, Place>,
}

/// Resolves `start` for one partition or all.
pub async fn resolve(
    state: &ApiState,
    topic: &Topic,
    start: &Start,
    only: Option<Partition>,
) -> Result<Begin, ApiError> {
    let bounds = chosen(state, topic, only).await?;
    if let Start::Position(position) = start {
        known_partitions(topic, position)?;
    }
    let mut begin = Begin { from: BTreeMap::new(), end: BTreeMap::new() };
    for bound in bounds {
        let offset = match start {
            Start::Position(position) => match position.place(bound.partition) {
                Some(place) => {
                    let target = TopicPartition { topic: topic.id, partition: bound.partition };
                    state.log.survived(target, place).await?;
                    within(&bound, place.offset)?
                }
                None => bound.first,
            },
            Start::Target(target) => one(state, topic, &bound, target, only.is_some()).await?,
        };
        let place = |offset| Place { offset, epoch: Some(bound.log_epoch) };
        begin.from.insert(bound.partition, place(offset));
        begin.end.insert(bound.partition, place(bound.next));
    }
    Ok(begin)
}

/// Puts the offsets that a group has committed in the place of resolved ones.
pub async fn of_group(
    state: &ApiState,
    topic: &Topic,
    group: &GroupName,
    begin: &mut Begin,
) -> Result<(), ApiError> {
    let bounds = state.log.bounds(topic.id).await?;
    let topics = state.groups.describe(group).await?;
    let committed =
        topics.iter().filter(|lag| lag.topic == topic.name.as_str()).flat_map(|lag| &lag.partitions);
    for place in committed {
        let bound = bounds.iter().find(|bound| bound.partition == place.partition);
        if let (Some(bound), Some(from)) = (bound, begin.from.get_mut(&place.partition)) {
            from.offset = within(bound, place.offset).map_err(|error| {
                error.hint(format!(
                    "records were dropped before group {group} read them; `tidemill group seek {group} --topic {} \
                     --to earliest` goes on with what is there",
                    topic.name
                ))
            })?;
        }
    }
    Ok(())
}

async fn chosen(state: &ApiState, topic: &Topic, only: Option<Partition>) -> Result<Vec<Bounds>, ApiError> {
    let mut bounds = state.log.bounds(topic.id).await?;
    if let Some(only) = only {
        bounds.retain(|bound| bound.partition == only);
        if bounds.is_empty() {
            return Err(no_partition(topic, only));
        }
    }
    Ok(bounds)
}

fn known_partitions(topic: &Topic, position: &Position) -> Result<(), ApiError> {
    match position.iter().find(|(partition, _)| *partition >= topic.partitions) {
        Some((partition, _)) => Err(no_partition(topic, partition)),
        None => Ok(()),
    }
}

pub fn no_partition(topic: &Topic, partition: Partition) -> ApiError {
    ApiError::bad_request("no_such_partition", format!("topic {} has no partition {partition}", topic.name))
        .hint(format!("its partitions are 0 to {}", topic.partitions.saturating_sub(1)))
}

async fn one(
    state: &ApiState,
    topic: &Topic,
    bound: &Bounds,
    target: &SeekTarget,
    strict: bool,
) -> Result<Offset, ApiError> {
    match target {
        SeekTarget::Earliest => Ok(bound.first),
        SeekTarget::Hot => Ok(bound.start),
        SeekTarget::Latest => Ok(bound.next),
        SeekTarget::Tail(records) => Ok(bound.next.saturating_sub(*records).max(bound.first)),
        SeekTarget::Offset(offset) if strict => within(bound, *offset),
        // Asked of all partitions, an offset that one of them has not reached or has dropped is read as near as it goes.
        SeekTarget::Offset(offset) => Ok((*offset).clamp(bound.first, bound.next)),
        SeekTarget::Time(_) => Ok(state.log.resolve(topic, bound.partition, target).await?),
    }
}

fn within(bound: &Bounds, offset: Offset) -> Result<Offset, ApiError> {
    if (bound.first..=bound.next).contains(&offset) {
        return Ok(offset);
    }
    Err(ApiError::out_of_range(bound.partition, offset, bound.first, bound.next))
}
