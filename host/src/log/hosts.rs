//! Which hosts there are, what each of them can run, and who holds what.
//!
//! All of it is on the database's time. A host that is not heard of for [`LEASE_TTL`] counts as gone, and what it held may be
//! taken; nothing here keeps it from going on, which is what the epochs of the leases are for.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::types::Json;

use super::LogError;
use crate::clock::rfc3339;
use crate::ids::{HostId, Micros, Partition};
use crate::pg::notify::HOSTS;
use crate::pg::pool::Pool;

/// How long a host and its leases last without a sign of life or a commit. A killed host is replaced after at most this and
/// one look of the others.
pub const LEASE_TTL: Duration = Duration::from_secs(7);

/// How often a host gives a sign of life.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// One partition of one stage, which is what one host at a time runs. Producers have partition 0 only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// `pipeline/stage`.
    pub stage: String,
    pub partition: Partition,
}

/// What a host says it runs: `pipeline/stage` -> partitions.
pub type Stages = BTreeMap<String, u32>;

/// Who is there, and who holds what, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    pub hosts: BTreeMap<HostId, Stages>,
    pub held: BTreeMap<Slot, HostId>,
}

/// A host as status shows it.
#[derive(Clone, Debug, Serialize)]
pub struct HostView {
    pub host: String,
    pub version: String,
    pub url: Option<String>,
    pub started_at: String,
    pub seen_at: String,
    /// Partitions that it holds, of all stages.
    pub leases: u64,
}

/// This host, as the others see it.
#[derive(Clone, Debug)]
pub struct Member {
    pub host: HostId,
    pub version: &'static str,
    pub url: String,
}

/// Reads and writes the roll. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hosts {
    pool: Pool,
}

impl Hosts {
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Writes down that a process of this name starts. Whatever leases the name still has are free from now on.
    pub async fn enter(&self, member: &Member) -> Result<(), LogError> {
        sqlx::query("SELECT tidemill.enter($1, $2, $3, $4)")
            .bind(&*member.host.0)
            .bind(member.version)
            .bind(&member.url)
            .bind(LEASE_TTL)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Renews the host and every lease that it holds.
    pub async fn beat(&self, member: &Member, stages: &Stages) -> Result<(), LogError> {
        sqlx::query("SELECT tidemill.beat($1, $2, $3, $4, $5)")
            .bind(&*member.host.0)
            .bind(member.version)
            .bind(&member.url)
            .bind(Json(stages))
            .bind(LEASE_TTL)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Gives back the host's lease on a slot, if it has one.
    pub async fn free(&self, member: &Member, slot: &Slot) -> Result<(), LogError> {
        sqlx::query(
            "WITH stage AS (
                 UPDATE tidemill.consumer_offsets SET owner = NULL, expires_at = NULL
                  WHERE owner = $1 AND stage = $2 AND partition = $3)
             UPDATE tidemill.sources SET owner = NULL, expires_at = NULL
              WHERE owner = $1 AND pipeline || '/' || stage = $2 AND $3 = 0",
        )
        .bind(&*member.host.0)
        .bind(&slot.stage)
        .bind(slot.partition.cast_signed())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Tells the other hosts to look again. Lost, it costs them up to one look's wait.
    pub async fn tell(&self) -> Result<(), LogError> {
        sqlx::query("SELECT pg_notify($1, '')").bind(HOSTS).execute(&self.pool).await?;
        Ok(())
    }

    /// Who is there now.
    pub async fn roll(&self) -> Result<Roll, LogError> {
        let hosts: Vec<(String, Json<Stages>)> =
            sqlx::query_as("SELECT host_id, stages FROM tidemill.hosts WHERE expires_at > clock_timestamp()")
                .fetch_all(&self.pool)
                .await?;
        let held: Vec<(String, i32, String)> =
            sqlx::query_as("SELECT stage, partition, owner FROM tidemill.leases")
                .fetch_all(&self.pool)
                .await?;
        let id = |name: String| HostId(name.into());
        Ok(Roll {
            hosts: hosts.into_iter().map(|(host, Json(stages))| (id(host), stages)).collect(),
            held: held
                .into_iter()
                .map(|(stage, partition, owner)| {
                    (Slot { stage, partition: partition.cast_unsigned() }, id(owner))
                })
                .collect(),
        })
    }

    /// The hosts that are there, by name.
    pub async fn list(&self) -> Result<Vec<HostView>, LogError> {
        let rows: Vec<(String, String, Option<String>, Micros, Micros, i64)> = sqlx::query_as(
            "SELECT h.host_id, h.version, h.url, tidemill.micros(h.started_at),
                    tidemill.micros(h.seen_at),
                    (SELECT count(*) FROM tidemill.leases l WHERE l.owner = h.host_id)
               FROM tidemill.hosts h WHERE h.expires_at > clock_timestamp() ORDER BY h.host_id",
        )
        .fetch_all(&self.pool)
        .await?;
        let view = |(host, version, url, started_at, seen_at, leases): (_, _, _, _, _, i64)| HostView {
            host,
            version,
            url,
            started_at: rfc3339(started_at),
            seen_at: rfc3339(seen_at),
            leases: leases.unsigned_abs(),
        };
        Ok(rows.into_iter().map(view).collect())
    }
}
