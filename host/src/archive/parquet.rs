//! Records as typed Parquet, and back, byte for byte.
//!
//! A file holds some records of one partition. Declared fields of the topic's schema become typed columns, rows stand in
//! the order of the topic's `sort`, and of each record the writer proves that its typed values render the very bytes that
//! were appended; of those where they do not, the bytes are kept beside them in `_payload`. Whatever the payloads are,
//! [`decode`] gives back what [`Encoder`] was given.
//!
//! Reading order: [`layout`] (the columns), [`scan`] (JSON to values, fast), [`style`] (how a file's payloads are written),
//! [`render`] (values to JSON), [`rows`] (values in memory), [`write`], [`read`]; [`footer`] is what a file says of itself.

pub mod footer;
pub mod layout;
pub mod read;
pub mod write;

mod fingerprint;
mod render;
mod rows;
mod scan;
mod style;

pub use footer::Footer;
pub use layout::{Field, FieldKind, Layout};
pub use read::{Check, check, decode, footer};
pub use write::{Encoded, Encoder, encode};

/// A file that was not written or not read.
#[derive(Debug, thiserror::Error)]
pub enum ParquetError {
    #[error("{}: {source}", .path.display())]
    Io { path: std::path::PathBuf, source: std::io::Error },
    #[error("parquet: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
    /// Not one of our files, or not as it was written.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    #[error("a file takes up to {max} records, and offset {offset} does not follow {after}")]
    OutOfOrder { offset: u64, after: u64, max: usize },
}

#[cfg(test)]
mod tests;
