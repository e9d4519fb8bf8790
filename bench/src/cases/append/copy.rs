//! COPY BINARY into a table with a row per message and a key: what a row per message can cost at the least.
//!
//! Offsets come from the writers, who share a number in memory, so that nobody waits for a counter row.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Result, ensure};
use bytes::Bytes;
use sqlx::postgres::PgConnection;

use crate::server::Server;

const COPY: &str = "COPY bench.copied (topic_id, partition, c_offset, payload) FROM STDIN (FORMAT binary)";

pub fn next_offset() -> Arc<AtomicI64> {
    Arc::default()
}

pub struct Copy {
    connection: PgConnection,
    batches: Vec<Vec<Bytes>>,
    turn: usize,
    next: Arc<AtomicI64>,
    data: Vec<u8>,
}

impl Copy {
    pub fn new(connection: PgConnection, batches: Vec<Vec<Bytes>>, next: Arc<AtomicI64>) -> Self {
        Self { connection, batches, turn: 0, next, data: Vec::new() }
    }

    /// One COPY, which is one transaction; how many messages.
    pub async fn write(&mut self) -> Result<u64> {
        let batch = &self.batches[self.turn % self.batches.len()];
        self.turn += 1;
        let first = self.next.fetch_add(batch.len() as i64, Ordering::Relaxed);
        self.data.clear();
        encode(batch, first, &mut self.data);
        let mut copy = self.connection.copy_in_raw(COPY).await?;
        copy.send(self.data.as_slice()).await?;
        let rows = copy.finish().await?;
        ensure!(rows == batch.len() as u64, "{rows} rows");
        Ok(rows)
    }
}

/// Postgres's format: a head, rows of a number of fields and then each field behind its length, and an end.
fn encode(batch: &[Bytes], first: i64, data: &mut Vec<u8>) {
    data.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
    data.extend_from_slice(&[0; 8]);
    for (payload, offset) in batch.iter().zip(first..) {
        data.extend_from_slice(&4_i16.to_be_bytes());
        for number in [1_i32, 0] {
            data.extend_from_slice(&4_i32.to_be_bytes());
            data.extend_from_slice(&number.to_be_bytes());
        }
        data.extend_from_slice(&8_i32.to_be_bytes());
        data.extend_from_slice(&offset.to_be_bytes());
        // A report has some 200 bytes.
        data.extend_from_slice(&(payload.len() as i32).to_be_bytes());
        data.extend_from_slice(payload);
    }
    data.extend_from_slice(&(-1_i16).to_be_bytes());
}

pub async fn create(server: &Server) -> Result<()> {
    server
        .execute(
            "CREATE SCHEMA IF NOT EXISTS bench;
             CREATE TABLE bench.copied (
                 topic_id  int NOT NULL,
                 partition int NOT NULL,
                 c_offset  bigint NOT NULL,
                 payload   bytea NOT NULL,
                 PRIMARY KEY (topic_id, partition, c_offset)
             );",
        )
        .await
}

pub async fn remove(server: &Server) -> Result<()> {
    server.execute("DROP TABLE bench.copied").await
}
