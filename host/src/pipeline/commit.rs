//! The one commit: offset or position, state, table rows, dead letters, jobs and outputs, or none of them.
//!
//! Guarantee: the first statement checks the lease's epoch and the offset it expects, in the same transaction as the rest.
//! Order: the counters of output partitions come last, sorted, since their locks hold up every other append.
//! Failure: after a broken connection the row itself is asked whether the commit happened. Nothing is guessed, and a batch
//! is never written twice.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::effects::{DeadLetter, Effects};
use super::stage::{Stage, StageError};
use super::status::State;
use super::version::Version;
use crate::config::plan::Acks;
use crate::crash;
use crate::ids::{Offset, QueueName, TopicName};
use crate::letters::Letter;
use crate::letters::redrive::{self as letters, settle_in};
use crate::log::append::{InputRange, Lineage, OutBatch, append_in};
use crate::log::encode::headers_to_json;
use crate::log::offsets::{CommitError, Lease, SourceLease, advance_in, advance_source_in, hold_in};
use crate::log::{AppendError, LogError};
use crate::pg::pool::{Pool, Session};
use crate::queue::{QueueError, enqueue_in};
use crate::tables::apply::apply_in;
use crate::tables::late::apply_late_in;

/// What the commit moves.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A group, from one offset to another.
    Group { lease: &'a Lease, from: Offset, to: Offset },
    /// A producer, to a new position.
    Source { lease: &'a SourceLease, position: &'a [u8] },
    /// A dead letter that was run again, to its end. The group stays where it is.
    Letter { lease: &'a Lease, letter: &'a Letter },
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Its user has changed or dropped it: what it led to is not to be written.
    #[error("the dead letter was changed")]
    Moot,
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("queue {queue}: {error}")]
    Enqueue { queue: QueueName, error: QueueError },
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// Whether a step is in the database.
enum Standing {
    Done,
    NotDone,
    Fenced,
    Moot,
}

/// How a commit ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    Stored,
    /// Nothing was written: the dead letter is not the one that was run any more.
    Moot,
}

/// Writes a batch's effects, again and again until it is known that they are stored or that they may not be.
///
/// `version` made them: outputs and dead letters name its digest.
pub async fn commit(
    stage: &Stage,
    version: &Version,
    step: Step<'_>,
    effects: &Effects,
    token: &CancellationToken,
) -> Result<Committed, StageError> {
    let mut backoff = Backoff::default();
    let mut tried = false;
    loop {
        let error = match write(stage, version, step, effects).await {
            Ok(()) => break,
            Err(error) => error,
        };
        // Fenced at the first try is what it says; later it may be our own commit, whose answer was lost.
        if matches!(error, WriteError::Commit(CommitError::Fenced)) && !tried {
            return Err(fenced(stage, step));
        }
        if matches!(error, WriteError::Moot) && !tried {
            return Ok(Committed::Moot);
        }
        if is_final(&error) {
            return Err(StageError::Fatal(format!("the output cannot be stored: {error}")));
        }
        tried = true;
        tracing::warn!(stage = stage.label(), %error, "commit not confirmed, asking what happened");
        let partition = match step {
            Step::Group { lease, .. } | Step::Letter { lease, .. } => lease.partition,
            Step::Source { .. } => 0,
        };
        stage.cell.set(partition, State::Backoff, Some(format!("commit not confirmed: {error}")));
        loop {
            if token.is_cancelled() {
                return Err(StageError::Again("stopped while a commit was not confirmed".to_string()));
            }
            match standing(stage, step).await {
                Ok(Standing::Done) => {
                    after(stage, effects);
                    return Ok(Committed::Stored);
                }
                Ok(Standing::Fenced) => return Err(fenced(stage, step)),
                Ok(Standing::Moot) => return Ok(Committed::Moot),
                // Refused, and by nobody's lease: the log is not the one that the batch was read from.
                Ok(Standing::NotDone) if matches!(error, WriteError::Commit(CommitError::Fenced)) => {
                    return Err(fenced(stage, step));
                }
                Ok(Standing::NotDone) => break,
                Err(error) => tracing::debug!(stage = stage.label(), %error, "Postgres does not answer"),
            }
            wait(backoff.pause(), token).await;
        }
        wait(backoff.pause(), token).await;
    }
    after(stage, effects);
    Ok(Committed::Stored)
}

/// Whether the same write can never succeed.
fn is_final(error: &WriteError) -> bool {
    match error {
        WriteError::Append(error) => append_is_final(error),
        WriteError::Enqueue { error, .. } => enqueue_is_final(error),
        WriteError::Commit(_) | WriteError::Moot | WriteError::Postgres(_) => false,
    }
}

/// The same of an append.
pub fn append_is_final(error: &AppendError) -> bool {
    matches!(
        error,
        AppendError::TopicGone { .. }
            | AppendError::NoSuchPartition { .. }
            | AppendError::RecordTooLarge { .. }
            | AppendError::RequestTooLarge { .. }
            | AppendError::Invalid(_)
    )
}

/// The same of new jobs.
pub fn enqueue_is_final(error: &QueueError) -> bool {
    matches!(error, QueueError::Unknown(_) | QueueError::Invalid(_) | QueueError::Impossible(_))
}

async fn wait(duration: Duration, token: &CancellationToken) {
    let _ = tokio::time::timeout(duration, token.cancelled()).await;
}

fn fenced(stage: &Stage, step: Step<'_>) -> StageError {
    match (step, &stage.input) {
        (Step::Group { lease, .. } | Step::Letter { lease, .. }, Some(topic)) => {
            StageError::Fenced { topic: topic.name.clone(), partition: lease.partition }
        }
        _ => StageError::Again("another host took this producer over".to_string()),
    }
}

