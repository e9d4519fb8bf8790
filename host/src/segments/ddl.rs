//! DDL that must not wait for long: everybody who wants the table queues behind it.
//!
//! DETACH CONCURRENTLY runs in no transaction, so its lock_timeout has to be a setting of the session: it gets a
//! connection of its own to the server. Where there is only a pooler, which does not keep sessions apart, a plain DETACH
//! in a transaction takes its place. That one needs the parent for itself, for a moment: host and SQL API name the
//! segments, but a report over a whole topic makes it give up after 200 ms, to be tried again with the next tick.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::time::timeout;

use crate::pg::pool::Pool;

/// The server ends a statement before; a server that is gone without a word ends none.
const PATIENCE: Duration = Duration::from_secs(35);

/// Connects with the first statement.
pub(super) struct Ddl<'a> {
    pool: &'a Pool,
    connection: Option<PgConnection>,
}

impl<'a> Ddl<'a> {
    pub(super) fn new(pool: &'a Pool) -> Self {
        Self { pool, connection: None }
    }

    pub(super) async fn detach(&mut self, topic: &str, table: &str) -> Result<(), sqlx::Error> {
        let sql = format!("ALTER TABLE log.{} DETACH PARTITION log.{}", quote(topic), quote(table));
        match self.pool.direct() {
            Some(server) => self.alone(server, format!("{sql} CONCURRENTLY")).await,
            None => self.in_transaction(sql).await,
        }
    }

    pub(super) async fn finalize(&mut self, topic: &str, table: &str) -> Result<(), sqlx::Error> {
        let (topic, table) = (quote(topic), quote(table));
        self.in_transaction(format!("ALTER TABLE log.{topic} DETACH PARTITION log.{table} FINALIZE")).await
    }

    pub(super) async fn close(self) {
        if let Some(connection) = self.connection {
            // Nothing was left open that a failure could harm.
            let _ = connection.close().await;
        }
    }

    async fn in_transaction(&self, sql: String) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        transaction.execute("SET LOCAL lock_timeout = '200ms'").await?;
        transaction.execute(AssertSqlSafe(sql)).await?;
        transaction.commit().await
    }

    async fn alone(&mut self, server: &PgConnectOptions, sql: String) -> Result<(), sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let connecting = timeout(PATIENCE, PgConnection::connect_with(server)).await;
                let mut connection = connecting
                    .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))?;
                connection.execute("SET lock_timeout = '200ms'").await?;
                none.insert(connection)
            }
        };
        // As text: several statements, or a prepared one, would be a transaction.
        let done = timeout(PATIENCE, sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection)).await;
        let done = done.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
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
