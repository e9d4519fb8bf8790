//! R19: the storm of R1, shorter, with pgbouncer in transaction mode as the only way to Postgres: no session can be relied on,
//! nobody listens, and what hosts find out about each other they find out by asking.

use anyhow::Result;
use futures::FutureExt;

use super::Case;
use super::r1::{HOSTS, storm_on};
use crate::cluster::{Layout, pipeline, pooler};
use crate::report::Verdict;
use crate::run::Run;

pub const CASE: Case = Case {
    id: "R19",
    title: "the storm through pgbouncer in transaction mode",
    endless: false,
    run: |run| pooled(run).boxed(),
};

async fn pooled(run: Run) -> Result<Verdict> {
    if pooler::program().is_none() {
        return Ok(Verdict::skipped("there is no pgbouncer (scripts/setup.sh pgbouncer)"));
    }
    let layout = Layout {
        pooled: true,
        arguments: vec!["--pooler".to_owned()],
        ..Layout::new(HOSTS, pipeline::text(4))
    };
    storm_on(&run, layout, u64::from(run.size(20_000, 1_500)), run.rounds(20, 3)).await
}
