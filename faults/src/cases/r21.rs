//! R21: a host that leaves hands over, and one that is killed is replaced within its lease.
//!
//! In turn, and under load, the host that holds the most is told to stop, or is killed, and comes back only after others hold
//! all that it held.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::FutureExt;
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use super::leases::{holder, taken_over};
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::report::{Verdict, Wanted};
use crate::run::Run;
use crate::workload::{Load, produce};

pub const CASE: Case = Case {
    id: "R21",
    title: "hosts stopped in order, and killed for good",
    endless: false,
    run: |run| leave(run).boxed(),
};

const HOSTS: usize = 3;
const PRODUCERS: u32 = 4;
const RATE: f64 = 100.0;
/// From SIGTERM until others hold everything, and until the process has ended.
const HANDOVER: f64 = 2.0;
const DRAINED: f64 = 5.0;
/// From kill -9 until others hold everything; leases last 7 s.
const TAKEOVER: f64 = 10.0;

async fn leave(run: Run) -> Result<Verdict> {
    let rounds = run.rounds(20, 1);
    let cluster = Cluster::start(&run, Layout::new(HOSTS, pipeline::text(4))).await?;
    let witness = Witness::of_pipeline(&run, &cluster);
    let load = Load { rate: Some(RATE), batch: 1..=10, ..Load::endless(INBOUND, PRODUCERS) };

    let producing = produce(&run, &cluster.hosts, &load, &witness.history, &witness.progress);
    let leaving = async {
        let left = leave_in_turn(&run, &cluster, rounds).await;
        witness.progress.finish();
        left
    };
    let ((), left) = tokio::try_join!(producing, leaving)?;

    let mut verdict = Verdict::default();
    verdict.injected("hosts stopped in order", u64::from(rounds.div_ceil(2)), left.stopped);
    verdict.injected("hosts killed", u64::from(rounds / 2), left.killed);
    verdict.figure("slowest handover (s)", Wanted::AtMost(HANDOVER), left.handover.as_secs_f64());
    verdict.figure("slowest to end (s)", Wanted::AtMost(DRAINED), left.drained.as_secs_f64());
    verdict.figure("slowest takeover (s)", Wanted::AtMost(TAKEOVER), left.takeover.as_secs_f64());
    verdict.none("ends that were no success", left.failed);
    witness.judge_pipeline(&cluster, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

#[derive(Default)]
struct Left {
    stopped: u64,
    killed: u64,
    handover: Duration,
    drained: Duration,
    takeover: Duration,
    failed: Vec<String>,
}

async fn leave_in_turn(run: &Run, cluster: &Cluster, rounds: u32) -> Result<Left> {
    let mut rng = run.rng("leavers");
    let mut left = Left::default();
    for round in 0..rounds {
        sleep(Duration::from_millis(rng.u64(500..2_000))).await;
        let (number, held) = holder(cluster).await?;
        let host = &cluster.hosts[number];
        let since = Instant::now();
        if round % 2 == 0 {
            let stopping = async {
                let status = host.stop().await?;
                Ok::<_, anyhow::Error>((status, since.elapsed()))
            };
            let (_, (status, drained)) = tokio::try_join!(
                async {
                    taken_over(cluster, &held, since).await?;
                    left.handover = left.handover.max(since.elapsed());
                    Ok(())
                },
                stopping
            )?;
            left.drained = left.drained.max(drained);
            left.stopped += 1;
            if !status.success() {
                left.failed.push(format!("{} ended with {status}", host.name()));
            }
        } else {
            host.kill().await?;
            taken_over(cluster, &held, since).await?;
            left.takeover = left.takeover.max(since.elapsed());
            left.killed += 1;
        }
        host.start().await?;
    }
    Ok(left)
}
