//! The schema: forward-only SQL files in `migrations/`, built into the program and applied at start.
//!
//! A migration is one transaction, and a lock of the database lets one host at a time apply them: others wait and then
//! find the work done.

use sqlx::migrate::{MigrateError as Cause, Migrator};
use sqlx::postgres::PgPool;

/// What is applied is written down in a table with its schema's name: without it, `search_path` decides, and that changes
/// once there is a schema named after the role.
fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("../migrations");
    migrations.create_schema("tidemill");
    migrations.dangerous_set_table_name("tidemill.migrations");
    migrations
}

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
    Denied(String),
    #[error("cannot migrate the database: {0}")]
    Other(#[source] Cause),
}

/// Applies what is missing.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    migrations().run(pool).await.map_err(explain)
}

fn explain(cause: Cause) -> MigrateError {
    let denied = |error: &sqlx::Error| {
        error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("42501"))
    };
    match cause {
        Cause::VersionMissing(version) => MigrateError::Newer(version),
        Cause::VersionMismatch(version) => MigrateError::Changed(version),
        Cause::ExecuteMigration(error, _) | Cause::Execute(error) if denied(&error) => {
            MigrateError::Denied(error.to_string())
        }
        Cause::ExecuteMigration(source, version) => MigrateError::Failed { version, source },
        other => MigrateError::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(usize::try_from(applied).unwrap(), migrations().iter().count());
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
        let options =
            (*database.pool.connect_options()).clone().username(&format!("guest_{}", database.name));
        let guest = PgPool::connect_with(options).await.unwrap();
        let error = migrate(&guest).await.unwrap_err();
        assert!(matches!(error, MigrateError::Denied(_)), "{error}");
        assert!(error.to_string().contains("GRANT CREATE ON DATABASE"), "{error}");
    }
}
