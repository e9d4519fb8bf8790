//! The published design: a row per message, a counter row, and one statement that reserves offsets and inserts a batch.
//!
//! The statement is the article's, word for word. The article does not show its tables, only says that the topic is
//! partitioned by time and has an index: they are made here as the statement's columns and a reader by offset need them.

use anyhow::{Result, ensure};
use bytes::Bytes;
use sqlx::postgres::PgConnection;

use crate::server::Server;

const APPEND: &str = "
WITH reserve AS (
  UPDATE log_counter
  SET next_offset = next_offset + cardinality($1::bytea[])
  WHERE id = $2
  RETURNING next_offset - cardinality($1::bytea[]) AS first_off
)
INSERT INTO topic (topic_id, c_offset, payload)
SELECT $2, r.first_off + ord - 1, payload
FROM reserve r, unnest($1::bytea[]) WITH ORDINALITY AS p(payload, ord);";

/// The one topic.
pub const TOPIC: i32 = 1;

pub struct Published {
    connection: PgConnection,
    batches: Vec<Vec<Bytes>>,
    turn: usize,
}

impl Published {
    pub async fn connect(server: &Server, batches: Vec<Vec<Bytes>>) -> Result<Self> {
        let mut connection = server.connect().await?;
        sqlx::raw_sql("SET search_path = bench").execute(&mut connection).await?;
        Ok(Self { connection, batches, turn: 0 })
    }

    /// One transaction; how many messages.
    pub async fn write(&mut self) -> Result<u64> {
        let batch: Vec<&[u8]> =
            self.batches[self.turn % self.batches.len()].iter().map(Bytes::as_ref).collect();
        self.turn += 1;
        let inserted = sqlx::query(APPEND).bind(&batch).bind(TOPIC).execute(&mut self.connection).await?;
        ensure!(inserted.rows_affected() == batch.len() as u64, "{} rows", inserted.rows_affected());
        Ok(inserted.rows_affected())
    }
}

pub async fn create(server: &Server) -> Result<()> {
    server
        .execute(
            "CREATE SCHEMA IF NOT EXISTS bench;
             CREATE TABLE bench.log_counter (id int PRIMARY KEY, next_offset bigint NOT NULL) WITH (fillfactor = 10);
             CREATE TABLE bench.topic (
                 topic_id   int NOT NULL,
                 c_offset   bigint NOT NULL,
                 payload    bytea NOT NULL,
                 created_at timestamptz NOT NULL DEFAULT now()
             ) PARTITION BY RANGE (created_at);
             CREATE INDEX ON bench.topic (topic_id, c_offset);",
        )
        .await?;
    // The hour that is and the next, made ahead as the article's sweeper does.
    for ahead in 0..2 {
        let hour = |hours| format!("date_trunc('hour', now()) + interval '{hours} hours'");
        let (from, to) = (hour(ahead), hour(ahead + 1));
        server
            .execute(format!(
                "DO $$ BEGIN EXECUTE format('CREATE TABLE bench.topic_p_{ahead} PARTITION OF bench.topic
                     FOR VALUES FROM (%L) TO (%L)', {from}, {to}); END $$"
            ))
            .await?;
    }
    server.execute(format!("INSERT INTO bench.log_counter VALUES ({TOPIC}, 0)")).await
}

pub async fn remove(server: &Server) -> Result<()> {
    server.execute("DROP TABLE bench.topic, bench.log_counter").await
}
