//! The cases: one file each, one entry each in [`ALL`].

use anyhow::Result;
use futures::future::BoxFuture;

use crate::report::Verdict;
use crate::run::Run;

mod judge;
mod r1;
mod r2;
mod r3;
mod r5;
mod r7;

/// One row of the table.
pub struct Case {
    /// As in `docs/reliability.md`.
    pub id: &'static str,
    pub title: &'static str,
    pub run: fn(Run) -> BoxFuture<'static, Result<Verdict>>,
}

/// In the order in which they are run.
pub const ALL: &[Case] = &[r1::CASE, r2::CASE, r3::CASE, r5::CASE, r7::CASE];