/// Tells those who wait for what was just committed, and the state.
fn after(stage: &Stage, effects: &Effects) {
    for topic in effects.topics() {
        stage.services.log.hub().appended(topic);
    }
    for (queue, _) in &effects.jobs {
        stage.services.queues.wake(queue);
    }
    for (table, _) in &effects.tables {
        table.wake();
    }
    if let Some(state) = &effects.state {
        state.committed();
    }
}

async fn write(
    stage: &Stage,
    version: &Version,
    step: Step<'_>,
    effects: &Effects,
) -> Result<(), WriteError> {
    let pool: &Pool = stage.services.log.pool();
    let digest = version.digest();
    let mut transaction = pool.begin().await?;
    // Of a letter, where its group stands now.
    let mut late = None;
    let lineage_input = match step {
        Step::Group { lease, from, to } => {
            advance_in(&mut transaction, lease, from, to, digest).await?;
            Some(InputRange { partition: lease.partition, offset: from })
        }
        Step::Source { lease, position } => {
            advance_source_in(&mut transaction, lease, position).await?;
            if relaxed(effects) {
                sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *transaction).await?;
            }
            None
        }
        Step::Letter { lease, letter } => {
            late = Some(hold_in(&mut transaction, lease).await?);
            if !settle_in(&mut transaction, letter).await? {
                return Err(WriteError::Moot);
            }
            Some(InputRange { partition: lease.partition, offset: letter.record.offset })
        }
    };
    if let Some(state) = &effects.state {
        state.store_in(&mut transaction).await?;
    }
    for (table, changes) in &effects.tables {
        match late {
            None => apply_in(&mut transaction, table, changes.clone()).await?,
            Some(now) => apply_late_in(&mut transaction, table, changes.clone(), now).await?,
        }
    }
    if let Some(topic) = &stage.input {
        for letter in &effects.dead {
            bury(&mut transaction, stage, &topic.name, letter, digest).await?;
        }
    }
    for (queue, jobs) in &effects.jobs {
        let enqueued = enqueue_in(&mut transaction, queue, jobs).await;
        enqueued.map_err(|error| WriteError::Enqueue { queue: queue.clone(), error })?;
    }
    for output in &effects.outputs {
        let identity = output.index.iter().enumerate().all(|(at, index)| at == *index as usize);
        let lineage = Lineage {
            origin: Some(version.origin),
            input: lineage_input,
            index: (lineage_input.is_some() && !identity).then(|| output.index.clone()),
        };
        let batch = OutBatch {
            topic: output.topic.id,
            partition: output.partition,
            records: &output.records,
            lineage,
        };
        append_in(&mut transaction, batch).await?;
    }
    if late.is_some() {
        crash::point("letter.commit");
    }
    transaction.commit().await?;
    if late.is_some() {
        crash::point("letter.committed");
    }
    Ok(())
}

/// A producer whose topics all take the risk does not wait for the disk. Jobs never take it.
fn relaxed(effects: &Effects) -> bool {
    let topics = !effects.outputs.is_empty() && effects.jobs.is_empty();
    topics && effects.outputs.iter().all(|output| output.topic.acks == Acks::Relaxed)
}

async fn standing(stage: &Stage, step: Step<'_>) -> Result<Standing, LogError> {
    let groups = &stage.services.groups;
    Ok(match step {
        Step::Group { lease, from, to } => match groups.standing(lease).await? {
            Some((offset, epoch)) if epoch == lease.epoch && offset == to => Standing::Done,
            Some((offset, epoch)) if epoch == lease.epoch && offset == from => Standing::NotDone,
            _ => Standing::Fenced,
        },
        // The letter first: gone under an epoch that was still ours afterwards, it can only be our commit or its user's.
        Step::Letter { lease, letter } => {
            let there = stage.services.letters.standing(letter).await?;
            match (there, groups.standing(lease).await?) {
                (letters::Standing::Gone, _) => Standing::Done,
                (letters::Standing::Changed, _) => Standing::Moot,
                (_, Some((_, epoch))) if epoch == lease.epoch => Standing::NotDone,
                _ => Standing::Fenced,
            }
        }
        Step::Source { lease, .. } => match groups.source_standing(lease).await? {
            Some((commits, epoch)) if epoch == lease.epoch && commits == lease.commits + 1 => Standing::Done,
            Some((commits, epoch)) if epoch == lease.epoch && commits == lease.commits => Standing::NotDone,
            _ => Standing::Fenced,
        },
    })
}

async fn bury(
    connection: &mut Session,
    stage: &Stage,
    topic: &TopicName,
    letter: &DeadLetter,
    digest: &str,
) -> Result<(), sqlx::Error> {
    let record = &letter.record;
    let group = stage.plan.input.as_ref().map(|input| input.group.to_string()).unwrap_or_default();
    sqlx::query(
        "INSERT INTO tidemill.dead_letters (group_name, pipeline, stage, digest, topic, partition, c_offset, ts, key,
                                            headers, payload, kind, error, attempts, appended_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, tidemill.from_micros($8), $9, $10, $11, $12, $13, $14,
                 tidemill.from_micros($15))",
    )
    .bind(group)
    .bind(stage.cell.pipeline.as_str())
    .bind(stage.plan.name.as_str())
    .bind(digest)
    .bind(topic.as_str())
    .bind(record.partition as i32)
    .bind(record.offset as i64)
    .bind(record.timestamp)
    .bind(record.key.as_deref())
    .bind(headers_to_json(&record.headers))
    .bind(&record.payload[..])
    .bind(letter.kind.as_str())
    .bind(&letter.error)
    .bind(letter.attempts as i32)
    .bind(letter.appended_at)
    .execute(connection)
    .await?;
    Ok(())
}
