//! Pipelines as running tasks: a plan goes in, one task per stage and partition comes out.
//!
//! Start-up is a reload from the empty plan: [`runtime::Runtime::apply`] takes the difference between what runs and what is
//! wanted, builds everything new first, and only then stops and starts. A stage's work is in [`consume`], [`produce`] and, for
//! jobs of queues, [`work`]; what one batch led to is in [`effects`], and [`commit`] writes it with the offset in one
//! transaction. Which partitions this host runs, among several hosts, is in [`share`].
//!
//! While a stage runs it may get another component: [`watch`] sees files change, [`reload`] checks and decides, [`version`]
//! is what tasks take over between two batches through [`current`]. A candidate may run beside a stage first: [`shadow`].

pub mod backoff;
pub mod breaker;
pub mod check;
pub mod commit;
pub mod component;
pub mod consume;
pub mod current;
pub mod effects;
pub mod intake;
pub mod lint;
pub mod prepare;
pub mod produce;
pub mod reload;
pub mod runtime;
pub mod shadow;
pub mod share;
pub mod stage;
pub mod status;
pub mod supervisor;
pub mod test_run;
pub mod trial;
pub mod version;
pub mod watch;
pub mod work;
