//! Consumer groups and producer positions: who owns what, and how far it is.
//!
//! Guarantee: a commit changes its row only while the owner's epoch and the offset it expects are the stored ones, and it
//! is part of the transaction that holds the outputs. A process that was paused and replaced changes nothing.
//! Bound: a lease lasts [`LEASE_TTL`] on the database's clock; every commit and one heartbeat per host renew it.
//! Failure: when the answer to COMMIT is lost, [`Groups::standing`] or [`Groups::source_standing`] says what happened.

use serde::Serialize;
use sqlx::Row;

use crate::config::plan::Start;
use crate::ids::{
    Epoch, GroupName, HostId, LogEpoch, Offset, Partition, PipelineName, StageName, TopicId, TopicName,
};
use crate::log::hosts::LEASE_TTL;
use crate::log::{FetchError, LogError, SeekTarget};
use crate::pg::pool::{Pool, Session};
use crate::replay::Position;

/// One partition of one group, owned by this process until somebody raises the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub group: GroupName,
    pub topic: TopicId,
    pub partition: Partition,
    pub owner: HostId,
    pub epoch: Epoch,
    /// Where the group stood when the lease was taken.
    pub next_offset: Offset,
    /// Of the partition then: what was read under another one is not committed.
    pub log_epoch: LogEpoch,
    /// Since when and from where on offsets were given anew, once for each time that another server took over.
    pub breaks: Vec<(LogEpoch, Offset)>,
}

impl Lease {
    /// Since when the last offset before `next` belongs to another record than at first, if it does.
    pub fn given_anew(&self, next: Offset) -> Option<LogEpoch> {
        self.breaks.iter().rev().find(|(_, start)| *start < next).map(|(epoch, _)| *epoch)
    }
}

/// The right of one producer stage to append, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLease {
    pub pipeline: PipelineName,
    pub stage: StageName,
    pub owner: HostId,
    pub epoch: Epoch,
    pub position: Option<Vec<u8>>,
    /// Commits so far: tells after a lost answer whether the last one happened.
    pub commits: i64,
}

/// What a fenced commit found.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The epoch or the offset is no longer ours: another owner, or a seek. Nothing was written.
    #[error("the lease was taken over, or the group was moved")]
    Fenced,
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// How a group stands on one topic.
#[derive(Clone, Debug, Serialize)]
pub struct GroupLag {
    pub group: String,
    pub topic: String,
    /// The stage that runs the group, as `pipeline/stage`.
    pub stage: Option<String>,
    pub lag: u64,
    /// Messages of `lag` that have left Postgres before the group read them: it reads them from the bucket, if that has them.
    pub behind_hot: u64,
    pub partitions: Vec<PartitionLag>,
}

#[derive(Clone, Debug, Serialize)]
pub struct PartitionLag {
    pub partition: Partition,
    pub offset: Offset,
    pub end: Offset,
    pub lag: u64,
    /// The first offset that is in Postgres.
    pub start: Offset,
    pub owner: Option<String>,
    pub epoch: i64,
    pub digest: Option<String>,
}

/// Groups and leases. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Groups {
    pool: Pool,
}

impl Groups {
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Every group, a row per topic it reads, by name.
    pub async fn list(&self) -> Result<Vec<GroupLag>, LogError> {
        self.read(None).await
    }

    /// One group; empty when there is none of that name.
    pub async fn describe(&self, group: &GroupName) -> Result<Vec<GroupLag>, LogError> {
        self.read(Some(group)).await
    }

