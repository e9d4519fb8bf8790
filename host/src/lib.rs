//! Tidemill: one log in Postgres, one bucket, one host that runs WebAssembly components.
//!
//! The modules are layers, and arrows point down only (`tests/it/tidy.rs` holds them):
//!
//! | module | one responsibility |
//! | --- | --- |
//! | [`cli`] | arguments, output, exit codes |
//! | [`app`] | composition root: builds components in order, owns shutdown |
//! | [`api`] | HTTP routes, server-sent events, the embedded web page |
//! | [`pipeline`] | plan -> tasks: stage loops, supervisor, reload as a diff of two plans |
//! | [`plugin`] | the wasmtime engine: load, check, instantiate, call under limits; knows no SQL |
//! | [`tables`] | tables that materializers keep: create, apply changes, snapshot and tail |
//! | [`replay`] | the one reader of a topic, whichever tier holds the offsets |
//! | [`log`] | append, fetch, offsets and leases of consumer groups |
//! | [`segments`] | catalog and DDL of time partitions: create ahead, seal, drop |
//! | [`pg`] | pool, migrations, wake-ups, the embedded server |
//! | [`config`] | TOML -> validated plan; the difference of two plans |
//! | [`ids`], [`record`], [`clock`] | the vocabulary |

pub mod cli;
pub mod config;

pub mod clock;
pub mod ids;
pub mod record;
