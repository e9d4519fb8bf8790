//! A live tail of one table for one reader, at the reader's own pace.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::{Changes, TableError, Tables};
use crate::ids::TableName;
use crate::replay::Position;

/// How long a tail waits without a signal before it looks anyway: another host may keep the table.
const POLL: Duration = Duration::from_secs(1);

/// Reads what changed since its position, each time it is asked. Holds no buffer: a slow reader gets fewer, larger changes,
/// since only the newest state of a row is ever sent.
#[derive(Debug)]
pub struct TableFeed {
    tables: Tables,
    name: TableName,
    signal: watch::Receiver<u64>,
    position: Position,
    /// What late messages have changed at this position, as far as it was told: such changes move no position.
    told: Option<(Vec<Value>, Vec<Value>)>,
}

impl TableFeed {
    pub(super) fn new(
        tables: Tables,
        name: TableName,
        signal: watch::Receiver<u64>,
        position: Position,
    ) -> Self {
        Self { tables, name, signal, position, told: None }
    }

    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Waits at most `wait` for a change, then reads.
    pub async fn next(&mut self, wait: Duration) -> Result<Tail, TableError> {
        let _ = tokio::time::timeout(wait.min(POLL), self.signal.changed()).await;
        let Some(changes) = self.tables.changes(self.name.as_str(), &self.position).await? else {
            return Ok(Tail::TooOld);
        };
        let moved = changes.position != self.position;
        self.position = changes.position.clone();
        if changes.upserts.is_empty() && changes.deletes.is_empty() {
            return Ok(Tail::Quiet);
        }
        let late = (!moved).then(|| (changes.upserts.clone(), changes.deletes.clone()));
        if late.is_some() && late == self.told {
            return Ok(Tail::Quiet);
        }
        self.told = late;
        Ok(Tail::Changed(changes))
    }
}

/// What a look at the tail found.
#[derive(Debug)]
pub enum Tail {
    Changed(Changes),
    Quiet,
    /// The position is no longer known (the group was moved back, or deletions were forgotten): take a new snapshot.
    TooOld,
}
