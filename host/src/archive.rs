//! The archive: sealed segments leave Postgres as Parquet in a bucket.
//!
//! Guarantees, whatever crashes when:
//! * a segment's table is dropped only when every record of it is in an object that was read back and gave the very
//!   records that were read from Postgres (`catalog::commit` is the only place that makes a segment `archived`);
//! * every object is in the catalog or noted as loose, and what stays loose is deleted (`sweep`);
//! * no transaction is open while the bucket is talked to.
//!
//! Bounds: one segment at a time in a host, one object of at most [`parquet::write::MAX_RECORDS`] records in memory.
//! When the bucket does not answer, segments wait in Postgres, which keeps serving; the error is in the segment's row.
//!
//! Reading order: [`parquet`] (records to files and back), [`store`] (the bucket), [`archiver`] (the task), `segment` (one
//! segment, step by step), [`catalog`] (the SQL), `sweep`, [`picture`] (what is where), [`key`] (names of objects),
//! [`objects`] and [`reader`] (the way back: whole objects, and records by offset).

pub mod archiver;
pub mod catalog;
pub mod key;
pub mod objects;
pub mod parquet;
pub mod picture;
pub mod reader;
pub mod store;

mod segment;
mod sweep;

pub use archiver::{ArchiveError, Archiver, ArchiverOptions, Report};
pub use store::{Bucket, BucketError, BucketOptions};

#[cfg(test)]
mod tests;
