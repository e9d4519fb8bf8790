//! Queues: how many jobs a second are done, and how soon a job is begun, beside pgmq and graphile-worker on the same server.
//!
//! Jobs do nothing and carry a small JSON payload. Each variant gets a queue of its own with the jobs put before, and does
//! them until none is left or the time is over. Afterwards every job must have been done once, or still be there.

mod burn;
mod client;
mod delay;
mod graphile;
mod host;
mod peers;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::findings::{Bar, Findings, Row, Wanted};
use crate::rounds::interleaved;
use crate::scale::Scale;
use crate::server::Server;

pub use burn::{Burned, burn};
pub use client::{Client, Kind, Worker};
use graphile::Graphile;
pub use peers::Peers;

/// How jobs are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Statements from this process.
    Sql(Kind),
    /// A host's WASM workers.
    Host(host::Setup),
    /// A Node.js process of its own.
    Graphile(graphile::Mode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arm {
    way: Way,
    batch: usize,
    /// That take jobs at a time.
    connections: usize,
}

impl Arm {
    const fn sql(kind: Kind, batch: usize, connections: usize) -> Self {
        Self { way: Way::Sql(kind), batch, connections }
    }

    const fn host(keep: bool, batch: usize, concurrency: usize) -> Self {
        Self { way: Way::Host(host::Setup { keep, batch, concurrency }), batch, connections: concurrency }
    }

    fn name(&self) -> String {
        match self.way {
            Way::Host(setup) => setup.name(),
            Way::Sql(kind) => {
                let plural = if self.connections == 1 { "" } else { "s" };
                format!("{}, batch {}, {} connection{plural}", kind.name(), self.batch, self.connections)
            }
            Way::Graphile(mode) => mode.name().to_owned(),
        }
    }
}

const PGMQ: Kind = Kind::Pgmq { archive: false };
const PGMQ_ARCHIVE: Kind = Kind::Pgmq { archive: true };
const OURS: Kind = Kind::Tidemill { keep: false, relaxed: true };
const OURS_FULL: Kind = Kind::Tidemill { keep: false, relaxed: false };
const OURS_KEPT: Kind = Kind::Tidemill { keep: true, relaxed: true };

pub async fn run(server: &Server, scale: &Scale) -> Result<Findings> {
    let peers = Peers::look(server).await?;
    let mut findings = throughput(server, scale, &peers).await?;
    findings.extend(delay::run(server, scale, &peers).await?);
    if let Some(row) = findings.rows.first_mut() {
        row.note = peers.missing();
    }
    Ok(findings)
}

fn arms(peers: &Peers) -> Vec<Arm> {
    let mut arms = Vec::new();
    for (batch, connections) in [(1, 1), (1, 8), (100, 4), (1_000, 4)] {
        arms.extend([OURS, OURS_FULL, OURS_KEPT].map(|kind| Arm::sql(kind, batch, connections)));
        if peers.pgmq {
            arms.extend([PGMQ, PGMQ_ARCHIVE].map(|kind| Arm::sql(kind, batch, connections)));
        }
    }
    arms.extend(
        [(false, 1, 8), (true, 1, 8), (false, 100, 4), (true, 100, 4), (false, 1_000, 4)]
            .map(|(keep, batch, calls)| Arm::host(keep, batch, calls)),
    );
    if peers.graphile.is_some() {
        arms.extend(graphile::Mode::ALL.map(|mode| Arm {
            way: Way::Graphile(mode),
            batch: mode.batch(),
            connections: 1,
        }));
    }
    arms
}

async fn throughput(server: &Server, scale: &Scale, peers: &Peers) -> Result<Findings> {
    let arms = arms(peers);
    let samples = interleaved(&arms, scale.rounds, async |arm| {
        let jobs = if arm.batch == 1 { scale.single_jobs } else { scale.batched_jobs };
        let limit = scale.burning;
        let done = match arm.way {
            Way::Sql(kind) => one(server, *arm, kind, jobs, limit).await,
            Way::Host(setup) => host::burn(server, setup, jobs, limit).await,
            Way::Graphile(mode) => match &peers.graphile {
                Some(graphile) => graphile.burn(server, mode, jobs, limit).await,
                None => Err(anyhow::anyhow!("graphile-worker is not there")),
            },
        };
        done.with_context(|| arm.name())
    })
    .await?;
    let rows: Vec<Row> =
        arms.iter().zip(&samples).map(|(arm, samples)| Row::rate("queue", arm.name(), samples)).collect();
    let of = |way: Way, batch, connections| {
        let place = arms.iter().position(|arm| *arm == Arm { way, batch, connections })?;
        Some(rows[place].values.clone())
    };
    let mut bars = Vec::new();
    let mut bar = |name, ours: Option<Vec<f64>>, theirs: Option<Vec<f64>>| {
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            bars.push(Bar::ratio(name, Wanted::AtLeast(3.0), &ours, &theirs));
        }
    };
    let sql = |kind, batch, connections| of(Way::Sql(kind), batch, connections);
    let host =
        |keep, batch, calls| of(Way::Host(host::Setup { keep, batch, concurrency: calls }), batch, calls);
    let graphile = |mode: graphile::Mode| of(Way::Graphile(mode), mode.batch(), 1);
    bar("queue, by SQL, batch 100: to pgmq, deleted", sql(OURS, 100, 4), sql(PGMQ, 100, 4));
    bar("queue, by SQL, batch 100: to pgmq, archived", sql(OURS_KEPT, 100, 4), sql(PGMQ_ARCHIVE, 100, 4));
    bar("queue, by SQL, batch 1,000: to pgmq, deleted", sql(OURS, 1_000, 4), sql(PGMQ, 1_000, 4));
    bar(
        "queue, by SQL, batch 1,000: to pgmq, archived",
        sql(OURS_KEPT, 1_000, 4),
        sql(PGMQ_ARCHIVE, 1_000, 4),
    );
    bar("queue, by SQL, batch 1, 8 connections: to pgmq, deleted", sql(OURS, 1, 8), sql(PGMQ, 1, 8));
    bar("queue, a host, batch 1: to pgmq, deleted", host(false, 1, 8), sql(PGMQ, 1, 8));
    bar("queue, a host, batch 1: to pgmq, archived", host(true, 1, 8), sql(PGMQ_ARCHIVE, 1, 8));
    bar(
        "queue, a host, batch 1: to graphile-worker, as it comes",
        host(false, 1, 8),
        graphile(graphile::Mode::Default),
    );
    bar(
        "queue, a host, batch 1: to graphile-worker, 8 at a time",
        host(false, 1, 8),
        graphile(graphile::Mode::Eight),
    );
    bar("queue, a host, batch 100: to pgmq, deleted", host(false, 100, 4), sql(PGMQ, 100, 4));
    bar("queue, a host, batch 1,000: to pgmq, deleted", host(false, 1_000, 4), sql(PGMQ, 1_000, 4));
    bar(
        "queue, a host, batch 100: to graphile-worker, batched",
        host(false, 100, 4),
        graphile(graphile::Mode::Batched),
    );
    Ok(Findings { rows, bars })
}

async fn one(
    server: &Server,
    arm: Arm,
    kind: Kind,
    jobs: usize,
    limit: Duration,
) -> Result<crate::meter::Sample> {
    let client = Client::create(server, kind).await?;
    client.put(server, jobs).await?;
    client.settle(server).await?;
    let burned = burn(server, &client, arm.batch, arm.connections, limit).await?;
    burned.check(server, &client, jobs).await?;
    client.remove(server).await?;
    Ok(burned.sample)
}