    async fn read(&self, group: Option<&GroupName>) -> Result<Vec<GroupLag>, LogError> {
        let rows = sqlx::query(
            "SELECT group_name, topic, stage, partition, next_offset, start_offset, end_offset, owner, epoch, digest
               FROM tidemill.lag WHERE $1::text IS NULL OR group_name = $1 ORDER BY group_name, topic, partition",
        )
        .bind(group.map(GroupName::as_str))
        .fetch_all(&self.pool)
        .await?;
        let mut groups: Vec<GroupLag> = Vec::new();
        for row in rows {
            let (name, topic): (String, String) = (row.try_get("group_name")?, row.try_get("topic")?);
            let (offset, end): (i64, i64) = (row.try_get("next_offset")?, row.try_get("end_offset")?);
            let start: i64 = row.try_get("start_offset")?;
            let partition = PartitionLag {
                partition: row.try_get::<i32, _>("partition")? as Partition,
                offset: offset as Offset,
                end: end as Offset,
                lag: end.saturating_sub(offset).max(0) as u64,
                start: start as Offset,
                owner: row.try_get("owner")?,
                epoch: row.try_get("epoch")?,
                digest: row.try_get("digest")?,
            };
            if groups.last().is_none_or(|last| last.group != name || last.topic != topic) {
                let stage = row.try_get("stage")?;
                groups.push(GroupLag {
                    group: name,
                    topic,
                    stage,
                    lag: 0,
                    behind_hot: 0,
                    partitions: Vec::new(),
                });
            }
            if let Some(last) = groups.last_mut() {
                last.lag += partition.lag;
                last.behind_hot += partition.start.saturating_sub(partition.offset);
                last.partitions.push(partition);
            }
        }
        Ok(groups)
    }

    /// Moves a group, fencing whoever runs it, and with `clear_state` forgets what its stage keeps, in one transaction:
    /// nothing runs at the new place with the old state, or the other way round. Makes the group if it is new.
    pub async fn seek(
        &self,
        group: &GroupName,
        topic: &TopicName,
        target: &SeekTarget,
        partition: Option<Partition>,
        clear_state: bool,
    ) -> Result<(), LogError> {
        let mut transaction = self.pool.begin().await?;
        if clear_state {
            sqlx::query("SELECT tidemill.clear_state($1, $2, $3)")
                .bind(group.as_str())
                .bind(topic.as_str())
                .bind(partition.map(|p| p as i32))
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("SELECT * FROM tidemill.seek($1, $2, $3, $4)")
            .bind(group.as_str())
            .bind(topic.as_str())
            .bind(target.to_string())
            .bind(partition.map(|p| p as i32))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Moves a group that no stage runs forward to a position. Refused for one that a host runs.
    pub async fn commit(
        &self,
        group: &GroupName,
        topic: &TopicName,
        position: &Position,
    ) -> Result<(), LogError> {
        let mut transaction = self.pool.begin().await?;
        for (partition, place) in position.places() {
            if let Some(epoch) = place.epoch {
                sqlx::query("SELECT tidemill.check_place(tidemill.topic_id($1), $2, $3, $4)")
                    .bind(topic.as_str())
                    .bind(partition as i32)
                    .bind(place.offset as i64)
                    .bind(epoch.0)
                    .execute(&mut *transaction)
                    .await
                    .map_err(|error| FetchError::of(error, partition, place.offset))?;
            }
            sqlx::query("SELECT tidemill.commit($1, $2, $3, $4)")
                .bind(group.as_str())
                .bind(topic.as_str())
                .bind(partition as i32)
                .bind(place.offset as i64)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Forgets a group, unless a running stage owns it.
    pub async fn delete(&self, group: &GroupName) -> Result<Deleted, LogError> {
        let owned: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM tidemill.consumer_offsets
                             WHERE group_name = $1 AND owner IS NOT NULL AND expires_at > clock_timestamp())",
        )
        .bind(group.as_str())
        .fetch_one(&self.pool)
        .await?;
        if owned {
            return Ok(Deleted::InUse);
        }
        let gone = sqlx::query(
            "DELETE FROM tidemill.consumer_offsets WHERE group_name = $1
                AND NOT (owner IS NOT NULL AND expires_at > clock_timestamp())",
        )
        .bind(group.as_str())
        .execute(&self.pool)
        .await?
        .rows_affected();
        Ok(if gone > 0 { Deleted::Done } else { Deleted::Unknown })
    }

    /// Makes the rows of a group that are missing, at `start`.
    pub async fn join(&self, group: &GroupName, topic: &TopicName, start: Start) -> Result<(), LogError> {
        sqlx::query("SELECT tidemill.join_group($1, $2, $3)")
            .bind(group.as_str())
            .bind(topic.as_str())
            .bind(match start {
                Start::Earliest => "earliest",
                Start::Latest => "latest",
            })
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Takes a partition, raising its epoch. None: another live owner holds it.
    pub async fn acquire(
        &self,
        group: &GroupName,
        topic: TopicId,
        partition: Partition,
        owner: &HostId,
        stage: &str,
    ) -> Result<Option<Lease>, LogError> {
        let row = sqlx::query(
            "SELECT a.next_offset, a.epoch, c.log_epoch,
                    ARRAY(SELECT e.epoch FROM tidemill.log_epochs e
                           WHERE e.topic_id = $2 AND e.partition = $3 ORDER BY e.epoch) AS epochs,
                    ARRAY(SELECT e.start_offset FROM tidemill.log_epochs e
                           WHERE e.topic_id = $2 AND e.partition = $3 ORDER BY e.epoch) AS starts
               FROM tidemill.acquire($1, $2, $3, $4, $5, $6) a, tidemill.log_counter c
              WHERE c.topic_id = $2 AND c.partition = $3",
        )
        .bind(group.as_str())
        .bind(topic.0)
        .bind(partition as i32)
        .bind(&*owner.0)
        .bind(LEASE_TTL)
        .bind(stage)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Lease {
            group: group.clone(),
            topic,
            partition,
            owner: owner.clone(),
            epoch: Epoch(row.try_get("epoch")?),
            next_offset: row.try_get::<i64, _>("next_offset")? as Offset,
            log_epoch: LogEpoch(row.try_get("log_epoch")?),
            breaks: std::iter::zip(
                row.try_get::<Vec<i32>, _>("epochs")?,
                row.try_get::<Vec<i64>, _>("starts")?,
            )
            .map(|(epoch, start)| (LogEpoch(epoch), start.cast_unsigned()))
            .collect(),
        }))
    }

    /// Where a lease's row stands now: (next offset, epoch). None: the group or the topic is gone.
    pub async fn standing(&self, lease: &Lease) -> Result<Option<(Offset, Epoch)>, LogError> {
        let row = sqlx::query(
            "SELECT next_offset, epoch FROM tidemill.consumer_offsets
              WHERE group_name = $1 AND topic_id = $2 AND partition = $3",
        )
        .bind(lease.group.as_str())
        .bind(lease.topic.0)
        .bind(lease.partition as i32)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((row.try_get::<i64, _>("next_offset")? as Offset, Epoch(row.try_get("epoch")?))))
    }

