//! The host from outside: a real process, a real Postgres, real components, HTTP over a real socket.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test may stop at the first surprise, and say why"
)]

mod aircraft;
mod archive;
mod bad_input;
mod bombs;
mod cutter;
mod failover;
mod files;
mod full;
mod hosts;
mod languages;
mod letters;
mod marked;
mod neighbours;
mod outside;
mod plugin_cli;
mod pooler;
mod query;
mod queues;
mod refusals;
mod shadows;
mod support;
mod swaps;
mod tidy;
mod windows;
mod workers;
