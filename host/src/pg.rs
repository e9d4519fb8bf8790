//! Postgres as a process and as a connection; what the tables mean is the business of the modules above.
//!
//! Reading order:
//! * [`datadir`]: the host's own folder, held by one process at a time
//! * [`embedded`]: the server that the host runs when it is given no database URL
//! * [`pool`]: connecting, with errors a person can act on, and URLs that may be printed
//! * [`durability`]: whether a commit on this server survives a crash
//! * [`migrate`]: the schema, brought up to date at start
//! * [`notify`]: waking readers, in this process and in others
//! * [`testing`]: a real server for tests, one database each

pub mod datadir;
pub mod durability;
pub mod embedded;
pub mod migrate;
pub mod notify;
pub mod pool;
#[doc(hidden)]
pub mod testing;
