//! Tidemill: one log in Postgres, one bucket, one host that runs WebAssembly components.

pub mod cli;

pub mod app;

pub mod api;

pub mod pipeline;

pub mod letters;
pub mod queue;
pub mod state;

pub mod plugin;
pub mod registry;
pub mod tables;

pub mod query;

pub mod replay;

pub mod archive;

pub mod log;
pub mod segments;

pub mod pg;

pub mod config;

pub mod clock;
pub mod crash;
pub mod ids;
pub mod record;
