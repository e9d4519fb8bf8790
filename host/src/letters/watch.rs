//! Which partitions have queued letters: one look a second for a whole host, so that tasks need none of their own.
//!
//! The same look counts the letters of each group, and takes away those that were kept long enough.
//!
//! A task asks its [`Queue`] between two batches, which costs a load. Only when the last look has found letters of its
//! partition does it ask Postgres for one. Lost notifications cost up to [`POLL`], never a letter.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{LetterCount, LetterError, Letters};
use crate::ids::Partition;
use crate::log::offsets::Lease;

/// How often the host looks for queued letters, beside being told.
const POLL: Duration = Duration::from_secs(1);
/// How often it counts the letters of each group.
const COUNT: Duration = Duration::from_secs(5);
/// How often it takes away what was kept long enough, and how many letters at a time.
const EXPIRE: Duration = Duration::from_secs(30);
const EXPIRE_AT_ONCE: i64 = 10_000;
/// A group with so many letters is warned about, and again each time they have doubled.
pub const MANY: u64 = 10_000;

/// A group, a topic, a partition.
type Place = (String, String, Partition);

/// What the last look found. It is said anew with every look that finds something.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    places: watch::Sender<Arc<HashSet<Place>>>,
    hurry: Arc<Notify>,
}

impl Default for Queued {
    fn default() -> Self {
        Self { places: watch::Sender::new(Arc::default()), hurry: Arc::default() }
    }
}

impl Queued {
    /// Looks at once: this host has just queued something.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }
}

/// Tells the task that owns a partition whether letters wait there.
#[derive(Debug)]
pub struct Queue {
    place: Place,
    places: watch::Receiver<Arc<HashSet<Place>>>,
    waiting: bool,
}

impl Queue {
    /// True: letters were there at the last look, and the task has not emptied the queue since.
    pub fn is_due(&mut self) -> bool {
        if self.places.has_changed().unwrap_or(false) {
            self.waiting = self.places.borrow_and_update().contains(&self.place);
        }
        self.waiting
    }

    /// The task has found no more.
    pub fn emptied(&mut self) {
        self.waiting = false;
    }
}

impl Letters {
    /// The queue of a lease's partition.
    pub fn queue(&self, lease: &Lease, topic: &str) -> Queue {
        let mut places = self.queued.places.subscribe();
        places.mark_changed();
        Queue { place: (lease.group.to_string(), topic.to_string(), lease.partition), places, waiting: false }
    }

    /// Looks for queued letters, counts all of them, and drops those that failed longer than `keep` ago (None: it keeps
    /// them), until the token is cancelled.
    pub async fn watch(self, keep: Option<Duration>, token: CancellationToken) {
        let mut told = self.log.hub().letters();
        let (mut counted, mut expired): (Option<Instant>, Option<Instant>) = (None, None);
        let mut known = BTreeMap::new();
        loop {
            match self.places().await {
                Ok(places) if places.is_empty() && self.queued.places.borrow().is_empty() => {}
                Ok(places) => drop(self.queued.places.send_replace(Arc::new(places))),
                Err(error) => tracing::debug!(%error, "cannot ask which dead letters are queued"),
            }
            if counted.is_none_or(|at| at.elapsed() >= COUNT) {
                counted = Some(Instant::now());
                match self.counts().await {
                    Ok(counts) => report(&counts, &mut known),
                    Err(error) => tracing::debug!(%error, "cannot count the dead letters"),
                }
            }
            if let Some(keep) = keep.filter(|_| expired.is_none_or(|at| at.elapsed() >= EXPIRE)) {
                match self.expire(keep).await {
                    Ok(EXPIRE_AT_ONCE..) => {}
                    Ok(_) => expired = Some(Instant::now()),
                    Err(error) => {
                        tracing::debug!(%error, "dead letters that were kept long enough are not dropped yet")
                    }
                }
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = told.woken() => {}
                () = self.queued.hurry.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Drops letters that failed longer than `keep` ago and are not to run again. How many.
    pub async fn expire(&self, keep: Duration) -> Result<i64, LetterError> {
        let gone = sqlx::query(
            "DELETE FROM tidemill.dead_letters WHERE state = 'dead' AND dead_letter_id = ANY (ARRAY(
                 SELECT dead_letter_id FROM tidemill.dead_letters
                  WHERE state = 'dead' AND failed_at < clock_timestamp() - $1 ORDER BY failed_at LIMIT $2))",
        )
        .bind(keep)
        .bind(EXPIRE_AT_ONCE)
        .execute(&self.pool)
        .await?
        .rows_affected();
        if gone > 0 {
            metrics::counter!("tidemill_dead_letters_expired_total").increment(gone);
            tracing::info!(letters = gone, "dropped dead letters that were kept long enough");
        }
        Ok(gone as i64)
    }

    async fn places(&self) -> Result<HashSet<Place>, LetterError> {
        let rows: Vec<(String, String, i32)> = sqlx::query_as(
            "SELECT DISTINCT group_name, topic, partition FROM tidemill.dead_letters
              WHERE state = 'queued' AND (not_before IS NULL OR not_before <= clock_timestamp())",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(group, topic, partition)| (group, topic, partition as Partition)).collect())
    }
}

/// Sets the gauges, and warns of groups that have more than was warned of. `known`: of each group, from where on to warn.
fn report(counts: &[LetterCount], known: &mut BTreeMap<String, u64>) {
    let gauge = |name: &'static str, group: &str, value: u64| {
        metrics::gauge!(name, "group" => group.to_string()).set(value as f64);
    };
    for group in known.keys().filter(|group| !counts.iter().any(|count| count.group == **group)) {
        gauge("tidemill_dead_letters", group, 0);
        gauge("tidemill_dead_letters_queued", group, 0);
    }
    known.retain(|group, _| counts.iter().any(|count| count.group == *group));
    for LetterCount { group, letters, queued } in counts {
        gauge("tidemill_dead_letters", group, *letters);
        gauge("tidemill_dead_letters_queued", group, *queued);
        let warn_at = known.entry(group.clone()).or_insert(MANY);
        if *letters >= *warn_at {
            tracing::warn!(
                group,
                letters,
                "the group has many dead letters; look at them with `tidemill dlq list --group {group}`, then redrive or \
                 drop them"
            );
            *warn_at = letters.saturating_mul(2);
        } else if *letters < *warn_at / 4 {
            *warn_at = MANY.max(*warn_at / 2);
        }
    }
}
