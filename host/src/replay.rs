//! The one reader of topics. Whoever reads a topic (stages, HTTP streams, the command line) does it through a
//! [`Cursor`], which takes turns over partitions, waits at the end, and knows where it stands.

mod cursor;
mod position;

use std::sync::Arc;

use crate::ids::{Offset, Partition};
use crate::log::{FetchError, FetchLimits, Log, Topic};

pub use cursor::Cursor;
pub use position::{Position, PositionError};

/// Reads topics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Replay {
    log: Log,
}

/// A read that cannot go on as it is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("topic {topic:?}: {source}")]
pub struct ReplayError {
    pub topic: String,
    pub source: FetchError,
}

impl Replay {
    pub fn new(log: Log) -> Self {
        Self { log }
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Reads the given partitions, each from its offset on. `limits` bound one read of one partition, which is also what
    /// is held in memory for each.
    pub fn cursor(
        &self,
        topic: Arc<Topic>,
        positions: Vec<(Partition, Offset)>,
        limits: FetchLimits,
    ) -> Cursor {
        Cursor::new(self.log.clone(), topic, positions, limits)
    }
}

#[cfg(test)]
mod tests;
