//! The schema: forward-only SQL files in `migrations/`, built into the program and applied at start.
//!
//! All that is missing is applied in one transaction, and a lock that it holds lets one host at a time do it: others wait
//! and then find the work done. Not by sqlx's own runner, which takes a lock of the session: a pooler does not keep that.

use sqlx::migrate::{Migration, Migrator};

use crate::pg::pool::{Pool, Transaction};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Why the schema could not be brought up to date. The database is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(
        "the database was set up by a newer tidemill: it has migration {0}, which this one does not know; use the newer \
         program"
    )]
    Newer(i64),
    #[error(
        "migration {0} in the database is not the one in this program, which can only happen with development builds; \
         start with an empty database"
    )]
    Changed(i64),
    #[error("migration {version} failed and was rolled back: {source}")]
    Failed { version: i64, source: sqlx::Error },
    #[error(
        "the user of the database may not create what tidemill needs: {0}; let it create schemas: GRANT CREATE ON \
         DATABASE … TO …"
    )]
    Denied(sqlx::Error),
    #[error("cannot migrate the database: {0}")]
    Postgres(#[source] sqlx::Error),
}

/// Applies what is missing.
pub async fn migrate(pool: &Pool) -> Result<(), MigrateError> {
    let mut transaction = pool.begin().await?;
    let applied = prepare(&mut transaction).await?;
    for (version, checksum) in &applied {
        match MIGRATIONS.iter().find(|migration| migration.version == *version) {
            None => return Err(MigrateError::Newer(*version)),
            Some(migration) if *migration.checksum != checksum[..] => {
                return Err(MigrateError::Changed(*version));
            }
            Some(_) => {}
        }
    }
    for migration in MIGRATIONS.iter() {
        if !applied.iter().any(|(version, _)| *version == migration.version) {
            apply(&mut transaction, migration).await?;
        }
    }
    Ok(transaction.commit().await?)
}

/// Takes the lock, and says what was applied: version and checksum. The table has its schema's name: without it,
/// `search_path` decides, and that changes once there is a schema named after the role.
async fn prepare(transaction: &mut Transaction) -> Result<Vec<(i64, Vec<u8>)>, MigrateError> {
    for statement in [
        "SELECT pg_advisory_xact_lock(hashtextextended('tidemill.migrations', 0))",
        "CREATE SCHEMA IF NOT EXISTS tidemill",
        "CREATE TABLE IF NOT EXISTS tidemill.migrations (
            version        bigint PRIMARY KEY,
            description    text NOT NULL,
            installed_on   timestamptz NOT NULL DEFAULT now(),
            success        boolean NOT NULL,
            checksum       bytea NOT NULL,
            execution_time bigint NOT NULL
         )",
    ] {
        sqlx::raw_sql(statement).execute(&mut **transaction).await?;
    }
    Ok(sqlx::query_as("SELECT version, checksum FROM tidemill.migrations ORDER BY version")
        .fetch_all(&mut **transaction)
        .await?)
}

async fn apply(transaction: &mut Transaction, migration: &Migration) -> Result<(), MigrateError> {
    let started = std::time::Instant::now();
    let version = migration.version;
    sqlx::raw_sql(migration.sql.clone()).execute(&mut **transaction).await.map_err(|source| {
        match MigrateError::from(source) {
            MigrateError::Postgres(source) => MigrateError::Failed { version, source },
            denied => denied,
        }
    })?;
    sqlx::query(
        "INSERT INTO tidemill.migrations (version, description, success, checksum, execution_time)
         VALUES ($1, $2, true, $3, $4)",
    )
    .bind(version)
    .bind(&*migration.description)
    .bind(&*migration.checksum)
    .bind(i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) if database.code().as_deref() == Some("42501") => {
                Self::Denied(error)
            }
            _ => Self::Postgres(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::pool;
    use crate::pg::testing::{database, empty_database};

    #[tokio::test]
    async fn hosts_that_start_at_once_migrate_once() {
        let database = empty_database().await;
        let hosts: Vec<_> = (0..4)
            .map(|_| {
                let pool = database.pool.clone();
                tokio::spawn(async move { migrate(&pool).await })
            })
            .collect();
        for host in hosts {
            host.await.unwrap().unwrap();
        }
        migrate(&database.pool).await.unwrap();
        let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM tidemill.migrations")
            .fetch_one(&database.pool)
            .await
            .unwrap();
        assert_eq!(usize::try_from(applied).unwrap(), MIGRATIONS.iter().count());
    }

    #[tokio::test]
    async fn a_database_of_another_version_is_refused_with_what_to_do() {
        let cases = [
            (
                "INSERT INTO tidemill.migrations SELECT 9999, description, installed_on, success, checksum, \
                 execution_time FROM tidemill.migrations LIMIT 1",
                "set up by a newer tidemill: it has migration 9999",
            ),
            (
                "UPDATE tidemill.migrations SET checksum = '' WHERE version = 2",
                "migration 2 in the database is not the one",
            ),
        ];
        for (change, said) in cases {
            let database = database().await;
            sqlx::query(change).execute(&database.pool).await.unwrap();
            let error = migrate(&database.pool).await.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[tokio::test]
    async fn a_user_without_rights_is_told_which() {
        let database = empty_database().await;
        let setup = format!(
            "CREATE ROLE guest_{0} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
            database.name
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(setup)).execute(&database.pool).await.unwrap();
        let url = database.url.replace("//tidemill@", &format!("//guest_{}@", database.name));
        let guest = pool::connect(&url, &Default::default()).await.unwrap();
        let error = migrate(&guest).await.unwrap_err();
        assert!(matches!(error, MigrateError::Denied(_)), "{error}");
        assert!(error.to_string().contains("GRANT CREATE ON DATABASE"), "{error}");
    }
}
