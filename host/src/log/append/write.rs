//! The two statements of the appender: several requests as one row, or one large request as several rows.

use crate::ids::{Offset, Partition, TopicPartition};
use crate::pg::pool::{Session, Transaction};
use crate::record::Appended;

use super::super::AppendError;
use super::queue::Request;
use super::{HeaderLists, Keys, Lineage, OutBatch, Payloads, ProducerSeq, RowRecords, Timestamps};
use super::{bytes_column, insert};

/// What Postgres says to a group of requests.
pub(super) enum Outcome {
    /// Stored; the first record has this offset.
    Stored(Offset),
    /// Nothing is stored, because some requests are not to be: one verdict for each that has a producer, in order.
    Refused(Vec<Verdict>),
}

pub(super) enum Verdict {
    Append,
    Answer(Result<Appended, AppendError>),
}

/// A group as one row: one statement, one commit.
pub(super) async fn row(
    session: &mut Session,
    target: TopicPartition,
    group: &[Request],
) -> Result<Outcome, sqlx::Error> {
    let parts: Vec<_> = group.iter().map(|request| request.records.as_slice()).collect();
    let records = RowRecords(&parts);
    let producers = Producers::of(group);
    let answer: Answer = sqlx::query_as(
        "SELECT base_offset, verdicts, bases, nexts, messages FROM tidemill.append_requests($1, $2, $3, $4, $5, $6, $7, \
         $8, $9, $10, $11, $12, $13)",
    )
    .bind(target.topic.0)
    .bind(target.partition.cast_signed())
    .bind(group.iter().all(|request| request.relaxed))
    .bind(bytes_column(records))
    .bind(Payloads(records))
    .bind(Keys(records))
    .bind(HeaderLists(records))
    .bind(Timestamps(records))
    .bind(producers.ids)
    .bind(producers.epochs)
    .bind(producers.seqs)
    .bind(producers.firsts)
    .bind(producers.counts)
    .fetch_one(session)
    .await?;
    Ok(match answer.base_offset {
        Some(base) => Outcome::Stored(base.cast_unsigned()),
        None => Outcome::Refused(answer.verdicts(target.partition)),
    })
}

/// One request that is too large for a row, as several rows of a transaction. It is stored once the caller commits that.
pub(super) async fn rows(
    transaction: &mut Transaction,
    target: TopicPartition,
    request: &Request,
) -> Result<Outcome, sqlx::Error> {
    if request.relaxed {
        sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut **transaction).await?;
    }
    if let Some(producer) = &request.producer {
        let verdict = check(transaction, target, producer).await?;
        if matches!(verdict, Verdict::Answer(_)) {
            return Ok(Outcome::Refused(vec![verdict]));
        }
    }
    let batch = OutBatch {
        topic: target.topic,
        partition: target.partition,
        records: &request.records,
        lineage: Lineage::default(),
    };
    let offsets = insert(transaction, &batch).await?;
    if let Some(producer) = &request.producer {
        sqlx::query("SELECT tidemill.producer_end($1, $2, $3, $4, $5, $6, $7)")
            .bind(&producer.id)
            .bind(target.topic.0)
            .bind(target.partition.cast_signed())
            .bind(producer.epoch)
            .bind(producer.seq)
            .bind(offsets.start.cast_signed())
            .bind(offsets.end.cast_signed())
            .execute(&mut **transaction)
            .await?;
    }
    Ok(Outcome::Stored(offsets.start))
}

async fn check(
    session: &mut Session,
    target: TopicPartition,
    producer: &ProducerSeq,
) -> Result<Verdict, sqlx::Error> {
    let (verdict, base, next, message): (String, Option<i64>, Option<i64>, Option<String>) = sqlx::query_as(
        "SELECT verdict, base_offset, next_offset, message FROM tidemill.producer_check($1, $2, $3, $4, $5)",
    )
    .bind(&producer.id)
    .bind(target.topic.0)
    .bind(target.partition.cast_signed())
    .bind(producer.epoch)
    .bind(producer.seq)
    .fetch_one(session)
    .await?;
    Ok(Verdict::of(target.partition, &verdict, base, next, message))
}

impl Verdict {
    fn of(
        partition: Partition,
        verdict: &str,
        base: Option<i64>,
        next: Option<i64>,
        message: Option<String>,
    ) -> Self {
        let message = message.unwrap_or_default();
        match (verdict, base, next) {
            ("append", ..) => Self::Append,
            ("duplicate", Some(base), Some(next)) => Self::Answer(Ok(Appended {
                partition,
                base_offset: base.cast_unsigned(),
                next_offset: next.cast_unsigned(),
                duplicate: true,
            })),
            ("fenced", ..) => Self::Answer(Err(AppendError::Fenced(message))),
            _ => Self::Answer(Err(AppendError::OutOfSequence(message))),
        }
    }
}

/// The requests of a group that have a producer, as columns. None of it without any.
#[derive(Default)]
struct Producers<'a> {
    ids: Option<Vec<&'a str>>,
    epochs: Option<Vec<i64>>,
    seqs: Option<Vec<i64>>,
    /// Where in the row its records begin, and how many they are.
    firsts: Option<Vec<i32>>,
    counts: Option<Vec<i32>>,
}

impl<'a> Producers<'a> {
    fn of(group: &'a [Request]) -> Self {
        let mut first = 0;
        let mut columns = Self::default();
        for request in group {
            // A row has 10,000 records at most.
            let count = i32::try_from(request.records.len()).unwrap_or(i32::MAX);
            if let Some(producer) = &request.producer {
                columns.ids.get_or_insert_default().push(&producer.id);
                columns.epochs.get_or_insert_default().push(producer.epoch);
                columns.seqs.get_or_insert_default().push(producer.seq);
                columns.firsts.get_or_insert_default().push(first);
                columns.counts.get_or_insert_default().push(count);
            }
            first += count;
        }
        columns
    }
}

#[derive(sqlx::FromRow)]
struct Answer {
    base_offset: Option<i64>,
    verdicts: Option<Vec<String>>,
    bases: Option<Vec<Option<i64>>>,
    nexts: Option<Vec<Option<i64>>>,
    messages: Option<Vec<Option<String>>>,
}

impl Answer {
    fn verdicts(self, partition: Partition) -> Vec<Verdict> {
        let verdicts = self.verdicts.unwrap_or_default().into_iter();
        let mut bases = self.bases.unwrap_or_default().into_iter();
        let mut nexts = self.nexts.unwrap_or_default().into_iter();
        let mut messages = self.messages.unwrap_or_default().into_iter();
        verdicts
            .map(|verdict| {
                let (base, next) = (bases.next().flatten(), nexts.next().flatten());
                Verdict::of(partition, &verdict, base, next, messages.next().flatten())
            })
            .collect()
    }
}
