//! A queued letter on its way: found by the owner of its partition, and ended or put back under the owner's epoch.
//!
//! Guarantee: [`settle_in`], [`Letters::fail`] and [`Letters::postpone`] change the very row version that was read, in a
//! transaction that holds the lease's row at its epoch ([`hold_in`]). So of several owners only the present one has an effect,
//! and a letter whose payload was repaired meanwhile is not ended by a run of the old one.
//! Failure: after a broken connection [`Letters::standing`] says whether the letter is still as it was read.

use std::time::Duration;

use super::{COLUMNS, Letter, LetterError, Letters, letter};
use crate::log::offsets::{CommitError, Lease, hold_in};
use crate::pg::pool::Session;

/// How a letter's run failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    pub kind: &'a str,
    pub error: &'a str,
    /// The component that ran.
    pub digest: &'a str,
}

/// What is known of a letter that was to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As it was read: nothing was committed.
    There,
    /// Ended, or dropped by its user.
    Gone,
    /// Its user has changed it.
    Changed,
}

impl Letters {
    /// The next queued letter of a lease's partition, in the order of offsets.
    pub async fn next(&self, lease: &Lease, topic: &str) -> Result<Option<Letter>, LetterError> {
        let sql = format!(
            "SELECT {COLUMNS}, key, headers, payload FROM tidemill.dead_letters
              WHERE group_name = $1 AND topic = $2 AND partition = $3 AND state = 'queued'
                AND (not_before IS NULL OR not_before <= clock_timestamp())
              ORDER BY c_offset, dead_letter_id LIMIT 1"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(lease.group.as_str())
            .bind(topic)
            .bind(lease.partition as i32)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.as_ref().map(letter).transpose()?)
    }

    /// The letter failed again: it is dead, with the new error. Nothing happens to a letter that was changed meanwhile.
    pub async fn fail(
        &self,
        lease: &Lease,
        letter: &Letter,
        failure: Failure<'_>,
    ) -> Result<(), CommitError> {
        let mut transaction = self.pool.begin().await?;
        hold_in(&mut transaction, lease).await?;
        sqlx::query(
            "UPDATE tidemill.dead_letters
                SET state = 'dead', attempts = attempts + 1, kind = $3, error = $4, digest = $5, tries = 0, not_before = NULL,
                    failed_at = clock_timestamp()
              WHERE dead_letter_id = $1 AND xmin::text = $2",
        )
        .bind(letter.id)
        .bind(&letter.version)
        .bind(failure.kind)
        .bind(failure.error)
        .bind(failure.digest)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The letter asked to come again, not before `after`: it stays queued, and nothing waits for it.
    pub async fn postpone(&self, lease: &Lease, letter: &Letter, after: Duration) -> Result<(), CommitError> {
        let mut transaction = self.pool.begin().await?;
        hold_in(&mut transaction, lease).await?;
        sqlx::query(
            "UPDATE tidemill.dead_letters
                SET attempts = attempts + 1, tries = tries + 1, not_before = clock_timestamp() + $3
              WHERE dead_letter_id = $1 AND xmin::text = $2",
        )
        .bind(letter.id)
        .bind(&letter.version)
        .bind(after)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Whether a letter is still as it was read.
    pub async fn standing(&self, letter: &Letter) -> Result<Standing, sqlx::Error> {
        let sql = "SELECT xmin::text FROM tidemill.dead_letters WHERE dead_letter_id = $1";
        let version: Option<String> =
            sqlx::query_scalar(sql).bind(letter.id).fetch_optional(&self.pool).await?;
        Ok(match version {
            None => Standing::Gone,
            Some(version) if version == letter.version => Standing::There,
            Some(_) => Standing::Changed,
        })
    }
}

/// Ends a letter inside the transaction that holds what its message led to. False: it is not as it was read any more, and the
/// transaction must not be committed.
pub async fn settle_in(connection: &mut Session, letter: &Letter) -> Result<bool, sqlx::Error> {
    let sql = "DELETE FROM tidemill.dead_letters WHERE dead_letter_id = $1 AND xmin::text = $2";
    let gone = sqlx::query(sql).bind(letter.id).bind(&letter.version).execute(connection).await?;
    Ok(gone.rows_affected() == 1)
}