    /// Gives a partition back, if it is still ours.
    pub async fn release(&self, lease: &Lease) -> Result<(), LogError> {
        sqlx::query(
            "UPDATE tidemill.consumer_offsets SET owner = NULL, expires_at = NULL
              WHERE group_name = $1 AND topic_id = $2 AND partition = $3 AND epoch = $4",
        )
        .bind(lease.group.as_str())
        .bind(lease.topic.0)
        .bind(lease.partition as i32)
        .bind(lease.epoch.0)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Takes the right to run a producer stage. None: another live owner holds it.
    pub async fn acquire_source(
        &self,
        pipeline: &PipelineName,
        stage: &StageName,
        owner: &HostId,
    ) -> Result<Option<SourceLease>, LogError> {
        let row = sqlx::query(
            "INSERT INTO tidemill.sources AS s (pipeline, stage, epoch, owner, expires_at)
             VALUES ($1, $2, 1, $3, clock_timestamp() + $4)
             ON CONFLICT ON CONSTRAINT sources_pk DO UPDATE
                SET epoch = s.epoch + 1, owner = excluded.owner, expires_at = excluded.expires_at
              WHERE s.owner IS NULL OR s.owner = excluded.owner OR s.expires_at < clock_timestamp()
             RETURNING position, commits, epoch",
        )
        .bind(pipeline.as_str())
        .bind(stage.as_str())
        .bind(&*owner.0)
        .bind(LEASE_TTL)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(SourceLease {
            pipeline: pipeline.clone(),
            stage: stage.clone(),
            owner: owner.clone(),
            epoch: Epoch(row.try_get("epoch")?),
            position: row.try_get("position")?,
            commits: row.try_get("commits")?,
        }))
    }

