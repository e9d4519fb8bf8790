//! The checks that most cases end with: everything that was done and seen, held against everything that must hold.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::check;
use crate::cluster::Cluster;
use crate::cluster::pipeline::{INBOUND, OUTBOUND, TABLE};
use crate::cold;
use crate::history::{Append, History, Outcome, Read};
use crate::observe::{self, Tail, Watch};
use crate::report::Verdict;
use crate::run::Run;
use crate::workload::Progress;

/// Everything that looks on while a case runs.
pub struct Witness {
    pub history: Arc<History>,
    pub progress: Arc<Progress>,
    tails: Vec<(&'static str, Tail)>,
    watch: Watch,
}

impl Witness {
    /// Looks on at the standard pipeline.
    pub fn of_pipeline(run: &Run, cluster: &Cluster) -> Self {
        Self::of_topics(run, cluster, &[INBOUND, OUTBOUND])
    }

    pub fn of_topics(run: &Run, cluster: &Cluster, topics: &[&'static str]) -> Self {
        let tail = |topic: &&'static str| {
            let rng = run.rng(&format!("tail {topic}"));
            (*topic, Tail::start(cluster.hosts.clone(), topic, rng))
        };
        Self {
            history: Arc::default(),
            progress: Arc::default(),
            tails: topics.iter().map(tail).collect(),
            watch: Watch::start(cluster.server.clone()),
        }
    }

    /// Waits until all is passed on, then holds everything against everything. All hosts are expected to be up.
    pub async fn judge_pipeline(self, cluster: &Cluster, verdict: &mut Verdict) -> Result<()> {
        cluster.settle().await?;
        cluster.all_alive().await?;
        let appends = self.history.appends();
        count(&appends, verdict);
        let inbound = observe::by_sql(&cluster.server, INBOUND).await?;
        let outbound = observe::by_sql(&cluster.server, OUTBOUND).await?;
        let rows = observe::table(&cluster.server, TABLE).await?;
        let mut findings = Findings::of(&appends, &inbound);
        findings.add_log(&outbound);
        findings.lost.extend(check::missing(&inbound, &outbound));
        self.finish(cluster, &[(INBOUND, &inbound), (OUTBOUND, &outbound)], &mut findings, verdict).await?;
        findings.report(verdict);
        verdict.none("rows that are not the fold of the log", check::unfolded(&outbound, &rows));
        Ok(())
    }

    /// The same for a topic that leaves Postgres: each host reads all of it from its first offset on, out of the bucket and
    /// out of Postgres. All that was appended must have come back byte by byte.
    pub async fn judge_archived(self, cluster: &Cluster, topic: &str, verdict: &mut Verdict) -> Result<()> {
        cluster.all_alive().await?;
        let appends = self.history.appends();
        count(&appends, verdict);
        let host = cluster.hosts.first().context("a cluster has hosts")?;
        let whole = cold::whole(&cluster.server, host, topic).await?;
        let mut findings = Findings::of(&appends, &whole.log);
        self.finish(cluster, &[(topic, &whole.log)], &mut findings, verdict).await?;
        findings.report(verdict);
        verdict.none("records with other bytes than were sent", whole.altered);
        Ok(())
    }

    async fn finish(
        self,
        cluster: &Cluster,
        logs: &[(&str, &check::Log)],
        findings: &mut Findings,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let mut tailed = Vec::new();
        for (topic, tail) in self.tails {
            tailed.push((topic, tail.finish().await?));
        }
        let empty: Vec<Read> = Vec::new();
        for (topic, log) in logs {
            let tail = tailed.iter().find(|(name, _)| name == topic).map_or(&empty, |(_, reads)| reads);
            let mut ways = vec![("SQL", log.reads.clone()), ("tail", tail.clone())];
            for host in &cluster.hosts {
                ways.push(("HTTP", observe::by_http(host, topic).await?));
            }
            let ways: Vec<(&str, &[Read])> = ways.iter().map(|(way, reads)| (*way, &reads[..])).collect();
            findings.inconsistent.extend(check::inconsistent(&ways));
            findings.skipped.extend(check::skipped(tail));
            for (way, reads) in &ways[1..] {
                if !(*way == "tail" && tail.is_empty()) && reads.len() != log.reads.len() {
                    let (got, there) = (reads.len(), log.reads.len());
                    findings.skipped.push(format!("{way} read {got} of the {there} records of {topic}"));
                }
            }
        }
        let standings = self.watch.finish().await?;
        verdict.none("offsets of groups that went back", check::backwards(&standings));
        verdict.none("answers that no fault excuses", self.history.surprises());
        Ok(())
    }
}

/// How much there was of everything.
fn count(appends: &[Append], verdict: &mut Verdict) {
    let of = |which: fn(&Outcome) -> bool| {
        appends.iter().filter(|append| which(&append.outcome)).map(|append| append.items.len() as u64).sum()
    };
    verdict.counted("records acknowledged", of(|outcome| matches!(outcome, Outcome::Ok(_))));
    verdict.counted("records refused", of(|outcome| *outcome == Outcome::Fail));
    verdict.counted("records unknown", of(|outcome| *outcome == Outcome::Unknown));
    let repeated = appends.iter().filter(|append| append.sent > 1).count();
    verdict.counted("requests sent more than once", repeated as u64);
}

/// Violations, by kind.
#[derive(Default)]
struct Findings {
    lost: Vec<String>,
    aborted: Vec<String>,
    duplicated: Vec<String>,
    reordered: Vec<String>,
    holes: Vec<String>,
    inconsistent: Vec<String>,
    skipped: Vec<String>,
}

impl Findings {
    /// Of the topic that was appended to.
    fn of(appends: &[Append], log: &check::Log) -> Self {
        let mut aborted = check::aborted(appends, log);
        aborted.extend(check::invented(appends, log));
        let mut findings = Self { lost: check::lost(appends, log), aborted, ..Self::default() };
        findings.add_log(log);
        findings
    }

    fn add_log(&mut self, log: &check::Log) {
        self.duplicated.extend(check::duplicated(log));
        self.reordered.extend(check::reordered(log));
        self.holes.extend(check::holes(log));
    }

    fn report(self, verdict: &mut Verdict) {
        verdict.none("records lost", self.lost);
        verdict.none("records duplicated", self.duplicated);
        verdict.none("records reordered in their key", self.reordered);
        verdict.none("holes", self.holes);
        verdict.none("aborted or invented records read", self.aborted);
        verdict.none("places with two values", self.inconsistent);
        verdict.none("records a reader missed or got twice", self.skipped);
    }
}
