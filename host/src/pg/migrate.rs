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
