//! What the server promises: whether a commit survives a crash, and whether the server is one that the log can use.

use sqlx::FromRow;

use crate::pg::pool::Pool;

use super::embedded::binaries::OLDEST;

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DurabilityError {
    #[error(
        "the server is PostgreSQL {version}, and tidemill needs {OLDEST} or later; upgrade it, or leave out \
         --database-url to use the embedded server"
    )]
    TooOld { version: String },
    #[error("the server is a standby, which takes no writes; give the address of its primary")]
    Standby,
    #[error(
        "the server has fsync off, so a crash of its machine may destroy the whole database; turn it on (ALTER SYSTEM SET \
         fsync = on; SELECT pg_reload_conf()), or take the risk with --allow-no-fsync"
    )]
    NoFsync,
    #[error("cannot read the server's settings: {0}")]
    Query(#[from] sqlx::Error),
}

/// The settings that decide what survives.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Durability {
    /// E.g. `15.18`.
    pub version: String,
    /// E.g. 150018.
    pub version_number: i32,
    pub fsync: bool,
    pub full_page_writes: bool,
    /// `on`, `local`, `remote_write`, `remote_apply` or `off`, as this session sees it.
    pub synchronous_commit: String,
    /// This build compresses large rows with lz4.
    pub lz4: bool,
    in_recovery: bool,
}

impl Durability {
    /// Whether an acknowledged commit survives a crash of the server and a power cut.
    pub fn is_durable(&self) -> bool {
        self.fsync && self.full_page_writes && self.synchronous_commit != "off"
    }

    /// Refuses a server that may lose the database itself, unless that is allowed.
    pub fn demand_fsync(&self, allow_none: bool) -> Result<(), DurabilityError> {
        match self.fsync || allow_none {
            true => Ok(()),
            false => Err(DurabilityError::NoFsync),
        }
    }

    /// What is wrong, one line each; empty when durable.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.fsync {
            warnings.push(
                "NOT DURABLE: fsync is off: a crash of the machine may destroy the whole database".into(),
            );
        }
        if !self.full_page_writes {
            warnings.push(
                "NOT DURABLE: full_page_writes is off: a power cut may leave torn pages that nothing repairs"
                    .into(),
            );
        }
        if self.synchronous_commit == "off" {
            warnings.push(
                "NOT DURABLE: synchronous_commit is off: a crash loses acknowledged records of the last moments".into(),
            );
        }
        warnings
    }
}

/// Reads the settings, and refuses a server that the log cannot use. Saying the [`Durability::warnings`] out loud is the
/// caller's part.
pub async fn check(pool: &Pool) -> Result<Durability, DurabilityError> {
    let found: Durability = sqlx::query_as(
        "SELECT split_part(current_setting('server_version'), ' ', 1) AS version, \
                current_setting('server_version_num')::int AS version_number, \
                current_setting('fsync')::bool AS fsync, \
                current_setting('full_page_writes')::bool AS full_page_writes, \
                current_setting('synchronous_commit') AS synchronous_commit, \
                coalesce((SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'), \
                         false) AS lz4, \
                pg_is_in_recovery() AS in_recovery",
    )
    .fetch_one(pool)
    .await?;
    if found.version_number < i32::try_from(OLDEST).unwrap_or(i32::MAX).saturating_mul(10_000) {
        return Err(DurabilityError::TooOld { version: found.version });
    }
    if found.in_recovery {
        return Err(DurabilityError::Standby);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::testing;

    #[tokio::test]
    async fn the_embedded_server_is_durable() {
        let database = testing::empty_database().await;
        let found = check(&database.pool).await.unwrap();
        assert!(found.is_durable() && found.warnings().is_empty(), "{found:?}");
        assert!(found.version_number >= 150_000, "{found:?}");
        assert!(found.version.starts_with(&(found.version_number / 10_000).to_string()), "{found:?}");
    }

    #[tokio::test]
    async fn a_server_without_fsync_is_refused_unless_that_is_allowed() {
        let database = testing::empty_database().await;
        let found = check(&database.pool).await.unwrap();
        found.demand_fsync(false).unwrap();
        let without = Durability { fsync: false, ..found };
        let error = without.demand_fsync(false).unwrap_err().to_string();
        assert!(error.contains("--allow-no-fsync"), "{error}");
        without.demand_fsync(true).unwrap();
        assert_eq!(without.warnings().len(), 1, "allowed, and said");
    }

    #[tokio::test]
    async fn relaxed_commits_are_noticed() {
        let database = testing::empty_database().await;
        let sql = format!("ALTER DATABASE {} SET synchronous_commit = off", database.name);
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&database.pool).await.unwrap();
        let pool = crate::pg::pool::connect(&database.url, &Default::default()).await.unwrap();
        let found = check(&pool).await.unwrap();
        assert!(!found.is_durable());
        assert_eq!(found.warnings().len(), 1, "{:?}", found.warnings());
    }
}
