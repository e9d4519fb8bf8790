//! Decisions about versions, as Postgres takes them.
