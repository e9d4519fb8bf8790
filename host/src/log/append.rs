//! Appending: a request is split by key, waits in the bounded queue of its topic, and shares a commit with what came
//! meanwhile.
//!
//! * The lock of a counter row lasts one commit, so each topic has one task in this process that stores a partition in one
//!   commit at a time ([`appender`]); requests that arrive during it make the next batch row. Partitions share commits.
//! * The part of a request that goes to one partition is stored whole or not at all, in order. Parts in several
//!   partitions may come to be several commits: after an error some may be stored, and a repeat with the same producer,
//!   epoch and sequence stores just the others.
//! * A stage's output does not come this way: it belongs in the stage's own transaction ([`append_in`]).
//!
//! Measured with 170 B of JSON and a key, `fsync` on, PostgreSQL 15.18 and this program sharing two busy cores; "server" and
//! "host" are CPU time per record, bytes are all that Postgres keeps (table, index, TOAST):
//!
//! | writers x records in a request | partitions | records/s | commits/s | server | host | bytes/record |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | 1 x 1,000 | 1 | 255,000 | 256 | 1.4 us | 0.34 us | 71 |
//! | 8 x 1,000 | 1 | 525,000 | 121 | 1.1 us | 0.24 us | 68 |
//! | 8 x 1,000 | 8 | 754,000 | 754 | 1.3 us | 0.33 us | 71 |
//! | 1 x 1,000 | 4, by key | 183,000 | 732 | 2.7 us | 0.77 us | 76 |
//! | 1 x 50 | 1 | 16,000 | 324 | 12 us | 4.3 us | 91 |
//! | 64 x 1 | 1 | 36,000 | 1,109 | 12 us | 5.2 us | - |
//! | 1 x 1 | 1 | 1,200 | 1,237 | 362 us | 139 us | 352 |
//!
//! Reading goes at 0.8 to 1.5 million records/s, at 0.3 to 0.5 us of host CPU each.

mod appender;
mod queue;
mod store;
mod write;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::config::plan::Acks;
use crate::ids::{Offset, Partition, TopicId};
use crate::pg::pool::Session;
use crate::record::{Appended, NewRecord};

use super::encode::{HeaderLists, Keys, Payloads, RowRecords, Timestamps};
use super::{AppendError, Log, Topic, partition_of};

pub(super) use queue::Appenders;

/// Key, headers and payload of one record.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// A batch row is a unit of reading, so it stays small enough to be held by many readers at once.
pub const ROW_RECORDS_MAX: usize = 10_000;
pub const ROW_BYTES_MAX: usize = 4 << 20;

/// How to append.
#[derive(Clone, Debug, Default)]
pub struct AppendOptions {
    /// None: by key; records without a key go together to one partition.
    pub partition: Option<Partition>,
    pub producer: Option<ProducerSeq>,
}

/// Makes an append repeatable: the same three store nothing twice and answer the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSeq {
    /// 1 to 256 characters.
    pub id: String,
    /// Raised by a new instance of the producer; a lower one is refused from then on.
    pub epoch: i64,
    /// Rises with each append of the producer.
    pub seq: i64,
}

/// Records that a stage appends in its own transaction.
#[derive(Clone, Debug)]
pub struct OutBatch<'a> {
    pub topic: TopicId,
    pub partition: Partition,
    pub records: &'a [NewRecord],
    pub lineage: Lineage,
}

/// What made a batch, and from what.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    /// A row of `tidemill.origins`.
    pub origin: Option<i32>,
    pub input: Option<InputRange>,
    /// For each record the position of its input after [`InputRange::offset`].
    pub index: Option<Vec<i16>>,
}

/// Where a stage's input began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputRange {
    pub partition: Partition,
    pub offset: Offset,
}

/// Appends within the caller's transaction and reserves dense offsets; they hold once it commits. The counter of the
/// partition stays locked until then, so append last, in the order of (topic, partition), and tell
/// [`super::Log::hub`] after the commit. More than a row holds becomes several rows.
pub async fn append_in(conn: &mut Session, batch: OutBatch<'_>) -> Result<Appended, AppendError> {
    if batch.records.is_empty() {
        return Err(AppendError::Invalid("an append needs at least one record".into()));
    }
    let offsets = insert(conn, &batch).await.map_err(|error| AppendError::of(error, batch.topic))?;
    Ok(Appended {
        partition: batch.partition,
        base_offset: offsets.start,
        next_offset: offsets.end,
        duplicate: false,
    })
}

