//! R7: a request that comes several times, at once and to several hosts, is stored once and gets one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use futures::FutureExt;
use futures::future::{join_all, try_join_all};
use tokio::time::sleep;

use super::Case;
use super::judge::Witness;
use crate::cluster::host::{Host, live};
use crate::cluster::pipeline::{self, INBOUND};
use crate::cluster::{Cluster, Layout};
use crate::history::{Append, History, Item, Outcome, Part};
use crate::report::Verdict;
use crate::run::Run;
use crate::workload::{Attempt, attempt};

pub const CASE: Case = Case {
    id: "R7",
    title: "each request 1 to 5 times at once, to two hosts",
    endless: false,
    run: |run| repeats(run).boxed(),
};

const HOSTS: usize = 2;
const PRODUCERS: u32 = 4;
const REQUEST: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

async fn repeats(run: Run) -> Result<Verdict> {
    let requests = run.rounds(4_000, 200);
    let cluster = Cluster::start(&run, Layout::new(HOSTS, pipeline::text(4))).await?;
    let witness = Witness::of_pipeline(&run, &cluster);
    let copies = Arc::new(AtomicU64::new(0));

    let producers = (0..PRODUCERS).map(|number| {
        let producer = Repeater {
            number,
            hosts: cluster.hosts.clone(),
            rng: run.rng(&format!("producer {number}")),
            history: witness.history.clone(),
            copies: copies.clone(),
        };
        let requests = requests / PRODUCERS + u32::from(number < requests % PRODUCERS);
        tokio::spawn(producer.run(requests))
    });
    let wrong = try_join_all(producers).await?.concat();

    let mut verdict = Verdict::default();
    verdict.injected("requests", u64::from(requests), witness.history.appends().len() as u64);
    verdict.counted("copies of them", copies.load(Ordering::Relaxed));
    verdict.none("repeats with another answer", wrong);
    witness.judge_pipeline(&cluster, &mut verdict).await?;
    cluster.stop().await?;
    Ok(verdict)
}

struct Repeater {
    number: u32,
    hosts: Vec<Arc<Host>>,
    rng: Rng,
    history: Arc<History>,
    copies: Arc<AtomicU64>,
}

impl Repeater {
    /// Gives what was answered in two ways.
    async fn run(mut self, requests: u32) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut next = 0u32;
        for request in 0..requests {
            let count = self.rng.u32(1..=20);
            let items: Vec<Item> = (next..next + count)
                .map(|n| Item {
                    id: u64::from(self.number) << 32 | u64::from(n),
                    key: self.number * 10 + n % 7,
                    n,
                })
                .collect();
            next += count;
            let body: String = items.iter().map(|item| item.payload() + "\n").collect();
            let identity = self.identity(request);
            let copies = self.rng.usize(1..=5);
            self.copies.fetch_add(copies as u64, Ordering::Relaxed);
            let sends = (0..copies).map(|_| {
                let (rng, hosts) = (self.rng.fork(), &self.hosts);
                let (identity, body) = (&identity, &body);
                async move { until_answered(hosts, rng, identity, body).await }
            });
            let answers = join_all(sends.collect::<Vec<_>>()).await;
            let first = answers.iter().flatten().next().cloned();
            for answer in &answers {
                if *answer != first {
                    wrong.push(format!("request {request} of p{}: {first:?} and {answer:?}", self.number));
                }
            }
            let outcome = first.map_or(Outcome::Unknown, Outcome::Ok);
            self.history.append(Append { items, outcome, sent: copies as u32, at: Instant::now() });
        }
        wrong
    }

    /// Half of the producers number their requests, half give each a name.
    fn identity(&self, request: u32) -> Vec<(&'static str, String)> {
        match self.number % 2 {
            0 => vec![
                ("tidemill-producer-id", format!("p{}", self.number)),
                ("tidemill-producer-seq", request.to_string()),
            ],
            _ => vec![("idempotency-key", format!("p{}-{request}", self.number))],
        }
    }
}

/// The answer to one copy; None if there never was one.
async fn until_answered(
    hosts: &[Arc<Host>],
    mut rng: Rng,
    identity: &[(&'static str, String)],
    body: &str,
) -> Option<Vec<Part>> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        if let Some(url) = live(hosts, &mut rng).and_then(|host| host.url())
            && let Attempt::Ok(mut parts) = attempt(&url, INBOUND, identity, body, REQUEST).await
        {
            parts.sort_by_key(|part| part.partition);
            return Some(parts);
        }
        sleep(Duration::from_millis(20)).await;
    }
    None
}
