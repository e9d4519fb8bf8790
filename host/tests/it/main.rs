//! The host from outside: a real process, a real Postgres, real components, HTTP over a real socket.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test may stop at the first surprise, and say why"
)]

mod aircraft;
mod archive;
mod bad_input;
mod files;
mod languages;
mod marked;
mod outside;
mod query;
mod refusals;
mod support;
mod swaps;
mod tidy;
mod windows;
