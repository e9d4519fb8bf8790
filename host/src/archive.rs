//! The archive: sealed segments leave Postgres as Parquet in a bucket.
//!
//! Reading order: [`parquet`] (records to files and back).

pub mod parquet;
