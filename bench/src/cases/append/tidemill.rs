//! Our own append: the function that HTTP and the stages' producers call, with its queue and its shared commits.

use std::sync::Arc;
use std::time::Duration;

use ::tidemill::config::plan::{Acks, Cold, Format, Hold, TopicPlan};
use ::tidemill::ids::{Partition, TopicName};
use ::tidemill::log::{AppendOptions, Log, Topic};
use ::tidemill::record::NewRecord;
use anyhow::{Result, ensure};

use super::BATCHES;
use crate::feed::Feed;

pub struct Appends {
    log: Log,
    topic: Arc<Topic>,
    partition: Partition,
    batches: Vec<Vec<NewRecord>>,
    turn: usize,
}

impl Appends {
    pub fn new(
        log: &Log,
        topic: &Arc<Topic>,
        partition: Partition,
        batch: usize,
        keyed: bool,
    ) -> Result<Self> {
        let mut feed = Feed::new()?;
        let batches = (0..BATCHES).map(|_| if keyed { feed.take(batch) } else { feed.payloads(batch) });
        Ok(Self {
            log: log.clone(),
            topic: topic.clone(),
            partition,
            batches: batches.collect::<Result<_>>()?,
            turn: 0,
        })
    }

    /// One append; how many messages.
    pub async fn write(&mut self) -> Result<u64> {
        let batch = self.batches[self.turn % self.batches.len()].clone();
        self.turn += 1;
        let count = batch.len() as u64;
        let how = AppendOptions { partition: Some(self.partition), producer: None };
        let appended = self.log.append(&self.topic, batch, how).await?;
        let stored: u64 = appended.iter().map(|part| part.next_offset - part.base_offset).sum();
        ensure!(stored == count, "{stored} of {count} were stored");
        Ok(count)
    }
}

/// A topic that keeps what it gets while it is measured.
pub fn plan(name: &str, partitions: u32) -> Result<TopicPlan> {
    Ok(TopicPlan {
        name: TopicName::parse(name)?,
        partitions,
        segment: Duration::from_secs(3600),
        hot: None,
        cold: Cold::None,
        format: Format::Bytes,
        acks: Acks::Fsync,
        schema: None,
        sort: Vec::new(),
        hold: Hold::default(),
    })
}
