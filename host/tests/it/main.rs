//! The host from outside: a real process, a real Postgres, real components, HTTP over a real socket.

mod aircraft;
mod bad_input;
mod files;
mod query;
mod support;
mod tidy;
