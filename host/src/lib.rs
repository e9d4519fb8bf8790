//! Tidemill: one log in Postgres, one bucket, one host that runs WebAssembly components.
pub mod plugin;
