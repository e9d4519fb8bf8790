//! State of stages in Postgres: one space for each group and partition.
//!
//! Guarantee: entries change only inside the transaction that moves the group's offset ([`store_in`] comes after the fenced
//! update), so state and offset are of the same batch, always. Reads are short, outside of any transaction, and may be old
//! only for an owner that was replaced and cannot commit.
//! Bound: a space by its quota, which the one owner keeps exact; what has expired is swept with commits, [`SWEEP`] entries at
//! a time.
//! Failure: a broken read is an error to the plugin, which answers with a retry; a broken commit is the commit's affair.

mod source;

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::Row;
use tokio::runtime::Handle;

use crate::ids::Micros;
use crate::log::LogError;
use crate::log::offsets::Lease;
use crate::pg::pool::{self, Pool};
use crate::plugin::Context;
use crate::plugin::state::{ENTRY_BYTES, Session, Space, StateLimits, Stored, Writes};
use source::Source;

/// Expired entries that one commit takes away.
const SWEEP: i64 = 500;

/// Bytes of values that one statement writes: it holds a copy of them.
const PORTION: usize = 2 << 20;

/// A space in Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SpaceId(i64);

/// The state of one group and partition, for the task that owns it.
pub struct TaskState {
    id: SpaceId,
    space: Arc<Space>,
    /// Of the call under way or just made.
    session: Option<Arc<Session>>,
}

impl std::fmt::Debug for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskState").field("id", &self.id).finish_non_exhaustive()
    }
}

impl TaskState {
    /// Opens the space of a lease's group and partition, and makes it if it is new. The lease must be held: nobody else may
    /// commit to the space from now on.
    pub async fn open(pool: &Pool, lease: &Lease, limits: StateLimits) -> Result<Self, LogError> {
        let row = sqlx::query(
            "WITH made AS (
                 INSERT INTO tidemill.state_spaces (group_name, topic_id, partition) VALUES ($1, $2, $3)
                 ON CONFLICT ON CONSTRAINT state_spaces_unique DO NOTHING RETURNING space_id, bytes),
             space AS (
                 SELECT space_id, bytes FROM made UNION ALL
                 SELECT space_id, bytes FROM tidemill.state_spaces
                  WHERE group_name = $1 AND topic_id = $2 AND partition = $3 LIMIT 1)
             SELECT space_id, bytes, tidemill.micros((SELECT min(e.expires_at) FROM tidemill.state_entries e
                                                       WHERE e.space_id = space.space_id)) AS earliest FROM space",
        )
        .bind(lease.group.as_str())
        .bind(lease.topic.0)
        .bind(lease.partition as i32)
        .fetch_one(pool)
        .await?;
        let id = SpaceId(row.try_get("space_id")?);
        let used: i64 = row.try_get("bytes")?;
        let source = Source::new(pool.clone(), id, Handle::current());
        let space = Arc::new(Space::new(Box::new(source), limits, used as u64, row.try_get("earliest")?));
        Ok(Self { id, space, session: None })
    }

    /// Begins a call: what an earlier one wrote and did not commit is forgotten.
    pub fn begin(&mut self, context: &mut Context) {
        let session = self.space.session(context.now);
        context.state = Some(Arc::clone(&session));
        self.session = Some(session);
    }

    /// What the last call wrote, for its commit.
    pub async fn take(&mut self) -> Option<StateChanges> {
        let writes = self.session.take()?.take().await?;
        Some(StateChanges { id: self.id, writes: Box::new(writes), stored: Mutex::default() })
    }
}

/// What one call wrote.
#[derive(Debug)]
pub struct StateChanges {
    id: SpaceId,
    writes: Box<Writes>,
    /// What the last try to store it led to.
    stored: Mutex<Option<Box<Outcome>>>,
}

#[derive(Debug)]
struct Outcome {
    used: u64,
    /// Keys that were swept, and when the next one expires.
    swept: Option<(Vec<Vec<u8>>, Option<Micros>)>,
}

