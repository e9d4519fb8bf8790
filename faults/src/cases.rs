//! The cases: one file each, one entry each in [`ALL`].

use anyhow::Result;
use futures::future::BoxFuture;

use crate::report::Verdict;
use crate::run::Run;

mod fleet;
mod judge;
mod leases;
mod r1;
mod r11;
mod r12;
mod r13;
mod r14;
mod r15;
mod r18;
mod r19;
mod r2;
mod r20;
mod r21;
mod r3;
mod r4;
mod r5;
mod r6;
mod r7;
mod r8;
mod r9;
mod storm;

/// One row of the table.
pub struct Case {
    /// As in `docs/reliability.md`.
    pub id: &'static str,
    pub title: &'static str,
    /// Has no end of its own: only run when it is named, or when it is said how long.
    pub endless: bool,
    pub run: fn(Run) -> BoxFuture<'static, Result<Verdict>>,
}

/// In the order in which they are run.
pub const ALL: &[Case] = &[
    r1::CASE,
    r2::CASE,
    r3::CASE,
    r4::CASE,
    r5::CASE,
    r6::CASE,
    r7::CASE,
    r8::CASE,
    r9::CASE,
    r11::CASE,
    r12::CASE,
    r13::CASE,
    r14::CASE,
    r15::CASE,
    r18::CASE,
    r19::CASE,
    r20::CASE,
    r21::CASE,
    fleet::CASE,
    storm::CASE,
];