    /// Where a producer's row stands now: (commits, epoch).
    pub async fn source_standing(&self, lease: &SourceLease) -> Result<Option<(i64, Epoch)>, LogError> {
        let row =
            sqlx::query("SELECT commits, epoch FROM tidemill.sources WHERE pipeline = $1 AND stage = $2")
                .bind(lease.pipeline.as_str())
                .bind(lease.stage.as_str())
                .fetch_optional(&self.pool)
                .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((row.try_get("commits")?, Epoch(row.try_get("epoch")?))))
    }

    pub async fn release_source(&self, lease: &SourceLease) -> Result<(), LogError> {
        sqlx::query(
            "UPDATE tidemill.sources SET owner = NULL, expires_at = NULL
              WHERE pipeline = $1 AND stage = $2 AND epoch = $3",
        )
        .bind(lease.pipeline.as_str())
        .bind(lease.stage.as_str())
        .bind(lease.epoch.0)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// What became of a request to forget a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    Done,
    Unknown,
    InUse,
}

/// Moves a group's offset, inside the transaction that holds what the batch led to. Must be its first statement: it takes
/// the row lock that keeps a competing owner out until the commit.
///
/// After a fail-over to a server that lacks the last commits epochs and offsets repeat, so the owner is compared too, and
/// what was read must still be in the log: under the same log epoch, and before its end.
pub async fn advance_in(
    connection: &mut Session,
    lease: &Lease,
    from: Offset,
    to: Offset,
    digest: &str,
) -> Result<(), CommitError> {
    let changed = sqlx::query(
        "UPDATE tidemill.consumer_offsets
            SET next_offset = $6, digest = $7, updated_at = clock_timestamp(), expires_at = clock_timestamp() + $8
          WHERE group_name = $1 AND topic_id = $2 AND partition = $3 AND epoch = $4 AND next_offset = $5 AND owner = $9
            AND EXISTS (SELECT FROM tidemill.log_counter c WHERE c.topic_id = $2 AND c.partition = $3
                           AND c.log_epoch = $10 AND c.next_offset >= $6)",
    )
    .bind(lease.group.as_str())
    .bind(lease.topic.0)
    .bind(lease.partition as i32)
    .bind(lease.epoch.0)
    .bind(from as i64)
    .bind(to as i64)
    .bind(digest)
    .bind(LEASE_TTL)
    .bind(&*lease.owner.0)
    .bind(lease.log_epoch.0)
    .execute(connection)
    .await?
    .rows_affected();
    if changed == 1 { Ok(()) } else { Err(CommitError::Fenced) }
}

/// Holds a group's partition at the lease's epoch until the transaction ends, without moving it, and gives its offset. First
/// statement, as above.
pub async fn hold_in(connection: &mut Session, lease: &Lease) -> Result<Offset, CommitError> {
    let offset: Option<i64> = sqlx::query_scalar(
        "SELECT next_offset FROM tidemill.consumer_offsets
          WHERE group_name = $1 AND topic_id = $2 AND partition = $3 AND epoch = $4 AND owner = $5
            FOR NO KEY UPDATE",
    )
    .bind(lease.group.as_str())
    .bind(lease.topic.0)
    .bind(lease.partition as i32)
    .bind(lease.epoch.0)
    .bind(&*lease.owner.0)
    .fetch_optional(connection)
    .await?;
    offset.map(|offset| offset as Offset).ok_or(CommitError::Fenced)
}

/// Stores a producer's new position, inside the transaction that appends what it covers. First statement, as above.
pub async fn advance_source_in(
    connection: &mut Session,
    lease: &SourceLease,
    position: &[u8],
) -> Result<(), CommitError> {
    let changed = sqlx::query(
        "UPDATE tidemill.sources
            SET position = $5, commits = commits + 1, updated_at = clock_timestamp(), expires_at = clock_timestamp() + $6
          WHERE pipeline = $1 AND stage = $2 AND epoch = $3 AND commits = $4 AND owner = $7",
    )
    .bind(lease.pipeline.as_str())
    .bind(lease.stage.as_str())
    .bind(lease.epoch.0)
    .bind(lease.commits)
    .bind(position)
    .bind(LEASE_TTL)
    .bind(&*lease.owner.0)
    .execute(connection)
    .await?
    .rows_affected();
    if changed == 1 { Ok(()) } else { Err(CommitError::Fenced) }
}

#[cfg(test)]
mod tests;