/// Writes the rows of a batch that is not empty.
async fn insert(conn: &mut Session, batch: &OutBatch<'_>) -> Result<Range<Offset>, sqlx::Error> {
    let (mut base, mut next) = (None, 0);
    for rows in rows(batch.records) {
        let records = RowRecords(&[&batch.records[rows.clone()]]);
        let index = batch.lineage.index.as_deref().map(|index| {
            let end = rows.end.min(index.len());
            &index[rows.start.min(end)..end]
        });
        let input = batch.lineage.input;
        let offset: i64 = sqlx::query_scalar(
            "SELECT base_offset FROM tidemill.append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(batch.topic.0)
        .bind(batch.partition.cast_signed())
        .bind(Payloads(records))
        .bind(Keys(records))
        .bind(HeaderLists(records))
        .bind(Timestamps(records))
        .bind(bytes_column(records))
        .bind(batch.lineage.origin)
        .bind(input.map(|input| input.partition.cast_signed()))
        .bind(input.map(|input| input.offset.cast_signed()))
        .bind(index)
        .fetch_one(&mut *conn)
        .await?;
        base.get_or_insert(offset.cast_unsigned());
        next = offset.cast_unsigned() + rows.len() as Offset;
    }
    Ok(base.unwrap_or(next)..next)
}

impl Log {
    /// Appends and waits until it is committed. The answer has one entry for each partition that got records, in their
    /// order. If the caller goes away meanwhile, the records are stored all the same.
    pub async fn append(
        &self,
        topic: &Topic,
        records: Vec<NewRecord>,
        how: AppendOptions,
    ) -> Result<Vec<Appended>, AppendError> {
        check(topic, &records, &how)?;
        let relaxed = topic.acks == Acks::Relaxed;
        let parts = self.split(topic, records, &how);
        // All of it or nothing: every partition must have room.
        let answers = self.shared.appenders.submit(topic, parts, how.producer.as_ref(), relaxed)?;
        let mut appended = Vec::with_capacity(answers.len());
        let mut failed = None;
        for answer in answers {
            match answer.await {
                Ok(Ok(part)) => appended.push(part),
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(_) => failed = failed.or(Some(AppendError::Unknown("the host is stopping".into()))),
            }
        }
        match failed {
            None => Ok(appended),
            Some(error) => {
                if matches!(error, AppendError::TopicGone { .. }) {
                    self.shared.topics.forget(&topic.name);
                }
                Err(error)
            }
        }
    }

    /// The records of each partition, in order; moved, not copied.
    fn split(
        &self,
        topic: &Topic,
        records: Vec<NewRecord>,
        how: &AppendOptions,
    ) -> BTreeMap<Partition, Vec<NewRecord>> {
        let keyless = || match (how.partition, &how.producer) {
            (Some(partition), _) => partition,
            (None, Some(producer)) => partition_of(producer.id.as_bytes(), topic.partitions),
            (None, None) => self.shared.appenders.rotate(topic.partitions),
        };
        if records.is_empty() {
            return BTreeMap::new();
        }
        if how.partition.is_some() || topic.partitions == 1 || records.iter().all(|r| r.key.is_none()) {
            return BTreeMap::from([(keyless(), records)]);
        }
        let keyless = keyless();
        let mut parts: BTreeMap<Partition, Vec<NewRecord>> = BTreeMap::new();
        for record in records {
            let partition = match &record.key {
                Some(key) => partition_of(key, topic.partitions),
                None => keyless,
            };
            parts.entry(partition).or_default().push(record);
        }
        parts
    }
}

fn check(topic: &Topic, records: &[NewRecord], how: &AppendOptions) -> Result<(), AppendError> {
    if let Some(partition) = how.partition
        && partition >= topic.partitions
    {
        return Err(AppendError::NoSuchPartition {
            topic: topic.name.clone(),
            partition,
            partitions: topic.partitions,
        });
    }
    if let Some(producer) = &how.producer {
        let length = producer.id.chars().count();
        if length == 0 || length > 256 || producer.id.contains('\0') {
            return Err(AppendError::Invalid(
                "a producer id has 1 to 256 characters, none of them NUL".into(),
            ));
        }
        if producer.seq < 0 {
            return Err(AppendError::Invalid(format!(
                "producer {:?} must number its appends from 0, not {}",
                producer.id, producer.seq
            )));
        }
    }
    match records.iter().position(|r| r.size() > RECORD_BYTES_MAX) {
        Some(index) => {
            Err(AppendError::RecordTooLarge { index, size: records[index].size(), max: RECORD_BYTES_MAX })
        }
        None => Ok(()),
    }
}

/// Cuts records into what one row may hold each.
fn rows(records: &[NewRecord]) -> Vec<Range<usize>> {
    let (mut rows, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, record) in records.iter().enumerate() {
        let size = record.size();
        if at > start && (at - start >= ROW_RECORDS_MAX || bytes + size > ROW_BYTES_MAX) {
            rows.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    if start < records.len() {
        rows.push(start..records.len());
    }
    rows
}

fn bytes_column(records: RowRecords<'_>) -> i32 {
    i32::try_from(records.bytes()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
