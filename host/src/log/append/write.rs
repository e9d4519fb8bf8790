//! The statements of the appender: requests of several partitions as a row each, requests of one partition as one row, or one
//! large request as several rows.

use std::sync::LazyLock;

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;

use crate::ids::{Offset, Partition, TopicId, TopicPartition};
use crate::pg::pool::{Session, Transaction};
use crate::record::{Appended, NewRecord};

use super::super::AppendError;
use super::appender::COMMIT_PARTITIONS;
use super::queue::Request;
use super::store::Group;
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

/// How long several partitions wait together for a lock: another's commit is over long before, and a partition that somebody
/// holds for longer must not hold up the others.
const LOCK_TIMEOUT: &str = "500ms";

/// One call for each partition: in this order they take their locks, so the groups are to be in the order of partitions.
const CALL: &str = "SELECT base_offset, verdicts, bases, nexts, messages FROM tidemill.append_requests";
const ARGUMENTS: usize = 13;

/// The statement for so many partitions, from none on.
static TOGETHER: LazyLock<Vec<String>> = LazyLock::new(|| (0..=COMMIT_PARTITIONS).map(together).collect());

fn together(partitions: usize) -> String {
    // The first row is the setting's: until the commit, and made before the first lock is asked for.
    let mut sql = format!(
        "SELECT NULL::bigint AS base_offset, NULL::text[] AS verdicts, NULL::bigint[] AS bases, NULL::bigint[] AS nexts, \
         NULL::text[] AS messages FROM set_config('lock_timeout', '{LOCK_TIMEOUT}', true)"
    );
    for call in 0..partitions {
        let arguments =
            (1..=ARGUMENTS).map(|place| format!("${}", call * ARGUMENTS + place)).collect::<Vec<_>>();
        sql.push_str(&format!(" UNION ALL {CALL}({})", arguments.join(", ")));
    }
    sql
}

/// Groups of different partitions as a row each: one statement, one commit. What is refused of one group does not keep the
/// others from being stored.
pub(super) async fn rows_together(
    session: &mut Session,
    topic: TopicId,
    groups: &[Group],
) -> Result<Vec<Outcome>, sqlx::Error> {
    let Some(sql) = TOGETHER.get(groups.len()) else {
        return Err(sqlx::Error::Protocol(format!("{} partitions in one append", groups.len())));
    };
    // A setting of the transaction, so all of them or none.
    let relaxed = groups.iter().flat_map(|group| &group.0).all(|request| request.relaxed);
    let parts: Vec<Vec<&[NewRecord]>> = groups.iter().map(|group| slices(&group.0)).collect();
    let mut query = sqlx::query_as(sql.as_str());
    for (group, parts) in groups.iter().zip(&parts) {
        let target = TopicPartition { topic, partition: group.partition() };
        query = bind(query, target, relaxed, RowRecords(parts), Producers::of(&group.0));
    }
    let answers: Vec<Answer> = query.fetch_all(session).await?;
    let answers = answers.into_iter().skip(1).zip(groups);
    Ok(answers.map(|(answer, group)| answer.outcome(group.partition())).collect())
}

/// A group as one row: one statement, one commit.
pub(super) async fn row(
    session: &mut Session,
    target: TopicPartition,
    group: &[Request],
) -> Result<Outcome, sqlx::Error> {
    let parts = slices(group);
    let query = sqlx::query_as(
        "SELECT base_offset, verdicts, bases, nexts, messages FROM tidemill.append_requests($1, $2, $3, $4, $5, $6, $7, \
         $8, $9, $10, $11, $12, $13)",
    );
    let relaxed = group.iter().all(|request| request.relaxed);
    let query = bind(query, target, relaxed, RowRecords(&parts), Producers::of(group));
    let answer: Answer = query.fetch_one(session).await?;
    Ok(answer.outcome(target.partition))
}

fn slices(group: &[Request]) -> Vec<&[NewRecord]> {
    group.iter().map(|request| request.records.as_slice()).collect()
}

type Query<'q> = QueryAs<'q, Postgres, Answer, PgArguments>;

/// The arguments of one call.
fn bind<'q>(
    query: Query<'q>,
    target: TopicPartition,
    relaxed: bool,
    records: RowRecords<'q>,
    producers: Producers<'q>,
) -> Query<'q> {
    query
        .bind(target.topic.0)
        .bind(target.partition.cast_signed())
        .bind(relaxed)
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
    fn outcome(self, partition: Partition) -> Outcome {
        match self.base_offset {
            Some(base) => Outcome::Stored(base.cast_unsigned()),
            None => Outcome::Refused(self.verdicts(partition)),
        }
    }

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
