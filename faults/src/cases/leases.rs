//! Who holds what, as the database says it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sqlx::Row as _;
use tokio::time::sleep;

use crate::cluster::Cluster;

/// Beyond that something hangs.
const STUCK: Duration = Duration::from_secs(40);

/// One partition of one group, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub group: String,
    pub partition: i32,
    pub epoch: i64,
    pub owner: String,
}

/// All that are held now.
pub async fn leases(cluster: &Cluster) -> Result<Vec<Lease>> {
    let mut connection = cluster.server.connect().await?;
    let rows = sqlx::query(
        "SELECT group_name, partition, epoch, owner FROM tidemill.consumer_offsets
          WHERE owner IS NOT NULL AND expires_at > clock_timestamp() ORDER BY 1, 2",
    )
    .fetch_all(&mut connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Lease {
                group: row.try_get(0)?,
                partition: row.try_get(1)?,
                epoch: row.try_get(2)?,
                owner: row.try_get(3)?,
            })
        })
        .collect()
}

/// The host that holds most, and what.
pub async fn holder(cluster: &Cluster) -> Result<(usize, Vec<Lease>)> {
    let since = Instant::now();
    loop {
        let leases = leases(cluster).await?;
        let mut best: Option<(usize, Vec<Lease>)> = None;
        for (number, host) in cluster.hosts.iter().enumerate() {
            let id = host.id()?;
            let held: Vec<Lease> = leases.iter().filter(|lease| lease.owner == id).cloned().collect();
            if !held.is_empty() && best.as_ref().is_none_or(|(_, most)| held.len() > most.len()) {
                best = Some((number, held));
            }
        }
        match best {
            Some(best) => return Ok(best),
            None if since.elapsed() > STUCK => bail!("no host holds a lease: {leases:?}"),
            None => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Waits until all of these have another owner.
pub async fn taken_over(cluster: &Cluster, held: &[Lease], since: Instant) -> Result<Vec<Lease>> {
    loop {
        let now = leases(cluster).await?;
        let taken = held.iter().all(|old| {
            now.iter().any(|new| {
                (&new.group, new.partition) == (&old.group, old.partition)
                    && new.epoch > old.epoch
                    && new.owner != old.owner
            })
        });
        if taken {
            return Ok(now);
        }
        if since.elapsed() > STUCK {
            bail!("{held:?} were not taken over within {} s; now {now:?}", STUCK.as_secs());
        }
        sleep(Duration::from_millis(20)).await;
    }
}
