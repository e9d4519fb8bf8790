//! Short reads of committed entries. They run where the sockets are, and end with the guest's call.

use std::collections::HashMap;

use bytes::Bytes;
use futures::TryStreamExt;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::SpaceId;
use crate::pg::pool::Pool;
use crate::plugin::state::{Committed, Entries, READ_BYTES, Range, ReadError, Reading, Stored};

pub(super) struct Source {
    pool: Pool,
    id: SpaceId,
    io: Handle,
}

impl Source {
    pub(super) fn new(pool: Pool, id: SpaceId, io: Handle) -> Self {
        Self { pool, id, io }
    }

    fn run<T: Send + 'static>(
        &self,
        read: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Reading<'_, T> {
        let task = AbortOnDropHandle::new(self.io.spawn(read));
        Box::pin(
            async move { task.await.unwrap_or_else(|error| Err(ReadError::Unavailable(error.to_string()))) },
        )
    }
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Key and entry of a row (key, value, expires_at).
fn entry(row: &PgRow) -> Result<(Vec<u8>, Stored), sqlx::Error> {
    let value: Vec<u8> = row.try_get(1)?;
    Ok((row.try_get(0)?, Stored { value: Bytes::from(value), expires_at: row.try_get(2)? }))
}

impl Committed for Source {
    fn load(&self, keys: Vec<Vec<u8>>) -> Reading<'_, Vec<Option<Stored>>> {
        let (pool, id) = (self.pool.clone(), self.id);
        self.run(async move {
            let mut rows = sqlx::query(
                "SELECT key, value, tidemill.micros(expires_at) FROM tidemill.state_entries
                  WHERE space_id = $1 AND key = ANY($2)",
            )
            .bind(id.0)
            .bind(&keys)
            .fetch(&pool);
            let mut found = HashMap::with_capacity(keys.len());
            let mut bytes = 0;
            while let Some(row) = rows.try_next().await? {
                let (key, stored) = entry(&row)?;
                bytes += stored.value.len() as u64;
                if bytes > READ_BYTES {
                    return Err(ReadError::TooLarge);
                }
                found.insert(key, stored);
            }
            Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
        })
    }

    fn lengths(&self, keys: Vec<Vec<u8>>) -> Reading<'_, Vec<Option<usize>>> {
        let (pool, id) = (self.pool.clone(), self.id);
        self.run(async move {
            let rows: Vec<(Vec<u8>, i32)> = sqlx::query_as(
                "SELECT key, length(value) FROM tidemill.state_entries WHERE space_id = $1 AND key = ANY($2)",
            )
            .bind(id.0)
            .bind(&keys)
            .fetch_all(&pool)
            .await?;
            let found: HashMap<Vec<u8>, i32> = rows.into_iter().collect();
            Ok(keys.iter().map(|key| found.get(key).map(|length| *length as usize)).collect())
        })
    }

    fn scan(&self, range: Range, limit: usize) -> Reading<'_, Entries> {
        let (pool, id) = (self.pool.clone(), self.id);
        self.run(async move {
            let mut rows = sqlx::query(
                "SELECT key, value, tidemill.micros(expires_at) FROM tidemill.state_entries
                  WHERE space_id = $1 AND key >= $2 AND ($3::bytea IS NULL OR key < $3)
                    AND ($4::bytea IS NULL OR key > $4)
                  ORDER BY key LIMIT $5",
            )
            .bind(id.0)
            .bind(&range.prefix)
            .bind(range.end())
            .bind(&range.after)
            .bind(limit as i64)
            .fetch(&pool);
            let mut found = Vec::new();
            let mut bytes = 0;
            while let Some(row) = rows.try_next().await? {
                let (key, stored) = entry(&row)?;
                bytes += (key.len() + stored.value.len()) as u64;
                if bytes > READ_BYTES {
                    return Err(ReadError::TooLarge);
                }
                found.push((key, stored));
            }
            Ok(found)
        })
    }
}