impl StateChanges {
    /// Writes everything inside the transaction that has moved the group's offset, and sweeps some of what has expired.
    pub async fn store_in(&self, connection: &mut pool::Session) -> Result<(), sqlx::Error> {
        let Writes { puts, deletes, now, space, used } = &*self.writes;
        for portion in portions(puts) {
            self.put(connection, portion).await?;
        }
        if !deletes.is_empty() {
            let keys: Vec<&[u8]> = deletes.iter().map(Vec::as_slice).collect();
            sqlx::query("DELETE FROM tidemill.state_entries WHERE space_id = $1 AND key = ANY($2)")
                .bind(self.id.0)
                .bind(keys)
                .execute(&mut *connection)
                .await?;
        }
        let mut outcome = Outcome { used: *used, swept: None };
        if space.is_sweep_due(*now) {
            self.sweep(connection, &mut outcome).await?;
        }
        sqlx::query(
            "UPDATE tidemill.state_spaces SET bytes = $2, updated_at = clock_timestamp() WHERE space_id = $1",
        )
        .bind(self.id.0)
        .bind(outcome.used as i64)
        .execute(connection)
        .await?;
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(outcome));
        Ok(())
    }

    async fn put(
        &self,
        connection: &mut pool::Session,
        puts: &[(Vec<u8>, Stored)],
    ) -> Result<(), sqlx::Error> {
        let keys: Vec<&[u8]> = puts.iter().map(|(key, _)| key.as_slice()).collect();
        let values: Vec<&[u8]> = puts.iter().map(|(_, stored)| &stored.value[..]).collect();
        let expiries: Vec<Option<Micros>> = puts.iter().map(|(_, stored)| stored.expires_at).collect();
        sqlx::query(
            "INSERT INTO tidemill.state_entries AS e (space_id, key, value, expires_at)
             SELECT $1, key, value, tidemill.from_micros(expires_at)
               FROM unnest($2::bytea[], $3::bytea[], $4::bigint[]) AS u(key, value, expires_at)
             ON CONFLICT ON CONSTRAINT state_entries_pk
             DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at",
        )
        .bind(self.id.0)
        .bind(keys)
        .bind(values)
        .bind(expiries)
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn sweep(&self, connection: &mut pool::Session, outcome: &mut Outcome) -> Result<(), sqlx::Error> {
        let gone: Vec<(Vec<u8>, i64)> = sqlx::query_as(
            "DELETE FROM tidemill.state_entries WHERE space_id = $1 AND key = ANY (ARRAY(
                 SELECT key FROM tidemill.state_entries
                  WHERE space_id = $1 AND expires_at <= tidemill.from_micros($2) ORDER BY expires_at LIMIT $3))
             RETURNING key, $4 + length(key) + length(value)",
        )
        .bind(self.id.0)
        .bind(self.writes.now)
        .bind(SWEEP)
        .bind(ENTRY_BYTES as i64)
        .fetch_all(&mut *connection)
        .await?;
        let earliest: Option<Micros> = sqlx::query_scalar(
            "SELECT tidemill.micros(min(expires_at)) FROM tidemill.state_entries WHERE space_id = $1",
        )
        .bind(self.id.0)
        .fetch_one(connection)
        .await?;
        let bytes: i64 = gone.iter().map(|(_, bytes)| bytes).sum();
        outcome.used = outcome.used.saturating_sub(bytes as u64);
        outcome.swept = Some((gone.into_iter().map(|(key, _)| key).collect(), earliest));
        Ok(())
    }

    /// The transaction of the last [`StateChanges::store_in`] is known to be committed.
    pub fn committed(&self) {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(outcome) = stored {
            let Outcome { used, swept } = *outcome;
            self.writes.space.committed(&self.writes, used, swept);
        }
    }
}

/// Entries for one statement each: at least one, and else at most [`PORTION`] bytes.
fn portions(puts: &[(Vec<u8>, Stored)]) -> impl Iterator<Item = &[(Vec<u8>, Stored)]> {
    let mut bytes = 0;
    puts.chunk_by(move |(_, stored), (_, next)| {
        bytes += stored.value.len();
        let fits = bytes + next.value.len() <= PORTION;
        if !fits {
            bytes = 0;
        }
        fits
    })
}

#[cfg(test)]
mod tests;
