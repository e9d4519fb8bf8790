//! DDL that must stand alone: DETACH CONCURRENTLY runs in no transaction. It gets a connection of its own, since the
//! lock_timeout it sets must not stay on a pooled one.

use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection, Executor};

/// Everybody who wants the table queues behind DDL that waits for it, so it waits no longer.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '200ms'";

/// Connects with the first statement.
pub(super) struct Ddl {
    options: Arc<PgConnectOptions>,
    connection: Option<PgConnection>,
}

impl Ddl {
    pub(super) fn new(pool: &PgPool) -> Self {
        Self { options: pool.connect_options(), connection: None }
    }

    pub(super) async fn detach(&mut self, topic: &str, table: &str) -> Result<(), sqlx::Error> {
        let (topic, table) = (quote(topic), quote(table));
        self.run(format!("ALTER TABLE log.{topic} DETACH PARTITION log.{table} CONCURRENTLY")).await
    }

    pub(super) async fn finalize(&mut self, topic: &str, table: &str) -> Result<(), sqlx::Error> {
        let (topic, table) = (quote(topic), quote(table));
        self.run(format!("ALTER TABLE log.{topic} DETACH PARTITION log.{table} FINALIZE")).await
    }

    pub(super) async fn close(self) {
        if let Some(connection) = self.connection {
            // Nothing was left open that a failure could harm.
            let _ = connection.close().await;
        }
    }

    async fn run(&mut self, sql: String) -> Result<(), sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let mut connection = PgConnection::connect_with(&self.options).await?;
                connection.execute(LOCK_TIMEOUT).await?;
                none.insert(connection)
            }
        };
        // As text: several statements, or a prepared one, would be a transaction.
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await;
        if !matches!(done, Ok(_) | Err(sqlx::Error::Database(_))) {
            self.connection = None;
        }
        done.map(drop)
    }
}

/// Names come from the catalog and are SQL names; quoting costs nothing.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
