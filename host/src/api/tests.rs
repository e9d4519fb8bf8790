//! The API over real connections, on a real Postgres.

mod host;

mod asking;
mod consuming;
mod documents;
mod guarding;
mod letters;
mod plugins;
mod producing;
mod queues;
mod streaming;
mod tables;
